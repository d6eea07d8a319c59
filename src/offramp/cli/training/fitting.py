"""A study, made smaller to fit a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from offramp.cli.progress.reading import reading_shown
from offramp.cli.training.how import How
from offramp.cli.training.one import start
from offramp.units import duration, macs

if TYPE_CHECKING:
    from offramp.study.plan.plan import Plan
    from offramp.study.spec.models import Study


def start_one(
    path: Path,
    settings: Sequence[str],
    data_root: Path | None,
    budget: str | None,
    study: Study,
    how: How,
) -> None:
    """Run one study, made smaller to fit a budget, where one is given."""
    from offramp import units
    from offramp.study.plan.forecast import measured
    from offramp.study.plan.plan import make_plan
    from offramp.study.spec.file import members

    if budget is not None:
        seconds = units.parse(budget, units.TIME, "--budget")
        with reading_shown(how.log):
            plan = make_plan(study, how.device, provisional=how.dry_run)
        how = replace(how, here=measured(plan, how.device))
        chosen, weak = fitting(plan, seconds, budget, how)
        how = replace(how, unreliable=weak, fits=chosen)
        study = members(path, [*settings, *chosen], data_root)[0].study
    start(study, how)


def fitting(plan: Plan, seconds: float, words: str, how: How) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Settings with which the study fits, and why the time is too short, if it is. Both are logged."""
    from offramp.policy.useful import check
    from offramp.study.plan.budget import choose
    from offramp.study.plan.forecast import measured

    speed = how.here or measured(plan, how.device)
    chosen = choose(plan, seconds * speed)
    about = f"about {duration(chosen.macs / speed)} here, at {macs(speed)}MAC/s"
    flags = " ".join(f"--set {setting}" for setting in chosen.settings)
    means = f"the same as {flags}" if flags else "all of it fits"
    how.log.say(f"--budget {words}: {means}; {about}.", must=True)
    weak = _short(plan, seconds * speed, speed, words)
    if weak and not how.dry_run:
        check(weak, how.anyway)
    for reason in weak:
        how.log.say(f"Unreliable: {reason}.", must=True)
    return chosen.settings, weak


def _short(plan: Plan, budget: float, speed: float, words: str) -> tuple[str, ...]:
    """Why a budget, in MACs, is too short to learn, and what is enough; empty where it is not. speed: in
    MACs a second."""
    from offramp.study.plan.budget import too_short

    found = too_short(plan, budget)
    if found is None:
        return ()
    said, needed = found
    return (
        f"--budget {words} is too short: it leaves {said}; give about {duration(needed / speed)}, "
        "or take fewer strategies or seeds",
    )
