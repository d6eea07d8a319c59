"""What a store holds, in the trackers that are open."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from offramp.api.answer import answer
from offramp.api.opening import archived, awaited
from offramp.api.options import RUNS, CommandOption, StorePlace, pause
from offramp.errors import OfframpError
from offramp.hashing import finite
from offramp.terminal import TextBlocks
from offramp.units import counted

if TYPE_CHECKING:
    from offramp.store.live import Reader
    from offramp.track.send import SendCounts


@answer
class Tracking:
    """What is sent of a store, once its `run` is called; a command calls it.

    Attributes:
        trackers: Each tracker, by how it was named.
        follow: Whether it goes on until nothing is left to train.
        every: Seconds between two looks.
    """

    trackers: Mapping[str, Any]
    follow: bool
    every: float
    _reader: Reader

    def as_json(self) -> dict[str, Any]:
        return {"trackers": list(self.trackers), "follow": self.follow, "every": self.every}

    def document(self) -> TextBlocks:
        names = ", ".join(self.trackers)
        return [f"{self._reader.archive.root} to {names}; call run() to send."]

    def run(self, as_json: bool = False, show: Callable[[], None] = lambda: None) -> int:  # noqa: ARG002
        """Send what is new, once or until nothing is left to train."""
        try:
            while not self._send(as_json) and self.follow:
                time.sleep(self.every)
        except KeyboardInterrupt:
            return 130
        return 0

    def _send(self, as_json: bool) -> bool:
        """Send what is new. Returns whether nothing more comes.

        Raises OfframpError for the first tracker that fails, once the others have it.
        """
        from offramp.store.searches import proposals
        from offramp.track.send import send

        progress, over = self._reader.look()
        tried = list(proposals(self._reader)) if _has_optuna() else []
        failures = []
        for name, tracker in self.trackers.items():
            try:
                trials, searched = send(progress, tracker), send(tried, tracker)
            except OfframpError as error:
                failures.append(error)
                continue
            both = trials + searched
            if as_json:
                counts = {"trials": trials.trials, "proposals": searched.trials}
                record = {"tracker": name, **asdict(both), **counts}
                click.echo(json.dumps(finite(record), indent=2, allow_nan=False))
            elif both.points or not self.follow:
                click.echo(f"{name}: {_words(both, trials, searched)}", err=True)
            sys.stdout.flush()
        if failures:
            raise failures[0]
        return over


def _words(both: SendCounts, trials: SendCounts, searched: SendCounts) -> str:
    what = f"{counted(both.points, 'number')} of {counted(trials.trials, 'trial')}"
    what += f" and {counted(searched.trials, 'proposal')}" if searched.trials else ""
    return f"{what} sent, {both.closed} finished."


def _has_optuna() -> bool:
    return find_spec("optuna") is not None


def track_store(
    store: StorePlace = RUNS,
    *,
    to: Annotated[Sequence[str], CommandOption("TRACKER")] = (),
    follow: bool = False,
    every: Annotated[float, CommandOption("TIME", parse=pause(1), default="20s")] = 20.0,
    file: Annotated[Sequence[str], CommandOption("PATH")] = (),
) -> Tracking:
    """Send a store's curves and results to a tracker.

    It reads the store while others train into it, or later. It has no effect on training or results.
    Nothing is sent twice. Each trial, and each proposal of a search,
    becomes a run: its settings, the curves of its phases, its final numbers.

    Trackers (pip install 'offramp[track]'; the last: pip install trackio)::

      tensorboard:FOLDER            event files
      mlflow:ADDRESS#EXPERIMENT     http://HOST:PORT; for sqlite:///FILE
                                    pip install mlflow
      wandb:ENTITY/PROJECT          WANDB_MODE=offline works
      trackio:PROJECT

    Args:
        store: The store: a folder, or s3://BUCKET/NAME.
        to: The tracker, such as tensorboard:runs/board. Repeatable.
        follow: Go on until nothing is left to train, or Ctrl-C.
        every: With `follow`: time between two looks, such as 30s.
        file: With mlflow: keep this file or folder too, such as a report. Repeatable.

    Returns:
        What sends, once its `run` is called.

    Raises:
        OfframpError: There is no store, or no such tracker.

    On the command line:
        offramp store track runs/demo --to tensorboard:runs/board
        offramp store track runs --to mlflow:http://localhost:5000#demo --follow
        offramp store track runs/demo --to mlflow:sqlite:///mlflow.db --file report
    """
    from offramp.store.live import Reader
    from offramp.store.searches import searched
    from offramp.track import TRACKERS, tracker
    from offramp.track.send import FileTracker

    if not to:
        some = ", ".join(kind.example for kind in TRACKERS.values())
        raise OfframpError(f"name a tracker with `to`, such as {some}")
    reader = Reader((awaited if follow else archived)(store))
    for path in file:
        if not Path(path).exists():
            raise OfframpError(f"there is no {path}; give `file` a file or folder")
    root = reader.archive.root
    # Whole, as most stores are called `runs`: the page of one must not replace that of another.
    whole = str(root.resolve() if isinstance(root, Path) else root)
    trackers = {text: tracker(text) for text in to}
    for text, each in trackers.items():
        if file:
            if not isinstance(each, FileTracker):
                raise OfframpError(f"{text.partition(':')[0]} keeps no files; leave `file` out")
            each.attach(file, whole)
            click.echo(f"{text}: {counted(len(file), 'file')} kept.", err=True)
    if not _has_optuna() and searched(reader.archive):
        click.echo("Searches are left out; pip install 'offramp[search]' to send them.", err=True)
    return Tracking(trackers, follow, every, reader)
