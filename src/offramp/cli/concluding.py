"""Commands that draw conclusions from a store: findings tested, advice."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offramp.cli.options import RUNS, JsonOption
from offramp.cli.reporting import ResultsArgument, StudyOption


def claims(
    store: ResultsArgument = RUNS,
    file: Annotated[
        Path | None, typer.Option("--claims", metavar="FILE", help="Your own claims, not the paper's.")
    ] = None,
    study: StudyOption = None,
    only: Annotated[
        str | None, typer.Option(metavar="ID", help="One claim, with all of its comparisons.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Test the paper's findings, or your own, against a store.

    Each claim is supported, contradicted, not significant, identical by construction, or not testable
    here, and then says what is missing. p is adjusted over all claims of the file.

    \b
    Examples:
      offramp claims runs/demo
      offramp claims runs/demo --only branch-wise-lowest-final-accuracy
      offramp claims runs/demo --claims mine.yaml

    docs/claims.md says how claims are tested and how to write some.
    """
    from offramp.cli import claims as command

    command.claims(store, file, study, only, json)


def recommend(
    store: Annotated[
        Path | None,
        typer.Argument(
            metavar="STORE", help="A store, or results packed by offramp pack.  [default: runs]"
        ),
    ] = None,
    goal: Annotated[
        str, typer.Option(help="accuracy, latency, training-time, memory, energy or balanced.")
    ] = "balanced",
    min_accuracy: Annotated[
        float | None, typer.Option(help="Accuracy that must be reached, as 0.9.")
    ] = None,
    max_macs: Annotated[
        str | None, typer.Option(metavar="N", help="MACs an image may take on average, as 1.5M.")
    ] = None,
    frozen_backbone: Annotated[
        bool, typer.Option("--frozen-backbone", help="The backbone's weights are given and must stay.")
    ] = False,
    study: StudyOption = None,
    json: JsonOption = False,
) -> None:
    """Advise on a strategy and a network for a goal.

    Ranks what a store holds, says what is not separable, and why something is ruled out. Without a
    store it gives the paper's guidelines, and says so.

    \b
    Examples:
      offramp recommend runs/demo --goal accuracy
      offramp recommend runs/demo --goal latency --min-accuracy 0.9
      offramp recommend --goal memory --frozen-backbone

    accuracy: the mean over exits, on test; with --max-macs, of the best place to leave. latency: the
    fewest MACs at which a network still has --min-accuracy, by default a point less than the best
    final exit. balanced: how far from the best, on average over the other goals.
    """
    from offramp.cli import advice

    asked = advice.wish(goal, min_accuracy, max_macs, frozen_backbone)
    advice.recommend_from(store or RUNS, store is not None, asked, study, json)
