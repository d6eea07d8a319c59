"""All nine strategies: executed, as `offramp run` does it, against as written, every trial alone.

Both run the same study at a small scale, a phase in turns, whichever has done the smaller share of its
work; the clocks are the engine's own, of preparation (a cache's pass included), training, validation and
evaluation. The logits of every trial must be equal bit for bit. Full scale is out of reach as written:
there the plan's count of MACs speaks, and its error is what it is wrong by at the small scale.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import subjects
from benchmarks.contest import BARE, Result, contender, together
from benchmarks.subjects import Mode, Setting
from offramp.process import prepare
from offramp.store.store import Store
from offramp.study.plan.plan import Plan
from offramp.study.run.events import Finished

MODES: tuple[Mode, Mode] = ("derived", "plain")
FULL = {"images": 50_000, "epochs": 200}
SEEDS = (42, 43, 44, 45, 46)


Seconds = dict[Mode, dict[int, float]]
"""Of phases, by mode and seed."""


def measure(quick: bool) -> Iterator[Result]:
    setting = Setting("resnet50", images=150 if quick else 1000, epochs=8)
    yield from results("ResNet-50", setting, *compare(setting), 0.40)
    if not quick:
        setting = Setting("mobilenetv2", 600, 4, SEEDS)
        yield from results("MobileNetV2", setting, *compare(setting), None)


def results(
    name: str, setting: Setting, seconds: Seconds, trials: int, bar: float | None
) -> Iterator[Result]:
    """What was measured, what the plan had counted, and its count at the paper's scale."""
    derived, plain = (sum(seconds[mode].values()) for mode in MODES)
    each = [took / seconds["plain"][seed] for seed, took in seconds["derived"].items()]
    seeds = "one seed" if len(setting.seeds) == 1 else f"{len(setting.seeds)} seeds"
    yield Result(
        f"study: {name}, all nine, {seeds}, executed / as written",
        derived / plain,
        bar,
        spread=(min(each), max(each)),
        note=f"{setting.epochs} epochs of {subjects.pictures(setting)}, {setting.images:,} images of "
        f"which some are held out; {derived:.0f} s against {plain:.0f} s; one run, a phase in turns; "
        f"logits of {trials} trials equal bit for bit",
    )
    full = share(subjects.plan(replace(setting, seeds=SEEDS[:1], **FULL)))
    counted = share(subjects.plan(setting))
    yield Result(
        f"study: {name}, full scale by the cost model, one seed",
        full,
        bar,
        note=f"counted, not run: {FULL['epochs']} epochs, {FULL['images']:,} images, all caches within "
        f"their limits; MACs are not time: at the small scale the count was {counted:.3f}",
    )


def share(plan: Plan) -> float:
    """Executed / as written, in MACs."""
    return plan.executed / plan.written


def compare(setting: Setting) -> tuple[Seconds, int]:
    """Run both ways; seconds, and how many trials have equal logits: all, or RuntimeError is raised."""
    plans = {mode: subjects.plan(setting, mode) for mode in MODES}
    with tempfile.TemporaryDirectory(prefix="offramp-study-") as folder:
        return by_phases(setting, plans, Path(folder)), agreed(plans, Path(folder))


def by_phases(setting: Setting, plans: Mapping[Mode, Plan], folder: Path) -> Seconds:
    """Seconds of phases by mode and seed."""
    seconds: Seconds = {mode: dict.fromkeys(setting.seeds, 0.0) for mode in plans}
    done: dict[Mode, float] = dict.fromkeys(plans, 0.0)
    ways = {
        mode: contender(training, BARE, setting=setting, mode=mode, folder=str(folder / mode))
        for mode in plans
    }
    with together(ways) as contenders:
        at_work = set(plans)
        while at_work:
            mode = min(at_work, key=lambda mode: (done[mode] / plans[mode].executed, mode))
            phase = contenders[mode]()
            if phase is None:
                at_work.remove(mode)
                continue
            seed, took, macs = phase
            seconds[mode][seed] += took
            done[mode] += macs
    return seconds


def training(setting: Setting, mode: Mode, folder: str) -> Iterator[tuple[int, float, int]]:
    """For a contender: each finished phase's seed, seconds and MACs. The engine's clocks stand still
    between them."""
    prepare()
    plan = subjects.plan(setting, mode)
    for event in subjects.events(plan, Path(folder)):
        if isinstance(event, Finished):
            cost = Store(Path(folder) / "store").node_cost(event.key)
            yield plan.nodes[event.key].seed, sum(cost.seconds.values()), plan.macs(event.key)


def agreed(plans: Mapping[Mode, Plan], root: Path) -> int:
    """How many trials have equal logits, to the bit, in the stores of both modes under `root`: all of
    them. Raises RuntimeError naming the first that differs."""
    stores = {mode: Store(root / mode / "store") for mode in plans}
    named = {mode: {(t.label, t.seed): t.id for t in plan.trials} for mode, plan in plans.items()}
    for label, seed in named["derived"]:
        derived, plain = (stores[m].trial_logits(named[m][label, seed]) for m in MODES)
        if not equal(derived, plain):
            raise RuntimeError(f"{label}, seed {seed}: logits of derived and plain execution differ")
    return len(named["derived"])


def equal(some: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray]) -> bool:
    """Whether a trial's arrays are the same, to the bit."""
    mine, theirs = (
        {n: (a.shape, a.dtype, a.tobytes()) for n, a in arrays.items()} for arrays in (some, others)
    )
    return mine == theirs
