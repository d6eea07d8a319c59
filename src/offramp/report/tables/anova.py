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
from offramp.report.findings import Findings
from offramp.report.model import Column, Question, Table
from offramp.report.tables.common import CORE_WORD, at, gathered, place, slug
from offramp.report.tables.groups import COSTS, QUALITY, WHICH, recorded, unrecorded

ONE_WAY = (
    "One-way analysis of variance, the paper's way: every value counts as independent, residuals as "
    "normal, variances as equal."
)
OVER_SEEDS = (
    "Over seeds: repeated measures with Greenhouse and Geisser's correction, which takes the values of "
    "a seed to belong together. It is the one to believe where runs share seeds or phases."
)
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


def anova(found: Findings) -> list[Table]:
    """F tests of the core strategies: loss and accuracy (the paper's Table 2)."""
    title = "Do the core strategies differ in loss and accuracy?"
    return _tables(found, "anova", "rq1", title, QUALITY, False, "Table 2")


def anova_hybrids(found: Findings) -> list[Table]:
    """F tests of each hybrid against its parents (section 6.3)."""
    title = "Do hybrids differ from their parents in loss and accuracy?"
    return _tables(found, "anova-hybrids", "rq3", title, QUALITY, True, "section 6.3")


def anova_costs(found: Findings) -> list[Table]:
    """F tests of the core strategies: time, memory, power, energy (Table 4)."""
    title = "Do the core strategies differ in time, memory and power?"
    return _tables(found, "anova-costs", "rq2", title, COSTS, False, "Table 4")


def _tables(
    found: Findings,
    name: str,
    question: Question,
    title: str,
    measures: Sequence[Measure],
    hybrids: bool,
    paper: str,
) -> list[Table]:
    rows: list[Mapping[str, Any]] = []
    notes: list[tuple[str, str]] = []
    for model, data in found.evidence.pairs:
        for family, members in found.families(model, data).items():
            if (family == "core") is hybrids:
                continue
            for measure in recorded(found, measures):
                analysis = found.analysis(model, data, measure, None, members)
                word = CORE_WORD if family == "core" else family
                about = {"model": model, "data": data, "compared": word, "measure": measure.title}
                rows.append({**about, **one_way(analysis), "p_seeds": _p_over_seeds(analysis)})
                where = f"{measure.title} ({place(model, data)}{f', {family}' if hybrids else ''})"
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
    lines = (*unrecorded(found, measures), *gathered(notes))
    return [Table(name, question, title, caption, frame, columns, paper, notes=lines)]


def one_way(analysis: Analysis | None) -> dict[str, Any]:
    """F, df, p, eta2, omega2 of the one-way analysis; words in place of p where there is none."""
    empty: dict[str, Any] = {"f": None, "df": "–", "p": "no values", "eta2": None, "omega2": None}
    if analysis is None:
        return empty
    way = analysis.one_way
    result = way.anova if isinstance(way, OneWay) else way
    if isinstance(result, Anova):
        df = f"{result.df1:g}, {result.df2:g}"
        return {"f": result.f, "df": df, "p": result.p, "eta2": result.eta2, "omega2": result.omega2}
    return {**empty, "p": short(result)}


def over_seeds(analysis: Analysis | None) -> dict[str, Any]:
    """f, df, p, epsilon, eta2, seeds of the repeated measures; words in place of p where none."""
    empty: dict[str, Any] = {
        "f": None,
        "df": "–",
        "p": "no values",
        "epsilon": None,
        "eta2": None,
        "seeds": None,
    }
    if analysis is None:
        return empty
    way = analysis.over_blocks
    result = way.anova if isinstance(way, OverBlocks) else way
    if isinstance(result, Repeated):
        df = f"{result.df1:.2f}, {result.df2:.2f}"
        return {
            "f": result.f,
            "df": df,
            "p": result.p,
            "epsilon": result.epsilon,
            "eta2": result.eta2_partial,
            "seeds": result.blocks,
        }
    return {**empty, "p": short(result)}


def _p_over_seeds(analysis: Analysis | None) -> Any:
    return over_seeds(analysis)["p"]


def short(result: Untested | None) -> str:
    """Few words for a cell; the notes have the whole reason."""
    if isinstance(result, Untested) and result.why.startswith("estimated"):
        return "estimated, not tested"
    return "not tested"


def _notes(analysis: Analysis | None) -> list[str]:
    """What was left out, and why something could not be tested."""
    if analysis is None:
        return []
    return [*analysis.notes, *reasons(analysis)]


def reasons(analysis: Analysis) -> list[str]:
    """Why a test was not made; one reason once."""
    way = analysis.one_way
    one = way.anova if isinstance(way, OneWay) else way
    blocks = analysis.over_blocks
    over = blocks.anova if isinstance(blocks, OverBlocks) else blocks
    said = {}
    if isinstance(one, Untested) and one is not NOT_ASKED:
        estimated = one.why.startswith("estimated")
        said[one.why] = one.why if estimated else f"not tested, {one.why}"
    if isinstance(over, Untested) and over.why not in said:
        said[over.why] = f"not tested over seeds, {over.why}"
    return list(said.values())


# Every measure and every exit


def tests(found: Findings) -> list[Table]:
    """Every measure at every exit, over seeds: the analysis to believe."""
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
    return _every(found, "tests", "Do strategies differ? Over seeds", caption, columns, False)


def tests_one_way(found: Findings) -> list[Table]:
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
        "differ. The values "
        f"of runs that share seeds or phases are not independent, so prefer the table over seeds. "
        f"{ADJUST} {WHICH} {ESTIMATED} {TIMES}"
    )
    return _every(found, "tests-one-way", "Do strategies differ? One-way", caption, columns, True)


def _every(
    found: Findings, name: str, title: str, caption: str, columns: tuple[Column, ...], paper: bool
) -> list[Table]:
    tables = []
    measures = recorded(found, (*QUALITY, *COSTS))
    for model, data in found.evidence.pairs:
        exits = found.exits(model, data)
        groups = found.families(model, data) if paper else {"": ()}
        rows: list[Mapping[str, Any]] = []
        notes: list[tuple[str, str]] = []
        for measure in measures:
            for exit in [None, *exits] if measure.per_exit else [None]:
                for family, members in groups.items():
                    lost: list[str] = []
                    if exit is not None and measure in COSTS:
                        members, lost = _measured(found, model, data, measure, exit, members)
                        if len(members) < 2:
                            continue
                    analysis = found.analysis(model, data, measure, exit, members)
                    if analysis is None:
                        continue
                    at_ = at(exit, exits)
                    word = CORE_WORD if family == "core" else family
                    about = {"measure": measure.title, "exit": at_, "compared": word}
                    numbers = _checked(analysis) if paper else over_seeds(analysis)
                    rows.append({**about, **numbers})
                    where = f"{measure.title}, {at_}{f', {word}' if paper else ''}"
                    notes += [(where, words) for words in (*lost, *_notes(analysis))]
        if rows:
            about_ = {"model": model, "data": data}
            leading = (Column("measure", "measure"), Column("exit", "exit"))
            tables.append(
                Table(
                    slug(name, model, data),
                    "more",
                    f"{title}: {place(model, data)}",
                    caption,
                    pd.DataFrame(rows),
                    (*leading, *columns),
                    about=about_,
                    notes=(*unrecorded(found, (*QUALITY, *COSTS)), *gathered(notes)),
                )
            )
    return tables


def _measured(
    found: Findings, model: str, data: str, measure: Measure, exit: int, members: tuple[str, ...]
) -> tuple[tuple[str, ...], list[str]]:
    """Of `members` (none: all), those whose values at the exit were all measured; a note on others."""
    rows = found.values(model, data, measure, exit)
    whole = rows.groupby("strategy", sort=True)["measured"].all()
    here = [s for s in found.evidence.strategies if s in whole.index and (not members or s in members)]
    lost = [s for s in here if not whole[s]]
    note = [f"left out, as their time at the exit is an estimate: {', '.join(lost)}"] if lost else []
    return tuple(s for s in here if whole[s]), note


def _checked(analysis: Analysis) -> dict[str, Any]:
    """The one-way analysis and the p of the checks of its assumptions."""
    way = analysis.one_way
    checks: dict[str, Any] = {"shapiro": None, "levene": None, "welch": None}
    if isinstance(way, OneWay):
        checks["shapiro"] = way.shapiro.p if isinstance(way.shapiro, Check) else None
        checks["levene"] = way.levene.p if isinstance(way.levene, Check) else None
        if way.unequal is not None and isinstance(way.unequal.welch, Welch):
            checks["welch"] = way.unequal.welch.p
    return {**one_way(analysis), **checks}
