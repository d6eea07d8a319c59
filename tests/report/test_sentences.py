"""Every sentence that the top of a page can have, on networks whose truth is known."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from handmade import HandTrial, Run, evidence, simple
from table_evidence import TabledTrial as ByNumber
from table_evidence import evidence as by_number

from answers import DATA, FOUR, NAMES, Skill, answers, better, crossing, equal, facts
from offramp.analysis.recommend import Advice, Facts, Goal, Preference, RuledOut, recommend
from offramp.analysis.recommend.equal import Level, equal_compute
from offramp.analysis.stats.pairwise import Pair
from offramp.report.advice import answer, compared, sentence
from offramp.report.page.folder import lead
from simulate import Planted

WORSE = Skill(shift={"joint": -0.6})


def curves(candidates: Facts) -> str:
    return compared(equal_compute(candidates, DATA, NAMES))


def advice(goal: Goal, candidates: Facts, accuracy: float | None = None) -> Advice:
    (actual,) = recommend(candidates, Preference(goal, min_accuracy=accuracy))
    return actual


@pytest.mark.slow
def test_curves() -> None:
    start = "At equal compute, by MACs of an image (test accuracy, adjusted p < 0.05): "
    assert curves(better()) == f"{start}the most accurate is joint from 1 M to 4 M."
    assert curves(facts(1, FOUR, WORSE)) == f"{start}joint is behind separate from 1 M to 4 M."
    crossed = curves(crossing())
    assert crossed.startswith(f"{start}the most accurate is separate at 1 M; joint from 3.25 M to 4 M.")
    assert "Curves that cross: " in crossed and "joint and separate" in crossed
    alike = curves(equal())
    assert alike.startswith("At equal compute, no two strategies differ significantly in test accuracy,")
    assert alike.endswith(" points, by the MACs, would have been found in 80 % of such runs.")
    assert curves(facts(1, FOUR, seeds=1)) == ""  # nothing was tested
    assert compared([]) == ""
    named = compared(equal_compute(equal(), DATA, NAMES), "resnet50 on cifar100")
    assert named.startswith("At equal compute (resnet50 on cifar100), no two")


def test_who_shares_no_seed_with_the_best_is_not_said_to_be_alike() -> None:
    candidates = better()
    apart = {(*k[:3], k[3] + 100 * (k[2] == "joint")): a for k, a in candidates.answers.items()}
    levels = equal_compute(replace(candidates, answers=apart), DATA, NAMES)
    assert levels[0].untested == tuple(name for name in levels[0].means if name != "joint")
    text = compared(levels)
    assert "not tested against the best: " in text.lower() and "no two strategies differ" not in text


def test_who_is_better_in_all_seeds_that_both_have_leads() -> None:
    """Further seeds of another one may lift its mean above, here by far."""
    candidates = facts(1, ("joint", "separate"), Skill(shift={"separate": 0.6}))
    more = answers(2, ("joint",), Skill(shift={"joint": 4.0}), seeds=10)
    more = {(*key[:3], key[3] + 5): answer for key, answer in more.items()}
    levels = equal_compute(replace(candidates, answers={**candidates.answers, **more}), DATA, NAMES)
    assert all(level.means["joint"] > level.means["separate"] for level in levels)
    assert all(level.beats("separate", "joint") for level in levels)
    assert compared(levels).endswith(": the most accurate is separate from 1 M to 4 M.")


def test_that_none_differ_is_said_of_all_pairs_and_not_of_the_best_alone() -> None:
    pairs = (Pair("a", "b", 0.1, -0.1, 0.3, 0.5), Pair("a", "c", 0.2, -0.1, 0.5, 0.5))
    means = {"a": 0.8, "b": 0.7, "c": 0.6}
    level = Level(1e6, means, (*pairs, Pair("b", "c", 0.1, 0.05, 0.15, 0.001)))
    assert compared([level]).startswith("At equal compute, no strategy is significantly behind the best")
    level = Level(1e6, means, (*pairs, Pair("b", "c", 0.1, -0.05, 0.25, 0.1)))
    assert compared([level]).startswith("At equal compute, no two strategies differ significantly")


def test_where_none_is_behind_stands_what_would_have_been_found() -> None:
    pairs = [
        Pair("a", b, 0.1, -0.1, 0.3, 0.5, detectable=least) for b, least in (("b", 0.02), ("c", 0.01))
    ]
    visible = Pair("b", "c", 0.1, 0.05, 0.15, 0.001, detectable=0.07)
    means = {"a": 0.8, "b": 0.7, "c": 0.6}
    text = compared([Level(1e6, means, (*pairs, visible))])
    assert "no strategy is significantly behind the best" in text
    assert text.endswith("A difference of 2 points would have been found in 80 % of such runs.")
    dearer = Level(
        2e6, means, (replace(pairs[0], detectable=0.12), replace(pairs[1], detectable=0.05), visible)
    )
    both = compared([Level(1e6, means, (*pairs, visible)), dearer])
    assert both.endswith(
        "Differences of 2 to 12 points, by the MACs, would have been found in 80 % of such runs."
    )
    unknown = tuple(replace(pair, detectable=None) for pair in pairs)
    assert "A difference of" not in compared([Level(1e6, means, unknown)])


def test_a_goal_with_a_winner() -> None:
    text = sentence(advice("accuracy", better()))
    assert text.startswith("For accuracy: joint (test accuracy, mean over exits 7")
    assert "). Better than every other, p at most " in text and text.endswith(", 5 seeds.")
    assert sentence(advice("accuracy", better()), several=True).startswith(
        "For accuracy on cifar100: joint"
    )


def test_what_a_budget_buys_is_no_mean_over_exits() -> None:
    (actual,) = recommend(better(), Preference("accuracy", max_macs=3.5e6))
    assert sentence(actual).startswith("For accuracy: joint (test accuracy at these MACs ")


def test_a_goal_with_no_winner_names_none() -> None:
    text = sentence(advice("accuracy", equal()))
    assert text.startswith("For accuracy: no significant difference between any of 4 strategies (")
    assert text.endswith(" points would have been found in 80 % of such runs.")
    fast = sentence(advice("latency", facts(2, FOUR), 0.6))
    assert "no significant difference between any of 4 strategies (per image " in fast
    assert ", for 60.0 % on test). " in fast and "points at equal compute would have been found" in fast


def test_the_first_may_vary_too_much_where_others_differ() -> None:
    values = {"joint": (0.6, 0.9, 0.66, 0.95, 0.64), "separate": (0.7, 0.701, 0.7, 0.702, 0.7)}
    values["two-stage"] = tuple(v - 0.02 + 0.001 * (i % 2) for i, v in enumerate(values["separate"]))
    trials = [
        ByNumber(name, seed, dict.fromkeys((1, 2), v))
        for name, some in values.items()
        for seed, v in enumerate(some)
    ]
    text = sentence(advice("accuracy", Facts(by_number(trials).numbers, {})))
    assert text.startswith(
        "For accuracy: joint (test accuracy, mean over exits 75.0 %). No significant "
    )
    assert "difference from any other with 5 seeds" in text and "between any of" not in text


def by_seed(**values: dict[int, float]) -> Advice:
    """For accuracy, of strategies with the same accuracy at each of two exits."""
    trials = [
        ByNumber(name, seed, dict.fromkeys((1, 2), value))
        for name, some in values.items()
        for seed, value in some.items()
    ]
    return advice("accuracy", Facts(by_number(trials).numbers, {}))


def test_who_is_better_in_all_seeds_that_both_have_is_not_behind() -> None:
    """Seeds that one strategy alone has may lift its mean above that of a better one."""
    joint = {1: 0.7, 2: 0.72, 3: 0.71, 4: 0.8, 5: 0.81}
    verdict = by_seed(joint=joint, separate={1: 0.705, 2: 0.7251, 3: 0.7149})
    assert [(r.name, r.behind) for r in verdict.ranking] == [("separate", None), ("joint", True)]
    assert verdict.ranking[1].mean > verdict.ranking[0].mean
    text = sentence(verdict)
    assert text.startswith("For accuracy: separate (") and "Better than every other" in text


def test_where_each_is_behind_another_none_is_recommended() -> None:
    """Each pair has three seeds of its own, in which one is half a point better."""
    a, b = dict(enumerate((0.7, 0.72, 0.71))), dict(enumerate((0.705, 0.7251, 0.7149)))
    after = [{seed + k: value for seed, value in x.items()} for k in (3, 6) for x in (a, b)]
    verdict = by_seed(joint={**a, **after[1]}, separate={**b, **after[2]}, mine={**after[0], **after[3]})
    assert verdict.withheld is not None and verdict.withheld.startswith(
        "Each strategy is behind another"
    )
    assert not any(r.behind for r in verdict.ranking)


def test_who_has_no_early_exits_is_named_as_left_out() -> None:
    actual = advice("accuracy", equal())
    alone = replace(actual, ruled_out=(RuledOut("baseline", "it has no early exits", "no early exits"),))
    assert "any of 4 strategies with early exits, which baseline lacks (" in sentence(alone)


def test_the_extent_of_the_runs_says_who_has_no_early_exits() -> None:
    joint = simple("joint", 1)
    alone = HandTrial("baseline", 1, [Run("backbone", {3: [2.0, 1.0]})], exits=(3,))
    assert lead(evidence([joint, alone])).startswith("1 strategy with early exits, baseline without · ")
    assert lead(evidence([joint])).startswith("1 strategy · ")
    assert lead(evidence([alone])).startswith("1 strategy · ")


def test_a_goal_with_some_that_are_alike() -> None:
    text = sentence(advice("accuracy", facts(1, FOUR, WORSE)))
    assert "). No significant difference from " in text and "joint" not in text
    assert "would have been found" in text


def test_who_may_reach_a_target_is_open() -> None:
    candidates = facts(1, FOUR, Skill(shift={"joint": 0.2}))
    best = max(a.right[:, -1].mean() for k, a in candidates.answers.items() if k[2] == "separate")
    text = sentence(advice("latency", candidates, float(best)))
    assert text.startswith("For few MACs at inference: joint (per image ")
    assert ". Whether " in text and re.search(r" can reach \d\d\.\d % is open\.$", text)


def test_who_alone_reaches_a_target_is_told_so() -> None:
    text = sentence(advice("latency", better(), 0.85))
    assert text.endswith("distillation, separate and two-stage do not reach 85.0 %.")


def test_who_cannot_answer_for_as_little_as_the_first_is_told_so() -> None:
    cheap = Skill(macs={"joint": (0.4e6, 0.8e6, 1.2e6, 4e6)})
    text = sentence(advice("latency", facts(1, FOUR, cheap, images=300), 0.55))
    assert text.endswith(
        "No other can be used so. distillation, separate and two-stage cannot answer for as few MACs."
    )


@pytest.mark.parametrize("measured", [True, False])
def test_costs(measured: bool) -> None:
    table = Planted(seconds={"joint": -60})
    candidates = facts(1, FOUR, planted=table)
    if not measured:
        phases = candidates.numbers.phases.assign(measured=False)
        candidates = replace(candidates, numbers=replace(candidates.numbers, phases=phases))
    text = sentence(advice("training-time", candidates))
    if measured:
        assert text.startswith("For short training: joint (training time as the paper runs it ")
    else:  # the planted time is not believed
        assert "(training compute as the paper runs it " in text
    assert text.endswith(". Estimated, not tested.") is not measured
    assert (". Better than every other" in text) is measured


def test_a_balance_of_all() -> None:
    cheap = Planted(seconds={"joint": -60}, meters={"joint": -60})
    text = sentence(advice("balanced", facts(1, FOUR, Skill(shift={"joint": 0.6}), cheap)))
    assert text.startswith("For a balance of all: joint (distance from the best ")
    assert ". Better than every other" in text


def test_memory_is_told_in_the_unit_that_fits() -> None:
    candidates = facts(1, FOUR, planted=Planted(meters={"joint": -60}))
    actual = advice("memory", candidates)
    big = replace(actual, ranking=tuple(replace(r, mean=1.76e9 + r.mean) for r in actual.ranking))
    assert "1.8 GB" in sentence(big)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("accuracy-test", 0.7492, "74.9 %"),
        ("accuracy-test", -5.6e-17, "0.0 %"),
        ("accuracy-test", -0.0004, "0.0 %"),
        ("seconds-written", -20.0, "−20.0 s"),
        ("seconds-written", -0.01, "0.0 s"),
        ("memory-cpu-max", 1.76e9, "1.8 GB"),
        ("seconds-written", 200.0, "3 min 20 s"),
        ("loss-test", -0.5, "−0.5 nats"),
        ("loss-test", np.float64(-5.6e-17), "0 nats"),
        ("macs-written", 2.3e9, "2.3 G MACs"),
    ],
)
def test_numbers_are_written_as_people_do(name: str, value: float, text: str) -> None:
    from offramp.analysis.measures import MEASURES

    assert MEASURES[name].text(value) == text


@pytest.mark.parametrize(
    ("exits", "text"),
    [((3,), "no early exits"), ((1, 3), "one strategy with exits, nothing to compare it with")],
)
def test_one_strategy_alone_is_no_more_than_it_is(
    exits: tuple[int, ...], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # HandTrial images are of one class, which is no chance to beat.
    monkeypatch.setattr("offramp.report.advice.chance", lambda _: "")
    run = Run("all", {k: [2.0, 1.0] for k in exits})
    whole = evidence([HandTrial("mine", seed, [run], exits) for seed in (1, 2, 3)])
    assert answer(whole)[0] == f"images: {text}."
