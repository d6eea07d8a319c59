"""`offramp push`: a bundle to the Hugging Face hub."""

from __future__ import annotations

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
    json: options.JsonOption = False,
) -> None:
    """Put a bundle on the Hugging Face hub, with a model card.

    The card has the license, accuracy, data, purpose and limits. Sign in beforehand
    (hf auth login), or set HF_TOKEN. This machine's name and folders are not pushed.

    \b
    Examples:
      offramp push bundle/ me/flowers --license mit
      offramp predict hf:me/flowers photo.jpg
    """
    from offramp.bundle import hub

    address = hub.push(bundle, name, license, dataset, private)
    there = f"{hub.PREFIX}{name.removeprefix(hub.PREFIX)}"
    if json:
        emit({"address": address, "bundle": there})
    else:
        typer.echo(f"Pushed: {address}")
        typer.echo(f"Use it: offramp predict {there} IMAGES")
