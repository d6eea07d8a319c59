"""Directed graphs on a simulated store: the planted effects and nothing else."""

from __future__ import annotations

from offramp.analysis.measures import MEASURES, observations
from offramp.analysis.stats import Columns, analyze
from offramp.paper import FAMILIES
from offramp.report.figures.significance import edges
from simulate import Planted, tidy_table


def arrows(planted: Planted) -> set[tuple[str, str]]:
    """Who beats whom in test accuracy among the core strategies, as (better, worse)."""
    rows = observations(tidy_table(8, planted, epochs=2), MEASURES["accuracy-test"])
    rows = rows[rows["exit"].isna()]
    rows = rows[rows["strategy"].isin(FAMILIES.among(set(rows["strategy"]))["core"])]
    analysis = analyze(rows, Columns("value", "strategy", "seed", "source", "measured"))
    return {(edge.winner, edge.loser) for edge in edges(analysis, "higher")}


def test_arrows_are_what_was_planted() -> None:
    order = ["distillation", "joint", ("separate", "two-stage"), "branch-wise"]
    levels = [{level} if isinstance(level, str) else set(level) for level in order]
    expected = {
        (better, worse)
        for i, above in enumerate(levels)
        for below in levels[i + 1 :]
        for better in above
        for worse in below
    }
    planted = Planted(accuracy={"distillation": 60, "joint": 30, "branch-wise": -60})
    assert arrows(planted) == expected


def test_nothing_planted_gives_no_arrow() -> None:
    assert arrows(Planted()) == set()
