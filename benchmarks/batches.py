"""How much of what early exits save in MACs arrives as time, by the size of a batch.

Contenders are the plain network and the predictor in torch, or the plain network's graph and the bundle
in onnxruntime, in one process. So many images leave at the first exit, spread over the batch, and the
others at the last one; every score is computed. With none leaving, the ratio is the time of a bare
forward pass to all exits (in onnxruntime of the stages alone) over the predictor's; else the share of
time that is saved over the share of MACs. Heads are pooled, as in a network to deploy: one that flattens
its map is bound by reading its weights, whatever its MACs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.contest import BARE, Result, contender, middle
from benchmarks.one_image import NEVER, THREADS
from offramp.infer.predictor import Predictor
from offramp.nets import ExitNetwork, NetSpec, build
from offramp.nets.network import inside
from offramp.policy.policy import Policy
from offramp.process import keep_freed_memory

Case = tuple[str, int, tuple[tuple[str, str], ...]]  # a backbone, pixels, its options
CASES: tuple[Case, ...] = (
    ("resnet18", 32, (("stem", "medium"),)),
    ("resnet18", 224, ()),
    ("resnet50", 32, (("stem", "medium"),)),
    ("mobilenetv2", 32, ()),
)
POOLED = (("flatten", False),)
BATCHES, LEAVING = (1, 8, 32, 256), (0.0, 0.3, 0.6, 0.9)
QUICK = {
    32: {(1, 0.0), (8, 0.6), (32, 0.6), (256, 0.6)},
    224: {(1, 0.0), (8, 0.0), (8, 0.6)},
}
ARRIVES, NOTHING_LOST = 0.85, 0.97
PIXELS = 512 * 32 * 32  # a turn, about
# Seconds of the plain network, or where nothing leaves of a bare forward pass to all exits; of the
# predictor; of the plain network on the images that stay alone, or of all exits by the predictor's own
# parts; the predictor's share of MACs. In torch the plain network is made of such parts too.
Times = tuple[float, float, float, float]


def measure(quick: bool) -> Iterator[Result]:
    rounds = 3 if quick else 9
    for case in CASES[:2] if quick else CASES:
        words = " ".join((case[0], *(value for _, value in case[2]), f"{case[1]} px"))
        for runtime, make in (("", pair), (", onnxruntime", bundle_pair)):
            if quick and case[1] > 32 and runtime:  # half a minute for the bundle alone
                continue
            with contender(make, BARE, case=case) as ask:
                for batch, share in product(BATCHES, LEAVING):
                    alone = batch == 1 and share  # a batch of one leaves or does not
                    if not alone and (not quick or (batch, share) in QUICK[case[1]]):
                        turns = [ask(batch, share) for _ in range(rounds)]
                        yield arrived(f"{words}{runtime}", batch, share, turns)


def arrived(network: str, batch: int, share: float, turns: list[Times]) -> Result:
    """What a network's turns come to."""
    note = f"{len(turns)} turns, {THREADS} threads"
    if not share:
        ratios = [bare / policy for bare, policy, *_ in turns]
        name = f"batches: {network}, {batch} at once, nothing leaves, bare / predictor"
        parts = median(own / policy for _, policy, own, _ in turns)
        note += f"; its own parts without a policy take {parts:.2f} of its time"
        return middle(name, ratios, bar=NOTHING_LOST, better="higher", note=note)
    ratios = [(1 - policy / plain) / (1 - macs) for plain, policy, _, macs in turns]
    name = f"batches: {network}, {batch} at once, {share:.0%} leave, time saved / MACs saved"
    fewer = median(rest / plain for plain, _, rest, _ in turns)
    note += f"; {turns[0][3]:.0%} of the plain network's MACs; the {1 - share:.0%} that stay take "
    note += f"{fewer:.0%} of its time by themselves"
    return middle(name, ratios, bar=ARRIVES, better="higher", note=note)


def network(case: Case) -> tuple[ExitNetwork, tuple[int, ...]]:
    """Of a case, with pooled heads, in eval mode; the shape of an image."""
    backbone, pixels, options = case
    shape = (3, pixels, pixels)
    return build(NetSpec(backbone, options, head=POOLED), shape, classes=10, seed=0).eval(), shape


def pair(case: Case) -> Callable[[int, float], Times]:
    """For a contender: a turn with so many images at once, of which a share leaves."""
    keep_freed_memory()
    torch.set_num_threads(THREADS)
    net, shape = network(case)
    net = net.to(memory_format=torch.channels_last)
    last = net.exits - 1
    exits = tuple(range(1, net.exits + 1))
    predictor = Predictor(net, Policy("confidence", exits, (*(NEVER,) * last, None)))
    whole = ExitNetwork(inside(net).for_inference)  # as soon as the predictor

    def turn(batch: int, share: float) -> Times:
        images = torch.randn(batch, *shape).contiguous(memory_format=torch.channels_last)
        places = torch.arange(batch)
        leaves = ((places + 1) * share).floor() > (places * share).floor()  # spread over the batch
        forced = torch.where(leaves, 0, last)
        macs = float(predictor(images, forced).compute.mean())

        bare = partial(whole.backbone if share else net, images)
        rest = partial(whole.backbone, images[~leaves]) if share else partial(whole, images)
        bare, rest = torch.inference_mode()(bare), torch.inference_mode()(rest)
        times = one_by_one(bare, partial(predictor, images, forced), rest, calls=calls(images))
        return *times, macs

    return turn


def bundle_pair(case: Case) -> Callable[[int, float], Times]:
    """For a contender: the same of bundles; where images leave is a threshold that so many reach."""
    import offramp
    from offramp.bundle.runtime import Bundle
    from offramp.infer.bundle_timing import with_shares

    net, shape = network(case)
    noise = torch.randint(0, 256, (300, *shape), dtype=torch.uint8), torch.arange(300) % 10
    fitted = offramp.fit(net, "joint", train=noise, recipe={"epochs": 1}, watch=False)
    exits = tuple(range(1, net.exits + 1))
    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
        folders = {}
        for name, threshold in (("plain", None), ("every", 1.0)):
            policy = offramp.Policy("confidence", exits, (*(threshold,) * (net.exits - 1), None))
            folders[name] = Path(scratch, name)
            fitted.export(folders[name], policy, check=False, measure=False, anyway=True)
        (whole,) = Bundle(folders["plain"], threads=THREADS).stages
        every = Bundle(folders["every"], threads=THREADS)

    def turn(batch: int, share: float) -> Times:
        images = torch.randn(batch, *shape).numpy()
        shares = (share, *(0.0,) * (net.exits - 2), 1 - share)
        policy: Any = with_shares(every, shares, images)
        macs = float(policy.run(images).compute.mean())
        bare = partial(whole.run, [images]) if share else partial(every.all_exits, images)
        rest = partial(whole.run, [images[: round(batch * (1 - share))]]) if share else bare
        return *one_by_one(bare, partial(policy.run, images), rest, calls=calls(images)), macs

    return turn


def calls(images: Any) -> int:
    """So many of a batch [B, C, H, W] come to some `PIXELS`."""
    return max(3, PIXELS // int(len(images) * images.shape[-1] ** 2))


def one_by_one(
    plain: Callable[[], Any], policy: Callable[[], Any], rest: Callable[[], Any], calls: int
) -> tuple[float, float, float]:
    """Seconds of each over so many calls, after one that does not count. A service runs one network, so
    each runs alone: calls by turns would read its weights from memory anew each time."""

    def seconds(call: Callable[[], Any]) -> float:
        call()
        began = time.perf_counter()
        for _ in range(calls):
            call()
        return time.perf_counter() - began

    return seconds(plain), seconds(policy), seconds(rest)
