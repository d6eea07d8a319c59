"""`offramp serve` under load: a policy against the plain network, behind the same server.

Two bundles of one network: one whose images all go to the end without early heads, and one whose
thresholds save 40 % of the multiply-adds. Every answer is held against the bundle's own; a lost or mixed
up one ends the measurement. Clients run on the same cores.

*Closed*: 1, 16 or 64 clients, each of which asks again as soon as it is answered. Both servers run
throughout and are asked in turns; the ratio is that of a round. Of two ResNet-18 at 32 px: one with the
medium stem, as the committed network to deploy, and one with ImageNet's, whose compute is little beside
what HTTP takes.

*Open*, ImageNet's stem: requests come at random (Poisson), whatever the server does, and their time
counts from when they should have come.
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.contest import Result, against, in_turns
from offramp.bundle.runtime import Bundle

LOADS = (0.25, 0.5, 0.75)  # of what the plain network can answer; beyond, a server refuses connections
CONNECTIONS = 64
CLIENTS = (1, 16, 64)
SAVING = 0.4  # of the plain network's multiply-adds
SECOND = 0.5  # share of those that reach the second exit which leave there
FASTER, NO_LATER = 1.4, 1.0  # what the policy's server must reach, with the medium stem
IMAGES = 200
STEMS = ("medium", "ImageNet's")


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
    for stem in STEMS:
        with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
            bundles, images = bundles_and_images(Path(scratch), stem)
            rounds, each = (3, 2.0) if quick else (7, 5.0)
            yield from closed(stem, bundles, images, rounds, each)
            if stem == STEMS[-1]:
                yield from opened(bundles, images, seconds)


def closed(
    stem: str, bundles: dict[str, Path], images: Sequence[bytes], rounds: int, seconds: float
) -> Iterator[Result]:
    """Both servers in turns, each with so many clients that ask again once they are answered."""
    with ExitStack() as stack:
        ports = {name: stack.enter_context(serving(folder)) for name, folder in bundles.items()}
        for clients in CLIENTS:
            turns = {
                name: partial(turn, port, images, bundles[name], clients, seconds)
                for name, port in ports.items()
            }
            in_turns(turns, 1)
            loads = in_turns(turns, rounds)
            each = [
                f"{name} {median(load.answered for load in of):.0f} a second, "
                f"p95 {median(load.quantile(0.95) for load in of):.1f} ms"
                for name, of in loads.items()
            ]
            note = f"{', '.join(each)}; {rounds} rounds of {seconds:g} s"
            kind = f"serve: {stem} stem, {clients} client{'s' if clients > 1 else ''}, policy / plain"
            policy, plain = loads["policy"], loads["plain"]
            bars = stem == STEMS[0] and clients > 1
            yield against(
                f"{kind}, answers a second",
                [load.answered for load in policy],
                [load.answered for load in plain],
                bar=FASTER if bars else None,
                better="higher",
                note=note,
            )
            yield against(
                f"{kind}, p95",
                [load.quantile(0.95) for load in policy],
                [load.quantile(0.95) for load in plain],
                bar=NO_LATER if bars else None,
            )


def turn(port: int, images: Sequence[bytes], folder: Path, clients: int, seconds: float) -> Load:
    return asyncio.run(saturated(port, images, folder, clients, seconds))


def opened(bundles: dict[str, Path], images: Sequence[bytes], seconds: float) -> Iterator[Result]:
    """Each server at shares of what the plain network's can answer."""
    with serving(bundles["plain"]) as port:
        most = turn(port, images, bundles["plain"], CONNECTIONS, seconds).answered
    for share in LOADS:
        loads = {}
        for name, folder in bundles.items():
            with serving(folder) as port:
                loads[name] = asyncio.run(load(port, images, folder, share * most, seconds))
        plain, policy = loads["plain"], loads["policy"]
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


def bundles_and_images(folder: Path, stem: str) -> tuple[dict[str, Path], list[bytes]]:
    """The two bundles, and images as PNG."""
    import torch
    from torch import nn
    from torchvision.models import resnet18

    import offramp

    chance = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (600, 3, 32, 32), generator=chance, dtype=torch.uint8)
    labels = torch.arange(600) % 10
    module = resnet18(num_classes=10)
    if stem == STEMS[0]:
        module.conv1, module.maxpool = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.Identity()
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
    """Thresholds by which these images save `SAVING`."""
    from offramp.policy import scoring

    first, second, last = (bundle.compute(at) for at in range(3))
    later = SECOND * second + (1 - SECOND) * last
    shares = ((later - (1 - SAVING)) / (later - first), SECOND)
    logits = bundle.all_exits(bundle.pixels([Image.open(io.BytesIO(each)) for each in images]))
    inside, crops = np.arange(len(images)), []
    for at, share in enumerate(shares):
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


async def saturated(
    port: int, images: Sequence[bytes], folder: Path, clients: int, seconds: float
) -> Load:
    """So many clients, each of which asks again as soon as it is answered."""
    client = Client(port, images, folder)
    spent: list[float] = []
    began = time.perf_counter()

    async def ask() -> None:
        while (start := time.perf_counter()) < began + seconds:
            await client.ask(random.randrange(len(images)))
            spent.append(time.perf_counter() - start)

    await asyncio.gather(*(ask() for _ in range(clients)))
    whole = time.perf_counter() - began
    client.close()
    return Load(len(spent) / whole, tuple(sorted(spent)), len(spent) / whole)


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


@cache
def expected(folder: Path, images: tuple[bytes, ...]) -> list[tuple[str, int, float]]:
    """Of each image the class, the exit and the confidence, by the bundle itself."""
    answers = Bundle(folder, threads=1).predict([Image.open(io.BytesIO(each)) for each in images])
    return list(zip(answers.labels, answers.exits.tolist(), answers.confidence.tolist(), strict=True))


class Client:
    """HTTP/1.1 on kept connections, which checks every answer."""

    def __init__(self, port: int, images: Sequence[bytes], folder: Path) -> None:
        self._port, self._images = port, images
        self._expected = expected(folder, tuple(images))
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
