"""`offramp watch`: a store that others train, live."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp import terminal, units
from offramp.cli.options import JsonOption, StoreArgument, StoreOption, option
from offramp.cli.render import emit
from offramp.cli.store import archived, awaited
from offramp.cli.trials import TEST, accuracies
from offramp.terminal import table
from offramp.units import counted

if TYPE_CHECKING:
    from rich.console import Group

    from offramp.store.live import LivePhase, TrialProgress

LATEST = 8  # finished trials that are shown


def watch(
    store: StoreArgument = None,
    store_: StoreOption = None,
    every: Annotated[str, option("TIME", "Time between two looks, such as 30s.")] = "5s",
    once: Annotated[bool, typer.Option("--once", help="Look once, then end.")] = False,
    json: JsonOption = False,
) -> None:
    """Watch a store while others train into it.

    It shows the phases at work, their epoch and accuracy on validation, who trains them, and how far
    each trial is. It only reads, so it may run on any machine that sees the store. An epoch shows once
    it is saved, about every twenty seconds. It ends with Ctrl-C, when nothing is left to train, or when
    the rest has failed.

    \b
    Examples:
      offramp watch runs/demo
      offramp watch s3://bucket/runs --every 30s
      offramp watch runs/demo --once
    """
    from rich.live import Live

    from offramp.store.live import Reader, phases_by_key

    pause = units.seconds(every, "--every", least=0.5)
    looks_once = once or json or not sys.stdout.isatty()
    reader = Reader((archived if looks_once else awaited)(store, store_))
    title = f"Store {reader.archive.root}"
    if json:
        courses = list(reader.courses())
        phases = [p for p in phases_by_key(courses).values() if p.begun and not p.finished]
        phases += reader.loose(courses)
        emit(
            {
                "store": str(reader.archive.root),
                "trials": [course.as_json() for course in courses],
                "under_way": [_as_json(phase) for phase in phases],
            }
        )
        return
    if looks_once:
        courses = list(reader.courses())
        terminal.console().print(shown(title, courses, reader.loose(courses)))
        return
    try:
        with Live(console=terminal.console(), auto_refresh=False, screen=False) as live:
            while True:
                courses, over = reader.look()
                live.update(shown(title, courses, reader.loose(courses)), refresh=True)
                if over:
                    return
                time.sleep(pause)
    except KeyboardInterrupt:
        return


def shown(title: str, courses: Sequence[TrialProgress], loose: Sequence[LivePhase] = ()) -> Group:
    """The picture of a store. loose: of `Reader.loose`."""
    from rich.console import Group
    from rich.text import Text

    from offramp.store.live import phases_by_key

    done = [c for c in courses if c.manifest is not None]
    phases = phases_by_key(courses)
    finished = sum(phase.finished for phase in phases.values())
    parts: list[object] = [
        Text(title, style="bold"),
        f"{len(done)} of {counted(len(courses), 'trial')} finished, {finished} of "
        f"{counted(len(phases), 'phase')}",
    ]
    working = [*(p for p in phases.values() if p.begun and not p.finished), *loose]
    if working:
        rows = [_working(phase, courses) for phase in working]
        parts += ["", table(["under way"], ["epoch", "validation, %"], rows)]
    failed = [f"{c.trial}: {c.failed}" for c in courses if c.manifest is None and c.failed is not None]
    if failed:
        parts += ["", "failed", *failed]
    if done:
        latest = sorted(done, key=_finished)[-LATEST:]
        heading = "finished" if len(done) <= LATEST else f"finished, the latest {LATEST} of {len(done)}"
        parts += ["", table([heading], [TEST], [(c.trial, _accuracies(c)) for c in latest])]
    # Last, as a picture that is higher than the terminal loses its end: there may be many of them.
    left = [c for c in courses if c.manifest is None and c.failed is None]
    begun = [c for c in left if any(p.begun or p.finished for p in c.phases)]
    if begun:
        far = [(c.trial, f"{sum(p.finished for p in c.phases)}/{len(c.phases)}") for c in begun]
        parts += ["", table(["begun"], ["phases"], far)]
    if len(left) > len(begun):
        parts += ["", f"{counted(len(left) - len(begun), 'trial')} not begun"]
    return Group(*parts)  # type: ignore[arg-type]  # text, strings and tables


def _as_json(phase: LivePhase) -> dict[str, Any]:
    far = {"epoch": phase.epoch, "epochs": phase.epochs, "validation": dict(phase.validation)}
    return {"node": phase.key, "phase": phase.name, **far, "holder": phase.holder}


def _working(phase: LivePhase, courses: Sequence[TrialProgress]) -> tuple[str, str, str]:
    users = [c.trial for c in courses if any(p.key == phase.key for p in c.phases)]
    more = f", for {len(users) - 1} more" if len(users) > 1 else ""
    holder = (phase.holder or "nobody, saved").removeprefix("process ").replace("at it for ", "")
    first = users[0] if users else "a search"
    name = f"{first}\n{phase.title}{more}, by {holder}"  # an id has a line of its own
    epochs = f"{phase.epoch}/{phase.epochs}" if phase.epochs else str(phase.epoch)
    return name, epochs, accuracies(value for _, value in phase.validation)


def _finished(course: TrialProgress) -> str:
    assert course.manifest is not None
    return course.manifest.provenance.finished or ""


def _accuracies(course: TrialProgress) -> str:
    assert course.manifest is not None
    return accuracies(course.manifest.metrics["test"].accuracy)
