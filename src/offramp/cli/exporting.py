"""`offramp export`: from a trial and a policy to a bundle."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import typer

from offramp.bundle.export import Asked, Exported, export
from offramp.cli.render import emit, show, table
from offramp.store.store import Store
from offramp.units import macs, size

T = TypeVar("T")


def start(
    store: Store, prefix: str, policy: Path, out: Path, asked: Asked, as_json: bool, quiet: bool
) -> None:
    done = told(export(store, prefix, policy, out, asked), quiet or as_json)
    if as_json:
        emit({"bundle": str(done.folder), "card": done.card})
    else:
        describe(done)


def told(steps: Generator[str, None, T], quiet: bool) -> T:
    """Run to the end, each step a line on standard error."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            found: T = end.value
            return found
        if not quiet:
            typer.echo(f"{step} …", err=True)


def describe(done: Exported) -> None:
    """What the bundle is, in a table and a few lines."""
    made = done.card
    listing = table(["exit"], ["threshold", "leave", "accuracy", "MACs"])
    for exit in made["exits"]:
        listing.add_row(
            str(exit["exit"]) + ("" if exit["in_bundle"] else " (left out)"),
            "–" if exit["threshold"] is None else f"{exit['threshold']:.4g}",
            f"{100 * exit['share_leaving']:.1f} %",
            f"{100 * exit['accuracy']:.1f} %",
            "–" if exit["macs"] is None else macs(exit["macs"]),
        )
    used = sum(file.stat().st_size for file in done.folder.rglob("*") if file.is_file())
    show(listing, f"{made['trial']} in {done.folder}, {size(used)}")
    for line in _lines(made):
        typer.echo(line)
    typer.echo(f"Run it, without torch: python {done.folder}/run.py IMAGES")


def _lines(made: dict[str, Any]) -> list[str]:
    test, check, latency = made["test"], made["check"], made["latency"]
    lines = [
        f"Test: {100 * test['accuracy']['value']:.2f} % at "
        f"{100 * test['mean_macs'] / made['plain_macs']:.1f} % of the plain network's MACs; the full "
        f"network {100 * test['full_accuracy']['value']:.2f} %.",
        "Check: left out."
        if check is None
        else f"Check: {check['images']:,} images ({check['what']}), logits within "
        f"{check['largest']:.1e} of PyTorch's, {check['near']} at a threshold.",
    ]
    if "reason" in latency:
        lines.append(f"Time: not measured ({latency['reason']}).")
    else:
        lines.append(
            f"Time: {latency['mean_milliseconds_batch_1']:.2f} ms an image, one at a time, on average."
        )
    return lines
