"""Repeated measures and paired differences: published values and other implementations."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.linalg import helmert

from longer import long
from offramp.analysis.stats.anova import Repeated, epsilon, f_over_blocks, repeated
from offramp.analysis.stats.pairwise import Pair, UntestedPair, holm, paired_differences
from offramp.analysis.stats.sample import Group

# Data of the example in pingouin's documentation of `epsilon`, which prints 0.5587754577585018.
PINGOUIN = np.array(
    [[2.2, 1.1, 8.2], [3.1, 2.5, 4.5], [4.3, 4.1, 3.4], [4.1, 5.2, 6.2], [7.2, 6.4, 7.2]]
)
# Maxwell and Delaney (2004), Designing Experiments and Analyzing Data, Table 11.5: children by age.
MAXWELL = np.array(
    [
        *([108, 96, 110, 122], [103, 117, 127, 133], [96, 107, 106, 107], [84, 85, 92, 99]),
        *([118, 125, 125, 116], [110, 107, 96, 91], [129, 128, 123, 128], [90, 84, 101, 113]),
        *([84, 104, 100, 88], [96, 100, 103, 105], [105, 114, 105, 112], [113, 117, 132, 130]),
    ],
    dtype=float,
)


def by_contrasts(table: np.ndarray) -> float:
    """ε as the eigenvalues of the covariance of orthonormal contrasts say, another road to it."""
    contrasts = helmert(table.shape[1]) @ np.cov(table.T) @ helmert(table.shape[1]).T
    roots = np.linalg.eigvalsh(contrasts)
    return float(roots.sum() ** 2 / (len(roots) * (roots**2).sum()))


def test_epsilon_is_the_published_one() -> None:
    np.testing.assert_allclose(epsilon(PINGOUIN), 0.5587754577585018, rtol=1e-12)
    # Maxwell and Delaney print F = 3.03 and ε = .61 for their table.
    test = repeated(MAXWELL)
    assert isinstance(test, Repeated)
    assert round(test.f, 2) == 3.03
    assert round(test.epsilon, 2) == 0.61
    # pingouin 0.7.0: rm_anova(..., correction=True), columns p_GG_corr, eps, np2, ng2.
    printed = (0.07478740185865222, 0.6095444968046158, 0.21579358874120408, 0.06011762143323895)
    got = (test.p, test.epsilon, test.eta2_partial, test.eta2_generalized)
    np.testing.assert_allclose(got, printed, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 5), (5, 5), (3, 9), (12, 4), (30, 2)])
def test_epsilon_agrees_with_eigenvalues_of_contrasts(shape: tuple[int, int]) -> None:
    table = np.random.default_rng(1).normal(size=shape) * np.arange(1, shape[1] + 1)
    np.testing.assert_allclose(epsilon(table), by_contrasts(table), rtol=1e-9)
    assert 1 / (shape[1] - 1) <= epsilon(table) <= 1


@pytest.mark.parametrize("table", [PINGOUIN, MAXWELL, np.random.default_rng(2).normal(size=(5, 7))])
def test_f_agrees_with_statsmodels_and_p_with_its_correction(table: np.ndarray) -> None:
    from statsmodels.stats.anova import AnovaRM

    n, k = table.shape
    rows = [(b, g, table[b, g]) for b in range(n) for g in range(k)]
    frame = pd.DataFrame(rows, columns=["block", "group", "y"])
    other = AnovaRM(frame, "y", "block", within=["group"]).fit().anova_table.iloc[0]
    test = repeated(table)
    assert isinstance(test, Repeated)
    np.testing.assert_allclose(test.f, other["F Value"], rtol=1e-6)
    np.testing.assert_allclose(test.p_uncorrected, other["Pr > F"], rtol=1e-6)
    e = by_contrasts(table)
    np.testing.assert_allclose(test.df1, e * (k - 1), rtol=1e-6)
    np.testing.assert_allclose(test.df2, e * (k - 1) * (n - 1), rtol=1e-6)
    corrected = stats.f.sf(other["F Value"], e * (k - 1), e * (k - 1) * (n - 1))
    np.testing.assert_allclose(test.p, corrected, rtol=1e-6)


def test_effect_sizes_are_shares_of_sums_of_squares() -> None:
    test = repeated(MAXWELL)
    assert isinstance(test, Repeated)
    # Maxwell and Delaney: sums of squares 552 between ages, 2006 residual; 6624 between children.
    np.testing.assert_allclose(test.eta2_partial, 552 / (552 + 2006), atol=1e-6)
    np.testing.assert_allclose(test.eta2_generalized, 552 / (552 + 2006 + 6624), atol=1e-6)


def test_two_groups_are_the_paired_t_test() -> None:
    test = repeated(MAXWELL[:, :2])
    other = stats.ttest_rel(MAXWELL[:, 0], MAXWELL[:, 1])
    assert isinstance(test, Repeated)
    assert test.epsilon == 1
    np.testing.assert_allclose((test.f, test.p), (other.statistic**2, other.pvalue), rtol=1e-9)


def test_many_tables_at_once_are_each_table() -> None:
    tables = np.random.default_rng(3).normal(size=(4, 5, 6))
    np.testing.assert_allclose(f_over_blocks(tables), [f_over_blocks(t) for t in tables], rtol=1e-12)
    np.testing.assert_allclose(epsilon(tables), [epsilon(t) for t in tables], rtol=1e-12)


def groups_of(table: np.ndarray) -> list[Group]:
    blocks = tuple(f"{i:02d}" for i in range(len(table)))
    return [Group((f"g{j}",), tuple(column), blocks) for j, column in enumerate(table.T)]


def test_paired_differences_step_down_as_holm_says() -> None:
    raw = [stats.ttest_rel(MAXWELL[:, i], MAXWELL[:, j]).pvalue for i, j in combinations(range(4), 2)]
    expected, worst = np.zeros(6), 0.0
    for step, index in enumerate(np.argsort(raw)):  # Holm (1979): p(i) times the number still left
        worst = max(worst, min(1.0, raw[index] * (6 - step)))
        expected[index] = worst
    pairs = paired_differences(groups_of(MAXWELL), 0.05)
    assert all(isinstance(p, Pair) for p in pairs)
    np.testing.assert_allclose([p.p for p in pairs if isinstance(p, Pair)], expected, rtol=1e-9)


@pytest.mark.parametrize("count", [0, *long(1, 2), 10])
def test_holm_agrees_with_statsmodels(count: int) -> None:
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(4).random(count) ** 3
    expected = multipletests(p, method="holm")[1] if count else p
    np.testing.assert_allclose(holm(p), expected, rtol=1e-12)


def test_intervals_are_bonferronis() -> None:
    for pair, (i, j) in zip(
        paired_differences(groups_of(MAXWELL), 0.05), combinations(range(4), 2), strict=True
    ):
        assert isinstance(pair, Pair)
        other = stats.ttest_rel(MAXWELL[:, i], MAXWELL[:, j]).confidence_interval(1 - 0.05 / 6)
        np.testing.assert_allclose((pair.low, pair.high), (other.low, other.high), rtol=1e-9)


def test_a_pair_uses_the_blocks_that_both_have() -> None:
    first, two, three = groups_of(MAXWELL[:, :3])
    short = Group(two.names, two.values[3:], two.blocks[3:])
    lone = Group(three.names, three.values[:1], three.blocks[:1])
    actual = {(p.a, p.b): p for p in paired_differences([first, short, lone], 0.05)}
    pair = actual["g0", "g1"]
    assert isinstance(pair, Pair)
    assert pair.difference == pytest.approx((MAXWELL[3:, 0] - MAXWELL[3:, 1]).mean())
    assert pair.p == pytest.approx(stats.ttest_rel(MAXWELL[3:, 0], MAXWELL[3:, 1]).pvalue)
    for names in (("g0", "g2"), ("g1", "g2")):
        untested = actual[names]
        assert isinstance(untested, UntestedPair)
        assert "two are needed" in untested.why
