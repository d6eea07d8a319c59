"""Phases on a frozen trunk, 20 epochs, the building of caches included: python -m benchmarks frozen

Each task is trained by offramp as a study runs it, by a loop as a careful user writes it
(frozen_by_hand.py) and, where the task is one of its own, by PyPI's earlyon. offramp's time is all that
its phases take, the filling of caches and the writing of nodes included, but for one thing: after the
last epoch it looks at the training split once or twice more. No other contender does, so that is left
out, and what it costs stands in the note. The epochs of a live loop all cost the same, so it runs a few
of them, and their mean counts 20 times. The accuracies of both stand in the note.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

from benchmarks.contest import Result, against, contender, in_turns, together
from benchmarks.frozen_by_hand import Timed
from benchmarks.frozen_contenders import Pairs, Task, by_hand, earlyon, engine, pictures, write_trunk

EPOCHS = 20
NAMES = {"careful": "the careful loop", "earlyon": "earlyon 0.3.0"}

SMALL: Pairs = (("stem", "small"),)
POOLED: Pairs = (("kind", "mlp"), ("dropout", 0.2))  # like earlyon's own: the mean, 128 units
ADAM: Pairs = (("optimizer", "adam"), ("learning_rate", 0.001))


@dataclass(frozen=True)
class Case:
    """bars: of each contender beside offramp, the lowest ratio of its time to offramp's.  quick: images
    of a quick run, in which earlyon has no part; None leaves the case out of it.  epochs: that offramp
    runs.  live: that the others run.  rounds: how often all is repeated."""

    name: str
    task: Task
    bars: Mapping[str, float]
    quick: int | None
    epochs: int = EPOCHS
    live: int = 1
    rounds: int = 2


TASK = Task("")

CASES: tuple[Case, ...] = (
    Case("two-stage, ResNet-50, the paper's stem", TASK, {"careful": 4.0}, 1_024),
    Case(
        "two-stage, ResNet-50, small stem, pooled heads",
        replace(TASK, options=SMALL, head=POOLED, recipe=ADAM),
        {"careful": 10.0, "earlyon": 12.0},
        128,
    ),
    Case(
        "two-stage, ResNet-50, small stem, the paper's heads",
        replace(TASK, options=SMALL),
        {"careful": 10.0},
        None,
        epochs=2,
    ),
    Case(
        "distillation, ResNet-50, the paper's stem",
        replace(TASK, strategy="distillation"),
        {"careful": 5.0},
        512,
    ),
    Case(
        "branch-wise, ResNet-50, the paper's stem",
        replace(TASK, strategy="branch-wise", recipe=(("learning_rate", 0.01),)),
        {"careful": 1.2},
        None,
        epochs=2,
        live=2,  # each stage begins where the one before it ended, so all must run as many epochs
        rounds=5,
    ),
)


def measure(quick: bool) -> Iterator[Result]:
    """The ratios of every case, without earlyon's where that is not installed (the extra `bench`)."""
    makers = {"derived": engine, "careful": by_hand}
    if not quick and importlib.util.find_spec("earlyon"):
        makers["earlyon"] = earlyon
    with together({name: contender(make) for name, make in makers.items()}) as contenders:
        for case in (c for c in CASES if c.quick or not quick):
            small = {"images": case.quick, "validation": 64} if quick else {}
            with tempfile.TemporaryDirectory(prefix="offramp-bench-") as folder:
                task = replace(case.task, trunk=f"{folder}/trunk.safetensors", **small)
                if task.keeps_trunk:
                    write_trunk(task)
                turns = {
                    name: partial(ask, task, case.epochs if name == "derived" else case.live)
                    for name, ask in contenders.items()
                    if name in {"derived", *case.bars}
                }
                runs = in_turns(turns, min(2, case.rounds) if quick else case.rounds)
            words = f"{task.images:,} {pictures(task.images, task.validation).name}"
            yield from time_results(case, runs, words)


def time_results(case: Case, runs: Mapping[str, Sequence[Timed]], pictures: str) -> Iterator[Result]:
    """A contender's 20 epochs divided by offramp's, for each of the others."""
    derived = runs["derived"]
    ours = [timed.total(EPOCHS) for timed in derived]
    few = [f"its live epochs, all alike, over {case.live} and scaled"]
    if case.epochs != EPOCHS:
        few.append(f"offramp's over {case.epochs} and scaled, preparation once")
    for other in (name for name in case.bars if name in runs):
        theirs = [timed.total(EPOCHS) for timed in runs[other]]
        took, last = median(theirs), median(timed.last for timed in derived)
        epoch = min(derived[0].epochs, runs[other][0].epochs)
        mine, their = derived[0].accuracies[epoch - 1], runs[other][0].accuracies[-1]
        notes = (
            f"{pictures}, {EPOCHS} epochs: {took:.3g} s against {median(ours):.3g} s",
            *few,
            f"accuracies after epoch {epoch}: {_percents(mine)} and {_percents(their)}",
            f"were preparation free, {took / EPOCHS / median(timed.epoch for timed in derived):.3g}",
            f"offramp's last looks at the training split take {last:.3g} s: "
            f"{took / (median(ours) + last):.3g}",
        )
        name = f"{case.name}: {NAMES[other]} / offramp"
        more = {"bar": case.bars[other], "better": "higher", "note": "; ".join(notes)}
        yield against(name, theirs, ours, **more)


def _percents(values: Sequence[float]) -> str:
    return " ".join(f"{100 * value:.1f}" for value in values) + " %"
