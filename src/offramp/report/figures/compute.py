"""Accuracy against compute: every exit, the curve of confidence thresholds, and the Pareto front."""

from __future__ import annotations

import numpy as np
import pandas as pd

from offramp.report.figures import chart, series
from offramp.report.figures.chart import GRAY, WIDTH, Json, color, marks, number, panel, tips
from offramp.report.model import Figure
from offramp.report.runs import Runs

HEIGHT = 300
SMALL = {"fontSize": 11, "fontWeight": "normal"}
APART = 2  # pixels between the intervals of strategies whose exits take the same MACs


def accuracy_compute(runs: Runs) -> list[Figure]:
    """Accuracy against MACs, by exit and by threshold."""
    found = exit_points(runs)
    exits = found.groupby(["strategy", "exit"], sort=True)[["macs"]].mean().reset_index()
    exits = exits.merge(series.means(found, ["strategy", "exit"]), on=["strategy", "exit"])
    curve = threshold_points(runs)
    everything = pd.concat([curve, exits])[["strategy", "threshold", "exit", "macs", "value"]]
    best = front(everything)
    caption = (
        f"Test accuracy and the mean MACs an image, {runs.where}; up and to the left is better. Symbols "
        "are exits: an image leaves there whatever it is, every exit before it asked. Lines are what "
        "confidence thresholds give, the same one at all exits, from 0 to never. The gray line is the "
        "Pareto front of the means: nothing here is more accurate for as little; the front ignores "
        f"uncertainty. {_spread(found)}"
    )
    title, alt = "Accuracy against compute", _alt(exits, best)
    made = _chart(runs.strategies, exits, curve, best)
    if said := _one_mark(exits):
        made["title"] = {"text": said, **SMALL}
    return chart.figure(runs, "accuracy-compute", "compute", title, caption, alt, made)


def exit_points(runs: Runs) -> pd.DataFrame:
    """Test accuracy (%) and MACs (% of the plain network's) of every exit: strategy, exit, seed, value,
    macs."""
    found = runs.by_exit(lambda t, i: 100 * t.manifest.metrics["test"].accuracy[i])
    macs = runs.by_exit(lambda t, i: 100 * t.macs[i] / t.manifest.backbone_macs)
    return found.assign(macs=macs["value"])


def threshold_points(runs: Runs) -> pd.DataFrame:
    """Mean over seeds of test accuracy (%) and MACs (%) at each confidence threshold: strategy,
    threshold, at (its rank), macs, value. Of strategies with one exit, none."""
    parts = [pd.DataFrame(columns=["strategy", "threshold", "at", "macs", "value"])]
    for strategy in runs.strategies:
        trials = [t for t in runs.of(strategy) if len(t.exits) > 1]
        if not trials:
            continue
        curves = [runs.evidence.outcomes[t.id].curve for t in trials]
        settings = curves[0].thresholds[:, 0]
        part = pd.DataFrame({"threshold": [f"{t:g}" if np.isfinite(t) else "never" for t in settings]})
        part["at"] = range(len(part))
        macs = [100 * c.macs / t.manifest.backbone_macs for c, t in zip(curves, trials, strict=True)]
        part["macs"] = np.mean(macs, axis=0)
        part["value"] = 100 * np.mean([c.accuracy for c in curves], axis=0)
        parts.append(part.assign(strategy=strategy)[list(parts[0].columns)])
    return pd.concat(parts[1:] or parts, ignore_index=True)


def front(points: pd.DataFrame) -> pd.DataFrame:
    """The rows that no other row beats: none with at most their `macs` has more `value`. By macs."""
    ordered = points.sort_values(["macs", "value"], ascending=[True, False], kind="stable")
    best = ordered["value"].cummax().shift(fill_value=-np.inf)
    return ordered[ordered["value"] > best]


def _one_mark(exits: pd.DataFrame) -> list[str]:
    """Exits that lie on one another, as lines above the chart."""
    columns = ["strategy", "macs", "value"]
    by_exit = exits.groupby("exit", sort=True)
    said = [chart.one(f"exit {k}, one mark", chart.coinciding(part[columns])) for k, part in by_exit]
    return [line for text in said for line in chart.lines(text, WIDTH)]


def _spread(found: pd.DataFrame) -> str:
    """What the vertical lines are, as a sentence for the caption."""
    most, fewest = series.per_strategy(found)
    if most < 3:
        few = ", too few for an interval" if most == 2 else ", so nothing says how much values vary"
        return f"Means over {series.counted(most)}{few}."
    of = "" if fewest > 2 else " where there are three or more"
    return (
        f"Means over {series.counted(most)}; vertical lines are 95 % intervals (Student's t) of the "
        f"exits' means{of}, side by side where strategies spend the same. Thresholds have none here."
    )


def _chart(labels: list[str], exits: pd.DataFrame, curve: pd.DataFrame, best: pd.DataFrame) -> Json:
    spent = pd.concat([exits["macs"], curve["macs"]]).astype(float)
    low, high = float(spent.min()), float(spent.max())
    edge = [float(f"{0.93 * low:.3g}"), float(f"{1.07 * high:.3g}")]
    y = number("value", "test accuracy, %", scale={"zero": False, "padding": 6})
    scale = {"type": "log", "domain": edge, "nice": False}
    axis = {"values": chart.ticks(edge[0], edge[1]), "format": "~g"}
    x = number("macs", "MACs an image, % of the plain network", scale=scale, axis=axis)
    told = (("macs", "MACs, %"), ("value", "test accuracy, %"))
    points = marks(
        exits[["strategy", "exit", "macs", "value"]],
        {"type": "point", "filled": True, "size": 46, "opacity": 1},
        **{"x": x, "y": y, "color": color(labels), "shape": chart.shape(labels)},
        tooltip=tips(("strategy", "strategy"), ("exit", "exit"), *told),
    )
    lines = marks(
        curve[["strategy", "threshold", "at", "macs", "value"]],
        {"type": "line", "strokeWidth": 1.4},
        **{"x": x, "y": y, "order": {"field": "at", "type": "quantitative"}},
        **{"stroke": color(labels, None), "strokeDash": chart.dash(labels, None)},
        tooltip=tips(("strategy", "strategy"), ("threshold", "threshold"), *told),
    )
    right = pd.DataFrame({"macs": [edge[1]], "value": [best["value"].max()]})
    steps = marks(
        pd.concat([best[["macs", "value"]], right]),
        {"type": "line", "interpolate": "step-after", "stroke": GRAY, "strokeWidth": 5, "opacity": 0.35},
        **{"x": x, "y": y},
    )
    ranges = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}
    spread = _intervals(labels, exits.dropna(subset=["low"]), ranges)
    layers = [points, *spread, *([lines] if len(curve) else []), steps]
    return panel(layers, WIDTH - 50, HEIGHT)


def _intervals(labels: list[str], exits: pd.DataFrame, ranges: Json) -> list[Json]:
    """A vertical line at each exit; side by side where exits take the same MACs."""
    rank = {label: i for i, label in enumerate(labels)}
    ordered = exits.assign(rank=exits["strategy"].map(rank)).sort_values(["exit", "rank"])
    alike = ordered.groupby(ordered["macs"].round(3))["rank"]
    beside = APART * (alike.cumcount() - (alike.transform("size") - 1) / 2)
    told = tips(("strategy", "strategy"), ("exit", "exit"), ("low", "from"), ("high", "to"))
    rule = {"type": "rule", "strokeWidth": 1.2, "opacity": 0.8, "clip": True}
    columns = ["strategy", "exit", "macs", "low", "high"]
    seen: Json = {**ranges, "stroke": color(labels, None), "tooltip": told}
    return [
        marks(mine[columns], {**rule, "xOffset": float(pixels)}, **seen)
        for pixels, mine in ordered.groupby(beside, sort=True)
    ]


def _alt(exits: pd.DataFrame, best: pd.DataFrame) -> str:
    last = exits[exits["exit"] == exits["exit"].max()].sort_values("value", ascending=False)
    spelled = ", ".join(
        f"{row.strategy} {row.value:.1f} % at {row.macs:.0f} % of the MACs" for row in last.itertuples()
    )
    on = ", ".join(dict.fromkeys(best["strategy"]))
    return f"Scatter and line chart. At the last exit: {spelled}. On the Pareto front: {on}."
