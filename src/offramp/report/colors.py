"""One color, dash and shape for each strategy, the same in every figure.

The colors were searched for: the smallest difference between any two, as seen with and without each
kind of color blindness (Machado, Oliveira and Fernandes, 2009), is as large as it gets at a contrast of
at least 3 to 1 with the page and a chroma that does not shout. Dashes and shapes tell them apart in
print without color.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from offramp.strategies import STRATEGIES


@dataclass(frozen=True)
class Style:
    """color: on white; dark: the same on a dark page.  dash: lengths of strokes and gaps in pixels,
    empty for a full line.  shape: a symbol of Vega-Lite."""

    color: str
    dark: str
    dash: tuple[int, ...]
    shape: str


STAR = (
    "M0,-1L0.22,-0.31L0.95,-0.31L0.36,0.12L0.59,0.81L0,0.38"
    "L-0.59,0.81L-0.36,0.12L-0.95,-0.31L-0.22,-0.31Z"
)
KNOWN = {
    "baseline": Style("#111111", "#e8e8e8", (1, 2), "circle"),
    "joint": Style("#00308e", "#abbaff", (), "square"),
    "separate": Style("#6b6156", "#9e6100", (9, 3), "triangle-up"),
    "branch-wise": Style("#48a45c", "#80e99f", (5, 2), "diamond"),
    "two-stage": Style("#b28e15", "#ffc85f", (7, 2, 1, 2), "triangle-down"),
    "distillation": Style("#89000e", "#ea655d", (3, 1), "cross"),
    "joint-branch": Style("#8a88e2", "#2b6ccf", (2, 2), "triangle-right"),
    "joint-two-stage": Style("#6c004f", "#e078b3", (4, 2, 1, 2), "triangle-left"),
    "pretrained-branch": Style("#e863a3", "#81656f", (7, 2, 1, 2, 1, 2), STAR),
}
OTHERS = (  # for all other labels, in turn
    Style("#1f7f95", "#4fc3dc", (12, 3), "circle"),
    Style("#a3541f", "#e59a68", (3, 3), "square"),
    Style("#4d6b1f", "#b5cf6b", (7, 2), "diamond"),
    Style("#6a3fa0", "#b79be0", (5, 3, 1, 3), "triangle-up"),
    Style("#b0305f", "#f08fb0", (1, 2), "triangle-down"),
    Style("#3f5f6f", "#8fb2c4", (9, 4), "cross"),
)


def rank(label: str) -> tuple[int, str]:
    """Sorts labels: the paper's strategies in its order, then any other by name."""
    names = list(STRATEGIES)
    return (names.index(label), "") if label in names else (len(names), label)


def styles(labels: Iterable[str]) -> dict[str, Style]:
    """The style of each label, in order of `rank`. What comes with offramp always has the same one."""
    ordered = sorted(set(labels), key=rank)
    others = [label for label in STRATEGIES if label not in KNOWN]
    others += [label for label in ordered if label not in STRATEGIES]
    return {label: KNOWN.get(label) or _other(others.index(label)) for label in ordered}


def _other(number: int) -> Style:
    """Where colors come again, they do with another dash and another shape."""
    turn, place = divmod(number, len(OTHERS))
    lines = OTHERS[(place + turn) % len(OTHERS)]
    return replace(OTHERS[place], dash=lines.dash, shape=lines.shape)
