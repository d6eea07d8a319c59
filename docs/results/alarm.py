"""When does a server notice that its images have changed? A bundle's watch, by a clock of its own:

    python docs/results/alarm.py BUNDLE PATH

PATH is the folder with the Parquet files of CIFAR-10. Its test images come at ten a second in random
order: 6,000 as they are, then as Pillow's GaussianBlur leaves them, for an hour at most; and then for a
day as they are. It prints when the alarm came and what it said, five times for each blur.
"""

from __future__ import annotations

import argparse
import io
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from offramp.bundle.runtime import Bundle, StageInput
from offramp.serve.batcher import Answer, answers
from offramp.serve.watch import Watch, WatchOptions, run_through

RATE, CALM, HOUR, DAY = (
    10,
    6_000,
    36_000,
    864_000,
)  # images a second, before the blur, in an hour, in a day
Served = tuple[Answer, tuple[int, bool]]  # an image's answer, and its run to the end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("path", type=Path)
    options = parser.parse_args()
    bundle = Bundle(options.bundle)
    (file,) = options.path.rglob("test-*.parquet")
    table = pd.read_parquet(file)
    images = [Image.open(io.BytesIO(cell["bytes"])).convert("RGB") for cell in table["img"]]
    labels = table["label"].to_numpy()
    sharp = served(bundle, images)
    print(f"as they are: {right(bundle, sharp, labels):.1f} % right")
    for radius in (0.5, 1, 2):
        blur = ImageFilter.GaussianBlur(radius)
        blurred = served(bundle, [image.filter(blur) for image in images])
        print(f"blur of radius {radius}: {right(bundle, blurred, labels):.1f} % right")
        for seed in range(5):
            print(f"  {noticed(bundle, sharp, blurred, seed)}")
    watch, lines = watched(bundle, 0)
    see(watch, sharp, DAY, np.random.default_rng(0))
    print(f"a day as they are: {len(lines)} alarms")


def served(bundle: Bundle, images: Sequence[Image.Image], batch: int = 500) -> list[Served]:
    """Each image's answer, as a server sees it."""
    every: dict[int, Answer] = {}
    for start in range(0, len(images), batch):
        pixels = bundle.pixels(images[start : start + batch])
        rows, group = np.arange(start, start + len(pixels)), StageInput({None: [pixels]})
        for at in range(len(bundle.stages)):
            left, staying, onward = bundle.step(at, group)
            if left is not None:
                every |= {int(rows[row]): each for row, each in answers(bundle, left, batch)}
            if onward is None:
                break
            rows, group = rows[staying], onward
    ends = [run_through(bundle, bundle.pixels([image])) for image in images]
    return [(every[at], end) for at, end in enumerate(ends)]


def right(bundle: Bundle, answered: Sequence[Served], labels: np.ndarray) -> float:
    hits = [each.label == bundle.name(label) for (each, _), label in zip(answered, labels, strict=True)]
    return 100 * float(np.mean(hits))


def watched(bundle: Bundle, seed: int) -> tuple[Watch, list[str]]:
    """A watch whose clock is its count of images, and the lines that it tells."""
    lines: list[str] = []
    watch = Watch(bundle, WatchOptions(), lambda: 0.0, random.Random(seed), lines.append)
    return watch, lines


def see(watch: Watch, images: Sequence[Served], count: int, chance: np.random.Generator) -> int:
    """Show a watch `count` images; of how many it had seen when it raised an alarm, else `count`."""
    for at, row in enumerate(chance.integers(len(images), size=count).tolist(), 1):
        answer, end = images[row]
        if watch.answered(replace(answer, id=str(at))):
            watch.ran(*end)
        if watch.alarm is not None:
            return at
    return count


def noticed(bundle: Bundle, sharp: Sequence[Served], blurred: Sequence[Served], seed: int) -> str:
    watch, lines = watched(bundle, seed)
    chance = np.random.default_rng(seed)
    see(watch, sharp, CALM, chance)
    if lines:
        return f"false: {lines[0]}"
    after = see(watch, blurred, HOUR, chance)
    return f"after {after / RATE:.0f} s: {lines[0]}" if lines else "not within an hour"


if __name__ == "__main__":
    main()
