"""The decision matrix (the paper's Table 8): words from stated rules, the paper's own words below. And
its advice by strategy (Table 9 and section 8.1), each piece tied to claims that test it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from offramp.analysis.measures import MEASURES, Measure
from offramp.analysis.stats.pairwise import ALPHA, Pair
from offramp.paper.guidelines import characteristics, remarks
from offramp.report.evidence import Evidence
from offramp.report.model import Column, Table
from offramp.report.runs import Runs
from offramp.report.tables.common import RESOURCES, gathered, named, unrecorded

LEVELS = ("low", "moderate", "high")
DOUBT = " ?"
CAPTION = (
    "How the words follow from these runs. Strategies with all exits are ranked by their mean over "
    "exits and seeds, for each model and data set. A rank becomes a position from 0, the lowest "
    "value, to 1, the highest; positions are averaged over models and data sets. The third that a "
    "position is in gives the word, the lowest third first. Training time (as the paper runs it), "
    "test accuracy, and resources (the mean position by memory, summed over phases, mean power and "
    "energy): low, moderate, high. Convergence, by the epoch of the least validation loss: fast, "
    "gradual, slow; and by validation stability: stable, fair, unstable. Generalization, by the gap "
    "between training and validation accuracy at the best epoch: strong, moderate, weak. "
    "Overfitting, by the share of exits that overfit: low below 10 %, moderate below 40 %, else "
    "high. Severity, by how far the last validation loss is above the least one: low below 5 %, mild "
    "below 25 %, moderate below 100 %, else severe. A ? marks a word by a measure in which no two "
    "strategies differ significantly (Holm-adjusted paired differences), or which was only "
    "estimated. Paper: its Table 8, from its own networks and data; its row for hybrids stands for "
    "each of the three."
)


@dataclass(frozen=True)
class StandingByMeasure:
    """Positions of strategies by a measure, 0 to 1, and whether any two differ significantly."""

    position: Mapping[str, float]
    mean: Mapping[str, float]
    supported: bool


def decision(evidence: Evidence) -> list[Table]:
    """Strategies by characteristic, the paper's words beside ours (Table 8)."""
    ranked = [s for s in evidence.strategies if s != "baseline"]
    standing = partial(_standing, evidence, strategies=ranked)
    columns = {
        "time": (standing("seconds-written"), LEVELS),
        "resources": (_resources(evidence, ranked), LEVELS),
        "convergence": (standing("min-loss-epoch"), ("fast", "gradual", "slow")),
        "stability": (standing("validation-stability"), ("stable", "fair", "unstable")),
        "accuracy": (standing("accuracy-test"), LEVELS),
        "generalization": (standing("generalization-gap-best"), ("strong", "moderate", "weak")),
    }
    overfits, rise = standing("overfits"), standing("loss-rise")
    paper = characteristics()
    rows: list[Mapping[str, Any]] = []
    for strategy in ranked:
        row: dict[str, Any] = {"strategy": strategy, "by": "here"}
        for name, (by, words) in columns.items():
            row[name] = _third(by, strategy, words)
            row[f"{name}_position"] = by.position.get(strategy, float("nan"))
        row["convergence"] = f"{row['convergence']}, {row.pop('stability')}"
        row["overfitting"] = _step(overfits, strategy, (0.1, 0.4), LEVELS)
        row["overfitting_share"] = overfits.mean.get(strategy, float("nan"))
        row["severity"] = _step(rise, strategy, (0.05, 0.25, 1.0), ("low", "mild", "moderate", "severe"))
        row["severity_rise"] = rise.mean.get(strategy, float("nan"))
        rows.append(row)
        if strategy in paper:
            theirs = dict(zip(KEYS, paper[strategy], strict=True))
            rows.append({"strategy": strategy, "by": "paper", **theirs})
    if not rows:
        return []
    notes = [("", f"No ranks by {word}") for word, (s, _) in columns.items() if not s.position]
    lines = (*unrecorded(evidence, (*named("seconds-written"), *RESOURCES)), *gathered(notes))
    titles = [Column(key, TITLES.get(key, key)) for key in ("strategy", "by", *KEYS)]
    title, frame = "Strategies by characteristic", pd.DataFrame(rows)
    return [Table("decision", "more", title, CAPTION, frame, titles, notes=lines)]


KEYS = ("time", "resources", "convergence", "accuracy", "generalization", "overfitting", "severity")
TITLES = {"time": "training time"}  # where it is not the key


def _standing(evidence: Evidence, name: str, strategies: Sequence[str]) -> StandingByMeasure:
    measure = MEASURES[name]
    positions: dict[str, list[float]] = {}
    means: dict[str, list[float]] = {}
    supported = False
    for runs in evidence.runs:
        rows = runs.values(measure)
        rows = rows[rows["strategy"].isin(list(strategies))]
        mean = rows.groupby("strategy", sort=True)["value"].mean()
        for strategy, value in mean.items():
            means.setdefault(str(strategy), []).append(float(value))
        if len(mean) > 1:
            ranks = (mean.rank(method="average") - 1) / (len(mean) - 1)
            for strategy, position in ranks.items():
                positions.setdefault(str(strategy), []).append(float(position))
            supported = supported or _differ(runs, measure, strategies)
    return StandingByMeasure(
        {s: float(np.mean(p)) for s, p in positions.items()},
        {s: float(np.mean(m)) for s, m in means.items()},
        supported,
    )


def _differ(runs: Runs, measure: Measure, strategies: Sequence[str]) -> bool:
    """Whether any two of these differ; others, as the baseline, are tested with them."""
    analysis = runs.analysis(measure)
    return analysis is not None and any(
        isinstance(pair, Pair)
        and pair.p < ALPHA
        and all(set(label.split(" = ")) & set(strategies) for label in (pair.a, pair.b))
        for pair in analysis.pairs
    )


def _resources(evidence: Evidence, strategies: Sequence[str]) -> StandingByMeasure:
    """The mean position by memory, power and energy, where recorded."""
    each = [_standing(evidence, m.name, strategies) for m in RESOURCES]
    positions = {
        s: [standing.position[s] for standing in each if s in standing.position] for s in strategies
    }
    means = {s: float(np.mean(p)) for s, p in positions.items() if p}
    return StandingByMeasure(means, {}, any(standing.supported for standing in each))


def _third(standing: StandingByMeasure, strategy: str, words: Sequence[str]) -> str:
    if strategy not in standing.position:
        return "–"
    position = standing.position[strategy]
    word = words[0] if position < 1 / 3 - 1e-9 else words[1] if position <= 2 / 3 + 1e-9 else words[2]
    return word if standing.supported else word + DOUBT


def _step(
    standing: StandingByMeasure, strategy: str, limits: Sequence[float], words: Sequence[str]
) -> str:
    if strategy not in standing.mean:
        return "–"
    word = words[sum(standing.mean[strategy] >= limit for limit in limits)]
    return word if standing.supported else word + DOUBT


NONE_TESTS = "no claim tests this"
GUIDELINES_CAPTION = (
    "What the paper advises (its section 8.1 and Table 9), in our words: its experience with its own "
    "networks and data. Each line names the claims that test it, if any, and what these runs say of "
    "each (offramp claims tells the numbers)."
)


def guidelines(evidence: Evidence) -> list[Table]:
    """The paper's advice, each piece tied to claims (Table 9)."""
    advice = remarks()
    if not {a.strategy for a in advice} & set(evidence.strategies):
        return []
    rows = []
    for a in advice:
        tested = [f"{claim} ({evidence.judgments[claim].verdict})" for claim in a.claims]
        rows.append((a.strategy, a.side, a.text, "; ".join(tested) or NONE_TESTS))
    keys = ("strategy", "side", "advice", "claims")
    frame = pd.DataFrame(rows, columns=list(keys))
    columns = (
        *(Column(key, key) for key in keys[:3]),
        Column("claims", "claims, and what these runs say"),
    )
    return [Table("guidelines", "more", "Guidelines", GUIDELINES_CAPTION, frame, columns)]
