"""Whether the order of strategies depends on how long they trained."""

from __future__ import annotations

import pandas as pd

from offramp.analysis.measures import MEASURES, Measure
from offramp.report.figures.chart import (
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
)
from offramp.report.figures.series import counted
from offramp.report.model import Figure
from offramp.report.runs import Runs

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
    axes = _axes(len(labels), measure)
    chart = grid([_lines(frame, labels, *axis) for axis in axes], 2, 12)
    return figure(runs, named("budget", measure), "more", heading, caption, alt, chart)


def _placed(runs: Runs, measure: Measure) -> pd.DataFrame:
    """Columns strategy, epochs, seeds, the measure (as shown), rank."""
    wide = runs.values(measure).pivot(index="seed", columns="strategy", values="value")
    (epochs,) = {t.manifest.recipe.epochs for t in runs.trials}
    ranks = wide.dropna().rank(axis=1, ascending=measure.better == "lower").mean()
    frame = pd.DataFrame(
        {_field(measure): measure.scale * wide.mean(), "seeds": wide.count(), "rank": ranks}
    )
    return frame.rename_axis("strategy").reset_index().assign(epochs=epochs)


def _field(measure: Measure) -> str:
    """The column of its values."""
    return measure.name.removesuffix("-test")


def _axes(strategies: int, measure: Measure) -> list[tuple[str, str, Json]]:
    places = {"domain": [strategies, 1], "nice": False}
    return [
        (_field(measure), measure.axis, {"scale": {"zero": False}}),
        ("rank", "rank", {"scale": places, "axis": {"values": list(range(1, strategies + 1))}}),
    ]


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
