"""What a network in torch takes: its parts, and the whole of it under a policy."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from offramp import device as devices
from offramp import inputs
from offramp.engine.settings import laid_out
from offramp.infer.predictor import Predictor, running, stages
from offramp.infer.timing import (
    PLAIN,
    POLICY,
    STAYS,
    Effort,
    TimedCall,
    Times,
    interleaved,
    places,
)
from offramp.meters.capacity import BUSY, busy_cores
from offramp.nets.network import ExitNetwork, inside
from offramp.parts import Part
from offramp.policy import scoring
from offramp.policy.calibrate import MeasuredCosts
from offramp.policy.calibration import Target
from offramp.policy.costs import Costs
from offramp.policy.limits import LIMITS, check_times
from offramp.policy.policy import Policy
from offramp.policy.stage_times import in_time, of_file
from offramp.store.provenance import provenance
from offramp.study.trained import network_costs

SPREAD = 1.25  # of the median: what nine rounds of ten may take at most


@dataclass(frozen=True)
class PartTimes:
    """What the parts of a network with K exits take, each measured apart."""

    batch: int  # images at once
    segments: tuple[Times, ...]  # [K] times of a batch
    heads: tuple[Times, ...]  # [K]; head K is the classifier
    plain: Times  # the backbone in one call


def times_for(
    target: Target,
    costs: Costs,
    net: Callable[[], ExitNetwork],
    batch: int,
    score: str,
    file: Path | None = None,
) -> MeasuredCosts | None:
    """The times that a policy is chosen by: of a device's `file`, or, for a limit on time, of `net`
    here; None where it is chosen by MACs. Raises OfframpError for a limit that goes by times which only
    a file has."""
    check_times(target.kind, file is not None)
    if file is not None:
        return of_file(file, costs, batch, target.kind)
    if not LIMITS[target.kind].stages:
        return None
    here, before = net(), busy_cores()
    times = stage_times(here, batch, score, Effort(1000, 10.0))
    return measured(times, costs, max(before, busy_cores()), machine(next(here.parameters()).device))


def measured(times: PartTimes, costs: Costs, busy: float, where: Mapping[str, Any]) -> MeasuredCosts:
    """What nine of ten rounds keep, the medians, and why they are not to be trusted, if so. busy: cores
    that other processes kept busy; where: the machine."""

    def of_parts(number: Callable[[Times], float]) -> Costs:
        return in_time(costs, map(number, times.segments), map(number, times.heads), times.batch)

    median, upper, mean = (of_parts(attrgetter(name)) for name in ("p50", "p90", "mean"))
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
    reasons = []
    if busy > BUSY:
        reasons.append(f"other processes kept {busy:.1f} cores busy while times were measured")
    if upper > SPREAD * median:
        reasons.append(
            f"measured times are unsteady: one round in ten takes {upper / median:.2g} times the median "
            f"or more, and {SPREAD:g} times is trusted"
        )
    if mean > upper:
        reasons.append(
            f"measured times are unsteady: a few rounds take so long that the mean is "
            f"{mean / upper:.2g} times what nine of ten keep"
        )
    if reasons:
        yield f"{'; '.join(reasons)}; measure again when the machine has nothing else to do"


@torch.inference_mode()
def stage_times(net: ExitNetwork, batch: int, score: str | None, effort: Effort) -> PartTimes:
    """Measure the parts of a network on noise: the numbers in a tensor change no time, and all trunks of
    a network are alike, so one stands for each. score: with one, a head takes what its exit costs
    besides: the score, the decision, the answer."""
    device = next(net.parameters()).device
    images = noise(net, batch, device)
    calls = {"plain": plain_call(net, images), **stage_calls(net, images, score)}
    times = interleaved(calls, partial(devices.synchronize, device), effort)
    numbers = range(1, net.exits + 1)
    segments = tuple(times[f"segment {i}"] for i in numbers)
    return PartTimes(batch, segments, tuple(times[f"head {i}"] for i in numbers), times["plain"])


def plain_call(
    net: ExitNetwork, images: torch.Tensor, backend: str | None = None
) -> Callable[[], object]:
    """The backbone as a whole, without a cut, on `images`; as ready to answer as the stages are."""
    own = running(net, backend)
    module = own.trunks[own.trunk_of[-1]].plain.eval()
    return partial(module if backend is None else torch.compile(module, backend=backend), images)


def stage_calls(
    net: ExitNetwork, images: torch.Tensor, score: str | None = None, backend: str | None = None
) -> dict[str, Callable[[], Any]]:
    """Each stage of the final exit's trunk, and each head, on what comes to it from `images`."""
    own = stages(net, range(1, net.exits + 1), backend)
    trunk = inside(net).trunk_of[-1]
    tensors: tuple[torch.Tensor, ...] = (images,)
    before: torch.Tensor | None = None
    calls: dict[str, Callable[[], Any]] = {}
    for i in range(1, net.exits + 1):
        segment, head = own.segments[trunk, i], own.heads[i - 1]
        calls[f"segment {i}"] = partial(segment, *tensors)
        tensors = tuple(segment(*tensors))
        call = partial(head, tensors, before)
        if score is None:
            calls[f"head {i}"] = call
        else:
            finish = partial(_decide, score) if i < net.exits else _answer
            calls[f"head {i}"] = partial(_finished, call, finish)
        before = call()
    return calls


@dataclass(frozen=True, eq=False)
class NetworkSubject:
    """A network in torch under a policy, to be measured where it is. What leaves where is laid down
    beforehand, with the shares and in random order; scores are computed and compared all the same."""

    net: ExitNetwork  # in eval mode
    policy: Policy  # names exits of the network
    shares: Sequence[float]  # of images that leave at each of the policy's exits
    backend: str | None = None  # of torch.compile; None runs eagerly
    orders: int = 50  # random orders of leaving, which calls take in turn

    @property
    def engine(self) -> str:
        return "eager" if self.backend is None else "compiled"

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    def calls(self, batch: int) -> list[TimedCall]:
        """See `Subject`."""
        images = noise(self.net, batch, self.device)
        plain = plain_call(self.net, images, self.backend)
        return [
            TimedCall(PLAIN, plain, self.net.plain_macs),
            *self.policy_calls(images),
            *(
                TimedCall(what, call, self.net.macs(_part(what)))
                for what, call in stage_calls(self.net, images, None, self.backend).items()
            ),
        ]

    def policy_calls(self, images: torch.Tensor) -> Iterator[TimedCall]:
        """The network that nothing leaves, and, where any image leaves early, the policy: for single
        images one call an exit that any leave at."""
        predictor = Predictor(self.net, self.policy, self.backend)
        owners = list(inside(self.net).trunk_of)
        macs = self.policy.macs(network_costs(self.net, owners, list(self.policy.exits)))
        batch, last = len(images), len(self.shares) - 1
        stay = torch.full((batch,), last, device=self.device)
        yield TimedCall(STAYS, partial(predictor, images, stay), macs[self.policy.active[-1]])
        if not any(self.shares[:last]):
            return
        if batch == 1:
            for at, share in enumerate(self.shares):
                if share > 0:
                    here = torch.tensor([at], device=self.device)
                    yield TimedCall(POLICY, partial(predictor, images, here), macs[at], share)
            return
        orders = [torch.from_numpy(places(self.shares, batch, turn)) for turn in range(self.orders)]
        turns = itertools.cycle([order.to(self.device) for order in orders])
        mean = sum(share * each for share, each in zip(self.shares, macs, strict=True))
        yield TimedCall(POLICY, lambda: predictor(images, next(turns)), mean)

    def wait(self) -> None:
        devices.synchronize(self.device)

    def peak(self) -> int | None:
        return devices.peak_memory(self.device)


def _part(what: str) -> Part:
    kind, _, number = what.partition(" ")
    return Part("segment" if kind == "segment" else "head", int(number))


def noise(net: ExitNetwork, batch: int, device: torch.device) -> torch.Tensor:
    """Examples [B, *shape] that mean nothing, images channels-last, as normalized ones are."""
    examples = inputs.noise(net.input_shape, batch, generator=torch.Generator().manual_seed(0))
    return laid_out(examples.to(device), "channels_last")


def machine(device: torch.device) -> dict[str, Any]:
    """Where something was measured, as JSON."""
    where = provenance(device)
    return {
        "device": where.device,
        "cores": where.cores,
        "threads": torch.get_num_threads(),
        "torch": where.torch,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _finished(head: Callable[[], torch.Tensor], finish: Callable[[torch.Tensor], object]) -> object:
    return finish(head())


def _decide(score: str, logits: torch.Tensor) -> int:
    scores, _ = scoring.score(score, logits, gate=(0.0,) * scoring.GATE_SIZE)
    return len((scores < 2).nonzero())


def _answer(logits: torch.Tensor) -> object:
    return scoring.answers(logits), scoring.probabilities(logits).amax(dim=-1)
