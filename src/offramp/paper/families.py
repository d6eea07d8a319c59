"""Which strategies the paper compares with which: the core ones, and each hybrid with its parents."""

from __future__ import annotations

from collections.abc import Collection

CORE = ("joint", "separate", "branch-wise", "two-stage", "distillation")
# Section 6.3. Pretrained-branch trains the backbone first, as two-stage does, then branch by branch.
PARENTS = {
    "joint-branch": ("joint", "branch-wise"),
    "joint-two-stage": ("joint", "two-stage"),
    "pretrained-branch": ("branch-wise", "two-stage"),
}
LETTERS = {"joint": "J", "distillation": "D", "branch-wise": "B", "separate": "S", "two-stage": "T"}


def families(groups: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Families with at least two of `groups`, by name: `core`, and each hybrid's."""
    wanted = {"core": CORE} | {hybrid: (hybrid, *parents) for hybrid, parents in PARENTS.items()}
    found = {}
    for name, members in wanted.items():
        present = tuple(m for m in members if m in groups)
        if len(present) > 1 and (name == "core" or name in present):
            found[name] = present
    return found
