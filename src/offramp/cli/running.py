"""`offramp run` and `offramp train`: forecast, live progress, table."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import typer

from offramp.cli import results
from offramp.cli.progress import Progress
from offramp.cli.render import counted, duration, emit, macs, show, size, table
from offramp.data.notes import notes
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
    store = Store(root)
    plan = make_plan(study)
    device = default_device()
    if not quiet and not as_json:
        if plan.net.initial is not None:
            typer.echo(f"Weights '{study.backbone.weights}': {plan.net.initial}.", err=True)
        for note in notes(plan.data.provenance):
            typer.echo(f"{plan.data.name}: {note}", err=True)
    if dry_run:
        show_forecast(forecast(plan, store, device), as_json)
        return
    if not quiet and not as_json:
        _advise(plan, workers)
    progress = Progress(plan, shown=not (quiet or as_json))
    interrupted = False
    try:
        watch(run_pooled(plan, store, here(workers)), progress)
    except KeyboardInterrupt:
        interrupted = True
    _show_results(plan, store, progress, root, as_json, interrupted)
    if interrupted:
        typer.echo("Interrupted. Run the same command again to go on; what is finished stays.", err=True)
        raise typer.Exit(130)
    if progress.failed:
        raise typer.Exit(1)


def here(workers: int) -> Conduct:
    """How work is done on this machine."""
    folder = Path(tempfile.gettempdir()) / f"offramp-cache-{os.getuid()}"
    return Conduct(device=default_device(), cache_folder=folder, workers=workers)


def _advise(plan: Plan, workers: int) -> None:
    """A line on standard error where another number of workers would suit the machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = plan.numerics.threads
    fitting = max(1, cores // threads)
    if workers > fitting:
        typer.echo(
            f"{workers} workers x {threads} threads slow each other on {counted(cores, 'core')}; "
            f"--workers {fitting} would be faster.",
            err=True,
        )
    elif workers < min(fitting, len(plan.trials)):
        more = min(fitting, len(plan.trials))
        typer.echo(f"{counted(cores, 'core')} here; --workers {more} would use more of them.", err=True)


def watch(events: Iterator[Event], progress: Progress) -> None:
    """Run to the end, or until interrupted, and show it."""
    with _interruptible(), closing(events), progress:  # type: ignore[type-var]  # a generator
        for event in events:
            progress.see(event)


@contextmanager
def _interruptible() -> Iterator[None]:
    """`kill` ends a run as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_results(
    plan: Plan, store: Store, progress: Progress, root: Path, as_json: bool, interrupted: bool
) -> None:
    finished = [trial.id for trial in plan.trials if trial.id in progress.trials]
    found = lines(store, finished)
    failures = progress.failures()
    if as_json:
        emit(
            {
                "store": str(root),
                "trials": finished,
                "results": results.as_json(found),
                "failed": failures,
                "interrupted": interrupted,
            }
        )
        return
    if found:
        results.as_tables(found, len(plan.study.seeds))
    typer.echo(progress.closing(str(root)))
    for failure in failures:
        typer.echo(
            f"failed: {failure['strategy']}, seed {failure['seed']}: {failure['reason']}", err=True
        )


def show_forecast(found: dict[str, Any], as_json: bool) -> None:
    """The phases and the totals of a plan."""
    if as_json:
        emit(found)
        return
    nodes, totals = found["nodes"], found["totals"]
    seeds = sorted({node["seed"] for node in nodes})
    listing = table(["node", "phase", "loss", "for"], ["MACs"])
    for node in nodes:
        if node["seed"] == seeds[0]:
            listing.add_row(
                node["key"][:8] + (" ✓" if node["in_store"] else ""),
                node["phase"],
                node["loss"],
                ", ".join(dict.fromkeys(node["strategies"])),
                macs(node["macs"]),
            )
    show(listing, f"What seed {seeds[0]} takes" + ("; the other seeds are alike" if seeds[1:] else ""))
    typer.echo(_totals(totals))


def _totals(totals: dict[str, Any]) -> str:
    whole, written, left = (macs(totals[key]) for key in ("macs", "macs_written", "macs_to_run"))
    speed = f"at {macs(totals['macs_per_second'])}MAC/s"
    work = f"{left}MACs, about {duration(totals['seconds'])} here, {speed}"
    return (
        f"{counted(totals['trials'], 'trial')} of {counted(totals['phases'], 'phase')} in all: "
        f"{counted(totals['nodes'], 'node')}, {totals['nodes_in_store']} of them in the store (✓).\n"
        f"Work: {whole}MACs, {100 * totals['share_of_written']:.0f} % of the {written}MACs of every "
        f"phase run alone.\n"
        f"Left: {work if totals['macs_to_run'] else 'nothing'}.\n"
        f"Disk: {size(totals['disk_bytes'])} in the store; caches up to "
        f"{size(totals['cache_bytes'])} at a time.\n"
        "Nothing was started."
    )
