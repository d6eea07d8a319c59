"""Energy an image, against a counter that the test turns, and memory, against what is taken."""

from __future__ import annotations

import copy
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from offramp.infer import bundle_timing
from offramp.infer.bundle_timing import BundleTask, measure
from offramp.infer.timing import WHOLE, Timing, joules
from offramp.meters.meter import NO_GPU, Meter, Missing, find_packages


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
        "from offramp.infer.timing import peak, resident; before = resident(); "
        "taken = bytearray(200_000_000); del taken; print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 190_000_000 < int(done.stdout) < 260_000_000


def test_what_memory_is_measured_of_is_loaded_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks: list[BundleTask] = []

    def answer(task: BundleTask) -> dict[str, Any]:
        tasks.append(task)
        if task.alone is not None:
            return {"memory": 7}
        whole = [
            asdict(Timing("onnxruntime", what, batch=4, p50=1.0, p95=1.0, rate=4.0, macs=1.0, repeats=5))
            for what in WHOLE
        ]
        return {"lines": whole, "version": "1", "unreliable": [], "notes": []}

    monkeypatch.setattr(bundle_timing, "_in_process", answer)
    times = measure(
        BundleTask("b", "plain.onnx", shares=(0.5, 0.5), batches=(4,), threads=1, repeats=5, seconds=0.0)
    )
    assert [line.memory for line in times.lines] == [7, None, 7]
    alone = [(task.alone, task.plain) for task in tasks[1:]]
    assert alone == [("plain", "plain.onnx"), ("policy", None)]


class Tied:
    """A bundle of three exits, the first two of which are as sure of every image."""

    score = "confidence"

    def __init__(self) -> None:
        self.stages = [SimpleNamespace(threshold=0.5, temperature=1.0, gate=None)] * 3

    def with_thresholds(self, thresholds: list[float]) -> Tied:
        twin = copy.copy(self)
        twin.stages = [SimpleNamespace(threshold=t, temperature=1.0, gate=None) for t in thresholds]
        return twin

    def all_exits(self, noise: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.array([2.0, 1.0], dtype=np.float32), (len(noise), 3, 2))


def test_where_scores_are_equal_more_images_leave_than_planned() -> None:
    """And none are left for later exits: the benchmark ended for want of them."""
    ruled = bundle_timing.with_shares(Tied(), [0.3, 0.3, 0.4], np.zeros((10, 1)))
    first, *later = (stage.threshold for stage in ruled.stages)
    assert 0.73 < first < 0.74 and later == [bundle_timing.NEVER] * 2
