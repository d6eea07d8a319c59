"""What others make, with a few bytes or fields changed: an error of one line, or an answer. Bundles:
`tests/bundle/test_runtime.py`."""

import gzip
import hashlib
import io
import json
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
from offramp import usercode
from offramp.api.results import stats
from offramp.data import DataSpec, load, split_file
from offramp.data.raw import RawData, RawSplit
from offramp.data.sources import table
from offramp.errors import OfframpError
from offramp.hashing import with_seal
from offramp.nets import pretrained
from offramp.policy.policy import Policy
from offramp.preprocessing import from_json
from offramp.report import claims, evidence
from offramp.report.page.folder import MARKER, check
from offramp.store import pack, searches
from offramp.store.store import Store
from offramp.study.spec import file as spec
from offramp.study.spec.yaml_lines import parse

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
    """name: of a file with `content`, which `read` takes the path of.  usual: how many cases.  beside:
    other files, by name."""

    name: str
    content: bytes
    read: Callable[[Path], object]
    usual: int = 200
    beside: Mapping[str, bytes] = field(default_factory=dict)

    def laid_out(self, folder: Path) -> Path:
        """Where it is, or would be, in a folder with all that it needs beside it."""
        for name, content in {**BESIDE, **self.beside}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        if self.name.endswith("ubyte.gz"):
            (folder / self.name.removesuffix(".gz")).unlink()
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


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


def cifar_files() -> dict[str, bytes]:
    """40 images."""
    files = {f"data_batch_{i}.bin": bytes([i % 2]) + bytes(3072) for i in range(1, 6)}
    files = {name: 8 * row for name, row in files.items()}
    files |= {"test_batch.bin": 2 * (b"\0" + bytes(3072) + b"\1" + bytes(3072))}
    files |= {"batches.meta.txt": b"a\nb\n"}
    return {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}


def cifar(mode: str) -> bytes:
    """An archive with them."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in cifar_files().items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def png(red: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (red, 0, 0)).save(file, "png")
    return file.getvalue()


def parquet() -> bytes:
    rows = [{"bytes": png(), "path": f"{i}.png"} for i in range(50)]
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
CODE = b"import beside\n\n\ndef f():\n    return 1\n"
TABLE = b"image,label\n" + b"".join(b"%d.png,%d\n" % (i, i % 2) for i in range(9))
NIH = b"Image Index,Finding Labels,Patient ID\n0.png,Infiltration,1\n"
SPECIAL = {  # doors that are tried with what is no file of their kind, and not with changed bytes
    **DOORS,
    "code": Door("my.py", CODE, lambda path: usercode.load(f"{path}:f", "backbone")),
    "code beside": Door(
        "beside.py",
        b"",
        lambda path: usercode.load(f"{path.with_name('my.py')}:f", "backbone"),
        beside={"my.py": CODE},
    ),
    "index of weights": Door("w.safetensors.index.json", b'{"weight_map": {}}', weights),
    "shard of weights": Door(
        "s.safetensors",
        save({"a.weight": torch.zeros(2, 2)}),
        lambda path: weights(path.with_name("w.safetensors.index.json")),
        beside={"w.safetensors.index.json": b'{"weight_map": {"a.weight": "s.safetensors"}}'},
    ),
    "journal": Door("s.log", b'{"op_code": 0}\n', lambda path: searches._mend(path)),
    "CSV of images": Door("t.csv", TABLE, table.read),
    "JSON lines of images": Door("t.jsonl", b'{"image": "0.png", "label": 1}\n', table.read),
    "Parquet of images": Door("t.parquet", numbers("parquet"), table.read),
    "NIH": Door("Data_Entry_2017_v2020.csv", NIH, data("chestxray14")),
    "wnids": Door(
        "wnids.txt",
        b"n01 n02\n",
        lambda path: load(
            DataSpec("imagenet100", root=str(path.parent), options=(("wnids", str(path)),))
        ),
        beside={f"{split}/n01/0.png": png() for split in ("train", "val")},
    ),
    "CIFAR file": Door(
        "cifar-10-batches-bin/data_batch_1.bin",
        cifar_files()["cifar-10-batches-bin/data_batch_1.bin"],
        lambda path: load(
            DataSpec("cifar10", root=str(path.parents[1]), options=(("official", False),))
        ),
        beside=cifar_files(),
    ),
    "photo": Door(
        "photos/a/0.png",
        png(),
        lambda path: load(DataSpec("folder", root=str(path.parents[1]))),
        beside={f"photos/{'ab'[i % 2]}/{i}.png": png(i) for i in range(40)},
    ),
    "marker of a report": Door(f"page/{MARKER}", b'{"files": []}', lambda path: check(path.parent)),
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
    "split": ({"version": 1, "splits": SPLITS}, splits),
}


@pytest.mark.filterwarnings("ignore")  # of libraries, of what is wrong in a file
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_bytes(door: Door, tmp_path: Path) -> None:
    path = door.laid_out(tmp_path)
    path.write_bytes(door.content)
    door.read(path)  # as it is, it is read
    for case in cases(door.usual):
        path.write_bytes(harmed(case, door.content))
        one_line(case, door.read, path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("door", SPECIAL.values(), ids=SPECIAL)
def test_what_is_no_file_of_its_kind(
    door: Door, harm: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    """A pipe, a device that never ends, four terabytes: in little memory, before the test's time is
    up."""
    path = door.laid_out(tmp_path)
    path.unlink(missing_ok=True)
    harm(path, door.content)
    with little_memory(), pytest.raises(OfframpError) as caught:
        door.read(path)
    assert "\n" not in str(caught.value)


def repeated(names: tuple[str, ...], value: Any) -> bytes:
    """Parquet of 3,000 equal rows, which stand there once."""
    rows = pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array([value]))
    file = io.BytesIO()
    pq.write_table(pa.table(dict.fromkeys(names, rows)), file, store_schema=False)
    return file.getvalue()


def wide_png() -> bytes:
    """The head of a picture of 4,000,000,000 pixels."""
    size = (200_000).to_bytes(4, "big") + (20_000).to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    head = b"IHDR" + size
    chunk = (13).to_bytes(4, "big") + head + zlib.crc32(head).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk + png()[33:]


LARGE = 2**20  # bytes of a cell: three gigabytes in all
BOMBS = {
    "table of images": ("Parquet of images", repeated(("image", "label"), "x" * LARGE)),
    "table of numbers": ("Parquet table", repeated(("value", "strategy"), "x" * LARGE)),
    "shard of images": ("Parquet", repeated(("img", "label"), b"x" * LARGE)),
    "photo": ("photo", wide_png()),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "content"), BOMBS.values(), ids=BOMBS)
def test_what_unpacks_to_gigabytes(name: str, content: bytes, tmp_path: Path) -> None:
    door = SPECIAL[name]
    path = door.laid_out(tmp_path)
    path.write_bytes(content)
    assert len(content) < 5 * 2**20
    with little_memory(), pytest.raises(OfframpError) as caught:
        door.read(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


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
