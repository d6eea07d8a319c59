"""The part of `offramp calibrate` that has to do with measured time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import typer

from offramp import device as devices
from offramp.engine.settings import placed
from offramp.infer.timing import StageTimes, machine, stage_times
from offramp.policy.calibrate import Measure
from offramp.policy.costs import Costs
from offramp.policy.outcome import Outcome
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.study.run.trials import blank_network
from offramp.study.trained import Trained


@dataclass(frozen=True)
class Timed:
    """Measured times of a trial's stages. costs: nanoseconds an image of each.  machine: where."""

    times: StageTimes
    costs: Costs
    machine: Mapping[str, Any]


def measured(store: Store, trained: Trained, batch: int, score: str, trust_code: bool) -> Timed:
    """What the stages of a trial's network take here. What it has learned changes no time."""
    device = devices.chosen()
    net = blank_network(store, trained.id, trust_code).eval()
    placed(net, device)
    times = stage_times(net, batch, score)
    return Timed(times, times.costs(trained.costs.owners, trained.exits), machine(device))


def stages(timed: Timed) -> dict[str, Any]:
    """Median seconds of a batch by stage, and where they were measured, as JSON."""
    times = timed.times
    return {
        "batch": times.batch,
        "segments": [t.p50 for t in times.segments],
        "heads": [t.p50 for t in times.heads],
        "plain": times.plain.p50,
        "repeats": len(times.plain.samples),
        "machine": dict(timed.machine),
    }


def record(timed: Timed, chosen: Measure, full: Measure) -> dict[str, Any]:
    """What the policy file keeps of it."""
    return {"mean_seconds": chosen.seconds, "full_seconds": full.seconds, "stages": stages(timed)}


def show(policy: Policy, tested: Outcome, timed: Timed) -> None:
    """The mean time of a test image."""
    spent = policy.macs(timed.costs)
    mean = sum(exit.share * each for exit, each in zip(tested.exits, spent, strict=True)) / 1e6
    full, where = timed.costs.full / 1e6, timed.machine
    typer.echo(
        f"  time an image      {mean:.4g} ms (full network {full:.4g} ms), of stages measured apart\n"
        f"                     at batch {timed.times.batch} on {where['device']}, "
        f"{where['threads']} threads"
    )
