"""`offramp pack`: results without the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.options import RUNS, JsonOption, ResultsArgument, StudyOption
from offramp.cli.progress import moving
from offramp.cli.render import counted, emit, tell_missing
from offramp.units import size


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
    _pack(store, out, study, json)


def _pack(store: Path, out: Path, study: str | None, as_json: bool) -> None:
    from offramp.report import evidence
    from offramp.store import pack as packed

    found = evidence.open(store, study)
    trials = [trial.id for trial in found.trials]
    with moving(f"packing {counted(len(trials), 'trial')}"):
        sizes = packed.write(out, found.records, trials, found.table, found.missing)
    if as_json:
        emit({"out": str(out), "trials": len(trials), "bytes": sizes, "missing": list(found.missing)})
        return
    tell_missing(found.missing)
    files = ", ".join(f"{name} {size(count)}" for name, count in sizes.items())
    typer.echo(
        f"{counted(len(trials), 'trial')} packed into {out}, {size(sum(sizes.values()))}: {files}."
    )
