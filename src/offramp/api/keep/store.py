"""What is done with whole stores: copy, index, pack, clean up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from offramp.api.answer import answer, missing_lines
from offramp.api.opening import opened, places
from offramp.api.options import (
    RUNS,
    CommandOption,
    FastStepWatcher,
    ResultsPlaces,
    StorePlace,
    StudyName,
    read_place,
)
from offramp.errors import OfframpError
from offramp.store.place import Place, Url, place
from offramp.terminal import TextBlocks
from offramp.units import counted, duration, size


@answer
class StoreIndex:
    """An index of an object store. store: the store.  records: how many are new.  seconds: it took."""

    store: str
    records: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {"store": self.store, "indexed": self.records}

    def document(self) -> TextBlocks:
        if not self.records:
            return ["Nothing is new."]
        records = counted(self.records, "record")
        return [f"{records} indexed in {self.store}; {duration(self.seconds)}."]


def index_store(
    address: Annotated[Place | str, CommandOption("STORE", parse=read_place)],
    *,
    watch: FastStepWatcher = None,
) -> StoreIndex:
    """Index an object store, so that new machines read it quickly.

    The index has copies of all records in two objects. So a new machine gets thousands of phases with a
    few requests. `offramp run` writes it at its end if much is new. An old index does no harm: later
    changes are fetched one by one.

    Args:
        address: The store: s3://BUCKET/NAME.
        watch: Called with each step.

    Raises:
        OfframpError: It is a folder, or there is no store.

    On the command line:
        offramp store index s3://bucket/runs
    """
    from offramp.store.archive import is_store
    from offramp.store.store import Store

    root = place(address)
    if not isinstance(root, Url):
        raise OfframpError(
            f"{root} is a folder, which needs no index; name an object store, such as s3://BUCKET/NAME"
        )
    if not is_store(root):
        raise OfframpError(f"there is no store at {root}; name another")
    began = time.monotonic()
    if watch is not None:
        watch(f"reading {root}")
    count = Store(root).index()
    return StoreIndex(str(root), count, time.monotonic() - began)


@answer
class StoreCopy:
    """Finished work that was copied.

    Attributes:
        source: The store that it is from.
        target: The store that has it now.
        copied: Parts that are new there.
        present: Parts that were there already.
        bytes: Of the new parts.
        damaged: Parts that were left out, and why.
        seconds: What it took.
    """

    source: str
    target: str
    copied: int
    present: int
    bytes: int
    damaged: Sequence[str]
    seconds: float

    @property
    def exit_code(self) -> int:
        return int(bool(self.damaged))

    def as_json(self) -> dict[str, Any]:
        return {
            "from": self.source,
            "to": self.target,
            "copied": self.copied,
            "there": self.present,
            "bytes": self.bytes,
            "damaged": self.damaged,
        }

    def warnings(self) -> Sequence[str]:
        return [f"left out: {line}" for line in self.damaged]

    def document(self) -> TextBlocks:
        present = f", {self.present} were there already" if self.present else ""
        parts = f"{counted(self.copied, 'part')} copied to {self.target}, {size(self.bytes)}{present}"
        return [f"{parts}; {duration(self.seconds)}."]


def copy_store(
    source: Annotated[Place | str, CommandOption("FROM", parse=read_place)],
    target: Annotated[Place | str, CommandOption("TO", parse=read_place)],
    *,
    watch: FastStepWatcher = None,
) -> StoreCopy:
    """Copy finished work from one store to another.

    It copies phases, trials, how seeds were added, and plans of unfinished work, but no checkpoints.
    Every byte is checked. The contents of TO stay, so the same command goes on after an interruption.
    Damaged parts are left out and named; the exit code is then 1.

    Args:
        source: The store to copy: a folder, or s3://BUCKET/NAME.
        target: The store to copy to; what it holds stays.
        watch: Called with each step.

    Raises:
        OfframpError: There is no store, or the target cannot be written.

    On the command line:
        offramp store copy runs s3://bucket/runs
        offramp store copy s3://bucket/runs runs
    """
    from offramp.store.archive import Archive
    from offramp.store.copying import FolderPart
    from offramp.store.copying import copy as copied
    from offramp.store.store import Store

    began = time.monotonic()
    new, present, written = 0, 0, 0
    damaged: list[str] = []
    part, done = FolderPart("", ()), 0
    with closing(copied(Archive(place(source)), Store(place(target)))) as steps:
        for step in steps:
            if isinstance(step, FolderPart):
                part, done = step, 0
            else:
                done, written = done + 1, written + step.bytes
                new += step.bytes > 0
                present += not step.bytes and not step.damaged
                damaged += [step.damaged] if step.damaged else []
            if watch is not None:
                watch(f"{part.folder}: {done} of {len(part.names)}, {size(written)} so far")
    seconds = time.monotonic() - began
    return StoreCopy(str(source), str(target), new, present, written, damaged, seconds)


@answer
class PackedResults:
    """Results without the weights, in a small folder.

    Attributes:
        out: The folder.
        trials: How many it has.
        bytes: Of each file, by name.
        missing: What the results lack.
    """

    out: Path
    trials: int
    bytes: Mapping[str, int]
    missing: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "trials": self.trials,
            "bytes": self.bytes,
            "missing": list(self.missing),
        }

    def warnings(self) -> Sequence[str]:
        return missing_lines(self.missing)

    def document(self) -> TextBlocks:
        files = ", ".join(f"{name} {size(count)}" for name, count in self.bytes.items())
        whole = size(sum(self.bytes.values()))
        return [f"{counted(self.trials, 'trial')} packed into {self.out}, {whole}: {files}."]


def pack(
    stores: ResultsPlaces = RUNS,
    *,
    out: Annotated[Path, CommandOption("FOLDER")],
    study: StudyName = None,
    strategy: Annotated[Sequence[str], CommandOption("NAME")] = (),
    title: str | None = None,
    watch: FastStepWatcher = None,
) -> PackedResults:
    """Pack results into a small folder, without the weights.

    It holds every number, the records of trials and phases, and the logits of every exit (float16).
    Commands that make figures, tables and reports read it instead of the store. Several stores and packs
    become one. Equal results give equal bytes.

    Args:
        stores: Stores, or folders that offramp store pack wrote. Several count as one.
        out: Where to write the packed results.
        study: Use only the trials of this study.
        strategy: Use only the trials of this strategy. Repeatable.
        title: What to call the data from now on, as a study's data.title does.
        watch: Called with each step.

    Raises:
        OfframpError: There are no results, or the folder cannot be written.

    On the command line:
        offramp store pack runs/demo --out results/demo
        offramp report results/demo --figures --out figures
        offramp store pack results/42 results/43 --out results/both
        offramp store pack runs/all --strategy joint --out results/one
        offramp store pack results/old --title Imagenette --out results/new
    """
    from offramp.report import evidence
    from offramp.store import pack as packs

    results = evidence.open_finished(places(stores), study)
    if strategy:
        results = evidence.of_strategies(results, strategy)
    named = {trial.manifest.data.name for trial in results.trials}
    if title is not None and len(named) > 1:
        raise OfframpError(f"a title is of one data set, and these are {', '.join(sorted(named))}")
    trials, table = results.packed
    if watch is not None:
        watch(f"packing {counted(len(trials), 'trial')}")
    sizes = packs.write(
        out, results.gathered.records, trials, table, results.missing, results.logs, title
    )
    return PackedResults(out, len(trials), sizes, results.missing)


@answer
class Unneeded:
    """What no trial of a store needs.

    Attributes:
        paths: Each path, and its bytes.
        bytes: What was freed, or would be.
        removed: Whether it was.
        at_work: Who works on the store, for whom nodes and plans stay; None for nobody.
    """

    paths: Sequence[tuple[Any, int]]
    bytes: int
    removed: bool
    at_work: str | None

    def as_json(self) -> dict[str, Any]:
        return {
            "paths": [str(path) for path, _ in self.paths],
            "bytes": self.bytes,
            "removed": self.removed,
            "at_work": self.at_work,
        }

    def document(self) -> TextBlocks:
        listed = [(path, count) for path, count in self.paths if not str(path).endswith(".lock")]
        locks = len(self.paths) - len(listed)
        lines = [f"{path}  {size(count)}" for path, count in listed]
        if locks:
            lines.append(f"{counted(locks, 'lock file')} that nobody holds")
        if self.at_work is not None:
            lines.append(f"In use by {self.at_work}; phases and plans stay until it ends.")
        return [*lines, f"{'Freed' if self.removed else 'Would free'} {size(self.bytes)}."]


def remove_unneeded(
    store: StorePlace = RUNS, *, dry_run: bool = False, abandon: bool = False
) -> Unneeded:
    """Remove what no trial of a store needs.

    It removes trained phases that no trial needs, checkpoints of finished phases, leftovers of killed
    processes, and lock files. The work of running processes stays.

    Args:
        store: The store: a folder, or s3://BUCKET/NAME.
        dry_run: Only say what would be removed.
        abandon: Remove unfinished work too. Then no run can go on with it.

    Raises:
        OfframpError: There is no store.

    On the command line:
        offramp store gc runs/demo --dry-run
    """
    source = opened(store)
    paths = source.unneeded(abandon)
    freed = sum(count for _, count in paths)
    if not dry_run:
        freed = source.collect(abandon)
    return Unneeded(paths, freed, not dry_run, source.at_work())
