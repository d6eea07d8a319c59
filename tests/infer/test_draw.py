"""Energy an image, against a counter that the test turns, and memory, against what is taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from offramp.infer.draw import joules
from offramp.meters import NO_GPU, Meter, Missing, find_packages


@pytest.mark.parametrize("images", [1, 16])
def test_joules_are_those_of_the_counter(tmp_path: Path, images: int) -> None:
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    used = 1_000_000

    def write() -> None:
        (zone / "energy_uj").write_text(f"{used}\n")

    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("262143328850\n")
    write()
    clock = iter(range(1000))

    def run() -> None:
        nonlocal used
        used += 3_000_000
        write()

    meter = Meter(find_packages(tmp_path), Missing(NO_GPU))
    used += 50_000_000  # before it began
    write()
    assert joules(run, images, meter, clock=lambda: next(clock), seconds=7.0) == 3.0 / images


def test_without_a_meter_nothing_is_made_up() -> None:
    def run() -> None:
        raise AssertionError("what for?")

    assert joules(run, 1, Meter(Missing("none"), Missing(NO_GPU))) is None


def test_memory_is_the_most_that_was_taken() -> None:
    program = (
        "from offramp.infer.draw import peak, resident; before = resident(); "
        "taken = bytearray(200_000_000); del taken; print(peak() - before)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 190_000_000 < int(found.stdout) < 260_000_000
