"""What this machine reaches in nothing but multiplying, and in nothing but moving memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import torch
import torch.nn.functional as F

from offramp import device as devices

SIDE = 2048  # of the matrices
FAR, NEAR = 2**25, 2**19  # numbers in each of three arrays: 128 MiB, beyond any cache; 2 MiB


@dataclass(frozen=True)
class Peaks:
    """FLOP/s of a matrix product and of a dense convolution, in float32; bytes a second between the
    cores and memory, and between the cores and the cache that they share."""

    product: float
    convolution: float
    memory: float
    cache: float

    @property
    def arithmetic(self) -> float:
        """The higher of the two."""
        return max(self.product, self.convolution)


def peaks(device: torch.device, side: int = SIDE, far: int = FAR, near: int = NEAR) -> Peaks:
    """The best of a few tries each, with the settings that are in force."""
    with torch.no_grad():
        return Peaks(
            product(device, side), convolution(device), triad(device, far), triad(device, near, 50)
        )


def product(device: torch.device, side: int) -> float:
    """FLOP/s of a product of two square matrices."""
    a, b = torch.randn(2, side, side, device=device)
    out = torch.empty_like(a)
    return 2 * side**3 / _fastest(lambda: torch.mm(a, b, out=out), device, 4)


def convolution(device: torch.device, batch: int = 32, channels: int = 256, pixels: int = 14) -> float:
    """FLOP/s of a 3×3 convolution, channels-last; the image is wider by its border, so no factor is a
    zero of padding."""
    images = torch.randn(batch, channels, pixels + 2, pixels + 2, device=device)
    weight = torch.randn(channels, channels, 3, 3, device=device)
    images, weight = (t.contiguous(memory_format=torch.channels_last) for t in (images, weight))
    flops = 2 * batch * (channels * pixels * 3) ** 2
    return flops / _fastest(lambda: F.conv2d(images, weight), device, 6)


def triad(device: torch.device, numbers: int, repeats: int = 1) -> float:
    """Bytes a second of `a = b + s · c` (McCalpin's STREAM): two arrays read, one written."""
    a, b, c = torch.ones(3, numbers, device=device)

    def run() -> None:
        for _ in range(repeats):
            torch.add(b, c, alpha=3.0, out=a)

    return 3 * a.nbytes * repeats / _fastest(run, device, 5)


def _fastest(run: Callable[[], object], device: torch.device, tries: int) -> float:
    """Seconds of the fastest of `tries`, after one that does not count."""
    times = []
    for _ in range(tries + 1):
        devices.synchronize(device)
        began = perf_counter()
        run()
        devices.synchronize(device)
        times.append(perf_counter() - began)
    return min(times[1:])
