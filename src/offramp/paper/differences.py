"""The paper's tests: one-way F (its Tables 2 and 4, section 6.3), and Tukey's differences of pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from offramp.analysis.measures import Measure
from offramp.analysis.stats import Analysis, Crossed, OneWay, OverBlocks, Untested, rule
from offramp.analysis.stats.anova import Anova, Check, Welch
from offramp.analysis.stats.pairwise import ALPHA, Pair
from offramp.analysis.stats.text import in_seeds
from offramp.paper import LETTERS, spelled
from offramp.report.evidence import Evidence
from offramp.report.model import Column, Question, Table
from offramp.report.runs import Runs
from offramp.report.tables import common
from offramp.report.tables.common import COSTS, QUALITY, WHICH, gathered, named, recorded, unrecorded
from offramp.report.tables.differences import (
    ADJUST,
    COLUMNS,
    ESTIMATED,
    OVER_SEEDS,
    TIMES,
    every_test,
    frame_of,
    left_out,
    over_seeds,
    overall_test,
    reasons,
    row_of,
    short,
)

ONE_WAY = (
    "One-way analysis of variance, the paper's way: every value counts as independent, residuals as "
    "normal, variances as equal."
)
CORE_WORD = "core strategies"
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
                notes += [(where, words) for words in left_out(analysis)]
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
    result = overall_test(analysis.one_way if analysis else None)
    if isinstance(result, Anova):
        df = f"{result.df1:g}, {result.df2:g}"
        return {"f": result.f, "df": df, "p": result.p, "eta2": result.eta2, "omega2": result.omega2}
    why = "no values" if analysis is None else short(result)
    return {"f": None, "df": "–", "p": why, "eta2": None, "omega2": None}


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
    title = f"Do strategies differ? One-way: {runs.place}"
    table = Table(runs.name("tests-one-way"), "more", title, caption, pd.DataFrame(), ())
    families = {CORE_WORD if family == "core" else family: m for family, m in runs.families.items()}
    return every_test(table, runs, columns, families, _checked)


def _checked(analysis: Analysis) -> dict[str, Any]:
    """The one-way analysis and the p of the checks of its assumptions."""
    way, numbers = analysis.one_way, one_way(analysis)
    if not isinstance(way, OneWay):
        return numbers | dict.fromkeys(("shapiro", "levene", "welch"))
    checks = {"shapiro": way.shapiro, "levene": way.levene, "welch": way.unequal and way.unequal.welch}
    return numbers | {k: c.p if isinstance(c, Check | Welch) else None for k, c in checks.items()}


def pairs_one_way(runs: Runs) -> list[Table]:
    """All pairs of core strategies the paper's way."""
    core = runs.families.get("core", ())
    rows, notes = [], []
    for measure in named("loss-validation", "accuracy-validation", "accuracy-test"):
        analysis = runs.analysis(measure, None, core) if core else None
        if analysis is None:
            continue
        way = analysis.one_way
        if not isinstance(way, OneWay):
            notes.append((measure.title, f"not tested, {way.why}"))
            continue
        notes += [(measure.title, words) for words in analysis.notes]
        unequal = way.unequal.pairs if way.unequal is not None else ()
        games = {(p.a, p.b): p.p for p in unequal if isinstance(p, Pair)}
        for pair in way.pairs:
            more = {"games": games.get((pair.a, pair.b))}
            rows.append({"measure": measure.title, **row_of(pair, measure.scale), **more})
    if not rows and not notes:
        return []
    games_howell = Column("games", "G–H p", "p")
    columns = (Column("measure", "measure"), *COLUMNS[:-1], games_howell, COLUMNS[-1])
    title = f"Differences between core strategies, the paper's way: {runs.place}"
    table = Table(
        runs.name("pairs-one-way"), "more", title, ONE_WAY_CAPTION, frame_of(rows, columns), columns
    )
    return [replace(table, about=runs.about, notes=gathered(notes))]


ONE_WAY_CAPTION = (
    "Overall values, the mean over exits. a − b in points of accuracy or nats of cross-entropy; Tukey's "
    "honestly significant differences: p adjusted, intervals simultaneous (95 %); every value counts as "
    "independent of every other, variances as equal. G–H: Games and Howell's p, where Levene's test "
    "rejects equal variances. Both p have a floor of 1e-12. Runs that share seeds or phases are not "
    "independent, so prefer the paired differences."
)


WAYS = (
    "Recommended: Holm-adjusted paired differences among all strategies, over seeds, and on test over "
    "seeds and {items}. Tukey: honestly significant differences among the core strategies, the paper's "
    "way, which takes every run as independent."
)


def order_accuracy(evidence: Evidence) -> list[Table]:
    """Who is more accurate than whom, in one line each (Fig. 11)."""
    return _orders(
        evidence, "order-accuracy", "rq1", "Who is more accurate than whom", common.ACCURACIES
    )


def order_loss(evidence: Evidence) -> list[Table]:
    """Whose loss is higher than whose, in one line each (Fig. 11)."""
    return _orders(evidence, "order-loss", "rq1", "Whose loss is higher than whose", common.LOSSES)


def order_costs(evidence: Evidence) -> list[Table]:
    """Who costs more than whom, in one line each (Table 5)."""
    title = "Who costs more than whom: time, memory, power"
    return _orders(evidence, "order-costs", "rq2", title, common.COSTS)


def _orders(
    evidence: Evidence, name: str, question: Question, title: str, measures: Sequence[Measure]
) -> list[Table]:
    rows: list[Mapping[str, Any]] = []
    notes: list[tuple[str, str]] = []
    for measure in common.recorded(evidence, measures):
        for runs in evidence.runs:
            core = runs.families.get("core", ())
            everything = runs.analysis(measure)
            among_core = runs.analysis(measure, None, core) if core else None
            tukey, why = ("–", None) if among_core is None else _line(among_core.one_way)
            seeds, no = ("no values", None) if everything is None else _line(everything.believed)
            rows.append({"measure": measure.title, **runs.about, "tukey": tukey, "seeds": seeds})
            where = f"{measure.title} ({runs.place})"
            notes += [(where, f"{way}, {x}") for way, x in (("Tukey", why), ("paired", no)) if x]
            if everything is not None:
                lost = [words for words in everything.notes if "left out" in words]
                notes += [(where, words) for words in (*reasons(everything), *lost)]
    if not rows:
        return []
    better = measures[0].better
    costs = f"{common.WHICH} {ESTIMATED}" if measures is common.COSTS else "Values: the mean over exits."
    direction = "The first one of a line is the worst" if better == "lower" else "The first is the best"
    letters = spelled(evidence.strategies)
    items = " or ".join(sorted({f"{runs.noun}s" for runs in evidence.runs}))
    caption = (
        f"From the highest mean to the lowest. {direction}: {better} is better. {rule(ALPHA, better)} "
        f"{WAYS.format(items=items)} {costs}{letters}"
    )
    named_so = (Column(key, key) for key in ("measure", "model", "data"))
    columns = (*named_so, Column("seeds", "recommended"), Column("tukey", "Tukey"))
    lines = (*common.unrecorded(evidence, measures), *common.gathered(notes))
    return [Table(name, question, title, caption, pd.DataFrame(rows), columns, notes=lines)]


def _line(way: Crossed | OneWay | OverBlocks | Untested | None) -> tuple[str, str | None]:
    """What an analysis comes to, and why it is not an order."""
    if isinstance(way, Crossed | OneWay | OverBlocks):
        return way.order.text(LETTERS), way.order.why and in_seeds(way.order.why)
    return short(way), None
