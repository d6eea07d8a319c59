"""Commands that turn a trained network into one that is cheaper to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.options import RUNS, JsonOption, QuietOption, StoreOption


def export(
    trial: Annotated[str, typer.Argument(help="A trial's id, or the beginning of one.")],
    policy: Annotated[
        Path, typer.Option(metavar="FILE", help="What offramp calibrate wrote for this trial.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The bundle's folder, a new one.")],
    store: StoreOption = RUNS,
    root: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The data set's files, where they have moved since."),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Compare the bundle with PyTorch; the card says so."),
    ] = True,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Time the stages here, for the card.")
    ] = True,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a bundle: a folder that classifies images without PyTorch.

    One ONNX graph for each exit that the policy can use, the policy, labels, preprocessing, a card
    and the Python file that runs it all with numpy, onnxruntime and Pillow. The bundle is compared
    with PyTorch on the whole test split, or on random numbers where the data are not at hand.

    \b
    Example:
      offramp calibrate two-stage-resnet18-cifar10-s42 --max-accuracy-loss 0.01
      offramp export two-stage-resnet18-cifar10-s42 --policy policy.json --out bundle
      python bundle/run.py photo.png
    """
    from offramp.cli import exporting, inspecting
    from offramp.deploy.export import Asked

    asked = Asked(None if root is None else str(root), check, measure, force)
    exporting.start(inspecting.opened(store), trial, policy, out, asked, json, quiet)
