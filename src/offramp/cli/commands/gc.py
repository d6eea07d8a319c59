"""`offramp gc`: remove what no trial needs."""

from __future__ import annotations

from typing import Annotated

import typer

from offramp.cli.options import JsonOption, StoreArgument, StoreOption, flag
from offramp.cli.render import emit
from offramp.cli.store import opened
from offramp.units import counted, size


def gc(
    store: StoreArgument = None,
    store_: StoreOption = None,
    dry_run: Annotated[bool, flag("--dry-run", "Only say what would be removed.")] = False,
    abandon: Annotated[
        bool, flag("--abandon", "Remove unfinished work too. Then no run can go on with it.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Remove what no trial of a store needs.

    It removes nodes (trained phases) that no trial needs, checkpoints of finished nodes, leftovers of
    killed processes, and lock files. The work of running processes stays.

    \b
    Example:
      offramp gc runs/demo --dry-run
    """
    kept = opened(store, store_)
    unneeded = kept.unneeded(abandon)
    freed = sum(count for _, count in unneeded)
    if not dry_run:
        freed = kept.collect(abandon)
    holder = kept.at_work()
    if json:
        paths = [str(path) for path, _ in unneeded]
        emit({"paths": paths, "bytes": freed, "removed": not dry_run, "at_work": holder})
        return
    listed = [(path, count) for path, count in unneeded if not str(path).endswith(".lock")]
    for path, count in listed:
        typer.echo(f"{path}  {size(count)}")
    if len(unneeded) > len(listed):
        typer.echo(f"{counted(len(unneeded) - len(listed), 'lock file')} that nobody holds")
    if holder is not None:
        typer.echo(f"In use by {holder}; nodes and plans stay until it ends.")
    typer.echo(f"{'Would free' if dry_run else 'Freed'} {size(freed)}.")
