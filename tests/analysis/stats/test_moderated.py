"""Variances of pairs drawn toward their mean: the definition, and rates of false findings."""

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.error_rates import LIMIT, errors, lucks, multi_bootstrap, of_seeds, power, studies
from scipy import stats
from scipy.special import polygamma

from longer import long
from offramp.analysis.stats.pairwise import (
    Estimate,
    drawn,
    half_width,
    inverse_trigamma,
    moderated,
    paired_estimates,
)
from offramp.analysis.stats.sample import Group

FOUR_DF = np.full(28, 4.0)


def test_the_inverse_of_trigamma() -> None:
    values = np.geomspace(1e-6, 1e6, 25)
    assert polygamma(1, inverse_trigamma(values)) == pytest.approx(values)


def test_variances_that_differ_no_more_than_by_luck_are_drawn_as_far_as_may_be() -> None:
    own = np.random.default_rng(1).chisquare(4, 28) / 4
    own = np.sqrt(own) * 0.5 + 0.5  # less than by luck
    between, backing = drawn(own, FOUR_DF, 8)
    assert backing.tolist() == [2.0] * 28
    assert between == pytest.approx(np.maximum(own, (2 * own.mean() + own) / 3))


def test_how_far_follows_from_how_much_they_differ() -> None:
    """By hand: the excess of the variance of logarithms over trigamma is trigamma of half the prior's
    degrees of freedom (Smyth 2004)."""
    own = np.random.default_rng(2).chisquare(4, 28) / 4 * np.repeat((1.0, 9.0), 14)
    between, backing = drawn(own, FOUR_DF, 8)
    excess = np.log(own).var(ddof=1) - polygamma(1, 2.0)
    assert polygamma(1, backing[0] * 4 / 2) == pytest.approx(excess) and 0 < backing[0] < 2
    small = own < own.mean()
    assert (between[small] > own[small]).all() and between[~small].tolist() == own[~small].tolist()
    apart = drawn(own * np.repeat((1.0, 1e6), 14), FOUR_DF, 8)[1]
    assert apart.max() < 0.1  # next to nothing in common
    assert drawn(own, FOUR_DF, 3)[1].max() == 0.0 < drawn(own, FOUR_DF, 4)[1].max() <= 0.5


def test_only_pairs_over_enough_seeds_and_images_are_moderated() -> None:
    rng = np.random.default_rng(3)
    each = [Estimate(0.0, 5, float(v), 1e-6, 100) for v in rng.chisquare(4, 28) / 4]
    more = moderated(each, 8)
    assert all(e.df > 4 and e.between >= own.between for e, own in zip(more, each, strict=True))
    for other in (
        [replace(e, blocks=2) for e in each],
        [replace(e, images=0) for e in each],
        [replace(e, between=0.0) for e in each],
        each[:2],
    ):
        assert moderated(other, 8) == other
    assert moderated(each, 3) == [replace(e, backing=0.0) for e in each]
    assert replace(more[0], blocks=3).df == 2 * (1 + more[0].backing)  # in plans of other seeds


def test_pairs_of_a_sample_are_moderated_together() -> None:
    rng = np.random.default_rng(4)
    names, blocks = [f"s{k}" for k in range(8)], ("1", "2", "3", "4", "5")
    rows = {n: tuple((rng.random(300) < 0.7).astype(float) for _ in blocks) for n in names}
    groups = [Group((n,), tuple(map(np.mean, rows[n])), blocks, images=rows[n]) for n in names]
    both, alone = paired_estimates(groups), paired_estimates([replace(g, images=()) for g in groups])
    assert min(e.backing for e in both.values()) > 0 == max(e.backing for e in alone.values())


def most(draws: int) -> float:
    return float(0.05 + 3 * np.sqrt(0.05 * 0.95 / draws))


@pytest.mark.parametrize(
    ("groups", "seeds", "images", "draws"),
    [
        (8, 3, 200, 100),
        (8, 5, LIMIT, 400),
        (20, 3, LIMIT, 150),
        *long(
            (2, 5, 1000, 400), (4, 4, 1000, 400), (8, 4, 1000, 400), (8, 12, 200, 200), (20, 5, 200, 200)
        ),
    ],
)
def test_equal_strategies_are_told_apart_no_more_than_promised(
    groups: int, seeds: int, images: int, draws: int
) -> None:
    for name, rates in errors(groups, seeds, images, draws).items():
        assert rates["moderated"] <= most(draws), name


def test_one_variance_for_all_would_break_the_promise() -> None:
    """Control: pairs with an unsteady strategy, taken for as steady as the mean."""
    of = studies(np.random.default_rng(5), 400, lucks(8)["one x8"], 5, LIMIT)
    between = np.repeat(of.between.mean(axis=1, keepdims=True), 28, axis=1)
    half = half_width(np.array(0.05 / 28), between / 5, of.shared, np.full(28, 28.0))
    assert (np.abs(of.mean) > half).any(axis=1).mean() > 1.5 * most(400)


def test_the_multi_bootstrap_finds_too_often_with_five_seeds() -> None:
    """And gives the p of a normal test where there are many seeds."""
    generator = np.random.default_rng(7)
    luck = lucks(8)["even"]
    finds = [
        (multi_bootstrap(of_seeds(generator, luck, 5)[:, :, None], generator, 2000) < 0.05 / 28).any()
        for _ in range(40)
    ]
    assert np.mean(finds) > 0.4
    many = generator.normal(0, 1, (2, 60, 1)) + np.array([0.0, 0.35])[:, None, None]
    differences = many[0, :, 0] - many[1, :, 0]
    z = differences.mean() / differences.std() * np.sqrt(60)
    (p,) = multi_bootstrap(many, generator, 20_000)
    assert p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.02)


def test_it_finds_more() -> None:
    finds = power(5, LIMIT, 1.0, 200)
    assert finds["moderated"] > 2 * finds["own"] > 0
