"""Guides name every figure, table, measure, score, limit and term of losses that there is."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pytest

from offramp.analysis.measures import MEASURES
from offramp.metrics import METRICS
from offramp.phase import Term
from offramp.policy.limits import LIMITS
from offramp.policy.scoring import SCORES
from offramp.report.figures import FIGURES
from offramp.report.tables import TABLES

DOCS = Path(__file__).parents[1] / "docs"


def named(guide: str) -> set[str]:
    """All that a guide has in backticks or in code, a word each, `accuracy-S` and `memory-gpu-…` too."""
    text = (DOCS / guide).read_text(encoding="utf-8")
    code = re.findall(r"`([^`\n]+)`", text) + re.findall(r"^(?: {4}|```).*", text, re.MULTILINE)
    return set(re.findall(r"[\w.…-]+", " ".join([*code, *re.findall(r"```.*?```", text, re.DOTALL)])))


def is_named(name: str, words: Iterable[str]) -> bool:
    """Whether a guide names it, by itself or as one of several: S is a split, `power-cpu-…` all that
    begin so."""
    for word in words:
        stem, dots, rest = word.partition("…")
        if word == name or (dots and not rest and stem.count("-") > 1 and name.startswith(stem)):
            return True
        if re.fullmatch(re.escape(word).replace("\\-S", r"\-(train|validation|test)"), name):
            return True
    return False


@pytest.mark.parametrize(
    ("guide", "names"),
    [
        ("figures.md", FIGURES),
        ("tables.md", TABLES),
        ("claims.md", MEASURES),
        ("claims.md", [(m.word or name).replace("_", "-") + "-test" for name, m in METRICS.items()]),
        ("calibration.md", SCORES),
        ("calibration.md", [f"--{name.replace('_', '-')}" for name in LIMITS]),
        ("python.md", [term.__name__ for term in get_args(Term)]),
    ],
    ids=["figures", "tables", "measures", "metrics", "scores", "limits", "terms"],
)
def test_a_guide_names_all_there_are(guide: str, names: Iterable[str]) -> None:
    words = named(guide)
    assert [name for name in names if not is_named(name, words)] == []


def test_what_is_missing_is_noticed() -> None:
    words = named("figures.md")
    assert is_named("curves", words)
    assert not is_named("curve", words) and not is_named("overthinking-more", words)
    assert is_named("loss-test", {"loss-S"}) and not is_named("loss-calibration", {"loss-S"})
