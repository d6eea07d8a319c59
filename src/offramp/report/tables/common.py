"""What several tables need: strategies in few letters, notes that repeat, the paper's measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from offramp.analysis.measures import MEASURES, Measure
from offramp.paper import families
from offramp.paper.families import LETTERS
from offramp.report.evidence import Evidence

SHORT: Mapping[str, str] = {
    **LETTERS,
    **{"joint-branch": "JB", "joint-two-stage": "JT", "pretrained-branch": "PB", "baseline": "N"},
}
FEW = 4  # places that a note names before it counts the rest


def spelled(strategies: Iterable[str]) -> str:
    """` J = joint, T = two-stage.`: what letters stand for, a sentence to end a caption with; nothing
    where no strategy has one."""
    letters = ", ".join(f"{SHORT[s]} = {s}" for s in strategies if s in SHORT)
    return f" {letters}." if letters else ""


def gathered(notes: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """One line for each thing that is to be said, with the places that it is true of.

    notes: place and words. Repeated ones are merged, in the order of their first appearance.
    """
    places: dict[str, list[str]] = {}
    for place, words in notes:
        found = places.setdefault(words, [])
        if place not in found:
            found.append(place)
    lines = []
    for words, found in places.items():
        where = [place for place in found if place]
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


QUALITY = named(*families.QUALITY)
COSTS = named(*families.COSTS)
RESOURCES = named(*families.RESOURCES)
EPOCHS = named(*families.EPOCHS)
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
    there = recorded(evidence, measures)
    absent = [measure.title for measure in measures if measure not in there]
    return (f"Not recorded in any trial: {'; '.join(absent)}.",) if absent else ()
