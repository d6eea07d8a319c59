"""Packed results: all that a report needs of a store, without weights, in three files and a README.

    trials.json    manifests and records of nodes as in the store, where each trial's logits are, and
                   SHA-256 of the next two files; sealed
    table.parquet  the tidy table
    logits.npz     logits of validation, calibration and test as float16 [N, C], one array for each exit
                   and split that is unlike any other, under a name made of its content; labels once
    README.md      what is in it, and with what it was made

Of whole paths only the last part is kept, and no machine's name, so that a pack tells nothing of
anybody's folders and machines.

Equal results give equal bytes. Accuracy and cross-entropy in `trials.json` and the table were computed
before rounding.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from offramp import arrays
from offramp.errors import OfframpError
from offramp.escape import markdown
from offramp.files import folder_at, is_litter, writing
from offramp.hashing import is_sealed, with_seal
from offramp.policy.calibration import Many
from offramp.store import manifest, sealed
from offramp.store.archive import Records
from offramp.store.manifest import (
    Cost,
    Manifest,
    NodeRecord,
    PhaseReads,
    Record,
    SeedLog,
    data_label,
)
from offramp.store.record import made_with
from offramp.store.sealed import Damaged
from offramp.store.table import TIDY

FORMAT = "offramp-pack-2"
TRIALS = "trials.json"
FILES = ("README.md", "logits.npz", "table.parquet", TRIALS)
AGAIN = "pack the results again"
NO_LOGS: Mapping[str, SeedLog] = MappingProxyType({})
SPLITS = ("validation", "calibration", "test")


class SplitPlaces(Record):
    """Names of a split's arrays in `logits.npz`: logits of each exit, and labels."""

    exits: Many[str]
    labels: str


class PackedTrial(Record):
    """A trial. logits: by split."""

    manifest: Manifest
    logits: dict[str, SplitPlaces]


class PackedNode(NodeRecord):
    """A node and its cost."""

    cost: Cost


class PackDocument(Record):
    """`trials.json`."""

    format: Literal["offramp-pack-2"]  # of the pack
    files: dict[str, str]  # SHA-256 by name
    missing: Many[str]  # notes on what is not here
    trials: dict[str, PackedTrial]  # by id
    nodes: dict[str, PackedNode]  # by key
    seed_logs: dict[str, SeedLog] = Field(default_factory=dict)  # how seeds were added, by name


@dataclass(frozen=True, eq=False)
class Pack:
    """A folder of packed results, read like an archive; logits on demand."""

    path: Path
    table: pd.DataFrame
    document: PackDocument
    _bytes: bytes

    def trials(self) -> list[str]:
        return sorted(self.document.trials)

    def read_trial(self, trial: str) -> Manifest:
        return self.document.trials[trial].manifest

    def read_node(self, key: str) -> NodeRecord:
        return self.document.nodes[key]

    def node_cost(self, key: str) -> Cost:
        return self.document.nodes[key].cost

    def trial_logits(self, trial: str) -> dict[str, np.ndarray]:
        """Logits [N, E, C] in float16 and labels [N], by split. Raises Damaged."""
        logits: dict[str, np.ndarray] = {}
        places = self.document.trials[trial].logits
        try:
            named = arrays.read(self._bytes, {n for p in places.values() for n in (*p.exits, p.labels)})
            for split, names in places.items():
                logits[split] = np.stack([named[n] for n in names.exits], axis=1)
                logits[f"{split}_labels"] = named[names.labels]
            arrays.check_logits(logits, len(self.read_trial(trial).exits))
        except (ValueError, KeyError) as error:
            path = self.path / "logits.npz"
            raise Damaged(path, f"does not hold what {TRIALS} says of {trial}", AGAIN) from error
        return logits


def is_pack(path: Path) -> bool:
    """Whether `path` looks like packed results."""
    return (path / TRIALS).is_file()


def read(path: Path) -> Pack:
    """Read packed results. Raises OfframpError where a file is missing, altered or of another format,
    and Damaged, naming the field, where one says what cannot be."""
    place = path / TRIALS
    fields = sealed.read_json(place, AGAIN)
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise OfframpError(f"{place} is no packed results of this offramp ({FORMAT}); pack them again")
    if not is_sealed(fields):
        raise Damaged(place, "does not match its seal", AGAIN)
    document = manifest.read(PackDocument, fields, place, AGAIN)
    content = {name: sealed.read_bytes(path / name, AGAIN) for name in ("table.parquet", "logits.npz")}
    for name, data in content.items():
        if hashlib.sha256(data).hexdigest() != document.files.get(name):
            raise Damaged(path / name, "does not match trials.json", AGAIN)
    _check(document, place)
    table = _table(content["table.parquet"], path, document.trials)
    return Pack(path, table, document, content["logits.npz"])


def _check(document: PackDocument, place: Path) -> None:
    """Raises Damaged where parts of a document do not go together."""
    for key, node in document.nodes.items():
        manifest.read(PhaseReads, node.reads, place, AGAIN)
        if node.key != key:
            raise Damaged(place, f"calls the node '{key}' '{node.key}'", AGAIN)
    for id, trial in document.trials.items():
        about, exits = trial.manifest, len(trial.manifest.exits)
        nodes = [document.nodes[key] for key in about.keys if key in document.nodes]
        places = {p for node in nodes for p in (*node.phase.places, *node.cost.exit_shares)}
        wrong = {
            "a node that is not in it": set(about.keys) - document.nodes.keys(),
            "a place that its network does not have": places - set(about.places),
            "another number of exits in its logits": (
                {len(names.exits) for names in trial.logits.values()} - {exits}
            ),
        }
        for what, reason in wrong.items():
            if reason:
                raise Damaged(place, f"names, for trial {id}, {what}", AGAIN)


def _table(data: bytes, path: Path, trials: Mapping[str, PackedTrial]) -> pd.DataFrame:
    place = path / "table.parquet"
    table = sealed.table(data, place, TIDY, AGAIN)
    tested = (table["phase"] == "final") & (table["split"] == "test") & (table["metric"] == "accuracy")
    exits = {trial: set(rows) for trial, rows in table[tested].groupby("trial")["exit"]}
    for trial, packed in sorted(trials.items()):
        if exits.get(trial) != set(packed.manifest.exits):
            raise Damaged(place, f"lacks the test accuracy of an exit of trial {trial}", AGAIN)
    return table


def write(
    path: Path,
    records: Records,
    trials: list[str],
    table: pd.DataFrame,
    missing: tuple[str, ...],
    logs: Mapping[str, SeedLog] = NO_LOGS,
    title: str | None = None,
) -> dict[str, int]:
    """Pack trials into the folder `path`; a pack that is there is replaced. title: of the data, in place
    of theirs.

    Returns:
        Bytes by file.

    Raises:
        OfframpError: `path` holds something else or cannot be written.
        Damaged: as `records` does.
    """
    _check_place(path)
    by_name: dict[str, np.ndarray] = {}
    entries = {}
    manifests: list[Manifest] = []
    titles: dict[str, str] = {}
    for trial in sorted(trials):
        places = _add(by_name, records.trial_logits(trial))
        record = records.read_trial(trial)
        if title is not None:
            titled = record.data.titled(title)
            titles[record.data.label] = titled.label
            record = record.model_copy(update={"data": titled})
        manifests.append(record)
        entries[trial] = {"manifest": manifests[-1].as_json(), "logits": places}
    nodes = {
        key: {**records.read_node(key).as_json(), "cost": records.node_cost(key).as_json()}
        for key in sorted({key for m in manifests for key in m.keys})
    }
    names = {**titles, **_short(manifests)}
    missing = tuple(_renamed(note, names) for note in missing)
    if names:
        named = ("strategy", "model", "data")
        table = table.assign(**{c: table[c].map(lambda word: names.get(word, word)) for c in named})
    files = {"table.parquet": table.to_parquet(None, index=False), "logits.npz": _archive(by_name)}
    document = with_seal(
        {
            "format": FORMAT,
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            "missing": list(missing),
            "trials": portable(entries),
            "nodes": portable(nodes),
            **({"seed_logs": {name: log.as_json() for name, log in logs.items()}} if logs else {}),
        }
    )
    text = json.dumps(document, sort_keys=True, separators=(",", ":")) + "\n"
    files[TRIALS] = text.encode()
    files["README.md"] = _readme(records, manifests, missing, names).encode()
    with writing(path), folder_at(path) as folder:
        for name, data in files.items():
            (folder / name).write_bytes(data)
        _check_place(path)  # again: somebody may have put a file there meanwhile
    return {name: len(files[name]) for name in sorted(files)}


def _check_place(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise OfframpError(f"{path} is not a folder; choose another --out")
    files = sorted(p for p in path.iterdir() if not is_litter(p)) if path.is_dir() else []
    other = [p.name for p in files if p.name not in FILES or p.is_symlink() or not p.is_file()]
    if not other and files and not _is_ours(path / TRIALS):
        other = [files[-1].name]
    if other:
        raise OfframpError(f"{path} holds something else already ({other[0]}); choose another --out")


def _is_ours(path: Path) -> bool:
    """Whether a file is the `trials.json` of a pack of any format, altered or not."""
    try:
        return str(sealed.read_json(path)["format"]).startswith("offramp-pack-")
    except (Damaged, LookupError, TypeError):
        return False


def portable(value: Any) -> Any:
    """JSON without the name and the folders of the machine that it was made on: of whole paths their
    last part. Classes may be called as paths are."""
    if isinstance(value, dict):
        return {
            key: portable({k: v for k, v in child.items() if k != "machine"})
            if key == "provenance" and isinstance(child, dict)
            else child
            if key == "classes"
            else portable(child)
            for key, child in value.items()
        }
    if isinstance(value, list | tuple):
        return [portable(child) for child in value]
    whole = isinstance(value, str) and (value.startswith("/") or value[1:3] in (":\\", ":/"))
    return PurePath(value).name if whole else value


def _short(manifests: Iterable[Manifest]) -> dict[str, str]:
    """Names of strategies, networks and data as they are after `portable`, of those that it changes:
    code may be named by a whole path."""
    names: dict[str, str] = {}
    for m in manifests:
        names |= {word: portable(word) for word in (m.strategy, m.network.backbone)}
        augment = m.data.augment and m.data.augment.label
        names[m.data.label] = data_label(m.data.title or portable(m.data.name), augment)
    return {whole: short for whole, short in names.items() if whole != short}


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """A text in which these names are others, the longest first: one may begin as another."""
    for whole in sorted(names, key=len, reverse=True):
        text = text.replace(whole, names[whole])
    return text


def _add(by_name: dict[str, np.ndarray], trial: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Put a trial's logits and labels among the arrays of a pack; the names they have there."""

    def put(kind: str, array: np.ndarray) -> str:
        name = f"{kind}-{arrays.digest(array)[:24]}"
        by_name[name] = array
        return name

    places: dict[str, Any] = {}
    largest = float(np.finfo(np.float16).max)
    for split in SPLITS:
        if split not in trial:
            continue
        labels, logits = trial[f"{split}_labels"], trial[split]
        small = labels.astype(np.min_scalar_type(int(labels.max(initial=0))))
        half = np.clip(logits, -largest, largest).astype(np.float16)
        exits = [put("logits", np.ascontiguousarray(half[:, k])) for k in range(half.shape[1])]
        places[split] = {"exits": exits, "labels": put("labels", small)}
    return places


def _archive(by_name: Mapping[str, np.ndarray]) -> bytes:
    """As `numpy.savez_compressed`, in an order and with a date that never change."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(by_name):
            content = io.BytesIO()
            np.lib.format.write_array(content, by_name[name], allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))  # the first that zip knows
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content.getvalue(), compresslevel=9)
    return buffer.getvalue()


def _readme(
    records: Records,
    manifests: Sequence[Manifest],
    missing: tuple[str, ...],
    names: Mapping[str, str],
) -> str:
    lines = [
        "# Packed results",
        "",
        "Written by `offramp store pack`; read by every command that takes a store, such as",
        "`offramp report FOLDER --figures`. No weights are here. Logits are rounded to float16.",
        "",
        "| model | data | strategies | seeds | trials | test images |",
        "|---|---|---|---|---|---|",
    ]
    pairs = sorted({(m.network.backbone, m.data.label) for m in manifests})
    for model, data in pairs:
        here = [m for m in manifests if (m.network.backbone, m.data.label) == (model, data)]
        seeds = ", ".join(map(str, sorted({m.seed for m in here})))
        strategies = len({m.strategy for m in here})
        images = here[0].data.provenance.images.get("test", "?")
        words = " | ".join(markdown(names.get(word, word)) for word in (model, data))
        lines.append(f"| {words} | {strategies} | {seeds} | {len(here)} | {images} |")
    lines += ["", "Made with:", ""]
    versions = made_with(records, manifests).items()
    lines += [f"- {name}: {markdown(', '.join(values))}" for name, values in versions if values]
    if missing:
        lines += ["", "Missing:", "", *(f"- {markdown(note)}" for note in missing)]
    return "\n".join(lines) + "\n"
