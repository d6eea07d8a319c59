"""`offramp run` and `offramp train`: forecast, live progress, table."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import typer

from offramp import device as devices
from offramp.cli import results
from offramp.cli.busy import reading_shown
from offramp.cli.progress import Progress
from offramp.cli.render import counted, emit, folded, say, show, table
from offramp.data.notes import notes
from offramp.errors import OfframpError
from offramp.store.store import Store
from offramp.store.summary import lines
from offramp.study.plan.forecast import forecast
from offramp.study.plan.limits import cache_folder
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.plan.workers import Workers, asked, suited
from offramp.study.run.events import Event
from offramp.study.run.pool import run_pooled
from offramp.study.run.run import Conduct
from offramp.study.spec.models import Study
from offramp.units import duration, macs, size
from offramp.usercode import forbid


@dataclass(frozen=True)
class How:
    """How a run is asked for. workers: None for as many as suit.  speed: of another device, in MACs a
    second, for the forecast.  here: of this one, where it was measured already.  user_code: whether a
    study may name code of its own."""

    root: Path
    dry_run: bool = False
    workers: int | None = None
    as_json: bool = False
    quiet: bool = False
    speed: float | None = None
    here: float | None = None
    user_code: bool = True

    @property
    def silent(self) -> bool:
        return self.as_json or self.quiet


def processes(text: str) -> int | None:
    """What `--workers` says: a number; None of `auto`. Raises OfframpError for anything else."""
    if text == "auto":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise OfframpError(f"--workers must be auto or a number from 1 on; got '{text}'")
    return int(text)


def start(study: Study, how: How) -> None:
    """Plan and run a study; exits with 1 when something failed, 130 when interrupted."""
    check_code([study], how)
    with reading_shown(not how.silent):
        plan = make_plan(study, provisional=how.dry_run)
    go(plan, how)


def check_code(studies: Sequence[Study], how: How) -> None:
    """Raises OfframpError for a study that names code of its own, where that is forbidden."""
    if not how.user_code:
        for study in studies:
            forbid([study.data.name, study.backbone.name, *(s.name for s in study.strategies)])


def go(plan: Plan, how: How) -> None:
    """As `start`, with the plan at hand."""
    if not how.silent:
        remark(plan)
    if how.dry_run:
        found = forecast(plan, Store(how.root), devices.chosen(), how.here)
        found["workers"] = asdict(staff(plan, how))
        show_forecast(found, how.as_json, how.speed)
        return
    outcome = trained(plan, how)
    if how.as_json:
        emit(outcome.found)
    close(outcome)


def remark(plan: Plan) -> None:
    """What there is to know before it starts, on standard error."""
    for line in plan.remarks:
        typer.echo(f"Note: {line}.", err=True)
    if plan.net.initial is not None:
        typer.echo(f"Weights '{plan.study.backbone.weights}': {plan.net.initial}.", err=True)
    for note in notes(plan.data.provenance):
        typer.echo(f"{plan.data.name}: {note}", err=True)


@dataclass(frozen=True)
class Outcome:
    """found: as JSON.  failed, interrupted: whether something failed, and whether it was cut short."""

    found: dict[str, Any]
    failed: bool
    interrupted: bool


def trained(plan: Plan, how: How) -> Outcome:
    """Run a plan, show its results unless they are for programs."""
    store, workers = Store(how.root), staff(plan, how)
    if not how.silent:
        typer.echo("\n".join(folded(f"Workers: {workers.count} ({workers.reason}).")), err=True)
    progress = Progress(plan, shown=not how.silent)
    interrupted = False
    try:
        watch(run_pooled(plan, store, here(workers.count)), progress)
    except KeyboardInterrupt:
        interrupted = True
    found = _show_results(plan, store, progress, how, interrupted)
    found["workers"] = asdict(workers)
    return Outcome(found, bool(progress.failed), interrupted)


def close(outcome: Outcome) -> None:
    """The exit code that says how it went."""
    if outcome.interrupted:
        typer.echo("Interrupted. Run the same command again to go on; what is finished stays.", err=True)
        raise typer.Exit(130)
    if outcome.failed:
        raise typer.Exit(1)


def here(workers: int) -> Conduct:
    """How work is done on this machine."""
    return Conduct(device=devices.chosen(), cache_folder=cache_folder(), workers=workers)


def staff(plan: Plan, how: How) -> Workers:
    """The workers of a run: as many as were asked for, else as many as suit."""
    if how.workers is not None:
        return asked(plan, how.workers)
    return suited(plan, Store(how.root), devices.chosen())


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
    plan: Plan, store: Store, progress: Progress, how: How, interrupted: bool
) -> dict[str, Any]:
    finished = [trial.id for trial in plan.trials if trial.id in progress.trials]
    found = lines(store, finished)
    failures = progress.failures()
    answer = {
        "store": str(how.root),
        "trials": finished,
        "results": results.as_json(found),
        "failed": failures,
        "interrupted": interrupted,
    }
    if how.as_json:
        return answer
    if found:
        results.as_tables(found, len(plan.study.seeds))
    typer.echo(progress.closing(str(how.root)))
    for failure in failures:
        typer.echo(
            f"failed: {failure['strategy']}, seed {failure['seed']}: {failure['reason']}", err=True
        )

    return answer


def show_forecast(found: dict[str, Any], as_json: bool, speed: float | None = None) -> None:
    """The phases and the totals of a plan. speed: of another device, in MACs a second."""
    found = {**found, "totals": found["totals"] | at_speed(found["totals"], speed)}
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
    typer.echo(said_of(totals))
    if "workers" in found:
        count, reason = found["workers"]["count"], found["workers"]["reason"]
        more = " The time above is that of one." if count > 1 else ""
        say(f"Workers: {count} ({reason}).{more}")
    for line in found["provisional"]:
        typer.echo(f"Provisional, keys too: {line}.")


def at_speed(totals: dict[str, Any], speed: float | None) -> dict[str, float]:
    """What is left on a device of that speed."""
    if speed is None:
        return {}
    return {"given_macs_per_second": speed, "seconds_at_given": totals["macs_to_run"] / speed}


def said_of(totals: dict[str, Any]) -> str:
    """The totals of a plan, or of several."""
    whole, written, left = (macs(totals[key]) for key in ("macs", "macs_written", "macs_to_run"))
    once = 100 * totals["macs_shared"] / totals["macs_written"]
    saved = f"\n(shared phases once: {once:.0f} %; the rest is frozen layers, kept)"
    saved = saved if totals["macs"] < totals["macs_written"] else ""
    work = f"{left}MACs, about {duration(totals['seconds'])} here"
    if "macs_per_second" in totals:
        work += f", at {macs(totals['macs_per_second'])}MAC/s"
    if "seconds_at_given" in totals:
        given = macs(totals["given_macs_per_second"])
        work += f";\nat a steady {given}MAC/s {duration(totals['seconds_at_given'])}"
    return (
        f"{counted(totals['trials'], 'trial')} of {counted(totals['phases'], 'phase')} in all: "
        f"{counted(totals['nodes'], 'node')}, {totals['nodes_in_store']} of them in the store (✓).\n"
        f"Work: {whole}MACs, {100 * totals['share_of_written']:.0f} % of the {written}MACs of every "
        f"phase run alone{saved}.\n"
        f"Left: {work if totals['macs_to_run'] else 'nothing'}.\n"
        f"Disk: {size(totals['disk_bytes'])} in the store{_on_disk(totals)}.\n"
        f"Memory: about {size(totals['memory_bytes'])} a process, "
        f"{size(totals['cache_memory_bytes'])} of it caches{_live(totals)}.\n"
        "Nothing was started."
    )


def _on_disk(totals: dict[str, Any]) -> str:
    here = totals["cache_disk_bytes"]
    return f"; caches up to {size(here)} at a time" if here else ""


def _live(totals: dict[str, Any]) -> str:
    live = totals["cache_live_bytes"]
    return f";\nof frozen values {size(live)} stay live, computed for each batch" if live else ""
