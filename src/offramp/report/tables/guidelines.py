"""Advice by strategy (the paper's Table 9 and section 8.1), each piece tied to claims that test it."""

from __future__ import annotations

import pandas as pd

from offramp.paper.guidelines import remarks
from offramp.report.evidence import Evidence
from offramp.report.model import Column, Table

NONE_TESTS = "no claim tests this"
CAPTION = (
    "What the paper advises (its section 8.1 and Table 9), in our words: its experience with its own "
    "networks and data. Each line names the claims that test it, if any, and what these runs say of "
    "each (offramp claims tells the numbers)."
)


def guidelines(evidence: Evidence) -> list[Table]:
    """The paper's advice, each piece tied to claims (Table 9)."""
    advice = remarks()
    if not {a.strategy for a in advice} & set(evidence.strategies):
        return []
    rows = []
    for a in advice:
        tested = [f"{claim} ({evidence.judgments[claim].verdict})" for claim in a.claims]
        rows.append((a.strategy, a.side, a.text, "; ".join(tested) or NONE_TESTS))
    keys = ("strategy", "side", "advice", "claims")
    frame = pd.DataFrame(rows, columns=list(keys))
    columns = (
        *(Column(key, key) for key in keys[:3]),
        Column("claims", "claims, and what these runs say"),
    )
    return [Table("guidelines", "more", "Guidelines", CAPTION, frame, columns)]
