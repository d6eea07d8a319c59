"""Training time by exit (paper's Figs. 12, 13), in total (14), and three ways of counting it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from offramp.analysis.measures import MEASURES
from offramp.infer.timing import WHOLE, Timing
from offramp.report.figures import chart, series
from offramp.report.figures.chart import (
    GRAY,
    AxisUnit,
    Json,
    figure,
    inline,
    marks,
    number,
    panel,
    spec,
    tips,
    unit,
    word,
)
from offramp.report.figures.dots import STEP, Panel, dots, read_out, spelled, spread
from offramp.report.model import Figure
from offramp.report.runs import Runs
from offramp.store.record import TrialRecord

ESTIMATED = (
    "Estimated (~): phases were cached, shared or not alone on the machine, so work that did not run is "
    "counted at the speed of the trial's largest phase, and may take half or twice as long; run with "
    "--execution plain to measure it."
)
MEASURED = "Measured: each phase ran in full, alone on the machine."
Reckoning = Literal["written", "executed", "marginal"]
WAYS: dict[Reckoning, str] = {
    "written": "as written",
    "executed": "as executed",
    "marginal": "added by the trial",
}
WRITTEN = "Time as written: every phase in full, as the paper runs it."


def by_exit(runs: Runs) -> list[Figure]:
    """Training time as stacked bars."""
    rows = exit_seconds(runs)
    labels = runs.evidence.among(rows["strategy"])
    if not labels:
        return []
    whole = rows.groupby("strategy")["seconds"].sum()
    scale = unit(float(whole.max()), "s")
    ends = runs.by_trial(lambda t: t.seconds.written / scale.factor)
    spelled = ", ".join(f"{x} {whole[x] / scale.factor:.3g}" for x in labels)
    pale = ": pale where a time is so attributed" if runs.measured else ""
    caption = (
        f"{WRITTEN} Of {runs.where}; less is better. A phase counts for the exit that it trains. Of a "
        "phase that trains several, each segment is charged to the first exit that needs it, by its "
        f"share of the MACs{pale}. {_how(runs)} {_ends(ends, runs.measured)}"
    )
    alt = (
        f"Stacked bars of training time in {scale.name}, a bar for each strategy, a part for each exit. "
        f"In total: {spelled}."
    )
    chart = _bars(rows, labels, scale, ends if runs.measured else None)
    return figure(runs, "time-by-exit", "rq2", "Training time by exit", caption, alt, chart)


def total(runs: Runs) -> list[Figure]:
    """Training time as written, one mark a strategy."""
    panel, scale = _panel(runs, "written", "")
    caption = f"{WRITTEN} Of {runs.where}; less is better. {_how(runs)} {_spread(runs, [panel])}"
    alt = f"Dot plot of training time in {scale.name}: {spelled(panel, runs.strategies)}."
    chart = dots([panel], runs.strategies, columns=1)
    return figure(runs, "time-total", "rq2", "Training time", caption, alt, chart)


def costs(runs: Runs) -> list[Figure]:
    """Training cost as written, as executed, marginal; in time and in MACs."""
    macs = {way: runs.by_trial(partial(trial_macs, way=way)) for way in WAYS}
    scale = unit(float(macs["written"]["value"].max()), "GMAC")
    panels = []
    for way, title in WAYS.items():
        scaled = macs[way].assign(value=macs[way]["value"] / scale.factor)
        panels += [
            _panel(runs, way, title)[0],
            Panel(title, f"training, {scale.name}", scaled, zero=True, varies=False),
        ]
    caption = (
        f"What training costs, {runs.where}; less is better. As written: every phase in full. As "
        "executed: all that the trial reads, frozen values computed once. Added: what no trial before "
        "it in its study reads, so the first of those that share a phase pays for it. "
        f"{_how(runs)} {_spread(runs, panels)}"
    )
    alt = f"Dot plots. {read_out(panels, runs.strategies)}"
    chart = dots(panels, runs.strategies)
    return figure(runs, "costs", "more", "Cost, three ways", caption, alt, chart)


def exit_seconds(runs: Runs) -> pd.DataFrame:
    """Means over seeds of the measure `seconds-written`: columns strategy, exit, seconds, how."""
    rows = runs.observations(MEASURES["seconds-written"]).dropna(subset=["exit"])
    grouped = rows.astype({"exit": int}).groupby(["strategy", "exit"], sort=True)
    means = grouped.agg(seconds=("value", "mean"), how=("measured", "all")).reset_index()
    return means.assign(how=means["how"].map({True: "measured", False: "attributed or estimated"}))


def trial_macs(trial: TrialRecord, way: Reckoning) -> float:
    """MACs of training a trial."""
    if way == "written":
        return float(sum(phase.cost.macs_written for phase in trial.phases))
    own = trial.manifest.marginal if way == "marginal" else trial.manifest.keys
    return float(sum(phase.cost.macs_executed for phase in trial.phases if phase.node in own))


def _panel(runs: Runs, way: Reckoning, title: str) -> tuple[Panel, AxisUnit]:
    rows = runs.by_trial(lambda t: float(getattr(t.seconds, way)))
    scale = unit(float(rows["value"].max()), "s")
    sign = "" if way != "written" or runs.measured else "~ "
    values = rows.assign(value=rows["value"] / scale.factor)
    return Panel(title, f"training time, {sign}{scale.name}", values, True, runs.measured), scale


def _ends(ends: pd.DataFrame, measured: bool) -> str:
    """What the bars of times by exit say of their spread, as a sentence for the caption."""
    most, fewest = series.per_strategy(ends)
    if most == 1 or not measured:
        estimates = ", without intervals: estimates do not vary as runs do" if not measured else ""
        return f"Means over {series.counted(most, fewest)}{estimates}."
    dots = "dots at the ends of bars are the totals of seeds" if most <= series.FEW else ""
    of = "" if fewest > 2 else " where there are three seeds or more"
    lines = f"lines are 95 % intervals (Student's t) of the total{of}" if most > 2 else ""
    marks_text = "; ".join(x for x in (lines, dots) if x)
    return f"Means over {series.counted(most, fewest)}; {marks_text}."


def _bars(
    seconds: pd.DataFrame, labels: list[str], scale: AxisUnit, ends: pd.DataFrame | None = None
) -> Json:
    """ends: total of each trial (columns strategy, seed, value), drawn where it was measured."""
    rows = seconds.assign(time=seconds["seconds"] / scale.factor)[["strategy", "exit", "time", "how"]]
    sign = "" if (rows["how"] == "measured").all() else "~ "
    kinds = {"domain": ["measured", "attributed or estimated"], "range": [1, 0.6]}
    pale = word("how", scale=kinds, legend={"symbolType": "square"})
    time = f"training time, {sign}{scale.name}"
    bars = marks(
        rows,
        {"type": "bar", "height": STEP - 4},
        x=number("time", time, axis={"tickCount": 5}),
        y=word("strategy", sort=labels, axis={"grid": False, "ticks": False, **chart.cutting(labels)}),
        color=chart.exit_color(int(k) for k in rows["exit"]),
        order={"field": "exit", "type": "quantitative"},
        **({"opacity": pale} if rows["how"].nunique() > 1 else {}),
        tooltip=tips(("strategy", "strategy"), ("exit", "exit"), ("time", time), ("how", "how")),
    )
    layers = [bars, *([] if ends is None else _spreads(ends, labels, time))]
    return chart.panel(layers, chart.WIDTH - chart.room(labels), (STEP + 3) * len(labels))


def _spreads(ends: pd.DataFrame, labels: list[str], time: str) -> list[Json]:
    """The interval of each bar's total, and its seeds where they are few."""
    y = word("strategy", sort=labels)
    means = series.means(ends, ["strategy"]).dropna(subset=["low"])
    layers = []
    if len(means):
        rule = {"type": "rule", "strokeWidth": 1.4, "clip": True, "color": GRAY}
        low = number("low", time)
        layers.append(marks(means[["strategy", "low", "high"]], rule, x=low, x2={"field": "high"}, y=y))
    if 1 < series.per_strategy(ends)[0] <= series.FEW:
        rows = ends.sort_values(["strategy", "seed"])[["strategy", "seed", "value"]]
        circle = {"type": "circle", "size": 12, "opacity": 0.8, "yOffset": -4, "color": GRAY}
        tooltip = tips(("strategy", "strategy"), ("seed", "seed"), ("value", time))
        layers.append(marks(rows, circle, x=number("value", time), y=y, tooltip=tooltip))
    return layers


def _how(runs: Runs) -> str:
    return MEASURED if runs.measured else ESTIMATED


def _spread(runs: Runs, panels: list[Panel]) -> str:
    if runs.measured:
        return spread(panels)
    seeds = series.counted(*series.per_strategy(panels[0].frame))
    return f"Means over {seeds}, without intervals: estimates do not vary as runs do."


COLORS = ("#8c8c8c", "#b07c2a", "#1f6fb2")


def speed_figure(lines: Sequence[Timing], name: str) -> Figure:
    """Milliseconds an image of the plain network, of one that nothing leaves, and of the policy. name:
    of the trial, or a bundle's folder, of which the last part is shown: the rest is private."""
    title = Path(name).name
    caption = (
        "Milliseconds an image, by engine and number of images at once. Bars: the median; for single "
        "images under a policy, the mean of the exits' medians, by the shares of images that leave "
        "there. Ticks: the 95th percentile. Shorter is better."
    )
    fastest = max((line for line in lines if line.what in WHOLE), key=lambda line: line.rate)
    where = f"{fastest.what}, {fastest.engine}, batch {fastest.batch}"
    alt_text = f"Bars of time an image; the shortest is {where}."
    return Figure("speed", "more", title, caption, alt_text, spec(_chart(lines, title)))


def _chart(lines: Sequence[Timing], title: str) -> Json:
    rows = [
        (x.engine, f"batch {x.batch}", x.what, 1000 / x.rate, 1000 * x.p95 / x.batch, x.macs)
        for x in lines
        if x.what in WHOLE
    ]
    frame = pd.DataFrame(rows, columns=["engine", "batch", "network", "ms", "p95", "MACs"])
    hue = word("network", scale={"domain": list(WHOLE), "range": list(COLORS)}, legend=None)
    both = {"y": word("network", sort=list(WHOLE)), "color": hue}
    names = [word(name, name) for name in ("engine", "batch", "network")]
    tooltip = [*names, number("ms", "ms", format=".3g"), number("MACs", "MACs")]
    bars = {"x": number("ms", "milliseconds an image"), "tooltip": tooltip}
    late = {"type": "tick", "thickness": 1.5, "size": 11, "color": "#404040"}
    layers: list[Json] = [
        {"mark": {"type": "bar", "height": 11}, "encoding": both | bars},
        {"mark": late, "encoding": both | {"x": {"field": "p95", "type": "quantitative"}}},
    ]
    batches = [f"batch {count}" for count in sorted({line.batch for line in lines})]
    engines = ["eager", "compiled", "onnxruntime"]
    subtitle = "Bars: typical; ticks: 95th percentile. Shorter is better."
    return {
        "data": inline(frame),
        "facet": {"row": word("engine", sort=engines), "column": word("batch", sort=batches)},
        "spec": panel(layers, 230, 54),
        "resolve": {"scale": {"x": "independent"}},
        "title": {"text": title, "subtitle": subtitle},
    }
