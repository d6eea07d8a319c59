"""Run the benchmarks: python -m benchmarks [PART …] [--quick]

Each part is a module beside this file with `measure(quick, say)`, which yields results as it has them.
What a run found replaces lines of the same name in results.json; results.md is the same as a table.
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

from benchmarks.contest import BUSY, Result
from offramp.files import replacing
from offramp.meters.load import busy_cores

HERE = Path(__file__).parent
PARTS = {
    "start": "cold start of the command",
    "step": "a joint training step against loops written by hand",
    "frozen": "phases on a frozen trunk against careful loops and earlyon",
    "study": "all nine strategies against as written",
    "drift": "the last epoch against the second, alone and beside other work",
    "memory": "peak memory against the limit, and against what is free",
    "scale": "time and memory against images, exits, classes, trials",
}
ON_REQUEST = {
    "peak_share": "what bounds a training step",
    "workers": "two trials: one after another or at once with fewer threads",
    "spin": "how long OpenMP's threads should spin, alone and beside other work",
    "ablation": "each optimization off alone",
    "inference": "what leaving early saves, against what the stages promise",
    "loaders": "images a second, in memory and from files",
    "meters": "what sampling of memory and power costs beside training",
}
EVERY = PARTS | ON_REQUEST


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listing = "\n".join(f"  {name:12} {what}" for name, what in EVERY.items())
    parser.epilog = (
        f"parts (all, with --quick the first {len(PARTS)}, unless some are named):\n{listing}"
    )
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--quick", action="store_true", help="fewer images and repeats")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json and results.md")
    given = parser.parse_args()
    for name in given.parts:
        if name not in EVERY:
            parser.error(f"unknown part '{name}'; parts are {', '.join(EVERY)}")
    stem = "results-quick" if given.quick else "results"
    if busy_cores() > BUSY:
        print(f"Others use {busy_cores():.1f} cores of this machine: its times are not to be trusted.")
    for part in given.parts or (PARTS if given.quick else EVERY):
        began = time.monotonic()
        say(f"{part}: {EVERY[part]}")
        for result in importlib.import_module(f"benchmarks.{part}").measure(given.quick, say):
            say(f"  {line(result)}")
            keep(given.out, stem, result)
        say(f"{part} took {(time.monotonic() - began) / 60:.1f} min")
    print((given.out / f"{stem}.md").read_text())


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)


def line(result: Result) -> str:
    low, high = result.spread
    bar = "" if result.bar is None else f", bar {result.bar:g}: {'holds' if result.holds else 'NOT MET'}"
    return f"{result.name}: {result.ratio:.3g} ({low:.3g} to {high:.3g}){bar}"


def keep(folder: Path, stem: str, result: Result) -> None:
    """Put a result in the files at once: an interrupted run loses only what it was measuring."""
    path = folder / f"{stem}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    named = {row["name"]: row for row in rows}
    named[result.name] = {**asdict(result), "spread": list(result.spread)}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(list(named.values()), indent=1) + "\n")
    with replacing(folder / f"{stem}.md") as temporary:
        temporary.write_text(table(list(named.values())))


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["| what | ratio | spread | bar | holds | |", "|---|--:|--:|--:|---|---|"]
    for row in rows:
        low, high = row["spread"]
        sign = "≥" if row["better"] == "higher" else "≤"
        bar = "" if row["bar"] is None else f"{sign} {row['bar']:g}"
        holds = {True: "yes", False: "**no**", None: ""}[row["holds"]]
        values = f"{row['ratio']:.3g} | {low:.3g} to {high:.3g}"
        lines.append(f"| {row['name']} | {values} | {bar} | {holds} | {row['note']} |")
    machines = list(dict.fromkeys(row["machine"] for row in rows))
    return "\n".join([*lines, "", *machines]) + "\n"


if __name__ == "__main__":
    main()
