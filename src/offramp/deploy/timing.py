"""Clocks: several things measured side by side, and what stages of a network take."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch

from offramp.deploy import scoring
from offramp.deploy.costs import Costs
from offramp.engine.settings import synchronize
from offramp.nets.network import ExitNetwork
from offramp.study.provenance import provenance

WARM_UP = 2
LEAST = 5  # repeats, however long they take


@dataclass(frozen=True)
class Times:
    """Seconds of repeated calls, in the order they were made."""

    samples: tuple[float, ...]

    @property
    def p50(self) -> float:
        return float(np.median(self.samples))

    @property
    def p95(self) -> float:
        return float(np.quantile(self.samples, 0.95))

    @property
    def mean(self) -> float:
        return float(np.mean(self.samples))


def interleaved(
    runs: Mapping[str, Callable[[], object]],
    device: torch.device,
    repeats: int = 30,
    seconds: float = 20.0,
) -> dict[str, Times]:
    """Call each of `runs` again and again, in turns, so that whatever else the machine does meets all
    of them alike; each round begins with another one.

    repeats: rounds, after two that are not counted; fewer, but five at least, when they take longer
    than `seconds`.
    """
    names = list(runs)
    found: dict[str, list[float]] = {name: [] for name in names}
    for name in names * WARM_UP:
        runs[name]()
    began = perf_counter()
    for turn in range(repeats):
        if turn >= LEAST and perf_counter() - began > seconds:
            break
        for at in range(len(names)):
            name = names[(turn + at) % len(names)]
            synchronize(device)
            start = perf_counter()
            runs[name]()
            synchronize(device)
            found[name].append(perf_counter() - start)
    return {name: Times(tuple(samples)) for name, samples in found.items()}


@dataclass(frozen=True)
class StageTimes:
    """What the parts of a network with K exits take for a batch of `batch` images, each measured apart.

    segments, heads: [K]; a head with what its exit costs besides: score, decision, answer. Head K is
    the classifier. plain: the backbone in one call.
    """

    batch: int
    segments: tuple[Times, ...]
    heads: tuple[Times, ...]
    plain: Times

    def costs(self, owners: tuple[int, ...], exits: tuple[int, ...]) -> Costs:
        """Nanoseconds an image of each part, in the place of MACs: medians, divided by the batch."""
        return Costs(
            tuple(round(1e9 * t.p50 / self.batch) for t in self.segments),
            tuple(round(1e9 * t.p50 / self.batch) for t in self.heads),
            owners,
            exits,
        )


@torch.inference_mode()
def stage_times(
    net: ExitNetwork, batch: int, score: str = "confidence", repeats: int = 30, seconds: float = 20.0
) -> StageTimes:
    """Measure on noise, in eval mode, where the network is; times of layers do not depend on the
    numbers in them. All trunks of a network are alike, so the first one stands for each.
    """
    device = next(net.parameters()).device
    images = noise(net, batch, device)
    runs: dict[str, Callable[[], object]] = {"plain": partial(net.trunks[0].module, images)}
    tensors: tuple[torch.Tensor, ...] = (images,)
    for i in range(1, net.exits + 1):
        runs[f"segment {i}"] = partial(net.segment(i), *tensors)
        tensors = net.segment(i)(*tensors)
        if i < net.exits:
            runs[f"head {i}"] = partial(_decide, net.heads[i - 1], score, tensors[0])
        else:
            runs[f"head {i}"] = partial(_answer, net.body(i), tensors)
    found = interleaved(runs, device, repeats, seconds)
    numbers = range(1, net.exits + 1)
    return StageTimes(
        batch,
        tuple(found[f"segment {i}"] for i in numbers),
        tuple(found[f"head {i}"] for i in numbers),
        found["plain"],
    )


def noise(net: ExitNetwork, batch: int, device: torch.device) -> torch.Tensor:
    """[B, C, H, W] of normal numbers, channels-last, as normalized images are."""
    images = torch.randn(batch, *net.input_shape, generator=torch.Generator().manual_seed(0))
    return images.to(device).contiguous(memory_format=torch.channels_last)


def machine(device: torch.device) -> dict[str, Any]:
    """Where something was measured, as JSON."""
    made = provenance(device)
    return {
        "device": made["device"],
        "cores": made["cores"],
        "threads": torch.get_num_threads(),
        "torch": made["torch"],
        "system": f"{platform.system()} {platform.machine()}",
    }


def busy() -> float | None:
    """How many processes besides this one wanted a core in the last minute; None where that is not
    known."""
    return max(0.0, os.getloadavg()[0] - 1) if hasattr(os, "getloadavg") else None


def _decide(head: torch.nn.Module, score: str, tap: torch.Tensor) -> int:
    found, _ = scoring.score(score, head(tap))
    return len((found < 2).nonzero())


def _answer(body: Callable[..., torch.Tensor], tensors: tuple[torch.Tensor, ...]) -> object:
    logits = body(*tensors)
    return scoring.answers(logits), scoring.probabilities(logits).amax(dim=-1)
