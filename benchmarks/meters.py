"""What sampling costs beside training: python benchmarks/meters.py

A joint training step of ResNet-18 is timed with a meter running and without one, in turns, and a single
reading by itself. Bar: sampling takes less than 1 % of training time.
"""

from __future__ import annotations

import platform
import statistics
import time

import torch
import torch.nn.functional as F

from offramp.meters import Meter, Missing, find_packages
from offramp.nets import NetSpec, build

ROUNDS, STEPS = 8, 30


def main() -> None:
    net = build(NetSpec("resnet18"), (3, 32, 32), 10, seed=0).train()
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)
    images = torch.randn(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (128,))

    def steps() -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            optimizer.zero_grad()
            sum(F.cross_entropy(logits, labels) for logits in net(images)).backward()
            optimizer.step()
        return time.perf_counter() - began

    steps()
    ratios = []
    for _ in range(ROUNDS):
        plain = steps()
        with Meter(find_packages(), Missing("not here")):
            ratios.append(steps() / plain)
    meter = Meter(find_packages(), Missing("not here"))
    began = time.perf_counter()
    for _ in range(200):
        meter.sample()
    reading = (time.perf_counter() - began) / 200
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"training with a meter / without: {middle:.4f} ({low:.4f} to {high:.4f})")
    print(f"one reading: {reading * 1e3:.2f} ms, {reading:.2%} of the second between two")
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
