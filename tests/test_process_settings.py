"""How long OpenMP's threads spin, and whether freed memory is kept: settings that are read once, seen
in processes of their own. And the signals that end a process."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longer import long
from offramp.process import (
    SPIN_VARIABLES,
    SPINS,
    Terminated,
    bound_spinning,
    ended_by,
    keep_freed_memory,
    terminable,
)

LIBRARY = next((Path(torch.__file__).parent / "lib").glob("libgomp*"), None)
with_openmp = pytest.mark.skipif(LIBRARY is None, reason="torch has no GNU OpenMP")

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
SHORT = f"""
import sys
sys.argv = ['offramp', '--version']
import offramp.cli as c
try:
    c.main()
except SystemExit:
    {LOAD}
"""


def ran(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A new process with none of the settings but those given."""
    clean = {
        k: v for k, v in os.environ.items() if k not in SPIN_VARIABLES and not k.startswith("MALLOC_")
    }
    words = [sys.executable, "-c", code]
    return subprocess.run(words, env={**clean, **variables}, capture_output=True, text=True, check=True)


def spins(code: str, **variables: str) -> int:
    """What the library in a new process says it took."""
    answer = ran(code, OMP_DISPLAY_ENV="verbose", **variables)
    setting = re.search(r"GOMP_SPINCOUNT = '(\d+)'", answer.stderr)
    assert setting is not None, answer.stderr
    return int(setting[1])


@with_openmp
@pytest.mark.parametrize("code", [SHORT, CHILD, *long(COMMAND)], ids=["short", "child", "command"])
def test_a_command_bounds_it_and_its_children_inherit_that(code: str) -> None:
    assert spins(code) == SPINS


@with_openmp
def test_it_is_bounded_only_before_torch_is_there() -> None:
    assert spins(FIRST) == SPINS
    assert spins(LATE) == spins(LOAD) > SPINS


@with_openmp
@pytest.mark.parametrize(
    ("variables", "count"), [({"OMP_WAIT_POLICY": "passive"}, 0), ({"GOMP_SPINCOUNT": "77"}, 77)]
)
def test_what_the_user_set_stays(variables: dict[str, str], count: int) -> None:
    assert spins(FIRST, **variables) == count


def test_it_says_whether_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SPIN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not bound_spinning()  # torch is there
    monkeypatch.setenv("GOMP_SPINCOUNT", str(SPINS))  # as a child of a command has it
    assert bound_spinning()
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert not bound_spinning()


# Freed memory.

COUNT = """
import resource, sys
from offramp.process import keep_freed_memory
import numpy as np
{}
def work():
    for _ in range(10):
        np.ones(2**23)  # 64 MB, freed at once
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_is_faulted_in_once() -> None:
    few, many = (ran(COUNT.format(how)).stdout for how in ("assert keep_freed_memory()", ""))
    assert int(few) * 10 < int(many)


def test_what_the_user_set_for_the_allocator_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()


# cuBLAS.


def test_what_makes_cublas_deterministic_is_set_before_anybody_computes() -> None:
    """And what the user set stays."""
    code = "import os; {}import offramp; print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    assert ran(code.format("os.environ.pop('CUBLAS_WORKSPACE_CONFIG', None); ")).stdout == ":4096:8\n"
    assert ran(code.format(""), CUBLAS_WORKSPACE_CONFIG=":16:8").stdout == ":16:8\n"


# Signals.


def test_a_signal_ends_nested_blocks_once() -> None:
    """Schedulers repeat themselves, between the inner and the outer block too."""
    saved = False
    with pytest.raises(Terminated), terminable():
        try:
            with terminable():
                signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            saved = True
    assert saved and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_how_a_process_ended_is_said_in_words() -> None:
    assert [ended_by(code) for code in (-9, -11, 0, 1, 255, None)] == [
        *("SIGKILL", "SIGSEGV", "exit code 0", "exit code 1", "exit code 255", "exit code None")
    ]
    assert ended_by(-999) == "signal 999"
