"""Training into a store that is watched."""

from __future__ import annotations

from pathlib import Path

from offramp.store.store import Store
from offramp.study.run.events import Epoch
from offramp.study.run.run import Conduct, run
from support import CPU, tiny_plan, tiny_study


def finish(kept: Store, folder: Path, first_epoch: bool = False) -> None:
    """Train what is missing; `first_epoch` stops after one, which is saved."""
    plan = tiny_plan(tiny_study(["baseline", "two-stage"]))
    events = run(plan, kept, Conduct(CPU, folder / "caches", checkpoint_seconds=0))
    for event in events:
        if first_epoch and isinstance(event, Epoch):
            events.close()
            return
