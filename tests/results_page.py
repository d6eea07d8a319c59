"""docs/results/README.md, and the folders that it is of."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "results"


def page() -> str:
    return (DOCS / "README.md").read_text(encoding="utf-8")


def section(name: str) -> str:
    """What the page says of a study, to the next heading. name: of its folder."""
    text = page()
    return text[text.index(f"([{name}](") :].partition("\n## ")[0]


def groups_of(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of a pattern that a text has once."""
    (actual,) = re.finditer(pattern, text)
    return actual.groups()


def packs(name: str) -> list[Path]:
    """The packs of a study, by seed where each has one of its own."""
    alone = DOCS / name
    return [alone] if (alone / "trials.json").exists() else sorted(alone.glob("[0-9]*"))
