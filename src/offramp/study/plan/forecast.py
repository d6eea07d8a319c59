"""What a plan would take, before it runs: `--dry-run`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import torch

from offramp.engine.probe import STEP_MACS, macs_per_second
from offramp.meters import usable_cores
from offramp.parts import Part
from offramp.phase import describe
from offramp.store.store import Store
from offramp.study.plan import caching
from offramp.study.plan.limits import cache_folder
from offramp.study.plan.plan import Plan
from offramp.study.plan.schedule import Spans, sizes
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


def forecast(
    plan: Plan, store: Store, device: torch.device, speed: float | None = None
) -> dict[str, Any]:
    """The DAG and its totals, in the types of JSON. speed: MACs a second; measured, by default.

    seconds: of what the store lacks, from a short measurement on this machine.
    macs_written: of every phase run alone, as the paper does; macs_shared: the same, each node once.
    disk_bytes: weights of the nodes and logits of the trials.  cache_bytes: at a time, at most, in
    memory and on disk; live: of values that stay live in one group.  memory_bytes: of a process,
    everything counted, by estimate.  images: by split.  places: of the early exits, each with the share
    of the MACs before it and why it is there.  provisional: see `Plan`; nothing is then looked up in the
    store.
    """
    there = set() if plan.provisional else {key for key in plan.nodes if store.has_node(key)}
    users = plan.users
    nodes = [
        {
            "key": key,
            "phase": node.name,
            "trains": [str(part) for part in sorted(node.trained)],
            "loss": describe(node.terms),
            "strategies": users[key],
            "seed": node.seed,
            "epochs": node.recipe.epochs,
            "macs": plan.macs(key),
            "needs": list(node.needs),
            "in_store": key in there,
        }
        for key, node in plan.nodes.items()
    ]
    open_macs = sum(plan.macs(key) for key in plan.nodes if key not in there)
    speed = measured(plan, device) if speed is None else speed
    counted = cache(plan.net.parameter_count)
    weights = sum(4 * counted(part) for node in plan.nodes.values() for part in node.trained)
    images = len(plan.data.validation) + len(plan.data.calibration) + len(plan.data.test)
    training = need(plan).trial
    allowed = caching.limits(plan, device, cache_folder(), training=training)
    held = caching.forecast(plan, allowed, device)
    logits = sum(4 * images * len(t.resolved.final) * plan.net.classes for t in plan.trials)
    plain = plan.net.plain_macs
    upto = accumulate(plan.net.macs(Part("segment", k)) for k in range(1, plan.net.exits))
    exits = zip(plan.net.places, upto, plan.net.reasons, strict=False)
    return {
        "images": {name: len(split) for name, split in plan.data.splits.items()},
        "places": [{"name": name, "share": n / plain, "why": why} for name, n, why in exits],
        "provisional": list(plan.provisional),
        "remarks": list(plan.remarks),
        "nodes": nodes,
        "totals": {
            "trials": len(plan.trials),
            "phases": sum(len(t.resolved.nodes) for t in plan.trials),
            "nodes": len(nodes),
            "nodes_in_store": len(there),
            "macs_written": plan.written,
            "macs_shared": sum(work.written for work in plan.work.values()),
            "macs": plan.executed,
            "macs_to_run": open_macs,
            "share_of_written": plan.executed / plan.written,
            "seconds": open_macs / speed,
            "macs_per_second": speed,
            "cache_bytes": held.memory + held.disk,
            "cache_memory_bytes": held.memory,
            "cache_disk_bytes": held.disk,
            "cache_live_bytes": held.live,
            "memory_bytes": training + held.memory,
            "disk_bytes": weights + logits,
        },
    }


QUICK = 4e9  # MACs of a measured step, where there are many networks to measure
MOST = ("cache_bytes", "cache_memory_bytes", "cache_disk_bytes", "cache_live_bytes", "memory_bytes")
SUMS = ("trials", "phases", "macs_written", "disk_bytes")


def together(plans: Iterable[tuple[str, Plan]], store: Store, device: torch.device) -> dict[str, Any]:
    """The forecasts of several studies, by name, run one after another into one store, and their sums.

    A node that several have is counted where it comes first.
    """
    speeds: dict[Any, float] = {}
    studies: list[dict[str, Any]] = []
    nodes: dict[str, dict[str, Any]] = {}
    for name, plan in plans:
        network = (plan.study.backbone.name, str(plan.study.backbone.options), plan.data.shape)
        alike = (*network, plan.numerics.ranks)
        if alike not in speeds:
            speeds[alike] = measured(plan, device, QUICK)
        speed = speeds[alike]
        found = forecast(plan, store, device, speed)
        shared = {key: plan.work[key].written for key in plan.nodes}
        new = [{**n, "shared": shared[n["key"]]} for n in found["nodes"] if n["key"] not in nodes]
        nodes |= {node["key"]: node for node in new}
        left = sum(node["macs"] for node in new if not node["in_store"])
        own = {**found["totals"], "macs_to_run": left, "seconds": left / speed}
        studies.append({"study": name, **found, "totals": own})
    every = [study["totals"] for study in studies]
    totals: dict[str, Any] = {key: sum(one[key] for one in every) for key in (*SUMS, "seconds")}
    totals |= {
        "nodes": len(nodes),
        "nodes_in_store": sum(node["in_store"] for node in nodes.values()),
        "macs_shared": sum(node["shared"] for node in nodes.values()),
        "macs": sum(node["macs"] for node in nodes.values()),
        "macs_to_run": sum(one["macs_to_run"] for one in every),
        **{key: max(one[key] for one in every) for key in MOST},
    }
    totals["share_of_written"] = totals["macs"] / totals["macs_written"]
    return {"studies": studies, "totals": totals}


MACHINES = 256  # the most that a forecast looks at


def on_machines(plans: Sequence[tuple[Spans, float]], price: float | None = None) -> dict[str, Any]:
    """What is left on 1 to MACHINES equal machines, of plans that run one after another, each at so many
    MACs a second; in the types of JSON. price: of a machine an hour.

    shortest: seconds of the longest chain of phases, which no number of machines undercuts.  chain: the
    phases of the plan whose chain is longest.  at_once: groups of phases on a machine, at most.
    by_machines: for 1, 2, 4, … machines, as long as more gain anything: seconds, how many times faster
    that is than one machine, how passes are shared (`schedule.Passes`), and the price.
    """
    rows: list[dict[str, Any]] = []
    for count in sizes(MACHINES):
        chosen = [found.by_machines[count] for found, _ in plans]
        seconds = sum(m / speed for (_, m), (_, speed) in zip(chosen, plans, strict=True))
        if rows and seconds > 0.99 * rows[-1]["seconds"]:
            break
        faster = rows[0]["seconds"] / seconds if rows and seconds else 1.0
        ways = sorted({passes for passes, _ in chosen})
        row = {"machines": count, "seconds": seconds, "faster": faster, "passes": ways}
        rows.append(row if price is None else {**row, "price": count * seconds / 3600 * price})
    longest, _ = max(plans, key=lambda one: one[0].critical / one[1])
    shortest = sum(found.critical / speed for found, speed in plans)
    chain, at_once = list(longest.chain), max(found.slots for found, _ in plans)
    return {"shortest": shortest, "chain": chain, "at_once": at_once, "by_machines": rows}
