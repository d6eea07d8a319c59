"""The allocator's settings: fewer page faults, in a process of their own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
from offramp.process import keep_freed_memory
import numpy as np
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    for _ in range(10):
        np.ones(2**23)  # 64 MB, freed at once
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **variables: str) -> int:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    words = [sys.executable, "-c", COUNT, how]
    answer = subprocess.run(
        words, env={**clean, **variables}, capture_output=True, text=True, check=True
    )
    return int(answer.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_is_faulted_in_once() -> None:
    assert faults("keep") * 10 < faults("leave")


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    from offramp.process import keep_freed_memory

    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert not keep_freed_memory()
