"""`offramp pack`: results without the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.options import JsonOption, SeveralArgument, StoreOption, StudyOption, option, several
from offramp.cli.progress.reading import moving
from offramp.cli.render import emit, tell_missing
from offramp.units import counted, size


def pack(
    out: Annotated[Path, option("FOLDER", "Where to write the packed results.")],
    sources: SeveralArgument = None,
    store_: StoreOption = None,
    study: StudyOption = None,
    strategy: Annotated[
        list[str] | None, option("NAME", "Use only the trials of this strategy. Repeatable.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Pack results into a small folder, without the weights.

    It holds every number, the records of trials and phases, and the logits of every exit (float16).
    Commands that make figures, tables and reports read it instead of the store. Several stores and packs
    become one. Equal results give equal bytes.

    \b
    Examples:
      offramp pack runs/demo --out results/demo
      offramp figures results/demo --out figures
      offramp pack results/42 results/43 --out results/both
      offramp pack runs/all --strategy joint --strategy separate --out results/two
    """
    from offramp.report import evidence
    from offramp.store import pack as packed

    found = evidence.open_all(several(sources, store_), study)
    if strategy:
        found = evidence.of_strategies(found, strategy)
    trials, table = found.packed
    with moving(f"packing {counted(len(trials), 'trial')}"):
        sizes = packed.write(out, found.gathered.records, trials, table, found.missing, found.logs)
    if json:
        emit({"out": str(out), "trials": len(trials), "bytes": sizes, "missing": list(found.missing)})
        return
    tell_missing(found.missing)
    files = ", ".join(f"{name} {size(count)}" for name, count in sizes.items())
    typer.echo(
        f"{counted(len(trials), 'trial')} packed into {out}, {size(sum(sizes.values()))}: {files}."
    )
