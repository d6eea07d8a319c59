"""Whether strategies differ, by every measure at every exit: repeated measures over seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from offramp.analysis.measures import MEASURES, Measure
from offramp.analysis.stats import NOT_ASKED, Analysis, OneWay, OverBlocks, Untested
from offramp.analysis.stats.anova import Anova, Repeated
from offramp.analysis.stats.pairwise import ALPHA, Pair, UntestedPair
from offramp.analysis.stats.text import in_seeds
from offramp.report.model import Column, Table, slug
from offramp.report.runs import Runs
from offramp.report.tables.common import COSTS, QUALITY, WHICH, at, gathered, recorded, unrecorded

OVER_SEEDS = (
    "Over seeds: repeated measures with Greenhouse and Geisser's correction, which takes the values of "
    "a seed to belong together. It is the one to rely on where runs share seeds or phases."
)
ADJUST = "p is of one analysis, not adjusted over the table."
ESTIMATED = "Times of shared, cached or crowded runs are estimates, and never tested."
TIMES = "Time at an exit: of the strategies where a phase of its own trained it and was measured."


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
    title = f"Do strategies differ? Over seeds: {runs.place}"
    table = Table(runs.name("tests"), "more", title, caption, pd.DataFrame(), ())
    return every_test(table, runs, columns, {"": ()}, over_seeds)


def every_test(
    table: Table,
    runs: Runs,
    columns: tuple[Column, ...],
    families: Mapping[str, tuple[str, ...]],
    numbers: Callable[[Analysis], dict[str, Any]],
) -> list[Table]:
    """A table of every measure at every exit; none where nothing can be tested. It has the name, title
    and caption of `table`. families: strategies that are compared with each other, by what to call them;
    no members: all. numbers: the values of a row."""
    rows: list[Mapping[str, Any]] = []
    notes: list[tuple[str, str]] = []
    measures = (*QUALITY, *COSTS)
    places = [
        (measure, exit, word, members)
        for measure in recorded(runs.evidence, measures)
        for exit in ([None, *runs.exits] if measure.per_exit else [None])
        for word, members in families.items()
    ]
    for measure, exit, word, members in places:
        lost: list[str] = []
        if exit is not None and measure in COSTS:
            members, lost = _measured(runs, measure, exit, members)
            if len(members) < 2:
                continue
        analysis = runs.analysis(measure, exit, members)
        if analysis is None:
            continue
        at_ = at(exit, runs.exits)
        about = {"measure": measure.title, "exit": at_, "compared": word}
        rows.append({**about, **numbers(analysis)})
        where = f"{measure.title}, {at_}{f', {word}' if word else ''}"
        notes += [(where, words) for words in (*lost, *left_out(analysis))]
    if not rows:
        return []
    columns = (Column("measure", "measure"), Column("exit", "exit"), *columns)
    lines = (*unrecorded(runs.evidence, measures), *gathered(notes))
    return [replace(table, frame=pd.DataFrame(rows), columns=columns, about=runs.about, notes=lines)]


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


def over_seeds(analysis: Analysis | None) -> dict[str, Any]:
    """f, df, p, epsilon, eta2, seeds of the repeated measures; words in place of p where none."""
    result = overall_test(analysis.over_blocks if analysis else None)
    if isinstance(result, Repeated):
        test = {"f": result.f, "df": f"{result.df1:.2f}, {result.df2:.2f}", "p": result.p}
        return {**test, "epsilon": result.epsilon, "eta2": result.eta2_partial, "seeds": result.blocks}
    why = "no values" if analysis is None else short(result)
    return {**dict.fromkeys(("f", "epsilon", "eta2", "seeds")), "df": "–", "p": why}


def overall_test(way: OneWay | OverBlocks | Untested | None) -> Anova | Repeated | Untested | None:
    """The test of all groups at once."""
    return way.anova if isinstance(way, OneWay | OverBlocks) else way


def short(result: object) -> str:
    """Few words for a cell in place of a result; the notes have the whole reason."""
    if isinstance(result, Untested) and result.estimated:
        return "estimated, not tested"
    return "not tested"


def left_out(analysis: Analysis | None) -> list[str]:
    """What was left out, and why something could not be tested."""
    return [] if analysis is None else [*analysis.notes, *reasons(analysis)]


def reasons(analysis: Analysis) -> list[str]:
    """Why a test was not made; one reason once."""
    one_way, blocks = overall_test(analysis.one_way), overall_test(analysis.over_blocks)
    why = {}
    if isinstance(one_way, Untested) and one_way is not NOT_ASKED:
        why[one_way.why] = one_way.why if one_way.estimated else f"not tested, {one_way.why}"
    if isinstance(blocks, Untested) and blocks.why not in why:
        why[blocks.why] = f"not tested over seeds, {blocks.why}"
    return list(map(in_seeds, why.values()))


CAPTION = (
    "Mean difference a − b over the seeds that both have{unit}; positive: a is {more}. "
    "Student's t on paired differences over {over}; p "
    "adjusted after Holm within this table; intervals are simultaneous, 95 % (Bonferroni). "
    "Detectable: the smallest true difference that is found with a probability of 80 %. Seeds only: "
    "p as if these test {kind}s were all there are. Values that come from the same weights are "
    "identical by construction, stand together as a = b, and are never tested against each other."
)


def pairs(runs: Runs, measure: Measure = MEASURES["accuracy-test"]) -> list[Table]:
    """All pairs of strategies: differences in test accuracy, or in another measure, with intervals."""
    tables = []
    kind = "pairs" if measure.name == "accuracy-test" else f"pairs-{measure.name}"
    unit = f", in {measure.difference_unit}" if measure.difference_unit else ""
    drawn = f"{runs.tested_over}, both taken as drawn at random"
    drawn = drawn if runs.over_images(measure) else "seeds"
    more = "more accurate" if kind == "pairs" else "higher"
    caption = CAPTION.format(unit=unit, more=more, over=drawn, kind=runs.noun)
    for exit in (None, *runs.exits) if measure.per_exit else (None,):
        analysis = runs.analysis(measure, exit)
        if analysis is None or len(analysis.means) < 2:
            continue
        tested = analysis.pairs
        untested = [("", words) for words in (*analysis.notes, *reasons(analysis))]
        significant = (p for p in tested if isinstance(p, Pair) and p.p < ALPHA)
        untested += [("", TOUCHING)] if any(p.low <= 0 <= p.high for p in significant) else []
        name = slug(runs.name(kind), "overall" if exit is None else f"exit {exit}")
        title = f"Differences in {measure.axis.partition(',')[0]}, {at(exit, runs.exits)}: {runs.place}"
        over = getattr(analysis.over_blocks, "pairs", ())
        alone = {(p.a, p.b): p.p for p in over if isinstance(p, Pair)}
        rows = [{**row_of(p, measure.scale), "seeds": alone.get((p.a, p.b))} for p in tested]
        frame = frame_of(rows, PAIRED_COLUMNS)
        about = runs.about | ({} if exit is None else {"exit": str(exit)})
        lines = gathered(untested)
        table = Table(name, "more", title, caption, frame, PAIRED_COLUMNS, about=about)
        tables.append(replace(table, notes=lines))
    return tables


TOUCHING = (
    "an interval touches zero beside p < 0.05, since Holm's test is a little stronger than simultaneous "
    "intervals"
)
COLUMNS = (
    Column("a", "a"),
    Column("b", "b"),
    Column("difference", "a − b", "number", 2),
    Column("low", "from", "number", 2),
    Column("high", "to", "number", 2),
    Column("p", "p", "p"),
    Column("finding", "finding"),
)


PAIRED_COLUMNS = (
    *COLUMNS[:-1],
    Column("detectable", "detectable", "number", 2),
    Column("seeds", "p, seeds only", "p"),
    COLUMNS[-1],
)


def frame_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[column.key for column in columns])


def row_of(pair: Pair | UntestedPair, scale: float) -> dict[str, Any]:
    difference = None if pair.difference is None else pair.difference * scale
    about = {"a": pair.a, "b": pair.b, "difference": difference}
    if not isinstance(pair, Pair):
        return {
            **about,
            "low": None,
            "high": None,
            "p": None,
            "finding": f"not tested: {in_seeds(pair.why)}",
        }
    finding = "not significant"
    if pair.p < ALPHA:
        finding = "a is higher" if pair.difference > 0 else "b is higher"
    ends = pair.low * scale, pair.high * scale
    wide = scale == 100.0 and max(map(abs, ends)) > 100  # no difference of accuracies is that large
    numbers = {"low": None if wide else ends[0], "high": None if wide else ends[1], "p": pair.p}
    if pair.detectable is not None:
        numbers["detectable"] = pair.detectable * scale
    return {**about, **numbers, "finding": finding}
