"""What a plan would take, before it runs: `--dry-run`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from itertools import accumulate
from typing import Any

import torch

from offramp.engine.probe import STEP_MACS, macs_per_second
from offramp.meters.capacity import usable_cores
from offramp.nets.network import inside
from offramp.parts import Part
from offramp.phase import describe
from offramp.store.store import Store
from offramp.study.plan import caching
from offramp.study.plan.caching import cache_folder
from offramp.study.plan.plan import Plan
from offramp.study.plan.schedule import Spans, sizes
from offramp.study.plan.workers import done, need

QUICK = 4e9  # MACs of a measured step, where there are many networks to measure
MACHINES = 256  # the most that a forecast looks at


def measured(plan: Plan, device: torch.device, step_macs: float = STEP_MACS) -> float:
    """How fast this machine trains a plan's network, by a short measurement. step_macs: of a measured
    step, about.

    Returns:
        MACs a second; of all devices that train a phase together, what they send each other left out.
    """
    batch = plan.study.recipe.batch_size
    speed = macs_per_second(plan.net, plan.numerics, device, batch, step_macs=step_macs)
    return speed * times_faster(plan.numerics.ranks, plan.numerics.threads, device)


def times_faster(
    ranks: int, threads: int, device: torch.device, cores: Callable[[], int] = usable_cores
) -> float:
    """How many times as fast as one so many ranks are: on CPUs no more than there are cores for.

    Example:
        >>> times_faster(4, 2, torch.device("cpu"), lambda: 6)
        3.0
    """
    return float(ranks) if device.type != "cpu" else max(1.0, min(ranks, cores() / threads))


@dataclass(frozen=True)
class PlannedNode:
    """A node of a plan."""

    key: str
    phase: str
    trains: tuple[str, ...]  # its parts
    loss: str
    strategies: tuple[str, ...]
    seed: int
    epochs: int
    macs: int  # multiply-accumulates, as the plan runs it
    macs_written: int  # those of every layer
    needs: tuple[str, ...]
    in_store: bool  # whether it is finished


@dataclass(frozen=True)
class PlannedExit:
    """An early exit."""

    name: str  # its place
    share: float  # of the MACs, before it, 0 to 1
    why: str  # why it is there


@dataclass(frozen=True)
class Totals:
    """What a plan takes, or several."""

    trials: int
    phases: int
    nodes: int
    nodes_in_store: int
    macs_written: int  # of every phase run alone, as the paper does
    macs_shared: int  # the same, each node once
    macs: int  # as the plan runs them
    macs_to_run: int  # of what the store lacks
    seconds: float  # that takes here, from a short measurement
    cache_bytes: int  # of caches at a time, at most, in memory and on disk
    cache_memory_bytes: int
    cache_disk_bytes: int
    cache_live_bytes: int  # of frozen values that stay live, in the group with most
    memory_bytes: int  # of a process, everything counted, by estimate
    disk_bytes: int  # weights of the nodes and logits of the trials

    @property
    def share_of_written(self) -> float:
        """MACs as run, of those as written, 0 to 1."""
        return self.macs / self.macs_written

    def as_json(self) -> dict[str, Any]:
        """In the types of JSON."""
        return asdict(self) | {"share_of_written": self.share_of_written}


@dataclass(frozen=True)
class Forecast:
    """What a plan would take."""

    images: dict[str, int]  # by split
    places: tuple[PlannedExit, ...]  # the early exits
    provisional: tuple[str, ...]  # see `Plan`; of a provisional plan nothing is looked up in the store
    remarks: tuple[str, ...]  # see `Plan`
    nodes: tuple[PlannedNode, ...]  # what there is to train
    arithmetic: str  # of it, in words: precision, threads, and kernels that round differently each time
    macs_per_second: float  # of this machine
    totals: Totals

    def as_json(self) -> dict[str, Any]:
        """In the types of JSON."""
        document = asdict(self)
        speed = {"macs_per_second": document.pop("macs_per_second")}
        return document | {"totals": self.totals.as_json() | speed}


def forecast(plan: Plan, store: Store, device: torch.device, speed: float | None = None) -> Forecast:
    """What a plan would take here.

    Args:
        plan: It may be provisional.
        store: What is finished in it takes nothing.
        device: Where.
        speed: MACs a second; None measures it.

    Returns:
        The nodes and their sums.
    """
    finished, users = done(plan, store), plan.users
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
            in_store=key in finished,
        )
        for key, node in plan.nodes.items()
    )
    speed = measured(plan, device) if speed is None else speed
    images = len(plan.data.validation) + len(plan.data.calibration) + len(plan.data.test)
    logits = sum(4 * images * len(t.resolved.final) * plan.net.classes for t in plan.trials)
    training = need(plan).trial
    caches = caching.forecast(plan, caching.limits(plan, device, cache_folder(), training=training))
    upto = accumulate(plan.net.macs(Part("segment", k)) for k in range(1, plan.net.exits))
    exits = zip(plan.net.places, upto, inside(plan.net).facts.reasons, strict=False)
    to_run = _to_run(nodes)
    return Forecast(
        images={name: len(split) for name, split in plan.data.splits.items()},
        places=tuple(PlannedExit(name, n / plan.net.plain_macs, why) for name, n, why in exits),
        provisional=plan.provisional,
        remarks=plan.remarks,
        nodes=nodes,
        arithmetic=plan.numerics.words,
        macs_per_second=speed,
        totals=Totals(
            trials=len(plan.trials),
            phases=sum(len(t.resolved.nodes) for t in plan.trials),
            nodes=len(nodes),
            nodes_in_store=len(finished),
            macs_written=plan.written,
            macs_shared=sum(node.macs_written for node in nodes),
            macs=plan.executed,
            macs_to_run=to_run,
            seconds=to_run / speed,
            cache_bytes=caches.memory + caches.disk,
            cache_memory_bytes=caches.memory,
            cache_disk_bytes=caches.disk,
            cache_live_bytes=caches.live,
            memory_bytes=training + caches.memory,
            disk_bytes=_weights(plan, plan.nodes) + logits,
        ),
    )


def _weights(plan: Plan, keys: Iterable[str]) -> int:
    """Bytes that nodes take in the store."""
    parameters = cache(inside(plan.net).parameter_count)
    return sum(4 * parameters(part) for key in keys for part in plan.nodes[key].trained)


def _to_run(nodes: Iterable[PlannedNode]) -> int:
    return sum(node.macs for node in nodes if not node.in_store)


@dataclass(frozen=True)
class Forecasts:
    """Of several studies, by name, run one after another into one store, and their sums. A node that
    several have is left to do where it comes first."""

    studies: tuple[tuple[str, Forecast], ...]
    totals: Totals

    def as_json(self) -> dict[str, Any]:
        """In the types of JSON."""
        studies = [{"study": name, **study.as_json()} for name, study in self.studies]
        return {"studies": studies, "totals": self.totals.as_json()}


def together(plans: Iterable[tuple[str, Plan]], store: Store, device: torch.device) -> Forecasts:
    """The forecasts of several studies, by name."""
    speeds: dict[Any, float] = {}
    studies: list[tuple[str, Forecast]] = []
    nodes: dict[str, PlannedNode] = {}
    again = 0
    for name, plan in plans:
        backbone, batch = plan.study.backbone, plan.study.recipe.batch_size
        network = backbone.name, str(backbone.options), plan.data.shape, plan.numerics, batch
        if network not in speeds:
            speeds[network] = measured(plan, device, QUICK)
        study = forecast(plan, store, device, speeds[network])
        again += _weights(plan, plan.nodes.keys() & nodes.keys())
        new = {node.key: node for node in study.nodes if node.key not in nodes}
        nodes |= new
        to_run = _to_run(new.values())
        own = replace(study.totals, macs_to_run=to_run, seconds=to_run / speeds[network])
        studies.append((name, replace(study, totals=own)))
    each = {field.name: [getattr(s.totals, field.name) for _, s in studies] for field in fields(Totals)}
    # Studies run one after another: memory is that of the largest.
    at_a_time = {name for name in each if name.startswith("cache_") or name == "memory_bytes"}
    sums = {name: max(values) if name in at_a_time else sum(values) for name, values in each.items()}
    sums |= {  # nodes that several have count once
        "nodes": len(nodes),
        "nodes_in_store": sum(node.in_store for node in nodes.values()),
        "macs_shared": sum(node.macs_written for node in nodes.values()),
        "macs": sum(node.macs for node in nodes.values()),
        "disk_bytes": sums["disk_bytes"] - again,
    }
    return Forecasts(tuple(studies), Totals(**sums))


@dataclass(frozen=True)
class Machines:
    """What is left, on so many machines."""

    machines: int
    seconds: float
    faster: float  # so many times as one
    price: float | None  # of all of them, for the time it takes; None where a machine's is not known


@dataclass(frozen=True)
class OnMachines:
    """What is left, on more and more machines, as long as more gain anything."""

    shortest: float  # seconds of the longest chain of phases, which no number of machines undercuts
    chain: tuple[str, ...]  # the phases of the plan whose chain is longest
    at_once: int  # groups of phases on a machine, at most
    by_machines: tuple[Machines, ...]  # one entry a number of machines

    def as_json(self) -> dict[str, Any]:
        """In the types of JSON."""
        rows = [{k: v for k, v in asdict(row).items() if v is not None} for row in self.by_machines]
        return asdict(self) | {"by_machines": rows}


def on_machines(plans: Sequence[tuple[Spans, float]], price: float | None = None) -> OnMachines:
    """What is left on 1, 2, 4, … MACHINES equal machines, of plans that run one after another. plans:
    what the schedule of each comes to, and MACs a second; price: of a machine an hour."""
    rows: list[Machines] = []
    for count in sizes(MACHINES):
        seconds = sum(span.by_machines[count] / speed for span, speed in plans)
        if rows and seconds >= 0.99 * rows[-1].seconds:  # of nothing left too
            break
        faster = rows[0].seconds / seconds if rows and seconds else 1.0
        cost = None if price is None else count * seconds / 3600 * price
        rows.append(Machines(count, seconds, faster, cost))
    chains = [(span.critical / speed, span) for span, speed in plans]
    _, longest = max(chains, key=lambda chain: chain[0])
    at_once = max(span.slots for span, _ in plans)
    return OnMachines(sum(s for s, _ in chains), tuple(longest.chain), at_once, tuple(rows))
