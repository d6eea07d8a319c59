"""Training into a store that is watched."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from offramp.store.store import Store
from offramp.study.run.events import Epoch, GroupStarted
from offramp.study.run.run import RunConfig, run
from support import CPU, tiny_plan, tiny_study


def finish(store: Store, folder: Path, first_epoch: bool = False) -> None:
    """Train what is missing; `first_epoch` stops after one, which is saved."""
    plan = tiny_plan(tiny_study(["baseline", "two-stage"]))
    events = run(plan, store, RunConfig(CPU, folder / "caches", checkpoint_seconds=0))
    for event in events:
        if first_epoch and isinstance(event, Epoch):
            events.close()
            return


@contextmanager
def at_epoch_zero(store: Store, folder: Path) -> Iterator[None]:
    """While the heads of two-stage are at work and have saved nothing."""
    plan = tiny_plan(tiny_study(["baseline", "two-stage"]))
    with closing(run(plan, store, RunConfig(CPU, folder / "caches"))) as events:
        while not isinstance(event := next(events), GroupStarted) or len(event.keys) < 3:
            pass
        yield
