"""What others make, with a few bytes or fields changed: an error of one line, or an answer. Bundles:
`tests/bundle/test_runtime.py`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save

import records
from fuzz_kit import HARMS, cases, changed, harmed, little_memory, one_line
from offramp.api.results import stats
from offramp.data import DataSpec, load, split_file
from offramp.data.raw import RawData, RawSplit
from offramp.errors import OfframpError
from offramp.hashing import with_seal
from offramp.nets import pretrained
from offramp.policy.policy import Policy
from offramp.preprocessing import from_json
from offramp.report import claims, evidence
from offramp.store import pack
from offramp.store.store import Store
from offramp.study.plan import profiles
from offramp.study.spec import file as spec
from offramp.study.spec.yaml_lines import parse

pytestmark = pytest.mark.slow

RESULTS = Path(__file__).parents[1] / "docs" / "results"
POLICY = (RESULTS / "cifar10-deploy-policy.json").read_bytes()
MADE = RESULTS / "cifar10-deploy"
STUDY = (Path(__file__).parents[1] / "studies" / "demo.yaml").read_bytes()
CLAIMS = b"""\
data_sets: {tiny: {title: Tiny, models: [net*, x], classes: 2, train: [1, 9], size: 8, epochs: [1, 2]}}
data: [tiny]
claims:
  - {id: a, section: "1", question: rq1, text: A is better., measure: accuracy-test, is: higher,
     strategies: joint, against: core, exits: [1, final], by: mean, margin: 0.01, contradicts: b}
  - {id: b, section: "1", question: rq1, text: B is better., measure: peak-epoch, is: within,
     order: [joint, baseline], margin: 2, models: net*}
"""
PROFILE = {
    "numerics": {"device": "cpu", "threads": 2, "precision": "float32", "frozen_batch": 64},
    **{"machine": "m", "made": "2025", "measured": [{"what": "w", "network": "n", "ratio": 1.5}]},
}
HOW = {"size": [8, 8], "channels": 1, "mean": [0.5], "std": [0.2], "resize": 9, "crop": True}
SPLITS = {
    name: {f"{source} row {row}": str(row) for row in rows}
    for name, source, rows in (
        ("train", "train", (0, 1, 2)),
        ("validation", "train", (3,)),
        ("calibration", "train", (4, 5)),
        ("test", "test", (0, 1)),
    )
}


@dataclass(frozen=True)
class Door:
    """name: of a file with `content`, which `read` takes the path of.  usual: how many cases."""

    name: str
    content: bytes
    read: Callable[[Path], object]
    usual: int = 200


def data(name: str, **options: Any) -> Callable[[Path], object]:
    """Reads the folder of a file as a data set, up to its four splits."""
    chosen = tuple(options.items())
    return lambda path: load(DataSpec(name, root=str(path.parent), options=chosen))


def npz() -> bytes:
    archive = io.BytesIO()
    images = np.zeros((60, 4, 4), np.uint8)
    np.savez_compressed(archive, train_images=images, train_labels=np.arange(60) % 2)
    return archive.getvalue()


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


def cifar(mode: str) -> bytes:
    """An archive with 40 images."""
    file = io.BytesIO()
    files = {f"data_batch_{i}.bin": bytes([i % 2]) + bytes(3072) for i in range(1, 6)}
    files = {name: 8 * row for name, row in files.items()}
    files |= {"test_batch.bin": 2 * (b"\0" + bytes(3072) + b"\1" + bytes(3072))}
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in (files | {"batches.meta.txt": b"a\nb\n"}).items():
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def parquet() -> bytes:
    png = io.BytesIO()
    Image.new("RGB", (4, 4)).save(png, "png")
    rows = [{"bytes": png.getvalue(), "path": f"{i}.png"} for i in range(50)]
    table = pa.table({"img": rows, "label": [i % 2 for i in range(50)]})
    names = {"info": {"features": {"label": {"names": ["a", "b"]}}}}
    file = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(names)}), file)
    return file.getvalue()


def torch_file() -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": {"a.weight": torch.zeros(2, 2)}}, file)
    return file.getvalue()


def numbers(kind: str) -> bytes:
    frame = pd.DataFrame({"value": [0.5, 1.0, 2.0], "strategy": ["a", "b", "a"]})
    return frame.to_csv(index=False).encode() if kind == "csv" else frame.to_parquet(None)


def weights(path: Path) -> object:
    return pretrained.read(str(path), "resnet18")


def splits(path: Path) -> object:
    labels = torch.arange(8) % 2
    raw = RawData(RawSplit(torch.zeros(8, 1, 2, 2), labels), RawSplit(torch.zeros(8, 1, 2, 2), labels))
    return split_file.read(path).choose(raw)


DOORS = {
    "policy": Door("policy.json", POLICY, Policy.load),
    "study": Door("study.yaml", STUDY, spec.read),
    "claims": Door("claims.yaml", CLAIMS, claims.read),
    "profile": Door("p.json", json.dumps(PROFILE).encode(), profiles.read),
    "split": Door("s.json", json.dumps({"version": 1, "splits": SPLITS}).encode(), splits),
    "npz": Door("a.npz", npz(), data("npz")),
    "IDX": Door("train-images-idx3-ubyte", idx(np.zeros((60, 4, 4))), data("idx")),
    "IDX labels": Door("train-labels-idx1-ubyte", idx(np.arange(60) % 2), data("idx"), 100),
    "IDX gz": Door(
        "train-labels-idx1-ubyte.gz", gzip.compress(idx(np.arange(60) % 2)), data("idx"), 100
    ),
    "CIFAR tar": Door("cifar-10-binary.tar.gz", cifar("w"), data("cifar10", official=False), 50),
    "CIFAR gz": Door("cifar-10-binary.tar.gz", cifar("w:gz"), data("cifar10", official=False)),
    "Parquet": Door("train-0.parquet", parquet(), data("cifar10", official=False), 100),
    "safetensors": Door("w.safetensors", save({"a.weight": torch.zeros(2, 2)}), weights),
    "torch": Door("w.pth", torch_file(), weights),
    "table": Door("t.csv", numbers("csv"), lambda path: stats.read(path, "value")),
    "Parquet table": Door("t.parquet", numbers("parquet"), lambda path: stats.read(path, "value"), 100),
}
BESIDE: Mapping[str, bytes] = {
    "train-images-idx3-ubyte": idx(np.zeros((60, 4, 4))),
    "train-labels-idx1-ubyte": idx(np.arange(60) % 2),
    "t10k-images-idx3-ubyte": idx(np.zeros((4, 4, 4))),
    "t10k-labels-idx1-ubyte": idx(np.arange(4) % 2),
    "test-0.parquet": parquet(),
}
JSON = {
    "policy": (json.loads(POLICY), Policy.load),
    "study": (parse(STUDY.decode(), "").value, spec.read),
    "claims": (parse(CLAIMS.decode(), "").value, claims.read),
    "profile": (PROFILE, profiles.read),
    "split": ({"version": 1, "splits": SPLITS}, splits),
}


@pytest.mark.filterwarnings("ignore")  # of libraries, of what is wrong in a file
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_bytes(door: Door, tmp_path: Path) -> None:
    path = tmp_path / door.name
    for name, content in BESIDE.items():
        (tmp_path / name).write_bytes(content)
    if door.name.endswith("ubyte.gz"):
        (tmp_path / door.name.removesuffix(".gz")).unlink()
    path.write_bytes(door.content)
    door.read(path)  # as it is, it is read
    for case in cases(door.usual):
        path.write_bytes(harmed(case, door.content))
        one_line(case, door.read, path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_what_is_no_file_of_its_kind(
    door: Door, harm: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    """A pipe, a device that never ends, four terabytes: in little memory, before the test's time is
    up."""
    path = tmp_path / door.name
    for name, content in BESIDE.items():
        (tmp_path / name).write_bytes(content)
    if door.name.endswith("ubyte.gz"):
        (tmp_path / door.name.removesuffix(".gz")).unlink()
    path.unlink(missing_ok=True)
    harm(path, door.content)
    with little_memory(), pytest.raises(OfframpError) as caught:
        door.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("value", "read"), JSON.values(), ids=JSON)
def test_fields(value: Any, read: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(value))
    read(path)
    for case in cases(200):
        path.write_text(json.dumps(changed(case, value)))
        one_line(case, read, path)


def test_fields_of_preprocessing() -> None:
    for case in cases(500):
        one_line(case, from_json, changed(case, HOW), also=ValueError)


@dataclass(frozen=True)
class Few:
    """The records of a pack, with the first of its images alone."""

    whole: pack.Pack

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def trial_logits(self, trial: str) -> dict[str, np.ndarray]:
        return {name: array[:4] for name, array in self.whole.trial_logits(trial).items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole = pack.read(MADE)
    out = tmp_path_factory.mktemp("fuzz") / "pack"
    trial = whole.trials()[0]
    table = whole.table[(whole.table["trial"] == trial) & (whole.table["phase"] == "final")]
    pack.write(out, Few(whole), [trial], table, ())
    return out


def look(path: Path) -> object:
    return evidence.open(path).disagreements


def test_bytes_of_a_pack(small: Path) -> None:
    whole = (small / "trials.json").read_bytes()
    look(small)
    for case in cases(200):
        (small / "trials.json").write_bytes(harmed(case, whole))
        one_line(case, look, small)
    (small / "trials.json").write_bytes(whole)


def test_fields_of_a_pack(small: Path) -> None:
    whole = (small / "trials.json").read_bytes()
    value = {name: child for name, child in json.loads(whole).items() if name != "seal"}
    for case in cases(50):
        edited = changed(case, value)
        (small / "trials.json").write_text(
            json.dumps(with_seal(edited) if isinstance(edited, dict) else edited)
        )
        one_line(case, look, small)
    (small / "trials.json").write_bytes(whole)


@pytest.mark.parametrize("name", ["table.parquet", "logits.npz"])
def test_bytes_of_a_packs_files(small: Path, name: str) -> None:
    whole = {path.name: path.read_bytes() for path in small.iterdir()}
    fields = {key: value for key, value in json.loads(whole["trials.json"]).items() if key != "seal"}
    for case in cases(25):
        content = harmed(case, whole[name])
        (small / name).write_bytes(content)
        sums = {**fields["files"], name: hashlib.sha256(content).hexdigest()}
        (small / "trials.json").write_text(json.dumps(with_seal({**fields, "files": sums})))
        one_line(case, look, small)
    for each, content in whole.items():
        (small / each).write_bytes(content)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a node, a trial of it, a plan, a checkpoint and a log of seeds."""
    filled = Store(tmp_path_factory.mktemp("fuzz") / "store")
    exits = {"p1": {"head": {"spec": {}, "trains": True}, "spans": [{"to": "p1", "trains": True}]}}
    node = records.node({"exits": exits})
    rows = [(1, "p1", split, metric, 0.5) for split in ("train", "validation") for metric in METRICS]
    history = pd.DataFrame(rows, columns=["epoch", "exit", "split", "metric", "value"])
    filled.write_node(node, {"a.weight": torch.zeros(2)}, history, records.cost())
    labels = {f"{split}_labels": np.zeros(2, np.int64) for split in records.SPLITS}
    logits = {split: np.eye(2, dtype=np.float32)[:, None] for split in records.SPLITS}
    final = {"1": [{"node": node.key, "draw": "initial"}]}
    filled.write_trial("t", records.manifest((node.key,), final=final), logits | labels)
    filled.plan_trial("u", [node.key])
    filled.write_checkpoint("0" * 64, {"a": torch.zeros(2)}, {"epoch": 1})
    filled.write_seed_log("s", records.seed_log(looks={"3": [{"a": 1}]}))
    return filled.root


METRICS = ("cross_entropy", "accuracy")


def look_at_all(root: Path) -> object:
    """All that a report, a look at what is unneeded and a resumed phase read of a store."""
    opened = Store(root)
    opened.read_checkpoint("0" * 64)
    try:
        opened.unneeded()
    finally:
        whole = evidence.open(root)
        for trial in whole.trials:
            opened.node_weights(trial.phases[0].node)
    return whole.disagreements


def files_of(root: Path) -> dict[str, bytes]:
    paths = [p for p in root.rglob("*") if p.is_file() and not p.is_relative_to(root / "locks")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(paths)}


@pytest.mark.filterwarnings("ignore")
def test_bytes_of_a_store(store: Path) -> None:
    whole = files_of(store)
    look_at_all(store)
    names = list(whole)
    for case in cases(50):
        name = names[case % len(names)]
        (store / name).write_bytes(harmed(case, whole[name]))
        one_line(case, look_at_all, store)
        (store / name).write_bytes(whole[name])


@pytest.mark.filterwarnings("ignore")
def test_what_a_store_says_under_new_seals(store: Path) -> None:
    """Somebody who makes a store can seal what is in it."""
    whole = files_of(store)
    documents = [name for name in whole if name.endswith(".json")]
    parts = [name for name in whole if name.count("/") == 2 and not name.startswith("work")]
    for case in cases(50):
        name = documents[case % len(documents)] if case % 2 else parts[case % len(parts)]
        content = whole[name]
        if name in documents:
            value = json.loads(content)
            sealed = isinstance(value, dict) and value.pop("seal", None) is not None
            edited = changed(case, value)
            content = json.dumps(
                with_seal(edited) if sealed and isinstance(edited, dict) else edited
            ).encode()
        else:
            content = harmed(case, content)
        (store / name).write_bytes(content)
        resealed(store / name)
        one_line(case, look_at_all, store)
        for each in (name, *documents):
            (store / each).write_bytes(whole[each])


def resealed(path: Path) -> None:
    """The manifest beside a file says what the file now is."""
    for name in ("node.json", "trial.json"):
        place = path.parent / name
        if place.is_file() and place != path:
            fields = {
                key: value for key, value in json.loads(place.read_bytes()).items() if key != "seal"
            }
            content = path.read_bytes()
            sums = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            place.write_text(
                json.dumps(with_seal({**fields, "files": {**fields["files"], path.name: sums}}))
            )
