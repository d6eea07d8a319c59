"""Advice on networks whose truth is known: who leads, at which compute, how sure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from answers import DATA, FOUR, MODEL, NAMES, Skill, answers, better, crossing, equal, facts
from longer import long
from offramp.analysis.measures import numbers
from offramp.analysis.recommend import (
    GOALS,
    Advice,
    Facts,
    Goal,
    Preference,
    recommend,
    sure,
)
from offramp.analysis.recommend.equal import crossings, equal_compute
from offramp.analysis.recommend.goals import DEARER, UNSHARED, WITHIN, default_target, reach
from offramp.analysis.stats.pairwise import Pair
from offramp.analysis.stats.sequential import InterimAnalyses
from offramp.paper.guidelines import guidelines
from offramp.study.plan import programs
from simulate import Planted, tidy_table

pytestmark = pytest.mark.slow

BETTER = Skill(shift={"joint": 0.6})
CHEAPER = Skill(macs={"joint": (0.4e6, 0.8e6, 1.2e6, 4e6)})


def one(goal: Goal, known: Facts, **wish: object) -> Advice:
    (found,) = recommend(known, replace(Preference(goal), **wish))  # type: ignore[arg-type]
    return found


def names(found: Advice) -> list[str]:
    return [ranked.name for ranked in found.ranking]


def out(found: Advice) -> dict[str, str]:
    return {ruled.name: ruled.why for ruled in found.ruled_out}


def kinds(found: Advice) -> dict[str, str]:
    return {ruled.name: ruled.kind for ruled in found.ruled_out}


def from_table(planted: Planted = Planted(), **more: object) -> Facts:  # noqa: B008  # frozen
    table = tidy_table(3, planted, strategies=("baseline", *FOUR[:3]), **more)  # type: ignore[arg-type]
    return Facts(numbers(table), {}, frozenset({"baseline", "two-stage"}))


# Equal compute


def test_who_is_better_everywhere_leads_everywhere() -> None:
    found = equal_compute(better(), DATA, NAMES)
    assert [level.leading for level in found] == [("joint",)] * 5
    assert crossings(found) == []
    assert found[0].macs == 1e6 and found[-1].macs == 4e6


def test_curves_that_cross_are_told_as_crossing() -> None:
    found = equal_compute(crossing(), DATA, NAMES)
    assert found[0].leading == ("separate",) and found[-1].leading == ("joint",)
    assert ("joint", "separate") in crossings(found)


@pytest.mark.parametrize("draws", [6, *long(200)])
def test_equal_networks_are_not_told_apart(draws: int) -> None:
    """At most 5 % of stores of equals have a finding at any level; over seeds alone many more."""
    false, alone = 0, 0
    for seed in range(draws):
        known = facts(seed, FOUR, images=300, seeds=12, taste=0.6)
        found = equal_compute(known, DATA, NAMES)
        false += any(len(level.leading) < 4 for level in found)
        unshared = {key: replace(a, images="") for key, a in known.answers.items()}
        blind = equal_compute(Facts(known.numbers, unshared), DATA, NAMES)
        alone += any(len(level.leading) < 4 for level in blind)
    assert false / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    assert alone / draws > 0.3  # control: one draw of images decides


def test_levels_are_adjusted_over_all_of_them() -> None:
    found = equal_compute(equal(), DATA, NAMES)
    assert all(isinstance(p, Pair) and (p.p >= 0.05 or not p.low <= 0 <= p.high) for p in found[2].pairs)
    assert equal_compute(facts(1, FOUR, images=30), DATA, NAMES)[2].pairs[0].p == 1.0  # type: ignore[union-attr]


# Few MACs


def test_latency_is_the_compute_that_an_accuracy_takes() -> None:
    known = facts(1, FOUR, CHEAPER, images=4000)
    found = one("latency", known, min_accuracy=0.7)
    first = found.ranking[0]
    assert first.name == "joint" and found.at == first.mean
    assert first.accuracy == pytest.approx(0.7, abs=0.002)
    assert first.low is not None and first.high is not None and first.low < first.mean < first.high
    assert [r.behind for r in found.ranking] == [None, True, True, True]
    curves = [known.answers[MODEL, DATA, "separate", 42 + k] for k in range(5)]
    needed = next(r.mean for r in found.ranking if r.name == "separate")
    assert np.mean([a.accuracy(needed) for a in curves]) == pytest.approx(0.7, abs=0.003)
    assert first.mean < needed


def test_equal_accuracy_and_compute_are_not_told_apart() -> None:
    found = one("latency", facts(2, FOUR), min_accuracy=0.6)
    assert [r.behind for r in found.ranking[1:]] == [False] * 3
    assert sure(found) == "no significant difference from any other with 5 seeds"
    assert found.detectable is not None and 0.01 < found.detectable < 0.1


def test_who_cannot_reach_a_target_is_out_only_when_that_is_shown() -> None:
    known = better()
    below = one("latency", known, min_accuracy=0.85)
    clear = out(below)
    assert set(kinds(below).values()) == {"below the target"} and not below.none_left
    assert set(clear) == {"two-stage", "separate", "distillation"}
    assert all(why.startswith("it reaches 7") and "of 85.0 %" in why for why in clear.values())
    near = reach([known.answers[MODEL, DATA, "separate", 42 + k] for k in range(5)], 0.99)
    assert near is not None and near.best[2] is not None
    open_ = one("latency", known, min_accuracy=near.best[2] - 0.001)
    assert kinds(open_)["separate"] == "perhaps below"
    assert out(open_)["separate"].startswith("not shown either way: it reaches")


def test_who_cannot_answer_for_as_little_as_the_first_is_named() -> None:
    found = one("latency", facts(1, FOUR, CHEAPER, images=300), min_accuracy=0.55)
    assert names(found) == ["joint"] and found.at is not None and found.at < 1e6
    assert out(found) == dict.fromkeys(("two-stage", "separate", "distillation"), DEARER.text)
    assert set(kinds(found).values()) == {"dearer"}
    assert sure(found) == "no other can be used so"


def test_the_target_is_by_default_a_point_less_than_the_best_final_exit() -> None:
    known = equal()
    of = known.of(DATA, NAMES)
    best = max(np.mean([a.right[:, -1].mean() for a in seeds.values()]) for seeds in of.values())
    assert default_target(of) == pytest.approx(best - 0.01)
    assert one("latency", known).target == pytest.approx(best - 0.01)
    assert one("accuracy", known).target is None


def test_a_budget_compares_at_equal_compute() -> None:
    found = one("accuracy", crossing(), max_macs=3.5e6)
    assert names(found)[0] == "joint" and [r.behind for r in found.ranking[1:]] == [True] * 3
    cheap = one("accuracy", crossing(), max_macs=1e6)
    assert names(cheap)[0] == "separate"
    none = one("accuracy", equal(), max_macs=10.0)
    assert names(none) == [] and set(out(none).values()) == {WITHIN.text} and none.none_left


# The other goals


def test_accuracy_is_the_mean_over_exits() -> None:
    known = better()
    found = one("accuracy", known)
    rows = [known.answers[MODEL, DATA, "joint", 42 + k].right.mean() for k in range(5)]
    assert found.ranking[0].name == "joint" and found.ranking[0].mean == pytest.approx(np.mean(rows))
    assert [r.behind for r in found.ranking] == [None, True, True, True]
    assert sure(found).startswith("better than every other, p at most")
    assert one("accuracy", equal()).ranking[1].behind is False


def test_a_small_test_split_shows_nothing() -> None:
    few = one("accuracy", facts(1, FOUR, Skill(shift={"joint": 0.05}), images=40))
    assert all(r.behind is False for r in few.ranking[1:])
    assert few.detectable is not None and few.detectable > 0.1


def test_the_baseline_is_out() -> None:
    assert out(one("accuracy", from_table())) == {"baseline": "it has no early exits"}


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_give_no_recommendation(seeds: int) -> None:
    found = one("accuracy", facts(1, FOUR, BETTER, seeds=seeds))
    assert found.withheld is not None and "too few for a recommendation" in found.withheld
    if seeds == 2:
        assert "a difference of half a point" in found.withheld
    assert one("accuracy", facts(1, FOUR, BETTER, seeds=3)).withheld is None


def test_the_seeds_that_are_asked_for_suffice() -> None:
    found = one("accuracy", facts(4, FOUR, seeds=2, luck=0.02, taste=0.0, images=40_000))
    assert found.withheld is not None
    asked = int(found.withheld.split("about ")[1].split(",")[0])
    assert 3 <= asked <= 200
    few = one("accuracy", facts(4, FOUR, seeds=2, images=300))
    assert few.withheld is not None
    assert "no number of seeds shows a difference of half a point on these" in few.withheld


def test_a_frozen_backbone_leaves_those_that_train_heads_only() -> None:
    found = one("training-time", from_table(), frozen_backbone=True)
    assert names(found) == ["two-stage"]
    assert out(found)["joint"] == "it trains the backbone's weights"
    assert sure(found) == "no other can be used so"
    assert any("training the backbone" in note for note in found.notes)


def test_where_time_is_an_estimate_macs_stand_for_it() -> None:
    """An estimate goes by what else the machine did: joint was the quickest on a calm one."""
    table = tidy_table(1, Planted(seconds={"joint": -60}), strategies=FOUR, measured=False)
    written = table["metric"] == "macs_written"
    cheap = written & (table["strategy"] == "two-stage")
    table.loc[cheap, "value"] *= 0.5
    found = one("training-time", Facts(numbers(table), {}))
    assert found.measure.name == "macs-written" and names(found)[0] == "two-stage"
    assert [r.behind for r in found.ranking] == [None] * len(found.ranking)
    assert sure(found) == "estimated, not tested" and found.estimated
    assert any("multiply-accumulates stand for it" in note for note in found.notes)


def test_balanced_weighs_all_that_was_measured() -> None:
    known = facts(1, FOUR, BETTER, Planted(seconds={"joint": -60}))
    found = one("balanced", known)
    assert names(found)[0] == "joint" and found.ranking[0].mean < 0.5
    note = found.notes[0]
    assert "Test accuracy, Mean MACs of an image, Training time" in note and "GPU memory" in note
    assert "Training compute" in one("balanced", from_table(measured=False)).notes[0]


def test_a_balance_counts_the_seeds_that_all_have() -> None:
    table = tidy_table(3, strategies=FOUR[:2])
    early, joint = table["seed"] < 45, table["strategy"] == "joint"
    chosen = (early, early | joint, early == joint)
    even, more, apart = (one("balanced", Facts(numbers(table[some]), {})) for some in chosen)
    assert even.ranking and [r.mean for r in even.ranking] == [r.mean for r in more.ranking]
    assert names(apart) == [] and set(out(apart).values()) == {UNSHARED.text}


def test_without_readings_there_is_no_ranking() -> None:
    table = tidy_table(3, strategies=FOUR)
    bare = table[~table["metric"].str.startswith("memory")]
    found = one("memory", Facts(numbers(bare), {}))
    assert (found.ranking, found.untested) == ((), "there are no values of memory-gpu-max")
    cpu = table[table["metric"] != "memory_gpu_peak_bytes"]
    assert one("memory", Facts(numbers(cpu), {})).measure.name == "memory-cpu-max"
    assert one("latency", Facts(numbers(table), {})).ranking == ()


def test_networks_are_ranked_too_and_data_sets_apart() -> None:
    pairs = [("resnet50", "cifar100"), ("vgg16", "cifar100"), ("vgg16", "cifar10")]
    table = tidy_table(4, strategies=("joint", "separate"), pairs=pairs)
    small, large = recommend(Facts(numbers(table), {}), Preference("accuracy"))
    assert (small.data, large.data) == ("cifar10", "cifar100")
    assert sorted(names(small)) == ["joint", "separate"]
    both = [f"{s} on {m}" for s in ("joint", "separate") for m in ("resnet50", "vgg16")]
    assert sorted(names(large)) == both


def test_all_networks_pay_for_the_looks_of_one() -> None:
    pairs = [(MODEL, DATA), ("vgg16", DATA)]
    table = tidy_table(4, Planted(accuracy={"joint": 9}), strategies=("joint", "separate"), pairs=pairs)
    rule = InterimAnalyses(tuple(map(str, range(42, 62))), 3)
    known = Facts(numbers(table), {})
    looked = replace(known, looks={(MODEL, DATA): rule})
    every = replace(known, looks=dict.fromkeys(pairs, rule))
    fixed, paid, all_paid = (one("accuracy", f).ranking[-1].p for f in (known, looked, every))
    assert fixed != paid == all_paid is not None
    both = [(model, "joint") for model, _ in pairs]
    assert looked.looked(DATA, both) == looked.looked(DATA, both[:1]) == rule
    assert looked.looked("others", both) is known.looked(DATA, both) is None
    shorter = InterimAnalyses(rule.order[:12], 3)
    several = replace(known, looks={(MODEL, DATA): rule, ("vgg16", DATA): shorter})
    assert several.looked(DATA, both) == several.looked(DATA, both[::-1]) == rule


def test_identical_strategies_are_one_entry() -> None:
    table = tidy_table(3, strategies=("joint", "two-stage", "separate"))
    own = table["strategy"] == "two-stage"
    twin = table[own].assign(strategy="separate", trial=table.loc[own, "trial"] + "x")
    both = pd.concat([table[table["strategy"] != "separate"], twin])
    found = one("accuracy", Facts(numbers(both), {}))
    assert sorted(names(found)) == ["joint", "separate = two-stage"]
    made = answers(1, FOUR)
    for k in range(5):
        made[MODEL, DATA, "separate", 42 + k] = made[MODEL, DATA, "two-stage", 42 + k]
    level = equal_compute(Facts(numbers(table), made), DATA, NAMES)[0]
    assert "separate = two-stage" in level.means


def test_seeds_with_images_of_their_own_are_tested_over_seeds() -> None:
    known = better()
    own = {key: replace(a, images=f"split {key[3]}") for key, a in known.answers.items()}
    found = one("accuracy", Facts(known.numbers, own))
    assert found.ranking[1].p != one("accuracy", known).ranking[1].p


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


def test_what_is_advised_for_fixed_weights_can_keep_them() -> None:
    for goal in GOALS:
        found, more = guidelines(goal, True)
        for name in (name for g in found for name in g.strategies):
            assert "backbone" in {option.name for option in programs.options(programs.find(name))}
        assert "backbone: kept" in more[0]


def test_guidelines_for_a_balance_on_fixed_weights() -> None:
    found, more = guidelines("balanced", True)
    assert [g.strategies for g in found] == [("two-stage",)]
    assert "pretrained-branch" in found[0].text and found[0].section == "5.4"
    assert not any("distillation" in g.strategies for g in found)
    assert more[0].startswith("Our own rule")
