"""Does leaving early pay? The batched predictor against what its stages promise, measured side by side.

For each network (random weights, exits at a quarter, half and three quarters of the MACs, the paper's
heads) and batch size, everything is called in turns, round by round:

- the plain backbone, in one call; all exits of it, in one call; those with the policy applied after;
- the predictor when nothing leaves;
- the predictor when images leave so that about 30, 50 and 70 % of the MACs are saved;
- every segment and every head alone, on the full batch.

**How images are made to leave.** Random weights have no sensible scores, so which image leaves where is
laid down beforehand: the same share of those still inside leaves at every early exit, in random order
over the batch, a new order in every round. The predictor computes every score and compares it all the
same, and then takes what was laid down for the outcome. At batch 1, images that leave at each exit
are measured apart, and their times are added by share.

Two bars. (a) Stage and head times measured apart at full batch, added up by the share of images that
reach each, promise a time; the promised time over the measured one is at least 0.85. Scores, packing
and smaller batches are not in the promise. (b) When nothing leaves: the time of all exits in one call,
without scores, over the predictor's is at least 0.97. Ratios are of medians, over three repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from benchmarks.contest import AS_COMMAND, Contender, Result, Say, against
from offramp import device as devices
from offramp.engine.settings import placed
from offramp.infer import torch_timing
from offramp.infer.predictor import Predictor
from offramp.infer.timing import interleaved
from offramp.nets import ExitNetwork, NetSpec, build
from offramp.parts import backbone
from offramp.policy.policy import Policy
from offramp.process import keep_freed_memory
from offramp.study.trained import network_costs

SAVED = (0.0, 0.3, 0.5, 0.7)
EXITS = (1, 2, 3, 4)
REPEATS = 3
POLICY = Policy("confidence", EXITS, (0.5, 0.5, 0.5, None))
CASES = (
    ("resnet50", 32, "small"),
    ("resnet18", 32, "small"),
    ("mobilenetv2", 32, "small"),
    ("mobilenetv2", 224, "imagenet"),
)
"""Networks, pixels of an image, and stems."""
Times = dict[str, float]


def measure(quick: bool, say: Say) -> Iterator[Result]:
    for name, pixels, stem in CASES[1:3] if quick else CASES:
        with Contender(network, AS_COMMAND, name=name, pixels=pixels, stem=stem) as ask:
            for batch in (1, 16) if quick else (1, 256):
                for saved in SAVED:
                    found = [ask(batch, saved, 3.0 if quick else 20.0) for _ in range(REPEATS)]
                    shares, times = found[0][0], {k: [t[k] for _, t in found] for k in found[0][1]}
                    title = f"{name} {pixels} px, batch {batch}"
                    note = ", ".join(f"{k} {1e3 * min(v):.2f} ms" for k, v in times.items())
                    say(f"  {title}, {100 * shares:.0f} % saved: {note}")
                    more = {"better": "higher", "note": note}
                    label = f"{title}, {100 * shares:.0f} % of MACs saved: promised time / measured time"
                    yield against(label, times["promised"], times["taken"], bar=0.85, **more)
                    if saved == 0:
                        label = f"{title}, nothing leaves: all exits / predictor"
                        yield against(label, times["all"], times["nothing leaves"], bar=0.97, **more)


def network(name: str, pixels: int, stem: str) -> Callable[[int, float, float], tuple[float, Times]]:
    """For a contender: the share of MACs saved, and seconds, see `seconds_of`."""
    keep_freed_memory()
    net = build(NetSpec(name, options=(("stem", stem),)), (3, pixels, pixels), 10, seed=0).eval()
    placed(net, devices.chosen())
    return partial(seconds_of, net)


@torch.inference_mode()
def seconds_of(net: ExitNetwork, batch: int, saved: float, seconds: float) -> tuple[float, Times]:
    """The share of MACs that is saved (below 0 where heads cost and nothing leaves), and medians: of the
    plain backbone, of what was taken and promised; where nothing leaves, of all exits in one call and
    with the policy applied after it."""
    shares = shares_that_save(net, saved)
    found = torch_timing.benchmark(net, POLICY, shares, batch, seconds=seconds).lines
    took = {line.what: batch / line.rate for line in found}
    reached = [sum(shares[i:]) for i in range(len(shares))]
    stages = [took[f"segment {k}"] + took[f"head {k}"] for k in EXITS]
    times = {"plain": took["plain"], "taken": took["policy" if saved else "nothing leaves"]}
    times["promised"] = sum(r * stage for r, stage in zip(reached, stages, strict=True))
    if not saved:
        images, device = torch_timing.noise(net, batch, devices.chosen()), devices.chosen()
        stay = torch.full((batch,), len(EXITS) - 1, device=device)
        runs = {
            "all": partial(net, images),
            "applied": lambda: POLICY.leaves(torch.stack(net(images), dim=1)),
            "nothing leaves": partial(Predictor(net, POLICY), images, stay),
        }
        clocks = interleaved(runs, partial(devices.synchronize, device), 40, seconds)
        times |= {name: clock.p50 for name, clock in clocks.items()}
    return saving(net, shares), times


def shares_that_save(net: ExitNetwork, saved: float) -> list[float]:
    """Shares of images by exit that save so much of the plain backbone's MACs: of those inside, the same
    share leaves at every early exit. 0 lets nothing leave."""

    def leaving(share: float) -> list[float]:
        early = [share * (1 - share) ** k for k in range(len(EXITS) - 1)]
        return [*early, 1 - sum(early)]

    low, high = 0.0, 1.0 if saved > 0 else 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if saving(net, leaving(middle)) < saved else (low, middle)
    return leaving(high)


def saving(net: ExitNetwork, shares: Sequence[float]) -> float:
    spent = POLICY.macs(network_costs(net, list(net.trunk_of), list(EXITS)))
    plain = sum(net.macs(part) for part in backbone(net.exits))
    return 1 - sum(s * m for s, m in zip(shares, spent, strict=True)) / plain
