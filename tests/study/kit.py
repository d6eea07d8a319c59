"""What the tests of runs share: fingerprints of stores, and processes that can be killed."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from forks import Forked, forked
from offramp.store import sealed
from offramp.store.archive import NODE, TRIAL
from offramp.store.store import Store
from offramp.study.plan.plan import Plan
from offramp.study.run.events import Event, Failed, Finished, GroupStarted, Note, Reused, TrialDone
from offramp.study.run.run import RunConfig, run
from support import CPU

# Small, and with everything: a shared trunk, heads that are fused, a phase that builds on another.
STRATEGIES = ("two-stage", "joint-branch")


def hashes(store: Store) -> dict[str, str]:
    """SHA-256 of the weights of every node and of the logits of every trial."""
    files = dict.fromkeys(store.nodes(), (NODE, "weights.safetensors"))
    files |= dict.fromkeys(store.trials(), (TRIAL, "logits.npz"))
    read = partial(sealed.content, store.archive.files)
    return {name: sha256(read(kind, name, file)).hexdigest() for name, (kind, file) in files.items()}


def histories(store: Store) -> dict[str, pd.DataFrame]:
    return {key: store.node_history(key) for key in store.nodes()}


def check_equal(first: Store, other: Store) -> None:
    """The same nodes, weights, logits and histories, to the bit."""
    assert hashes(first) == hashes(other)
    mine, theirs = histories(first), histories(other)
    for key in mine:
        pd.testing.assert_frame_equal(mine[key], theirs[key], check_exact=True)


def check_sound(store: Store) -> None:
    """Every node and trial is whole, and nothing else lies about but checkpoints."""
    for key in store.nodes():
        store.verify_node(key)
    for trial in store.trials():
        store.read_trial(trial)
        store.trial_logits(trial)
    assert not list(store.root.glob("nodes/.*")) + list(store.root.glob("trials/.*"))


def check_tidy(store: Store) -> None:
    """Nothing is left over from training: no checkpoint, no staging, no cache."""
    for folder in ("work", "staging", "caches", "plans"):
        assert not list((store.root / folder).rglob("*")), folder


def conduct(store: Path, **more: Any) -> RunConfig:
    return RunConfig(CPU, store / "caches", **more)


def locks_free(plan: Plan, store: Store) -> bool:
    for name in (*plan.nodes, *(t.id for t in plan.trials)):
        lock = store.try_lock(name)
        if lock is None:
            return False
        lock.release()
    return True


def finish(plan: Plan, root: Path, **more: Any) -> tuple[Store, list[Event]]:
    """Run to the end with a new view of the store, as a later process would."""
    store = Store(root)
    return store, list(run(plan, store, conduct(root, **more)))


def began(events: Sequence[Event]) -> list[str]:
    return [key for e in events if isinstance(e, GroupStarted) for key in e.keys]


def trained(events: Sequence[Event]) -> list[str]:
    return [e.key for e in events if isinstance(e, Finished)]


def reused(events: Sequence[Event]) -> set[str]:
    return {e.key for e in events if isinstance(e, Reused)}


def failed(events: Sequence[Event]) -> dict[str, str]:
    return {e.key: e.reason for e in events if isinstance(e, Failed)}


def notes(events: Sequence[Event]) -> list[str]:
    return [e.text for e in events if isinstance(e, Note)]


def closed(events: Sequence[Event]) -> dict[str, bool]:
    """Trials that are there, and whether they were before."""
    return {e.trial: e.reused for e in events if isinstance(e, TrialDone)}


def helper() -> Forked:
    """A process that waits for orders; `with` it ends it."""
    return forked("import child; child.main()")


def start(process: Forked, root: Path, study: Mapping[str, Any], **more: Any) -> None:
    """Have a tiny study run by a fork of `process` (see `child.py` for what `more` says)."""
    order = {"store": str(root), "study": dict(study), **more}
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()


def next_line(process: Forked) -> list[Any]:
    """The next thing that the process says: `[kind, keys]` of an event, or `["Ended", status]`."""
    line: list[Any] = json.loads(process.stdout.readline())
    return line


def end(process: Forked) -> tuple[int, list[list[Any]]]:
    """The status with which the run ended (negative: the signal that ended it), and what it said."""
    lines = []
    while (line := next_line(process))[0] != "Ended":
        lines.append(line)
    return line[1], lines
