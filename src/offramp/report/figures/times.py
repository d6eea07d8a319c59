"""Training time by exit (paper's Figs. 12, 13), in total (14), and three ways of counting it."""

from __future__ import annotations

import pandas as pd

from offramp.report import series, timing
from offramp.report.evidence import Evidence
from offramp.report.figures.chart import (
    GRAY,
    WIDTH,
    Json,
    exit_color,
    marks,
    number,
    panel,
    spec,
    tips,
    word,
)
from offramp.report.figures.dots import LETTER, STEP, Panel, dots, spelled, spread
from offramp.report.figures.naming import about, name, where
from offramp.report.figures.units import Unit, unit
from offramp.report.model import Figure

ESTIMATED = (
    "Estimated (~): phases were cached, shared or not alone on the machine, so work that did not run is "
    "counted at the speed of the trial's largest phase; run with --execution plain to measure it."
)
MEASURED = "Measured: each phase ran in full, alone on the machine."
WAYS = {"written": "as written", "executed": "as executed", "marginal": "added by the trial"}
WRITTEN = "Time as written: every phase in full, as the paper runs it."


def by_exit(evidence: Evidence) -> list[Figure]:
    """Stacked bars, a figure for each pair."""
    figures = []
    for model, data in evidence.pairs:
        found = timing.exit_seconds(evidence, model, data)
        labels = evidence.among(found["strategy"])
        whole = found.groupby("strategy")["seconds"].sum()
        scale = unit(float(whole.max()), "s")
        measured = _measured(evidence, model, data)
        ends = timing.totals(evidence, model, data)[["strategy", "seed", "written"]]
        ends = ends.assign(value=ends["written"] / scale.factor)
        spelled = ", ".join(f"{x} {whole[x] / scale.factor:.3g}" for x in labels)
        figures.append(
            Figure(
                name=name("time-by-exit", model, data),
                question="rq2",
                title="Training time by exit",
                caption=f"{WRITTEN} Of {where(model, data)}; less is better. A phase counts "
                "for the exit that it trains. "
                "Of a phase that trains several, each segment is charged to the first exit that needs "
                "it, by its share of the MACs"
                f"{': pale where a time is so attributed' if measured else ''}. "
                f"{_how(evidence, model, data)} {_ends(ends, measured)}",
                alt=f"Stacked bars of training time in {scale.name}, a bar for each strategy, a part "
                f"for each exit. In total: {spelled}.",
                spec=spec(_bars(found, labels, scale, ends if measured else None)),
                paper="Figs. 12, 13",
                about=about(model, data),
            )
        )
    return figures


def total(evidence: Evidence) -> list[Figure]:
    """Time as written, one mark a strategy."""
    figures = []
    for model, data in evidence.pairs:
        found = timing.totals(evidence, model, data)
        panel, scale = _panel(found, "written", "", evidence, model, data)
        labels = evidence.among(found["strategy"])
        figures.append(
            Figure(
                name=name("time-total", model, data),
                question="rq2",
                title="Training time",
                caption=f"{WRITTEN} Of {where(model, data)}; less is better. "
                f"{_how(evidence, model, data)} {_spread(evidence, model, data, [panel])}",
                alt=f"Dot plot of training time in {scale.name}: {spelled(panel, labels)}.",
                spec=spec(dots([panel], labels, columns=1)),
                paper="Fig. 14",
                about=about(model, data),
            )
        )
    return figures


def costs(evidence: Evidence) -> list[Figure]:
    """As written, as executed, marginal; in time and in MACs."""
    figures = []
    for model, data in evidence.pairs:
        found = timing.totals(evidence, model, data)
        labels = evidence.among(found["strategy"])
        scale = unit(float(found["macs_written"].max()), "MAC")
        panels = []
        for key, title in WAYS.items():
            macs = found.assign(value=found[f"macs_{key}"] / scale.factor)
            time = _panel(found, key, title, evidence, model, data)[0]
            axis = f"training, {scale.name}"
            panels += [time, Panel(title, axis, macs[["strategy", "seed", "value"]], True, False)]
        figures.append(
            Figure(
                name=name("costs", model, data),
                question="more",
                title="Cost, three ways",
                caption=f"What training costs, {where(model, data)}; less is better. As written: every "
                "phase in full. As executed: all that the trial reads, frozen values computed once. "
                "Added: what no trial before it in its study reads, so the first of those that share a "
                f"phase pays for it. {_how(evidence, model, data)} "
                f"{_spread(evidence, model, data, panels)}",
                alt="Dot plots. "
                + " ".join(f"{p.title}, {p.axis}: {spelled(p, labels)}." for p in panels),
                spec=spec(dots(panels, labels)),
                about=about(model, data),
            )
        )
    return figures


def _panel(
    found: pd.DataFrame, key: str, title: str, evidence: Evidence, model: str, data: str
) -> tuple[Panel, Unit]:
    scale = unit(float(found[key].max()), "s")
    values = found.assign(value=found[key] / scale.factor)[["strategy", "seed", "value"]]
    sign = "" if key != "written" or _measured(evidence, model, data) else "~ "
    varies = _measured(evidence, model, data)
    return Panel(title, f"training time, {sign}{scale.name}", values, True, varies), scale


def _ends(ends: pd.DataFrame, measured: bool) -> str:
    """What the bars of times by exit say of their spread, as a sentence for the caption."""
    most, fewest = series.per_strategy(ends)
    if most == 1 or not measured:
        estimates = ", without intervals: estimates do not vary as runs do" if not measured else ""
        return f"Means over {series.counted(most)}{estimates}."
    dots = "dots at the ends of bars are the totals of seeds" if most <= series.FEW else ""
    of = "" if fewest > 2 else " where there are three seeds or more"
    lines = f"lines are 95 % intervals (Student's t) of the total{of}" if most > 2 else ""
    return f"Means over {series.counted(most)}; {'; '.join(x for x in (lines, dots) if x)}."


def _bars(found: pd.DataFrame, labels: list[str], scale: Unit, ends: pd.DataFrame | None = None) -> Json:
    """ends: total of each trial (columns strategy, seed, value), drawn where it was measured."""
    rows = found.assign(time=found["seconds"] / scale.factor)[["strategy", "exit", "time", "how"]]
    room = int(max(map(len, labels), default=1) * LETTER) + 12
    sign = "" if (rows["how"] == "measured").all() else "~ "
    kinds = {"domain": ["measured", "attributed or estimated"], "range": [1, 0.6]}
    pale = word("how", scale=kinds, legend={"symbolType": "square"})
    time = f"training time, {sign}{scale.name}"
    bars = marks(
        rows,
        {"type": "bar", "height": STEP - 4},
        {
            "x": number("time", time, axis={"tickCount": 5}),
            "y": word("strategy", sort=labels, axis={"grid": False, "ticks": False}),
            "color": exit_color(int(k) for k in rows["exit"]),
            "order": {"field": "exit", "type": "quantitative"},
            **({"opacity": pale} if rows["how"].nunique() > 1 else {}),
            "tooltip": tips(("strategy", "strategy"), ("exit", "exit"), ("time", time), ("how", "how")),
        },
    )
    layers = [bars, *([] if ends is None else _spreads(ends, labels, time))]
    return panel(layers, WIDTH - room, (STEP + 3) * len(labels))


def _spreads(ends: pd.DataFrame, labels: list[str], time: str) -> list[Json]:
    """The interval of each bar's total, and its seeds where they are few."""
    y = word("strategy", sort=labels)
    means = series.means(ends, ["strategy"]).dropna(subset=["low"])
    layers = []
    if len(means):
        layers.append(
            marks(
                means[["strategy", "low", "high"]],
                {"type": "rule", "strokeWidth": 1.4, "clip": True, "color": GRAY},
                {"x": number("low", time), "x2": {"field": "high"}, "y": y},
            )
        )
    if 1 < series.per_strategy(ends)[0] <= series.FEW:
        layers.append(
            marks(
                ends.sort_values(["strategy", "seed"])[["strategy", "seed", "value"]],
                {"type": "circle", "size": 12, "opacity": 0.8, "yOffset": -4, "color": GRAY},
                {
                    **{"x": number("value", time), "y": y},
                    "tooltip": tips(("strategy", "strategy"), ("seed", "seed"), ("value", time)),
                },
            )
        )
    return layers


def _measured(evidence: Evidence, model: str, data: str) -> bool:
    return all(t.seconds.measured for t in evidence.of(model, data))


def _how(evidence: Evidence, model: str, data: str) -> str:
    return MEASURED if _measured(evidence, model, data) else ESTIMATED


def _spread(evidence: Evidence, model: str, data: str, panels: list[Panel]) -> str:
    if _measured(evidence, model, data):
        return spread(panels)
    seeds = max(int(panel.frame["seed"].nunique()) for panel in panels)
    return f"Means over {series.counted(seeds)}, without intervals: estimates do not vary as runs do."
