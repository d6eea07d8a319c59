"""What the predictor adds to a network for a single image that goes all the way.

Contenders are the network called for the answers of all its exits, the predictor with thresholds that no
image reaches, so that the score of every exit is computed, and the parts that the predictor runs, called
as the network. They answer in turns, image by image, in one process; the ratio is the bare call's time
over the predictor's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import torch

from benchmarks.contest import BARE, Result, contender, middle
from offramp.infer.predictor import Predictor
from offramp.nets import ExitNetwork, NetSpec, build
from offramp.nets.network import inside
from offramp.policy.policy import Policy
from offramp.process import keep_freed_memory

CASES = (("resnet50", 32), ("resnet18", 32), ("mobilenetv2", 32), ("mobilenetv2", 224))
THREADS = 2  # as many as the machine of the numbers in docs has cores
WARM_UP = 20  # images
NEVER = 1.0  # a confidence that random weights do not reach


def measure(quick: bool) -> Iterator[Result]:
    rounds, images = (3, 40) if quick else (9, 200)
    for backbone, pixels in CASES:
        with contender(pair, BARE, backbone=backbone, pixels=pixels) as ask:
            turns = [ask(images) for _ in range(rounds)]
        bare, policy, parts = (1000 * median(each) for each in zip(*turns, strict=True))
        note = (
            f"bare {bare:.2f} ms, predictor {policy:.2f} ms, its parts without a policy {parts:.2f} ms"
        )
        yield middle(
            f"one image, nothing leaves: {backbone} {pixels} px",
            [b / t for b, t, _ in turns],
            bar=0.97,
            better="higher",
            note=f"{note}; {rounds} turns of {images} images",
        )


def pair(backbone: str, pixels: int) -> Callable[[int], tuple[float, ...]]:
    """For a contender: median seconds of an image, of the bare network, the predictor and its parts."""
    keep_freed_memory()
    torch.set_num_threads(THREADS)
    shape = (3, pixels, pixels)
    net = build(NetSpec(backbone), shape, classes=10, seed=0).eval()
    net = net.to(memory_format=torch.channels_last)
    exits = tuple(range(1, net.exits + 1))
    predictor = Predictor(net, Policy("confidence", exits, (*(NEVER,) * (net.exits - 1), None)))
    image = torch.randn(1, *shape).contiguous(memory_format=torch.channels_last)
    parts = ExitNetwork(inside(net).for_inference)
    called, whole = (torch.inference_mode()(partial(each, image)) for each in (net, parts))
    ways = called, partial(predictor, image), whole
    for way in WARM_UP * ways:
        way()
    assert int(predictor(image).exits) == net.exits

    def turn(images: int) -> tuple[float, ...]:
        seconds: list[list[float]] = [[] for _ in ways]
        for at in range(len(ways) * images):
            which = (at + at // len(ways)) % len(ways)  # each begins in turn
            began = time.perf_counter()
            ways[which]()
            seconds[which].append(time.perf_counter() - began)
        return tuple(map(median, seconds))

    return turn
