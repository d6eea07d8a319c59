"""Reading, drawing and saving with torch out of reach, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from offramp.report import evidence
from offramp.store import pack as packed
from support import run_all, tiny_plan, tiny_study

BLOCKED = """\
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm"):
            raise ImportError(f"{name} is out of reach")

sys.meta_path.insert(0, Refuse())
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    run_all(tiny_plan(tiny_study(["joint", "two-stage"])), root)
    return root


COMMAND = "from offramp.cli import main\nmain()\n"


def test_torch_really_is_out_of_reach() -> None:
    answer = run("import offramp.store.store")
    assert answer.returncode == 1 and "torch is out of reach" in answer.stderr


def test_a_store_is_packed_and_drawn(store: Path, tmp_path: Path) -> None:
    packing = run(COMMAND, "pack", store, "--out", tmp_path / "pack")
    assert packing.returncode == 0, packing.stderr
    assert "2 trials packed" in packing.stdout
    for source in (store, tmp_path / "pack"):
        out = tmp_path / f"figures-{source.name}"
        what = ("--only", "time-total", "--format", "svg")
        drawing = run(COMMAND, "figures", source, "--out", out, *what)
        assert drawing.returncode == 0, drawing.stderr
        files = sorted(p.name for p in out.iterdir())
        assert files == ["captions.md", "time-total-digits-cnn-custom.svg"]


def test_the_table_and_every_figure(store: Path) -> None:
    code = (
        "import pathlib\nfrom offramp.report import evidence\nfrom offramp.report.figures import draw\n"
        "found = evidence.open(pathlib.Path(sys.argv[1]))\n"
        "print(len(found.table), len(draw(found).figures), 'torch' in sys.modules)\n"
    )
    answer = run(code, store)
    assert answer.returncode == 0, answer.stderr
    rows, figures, loaded = answer.stdout.split()
    assert int(rows) > 100 and int(figures) > 10 and loaded == "False"
    assert evidence.open(store).table.shape[0] == int(rows)
    assert not packed.is_pack(store)


def test_a_store_is_looked_into(store: Path, tmp_path: Path) -> None:
    of = ("--store", store)
    for asked, said in (
        (("status", *of), "2 trials finished"),
        (("show", "joint-digits", *of), "Phases"),
        (("compare", "joint", "two-stage", *of), "paired by seed"),
        (("export-table", "--out", tmp_path / "table.csv", *of), "rows of 2 trials"),
    ):
        answer = run(COMMAND, *asked)
        assert answer.returncode == 0, answer.stderr
        assert said in answer.stdout
