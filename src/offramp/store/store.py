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

import hashlib
import io
import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, contiguous_format, uint8

from offramp.errors import OfframpError, Unwritable
from offramp.hashing import digest, text
from offramp.store import sealed
from offramp.store.archive import (
    FAILURES,
    FORMAT,
    MORE,
    NODE,
    PLANS,
    SEEDS,
    TRIAL,
    VERSION,
    Archive,
    checked,
)
from offramp.store.locks import Lease
from offramp.store.manifest import Cost, Manifest, NodeRecord, SeedLog, sealed_note
from offramp.store.place import Place
from offramp.store.sealed import Damaged

__all__ = ["Damaged", "Lease", "NodeRecord", "Store"]

STALE_S = 3600.0  # younger leftovers may belong to a writer at work

log = logging.getLogger(__name__)


class Store:
    """Finished work that several processes may share: a folder, or an address of an object store.

    Raises:
        OfframpError: every method, for a key or id that is not a plain lower-case name, for a full disk,
            for a file that it may not read or write, and for a link in the store.
        Damaged: what reads, for a missing or altered file.
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
            locked, _ = self._files.locks()
        key = min(locked, default=None)
        return None if key is None else self._files.holder(key) or "another process"

    def renew(self, lease: Lease) -> bool:
        """Whether a lock is still held, which it then is for a minute more."""
        self._begin()
        return lease.renew()

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
            self._files.write(text({"format": FORMAT}), VERSION)
        self._was_there = True

    # Nodes

    def node_weights(self, key: str) -> dict[str, Tensor]:
        """The trained parts by original parameter name, on the CPU, contiguous."""
        return load(self.archive.node_content(key, "weights.safetensors"))

    def write_node(
        self, record: NodeRecord, weights: Mapping[str, Tensor], history: pd.DataFrame, cost: Cost
    ) -> None:
        """Keep a finished phase. An intact node of that key stays; a damaged one is replaced.

        Raises ValueError when the key is not the digest of what the node reads.
        """
        key = record.key
        if digest(record.reads) != key:
            raise ValueError(f"node key {key} is not the digest of what the node reads")
        fields = {name: value for name, value in record.as_json().items() if name != "key"}
        files = {
            "weights.safetensors": save(_copies(weights)),
            "history.parquet": history.to_parquet(None, index=False),
            "cost.json": text(cost.as_json()),
        }
        document = sealed.document(checked(key), fields, files)
        with self._write_lock(key):
            damaged = self._files.exists(NODE.folder, key)
            first = self._intact(NODE, key)
            if first is None and not sealed.write(self._files, NODE, key, document, files, over=damaged):
                first = self._intact(NODE, key)  # of a process that went on without the lock
        self._discard(*FAILURES.place(key))
        if first is not None:
            compare(key, first, document)

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
        self, trial: str, nodes: Iterable[str], fields: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """Say which nodes a trial will need, so that they are kept if the run is cut short. fields: what
        else a `TrialPlan` has, for those who watch."""
        plan = {**fields, "nodes": [checked(key) for key in nodes]}
        self._files.path(*PLANS.place(checked(trial)))
        self._begin()
        with self._files.gate():
            PLANS.write(self._files, trial, plan)

    def is_planned(self, trial: str) -> bool:
        return self._files.exists(*PLANS.place(checked(trial)))

    def drop_plan(self, trial: str) -> None:
        """The trial is there: what it needs is kept for its own sake."""
        self._discard(*PLANS.place(checked(trial)))

    def write_trial(self, trial: str, manifest: Manifest, logits: Mapping[str, np.ndarray]) -> None:
        """Keep a finished trial and drop its plan.

        An equal, intact trial stays; any other of that id is replaced, with a warning where it was made
        of the same nodes and has other logits.

        Raises:
            TypeError: an array is one of Python objects.
        """
        if any(array.dtype.hasobject for array in logits.values()):
            raise TypeError("logits must be arrays of numbers, not of objects")
        buffer = io.BytesIO()
        np.savez(buffer, **dict(logits))  # type: ignore[arg-type]  # its own keyword is a bool
        files = {"logits.npz": buffer.getvalue()}
        document = sealed.document(checked(trial), {"manifest": manifest.as_json()}, files)
        with self._write_lock(trial):
            first = self._intact(TRIAL, trial)
            if first is None or first["seal"] != document["seal"]:
                if first is not None:
                    with suppress(Damaged):  # then nothing says what it was made of
                        earlier = self.archive.read_trial(trial)
                        if (earlier.phases, earlier.data) == (manifest.phases, manifest.data):
                            _compare_logits(trial, first, document)
                sealed.write(self._files, TRIAL, trial, document, files, over=True)
            self.drop_plan(trial)

    def write_seed_log(self, name: str, log: SeedLog) -> None:
        """Keep how seeds are added to a study, in place of what was known before."""
        self._write_document(SEEDS, name, {"log": log.as_json()})

    def note_failure(self, key: str, reason: str) -> None:
        """Say why a phase cannot be had, until it can. Where that cannot be written it is not said."""
        with suppress(Unwritable):
            self._write_document(FAILURES, key, {"reason": reason})

    def _write_document(self, kind: sealed.Documents, name: str, fields: Mapping[str, Any]) -> None:
        checked(name)
        self._begin()
        kind.write(self._files, name, fields)

    # Checkpoints. Whoever writes one holds the lock of its key.

    def write_checkpoint(self, key: str, parts: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """Replace a checkpoint at once; the old one stays until the new one is on the disk."""
        name, data = _checkpoint(key), _pack_checkpoint(key, parts, state)
        self._begin()
        self._files.write(data, *name)

    def read_checkpoint(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and state, or None: there is no checkpoint, or it is damaged, which is logged."""
        name = _checkpoint(key)
        path = self._files.path(*name)
        if not self._files.exists(*name):
            return None
        try:
            return _unpack_checkpoint(key, self._files.read(*name), path)
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
        """Places that no trial needs, with their bytes.

        They are nodes that no trial, no plan and no needed node names; checkpoints of finished nodes;
        what killed writers left over an hour ago; lock files nobody holds. A locked key is left alone,
        and while anyone holds any lock so is every node and plan: a run at work may be about to name it.
        abandon: unfinished work as well, which is plans, nodes that only they name, and every
        checkpoint.

        Raises:
            Damaged: a trial or plan cannot be read, or a plan has lost its seal.
        """
        if not self.archive.exists():
            return []
        with self._collecting(abandon) as (names, _):
            return [(self._files.path(*name), self._files.size(*name)) for name in names]

    def collect(self, abandon: bool = False) -> int:
        """Remove what is `unneeded`; the bytes freed."""
        freed = 0
        if not self.archive.exists():
            return freed
        with self._collecting(abandon) as (names, gate):
            for name in names:
                if not gate.renew():
                    raise OfframpError(f"others are at work on {self.root} by now; run it again")
                freed += self._files.size(*name)
                self._files.remove(*name)
        return freed

    @contextmanager
    def _collecting(self, abandon: bool) -> Iterator[tuple[list[tuple[str, ...]], Lease]]:
        """The names of what is unneeded, and the gate, which stays shut meanwhile."""
        self.archive.refuse_links()
        self._files.watch_locks()
        with self._files.gate() as gate:
            yield self._unneeded(abandon), gate

    def _unneeded(self, abandon: bool) -> list[tuple[str, ...]]:
        locked, unneeded = self._files.locks()
        if not locked:
            plans = self.archive.begun()
            needed = self._needed([] if abandon else plans)
            unneeded += [(NODE.folder, key) for key in self.nodes() if key not in needed]
            if abandon:
                unneeded += map(PLANS.place, plans)
                unneeded += map(FAILURES.place, self.archive.documents(FAILURES.folder))
        leftovers = self._files.leftovers()
        for kind in (PLANS, SEEDS, FAILURES):
            leftovers += self._files.leftovers(kind.folder)
        for key in self.archive.checkpoints():
            if key in locked:
                continue
            if self.has_node(key) or (abandon and not locked):
                unneeded.append(("work", key))
            else:
                leftovers += self._files.leftovers("work", key)
        return unneeded + [name for name in leftovers if self._files.age_s(*name) > STALE_S]

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


def compare(key: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Say where weights that two have trained are not the same, by the manifests of both nodes: no bit
    may depend on who did."""
    hashes = [manifest["files"]["weights.safetensors"]["sha256"][:12] for manifest in (first, second)]
    if hashes[0] != hashes[1]:
        log.warning(
            "phase %s was trained twice, and not to the same bits (%s and %s); the first is kept. What "
            "differs is in the provenance of the two machines: offramp show",
            *(key, *hashes),
        )


def _compare_logits(trial: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Say where logits of the same nodes for the same images are not the same."""
    hashes = [manifest["files"]["logits.npz"]["sha256"][:12] for manifest in (first, second)]
    if hashes[0] != hashes[1]:
        log.warning(
            "trial %s was made of the same phases before, and not to the same logits (%s and %s); the "
            "new ones are kept. What differs is in the provenance of the two: offramp show",
            *(trial, *hashes),
        )


def _checkpoint(key: str) -> tuple[str, str, str]:
    return "work", checked(key), "checkpoint.safetensors"


def _strings(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _strings([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for child in value:
            yield from _strings(child)


def _pack_checkpoint(key: str, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> bytes:
    """Tensors as safetensors, with `state` in the metadata and a seal over all: the format has none."""
    copies, note = _copies(tensors), text(state).decode()
    return save(copies, {"state": note, "seal": _tensor_seal(key, note, copies)})


def _unpack_checkpoint(key: str, data: bytes, path: Place) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint. path: what messages call it. Raises Damaged."""
    about, note = sealed_note(data, path)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, LookupError, TypeError, AssertionError) as error:
        raise Damaged(path, "is not a checkpoint") from error
    if about.seal != _tensor_seal(key, about.state, tensors):
        raise Damaged(path, "does not match its seal")
    return tensors, note.as_json()


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # The format takes neither channels-last strides nor two names for one storage.
    return {
        name: tensor.detach().cpu().clone(memory_format=contiguous_format)
        for name, tensor in tensors.items()
    }


def _tensor_seal(key: str, note: str, tensors: Mapping[str, Tensor]) -> str:
    seal = hashlib.sha256(f"{key}\n{len(note)}\n{note}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        seal.update(f"\n{len(name)} {name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        seal.update(tensor.reshape(-1).view(uint8).numpy().data)
    return seal.hexdigest()
