"""What a command shows while a job works, by the kind of the job's `watch`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from offramp.api.progress.log import Format, Log, LogOptions, moving, opened, reading_shown

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


def log_options(works: Collection[str | None]) -> Sequence[click.Option]:
    """The options of a command that say what it shows meanwhile.

    works: what each of its functions shows, as of `CommandOption.shows`.
    """
    return LOG if "training" in works else (QUIET,) if any(works) else ()


@contextmanager
def watching(shows: str | None, options: LogOptions, as_json: bool) -> Iterator[Any]:
    """What a function takes as `watch`, shown while the block runs; None where it takes nothing.

    shows: as of `CommandOption`.
    """
    match shows:
        case "training":
            from offramp.api.progress.display import Display

            with opened(options, as_json) as log:
                yield Display(log, command=True, quiet=options.quiet, as_json=as_json)
        case "steps":
            silent = options.quiet or as_json
            with reading_shown(Log(progress=not silent, timed=False)):
                yield None if silent else lambda step: click.echo(f"{step} …", err=True)
        case "fast steps":
            with moving("reading", Log(progress=not options.quiet)) as status:
                yield status.update
        case _:
            with reading_shown():
                yield None
