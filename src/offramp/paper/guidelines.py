"""What the paper advises (sections 7, 8 and 8.1), in our words: for those who have no runs yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Goal = Literal["accuracy", "latency", "training-time", "memory", "energy", "balanced"]
GOALS: tuple[Goal, ...] = ("accuracy", "latency", "training-time", "memory", "energy", "balanced")


@dataclass(frozen=True)
class Guideline:
    """strategies: the ones to take, the first one first.  heads_only: whether they leave a given
    backbone as it is.  section: of the paper."""

    goals: tuple[Goal, ...]
    strategies: tuple[str, ...]
    heads_only: bool
    text: str
    section: str


GUIDELINES = (
    Guideline(
        ("accuracy", "latency"),
        ("distillation",),
        True,
        "where accuracy and generalization count most, at early exits above all. The paper "
        "measured high memory and power for it.",
        "8.1",
    ),
    Guideline(
        ("accuracy", "balanced"),
        ("joint-two-stage", "joint-branch", "pretrained-branch"),
        False,
        "for a balance of accuracy and cost and against overfitting at deep exits, pretrained-branch "
        "above all. Hybrids may need tuning for the network at hand.",
        "8.1",
    ),
    Guideline(
        ("memory", "energy", "accuracy"),
        ("joint",),
        False,
        "close behind distillation in accuracy. The text calls it the cheapest in memory "
        "and power and the slowest to train; the paper's Table 5 says that it takes the most memory and "
        "power, and Table 7 that it is fast. So measure it.",
        "8.1, Tables 5 and 7",
    ),
    Guideline(
        ("training-time", "memory"),
        ("two-stage",),
        True,
        "where training time counts, for prototypes and for a backbone that is "
        "trained already. Its early exits are weaker than those of joint training.",
        "8.1, 8",
    ),
    Guideline(
        ("memory", "energy", "latency"),
        ("two-stage", "pretrained-branch"),
        False,
        "for small devices, since exits are trained apart from the backbone.",
        "8",
    ),
)
AVOID = (
    "separate: only where exits have different tasks: it suffers in deep networks and on hard "
    "data (8.1).",
    "branch-wise: only to tune shallow, trained networks: it tends to be unstable and to "
    "overfit, most of all deep networks from scratch (8.1).",
)
ARCHITECTURES = {
    "lean": "MobileNet is the most economical network in time and power, and the one for small devices "
    "(8, 8.1).",
    "strong": "ResNet and VGG can reach higher accuracy at a higher cost, and want a stable strategy "
    "such as distillation or a hybrid (8, 8.1).",
}
# Section 5.4 names pretrained-branch for fixed weights, whatever the goal: it stands by the goals for
# which the paper advises it otherwise.
FIXED = Guideline(
    ("accuracy", "latency", "memory", "energy", "balanced"),
    ("pretrained-branch", "two-stage"),
    True,
    "pretrained-branch is the paper's for fixed backbone weights; two-stage is our own addition, since "
    "it is the same with heads alone to train",
    "5.4; as described there it still trains segments, so use scope: head",
)
FROZEN = (
    "Our own rule, not the paper's: where the backbone's weights must stay, only strategies that train "
    "heads alone are listed: two-stage, distillation, and pretrained-branch with the option scope: head."
)
GOALS_ARE_OURS = "Which guideline stands by which goal is our own reading of the paper."


def guidelines(
    goal: Goal, frozen_backbone: bool = False
) -> tuple[tuple[Guideline, ...], tuple[str, ...]]:
    """The guidelines for a goal, one at least, and what else to say: on networks, on what to avoid."""
    known = (*(g for g in GUIDELINES if g.heads_only), FIXED) if frozen_backbone else GUIDELINES
    found = tuple(g for g in known if goal in g.goals)
    network = {"accuracy": ["strong"], "balanced": ["lean", "strong"]}.get(goal, ["lean"])
    more = [ARCHITECTURES[kind] for kind in network]
    return found, (*([FROZEN] if frozen_backbone else []), *more, *AVOID, GOALS_ARE_OURS)
