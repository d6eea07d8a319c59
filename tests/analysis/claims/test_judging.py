"""Verdicts on observations made by hand, and on simulated stores."""

from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from longer import long
from offramp.analysis.claims import Claim, Judgment, check, index, judge
from offramp.analysis.claims.claim import DataSet, Regime
from offramp.analysis.claims.judge import claimed, name, plain, why
from offramp.analysis.claims.parts import Location, nearest_cell
from offramp.paper import FAMILIES
from offramp.report.claims import published
from simulate import Planted, tidy_table

NOISE = np.array([0.0, 0.3, -0.2, 0.1, -0.4])


def claim(**more: object) -> Claim:
    fields = {
        **{"id": "c", "section": "1", "question": "rq1", "text": "It is so."},
        **{"measure": "accuracy-test", "is": "higher", "strategies": "a", "against": ["b"]},
    }
    return Claim.model_validate({k: v for k, v in (fields | more).items() if v is not None})


def observed(**means: object) -> pd.DataFrame:
    """Five seeds of each strategy: a list of values by seed, or a mean that NOISE is added to, turned
    differently for each strategy. A tuple adds the exit: a mean by exit."""
    rows = []
    for turn, (strategy, mean) in enumerate(means.items()):
        by_exit = mean if isinstance(mean, dict) else {None: mean}
        for exit, value in by_exit.items():
            values = value if isinstance(value, list) else (value + np.roll(NOISE, turn)).tolist()
            rows += [(strategy, seed, exit, v) for seed, v in enumerate(values)]
    frame = pd.DataFrame(rows, columns=["strategy", "seed", "exit", "value"])
    frame["exit"] = frame["exit"].astype("Int64")
    source = frame["strategy"] + frame["exit"].fillna(0).astype(str)
    return frame.assign(model="m", data="d", source=source, measured=True)


def outcome(claim_: Claim, frame: pd.DataFrame) -> Judgment:
    return judge(
        [claim_],
        {claim_.measure: index(claim_.measure, frame, frame["strategy"].unique(), families=FAMILIES)},
    )[0]


def test_supported_contradicted_and_neither() -> None:
    frame = observed(a=10.0, b=1.0, c=10.05)
    assert outcome(claim(), frame).verdict == "supported"
    assert outcome(claim(is_=None, **{"is": "lower"}), frame).verdict == "contradicted"
    assert outcome(claim(against="c"), frame).verdict == "not significant"


def test_the_numbers_are_students_t_of_paired_differences() -> None:
    frame = observed(a=2.0, b=1.0)
    judgment = outcome(claim(), frame)
    a, b = (frame.loc[frame["strategy"] == s, "value"].to_numpy() for s in "ab")
    expected = stats.ttest_rel(a, b)
    assert judgment.p == pytest.approx(expected.pvalue)
    (tested,) = judgment.parts
    assert tested.p_for == pytest.approx(expected.pvalue / 2)
    assert tested.d == pytest.approx((a - b).mean() / (a - b).std(ddof=1))
    assert (tested.left, tested.right) == pytest.approx((a.mean(), b.mean()))


def test_every_part_must_hold_and_one_is_enough_against() -> None:
    frame = observed(a=10.0, b=1.0, c=10.05, d=20.0)
    both = outcome(claim(against=["b", "c"]), frame)
    assert both.verdict == "not significant"
    assert (both.holding, both.compared) == (1, 2)
    assert both.decisive is not None and name(both.decisive.part, cells=False) == "a − c"
    against = outcome(claim(against=["b", "d"]), frame)
    assert against.verdict == "contradicted"
    assert against.decisive is not None and against.decisive.part.right[0].strategy == "d"
    # Against it: the smallest p, times the number of parts, times two sides.
    assert against.p == pytest.approx(min(t.p_against for t in against.parts) * 4)


def test_p_is_adjusted_over_the_file() -> None:
    frame = observed(a=2.0, b=1.0, c=1.7)
    two = [claim(), claim(id="e", against="c")]
    indices = {"accuracy-test": index("accuracy-test", frame, "abc", families=FAMILIES)}
    alone = [judge([first], indices)[0].p for first in two]
    together = [actual.p for actual in judge(two, indices)]
    assert together[0] == pytest.approx(2 * (alone[0] or 0))
    assert together[1] == pytest.approx(max(together[0] or 0, alone[1] or 0))


def test_identical_weights_are_never_tested() -> None:
    frame = observed(a=[1.0, 2.0, 3.0], b=[1.0, 2.0, 3.0], c=[9.0, 9.5, 11.2], d=[-9.0, -9.5, -9.9])
    frame.loc[frame["strategy"] == "b", "source"] = frame.loc[frame["strategy"] == "a", "source"].array
    same = outcome(claim(), frame)
    assert (same.verdict, same.p, same.parts) == ("identical by construction", None, ())
    assert "both sides of a − b" in why(same)
    assert outcome(claim(against=["b", "c"]), frame).verdict == "contradicted"
    assert outcome(claim(against=["b", "d"]), frame).verdict == "identical by construction"


def test_exits_of_one_phase_are_not_identical() -> None:
    frame = observed(a={1: 1.0, 2: 5.0}).assign(source="node")
    deeper = claim(against=None, exits=2, against_exits=1)
    assert outcome(deeper, frame).verdict == "not testable here"  # the same noise, so no variation
    frame.loc[3, "value"] += 0.2
    assert outcome(deeper, frame).verdict == "supported"


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"against": "zebra"}, "the strategy zebra"),
        ({"against": "disstillation"}, "the strategy disstillation; did you mean 'distillation'?"),
        ({"data": "cifar*"}, "trials on cifar*"),
        ({"exits": 3}, "accuracy-test of a on m, d at exit 3"),
    ],
)
def test_what_is_missing_is_named(change: dict[str, object], missing: str) -> None:
    judgment = outcome(claim(**change), observed(a=2.0, b=1.0))
    assert judgment.verdict == "not testable here"
    assert judgment.missing[0] == missing


def test_estimates_single_seeds_and_constants_are_not_tested() -> None:
    frame = observed(a=2.0, b=1.0)
    assert "estimates" in outcome(claim(), frame.assign(measured=False)).missing[0]
    assert "seeds: 1 in common" in outcome(claim(), frame[frame["seed"] == 0]).missing[0]
    apart = frame[(frame["strategy"] == "a") == (frame["seed"] < 2)]
    assert "none in common" in outcome(claim(), apart).missing[0]
    constant = outcome(claim(), observed(a=[3.0, 4.0], b=[1.0, 2.0]))
    assert constant.missing == ("variation: the difference is 200 points in every seed",)
    assert constant.p is None
    assert outcome(claim(), frame.iloc[:0]).missing == ("values of accuracy-test",)


def test_a_missing_strategy_does_not_hide_a_contradiction() -> None:
    frame = observed(a=1.0, b=9.0)
    assert outcome(claim(against=["b", "zebra"]), frame).verdict == "contradicted"
    assert outcome(claim(against=["a", "zebra"], strategies="b"), frame).verdict == "not testable here"


def test_seeds_that_only_one_side_has_are_left_out() -> None:
    frame = observed(a=2.0, b=1.0)
    frame = frame[~((frame["strategy"] == "a") & (frame["seed"] == 4))]
    (tested,) = outcome(claim(), frame).parts
    assert tested.seeds == 4


def test_orders_means_margins_and_parents() -> None:
    frame = observed(a=9.0, b=5.0, c=1.0)
    chain = claim(strategies=None, against=None, order=["a", "b", "c"])
    assert outcome(chain, frame).verdict == "supported"
    mean = outcome(claim(strategies=["a", "c"], against=["b"], by="mean"), frame)
    assert [name(t.part, cells=False) for t in mean.parts] == ["mean(a, c) − b"]
    assert mean.parts[0].difference == pytest.approx(0.0)
    assert outcome(claim(strategies="b", against="a", margin=-9.0), frame).verdict == "supported"
    assert outcome(claim(margin=9.0), frame).verdict == "contradicted"
    hybrid = observed(**{"joint-branch": 9.0, "joint": 1.0, "branch-wise": 2.0})
    parents = outcome(claim(strategies="joint-branch", against="parents"), hybrid)
    assert (parents.verdict, parents.compared) == ("supported", 2)


def gaps(joint: float, two_stage: float, sd: float, seeds: int, seed: int = 0) -> pd.DataFrame:
    """Gaps between training and validation accuracy, paired over seeds."""
    rng = np.random.default_rng(seed)
    luck = 0.01 * rng.normal(size=seeds)
    draws = [mean + luck + sd / np.sqrt(2) * rng.normal(size=seeds) for mean in (joint, two_stage)]
    return observed(**{"joint": draws[0].tolist(), "two-stage": draws[1].tolist()})


@cache
def alike() -> Claim:
    (actual,) = (c for c in published(anywhere=True) if c.id == "joint-gap-like-two-stage")
    return actual


def test_a_gap_of_12_is_not_like_one_of_8() -> None:
    for joint, two_stage in ((0.12, 0.082), (0.082, 0.12)):
        judgment = outcome(alike(), gaps(joint, two_stage, 0.004, 8))
        assert (judgment.verdict, judgment.holding) == ("contradicted", 0)
    assert outcome(alike(), gaps(0.102, 0.1, 0.004, 8)).verdict == "supported"
    assert outcome(alike(), gaps(0.1, 0.1, 0.02, 4)).verdict == "not significant"


def test_likeness_is_two_one_sided_tests() -> None:
    frame = gaps(0.103, 0.1, 0.006, 10)
    judgment = outcome(alike(), frame)
    (tested,) = judgment.parts
    a, b = (frame.loc[frame["strategy"] == s, "value"].to_numpy() for s in ("joint", "two-stage"))
    over = stats.ttest_1samp(a - b, -0.01, alternative="greater").pvalue
    under = stats.ttest_1samp(a - b, 0.01, alternative="less").pvalue
    assert tested.p_for == pytest.approx(max(over, under))
    assert tested.p_against == pytest.approx(min(1, 2 * (1 - max(over, under))))
    assert tested.d == pytest.approx((0.01 - abs((a - b).mean())) / (a - b).std(ddof=1))
    assert plain(judgment)["margin"] == 0.01


@pytest.mark.parametrize(
    ("difference", "supported", "contradicted", "draws"),
    [
        (0.01, (0.0, 0.05), (0.0, 0.05), 120),
        *long(
            (0.01, (0.0, 0.05), (0.0, 0.05), 400),
            (0.0, (0.95, 1.0), (0.0, 0.0), 400),
            (0.03, (0.0, 0.0), (0.95, 1.0), 400),
        ),
    ],
)
def test_likeness_errs_seldom_and_is_found(
    difference: float,
    supported: tuple[float, float],
    contradicted: tuple[float, float],
    draws: int,
) -> None:
    actual = [
        outcome(alike(), gaps(0.1 + difference, 0.1, 0.008, 12, seed=k)).verdict for k in range(draws)
    ]
    for verdict, (low, high) in (("supported", supported), ("contradicted", contradicted)):
        assert low <= actual.count(verdict) / draws <= high, verdict


def test_across_models_and_data() -> None:
    first, two = observed(a=2.0), observed(x=0.0, a=9.0).query("strategy == 'a'")
    two = two.assign(source="other")
    models = pd.concat([first, two.assign(model="n")])
    faster = claim(against=None, models="n", against_models="m")
    assert outcome(faster, models).verdict == "supported"
    data = pd.concat([first, two.assign(data="e")])
    assert outcome(claim(against=None, data="d", against_data="e"), data).verdict == "contradicted"
    lacking = outcome(claim(against=None, data="d", against_data="f"), data)
    assert lacking.missing == ("trials on d and f",)


def test_a_mean_over_other_networks_leaves_out_the_own() -> None:
    values = {"m": [9.0, 9.5, 9.2], "n": [1.0, 1.2, 1.1], "o": [2.0, 1.9, 2.4]}
    frame = pd.concat([observed(a=of).assign(model=name) for name, of in values.items()])
    mean = claim(against=None, models="m", against_models="*", by="mean")
    (part,) = outcome(mean, frame.assign(source=frame["model"])).parts
    assert [place.model for place in part.part.right] == ["n", "o"]
    assert part.right == pytest.approx(1.6)


def test_every_pair_of_model_and_data_must_hold() -> None:
    good, bad = observed(a=9.0, b=1.0), observed(a=1.0, b=9.0)
    both = pd.concat([good, bad.assign(data="e")])
    assert outcome(claim(), both).verdict == "contradicted"
    assert outcome(claim(data="d"), both).verdict == "supported"


def test_plain_data_for_json_is_complete() -> None:
    actual = plain(outcome(claim(), observed(a=2.0, b=1.0)))
    assert actual["verdict"] == "supported"
    assert actual["comparisons"][0]["comparison"] == "a − b; m, d"
    assert actual["decisive"]["seeds"] == 5


def test_order_of_rows_does_not_matter() -> None:
    tidy = tidy_table(5, Planted(accuracy={"joint": 9}), seeds=3)
    trials = tidy["trial"].unique()[::-1]
    turned = pd.concat([tidy[tidy["trial"] == trial] for trial in trials], ignore_index=True)
    a_claim = claim(strategies="joint", against=["core"])
    assert plain(check([a_claim], tidy, families=FAMILIES)[0]) == plain(
        check([a_claim], turned, families=FAMILIES)[0]
    )


def on_images(frame: pd.DataFrame, liking: str) -> dict[Location, dict[int, np.ndarray]]:
    """Values of 300 images about those of a frame. liking: the column by which images are liked."""
    generator = np.random.default_rng(6)
    liked = {name: generator.normal(0, 8.0, 300) for name in frame[liking].unique()}
    actual: dict[Location, dict[int, np.ndarray]] = {}
    for row in frame.itertuples():
        taste = liked[getattr(row, liking)]
        place = Location(row.model, "d", row.strategy, None)
        actual.setdefault(place, {})[row.seed] = taste - taste.mean() + row.value
    return actual


def test_test_images_count_as_luck_too() -> None:
    """A difference that all seeds share may be that of these images alone."""
    frame = observed(a=1.0, b=0.5)
    images = on_images(frame, "strategy")
    alone = outcome(claim(), observed(a=1.0, b=-1.0))
    assert alone.verdict == "supported"
    measured = index("accuracy-test", frame, ["a", "b"], images=images, families=FAMILIES)
    (both,) = judge([claim()], {"accuracy-test": measured})
    (first,), (other,) = outcome(claim(), frame).parts, both.parts
    assert other.difference == pytest.approx(first.difference) and other.p_for > 3 * first.p_for
    assert both.verdict == "not significant"


def test_two_seeds_that_answered_the_same_images_are_not_tested() -> None:
    """Two often agree by luck, so that nothing seems to vary over seeds."""
    frame = observed(a=[1.0, 1.0], b=[0.5, 0.5])
    measured = index("accuracy-test", frame, ["a", "b"], images=on_images(frame, "seed"))
    (judgment,) = judge([claim()], {"accuracy-test": measured})
    assert judgment.verdict == "not testable here"
    assert judgment.missing == ("seeds: 2 in common, three are needed",)
    assert outcome(claim(), observed(a=[1.0, 1.1], b=[0.5, 0.4])).compared == 1  # over seeds: t's own


def false_findings(seeds: int, draws: int) -> float:
    """The share of studies of twelve equal strategies that have any finding, a claim for each pair."""
    names = [f"s{k}" for k in range(12)]
    claims = [claim(id=f"{a}-{b}", strategies=a, against=b) for a, b in combinations(names, 2)]
    found = 0
    for draw in range(draws):
        generator = np.random.default_rng(draw)
        hard, rows = generator.normal(0, 1.5, 400), {}
        for strategy in names:
            place = Location("m", "d", strategy, None)
            sense = generator.normal(0, 0.6, (seeds, 400)) + generator.normal(0, 0.2, (seeds, 1))
            rows[place] = dict(enumerate((1.3 + sense > hard).astype(float)))
        means = {p.strategy: [float(row.mean()) for row in of.values()] for p, of in rows.items()}
        measured = index("accuracy-test", observed(**means), names, images=rows)
        verdicts = {j.verdict for j in judge(claims, {"accuracy-test": measured})}
        found += bool(verdicts & {"supported", "contradicted"})
    return found / draws


@pytest.mark.parametrize(("seeds", "draws"), [(2, 10), *long((3, 60))])
def test_claims_on_equal_strategies_err_seldom(seeds: int, draws: int) -> None:
    """At two seeds a fifth of such studies had a finding when these were tested."""
    assert false_findings(seeds, draws) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws) * (seeds > 2)


def test_networks_that_answered_the_same_images_share_their_luck() -> None:
    two = observed(x=0.0, a=1.8).query("strategy == 'a'").assign(model="n", source="other")
    frame = pd.concat([observed(a=1.0), two])
    images = on_images(frame, "model")
    better = claim(against=None, models="n", against_models="m")

    def verdict(m: str, n: str) -> str:
        """By the keys of their images."""
        regime = Regime(("x",), 100, test=300, size=32, channels=3, epochs=5, weights="random")
        regimes = {(model, "d"): replace(regime, images=key) for model, key in (("m", m), ("n", n))}
        indexed = index("accuracy-test", frame, ["a"], regimes, images, families=FAMILIES)
        return judge([better], {"accuracy-test": indexed})[0].verdict

    assert verdict("these", "these") == "not significant"
    assert verdict("these", "others") == verdict("", "") == "supported"


@pytest.mark.parametrize(
    ("here", "text"), [(("cat", "owl"), "the class owl"), (("cat",), "no class dog")]
)
def test_a_class_that_differs_is_named(here: tuple[str, ...], text: str) -> None:
    regime = Regime(here, 100, test=50, size=32, channels=3, epochs=5, weights="random")
    assert DataSet(named=("cat", "dog")).off("net", "pets", regime) == [(text, "the class dog")]


def test_facts_without_a_name_are_told_alone() -> None:
    """`runs like those on , with 4,000 to …` said nothing of where."""
    few = Regime(("x",), 100, test=50, size=32, channels=3, epochs=5, weights="random")
    asked = claim(data=(DataSet(train=(4000, 5000)),))
    indexed = index("accuracy-test", observed(a=1.0), ["a"], {("m", "d"): few}, families=FAMILIES)
    told = "runs with 4,000 to 5,000 training images: m on d has 100 training images"
    assert nearest_cell(asked, indexed) == told


def test_margins_are_told_in_points() -> None:
    assert claimed(claim(margin=0.0025)) == "higher by 0.25 points at least"
    assert claimed(claim(margin=-0.01)) == "lower by 1 point at most"
    assert claimed(claim(**{"is": "within", "margin": 0.01})) == "within 1 point of each other"
