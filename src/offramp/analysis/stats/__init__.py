"""The ways of testing whether groups differ, side by side, and which of them to rely on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from offramp.analysis.families import StrategyFamilies
from offramp.analysis.stats.anova import (
    Anova,
    Check,
    Repeated,
    Welch,
    levene,
    one_way,
    repeated,
    shapiro,
    welch,
)
from offramp.analysis.stats.pairwise import (
    ALPHA,
    Pairs,
    PairWatcher,
    games_howell,
    paired_differences,
    tukey,
)
from offramp.analysis.stats.sample import Columns, Floats, Group, Sample, Untested, sample
from offramp.analysis.stats.sequential import InterimAnalyses, sequential_differences
from offramp.analysis.stats.text import GroupOrder, order, rule
from offramp.errors import OfframpError, nearest

__all__ = [
    "Analysis",
    "Columns",
    "Group",
    "GroupOrder",
    "Sample",
    "Untested",
    "analyze",
    "analyze_by",
    "analyze_sample",
    "order",
    "rule",
    "sample",
]

ONE_WAY = "every value is independent of every other, residuals are normal, variances equal"
UNEQUAL = "every value is independent of every other, residuals are normal, variances may differ"
BLOCKS = (
    "values of one block belong together, blocks are independent, differences are normal; "
    "correlations between groups may differ"
)
CROSSED = (
    "blocks and images are both drawn at random; a difference varies with either, and every block "
    "answers the same images"
)
LOOKED = (
    "seeds were added after looking, by a rule that was fixed before: p and intervals of pairs are "
    "adjusted for every look, the overall test and the one-way analysis are not"
)
MOST_GROUPS = 100  # of a table: each pair is tested, some milliseconds a pair
NOT_ASKED = Untested("not asked for")
Basis = Literal["over blocks and images", "over blocks", "one-way"]


@dataclass(frozen=True)
class Mean:
    """A group's mean and sample standard deviation (None for one value)."""

    group: str
    n: int
    mean: float
    sd: float | None


@dataclass(frozen=True)
class Unequal:
    """The one-way analysis that lets variances differ."""

    welch: Welch | Untested
    pairs: Pairs
    order: GroupOrder
    assumes: str = UNEQUAL


@dataclass(frozen=True)
class OneWay:
    """The paper's way. unequal: where Levene's test rejects equal variances, else None."""

    anova: Anova | Untested
    shapiro: Check | Untested
    levene: Check | Untested
    pairs: Pairs
    order: GroupOrder
    unequal: Unequal | None
    assumes: str = ONE_WAY


@dataclass(frozen=True)
class OverBlocks:
    """Repeated measures over blocks, and Holm-adjusted paired differences."""

    anova: Repeated | Untested
    pairs: Pairs
    order: GroupOrder
    assumes: str = BLOCKS


@dataclass(frozen=True)
class Crossed:
    """Holm-adjusted paired differences over blocks and images. images: how many."""

    pairs: Pairs
    order: GroupOrder
    images: int
    assumes: str = CROSSED


@dataclass(frozen=True)
class Analysis:
    """What was found.

    Attributes:
        default: Which of the ways to rely on.
        over_blocks: None without blocks.
        crossed: None where nothing is known of single images.
        notes: What a reader must know, as values left out and groups that are identical by
            construction.
    """

    means: tuple[Mean, ...]
    default: Basis
    over_blocks: OverBlocks | Untested | None
    one_way: OneWay | Untested
    notes: tuple[str, ...]
    crossed: Crossed | Untested | None = None

    @property
    def believed(self) -> Crossed | OverBlocks | OneWay | Untested | None:
        """The way to rely on."""
        ways = {"over blocks and images": self.crossed, "over blocks": self.over_blocks}
        return ways.get(self.default, self.one_way)

    @property
    def pairs(self) -> Pairs:
        """All pairs by the way to rely on; none where it could not be made."""
        way = self.believed
        return () if way is None or isinstance(way, Untested) else way.pairs


def analyze(frame: pd.DataFrame, columns: Columns, alpha: float = ALPHA) -> Analysis:
    """Compare the groups of a data frame.

    Where there are blocks, the default is repeated measures over them: values of one block share their
    randomness (a seed, a trained backbone), which the one-way analysis takes for independent.

    Raises:
        OfframpError: As `sample` does.
    """
    return analyze_sample(sample(frame, columns), alpha)


def analyze_by(
    frame: pd.DataFrame,
    columns: Columns,
    by: Sequence[str] = (),
    *,
    families: StrategyFamilies | None = None,
    alpha: float = ALPHA,
    watch: PairWatcher = None,
) -> Iterator[tuple[dict[str, str], Analysis]]:
    """An analysis for each combination of values of `by`, in ascending order.

    Args:
        families: Compare the core strategies, and each hybrid with its parents, apart. Nothing is
            adjusted for the number of analyses.
        watch: Called with how many pairs of a one-way analysis are tested, which take the longest.
    """
    for name in by:
        if name not in frame.columns:
            hint = nearest(name, (str(c) for c in frame.columns))
            raise OfframpError(f"there is no column '{name}'{hint}")
    for where, part in _cells(frame, by):
        whole = sample(part, columns)
        if len(whole.groups) > MOST_GROUPS:
            raise OfframpError(
                f"column '{columns.group}' has {len(whole.groups):,} groups, and at most {MOST_GROUPS} "
                "are compared; use some rows only, or another column"
            )
        if families is None:
            yield where, analyze_sample(whole, alpha, watch=watch)
            continue
        members_of = families.among([name for group in whole.groups for name in group.names])
        if not members_of:
            raise OfframpError(
                f"column '{columns.group}' holds no two of the paper's strategies; leave out --families"
            )
        for family, members in members_of.items():
            few = whole.keep(members)
            yield {**where, "family": family}, analyze_sample(few, alpha, watch=watch)


def _cells(frame: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    if not by:
        yield {}, frame
        return
    labels = pd.DataFrame({b: frame[b].map(str).where(frame[b].notna(), "–") for b in by})
    cells = [
        (tuple(map(str, texts)), rows.index)
        for texts, rows in labels.reset_index(drop=True).groupby(list(by))
    ]
    for texts, index in sorted(cells, key=lambda cell: [_rank(text) for text in cell[0]]):
        yield dict(zip(by, texts, strict=True)), frame.iloc[index]


def _rank(text: str) -> tuple[bool, float, str]:
    """Sorts numbers by their size, before other words."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def analyze_sample(
    whole: Sample,
    alpha: float = ALPHA,
    *,
    both: bool = True,
    looks: InterimAnalyses | None = None,
    watch: PairWatcher = None,
) -> Analysis:
    """Compare the groups of a sample: over blocks and images, where groups have images.

    Args:
        both: False leaves out the one-way analysis where it is not the default, as it takes the
            longest for many groups.
        looks: Where blocks were added until pairs were decided; then p and intervals of pairs over
            blocks are adjusted for them.
        watch: As in `analyze_by`.
    """
    means = tuple(_mean(group) for group in whole.groups)
    notes = [*whole.notes, *([LOOKED] if looks is not None else [])]
    notes += [
        f"{group.label}: identical by construction, never tested against each other"
        for group in whole.groups
        if len(group.names) > 1
    ]
    by_image = whole.blocked and any(group.images for group in whole.groups)
    default: Basis = "over blocks" if whole.blocked else "one-way"
    default = "over blocks and images" if by_image else default
    if obstacle := _obstacle(whole) or _lonely(whole, whole.blocked):
        over = obstacle if whole.blocked else None
        reason = _obstacle(whole) or _lonely(whole, False) or obstacle
        return Analysis(means, default, over, reason, tuple(notes), over if by_image else None)
    groups = tuple(group for group in whole.groups if len(group.values) > 1)
    notes += [
        f"{group.label} has one value and is left out of every test"
        for group in whole.groups
        if len(group.values) < 2
    ]
    notes += [f"{g.label} is constant" for g in groups if len(set(g.values)) == 1]
    over_blocks, crossed = None, None
    if whole.blocked:
        over_blocks, more = _over_blocks([replace(g, images=()) for g in groups], alpha, looks)
        notes += more
    if by_image:
        pairs = _paired(groups, alpha, looks)
        by_mean = order([g.label for g in groups], pairs, alpha)
        crossed = Crossed(pairs, by_mean, len(groups[0].images[0]))
    if len(groups) == 2:
        notes.append("with two groups the overall test is the test of their difference")
    one_way = _one_way(groups, alpha, watch) if both or over_blocks is None else NOT_ASKED
    return Analysis(means, default, over_blocks, one_way, tuple(notes), crossed)


def _obstacle(whole: Sample) -> Untested | None:
    """Why nothing at all can be tested."""
    if estimated := sum(group.estimated for group in whole.groups):
        some = "1 value is an estimate" if estimated == 1 else f"{estimated} values are estimates"
        return Untested(f"estimated, not tested ({some})", estimated=True)
    if not whole.groups:
        return Untested("there are no values")
    if len(whole.groups) < 2:
        only = whole.groups[0]
        return Untested(
            "all groups are identical by construction"
            if len(only.names) > 1
            else f"there is one group, {only.label}; a comparison needs two"
        )
    return None


def _lonely(whole: Sample, blocked: bool) -> Untested | None:
    """Why there are too few values, in the words of the way over blocks or of the one-way analysis."""
    if sum(len(group.values) > 1 for group in whole.groups) > 1:
        return None
    several = any(len(group.values) > 1 for group in whole.groups)
    if blocked and not several:
        few = "there is no more than one block"
    elif several:
        few = f"only one group has more than one {'block' if blocked else 'value'}"
    else:
        few = "there is no more than one value a group"
    return Untested(f"{few}, so nothing says how much values vary")


def _mean(group: Group) -> Mean:
    sd = float(group.array.std(ddof=1)) if len(group.values) > 1 else None
    return Mean(group.label, len(group.values), group.mean, sd)


def _one_way(groups: Sequence[Group], alpha: float, watch: PairWatcher) -> OneWay:
    labels, arrays = [g.label for g in groups], [g.array for g in groups]
    variances = levene(arrays)
    unequal = None
    if isinstance(variances, Check) and variances.p < alpha:
        pairs = games_howell(labels, arrays, alpha, watch)
        unequal = Unequal(welch(arrays), pairs, order(labels, pairs, alpha))
    pairs = tukey(labels, arrays, alpha, watch)
    return OneWay(
        one_way(arrays), shapiro(arrays), variances, pairs, order(labels, pairs, alpha), unequal
    )


def _over_blocks(
    groups: Sequence[Group], alpha: float, looks: InterimAnalyses | None
) -> tuple[OverBlocks, list[str]]:
    table, notes = _table(groups)
    pairs = _paired(groups, alpha, looks)
    return OverBlocks(repeated(table), pairs, order([g.label for g in groups], pairs, alpha)), notes


def _paired(groups: Sequence[Group], alpha: float, looks: InterimAnalyses | None) -> Pairs:
    if looks is None:
        return paired_differences(groups, alpha)
    return sequential_differences(groups, alpha, looks)


def _table(groups: Sequence[Group]) -> tuple[Floats, list[str]]:
    """Values of the blocks that hold every group, [blocks, groups], and what is missing elsewhere."""
    values: list[Mapping[str, float]] = [dict(zip(g.blocks, g.values, strict=True)) for g in groups]
    blocks = sorted({block for group in groups for block in group.blocks})
    notes, whole = [], []
    for block in blocks:
        absent = [g.label for g, v in zip(groups, values, strict=True) if block not in v]
        if absent:
            notes.append(
                f"block {block} lacks {', '.join(absent)}: left out of the overall test; "
                "pairs use the blocks that both groups have"
            )
        else:
            whole.append(block)
    table = np.array([[v[block] for v in values] for block in whole], dtype=float)
    return table.reshape(len(whole), len(groups)), notes
