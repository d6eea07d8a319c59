"""Advice by strategy (the paper's Table 9 and section 8.1), each piece tied to claims that test it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from offramp.report.evidence import Evidence
from offramp.report.model import Column, Table


@dataclass(frozen=True)
class Advice:
    """side: for or against the strategy.  claims: ids in paper/claims.yaml that say the same,
    or the reverse where the paper contradicts itself; none where no claim tests it."""

    strategy: str
    side: Literal["for", "against"]
    text: str
    claims: tuple[str, ...]


ADVICE = (
    Advice(
        "joint",
        "for",
        "Every exit is trained for, early ones included, in one run.",
        ("accurate-early-exits", "joint-second-in-accuracy"),
    ),
    Advice(
        "joint",
        "for",
        "What it learns carries over to images it has not seen.",
        ("smallest-gap",),
    ),
    Advice(
        "joint",
        "for",
        "Take it where memory and power are short; the paper's Table 5 disagrees.",
        ("joint-least-gpu-memory", "joint-most-gpu-memory", "joint-least-gpu-power"),
    ),
    Advice(
        "joint",
        "against",
        "Expect the longest training; the paper's Table 7 says the shortest.",
        ("joint-slowest", "joint-fastest"),
    ),
    Advice(
        "joint",
        "against",
        "The weights of the exits' losses have to be balanced; badly set, early exits learn too little.",
        (),
    ),
    Advice(
        "joint",
        "against",
        "One run has to fit every exit, which gets harder as networks grow.",
        (),
    ),
    Advice(
        "separate",
        "for",
        "Each exit can be tuned, replaced or debugged on its own.",
        (),
    ),
    Advice(
        "separate",
        "against",
        "No exit helps another, so deeper ones generalize less well.",
        ("widest-gap",),
    ),
    Advice(
        "separate",
        "against",
        "The backbone is trained again for each exit, which takes time.",
        ("separate-branch-wise-slow", "separate-slower-than-branch-wise"),
    ),
    Advice(
        "separate",
        "against",
        "Its exits do not learn alike: expect loss that jumps.",
        ("two-stage-steadier",),
    ),
    Advice(
        "branch-wise",
        "for",
        "Consider it for a few exits on the shallow part of a trained network.",
        (),
    ),
    Advice(
        "branch-wise",
        "for",
        "A stage builds on those before it, so little is trained twice.",
        ("separate-slower-than-branch-wise",),
    ),
    Advice(
        "branch-wise",
        "against",
        "What early stages froze cannot serve deeper exits; not from scratch.",
        ("branch-wise-lowest-final-accuracy", "branch-wise-spikes"),
    ),
    Advice(
        "two-stage",
        "for",
        "Take it where training must be quick, as for prototypes.",
        ("two-stage-fastest",),
    ),
    Advice(
        "two-stage",
        "for",
        "Exits can be added to a trained network without touching it.",
        (),
    ),
    Advice(
        "two-stage",
        "for",
        "Its loss is steady while it trains.",
        ("two-stage-steadier",),
    ),
    Advice(
        "two-stage",
        "against",
        "The backbone was not trained with early exits in mind, and they lag.",
        ("two-stage-weak-early-exits",),
    ),
    Advice(
        "two-stage",
        "against",
        "The backbone stays as it is, so the final exit gains nothing.",
        (),
    ),
    Advice(
        "distillation",
        "for",
        "Take it where accuracy at every exit comes first.",
        ("distillation-most-accurate", "accurate-early-exits"),
    ),
    Advice(
        "distillation",
        "for",
        "It gets there in few epochs.",
        ("distillation-least-loss-first",),
    ),
    Advice(
        "distillation",
        "against",
        "The teacher costs memory and power.",
        ("distillation-most-gpu-memory", "distillation-most-gpu-power"),
    ),
    Advice(
        "distillation",
        "against",
        "It learns from a teacher: a poor one, or a badly set temperature, harms its exits.",
        (),
    ),
    Advice(
        "joint-branch",
        "for",
        "A second look at each head after joint training gains late accuracy.",
        ("joint-hybrids-better-late-exits", "joint-branch-best-on-chest"),
    ),
    Advice(
        "joint-two-stage",
        "for",
        "New heads on a jointly trained backbone suit many classes.",
        ("joint-hybrids-better-late-exits", "joint-two-stage-best-on-imagenet"),
    ),
    Advice(
        "pretrained-branch",
        "for",
        "Where a trained backbone exists, it keeps late exits from overfitting.",
        ("pretrained-branch-overfits-least", "pretrained-branch-most-stable"),
    ),
    Advice(
        "hybrids",
        "for",
        "Loss jumps less and rises less at late exits than in either parent.",
        ("hybrids-fewer-spikes", "hybrids-overfit-less"),
    ),
    Advice(
        "hybrids",
        "against",
        "A second phase takes time and settings of its own.",
        ("hybrids-take-longer", "hybrids-save-time"),
    ),
    Advice(
        "hybrids",
        "against",
        "Several phases are more to write and to get right.",
        (),
    ),
    Advice(
        "any",
        "for",
        "On small devices begin with MobileNet; ResNet and VGG need a steady strategy.",
        ("mobilenet-least-power", "mobilenet-fastest"),
    ),
)
NONE_TESTS = "no claim tests this"
CAPTION = (
    "What the paper advises (its section 8.1 and Table 9), in our words: its experience with its own "
    "networks and data. Each line names the claims that test it, if any, and what these runs say of "
    "each (offramp claims tells the numbers)."
)


def guidelines(evidence: Evidence) -> list[Table]:
    """The paper's advice, each piece tied to claims (Table 9)."""
    if not {a.strategy for a in ADVICE} & set(evidence.strategies):
        return []
    frame = pd.DataFrame(
        [
            {
                "strategy": a.strategy,
                "side": a.side,
                "advice": a.text,
                "claims": "; ".join(
                    f"{claim} ({evidence.judgments[claim].verdict})" for claim in a.claims
                )
                or NONE_TESTS,
            }
            for a in ADVICE
        ]
    )
    columns = (
        Column("strategy", "strategy"),
        Column("side", "side"),
        Column("advice", "advice"),
        Column("claims", "claims, and what these runs say"),
    )
    return [Table("guidelines", "more", "Guidelines", CAPTION, frame, columns)]
