"""The test that a policy is within a margin of the reference: its size, its power, and who must fail."""

import numpy as np
import pytest

from offramp.policy import noninferior as test

LEVEL = 0.05


@pytest.mark.parametrize(("rows", "margin"), [(60, 0.05), (300, 0.01), (300, 0.02), (1500, 0.01)])
def test_its_size_is_the_level_at_every_nuisance(rows: int, margin: float) -> None:
    """By enumeration over both counts, at nuisances between those of the search for c."""
    most = test.most_lost(rows, margin, test.critical(rows, margin, LEVEL))
    sizes = [test.probability(most, rows, q + margin, q) for q in np.linspace(0, (1 - margin) / 2, 997)]
    assert 0.02 < max(sizes) <= LEVEL + 1e-4
    loose = test.most_lost(rows, margin, 1.2)  # the control: a smaller c has a larger size
    assert test.probability(loose, rows, 0.03 + margin, 0.03) > LEVEL


def test_probabilities_are_those_of_all_counts() -> None:
    rows, margin, lost, won = 25, 0.1, 0.2, 0.1
    most = test.most_lost(rows, margin, 1.0)
    draws = np.random.default_rng(0).multinomial(rows, [lost, won, 1 - lost - won], size=200_000)
    z = test.score(draws[:, 0], draws[:, 1], rows, margin)
    assert test.probability(most, rows, lost, won) == pytest.approx((z <= -1.0).mean(), abs=0.004)


@pytest.mark.parametrize(
    ("rows", "lost", "won", "least"), [(2500, 0.03, 0.03, 0.62), (1000, 0.004, 0.002, 0.82)]
)
def test_it_has_power(rows: int, lost: float, won: float, least: float) -> None:
    most = test.most_lost(rows, 0.01, test.critical(rows, 0.01, LEVEL))
    assert test.probability(most, rows, lost, won) >= least


def test_equal_answers_are_certified_on_few_hundred_images_and_on_no_fewer() -> None:
    rows = test.rows_needed(0.01, LEVEL)
    assert 250 < rows < 400
    assert not test.certified(0, 0, 200, 0.01, LEVEL)
    assert test.certified(0, 0, rows, 0.01, LEVEL)


def bounded(rng: np.random.Generator, rows: int, mean: float) -> np.ndarray:
    """Losses of several labels: many values in [-1, 1], of this mean."""
    return np.clip(mean + rng.uniform(-0.4, 0.4, rows), -1, 1)


def shares(rng: np.random.Generator, rows: int, mean: float) -> np.ndarray:
    """Losses of single images: 1 is lost, -1 is won."""
    return rng.choice([1.0, -1.0, 0.0], rows, p=[mean + 0.02, 0.02, 0.98 - 0.02 - mean])


def grouped(rng: np.random.Generator, rows: int, mean: float) -> np.ndarray:
    """Means of patients of five equal images."""
    return shares(rng, rows // 5, mean)


@pytest.mark.parametrize("draw", [bounded, shares, grouped])
def test_a_bet_at_the_boundary_wins_in_few_draws(draw) -> None:  # type: ignore[no-untyped-def]
    rng, margin = np.random.default_rng(1), 0.02
    bet = test.best_bet(draw(rng, 2000, 0.0), margin)
    assert 0 < bet < 1 / (1 - margin)
    won = [test.wealth(draw(rng, 1000, margin), margin, bet, seed) >= 1 / LEVEL for seed in range(1000)]
    assert np.mean(won) <= LEVEL + 0.015
    assert test.wealth(draw(rng, 20_000, -0.01), margin, bet) >= 1 / LEVEL  # and it can win


def test_groups_taken_for_single_images_break_the_level() -> None:
    """Why images of a patient are one observation: the control of `grouped`."""
    rng, margin = np.random.default_rng(2), 0.02
    c = test.critical(1000, margin, LEVEL)
    refused = []
    for _ in range(1000):
        each = np.repeat(grouped(rng, 1000, margin), 5)
        lost, won = (each == 1).sum(), (each == -1).sum()
        refused.append(test.score(lost, won, 1000, margin) <= -c)
    assert np.mean(refused) > 1.4 * LEVEL


def test_a_rule_that_chooses_on_calibration_what_it_certifies_is_wrong_too_often() -> None:
    """200 policies at the boundary: the best of them on the same images is certified nearly always."""
    rng, rows, margin = np.random.default_rng(3), 1000, 0.02
    c = test.critical(rows, margin, LEVEL)
    cheated, fixed = [], []
    for _ in range(200):
        counts = rng.multinomial(rows, [0.02 + margin, 0.02, 0.96 - margin], size=200)
        z = test.score(counts[:, 0], counts[:, 1], rows, margin)
        cheated.append(z.min() <= -c)
        fixed.append(z[0] <= -c)
    assert np.mean(cheated) > 0.9
    assert np.mean(fixed) <= LEVEL + 0.04
