"""Independent groups: certified values, R's, and other implementations."""

import inspect
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from worked import PLANTS, SIRSTV

from offramp.analysis.stats.anova import Anova, Check, Welch, levene, one_way, shapiro, welch
from offramp.analysis.stats.pairwise import Pair, critical, games_howell, tail, tukey


def test_anova_gives_nists_certified_values() -> None:
    # https://www.itl.nist.gov/div898/strd/anova/SiRstv.html
    test = one_way(list(SIRSTV))
    assert isinstance(test, Anova)
    assert (test.df1, test.df2) == (4, 20)
    np.testing.assert_allclose(test.f, 1.18046237440255, rtol=1e-9)
    np.testing.assert_allclose(test.eta2, 1.90999039051129e-01, rtol=1e-9)


def test_anova_agrees_with_a_linear_model() -> None:
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    rows = pd.DataFrame([(g, v) for g, values in PLANTS.items() for v in values], columns=["g", "y"])
    table = anova_lm(ols("y ~ C(g)", rows).fit())
    test = one_way(list(PLANTS.values()))
    assert isinstance(test, Anova)
    np.testing.assert_allclose(test.f, table["F"].iloc[0], rtol=1e-9)
    np.testing.assert_allclose(test.p, table["PR(>F)"].iloc[0], rtol=1e-9)
    # ω² of the same data as R's effectsize prints it in the documentation of visStatistics.
    np.testing.assert_allclose(test.omega2, 0.2040788, atol=5e-8)


def test_shapiro_gives_what_r_prints() -> None:
    # R: shapiro.test(mtcars$mpg) gives W = 0.9475647, p = 0.1228814.
    mpg = "21 21 22.8 21.4 18.7 18.1 14.3 24.4 22.8 19.2 17.8 16.4 17.3 15.2 10.4 10.4 14.7 32.4 30.4"
    mpg += " 33.9 21.5 15.5 15.2 13.3 19.2 27.3 26 30.4 15.8 19.7 15 21.4"
    test = shapiro([np.array(mpg.split(), dtype=float)])
    assert isinstance(test, Check)
    np.testing.assert_allclose((test.statistic, test.p), (0.9475647, 0.1228814), atol=1e-6)


def test_shapiro_looks_at_residuals_not_at_values() -> None:
    apart = shapiro([values + 100 * i for i, values in enumerate(PLANTS.values())])
    together = shapiro(list(PLANTS.values()))
    assert isinstance(apart, Check) and isinstance(together, Check)
    np.testing.assert_allclose(apart.p, together.p, rtol=1e-6)
    assert round(together.p, 4) == 0.4379  # R: shapiro.test(residuals(aov(weight ~ group)))


def test_levene_is_an_anova_of_distances_and_gives_what_r_prints() -> None:
    test = levene(list(PLANTS.values()))
    distances = one_way([np.abs(v - np.median(v)) for v in PLANTS.values()])
    assert isinstance(test, Check) and isinstance(distances, Anova)
    np.testing.assert_allclose((test.statistic, test.p), (distances.f, distances.p), rtol=1e-9)
    # R: car::leveneTest(weight ~ group, PlantGrowth) prints 1.1192 and 0.3412.
    assert (round(test.statistic, 4), round(test.p, 4)) == (1.1192, 0.3412)


@pytest.mark.skipif(
    "equal_var" not in inspect.signature(stats.f_oneway).parameters, reason="scipy before 1.16"
)
def test_welch_agrees_with_scipy() -> None:
    groups = [PLANTS["ctrl"], 3 * PLANTS["trt1"][:7], PLANTS["trt2"][:4] + 1]
    test = welch(groups)
    other = stats.f_oneway(*groups, equal_var=False)
    assert isinstance(test, Welch)
    np.testing.assert_allclose((test.f, test.p), (other.statistic, other.pvalue), rtol=1e-9)


def test_tukey_gives_what_r_prints() -> None:
    # R: TukeyHSD(aov(weight ~ group, PlantGrowth)), columns diff, lwr, upr, p adj.
    printed = {
        ("trt1", "ctrl"): (-0.371, -1.0622161, 0.3202161, 0.3908711),
        ("trt2", "ctrl"): (0.494, -0.1972161, 1.1852161, 0.1979960),
        ("trt2", "trt1"): (0.865, 0.1737839, 1.5562161, 0.0120064),
    }
    order = ["trt2", "trt1", "ctrl"]
    for pair in tukey(order, [PLANTS[name] for name in order], 0.05):
        assert isinstance(pair, Pair)
        expected = printed[pair.a, pair.b]
        np.testing.assert_allclose((pair.difference, pair.low, pair.high, pair.p), expected, atol=1e-6)


def test_games_howell_gives_what_pingouin_does() -> None:
    # pingouin 0.7.0: pairwise_gameshowell, columns diff and pval.
    pairs = games_howell(list(PLANTS), list(PLANTS.values()), 0.05)
    printed = [(0.371, 0.4745549221939), (-0.494, 0.1128891768538), (-0.865, 0.0237034547389)]
    got = [(pair.difference, pair.p) for pair in pairs if isinstance(pair, Pair)]
    np.testing.assert_allclose(got, printed, rtol=1e-10)


@pytest.mark.parametrize("equal", [True, False])
def test_all_pairs_agree_with_scipy_and_statsmodels(equal: bool) -> None:
    from statsmodels.stats.multicomp import pairwise_tukeyhsd

    generator = np.random.default_rng(5)
    sizes, spreads = (5, 7, 9), (1.0, 4.0, 2.0)
    groups = [g * generator.normal(size=n) + g for n, g in zip(sizes, spreads, strict=True)]
    labels = list("abc")
    actual = (tukey if equal else games_howell)(labels, groups, 0.05)
    first = stats.tukey_hsd(*groups, equal_var=equal)
    interval = first.confidence_interval(0.95)
    other = pairwise_tukeyhsd(
        np.concatenate(groups), np.repeat(labels, sizes), use_var="equal" if equal else "unequal"
    )
    for index, (i, j) in enumerate(combinations(range(3), 2)):
        pair = actual[index]
        assert isinstance(pair, Pair)
        got = (pair.difference, pair.low, pair.high, pair.p)
        expected = (first.statistic[i, j], interval.low[i, j], interval.high[i, j], first.pvalue[i, j])
        np.testing.assert_allclose(got, expected, atol=1e-6)
        np.testing.assert_allclose(pair.p, other.pvalues[index], atol=1e-6)
        np.testing.assert_allclose((-pair.high, -pair.low), other.confint[index], atol=1e-3)


def test_p_of_far_groups_is_floored_and_says_so() -> None:
    noise = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    near, far = tukey(["a", "b", "c"], [noise, noise + 1, noise + 1e6], 0.05)[:2]
    assert isinstance(near, Pair) and isinstance(far, Pair)
    assert not near.floored
    assert (far.p, far.floored) == (1e-12, True)


# The studentized range: against scipy's, and Student's t where there are two groups


@pytest.mark.parametrize("df", [1, 2, 4.3, 20, 1e4, 1e6])
def test_two_groups_are_students_t(df: float) -> None:
    for q in (0.01, 0.5, 3, 4.5, 8, 15, 30, 200, 5000):
        assert abs(tail(q, 2, df) - 2 * stats.t.sf(q / np.sqrt(2), df)) < 1e-13
    for level in (0.5, 0.95, 0.999):
        expected = np.sqrt(2) * stats.t.ppf(0.5 + level / 2, df)
        np.testing.assert_allclose(critical(level, 2, df), expected, rtol=1e-8)


@pytest.mark.parametrize("k", [3, 5, 9, 20])
def test_more_groups_agree_with_scipy(k: int) -> None:
    for df in (2, 4.3, 20):
        for q in (1.0, 4.0, 9.0):
            assert abs(tail(q, k, df) - stats.studentized_range.sf(q, k, df)) < 1e-9
    np.testing.assert_allclose(
        critical(0.95, k, 20), stats.studentized_range.ppf(0.95, k, 20), rtol=1e-7
    )


def test_ends() -> None:
    assert tail(0.0, 5, 20) == pytest.approx(1.0, abs=1e-14)
    assert 0 <= tail(1e300, 5, 20) < 1e-13
