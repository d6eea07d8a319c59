"""Accuracy against compute: every exit, the curve of confidence thresholds, and the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from offramp.analysis.measures import MEASURES, Measure
from offramp.errors import with_article
from offramp.report.controls import COIN
from offramp.report.figures import chart, series
from offramp.report.figures.chart import (
    GRAY,
    LETTER,
    WIDTH,
    Json,
    color,
    dash,
    figure,
    grid,
    marks,
    named,
    number,
    panel,
    rank,
    shape,
    tips,
    word,
)
from offramp.report.figures.series import counted
from offramp.report.model import Figure
from offramp.report.runs import Runs

PLOT, HEIGHT = WIDTH - 50, 300
NAMED = 200  # pixels of a plain network's name, at most
FRONT = "Pareto front"
# Symbols of a legend: of what is drawn as a line alone, and of plain networks.
BAR = "M-1.4,-0.35L1.4,-0.35L1.4,0.35L-1.4,0.35Z"
RING = "M-1,0A1,1,0,1,1,1,0A1,1,0,1,1,-1,0ZM-0.6,0A0.6,0.6,0,1,0,0.6,0A0.6,0.6,0,1,0,-0.6,0Z"
COIN_POINTS = 33  # of a line that is straight in MACs, on an axis that is not
PLAIN = "#111111"  # plain networks, as the baseline
APART = 2  # pixels between the intervals of strategies whose exits take the same MACs


def accuracy_compute(runs: Runs) -> list[Figure]:
    """Accuracy against MACs, by exit and by threshold."""
    points = exit_points(runs)
    exits = points.groupby(["strategy", "exit"], sort=True)[["macs"]].mean().reset_index()
    exits = exits.merge(series.means(points, ["strategy", "exit"]), on=["strategy", "exit"])
    curve = pd.concat([threshold_points(runs), cascade_points(runs)], ignore_index=True)
    networks, line = static_frontier(runs)
    drawn = pd.concat([curve, line], ignore_index=True)
    best = envelope(exits, drawn)
    example = with_article(runs.noun)
    caption = (
        f"Test accuracy and the mean MACs {example}, {runs.where}; up and to the left is better. "
        f"Symbols are exits: every {runs.noun} leaves there, after all exits before it were asked. "
        "Lines are confidence thresholds from 0 to never, the same one at all exits. The gray line is "
        f"the {FRONT} of the means: nothing drawn here is more accurate for as few MACs; the front "
        f"ignores uncertainty. {_plain(runs, networks, curve)}{_spread(points)}{_one_mark(exits)}"
    )
    title, alt = "Accuracy against compute", _alt(exits, on_front(pd.concat([exits, drawn]), best))
    labels = list(dict.fromkeys([*runs.strategies, *curve["strategy"]]))
    drawing = _chart(labels, exits, curve, best, networks, line)
    return chart.figure(runs, "accuracy-compute", "compute", title, caption, alt, drawing)


def exit_points(runs: Runs) -> pd.DataFrame:
    """Test accuracy (%) and MACs (% of the plain network's) of every exit: strategy, exit, seed, value,
    macs."""
    points = runs.by_exit(lambda t, i: 100 * t.manifest.metrics["test"].accuracy[i])
    macs = runs.by_exit(lambda t, i: 100 * t.macs[i] / t.manifest.backbone_macs)
    return points.assign(macs=macs["value"])


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


def cascade_points(runs: Runs) -> pd.DataFrame:
    """Mean over seeds of cascades of two plain networks: columns of `threshold_points`, without the
    thresholds, of which each seed has its own."""
    parts = []
    for each in runs.controls.candidates:
        if each.facts.kind != "cascade":
            continue
        low = max(a.cheapest for a in each.answers.values())
        high = max(a.macs[-1] for a in each.answers.values())
        spent = np.linspace(low, high, COIN_POINTS)
        part = pd.DataFrame({"macs": _share(runs, spent), "at": range(len(spent))})
        part["value"] = 100 * np.mean([a.accuracy(spent) for a in each.answers.values()], axis=0)
        parts.append(part.assign(strategy=each.label, threshold=""))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def static_frontier(runs: Runs) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Plain networks beside the strategies (columns strategy, macs, value), and the line of what a coin
    between two neighbors of the frontier gives (those, and at), in % of the plain network's MACs."""
    controls = runs.controls
    networks = pd.DataFrame(
        [(c.label, float(c.macs), 100 * c.accuracy().mean) for c in controls.networks],
        columns=["strategy", "macs", "value"],
    )
    corners = networks[networks["strategy"].isin([c.label for c in controls.frontier])]
    corners = corners.sort_values("macs")
    ends = corners["macs"].to_numpy(float)
    inner = [np.linspace(a, b, COIN_POINTS) for a, b in pairwise(ends)]
    spent = np.unique(np.concatenate(inner)) if inner else np.array([])
    value = np.interp(spent, ends, corners["value"]) if inner else spent
    line = pd.DataFrame({"macs": _share(runs, spent), "at": range(len(spent)), "value": value})
    return networks.assign(macs=_share(runs, networks["macs"])), line.assign(strategy=COIN)


def _share(runs: Runs, macs: Any) -> Any:
    """MACs in % of the plain network's."""
    return 100 * macs / runs.trials[0].manifest.backbone_macs


def _plain(runs: Runs, networks: pd.DataFrame, curve: pd.DataFrame) -> str:
    """What is drawn of plain networks, as sentences for the caption."""
    if networks.empty:
        return ""
    spelled = ", ".join(
        f"{c.label} ({c.epochs} epochs, seeds: {len(c.trials)})" for c in runs.controls.networks
    )
    cascades = [label for label in curve["strategy"].unique() if label not in runs.strategies]
    more = f" {', '.join(cascades)}: a cascade of both." if cascades else ""
    return (
        f"Rings are plain networks: {spelled}. The dashed line is the static frontier: a coin that "
        f"sends each {runs.noun} to one of two networks has their mean compute and their mean accuracy, "
        f"so early exits pay where they lie above it; validation {runs.noun}s choose its corners."
        f"{more} "
    )


def envelope(exits: pd.DataFrame, curve: pd.DataFrame) -> pd.DataFrame:
    """The most accuracy that is drawn at up to so many MACs, on points or on lines between them, a pixel
    apart: columns macs, value."""
    places = [frame["macs"].to_numpy(float) for frame in (exits, curve)]
    drawn = np.log(np.concatenate(places))
    at = np.unique(np.concatenate([drawn, np.linspace(drawn.min(), drawn.max(), WIDTH)]))
    best = np.full(len(at), -np.inf)
    np.maximum.at(best, np.searchsorted(at, np.log(places[0])), exits["value"].to_numpy(float))
    for _, line in curve.groupby("strategy", sort=False):
        most = line.groupby("macs", sort=True)["value"].max()
        x, y = np.log(most.index.to_numpy(float)), most.to_numpy(float)
        best = np.maximum(best, np.interp(at, x, y, left=-np.inf, right=-np.inf))
    front = pd.DataFrame({"macs": np.exp(at), "value": np.maximum.accumulate(best)})
    flat = front["value"].eq(front["value"].shift()) & front["value"].eq(front["value"].shift(-1))
    return front.loc[~flat]


def on_front(points: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """The rows that reach an `envelope`, by macs; of equal ones the first, and none that spends more for
    as much."""
    ordered = points.sort_values(["macs", "value"], ascending=[True, False], kind="stable")
    ordered = ordered.loc[ordered["value"] > ordered["value"].cummax().shift(fill_value=-np.inf)]
    highest = np.interp(np.log(ordered["macs"].astype(float)), np.log(best["macs"]), best["value"])
    front: pd.DataFrame = ordered.loc[ordered["value"] >= highest - 1e-9]
    return front


def _one_mark(exits: pd.DataFrame) -> str:
    """Exits that lie on one another, as a sentence for the caption."""
    columns = ["strategy", "macs", "value"]
    alike = [(k, chart.coinciding(part[columns])) for k, part in exits.groupby("exit", sort=True)]
    groups_text = [f"{' = '.join(same)} (exit {k})" for k, groups in alike for same in groups]
    return f" Marks that lie on one another: {', '.join(groups_text)}." if groups_text else ""


def _spread(points: pd.DataFrame) -> str:
    """What the vertical lines are, as a sentence for the caption."""
    most, fewest = series.per_strategy(points)
    if most < 3:
        few = ", too few for an interval" if most == 2 else ", so nothing says how much values vary"
        return f"Means over {series.counted(most, fewest)}{few}."
    of = "" if fewest > 2 else " where there are three or more"
    return (
        f"Means over {series.counted(most, fewest)}; vertical lines are 95 % intervals (Student's t) of "
        f"the exits' means{of}, side by side where strategies spend the same. Thresholds have none here."
    )


def _chart(
    labels: list[str],
    exits: pd.DataFrame,
    curve: pd.DataFrame,
    best: pd.DataFrame,
    networks: pd.DataFrame,
    line: pd.DataFrame,
) -> Json:
    spent = pd.concat([exits["macs"], curve["macs"], networks["macs"]]).astype(float)
    low, high = float(spent.min()), float(spent.max())
    edge = [float(f"{0.93 * low:.3g}"), float(f"{1.07 * high:.3g}")]
    heights = pd.concat([curve, networks])
    y = number("value", "test accuracy, %", scale={"zero": False, "domain": _heights(exits, heights)})
    scale = {"type": "log", "domain": edge, "nice": False}
    axis = {"values": chart.ticks(edge[0], edge[1]), "format": "~g"}
    x = number("macs", "MACs an image, % of the plain network", scale=scale, axis=axis)
    tooltip = (("macs", "MACs, %"), ("value", "test accuracy, %"))
    coin = [COIN] if len(networks) else []
    pointless = [label for label in labels if label not in set(exits["strategy"])]
    symbols = {FRONT: BAR} | dict.fromkeys(pointless, BAR) | dict.fromkeys(coin, RING)
    points = marks(
        exits[["strategy", "exit", "macs", "value"]],
        {"type": "point", "filled": True, "size": 46, "opacity": 1},
        **{
            "x": x,
            "y": y,
            "color": _and_others(color(labels), {FRONT: GRAY} | dict.fromkeys(coin, PLAIN)),
        },
        shape=_and_others(chart.shape(labels), symbols),
        tooltip=tips(("strategy", "strategy"), ("exit", "exit"), *tooltip),
    )
    lines = marks(
        curve[["strategy", "threshold", "at", "macs", "value"]],
        {"type": "line", "strokeWidth": 1.4},
        **{"x": x, "y": y, "order": {"field": "at", "type": "quantitative"}},
        **{"stroke": color(labels, None), "strokeDash": chart.dash(labels, None)},
        tooltip=tips(("strategy", "strategy"), ("threshold", "threshold"), *tooltip),
    )
    right = pd.DataFrame({"macs": [edge[1]], "value": [best["value"].max()]})
    highest = marks(
        pd.concat([best, right]),
        {"type": "line", "stroke": GRAY, "strokeWidth": 5, "opacity": 0.35},
        **{"x": x, "y": y},
    )
    ranges = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}
    spread = _intervals(labels, exits.dropna(subset=["low"]), ranges)
    static = _static(networks, line, {"x": x, "y": y}, tooltip) if coin else []
    layers = [points, *spread, *([lines] if len(curve) else []), highest, *static]
    return panel(layers, PLOT, HEIGHT)


def _heights(exits: pd.DataFrame, curve: pd.DataFrame) -> list[float]:
    """From the lowest to the highest that is drawn and a bit around it, within 0 and 100 %."""
    every = pd.concat([*(exits[name] for name in ("value", "low", "high")), curve["value"]]).astype(
        float
    )
    low, high = max(every.min(), 0.0), min(every.max(), 100.0)
    room = 0.02 * (high - low) or 1.0
    return [float(f"{max(low - room, 0.0):.4g}"), float(f"{min(high + room, 100.0):.4g}")]


def _static(networks: pd.DataFrame, line: pd.DataFrame, axes: Json, tooltip: Any) -> list[Json]:
    """Plain networks, each named, and the line of a coin between them. A name stands at the right of its
    ring, or at the left in the right half where the chart ends before the name does."""
    ring = {"type": "point", "filled": False, "size": 80, "stroke": PLAIN, "strokeWidth": 1.8}
    dashed = {"type": "line", "stroke": PLAIN, "strokeWidth": 1.6, "strokeDash": [5, 3]}
    bottom, top = axes["y"]["scale"]["domain"]
    named = networks[networks["macs"] < 100]
    low = named["value"] < bottom + 0.05 * (top - bottom)  # below such a ring is the axis
    start, end = np.log(axes["x"]["scale"]["domain"])
    at = PLOT * (np.log(named["macs"].astype(float)) - start) / (end - start)
    ends = (at > PLOT / 2) & (at + 5 + LETTER * named["strategy"].str.len() > PLOT)
    sides = [
        (named[(low == lower) & (ends == left)], {"type": "text", "limit": NAMED, **align, "dy": dy})
        for lower, dy in ((False, 13), (True, -8))
        for left, align in ((False, {"align": "left", "dx": 5}), (True, {"align": "right", "dx": -5}))
    ]
    order = {"field": "at", "type": "quantitative"}
    return [
        *([marks(line[["macs", "at", "value"]], dashed, **axes, order=order)] if len(line) else []),
        marks(networks, ring, **axes, tooltip=tips(("strategy", "network"), *tooltip)),
        *(marks(some, text, **axes, text=word("strategy")) for some, text in sides if len(some)),
    ]


def _and_others(encoding: Json, looks: Mapping[str, str]) -> Json:
    """Strategies by color or shape, and in their legend what is no strategy, by its look."""
    scale = encoding["scale"]
    every = {**dict(zip(scale["domain"], scale["range"], strict=True)), **looks}
    scale = {"domain": list(every), "range": list(every.values())}
    return {**encoding, "scale": scale, "legend": chart.legend_of(every, "circle")}


def _intervals(labels: list[str], exits: pd.DataFrame, ranges: Json) -> list[Json]:
    """A vertical line at each exit; side by side where exits take the same MACs."""
    rank = {label: i for i, label in enumerate(labels)}
    ordered = exits.assign(rank=exits["strategy"].map(rank)).sort_values(["exit", "rank"])
    alike = ordered.groupby(ordered["macs"].round(3))["rank"]
    beside = APART * (alike.cumcount() - (alike.transform("size") - 1) / 2)
    tooltip = tips(("strategy", "strategy"), ("exit", "exit"), ("low", "from"), ("high", "to"))
    rule = {"type": "rule", "strokeWidth": 1.2, "opacity": 0.8, "clip": True}
    columns = ["strategy", "exit", "macs", "low", "high"]
    seen: Json = {**ranges, "stroke": color(labels, None), "tooltip": tooltip}
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


WIDE = (WIDTH - 90) // 2
HIGH = 190


def budget(runs: Runs, measure: Measure = MEASURES["accuracy-test"]) -> list[Figure]:
    """Test accuracy, mean over exits, or another measure, and the strategies' rank by it, against
    epochs."""
    others = (r for e in runs.evidence.budgets for r in e.runs)
    each = [runs, *(r for r in others if (r.model, r.data) == (runs.model, runs.data))]
    if len(each) < 2:
        return []
    frame = pd.concat([_placed(r, measure) for r in each], ignore_index=True).sort_values(
        ["epochs", "rank"]
    )
    labels = runs.evidence.among(frame["strategy"])
    over = counted(int(frame["seeds"].max()), int(frame["seeds"].min()))
    title = measure.axis.partition(",")[0]
    exits = "exits and " if measure.per_exit else ""
    caption = (
        f"The same strategies, each with a whole schedule of so many epochs, {runs.where}. Left: "
        f"{title}, mean over {exits}{over}. Right: the strategies' rank by it, 1 is best, mean "
        "over the seeds that every strategy has."
    )
    orders = [
        f"{'1 epoch' if epochs == 1 else f'{epochs} epochs'}: "
        f"{', '.join(part.sort_values('rank')['strategy'])}."
        for epochs, part in frame.dropna(subset=["rank"]).groupby("epochs")
    ]
    order = f" From best to worst after {' '.join(orders)}" if orders else ""
    alt = f"Lines against epochs, one for each strategy.{order}"
    heading = f"{measure.title.removeprefix('Test ').capitalize()} and rank against training"
    ranks = {"domain": [len(labels), 1], "nice": False}
    places = {"scale": ranks, "axis": {"values": list(range(1, len(labels) + 1))}}
    left = (_field(measure), measure.axis, {"scale": {"zero": False}})
    sides: list[tuple[str, str, Json]] = [left, ("rank", "rank", places)]
    chart = grid([_lines(frame, labels, *side) for side in sides], 2, 12)
    return figure(runs, named("budget", measure), "more", heading, caption, alt, chart)


def _placed(runs: Runs, measure: Measure) -> pd.DataFrame:
    """Columns strategy, epochs, seeds, the measure (as shown), rank."""
    wide = runs.values(measure).pivot(index="seed", columns="strategy", values="value")
    # One setting, so one number of epochs: `select.chosen` saw to it.
    (epochs,) = {t.manifest.recipe.epochs for t in runs.trials}
    ranks = wide.dropna().rank(axis=1, ascending=measure.better == "lower").mean()
    frame = pd.DataFrame(
        {_field(measure): measure.scale * wide.mean(), "seeds": wide.count(), "rank": ranks}
    )
    return frame.rename_axis("strategy").reset_index().assign(epochs=epochs)


def _field(measure: Measure) -> str:
    """The column of its values."""
    return measure.name.removesuffix("-test")


def _lines(frame: pd.DataFrame, labels: list[str], field: str, axis: str, more: Json) -> Json:
    x = rank("epochs", "epochs", axis={"labelAngle": 0})
    tooltip = tips(("strategy", "strategy"), ("epochs", "epochs"), (field, axis), ("seeds", "seeds"))
    rows = frame[["strategy", "epochs", "seeds", field]]
    y = number(field, axis, **more)
    line = {"type": "line", "strokeWidth": 1.6}
    point = {"type": "point", "filled": True, "opacity": 1, "size": 44}
    layers = [
        marks(rows, line, x=x, y=y, stroke=color(labels, None), strokeDash=dash(labels, None)),
        marks(rows, point, x=x, y=y, color=color(labels), shape=shape(labels), tooltip=tooltip),
    ]
    return panel(layers, WIDE, HIGH)
