"""What a store holds, to be read: records, histories, costs and logits. No torch; weights: `store`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from offramp import arrays
from offramp.errors import OfframpError, nearest
from offramp.hashing import from_text
from offramp.store import manifest, sealed
from offramp.store.locks import numbered
from offramp.store.manifest import (
    CheckpointNote,
    Cost,
    Manifest,
    NodeRecord,
    PhaseReads,
    SeedLog,
    TrialPlan,
)
from offramp.store.place import FileSystem, Place, file_system, place
from offramp.store.sealed import Damaged, Documents, Kind, TableKind

__all__ = ["Archive", "Damaged", "Histories", "NodeRecord", "Records"]

FORMAT, VERSION = 1, "store.json"
MORE, SEARCH = "more-", "search-"  # begin names of locks of those that have more in mind
ENDING = 4  # letters of an id's end, its hash, that may stand for it: 65,536 of them
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")
FOLDERS = ("nodes", "trials", "plans", "work", "locks", "staging", "seeds", "failures")
NODE = Kind("nodes", "node.json", frozenset({"history.parquet", "cost.json", "weights.safetensors"}))
TRIAL = Kind("trials", "trial.json", frozenset({"logits.npz"}))
_ABANDON = "run its study again, or give up all unfinished work with `offramp store gc --abandon`"
_LOST = "bring it back as it was: without it nothing says how seeds were added"
PLANS, FAILURES = Documents("plans", _ABANDON), Documents("failures", _ABANDON)
SEEDS = Documents("seeds", _LOST)
HISTORY = TableKind(
    {"epoch": "whole numbers", "split": "text", "exit": "text", "metric": "text", "value": "numbers?"},
    ("epoch", "split", "exit", "metric"),
)
LIBRARIES = ("offramp", "torch", "torchvision", "timm", "numpy")  # versions that provenance gives


class Records(Protocol):
    """Whatever trials and their nodes can be read from."""

    def read_trial(self, trial: str) -> Manifest: ...

    def trial_logits(self, trial: str) -> dict[str, np.ndarray]: ...

    def read_node(self, key: str) -> NodeRecord: ...

    def node_cost(self, key: str) -> Cost: ...


class Histories(Records, Protocol):
    """Records with the course of training."""

    def node_history(self, key: str) -> pd.DataFrame: ...


class Archive:
    """The readable side of a store, a folder or an address; nothing is ever written.

    Raises:
        OfframpError: every method, for a key or id that is not a plain lower-case name, for a file that
            it may not read, and for a link: `root` may be one, nothing below it.
        Damaged: what reads, for a missing or altered file.
    """

    def __init__(self, root: str | Place) -> None:
        """Raises OfframpError when `root` is a file, some other folder, or a newer store, and where a
        folder of the store is a link."""
        self.root = place(root)
        self.files = file_system(self.root)
        self.refuse_links()
        others: list[str] = []
        if not self.exists():
            others = [name for name in ("nodes", "trials", "work", "staging") if self.files.exists(name)]
        if self.exists():  # looked for once more: it is the first thing a new store gets
            version = _format(self.files)
            if version > FORMAT:
                raise OfframpError(
                    f"{root} has store format {version} and this offramp reads up to {FORMAT}; "
                    "update offramp or choose another folder"
                )
        elif others:
            raise OfframpError(
                f"{root} holds '{others[0]}' but no {VERSION}, so it is not a store; choose another one"
            )

    def exists(self) -> bool:
        """Whether anything was ever kept here."""
        return self.files.exists(VERSION)

    def size(self) -> int:
        """Bytes of all that is here."""
        return self.files.size()

    # Nodes

    def nodes(self) -> list[str]:
        """Keys of the nodes that are there, sorted; not checked."""
        return self.names(NODE.folder)

    def has_node(self, key: str, whole: bool = True) -> bool:
        """Whether the node is there, sealed, and its files have their sizes (reads `node.json`). Not
        whole: whether anything is there under its key."""
        if not whole:
            return self.files.exists(NODE.folder, checked(key))
        return sealed.is_whole(self.files, NODE, checked(key))

    def verify_node(self, key: str) -> None:
        """Check every byte of a node. Raises Damaged naming the first bad file."""
        sealed.verify(self.files, NODE, checked(key))

    def read_node(self, key: str) -> NodeRecord:
        """What is known of a node without its data."""
        document = sealed.read(self.files, NODE, checked(key))
        fields = {name: document[name] for name in document.keys() - {"name", "files", "seal"}}
        path = self.files.path(NODE.folder, key, NODE.manifest)
        record = manifest.read(NodeRecord, {"key": key, **fields}, path)
        manifest.read(PhaseReads, record.reads, path)
        return record

    def node_content(self, key: str, file: str) -> bytes:
        """The bytes of one of the node's files, checked."""
        return sealed.content(self.files, NODE, checked(key), file)

    def node_history(self, key: str) -> pd.DataFrame:
        """One row an epoch, as it was written; the index is not kept."""
        data = self.node_content(key, "history.parquet")
        return sealed.table(data, self.files.path(NODE.folder, key, "history.parquet"), HISTORY)

    def node_cost(self, key: str) -> Cost:
        """The measured cost."""
        path, data = self.files.path(NODE.folder, key, "cost.json"), self.node_content(key, "cost.json")
        return manifest.read(Cost, sealed.parsed(data, path), path)

    # Trials

    def trials(self) -> list[str]:
        """Ids of the trials that are there, sorted; not checked."""
        return self.names(TRIAL.folder)

    def begun(self) -> list[str]:
        """Ids of the trials that a study began and has not finished, sorted."""
        return self.documents(PLANS.folder)

    def has_trial(self, trial: str, whole: bool = True) -> bool:
        """Whether the trial is there, as `has_node` says of nodes."""
        if not whole:
            return self.files.exists(TRIAL.folder, checked(trial))
        return sealed.is_whole(self.files, TRIAL, checked(trial))

    def verify_trial(self, trial: str) -> None:
        """Check every byte of a trial. Raises Damaged naming the first bad file."""
        sealed.verify(self.files, TRIAL, checked(trial))

    def find_trial(self, part: str) -> str:
        """The one trial of `matching`. Raises OfframpError otherwise."""
        return find_trial(self.trials(), part, self.root)

    def read_trial(self, trial: str) -> Manifest:
        """All that the store says of a trial."""
        fields = sealed.read(self.files, TRIAL, checked(trial)).get("manifest")
        return manifest.read(Manifest, fields, self.files.path(TRIAL.folder, trial, TRIAL.manifest))

    def trial_logits(self, trial: str) -> dict[str, np.ndarray]:
        """The arrays as they were written."""
        data = sealed.content(self.files, TRIAL, checked(trial), "logits.npz")
        try:
            logits = arrays.read(data)
            exits = None
            with suppress(Damaged):  # of the record, which another offramp may have written
                exits = len(self.read_trial(trial).exits)
            arrays.check_logits(logits, exits)
            return logits
        except ValueError as error:
            raise Damaged(self.files.path(TRIAL.folder, trial, "logits.npz"), f"({error})") from error

    # How seeds were added

    def seed_logs(self) -> dict[str, SeedLog]:
        """How seeds were added to studies until their pairs were decided, by name. Raises Damaged."""
        return {name: self.read_seed_log(name) for name in self.documents(SEEDS.folder)}

    def read_seed_log(self, name: str) -> SeedLog:
        """One of them. Raises Damaged."""
        log = SEEDS.read(self.files, checked(name)).get("log")
        return manifest.read(SeedLog, log, self.files.path(*SEEDS.place(name)), SEEDS.remedy)

    def has_seed_log(self, name: str) -> bool:
        return self.files.exists(*SEEDS.place(checked(name)))

    # What is under way

    def planned(self, trial: str) -> TrialPlan:
        """What an unfinished trial needs. Raises Damaged: what an altered plan does not name would be
        collected."""
        plan = PLANS.read(self.files, checked(trial))
        return manifest.read(TrialPlan, plan, self.files.path(*PLANS.place(trial)), PLANS.remedy)

    def more_comes(self) -> bool:
        """Whether a process at work here has said that it will begin more trials, or searches."""
        names = numbered(self.files.names("locks"))
        return any(self.files.holder(name) for name in names if name.startswith((MORE, SEARCH)))

    def failures(self) -> dict[str, str]:
        """Why phases failed when they were last trained, by key. What is damaged is left out: the next
        run says it again."""
        reasons = {}
        for key in self.documents(FAILURES.folder):
            with suppress(Damaged):
                reasons[key] = str(FAILURES.read(self.files, key).get("reason"))
        return reasons

    def checkpoint_note(self, key: str) -> CheckpointNote | None:
        """What a checkpoint says beside its tensors, to be shown: its seal, which takes the tensors, is
        not checked. None where there is none, and for a damaged one."""
        place = ("work", checked(key), "checkpoint.safetensors")
        try:
            return manifest.sealed_note(self.files.read(*place), self.files.path(*place))[1]
        except Damaged:
            return None

    def checkpoints(self) -> list[str]:
        """Keys of the phases that were begun and not finished, sorted."""
        return self.names("work")

    def names(self, folder: str) -> list[str]:
        """Names of the folders in `folder`, sorted. Raises OfframpError where one is a link."""
        names = [name for name in self.files.names(folder) if NAME.fullmatch(name)]
        return [name for name in names if self.files.is_folder(folder, name)]

    def documents(self, folder: str) -> list[str]:
        """Names of the sealed files in `folder`, sorted; what else lies there is none of the store's."""
        files = (name for name in self.files.names(folder) if name.endswith(".json"))
        return sorted(name for file in files if NAME.fullmatch(name := file.removesuffix(".json")))

    def refuse_links(self) -> None:
        """Raises OfframpError where a folder of the store is a link: it would lead all work away."""
        for name in (VERSION, *FOLDERS):
            self.files.path(name)


def checked(name: str) -> str:
    """`name`. Raises OfframpError where it is no key or trial id."""
    if not NAME.fullmatch(name):
        raise OfframpError(
            f"{name!r} is no key or trial id; use up to 200 of a-z, 0-9, '.', '_' and '-', "
            "a letter or digit first"
        )
    return name


def matching(trials: Sequence[str], part: str) -> list[str]:
    """The trials whose id is, begins with, or else ends with `part` (ENDING letters at least), in their
    order; one whose id it is alone."""
    begun = [part] if part in trials else [t for t in trials if t.startswith(part)]
    return begun or [t for t in trials if len(part) >= ENDING and t.endswith(part)]


def find_trial(trials: Sequence[str], part: str, where: Place) -> str:
    """The one trial of `matching`. Raises OfframpError otherwise. where: The place of all."""
    matches = matching(trials, part)
    if len(matches) > 1:
        some = ", ".join(matches[:5]) + (", …" if len(matches) > 5 else "")
        raise OfframpError(f"{several(part, matches)}; give more of one of {some}")
    if matches:
        return matches[0]
    hint = nearest(part, trials)
    if "did you mean" not in hint:  # ids are long, and many
        hint = f"; it holds {len(trials)}, such as {trials[0]}" if trials else "; run a study first"
    raise OfframpError(f"no trial '{part}' in {where}{hint}")


def several(part: str, trials: Sequence[str]) -> str:
    """`'joint' begins 2 trials`. trials: of `matching`."""
    return f"'{part}' {'begins' if trials[0].startswith(part) else 'ends'} {len(trials)} trials"


def is_store(root: str | Place) -> bool:
    """Whether a store is at `root`."""
    where = place(root)
    is_file = isinstance(where, Path) and where.is_file()
    return not is_file and file_system(where).exists(VERSION)


def stores_in(folder: str | Place) -> list[Path]:
    """The stores directly below a folder of this machine, sorted."""
    where = place(folder)
    if not isinstance(where, Path):
        return []
    try:
        return sorted(path.parent for path in where.glob(f"*/{VERSION}") if path.is_file())
    except OSError:
        return []


def elsewhere(folder: Place) -> str:
    """What to do where no store is: the end of a refusal."""
    below = " or ".join(map(str, stores_in(folder)[:3]))
    return f"name another{f', such as {below}' if below else ''}, or run a study first"


def _format(files: FileSystem) -> int:
    path = files.path(VERSION)
    try:
        version = from_text(files.read(VERSION))["format"]
    except (Damaged, ValueError, TypeError, LookupError):
        version = None
    if type(version) is not int:
        raise OfframpError(
            f'{path} names no format; if this is a store, write {{"format": {FORMAT}}} into it'
        )
    return version
