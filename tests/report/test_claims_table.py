"""Claims as a table of a report, and the sentences at its top."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from offramp.analysis.claims import check
from offramp.report import evidence
from offramp.report.advice import answer, facts
from offramp.report.claims import claims_table, paper, parse_claims
from simulate import CIFAR100, tidy_table
from support import run_all, tiny_plan, tiny_study

ROOT = Path(__file__).parents[2]


def test_a_row_a_claim_and_the_same_each_time() -> None:
    outcomes = check(paper(), tidy_table(1, seeds=3), CIFAR100)
    table = claims_table(outcomes)
    assert list(table.frame.index) == [claim.id for claim in paper()]
    assert {column.key for column in table.columns} == set(table.frame.columns)
    assert table.caption.startswith(f"{len(outcomes)} claims: ")
    untested = table.frame[table.frame["verdict"] == "not testable here"]
    assert untested["decides"].str.startswith("missing: ").all() and len(untested)
    pd.testing.assert_frame_equal(table.frame, claims_table(outcomes).frame)


def test_contradictions_are_noted_once() -> None:
    notes = claims_table(check(paper(), tidy_table(1, seeds=2))).notes
    memory = [n for n in notes if {"joint-least-gpu-memory", "joint-most-gpu-memory"} <= set(n.split())]
    assert len(memory) == 1


def test_the_example_of_the_docs_is_a_claims_file() -> None:
    text = (ROOT / "docs/claims.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (claim,) = parse_claims(example, "docs/claims.md")
    assert claim.exits == (1, 2) and claim.data[0].classes == (10, 10)
    assert f"{len(paper())} statements" in text


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> evidence.Evidence:
    study = tiny_study(["baseline", "joint", "two-stage"], seeds=(1, 2))
    store, _ = run_all(tiny_plan(study), tmp_path_factory.mktemp("store"))
    return evidence.open(store.root)


def test_operating_points_are_those_of_the_trials(found: evidence.Evidence) -> None:
    known = facts(found)
    assert known.heads_only == {"baseline", "two-stage"}
    trial = next(t for t in found.trials if t.strategy == "joint")
    own = known.points[(known.points["strategy"] == "joint") & (known.points["seed"] == trial.seed)]
    own = own.set_index("point")
    for place, exit in enumerate(trial.exits):
        row = own.loc[f"exit {exit}"]
        assert row["macs"] == trial.macs[place]
        assert row["accuracy"] == pytest.approx(trial.manifest.metrics["test"].accuracy[place])
        assert row["held_out"] == pytest.approx(trial.manifest.metrics["calibration"].accuracy[place])
    gates = own[own.index.str.startswith("confidence")]
    assert gates["macs"].is_monotonic_increasing  # a higher threshold lets fewer leave early


def test_the_answer_is_a_sentence_a_goal_and_says_what_is_silent(found: evidence.Evidence) -> None:
    unread = found.table[~found.table["metric"].str.startswith(("memory", "power", "energy"))]
    sentences = answer(replace(found, table=unread))  # whatever this machine can measure
    assert [s.split(":")[0] for s in sentences[:2]] == ["For accuracy", "For few MACs at inference"]
    assert all(s.endswith(".") for s in sentences)
    assert re.search(
        r"at \d+\.\d % test accuracy; the target was \d+\.\d % on calibration", sentences[1]
    )
    assert "say nothing of little memory and little energy" in sentences[-1]
