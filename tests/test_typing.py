"""The types that users see. `make lint` runs mypy --strict on tests/typing, with everything else."""

import ast
import contextlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from mypy.config_parser import parse_config_file
from mypy.find_sources import create_source_list
from mypy.options import Options

import offramp

ROOT = Path(__file__).parents[1]


def test_type_checkers_see_the_names_that_there_are() -> None:
    tree = ast.parse(Path(offramp.__file__).with_suffix(".pyi").read_text())
    lines = [line for line in tree.body if isinstance(line, ast.ImportFrom)]
    assert {each.asname: line.module for line in lines for each in line.names} == offramp._HOMES


def test_the_users_file_is_checked() -> None:
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert mypy["strict"] and "tests/typing" in mypy["files"]
    assert (ROOT / "src" / "offramp" / "py.typed").exists()


def test_mypy_tells_files_of_one_name_apart() -> None:
    """`mypy src tests` ended at the second conftest.py."""
    options = Options()
    parse_config_file(options, lambda: None, str(ROOT / "pyproject.toml"))
    with contextlib.chdir(ROOT):
        names = [each.module for each in create_source_list(["src", "tests"], options)]
    assert len(set(names)) == len(names)
    assert {"offramp.errors", "cli.conftest", "conftest"} <= set(names)


@pytest.mark.long
def test_pyright_has_nothing_to_say() -> None:
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode == 0, found.stdout
