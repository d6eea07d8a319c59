"""What holds for every data set known by name, and for one that is added as CONTRIBUTING.md says."""

import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import offramp
from offramp.data import DATASETS, DataSpec, load
from offramp.study.spec.file import parse
from refusal import refuses
from wording import refusal

OPTIONS = {name: inspect.signature(source.read).parameters for name, source in DATASETS.items()}
ROOTED = [name for name, options in OPTIONS.items() if "root" in options]


def test_the_registry_is_in_order() -> None:
    assert list(DATASETS) == sorted(DATASETS)
    assert all(Path(f"{name}.py").stem == source.read.__name__ for name, source in DATASETS.items())


@pytest.mark.parametrize("name", DATASETS)
def test_options_are_typed_have_defaults_and_are_no_shared_ones(name: str) -> None:
    for option in OPTIONS[name].values():
        assert option.annotation is not inspect.Parameter.empty
        if option.name != "root":
            assert option.default is not inspect.Parameter.empty
            assert option.name not in DataSpec.__dataclass_fields__
    assert "OfframpError" in (inspect.getdoc(DATASETS[name].read) or "") or name not in ROOTED


@pytest.mark.parametrize("name", ROOTED)
def test_missing_data_says_what_to_fetch(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    if OPTIONS[name]["root"].default is inspect.Parameter.empty:
        line = refuses("needs its folder", load, DataSpec(name))
        assert str(DATASETS[name].fetch) in line and "OFFRAMP_DATA" in line
    assert "nowhere" in refuses("fetch", load, DataSpec(name, root=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("name", DATASETS)
def test_an_option_of_another_type_is_refused(name: str, tmp_path: Path) -> None:
    for option in OPTIONS[name].keys() - {"root"}:
        spec = DataSpec(name, root=str(tmp_path), options=((option, {"odd": 1}),))
        line = refusal(load, spec)
        assert line.startswith(f"data.{option} must be") and line.endswith("got a mapping")


MINE = '''
"""Gray squares."""

from __future__ import annotations

from pathlib import Path

import torch

from offramp.data.raw import DataSource, RawData, RawSplit
from offramp.errors import OfframpError

FETCH = "squares.txt from https://example.org"


def my_data(root: Path, side: int = 8) -> RawData:
    """[N, 1, side, side] uint8. Raises OfframpError where there is no squares.txt."""
    if not (root / "squares.txt").is_file():
        raise OfframpError(f"{root} holds no squares.txt; fetch {FETCH}")
    labels = torch.arange(120) % 2
    images = (labels * 200).to(torch.uint8)[:, None, None, None].expand(-1, 1, side, side)
    split = RawSplit(images.contiguous(), labels)
    return RawData(split, split, ("dark", "bright"))


MINE = DataSource(my_data, FETCH)
'''


@pytest.mark.long
def test_a_new_one_is_one_file_and_one_line(tmp_path: Path) -> None:
    """In a copy of the package; the tests above then run on it, and so does the command line."""
    package = tmp_path / "src" / "offramp"
    shutil.copytree(Path(offramp.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    registry = package / "data" / "sources" / "__init__.py"
    text = registry.read_text()
    text = text.replace("import NPZ\n", "import NPZ\nfrom offramp.data.sources.my_data import MINE\n")
    text = text.replace('    "npz": NPZ', '    "my_data": MINE,\n    "npz": NPZ')
    registry.write_text(text)
    (registry.parent / "my_data.py").write_text(MINE)
    (tmp_path / "squares.txt").touch()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}

    def run(*command: str) -> str:
        process = subprocess.run(
            [sys.executable, "-m", *command],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    tests = ("-p", "no:cacheprovider", "-p", "no:xdist", "-v", "-c", os.devnull)
    passed = run("pytest", *tests, "-k", "my_data or registry", __file__)
    assert "data_says_what_to_fetch[my_data] PASSED" in passed
    study = ("--strategy", "baseline", "--backbone", "digits-cnn", "--dry-run", "--set", "exits=1")
    assert "1 trial" in run("offramp", "run", *study, "--data", f"my_data:{tmp_path}")


def test_the_examples_of_the_page_on_data_are_understood() -> None:
    """Each names a data set and options that it has, and the page tells of every data set."""
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    blocks = "\n".join(line[4:] for line in page.splitlines() if line.startswith("    "))
    examples = re.findall(r"^data:.*\n(?:  .*\n|recipe:.*\n)*", blocks, re.MULTILINE)
    seen = set()
    for example in examples:
        fields = {"strategies": ["joint"], "backbone": "resnet18", **yaml.safe_load(example)}
        study = parse(fields, example)
        if study.data.name in DATASETS:
            seen.add(study.data.name)
            options = set(OPTIONS[study.data.name])
            assert set(dict(study.data.options)) <= options, example
            assert study.data.root is None or "root" in options
    assert seen == DATASETS.keys()
