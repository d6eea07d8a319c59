"""One page with figures, tables and data beside it; or every number in one table."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from offramp.api.answer import answer, missing_lines
from offramp.api.opening import places
from offramp.api.options import (
    RUNS,
    CommandOption,
    FastStepWatcher,
    FormatNames,
    ResultsPlaces,
    StudyName,
    formats_of,
)
from offramp.api.reporter import finished
from offramp.errors import OfframpError
from offramp.escape import cells
from offramp.files import check_replaceable, replacing, writing
from offramp.terminal import TextBlocks
from offramp.units import counted, duration, size

if TYPE_CHECKING:
    from offramp.report.evidence import Evidence
    from offramp.report.model import Contents


@answer
class ReportPage:
    """A report that was written.

    Attributes:
        page: The file to open.
        seconds: What it took.
    """

    page: Path
    seconds: float
    _contents: Contents
    _evidence: Evidence

    def as_json(self) -> dict[str, Any]:
        contents = self._contents
        return {
            "page": str(self.page),
            "bytes": self.page.stat().st_size,
            "figures": [figure.name for figure in contents.figures],
            "tables": [table.name for table in [*contents.tables, *contents.claims]],
            "rows": len(self._evidence.table),
            "missing": [*self._evidence.disagreements, *self._evidence.missing],
        }

    def warnings(self) -> Sequence[str]:
        lines = [f"Disagreement: {sentence}." for sentence in self._evidence.disagreements]
        return [*lines, *missing_lines(self._evidence.missing)]

    def document(self) -> TextBlocks:
        contents, evidence = self._contents, self._evidence
        return [
            f"{counted(len(contents.figures), 'figure')}, "
            f"{counted(len(contents.tables) + len(contents.claims), 'table')} and "
            f"{counted(len(evidence.table), 'number')} of {counted(len(evidence.trials), 'trial')}, "
            f"in {duration(self.seconds)}.",
            f"Open {self.page} ({size(self.page.stat().st_size)}).",
        ]


def write_report(
    stores: ResultsPlaces = RUNS,
    *,
    out: Annotated[Path, CommandOption("FOLDER")] = Path("report"),
    study: StudyName = None,
    title: Annotated[str | None, CommandOption("TEXT")] = None,
    formats: FormatNames = "svg,pdf,png",
    workers: Annotated[int | None, CommandOption("N", least=1)] = None,
    watch: FastStepWatcher = None,
) -> ReportPage:
    """Write one page with the answer, figures, tables and claims.

    The folder has index.html: everything, in one file that works offline. Beside it are figures/ (every
    figure as SVG, PDF and PNG), tables/ (every table as CSV, LaTeX and Markdown) and data/ (every
    number as Parquet, every chart as Vega-Lite). An unfinished study gives a report too. It says what
    is missing.

    Args:
        stores: Stores, or folders that offramp store pack wrote. Several count as one.
        out: The folder to write, in place of an earlier report; with --figures or --tables, theirs.
        study: Use only the trials of this study.
        title: The page's title. By default the study's name.
        formats: The kinds of file: of figures svg, pdf, png, none, and json for --figures; of tables
            md, latex, csv. By default all but json.
        workers: Processes that draw. By default one for each core.
        watch: Called with each step.

    Raises:
        OfframpError: There is no finished trial, or the folder is taken by something else.

    On the command line:
        offramp report runs/demo
        offramp report runs/a runs/b --out paper --format pdf
    """
    from offramp.report.evidence import open_finished
    from offramp.report.page import folder
    from offramp.report.page.folder import report as assembled
    from offramp.report.render.charts import PICTURES

    began = time.monotonic()
    kinds = () if formats.strip() == "none" else formats_of(formats, PICTURES)
    sources = places(stores)
    folder.check(out)  # before the work, not after it
    if watch is not None:
        watch("reading the runs")
    evidence = open_finished(sources, study)
    contents = finished(assembled(evidence, out, kinds, workers or os.cpu_count() or 1, title), watch)
    return ReportPage(out / "index.html", time.monotonic() - began, contents, evidence)


@answer
class NumbersFile:
    """Every number of results, in one table. out: its file.  rows, trials: how many it has."""

    out: Path
    rows: int
    trials: int

    def as_json(self) -> dict[str, Any]:
        return {"out": str(self.out), "rows": self.rows, "trials": self.trials}

    def document(self) -> TextBlocks:
        rows = counted(self.rows, "row")
        return [f"{rows} of {counted(self.trials, 'trial')} written to {self.out}"]


def numbers(
    stores: ResultsPlaces = RUNS, *, numbers: Annotated[Path, CommandOption("FILE")]
) -> NumbersFile:
    """Write every number of the results as one tidy table.

    Each number is a row: trial, strategy, model, data, seed, phase, exit, split, epoch, metric, value.

    Args:
        stores: Stores, or folders that offramp store pack wrote. Several count as one.
        numbers: Write every number as one tidy table instead of a page: .parquet or .csv.

    Raises:
        OfframpError: There are no results, or the file cannot be written.

    On the command line:
        offramp report runs/demo --numbers table.parquet
    """
    import pandas as pd

    from offramp.report import evidence
    from offramp.store.archive import Archive, is_store
    from offramp.store.table import tidy

    if numbers.suffix not in (".parquet", ".csv"):
        raise OfframpError(f"`numbers` is {numbers}; end it in .parquet or .csv, which is the format")
    if not numbers.parent.is_dir():
        raise OfframpError(f"there is no folder {numbers.parent} for `numbers`; make it first")
    check_replaceable(numbers)
    tables: list[pd.DataFrame] = []
    trials: dict[str, None] = {}  # one that several have counts once, from the first
    for root in places(stores):
        if is_store(root):
            archive = Archive(root)
            new = [trial for trial in archive.trials() if trial not in trials]
            tables += [tidy(archive, new)] if new or not tables else []
        else:
            packed = evidence.open(root).gathered.frames
            new = [trial for trial in packed if trial not in trials]
            tables += [packed[trial] for trial in new]
        trials |= dict.fromkeys(new)
    frame = pd.concat(tables, ignore_index=True)
    with writing(numbers), replacing(numbers) as temporary:
        if numbers.suffix == ".csv":
            cells(frame).to_csv(temporary, index=False)
        else:
            temporary.write_bytes(frame.to_parquet(None, index=False))
    return NumbersFile(numbers, len(frame), len(trials))
