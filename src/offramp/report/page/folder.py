"""The report as a folder: the page, and beside it figures, tables and data as files."""

from __future__ import annotations

import json
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from offramp.errors import OfframpError
from offramp.files import RECORDS, folder_at, is_litter, read_regular, writing
from offramp.report import figures, tables
from offramp.report.advice import answer, headline, listed
from offramp.report.claims import claims_table
from offramp.report.colors import themed
from offramp.report.evidence import Evidence
from offramp.report.model import Contents, Figure
from offramp.report.page import how
from offramp.report.page.html import page
from offramp.report.render import charts
from offramp.report.render.charts import text
from offramp.report.render.tables import FORMATS, write
from offramp.units import counted

MARKER = "report.json"  # says that the folder is ours, and what of it


def check(out: Path) -> None:
    """Raises OfframpError where a report must not go: what is there is not, or not only, a report."""
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OfframpError(f"{out} is not a folder; choose another --out")
    if not out.exists():
        return
    paths = [path for path in out.rglob("*") if path.is_symlink() or not path.is_dir()]
    files = {path.relative_to(out).as_posix() for path in paths if not is_litter(path)}
    if not files:
        return
    try:
        ours = set(json.loads(read_regular(out / MARKER, RECORDS))["files"])
    except (OSError, ValueError, LookupError, TypeError):
        raise OfframpError(
            f"{out} is there and is no earlier report; choose another --out, or remove it"
        ) from None
    if other := sorted(files - ours - {MARKER}):
        raise OfframpError(
            f"{out} holds {other[0]}, which no report wrote and a new one would remove; move it away "
            "or choose another --out"
        )


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder with places for figures, tables and data, that becomes `out` at the end of the block, in
    the place of an earlier report; on any failure `out` is what it was.

    Raises:
        OfframpError: As `check` does, and where `out` cannot be written.
    """
    check(out)
    with writing(out), folder_at(out) as folder:
        for name in ("figures", "tables", "data"):
            (folder / name).mkdir()
        yield folder
        _mark(folder)
        check(out)  # again: somebody may have put a file there meanwhile


def fill(folder: Path, contents: Contents, numbers: pd.DataFrame, formats: Sequence[str]) -> None:
    """Everything but the figures' files."""
    for figure in contents.figures:
        path = folder / "data" / f"{figure.name}.vl.json"
        path.write_text(text(themed(figure.spec)) + "\n", encoding="utf-8")
    write([*contents.tables, *contents.claims], folder / "tables", list(FORMATS))
    (folder / "index.html").write_text(page(contents, formats), encoding="utf-8", newline="\n")
    # Text columns as dictionaries: a million rows repeat a few words.
    words = [name for name in numbers.columns if numbers[name].dtype in (object, "str")]
    place, packed = folder / "data" / "numbers.parquet", dict.fromkeys(words, "category")
    place.write_bytes(numbers.astype(packed).to_parquet(None, index=False, compression="zstd"))


def _mark(folder: Path) -> None:
    files = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    marker = {"made_by": "offramp report", "offramp": version("offramp"), "files": files}
    (folder / MARKER).write_text(json.dumps(marker, indent=1) + "\n", encoding="utf-8")


def report(
    evidence: Evidence, out: Path, formats: Sequence[str], workers: int, title: str | None = None
) -> Generator[str, None, Contents]:
    """Write the report on `evidence` to `out`, as `folder.staged` does; yields what it is at, in words.

    Figures are drawn by `workers` processes while this one makes tables, statistics and the page.
    """
    yield "making figures"
    drawings = figures.draw(evidence).figures
    with (
        staged(out) as place,
        charts.started(drawings, place / "figures", formats, workers) as drawn,
    ):
        yield "making tables and statistics"
        contents = assemble(evidence, drawings, title)
        fill(place, contents, evidence.table, formats)
        for done, total in charts.progress(drawn):
            yield f"drawing figures: {done} of {total}"
    return contents


def assemble(evidence: Evidence, drawings: Sequence[Figure], title: str | None = None) -> Contents:
    """Everything that a report on `evidence` says. title: by default the names of the studies."""
    studies = sorted({t.manifest.study for t in evidence.trials if t.manifest.study})
    all_tables = tables.make(evidence)
    return Contents(
        title=title or ", ".join(studies) or "Strategies for early exits",
        lead=lead(evidence),
        headline=headline(evidence),
        answer=answer(evidence),
        figures=drawings,
        tables=all_tables,
        claims=[claims_table(list(evidence.judgments.values()))] if evidence.trials else [],
        how=how.facts(evidence),
        missing=[_sentence(note) for note in evidence.missing],
        wrong=[_sentence(note) for note in evidence.disagreements],
        first=first(evidence, [*(f.name for f in drawings), *(t.name for t in all_tables)]),
    )


def first(evidence: Evidence, names: Collection[str]) -> list[str]:
    """What answers in short: accuracy against compute of each network and data set, as a figure and as a
    table; where there are several, the table over all of them. names: of what there is."""
    figures = [runs.name("accuracy-compute") for runs in evidence.runs]
    own = [runs.name("equal") for runs in evidence.runs]
    main = [runs.name("main") for runs in evidence.runs]
    leading = next((kind for kind in (["overall"], own, main) if set(kind) & set(names)), [])
    return [name for name in (*leading, *figures) if name in names]


def lead(evidence: Evidence) -> str:
    """The extent of the runs in a line."""
    places = [runs.where for runs in evidence.runs]
    if len(places) > 2:
        models, data = {r.model for r in evidence.runs}, {r.data for r in evidence.runs}
        places = [counted(len(models), "network"), counted(len(data), "data set")]
    seeds = len({trial.seed for trial in evidence.trials})
    early = {trial.strategy for trial in evidence.trials if len(trial.exits) > 1}
    alone = [name for name in evidence.strategies if name not in early]
    strategies = counted(len(early or alone), "strategy", "strategies")
    if early and alone:
        strategies += f" with early exits, {listed(alone)} without"
    trials = counted(len(evidence.trials), "trial")
    return " · ".join((strategies, *places, counted(seeds, "seed"), trials))


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}."
