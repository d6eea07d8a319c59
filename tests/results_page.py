"""The pages of docs/results, and the folders that they are of."""

import re
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs" / "results"


def page() -> str:
    """README.md, which is of all studies."""
    return (DOCS / "README.md").read_text(encoding="utf-8")


def section(name: str) -> str:
    """What a page says of a study, to the next heading. name: of its folder."""
    pages = (path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md")))
    (text,) = (text for text in pages if f"([{name}](" in text)
    return text[text.index(f"([{name}](") :].partition("\n## ")[0]


def clauses(study: str, question: str, facts: Mapping[str, str]) -> list[str]:
    """What a page says under a question of a study's section, or before all of them, by facts' names,
    as `named_clauses` has it. question: Words that it has, and no other."""
    text = section(study)
    (begin,) = re.finditer(rf"\n\n\*\*[^*]*{question}[^*]*\*\*" if question else r"\A", text)
    return named_clauses(text[begin.end() :].partition("\n\n**")[0], facts)


def named_clauses(text: str, facts: Mapping[str, str], every: bool = False) -> list[str]:
    """A text clause by clause, with names of facts in the place of their values; commands are left out,
    and clauses without any, but for `every`. In a snapshot of it each number stands where its sentence
    has it. Fails where the text lacks a value."""
    parts = (" ".join(part.split()) for part in text.split("\n\n") if not part.startswith("    "))
    names: dict[str, list[str]] = {}
    for name, value in facts.items():
        names.setdefault(value.lower(), []).append(name)
    values = "|".join(re.escape(value) for value in sorted(names, key=len, reverse=True))
    marked = re.sub(
        rf"(?<![\w.,-])(?:{values})(?![\w-]|[.,]\d)",
        lambda value: f"{{{' = '.join(names[value[0].lower()])}}}",
        "\n".join(parts),
        flags=re.IGNORECASE,
    )
    lacking = [n for of in names.values() for n in of if f"{{{' = '.join(of)}}}" not in marked]
    assert not lacking, f"the text has no {[(n, facts[n]) for n in lacking]}"
    return [clause for clause in re.split(r"(?<=[.;:?]) |\n", marked) if every or "{" in clause]


def groups_of(pattern: str, text: str) -> tuple[str, ...]:
    """The groups of a pattern that a text has once."""
    (actual,) = re.finditer(pattern, text)
    return actual.groups()


def packs(name: str) -> list[Path]:
    """The packs of a study, by seed where each has one of its own."""
    alone = DOCS / name
    return [alone] if (alone / "trials.json").exists() else sorted(alone.glob("[0-9]*"))
