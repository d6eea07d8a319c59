"""The types that users see. `make lint` runs mypy --strict on tests/typing, with everything else."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import offramp

ROOT = Path(__file__).parents[1]


def test_type_checkers_see_the_names_that_there_are() -> None:
    tree = ast.parse(Path(offramp.__file__).read_text())
    branches = [node for node in tree.body if isinstance(node, ast.If)]
    (seen,) = (node for node in branches if ast.unparse(node.test) == "_typing.TYPE_CHECKING")
    lines = [line for line in seen.body if isinstance(line, ast.ImportFrom)]
    homes = {(f"offramp.{home}", name) for home, names in offramp._HOMES.items() for name in names}
    assert {(line.module, each.asname) for line in lines for each in line.names} == homes


def test_the_users_file_is_checked() -> None:
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert mypy["strict"] and "tests/typing" in mypy["files"]
    assert (ROOT / "src" / "offramp" / "py.typed").exists()


@pytest.mark.long
def test_pyright_has_nothing_to_say() -> None:
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode == 0, found.stdout
