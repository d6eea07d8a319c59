"""`offramp export`: from a trial and a policy to a bundle."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from offramp.cli import options
from offramp.cli.options import argument, flag, option
from offramp.cli.render import emit, say
from offramp.cli.store import opened, trusted
from offramp.terminal import show, table
from offramp.units import macs, size


def export(
    trial: Annotated[str, argument("TRIAL", "A trial's id, or the beginning of one.")],
    policy: Annotated[Path, option("FILE", "The policy that offramp calibrate wrote for this trial.")],
    out: Annotated[Path, option("FOLDER", "The bundle's folder, a new one.")],
    store: options.StoreArgument = None,
    store_: options.StoreOption = None,
    root: Annotated[
        Path | None, option("FOLDER", "The folder of the data set's files, if they have moved.")
    ] = None,
    check: Annotated[
        bool, flag("--check/--no-check", "Compare the bundle's answers with PyTorch's.")
    ] = True,
    measure: Annotated[
        bool, flag("--measure/--no-measure", "Time the stages here, for the card.")
    ] = True,
    force: Annotated[bool, flag("--force", "Replace a bundle that is there.")] = False,
    trust: options.TrustOption = None,
    anyway: options.AnywayOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Make a bundle that runs without PyTorch.

    A bundle is a folder: an ONNX graph for each exit that the policy uses, the policy, labels,
    preprocessing, a card, and a Python file that runs all of it with numpy, onnxruntime and Pillow. Its
    answers are compared with PyTorch's on the whole test split, or on random numbers where the data are
    not at hand. Bundles run on the CPU. What `offramp calibrate` would refuse is refused here too.

    \b
    Examples:
      offramp calibrate two-stage-resnet18-cifar10-s42 --risk 0.01
      offramp export two-stage-resnet18 --policy policy.json --out bundle
      python bundle/run.py photo.png
    """
    from offramp.bundle.export import Asked
    from offramp.bundle.export import export as bundled
    from offramp.policy.policy import read

    kept = opened(store, store_)
    trust_code = trusted(kept, kept.find_trial(trial), trust, data=check)
    asked = Asked(None if root is None else str(root), check, measure, force, trust_code, anyway)
    done = told(bundled(kept, trial, read(policy), out, asked), quiet or json)
    if json:
        emit({"bundle": str(done.folder), "card": done.card})
    else:
        describe(done.folder, done.card)


T = TypeVar("T")


def told(steps: Generator[str, None, T], quiet: bool) -> T:
    """Run to the end, each step a line on standard error."""
    from offramp.api.steps import finished

    return finished(steps, None if quiet else lambda step: typer.echo(f"{step} …", err=True))


def describe(folder: Path, made: dict[str, Any]) -> None:
    """What the bundle of that card is, in a table and a few lines."""
    for reason in made["unreliable"]:
        say(f"Unreliable: {reason}.")
    listing = table(["exit"], ["threshold", "leave", "accuracy", "MACs"])
    for exit in made["exits"]:
        listing.add_row(
            str(exit["exit"]) + ("" if exit["in_bundle"] else " (left out)"),
            "–" if exit["threshold"] is None else f"{exit['threshold']:.4g}",
            f"{100 * exit['share_leaving']:.1f} %",
            f"{100 * exit['accuracy']:.1f} %",
            "–" if exit["macs"] is None else macs(exit["macs"]),
        )
    used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    show(listing, f"{made['trial']} in {folder}, {size(used)}")
    for line in _lines(made):
        typer.echo(line)
    typer.echo(f"Run it, without torch: python {folder}/run.py IMAGES")


def _lines(made: dict[str, Any]) -> list[str]:
    test, check, latency = made["test"], made["check"], made["latency"]
    lines = [
        f"Test: {100 * test['accuracy']['value']:.2f} % at "
        f"{100 * test['mean_macs'] / made['plain_macs']:.1f} % of the plain network's MACs; the full "
        f"network {100 * test['full_accuracy']['value']:.2f} %.",
        "Check: left out."
        if check is None
        else f"Check: {check['images']:,} images ({check['what']}), logits within "
        f"{check['largest']:.1e} of PyTorch's, {check['near']} at a threshold.",
    ]
    if "reason" in latency:
        lines.append(f"Time: not measured ({latency['reason']}).")
    else:
        lines.append(
            f"Time: {latency['mean_milliseconds_batch_1']:.2f} ms an image, one at a time, on average."
        )
    return lines
