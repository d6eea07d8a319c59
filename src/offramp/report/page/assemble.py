"""Evidence to the contents of a report."""

from __future__ import annotations

from collections.abc import Collection, Generator, Sequence
from pathlib import Path

from offramp.report import figures, tables
from offramp.report.advice import answer, listed
from offramp.report.claims import claims_table
from offramp.report.evidence import Evidence
from offramp.report.model import Contents, Figure
from offramp.report.page import folder, how
from offramp.report.render import charts
from offramp.units import counted


def report(
    evidence: Evidence, out: Path, formats: Sequence[str], workers: int, title: str | None = None
) -> Generator[str, None, Contents]:
    """Write the report on `evidence` to `out`, as `folder.staged` does; yields what it is at, in words.

    Figures are drawn by `workers` processes while this one makes tables, statistics and the page.
    """
    yield "making figures"
    drawings = figures.draw(evidence).figures
    with (
        folder.staged(out) as place,
        charts.started(drawings, place / "figures", formats, workers) as drawn,
    ):
        yield "making tables and statistics"
        contents = assemble(evidence, drawings, title)
        folder.fill(place, contents, evidence.table, formats)
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
