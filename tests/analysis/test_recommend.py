"""Advice on tables and operating points made by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from offramp.analysis.measures import numbers
from offramp.analysis.recommend import (
    GOALS,
    POINTS,
    Advice,
    Facts,
    Goal,
    Preference,
    guidelines,
    recommend,
    sure,
)
from offramp.analysis.recommend.goals import best_accuracy, cheapest, default_target
from simulate import Planted, tidy_table

STRATEGIES = ("baseline", "joint", "two-stage", "separate")
NOISE = np.array([0.0, 0.002, -0.001, 0.001, -0.003])


def points(accuracies: dict[str, dict[str, tuple[float, float]]]) -> pd.DataFrame:
    """By strategy and point: MACs and accuracy; every seed adds its noise to the accuracy."""
    rows = [
        ("resnet50", "cifar100", strategy, 42 + k, point, macs, *([accuracy + noise] * 2), strategy)
        for strategy, by_point in accuracies.items()
        for point, (macs, accuracy) in by_point.items()
        for k, noise in enumerate(NOISE)
    ]
    return pd.DataFrame(rows, columns=list(POINTS))


POINTS_HERE = points(
    {
        "baseline": {"exit 4": (100.0, 0.80)},
        "joint": {"exit 1": (20.0, 0.70), "confidence >= 0.8": (50.0, 0.80), "exit 4": (110.0, 0.81)},
        "two-stage": {"exit 1": (20.0, 0.60), "exit 4": (105.0, 0.80)},
        "separate": {"exit 1": (20.0, 0.65), "exit 4": (200.0, 0.78)},
    }
)


def facts(planted: Planted = Planted(), **more: object) -> Facts:  # noqa: B008  # frozen
    table = tidy_table(3, planted, strategies=STRATEGIES, **more)  # type: ignore[arg-type]
    return Facts(numbers(table), POINTS_HERE, frozenset({"baseline", "two-stage"}))


def one(goal: Goal, known: Facts | None = None, **wish: object) -> Advice:
    (found,) = recommend(known or facts(), replace(Preference(goal), **wish))  # type: ignore[arg-type]
    return found


def names(found: Advice) -> list[str]:
    return [ranked.name for ranked in found.ranking]


def out(found: Advice) -> dict[str, str]:
    return {ruled.name: ruled.why for ruled in found.ruled_out}


def test_accuracy_is_the_mean_over_exits_and_the_baseline_is_out() -> None:
    found = one("accuracy", facts(Planted(accuracy={"joint": 60})))
    assert names(found)[0] == "joint"
    assert [r.behind for r in found.ranking] == [None, True, True]
    assert out(found) == {"baseline": "it has no early exits"}
    assert sure(found).startswith("better than every other, p at most")


def test_no_significant_difference_is_said() -> None:
    found = one("accuracy")
    assert [r.behind for r in found.ranking[1:]] == [False, False]
    assert sure(found) == "no significant difference from any other with 5 seeds"
    some = one("accuracy", facts(Planted(accuracy={"joint": 60, "separate": 60})))
    assert {r.name for r in some.first} == {"joint", "separate"}
    assert sure(some).startswith("no significant difference from ")


def test_accuracy_within_a_budget_chooses_where_to_leave() -> None:
    found = one("accuracy", max_macs=60.0)
    assert [(r.name, r.use) for r in found.ranking] == [
        ("joint", "confidence >= 0.8"),
        ("separate", "exit 1"),
        ("two-stage", "exit 1"),
    ]
    assert names(one("accuracy", max_macs=10.0)) == []
    assert out(one("accuracy", max_macs=10.0))["joint"] == "it cannot answer within these MACs"


def test_latency_is_the_cheapest_way_to_an_accuracy() -> None:
    found = one("latency", min_accuracy=0.79)
    assert [(r.name, r.use, r.mean) for r in found.ranking] == [
        ("joint", "confidence >= 0.8", 50.0),
        ("two-stage", "exit 4", 105.0),
    ]
    assert found.ranking[1].behind  # counted MACs, more in every seed
    assert found.ranking[0].accuracy == pytest.approx(0.80, abs=0.001)
    assert found.target == 0.79
    assert one("accuracy").target is None
    assert out(found)["separate"] == "it reaches 78.0 % at most"


def test_latency_without_a_target_takes_a_point_less_than_the_best_final_exit() -> None:
    assert default_target(POINTS_HERE) == pytest.approx(0.81 + NOISE.mean() - 0.01)
    found = one("latency")
    assert "80.0 % (a point less than the best final exit)" in found.notes[0]
    assert names(found) == ["joint", "two-stage"]
    assert "it reaches 78.0 % at most, of 80.0 %" in out(found)["separate"]


def test_equal_macs_are_the_same_and_the_more_accurate_comes_first() -> None:
    found = one("latency", min_accuracy=0.59)
    assert names(found) == ["joint", "separate", "two-stage"]
    assert [r.behind for r in found.ranking[1:]] == [False, False]


def test_a_frozen_backbone_leaves_those_that_train_heads_only() -> None:
    found = one("training-time", frozen_backbone=True)
    assert names(found) == ["two-stage"]
    assert out(found)["joint"] == "it trains the backbone's weights"
    assert sure(found) == "there is nothing to compare it with"
    assert any("training the backbone" in note for note in found.notes)


def test_estimates_are_ranked_and_not_tested() -> None:
    found = one("training-time", facts(Planted(seconds={"joint": -60}), measured=False))
    assert names(found)[0] == "joint"
    assert [r.behind for r in found.ranking] == [None, None, None]
    assert sure(found) == "estimated, not tested"


def test_one_seed_is_ranked_and_not_tested() -> None:
    assert sure(one("accuracy", facts(seeds=1))).startswith("not tested: there is no more than one seed")


def test_balanced_weighs_all_that_was_measured() -> None:
    found = one("balanced", facts(Planted(accuracy={"joint": 60}, seconds={"joint": -60})))
    assert names(found)[0] == "joint"
    assert found.ranking[0].mean < 0.5
    note = found.notes[0]
    assert "Test accuracy, Mean MACs of an image, Training time" in note and "GPU memory" in note
    estimated = one("balanced", facts(measured=False))
    assert "Training compute" in estimated.notes[0]


def test_without_readings_there_is_no_ranking() -> None:
    table = tidy_table(3, strategies=STRATEGIES)
    bare = table[~table["metric"].str.startswith("memory")]
    found = one("memory", Facts(numbers(bare), POINTS_HERE))
    assert (found.ranking, found.untested) == ((), "there are no values of memory-gpu-max")
    cpu = table[table["metric"] != "memory_gpu_peak_bytes"]
    assert one("memory", Facts(numbers(cpu), POINTS_HERE)).measure.name == "memory-cpu-max"


def test_networks_are_ranked_too_and_data_sets_apart() -> None:
    pairs = [("resnet50", "cifar100"), ("vgg16", "cifar100"), ("vgg16", "cifar10")]
    table = tidy_table(4, strategies=("joint", "separate"), pairs=pairs)
    small, large = recommend(Facts(numbers(table), POINTS_HERE), Preference("accuracy"))
    assert (small.data, large.data) == ("cifar10", "cifar100")
    assert sorted(names(small)) == ["joint", "separate"]
    both = [f"{s} on {m}" for s in ("joint", "separate") for m in ("resnet50", "vgg16")]
    assert sorted(names(large)) == both


def test_identical_strategies_are_one_entry() -> None:
    table = tidy_table(3, strategies=("joint", "two-stage", "separate"))
    own = table["strategy"] == "two-stage"
    twin = table[own].assign(strategy="separate", trial=table.loc[own, "trial"] + "x")
    both = pd.concat([table[table["strategy"] != "separate"], twin])
    found = one("accuracy", Facts(numbers(both), POINTS_HERE))
    assert sorted(names(found)) == ["joint", "separate = two-stage"]


def test_operating_points_by_hand() -> None:
    assert best_accuracy(POINTS_HERE, 30.0) == pytest.approx(0.70 + NOISE.mean())
    assert best_accuracy(POINTS_HERE, 1.0) is None
    chosen = cheapest(POINTS_HERE, 0.77, None)
    expected = dict.fromkeys(STRATEGIES, "exit 4") | {"joint": "confidence >= 0.8"}
    assert {s: choice.use for (_, s), choice in chosen.items()} == expected


def test_guidelines_answer_every_goal() -> None:
    for goal in GOALS:
        for frozen in (False, True):
            found, more = guidelines(goal, frozen)
            assert found and all(goal in g.goals for g in found)  # none stands in for another goal
            assert len(more) >= 3
            assert all(g.heads_only for g in found) or not frozen
            known = {name for g in found for name in g.strategies}
            assert known & {"two-stage", "distillation"} or not frozen  # which offramp build trains
    assert guidelines("accuracy")[0][0].strategies == ("distillation",)
    assert guidelines("training-time")[0][0].strategies == ("two-stage",)


def test_guidelines_for_a_balance_on_fixed_weights() -> None:
    found, more = guidelines("balanced", True)
    assert [g.strategies for g in found] == [("pretrained-branch", "two-stage")]
    assert "scope: head" in found[0].section and "5.4" in found[0].section
    assert not any("distillation" in g.strategies for g in found)
    assert more[0].startswith("Our own rule")
