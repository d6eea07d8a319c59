"""What claims, orders and advice find in stores whose truth is known. Fixed generators."""

from functools import cache
from itertools import product

import numpy as np
import pandas as pd
import pytest

from longer import long
from offramp.analysis.claims import Claim, check, index, judge
from offramp.analysis.measures import MEASURES, Numbers, find_measure, numbers, observations
from offramp.analysis.recommend import Facts, Goal, Preference, recommend
from offramp.analysis.stats import Analysis, Columns, OverBlocks, analyze
from offramp.paper import FAMILIES
from offramp.report.claims import published
from offramp.report.figures.significance import edges
from offramp.report.tables.common import COSTS
from simulate import CIFAR100, NINE, Planted, tidy_table

STORES = 16


def most(stores: int) -> float:
    """5 % and three standard errors: 15.3 % of 40 stores."""
    return float(0.05 + 3 * np.sqrt(0.05 * 0.95 / stores))


PLANTED = Planted(
    accuracy={"distillation": 60, "joint": 30, "branch-wise": -60},
    seconds={"two-stage": -60},
    curves={"distillation": -8},
    meters={"joint": 60},
)
# Everything else in the file is a comparison of equals in at least one part, none against it.
TRUE = {
    "distillation-least-loss-first",
    "distillation-peaks-first",
    "distillation-most-accurate",
    "joint-second-in-accuracy",
    "accurate-early-exits",
    "branch-wise-weak-early-exits",
    "two-stage-weak-early-exits",
    "branch-wise-lowest-final-accuracy",
    "distillation-highest-final-accuracy",
    "distillation-ahead-of-joint",
    "two-stage-fastest",
    "joint-most-gpu-memory",
    "joint-most-cpu-memory",
    "joint-most-gpu-power",
    "joint-most-cpu-power",
}
FALSE = {
    "joint-least-gpu-memory",
    "joint-least-cpu-memory",
    "joint-least-gpu-power",
    "joint-least-energy",
    "distillation-most-gpu-memory",
    "distillation-most-gpu-power",
    "distillation-most-cpu-memory",
    "joint-least-cpu-power",
    "distillation-most-cpu-power",
    "exits-apart-more-cpu-power",
    "joint-hybrids-better-late-exits",  # joint, a parent, is better
    "hybrids-most-accurate",  # distillation is
    "hybrids-close-to-joint",
    "joint-close-to-distillation",
    "separate-branch-wise-more-memory",
    *(
        f"exits-less-{what}-than-plain"
        for what in ("gpu-power", "cpu-power", "gpu-memory", "cpu-memory")
    ),
}


@cache
def planted() -> pd.DataFrame:
    return tidy_table(8, PLANTED, epochs=30)


def advice(table: pd.DataFrame, goal: Goal) -> dict[str, set[str]]:
    """Who comes first and who is told apart from it."""
    (actual,) = recommend(Facts(numbers(table), {}), Preference(goal))
    behind = {r.name for r in actual.ranking if r.behind}
    return {"first": {r.name for r in actual.first}, "behind": behind}


def test_claims_find_what_was_planted_and_nothing_else() -> None:
    actual = check(published(), planted(), CIFAR100, families=FAMILIES)
    assert {o.claim.id for o in actual if o.verdict == "supported"} == TRUE
    assert {o.claim.id for o in actual if o.verdict == "contradicted"} == FALSE


def compared(table: pd.DataFrame) -> Analysis:
    """All strategies by test accuracy, mean over exits."""
    rows = observations(table, MEASURES["accuracy-test"])
    columns = Columns("value", "strategy", "seed", "source", "measured")
    return analyze(rows[rows["exit"].isna()], columns)


def test_orders_and_graphs_find_what_was_planted() -> None:
    actual = compared(planted())
    assert isinstance(actual.over_blocks, OverBlocks)
    order = actual.over_blocks.order
    first, second, *middle, last = order.groups
    assert (first, second, last) == ("distillation", "joint", "branch-wise")
    assert order.signs == (">>", ">>", "≈", "≈", "≈", "≈", ">>")
    above = {*product([first, second], [*middle, last]), (first, second), *product(middle, [last])}
    assert {(edge.winner, edge.loser) for edge in edges(actual, "higher")} == above
    assert edges(compared(tidy_table(8, epochs=2)), "higher") == []


def test_advice_finds_what_was_planted() -> None:
    others = set(NINE) - {"baseline"}
    for goal, best in (("accuracy", {"distillation"}), ("training-time", {"two-stage"})):
        assert advice(planted(), goal) == {"first": best, "behind": others - best}
    assert advice(planted(), "memory") == {"first": others - {"joint"}, "behind": {"joint"}}


def test_estimated_costs_are_never_findings() -> None:
    table = tidy_table(7, PLANTED, measured=False)
    actual = [
        o
        for o in check(published(), table, CIFAR100, families=FAMILIES)
        if find_measure(o.claim.measure) in COSTS
    ]
    assert {o.verdict for o in actual} == {"not testable here"}
    assert advice(table, "training-time")["behind"] == set()


@cache
def null(stores: int = STORES) -> Numbers:
    """Stores without any effect, one a data set: seeds share luck, families a backbone."""
    pairs = [("resnet50", f"chest-{i:03d}") for i in range(stores)]
    return numbers(tidy_table(2, pairs=pairs, epochs=6))


def strict(claims: tuple[Claim, ...]) -> list[Claim]:
    """Those that are false where all are equal: neither of likeness, nor with a margin for what may be
    lacking."""
    return [claim for claim in claims if claim.margin >= 0 and claim.is_ != "within"]


@pytest.mark.parametrize("stores", [STORES, *long(40)])
def test_claims_find_nothing_where_nothing_is(stores: int) -> None:
    claims = strict(tuple(published(anywhere=True)))
    whole = null(stores)
    tables = {
        name: dict(list(observations(whole, MEASURES[name]).groupby("data")))
        for name in sorted({claim.measure for claim in claims})
    }
    nothing = pd.DataFrame(columns=list(next(iter(tables["accuracy-test"].values())).columns))
    false, tested = 0, 0
    for data in sorted(whole.trials["data"].unique()):
        indices = {
            name: index(name, t.get(data, nothing), NINE, families=FAMILIES)
            for name, t in tables.items()
        }
        actual = judge(claims, indices)
        false += any(o.verdict in ("supported", "contradicted") for o in actual)
        tested += sum(o.p is not None for o in actual)
    assert tested / stores > 40  # most of the file is tested in every store
    assert false / stores <= most(stores)


@pytest.mark.parametrize("stores", [STORES, *long(40)])
def test_advice_and_orders_find_nothing_where_nothing_is(stores: int) -> None:
    facts = Facts(null(stores), {})
    actual = recommend(facts, Preference("accuracy"))
    assert len(actual) == stores
    # The same pairwise tests stand behind orders and graphs.
    assert sum(any(r.behind for r in first.ranking) for first in actual) / stores <= most(stores)


def test_the_control_would_notice_unadjusted_tests() -> None:
    # Without Holm's adjustment the same stores are full of findings.
    claims = strict(tuple(published(anywhere=True)))
    rows = observations(null(), MEASURES["accuracy-test"])
    first = rows["data"].unique()[:60]
    ours = [claim for claim in claims if claim.measure == "accuracy-test"]
    false = 0
    for data in first:
        indices = {
            "accuracy-test": index("accuracy-test", rows[rows["data"] == data], NINE, families=FAMILIES)
        }
        false += any(p is not None and p < 0.05 for p in (judge([c], indices)[0].p for c in ours))
    assert false / len(first) > most(len(first))
