"""The paper's strategies: the core ones, each hybrid with its parents, and the letters for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from offramp.analysis.families import StrategyFamilies

CORE = ("joint", "separate", "branch-wise", "two-stage", "distillation")
# Section 6.3. Pretrained-branch trains the backbone first, as two-stage does, then branch by branch.
PARENTS = {
    "joint-branch": ("joint", "branch-wise"),
    "joint-two-stage": ("joint", "two-stage"),
    "pretrained-branch": ("branch-wise", "two-stage"),
}
FAMILIES = StrategyFamilies(CORE, PARENTS)
LETTERS: Mapping[str, str] = {
    **{"joint": "J", "distillation": "D", "branch-wise": "B", "separate": "S", "two-stage": "T"},
    **{"joint-branch": "JB", "joint-two-stage": "JT", "pretrained-branch": "PB", "baseline": "N"},
}


def spelled(strategies: Iterable[str]) -> str:
    """` J = joint, T = two-stage.`: what letters stand for, a sentence to end a caption with; nothing
    where no strategy has one."""
    letters = ", ".join(f"{LETTERS[s]} = {s}" for s in strategies if s in LETTERS)
    return f" {letters}." if letters else ""
