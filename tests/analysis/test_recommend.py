"""Advice on networks whose truth is known: who leads, at which compute, how sure."""

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
from offramp.analysis.recommend.goals import DEARER, WITHIN, default_target, reach, ruled_out
from offramp.analysis.stats.pairwise import Pair
from offramp.analysis.stats.sequential import InterimAnalyses
from offramp.paper.guidelines import guidelines
from offramp.report.advice import sentence
from offramp.study.plan import programs
from simulate import Planted, tidy_table

BETTER = Skill(shift={"joint": 0.6})
CHEAPER = Skill(macs={"joint": (0.4e6, 0.8e6, 1.2e6, 4e6)})


def single_advice(goal: Goal, candidates: Facts, **wish: object) -> Advice:
    (advice,) = recommend(candidates, replace(Preference(goal), **wish))  # type: ignore[arg-type]
    return advice


def names(advice: Advice) -> list[str]:
    return [ranked.name for ranked in advice.ranking]


def out(advice: Advice) -> dict[str, str]:
    return {ruled.name: ruled.why for ruled in advice.ruled_out}


def kinds(advice: Advice) -> dict[str, str]:
    return {ruled.name: ruled.kind for ruled in advice.ruled_out}


def from_table(planted: Planted = Planted(), **more: object) -> Facts:  # noqa: B008  # frozen
    table = tidy_table(3, planted, strategies=("baseline", *FOUR[:3]), **more)  # type: ignore[arg-type]
    return Facts(numbers(table), {}, frozenset({"baseline", "two-stage"}))


# Equal compute


def test_who_is_better_everywhere_leads_everywhere() -> None:
    levels = equal_compute(better(), DATA, NAMES)
    assert [level.leading for level in levels] == [("joint",)] * 5
    assert crossings(levels) == []
    assert levels[0].macs == 1e6 and levels[-1].macs == 4e6


def test_curves_that_cross_are_told_as_crossing() -> None:
    levels = equal_compute(crossing(), DATA, NAMES)
    assert levels[0].leading == ("separate",) and levels[-1].leading == ("joint",)
    assert ("joint", "separate") in crossings(levels)


@pytest.mark.parametrize("draws", [6, *long(200)])
def test_equal_networks_are_not_told_apart(draws: int) -> None:
    """At most 5 % of stores of equals have a finding at any level; over seeds alone many more."""
    false, alone = 0, 0
    for seed in range(draws):
        candidates = facts(seed, FOUR, images=300, seeds=12, taste=0.6)
        levels = equal_compute(candidates, DATA, NAMES)
        false += any(len(level.leading) < 4 for level in levels)
        unshared = {key: replace(a, images="") for key, a in candidates.answers.items()}
        blind = equal_compute(Facts(candidates.numbers, unshared), DATA, NAMES)
        alone += any(len(level.leading) < 4 for level in blind)
    assert false / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    assert alone / draws > 0.3  # control: one draw of images decides


def test_levels_are_adjusted_over_all_of_them() -> None:
    levels = equal_compute(equal(), DATA, NAMES)
    assert all(
        isinstance(p, Pair) and (p.p >= 0.05 or not p.low <= 0 <= p.high) for p in levels[2].pairs
    )
    assert equal_compute(facts(1, FOUR, images=30), DATA, NAMES)[2].pairs[0].p == 1.0  # type: ignore[union-attr]


# Few MACs


def test_latency_is_the_compute_that_an_accuracy_takes() -> None:
    candidates = facts(1, FOUR, CHEAPER, images=4000)
    actual = single_advice("latency", candidates, min_accuracy=0.7)
    first = actual.ranking[0]
    assert first.name == "joint" and actual.at == first.mean
    assert first.accuracy == pytest.approx(0.7, abs=0.002)
    assert first.low is not None and first.high is not None and first.low < first.mean < first.high
    assert [r.behind for r in actual.ranking] == [None, True, True, True]
    curves = [candidates.answers[MODEL, DATA, "separate", 42 + k] for k in range(5)]
    needed = next(r.mean for r in actual.ranking if r.name == "separate")
    assert np.mean([a.accuracy(needed) for a in curves]) == pytest.approx(0.7, abs=1e-9)
    assert first.mean < needed


def test_equal_accuracy_and_compute_are_not_told_apart() -> None:
    actual = single_advice("latency", facts(2, FOUR), min_accuracy=0.6)
    assert [r.behind for r in actual.ranking[1:]] == [False] * 3
    assert sure(actual) == "no significant difference from any other with 5 seeds"
    assert actual.detectable is not None and 0.01 < actual.detectable < 0.1


def test_who_cannot_reach_a_target_is_out_only_when_that_is_shown() -> None:
    candidates = better()
    below = single_advice("latency", candidates, min_accuracy=0.85)
    clear = out(below)
    assert set(kinds(below).values()) == {"below the target"} and not below.none_left
    assert set(clear) == {"two-stage", "separate", "distillation"}
    assert all(why.startswith("it reaches 7") and "of 85.0 %" in why for why in clear.values())
    near = reach([candidates.answers[MODEL, DATA, "separate", 42 + k] for k in range(5)], 0.99)
    assert near is not None and near.best[2] is not None
    open_ = single_advice("latency", candidates, min_accuracy=near.best[2] - 0.001)
    assert kinds(open_)["separate"] == "perhaps below"
    assert out(open_)["separate"].startswith("not shown")


def test_two_seeds_do_not_say_what_a_candidate_reaches() -> None:
    """There is no interval, as nowhere else: two say next to nothing of how much seeds vary."""
    three = [better().answers[MODEL, DATA, "separate", 42 + k] for k in range(3)]
    for seeds, kind in ((three, "below the target"), (three[:2], "perhaps below")):
        needed = reach(seeds, 0.99)
        assert needed is not None and needed.macs is None
        assert {end is None for end in needed.best[1:]} == {len(seeds) == 2}
        out = ruled_out(needed, 0.99)
        assert out is not None and out.kind == kind
    needed = reach(three[:2], 0.6)
    assert needed is not None and needed.macs is not None
    assert needed.low is None and needed.high is None


def test_seeds_with_test_images_of_their_own_also_have_an_interval() -> None:
    """Over seeds, which carry the luck of both: what is a little below a target is not ruled out."""
    own = [replace(better().answers[MODEL, DATA, "separate", 42 + k], images=f"{k}") for k in range(3)]
    far = reach(own, 0.99)
    assert far is not None
    best, low, high = far.best
    assert low is not None and high is not None and low < best < high < 0.99
    for target, kind in ((0.99, "below the target"), ((best + high) / 2, "perhaps below")):
        out = ruled_out(reach(own, target), target)
        assert out is not None and out.kind == kind


def test_who_cannot_answer_for_as_little_as_the_first_is_named() -> None:
    actual = single_advice("latency", facts(1, FOUR, CHEAPER, images=300), min_accuracy=0.55)
    assert names(actual) == ["joint"] and actual.at is not None and actual.at < 1e6
    assert out(actual) == dict.fromkeys(("two-stage", "separate", "distillation"), DEARER.text)
    assert set(kinds(actual).values()) == {"dearer"}
    assert sure(actual) == "no other strategy is shown to qualify"


def test_a_verdict_that_hangs_on_the_target_is_told() -> None:
    """Behind at this target, and not at one a tenth of a point away."""
    two = facts(78, ("joint", "separate"), Skill(shift={"joint": 0.12}), images=400)
    actual = single_advice("latency", two, min_accuracy=0.6)
    assert actual.hanging == ("separate",) and actual.ranking[1].behind
    assert "hangs on the target: p is 0.049 to 0.053" in actual.notes[-1]
    assert "hangs on" in sentence(actual)
    near = [single_advice("latency", two, min_accuracy=target) for target in (0.599, 0.601)]
    assert [advice.ranking[1].behind for advice in near].count(False) == 1
    clear = single_advice("latency", better(), min_accuracy=0.6)
    assert clear.hanging == () and "hangs" not in sentence(clear)


def test_the_target_is_by_default_a_point_less_than_the_best_final_exit() -> None:
    candidates = equal()
    of = candidates.of(DATA, NAMES)
    best = max(np.mean([a.right[:, -1].mean() for a in seeds.values()]) for seeds in of.values())
    assert default_target(of) == pytest.approx(best - 0.01)
    assert single_advice("latency", candidates).target == pytest.approx(best - 0.01)
    assert single_advice("accuracy", candidates).target is None


def test_a_budget_compares_at_equal_compute() -> None:
    actual = single_advice("accuracy", crossing(), max_macs=3.5e6)
    assert names(actual)[0] == "joint" and [r.behind for r in actual.ranking[1:]] == [True] * 3
    cheap = single_advice("accuracy", crossing(), max_macs=1e6)
    assert names(cheap)[0] == "separate"
    none = single_advice("accuracy", equal(), max_macs=10.0)
    assert names(none) == [] and set(out(none).values()) == {WITHIN.text} and none.none_left


# The other goals


def test_accuracy_is_the_mean_over_exits() -> None:
    candidates = better()
    actual = single_advice("accuracy", candidates)
    rows = [candidates.answers[MODEL, DATA, "joint", 42 + k].right.mean() for k in range(5)]
    assert actual.ranking[0].name == "joint" and actual.ranking[0].mean == pytest.approx(np.mean(rows))
    assert [r.behind for r in actual.ranking] == [None, True, True, True]
    p = [r.p for r in actual.ranking[1:] if r.p is not None]
    assert min(p) < max(p) / 1.05  # of which the largest is true of all
    assert sure(actual).endswith(f"p at most {max(p):.2g}, 5 seeds")
    assert single_advice("accuracy", equal()).ranking[1].behind is False


def test_a_small_test_split_shows_nothing() -> None:
    few = single_advice("accuracy", facts(1, FOUR, Skill(shift={"joint": 0.05}), images=40))
    assert all(r.behind is False for r in few.ranking[1:])
    assert few.detectable is not None and few.detectable > 0.1


def test_the_baseline_is_out() -> None:
    assert out(single_advice("accuracy", from_table())) == {"baseline": "it has no early exits"}


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_give_no_recommendation(seeds: int) -> None:
    actual = single_advice("accuracy", facts(1, FOUR, BETTER, seeds=seeds))
    assert actual.withheld is not None and "too few for a recommendation" in actual.withheld
    assert {(r.p, r.behind) for r in actual.ranking} == {(None, None)} and not actual.even
    if seeds == 2:
        assert "a difference of half a point" in actual.withheld
    assert single_advice("accuracy", facts(1, FOUR, BETTER, seeds=3)).withheld is None


def test_who_has_too_few_seeds_where_others_have_enough_is_named() -> None:
    table = tidy_table(1, Planted(), strategies=("baseline", *FOUR))
    rows = table[(table["strategy"] != FOUR[3]) | (table["seed"] == table["seed"].min())]
    withheld = single_advice("accuracy", Facts(numbers(rows), {}, frozenset())).withheld
    assert withheld is not None and withheld.startswith(f"One seed of {FOUR[3]} is too few")


def test_the_seeds_that_are_asked_for_suffice() -> None:
    actual = single_advice("accuracy", facts(4, FOUR, seeds=2, luck=0.02, taste=0.0, images=40_000))
    assert actual.withheld is not None
    requests = int(actual.withheld.split("about ")[1].split(",")[0])
    assert 3 <= requests <= 200
    few = single_advice("accuracy", facts(4, FOUR, seeds=2, images=300))
    assert few.withheld is not None
    assert "no number of" in few.withheld


def test_a_frozen_backbone_leaves_those_that_train_heads_only() -> None:
    actual = single_advice("training-time", from_table(), frozen_backbone=True)
    assert names(actual) == ["two-stage"]
    assert out(actual)["joint"] == "it trains the backbone's weights"
    assert sure(actual) == "no other strategy is shown to qualify"
    assert any("training the backbone" in note for note in actual.notes)


def test_where_time_is_an_estimate_macs_stand_for_it() -> None:
    """An estimate goes by what else the machine did: joint was the quickest on a calm one."""
    table = tidy_table(1, Planted(seconds={"joint": -60}), strategies=FOUR, measured=False)
    written = table["metric"] == "macs_written"
    cheap = written & (table["strategy"] == "two-stage")
    table.loc[cheap, "value"] *= 0.5
    actual = single_advice("training-time", Facts(numbers(table), {}))
    assert actual.measure.name == "macs-written" and names(actual)[0] == "two-stage"
    assert [r.behind for r in actual.ranking] == [None] * len(actual.ranking)
    assert sure(actual) == "estimated, not tested" and actual.estimated
    assert any("multiply-accumulates stand" in note for note in actual.notes)


def test_without_readings_there_is_no_ranking() -> None:
    table = tidy_table(3, strategies=FOUR)
    bare = table[~table["metric"].str.startswith("memory")]
    actual = single_advice("memory", Facts(numbers(bare), {}))
    assert (actual.ranking, actual.untested) == ((), "there are no values of memory-gpu-max")
    cpu = table[table["metric"] != "memory_gpu_peak_bytes"]
    assert single_advice("memory", Facts(numbers(cpu), {})).measure.name == "memory-cpu-max"
    assert single_advice("latency", Facts(numbers(table), {})).ranking == ()


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
    reference = Facts(numbers(table), {})
    looked = replace(reference, looks={(MODEL, DATA): rule})
    every = replace(reference, looks=dict.fromkeys(pairs, rule))
    fixed, paid, all_paid = (
        single_advice("accuracy", f).ranking[-1].p for f in (reference, looked, every)
    )
    assert fixed != paid == all_paid is not None
    both = [(model, "joint") for model, _ in pairs]
    assert looked.looked(DATA, both) == looked.looked(DATA, both[:1]) == rule
    assert looked.looked("others", both) is reference.looked(DATA, both) is None
    shorter = InterimAnalyses(rule.order[:12], 3)
    several = replace(reference, looks={(MODEL, DATA): rule, ("vgg16", DATA): shorter})
    assert several.looked(DATA, both) == several.looked(DATA, both[::-1]) == rule


def test_identical_strategies_are_one_entry() -> None:
    table = tidy_table(3, strategies=("joint", "two-stage", "separate"))
    own = table["strategy"] == "two-stage"
    twin = table[own].assign(strategy="separate", trial=table.loc[own, "trial"] + "x")
    both = pd.concat([table[table["strategy"] != "separate"], twin])
    actual = single_advice("accuracy", Facts(numbers(both), {}))
    assert sorted(names(actual)) == ["joint", "separate = two-stage"]
    built = answers(1, FOUR)
    for k in range(5):
        built[MODEL, DATA, "separate", 42 + k] = built[MODEL, DATA, "two-stage", 42 + k]
    level = equal_compute(Facts(numbers(table), built), DATA, NAMES)[0]
    assert "separate = two-stage" in level.means


def test_seeds_with_images_of_their_own_are_tested_over_seeds() -> None:
    candidates = better()
    own = {key: replace(a, images=f"split {key[3]}") for key, a in candidates.answers.items()}
    actual = single_advice("accuracy", Facts(candidates.numbers, own))
    assert actual.ranking[1].p != single_advice("accuracy", candidates).ranking[1].p


def test_guidelines_answer_every_goal() -> None:
    for goal in GOALS:
        for frozen in (False, True):
            actual, more = guidelines(goal, frozen)
            assert actual and all(goal in g.goals for g in actual)  # none stands in for another goal
            assert len(more) >= 3
            assert all(g.heads_only for g in actual) or not frozen
            reference = {name for g in actual for name in g.strategies}
            assert reference & {"two-stage", "distillation"} or not frozen  # which offramp build trains
    assert guidelines("accuracy")[0][0].strategies == ("distillation",)
    assert guidelines("training-time")[0][0].strategies == ("two-stage",)


def test_what_is_advised_for_fixed_weights_can_keep_them() -> None:
    for goal in GOALS:
        actual, more = guidelines(goal, True)
        for name in (name for g in actual for name in g.strategies):
            assert "backbone" in {option.name for option in programs.options(programs.find(name))}
        assert "backbone: kept" in more[0]


def test_guidelines_for_everything_at_once_on_fixed_weights() -> None:
    actual, more = guidelines("pareto", True)
    assert [g.strategies for g in actual] == [("two-stage",)]
    assert "pretrained-branch" in actual[0].text and actual[0].section == "5.4"
    assert not any("distillation" in g.strategies for g in actual)
    assert more[0].startswith("Our own rule")


def test_two_seeds_give_no_recommendation_where_whether_others_reach_the_target_is_open() -> None:
    actual = single_advice(
        "latency", facts(1, FOUR, Skill(shift={"joint": 0.6}), seeds=2), min_accuracy=0.8
    )
    assert [r.name for r in actual.ranking] == ["joint"]
    assert set(kinds(actual).values()) == {"perhaps below"}
    assert actual.withheld == "2 seeds are too few for a recommendation; train at least 3."


def test_why_nothing_was_tested_is_what_holds_of_the_pairs() -> None:
    """Here of two that have two seeds in common."""
    candidates = facts(1, ("joint", "separate"))
    later = {(*k[:3], k[3] + 3 * (k[2] == "joint")): a for k, a in candidates.answers.items()}
    actual = single_advice("latency", replace(candidates, answers=later), min_accuracy=0.5)
    assert "they share two seeds" in sure(actual) and "no two seeds" not in sure(actual)
