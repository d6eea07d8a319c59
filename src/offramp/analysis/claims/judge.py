"""The verdict on each claim: every part tested over seeds, and Holm's adjustment over the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from offramp.analysis.claims.claim import Claim
from offramp.analysis.claims.parts import (
    Comparison,
    Index,
    Location,
    PairedValues,
    cells,
    nearest_cell,
    parts,
    values,
)
from offramp.analysis.measures import find_measure
from offramp.analysis.stats.pairwise import ALPHA, estimate, holm
from offramp.analysis.stats.sample import same

ClaimVerdict = Literal[
    "supported", "contradicted", "not significant", "identical by construction", "not testable here"
]
VERDICTS: tuple[ClaimVerdict, ...] = get_args(ClaimVerdict)


@dataclass(frozen=True)
class TestedComparison:
    """One comparison."""

    part: Comparison
    seeds: int
    # left, right: means over seeds, in the stored unit
    left: float
    right: float
    difference: float  # left minus right
    # how far the mean of the differences lies on the claimed side of the margin, over their standard
    # deviation; where test images count too, over the error of that mean times the root of the seeds
    d: float
    # p_for, p_against: of what is claimed and of its opposite, each alone
    p_for: float
    p_against: float
    # the smallest difference beyond the margin that would have been found with probability POWER, alone
    detectable: float


@dataclass(frozen=True)
class Judgment:
    """What the store says of a claim."""

    claim: Claim
    verdict: ClaimVerdict
    p: float | None  # two-sided and adjusted after Holm over the file; None where nothing was tested
    # the part that the verdict rests on, the weakest one unless another contradicts
    decisive: TestedComparison | None
    parts: tuple[TestedComparison, ...]  # the comparisons that were tested
    holding: int  # of all that have values, how many point as claimed, out of `compared`
    compared: int
    identical: tuple[Comparison, ...]  # parts with the same weights on both sides
    missing: tuple[str, ...]  # what the store lacks


def judge(claims: Sequence[Claim], indices: Mapping[str, Index], alpha: float = ALPHA) -> list[Judgment]:
    """Verdicts in the order of the claims. indices: of each of their columns."""
    alone = [_gather(claim, indices[claim.column]) for claim in claims]
    raw = np.array([judgment.p for judgment in alone if judgment.p is not None])
    adjusted = iter(holm(raw).tolist())
    return [_decided(j, None if j.p is None else next(adjusted), alpha) for j in alone]


def _gather(claim: Claim, index: Index) -> Judgment:
    """A claim's parts, and its p before adjustment; no verdict yet."""
    tested, identical, missing = [], [], []
    holding = compared = 0
    for part in parts(claim, index):
        both = values(part, index)
        if both.identical:
            identical.append(part)
            continue
        if len(both.left):
            compared += 1
            holding += _beyond(claim, float((both.left - both.right).mean())) > 0
        comparison = both.missing or _test(claim, part, both)
        if isinstance(comparison, str):
            missing.append(comparison)
        else:
            tested.append(comparison)
    if not (tested or identical or missing):
        missing.append(_nothing(claim, index))
    p, _ = _combine(tested, whole=not missing)
    return Judgment(
        claim,
        "not significant",
        p=p,
        decisive=None,
        parts=tuple(tested),
        holding=holding,
        compared=compared,
        identical=tuple(identical),
        missing=tuple(dict.fromkeys(missing)),
    )


def _beyond(claim: Claim, difference: float) -> float:
    """How far a difference lies on the claimed side of the margin; negative on the other side."""
    if claim.is_ == "within":
        return claim.margin - abs(difference)
    return (difference if claim.is_ == "higher" else -difference) - claim.margin


def _test(claim: Claim, part: Comparison, both: PairedValues) -> TestedComparison | str:
    """Student's t of the paired differences against the margin; of likeness, against it on either side.
    Over seeds, and over test images too where they are known.

    Likeness is shown by two one-sided tests (Schuirmann, 1987), so p is the larger. Against it one side
    is enough, so p is twice the smaller.
    """
    left, right = both.left, both.right
    differences = left - right
    scale = float(max(np.abs(left).max(), np.abs(right).max()))
    over = estimate(differences if both.images is None else both.images)
    if over.error == 0 or (both.images is None and same(differences, scale)):
        measure = find_measure(claim.measure)
        size = measure.gap(float(differences.mean()))
        return f"variation: the difference is {size} in every seed"
    n, mean = len(differences), float(differences.mean())
    far = _beyond(claim, mean)
    tail = over.p(far) / 2
    p_for, p_against = (tail, 1 - tail) if far > 0 else (1 - tail, tail)
    d = far / (over.error * np.sqrt(n))
    if claim.is_ == "within":  # d is of the nearer margin, so these are the larger and the smaller p
        p_against = min(2 * p_against, 1.0)
    sides = (float(left.mean()), float(right.mean()), mean)
    return TestedComparison(part, n, *sides, float(d), p_for, p_against, over.detectable(1))


def _combine(tested: Sequence[TestedComparison], whole: bool) -> tuple[float | None, bool]:
    """p of a claim, two-sided, and whether it speaks against it.

    For it: all parts must hold, so the largest p (an intersection-union test); without all parts
    there is none. Against it: one part that fails is enough, so the smallest p, times their number.
    """
    if not tested:
        return None, False
    for_it = max(t.p_for for t in tested) if whole else 1.0
    against = min(min(t.p_against for t in tested) * len(tested), 1.0)
    return min(2 * min(for_it, against), 1.0), against < for_it


def _nothing(claim: Claim, index: Index) -> str:
    if not index.series:
        return f"values of {claim.measure}"
    about, others = (
        tuple(data_set.title for data_set in sets or ()) for sets in (claim.data, claim.against_data)
    )
    if not cells(claim, index) and (nearest := nearest_cell(claim, index)):
        return nearest
    named = [" or ".join(n for n in names if n not in ("*", "")) for names in (claim.models, about)]
    here = ", ".join(filter(None, named))
    against = " or ".join(claim.against_models or others)
    runs = f"{here} and {against}" if here and against else here or against
    return f"trials on {runs}" if runs else "anything to compare with"


def _decided(judgment: Judgment, p: float | None, alpha: float) -> Judgment:
    """The verdict, by the adjusted p."""
    significant = p is not None and p < alpha
    _, against = _combine(judgment.parts, whole=not judgment.missing)
    verdict: ClaimVerdict
    if significant and against:
        verdict = "contradicted"
    elif judgment.missing:
        verdict = "not testable here"
    elif judgment.identical:
        verdict = "identical by construction"
    else:
        verdict = "supported" if significant else "not significant"
    decisive = None
    if judgment.parts:
        weakest = max(judgment.parts, key=lambda t: t.p_for)
        strongest_against = min(judgment.parts, key=lambda t: t.p_against)
        decisive = strongest_against if verdict == "contradicted" else weakest
    return replace(judgment, p=p, verdict=verdict, decisive=decisive)


RULE = (
    "A claim is a set of comparisons, each tested by Student's t on paired differences: over seeds, "
    "and on test over seeds and images. It is supported if all of them hold, contradicted if one of "
    "them significantly does not; p is two-sided and adjusted after Holm over the whole file. "
    "Likeness within a margin takes two one-sided tests, one of each side. As claimed: how many "
    "comparisons point the claimed way in their means, significant or not. What decides: the weakest "
    "comparison, or the strongest against the claim; difference and d are of that one. d: the mean "
    "of the paired differences beyond the margin over their standard deviation, positive as claimed; "
    "on test the error counts images too. Found from, where a claim is not significant: the smallest "
    "difference that would be found in 80 % of such runs, were this the only test."
)


def name(part: Comparison, cells: bool = True) -> str:
    """`distillation − joint at exit 1`. cells: with model and data."""
    left, right = part.left[0], part.right[0]
    same = {key: getattr(left, key) == getattr(right, key) for key in ("exit", "model", "data")}
    if left.strategy != right.strategy:
        text = f"{_strategies(part.left)} − {_strategies(part.right)}"
    else:
        left_text, right_text = (_apart(place, same) for place in (left, right))
        text = f"{left_text} − {right_text}, {left.strategy}"
    if same["exit"] and left.exit is not None:
        text += f" at exit {left.exit}"
    about = [getattr(left, key) for key in ("model", "data") if same[key]]
    return f"{text}; {', '.join(about)}" if cells and about else text


def _strategies(places: Sequence[Location]) -> str:
    names = [place.strategy for place in places]
    return names[0] if len(names) == 1 else f"mean({', '.join(names)})"


def _apart(place: Location, same: dict[str, bool]) -> str:
    exit = [] if same["exit"] else [f"exit {place.exit}"]
    return ", ".join(exit + [getattr(place, key) for key in ("model", "data") if not same[key]])


def effect(tested: TestedComparison) -> str:
    """`-1.2`, `44`"""
    return f"{tested.d:.1f}" if abs(tested.d) < 10 else f"{tested.d:.0f}"


def difference(outcome: Judgment, tested: TestedComparison) -> str:
    """`−1.2 epochs`, `+0.4 points`"""
    text = find_measure(outcome.claim.measure).gap(tested.difference)
    return text if text.startswith("−") else f"+{text}"


def detectable(outcome: Judgment, tested: TestedComparison) -> str:
    """`1.9 points`: what would have been found, beside what is not significant; else empty."""
    if outcome.verdict != "not significant":
        return ""
    return find_measure(outcome.claim.measure).gap(tested.detectable)


def claimed(claim: Claim) -> str:
    """`higher`, `lower by 2 s at least`, `within 1 point of each other`"""
    margin = find_measure(claim.measure).gap(abs(claim.margin))
    if claim.is_ == "within":
        return f"within {margin} of each other"
    if claim.margin == 0:
        return claim.is_
    other = "lower" if claim.is_ == "higher" else "higher"
    return f"{claim.is_} by {margin} at least" if claim.margin > 0 else f"{other} by {margin} at most"


def why(outcome: Judgment) -> str:
    """What a verdict other than a plain one rests on; empty for those."""
    if outcome.verdict == "not testable here":
        first, *rest = outcome.missing
        return f"missing: {first}" + (f", and {len(rest)} more" if rest else "")
    if outcome.identical:
        part, *others = outcome.identical
        more = f" and {len(others)} more" if others else ""
        return f"the same weights on both sides of {name(part, cells=False)}{more}"
    return ""


def plain(outcome: Judgment) -> dict[str, Any]:
    """For JSON. Values in the measure's stored unit."""
    claim = outcome.claim
    return {
        **{key: getattr(claim, key) for key in ("id", "section", "question", "text", "measure")},
        "direction": claim.is_,
        "margin": claim.margin,
        "contradicts": list(claim.contradicts),
        "verdict": outcome.verdict,
        "p": outcome.p,
        "as_claimed": outcome.holding,
        "compared": outcome.compared,
        "decisive": None if outcome.decisive is None else _tested(outcome.decisive),
        "comparisons": [_tested(tested) for tested in outcome.parts],
        "identical": [name(part) for part in outcome.identical],
        "missing": list(outcome.missing),
    }


def _tested(tested: TestedComparison) -> dict[str, Any]:
    keys = ("seeds", "left", "right", "difference", "d", "p_for", "p_against", "detectable")
    return {"comparison": name(tested.part), **{key: getattr(tested, key) for key in keys}}
