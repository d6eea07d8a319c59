"""Claims as a table of a report, and the sentences at its top."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import table_evidence
from syrupy.assertion import SnapshotAssertion

from offramp.analysis.claims import check
from offramp.paper import FAMILIES
from offramp.report import evidence
from offramp.report.advice import answer, headline
from offramp.report.claims import claims_table, parse_claims, published
from offramp.report.render.tables import latex
from simulate import CIFAR100, tidy_table
from support import run_all, tiny_plan, tiny_study

ROOT = Path(__file__).parents[2]


def test_a_row_a_claim_that_is_testable_then_one_a_reason() -> None:
    outcomes = check(published(), tidy_table(1, seeds=3), CIFAR100, families=FAMILIES)
    table = claims_table(outcomes)
    untested = [o.claim.id for o in outcomes if o.verdict == "not testable here"]
    tested = [o.claim.id for o in outcomes if o.claim.id not in untested]
    assert list(table.frame.index)[: len(tested)] == tested and tested
    assert {column.key for column in table.columns} == set(table.frame.columns)
    assert table.caption.startswith(f"{len(outcomes)} claims: ")
    rows = table.frame.iloc[len(tested) :]
    assert set(rows.index) <= set(untested) and set(rows["verdict"]) == {"not testable here"}
    assert rows["decides"].str.startswith("missing: ").all() and rows["decides"].is_unique
    counted = sum(
        len(re.sub(r" and [\d,]+ more$", "", text).split(", "))
        + int((re.findall(r" and (\d+) more$", text) or [0])[0])
        for text in rows["claim"]
    )
    assert counted == len(untested)
    pd.testing.assert_frame_equal(table.frame, claims_table(outcomes).frame)


def test_where_nothing_is_testable_the_reason_is_there_once() -> None:
    """Thirty pages of LaTeX became two."""
    outcomes = check(published(), tidy_table(1, seeds=2), families=FAMILIES)
    table = claims_table(outcomes)
    assert {o.verdict for o in outcomes} == {"not testable here"} and table.notes == []
    assert len(table.frame) < 25 and len(latex(table)) < 10_000


def test_contradictions_are_noted_once() -> None:
    notes = claims_table(check(published(), tidy_table(1, seeds=3), CIFAR100, families=FAMILIES)).notes
    memory = [n for n in notes if {"joint-least-gpu-memory", "joint-most-gpu-memory"} <= set(n.split())]
    assert len(memory) == 1


def test_the_example_of_the_docs_is_a_claims_file() -> None:
    text = (ROOT / "docs/claims.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (claim,) = parse_claims(example, "docs/claims.md")
    assert claim.exits == (1, 2) and claim.data[0].classes == (10, 10)
    assert f"{len(published())} statements" in text


@pytest.fixture(scope="module")
def judged_runs(tmp_path_factory: pytest.TempPathFactory) -> evidence.Evidence:
    study = tiny_study(["baseline", "joint", "two-stage"], seeds=(1, 2))
    store, _ = run_all(tiny_plan(study), tmp_path_factory.mktemp("store"))
    return evidence.open(store.root)


def test_advice_rests_on_the_answers_of_the_trials(judged_runs: evidence.Evidence) -> None:
    reference = judged_runs.facts
    assert reference.heads_only == {"baseline", "two-stage"}
    trial = next(t for t in judged_runs.trials if t.strategy == "joint")
    own = reference.answers[trial.model, trial.data, "joint", trial.seed]
    assert own.macs == tuple(map(float, trial.macs)) and own.images == trial.manifest.data.test
    accuracy = trial.manifest.metrics["test"].accuracy
    assert own.right.mean(axis=0).tolist() == pytest.approx(list(accuracy))
    _, spent, hits = own.curve
    assert (spent[0], hits[0]) == (trial.macs[-1], pytest.approx(accuracy[-1]))
    assert (spent[-1], hits[-1]) == (trial.macs[0], pytest.approx(accuracy[0]))


def test_two_seeds_are_no_recommendation(judged_runs: evidence.Evidence) -> None:
    unread = judged_runs.table[
        ~judged_runs.table["metric"].str.startswith(("memory", "power", "energy"))
    ]
    sentences = answer(replace(judged_runs, table=unread))  # whatever this machine can measure
    assert all(s.endswith(".") for s in sentences)
    if not sentences[0].startswith("No network has learned"):
        assert sentences[0].startswith("2 seeds are too few for a recommendation")
        assert "say nothing of little memory and little energy" in sentences[-1]


EVEN = {"joint": 0.0, "separate": 0.0, "two-stage": 0.0}


@pytest.mark.parametrize(
    ("shift", "seeds"),
    [
        ({**EVEN, "joint": 0.1}, 5),
        (EVEN, 5),
        ({"joint": -0.36, "separate": -0.36}, 5),
        ({"joint": 0.1, "separate": 0.0}, 2),  # which recommend nothing
    ],
    ids=["one is better", "all are even", "chance", "two seeds"],
)
def test_planted_runs_are_told_in_sentences(
    shift: Mapping[str, float], seeds: int, snapshot: SnapshotAssertion
) -> None:
    """What is told first names the cheapest way, and how sure that is, where anything is."""
    whole = table_evidence.evidence(table_evidence.planted(seeds, shift=shift))
    assert [headline(whole), answer(whole)] == snapshot


def test_of_others_that_trained_for_longer_or_shorter_it_is_said_how_long_these_did(
    snapshot: SnapshotAssertion,
) -> None:
    whole = table_evidence.evidence(table_evidence.planted(shift=EVEN))
    (usual,), (longest,) = headline(whole), headline(replace(whole, budgets=(whole,)))
    assert longest == snapshot
    assert " in runs of" not in usual


def test_what_is_withheld_is_withheld_for_the_data_of_few_seeds(snapshot: SnapshotAssertion) -> None:
    shift = {**EVEN, "joint": 0.1}
    few = [replace(m, data="others") for m in table_evidence.planted(2, shift=shift)]
    text = answer(table_evidence.evidence([*table_evidence.planted(shift=shift), *few]))
    assert text == snapshot
    withheld = ("(net on others)", "accuracy on others")
    assert not any(words in s for s in text for words in withheld)
    assert [s for s in text if "too few" in s] == [
        s for s in text if s.startswith("others: 2 seeds are")
    ]
