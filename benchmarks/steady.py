"""No slow-down over time, with and without other work, and memory under its limit.

All nine strategies train for many short epochs in a process that starts as the command starts. Of every
group of phases that share their epochs, the median of the last three is held against that of the second
to the fourth: single epochs this short are noise. Then, in a shorter run, another process multiplies
matrices on one thread during every other epoch.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from benchmarks import runs
from benchmarks.runs import Setting
from benchmarks.side import Contender, Result, machine

LATE = 1.2  # times the second epoch
BESIDE = 2.5  # times the epoch alone
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
NAMES = {"resnet50": "ResNet-50", "mobilenetv2": "MobileNetV2"}

Epochs = dict[str, list[float]]  # seconds of each epoch, by group of phases


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Result]:
    few = ("two-stage", "joint-branch") if quick else Setting.strategies
    settings = (
        Setting("resnet50", 200 if quick else 512, 30, strategies=few, test_images=100),
        Setting("mobilenetv2", 512, 30, strategies=few, test_images=100),
    )
    for setting in settings:
        yield late(setting, alone(setting, say))
    for setting in settings:
        yield beside(setting, *contended(setting, 5 if quick else 11, say))


def alone(setting: Setting, say: Callable[[str], None]) -> Epochs:
    """Every epoch of every group, in a process to itself."""
    found: Epochs = {}
    for epoch in epochs(setting):
        group = found.setdefault(epoch["group"], [])
        group.append(epoch["seconds"])
        if len(group) == setting.epochs:
            say(f"  {setting.backbone}, {epoch['group']}: {_drift(group):.2f}")
    return found


def epochs(setting: Setting) -> Iterator[dict[str, Any]]:
    with (
        tempfile.TemporaryDirectory(prefix="offramp-steady-") as folder,
        Contender(
            runs.study, setting=setting, mode="derived", folder=folder, until="epoch"
        ) as contender,
    ):
        while (epoch := contender()) is not None:
            yield epoch


def late(setting: Setting, found: Epochs) -> Result:
    """The worst group's last epochs against its second to fourth; spread: over groups."""
    ratios = {group: _drift(seconds) for group, seconds in found.items()}
    worst = max(ratios, key=lambda group: ratios[group])
    second = 1000 * median(found[worst][1:4])
    return Result(
        f"steady: {NAMES[setting.backbone]}, last epoch / second",
        ratios[worst],
        LATE,
        "lower",
        (min(ratios.values()), max(ratios.values())),
        machine(),
        f"{setting.epochs} epochs, {runs.pictures(setting)}, {setting.images} images of which some are "
        f"held out; worst of {len(ratios)} groups of fused phases ({worst}, {second:.0f} ms an epoch); "
        "spread over groups; median of the last three epochs against that of the second to the fourth",
    )


def _drift(seconds: list[float]) -> float:
    return median(seconds[-3:]) / median(seconds[1:4])


def contended(setting: Setting, count: int, say: Callable[[str], None]) -> tuple[Epochs, Epochs]:
    """Epochs of each group alone, and beside a process that is busy: in turns, the first left out."""
    kept: tuple[Epochs, Epochs] = ({}, {})
    with Contender(multiplying, ONE_THREAD) as busy:
        beside = False
        for epoch in epochs(replace(setting, epochs=count)):
            if epoch["epoch"] > 1:
                kept[beside].setdefault(epoch["group"], []).append(epoch["seconds"])
            wanted = epoch["epoch"] % 2 == 1 and epoch["epoch"] < count  # during the next one
            if wanted != beside:
                beside = busy()
            if epoch["epoch"] == count:
                ratio = median(kept[True][epoch["group"]]) / median(kept[False][epoch["group"]])
                say(f"  {setting.backbone}, {epoch['group']}: {ratio:.2f} beside a busy process")
    return kept


def multiplying() -> Callable[[], bool]:
    """A contender that multiplies matrices on one thread, or stops, in turns; answers which."""
    import numpy as np

    go = threading.Event()
    matrix = np.random.default_rng(0).random((512, 512), dtype=np.float32)

    def work() -> None:
        while go.wait():
            np.matmul(matrix, matrix)

    def switch() -> bool:
        if go.is_set():
            go.clear()
        else:
            go.set()
        return go.is_set()

    threading.Thread(target=work, daemon=True).start()
    return switch


def beside(setting: Setting, alone: Epochs, busy: Epochs) -> Result:
    """The worst group's epochs beside a busy process against its epochs alone; spread: over groups."""
    ratios = {group: median(busy[group]) / median(alone[group]) for group in alone}
    worst = max(ratios, key=lambda group: ratios[group])
    first, whole = 1000 * median(alone[worst]), _sum(busy) / _sum(alone)
    return Result(
        f"steady: {NAMES[setting.backbone]}, epoch beside a busy process / alone",
        ratios[worst],
        BESIDE,
        "lower",
        (min(ratios.values()), max(ratios.values())),
        machine(),
        "one other process multiplies matrices on one thread during every other epoch; worst of "
        f"{len(ratios)} groups of fused phases ({worst}, {first:.0f} ms an epoch alone); "
        f"spread over groups; an epoch of them all {whole:.2f}",
    )


def _sum(epochs: Mapping[str, list[float]]) -> float:
    return sum(median(seconds) for seconds in epochs.values())
