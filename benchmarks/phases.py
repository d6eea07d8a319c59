"""A plan run in a store of its own that goes again, for the time of its phases."""

from __future__ import annotations

import math
import tempfile
from contextlib import closing
from pathlib import Path

from offramp import device as devices
from offramp.store.store import Store
from offramp.study.plan.plan import Plan
from offramp.study.run.events import Failed, Finished
from offramp.study.run.run import Conduct, run


def trained(plan: Plan, answers: bool = False) -> dict[str, float]:
    """Seconds of each phase by key, by the engine's own clock, without checkpoints.

    answers: whether the finished networks' logits are made as well. Raises RuntimeError where a phase
    fails.
    """
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
        store = Store(Path(folder) / "store")
        conduct = Conduct(devices.chosen(), Path(folder) / "cache", checkpoint_seconds=math.inf)
        with closing(run(plan, store, conduct)) as events:
            for event in events:
                if isinstance(event, Failed):
                    raise RuntimeError(event.reason)
                if isinstance(event, Finished):
                    seconds[event.key] = event.seconds
                if len(seconds) == len(plan.nodes) and not answers:
                    break
    return seconds
