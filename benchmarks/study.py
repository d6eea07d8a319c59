"""All nine strategies: executed, as `offramp run` does it, against as written, every trial alone.

Both run the same study at a small scale, a phase in turns, whichever has done the smaller share of its
work; the clocks are the engine's own, of preparation (a cache's pass included), training, validation and
evaluation. The logits of every trial must be equal bit for bit. Full scale is out of reach as written:
there the plan's count of MACs speaks, and its error is what it is wrong by at the small scale.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import runs
from benchmarks.runs import Mode, Setting
from benchmarks.side import Contender, Result, machine

BAR = 0.40  # of as written, one seed, ResNet-50
MODES: tuple[Mode, Mode] = ("derived", "plain")
FULL = {"images": 50_000, "epochs": 200}


@dataclass(frozen=True)
class Compared:
    """seconds: of phases, by mode and seed.  wall: all that passed, stores and logits included.
    counted: the ratio by the plan's count of MACs.  trials: whose logits are equal."""

    seconds: Mapping[Mode, Mapping[int, float]]
    wall: Mapping[Mode, float]
    counted: float
    trials: int

    @property
    def ratio(self) -> float:
        derived, plain = (sum(self.seconds[mode].values()) for mode in MODES)
        return derived / plain

    @property
    def spread(self) -> tuple[float, float]:
        """Of the seeds."""
        each = [took / self.seconds["plain"][seed] for seed, took in self.seconds["derived"].items()]
        return min(each), max(each)


def measure(quick: bool, say: Callable[[str], None]) -> Iterator[Result]:
    setting = Setting("resnet50", images=150, epochs=8) if quick else Setting("resnet50", 1000, 8)
    found = compare(setting, say)
    yield from told("ResNet-50", setting, found, BAR)
    yield from at_full_scale("ResNet-50", setting, found, BAR)
    if quick:
        return
    setting = Setting("mobilenetv2", 600, 4, (42, 43, 44, 45, 46))
    found = compare(setting, say)
    yield from told("MobileNetV2", setting, found, None)
    yield from at_full_scale("MobileNetV2", setting, found, None)


def told(name: str, setting: Setting, found: Compared, bar: float | None) -> Iterator[Result]:
    """What was measured, and what the plan had counted."""
    count = len(setting.seeds)
    seconds = {mode: sum(found.seconds[mode].values()) for mode in MODES}
    where = machine()
    note = (
        f"{setting.epochs} epochs of {runs.pictures(setting)}, {setting.images:,} images of which some "
        f"are held out; {seconds['derived']:.0f} s against {seconds['plain']:.0f} s; one run, "
        f"a phase in turns; logits of {found.trials} trials equal bit for bit; with stores and logits "
        f"{found.wall['derived'] / found.wall['plain']:.2f}"
    )
    yield Result(
        f"study: {name}, all nine, {_seeds(count)}, executed / as written",
        found.ratio,
        bar,
        "lower",
        found.spread,
        where,
        note,
    )
    error = found.counted / found.ratio
    yield Result(
        f"study: {name}, the plan's count of that ratio / measured",
        error,
        None,
        "lower",
        (error, error),
        where,
        f"counted {found.counted:.3f}, measured {found.ratio:.3f}: MACs are not time",
    )


def at_full_scale(name: str, setting: Setting, found: Compared, bar: float | None) -> Iterator[Result]:
    """The plan's count at the paper's scale; spread: to what the error at the small one makes of it."""
    off = found.ratio / found.counted
    for seeds in ((42,), (42, 43, 44, 45, 46)):
        counted = share(runs.plan(replace(setting, seeds=seeds, **FULL), "derived"))
        note = (
            f"counted, not run: {FULL['epochs']} epochs, {FULL['images']:,} images; at the small scale "
            f"the count was {100 * (1 / off - 1):+.0f} % off, with which it would be {counted * off:.3f}"
            + ("" if len(seeds) == 1 else "; no two seeds share a phase, so five are five times one")
            + "; it takes all caches to fit their limits"
        )
        yield Result(
            f"study: {name}, full scale by the cost model, {_seeds(len(seeds))}",
            counted,
            bar,
            "lower",
            (min(counted, counted * off), max(counted, counted * off)),
            machine(),
            note,
        )


def share(plan: Any) -> float:
    """Executed / as written, in MACs."""
    return float(plan.executed / plan.written)


def compare(setting: Setting, say: Callable[[str], None]) -> Compared:
    """Run both ways. Raises RuntimeError where a trial's logits differ."""
    plans = {mode: runs.plan(setting, mode) for mode in MODES}
    with tempfile.TemporaryDirectory(prefix="offramp-study-") as folder:
        seconds, wall = in_turns(setting, plans, folder, say)
        trials = agreed(plans, Path(folder))
    return Compared(seconds, wall, share(plans["derived"]), trials)


def in_turns(
    setting: Setting, plans: Mapping[Mode, Any], folder: str, say: Callable[[str], None]
) -> tuple[dict[Mode, dict[int, float]], dict[Mode, float]]:
    """Seconds of phases by mode and seed, and of everything by mode."""
    seconds: dict[Mode, dict[int, float]] = {mode: dict.fromkeys(setting.seeds, 0.0) for mode in plans}
    wall: dict[Mode, float] = dict.fromkeys(plans, 0.0)
    done: dict[Mode, float] = dict.fromkeys(plans, 0.0)
    with ExitStack() as stack:
        contenders = {
            mode: stack.enter_context(
                Contender(
                    runs.study, runs.BARE, setting=setting, mode=mode, folder=folder, until="phase"
                )
            )
            for mode in plans
        }
        at_work, quarter = set(plans), 1
        while at_work:
            mode = min(at_work, key=lambda mode: (done[mode] / plans[mode].executed, mode))
            began = time.perf_counter()
            phase = contenders[mode]()
            wall[mode] += time.perf_counter() - began
            if phase is None:
                at_work.remove(mode)
                continue
            seconds[mode][phase["seed"]] += sum(phase["seconds"].values())
            done[mode] += phase["macs"]
            if sum(done.values()) >= quarter * sum(p.executed for p in plans.values()) / 4:
                took = ", ".join(f"{m} {sum(seconds[m].values()):.0f} s" for m in plans)
                say(f"  {setting.backbone}: {25 * quarter} % of the work; {took}")
                quarter += 1
    return seconds, wall


def agreed(plans: Mapping[Mode, Any], root: Path) -> int:
    """How many trials have equal logits in the stores of both modes under `root`: all of them.

    Raises RuntimeError naming the first that differs."""
    from offramp.store.store import Store

    stores = {mode: Store(root / mode) for mode in plans}
    named = {mode: {(t.label, t.seed): t.id for t in plan.trials} for mode, plan in plans.items()}
    for label, seed in named["derived"]:
        derived, plain = (stores[m].trial_logits(named[m][label, seed]) for m in MODES)
        difference = differing(derived, plain)
        if difference is not None:
            raise RuntimeError(f"{label}, seed {seed}: {difference} between derived and plain execution")
    return len(named["derived"])


def differing(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> str | None:
    """What differs in a trial's arrays, to the bit; None where nothing does."""
    if one.keys() != other.keys():
        return f"arrays {sorted(one)} and {sorted(other)} differ"
    for name in one:
        a, b = one[name], other[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"{name} is {a.shape} {a.dtype} and {b.shape} {b.dtype}"
        unequal = np.ascontiguousarray(a).view(np.uint8) != np.ascontiguousarray(b).view(np.uint8)
        if unequal.any():
            return (
                f"{int(unequal.any(axis=-1).sum())} of {unequal.any(axis=-1).size} rows of {name} differ"
            )
    return None


def _seeds(count: int) -> str:
    return "one seed" if count == 1 else f"{count} seeds"
