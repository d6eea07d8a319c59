"""`offramp push`: a bundle to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from offramp.cli import options
from offramp.cli.options import argument, flag, option
from offramp.cli.render import emit


def push(
    bundle: Annotated[Path, argument("BUNDLE", "A bundle's folder.")],
    name: Annotated[str, argument("USER/NAME", "Where it goes on the hub.")],
    license: Annotated[
        str, option("ID", "The license that you give it, such as mit or apache-2.0.", "--license")
    ],
    dataset: Annotated[
        str | None, option("USER/NAME", "The hub's data set that it was trained on.")
    ] = None,
    private: Annotated[bool, flag("--private", "Make a new repository private.")] = False,
    dry_run: Annotated[
        bool, flag("--dry-run", "Show the files and the model card, and send nothing.")
    ] = False,
    json: options.JsonOption = False,
) -> None:
    """Put a bundle on the Hugging Face hub, with a model card.

    The card has the license, accuracy, data, purpose and limits. Sign in beforehand
    (hf auth login), or set HF_TOKEN. This machine's name and folders are not pushed.

    \b
    Examples:
      offramp push bundle/ me/flowers --license mit --dry-run
      offramp push bundle/ me/flowers --license mit
      offramp predict hf:me/flowers photo.jpg
    """
    from offramp.bundle import hub

    if dry_run:
        _show(bundle, name, license, dataset, json)
        return
    address = hub.push(bundle, name, license, dataset, private)
    there = f"{hub.PREFIX}{name.removeprefix(hub.PREFIX)}"
    if json:
        emit({"address": address, "bundle": there})
    else:
        typer.echo(f"Pushed: {address}")
        typer.echo(f"Use it: offramp predict {there} IMAGES")


def _show(bundle: Path, name: str, license: str, dataset: str | None, as_json: bool) -> None:
    """What would be pushed."""
    from offramp.bundle import hub
    from offramp.units import size

    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
        copy = Path(scratch)
        names = hub.prepare(bundle, copy, name, license, dataset)
        sizes = {each: (copy / each).stat().st_size for each in names}
        card = (copy / hub.CARD).read_text(encoding="utf-8")
    if as_json:
        emit({"files": sizes, "card": card})
        return
    for each, taken in sizes.items():
        typer.echo(f"{each}  {size(taken)}")
    typer.echo(f"\n{card}\nNothing was pushed.")
