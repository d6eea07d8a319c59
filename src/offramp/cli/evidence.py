"""Commands that decide: comparisons, statistics, exit policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.options import (
    RUNS,
    JsonOption,
    StoreOption,
    TrustOption,
)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A strategy's label, or a trial's id.")],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with, of the same kind.")],
    store: StoreOption = RUNS,
    json: JsonOption = False,
) -> None:
    """Compare two strategies, or two trials, at each exit.

    The paired difference in test accuracy, A minus B, with a 95 % interval (Student's t). Two
    strategies are paired seed by seed, two trials image by image: the first says how far the
    difference depends on the seed, the second how far on the test images.

    \b
    Examples:
      offramp compare joint two-stage
      offramp compare joint-digits-cnn-digits-s42 joint-digits-cnn-digits-s43
    """
    from offramp.cli import comparing, inspecting

    comparing.compare(inspecting.archived(store), a, b, json)


def stats(
    file: Annotated[Path, typer.Argument(help="A table of numbers, .csv or .parquet, a row a value.")],
    value: Annotated[str, typer.Option(help="The column of numbers, such as accuracy.")],
    group: Annotated[str, typer.Option(help="The column of what is compared, such as strategy.")],
    block: Annotated[
        str | None, typer.Option(help="The column that pairs the values, such as seed.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN[,COLUMN]", help="Analyze each value of these apart.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="COLUMN=VALUE", help="Keep those rows only. Repeatable."),
    ] = None,
    same: Annotated[
        str | None,
        typer.Option(help="A column of keys: groups with equal ones are identical by construction."),
    ] = None,
    measured: Annotated[
        str | None, typer.Option(help="A column of true or false: estimates are not tested.")
    ] = None,
    families: Annotated[
        bool,
        typer.Option("--families", help="The five core strategies apart, each hybrid with its parents."),
    ] = False,
    better: Annotated[
        str | None,
        typer.Option(metavar="higher|lower", help="Which values are better, for the caption."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Test whether groups differ, in any table of numbers.

    Over blocks (such as seeds) where there are some, and the paper's one-way analysis beside it.

    \b
    Example:
      offramp stats table.csv --value value --group strategy --block seed \\
        --where split=test --where metric=accuracy --where exit=4 --same source

    Works on any table; docs/statistics.md explains the two ways and the notation.
    """
    from offramp.analysis.stats import Columns
    from offramp.cli import statistics

    columns = Columns(value, group, block, same, measured)
    split = [name.strip() for name in (by or "").split(",") if name.strip()]
    statistics.show(file, columns, split, where or [], families, better, json)


def calibrate(
    trial: Annotated[str, typer.Argument(help="A trial's id, or the beginning of one.")],
    store: StoreOption = RUNS,
    max_accuracy_loss: Annotated[
        float | None,
        typer.Option(help="Accuracy to give up against the final exit: 0.01 is one point."),
    ] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Accuracy to keep, as 0.9.")] = None,
    max_mean_macs: Annotated[
        str | None, typer.Option(help="MACs an image on average: 40% of the plain network, or 1.5M.")
    ] = None,
    max_mean_latency: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time an image on average, as 5ms, on this machine."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Images at once, for that time.  [default: 1]"),
    ] = None,
    max_disagreement: Annotated[
        float | None, typer.Option(help="Share of answers that may differ from the final exit's.")
    ] = None,
    risk: Annotated[
        float | None,
        typer.Option(
            help="With a guarantee: share of inputs that the full network has right, the policy wrong."
        ),
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="Of the guarantee, over calibration draws.  [default: 0.95]")
    ] = None,
    on_average: Annotated[
        bool, typer.Option("--on-average", help="Bound the mean risk over calibration draws instead.")
    ] = False,
    without_labels: Annotated[
        bool,
        typer.Option("--without-labels", help="The risk is any answer other than the full network's."),
    ] = False,
    score: Annotated[
        str, typer.Option(help="confidence, entropy, margin, patience or fixed.")
    ] = "confidence",
    shared: Annotated[
        bool, typer.Option("--shared", help="One threshold for all exits, not one per exit.")
    ] = False,
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Fit a temperature per exit, on validation.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The policy file to write.")] = Path("policy.json"),
    trust: TrustOption = None,
    json: JsonOption = False,
) -> None:
    """Choose where each input leaves, with or without a guarantee.

    Writes a policy for a trial. Name one target. Candidates are made on validation, chosen on
    calibration, and reported on test.

    \b
    Examples:
      offramp calibrate two-stage-resnet18-cifar10-s42 --max-accuracy-loss 0.01
      offramp calibrate two-stage-resnet18-cifar10-s42 --risk 0.01
      offramp calibrate two-stage-resnet18-cifar10-s42 --max-mean-latency 5ms
    """
    from offramp.cli import calibrating, inspecting

    wanted = {
        "max-accuracy-loss": max_accuracy_loss,
        "min-accuracy": min_accuracy,
        "max-mean-macs": max_mean_macs,
        "max-mean-latency": max_mean_latency,
        "max-disagreement": max_disagreement,
        "risk": risk,
    }
    asked = calibrating.Asked(wanted, confidence, on_average, without_labels, batch, trust)
    how = calibrating.search(score, shared, temperature, without_labels or max_disagreement is not None)
    calibrating.calibrate(inspecting.opened(store), trial, asked, how, out, json)
