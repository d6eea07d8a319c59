"""Differences over seeds and test images: the definition, another road to it, and error rates."""

import numpy as np
import pytest
from scipy import stats

from longer import long
from offramp.analysis.stats.pairwise import (
    Estimate,
    Pair,
    crossed,
    half_width,
    over_blocks,
    paired_differences,
)
from offramp.analysis.stats.sample import Group

SIZES = [
    *[(3, 200), (12, 200)],
    *long((5, 1000), (3, 1000), (5, 200), (5, 10000), (12, 1000)),
]


def differences(
    generator: np.random.Generator, draws: int, seeds: int, images: int, luck: float, taste: float
) -> np.ndarray:
    """Right or wrong of two equal strategies, one less the other, [draws, seeds, images].

    An image is as hard for both, but each has its own taste in images, which all its seeds share, and
    luck of its own with a seed."""
    hard = 1.2 + 1.5 * generator.normal(size=(draws, 1, images))
    right = [
        hard
        + taste * generator.normal(size=(draws, 1, images))
        + luck * generator.normal(size=(draws, seeds, 1))
        + 0.6 * generator.logistic(size=(draws, seeds, images))
        > 0
        for _ in range(2)
    ]
    return right[0].astype(float) - right[1]


def p_of(estimate: Estimate) -> float:
    return estimate.p(estimate.mean)


@pytest.mark.parametrize(("seeds", "images"), SIZES)
@pytest.mark.parametrize(("luck", "taste"), [(0.0, 0.8), *long((0.1, 0.8)), (0.4, 0.3)])
def test_equal_strategies_are_told_apart_no_more_than_promised(
    seeds: int, images: int, luck: float, taste: float
) -> None:
    draws = max(60, min(400, 1_000_000 // (seeds * images)))
    actual = differences(np.random.default_rng(seeds + images), draws, seeds, images, luck, taste)
    false = float(np.mean([p_of(crossed(first)) < 0.05 for first in actual]))
    assert false <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    if (luck, taste, seeds) == (0.0, 0.8, 12):  # control: images taken for all there are
        alone = np.mean([p_of(over_blocks(first.mean(axis=1))) < 0.05 for first in actual])
        assert alone > 0.2


def worst(seeds: int, alpha: float, satterthwaite: bool = False, points: int = 20_000) -> float:
    """The highest rate of false findings over all mixtures of seeds' and images' variance, where there
    are many images: their part is then as good as known, that of seeds is chi-squared."""
    chi = stats.chi2.ppf((np.arange(points) + 0.5) / points, seeds - 1) / (seeds - 1)
    actual = []
    for share in np.linspace(0.02, 1, 50):
        by_seed, by_image = share * chi, np.full(len(chi), 1 - share)
        half = half_width(np.full(len(chi), alpha), by_seed, by_image, np.full(len(chi), seeds - 1.0))
        if satterthwaite:
            whole = by_seed + by_image
            half = stats.t.isf(alpha / 2, (seeds - 1) * (whole / by_seed) ** 2) * np.sqrt(whole)
        actual.append(float((2 * stats.norm.sf(half)).mean()))
    return max(actual)


@pytest.mark.parametrize("seeds", [2, 3, 5, *long(4, 8, 12)])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 28, 0.05 / 140])
def test_no_mixture_of_luck_breaks_the_promise(seeds: int, alpha: float) -> None:
    """At the levels of many pairs too, where degrees of freedom in between find much too often."""
    assert worst(seeds, alpha) <= 1.02 * alpha


def test_the_usual_degrees_of_freedom_would_break_it() -> None:
    assert worst(3, 0.05, satterthwaite=True, points=4000) > 0.07
    assert worst(5, 0.05 / 140, satterthwaite=True, points=4000) > 3 * 0.05 / 140


@pytest.mark.parametrize("seeds", [3, *long(5)])
def test_eight_equal_strategies_are_told_apart_no_more_than_promised(seeds: int) -> None:
    """All 28 pairs together, with much luck of seeds."""
    generator = np.random.default_rng(seeds)
    draws, false = 150, 0
    for _ in range(draws):
        hard = 1.2 + 1.5 * generator.normal(size=(1, 400))
        taste = 0.1 * generator.normal(size=(8, 1, 400))
        luck = 0.4 * generator.normal(size=(8, seeds, 1))
        right = (hard + taste + luck + 0.6 * generator.logistic(size=(8, seeds, 400)) > 0).astype(float)
        names, blocks = [f"s{k}" for k in range(8)], [str(k) for k in range(seeds)]
        groups = [
            Group((n,), tuple(rows.mean(axis=1)), tuple(blocks), images=tuple(rows))
            for n, rows in zip(names, right, strict=True)
        ]
        pairs = paired_differences(groups, 0.05)
        false += any(isinstance(p, Pair) and p.p < 0.05 for p in pairs)
    assert false / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)


def test_p_is_the_level_of_the_interval_that_ends_there() -> None:
    estimate = Estimate(0.02, 4, 0.015**2, 0.006**2)
    assert estimate.half(estimate.p(0.02)) == pytest.approx(0.02)
    assert Estimate(0.02, 4, 0.0, 0.006**2).p(0.02) == pytest.approx(2 * stats.norm.sf(0.02 / 0.006))


def test_seeds_alone_are_students_t() -> None:
    generator = np.random.default_rng(3)
    values = generator.normal(size=(5, 1)) + np.zeros((1, 40))  # images differ in nothing
    estimate = crossed(values)
    t, p = stats.ttest_1samp(values[:, 0], 0.0)
    assert (estimate.mean / estimate.error, p_of(estimate)) == (
        pytest.approx(t),
        pytest.approx(p, rel=1e-6),
    )
    assert p_of(over_blocks(values[:, 0])) == pytest.approx(p)


def test_the_error_is_that_of_variance_components() -> None:
    """Mean squares written out, for a table without replication."""
    values = np.random.default_rng(4).normal(size=(4, 50)) + np.arange(4)[:, None] + np.arange(50) / 9
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    a, b = 50 * rows.var(ddof=1), 4 * columns.var(ddof=1)
    total = ((values - values.mean()) ** 2).sum()
    e = (total - 3 * a - 49 * b) / (3 * 49)
    assert crossed(values).error ** 2 == pytest.approx((a + b - e) / 200)


def test_what_is_detectable_is_found_that_often() -> None:
    generator = np.random.default_rng(5)
    seeds, draws = 5, 4000
    sd = 0.8
    true = Estimate(0.0, seeds, sd**2).detectable(comparisons=1)
    actual = generator.normal(true, sd, size=(draws, seeds))
    power = np.mean([p_of(over_blocks(first)) < 0.05 for first in actual])
    assert 0.77 <= power <= 0.9  # t is not quite noncentral t: never less than promised
    needed = Estimate(0.0, seeds, sd**2).blocks_for(true, comparisons=1)
    assert needed == seeds
    assert Estimate(0.0, seeds, sd**2, shared=1.0).blocks_for(0.5, 1) is None


def test_pairs_over_images_are_adjusted_as_those_over_seeds() -> None:
    generator = np.random.default_rng(6)
    names, blocks = ("a", "b", "c"), ("1", "2", "3", "4")
    images = {(n, b): (generator.random(300) < 0.7).astype(float) for n in names for b in blocks}
    rows = {n: tuple(images[n, b] for b in blocks) for n in names}
    groups = [Group((n,), tuple(map(np.mean, rows[n])), blocks, images=rows[n]) for n in names]
    pairs = paired_differences(groups, 0.05)
    assert [(p.a, p.b) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    for pair in pairs:
        assert isinstance(pair, Pair)
        first = np.array([images[pair.a, b] - images[pair.b, b] for b in blocks])
        estimate = crossed(first)
        assert pair.difference == pytest.approx(estimate.mean)
        assert p_of(estimate) <= pair.p <= 3 * p_of(estimate) + 1e-12
        assert pair.detectable == pytest.approx(estimate.detectable(3))
        assert pair.high - pair.difference == pytest.approx(estimate.half(0.05 / 3))
