"""How many images a second the two loaders give, beside what they are held to.

Resident: batches of 128 of 50,000 color images of 32 px, gathered, normalized and laid out for
training, as they are and with crop and flip. It is held to 100,000 images a second on two cores, as they
are.

Streaming: JPEG files of 500×375 px; random boxes of 224 px, flips, normalized; against as many processes
that decode and transform the same images and keep them to themselves. It is held to 90 % of that. Where
the machine is busy, the processor time of an image, of all processes together, still tells what handing
images over costs.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
import psutil
import torch
from PIL import Image

from benchmarks.contest import AS_COMMAND, Contender, Result, Say, against, in_turns
from benchmarks.subjects import noise
from offramp.augment import Augment, View
from offramp.data import Data, DataSpec, load, order
from offramp.data.dataset import Split
from offramp.engine.images import Images
from offramp.process import keep_freed_memory

BATCH, REPEATS = 128, 5
BOXES = Augment(flip=True, resized_crop=(0.08, 1.0))
CPU = torch.device("cpu")
Pace = tuple[float, float]
"""Images a second, and milliseconds of processor time an image."""


def measure(quick: bool, say: Say) -> Iterator[Result]:
    workers, images = min(2, os.cpu_count() or 1), 500 if quick else 1500
    with Contender(resident, AS_COMMAND, seconds=1.0 if quick else 3.0) as ask:
        for name, augment, bar in (
            ("", None, 100_000.0),
            (" with crop and flip", Augment(flip=True, crop=4), None),
        ):
            speed = ask(augment)
            yield Result(f"loaders: resident{name}, images a second", speed, bar, better="higher")
    with tempfile.TemporaryDirectory() as folder:
        changes = {**AS_COMMAND, "XDG_CACHE_HOME": f"{folder}/cache"}
        given = {"root": Path(folder) / "photos", "count": images, "workers": workers}
        with Contender(streaming, changes, **given) as ask:
            found: dict[str, list[Pace]] = in_turns(
                {n: partial(ask, n) for n in ("bare", "handed")}, REPEATS
            )
    speeds, times = (
        {name: [pace[at] for pace in each] for name, each in found.items()} for at in (0, 1)
    )
    note = (
        f"{median(speeds['handed']):,.0f} images a second with {workers} workers; processor time of one "
    )
    note += f"{median(times['handed']):.2f} ms against {median(times['bare']):.2f}"
    say(f"  {note}")
    name = "loaders: streaming / the same work without handing over"
    yield against(name, speeds["handed"], speeds["bare"], bar=0.9, better="higher", note=note)


def resident(seconds: float) -> Callable[[Augment | None], float]:
    """For a contender: images a second, over so many seconds."""
    keep_freed_memory()
    torch.set_num_threads(2)

    def ask(augment: Augment | None) -> float:
        train, rest = Split(*noise(50_000)), Split(*noise(100))
        half, classes = (0.5, 0.5, 0.5), tuple(map(str, range(10)))
        data = Data("noise", classes, train, rest, rest, rest, half, half, {}, augment)
        images, chunks = Images(data, CPU), torch.split(order(1, 0, 50_000), BATCH)
        view = None if augment is None else View(1, 0)
        for _ in images.reads("train", chunks[:20], view):
            pass
        count, began = 0, perf_counter()
        while perf_counter() - began < seconds:
            count += sum(len(batch) for batch in images.reads("train", chunks, view))
        return count / (perf_counter() - began)

    return ask


def streaming(root: Path, count: int, workers: int) -> Callable[[str], Pace]:
    """For a contender: the pace of an epoch, handed over or bare."""
    keep_freed_memory()
    torch.set_num_threads(2)
    data = photographs(root, count)
    return lambda name: (handed if name == "handed" else bare)(data, workers)


def photographs(root: Path, count: int) -> Data:
    generator = np.random.default_rng(1)
    for split, images in (("train", count), ("test", 40)):
        for number in range(images):
            place = root / split / "ab"[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            small = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            big = Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC)
            grain = generator.integers(-12, 13, (375, 500, 3))
            pixels = np.clip(np.asarray(big).astype(int) + grain, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.jpg", quality=90)
    return load(DataSpec("folder", str(root), size=224), BOXES, "streaming")


def handed(data: Data, workers: int) -> Pace:
    """By the loader, of this process and its workers."""
    images = Images(data, CPU, workers)
    chunks = torch.split(order(1, 0, len(data.train)), BATCH)
    for _ in images.reads("train", chunks[: 2 * workers], View(1, 0)):
        pass  # the processes are there now
    spent, began = _spent(), perf_counter()
    for _ in images.reads("train", chunks, View(1, 1)):
        pass
    took, spent = perf_counter() - began, _spent() - spent
    images.close()
    return len(data.train) / took, 1000 * spent / len(data.train)


def _spent() -> float:
    times = [child.cpu_times() for child in psutil.Process().children()]
    return process_time() + sum(one.user + one.system for one in times)


def bare(data: Data, workers: int) -> Pace:
    """The same work, divided over the workers beforehand, in any order, and sent nowhere."""
    shares = order(1, 0, len(data.train)).tensor_split(workers)
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(_make, [data] * workers, [share[:4] for share in shares]))
        began = perf_counter()
        spent = sum(pool.map(_make, [data] * workers, shares))
        took = perf_counter() - began
    return len(data.train) / took, 1000 * spent / len(data.train)


def _make(data: Data, rows: torch.Tensor) -> float:
    """The seconds of processor time that it took."""
    began = process_time()
    images = Images(data, CPU)
    for chunk in torch.split(rows, BATCH):
        images.read("train", chunk, View(1, 1))
    return process_time() - began
