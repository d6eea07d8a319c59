"""`offramp run` and `offramp train`: forecast, live progress, table."""

from __future__ import annotations

import json as jsonlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from offramp.cli import render
from offramp.cli.progress import Progress
from offramp.study.events import Event
from offramp.study.forecast import forecast
from offramp.study.plan import Plan, default_device, make_plan
from offramp.study.pool import run_pooled
from offramp.study.run import Conduct
from offramp.study.spec import Study
from offramp.study.store import Store
from offramp.study.summary import lines


def start(study: Study, root: Path, dry_run: bool, workers: int, as_json: bool, quiet: bool) -> None:
    """Plan and run a study; exits with 1 when something failed, 130 when interrupted."""
    plan = make_plan(study)
    store = Store(root)
    device = default_device()
    if dry_run:
        _show_forecast(forecast(plan, store, device), as_json)
        return
    threads = workers * plan.numerics.threads
    cores = os.cpu_count() or 1
    if workers > 1 and threads > cores:
        typer.echo(
            f"{workers} workers of {plan.numerics.threads} threads on {cores} cores slow each other "
            f"down; --workers {max(1, cores // plan.numerics.threads)} would be faster",
            err=True,
        )
    folder = Path(tempfile.gettempdir()) / f"offramp-cache-{os.getuid()}"
    conduct = Conduct(device=device, cache_folder=folder, workers=workers)
    progress = Progress(plan, live=not (quiet or as_json))
    interrupted = False
    try:
        _watch(run_pooled(plan, store, conduct), progress)
    except KeyboardInterrupt:
        interrupted = True
    _show_results(plan, store, progress, root, as_json)
    if interrupted:
        typer.echo("Interrupted; the same command goes on from here.", err=True)
        raise typer.Exit(130)
    if progress.failed:
        raise typer.Exit(1)


def _watch(events: Iterator[Event], progress: Progress) -> None:
    with progress:
        for event in events:
            progress.see(event)


def _show_results(plan: Plan, store: Store, progress: Progress, root: Path, as_json: bool) -> None:
    finished = [t.id for t in plan.trials if t.id in progress.trials]
    found = lines(store, finished)
    if as_json:
        answer = {
            "store": str(root),
            "trials": finished,
            "results": render.as_json(found),
            "failed": progress.failures(),
        }
        typer.echo(jsonlib.dumps(answer, indent=2))
        return
    screen = render.console()
    if found:
        for table in render.results(found, len(plan.study.seeds)):
            screen.print(table)
    typer.echo(progress.closing(str(root)))
    for failure in progress.failures():
        typer.echo(
            f"failed: {failure['strategy']}, seed {failure['seed']}: {failure['reason']}", err=True
        )


def _show_forecast(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(jsonlib.dumps(found, indent=2))
        return
    nodes = found["nodes"]
    seeds = sorted({node["seed"] for node in nodes})
    first = [node for node in nodes if node["seed"] == seeds[0]]
    listing = render.table(f"Nodes of seed {seeds[0]}" + (" (others alike)" if seeds[1:] else ""))
    for title in ("node", "phase", "loss", "MACs", "read by"):
        listing.add_column(title, justify="right" if title == "MACs" else "left")
    for node in first:
        mark = " ✓" if node["in_store"] else ""
        listing.add_row(
            node["key"][:8] + mark,
            node["phase"],
            node["loss"],
            render.macs(node["macs"]),
            ", ".join(dict.fromkeys(node["strategies"])),
        )
    render.console().print(listing)
    t = found["totals"]
    typer.echo(
        f"{t['trials']} trials of {t['phases']} phases are {t['nodes']} nodes, "
        f"{t['nodes_in_store']} of them in the store (✓).\n"
        f"Work: {render.macs(t['macs'])}MACs, {100 * t['share_of_written']:.0f} % of the "
        f"{render.macs(t['macs_written'])}MACs as written.\n"
        f"To run: {render.macs(t['macs_to_run'])}MACs, about {render.duration(t['seconds'])} here "
        f"at {render.macs(t['macs_per_second'])}MAC/s.\n"
        f"Disk: {render.bytes_(t['disk_bytes'])} in the store; caches up to "
        f"{render.bytes_(t['cache_bytes'])} a phase. Nothing was started."
    )
