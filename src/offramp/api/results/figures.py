"""Charts as files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from offramp.api.answer import answer, missing_lines
from offramp.api.opening import places
from offramp.api.options import (
    RUNS,
    CommandOption,
    FamilyNames,
    FormatNames,
    MeasureName,
    ResultsPlaces,
    StepWatcher,
    StudyName,
    families_of,
    formats_of,
)
from offramp.terminal import TextBlocks, TextTable
from offramp.units import counted

if TYPE_CHECKING:
    from offramp.report.model import Figure

ListFlag = Annotated[bool, CommandOption(names=("--list",))]
FACTS = ("name", "title", "caption", "paper", "about")  # of a figure, for programs


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
    families = families_of(only)
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
    from offramp.escape import markdown
    from offramp.files import write_whole

    parts = []
    for f in figures:
        paper = f" (paper's {f.paper})" if f.paper else ""
        title, caption, alt = map(markdown, (f.title, f.caption, f.alt))
        parts.append(f"## {f.name}\n\n**{title}**{paper}. {caption}\n\n{alt}\n")
    write_whole(path, "# Figures\n\n" + "\n".join(parts))
