"""Loss and accuracy over training, by exit and overall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from offramp.analysis.measures import MEASURES, Measure
from offramp.report.figures import series
from offramp.report.figures.chart import (
    WIDTH,
    Json,
    coinciding,
    color,
    dash,
    hidden_text,
    marks,
    number,
    panel,
    spec,
    ticks,
)
from offramp.report.model import Figure
from offramp.report.registry import publication
from offramp.report.runs import Runs

PANEL = (WIDTH - 84) // 2
# Vertical axes by whether they are the left one. Labels have the same room in every row, so that panels
# stand below each other; empty ones are as high as those at the left, so that titles stand in a line.
AXES: dict[bool, Json] = {True: {"minExtent": 34}, False: {"labelExpr": "''", "ticks": False}}
POINTS = 80  # a line: two pixels apart
RUNNING = "Lines of train are running means over an epoch, in train mode (dropout on)."
EVALUATED = "Dots are the training split in eval mode after the last epoch: what the network can do."


@dataclass(frozen=True)
class CurveMetric:
    """A metric as it is drawn."""

    key: str  # its name in the tidy table
    word: str  # what it is called
    axis: str  # what stands beside its axis
    measure: Measure  # it on test, at the end of training
    log: bool = False  # whether its axis is logarithmic


LOSS = CurveMetric("cross_entropy", "loss", "cross-entropy", MEASURES["loss-test"], log=True)
ACCURACY = CurveMetric("accuracy", "accuracy", "accuracy, %", MEASURES["accuracy-test"])


@dataclass(frozen=True)
class StrategyGroup:
    """Strategies that are drawn together."""

    key: Literal["core", "hybrid"]
    title: str
    strategies: tuple[str, ...]


def groups(labels: Sequence[str]) -> list[StrategyGroup]:
    """The core strategies (with whatever else is no hybrid), and hybrids with their parents."""
    families = publication().families
    hybrids = [label for label in labels if label in families.parents]
    parents = {parent for hybrid in hybrids for parent in families.parents[hybrid]}
    core = tuple(label for label in labels if label not in families.parents)
    both = tuple(label for label in labels if label in families.parents or label in parents)
    drawn_together = []
    if core:
        title = "core strategies" if set(core) & set(families.core) else "strategies"
        drawn_together.append(StrategyGroup("core", title, core))
    if hybrids:
        title = "hybrids and what they are made of"
        drawn_together.append(StrategyGroup("hybrid", title, both))
    return drawn_together


def by_exit(runs: Runs) -> list[Figure]:
    """A figure for each group and metric: a row of panels an exit, train beside validation."""
    rows, ends = series.curves(runs), series.trained(runs)
    figures = []
    for group in groups(runs.evidence.among(rows["strategy"])):
        mine = rows[rows["strategy"].isin(group.strategies)]
        spoken = series.spoken(*series.per_strategy(mine), "curve")
        note = f"{spoken} {RUNNING} {EVALUATED}{_same(runs, group)}"
        dots = series.over_seeds(ends[ends["strategy"].isin(group.strategies)], series.CURVE, POINTS)
        dots = dots.drop_duplicates(series.CURVE, keep="last")  # of the seed that trained longest
        drawn = pd.concat([series.over_seeds(mine, series.CURVE, POINTS), dots], ignore_index=True)
        for metric in (LOSS, ACCURACY):
            figures.append(_by_exit(runs, drawn, group, metric, note))
    return figures


def overall(runs: Runs) -> list[Figure]:
    """A figure for each group: loss and accuracy, train and validation, mean over exits."""
    whole = [s for s in runs.strategies if all(t.exits == runs.exits for t in runs.of(s))]
    rows = series.overall(runs)
    rows = rows[rows["strategy"].isin(whole)]
    absent = [s for s in runs.strategies if s not in whole]
    figures = []
    for group in groups(runs.evidence.among(rows["strategy"])):
        mine = rows[rows["strategy"].isin(group.strategies)]
        drawn = series.over_seeds(mine, ["strategy", "split", "metric"], POINTS)
        lacking = absent if group.key == "core" else []
        figures.append(_overall(runs, drawn, group, series.per_strategy(mine), lacking))
    return figures


def _by_exit(
    runs: Runs, drawn: pd.DataFrame, group: StrategyGroup, metric: CurveMetric, note: str
) -> Figure:
    exits = sorted(int(k) for k in drawn["exit"].unique())
    rows = []
    for exit in exits:
        mine = drawn[(drawn["metric"] == metric.key) & (drawn["exit"] == exit)]
        last = exit == exits[-1]
        rows.append(_pair(mine, group, metric, f"exit {exit}", first=exit == exits[0], last=last))
    return Figure(
        name=runs.name(metric.word, group.key),
        question="rq3" if group.key == "hybrid" else "rq1",
        title=f"{metric.word.capitalize()} by exit: {group.title}",
        caption=f"{metric.word.capitalize()} at each exit over the epochs that trained it, "
        f"{group.title}, {runs.where}; {metric.measure.better} is better. {note}",
        alt=f"Line charts of {metric.word} over epochs, a row for each of exits "
        f"{', '.join(map(str, exits))}, train beside validation, a line for each of "
        f"{', '.join(group.strategies)}. {_ending(drawn, metric)}",
        spec=spec({"vconcat": rows, "spacing": 8}),
        about=runs.about,
    )


def _overall(
    runs: Runs,
    drawn: pd.DataFrame,
    group: StrategyGroup,
    seeds: tuple[int, int],
    absent: Sequence[str],
) -> Figure:
    rows = []
    for metric in (LOSS, ACCURACY):
        mine = drawn[drawn["metric"] == metric.key]
        rows.append(_pair(mine, group, metric, "", first=metric is LOSS, last=metric is ACCURACY))
    lacks = "lacks" if len(absent) == 1 else "lack"
    alone = (
        f" {', '.join(absent)} {lacks} exits that others have, so no mean over them." if absent else ""
    )
    return Figure(
        name=runs.name("overall", group.key),
        question="rq3" if group.key == "hybrid" else "rq1",
        title=f"Loss and accuracy overall: {group.title}",
        caption=f"Mean over exits of loss (lower is better) and accuracy (higher is better), "
        f"{group.title}, {runs.where}. Each exit counts its own epochs; one that has stopped "
        f"is held at its last value.{alone} {RUNNING} {series.spoken(*seeds, 'curve')}",
        alt="Line charts of loss and accuracy, mean over exits, train beside validation, a line for "
        f"each of {', '.join(group.strategies)}. {_ending(drawn, ACCURACY)}",
        spec=spec({"vconcat": rows, "spacing": 8}),
        about=runs.about,
    )


def _ending(drawn: pd.DataFrame, metric: CurveMetric) -> str:
    """Where validation ends, in words."""
    mine = drawn[(drawn["metric"] == metric.key) & (drawn["split"] == "validation")]
    if "exit" in mine and len(mine):
        mine = mine[mine["exit"] == mine["exit"].max()]
    ends = mine.groupby("strategy", sort=True)["value"].last() * metric.measure.scale
    if ends.empty:
        return ""
    at = " at the final exit" if "exit" in mine else ""
    spelled = ", ".join(f"{label} {value:.3g}" for label, value in ends.items())
    return f"Validation {metric.axis} ends{at} at: {spelled}."


def _pair(
    mine: pd.DataFrame, group: StrategyGroup, metric: CurveMetric, title: str, first: bool, last: bool
) -> Json:
    """Train and validation beside each other, with one vertical axis."""
    visible = mine[mine["low"] > 0] if metric.log else mine
    low, high = visible["low"].min() * metric.measure.scale, visible["high"].max() * metric.measure.scale
    whole = min(5, max(1, visible["step"].nunique() - 1))  # more ticks would be between epochs
    panels = []
    for split in series.SPLITS:
        rows = visible[visible["split"] == split][["strategy", "step", "value", "low", "high"]].copy()
        rows[["value", "low", "high"]] *= metric.measure.scale
        left = split == "train"
        y: Json = {
            "title": metric.axis if left else None,
            "scale": _scale(metric, low, high),
            "axis": {**AXES[left], **_ticks(metric, low, high)},
        }
        x = number(
            "step",
            "epochs of the exit" if last else None,
            scale={"nice": False, "zero": False},
            axis={"grid": False, "labels": last, "ticks": last, "tickCount": whole, "tickMinStep": 1},
        )
        # The line comes first: Vega-Lite drops the legend of a layer after one without.
        line = marks(
            rows,
            {"type": "line", "strokeWidth": 1.4, "point": bool(rows["step"].nunique() == 1)},
            **{"x": x, "y": number("value", **y)},
            color=color(group.strategies, "stroke"),
            strokeDash=dash(group.strategies, "stroke"),
        )
        area = marks(
            rows,
            {"type": "area", "opacity": 0.13},
            **{"x": x, "y": number("low", **y), "y2": {"field": "high"}},
            fill=color(group.strategies, None),
        )
        layers = [line, area]
        ends = visible.loc[visible["split"] == "train-eval", ["strategy", "step", "value"]]
        if left and len(ends):
            ends = ends.assign(value=ends["value"] * metric.measure.scale)
            dot = {"type": "point", "filled": True, "size": 18}
            place = {"x": x, "y": number("value", **y)}
            layers.append(marks(ends, dot, **place, fill=color(group.strategies, None)))
        word = "train (running)" if left else split
        label = f"{title} · {word}" if title else word
        lines = hidden_text("one line", coinciding(rows))
        panels.append(panel(layers, PANEL, 88, label if first or title or lines else "", lines))
    # Flush: the labels of the last row's ticks, which stand out, move no panel of it.
    return {
        **{"hconcat": panels, "spacing": 14, "bounds": "flush"},
        "resolve": {"scale": {"y": "shared"}},
    }


def _scale(metric: CurveMetric, low: float, high: float) -> Json:
    if metric.log and 0 < low < high < math.inf:
        return {"type": "log", "domain": [float(f"{low:.3g}"), float(f"{high:.3g}")], "nice": False}
    return {"type": "log"} if metric.log else {"zero": False}


def _ticks(metric: CurveMetric, low: float, high: float) -> Json:
    values = ticks(low, high) if metric.log else []
    return {"values": values, "format": "~g"} if values else {"tickCount": 4}


def _same(runs: Runs, group: StrategyGroup) -> str:
    """Which lines coincide because the very same phases trained the exit."""
    notes = []
    trials = [t for t in runs.trials if t.strategy in group.strategies]
    for exit in sorted({k for t in trials for k in t.exits}):
        trained: dict[str, set[tuple[int, tuple[str, ...]]]] = {}
        for trial in trials:
            nodes = tuple(p.node for p in trial.phases if exit in p.exits)
            if nodes:
                trained.setdefault(trial.strategy, set()).add((trial.seed, nodes))
        alike: dict[frozenset[tuple[int, tuple[str, ...]]], list[str]] = {}
        for strategy, nodes_by_seed in trained.items():
            alike.setdefault(frozenset(nodes_by_seed), []).append(strategy)
        notes += [f"{' = '.join(same)} (exit {exit})" for same in alike.values() if len(same) > 1]
    return f" Lines coincide where the same phases trained an exit: {', '.join(notes)}." if notes else ""
