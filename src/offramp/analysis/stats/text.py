"""Numbers of an analysis as words, and as plain data for JSON."""

from __future__ import annotations

import math
import re
from dataclasses import fields, is_dataclass
from typing import Any

from offramp.analysis.stats.oneway import Anova, Check, Welch
from offramp.analysis.stats.order import GroupOrder
from offramp.analysis.stats.pairwise import FLOOR, Pair
from offramp.analysis.stats.repeated import Repeated
from offramp.analysis.stats.sample import Untested


def in_seeds(words: str) -> str:
    """Words of an analysis whose blocks are seeds: `seed 44 lacks joint`."""
    return re.sub(r"\bblock(s?)\b", r"seed\1", words)


def p_text(p: float, floored: bool = False) -> str:
    """`0.034`, `4.64e-96`; `< 1e-12` for a floored p."""
    if floored:
        return f"< {FLOOR:g}"
    if p == 0:
        return "< 1e-300"
    return f"{p:.3f}" if p >= 0.001 else f"{p:.2e}"


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
