"""Analyses of variance: the paper's one-way F (Tables 2 and 4), and repeated measures over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from offramp.analysis.measures import Measure
from offramp.analysis.stats import Analysis, Untested
from offramp.analysis.stats.analyze import NOT_ASKED, OneWay, OverBlocks
from offramp.analysis.stats.oneway import Anova, Check, Welch
from offramp.analysis.stats.repeated import Repeated
from offramp.analysis.stats.text import in_seeds
from offramp.report.evidence import Evidence
from offramp.report.model import Column, Question, Table
from offramp.report.runs import Runs
from offramp.report.tables.common import COSTS, QUALITY, WHICH, at, gathered, recorded, unrecorded

ONE_WAY = (
    "One-way analysis of variance, the paper's way: every value counts as independent, residuals as "
    "normal, variances as equal."
)
OVER_SEEDS = (
    "Over seeds: repeated measures with Greenhouse and Geisser's correction, which takes the values of "
    "a seed to belong together. It is the one to rely on where runs share seeds or phases."
)
CORE_WORD = "core strategies"
ADJUST = "p is of one analysis, not adjusted over the table."
ESTIMATED = "Times of shared, cached or crowded runs are estimates, and never tested."
TIMES = "Time at an exit: of the strategies where a phase of its own trained it and was measured."
F_COLUMNS = (
    Column("f", "F", "number", 2, None),
    Column("df", "df"),
    Column("p", "p", "p"),
    Column("eta2", "η²", "number", 3),
    Column("omega2", "ω²", "number", 3),
)


def anova(evidence: Evidence) -> list[Table]:
    """F tests of the core strategies: loss and accuracy."""
    title = "Do the core strategies differ in loss and accuracy?"
    return _tables(evidence, "anova", "rq1", title, QUALITY)


def anova_hybrids(evidence: Evidence) -> list[Table]:
    """F tests of each hybrid against its parents."""
    title = "Do hybrids differ from their parents in loss and accuracy?"
    return _tables(evidence, "anova-hybrids", "rq3", title, QUALITY)


def anova_costs(evidence: Evidence) -> list[Table]:
    """F tests of the core strategies: time, memory, power, energy."""
    title = "Do the core strategies differ in time, memory and power?"
    return _tables(evidence, "anova-costs", "rq2", title, COSTS)


def _tables(
    evidence: Evidence, name: str, question: Question, title: str, measures: Sequence[Measure]
) -> list[Table]:
    hybrids = question == "rq3"
    rows: list[Mapping[str, Any]] = []
    notes: list[tuple[str, str]] = []
    for runs in evidence.runs:
        for family, members in runs.families.items():
            if (family == "core") is hybrids:
                continue
            for measure in recorded(evidence, measures):
                analysis = runs.analysis(measure, None, members)
                word = CORE_WORD if family == "core" else family
                about = {**runs.about, "compared": word, "measure": measure.title}
                rows.append({**about, **one_way(analysis), "p_seeds": over_seeds(analysis)["p"]})
                where = f"{measure.title} ({runs.place}{f', {family}' if hybrids else ''})"
                notes += [(where, words) for words in _notes(analysis)]
    if not rows:
        return []
    title_of = [Column("model", "model"), Column("data", "data"), Column("measure", "measure")]
    if hybrids:
        title_of.insert(2, Column("compared", "hybrid"))
    columns = (*title_of, *F_COLUMNS, Column("p_seeds", "p, seeds", "p"))
    caption = f"{ONE_WAY} Overall values: the mean over exits, one for each seed. {OVER_SEEDS} {ADJUST}"
    if measures is COSTS:
        caption = f"{ONE_WAY} {OVER_SEEDS} {ADJUST} {WHICH} {ESTIMATED}"
    frame = pd.DataFrame(rows)
    lines = (*unrecorded(evidence, measures), *gathered(notes))
    return [Table(name, question, title, caption, frame, columns, notes=lines)]


def one_way(analysis: Analysis | None) -> dict[str, Any]:
    """F, df, p, eta2, omega2 of the one-way analysis; words in place of p where there is none."""
    result = _overall(analysis.one_way if analysis else None)
    if isinstance(result, Anova):
        df = f"{result.df1:g}, {result.df2:g}"
        return {"f": result.f, "df": df, "p": result.p, "eta2": result.eta2, "omega2": result.omega2}
    why = "no values" if analysis is None else short(result)
    return {"f": None, "df": "–", "p": why, "eta2": None, "omega2": None}


def over_seeds(analysis: Analysis | None) -> dict[str, Any]:
    """f, df, p, epsilon, eta2, seeds of the repeated measures; words in place of p where none."""
    result = _overall(analysis.over_blocks if analysis else None)
    if isinstance(result, Repeated):
        found = {"f": result.f, "df": f"{result.df1:.2f}, {result.df2:.2f}", "p": result.p}
        return {**found, "epsilon": result.epsilon, "eta2": result.eta2_partial, "seeds": result.blocks}
    why = "no values" if analysis is None else short(result)
    return {**dict.fromkeys(("f", "epsilon", "eta2", "seeds")), "df": "–", "p": why}


def _overall(way: OneWay | OverBlocks | Untested | None) -> Anova | Repeated | Untested | None:
    """The test of all groups at once."""
    return way.anova if isinstance(way, OneWay | OverBlocks) else way


def short(result: object) -> str:
    """Few words for a cell in place of a result; the notes have the whole reason."""
    if isinstance(result, Untested) and result.estimated:
        return "estimated, not tested"
    return "not tested"


def _notes(analysis: Analysis | None) -> list[str]:
    """What was left out, and why something could not be tested."""
    return [] if analysis is None else [*analysis.notes, *reasons(analysis)]


def reasons(analysis: Analysis) -> list[str]:
    """Why a test was not made; one reason once."""
    one, over = _overall(analysis.one_way), _overall(analysis.over_blocks)
    said = {}
    if isinstance(one, Untested) and one is not NOT_ASKED:
        said[one.why] = one.why if one.estimated else f"not tested, {one.why}"
    if isinstance(over, Untested) and over.why not in said:
        said[over.why] = f"not tested over seeds, {over.why}"
    return list(map(in_seeds, said.values()))


# Every measure and every exit


def tests(runs: Runs) -> list[Table]:
    """Every measure at every exit, over seeds: the analysis to rely on."""
    columns = (
        Column("seeds", "seeds", "integer"),
        Column("f", "F", "number", 2),
        Column("df", "df"),
        Column("p", "p", "p"),
        Column("epsilon", "ε", "number", 3),
        Column("eta2", "partial η²", "number", 3),
    )
    caption = (
        f"All strategies. {OVER_SEEDS} Strategies that are identical by construction count once. "
        f"{ADJUST} {WHICH} {ESTIMATED} {TIMES}"
    )
    return _every(runs, "tests", "Do strategies differ? Over seeds", caption, columns, False)


def tests_one_way(runs: Runs) -> list[Table]:
    """Every measure at every exit, one-way, with checks of its assumptions."""
    columns = (
        Column("compared", "compared"),
        *F_COLUMNS,
        Column("shapiro", "Shapiro p", "p"),
        Column("levene", "Levene p", "p"),
        Column("welch", "Welch p", "p"),
    )
    caption = (
        f"{ONE_WAY} Shapiro: Shapiro and Wilk's test of normal residuals. Levene: of equal "
        "variances, around medians. Welch: where Levene's p is below 0.05, the test that lets variances "
        "differ. The values of runs that share seeds or phases are not independent, so prefer the table "
        f"over seeds. {ADJUST} {WHICH} {ESTIMATED} {TIMES}"
    )
    return _every(runs, "tests-one-way", "Do strategies differ? One-way", caption, columns, True)


def _every(
    runs: Runs, name: str, title: str, caption: str, columns: tuple[Column, ...], paper: bool
) -> list[Table]:
    rows: list[Mapping[str, Any]] = []
    notes: list[tuple[str, str]] = []
    wanted = (*QUALITY, *COSTS)
    places = [
        (measure, exit, family, members)
        for measure in recorded(runs.evidence, wanted)
        for exit in ([None, *runs.exits] if measure.per_exit else [None])
        for family, members in (runs.families if paper else {"": ()}).items()
    ]
    for measure, exit, family, members in places:
        lost: list[str] = []
        if exit is not None and measure in COSTS:
            members, lost = _measured(runs, measure, exit, members)
            if len(members) < 2:
                continue
        analysis = runs.analysis(measure, exit, members)
        if analysis is None:
            continue
        at_ = at(exit, runs.exits)
        word = CORE_WORD if family == "core" else family
        numbers = _checked(analysis) if paper else over_seeds(analysis)
        rows.append({"measure": measure.title, "exit": at_, "compared": word, **numbers})
        where = f"{measure.title}, {at_}{f', {word}' if paper else ''}"
        notes += [(where, words) for words in (*lost, *_notes(analysis))]
    if not rows:
        return []
    columns = (Column("measure", "measure"), Column("exit", "exit"), *columns)
    title, frame = f"{title}: {runs.place}", pd.DataFrame(rows)
    lines = (*unrecorded(runs.evidence, wanted), *gathered(notes))
    about = runs.about
    return [Table(runs.name(name), "more", title, caption, frame, columns, about=about, notes=lines)]


def _measured(
    runs: Runs, measure: Measure, exit: int, members: tuple[str, ...]
) -> tuple[tuple[str, ...], list[str]]:
    """Of `members` (none: all), those whose values at the exit were all measured; a note on others."""
    rows = runs.values(measure, exit)
    whole = rows.groupby("strategy", sort=True)["measured"].all()
    here = [s for s in runs.strategies if s in whole.index and (not members or s in members)]
    lost = [s for s in here if not whole[s]]
    note = [f"left out, as their time at the exit is an estimate: {', '.join(lost)}"] if lost else []
    return tuple(s for s in here if whole[s]), note


def _checked(analysis: Analysis) -> dict[str, Any]:
    """The one-way analysis and the p of the checks of its assumptions."""
    way, found = analysis.one_way, one_way(analysis)
    if not isinstance(way, OneWay):
        return found | dict.fromkeys(("shapiro", "levene", "welch"))
    checks = {"shapiro": way.shapiro, "levene": way.levene, "welch": way.unequal and way.unequal.welch}
    return found | {k: c.p if isinstance(c, Check | Welch) else None for k, c in checks.items()}
