"""The store: finished phases, finished trials, checkpoints and locks, in plain files.

    <root>/store.json      the format of the store
    <root>/nodes/<key>/    a finished phase: node.json history.parquet cost.json weights.safetensors
    <root>/trials/<id>/    a finished trial: trial.json logits.npz
    <root>/seeds/<id>.json how seeds were added to a study until it was decided, sealed
    <root>/plans/<id>.json the nodes that an unfinished trial will need, and their names, sealed
    <root>/work/<key>/     checkpoint.safetensors of a phase under way
    <root>/failures/<key>.json why a phase failed when it was last trained, sealed
    <root>/locks/          who is at work
    <root>/staging/        folders not yet complete, or being deleted

Folders under `nodes` and `trials` are sealed (see `sealed`): nothing half-written is read, and
damage is noticed, named, and can be made anew. Nothing is ever unpickled. The root may be a link;
one below it is refused, so that nothing outside is read, written or removed.
"""

from __future__ import annotations

import io
import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from offramp.errors import OfframpError, Unwritable
from offramp.hashing import digest
from offramp.store import sealed, tensors
from offramp.store.archive import FORMAT, MORE, NODE, TRIAL, VERSION, Archive, checked
from offramp.store.locks import Lease
from offramp.store.manifest import Cost, Manifest, NodeRecord, SeedLog
from offramp.store.place import Place
from offramp.store.sealed import Damaged

__all__ = ["Damaged", "Lease", "NodeRecord", "Store"]

STALE_S = 3600.0  # younger leftovers may belong to a writer at work

log = logging.getLogger(__name__)


class Store:
    """Finished work that several processes may share: a folder, or an address of an object store.

    Every method raises OfframpError for a key or id that is not a plain lower-case name, for a full
    disk, for a file it may not read or write, and for a link in the store. Reading raises Damaged
    (an OfframpError) for a missing or altered file.
    """

    def __init__(self, root: str | Place) -> None:
        """Nothing is created before the first write. Raises OfframpError as `Archive` does."""
        self.archive = archive = Archive(root)
        self.root = archive.root
        self._was_there = archive.exists()
        self._files = archive.files
        # What is read only, the archive reads.
        self.nodes, self.has_node = archive.nodes, archive.has_node
        self.verify_node, self.read_node = archive.verify_node, archive.read_node
        self.node_history, self.node_cost = archive.node_history, archive.node_cost
        self.trials, self.has_trial = archive.trials, archive.has_trial
        self.find_trial, self.read_trial = archive.find_trial, archive.read_trial
        self.trial_logits = archive.trial_logits

    # Locks

    def try_lock(self, key: str) -> Lease | None:
        """The lock of a key or trial id, or None when somebody holds it, this process included."""
        self._begin()
        return self._files.try_lock(checked(key))

    def lock(self, key: str) -> Lease:
        """The lock of a key or trial id, as soon as it is free; waits forever for one's own."""
        self._begin()
        return self._files.lock(checked(key))

    def holder(self, key: str) -> str | None:
        """Who holds the lock of a key or trial id and for how long, in words; None where nobody does."""
        return self._files.holder(checked(key))

    def more_to_come(self) -> Lease:
        """A lock that says to those who watch that its holder will begin more trials here."""
        return self.lock(f"{MORE}{secrets.token_hex(8)}")

    def at_work(self) -> str | None:
        """One who holds a lock here and for how long, in words; None where nobody does."""
        with self._files.gate():
            held, _ = self._files.locks()
        said = (self._files.holder(key) or "another process" for key in sorted(held))
        return next(said, None)

    def renew(self, held: Lease) -> bool:
        """Whether a lock is still held, which it then is for a minute more."""
        self._begin()
        return held.renew()

    def _write_lock(self, key: str) -> Lease:
        """Apart from `lock`, which the writer usually holds already; no key begins with a dot."""
        self._begin()
        return self._files.lock(f".write.{checked(key)}")

    def _begin(self) -> None:
        self.archive.refuse_links()
        if not self.archive.exists():
            if self._was_there:
                raise Unwritable(
                    f"the store {self.root} was moved or removed while it was in use; name its new "
                    "place and run the same again"
                )
            self._files.write(sealed.text({"format": FORMAT}), VERSION)
        self._was_there = True

    # Nodes

    def node_weights(self, key: str) -> dict[str, Tensor]:
        """The trained parts by original parameter name, on the CPU, contiguous."""
        return tensors.unpack(self.archive.node_content(key, "weights.safetensors"))

    def write_node(
        self, record: NodeRecord, weights: Mapping[str, Tensor], history: pd.DataFrame, cost: Cost
    ) -> None:
        """Keep a finished phase. An intact node of that key stays; a damaged one is replaced.

        Raises ValueError when the key is not the digest of what the node reads.
        """
        key = record.key
        if digest(record.reads) != key:
            raise ValueError(f"node key {key} is not the digest of what the node reads")
        parts = {name: value for name, value in record.as_json().items() if name != "key"}
        files = {
            "weights.safetensors": tensors.pack(weights),
            "history.parquet": history.to_parquet(None, index=False),
            "cost.json": sealed.text(cost.as_json()),
        }
        manifest = sealed.document(checked(key), parts, files)
        with self._write_lock(key):
            damaged = self._files.exists(NODE.folder, key)
            there = self._intact(NODE, key)
            if there is None and not sealed.write(self._files, NODE, key, manifest, files, over=damaged):
                there = self._intact(NODE, key)  # of one who went on without the lock
        self._discard(*_failure(key))
        if there is not None:
            compare(key, there, manifest)

    def _intact(self, kind: sealed.Kind, name: str) -> dict[str, Any] | None:
        """The manifest of a folder, every byte checked; None where it is missing or damaged."""
        try:
            return sealed.verify(self._files, kind, name)
        except Damaged:
            return None

    def discard_node(self, key: str) -> None:
        """Take a node away; nothing happens when it is not there."""
        self._discard(NODE.folder, checked(key))

    # Trials

    def plan_trial(
        self, trial: str, nodes: Iterable[str], known: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Say which nodes a trial will need, so that they are kept if the run is cut short. known: what
        else a `TrialPlan` says of it, for those who watch."""
        plan = sealed.with_seal({**known, "name": trial, "nodes": [checked(key) for key in nodes]})
        self._files.path(*_plan(trial))
        self._begin()
        with self._files.gate():
            self._files.write(sealed.text(plan), *_plan(trial))

    def is_planned(self, trial: str) -> bool:
        return self._files.exists(*_plan(trial))

    def drop_plan(self, trial: str) -> None:
        """The trial is there: what it needs is kept for its own sake."""
        self._discard(*_plan(trial))

    def write_trial(self, trial: str, manifest: Manifest, logits: Mapping[str, np.ndarray]) -> None:
        """Keep a finished trial and drop its plan.

        An equal, intact trial stays; any other of that id is replaced, and said where it was made of the
        same nodes and has other logits. Raises TypeError for arrays of Python objects.
        """
        if any(array.dtype.hasobject for array in logits.values()):
            raise TypeError("logits must be arrays of numbers, not of objects")
        buffer = io.BytesIO()
        np.savez(buffer, **dict(logits))  # type: ignore[arg-type]  # its own keyword is a bool
        files = {"logits.npz": buffer.getvalue()}
        document = sealed.document(checked(trial), {"manifest": manifest.as_json()}, files)
        with self._write_lock(trial):
            there = self._intact(TRIAL, trial)
            if there is None or there["seal"] != document["seal"]:
                if there is not None:
                    hashes = _logits_hash(there), _logits_hash(document)
                    with suppress(Damaged):  # then nothing says what it was made of
                        compare_trials(trial, self.archive.read_trial(trial), manifest, hashes)
                sealed.write(self._files, TRIAL, trial, document, files, over=True)
            self._discard(*_plan(trial))

    # How seeds were added

    def write_seed_log(self, name: str, log: SeedLog) -> None:
        """Keep how seeds are added to a study, in place of what was known before."""
        document = sealed.with_seal({"name": checked(name), "log": log.as_json()})
        self._begin()
        self._files.write(sealed.text(document), "seeds", f"{name}.json")

    # What failed

    def note_failure(self, key: str, reason: str) -> None:
        """Say why a phase cannot be had, until it can. Where that cannot be written it is not said."""
        document = sealed.with_seal({"name": checked(key), "reason": reason})
        with suppress(Unwritable):
            self._begin()
            self._files.write(sealed.text(document), *_failure(key))

    # Checkpoints. Whoever writes one holds the lock of its key.

    def write_checkpoint(self, key: str, parts: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Replace a checkpoint at once; the old one stays until the new one is on the disk."""
        name, data = _checkpoint(key), tensors.pack_checkpoint(key, parts, state)
        self._begin()
        self._files.write(data, *name)

    def read_checkpoint(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and state, or None: there is no checkpoint, or it is damaged, which is logged."""
        name = _checkpoint(key)
        path = self._files.path(*name)
        if not self._files.exists(*name):
            return None
        try:
            return tensors.unpack_checkpoint(key, self._files.read(*name), path)
        except Damaged as error:
            log.warning("checkpoint %s %s; the phase starts over", path, error.reason)
            return None

    def drop_checkpoint(self, key: str) -> None:
        """Remove a checkpoint; nothing happens when there is none."""
        self._files.path(*_checkpoint(key))
        self._discard("work", key)

    def index(self, least: int = 1) -> int:
        """Have fresh machines read all records at once: see `place.FileSystem.index`."""
        return self._files.index(least) if self.archive.exists() else 0

    # What nobody needs

    def unneeded(self, abandon: bool = False) -> list[tuple[Place, int]]:
        """Places that no trial needs, with their bytes: nodes that no trial, no plan and no needed
        node names; checkpoints of finished nodes; what killed writers left over an hour ago; lock
        files nobody holds. With `abandon`, unfinished work as well: plans, and nodes that only
        they name, and every checkpoint.

        A locked key is left alone, and while anyone holds any lock so is every node and plan: a
        run at work may be about to name it. Raises Damaged for an unreadable trial or plan, and for a
        plan without its seal.
        """
        self.archive.refuse_links()
        if not self.archive.exists():
            return []
        self._files.watch_locks()
        with self._files.gate():
            found = self._unneeded(abandon)
            return [(self._files.path(*name), self._files.size(*name)) for name in found]

    def collect(self, abandon: bool = False) -> int:
        """Remove what is `unneeded`; the bytes freed."""
        self.archive.refuse_links()
        if not self.archive.exists():
            return 0
        freed = 0
        self._files.watch_locks()
        with self._files.gate() as shut:
            for name in self._unneeded(abandon):
                if not shut.renew():
                    raise OfframpError(f"others are at work on {self.root} by now; run it again")
                freed += self._files.size(*name)
                self._files.remove(*name)
        return freed

    def _unneeded(self, abandon: bool) -> list[tuple[str, ...]]:
        held, found = self._files.locks()
        if not held:
            plans = self.archive.begun()
            needed = self._needed([] if abandon else plans)
            found += [(NODE.folder, key) for key in self.nodes() if key not in needed]
            found += [_plan(name) for name in plans] if abandon else []
            found += [_failure(key) for key in self.archive.documents("failures") if abandon]
        leftovers = self._files.leftovers()
        leftovers += [
            name for folder in ("plans", "seeds", "failures") for name in self._files.leftovers(folder)
        ]
        for key in self.archive.checkpoints():
            if key in held:
                continue
            if self.has_node(key) or (abandon and not held):
                found.append(("work", key))
            else:
                leftovers += self._files.leftovers("work", key)
        return found + [name for name in leftovers if self._files.age_s(*name) > STALE_S]

    def _needed(self, plans: list[str]) -> set[str]:
        """Nodes that trials and plans name, and nodes that those started from."""
        present = set(self.nodes())
        roots: list[Any] = [self.read_trial(trial).as_json() for trial in self.trials()]
        roots += [list(self.archive.planned(trial).nodes) for trial in plans]
        waiting = set(_strings(roots)) & present
        needed: set[str] = set()
        while waiting:
            key = waiting.pop()
            needed.add(key)
            with suppress(Damaged):
                waiting |= (set(_strings(self.read_node(key).reads)) & present) - needed
        return needed

    def _discard(self, *name: str) -> None:
        if self._files.exists(*name):
            self.archive.refuse_links()
            self._files.remove(*name)


def compare(key: str, kept: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Say where weights that two have trained are not the same: no bit may depend on who did."""
    one, other = (said["files"]["weights.safetensors"]["sha256"] for said in (kept, made))
    if one != other:
        log.warning(
            "node %s was trained twice, and not to the same bits (%s and %s); the first is kept. What "
            "differs is in the provenance of the two machines: offramp show",
            *(key, one[:12], other[:12]),
        )


def compare_trials(trial: str, kept: Manifest, made: Manifest, hashes: tuple[str, str]) -> None:
    """Say where logits of the same nodes for the same images are not the same. hashes: of the logits."""
    if (kept.phases, kept.data) == (made.phases, made.data) and hashes[0] != hashes[1]:
        log.warning(
            "trial %s was made of the same phases before, and not to the same logits (%s and %s); the "
            "new ones are kept. What differs is in the provenance of the two: offramp show",
            *(trial, *(each[:12] for each in hashes)),
        )


def _logits_hash(document: Mapping[str, Any]) -> str:
    found: str = document["files"]["logits.npz"]["sha256"]
    return found


def _plan(trial: str) -> tuple[str, str]:
    return "plans", f"{checked(trial)}.json"


def _failure(key: str) -> tuple[str, str]:
    return "failures", f"{checked(key)}.json"


def _checkpoint(key: str) -> tuple[str, str, str]:
    return "work", checked(key), "checkpoint.safetensors"


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
