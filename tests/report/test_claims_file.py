"""The claims file that comes with the package, and what a user's own may say."""

from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.analysis.claims import Regime
from offramp.analysis.measures import MEASURES
from offramp.report.claims import parse_claims, published, read
from refusal import refuses
from wording import refusal

GOOD = """\
claims:
  - id: one
    section: my notes
    question: more
    text: A is better than B.
    measure: accuracy-test
    is: higher
    strategies: a
    against: [b]
"""


def test_the_papers_findings_cover_its_questions() -> None:
    claims = published()
    assert len(claims) >= 25
    for question in ("rq1", "rq2", "rq3", "more"):
        assert sum(claim.question == question for claim in claims) >= 5
    assert {claim.measure for claim in claims} <= set(MEASURES)
    assert any(claim.section.startswith("7") for claim in claims)


def test_contradictions_name_each_other() -> None:
    by_id = {claim.id: claim for claim in published()}
    pairs = [(first.id, other) for first in by_id.values() for other in first.contradicts]
    assert ("joint-least-gpu-memory", "joint-most-gpu-memory") in pairs
    assert ("separate-beats-two-stage", "separate-branch-wise-least-accurate") in pairs  # Table 7
    assert ("separate-strong-early-exits", "separate-weak-early-exits") in pairs  # the abstract
    assert {(b, a) for a, b in pairs} == set(pairs)


def test_what_is_said_to_be_alike_is_tested_on_both_sides() -> None:
    alike = {claim.id for claim in published() if "within" in claim.text or "about" in claim.text}
    assert alike == {claim.id for claim in published() if claim.is_ == "within"} and len(alike) >= 4


def test_every_finding_of_the_paper_is_bound_to_data() -> None:
    for claim in published():
        assert all(first.classes and first.epochs and first.weights for first in claim.data), claim.id
    loose = {claim.id for claim in published(anywhere=True) if claim.data[0].plain}
    assert "distillation-most-accurate" in loose and "joint-least-gpu-memory" in loose
    assert not loose & {"joint-fastest", "gap-grows-with-depth", "gap-grows-with-classes"}


FEW = Regime(("a", "b", "c"), 150, test=10, size=8, channels=1, epochs=5, weights="random")
BOUND = """\
data_sets:
  small: {title: Few, classes: 3, train: [100, 200], weights: random}
data: small
claims:
"""


def test_data_sets_by_name_by_facts_and_by_default() -> None:
    (default,) = parse_claims(BOUND + GOOD.split("\n", 1)[1], "f.yaml")
    assert [(first.title, first.classes, first.train) for first in default.data] == [
        ("Few", (3, 3), (100, 200))
    ]
    own = "data: [small, cifar*, {classes: [2, 5]}]"
    (several,) = parse_claims(BOUND + GOOD.split("\n", 1)[1] + f"    {own}\n", "f.yaml")
    assert [first.name for first in several.data] == ["*", "cifar*", "*"]
    assert several.data[2].classes == (2, 5) and not several.data[0].off("net", "any", FEW)
    (free,) = parse_claims(GOOD, "f.yaml")
    assert free.data[0].plain and not free.data[0].off("net", "any", None)


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    (claim,) = read(path)
    assert (claim.strategies, claim.against) == (("a",), ("b",))
    assert (claim.exits, claim.is_) == ("overall", "higher")


WRONG = [  # what stands there instead of what
    ("accuracy-test", "acuracy-test"),
    ("higher", "greater"),
    ("higher", "within"),
    ("against", "agains"),
    ("    against: [b]\n", ""),
    ("against: [b]", "against: [b]\n    order: [a, b]"),
    ("strategies: a", "order: [a, b]"),
    ("    strategies: a\n", ""),
    ("question: more", "question: rq9"),
    ("text: A is better than B.", "text: ''"),
    ("against: [b]", "against: []"),
    ("against: [b]", "against: [b]\n    exits: [0]"),
    ("[b]", "[b]\n    exits: every"),
    ("[b]", "[b]\n    margin: much"),
    ("[b]", "[b]\n    contradicts: two"),
    ("claims:", "data_sets: {few: {clases: 3}}\nclaims:"),
    ("claims:", "data_sets: {few: {train: [9, 3]}}\nclaims:"),
    ("[b]", "[b]\n    data: {weights: any}"),
    ("id: one", "id: One claim"),
    ("against: [b]", "against_exits: 1"),
    ("measure: accuracy-test", "measure: final-accuracy-test\n    exits: 1"),
    ("claims:", "claim:"),
    (GOOD, ""),
    (GOOD, "claims: ["),
    (GOOD, "claims: []"),
    (GOOD, GOOD + GOOD.split("\n", 1)[1]),
]


@pytest.mark.parametrize(("old", "new"), WRONG)
def test_mistakes_are_one_line_with_file_and_line(
    old: str, new: str, snapshot: SnapshotAssertion
) -> None:
    line = refusal(parse_claims, GOOD.replace(old, new), "f.yaml")
    assert line.startswith("f.yaml") and line == snapshot


def test_files_that_cannot_be_read(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    assert refusal(read, tmp_path / "none.yaml") == snapshot
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    refuses("not a text file", read, tmp_path / "x.yaml")
    refuses("cannot be read", read, tmp_path)
