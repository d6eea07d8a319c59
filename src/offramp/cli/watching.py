"""What a command shows while a job works, by the type of the job's `watch`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offramp.api.progress.log import Format, Log, LogOptions, opened
from offramp.api.progress.reading import moving, reading_shown
from offramp.api.run_state import RunState
from offramp.terminal import TextBlocks, show

if TYPE_CHECKING:
    from offramp.study.plan.plan import Plan
    from offramp.study.run.events import Event
    from offramp.study.search import SearchEvent
    from offramp.study.variants import Best, SearchOptions

QUIET = click.Option(["--quiet", "-q"], is_flag=True, help="Show no progress, only the results.")
LOG = (
    QUIET,
    click.Option(["--verbose", "-v"], is_flag=True, help="In logs, a line for every epoch."),
    click.Option(
        ["--log-file"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Append the log to this file too.",
    ),
    click.Option(
        ["--log-format"],
        type=click.Choice(list(Format)),
        metavar="text|json",
        help="Format of the log. json: one object a line, on a terminal too.",
    ),
)
LOG_NAMES = ("quiet", "verbose", "log_file", "log_format")


def _kind(function: Callable[..., Any]) -> str:
    """The name of the type of its `watch`; empty where it takes none."""
    return str(inspect.get_annotations(function).get("watch", ""))


def log_options(functions: Sequence[Callable[..., Any]]) -> Sequence[click.Option]:
    """The options of a command that say what it shows meanwhile."""
    kinds = set(map(_kind, functions))
    return LOG if "Watcher" in kinds else (QUIET,) if kinds > {""} or kinds - {""} else ()


@contextmanager
def watching(function: Callable[..., Any], options: LogOptions, as_json: bool) -> Iterator[Any]:
    """What a function takes as `watch`, shown while the block runs; None where it takes nothing."""
    match _kind(function):
        case "Watcher":
            with opened(options, as_json) as log:
                yield Display(log, options.quiet, as_json)
        case "StepWatcher":
            silent = options.quiet or as_json
            with reading_shown(Log(progress=not silent, timed=False)):
                yield None if silent else lambda step: click.echo(f"{step} …", err=True)
        case "FastStepWatcher":
            with moving("reading", Log(progress=not options.quiet)) as status:
                yield status.update
        case _:
            with reading_shown():
                yield None


class Display:
    """Shows the work of a job on a log and, on a terminal, in lines that move."""

    def __init__(self, log: Log, quiet: bool = False, as_json: bool = False) -> None:
        self._log = log
        self._as_json = as_json
        self._shows = not (quiet or as_json)  # parts of the answer, for people

    def say(self, text: str, must: bool = False) -> None:
        self._log.say(text, must)

    def note(self, text: str) -> None:
        self._log.say(f"Note: {text}")

    def fail(self, text: str) -> None:
        self._log.say(text, must=not self._as_json)

    def step(self, text: str) -> None:
        self._log.say(f"{text} …")

    def show(self, document: TextBlocks) -> bool:
        if self._shows:
            show(document)
        return self._shows

    def reading(self) -> AbstractContextManager[None]:
        return reading_shown(self._log)

    def train(self, plan: Plan, events: Generator[Event, None, None]) -> RunState:
        from offramp.api.progress.display import Progress, watch

        progress = Progress(plan, self._log)
        try:
            watch(events, progress)
        except KeyboardInterrupt as error:
            progress.state.interrupted = error
        return progress.state

    def search(self, request: SearchOptions, happenings: Generator[SearchEvent, None, Best]) -> Best:
        from offramp.api.progress.proposals import Proposals
        from offramp.api.reporter import finished
        from offramp.process import terminable

        proposals = Proposals(request, self._log)
        with (
            terminable(),
            moving("preparing", self._log) as status,
            reading_shown(self._log, status),
        ):
            return finished(happenings, lambda happening: proposals.see(happening, status))
