"""How long OpenMP's threads spin, in a process of its own: the library reads that once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from offramp.process import GIVEN, SPINS, bound_spinning

LIBRARY = next((Path(torch.__file__).parent / "lib").glob("libgomp*"), None)
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="torch has no GNU OpenMP")

LOAD = f"import ctypes; ctypes.CDLL({str(LIBRARY)!r})"  # as torch does, in a hundredth of the time
BOUND = "from offramp.process import bound_spinning; bound_spinning()"
FIRST = f"{BOUND}; {LOAD}"
LATE = f"import sys; sys.modules['torch'] = None; {FIRST}"
CHILD = (
    f"{BOUND}; import subprocess, sys; "
    f"print(subprocess.run([sys.executable, '-c', {LOAD!r}], capture_output=True, text=True).stderr, "
    "file=sys.stderr)"
)
COMMAND = "import sys; sys.argv = ['offramp', 'taps', 'digits-cnn']; import offramp.cli as c; c.main()"


def spins(code: str, **variables: str) -> int:
    """What the library in a new process says it took."""
    clean = {k: v for k, v in os.environ.items() if k not in GIVEN}
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, "OMP_DISPLAY_ENV": "verbose", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"GOMP_SPINCOUNT = '(\d+)'", answer.stderr)
    assert found is not None, answer.stderr
    return int(found[1])


def test_a_command_bounds_it_and_its_children_inherit_that() -> None:
    assert spins(COMMAND) == SPINS
    assert spins(CHILD) == SPINS


def test_it_is_bounded_only_before_torch_is_there() -> None:
    assert spins(FIRST) == SPINS
    assert spins(LATE) == spins(LOAD) > SPINS


@pytest.mark.parametrize(
    ("variables", "count"),
    [({"OMP_WAIT_POLICY": "passive"}, 0), ({"GOMP_SPINCOUNT": "77"}, 77)],
)
def test_what_the_user_set_stays(variables: dict[str, str], count: int) -> None:
    assert spins(FIRST, **variables) == count


def test_it_says_whether_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GIVEN:
        monkeypatch.delenv(name, raising=False)
    assert not bound_spinning()  # torch is there
    monkeypatch.setenv("GOMP_SPINCOUNT", str(SPINS))  # as a child of a command has it
    assert bound_spinning()
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert not bound_spinning()
