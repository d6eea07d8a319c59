"""A user's own file: `my.py:make_data`."""

import sys
from pathlib import Path
from typing import Any

import pytest
from pictures import counts, refused
from syrupy.assertion import SnapshotAssertion

from offramp.data import DataSpec
from offramp.data.load import load
from offramp.hashing import file_digest

HEAD = """
from __future__ import annotations
from dataclasses import dataclass
import torch
from torch.utils.data import TensorDataset
from offramp.data.raw import RawData, RawSplit

@dataclass(frozen=True)
class Settings:
    n: int = 80

def images(n):
    return (torch.arange(n * 4) % 251).to(torch.uint8).reshape(n, 1, 2, 2)

def labels(n):
    return torch.arange(n) % 2

def dataset(n):
    return TensorDataset(images(n), labels(n))
"""


def write(folder: Path, body: str) -> str:
    path = folder / "my.py"
    path.write_text(HEAD + body)
    return f"{path}:make_data"


@pytest.mark.parametrize(
    "expression",
    [
        "RawData(RawSplit(images(80), labels(80)), RawSplit(images(9), labels(9)))",
        "(dataset(80), dataset(9))",
        "{'train': dataset(80), 'test': dataset(9)}",
        "{'train': (images(80), labels(80)), 'test': (images(9), labels(9))}",
        "{'train': (images(80).numpy(), labels(80).numpy()), 'test': dataset(9)}",
    ],
)
def test_what_a_function_may_return(tmp_path: Path, expression: str) -> None:
    name = write(tmp_path, f"def make_data(): return {expression}\n")
    before = set(sys.modules)
    data = load(DataSpec(name))
    assert counts(data) == {"train": 40, "validation": 20, "calibration": 20, "test": 9}
    assert data.classes == ("0", "1")
    assert not {m for m in set(sys.modules) - before if "my" in m.split("_")}
    assert data.provenance["source"]["sha256"] == file_digest(tmp_path / "my.py")


def test_validation_test_and_classes_of_its_own(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    body = (
        "def make_data(): return dict(train=dataset(80), validation=dataset(5),"
        " classes=['x', 'y'], test=None)\n"
    )
    name = write(tmp_path, body)
    data = load(DataSpec(name))
    assert data.classes == ("x", "y")
    assert counts(data) == {"train": 40, "validation": 5, "calibration": 20, "test": 20}
    assert refused(load, DataSpec(name, test_images=5)) == snapshot


def test_root_and_options_reach_it(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    name = write(
        tmp_path,
        "def make_data(root=None, n=80):\n"
        "    assert root is None or root.name == 'somewhere'\n"
        "    return dataset(n), dataset(9)\n",
    )
    assert len(load(DataSpec(name)).train) == 40
    spec = DataSpec(name, root="somewhere", options=(("n", 120),))
    assert len(load(spec).train) == 60
    assert refused(load, DataSpec(name, options=(("m", 1),))) == snapshot
    assert refused(load, DataSpec(name, root="elsewhere")) == snapshot
    needs = write(tmp_path, "def make_data(root): return dataset(80), dataset(9)\n")
    assert refused(load, DataSpec(needs)) == snapshot
    anything = write(tmp_path, "def make_data(**options): return dataset(options['n']), dataset(9)\n")
    assert len(load(DataSpec(anything, options=(("n", 120),))).train) == 60


LINE = HEAD.count("\n") + 1


WRONG: dict[str, Any] = {
    "near name": "def make_dat(): pass\n",
    "no function": "make_data = 3\n",
    "number": "def make_data(): return 3\n",
    "nothing": "def make_data(): return None\n",
    "no train": "def make_data(): return {'test': dataset(3)}\n",
    "triple": "def make_data(): return (1, 2, 3)\n",
    "train is a number": "def make_data(): return {'train': 3}\n",
    "near key": "def make_data(): return {'train': dataset(80), 'tset': dataset(3)}\n",
    "fails": "def make_data(): 1 / 0\n",
    "module fails": "1 / 0\n",
    "syntax": "def make_data(:\n",
    "import": "import no_such_module_here\n",
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_in_one_line(
    tmp_path: Path, body: str, snapshot: SnapshotAssertion
) -> None:
    assert refused(load, DataSpec(write(tmp_path, body))) == snapshot


def test_a_missing_file(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    assert refused(load, DataSpec(f"{tmp_path / 'other.py'}:make_data")) == snapshot


def test_two_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    sizes = []
    for n in (80, 120):
        folder = tmp_path / str(n)
        folder.mkdir()
        name = write(folder, f"def make_data(): return dataset({n}), dataset(9)\n")
        sizes.append(len(load(DataSpec(name)).train))
    assert sizes == [40, 60]
