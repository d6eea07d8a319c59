"""What several tables need: lists of measures, notes that repeat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from offramp.analysis.measures import MEASURES, Measure
from offramp.report.evidence import Evidence

FEW = 4  # places that a note names before it counts the rest


def gathered(notes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """One line for each thing that is to be said, with the places that it is true of.

    notes: place and words. Repeated ones are merged, in the order of their first appearance.
    """
    places: dict[str, list[str]] = {}
    for place, words in notes:
        named_places = places.setdefault(words, [])
        if place not in named_places:
            named_places.append(place)
    lines = []
    for words, named_places in places.items():
        where = [place for place in named_places if place]
        named = "; ".join(where[:FEW])
        more = f" and {len(where) - FEW} more" if len(where) > FEW else ""
        lines.append(f"{named}{more}: {words}." if where else f"{words}.")
    return tuple(lines)


def at(exit: int | None, exits: Sequence[int]) -> str:
    """`overall`, `exit 2`, `final`."""
    if exit is None:
        return "overall"
    return "final" if exits and exit == exits[-1] else f"exit {exit}"


def named(*names: str) -> tuple[Measure, ...]:
    return tuple(MEASURES[name] for name in names)


SPLITS = ("train", "validation", "test")
LOSSES = named(*(f"loss-{split}" for split in SPLITS))
ACCURACIES = named(*(f"accuracy-{split}" for split in SPLITS))
QUALITY = (*LOSSES, *ACCURACIES)
EPOCHS = named(
    *("min-loss-epoch", "peak-epoch", "saturation-epoch", "overfits", "overfitting-epoch"),
    *("generalization-gap-best", "generalization-gap-last", "validation-stability"),
)
# The paper adds memory up over the runs of exits and reports peak power (5.5); the largest phase is what
# a machine must have.
COSTS = named(
    "seconds-written",
    *("memory-gpu-sum", "memory-gpu-max", "memory-cpu-sum", "memory-cpu-max"),
    *("power-gpu-peak", "power-gpu-mean", "power-cpu-peak", "power-cpu-mean", "energy"),
)
RESOURCES = named("memory-gpu-sum", "memory-cpu-sum", "power-gpu-mean", "power-cpu-mean", "energy")
WHICH = (
    "Memory, sum over phases: as the paper adds it up over the runs of exits; largest phase: what a "
    "machine must have. Power, peak: the highest of any phase, as in the paper's section 5.5; mean: "
    "weighted with time, as in its Table 7."
)


def recorded(evidence: Evidence, measures: Sequence[Measure]) -> tuple[Measure, ...]:
    """Those of which the evidence has any value."""
    return tuple(measure for measure in measures if evidence.observed(measure))


def unrecorded(evidence: Evidence, measures: Sequence[Measure]) -> tuple[str, ...]:
    """A note that names those of which there is none."""
    present = recorded(evidence, measures)
    absent = [measure.title for measure in measures if measure not in present]
    return (f"Not recorded in any trial: {'; '.join(absent)}.",) if absent else ()
