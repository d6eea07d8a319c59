"""Who beats whom in one line, in the paper's notation (its Table 5), both ways of testing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from offramp.analysis.measures import Measure
from offramp.analysis.stats import Untested, rule
from offramp.analysis.stats.analyze import Crossed, OneWay, OverBlocks
from offramp.analysis.stats.pairwise import ALPHA
from offramp.analysis.stats.text import in_seeds
from offramp.paper.families import LETTERS, spelled
from offramp.report.evidence import Evidence
from offramp.report.model import Column, Question, Table
from offramp.report.tables import common
from offramp.report.tables.tests import ESTIMATED, reasons, short

WAYS = (
    "Recommended: Holm-adjusted paired differences among all strategies, over seeds, and on test over "
    "seeds and images. Tukey: honestly significant differences among the core strategies, the paper's "
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
    caption = (
        f"From the highest mean to the lowest. {direction}: {better} is better. {rule(ALPHA, better)} "
        f"{WAYS} {costs}{letters}"
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
