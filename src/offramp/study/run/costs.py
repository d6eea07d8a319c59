"""What a node cost: time, MACs, memory, power and energy, for its record."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from offramp import device as devices
from offramp.engine.cost import exit_shares, live_macs, written_macs
from offramp.engine.passes import CacheBytes
from offramp.engine.trainee import Trainee
from offramp.meters.meter import Gpu, Meter, Missing, find_gpu, find_packages
from offramp.store.manifest import Cost
from offramp.study.plan.plan import Plan

USED = (
    *("memory_rss_peak_bytes", "memory_gpu_peak_bytes", "memory_torch_peak_bytes"),
    *("energy_cpu_j", "energy_gpu_j"),
    *("power_cpu_mean_w", "power_gpu_mean_w", "power_cpu_peak_w", "power_gpu_peak_w"),
)


@contextmanager
def meter(device: torch.device) -> Iterator[Meter]:
    """The meters of this machine and device, reading while the block runs."""
    with Meter(find_packages(), gpu_of(device)) as running:
        yield running


def gpu_of(device: torch.device) -> Gpu | Missing:
    """The meters of the GPU that torch calls `device`, which NVML may count otherwise."""
    return find_gpu(devices.nvidia_uuid(device))


def charge(trainees: Sequence[Trainee], meter: Meter) -> None:
    """What was used since the last lap, in equal parts to the phases that shared it."""
    used = meter.lap()
    device = trainees[0].optimizer.param_groups[0]["params"][0].device
    used = replace(used, memory_torch_peak_bytes=devices.peak_memory(device))
    for trainee in trainees:
        trainee.usage = trainee.usage.plus(used.divided(len(trainees)))


def record(
    plan: Plan,
    trainee: Trainee,
    frozen_macs: float,
    cached: CacheBytes,
    fused_with: int,
    workers: int,
    meter: Meter,
) -> Cost:
    """A node's cost, for its record. frozen_macs: of frozen layers that it has not been charged with
    yet; fused_with, workers: how many phases shared its passes, and how many processes the machine."""
    node, net, execution = trainee.node, plan.net, plan.study.execution
    images = plan.data.images_an_epoch
    passed = (trainee.epoch, len({trainee.epoch, trainee.best_epoch}))
    frozen = math.ceil(trainee.frozen_macs + frozen_macs)
    alone = execution.mode == "plain" and workers == 1
    shares = exit_shares(node, net)
    return Cost(
        seconds=trainee.seconds,
        epoch_seconds=tuple(trainee.epoch_seconds),
        exit_shares={net.places[exit - 1]: share for exit, share in shares.items()},
        macs_written=written_macs(node, net, images, *passed),
        macs_executed=live_macs(node, net, images, *passed) + frozen,
        used={name: getattr(trainee.usage, name) for name in USED},
        idle={"power_cpu_w": meter.idle.power_cpu_mean_w, "power_gpu_w": meter.idle.power_gpu_mean_w},
        not_measured={name: str(missing) for name, missing in meter.missing.items()},
        mode=execution.mode,
        cache=execution.cache,
        kept={"memory": cached.memory, "disk": cached.disk, "live": cached.live},
        group=fused_with,
        workers=workers,
        comparable=alone and not trainee.resumed,
    )
