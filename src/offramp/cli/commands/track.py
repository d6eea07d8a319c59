"""`offramp track`: what a store holds, in the trackers that are open."""

from __future__ import annotations

import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from offramp import units
from offramp.cli.options import JsonOption, StoreArgument, StoreOption, option
from offramp.cli.render import emit
from offramp.cli.store import archived, awaited
from offramp.errors import OfframpError
from offramp.units import counted


def track(
    store: StoreArgument = None,
    store_: StoreOption = None,
    to: Annotated[
        list[str] | None,
        option("TRACKER", "The tracker, such as tensorboard:runs/board. Repeatable."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until nothing is left to train, or Ctrl-C.")
    ] = False,
    every: Annotated[str, option("TIME", "With --follow: time between two looks, such as 30s.")] = "20s",
    file: Annotated[
        list[str] | None,
        option("PATH", "With mlflow: keep this file or folder too, such as a report. Repeatable."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Send a store's curves and results to a tracker.

    It reads the store while others train into it, or later. It has no effect on training or results.
    Nothing is sent twice. Each trial, and each proposal of a search,
    becomes a run: its settings, the curves of its phases, its final numbers.

    \b
    Trackers (pip install 'offramp[track]'; the last: pip install trackio):
      tensorboard:FOLDER            event files
      mlflow:ADDRESS#EXPERIMENT     http://HOST:PORT; for sqlite:///FILE
                                    pip install mlflow
      wandb:ENTITY/PROJECT          WANDB_MODE=offline works
      trackio:PROJECT

    \b
    Examples:
      offramp track runs/demo --to tensorboard:runs/board
      offramp track runs/demo --to mlflow:http://localhost:5000#demo --follow
      offramp track runs/demo --to mlflow:sqlite:///mlflow.db --file report
    """
    from offramp.store.live import Reader
    from offramp.store.searches import proposals, searched
    from offramp.track import TRACKERS, tracker
    from offramp.track.send import FileTracker, SendCounts, send

    pause = units.seconds(every, "--every", least=1)
    if not to:
        some = ", ".join(kind.example for kind in TRACKERS.values())
        raise OfframpError(f"name a tracker with --to, such as {some}")
    reader = Reader((awaited if follow else archived)(store, store_))
    for path in file or ():
        if not Path(path).exists():
            raise OfframpError(f"there is no {path}; give --file a file or folder")
    root = reader.archive.root
    # Whole, as most stores are called `runs`: the page of one must not replace that of another.
    whole = str(root.resolve() if isinstance(root, Path) else root)
    trackers = {text: tracker(text) for text in to}
    for text, one in trackers.items():
        if file:
            if not isinstance(one, FileTracker):
                raise OfframpError(f"{text.partition(':')[0]} keeps no files; leave --file out")
            one.attach(file, whole)
            typer.echo(f"{text}: {counted(len(file), 'file')} kept.", err=True)
    optuna = find_spec("optuna") is not None
    if not optuna and searched(reader.archive):
        typer.echo("Searches are left out; pip install 'offramp[search]' to send them.", err=True)
    try:
        while True:
            courses, over = reader.look()
            found = list(proposals(reader)) if optuna else []
            for text, one in trackers.items():
                sent, tried = send(courses, one), send(found, one)
                both: SendCounts = sent + tried
                if json:
                    of = {"trials": sent.trials, "proposals": tried.trials}
                    emit({"tracker": text, **asdict(both), **of})
                elif both.points or not follow:
                    what = f"{counted(both.points, 'number')} of {counted(sent.trials, 'trial')}"
                    what += f" and {counted(tried.trials, 'proposal')}" if tried.trials else ""
                    typer.echo(f"{text}: {what} sent, {both.closed} finished.", err=True)
            if over or not follow:
                return
            time.sleep(pause)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
