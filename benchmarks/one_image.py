"""What the predictor adds to a network for a single image that goes all the way.

Contenders are the network called for the answers of all its exits, and the predictor with thresholds
that no image reaches, so that the score of every exit is computed. They answer in turns, image by image,
in one process; the ratio is the bare call's time over the predictor's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

import torch

from benchmarks.contest import BARE, Result, contender, middle
from offramp.infer.predictor import Predictor
from offramp.nets import NetSpec, build
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
        bare, bundle = (1000 * median(each) for each in zip(*turns, strict=True))
        note = f"bare {bare:.2f} ms, predictor {bundle:.2f} ms; {rounds} turns of {images} images"
        yield middle(
            f"one image, nothing leaves: {backbone} {pixels} px",
            [b / t for b, t in turns],
            bar=0.97,
            better="higher",
            note=note,
        )


def pair(backbone: str, pixels: int) -> Callable[[int], tuple[float, float]]:
    """For a contender: median seconds of an image, of the bare network and of the predictor."""
    keep_freed_memory()
    torch.set_num_threads(THREADS)
    shape = (3, pixels, pixels)
    net = build(NetSpec(backbone), shape, classes=10, seed=0).eval()
    net = net.to(memory_format=torch.channels_last)
    exits = tuple(range(1, net.exits + 1))
    predictor = Predictor(net, Policy("confidence", exits, (*(NEVER,) * (net.exits - 1), None)))
    image = torch.randn(1, *shape).contiguous(memory_format=torch.channels_last)
    ways = (torch.inference_mode()(partial(net, image)), partial(predictor, image))
    for way in WARM_UP * ways:
        way()
    assert int(predictor(image).exits) == net.exits

    def turn(images: int) -> tuple[float, float]:
        seconds: tuple[list[float], list[float]] = [], []
        for at in range(2 * images):
            which = (at + at // 2) % 2  # each begins every other pair
            began = time.perf_counter()
            ways[which]()
            seconds[which].append(time.perf_counter() - began)
        return median(seconds[0]), median(seconds[1])

    return turn
