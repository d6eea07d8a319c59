"""Findings, tested against a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from offramp.api.answer import answer, missing_notes
from offramp.api.opening import places
from offramp.api.options import RUNS, CommandOption, ResultsPlaces, StudyName
from offramp.errors import OfframpError, nearest
from offramp.terminal import TextBlocks, TextTable

if TYPE_CHECKING:
    from offramp.analysis.claims import Judgment

QUESTIONS = {
    "rq1": "RQ1: convergence, accuracy, generalization",
    "rq2": "RQ2: cost and stability of training",
    "rq3": "RQ3: hybrids",
    "more": "Beyond the research questions",
}


@answer
class ClaimVerdicts:
    """What runs say of claims.

    Attributes:
        verdicts: Of each claim.
        anywhere: Whether findings were tested on any runs, not only on runs like the paper's.
        missing: What the results lack.
    """

    verdicts: Sequence[Judgment]
    anywhere: bool
    missing: Sequence[str]
    _alone: bool  # whether all comparisons of one claim are shown

    def as_json(self) -> dict[str, Any]:
        from offramp.analysis.claims.judge import plain
        from offramp.analysis.stats.pairwise import ALPHA

        return {
            "alpha": ALPHA,
            "anywhere": self.anywhere,
            "claims": [plain(verdict) for verdict in self.verdicts],
            "missing": list(self.missing),
        }

    def document(self) -> TextBlocks:
        from offramp.analysis.claims.judge import RULE
        from offramp.report.claims import count

        if self._alone:
            return _one_claim(self.verdicts[0])
        these = ["These are statements on these runs alone, no verdicts on the paper."]
        return [
            *_tested([v for v in self.verdicts if v.verdict != "not testable here"]),
            *_untested([v for v in self.verdicts if v.verdict == "not testable here"]),
            count(self.verdicts),
            *(these if self.anywhere else []),
            *missing_notes(self.missing),
            RULE,
            "offramp claims ... --only ID shows every comparison of a claim.",
        ]


def claims(
    stores: ResultsPlaces = RUNS,
    *,
    file: Annotated[Path | None, CommandOption("FILE", names=("--claims",))] = None,
    study: StudyName = None,
    only: Annotated[str | None, CommandOption("ID")] = None,
    anywhere: bool = False,
) -> ClaimVerdicts:
    """Test the paper's findings, or your own, against a store.

    Do these runs show what the paper says? Each claim is supported, contradicted, not significant,
    identical by construction, or not testable here. The last says what is missing. A finding is tested
    on runs like the paper's; `anywhere` tests it on any runs. p is adjusted over all claims of the file.
    docs/claims.md says how claims are tested, and how to write your own.

    Args:
        stores: Stores, or folders that offramp store pack wrote. Several count as one.
        file: Test your own claims instead of the paper's.
        study: Use only the trials of this study.
        only: Show one claim, with all of its comparisons.
        anywhere: Test general findings on any runs. This is no verdict on the paper, whose runs had
            other data and longer training.

    Raises:
        OfframpError: There are no results, the file is no file of claims, or it has no such claim.

    On the command line:
        offramp claims runs/demo
        offramp claims runs/demo --only branch-wise-lowest-final-accuracy
        offramp claims runs/demo --claims mine.yaml
    """
    from offramp.report import evidence
    from offramp.report.claims import published, read

    tested = published(anywhere) if file is None else read(file, anywhere)
    ids = [claim.id for claim in tested]
    if only is not None and only not in ids:
        raise OfframpError(f"there is no claim '{only}'{nearest(only, ids)}")
    results = evidence.open_all(places(stores), study)
    verdicts = [v for v in results.judge(tested) if only in (None, v.claim.id)]
    return ClaimVerdicts(verdicts, anywhere, results.missing, only is not None)


def _tested(verdicts: Sequence[Judgment]) -> list[TextTable]:
    from offramp.analysis.claims.judge import difference, effect
    from offramp.analysis.stats.text import p_text

    tables = []
    for question, title in QUESTIONS.items():
        rows = []
        for v in verdicts:
            if v.claim.question != question:
                continue
            numbers = ["", ""]
            if v.decisive is not None:
                numbers = [difference(v, v.decisive), effect(v.decisive)]
            share = f"{v.holding} of {v.compared}" if v.compared else ""
            short = "identical" if v.verdict == "identical by construction" else v.verdict
            rows.append((v.claim.id, short, share, *numbers, "" if v.p is None else p_text(v.p)))
        if rows:
            tables.append(
                TextTable(["claim", "verdict"], ["as claimed", "difference", "d", "p"], rows, title)
            )
    return tables


def _untested(verdicts: Sequence[Judgment]) -> list[TextTable]:
    by_reason: dict[str, list[str]] = {}
    for v in verdicts:
        by_reason.setdefault(v.missing[0], []).append(v.claim.id)
    rows = [(reason, ", ".join(ids)) for reason, ids in by_reason.items()]
    columns = ["missing here", "so these cannot be tested"]
    return [TextTable(columns, rows=rows, title="Not testable here")] if rows else []


def _one_claim(v: Judgment) -> list[str | TextTable]:
    from offramp.analysis.claims.judge import name
    from offramp.analysis.stats.text import p_text

    parts: list[str | TextTable] = [f"{v.claim.id} (section {v.claim.section})", v.claim.text]
    if v.claim.note:
        parts.append(v.claim.note)
    if v.claim.contradicts:
        parts.append(f"Contradicted by the source itself: {', '.join(v.claim.contradicts)}.")
    parts += [_comparisons(v)] if v.parts else [""]
    parts += [f"Identical by construction: {name(part)}." for part in v.identical]
    parts += [f"Missing: {lack}." for lack in v.missing]
    p = "" if v.p is None else f"; p = {p_text(v.p)}, adjusted over the whole file"
    return [*parts, f"Verdict: {v.verdict}{p}."]


def _comparisons(v: Judgment) -> TextTable:
    from offramp.analysis.claims.judge import claimed, effect, name
    from offramp.analysis.measures import find_measure
    from offramp.analysis.stats.text import p_text

    measure = find_measure(v.claim.measure)
    several = len({(t.part.left[0].model, t.part.left[0].data) for t in v.parts}) > 1
    rows = []
    for tested in v.parts:
        means = (f"{mean * measure.scale:.4g}" for mean in (tested.left, tested.right))
        ps = (p_text(tested.p_for), p_text(tested.p_against))
        change = f"{tested.difference * measure.scale:+.3g}"
        rows.append((name(tested.part, several), *means, change, effect(tested), *ps))
    seeds = " or ".join(map(str, sorted({tested.seeds for tested in v.parts})))
    return TextTable(
        ["comparison"],
        ["left", "right", "difference", "d", "p for", "against"],
        rows,
        f"{measure.title} ({measure.unit.name}), claimed {claimed(v.claim)}",
        f"Means over {seeds} seeds; p for the claim alone and against it alone, not adjusted.",
    )
