"""`offramp claims` and `offramp recommend` on a store that was really run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Answer, Cli, narrow, refused

from offramp.api.results.recommend import recommend
from offramp.errors import OfframpError

MINE = """\
claims:
  - id: joint-at-exit-1
    section: mine
    question: more
    text: Joint training has a lower loss than two-stage training at exit 1.
    measure: loss-validation
    is: lower
    strategies: joint
    against: two-stage
    exits: 1
  - id: same-final-exit
    section: mine
    question: more
    text: Two-stage training has a better final exit than the plain network.
    measure: final-accuracy-test
    is: higher
    strategies: two-stage
    against: baseline
"""


@pytest.fixture
def store(finished: tuple[Path, Answer]) -> Path:
    return finished[0] / "runs"


def test_claims_say_what_was_found_and_what_is_missing(cli: Cli, store: Path) -> None:
    said = narrow(cli("claims", store))
    assert "111 claims: 111 not testable here." in said  # digits are none of the paper's data
    assert "runs like those on" in said and "40,000" in said
    said = narrow(cli("claims", store, "--anywhere"))
    assert "Not testable here" in said
    assert "the strategy distillation" in said
    assert "111 claims: " in said and "no verdicts on the paper" in " ".join(said.split())
    assert "adjusted after Holm" in said


def test_own_claims_one_in_full_and_json(cli: Cli, store: Path) -> None:
    Path("mine.yaml").write_text(MINE)
    said = narrow(cli("claims", store, "--claims", "mine.yaml"))
    assert "2 claims: " in said
    one = narrow(cli("claims", store, "--claims", "mine.yaml", "--only", "same-final-exit"))
    assert "Identical by construction: two-stage − baseline; digits-cnn, digits." in one
    assert "Verdict: identical by construction" in one
    answer = json.loads(cli("claims", store, "--claims", "mine.yaml", "--json").out)
    first, second = answer["claims"]
    assert second["verdict"] == "identical by construction" and second["p"] is None
    assert first["comparisons"][0]["seeds"] == 2
    assert 0 < first["p"] <= 1
    Path("mine.yaml").write_text(MINE.replace("loss-validation", "loss-test"))
    (first, _) = json.loads(cli("claims", store, "--claims", "mine.yaml", "--json").out)["claims"]
    assert first["verdict"] == "not testable here"  # over test images two seeds tell too little
    assert first["missing"] == ["seeds: 2 in common, three are needed"] and first["compared"] == 1


@pytest.mark.parametrize("goal", ["accuracy", "latency", "training-time", "pareto"])
def test_recommend_ranks_and_rules_out(cli: Cli, store: Path, goal: str) -> None:
    said = narrow(cli("recommend", store, "--goal", goal))
    assert "joint" in said and "too few for a recommendation" in said
    assert "it has no early exits" in said
    answer = json.loads(cli("recommend", store, "--goal", goal, "--json").out)
    assert answer["evidence"][0]["ranking"] and answer["guidelines"] is None


def test_recommend_without_readings_falls_back_on_the_guidelines(cli: Cli, store: Path) -> None:
    answer = json.loads(cli("recommend", store, "--goal", "energy", "--json").out)
    assert not answer["evidence"][0]["ranking"] and answer["guidelines"]
    said = narrow(cli("recommend", store, "--goal", "energy"))
    assert "These runs give no answer. No runs back this." in said.replace("\n", " ")


def test_recommend_without_a_store_gives_the_guidelines_and_says_so(cli: Cli) -> None:
    said = narrow(cli("recommend", "--goal", "memory", "--frozen-backbone"))
    assert "There is no store at runs. No runs back this." in said.replace("\n", " ")
    assert "two-stage" in said and "backbone: kept" in " ".join(said.split())
    assert json.loads(cli("recommend", "--goal", "memory", "--json").out)["evidence"] == []


def test_recommend_keeps_to_what_is_asked(cli: Cli, store: Path) -> None:
    said = narrow(cli("recommend", store, "--goal", "accuracy", "--frozen-backbone"))
    assert "it trains the backbone's weights" in said
    said = narrow(cli("recommend", store, "--goal", "latency", "--min-accuracy", "100%"))
    assert "no ranking, every strategy is ruled out" in said and "% at most" in said
    said = narrow(cli("recommend", store, "--goal", "accuracy", "--max-macs", "1"))
    assert "it needs more MACs than these" in said


@pytest.mark.parametrize("share", [90, 0.0, float("nan")])
def test_a_share_from_python_is_one_of_1_too(share: float, store: Path) -> None:
    with pytest.raises(OfframpError, match=r"`min_accuracy` is .*; write a share of 1"):
        recommend(store, goal="latency", min_accuracy=share)


def test_several_stores_count_as_one(cli: Cli, store: Path) -> None:
    Path("mine.yaml").write_text(MINE)
    packs = {"plain": ["baseline"], "exits": ["joint", "two-stage"], "whole": []}
    for out, names in packs.items():
        of = [word for name in names for word in ("--strategy", name)]
        assert cli("store", "pack", store, *of, "--out", out).code == 0
    for words in (("recommend", "--goal", "latency"), ("claims", "--claims", "mine.yaml")):
        whole, parts, alone = (
            json.loads(cli(words[0], *places, *words[1:], "--json").out)
            for places in (["whole"], ["plain", "exits"], ["exits"])
        )
        assert whole == parts != alone
    for folder in ("exits", "."):  # what else reads results takes a store
        refused(cli("show", "joint", folder), "packed results, and this takes a store")


def test_packs_are_compared_as_their_store_is(cli: Cli, store: Path) -> None:
    for out, names in {"first": ["joint"], "second": ["two-stage"]}.items():
        assert cli("store", "pack", store, "--strategy", *names, "--out", f"packs/{out}").code == 0
    trials = sorted(path.name for path in (store / "trials").glob("joint-digits*"))[:2]
    for pair in (("joint", "two-stage"), trials):
        for measure in ("accuracy", "seconds-written", "f1"):
            of = ("compare", *pair, "--measure", measure, "--json")
            whole, packed = cli(*of, "--store", store), cli(*of, "--store", "packs")
            assert (packed.code, packed.out) == (whole.code, whole.out)
    refused(cli("compare", "joint", "mixed", "packs"), "no strategy 'mixed' in packs")
