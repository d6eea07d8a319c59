"""Whether differences of strategies depend on the setting, on planted runs."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from syrupy.assertion import SnapshotAssertion
from table_evidence import evidence, planted

from offramp.analysis.measures import MEASURES
from offramp.analysis.stats.pairwise import Pair, Pairs, UntestedPair
from offramp.api.results.compare import InteractionReport
from offramp.report.compare import ALL, across
from offramp.report.evidence import Evidence
from wording import refusal

ACCURACY = MEASURES["accuracy-test"]
LONG = {"joint": 0.05, "separate": 0.05, "two-stage": 0.0}


def runs(shift: Mapping[str, float], seeds: int = 5, own: bool = False) -> Evidence:
    """own: with noise of its own."""
    built = planted(seeds, shift=shift)
    more = [
        replace(
            t,
            accuracy={k: v + 0.001 * ((t.seed * 7 + k + len(shift)) % 3) for k, v in t.accuracy.items()},
        )
        for t in built
    ]
    return evidence(more if own else built)


def significant(pairs: Pairs) -> set[tuple[str, str]]:
    return {(p.a, p.b) for p in pairs if isinstance(p, Pair) and p.p < 0.05}


def test_what_depends_on_the_setting_is_shown_and_nothing_else() -> None:
    """Joint and two-stage change places; separate loses as much as joint."""
    short = {"joint": 0.0, "separate": 0.0, "two-stage": 0.05}
    pairs, images = across(runs(LONG), runs(short, own=True), ALL, ALL, ACCURACY)
    assert significant(pairs) == {("joint", "two-stage"), ("separate", "two-stage")} and images == 1000
    by_pair = {(p.a, p.b): p.difference for p in pairs}
    assert by_pair["joint", "two-stage"] == pytest.approx(0.1, abs=0.003)
    (alone,), _ = across(runs(LONG), runs(short, own=True), "joint", "two-stage", ACCURACY)
    assert alone.difference == pytest.approx(by_pair["joint", "two-stage"])


def test_a_setting_in_which_all_are_better_changes_no_difference() -> None:
    better = {name: shift + 0.08 for name, shift in LONG.items()}
    pairs, _ = across(runs(better, own=True), runs(LONG), ALL, ALL, ACCURACY)
    assert significant(pairs) == set()


def test_other_measures_are_compared_over_seeds() -> None:
    pairs, images = across(runs(LONG), runs(LONG), ALL, ALL, MEASURES["accuracy-validation"])
    assert images == 0 and all(isinstance(p, UntestedPair) for p in pairs)  # equal in every seed


def test_what_has_no_interaction(snapshot: SnapshotAssertion) -> None:
    whole = runs(LONG)
    two = evidence([*planted(shift=LONG), *(replace(t, data="others") for t in planted(shift=LONG))])
    assert refusal(across, whole, whole, "joint", "joint-branch", ACCURACY) == snapshot
    assert refusal(across, two, whole, ALL, ALL, ACCURACY) == snapshot
    seconds = MEASURES["seconds-executed"]
    assert across(whole, whole, ALL, ALL, seconds)[1] == 0
    estimated = evidence([replace(t, measured=False) for t in planted(shift=LONG)])
    assert refusal(across, whole, estimated, ALL, ALL, seconds) == snapshot


def test_the_answer_counts_and_names(snapshot: SnapshotAssertion) -> None:
    few = runs(LONG, seeds=2)
    pairs = (
        Pair("a", "b", 0.0125, 0.004, 0.021, 0.0031),
        Pair("a", "c", -0.002, -0.01, 0.006, 0.4),
        *across(few, few, "joint", "separate", ACCURACY)[0],
    )
    report = InteractionReport(pairs, ACCURACY, 1000)
    table, *words = report.document()
    assert words == snapshot and report.as_json()["pairs"][0]["p"] == 0.0031
    assert [row[0] for row in table.rows] == ["a – b", "a – c"]  # type: ignore[union-attr]
    assert InteractionReport(pairs[2:], ACCURACY, 1000).document() == words[1:]  # without a table
