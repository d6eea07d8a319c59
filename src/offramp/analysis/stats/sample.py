"""Rows of a data frame as groups of values, in an order that does not depend on that of the rows.

Groups that are identical by construction are stated, never tested: they are merged before any test.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offramp.errors import OfframpError, nearest

Floats = NDArray[np.float64]
TINY = 1e-140  # squares of what is smaller vanish


@dataclass(frozen=True)
class Untested:
    """A test that was not made."""

    why: str  # one clause, fit to be printed after a colon
    estimated: bool = False  # whether that is because values are estimates and no measurements


def same(values: Floats, scale: float | None = None) -> bool:
    """Whether values differ by no more than rounding. scale: the magnitude of the numbers that they were
    computed from; None: their own."""
    if values.size == 0:
        return True
    if scale is None:
        scale = float(np.abs(values).max())
    return bool(np.ptp(values) <= max(64 * np.finfo(float).eps * scale, TINY))


HUGE = 1e100  # squares of what is larger overflow


@dataclass(frozen=True)
class Columns:
    """Names of columns.

    Attributes:
        value: A number.
        group: What is compared.
        block: What pairs the values, as the seed.
        same: A key of where a value comes from, so that groups with equal keys are identical by
            construction.
        measured: Whether a value was measured (true) or estimated (false).
    """

    value: str
    group: str
    block: str | None = None
    same: str | None = None
    measured: str | None = None

    def named(self) -> tuple[str, ...]:
        names = (self.value, self.group, self.block, self.same, self.measured)
        return tuple(name for name in names if name is not None)


@dataclass(frozen=True)
class Group:
    """Values of one group; of several names where these are identical by construction."""

    names: tuple[str, ...]
    values: tuple[float, ...]
    blocks: tuple[str, ...] = ()  # the block of each value, in ascending order; empty without blocks
    estimated: int = 0  # how many values are estimates and no measurements
    # of each value what it is the mean of, on each test image, [N]; empty where that is not known. All
    # groups of a sample have them, or none
    images: tuple[Floats, ...] = field(default=(), compare=False, repr=False)

    @property
    def label(self) -> str:
        return " = ".join(self.names)

    @property
    def array(self) -> Floats:
        return np.array(self.values, dtype=float)

    @property
    def mean(self) -> float:
        return float(self.array.mean())


@dataclass(frozen=True)
class Sample:
    """Groups from the highest mean to the lowest (ties by name), and what to know of them."""

    groups: tuple[Group, ...]
    blocked: bool
    notes: tuple[str, ...]

    def keep(self, names: Collection[str]) -> Sample:
        """The sample of those groups alone."""
        groups = (replace(g, names=tuple(n for n in g.names if n in names)) for g in self.groups)
        return replace(self, groups=tuple(group for group in groups if group.names))


ValuesOnImages = Mapping[tuple[str, str], Floats]
"""What was measured on each test image, [N], by group and block. Its mean is the group's value there."""


def sample(frame: pd.DataFrame, columns: Columns, images: ValuesOnImages | None = None) -> Sample:
    """Read a sample.

    Values that are missing or not finite are left out and noted. images: what was measured on each
    image, the same ones in every block.

    Raises:
        OfframpError: For a missing column, a value that is not a number, an empty group or block,
            two values of one group in one block, and groups with the same keys but different
            values.
    """
    for name in columns.named():
        if name not in frame.columns:
            hint = nearest(name, (str(c) for c in frame.columns))
            raise OfframpError(f"there is no column '{name}'{hint}")
    rows = _rows(frame, columns)
    finite = (rows["value"].abs() < HUGE).to_numpy()
    notes = _lost(rows[~finite])
    groups = _groups(rows[finite], columns)
    keys = {} if columns.same is None else _keys(rows[finite], columns.block is not None)
    merged, more = merge({g.names[0]: _by_block(g) for g in groups}, keys)
    united = tuple(
        Group(
            names,
            tuple(values.values()),
            tuple(values) if columns.block is not None else (),
            sum(g.estimated for g in groups if g.names[0] in names),
            # A name may lack a block that its twin has.
            tuple(next(images[n, block] for n in names if (n, block) in images) for block in values)
            if images
            else (),
        )
        for names, values in merged
    )
    return Sample(
        tuple(sorted(united, key=lambda g: (-g.mean, g.label))),
        columns.block is not None,
        (*notes, *more),
    )


def _rows(frame: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Columns value (float), group, block, same (text) and measured (bool)."""
    try:
        values = pd.to_numeric(frame[columns.value]).astype(float)
    except (TypeError, ValueError) as error:
        raise OfframpError(f"column '{columns.value}' must hold numbers; {error}") from None
    rows = pd.DataFrame({"value": values.to_numpy(dtype=float, na_value=np.nan)})
    for name, column in (("group", columns.group), ("block", columns.block)):
        rows[name] = "" if column is None else _labels(frame[column], column)
    same = None if columns.same is None else frame[columns.same]
    rows["same"] = "" if same is None else same.map(str).where(same.notna(), "").to_numpy()
    measured = None if columns.measured is None else frame[columns.measured]
    rows["measured"] = True if measured is None else _truth(measured, str(columns.measured))
    return rows


def _labels(column: pd.Series, name: str) -> list[str]:
    count = int(column.isna().sum()) + sum(not str(value).strip() for value in column)
    if count:
        raise OfframpError(
            f"column '{name}' is empty in {count} of {len(column)} rows; fill it or leave them out"
        )
    return [str(value) for value in column]


def _truth(column: pd.Series, name: str) -> list[bool]:
    words = {"true": True, "1": True, "yes": True, "1.0": True}
    words |= {"false": False, "0": False, "no": False, "0.0": False}
    texts = [str(value).strip().lower() for value in column]
    for text in texts:
        if text not in words:
            raise OfframpError(f"column '{name}' holds '{text}'; write true or false")
    return [words[text] for text in texts]


def _lost(rows: pd.DataFrame) -> tuple[str, ...]:
    if rows.empty:
        return ()
    pairs = zip(rows["group"], rows["block"], strict=True)
    places = sorted({group if block == "" else f"{group} in {block}" for group, block in pairs})
    single = len(rows) == 1
    are, were = ("value is", "was") if single else ("values are", "were")
    return (f"{len(rows)} {are} missing or not finite and {were} left out: {', '.join(places)}",)


def _groups(rows: pd.DataFrame, columns: Columns) -> list[Group]:
    ordered = rows.sort_values(["group", "block", "value"], kind="stable")
    groups = []
    for name, part in ordered.groupby("group", sort=True):
        blocks = tuple(part["block"]) if columns.block is not None else ()
        twice = part["block"][part["block"].duplicated()]
        if columns.block is not None and len(twice):
            raise OfframpError(
                f"{columns.group} '{name}' has several values for {columns.block} {twice.iloc[0]}; "
                "name the columns that tell them apart with --by, or average them first"
            )
        estimated = int((~part["measured"]).sum())
        groups.append(Group((str(name),), tuple(part["value"]), blocks, estimated))
    return groups


def _by_block(group: Group) -> dict[str, float]:
    """Values by block; by their rank where there are no blocks."""
    blocks = group.blocks or tuple(f"{i:09d}" for i in range(len(group.values)))
    return dict(zip(blocks, group.values, strict=True))


def _keys(rows: pd.DataFrame, blocked: bool) -> dict[str, dict[str, PairKey]]:
    """Keys by group and block; without blocks, by the rank of their values."""
    keys: dict[str, dict[str, PairKey]] = {}
    for name, part in rows.sort_values(["block", "value", "same"]).groupby("group", sort=True):
        blocks = list(part["block"]) if blocked else [f"{i:09d}" for i in range(len(part))]
        keys[str(name)] = dict(zip(blocks, part["same"], strict=True))
    return keys


PairKey = str
Values = Mapping[str, float]


def merge(
    values: Mapping[str, Values], keys: Mapping[str, Mapping[str, PairKey]]
) -> tuple[list[tuple[tuple[str, ...], dict[str, float]]], tuple[str, ...]]:
    """Names that stand for the same values, with these by block; and what to say of it.

    Args:
        values: By group and block.
        keys: Where each comes from; two groups are identical by construction when they agree in
            every block that both have. An empty key agrees with nothing.

    Raises:
        OfframpError: When the values of such groups differ.
    """
    family = {name: name for name in values}
    notes = []
    for a, b in combinations(sorted(values), 2):
        common = sorted(set(values[a]) & set(values[b]))
        agree = [k for k in common if _agree(keys, a, b, k)]
        both = ([n for n in values if family[n] == family[x]] for x in (a, b))
        if agree and all(_agree_where_both_are(values, keys, x, y) for x, y in product(*both)):
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


def _agree_where_both_are(
    values: Mapping[str, Values], keys: Mapping[str, Mapping[str, PairKey]], a: str, b: str
) -> bool:
    common = values[a].keys() & values[b].keys()
    return a == b or all(_agree(keys, a, b, block) for block in common)


def _agree(keys: Mapping[str, Mapping[str, PairKey]], a: str, b: str, block: str) -> bool:
    first, second = keys.get(a, {}).get(block, ""), keys.get(b, {}).get(block, "")
    return bool(first) and first == second


def _check(a: str, b: str, values: Mapping[str, Values], common: Sequence[str]) -> None:
    for block in common:
        first, second = values[a][block], values[b][block]
        if not math.isclose(first, second, rel_tol=1e-9, abs_tol=1e-12):
            raise OfframpError(
                f"'{a}' and '{b}' are said to be identical by construction but differ ({first:g} and "
                f"{second:g}); correct the values or what says so"
            )
