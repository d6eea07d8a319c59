"""`offramp serve` under load: the latency of the plain network and of the policy, by requests a second.

Two bundles of one ResNet-18 at 32 px: one whose images all go to the end without early heads, and one
whose thresholds let 60 % leave at the first exit and half of the others at the second. Each is served by
a process of its own, one after the other. Requests come at random (Poisson), whatever the server does,
and their time counts from when they should have come. Every answer is held against the bundle's own; a
lost or mixed up one ends the measurement.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.contest import Result
from offramp.bundle.runtime import Bundle

LOADS = (0.25, 0.5, 0.75, 1.0, 1.5)  # of what the plain network can answer
CONNECTIONS = 64
SHARES = (0.6, 0.5)  # of those that reach an exit
IMAGES = 200


@dataclass(frozen=True)
class Load:
    """rate: requests a second that were sent.  seconds: of each, sorted.  answered: a second."""

    rate: float
    seconds: tuple[float, ...]
    answered: float

    def quantile(self, share: float) -> float:
        """Milliseconds."""
        return 1000 * self.seconds[min(int(share * len(self.seconds)), len(self.seconds) - 1)]


def measure(quick: bool) -> Iterator[Result]:
    seconds = 3.0 if quick else 15.0
    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
        bundles, images = bundles_and_images(Path(scratch))
        loads: dict[str, list[Load]] = {name: [] for name in bundles}
        with serving(bundles["plain"]) as port:
            most = asyncio.run(saturated(port, images, bundles["plain"], seconds))
        for share in LOADS:
            for name, folder in bundles.items():
                with serving(folder) as port:
                    loads[name].append(asyncio.run(load(port, images, folder, share * most, seconds)))
    for at, share in enumerate(LOADS):
        plain, policy = loads["plain"][at], loads["policy"][at]
        each = [
            f"{name} {of.quantile(0.5):.1f} and {of.quantile(0.95):.1f} ms ({of.answered:.0f} answers)"
            for name, of in (("plain", plain), ("policy", policy))
        ]
        note = (
            f"{plain.rate:.0f} requests a second; p50 and p95: {', '.join(each)}; none lost or mixed up"
        )
        ratio = policy.quantile(0.95) / plain.quantile(0.95)
        yield Result(
            f"serve: p95 at {share:g} of the plain network's most, policy against it", ratio, note=note
        )


def bundles_and_images(folder: Path) -> tuple[dict[str, Path], list[bytes]]:
    """The two bundles, and images as PNG."""
    import torch
    from torchvision.models import resnet18

    import offramp

    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (600, 3, 32, 32), generator=chance, dtype=torch.uint8)
    labels = torch.arange(600) % 10
    module = resnet18(num_classes=10)
    net = offramp.attach(module, exits=["layer1", "layer2"], input_shape=(3, 32, 32))
    fitted = offramp.fit(net, "joint", train=(pixels, labels), recipe={"epochs": 1})
    images = [png(each) for each in pixels[:IMAGES].permute(0, 2, 3, 1).numpy()]
    options: dict[str, Any] = {"check": False, "measure": False, "anyway": True}
    never = offramp.Policy("confidence", (1, 2, 3), (None, None, None))
    fitted.export(folder / "plain", never, **options)
    every = offramp.Policy("confidence", (1, 2, 3), (1.0, 1.0, None))
    fitted.export(folder / "every", every, **options)
    thresholds = cut(Bundle(folder / "every", threads=1), images)
    fitted.export(folder / "policy", offramp.Policy("confidence", (1, 2, 3), thresholds), **options)
    return {"plain": folder / "plain", "policy": folder / "policy"}, images


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def cut(bundle: Bundle, images: Sequence[bytes]) -> tuple[float | None, ...]:
    """Thresholds by which `SHARES` of these images leave."""
    from offramp.policy import scoring

    logits = bundle.all_exits(bundle.pixels([Image.open(io.BytesIO(each)) for each in images]))
    inside, crops = np.arange(len(images)), []
    for at, share in enumerate(SHARES):
        sure = scoring.score("confidence", logits[inside, at])[0]
        crops.append(float(np.quantile(sure, 1 - share)))
        inside = inside[sure < crops[-1]]
    return (*crops, None)


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """The port of `offramp serve`, as a user starts it."""
    command = [sys.executable, "-m", "offramp", "serve", str(folder), "--port", "0", "--queue", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().rsplit(":", 1)[1].partition("/")[0])
    finally:
        process.terminate()
        process.wait()


async def saturated(port: int, images: Sequence[bytes], folder: Path, seconds: float) -> float:
    """Requests a second that are answered when there are always `CONNECTIONS` of them."""
    client = Client(port, images, folder)
    until = time.perf_counter() + seconds
    count = 0

    async def one() -> None:
        nonlocal count
        while time.perf_counter() < until:
            await client.ask(random.randrange(len(images)))
            count += 1

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    client.close()
    return count / seconds


async def load(port: int, images: Sequence[bytes], folder: Path, rate: float, seconds: float) -> Load:
    """Requests at random times, `rate` a second on average."""
    client, chance = Client(port, images, folder), random.Random(0)
    for at in range(CONNECTIONS):
        await client.ask(at)  # connections are there, the network is warm
    began, due = time.perf_counter(), 0.0
    tasks = []

    async def one(number: int, due: float) -> float:
        await client.ask(number)
        return time.perf_counter() - began - due

    while (due := due + chance.expovariate(rate)) < seconds:
        await asyncio.sleep(max(began + due - time.perf_counter(), 0))
        tasks.append(asyncio.create_task(one(chance.randrange(len(images)), due)))
    spent = await asyncio.gather(*tasks)
    whole = time.perf_counter() - began
    client.close()
    return Load(len(spent) / seconds, tuple(sorted(spent)), len(spent) / whole)


class Client:
    """HTTP/1.1 on kept connections, which checks every answer."""

    def __init__(self, port: int, images: Sequence[bytes], folder: Path) -> None:
        self._port, self._images = port, images
        answers = Bundle(folder, threads=1).predict([Image.open(io.BytesIO(each)) for each in images])
        exits, confidence = answers.exits.tolist(), answers.confidence
        self._expected = list(zip(answers.labels, exits, confidence, strict=True))
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, number: int) -> None:
        pair = self._free.pop() if self._free else await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = pair
        body = self._images[number]
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        except (asyncio.IncompleteReadError, ConnectionError):  # idle for so long that it was closed
            writer.close()
            self._free.clear()
            await self.ask(number)
            return
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        label, exit, sure = self._expected[number]
        same = (answer.get("class"), answer.get("exit")) == (label, exit)
        if not same or abs(answer["confidence"] - sure) > 1e-4:
            raise RuntimeError(
                f"image {number} was answered {answer}, not {label} at exit {exit}, {sure}"
            )
        self._free.append(pair)

    def close(self) -> None:
        for _, writer in self._free:
            writer.close()
