"""What compute buys: accuracy at equal compute, in one number, and over all networks and data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from offramp.analysis.measures import MEASURES
from offramp.analysis.stats.pairwise import least_shown
from offramp.analysis.tradeoff import NetAnswers
from offramp.errors import with_article
from offramp.policy.quality import Bound, oracle
from offramp.report.colors import rank
from offramp.report.evidence import Evidence
from offramp.report.model import Column, Table
from offramp.report.runs import Runs
from offramp.report.tables.common import at, gathered, power
from offramp.store.table import Spread
from offramp.units import macs

EQUAL_CAPTION = (
    "Mean test accuracy over seeds, %, where {example} takes this share of the plain network's MACs on "
    "average. One confidence threshold for all exits, chosen so that this much is spent: no label is "
    "used for that. Compute is that of all exits asked: of separate networks, their sum. Marks are "
    "within a column, over {over}, p adjusted over all pairs and columns. A value "
    "without a mark is significantly less accurate than the best, or could not be tested (see the "
    "notes)."
)


def equal(runs: Runs) -> list[Table]:
    """Accuracy at equal compute."""
    levels = runs.levels
    if not levels:
        return []
    rows: dict[str, dict[str, float]] = {}
    best, alike, notes, least_of = set(), set(), [], []
    for n, level in enumerate(levels):
        top = next(iter(level.means))
        for label, mean in level.means.items():
            for name in label.split(" = "):
                rows.setdefault(name, {"strategy": name})[f"at_{n}"] = mean  # type: ignore[dict-item]
                if mean == level.means[top]:
                    best.add((name, f"at_{n}"))
                elif label not in level.untested and not level.beats(top, label):
                    alike.add((name, f"at_{n}"))
        least = least_shown(p for p in level.pairs if top in (p.a, p.b))
        least_of += [(macs(level.macs), least)] if least is not None else []
        why = level.why or f"not tested against the best: {', '.join(level.untested)}"
        notes += [(macs(level.macs), why)] if level.why or level.untested else []
    frame = pd.DataFrame.from_dict({name: rows[name] for name in sorted(rows, key=rank)}, orient="index")
    plain = runs.trials[0].manifest.backbone_macs
    spent = [f"{100 * level.macs / plain:.0f} %, {macs(level.macs)} MACs" for level in levels]
    columns = (
        Column("strategy", "strategy"),
        *(Column(f"at_{n}", title, "percent", 1, "higher") for n, title in enumerate(spent)),
    )
    title = f"Accuracy at equal compute: {runs.place}"
    caption = EQUAL_CAPTION.format(example=with_article(runs.noun), over=runs.tested_over)
    table = Table(runs.name("equal"), "answer", title, caption, frame, columns, about=runs.about)
    lines = gathered([*notes, *power(least_of)])
    return [replace(table, best=frozenset(best), alike=frozenset(alike), notes=lines)]


LEAVING_CAPTION = (
    "On test {noun}s, mean ± sample standard deviation over seeds; not tested. Area: mean accuracy over "
    "all amounts of compute from the cheapest exit of any strategy to the plain network, one confidence "
    "threshold at all exits; where a strategy cannot spend so little, its cheapest setting counts. "
    "Best choice: leaving at the first exit that is right, and its share of the plain network's MACs; "
    "regret: how far thresholds that spend as much fall short of it. AURC, at each exit: the share of "
    "mistakes among the answers that are kept, averaged over how many are kept, the surest first, "
    "times 1,000. It says whether confidence finds the mistakes, which calibration error does not."
)


def leaving(runs: Runs) -> list[Table]:
    """Accuracy against compute in one number, regret to the best choice, failure prediction."""
    several = [s for s in runs.strategies if any(len(t.exits) > 1 for t in runs.of(s))]
    if not several:
        return []
    outcomes = runs.evidence.outcomes
    chosen = sorted((t for t in runs.trials if len(t.exits) > 1), key=lambda t: (t.seed, t.id))
    low = min(t.macs[0] for t in chosen)
    high = max(t.manifest.backbone_macs for t in chosen)
    rows: dict[str, dict[str, Any]] = {}
    for name in several:
        trials = [t for t in chosen if t.strategy == name]
        row = rows[name] = {"strategy": name}
        row |= _spread("area", [outcomes[t.id].answers.area(low, high) for t in trials])
        chances = [regret(outcomes[t.id].answers) for t in trials]
        row |= _spread("best", [best.accuracy for best, _ in chances])
        pairs = zip(trials, chances, strict=True)
        row |= _spread("compute", [best.macs / t.manifest.backbone_macs for t, (best, _) in pairs])
        row |= _spread("regret", [lost for _, lost in chances])
        for exit in runs.exits:
            with_it = [t for t in trials if exit in t.exits]
            aurc = [1000 * outcomes[t.id].aurc[t.exits.index(exit)] for t in with_it]
            row |= _spread(f"aurc_{exit}", aurc)
    columns = (
        Column("strategy", "strategy"),
        Column("area", "area, %", "percent", 1, "higher", "area_sd"),
        Column("best", "best choice, %", "percent", 1, "higher", "best_sd"),
        Column("compute", "its MACs, %", "percent", 1, "lower", "compute_sd"),
        Column("regret", "regret, points", "percent", 1, "lower", "regret_sd"),
        *(
            Column(f"aurc_{k}", f"AURC {at(k, runs.exits)}", "number", 1, "lower", f"aurc_{k}_sd")
            for k in runs.exits
        ),
    )
    title = f"Where {runs.noun}s leave: {runs.place}"
    caption = LEAVING_CAPTION.format(noun=runs.noun)
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return [Table(runs.name("leaving"), "compute", title, caption, frame, columns, about=runs.about)]


def regret(answers: NetAnswers) -> tuple[Bound, float]:
    """The best choice of exits, which no score knows; and how much less accurate thresholds are that
    spend as much."""
    best = oracle(answers.right, answers.macs)
    return best, best.accuracy - float(answers.accuracy(max(best.macs, answers.cheapest)))


def _spread(key: str, values: list[float]) -> dict[str, float]:
    mean, deviation = Spread.of(values)
    return {key: mean, f"{key}_sd": deviation}


DRAWS = 10_000
LEVEL = 0.95  # of the interval
LEAST = 3  # runs of a task; fewer say nothing of how runs vary


class Iqm(NamedTuple):
    """An interquartile mean, and the ends of its interval."""

    value: float
    low: float
    high: float


def iqm(tasks: Sequence[Sequence[float]], draws: int = DRAWS) -> Iqm:
    """The interquartile mean of all scores of all tasks, and its 95% percentile interval of a bootstrap
    stratified by task.

    The interval is empty (NaN) where a task has fewer than three runs. Draws are a function of the
    scores' numbers alone, so equal scores give equal intervals.

    Args:
        tasks: Scores of each task's runs, at least one.

    >>> iqm([[1.0, 2.0, 3.0, 100.0]]).value
    2.5
    """
    scores = [np.sort(np.asarray(task, dtype=np.float64)) for task in tasks]
    value = float(stats.trim_mean(np.concatenate(scores), 0.25))
    if min(map(len, scores)) < LEAST:
        return Iqm(value, float("nan"), float("nan"))
    generator = np.random.default_rng(0)
    drawn = [task[generator.integers(len(task), size=(draws, len(task)))] for task in scores]
    draws_of_mean = stats.trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
    low, high = np.quantile(draws_of_mean, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Iqm(value, float(low), float(high))


OVERALL_CAPTION = (
    "Interquartile mean, over all networks, data sets and seeds, of test accuracy (mean over exits, and "
    "of the final exit), with 95 % intervals of a bootstrap that draws seeds anew within each network "
    "and data set, where each has three seeds at least. Of strategies that every network and data set "
    "here has. Intervals that overlap are no test; differences are tested elsewhere, pair by pair."
)
OVERALL_MEASURES = {"mean": "accuracy-test", "final": "final-accuracy-test"}
NO_MEAN = Iqm(*[float("nan")] * 3)  # of who has no mean over exits somewhere, as the baseline


def overall(evidence: Evidence) -> list[Table]:
    """Interquartile means over networks and data sets, where there are several."""
    if len(evidence.runs) < 2:
        return []
    everywhere = set.intersection(*(set(runs.strategies) for runs in evidence.runs))
    rows: dict[str, dict[str, Any]] = {}
    for name in sorted(everywhere, key=rank):
        row: dict[str, Any] = {"strategy": name}
        for key, measure in OVERALL_MEASURES.items():
            values = [runs.values(MEASURES[measure]) for runs in evidence.runs]
            tasks = [seen.loc[seen["strategy"] == name, "value"].tolist() for seen in values]
            mean = iqm(tasks) if all(map(len, tasks)) else NO_MEAN
            row |= {key: mean.value, f"{key}_low": mean.low, f"{key}_high": mean.high}
        row["runs"] = int(np.sum([len(runs.of(name)) for runs in evidence.runs]))
        rows[name] = row
    if not rows:
        return []
    columns = (
        Column("strategy", "strategy"),
        *(
            column
            for key, title in (("mean", "mean over exits, %"), ("final", "final exit, %"))
            for column in (
                Column(key, title, "percent", 1, "higher"),
                Column(f"{key}_low", "from", "percent", 1),
                Column(f"{key}_high", "to", "percent", 1),
            )
        ),
        Column("runs", "trials", "integer"),
    )
    frame = pd.DataFrame.from_dict(rows, orient="index")
    title = f"Over {len(evidence.runs)} networks and data sets"
    return [Table("overall", "answer", title, OVERALL_CAPTION, frame, columns)]
