"""No slow-down over time, with and without other work.

All nine strategies train for many short epochs in a process that starts as the command starts. Of every
group of phases that share their epochs, the median of the last three is held against that of the second
to the fourth: single epochs this short are noise. Then, in a shorter run, another process keeps a core
busy for some epochs, and then not, by turns.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import subjects
from benchmarks.contest import BARE, Environment, Result, against, contender, in_turns, neighbor
from benchmarks.subjects import Setting
from offramp.process import prepare
from offramp.study.run.events import Epoch, GroupStarted

SETTLE = 1.5  # seconds until threads wait as suits a change
QUIET = 1.02  # times an epoch whose threads wait as the library has it
LATE, BESIDE = 1.2, 2.5  # times the second epoch, and the epoch alone
Epochs = Mapping[str, list[float]]  # seconds of each epoch, by group of phases
GroupEpoch = tuple[str, int, float]  # a group of phases, the number of its epoch, seconds


def measure(quick: bool) -> Iterator[Result]:
    few = ("two-stage", "joint-branch") if quick else Setting.strategies
    settings = {
        "ResNet-50": Setting("resnet50", 200 if quick else 512, 30, strategies=few, test_images=100),
        "MobileNetV2": Setting("mobilenetv2", 512, 14 if quick else 30, strategies=few, test_images=100),
    }
    if quick:
        del settings["ResNet-50"]
    for name, setting in settings.items():
        yield late(name, setting, alone(setting))
        few_epochs = replace(setting, epochs=4, images=256) if quick else replace(setting, epochs=10)
        yield quiet(name, few_epochs, 2 if quick else 4)
    for name, setting in settings.items():
        yield beside(name, *contended(replace(setting, epochs=12 if quick else 24)))


def group_epochs(setting: Setting, environment: Environment = BARE) -> Iterator[GroupEpoch]:
    """Each epoch of each group, in a process to itself."""
    with (
        tempfile.TemporaryDirectory(prefix="offramp-drift-") as folder,
        contender(training, environment, setting=setting, folder=folder) as advance,
    ):
        while (epoch := advance()) is not None:
            yield epoch


def training(setting: Setting, folder: str) -> Iterator[GroupEpoch]:
    """For a contender: each epoch of a group of phases. The engine's clocks stand still between them."""
    prepare()
    plan = subjects.plan(setting)
    group: tuple[str, ...] = ()
    seconds: list[float] = []
    for event in subjects.events(plan, Path(folder)):
        if isinstance(event, GroupStarted):
            group, seconds = event.keys, []
        if isinstance(event, Epoch):
            seconds.append(event.report.seconds)
            if len(seconds) == len(group):
                others = f" and {len(group) - 1} fused" if len(group) > 1 else ""
                name = f"{plan.users[group[0]][0]}: {plan.nodes[group[0]].name}{others}"
                yield name, event.report.epoch, sum(seconds)
                seconds = []


def alone(setting: Setting, environment: Environment = BARE) -> Epochs:
    samples: dict[str, list[float]] = defaultdict(list)
    for group, _, seconds in group_epochs(setting, environment):
        samples[group].append(seconds)
    return samples


def contended(setting: Setting, settle: float = SETTLE) -> tuple[Epochs, Epochs]:
    """Epochs of each group alone, and beside a process that is busy: two and two in turns. Left out are
    a group's first, and after each change those of the first `settle` seconds: threads see it late."""
    samples: tuple[dict[str, list[float]], dict[str, list[float]]] = defaultdict(list), defaultdict(list)
    with neighbor() as other:
        other.suspend()
        busy, since, counted = False, 0.0, 0
        for group, number, seconds in group_epochs(setting):
            if number > 1 and since >= settle:
                samples[busy][group].append(seconds)
                counted += 1
            since += seconds if number > 1 else 0.0
            if counted == 2:
                busy, since, counted = not busy, 0.0, 0
                (other.resume if busy else other.suspend)()
    alone, beside = samples
    return {g: alone[g] for g in alone if g in beside}, {g: beside[g] for g in alone if g in beside}


def quiet(name: str, setting: Setting, rounds: int) -> Result:
    """Threads that wait by the load against the library's own setting, whole runs in turns: a process
    that stands still beside another one would take it for load."""
    ways = {"by load": BARE, "own": {**BARE, "GOMP_SPINCOUNT": "300000"}}
    asked = {way: partial(alone, setting, environment) for way, environment in ways.items()}
    times = {
        way: [sum(median(each[1:]) for each in epochs.values()) for epochs in runs]
        for way, runs in in_turns(asked, rounds).items()
    }
    title = f"waits: {name}, quiet, by load / the library's own"
    note = f"an epoch of every group, {rounds} runs in turns"
    return against(title, times["by load"], times["own"], bar=QUIET, note=note)


def late(name: str, setting: Setting, epochs: Epochs) -> Result:
    """The worst group's last epochs against its second to fourth."""
    pairs = {group: (seconds[-3:], seconds[1:4]) for group, seconds in epochs.items()}
    note = "median of the last three epochs against that of the second to the fourth; "
    note += f"{setting.epochs} epochs, {subjects.pictures(setting)}, {setting.images} images"
    return worst(f"steady: {name}, last epoch / second", LATE, pairs, note)


def beside(name: str, alone: Epochs, busy: Epochs) -> Result:
    """The worst group's epochs beside a busy process against its epochs alone."""
    pairs = {group: (busy[group], alone[group]) for group in alone}
    with_other, without = (sum(map(median, each.values())) for each in (busy, alone))
    note = "one other process keeps a core busy for some epochs, by turns; an epoch of them all "
    note += f"{with_other / without:.2f}"
    return worst(f"steady: {name}, epoch beside a busy process / alone", BESIDE, pairs, note)


def worst(
    name: str, bar: float, pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]], note: str
) -> Result:
    """Of the group with the highest ratio of medians; spread: over groups."""
    ratios = {group: median(above) / median(below) for group, (above, below) in pairs.items()}
    most = max(ratios, key=lambda group: ratios[group])
    second = 1000 * median(pairs[most][1])
    note = f"worst of {len(ratios)} groups of fused phases ({most}, {second:.0f} ms an epoch); {note}"
    spread = (min(ratios.values()), max(ratios.values()))
    return Result(name, ratios[most], bar, spread=spread, note=f"{note}; spread over groups")
