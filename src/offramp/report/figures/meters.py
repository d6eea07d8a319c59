"""Memory, power and energy of training (paper's Figs. 15 to 17), where meters ran."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from offramp.analysis import costs
from offramp.report.evidence import Evidence
from offramp.report.figures.chart import spec
from offramp.report.figures.dots import Panel, dots, spelled, spread
from offramp.report.figures.naming import about, name, where
from offramp.report.figures.units import unit
from offramp.report.model import Figure


@dataclass(frozen=True)
class Meter:
    """over: how a trial's phases come to one number."""

    title: str
    base: str
    over: Callable[[str], costs.Over]


METERS: Mapping[str, Meter] = {
    "memory_rss_peak_bytes": Meter("memory, peak", "B", costs.largest),
    "memory_gpu_peak_bytes": Meter("GPU memory, peak", "B", costs.largest),
    "memory_torch_peak_bytes": Meter("GPU memory, torch's", "B", costs.largest),
    "power_cpu_mean_w": Meter("CPU power, mean", "W", costs.mean),
    "power_gpu_mean_w": Meter("GPU power, mean", "W", costs.mean),
    "power_cpu_peak_w": Meter("CPU power, peak", "W", costs.largest),
    "power_gpu_peak_w": Meter("GPU power, peak", "W", costs.largest),
    "energy_cpu_j": Meter("CPU energy, total", "J", costs.summed),
    "energy_gpu_j": Meter("GPU energy, total", "J", costs.summed),
}


def meters(evidence: Evidence) -> list[Figure]:
    """A figure for each pair for which anything was metered."""
    figures = []
    for model, data in evidence.pairs:
        panels = []
        for key, meter in METERS.items():
            found = per_trial(evidence, model, data, key)
            if len(found):
                scale = unit(float(found["value"].max()), meter.base)
                shown = found.assign(value=found["value"] / scale.factor)
                panels.append(Panel(meter.title, scale.name, shown, zero=True))
        if not panels:
            continue
        labels = evidence.among(label for panel in panels for label in panel.frame["strategy"])
        rows = evidence.rows(model, data)
        estimates = not rows.loc[rows["metric"].isin(METERS), "measured"].all()
        absent = _absent(evidence, model, data)
        note = " Other work shared the machine or the phase: not comparable." if estimates else ""
        figures.append(
            Figure(
                name=name("memory-power", model, data),
                question="rq2",
                title="Memory, power and energy",
                caption=f"Of training, {where(model, data)}; less is better. Over a trial's phases: "
                "peaks are the largest, mean power is weighted with time, energy is added up. "
                f"{spread(panels)}{note}{absent}",
                alt="Dot plots. "
                + " ".join(f"{p.title}, {p.axis}: {spelled(p, labels)}." for p in panels),
                spec=spec(dots(panels, labels)),
                paper="Figs. 15, 16, 17",
                about=about(model, data),
            )
        )
    return figures


def _absent(evidence: Evidence, model: str, data: str) -> str:
    """What had no meter, and why, as a sentence."""
    reasons = {
        name: reason
        for trial in evidence.of(model, data)
        for phase in trial.phases
        for name, reason in phase.cost.get("not_measured", {}).items()
    }
    listed = "; ".join(f"{name} ({reason})" for name, reason in sorted(reasons.items()))
    return f" Not measured: {listed}." if listed else ""


def per_trial(evidence: Evidence, model: str, data: str, metric: str) -> pd.DataFrame:
    """A meter's number of every trial whose phases all have it: columns strategy, seed, value, in the
    table's unit."""
    values = METERS[metric].over(metric)(costs.phases(evidence.rows(model, data)))
    rows = [
        (trial.strategy, trial.seed, float(values[trial.id]))
        for trial in evidence.of(model, data)
        if pd.notna(values.get(trial.id))
    ]
    return pd.DataFrame(rows, columns=["strategy", "seed", "value"])
