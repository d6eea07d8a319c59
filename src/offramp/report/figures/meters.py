"""Memory, power and energy of training (paper's Figs. 15 to 17), where meters ran."""

from __future__ import annotations

from offramp.analysis.measures import MEASURES
from offramp.report.figures.chart import figure, unit
from offramp.report.figures.dots import Panel, dots, read_out, spread
from offramp.report.model import Figure
from offramp.report.runs import Runs

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
