"""The pages of results, from the packs beside this file: python docs/results/generate.py

Each section is what `offramp report` says of a study: its answer, and its first table. studies.yaml
names the studies, the packs of plain networks beside them, and the commands that trained them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from offramp.report import evidence as evidences
from offramp.report.advice import answer
from offramp.report.evidence import Evidence
from offramp.report.render.cells import Cell, layout
from offramp.report.tables import make

HERE = Path(__file__).parent
NOTE = (
    "<!-- Written by docs/results/generate.py. -->\n\n"
    "Means over seeds and test images; one split for all seeds, unless said; one learning rate for all "
    "strategies of a study. [All results](README.md)."
)


MARKS = (
    "Test accuracy, %, mean ± standard deviation over seeds. Bold: the best of the column; ≈: not "
    "significantly different from it."
)


def packs(name: str) -> list[Path]:
    """The packs of a study: its folder, or one a seed in it."""
    folder = HERE / name
    return (
        [folder]
        if (folder / "trials.json").exists()
        else sorted(p.parent for p in folder.glob("*/trials.json"))
    )


def opened(names: Sequence[str]) -> Evidence:
    return evidences.open_all([pack for name in names for pack in packs(name)])


def _written(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.mark == "best" else f"{cell.text} ≈" if cell.mark else cell.text


def table(evidence: Evidence) -> Iterator[str]:
    """Accuracy at each exit, as Markdown."""
    for each in make(evidence, ["main"])[:1]:
        form = layout(each)
        keep = [
            k
            for k, title in enumerate(form.titles)
            if title in ("strategy", "final", "mean") or title.startswith("exit ")
        ]
        yield "| " + " | ".join(form.titles[k] for k in keep) + " |"
        yield "|" + "|".join("--:" if form.numeric[k] else "---" for k in keep) + "|"
        for row in form.rows:
            yield "| " + " | ".join(_written(row[k]) for k in keep) + " |"
        yield ""
        yield MARKS


def section(study: dict[str, Any]) -> Iterator[str]:
    yield f"## {study['title']} ([{study['pack']}]({study['pack']}))"
    yield ""
    yield from (f"    {line}" for line in study["commands"].strip().splitlines())
    yield ""
    yield study["about"].strip()
    yield ""
    alone = opened([study["pack"]])
    yield from table(alone)
    yield ""
    if "figure" in study:
        yield f"![Accuracy against compute](figures/{study['figure']}.svg)"
        yield ""
    beside = study.get("beside", [])
    if beside:
        yield (
            "Beside plain networks ("
            + ", ".join(f"[{name}]({name})" for name in beside)
            + ") the report says:"
        )
    else:
        yield "The report says:"
    yield ""
    whole = opened([study["pack"], *beside])
    yield from (f"- {sentence}" for sentence in answer(whole))
    yield ""


def page(title: str, studies: Sequence[dict[str, Any]]) -> str:
    lines = [f"# {title}", "", NOTE, ""]
    for study in studies:
        lines += section(study)
    return "\n".join(lines).rstrip() + "\n"


def main(only: Sequence[str]) -> None:
    pages = yaml.safe_load((HERE / "studies.yaml").read_text(encoding="utf-8"))
    for name, content in pages.items():
        if not only or name in only:
            (HERE / f"{name}.md").write_text(
                page(content["title"], content["studies"]), encoding="utf-8"
            )
            print(f"{name}.md")


if __name__ == "__main__":
    main(sys.argv[1:])
