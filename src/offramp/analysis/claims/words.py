"""Outcomes as words, and as plain data for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from offramp.analysis.claims.claim import Claim
from offramp.analysis.claims.judge import Judgment, Tested
from offramp.analysis.claims.parts import Comparison, Location
from offramp.analysis.measures import find_measure

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


def effect(tested: Tested) -> str:
    """`-1.2`, `44`"""
    return f"{tested.d:.1f}" if abs(tested.d) < 10 else f"{tested.d:.0f}"


def difference(outcome: Judgment, tested: Tested) -> str:
    """`−1.2 epochs`, `+0.4 points`"""
    text = find_measure(outcome.claim.measure).gap(tested.difference)
    return text if text.startswith("−") else f"+{text}"


def detectable(outcome: Judgment, tested: Tested) -> str:
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


def _tested(tested: Tested) -> dict[str, Any]:
    keys = ("seeds", "left", "right", "difference", "d", "p_for", "p_against", "detectable")
    return {"comparison": name(tested.part), **{key: getattr(tested, key) for key in keys}}
