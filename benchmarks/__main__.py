"""Run the benchmarks: python -m benchmarks [PART …] [--quick]

Each part is a module beside this file with `measure(quick)`, which yields results as it has them.
What a run found replaces lines of the same name in results.json; results.md is the same as a table, and
`--page` makes docs/performance.md and the table of runtimes in docs/deployment.md of it.
Ratios are of one run on one machine, contenders in turns, medians. Let nothing else run beside it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import page
from benchmarks.contest import BUSY, Result
from offramp.files import replacing
from offramp.meters.capacity import busy_cores

HERE = Path(__file__).parent
PARTS = {
    "commands": "commands from a cold start, and on a store of 1,008 trials",
    "step": "a joint training step against loops written by hand",
    "frozen": "phases on a frozen trunk against careful loops and earlyon",
    "study": "all nine strategies against as written",
    "slowdown": "the last epoch against the second, alone and beside other work",
    "memory": "peak memory against its limit and what is free; memory and time against images",
    "python": "calls from Python against the command, in processor seconds",
    "one_image": "one image: the predictor, when nothing leaves, against a bare forward pass",
    "batches": "batches: what early exits save in MACs against what they save in time",
}
QUICK_MINUTES = {
    "commands": 0.7,
    "step": 2.6,
    "slowdown": 2,
    "python": 2.2,
    "one_image": 0.4,
    "batches": 1.8,
}
"""Parts of --quick, and about how long each takes on two quiet cores; in all under ten minutes."""
ON_REQUEST = {
    "peak_share": "how near a training step comes to the machine's peak",
    "workers": "two trials: one after another or at once with fewer threads",
    "object_store": "a store in an object store against a folder: a node put and got, 10,000 listed",
    "machines": "the paper's studies on 1 to 256 machines, by the cost model",
    "ranks": "one training on two ranks of one thread against one of two threads",
    "cluster": "a driver's part of a phase; two machines of one core against --workers 2",
    "runtimes": "a bundle in each runtime that is installed: bytes, agreement, time of each stage",
    "serve": "offramp serve under load: a policy against the plain network, throughput and latency",
    "omp_spinning": "how long OpenMP's threads should spin, alone and beside other work",
    "ablation": "each optimization off alone",
    "optimizer": "the fused optimizer against the plain one, in one process",
}
EVERY = PARTS | ON_REQUEST
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listing = "\n".join(f"  {name:12} {what}" for name, what in EVERY.items())
    parser.epilog = (
        f"parts (all, with --quick {', '.join(QUICK_MINUTES)}, unless some are named):\n{listing}"
    )
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json and results.md")
    parser.add_argument(
        "--page",
        action="store_true",
        help="write docs/performance.md, and a table of docs/deployment.md",
    )
    options = parser.parse_args()
    if options.page:
        page.write()
        return
    for name in options.parts:
        if name not in EVERY:
            parser.error(f"unknown part '{name}'; parts are {', '.join(EVERY)}")
    path = options.out / ("results-quick.json" if options.quick else "results.json")
    if busy_cores() > BUSY:
        print(f"Others use {busy_cores():.1f} cores of this machine: its times are not to be trusted.")
    parts = options.parts or list(QUICK_MINUTES if options.quick else EVERY)
    if options.quick and (known := [QUICK_MINUTES[part] for part in parts if part in QUICK_MINUTES]):
        print(f"{len(parts)} parts, about {sum(known):g} minutes on two quiet cores")
    start = time.monotonic()
    for number, part in enumerate(parts, start=1):
        began = time.monotonic()
        say(f"{part}: {EVERY[part]}")
        for result in importlib.import_module(f"benchmarks.{part}").measure(options.quick):
            keep(path, result)
        took, all_of_it = ((time.monotonic() - since) / 60 for since in (began, start))
        say(f"{part} took {took:.1f} min; {number} of {len(parts)} parts in {all_of_it:.1f} min")
    print(path.with_suffix(".md").read_text())


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def keep(path: Path, result: Result) -> None:
    """Say a result, and write it at once: an interrupted run loses only what it was measuring."""
    rows: list[Row] = json.loads(path.read_text()) if path.exists() else []
    spread = list(result.spread or (result.ratio, result.ratio))
    row = {**asdict(result), "spread": spread, "holds": result.holds}
    say(line(row))
    named = {other["name"]: other for other in rows} | {result.name: row}
    write(path, list(named.values()))


def write(path: Path, rows: Sequence[Row]) -> None:
    """Rows as JSON, and as a table beside it."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(rows, indent=1) + "\n")
    machines = list(dict.fromkeys(row["machine"] for row in rows))
    head = ["| what | ratio | spread | bar | holds | |", "|---|--:|--:|--:|---|---|"]
    with replacing(path.with_suffix(".md")) as temporary:
        temporary.write_text("\n".join([*head, *map(line, rows), "", *machines]) + "\n")


def line(row: Row) -> str:
    low, high = row["spread"]
    bar = "" if row["bar"] is None else f"{'≥' if row['better'] == 'higher' else '≤'} {row['bar']:g}"
    holds = {True: "yes", False: "**no**", None: ""}[row["holds"]]
    values = f"{row['ratio']:.3g} | {low:.3g} to {high:.3g}"
    return f"| {row['name']} | {values} | {bar} | {holds} | {row['note']} |"


if __name__ == "__main__":
    main()
