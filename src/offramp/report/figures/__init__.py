"""Figures of a report: which there are, and how to draw them.

A new one is a function from `Runs` to Figures, in a file of its family or of its own, and a line here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from offramp.report.registry import Family, FamilyFunction, chosen, made_of, publication

if TYPE_CHECKING:
    from offramp.analysis.measures import Measure
    from offramp.report.evidence import Evidence
    from offramp.report.model import Figure

NO_EARLY = "no trial has an early exit"
NO_TWO = "there are no two strategies to compare"
SAME_EPOCHS = "all trials were trained for as many epochs"


def _figure(of: str, shows: str, needs: str = "there is no trial", measured: bool = False) -> Family:
    return Family(f"{__name__}.{of}", shows, needs=needs, measured=measured)


# fmt: off
OWN = {
    "accuracy-by-exit": _figure(
        "dots:accuracy_by_exit", "test accuracy of every exit", measured=True),
    "accuracy-compute": _figure(
        "compute:accuracy_compute", "accuracy against MACs, by exit and by threshold, and the front"),
    "curves": _figure("curves:by_exit", "loss and accuracy over training, exit by exit"),
    "overall": _figure("curves:overall", "loss and accuracy over training, mean of exits"),
    "significance": _figure("significance:significance", "who beats whom", NO_TWO, measured=True),
    "time-by-exit": _figure("times:by_exit", "training time of each exit"),
    "time-total": _figure("times:total", "training time"),
    "memory-power": _figure("dots:meters", "memory, power and energy of training", "not measured"),
    "budget": _figure(
        "compute:budget", "accuracy and rank against epochs of training", SAME_EPOCHS, measured=True),
    "costs": _figure("times:costs", "training cost as written, as executed, added"),
    "reliability": _figure(
        "reliability:reliability", "accuracy against confidence", "there are too few test images"),
    "confidence-quality": _figure(
        "dots:confidence", "calibration error, and how well confidence tells right from wrong"),
    "overthinking": _figure(
        "dots:overthinking", "right at an early exit, wrong at the last", NO_EARLY),
    "agreement": _figure("reliability:agreement", "how often exits agree", NO_EARLY),
}
# fmt: on
FIGURES: Mapping[str, Family] = MappingProxyType(
    {n: replace(f, paper=publication().answers.get(n, "")) for n, f in OWN.items()}
)


@dataclass(frozen=True)
class DrawnFigures:
    """Figures that were drawn."""

    figures: tuple[Figure, ...]  # in the order of FIGURES
    missing: tuple[str, ...]  # a sentence on each family that drew nothing


def draw(
    evidence: Evidence, only: Iterable[str | FamilyFunction] = (), measure: Measure | None = None
) -> DrawnFigures:
    """Every figure that the evidence holds; of some families, where `only` names them,
    `path/file.py:name`, or has their functions. measure: in place of accuracy, in figures that take one.

    Raises:
        OfframpError: For an unknown name, and where a user's own code fails.
    """
    from offramp.report.model import Figure  # pandas, which listing does without

    families = chosen(FIGURES, only, "figure")
    figures: list[Figure] = []
    missing = []
    for name, drawn in made_of(families, evidence, Figure, measure, publication().answers):
        figures += drawn
        if not drawn:
            missing.append(f"no figure {name} ({families[name].shows}): {families[name].needs}")
    return DrawnFigures(tuple(figures), tuple(missing))
