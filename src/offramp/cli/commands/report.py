"""`offramp report`: one page with figures, tables and data beside it."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from offramp.cli import options
from offramp.cli.options import option
from offramp.cli.render import emit, tell_missing
from offramp.errors import OfframpError, nearest
from offramp.terminal import console
from offramp.units import counted, duration, size


def report(
    sources: options.SeveralArgument = None,
    store_: options.StoreOption = None,
    out: Annotated[
        Path, option("FOLDER", "Where to write the report; an earlier one is replaced.")
    ] = Path("report"),
    study: options.StudyOption = None,
    title: Annotated[
        str | None, option("TEXT", "The page's title. By default the study's name.")
    ] = None,
    format_: Annotated[
        str, option("svg,pdf,png", "The kinds of file of each figure, or none.", "--format")
    ] = "svg,pdf,png",
    workers: Annotated[
        int | None, option("N", "Processes that draw. By default one for each core.", min=1)
    ] = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Write one page with the answer, figures, tables and claims.

    \b
      FOLDER/index.html   everything, in one file that works offline
      FOLDER/figures/     every figure as SVG, PDF and PNG
      FOLDER/tables/      every table as CSV, LaTeX and Markdown
      FOLDER/data/        every number (Parquet), every chart (Vega-Lite)

    An unfinished study gives a report too. It says what is missing.

    \b
    Examples:
      offramp report runs/demo
      offramp report runs/a runs/b --out paper --format pdf
    """
    from offramp.api.progress import finished
    from offramp.report.evidence import open_all
    from offramp.report.page import folder
    from offramp.report.page.folder import report as report_on

    began = time.monotonic()
    formats = _formats(format_)
    sources = options.several(sources, store_)
    folder.check(out)  # before the work, not after it
    screen = console(stderr=True)
    with screen.status("reading the runs") as status:
        if quiet or not screen.is_terminal:
            status.stop()
        evidence = open_all(sources, study)
        if not evidence.trials:
            places = ", ".join(map(str, sources))
            raise OfframpError(f"{places} holds no finished trial; run a study first")
        drawing = workers or os.cpu_count() or 1
        with closing(report_on(evidence, out, formats, drawing, title)) as steps:
            contents = finished(steps, status.update)
    page = out / "index.html"
    if json:
        answer = {
            "page": str(page),
            "bytes": page.stat().st_size,
            "figures": [figure.name for figure in contents.figures],
            "tables": [table.name for table in [*contents.tables, *contents.claims]],
            "rows": len(evidence.table),
        }
        emit({**answer, "missing": [*evidence.disagreements, *evidence.missing]})
        return
    for sentence in evidence.disagreements:
        typer.echo(f"Disagreement: {sentence}.", err=True)
    tell_missing(evidence.missing)
    typer.echo(
        f"{counted(len(contents.figures), 'figure')}, "
        f"{counted(len(contents.tables) + len(contents.claims), 'table')} and "
        f"{counted(len(evidence.table), 'number')} of {counted(len(evidence.trials), 'trial')}, "
        f"in {duration(time.monotonic() - began)}.\n"
        f"Open {page} ({size(page.stat().st_size)})."
    )


def _formats(text: str) -> tuple[str, ...]:
    """Raises OfframpError for a word that is not a format."""
    from offramp.report.render.charts import PICTURES

    words = [word.strip().lower() for word in text.split(",") if word.strip()]
    if words == ["none"]:
        return ()
    for word in words:
        if word not in PICTURES:
            raise OfframpError(f"--format has '{word}'{nearest(word, (*PICTURES, 'none'))}")
    if not words:
        raise OfframpError("--format is empty; write svg,pdf,png, some of them, or none")
    return tuple(format for format in PICTURES if format in words)
