"""Commands that run a network: predict, benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.options import RUNS, JsonOption, StoreOption


def predict(
    network: Annotated[
        str, typer.Argument(metavar="TRIAL|BUNDLE", help="A trial's id, or a bundle's folder.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES", help="Files, and folders of them.")],
    policy: Annotated[
        Path | None,
        typer.Option(help="Where images leave, from offramp calibrate; a bundle has its own."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The table of answers to write.")] = Path("answers.csv"),
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Images at a time.")] = 64,
    store: StoreOption = RUNS,
    json: JsonOption = False,
) -> None:
    """Classify image files; each leaves at an exit.

    Writes file, class, confidence, exit and compute share (MACs against the plain network) of each.
    Images that leave early stop costing. Without a policy, all go to the final exit.

    Exit codes: 0; 1 if files were damaged (named, and skipped); 2 for a mistake; 130 if interrupted.

    \b
    Examples:
      offramp predict two-stage-resnet18-cifar10-s42 photos/ --policy policy.json
      offramp predict bundle/ photo.png --out answers.csv
    """
    from offramp.cli import predicting

    predicting.predict(network, images, policy, store, out, batch, json)
