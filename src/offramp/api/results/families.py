"""Figures and tables of results, as files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from offramp.api.answer import answer, missing_lines
from offramp.api.opening import places
from offramp.api.options import (
    RUNS,
    CommandOption,
    FormatNames,
    ResultsPlaces,
    StepWatcher,
    StudyName,
    family_names,
    formats_of,
)
from offramp.errors import OfframpError
from offramp.escape import markdown
from offramp.files import write_whole
from offramp.terminal import TextBlocks, TextTable
from offramp.units import counted

if TYPE_CHECKING:
    from offramp.report.model import Figure, Table
    from offramp.report.render.cells import Cell

FamilyNames = Annotated[
    Sequence[str],
    CommandOption(
        "NAME",
        "Make only these: a,b, or your own: file.py:name; --list names all. Repeatable.",
        complete=family_names,
    ),
]
MeasureName = Annotated[
    str | None,
    CommandOption("NAME", "Show this measure in place of accuracy, such as f1-test or file.py:name."),
]
ListFlag = Annotated[bool, CommandOption(names=("--list",))]
FACTS = ("name", "title", "caption", "paper", "about")  # of a figure, for programs
MARKS = {"best": " *", "alike": " ≈"}


@answer
class FamilyList:
    """What there is to make. noun: figure or table.  about: what each shows, by name."""

    noun: str
    about: Mapping[str, str]

    def as_json(self) -> dict[str, str]:
        return dict(self.about)

    def document(self) -> TextBlocks:
        return [TextTable([self.noun, "what it shows"], rows=self.about.items())]


@answer
class FigureFiles:
    """Figures that were drawn.

    Attributes:
        out: Their folder.
        figures: What was drawn.
        files: Their files.
        missing: What the results lack.
        kinds: The kinds of file.
    """

    out: Path
    figures: Sequence[Figure]
    files: Sequence[Path]
    missing: Sequence[str]
    kinds: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "figures": [{key: getattr(figure, key) for key in FACTS} for figure in self.figures],
            "files": list(map(str, self.files)),
            "missing": list(self.missing),
        }

    def warnings(self) -> Sequence[str]:
        return missing_lines(self.missing)

    def document(self) -> TextBlocks:
        captions = f"; what they show is in {self.out / 'captions.md'}" if self.figures else ""
        count = counted(len(self.figures), "figure")
        return [f"{count} as {', '.join(self.kinds)} in {self.out}{captions}."]


def figures(
    stores: ResultsPlaces = RUNS,
    *,
    out: Path = Path("figures"),
    only: FamilyNames = (),
    formats: FormatNames = "svg,pdf,png",
    names: ListFlag = False,
    measure: MeasureName = None,
    study: StudyName = None,
    watch: StepWatcher = None,
) -> FigureFiles | FamilyList:
    """Draw the paper's figures, and more, instead of a page.

    captions.md, beside the files, says what each figure shows. docs/figures.md says which figure
    of the paper each one matches.

    Args:
        stores: Stores, or folders that offramp store pack wrote. Several count as one.
        out: Where to write the files.
        only: Make only these: a,b; --list names all. Repeatable.
        formats: The kinds of file: svg, pdf, png, and json for Vega-Lite.
        names: List all that there are, and stop.
        measure: Show this one in place of accuracy, where a figure takes one.
        study: Use only the trials of this study.
        watch: Called with each step.

    Raises:
        OfframpError: There are no results, or no figure of this name.

    On the command line:
        offramp report --figures --list
        offramp report runs/demo --figures --out figures
        offramp report runs/demo --figures --only curves --format pdf
    """
    from offramp.analysis.measures import find_measure
    from offramp.report import evidence
    from offramp.report.figures import FIGURES, draw
    from offramp.report.registry import listed
    from offramp.report.render.charts import FORMATS, save

    if names:
        return FamilyList("figure", listed(FIGURES))
    kinds = formats_of(formats, FORMATS)
    families = _families(only)
    results = evidence.open_all(places(stores), study)
    drawn = draw(results, families, find_measure(measure) if measure else None)
    files = []
    for done, figure in enumerate(drawn.figures, start=1):
        if watch is not None:
            watch(f"[{done}/{len(drawn.figures)}] {figure.name}")
        files += save(figure, out, kinds)
    if drawn.figures:
        _write_captions(out / "captions.md", drawn.figures)
    return FigureFiles(out, drawn.figures, files, [*results.missing, *drawn.missing], kinds)


def _write_captions(path: Path, figures: Sequence[Figure]) -> None:
    parts = []
    for f in figures:
        paper = f" (paper's {f.paper})" if f.paper else ""
        title, caption, alt = map(markdown, (f.title, f.caption, f.alt))
        parts.append(f"## {f.name}\n\n**{title}**{paper}. {caption}\n\n{alt}\n")
    write_whole(path, "# Figures\n\n" + "\n".join(parts))


@answer
class TableFiles:
    """Tables that were made.

    Attributes:
        tables: The tables.
        files: Their files; nothing where they are only shown.
        out: The folder of the files; None where they are only shown.
        missing: What the results lack.
    """

    tables: Sequence[Table]
    files: Sequence[Path]
    out: Path | None
    missing: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        missing = list(self.missing)
        if self.out is None:
            return {"tables": list(map(_values, self.tables)), "missing": missing}
        names = [table.name for table in self.tables]
        return {"tables": names, "files": list(map(str, self.files)), "missing": missing}

    def warnings(self) -> Sequence[str]:
        return missing_lines(self.missing)

    def document(self) -> TextBlocks:
        if self.out is None:
            return [part for table in self.tables for part in _parts(table)]
        files = counted(len(self.files), "file")
        return [f"{counted(len(self.tables), 'table')} in {files}: {self.out}"]


def tables(
    stores: ResultsPlaces = RUNS,
    *,
    out: Path = Path("tables"),
    only: FamilyNames = (),
    formats: FormatNames = "md,latex,csv",
    show: Annotated[Sequence[str], CommandOption("NAME", complete=family_names)] = (),
    names: ListFlag = False,
    measure: MeasureName = None,
    study: StudyName = None,
) -> TableFiles | FamilyList:
    """Write the paper's tables, and more, instead of a page.

    It writes Markdown, LaTeX (booktabs) and CSV (unrounded). The best value of a column is bold. Values
    that do not differ significantly from it are marked. Notes below a table say what was not tested.
    docs/tables.md says which table of the paper each one matches, and gives the rules.

    Args:
        stores: Stores, or folders that offramp store pack wrote. Several count as one.
        out: Where to write the files.
        only: Make only these: a,b; --list names all. Repeatable.
        formats: The kinds of file.
        show: Print this table and write no file. Repeatable.
        names: List all that there are, and stop.
        measure: Show this one in place of accuracy, where a table takes one.
        study: Use only the trials of this study.

    Raises:
        OfframpError: There are no results, or no table of this name.

    On the command line:
        offramp report runs --tables --show main   # print one
        offramp report runs --tables               # write all
        offramp report runs --tables --only anova --format latex
        offramp report --tables --list
    """
    from offramp.analysis.measures import find_measure
    from offramp.report import evidence
    from offramp.report.registry import listed
    from offramp.report.render import tables as files
    from offramp.report.tables import TABLES, make

    if names:
        return FamilyList("table", listed(TABLES))
    kinds = formats_of(formats, tuple(files.FORMATS))
    families = [*show, *_families(only)]
    sources = places(stores)
    results = evidence.open_all(sources, study)
    listing = make(results, families, find_measure(measure) if measure else None)
    if not listing:
        what = f"for {', '.join(families)}" if families else "in any finished trial"
        raise OfframpError(
            f"{', '.join(map(str, sources))} has nothing {what}; run a study first, or see "
            "with `names` what there is"
        )
    if show:
        return TableFiles(listing, [], None, results.missing)
    return TableFiles(listing, files.write(listing, out, kinds), out, results.missing)


def _parts(table: Table) -> list[str | TextTable]:
    """Title, what is the same in every row, table, caption and notes."""
    from offramp.report.render.cells import layout

    cells = layout(table)
    same = [
        i
        for i in range(len(cells.titles))
        if table.columns[i].key in ("model", "data") and len({row[i].text for row in cells.rows}) == 1
    ]
    rest = [i for i in range(len(cells.titles)) if i not in same]
    columns = [i for i in rest if not cells.numeric[i]], [i for i in rest if cells.numeric[i]]
    order = [*columns[0], *columns[1]]
    paper = f" (the paper's {table.paper})" if table.paper else ""
    about = ", ".join(f"{cells.titles[i]} {cells.rows[0][i].text}" for i in same)
    words, numbers = ([cells.titles[i] for i in part] for part in columns)
    return [
        f"\n{table.title}{paper}",
        *([about] if about else []),
        TextTable(words, numbers, [[_text(row[i]) for i in order] for row in cells.rows]),
        table.caption + cells.legend("*"),
        *(f"- {note}" for note in table.notes),
    ]


def _values(table: Table) -> dict[str, Any]:
    """A table for programs: unrounded values by column key, null where there is none."""
    rows = table.frame.reset_index()
    keys = [column.key for column in table.columns if column.key in rows]
    return {
        "name": table.name,
        "title": table.title,
        "caption": table.caption,
        "paper": table.paper,
        "rows": json.loads(rows[keys].to_json(orient="records")),
        "notes": list(table.notes),
    }


def _text(cell: Cell) -> str:
    return cell.text + MARKS.get(cell.mark, "")


def _families(only: Sequence[str]) -> list[str]:
    """The names of `only`, each of which may be several with commas."""
    return [name.strip() for each in only for name in each.split(",") if name.strip()]
