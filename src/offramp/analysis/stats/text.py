"""Numbers of an analysis as words: who beats whom in one line, p, and plain data for JSON."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from itertools import count
from typing import Any

from offramp.analysis.stats.anova import Anova, Check, Repeated, Welch
from offramp.analysis.stats.pairwise import ALPHA, FLOOR, Pair, Pairs
from offramp.analysis.stats.sample import Untested

STRONGER = 50  # '>>' asks for a p this many times smaller than '>'
LEVELS = (ALPHA, ALPHA / STRONGER)
UNTESTED = "not every pair was tested"
UNCLEAR, MOST = "no order; see all pairs", 12  # where a group has more than so many letters


@dataclass(frozen=True)
class GroupOrder:
    """Groups from the highest mean to the lowest."""

    groups: tuple[str, ...]
    # what stands between each and the next, '>>', '>' or '≈'; None where the pairwise results are no
    # order, which `why` explains
    signs: tuple[str, ...] | None
    # of each group, the compact letter display; none where a pair was not tested, as two that share a
    # letter would seem to have been compared
    letters: tuple[str, ...]
    why: str | None

    def text(self, short: Mapping[str, str] | None = None) -> str:
        """`J >> D > B ≈ S`, or `J a, D ab, B b` where there is no order, or UNTESTED or UNCLEAR. short:
        names to write."""
        if self.signs is None and not self.letters:
            return UNTESTED
        if self.signs is None and max(map(len, self.letters)) > MOST:
            return UNCLEAR
        names = [(" = ").join((short or {}).get(n, n) for n in g.split(" = ")) for g in self.groups]
        if self.signs is None:
            return ", ".join(f"{n} {x}" for n, x in zip(names, self.letters, strict=True))
        rest = zip(self.signs, names[1:], strict=True)
        return " ".join([names[0], *(f"{sign} {name}" for sign, name in rest)])


def rule(alpha: float, better: str | None = None) -> str:
    """What the signs mean, for captions. better: 'higher' or 'lower' values."""
    side = {"higher": " (better)", "lower": " (worse)"}.get(better or "", "")
    return (
        f"A > B: the mean of A is significantly higher{side} than that of B, adjusted p < {alpha:g}; "
        f"A >> B: p < {alpha / STRONGER:g}. Both hold between every group left of the sign and every "
        "one right of it. ≈ joins groups none of which differ significantly, which does not make them "
        "equal. =: identical by construction, not tested. Where no such order fits the pairwise "
        "results, groups that share a letter are not significantly different. Where not every pair was "
        "tested there is neither."
    )


def order(groups: Sequence[str], pairs: Pairs, alpha: float) -> GroupOrder:
    """Summarize pairs.

    '>' between two neighbors says that every group above differs significantly from every one below,
    '>>' the same at alpha / STRONGER. Without any such sign between them, two groups must not differ.
    Where the pairwise results do not allow that, there are letters only; where a pair was not tested,
    there is nothing.

    Args:
        groups: Labels from the highest mean to the lowest.
    """
    missing = [f"{p.a} – {p.b}" for p in pairs if not isinstance(p, Pair)]
    if missing:
        every = len(missing) == len(pairs)
        words = "no pair was tested" if every else f"untested: {', '.join(missing)}"
        return GroupOrder(tuple(groups), None, (), words)
    tested = {frozenset((p.a, p.b)): p for p in pairs if isinstance(p, Pair)}
    different = {key for key, p in tested.items() if p.p < alpha}
    spelled = letters(groups, different)
    signs, why = _signs(groups, tested, alpha)
    return GroupOrder(tuple(groups), signs, tuple(spelled[g] for g in groups), why)


def _signs(
    groups: Sequence[str], tested: Mapping[frozenset[str], Pair], alpha: float
) -> tuple[tuple[str, ...] | None, str | None]:
    count = len(groups)

    def p_of(i: int, j: int) -> float:
        return tested[frozenset((groups[i], groups[j]))].p

    for (i, a), (j, b) in ((x, y) for x in enumerate(groups) for y in enumerate(groups) if x < y):
        pair = tested[frozenset((a, b))]
        if p_of(i, j) < alpha and (pair.difference > 0) != (pair.a == a):
            return None, f"no order: {b} exceeds {a} in the blocks that both have"
    signs = []
    for cut in range(1, count):
        worst = max(p_of(i, j) for i in range(cut) for j in range(cut, count))
        signs.append(">>" if worst < alpha / STRONGER else ">" if worst < alpha else "≈")
    for i in range(count):
        for j in range(i + 1, count):
            if p_of(i, j) < alpha and set(signs[i:j]) == {"≈"}:
                return None, f"no order: {groups[i]} and {groups[j]} differ, what lies between does not"
    return tuple(signs), None


ALPHABET = string.ascii_lowercase + string.ascii_uppercase


def letters(order: Sequence[str], different: Collection[frozenset[str]]) -> dict[str, str]:
    """Letters of each group; `a` goes to the first.

    Insert and absorb (Piepho 2004, J. Comput. Graph. Stat. 13:456): begin with one column of all
    groups; for each pair that differs, split every column that holds both in two, one without either;
    drop columns that another one contains.

    Args:
        order: Labels.
        different: Pairs that differ.
    """
    rank = {label: i for i, label in enumerate(order)}
    columns = [frozenset(order)]
    for pair in sorted(different, key=lambda pair: sorted(rank[label] for label in pair)):
        split: set[frozenset[str]] = set()
        for column in columns:
            split |= {column - {label} for label in pair} if pair <= column else {column}
        columns = [c for c in split if not any(c < other for other in split)]
    columns.sort(key=lambda column: sorted(rank[label] for label in column))
    names = [ALPHABET[i] if i < len(ALPHABET) else f"({i + 1})" for i in range(len(columns))]
    return {
        label: "".join(n for n, column in zip(names, columns, strict=True) if label in column)
        for label in order
    }


def in_seeds(words: str) -> str:
    """Words of an analysis whose blocks are seeds: `seed 44 lacks joint`."""
    return re.sub(r"\bblock(s?)\b", r"seed\1", words)


def p_text(p: float, floored: bool = False) -> str:
    """`0.034`, `4.64e-96`; `< 1e-12` for a floored p."""
    if floored:
        return f"< {FLOOR:g}"
    if p == 0:
        return "< 1e-300"
    return rounded(p, "f", 3) if p >= 0.001 else rounded(p, "e", 2)


def rounded(p: float, form: str = "g", digits: int = 2) -> str:
    """A p with so many digits, and with more where these would put it on the other side of a level:
    0.0499 is significant, and 0.050 would not be."""
    texts = (f"{p:.{n}{form}}" for n in count(digits))
    return next(t for t in texts if all((float(t) < level) is (p < level) for level in LEVELS))


def pair_p(pair: Pair) -> str:
    return p_text(pair.p, pair.floored)


def equation(p: float) -> str:
    """`p = 0.034`, `p < 1e-300`."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def sentence(test: Anova | Welch | Repeated | Check | Untested) -> str:
    """The outcome of a test in a line."""
    match test:
        case Untested():
            return f"not tested: {test.why}"
        case Check():
            return f"statistic {test.statistic:.4g}, {equation(test.p)}"
        case Anova():
            effect = f"η² = {test.eta2:.3f}, ω² = {test.omega2:.3f}"
            return f"F({test.df1:g}, {test.df2:g}) = {test.f:.6g}, {equation(test.p)}; {effect}"
        case Welch():
            return f"F({test.df1:g}, {test.df2:.2f}) = {test.f:.6g}, {equation(test.p)}"
        case Repeated():
            effect = f"η² {test.eta2_partial:.3f} partial, {test.eta2_generalized:.3f} generalized"
            return (
                f"F({test.df1:.2f}, {test.df2:.2f}) = {test.f:.6g}, {equation(test.p)}, over "
                f"{test.blocks} blocks; Greenhouse–Geisser ε = {test.epsilon:.3f}; {effect}"
            )


def plain(value: Any) -> Any:
    """Dictionaries, lists, numbers and text. Numbers that are not finite become None; a pair has its p
    in words too, an order its text."""
    if is_dataclass(value) and not isinstance(value, type):
        result = {f.name: plain(getattr(value, f.name)) for f in fields(value)}
        if isinstance(value, Untested):
            return {"untested": value.why}
        if isinstance(value, Pair):
            result["p_text"] = pair_p(value)
        if isinstance(value, GroupOrder):
            result["text"] = value.text()
        return result
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
