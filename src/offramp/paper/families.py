"""What the paper compares: the core strategies, each hybrid with its parents, and by which metrics."""

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


# Metrics, by the names of `analysis.measures`.
SPLITS = ("train", "validation", "test")
LOSSES = tuple(f"loss-{split}" for split in SPLITS)
ACCURACIES = tuple(f"accuracy-{split}" for split in SPLITS)
QUALITY = (*LOSSES, *ACCURACIES)
EPOCHS = (
    *("min-loss-epoch", "peak-epoch", "saturation-epoch", "overfits", "overfitting-epoch"),
    *("generalization-gap-best", "generalization-gap-last", "validation-stability"),
)
# It adds memory up over the runs of exits and reports peak power (5.5); the largest phase is what a
# machine must have.
COSTS = (
    "seconds-written",
    *("memory-gpu-sum", "memory-gpu-max", "memory-cpu-sum", "memory-cpu-max"),
    *("power-gpu-peak", "power-gpu-mean", "power-cpu-peak", "power-cpu-mean", "energy"),
)
RESOURCES = ("memory-gpu-sum", "memory-cpu-sum", "power-gpu-mean", "power-cpu-mean", "energy")
METERS = (
    *("memory-cpu-max", "memory-gpu-max", "memory-torch-max", "power-cpu-mean", "power-gpu-mean"),
    *("power-cpu-peak", "power-gpu-peak", "energy-cpu", "energy-gpu"),
)
