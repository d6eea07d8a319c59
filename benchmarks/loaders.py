"""How many images a second the two loaders give, beside what they are held to.

    python benchmarks/loaders.py [--images N] [--workers N] [--seconds S] [--json]

Resident: batches of 128 of 50,000 color images of 32 px, gathered, normalized and laid out for
training, as they are and with crop and flip. It is held to 100,000 images a second on two cores, as they
are.

Streaming: JPEG files of 500×375 px; random boxes of 224 px, flips, normalized; against as many processes
that decode and transform the same images and keep them to themselves. It is held to 90 % of that. Run it
on a machine that does nothing else; where it is busy, the processor time of an image, of all processes
together, still tells what handing images over costs.

Memory and waiting threads are set as the `offramp` command sets them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import perf_counter, process_time

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # read once, when torch is loaded

import numpy as np
import psutil
import torch
from PIL import Image

from offramp.allocator import keep_freed_memory
from offramp.augment import Augment, View
from offramp.data import Data, DataSpec, load, order
from offramp.data.dataset import Split
from offramp.engine.images import Images

BATCH = 128
REPEATS = 5
BOXES = Augment(flip=True, resized_crop=(0.08, 1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=2000, help="JPEG files of a streaming epoch")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--seconds", type=float, default=3.0, help="of each resident measurement")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(2)
    found: dict[str, float] = {
        "resident": resident(None, given.seconds),
        "resident_crop_flip": resident(Augment(flip=True, crop=4), given.seconds),
    }
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        data = photographs(Path(folder) / "photos", given.images)
        speeds, times = [], []
        for _ in range(REPEATS):  # in turns, so that a change of the machine's speed meets both
            found["bare"], found["bare_cpu_ms"] = bare(data, given.workers)
            found["streaming"], found["streaming_cpu_ms"] = streaming(data, given.workers)
            speeds.append(found["streaming"] / found["bare"])
            times.append(found["bare_cpu_ms"] / found["streaming_cpu_ms"])
    found["streaming_of_bare"] = statistics.median(speeds)
    found["streaming_of_bare_by_cpu"] = statistics.median(times)
    if given.json:
        print(json.dumps({name: round(value, 4) for name, value in found.items()}))
        return
    print(f"resident, 32 px:             {found['resident']:>10,.0f} images/s (held to 100,000)")
    print(f"  with crop and flip:        {found['resident_crop_flip']:>10,.0f} images/s")
    for name in ("bare", "streaming"):
        title = f"{name}, {given.workers} workers:"
        spent = f"{found[f'{name}_cpu_ms']:.2f} ms of processor time each"
        print(f"{title:28} {found[name]:>10,.0f} images/s, {spent}")
    whole, part = 100 * found["streaming_of_bare"], 100 * found["streaming_of_bare_by_cpu"]
    held = f"(held to 90); by processor time {part:.0f} %"
    print(f"  of bare, median of {REPEATS}:       {whole:>10.0f} % {held}")


def resident(augment: Augment | None, seconds: float) -> float:
    pixels = torch.randint(0, 256, (50_000, 3, 32, 32), dtype=torch.uint8)
    labels = torch.arange(50_000) % 10
    train, rest = Split(pixels, labels), Split(pixels[:100], labels[:100])
    half = (0.5, 0.5, 0.5)
    classes = tuple(map(str, range(10)))
    data = Data("noise", classes, train, rest, rest, rest, half, half, {}, augment)
    images = Images(data, torch.device("cpu"))
    rows = order(1, 0, 50_000)
    view = None if augment is None else View(1, 0)

    def passes() -> Iterator[torch.Tensor]:
        while True:
            yield from images.reads("train", torch.split(rows, BATCH), view)

    return speed(passes, seconds)


def speed(batches: Callable[[], Iterator[torch.Tensor]], seconds: float) -> float:
    count, began = 0, 0.0
    for number, batch in enumerate(batches()):
        if number == 20:
            count, began = 0, perf_counter()
        count += len(batch)
        if number > 20 and perf_counter() - began >= seconds:
            break
    return count / (perf_counter() - began)


def photographs(root: Path, count: int) -> Data:
    generator = np.random.default_rng(1)
    for split, images in (("train", count), ("test", 40)):
        for number in range(images):
            place = root / split / "ab"[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            small = generator.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            big = Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC)
            noise = generator.integers(-12, 13, (375, 500, 3))
            pixels = np.clip(np.asarray(big).astype(int) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{number}.jpg", quality=90)
    return load(DataSpec("folder", str(root), size=224), BOXES, "streaming")


def streaming(data: Data, workers: int) -> tuple[float, float]:
    """Images a second, and milliseconds of processor time an image, of this process and its workers."""
    images = Images(data, torch.device("cpu"), workers)
    chunks = torch.split(order(1, 0, len(data.train)), BATCH)
    for _ in images.reads("train", chunks[: 2 * workers], View(1, 0)):
        pass  # the processes are there now
    spent, began = _spent(), perf_counter()
    for _ in images.reads("train", chunks, View(1, 1)):
        pass
    took = perf_counter() - began
    spent = _spent() - spent
    images.close()
    return len(data.train) / took, 1000 * spent / len(data.train)


def _spent() -> float:
    times = [child.cpu_times() for child in psutil.Process().children()]
    return process_time() + sum(one.user + one.system for one in times)


def bare(data: Data, workers: int) -> tuple[float, float]:
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
    images = Images(data, torch.device("cpu"))
    for chunk in torch.split(rows, BATCH):
        images.read("train", chunk, View(1, 1))
    return process_time() - began


if __name__ == "__main__":
    main()
