"""What a store holds, in the trackers that are open."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import click

from offramp.api.answer import answer
from offramp.api.opening import archived, awaited
from offramp.api.options import RUNS, CommandOption, StorePlace, pause
from offramp.errors import OfframpError
from offramp.terminal import TextBlocks
from offramp.units import counted

if TYPE_CHECKING:
    from offramp.store.live import Reader


@answer
class Tracking:
    """What is sent of a store, once its `run` is called; a command calls it.

    Attributes:
        trackers: Each tracker, such as tensorboard:runs/board.
        follow: Whether it goes on until nothing is left to train.
        every: Seconds between two looks.
    """

    trackers: Sequence[str]
    follow: bool
    every: float
    _reader: Reader

    def as_json(self) -> dict[str, Any]:
        return {"trackers": list(self.trackers), "follow": self.follow, "every": self.every}

    def document(self) -> TextBlocks:
        return [f"{self._reader.archive.root} to {', '.join(self.trackers)}; call run() to send."]

    def run(self, as_json: bool = False, show: Callable[[], None] = lambda: None) -> int:  # noqa: ARG002
        """Send what is new, once or until nothing is left to train.

        Raises OfframpError for trackers that failed at the last look, once the others have all.
        """
        earlier: set[str] = set()
        try:
            while True:
                over = (
                    not self.follow or self._reader.look()[1]
                )  # first: what ends later is another look's
                failures = self._send(as_json)
                if over:
                    break
                for failure in failures:
                    if failure not in earlier:
                        click.echo(failure, err=True)
                earlier.update(failures)
                time.sleep(self.every)
        except KeyboardInterrupt:
            return 130
        if failures:
            raise OfframpError("; and ".join(failures))
        return 0

    def _send(self, as_json: bool) -> list[str]:
        """Send what is new to each tracker; what failed, in words."""
        from offramp.track.send import send

        failures = []
        for tracker in self.trackers:
            try:
                trials = send(self._reader.archive, tracker)
            except OfframpError as error:
                failures.append(str(error))
                continue
            if as_json:
                click.echo(json.dumps({"tracker": tracker, "trials": trials}, indent=2))
            elif trials or not self.follow:
                click.echo(f"{tracker}: {counted(trials, 'trial')} sent.", err=True)
            sys.stdout.flush()
        return failures


def track_store(
    store: StorePlace = RUNS,
    *,
    to: Annotated[Sequence[str], CommandOption("TRACKER")] = (),
    follow: bool = False,
    every: Annotated[float, CommandOption("TIME", parse=pause(1), default="20s")] = 20.0,
) -> Tracking:
    """Send a store's finished trials to a tracker.

    It reads the store while others train into it, or later. It has no effect on training or results.
    Nothing is sent twice. Each trial becomes a run: its settings, the curves of its phases, its final
    numbers.

    Trackers (pip install 'offramp[track]')::

      tensorboard:FOLDER            event files
      mlflow:ADDRESS#EXPERIMENT     http://HOST:PORT; for sqlite:///FILE
                                    pip install mlflow
      wandb:ENTITY/PROJECT          WANDB_MODE=offline works

    Args:
        store: The store: a folder, or s3://BUCKET/NAME.
        to: The tracker, such as tensorboard:runs/board. Repeatable.
        follow: Go on until nothing is left to train, or Ctrl-C.
        every: With `follow`: time between two looks, such as 30s.

    Returns:
        What sends, once its `run` is called.

    Raises:
        OfframpError: There is no store, or no such tracker.

    On the command line:
        offramp store track runs/demo --to tensorboard:runs/board
        offramp store track runs --to mlflow:http://localhost:5000#demo --follow
        offramp store track runs/demo --to mlflow:sqlite:///mlflow.db
    """
    from offramp.store.live import Reader
    from offramp.track.send import TRACKERS, check

    if not to:
        some = ", ".join(example for example, _ in TRACKERS.values())
        raise OfframpError(f"name a tracker with `to`, such as {some}")
    for text in to:
        check(text)  # before a store is waited for
    return Tracking(to, follow, every, Reader((awaited if follow else archived)(store)))
