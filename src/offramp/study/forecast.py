"""What a plan would take, before it runs: `--dry-run`."""

from __future__ import annotations

from typing import Any

import torch

from offramp.engine.speed import macs_per_second
from offramp.phase import describe
from offramp.study.plan import Plan
from offramp.study.store import Store


def forecast(plan: Plan, store: Store, device: torch.device) -> dict[str, Any]:
    """The DAG and its totals, in the types of JSON.

    seconds: of what the store lacks, from a short measurement on this machine.  disk_bytes: weights of
    the nodes and logits of the trials.
    """
    there = {key for key in plan.nodes if store.has_node(key)}
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
    speed = macs_per_second(plan.net, plan.numerics, device, plan.study.recipe.batch_size)
    weights = sum(
        4 * plan.net.parameter_count(part) for node in plan.nodes.values() for part in node.trained
    )
    images = len(plan.data.validation) + len(plan.data.calibration) + len(plan.data.test)
    logits = sum(4 * images * len(t.resolved.final) * plan.net.classes for t in plan.trials)
    return {
        "nodes": nodes,
        "totals": {
            "trials": len(plan.trials),
            "phases": sum(len(t.resolved.nodes) for t in plan.trials),
            "nodes": len(nodes),
            "nodes_in_store": len(there),
            "macs_written": plan.written,
            "macs": plan.executed,
            "macs_to_run": open_macs,
            "share_of_written": plan.executed / plan.written,
            "seconds": open_macs / speed,
            "macs_per_second": speed,
            "cache_bytes": max((w.cache_bytes for w in plan.work.values()), default=0),
            "disk_bytes": weights + logits,
        },
    }
