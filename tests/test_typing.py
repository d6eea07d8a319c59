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
USER = ROOT / "tests" / "typing" / "user.py"


def test_the_users_file_has_every_public_name_and_is_checked() -> None:
    tree = ast.parse(USER.read_text())
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert set(offramp.__all__) <= used
    mypy = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert mypy["strict"] and "tests/typing" in mypy["files"]
    assert (ROOT / "src" / "offramp" / "py.typed").exists()


@pytest.mark.long
def test_pyright_has_nothing_to_say() -> None:
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable]
    found = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert found.returncode == 0, found.stdout
