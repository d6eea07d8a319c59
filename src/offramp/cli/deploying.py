"""Commands that turn a trained network into one that is cheaper to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.options import RUNS, JsonOption, QuietOption, SetOption, StoreOption, TrustOption


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
    trust: TrustOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make a bundle, which needs no PyTorch.

    One ONNX graph for each exit that the policy can use, the policy, labels, preprocessing, a card
    and the Python file that runs it all with numpy, onnxruntime and Pillow. The bundle is compared
    with PyTorch on the whole test split, or on random numbers where the data are not at hand.

    \b
    Example:
      offramp calibrate two-stage-resnet18-cifar10-s42 --risk 0.01
      offramp export two-stage-resnet18 --policy policy.json --out bundle
      python bundle/run.py photo.png
    """
    from offramp.bundle.export import Asked
    from offramp.cli import exporting, inspecting
    from offramp.cli.trusting import trusted

    kept = inspecting.opened(store)
    trust_code = trusted(kept, kept.find_trial(trial), trust, data=check)
    asked = Asked(None if root is None else str(root), check, measure, force, trust_code)
    exporting.start(kept, trial, policy, out, asked, json, quiet)


def build(
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="A network: resnet18, timm/NAME or my.py:make_net.")
    ],
    data: Annotated[
        str, typer.Option(metavar="NAME", help="folder:path/to/images, cifar10:path or digits.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The bundle's folder, a new one.")],
    exits: Annotated[
        str, typer.Option(metavar="auto|N|NAMES", help="Spread by MACs, how many, or places a,b.")
    ] = "auto",
    max_accuracy_loss: Annotated[
        float | None,
        typer.Option(help="Accuracy to give up: 0.01 is one point, the default."),
    ] = None,
    max_mean_macs: Annotated[
        str | None, typer.Option(help="Instead: MACs an image, 40% of the plain network or 1.5M.")
    ] = None,
    risk: Annotated[
        float | None, typer.Option(help="Instead: with a guarantee, see offramp calibrate --risk.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|imagenet", help="What the backbone starts from: .safetensors, .pth, public."
        ),
    ] = None,
    keep_frozen: Annotated[
        bool,
        typer.Option("--keep-frozen", help="Train heads only: the final answer stays, to the bit."),
    ] = False,
    goal: Annotated[
        str,
        typer.Option(
            help="What matters most: accuracy, latency, training-time, memory, energy or balanced."
        ),
    ] = "accuracy",
    evidence: Annotated[
        Path | None,
        typer.Option(
            metavar="STORE",
            help="Runs of this backbone that the strategy is chosen from; else the paper's guidelines.",
        ),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="This one, whatever the goal says.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pixels a side; by default from the images.")
    ] = None,
    normalize: Annotated[
        str | None,
        typer.Option(
            metavar="train|imagenet", help="Whose mean and deviation pixels are normalized by."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of weights, order and dropout.")] = 42,
    store: StoreOption = RUNS / "build",
    set_: SetOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show data, exits, strategy, work and target; start nothing."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """From a backbone and images to a bundle, in one go.

    Places exits, chooses a strategy, trains, calibrates and exports; what it chose, and why, is
    printed first. Interrupt it whenever you like: the same command goes on.

    \b
    Examples:
      offramp build --backbone resnet18 --data folder:photos --out bundle
      offramp build --backbone resnet18 --data folder:photos --out bundle \\
        --weights mine.pth --keep-frozen --normalize imagenet
      offramp build --backbone digits-cnn --data digits --out bundle
    """
    from offramp.cli import building, calibrating
    from offramp.study.build import Wish

    if max_accuracy_loss is None and max_mean_macs is None and risk is None:
        max_accuracy_loss = 0.01
    wanted = {"max-accuracy-loss": max_accuracy_loss, "max-mean-macs": max_mean_macs, "risk": risk}
    target = calibrating.Asked(wanted, None, on_average=False, without_labels=False)
    known = building.chosen_from(evidence, goal, backbone, keep_frozen) if evidence else None
    wish = Wish(
        backbone,
        data,
        exits,
        weights,
        keep_frozen,
        building.checked(goal),
        strategy,
        known,
        size,
        normalize,
        seed,
        tuple(set_ or ()),
    )
    building.start(wish, building.Goal(target, out, force), store, dry_run, json, quiet)
