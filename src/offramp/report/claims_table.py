"""The outcomes of claims as a table of a report."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from offramp.analysis.claims import VERDICTS, Judgment
from offramp.analysis.claims.words import RULE, difference, name, why
from offramp.report.model import Column, Question, Table

COLUMNS = (
    Column("claim", "Claim"),
    Column("section", "Section"),
    Column("verdict", "Verdict"),
    Column("means", "As claimed"),
    Column("decides", "What decides"),
    Column("difference", "Difference"),
    Column("d", "d", "number", 2),
    Column("p", "p", "p", 3),
)


def claims_table(outcomes: Sequence[Judgment], question: Question = "more") -> Table:
    """A row a claim, by the id of the claim."""
    rows = [_row(outcome) for outcome in outcomes]
    columns = [column.key for column in COLUMNS]
    frame = pd.DataFrame(rows, columns=columns, index=[o.claim.id for o in outcomes])
    return Table(
        name="claims",
        question=question,
        title="Findings, tested against these runs",
        caption=f"{count(outcomes)} {RULE}",
        frame=frame,
        columns=COLUMNS,
        notes=_notes(outcomes),
    )


def count(outcomes: Sequence[Judgment]) -> str:
    """`66 claims: 1 supported, 3 contradicted, ...`"""
    counts = {verdict: sum(o.verdict == verdict for o in outcomes) for verdict in VERDICTS}
    parts = [f"{number} {verdict}" for verdict, number in counts.items() if number]
    claims = "1 claim" if len(outcomes) == 1 else f"{len(outcomes)} claims"
    return f"{claims}: {', '.join(parts)}."


def _row(outcome: Judgment) -> dict[str, object]:
    decisive = outcome.decisive
    reason = why(outcome)
    shown = "" if decisive is None else name(decisive.part)
    return {
        "claim": outcome.claim.text,
        "section": outcome.claim.section,
        "verdict": outcome.verdict,
        "means": f"{outcome.holding} of {outcome.compared}" if outcome.compared else "",
        "decides": "; ".join(text for text in (reason, shown) if text),
        "difference": "" if decisive is None else difference(outcome, decisive),
        "d": float("nan") if decisive is None else decisive.d,
        "p": float("nan") if outcome.p is None else outcome.p,
    }


def _notes(outcomes: Sequence[Judgment]) -> list[str]:
    """Claims that cannot be true together, each pair once."""
    ids = [outcome.claim.id for outcome in outcomes]
    pairs = {
        frozenset((o.claim.id, other)): (o.claim.id, other)
        for o in outcomes
        for other in o.claim.contradicts
        if other in ids
    }
    notes = [f"{one} and {other} contradict each other in the source." for one, other in pairs.values()]
    return [*notes, *(f"{o.claim.id}: {o.claim.note}" for o in outcomes if o.claim.note)]
