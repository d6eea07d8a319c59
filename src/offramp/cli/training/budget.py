"""A study, made smaller to fit a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from offramp.cli.progress.reading import reading_shown
from offramp.cli.training.run_options import RunOptions
from offramp.cli.training.study import start
from offramp.units import duration, macs

if TYPE_CHECKING:
    from offramp.study.plan.plan import Plan
    from offramp.study.spec.file import StudyFile
    from offramp.study.spec.models import Study


def start_one(file: StudyFile, budget: str | None, study: Study, how: RunOptions) -> None:
    """Run the study of a file, made smaller to fit a budget, where one is given."""
    from offramp import units
    from offramp.study.plan.forecast import measured
    from offramp.study.plan.plan import make_plan

    if budget is not None:
        seconds = units.parse(budget, units.TIME, "--budget")
        with reading_shown(how.log):
            plan = make_plan(study, how.device, provisional=how.dry_run)
        how = replace(how, here=measured(plan, how.device))
        chosen, weak = fitting(plan, seconds, budget, how)
        how = replace(how, unreliable=weak, fits=chosen)
        study = file.study(chosen).by_split[0]
    start(study, how)


def fitting(
    plan: Plan,
    seconds: float,
    words: str,
    how: RunOptions,
    batch_size: Callable[[int], int] | None = None,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Settings with which the study fits, and why the time is too short, if it is. Both are logged.
    batch_size: as in `too_short`."""
    from offramp.policy.useful import check
    from offramp.study.plan.budget import choose, too_short
    from offramp.study.plan.forecast import measured

    speed = how.here or measured(plan, how.device)
    chosen = choose(plan, seconds * speed)
    about = f"about {duration(chosen.macs / speed)} here, at {macs(speed)}MAC/s"
    flags = " ".join(f"--set {setting}" for setting in chosen.settings)
    means = f"the same as {flags}" if flags else "all of it fits"
    how.log.say(f"--budget {words}: {means}; {about}.", must=True)
    short = too_short(plan, seconds * speed, batch_size)
    weak = () if short is None else (_said(*short, speed, words),)
    if weak and not how.dry_run:
        check(weak, how.anyway)
    for reason in weak:
        how.log.say(f"Unreliable: {reason}.", must=True)
    return chosen.settings, weak


def _said(leaves: str, needed: float, speed: float, words: str) -> str:
    """needed: MACs that would do.  speed: MACs a second."""
    return (
        f"--budget {words} is too short: it leaves {leaves}; give about {duration(needed / speed)}, "
        "or take fewer strategies or seeds"
    )
