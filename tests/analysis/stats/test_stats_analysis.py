"""Whole analyses, and numbers that cannot be tested."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.analysis.stats import Analysis, Columns, OneWay, OverBlocks, Untested, analyze, analyze_by
from offramp.analysis.stats.anova import Anova, Repeated
from offramp.analysis.stats.pairwise import Pair, UntestedPair
from offramp.analysis.stats.text import plain, sentence
from offramp.errors import OfframpError
from offramp.paper import CORE, FAMILIES
from wording import refusal

COLUMNS = Columns("accuracy", "strategy", "seed")


def frame(values: Mapping[str, Sequence[float]], seeds: Sequence[int] = range(42, 60)) -> pd.DataFrame:
    rows = [
        (name, seed, v)
        for name, numbers in values.items()
        for seed, v in zip(seeds, numbers, strict=False)
    ]
    return pd.DataFrame(rows, columns=["strategy", "seed", "accuracy"])


def noisy(effects: Mapping[str, float], seeds: int = 5, shared: float = 1.0) -> pd.DataFrame:
    generator = np.random.default_rng(7)
    luck = shared * generator.normal(size=seeds)
    return frame({n: e + luck + 0.1 * generator.normal(size=seeds) for n, e in effects.items()})


def ways(analysis: Analysis) -> tuple[OverBlocks, OneWay]:
    assert isinstance(analysis.over_blocks, OverBlocks) and isinstance(analysis.one_way, OneWay)
    return analysis.over_blocks, analysis.one_way


def test_both_ways_are_there_and_the_default_sees_what_seeds_hide() -> None:
    analysis = analyze(noisy({"joint": 1.0, "two-stage": 0.5, "separate": 0.0}), COLUMNS)
    over, first = ways(analysis)
    assert analysis.default == "over blocks"
    assert over.order.text().replace(">>", ">") == "joint > two-stage > separate"
    assert isinstance(first.anova, Anova) and isinstance(over.anova, Repeated)
    assert over.anova.p < 0.001 < first.anova.p
    assert "belong together" in over.assumes and "independent of every" in first.assumes


def test_without_blocks_the_one_way_analysis_is_the_default() -> None:
    analysis = analyze(noisy({"a": 0.0, "b": 5.0}), Columns("accuracy", "strategy"))
    assert (analysis.default, analysis.over_blocks) == ("one-way", None)


def test_unequal_variances_bring_welch_and_games_howell() -> None:
    generator = np.random.default_rng(1)
    data = frame({"a": generator.normal(size=18), "b": 30 * generator.normal(size=18)})
    _, first = ways(analyze(data, COLUMNS))
    assert first.unequal is not None
    assert not isinstance(first.unequal.welch, Untested)
    _, even = ways(analyze(noisy({"a": 0, "b": 1}), COLUMNS))
    assert even.unequal is None


def as_text(analysis: Analysis) -> str:
    return json.dumps(plain(analysis), allow_nan=False, sort_keys=True)


def test_row_order_does_not_matter() -> None:
    data = noisy({"a": 0.0, "b": 0.3, "c": 0.31, "d": 1.0})
    data["node"] = data["strategy"].replace("d", "a") + data["seed"].astype(str)
    data.loc[data.strategy == "d", "accuracy"] = data[data.strategy == "a"].accuracy.to_numpy()
    columns = replace(COLUMNS, same="node")
    expected = as_text(analyze(data, columns))
    for seed in range(5):
        mixed = data.sample(frac=1, random_state=seed)
        assert as_text(analyze(mixed, columns)) == expected
        loose = Columns("accuracy", "strategy", same="node")
        assert as_text(analyze(mixed, loose)) == as_text(analyze(data, loose))


def test_identical_groups_are_stated_once_and_never_tested() -> None:
    data = noisy({"baseline": 1.0, "joint": 2.0, "two-stage": 0.0})
    twin = data[data.strategy == "baseline"].accuracy.to_numpy()
    data.loc[data.strategy == "two-stage", "accuracy"] = twin
    data["node"] = data.strategy.replace("two-stage", "baseline") + data.seed.astype(str)
    analysis = analyze(data, replace(COLUMNS, same="node"))
    over, first = ways(analysis)
    for pairs in (over.pairs, first.pairs):
        assert [(p.a, p.b) for p in pairs] == [("joint", "baseline = two-stage")]
    assert over.order.text().startswith("joint >")
    assert any("identical by construction" in note for note in analysis.notes)
    # Negative control: without a key they are tested like others, and that pair has nothing to test.
    over, _ = ways(analyze(data, COLUMNS))
    twins = next(p for p in over.pairs if {p.a, p.b} == {"baseline", "two-stage"})
    assert isinstance(twins, UntestedPair) and "equal in every" in twins.why


def test_groups_said_to_be_identical_must_be(snapshot: SnapshotAssertion) -> None:
    data = noisy({"a": 0.0, "b": 1.0}).assign(node="the same")
    assert refusal(analyze, data, replace(COLUMNS, same="node")) == snapshot


def test_what_two_have_in_common_with_a_third_makes_them_no_twins() -> None:
    """One of them stood for both, with its own values in the block where they differ."""
    rows = [("a", 1, 1.0, "x"), ("b", 1, 1.0, "x"), ("b", 2, 2.0, "y"), ("c", 2, 2.0, "y")]
    rows += [("a", 3, 3.0, "of a"), ("c", 3, 9.0, "of c")]
    data = pd.DataFrame(rows, columns=["strategy", "seed", "accuracy", "node"])
    analysis = analyze(data, replace(COLUMNS, same="node"))
    assert {mean.group: mean.mean for mean in analysis.means} == {"a = b": 2.0, "c": 5.5}


def test_one_value_each_of_one_key_is_one_group_without_blocks_too() -> None:
    data = frame({"a": [1.0], "b": [1.0], "c": [2.0, 3.0]}).drop(columns="seed")
    data["node"] = ["n", "n", "of c", "of c too"]
    analysis = analyze(data, Columns("accuracy", "strategy", same="node"))
    assert [mean.group for mean in analysis.means] == ["c", "a = b"]


def test_keys_that_agree_in_some_blocks_are_noted() -> None:
    data = frame({"a": [1.0, 2.0, 4.0], "b": [1.0, 3.0, 2.0]})
    data["node"] = ["n1", "n2", "n3", "n1", "n4", "n5"]
    notes = analyze(data, replace(COLUMNS, same="node")).notes
    assert any("same place in 1 of 3 blocks (42)" in note for note in notes)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (frame({"a": [1.0] * 5, "b": [2.0] * 5}), "nothing to measure"),
        (frame({"a": [0.1 + 0.2, 0.3] * 3, "b": [0.7, 0.7 + 1e-16] * 3}), "nothing to measure"),
        (frame({"a": [0.1, 0.2, 0.4], "b": [1.1, 1.2, 1.4]}), "same amount in every block"),
        (frame({"a": [1.0], "b": [2.0], "c": [4.0]}), "no more than one block"),
        (frame({"a": [1.0, 2.0]}), "there is one group, a"),
        (frame({"a": [np.nan] * 3, "b": [np.nan] * 3}), "there are no values"),
        (pd.concat([frame({"a": [1, 2.0]}), frame({"b": [1, 3.0]}, [1, 2])]), "they share no block"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_tested_is_said(data: pd.DataFrame, why: str) -> None:
    analysis = analyze(data, COLUMNS)
    text = as_text(analysis)
    assert re.search(f'"(untested|why)": "[^"]*{why}', text), text
    assert "Infinity" not in text and "NaN" not in text
    if isinstance(analysis.over_blocks, OverBlocks):
        assert isinstance(analysis.over_blocks.anova, Untested)
        assert sentence(analysis.over_blocks.anova).startswith("not tested: ")


def test_each_way_says_in_its_own_words_that_values_are_too_few() -> None:
    single = analyze(frame({"a": [1.0], "b": [2.0]}), COLUMNS)
    assert isinstance(single.one_way, Untested) and isinstance(single.over_blocks, Untested)
    assert "no more than one value a group" in single.one_way.why
    assert "no more than one block" in single.over_blocks.why
    uneven = analyze(pd.concat([frame({"a": [1.0, 2.0, 3.0]}), frame({"b": [2.0]})]), COLUMNS)
    assert isinstance(uneven.one_way, Untested) and isinstance(uneven.over_blocks, Untested)
    assert "only one group has more than one value" in uneven.one_way.why
    assert "only one group has more than one block" in uneven.over_blocks.why


def test_one_constant_group_is_noted_and_the_rest_tested() -> None:
    data = pd.concat([frame({"a": [1.0] * 5}), noisy({"b": 1.0, "c": 5.0})])
    analysis = analyze(data, COLUMNS)
    over, first = ways(analysis)
    assert isinstance(first.anova, Anova) and isinstance(over.anova, Repeated)
    assert "a is constant" in analysis.notes


def test_missing_values_and_blocks_are_named() -> None:
    data = noisy({"a": 0.0, "b": 1.0, "c": 2.0})
    data.loc[(data.strategy == "b") & (data.seed == 43), "accuracy"] = np.nan
    data.loc[(data.strategy == "c") & (data.seed == 44), "accuracy"] = np.inf
    data = pd.concat([data, frame({"d": [1.0]})])
    analysis = analyze(data, COLUMNS)
    over, _ = ways(analysis)
    text = " | ".join(analysis.notes)
    assert "2 values are missing or not finite and were left out: b in 43, c in 44" in text
    assert "d has one value and is left out of every test" in text
    assert "block 43 lacks b" in text and "block 44 lacks c" in text
    assert isinstance(over.anova, Repeated) and over.anova.blocks == 3


def test_two_groups_only() -> None:
    analysis = analyze(noisy({"a": 0.0, "b": 1.0}), COLUMNS)
    over, first = ways(analysis)
    assert isinstance(over.anova, Repeated) and isinstance(over.pairs[0], Pair)
    assert over.anova.p == pytest.approx(over.pairs[0].p)
    assert isinstance(first.anova, Anova) and isinstance(first.pairs[0], Pair)
    assert first.anova.p == pytest.approx(first.pairs[0].p, abs=1e-9)
    assert any("two groups" in note for note in analysis.notes)


def test_estimates_are_not_tested() -> None:
    data = noisy({"a": 0.0, "b": 9.0}).assign(measured=True)
    data.loc[data.index[2], "measured"] = False
    analysis = analyze(data, replace(COLUMNS, measured="measured"))
    assert isinstance(analysis.one_way, Untested) and isinstance(analysis.over_blocks, Untested)
    assert analysis.one_way.why.startswith("estimated, not tested")
    assert len(analysis.means) == 2
    ways(analyze(data.assign(measured=True), replace(COLUMNS, measured="measured")))


def test_the_papers_families(snapshot: SnapshotAssertion) -> None:
    names = (*CORE, "joint-branch", "baseline")
    data = noisy({name: float(i) for i, name in enumerate(names)})
    actual = {where["family"]: a for where, a in analyze_by(data, COLUMNS, families=FAMILIES)}
    assert set(actual) == {"core", "joint-branch"}
    assert {m.group for m in actual["core"].means} == set(CORE)
    assert {m.group for m in actual["joint-branch"].means} == {"joint-branch", "joint", "branch-wise"}
    assert isinstance(actual["core"].one_way, OneWay)
    assert isinstance(actual["core"].one_way.anova, Anova)
    assert (actual["core"].one_way.anova.df1, actual["core"].one_way.anova.df2) == (4, 20)
    assert refusal(list, analyze_by(noisy({"x": 0, "y": 1}), COLUMNS, families=FAMILIES)) == snapshot


def test_by_splits_and_keeps_empty_keys() -> None:
    data = noisy({"a": 0.0, "b": 1.0})
    both = pd.concat([data.assign(model="m2"), data.assign(model=None), data.assign(model="m1")])
    assert [w["model"] for w, _ in analyze_by(both, COLUMNS, ["model"])] == ["m1", "m2", "–"]


def test_numbers_to_split_by_are_in_their_order() -> None:
    data = noisy({"a": 0.0, "b": 1.0})
    both = pd.concat([data.assign(exit=exit, model=m) for exit in (10, 2, 1) for m in ("b", "a")])
    actual = [(w["model"], w["exit"]) for w, _ in analyze_by(both, COLUMNS, ["model", "exit"])]
    assert actual == [(m, exit) for m in ("a", "b") for exit in ("1", "2", "10")]


@pytest.mark.parametrize(
    ("change", "columns", "message"),
    [
        ({}, Columns("acuracy", "strategy"), "no column 'acuracy'; did you mean 'accuracy'?"),
        ({"seed": 42}, COLUMNS, "strategy 'a' has several values for seed 42; .* --by"),
        ({"accuracy": "high"}, COLUMNS, "column 'accuracy' must hold numbers"),
        ({"strategy": None}, COLUMNS, "column 'strategy' is empty in 10 of 10 rows"),
        ({"m": "perhaps"}, replace(COLUMNS, measured="m"), "column 'm' holds 'perhaps'"),
    ],
)
def test_mistakes_in_the_data(change: dict[str, object], columns: Columns, message: str) -> None:
    data = noisy({"a": 0.0, "b": 1.0}).assign(**change)
    with pytest.raises(OfframpError, match=message):
        analyze(data, columns)
