"""A study, from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from offramp import device as devices
from offramp.store.results import StrategyResult, by_strategy
from offramp.store.store import Store
from offramp.study.plan.collection import Member, check_data, members, plans
from offramp.study.plan.limits import cache_folder
from offramp.study.plan.plan import Plan
from offramp.study.plan.workers import suited
from offramp.study.run.events import Event, Failed
from offramp.study.run.pool import run_pooled
from offramp.study.run.run import Conduct
from offramp.study.spec import models as spec
from offramp.study.spec.models import Study


@dataclass(frozen=True)
class Results:
    """What `run` returns. trials: ids in `store`.  lines: a strategy each, as in the printed table.
    failed: reasons by the key of the node that failed.  studies: of a file that lists several, what
    each came to, by its path; the rest is then of all, in the order of the list."""

    store: Store
    trials: tuple[str, ...]
    lines: tuple[StrategyResult, ...]
    failed: Mapping[str, str]
    studies: Mapping[str, Results] = field(default_factory=dict)


def run(
    study: str | Path | Mapping[str, Any] | Study,
    store: str | Path = "runs",
    *,
    workers: int | Literal["auto"] = 1,
    watch: Callable[[Event], None] | None = None,
) -> Results:
    """Run a study (a file's path, a mapping as in a file, or a `Study`), as `offramp run` does; of a
    file that lists studies, one after another.

    workers: processes, or as many as suit this machine and the study. Where there are several, Python
    starts them by reading the calling script again, which therefore needs `if __name__ == "__main__":`.

    What fails is in `failed`; everything else has gone on. Raises OfframpError for input that cannot
    work.
    """
    if isinstance(study, (str, Path)):
        asked = members(Path(study))
    else:
        asked = (Member(Path(), study if isinstance(study, Study) else spec.parse(study)),)
    if len(asked) > 1:
        check_data([member.study for member in asked])
    kept = Store(Path(store))
    made = plans([member.study for member in asked])
    found = [_run(plan, kept, workers, watch) for plan in made]
    if len(found) == 1:
        return found[0]
    trials = tuple(dict.fromkeys(trial for one in found for trial in one.trials))
    failed = {key: reason for one in found for key, reason in one.failed.items()}
    studies = {str(member.path): one for member, one in zip(asked, found, strict=True)}
    return Results(kept, trials, tuple(line for one in found for line in one.lines), failed, studies)


def _run(
    plan: Plan,
    store: Store,
    workers: int | Literal["auto"],
    watch: Callable[[Event], None] | None,
) -> Results:
    device = devices.chosen()
    count = suited(plan, store, device).count if workers == "auto" else workers
    failed: dict[str, str] = {}
    conduct = Conduct(device, cache_folder(), workers=count)
    with closing(run_pooled(plan, store, conduct)) as events:
        for event in events:
            if watch is not None:
                watch(event)
            if isinstance(event, Failed):
                failed[event.key] = event.reason
    done = tuple(t.id for t in plan.trials if store.has_trial(t.id))
    return Results(store, done, tuple(by_strategy(store, done)), failed)
