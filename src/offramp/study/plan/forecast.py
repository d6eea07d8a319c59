"""What a plan would take, before it runs: `--dry-run`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import accumulate
from typing import Any

import torch

from offramp.engine.probe import STEP_MACS, macs_per_second
from offramp.meters import usable_cores
from offramp.nets.network import inside
from offramp.parts import Part
from offramp.phase import describe
from offramp.store.store import Store
from offramp.study.plan import caching
from offramp.study.plan.limits import cache_folder
from offramp.study.plan.plan import Plan
from offramp.study.plan.schedule import Passes, Spans, sizes
from offramp.study.plan.workers import need


def measured(plan: Plan, device: torch.device, step_macs: float = STEP_MACS) -> float:
    """MACs a second of this machine, training the plan's network, of steps of about `step_macs`; of all
    devices that train a phase together, what they send each other left out."""
    batch = plan.study.recipe.batch_size
    one = macs_per_second(plan.net, plan.numerics, device, batch, step_macs=step_macs)
    return one * times_faster(plan.numerics.ranks, plan.numerics.threads, device)


def times_faster(
    ranks: int, threads: int, device: torch.device, cores: Callable[[], int] = usable_cores
) -> float:
    """How many times as fast as one so many ranks are: on CPUs no more than there are cores for.

    >>> times_faster(4, 2, torch.device("cpu"), lambda: 6)
    3.0
    """
    return float(ranks) if device.type != "cpu" else max(1.0, min(ranks, cores() / threads))


@dataclass(frozen=True)
class PlannedNode:
    """A node of a plan. trains: its parts.  macs: multiply-accumulates, as the plan runs it; of every
    layer: macs_written.  in_store: whether it is finished."""

    key: str
    phase: str
    trains: tuple[str, ...]
    loss: str
    strategies: tuple[str, ...]
    seed: int
    epochs: int
    macs: int
    macs_written: int
    needs: tuple[str, ...]
    in_store: bool


@dataclass(frozen=True)
class PlannedExit:
    """An early exit. share: of the MACs, before it, 0 to 1.  why: it is there."""

    name: str
    share: float
    why: str


@dataclass(frozen=True)
class Totals:
    """What a plan takes, or several.

    macs_written: of every phase run alone, as the paper does; macs_shared: the same, each node once;
    macs_to_run: of what the store lacks.  seconds: that takes here, from a short measurement.
    cache bytes: at a time, at most, in memory and on disk; live: of values that stay live in one group.
    memory_bytes: of a process, everything counted, by estimate.  disk_bytes: weights of the nodes and
    logits of the trials.
    """

    trials: int
    phases: int
    nodes: int
    nodes_in_store: int
    macs_written: int
    macs_shared: int
    macs: int
    macs_to_run: int
    seconds: float
    cache_bytes: int
    cache_memory_bytes: int
    cache_disk_bytes: int
    cache_live_bytes: int
    memory_bytes: int
    disk_bytes: int

    @property
    def share_of_written(self) -> float:
        return self.macs / self.macs_written

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"share_of_written": self.share_of_written}


@dataclass(frozen=True)
class Forecast:
    """What a plan would take. images: by split.  places: of the early exits.  remarks, provisional: see
    `Plan`; of a provisional one, nothing is looked up in the store.  macs_per_second: of this machine.
    """

    images: dict[str, int]
    places: tuple[PlannedExit, ...]
    provisional: tuple[str, ...]
    remarks: tuple[str, ...]
    nodes: tuple[PlannedNode, ...]
    macs_per_second: float
    totals: Totals

    def as_json(self) -> dict[str, Any]:
        found = asdict(self)
        speed = {"macs_per_second": found.pop("macs_per_second")}
        return found | {"totals": self.totals.as_json() | speed}


def forecast(plan: Plan, store: Store, device: torch.device, speed: float | None = None) -> Forecast:
    """What a plan would take here. speed: MACs a second; measured, by default."""
    there = set() if plan.provisional else {key for key in plan.nodes if store.has_node(key)}
    users = plan.users
    nodes = tuple(
        PlannedNode(
            key=key,
            phase=node.name,
            trains=tuple(str(part) for part in sorted(node.trained)),
            loss=describe(node.terms),
            strategies=tuple(users[key]),
            seed=node.seed,
            epochs=node.recipe.epochs,
            macs=plan.macs(key),
            macs_written=plan.work[key].written,
            needs=tuple(node.needs),
            in_store=key in there,
        )
        for key, node in plan.nodes.items()
    )
    speed = measured(plan, device) if speed is None else speed
    counted = cache(inside(plan.net).parameter_count)
    weights = sum(4 * counted(part) for node in plan.nodes.values() for part in node.trained)
    images = len(plan.data.validation) + len(plan.data.calibration) + len(plan.data.test)
    training = need(plan).trial
    allowed = caching.limits(plan, device, cache_folder(), training=training)
    held = caching.forecast(plan, allowed, device)
    logits = sum(4 * images * len(t.resolved.final) * plan.net.classes for t in plan.trials)
    upto = accumulate(plan.net.macs(Part("segment", k)) for k in range(1, plan.net.exits))
    exits = zip(plan.net.places, upto, inside(plan.net).facts.reasons, strict=False)
    return Forecast(
        images={name: len(split) for name, split in plan.data.splits.items()},
        places=tuple(PlannedExit(name, n / plan.net.plain_macs, why) for name, n, why in exits),
        provisional=plan.provisional,
        remarks=plan.remarks,
        nodes=nodes,
        macs_per_second=speed,
        totals=Totals(
            trials=len(plan.trials),
            phases=sum(len(t.resolved.nodes) for t in plan.trials),
            nodes=len(nodes),
            nodes_in_store=len(there),
            macs_written=plan.written,
            macs_shared=sum(node.macs_written for node in nodes),
            macs=plan.executed,
            macs_to_run=_left(nodes),
            seconds=_left(nodes) / speed,
            cache_bytes=held.memory + held.disk,
            cache_memory_bytes=held.memory,
            cache_disk_bytes=held.disk,
            cache_live_bytes=held.live,
            memory_bytes=training + held.memory,
            disk_bytes=weights + logits,
        ),
    )


def _left(nodes: Iterable[PlannedNode]) -> int:
    return sum(node.macs for node in nodes if not node.in_store)


@dataclass(frozen=True)
class Forecasts:
    """Of several studies, by name, run one after another into one store, and their sums. A node that
    several have is left to do where it comes first."""

    studies: tuple[tuple[str, Forecast], ...]
    totals: Totals

    def as_json(self) -> dict[str, Any]:
        studies = [{"study": name, **found.as_json()} for name, found in self.studies]
        return {"studies": studies, "totals": self.totals.as_json()}


QUICK = 4e9  # MACs of a measured step, where there are many networks to measure


def together(plans: Iterable[tuple[str, Plan]], store: Store, device: torch.device) -> Forecasts:
    """The forecasts of several studies, by name."""
    speeds: dict[Any, float] = {}
    studies: list[tuple[str, Forecast]] = []
    nodes: dict[str, PlannedNode] = {}
    for name, plan in plans:
        network = (plan.study.backbone.name, str(plan.study.backbone.options), plan.data.shape)
        alike = (*network, plan.numerics.ranks)
        if alike not in speeds:
            speeds[alike] = measured(plan, device, QUICK)
        found = forecast(plan, store, device, speeds[alike])
        new = {node.key: node for node in found.nodes if node.key not in nodes}
        nodes |= new
        left = _left(new.values())
        own = replace(found.totals, macs_to_run=left, seconds=left / speeds[alike])
        studies.append((name, replace(found, totals=own)))
    every = [found.totals for _, found in studies]
    totals = Totals(
        trials=sum(one.trials for one in every),
        phases=sum(one.phases for one in every),
        nodes=len(nodes),
        nodes_in_store=sum(node.in_store for node in nodes.values()),
        macs_written=sum(one.macs_written for one in every),
        macs_shared=sum(node.macs_written for node in nodes.values()),
        macs=sum(node.macs for node in nodes.values()),
        macs_to_run=sum(one.macs_to_run for one in every),
        seconds=sum(one.seconds for one in every),
        cache_bytes=max(one.cache_bytes for one in every),
        cache_memory_bytes=max(one.cache_memory_bytes for one in every),
        cache_disk_bytes=max(one.cache_disk_bytes for one in every),
        cache_live_bytes=max(one.cache_live_bytes for one in every),
        memory_bytes=max(one.memory_bytes for one in every),
        disk_bytes=sum(one.disk_bytes for one in every),
    )
    return Forecasts(tuple(studies), totals)


MACHINES = 256  # the most that a forecast looks at


@dataclass(frozen=True)
class Machines:
    """What is left, on so many machines. faster: so many times as one.  passes: how they are shared.
    price: of all of them, for the time it takes; None where none was given."""

    machines: int
    seconds: float
    faster: float
    passes: tuple[Passes, ...]
    price: float | None


@dataclass(frozen=True)
class OnMachines:
    """What is left, on more and more machines, as long as more gain anything.

    shortest: seconds of the longest chain of phases, which no number of machines undercuts.  chain: the
    phases of the plan whose chain is longest.  at_once: groups of phases on a machine, at most.
    """

    shortest: float
    chain: tuple[str, ...]
    at_once: int
    by_machines: tuple[Machines, ...]

    def as_json(self) -> dict[str, Any]:
        rows = [{k: v for k, v in asdict(row).items() if v is not None} for row in self.by_machines]
        return asdict(self) | {"by_machines": rows}


def on_machines(plans: Sequence[tuple[Spans, float]], price: float | None = None) -> OnMachines:
    """What is left on 1, 2, 4, … MACHINES equal machines, of plans that run one after another, each at
    so many MACs a second. price: of a machine an hour."""
    rows: list[Machines] = []
    for count in sizes(MACHINES):
        chosen = [found.by_machines[count] for found, _ in plans]
        seconds = sum(m / speed for (_, m), (_, speed) in zip(chosen, plans, strict=True))
        if rows and seconds > 0.99 * rows[-1].seconds:
            break
        faster = rows[0].seconds / seconds if rows and seconds else 1.0
        ways = tuple(sorted({passes for passes, _ in chosen}))
        costs = None if price is None else count * seconds / 3600 * price
        rows.append(Machines(count, seconds, faster, ways, costs))
    longest, _ = max(plans, key=lambda one: one[0].critical / one[1])
    shortest = sum(found.critical / speed for found, speed in plans)
    at_once = max(found.slots for found, _ in plans)
    return OnMachines(shortest, tuple(longest.chain), at_once, tuple(rows))
