"""Figures of a report: which there are, and how to draw them.

A new one is a function from `Runs` to Figures, in a file of its family or of its own, and a line here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from offramp.report.registry import Family, chosen, made

if TYPE_CHECKING:
    from offramp.report.evidence import Evidence
    from offramp.report.model import Figure

NO_EARLY = "no trial has an early exit"
NO_TWO = "there are no two strategies to compare"
BY_COMPUTE = "accuracy against MACs, by exit and by threshold, and the front"
BY_QUALITY = "calibration error, and how well confidence tells right from wrong"
FIGURES: Mapping[str, Family] = MappingProxyType(
    {
        "accuracy-by-exit": Family("quality:accuracy_by_exit", "test accuracy of every exit"),
        "accuracy-compute": Family("compute:accuracy_compute", BY_COMPUTE),
        "curves": Family(
            "curves:by_exit", "loss and accuracy over training, exit by exit", "Figs. 8, 9, 18, 19"
        ),
        "overall": Family(
            "curves:overall", "loss and accuracy over training, mean of exits", "Figs. 10, 20"
        ),
        "significance": Family("significance:significance", "who beats whom", "Fig. 11", needs=NO_TWO),
        "time-by-exit": Family("times:by_exit", "training time of each exit", "Figs. 12, 13"),
        "time-total": Family("times:total", "training time", "Fig. 14"),
        "memory-power": Family(
            "meters:meters",
            "memory, power and energy of training",
            "Figs. 15, 16, 17",
            needs="not measured",
        ),
        "budget": Family(
            "budget:budget",
            "accuracy and rank against epochs of training",
            needs="all trials were trained for as many epochs",
        ),
        "costs": Family("times:costs", "training cost as written, as executed, added"),
        "reliability": Family(
            "reliability:reliability",
            "accuracy against confidence",
            needs="there are too few test images",
        ),
        "confidence-quality": Family("quality:confidence", BY_QUALITY),
        "overthinking": Family(
            "quality:overthinking", "right at an early exit, wrong at the last", needs=NO_EARLY
        ),
        "agreement": Family("reliability:agreement", "how often exits agree", needs=NO_EARLY),
    }
)


@dataclass(frozen=True)
class Drawn:
    """figures: in the order of FIGURES.  missing: a sentence on each family that drew nothing."""

    figures: tuple[Figure, ...]
    missing: tuple[str, ...]


def draw(evidence: Evidence, only: Iterable[str] = ()) -> Drawn:
    """Every figure that the evidence holds. only: names of families; all where there are none.

    Raises OfframpError for an unknown name.
    """
    names = chosen(FIGURES, only, "figure")
    figures: list[Figure] = []
    missing = []
    for name, (family, found) in zip(names, made(__name__, FIGURES, names, evidence), strict=True):
        figures += found
        if not found:
            missing.append(f"no figure {name} ({family.shows}): {family.needs}")
    return Drawn(tuple(figures), tuple(missing))
