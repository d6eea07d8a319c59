"""What a network in torch takes: its parts, and the whole of it under a policy."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from offramp.policy.stage_times import measured as measured_costs
from offramp.store.provenance import provenance
from offramp.study.trained import network_costs

SPREAD = 1.25  # of the median: what nine rounds of ten may take at most


def times_for(
    target: Target,
    costs: Costs,
    net: Callable[[], ExitNetwork],
    batch: int,
    score: str,
    file: Path | None = None,
) -> MeasuredCosts | None:
    """The times that a policy is chosen by: of a device's `file`, or, for a limit on time, of `net`
    here. None where it is chosen by MACs."""
    check_times(target.kind, file is not None)
    if file is not None:
        return of_file(file, costs, batch, target.kind)
    if not LIMITS[target.kind].stages:
        return None
    here, before = net(), busy_cores()
    times = stage_times(here, batch, score, Effort(1000, 10.0))
    busy = max(before, busy_cores())
    return measured(times, batch, costs, busy, machine(next(here.parameters()).device))


def measured(
    times: Mapping[str, Times], batch: int, costs: Costs, busy: float, where: Mapping[str, Any]
) -> MeasuredCosts:
    """What nine of ten rounds keep, the medians, and why they are not to be trusted, if so. times: of
    `stage_times`; busy: cores that other processes kept busy; where: the machine."""

    def of_parts(number: Callable[[Times], float]) -> Costs:
        every = range(1, len(costs.segments) + 1)
        segments, heads = ([number(times[f"{kind} {i}"]) for i in every] for kind in ("segment", "head"))
        return in_time(costs, segments, heads, batch)

    median, upper, mean = (of_parts(attrgetter(name)) for name in ("p50", "p90", "mean"))
    about = {
        "plain": times["plain"].p50,
        "repeats": len(times["plain"].samples),
        "busy": busy,
        "doubts": [*_doubts(median.full, upper.full, mean.full, busy)],
        "machine": dict(where),
    }
    return measured_costs(upper, median, batch, about)


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
def stage_times(net: ExitNetwork, batch: int, score: str | None, effort: Effort) -> dict[str, Times]:
    """Measure the plain backbone and `stage_calls` on noise: the numbers in a tensor change no time, and
    all trunks of a network are alike, so one stands for each."""
    device = next(net.parameters()).device
    images = noise(net, batch, device)
    calls = {"plain": plain_call(net, images), **stage_calls(net, images, score)}
    return interleaved(calls, partial(devices.synchronize, device), effort)


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
    """`segment K` and `head K`: each stage of the final exit's trunk, and each head, on what comes to it
    from `images`. score: with one, a head takes what its exit costs besides: the score, the decision,
    the answer."""
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
        calls[f"head {i}"] = call if score is None else partial(_decided, call, score, i == net.exits)
        before = call()
    return calls


def network_calls(
    net: ExitNetwork,
    policy: Policy,
    shares: Sequence[float],
    batch: int,
    backend: str | None = None,
    orders: int = 50,
) -> list[TimedCall]:
    """What there is to time of a network in torch: the plain one, `policy_calls`, and stages. The
    arguments are those of `policy_calls`."""
    images = noise(net, batch, next(net.parameters()).device)
    stage = stage_calls(net, images, None, backend)
    return [
        TimedCall(PLAIN, plain_call(net, images, backend), net.plain_macs),
        *policy_calls(net, policy, shares, images, backend, orders),
        *(TimedCall(what, call, net.macs(_part(what))) for what, call in stage.items()),
    ]


def policy_calls(
    net: ExitNetwork,
    policy: Policy,
    shares: Sequence[float],
    images: torch.Tensor,
    backend: str | None = None,
    orders: int = 50,
) -> Iterator[TimedCall]:
    """The network that nothing leaves, and the policy, if any image leaves early: for single images one
    call an exit. Where they leave is laid down, in `orders` random orders; scores are computed all the
    same."""
    predictor = Predictor(net, policy, backend)
    macs = policy.macs(network_costs(net, list(inside(net).trunk_of), list(policy.exits)))
    batch, last = len(images), len(shares) - 1
    stay = torch.full((batch,), last, device=images.device)
    yield TimedCall(STAYS, partial(predictor, images, stay), macs[policy.active[-1]])
    if not any(shares[:last]):
        return
    if batch == 1:
        for at, share in enumerate(shares):
            if share > 0:
                here = torch.tensor([at], device=images.device)
                yield TimedCall(POLICY, partial(predictor, images, here), macs[at], share)
        return
    drawn = [torch.from_numpy(places(shares, batch, turn)) for turn in range(orders)]
    turns = itertools.cycle([order.to(images.device) for order in drawn])
    mean = sum(share * each for share, each in zip(shares, macs, strict=True))
    yield TimedCall(POLICY, lambda: predictor(images, next(turns)), mean)


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


def _decided(head: Callable[[], torch.Tensor], score: str, final: bool) -> object:
    """A head, and what its exit costs besides."""
    logits = head()
    if final:
        return scoring.answers(logits), scoring.probabilities(logits).amax(dim=-1)
    scores, _ = scoring.score(score, logits, gate=(0.0,) * scoring.GATE_SIZE)
    return len((scores < 2).nonzero())
