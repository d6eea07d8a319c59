"""Commands that turn a store into files to read: packed results, figures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.options import RUNS, JsonOption, QuietOption

ResultsArgument = Annotated[
    Path, typer.Argument(metavar="STORE", help="A store, or results packed by offramp pack.")
]
StudyOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only trials made by the study of this name.")
]


def pack(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to put the packed results.")],
    store: ResultsArgument = RUNS,
    study: StudyOption = None,
    json: JsonOption = False,
) -> None:
    """Pack results into a small folder, without the weights.

    The tidy table, records of trials and phases, and the logits of every exit as float16: all that
    figures, tables, statistics and thresholds need. Equal results give equal bytes. Every command that
    makes figures or tables takes the folder in place of the store.

    \b
    Examples:
      offramp pack runs --out results/demo
      offramp figures results/demo --out figures
    """
    from offramp.cli import figures as command

    command.pack(store, out, study, json)


def figures(
    store: ResultsArgument = RUNS,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to put the files.")] = Path(
        "figures"
    ),
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only these figures, such as curves. Repeatable."),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="LIST", help="Of svg, pdf, png and json (Vega-Lite).")
    ] = "svg,pdf,png",
    study: StudyOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Draw the figures that the paper has, and more.

    Names: accuracy-by-exit, accuracy-compute, curves, overall, significance, time-by-exit, time-total,
    memory-power, costs, reliability, confidence-quality, overthinking, agreement. docs/figures.md says
    which of the paper's figures each answers to. captions.md says what is drawn.

    \b
    Examples:
      offramp figures runs/demo --out figures
      offramp figures runs/demo --only curves --only significance --format pdf
    """
    from offramp.cli import figures as command

    command.figures(store, out, only or [], format_, study, json, quiet)
