"""`offramp store`: what is done with whole stores."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Annotated

import typer

from offramp.cli.options import JsonOption, QuietOption, argument
from offramp.cli.progress.reading import moving
from offramp.cli.render import emit
from offramp.errors import OfframpError
from offramp.store.place import Place, place
from offramp.units import counted, duration, size

store = typer.Typer(
    name="store",
    help="Copy a store, or index an object store.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@store.command()
def index(
    root: Annotated[Place, argument("STORE", "The store: s3://BUCKET/NAME.", parser=place)],
    json: JsonOption = False,
) -> None:
    """Index an object store, so that new machines read it quickly.

    The index has copies of all records in two objects. So a new machine gets thousands of phases with a
    few requests. `offramp run` writes it at its end if much is new. An old index does no harm: later
    changes are fetched one by one.

    \b
    Example:
      offramp store index s3://bucket/runs
    """
    from offramp.store.archive import is_store
    from offramp.store.place import Url
    from offramp.store.store import Store

    if not isinstance(root, Url):
        raise OfframpError(
            f"{root} is a folder, which needs no index; name an object store, such as s3://BUCKET/NAME"
        )
    if not is_store(root):
        raise OfframpError(f"there is no store at {root}; name another")
    began = time.monotonic()
    with moving(f"reading {root}"):
        count = Store(root).index()
    if json:
        emit({"store": str(root), "indexed": count})
    else:
        spent = duration(time.monotonic() - began)
        typer.echo(
            f"{counted(count, 'record')} indexed in {root}; {spent}." if count else "Nothing is new."
        )


@store.command()
def copy(
    source: Annotated[
        Place, argument("FROM", "The store to copy: a folder, or s3://BUCKET/NAME.", parser=place)
    ],
    target: Annotated[Place, argument("TO", "The store to copy to; what it holds stays.", parser=place)],
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Copy finished work from one store to another.

    It copies phases, trials, how seeds were added, and plans of unfinished work, but no checkpoints.
    Every byte is checked. The contents of TO stay, so the same command goes on after an interruption.
    Damaged parts are left out and named; the exit code is then 1.

    \b
    Examples:
      offramp store copy runs s3://bucket/runs
      offramp store copy s3://bucket/runs runs
    """
    from offramp.store.archive import Archive
    from offramp.store.copying import FolderPart
    from offramp.store.copying import copy as copied
    from offramp.store.store import Store

    began = time.monotonic()
    made, there, written = 0, 0, 0
    damaged: list[str] = []
    with moving(f"reading {source}") as status, closing(copied(Archive(source), Store(target))) as steps:
        part, done = FolderPart("", ()), 0
        for step in steps:
            if isinstance(step, FolderPart):
                part, done = step, 0
            else:
                done, written = done + 1, written + step.bytes
                made, there = made + (step.bytes > 0), there + (not step.bytes and not step.damaged)
                damaged += [step.damaged] if step.damaged else []
            if not quiet:
                status.update(f"{part.folder}: {done} of {len(part.names)}, {size(written)} so far")
    if json:
        said = {"from": str(source), "to": str(target), "copied": made, "there": there}
        emit({**said, "bytes": written, "damaged": damaged})
    else:
        for line in damaged:
            typer.echo(f"left out: {line}", err=True)
        spent = duration(time.monotonic() - began)
        there_too = f", {there} were there already" if there else ""
        parts = f"{counted(made, 'part')} copied to {target}, {size(written)}{there_too}; {spent}."
        typer.echo(parts)
    if damaged:
        raise typer.Exit(1)
