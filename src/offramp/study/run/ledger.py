"""What of a plan is in the store, what failed, and what is left to do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from offramp.engine.resolve import Node
from offramp.errors import in_line
from offramp.hashing import plain
from offramp.store.manifest import DataProvenance
from offramp.store.store import Damaged, Store
from offramp.study.plan.plan import Plan, Trial
from offramp.study.run import events, trials


@dataclass(frozen=True)
class Failures:
    """Why nodes failed, by key: a file for each, so that processes that share the folder know at once.
    Several may write the same key."""

    folder: Path

    def __setitem__(self, key: str, reason: str) -> None:
        new = self.folder / f"{key}.{os.getpid()}.new"
        new.write_text(reason, encoding="utf-8", errors="surrogatepass")
        new.replace(self.folder / key)

    def __getitem__(self, key: str) -> str:
        return (self.folder / key).read_text(encoding="utf-8", errors="surrogatepass")

    def __contains__(self, key: str) -> bool:
        return (self.folder / key).exists()

    def keys(self) -> Set[str]:
        return {path.name for path in self.folder.iterdir() if not path.suffix}


def reason_of(error: Exception) -> str:
    """Why a phase fails, in one line."""
    reason = in_line(error, 2000)
    operation, lacks, _ = reason.partition(" does not have a deterministic implementation")
    if not lacks:
        return reason
    # Torch says how to allow it, which no profile does.
    return (
        f"{operation} has no deterministic kernel on this device; train on the CPU, or change that "
        "layer, such as AdaptiveAvgPool2d to AvgPool2d"
    )


@dataclass(frozen=True)
class Ledger:
    """What one process knows of a plan so far."""

    plan: Plan
    store: Store
    failed: Failures  # why nodes failed, by key
    done: set[str] = field(default_factory=set)  # keys of nodes in the store

    def begin(self, with_trials: bool = True) -> Iterator[events.Event]:
        """Say in the store what its trials will need, and take in what it holds already, every byte
        checked; a damaged node is named and made anew, and classes are called as the data call them."""
        for trial in self.plan.trials if with_trials else ():
            if self.store.has_trial(trial.id):
                yield from self._call_classes(trial.id)
            else:
                self.store.plan_trial(trial.id, trial.keys, trials.planned(self.plan, trial))
        for key in self.plan.nodes:
            if self.store.has_node(key, whole=False):
                yield from self.check(key)

    def _call_classes(self, trial: str) -> Iterator[events.Event]:
        """Have the record of a finished trial name its classes as the data do by now: names change no
        training, so they are in no id."""
        data = self.plan.data
        with suppress(Damaged):  # whoever reads it says so
            manifest = self.store.read_trial(trial)
            if manifest.classes == data.classes:
                return
            read = DataProvenance(**plain(data.provenance))  # its remarks name classes too
            record = manifest.data.model_copy(update={"provenance": read})
            manifest = manifest.model_copy(update={"classes": data.classes, "data": record})
            self.store.write_trial(trial, manifest, self.store.trial_logits(trial))
            yield events.Note(f"the classes of trial {trial} have other names now, and so in its record")

    def open(self) -> list[Node]:
        """The nodes that are neither done nor failed."""
        settled = self.done | self.failed.keys()
        return [node for node in self.plan.nodes.values() if node.key not in settled]

    def check(self, key: str) -> Iterator[events.Event]:
        """Take in a node that the store holds, if it is whole."""
        if trials.damage(self.store.verify_node, key) is not None:
            lock = self.store.try_lock(key)
            if lock is None:  # another process makes it anew
                return
            with lock:
                # Or has done so, before the lock was free.
                damage = trials.damage(self.store.verify_node, key)
                if damage is not None:
                    self.store.discard_node(key)
            if damage is not None:
                yield events.Note(f"{damage.path} {damage.reason}; that phase is computed again")
                return
        # Of a process that was killed right after it had written the node.
        self.store.drop_checkpoint(key)
        self.done.add(key)
        yield events.Reused(key)

    def waiting(self, nodes: Iterable[Node]) -> events.Waiting:
        """That other processes are at these nodes."""
        keys = tuple(node.key for node in nodes)
        return events.Waiting(keys, next(filter(None, map(self.store.holder, keys)), None))

    def written(self, trial: Trial) -> tuple[bool, Damaged | None]:
        """Whether a trial is in the store whole, every byte checked, and what is wrong with it."""
        if not self.store.has_trial(trial.id, whole=False):
            return False, None
        damage = trials.damage(self.store.trial_logits, trial.id)
        return damage is None, damage

    def refresh(self) -> Iterator[events.Event]:
        """What other processes have finished, and what can no longer be had."""
        for node in self.open():
            if self.store.has_node(node.key):
                yield from self.check(node.key)
            else:
                yield from self.give_up([node])

    def give_up(self, nodes: Iterable[Node]) -> Iterator[events.Event]:
        """Of `nodes`, in the plan's order, those that need one that failed."""
        failed = set(self.failed.keys())  # the disk is asked once, however many nodes there are
        for node in nodes if failed else ():
            if cause := next((key for key in node.needs if key in failed), None):
                failed.add(node.key)
                self.failed[node.key] = self.failed[cause]
                yield events.Failed(
                    node.key, f"needs phase '{self.plan.nodes[cause].name}', which failed"
                )
