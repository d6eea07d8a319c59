"""Figures of a report: which there are, and how to draw them. Each family is a file, and pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from offramp.errors import OfframpError, nearest
from offramp.report.evidence import Evidence
from offramp.report.figures import compute, curves, meters, quality, reliability, significance, times
from offramp.report.model import Figure


@dataclass(frozen=True)
class Family:
    """draw: the figures in some evidence.  paper: its figures that they answer to; empty where it has
    none.  shows: in a few words.  needs: what is missing where nothing is drawn."""

    draw: Callable[[Evidence], list[Figure]]
    paper: str
    shows: str
    needs: str = "there is no trial"


FIGURES: Mapping[str, Family] = {
    "accuracy-by-exit": Family(quality.accuracy_by_exit, "", "test accuracy of every exit"),
    "accuracy-compute": Family(
        compute.accuracy_compute, "", "accuracy against MACs, by exit and by threshold, and the front"
    ),
    "curves": Family(
        curves.by_exit, "Figs. 8, 9, 18, 19", "loss and accuracy over training, exit by exit"
    ),
    "overall": Family(curves.overall, "Figs. 10, 20", "loss and accuracy over training, mean of exits"),
    "significance": Family(
        significance.significance, "Fig. 11", "who beats whom", "there are no two strategies to compare"
    ),
    "time-by-exit": Family(times.by_exit, "Figs. 12, 13", "training time of each exit"),
    "time-total": Family(times.total, "Fig. 14", "training time"),
    "memory-power": Family(
        meters.meters, "Figs. 15, 16, 17", "memory, power and energy of training", "not measured"
    ),
    "costs": Family(times.costs, "", "training cost as written, as executed, added"),
    "reliability": Family(reliability.reliability, "", "accuracy against confidence"),
    "confidence-quality": Family(
        quality.confidence, "", "calibration error, and how well confidence tells right from wrong"
    ),
    "overthinking": Family(
        quality.overthinking,
        "",
        "right at an early exit, wrong at the last",
        "no trial has an early exit",
    ),
    "agreement": Family(
        reliability.agreement, "", "how often exits agree", "no trial has an early exit"
    ),
}


@dataclass(frozen=True)
class Drawn:
    """figures: in the order of FIGURES.  missing: a sentence on each family that drew nothing."""

    figures: tuple[Figure, ...]
    missing: tuple[str, ...]


def draw(evidence: Evidence, only: Iterable[str] = ()) -> Drawn:
    """Every figure that the evidence holds. only: names of families; all where there are none.

    Raises OfframpError for a name that is none.
    """
    figures: list[Figure] = []
    missing = []
    for name in chosen(only):
        family = FIGURES[name]
        found = family.draw(evidence)
        figures += found
        if not found:
            missing.append(f"no figure {name} ({family.shows}): {family.needs}")
    return Drawn(tuple(figures), tuple(missing))


def chosen(only: Iterable[str]) -> Sequence[str]:
    """Names of families, in the order of FIGURES. Raises OfframpError for one that is none."""
    wanted = list(only)
    for name in wanted:
        if name not in FIGURES:
            raise OfframpError(f"there is no figure '{name}'{nearest(name, FIGURES)}")
    return [name for name in FIGURES if name in wanted or not wanted]
