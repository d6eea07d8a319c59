"""No slow-down over time, with and without other work.

All nine strategies train for many short epochs in a process that starts as the command starts. Of every
group of phases that share their epochs, the median of the last three is held against that of the second
to the fourth: single epochs this short are noise. Then, in a shorter run, another process keeps a core
busy during every other epoch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from benchmarks import subjects
from benchmarks.contest import AS_COMMAND, Contender, Result, Say, neighbor
from benchmarks.subjects import Setting

LATE, BESIDE = 1.2, 2.5  # times the second epoch, and the epoch alone
Epochs = dict[str, list[float]]  # seconds of each epoch, by group of phases


def measure(quick: bool, say: Say) -> Iterator[Result]:
    few = ("two-stage", "joint-branch") if quick else Setting.strategies
    settings = {
        "ResNet-50": Setting("resnet50", 200 if quick else 512, 30, strategies=few, test_images=100),
        "MobileNetV2": Setting("mobilenetv2", 512, 30, strategies=few, test_images=100),
    }
    for name, setting in settings.items():
        say(f"  {name}: {setting.epochs} epochs alone")
        yield late(name, setting, alone(setting))
    for name, setting in settings.items():
        yield beside(name, *contended(replace(setting, epochs=5 if quick else 11)))


def epochs(setting: Setting) -> Iterator[dict[str, Any]]:
    """Each epoch of each group, in a process to itself."""
    with tempfile.TemporaryDirectory(prefix="offramp-drift-") as folder:
        given = {"setting": setting, "mode": "derived", "folder": folder, "until": "epoch"}
        with Contender(subjects.study, AS_COMMAND, **given) as contender:
            while (epoch := contender()) is not None:
                yield epoch


def alone(setting: Setting) -> Epochs:
    found: Epochs = {}
    for epoch in epochs(setting):
        found.setdefault(epoch["group"], []).append(epoch["seconds"])
    return found


def contended(setting: Setting) -> tuple[Epochs, Epochs]:
    """Epochs of each group alone, and beside a process that is busy: in turns, the first left out."""
    kept: tuple[Epochs, Epochs] = ({}, {})
    with neighbor() as other:
        other.suspend()
        for epoch in epochs(setting):
            number = epoch["epoch"]
            if number > 1:
                kept[number % 2 == 0].setdefault(epoch["group"], []).append(epoch["seconds"])
            if number % 2 == 1 and number < setting.epochs:  # the next one is an even one
                other.resume()
            else:
                other.suspend()
    return kept


def late(name: str, setting: Setting, found: Epochs) -> Result:
    """The worst group's last epochs against its second to fourth."""
    pairs = {group: (seconds[-3:], seconds[1:4]) for group, seconds in found.items()}
    note = "median of the last three epochs against that of the second to the fourth; "
    note += (
        f"{setting.epochs} epochs, {subjects.pictures(setting)}, {setting.images} images of which some "
    )
    return worst(f"steady: {name}, last epoch / second", LATE, pairs, f"{note}are held out")


def beside(name: str, alone: Epochs, busy: Epochs) -> Result:
    """The worst group's epochs beside a busy process against its epochs alone."""
    pairs = {group: (busy[group], alone[group]) for group in alone}
    with_other, without = (sum(map(median, each.values())) for each in (busy, alone))
    note = "one other process keeps a core busy during every other epoch; an epoch of them all "
    note += f"{with_other / without:.2f}"
    return worst(f"steady: {name}, epoch beside a busy process / alone", BESIDE, pairs, note)


def worst(
    name: str, bar: float, pairs: dict[str, tuple[Sequence[float], Sequence[float]]], note: str
) -> Result:
    """Of the group with the highest ratio of medians; spread: over groups."""
    ratios = {group: median(above) / median(below) for group, (above, below) in pairs.items()}
    most = max(ratios, key=lambda group: ratios[group])
    second = 1000 * median(pairs[most][1])
    note = f"worst of {len(ratios)} groups of fused phases ({most}, {second:.0f} ms an epoch); {note}"
    spread = (min(ratios.values()), max(ratios.values()))
    return Result(name, ratios[most], bar, spread=spread, note=f"{note}; spread over groups")
