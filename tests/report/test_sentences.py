"""Every sentence that the top of a page can have, on networks whose truth is known."""

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from handmade import HandTrial, Run, evidence, simple
from syrupy.assertion import SnapshotAssertion
from table_evidence import TabledTrial
from table_evidence import evidence as tabled_evidence

from answers import DATA, FOUR, MODEL, NAMES, Skill, answers, better, crossing, equal, facts
from offramp.analysis.recommend import Advice, Facts, Goal, Preference, RuledOut, recommend
from offramp.analysis.recommend.equal import ComputeLevel, equal_compute
from offramp.analysis.recommend.goals import ExclusionKind
from offramp.analysis.stats.pairwise import Pair
from offramp.report.advice import answer, compared, sentence
from offramp.report.controls import COIN
from offramp.report.page.folder import lead
from simulate import Planted

WORSE = Skill(shift={"joint": -0.6})


def curves(candidates: Facts) -> str:
    return compared(equal_compute(candidates, DATA, NAMES))


def advice(goal: Goal, candidates: Facts, accuracy: float | None = None) -> Advice:
    (actual,) = recommend(candidates, Preference(goal, min_accuracy=accuracy))
    return actual


def compute(*args: object, **more: object) -> str:
    return curves(facts(1, FOUR, *args, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "leaders"),
    [
        (lambda: curves(better()), {"joint"}),
        (lambda: compute(WORSE), {"joint", "separate"}),
        (lambda: curves(crossing()), {"joint", "separate"}),
        (lambda: curves(equal()), set()),
        (lambda: compared(equal_compute(equal(), DATA, NAMES), "resnet50 on cifar100"), {"resnet50"}),
        (lambda: compute(seeds=1), None),  # nothing was tested
        (lambda: compared([]), None),
    ],
    ids=["a winner", "a loser", "crossing", "even", "even, a place named", "one seed", "nothing"],
)
def test_curves(text: Callable[[], str], leaders: set[str] | None, snapshot: SnapshotAssertion) -> None:
    """Who leads where, and at most those that do."""
    words = text()
    assert words == snapshot
    assert bool(words) is (leaders is not None)
    assert set(leaders or ()) <= set(re.findall(r"[\w-]+", words))


def test_of_many_names_a_sentence_says_how_many(snapshot: SnapshotAssertion) -> None:
    many = (*FOUR, "boosted", "cascade", "imta", "mixed")
    skill = Skill(shift={"mixed": 0.8, "imta": 0.8}, tilt={"joint": 0.5, "cascade": -0.5})
    names = {(MODEL, name): name for name in many}
    words = compared(equal_compute(facts(1, many, skill), DATA, names))
    assert "all but mixed are behind imta" in words
    assert words == snapshot


@pytest.mark.parametrize("beaten", [0, 2, 7])
def test_of_many_that_nothing_beats_the_most_accurate_are_named(
    beaten: int, snapshot: SnapshotAssertion
) -> None:
    """It named sixty."""
    actual = advice("pareto", equal())
    many = tuple(replace(actual.ranking[0], name=f"n{k}") for k in range(60))
    lost = tuple(RuledOut(f"b{k}", "", "beaten") for k in range(beaten))
    assert sentence(replace(actual, ranking=many, ruled_out=lost)) == snapshot


def test_of_many_that_are_alike_a_few_are_named() -> None:
    actual = advice("accuracy", equal())
    first = replace(actual.ranking[0], behind=False, p=0.5)
    ties = [replace(first, name=f"n{k}") for k in range(60)]
    last = replace(first, name="last", behind=True, p=0.001)
    words = sentence(replace(actual, ranking=(*ties, last), ruled_out=(), even=False))
    assert "n5" in words and "n6" not in words and "54 more" in words and len(words) < 400


def test_who_shares_no_seed_with_the_best_is_not_said_to_be_alike(snapshot: SnapshotAssertion) -> None:
    candidates = better()
    apart = {(*k[:3], k[3] + 100 * (k[2] == "joint")): a for k, a in candidates.answers.items()}
    levels = equal_compute(replace(candidates, answers=apart), DATA, NAMES)
    assert levels[0].untested == tuple(name for name in levels[0].means if name != "joint")
    assert compared(levels) == snapshot


def test_who_is_better_in_all_seeds_that_both_have_leads(snapshot: SnapshotAssertion) -> None:
    """Further seeds of another one may lift its mean above, here by far."""
    candidates = facts(1, ("joint", "separate"), Skill(shift={"separate": 0.6}))
    more = answers(2, ("joint",), Skill(shift={"joint": 4.0}), seeds=10)
    more = {(*key[:3], key[3] + 5): answer for key, answer in more.items()}
    levels = equal_compute(replace(candidates, answers={**candidates.answers, **more}), DATA, NAMES)
    assert all(level.means["joint"] > level.means["separate"] for level in levels)
    assert all(level.beats("separate", "joint") for level in levels)
    assert compared(levels) == snapshot


MEANS = {"a": 0.8, "b": 0.7, "c": 0.6}


def pair(a: str, b: str, p: float, detectable: float | None = None) -> Pair:
    return Pair(a, b, 0.1, 0.05 if p < 0.05 else -0.1, 0.2, p, detectable=detectable)


@pytest.mark.parametrize("p", [0.001, 0.1], ids=["b and c differ", "none differ"])
def test_that_none_differ_is_said_of_all_pairs_and_not_of_the_best_alone(
    p: float, snapshot: SnapshotAssertion
) -> None:
    level = ComputeLevel(1e6, MEANS, (pair("a", "b", 0.5), pair("a", "c", 0.5), pair("b", "c", p)))
    assert compared([level]) == snapshot


@pytest.mark.parametrize(("last", "words"), [(COIN, f"{COIN} are"), ("c", "c is")])
def test_plain_networks_are_several(last: str, words: str) -> None:
    pairs = (pair("a", "b", 0.5), pair("a", last, 0.001), pair("b", last, 0.5))
    level = ComputeLevel(1e6, {"a": 0.8, "b": 0.79, last: 0.6}, pairs)
    assert f"{words} behind a at" in compared([level]).lower()


def test_where_none_is_behind_stands_what_would_have_been_found(snapshot: SnapshotAssertion) -> None:
    def level(macs: float, b: float | None, c: float | None) -> ComputeLevel:
        pairs = (pair("a", "b", 0.5, b), pair("a", "c", 0.5, c), pair("b", "c", 0.001, 0.07))
        return ComputeLevel(macs, MEANS, pairs)

    alone, both = compared([level(1e6, 0.02, 0.01)]), [level(1e6, 0.02, 0.01), level(2e6, 0.12, 0.05)]
    assert "2 points" in alone and "2 to 12 points" in compared(both)  # the most of those behind none
    assert (alone, compared(both), compared([level(1e6, None, None)])) == snapshot


@pytest.mark.parametrize(
    ("advised", "first"),
    [
        (lambda: advice("accuracy", better()), "joint"),
        (lambda: recommend(better(), Preference("accuracy", max_macs=3.5e6))[0], "joint"),
        (lambda: advice("accuracy", equal()), "no"),
        (lambda: advice("latency", facts(2, FOUR), 0.6), "no"),
        (lambda: advice("accuracy", facts(1, FOUR, WORSE)), None),
        (lambda: advice("latency", better(), 0.85), "joint"),
        (lambda: advice("latency", facts(1, FOUR, CHEAP, images=300), 0.55), "joint"),
        (lambda: advice("pareto", better()), "nothing"),
        (lambda: advice("pareto", equal()), "none"),
        (lambda: advice("training-time", facts(1, FOUR, planted=QUICK)), "joint"),
        (lambda: advice("training-time", estimated(facts(1, FOUR, planted=QUICK))), None),
        (lambda: by_seed(**VARIED), "joint"),
    ],
    ids=[
        *("a winner", "within a budget", "no winner", "no winner for a target", "some alike"),
        *(
            "who does not reach a target",
            "who is dearer",
            "one beats all",
            "none beats any",
            "time",
            "estimated time",
        ),
        "the first varies too much where others differ",
    ],
)
def test_what_a_goal_comes_to(
    advised: Callable[[], Advice], first: str | None, snapshot: SnapshotAssertion
) -> None:
    words = sentence(advised())
    assert words == snapshot
    if first is not None:
        assert words.partition(": ")[2].split()[0] == first


CHEAP = Skill(macs={"joint": (0.4e6, 0.8e6, 1.2e6, 4e6)})
QUICK = Planted(seconds={"joint": -60}, meters={"joint": -60})
VARIED = {
    "joint": dict(enumerate((0.6, 0.9, 0.66, 0.95, 0.64))),
    "separate": dict(enumerate((0.7, 0.701, 0.7, 0.702, 0.7))),
    "two-stage": dict(enumerate((0.68, 0.682, 0.68, 0.683, 0.68))),
}


def estimated(candidates: Facts) -> Facts:
    """Whose times nobody measured."""
    phases = candidates.numbers.phases.assign(measured=False)
    return replace(candidates, numbers=replace(candidates.numbers, phases=phases))


def by_seed(**values: dict[int, float]) -> Advice:
    """For accuracy, of strategies with the same accuracy at each of two exits."""
    trials = [
        TabledTrial(name, seed, dict.fromkeys((1, 2), value))
        for name, some in values.items()
        for seed, value in some.items()
    ]
    return advice("accuracy", Facts(tabled_evidence(trials).numbers, {}))


def test_several_data_sets_are_named(snapshot: SnapshotAssertion) -> None:
    assert sentence(advice("accuracy", better()), several=True) == snapshot


def test_who_is_better_in_all_seeds_that_both_have_is_not_behind(snapshot: SnapshotAssertion) -> None:
    """Seeds that one strategy alone has may lift its mean above that of a better one."""
    joint = {1: 0.7, 2: 0.72, 3: 0.71, 4: 0.8, 5: 0.81}
    verdict = by_seed(joint=joint, separate={1: 0.705, 2: 0.7251, 3: 0.7149})
    assert [(r.name, r.behind) for r in verdict.ranking] == [("separate", None), ("joint", True)]
    assert verdict.ranking[1].mean > verdict.ranking[0].mean
    assert sentence(verdict) == snapshot


def test_where_each_is_behind_another_none_is_recommended(snapshot: SnapshotAssertion) -> None:
    """Each pair has three seeds of its own, in which one is half a point better."""
    a, b = dict(enumerate((0.7, 0.72, 0.71))), dict(enumerate((0.705, 0.7251, 0.7149)))
    after = [{seed + k: value for seed, value in x.items()} for k in (3, 6) for x in (a, b)]
    verdict = by_seed(joint={**a, **after[1]}, separate={**b, **after[2]}, mine={**after[0], **after[3]})
    assert verdict.withheld == snapshot
    assert not any(r.behind for r in verdict.ranking)


def test_who_has_no_early_exits_is_named_as_left_out(snapshot: SnapshotAssertion) -> None:
    out, actual = RuledOut("baseline", "it has none", "no early exits"), advice("accuracy", equal())
    many = tuple(replace(actual.ranking[0], name=f"n{k}") for k in range(60))
    assert sentence(replace(actual, ranking=many, ruled_out=(out,))) == snapshot


def test_of_a_few_that_are_alike_each_is_named() -> None:
    """Four strategies were "any of 4 strategies"."""
    words = sentence(advice("accuracy", equal()))
    assert all(name in words for name in FOUR)


def test_of_many_that_miss_a_target_the_first_are_named(snapshot: SnapshotAssertion) -> None:
    """It named fifty."""
    kinds: tuple[ExclusionKind, ...] = ("below the target", "perhaps below", "dearer")
    out = tuple(RuledOut(f"{kind[0]}{k}", "", kind) for kind in kinds for k in range(50))
    assert sentence(replace(advice("latency", equal(), 0.6), ruled_out=out)) == snapshot


def test_the_extent_of_the_runs_says_who_has_no_early_exits(snapshot: SnapshotAssertion) -> None:
    joint = simple("joint", 1)
    alone = HandTrial("baseline", 1, [Run("backbone", {3: [2.0, 1.0]})], exits=(3,))
    assert [lead(evidence(trials)) for trials in ([joint, alone], [joint], [alone])] == snapshot


def test_who_may_reach_a_target_is_open(snapshot: SnapshotAssertion) -> None:
    candidates = facts(1, FOUR, Skill(shift={"joint": 0.2}))
    best = max(a.right[:, -1].mean() for k, a in candidates.answers.items() if k[2] == "separate")
    assert sentence(advice("latency", candidates, float(best))) == snapshot


def test_memory_is_told_in_the_unit_that_fits() -> None:
    memory = advice("memory", facts(1, FOUR, planted=Planted(meters={"joint": -60})))
    big = replace(memory, ranking=tuple(replace(r, mean=1.76e9 + r.mean) for r in memory.ranking))
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
