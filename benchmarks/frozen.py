"""Phases on a frozen trunk, 20 epochs, the building of caches included: python -m benchmarks frozen

Each task is trained by offramp as a study runs it, by offramp with `execution: plain` (every layer live,
each phase alone), by a loop as a careful user writes it (frozen_by_hand.py) and, where the task is
one of its own, by PyPI's earlyon. offramp's time is all that its phases take, the filling of caches and
the writing of nodes included, but for one thing: after the last epoch it looks at the training split
once or twice more. No other contender does, so that is left out, and what it costs stands in the note.
The epochs of a live loop all cost the same, so it runs a few of them, and their mean counts 20 times.

With every ratio comes a check that the contenders trained the same thing: plain and derived execution
must agree to the bit in every number they share, and the accuracies of the others stand in the note.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, median

from benchmarks.contest import Contender, Result, Say, against, in_turns
from benchmarks.frozen_by_hand import Timed
from benchmarks.frozen_contenders import by_hand, earlyon, engine
from benchmarks.frozen_task import Pairs, Task, write_pictures, write_trunk

EPOCHS = 20
NAMES = {"plain": "offramp plain", "careful": "the careful loop", "earlyon": "earlyon 0.3.0"}
INSTALL = "pip install -c constraints.txt -e '.[bench]'"

SMALL: Pairs = (("stem", "small"),)
POOLED: Pairs = (("kind", "mlp"), ("dropout", 0.2))  # like earlyon's own: the mean, 128 units
ADAM: Pairs = (("optimizer", "adam"), ("learning_rate", 0.001))


@dataclass(frozen=True)
class Size:
    """images: that train.  validation: that are looked at after every epoch.  epochs: that offramp
    runs.  live: that the others run.  rounds: how often all is repeated."""

    images: int
    validation: int
    epochs: int = EPOCHS
    live: int = 1
    rounds: int = 2


@dataclass(frozen=True)
class Case:
    """bars: of each contender beside offramp, the lowest ratio of its time to offramp's; None where it
    only informs.  quick: None leaves the case out of a quick run.  accuracy: whether it is about
    accuracies after all epochs, not about times."""

    name: str
    task: Task
    full: Size
    quick: Size | None
    bars: Mapping[str, float | None]
    remarks: tuple[str, ...] = ()
    accuracy: bool = False


TASK = Task("")

CASES: tuple[Case, ...] = (
    Case(
        "two-stage, ResNet-50, the paper's stem",
        TASK,
        Size(10_000, 500),
        Size(1_024, 64),
        {"careful": 4.0, "plain": None},
    ),
    Case(
        "two-stage, ResNet-50, small stem, pooled heads",
        replace(TASK, options=SMALL, head=POOLED, recipe=ADAM),
        Size(10_000, 500),
        Size(256, 64, rounds=1),
        {"careful": 10.0, "earlyon": 12.0, "plain": None},
    ),
    Case(
        "two-stage, ResNet-50, small stem, the paper's heads",
        replace(TASK, options=SMALL),
        Size(10_000, 500, epochs=2),
        None,
        {"careful": 10.0, "plain": None},
        ("the heads' own convolutions bound it: docs/performance.md",),
    ),
    Case(
        "distillation, ResNet-50, the paper's stem",
        replace(TASK, strategy="distillation"),
        Size(10_000, 500),
        Size(512, 64),
        {"careful": 5.0, "plain": None},
    ),
    Case(
        "branch-wise, ResNet-50, the paper's stem",
        replace(TASK, strategy="branch-wise", recipe=(("learning_rate", 0.01),)),
        # Each stage begins where the one before it ended, so all must run as many epochs.
        Size(10_000, 500, epochs=2, live=2, rounds=5),
        Size(512, 64, epochs=2, live=2),
        {"careful": 1.2, "plain": None},
    ),
    Case(
        "two-stage, ResNet-50, the paper's stem, pooled heads: accuracy after 20 epochs",
        replace(TASK, recipe=ADAM, head=POOLED),
        Size(10_000, 1_000, live=EPOCHS, rounds=1),
        Size(256, 128, live=EPOCHS, rounds=1),
        {"careful": None, "earlyon": None},
        accuracy=True,
    ),
)


def measure(quick: bool, say: Say) -> Iterator[Result]:
    """The ratios of every case."""
    makers = {"derived": partial(Contender, engine, mode="derived")}
    makers |= {"plain": partial(Contender, engine, mode="plain"), "careful": partial(Contender, by_hand)}
    if importlib.util.find_spec("earlyon") is None:
        say(f"earlyon is not installed, and its lines are left out; to have them: {INSTALL}")
    else:
        makers["earlyon"] = partial(Contender, earlyon)
    with ExitStack() as stack:
        contenders = {name: stack.enter_context(make()) for name, make in makers.items()}
        for case in CASES:
            size = case.quick if quick else case.full
            if size is not None:
                yield from _measured(case, size, contenders, say)


def _measured(case: Case, size: Size, contenders: Mapping[str, Contender], say: Say) -> Iterator[Result]:
    with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
        say(f"{case.name}: {size.images:,} images")
        pictures = write_pictures(Path(folder), size.images, size.validation)
        task = replace(case.task, folder=folder)
        if task.kept:
            write_trunk(task)
        here = {name: contenders[name] for name in ("derived", *case.bars) if name in contenders}
        epochs = {name: size.epochs if name == "derived" else size.live for name in here}
        turns = {name: partial(contenders[name], task, epochs[name]) for name in here}
        found = in_turns(turns, size.rounds)
    for name, times in found.items():
        once, each = (median([getattr(t, kind) for t in times]) for kind in ("fixed", "epoch"))
        say(f"  {name}: {once:.3g} s once, {each:.3g} s an epoch")
    if "plain" in found:
        check_bits(found["derived"][0], found["plain"][0], case.name)
    yield from (accuracy_results if case.accuracy else time_results)(case, size, found, pictures)


def time_results(
    case: Case, size: Size, found: Mapping[str, Sequence[Timed]], pictures: str
) -> Iterator[Result]:
    """A contender's 20 epochs divided by offramp's, for each of the others."""
    derived = found["derived"]
    ours = [timed.total(EPOCHS) for timed in derived]
    few = [] if size.live == EPOCHS else [f"its live epochs, all alike, over {size.live} and scaled"]
    if size.epochs != EPOCHS:
        few.append(f"offramp's over {size.epochs} and scaled, preparation once")
    for other in (name for name in case.bars if name in found):
        theirs = [timed.total(EPOCHS) for timed in found[other]]
        took, last = median(theirs), median(timed.last for timed in derived)
        epoch = min(derived[0].epochs, found[other][0].epochs)
        mine, their = derived[0].accuracies[epoch - 1], found[other][0].accuracies[-1]
        alike = f"accuracies after epoch {epoch}: {_percents(mine)} and {_percents(their)}"
        notes = (
            f"{size.images:,} {pictures}, {EPOCHS} epochs: {took:.3g} s against {median(ours):.3g} s",
            *few,
            f"equal to the bit after epoch {epoch}" if other == "plain" else alike,
            *case.remarks,
            f"were preparation free, {took / EPOCHS / median(timed.epoch for timed in derived):.3g}",
            f"offramp's last looks at the training split take {last:.3g} s: "
            f"{took / (median(ours) + last):.3g}",
        )
        yield against(
            f"{case.name}: {NAMES[other]} / offramp",
            theirs,
            ours,
            bar=case.bars[other],
            better="higher",
            note="; ".join(notes),
        )


def accuracy_results(
    case: Case, size: Size, found: Mapping[str, Sequence[Timed]], pictures: str
) -> Iterator[Result]:
    """offramp's accuracy divided by a contender's, the mean over heads, after the last epoch. Held to 1
    less two standard errors of one accuracy on so many images, those being what chance may take."""
    ours = found["derived"][0].accuracies[-1]
    mean = fmean(ours)
    chance = 2 * (mean * (1 - mean) / size.validation) ** 0.5
    for other in (name for name in case.bars if name in found):
        theirs = found[other][0].accuracies[-1]
        each = [a / max(b, 1 / size.validation) for a, b in zip(ours, theirs, strict=True)]
        yield Result(
            f"{case.name}, offramp / {NAMES[other]}",
            mean / fmean(theirs),
            round(1 - chance / mean, 3),
            "higher",
            (min(each), max(each)),
            note=f"{size.images:,} {pictures} and {size.validation} to validate, by head "
            f"{_percents(ours)} against {_percents(theirs)}; two standard errors of an accuracy are "
            f"{100 * chance:.1f} points; the spread is over heads",
        )


def check_bits(derived: Timed, plain: Timed, name: str) -> None:
    """Raises AssertionError unless both came to the same numbers in every epoch that both ran."""
    both = min(derived.epochs, plain.epochs)
    for kind in ("accuracies", "losses"):
        ours, theirs = getattr(derived, kind)[:both], getattr(plain, kind)[:both]
        if len(ours) != both or ours != theirs:
            raise AssertionError(f"{name}: {kind} of derived {ours} and plain {theirs} differ")


def _percents(values: Sequence[float]) -> str:
    return " ".join(f"{100 * value:.1f}" for value in values) + " %"
