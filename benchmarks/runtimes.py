"""A bundle in every runtime that is installed here: bytes, agreement, and the time of each stage.

A ResNet-18 with torchvision's stem and two early exits, trained a little on CIFAR-10, whose thresholds
let 60 % leave at the first exit and half of the others at the second. Its export compares each runtime
with PyTorch on 1,000 test images, and ends where one answers otherwise. Stages are timed by `run.py
--measure` on one thread, runtimes in turns, each in a process of its own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contest import Result, against
from benchmarks.subjects import cifar10

FIRST = "onnxruntime"
IMAGES = 1000
SHARES = (0.6, 0.5)  # of those that reach an exit
NOTE = re.compile(  # of `noted`
    r"([\d,]+) bytes; ms of each stage: ([\d., ]+); logits within (\S+) of PyTorch's; "
    r"(\d+ of [\d,]+) images otherwise, each a tie"
)
BYTES = "runtimes: {}, bytes against onnxruntime"


def measure(quick: bool) -> Iterator[Result]:
    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
        card = bundle(Path(scratch) / "bundle", installed(), 1000 if quick else 5000)
        rounds = [
            {
                row["runtime"]: stages(Path(scratch) / "bundle", row["runtime"])
                for row in card["runtimes"]
            }
            for _ in range(2 if quick else 7)
        ]
    least = card["runtimes"][0]["bytes"]
    for row in card["runtimes"]:
        yield Result(BYTES.format(row["runtime"]), row["bytes"] / least, note=noted(row, rounds))
    sums = {name: [sum(each[name]) for each in rounds] for name in rounds[0]}
    for name in sums:
        if name != FIRST:
            yield against(f"runtimes: {name}, all stages against {FIRST}, time", sums[name], sums[FIRST])


def noted(row: Mapping[str, Any], rounds: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """What `table` reads."""
    size = f"{row['bytes']:,} bytes"
    columns = zip(*(each[row["runtime"]] for each in rounds), strict=True)
    spent = ", ".join(f"{median(column):.3f}" for column in columns)
    gap = f"logits within {row['largest']:.1e} of PyTorch's"
    ties = f"{row['near']} of {row['images']:,} images otherwise, each a tie"
    return f"{size}; ms of each stage: {spent}; {gap}; {ties}"


def installed() -> list[str]:
    from offramp.bundle.runtimes import RUNTIMES

    return [name for name, runtime in RUNTIMES.items() if not runtime.missing]


def bundle(folder: Path, names: Sequence[str], train_images: int) -> dict[str, Any]:
    """Write the bundle; its card."""
    import numpy as np
    from torchvision.models import resnet18

    import offramp
    from offramp.data import DataSpec, load
    from offramp.policy import scoring

    root = cifar10()
    if root is None:
        raise SystemExit("no CIFAR-10 in $OFFRAMP_DATA or in shared/data beside this repository")
    data = load(DataSpec("cifar10", str(root), train_images=train_images, test_images=IMAGES))
    module = resnet18(num_classes=10)
    net = offramp.attach(module, exits=["layer1", "layer2"], input_shape=(3, 32, 32))
    train, test = ((split.images, split.labels) for split in (data.train, data.test))
    fitted = offramp.fit(net, "joint", train=train, test=test, recipe={"epochs": 2})
    inside, thresholds = fitted.logits["calibration"], []
    for at, share in enumerate(SHARES):
        sure = scoring.score("confidence", inside[:, at])[0]
        thresholds.append(float(np.quantile(sure, 1 - share)))
        inside = inside[sure < thresholds[-1]]
    policy = offramp.Policy("confidence", (1, 2, 3), (*thresholds, None))
    return dict(fitted.export(folder, policy, runtime=names, measure=False, anyway=True).card)


def stages(folder: Path, name: str) -> list[float]:
    """Milliseconds of one image through all of each stage, the median of a run."""
    command = [sys.executable, "-B", folder / "run.py", "--measure", "--threads", "1"]
    command += [] if name == FIRST else ["--runtime", name]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()}")
    return [row["p50"] for row in json.loads(done.stdout)["stages"] if row["batch"] == 1]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of docs/deployment.md, of rows of results.json; empty without any."""
    begin, end = BYTES.split("{}")
    lines = []
    for row in rows:
        if not (row["name"].startswith(begin) and row["name"].endswith(end)):
            continue
        name = row["name"].removeprefix(begin).removesuffix(end)
        cells = NOTE.fullmatch(row["note"])
        assert cells is not None, row["note"]
        lines.append(f"| {' | '.join((name, *cells.groups()))} |")
    head = "| runtime | bytes | ms of each stage | logits differ from PyTorch's by | ties |"
    return "\n".join([head, "|---|--:|--:|--:|--:|", *lines]) if lines else ""
