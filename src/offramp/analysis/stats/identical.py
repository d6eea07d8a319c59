"""Groups that are identical by construction: stated, never tested, so merged before any test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from offramp.errors import OfframpError

Key = str
Values = Mapping[str, float]


def merge(
    values: Mapping[str, Values],
    keys: Mapping[str, Mapping[str, Key]],
    named: Sequence[Sequence[str]],
) -> tuple[list[tuple[tuple[str, ...], dict[str, float]]], tuple[str, ...]]:
    """Names that stand for the same values, with these by block; and what to say of it.

    values: by group and block.  keys: where each comes from; two groups are identical by construction
    when they agree in every block that both have. An empty key agrees with nothing.  named: sets of
    groups said to be identical. Raises OfframpError when the values of such groups differ.
    """
    family = {name: name for name in values}
    notes = []
    for a, b in combinations(sorted(values), 2):
        said = any(a in group and b in group for group in named)
        common = sorted(set(values[a]) & set(values[b]))
        agree = [k for k in common if _agree(keys, a, b, k)]
        if said or (agree and len(agree) == len(common)):
            _check(a, b, values, common)
            old, new = sorted((family[a], family[b]))[::-1]
            family = {name: new if root == old else root for name, root in family.items()}
        elif agree:
            notes.append(
                f"{a} and {b} come from the same place in {len(agree)} of {len(common)} blocks "
                f"({', '.join(agree)}): differences there are zero by construction"
            )
    merged = []
    for root in sorted(set(family.values())):
        names = tuple(sorted(name for name in values if family[name] == root))
        united = {block: v for name in names[::-1] for block, v in values[name].items()}
        merged.append((names, dict(sorted(united.items()))))
    return merged, tuple(notes)


def _agree(keys: Mapping[str, Mapping[str, Key]], a: str, b: str, block: str) -> bool:
    one, other = keys.get(a, {}).get(block, ""), keys.get(b, {}).get(block, "")
    return bool(one) and one == other


def _check(a: str, b: str, values: Mapping[str, Values], common: Sequence[str]) -> None:
    for block in common:
        one, other = values[a][block], values[b][block]
        if not math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12):
            raise OfframpError(
                f"'{a}' and '{b}' are said to be identical by construction but differ ({one:g} and "
                f"{other:g}); correct the values or what says so"
            )
