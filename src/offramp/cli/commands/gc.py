"""`offramp gc`: remove what no trial needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from offramp.cli.options import RUNS, JsonOption, StoreOption
from offramp.cli.render import counted, emit
from offramp.cli.store import opened
from offramp.units import size

if TYPE_CHECKING:
    from offramp.store.store import Store


def gc(
    store: StoreOption = RUNS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Unfinished work too: no run will go on with it.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Remove from a store what no trial needs.

    Nodes that no finished or begun trial needs, checkpoints of finished nodes, leftovers of killed
    processes, lock files. What a process is working on stays.
    """
    _gc(opened(store), dry_run, abandon, json)


def _gc(store: Store, dry_run: bool, abandon: bool, as_json: bool) -> None:
    unneeded = store.unneeded(abandon)
    freed = sum(count for _, count in unneeded)
    if not dry_run:
        freed = store.collect(dry_run=False, abandon=abandon)
    if as_json:
        paths = [str(path) for path, _ in unneeded]
        emit({"paths": paths, "bytes": freed, "removed": not dry_run})
        return
    listed = [(path, count) for path, count in unneeded if path.suffix != ".lock"]
    for path, count in listed:
        typer.echo(f"{path}  {size(count)}")
    if len(unneeded) > len(listed):
        typer.echo(f"{counted(len(unneeded) - len(listed), 'lock file')} that nobody holds")
    typer.echo(f"{'Would free' if dry_run else 'Freed'} {size(freed)}.")
