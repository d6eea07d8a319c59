"""All nine strategies: executed, as `offramp run` does it, against as written, every trial alone.

Both run the same study at a small scale, a phase in turns, whichever has done the smaller share of its
work; the clocks are the engine's own, of preparation (a cache's pass included), training, validation and
evaluation. The logits of every trial must be equal bit for bit. Full scale is out of reach as written:
there the plan's count of MACs speaks, and its error is what it is wrong by at the small scale.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import subjects
from benchmarks.contest import AS_COMMAND, Contender, Result, Say
from benchmarks.subjects import Mode, Setting
from offramp.store.store import Store
from offramp.study.plan.plan import Plan

MODES: tuple[Mode, Mode] = ("derived", "plain")
FULL = {"images": 50_000, "epochs": 200}
SEEDS = (42, 43, 44, 45, 46)


@dataclass(frozen=True)
class Compared:
    """seconds: of phases, by mode and seed.  wall: all that passed, stores and logits included.
    counted: the ratio by the plan's count of MACs.  trials: whose logits are equal."""

    seconds: Mapping[Mode, Mapping[int, float]]
    wall: Mapping[Mode, float]
    counted: float
    trials: int


def measure(quick: bool, say: Say) -> Iterator[Result]:
    setting = Setting("resnet50", images=150 if quick else 1000, epochs=8)
    yield from told("ResNet-50", setting, compare(setting, say), 0.40)
    if not quick:
        setting = Setting("mobilenetv2", 600, 4, SEEDS)
        yield from told("MobileNetV2", setting, compare(setting, say), None)


def told(name: str, setting: Setting, found: Compared, bar: float | None) -> Iterator[Result]:
    """What was measured, what the plan had counted, and its count at the paper's scale."""
    derived, plain = (sum(found.seconds[mode].values()) for mode in MODES)
    ratio = derived / plain
    each = [took / found.seconds["plain"][seed] for seed, took in found.seconds["derived"].items()]
    yield Result(
        f"study: {name}, all nine, {_seeds(setting)}, executed / as written",
        ratio,
        bar,
        spread=(min(each), max(each)),
        note=f"{setting.epochs} epochs of {subjects.pictures(setting)}, {setting.images:,} images of "
        f"which some are held out; {derived:.0f} s against {plain:.0f} s; one run, a phase in turns; "
        f"logits of {found.trials} trials equal bit for bit; with stores and logits "
        f"{found.wall['derived'] / found.wall['plain']:.2f}",
    )
    yield Result(
        f"study: {name}, the plan's count of that ratio / measured",
        found.counted / ratio,
        note=f"counted {found.counted:.3f}, measured {ratio:.3f}: MACs are not time",
    )
    for seeds in (SEEDS[:1], SEEDS):
        full = replace(setting, seeds=seeds, **FULL)
        counted = share(subjects.plan(full))
        corrected = counted * ratio / found.counted
        few = "" if len(seeds) == 1 else "; no two seeds share a phase, so five are five times one"
        yield Result(
            f"study: {name}, full scale by the cost model, {_seeds(full)}",
            counted,
            bar,
            spread=(min(counted, corrected), max(counted, corrected)),
            note=f"counted, not run: {FULL['epochs']} epochs, {FULL['images']:,} images; at the small "
            f"scale the count was {100 * (found.counted / ratio - 1):+.0f} % off, with which it would "
            f"be {corrected:.3f}{few}; it takes all caches to fit their limits",
        )


def share(plan: Plan) -> float:
    """Executed / as written, in MACs."""
    return plan.executed / plan.written


def compare(setting: Setting, say: Say) -> Compared:
    """Run both ways. Raises RuntimeError where a trial's logits differ."""
    plans = {mode: subjects.plan(setting, mode) for mode in MODES}
    with tempfile.TemporaryDirectory(prefix="offramp-study-") as folder:
        seconds, wall = by_phases(setting, plans, Path(folder), say)
        trials = agreed(plans, Path(folder))
    return Compared(seconds, wall, share(plans["derived"]), trials)


def by_phases(
    setting: Setting, plans: Mapping[Mode, Plan], folder: Path, say: Say
) -> tuple[dict[Mode, dict[int, float]], dict[Mode, float]]:
    """Seconds of phases by mode and seed, and of everything by mode."""
    seconds: dict[Mode, dict[int, float]] = {mode: dict.fromkeys(setting.seeds, 0.0) for mode in plans}
    wall: dict[Mode, float] = dict.fromkeys(plans, 0.0)
    done: dict[Mode, float] = dict.fromkeys(plans, 0.0)
    with ExitStack() as stack:
        contenders = {}
        for mode in plans:
            given = {"setting": setting, "mode": mode, "folder": str(folder / mode), "until": "phase"}
            contenders[mode] = stack.enter_context(Contender(subjects.study, AS_COMMAND, **given))
        at_work, quarter = set(plans), 1
        while at_work:
            mode = min(at_work, key=lambda mode: (done[mode] / plans[mode].executed, mode))
            began = time.perf_counter()
            phase = contenders[mode]()
            wall[mode] += time.perf_counter() - began
            if phase is None:
                at_work.remove(mode)
                continue
            seconds[mode][phase["seed"]] += phase["seconds"]
            done[mode] += phase["macs"]
            if sum(done.values()) >= quarter * sum(p.executed for p in plans.values()) / 4:
                took = ", ".join(f"{m} {sum(seconds[m].values()):.0f} s" for m in plans)
                say(f"  {setting.backbone}: {25 * quarter} % of the work; {took}")
                quarter += 1
    return seconds, wall


def agreed(plans: Mapping[Mode, Plan], root: Path) -> int:
    """How many trials have equal logits in the stores of both modes under `root`: all of them.

    Raises RuntimeError naming the first that differs."""
    stores = {mode: Store(root / mode / "store") for mode in plans}
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
        unequal = (np.ascontiguousarray(a).view(np.uint8) != np.ascontiguousarray(b).view(np.uint8)).any(
            -1
        )
        if unequal.any():
            return f"{int(unequal.sum())} of {unequal.size} rows of {name} differ"
    return None


def _seeds(setting: Setting) -> str:
    return "one seed" if len(setting.seeds) == 1 else f"{len(setting.seeds)} seeds"
