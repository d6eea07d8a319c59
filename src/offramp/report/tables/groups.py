"""Which measures a table of statistics has."""

from __future__ import annotations

from collections.abc import Sequence

from offramp.analysis.measures import MEASURES, Measure
from offramp.report.findings import Findings


def named(*names: str) -> tuple[Measure, ...]:
    return tuple(MEASURES[name] for name in names)


SPLITS = ("train", "validation", "test")
LOSSES = named(*(f"loss-{split}" for split in SPLITS))
ACCURACIES = named(*(f"accuracy-{split}" for split in SPLITS))
QUALITY = (*LOSSES, *ACCURACIES)
# The paper adds memory up over the runs of exits and reports peak power (5.5); the largest phase is
# what a machine must have.
COSTS = named(
    "seconds-written",
    "memory-gpu-sum",
    "memory-gpu-max",
    "memory-cpu-sum",
    "memory-cpu-max",
    "power-gpu-peak",
    "power-gpu-mean",
    "power-cpu-peak",
    "power-cpu-mean",
    "energy",
)
RESOURCES = named("memory-gpu-sum", "memory-cpu-sum", "power-gpu-mean", "power-cpu-mean", "energy")
WHICH = (
    "Memory, sum over phases: as the paper adds it up over the runs of exits; largest phase: what a "
    "machine must have. Power, peak: the highest of any phase, as in the paper's section 5.5; mean: "
    "weighted with time, as in its Table 7."
)
EPOCHS = named(
    "min-loss-epoch",
    "peak-epoch",
    "saturation-epoch",
    "overfits",
    "overfitting-epoch",
    "generalization-gap-best",
    "generalization-gap-last",
    "validation-stability",
)


def recorded(found: Findings, measures: Sequence[Measure]) -> tuple[Measure, ...]:
    """Those of which the evidence has any value."""
    return tuple(
        measure
        for measure in measures
        if any(len(found.observations(*pair, measure)) for pair in found.evidence.pairs)
    )


def unrecorded(found: Findings, measures: Sequence[Measure]) -> tuple[str, ...]:
    """A note that names those of which there is none."""
    there = recorded(found, measures)
    absent = [measure.title for measure in measures if measure not in there]
    return (f"Not recorded in any trial: {'; '.join(absent)}.",) if absent else ()
