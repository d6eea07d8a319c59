"""`offramp export-table`: every number as one tidy table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.options import JsonOption, StoreArgument, StoreOption, option
from offramp.cli.render import emit
from offramp.cli.store import archived
from offramp.errors import OfframpError
from offramp.units import counted


def export_table(
    out: Annotated[Path, option("FILE", "The table to write: .parquet or .csv.")],
    store: StoreArgument = None,
    store_: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Write every number of a store as one tidy table.

    Each number is a row: trial, strategy, model, data, seed, phase, exit, split, epoch, metric, value.

    \b
    Example:
      offramp export-table runs/demo --out table.parquet
    """
    from offramp.escape import cells
    from offramp.files import replacing, writing
    from offramp.store.table import tidy

    if out.suffix not in (".parquet", ".csv"):
        raise OfframpError(f"--out is {out}; end it in .parquet or .csv, which is the format")
    if not out.parent.is_dir():
        raise OfframpError(f"there is no folder {out.parent} for --out; make it first")
    archive = archived(store, store_)
    trials = archive.trials()
    frame = tidy(archive, trials)
    with writing(out), replacing(out) as temporary:
        if out.suffix == ".csv":
            cells(frame).to_csv(temporary, index=False)
        else:
            frame.to_parquet(temporary, index=False)
    if json:
        emit({"out": str(out), "rows": len(frame), "trials": len(trials)})
        return
    typer.echo(f"{counted(len(frame), 'row')} of {counted(len(trials), 'trial')} written to {out}")
