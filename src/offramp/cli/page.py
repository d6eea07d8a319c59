"""`offramp report`: one page with figures, tables and data beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.options import RUNS, JsonOption, QuietOption


def report(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="STORE",
            help="Stores, or what offramp pack wrote; several count as one.",
            show_default="runs",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the report goes; an earlier one is replaced.")
    ] = Path("report"),
    study: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only trials of the study of that name.")
    ] = None,
    title: Annotated[
        str | None, typer.Option(metavar="TEXT", help="By default the study's name.")
    ] = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format", metavar="svg,pdf,png", help="Files of each figure; none draws no files."
        ),
    ] = "svg,pdf,png",
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes that draw; by default, cores.")
    ] = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write one page with the answer, figures, tables and claims.

    \b
      FOLDER/index.html   everything, in one file that needs no network
      FOLDER/figures/     every figure as SVG, PDF and PNG
      FOLDER/tables/      every table as CSV, LaTeX and Markdown
      FOLDER/data/        every number (Parquet), every chart (Vega-Lite)

    A study that is not finished gives a report too, which says what is missing.

    \b
    Examples:
      offramp report runs/demo
      offramp report runs/a runs/b --out paper --format pdf
    """
    from offramp.cli import report_command

    chosen = report_command.Chosen(sources or [RUNS], out, study, title, format_, workers)
    report_command.report(chosen, json, quiet)
