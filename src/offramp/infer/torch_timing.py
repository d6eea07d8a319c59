"""What a network in torch takes: stages apart, the plain backbone, and a policy."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from offramp import device as devices
from offramp import inputs
from offramp.engine.settings import laid_out
from offramp.infer.footprint import NOTHING, Footprint, joules
from offramp.infer.predictor import Predictor
from offramp.infer.stages import stages
from offramp.infer.timing import (
    PLAIN,
    POLICY,
    STAYS,
    WHOLE,
    Effort,
    Times,
    Timing,
    ToTime,
    interleaved,
    mixture,
    places,
    timing,
)
from offramp.meters import BUSY, Meter, busy_cores
from offramp.nets.network import ExitNetwork
from offramp.parts import Part
from offramp.policy import scoring
from offramp.policy.calibrate import MeasuredCosts
from offramp.policy.calibration import Target
from offramp.policy.costs import Costs
from offramp.policy.limits import LIMITS, check_times
from offramp.policy.policy import Policy
from offramp.policy.stage_times import of_file
from offramp.store.provenance import provenance
from offramp.study.trained import network_costs

SPREAD = 1.25  # of the median: what nine rounds of ten may take at most


@dataclass(frozen=True)
class PartTimes:
    """What the parts of a network with K exits take for a batch of `batch` images, each measured apart.

    segments, heads: [K]; head K is the classifier.  plain: the backbone in one call.
    """

    batch: int
    segments: tuple[Times, ...]
    heads: tuple[Times, ...]
    plain: Times

    def costs(
        self,
        owners: tuple[int, ...],
        exits: tuple[int, ...],
        of: Callable[[Times], float] = attrgetter("p50"),
    ) -> Costs:
        """Nanoseconds an image of each part, used in place of MACs. of: the number taken of a part's
        samples, by default their median."""
        segments, heads = (
            tuple(round(1e9 * of(t) / self.batch) for t in parts)
            for parts in (self.segments, self.heads)
        )
        return Costs(segments, heads, owners, exits)


def times_for(
    target: Target,
    costs: Costs,
    net: Callable[[], ExitNetwork],
    batch: int,
    score: str,
    file: Path | None = None,
) -> MeasuredCosts | None:
    """The times by which a policy is chosen: of a device's `file`, else, for a limit on time, of `net`
    as `measured_costs` has it; None where MACs say it. Raises OfframpError for a limit on times that
    only a file has."""
    check_times(target.kind, file is not None)
    if file is not None:
        return of_file(file, costs, batch, target.kind)
    return measured_costs(net(), costs, batch, score) if LIMITS[target.kind].stages else None


def measured_costs(net: ExitNetwork, costs: Costs, batch: int, score: str) -> MeasuredCosts:
    """What the parts of a network take here, `batch` images at once, for `policy.calibrate`. net: in
    eval mode, where it is to run.  costs: its MACs.  score: of the policy."""
    before = busy_cores()
    times = stage_times(net, batch, score, Effort(1000, 10.0))
    busy = max(before, busy_cores())
    return measured(times, costs, busy, machine(next(net.parameters()).device))


def measured(times: PartTimes, costs: Costs, busy: float, where: Mapping[str, Any]) -> MeasuredCosts:
    """What nine of ten rounds keep, the medians, and why they are not to be trusted, if so. costs: MACs
    of the network.  busy: cores that others kept busy.  where: the machine."""
    median, upper, mean = (
        replace(times.costs(costs.owners, costs.exits, attrgetter(of)), carry=costs.carry)
        for of in ("p50", "p90", "mean")
    )
    record = {
        "batch": times.batch,
        "segments": [t.p50 for t in times.segments],
        "heads": [t.p50 for t in times.heads],
        "plain": times.plain.p50,
        "segments_p90": [t.p90 for t in times.segments],
        "heads_p90": [t.p90 for t in times.heads],
        "repeats": len(times.plain.samples),
        "busy": busy,
        "doubts": [*_doubts(median.full, upper.full, mean.full, busy)],
        "machine": dict(where),
    }
    return MeasuredCosts(upper, median, record)


def _doubts(median: float, upper: float, mean: float, busy: float) -> Iterator[str]:
    """Times are of the full network."""
    again = "measure again when the machine has nothing else to do"
    if busy > BUSY:
        yield f"other processes kept {busy:.1f} cores busy while times were measured; {again}"
    if upper > SPREAD * median:
        yield (
            f"measured times are unsteady: one round in ten takes {upper / median:.2g} times the median "
            f"or more, and {SPREAD:g} times is trusted; {again}"
        )
    if mean > upper:
        yield (
            f"measured times are unsteady: a few rounds take so long that the mean is "
            f"{mean / upper:.2g} times what nine of ten keep; {again}"
        )


@torch.inference_mode()
def stage_times(net: ExitNetwork, batch: int, score: str | None, effort: Effort) -> PartTimes:
    """Measure on noise, in eval mode, where the network is: the numbers in a tensor change no time, and
    all trunks of a network are alike, so one stands for each.

    score: with one, a head takes what its exit costs besides: the score, the decision, the answer.
    """
    device = next(net.parameters()).device
    images = noise(net, batch, device)
    runs = {"plain": plain_run(net, images), **stage_runs(net, images, score)}
    found = interleaved(runs, partial(devices.synchronize, device), effort)
    numbers = range(1, net.exits + 1)
    segments = tuple(found[f"segment {i}"] for i in numbers)
    return PartTimes(batch, segments, tuple(found[f"head {i}"] for i in numbers), found["plain"])


def plain_run(
    net: ExitNetwork, images: torch.Tensor, backend: str | None = None
) -> Callable[[], object]:
    """The backbone as a whole, without a cut, on `images`."""
    module = net.trunks[net.trunk_of[-1]].plain.eval()
    return partial(module if backend is None else torch.compile(module, backend=backend), images)


def stage_runs(
    net: ExitNetwork, images: torch.Tensor, score: str | None = None, backend: str | None = None
) -> ToTime:
    """Each stage of the final exit's trunk, and each head, on what comes to it from `images`."""
    made = stages(net, range(1, net.exits + 1), backend)
    trunk = net.trunk_of[-1]
    tensors: tuple[torch.Tensor, ...] = (images,)
    before: torch.Tensor | None = None
    runs: ToTime = {}
    for i in range(1, net.exits + 1):
        segment, head = made.segments[trunk, i], made.heads[i - 1]
        runs[f"segment {i}"] = partial(segment, *tensors)
        tensors = tuple(segment(*tensors))
        run = partial(head, tensors, before)
        if score is None:
            runs[f"head {i}"] = run
        else:
            finish = partial(_decide, score) if i < net.exits else _answer
            runs[f"head {i}"] = partial(_finished, run, finish)
        before = run()
    return runs


@dataclass(frozen=True)
class Measured:
    """Lines, and how many seconds the first calls took, compilation included."""

    lines: tuple[Timing, ...]
    first_calls: float


@torch.inference_mode()
def benchmark(
    net: ExitNetwork,
    policy: Policy,
    shares: Sequence[float],
    batch: int,
    backend: str | None,
    effort: Effort,
    meter: Meter | None = None,
) -> Measured:
    """The plain backbone, the network when nothing leaves, the policy, and every stage, side by side.

    shares: of images that leave at each of the policy's exits. What leaves where is laid down
    beforehand, with those shares and in random order; scores are computed and compared all the same.
    meter: with one, energy is measured too.
    """
    device = next(net.parameters()).device
    images = noise(net, batch, device)
    began = perf_counter()
    runs = {PLAIN: plain_run(net, images, backend), **stage_runs(net, images, None, backend)}
    runs |= policy_runs(Predictor(net, policy, backend), images, shares, effort.repeats)
    for run in runs.values():
        run()
    devices.synchronize(device)
    first_calls = perf_counter() - began
    wait = partial(devices.synchronize, device)
    found = interleaved(runs, wait, effort)
    drawn: dict[str, Footprint] = {}
    if meter is not None:
        for name in (name for name in runs if name.startswith(WHOLE)):
            devices.peak_memory(device)
            energy = joules(runs[name], batch, meter, wait)
            runs[name]()
            drawn[name] = Footprint(energy, devices.peak_memory(device))
    engine = "eager" if backend is None else "compiled"
    return Measured(tuple(_lines(net, policy, shares, batch, engine, found, drawn)), first_calls)


def policy_runs(
    predictor: Predictor, images: torch.Tensor, shares: Sequence[float], repeats: int
) -> ToTime:
    """`nothing leaves`, and `policy`: for single images one run an exit that any leave at."""
    device, batch, last = images.device, len(images), len(shares) - 1
    stay = torch.full((batch,), last, device=device)
    runs: ToTime = {STAYS: partial(predictor, images, stay)}
    if batch == 1:
        for at, share in enumerate(shares):
            if share > 0:
                runs[f"policy {at}"] = partial(predictor, images, torch.tensor([at], device=device))
    elif any(shares[:last]):
        drawn = [torch.from_numpy(places(shares, batch, turn)) for turn in range(repeats)]
        runs[POLICY] = _Turns(predictor, images, [one.to(device) for one in drawn])
    return runs


class _Turns:
    """The predictor on the same images, each time with the next of several orders of leaving."""

    def __init__(
        self, predictor: Predictor, images: torch.Tensor, forced: Sequence[torch.Tensor]
    ) -> None:
        self._predictor, self._images, self._forced = predictor, images, forced
        self._turn = 0

    def __call__(self) -> object:
        self._turn += 1
        return self._predictor(self._images, self._forced[self._turn % len(self._forced)])


def _lines(
    net: ExitNetwork,
    policy: Policy,
    shares: Sequence[float],
    batch: int,
    engine: str,
    found: Mapping[str, Times],
    drawn: Mapping[str, Footprint],
) -> list[Timing]:
    costs = network_costs(net, list(net.trunk_of), list(policy.exits))
    spent = policy.macs(costs)
    mean = sum(share * each for share, each in zip(shares, spent, strict=True))
    lines = [
        timing(engine, PLAIN, batch, found[PLAIN], net.plain_macs, drawn.get(PLAIN, NOTHING)),
        timing(engine, STAYS, batch, found[STAYS], spent[policy.active[-1]], drawn.get(STAYS, NOTHING)),
    ]
    if batch == 1 and any(share > 0 for share in shares[:-1]):
        names = [f"policy {at}" for at in range(len(shares))]
        parts = [(found.get(name, Times(())), drawn.get(name, NOTHING)) for name in names]
        lines.append(mixture(engine, parts, shares, mean))
    elif POLICY in found:
        lines.append(timing(engine, POLICY, batch, found[POLICY], mean, drawn.get(POLICY, NOTHING)))
    for i in range(1, net.exits + 1):
        for kind in ("segment", "head"):
            macs = net.macs(Part("segment" if kind == "segment" else "head", i))
            lines.append(timing(engine, f"{kind} {i}", batch, found[f"{kind} {i}"], macs))
    return lines


def noise(net: ExitNetwork, batch: int, device: torch.device) -> torch.Tensor:
    """Examples [B, *shape] that mean nothing, images channels-last, as normalized ones are."""
    made = inputs.noise(net.input_shape, batch, generator=torch.Generator().manual_seed(0))
    return laid_out(made.to(device), "channels_last")


def machine(device: torch.device) -> dict[str, Any]:
    """Where something was measured, as JSON."""
    made = provenance(device)
    return {
        "device": made.device,
        "cores": made.cores,
        "threads": torch.get_num_threads(),
        "torch": made.torch,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _finished(head: Callable[[], torch.Tensor], finish: Callable[[torch.Tensor], object]) -> object:
    return finish(head())


def _decide(score: str, logits: torch.Tensor) -> int:
    numbers = scoring.SCORES[score].numbers(logits.shape[-1])
    found, _ = scoring.score(score, logits, gate=(0.0,) * numbers)
    return len((found < 2).nonzero())


def _answer(logits: torch.Tensor) -> object:
    return scoring.answers(logits), scoring.probabilities(logits).amax(dim=-1)
