"""One number a strategy, as dots: accuracy of every exit, how good confidence is, what meters said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from offramp.analysis.measures import MEASURES, Measure
from offramp.policy.quality import BINS
from offramp.report.figures import series
from offramp.report.figures.chart import (
    WIDTH,
    Json,
    color,
    cutting,
    figure,
    grid,
    marks,
    named,
    number,
    room,
    shape,
    tips,
    unit,
    word,
)
from offramp.report.figures.chart import panel as layered
from offramp.report.model import Figure
from offramp.report.runs import Runs
from offramp.store.record import TrialRecord

STEP = 15  # pixels a strategy


@dataclass(frozen=True, eq=False)
class Panel:
    """A panel of one number a strategy."""

    title: str
    axis: str  # what the values are, with their unit
    frame: pd.DataFrame  # columns strategy, seed, value
    zero: bool = False  # whether the axis must begin at zero
    varies: bool = True  # whether the differences between seeds mean anything


def dots(panels: Sequence[Panel], labels: Sequence[str], columns: int = 2) -> Json:
    """A grid of panels. labels: strategies in order, written at the left of each row of panels."""
    width = (WIDTH - room(labels) - 12 * (columns - 1)) // columns
    return grid([_panel(p, labels, width, i % columns == 0) for i, p in enumerate(panels)], columns, 12)


def spread(panels: Sequence[Panel]) -> str:
    """What marks, lines and dots are, as a sentence for the caption."""
    counts = [series.per_strategy(panel.frame) for panel in panels] or [(1, 1)]
    return series.spoken(max(most for most, _ in counts), min(few for _, few in counts), "mean")


def spelled(panel: Panel, labels: Sequence[str]) -> str:
    """The means of a panel in words, for readers who cannot see it."""
    means = panel.frame.groupby("strategy")["value"].mean()
    return ", ".join(f"{label} {means[label]:.3g}" for label in labels if label in means.index)


def read_out(panels: Sequence[Panel], labels: Sequence[str], axis: bool = True) -> str:
    """All panels in words. axis: with what their values are."""
    titles = [f"{p.title}, {p.axis}" if axis else p.title for p in panels]
    return " ".join(f"{t}: {spelled(p, labels)}." for t, p in zip(titles, panels, strict=True))


def _panel(panel: Panel, labels: Sequence[str], width: int, first: bool) -> Json:
    present = panel.frame.dropna(subset=["value"])
    means = series.means(present, ["strategy"])
    axis: Json = {"grid": True, "ticks": False, "labels": first, "domain": False, "labelPadding": 6}
    axis |= cutting(labels)
    y = word("strategy", axis=axis, scale={"domain": list(labels)})
    scale = {"domainMin": 0, "nice": True} if panel.zero else {"zero": False, "padding": 6}
    side = {"scale": scale, "axis": {"grid": False, "tickCount": 4}}
    x = number("value", panel.axis, **side)
    hue = color(labels, None)
    who = ("strategy", "strategy")
    interval = (("n", "seeds"), ("low", "from"), ("high", "to"))
    layers = [
        marks(
            means[["strategy", "value", "n", "low", "high"]],
            {"type": "point", "filled": True, "opacity": 1, "size": 52},
            **{"x": x, "y": y, "color": hue, "shape": shape(labels, None)},
            tooltip=tips(who, ("value", panel.axis), *interval),
        )
    ]
    if panel.varies and means["low"].notna().any():
        rows = means.dropna(subset=["low"])[["strategy", "low", "high"]]
        rule = {"type": "rule", "strokeWidth": 1.4, "clip": True}
        low = number("low", panel.axis, **side)
        layers.append(marks(rows, rule, x=low, x2={"field": "high"}, y=y, color=hue))
    if panel.varies and 1 < present.groupby("strategy")["seed"].nunique().max() <= series.FEW:
        rows = present.sort_values(["strategy", "seed"])[["strategy", "seed", "value"]]
        circle = {"type": "circle", "size": 14, "opacity": 0.55, "yOffset": -5}
        tooltip = tips(who, ("seed", "seed"), ("value", panel.axis))
        layers.append(marks(rows, circle, x=x, y=y, color=hue, tooltip=tooltip))
    return layered(layers, width, STEP * len(labels), panel.title)


AT_EXIT = ("strategy", "seed", "exit", "value")


def accuracy_by_exit(runs: Runs, measure: Measure = MEASURES["accuracy-test"]) -> list[Figure]:
    """Test accuracy of every exit, or another measure."""
    rows = runs.observations(measure).dropna(subset="exit")
    values = {(s, n, k): v for s, n, k, v in zip(*(rows[c] for c in AT_EXIT), strict=True)}

    def value(trial: TrialRecord, place: int) -> float | None:
        stored = values.get((trial.strategy, trial.seed, trial.exits[place]))
        return None if stored is None else measure.scale * stored

    panels = _panels(runs, value, measure.axis)
    if not panels:
        return []
    caption = (
        f"{measure.title} of each exit when every {runs.noun} leaves there, {runs.where}; "
        f"{measure.better} is better. {spread(panels)}"
    )
    alt = f"Dot plots, one for each exit. {read_out(panels, runs.strategies, False)}"
    chart, name = dots(panels, runs.strategies), named("accuracy-by-exit", measure)
    return figure(runs, name, "answer", f"{measure.title} by exit", caption, alt, chart)


QUALITY = (
    f"Left: expected calibration error of the confidence (largest softmax probability, {BINS} bins of "
    "equal width), lower is better. Right: the chance that a right answer is more confident than a "
    "wrong one (AUROC), higher is better and 0.5 is chance. How well thresholds can work depends on the "
    "right side alone."
)
QUALITY_OF_LABELS = (
    "The chance that an answer with all labels right is surer, in its least sure label, than another "
    "(AUROC), higher is better and 0.5 is chance: how well thresholds can work."
)


def confidence(runs: Runs) -> list[Figure]:
    """Calibration error, and how well confidence tells right from wrong, by exit."""
    outcomes = runs.evidence.outcomes
    errors = _panels(runs, lambda t, i: _percent(outcomes[t.id].ece[i]), "ECE, %", zero=True)
    tells = _panels(runs, lambda t, i: outcomes[t.id].auroc[i], "AUROC of correctness")
    left = {panel.title: [panel] for panel in errors}  # of several labels none
    # Where every answer is right, nothing tells right from wrong: its place stays empty.
    empty = [replace(e, axis="AUROC of correctness", frame=e.frame.iloc[:0], zero=False) for e in errors]
    right = {panel.title: panel for panel in (*empty, *tells)}
    places = [p for title, panel in right.items() for p in (*left.get(title, ()), panel)]
    panels = [panel for panel in places if len(panel.frame)]
    what, title = QUALITY, "Calibration error and discrimination"
    if runs.several:
        what, title = QUALITY_OF_LABELS, "Discrimination"
    caption = f"{what} Test {runs.noun}s, {runs.where}. {spread(panels)}"
    alt = f"Dot plots, {'one' if runs.several else 'a row'} for each exit. "
    alt += read_out(panels, runs.strategies)
    chart = dots(places, runs.strategies)
    return figure(runs, "confidence-quality", "more", title, caption, alt, chart)


def overthinking(runs: Runs) -> list[Figure]:
    """Images that an early exit has right and the last one wrong."""
    several = {t.strategy for t in runs.trials if len(t.exits) > 1}
    if not several:
        return []
    labels = runs.evidence.among(several)
    outcomes = runs.evidence.outcomes
    axis = "right here, wrong last, %"

    def spoiled(trial: TrialRecord, place: int) -> float | None:
        last = place == len(trial.exits) - 1
        return None if last else 100 * outcomes[trial.id].overthought[place]

    whole = runs.by_trial(lambda t: 100 * outcomes[t.id].lost)
    whole = whole[[len(t.exits) > 1 for t in runs.trials]]
    panels = [*_panels(runs, spoiled, axis, zero=True), Panel("any early exit", axis, whole, zero=True)]
    caption = (
        f"Share of test {runs.noun}s that an early exit answers right and the last exit wrong, "
        f"{runs.where}: what the later layers spoil, and what a perfect choice of exits could win over "
        f"the last one. {spread(panels)}"
    )
    read = read_out(panels, labels, False)
    alt = f"Dot plots, one for each early exit and one for all of them. {read}"
    return figure(runs, "overthinking", "more", "Overthinking", caption, alt, dots(panels, labels))


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _panels(
    runs: Runs, value: Callable[[TrialRecord, int], float | None], axis: str, zero: bool = False
) -> list[Panel]:
    """A panel for each exit for which there is any value."""
    last = max((t.exits[-1] for t in runs.trials), default=0)
    return [
        Panel(f"exit {exit}{' (final)' if exit == last else ''}", axis, part, zero)
        for exit, part in runs.by_exit(value).groupby("exit", sort=True)
    ]


METERS = (
    *("memory-cpu-max", "memory-gpu-max", "memory-torch-max", "power-cpu-mean", "power-gpu-mean"),
    *("power-cpu-peak", "power-gpu-peak", "energy-cpu", "energy-gpu"),
)


def meters(runs: Runs) -> list[Figure]:
    """Memory, power and energy, if anything was metered."""
    panels = []
    for measure in (MEASURES[name] for name in METERS):
        rows = runs.values(measure)
        if len(rows):
            scale = unit(float(rows["value"].max()), measure.unit.name)
            scaled = rows.assign(value=rows["value"] / scale.factor)
            panels.append(Panel(measure.title, scale.name, scaled, zero=True))
    if not panels:
        return []
    labels = runs.evidence.among(label for panel in panels for label in panel.frame["strategy"])
    exact = all(panel.frame["measured"].all() for panel in panels)
    note = "" if exact else " Other work shared the machine or the phase: not comparable."
    caption = (
        f"Of training, {runs.where}; less is better. Over a trial's phases: peaks are the largest, mean "
        f"power is weighted with time, energy is added up. {spread(panels)}{note}{_absent(runs)}"
    )
    title, alt = "Memory, power and energy", f"Dot plots. {read_out(panels, labels)}"
    return figure(runs, "memory-power", "rq2", title, caption, alt, dots(panels, labels))


def _absent(runs: Runs) -> str:
    """What had no meter, and why, as a sentence."""
    reasons = {
        name: reason
        for trial in runs.trials
        for phase in trial.phases
        for name, reason in phase.cost.not_measured.items()
    }
    listed = "; ".join(f"{name} ({reason})" for name, reason in sorted(reasons.items()))
    return f" Not measured: {listed}." if listed else ""
