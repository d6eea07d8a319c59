"""Freed memory and garbage: settings of a process, seen in processes of their own. And the signals that
end one."""

import gc
import os
import platform
import signal
import subprocess
import sys

import pytest

from offramp.engine.waiting import SPIN_VARIABLES
from offramp.process import OBJECTS, Terminated, ended_by, keep_freed_memory, prepared, terminable


def ran(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """A new process with none of the settings but those given."""
    clean = {
        k: v for k, v in os.environ.items() if k not in SPIN_VARIABLES and not k.startswith("MALLOC_")
    }
    words = [sys.executable, "-c", code]
    return subprocess.run(words, env={**clean, **variables}, capture_output=True, text=True, check=True)


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_server_gives_memory_back() -> None:
    """It would hold on to the largest image that it ever saw."""
    again = "keep_freed_memory(); keep_freed_memory(False)"
    few, many = (ran(COUNT.format(how)).stdout for how in ("keep_freed_memory()", again))
    assert int(few) * 10 < int(many)


def test_what_the_user_set_for_the_allocator_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()


# Garbage.


@pytest.mark.parametrize(("own", "inside"), [(700, OBJECTS), (0, 0), (50_000, 50_000)])
def test_garbage_is_looked_for_less_often_but_as_the_program_says(own: int, inside: int) -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(own, 11, 12)
        with prepared():
            assert gc.get_threshold()[0] == inside
        assert gc.get_threshold() == (own, 11, 12)
    finally:
        gc.set_threshold(*before)


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
