"""`offramp claims` and `offramp recommend` on a store that was really run."""

import json
from pathlib import Path

import pytest
from command import Answer, Cli, narrow, refusal
from syrupy.assertion import SnapshotAssertion

from offramp.api.results.recommend import recommend
from wording import refused_as

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


def paragraphs(said: str, *words: str) -> list[str]:
    """Of an answer the paragraphs that have one of these words, each in one line."""
    parts = [" ".join(part.split()) for part in said.split("\n\n")]
    return [part for part in parts if any(word in part for word in words)]


def test_claims_say_what_was_found_and_what_is_missing(
    cli: Cli, store: Path, snapshot: SnapshotAssertion
) -> None:
    said = narrow(cli("claims", store))  # digits are none of the paper's data
    assert "111 not testable here" in said and "40,000" in said
    said = narrow(cli("claims", store, "--anywhere"))
    assert "Not testable here" in said and "the strategy distillation" in said
    assert paragraphs(said, "111 claims: ", "verdicts", "Holm") == snapshot


def test_own_claims_one_in_full_and_json(cli: Cli, store: Path, snapshot: SnapshotAssertion) -> None:
    Path("mine.yaml").write_text(MINE)
    said = narrow(cli("claims", store, "--claims", "mine.yaml"))
    assert "2 claims: " in said
    one = narrow(cli("claims", store, "--claims", "mine.yaml", "--only", "same-final-exit"))
    assert paragraphs(one, "by construction") == snapshot(name="one")
    answer = json.loads(cli("claims", store, "--claims", "mine.yaml", "--json").out)
    first, second = answer["claims"]
    assert second["verdict"] == "identical by construction" and second["p"] is None
    assert first["comparisons"][0]["seeds"] == 2
    assert 0 < first["p"] <= 1
    Path("mine.yaml").write_text(MINE.replace("loss-validation", "loss-test"))
    (first, _) = json.loads(cli("claims", store, "--claims", "mine.yaml", "--json").out)["claims"]
    assert first["verdict"] == "not testable here"  # over test images two seeds tell too little
    assert first["missing"] == snapshot(name="missing") and first["compared"] == 1


@pytest.mark.parametrize("goal", ["accuracy", "latency", "training-time", "pareto"])
def test_recommend_ranks_and_rules_out(cli: Cli, store: Path, goal: str) -> None:
    said = narrow(cli("recommend", store, "--goal", goal))
    assert "joint" in said and "for a recommendation" in said and "no early exits" in said
    answer = json.loads(cli("recommend", store, "--goal", goal, "--json").out)
    assert answer["evidence"][0]["ranking"] and answer["guidelines"] is None


def test_recommend_without_readings_falls_back_on_the_guidelines(
    cli: Cli, store: Path, snapshot: SnapshotAssertion
) -> None:
    answer = json.loads(cli("recommend", store, "--goal", "energy", "--json").out)
    assert not answer["evidence"][0]["ranking"] and answer["guidelines"]
    said = narrow(cli("recommend", store, "--goal", "energy"))
    assert paragraphs(said, "No runs") == snapshot


def test_recommend_without_a_store_gives_the_guidelines_and_says_so(
    cli: Cli, snapshot: SnapshotAssertion
) -> None:
    said = narrow(cli("recommend", "--goal", "memory", "--frozen-backbone"))
    assert paragraphs(said, "No runs") == snapshot
    assert "two-stage" in said and "backbone: kept" in " ".join(said.split())
    assert json.loads(cli("recommend", "--goal", "memory", "--json").out)["evidence"] == []


def test_recommend_keeps_to_what_is_asked(cli: Cli, store: Path) -> None:
    of = ("recommend", store, "--goal")
    frozen = narrow(cli(*of, "accuracy", "--frozen-backbone"))
    accurate = narrow(cli(*of, "latency", "--min-accuracy", "100%"))
    assert "the backbone's weights" in frozen and "% at most" in accurate
    assert "no ranking" in accurate
    assert "more MACs than" in narrow(cli(*of, "accuracy", "--max-macs", "1"))


@pytest.mark.parametrize("share", [90, 0.0, float("nan")])
def test_a_share_from_python_is_one_of_1_too(
    share: float, store: Path, snapshot: SnapshotAssertion
) -> None:
    with refused_as(snapshot):
        recommend(store, goal="latency", min_accuracy=share)


def test_several_stores_count_as_one(cli: Cli, store: Path, snapshot: SnapshotAssertion) -> None:
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
        assert refusal(cli("show", "joint", folder)) == snapshot(name=folder)


def test_packs_are_compared_as_their_store_is(
    cli: Cli, store: Path, snapshot: SnapshotAssertion
) -> None:
    for out, names in {"first": ["joint"], "second": ["two-stage"]}.items():
        assert cli("store", "pack", store, "--strategy", *names, "--out", f"packs/{out}").code == 0
    trials = sorted(path.name for path in (store / "trials").glob("joint-digits*"))[:2]
    for pair in (("joint", "two-stage"), trials):
        for measure in ("accuracy", "seconds-written", "f1"):
            of = ("compare", *pair, "--measure", measure, "--json")
            whole, packed = cli(*of, "--store", store), cli(*of, "--store", "packs")
            assert (packed.code, packed.out) == (whole.code, whole.out)
    assert refusal(cli("compare", "joint", "mixed", "packs")) == snapshot
