"""A score is one entry of `SCORES`; what else must know it says so at once, by the score's name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from offramp.bundle import web
from offramp.policy.learned import LEARNERS
from offramp.policy.scoring import SCORES

SITE = Path(web.__file__).parent / "site" / "network.js"
OF_A_CLASS = [name for name, score in SCORES.items() if not score.several]  # the page refuses others
DOCS = Path(__file__).parents[2] / "docs" / "calibration.md"


def on_page(script: str) -> list[str]:
    """The scores of the page of `export --web`, whether their names are quoted or not."""
    table = script.partition("const SCORES = {")[2].partition("\n};")[0]
    return [name for _, name in re.findall(r"^  (['\"]?)([\w-]+)\1(?=:|\()", table, re.MULTILINE)]


def differing(names: Iterable[str], scores: Iterable[str] = SCORES) -> list[str]:
    return sorted(set(names) ^ set(scores))


def test_the_page_has_every_score() -> None:
    """Else it throws at the first image under a score that it lacks."""
    script = SITE.read_text(encoding="utf-8")
    assert differing(on_page(script), OF_A_CLASS) == []
    assert differing(on_page(script.replace("  margin: ", '  "margin": ')), OF_A_CLASS) == []
    spoiled = script.replace("  margin: ", "  gap: ").replace("  patience: ", "  'run-length': ")
    assert differing(on_page(spoiled), OF_A_CLASS) == ["gap", "margin", "patience", "run-length"]


def test_every_learned_score_has_who_learns_it() -> None:
    learned = [name for name, score in SCORES.items() if score.learned]
    assert differing(LEARNERS, learned) == []


def test_every_score_is_explained() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert differing(rows) == []
