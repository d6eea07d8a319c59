"""Analyses of variance: one-way with checks of its assumptions, and repeated measures over blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.oneway import anova_oneway

from offramp.analysis.stats.sample import Floats, Untested, same


@dataclass(frozen=True)
class Anova:
    """F with its degrees of freedom and p."""

    f: float
    df1: float
    df2: float
    p: float
    eta2: float  # share of the variance between groups, 0 to 1
    omega2: float  # the same without its bias for small samples; it may fall a little below zero


@dataclass(frozen=True)
class Welch:
    """Welch's F with its degrees of freedom and p."""

    f: float
    df1: float
    df2: float
    p: float


def one_way(groups: Sequence[Floats]) -> Anova | Untested:
    """F test of equal means. groups: [n_i] each. Constant groups have no F: that would be infinite."""
    if too_few := _too_few(groups):
        return too_few
    everything = np.concatenate(groups)
    scale = float(np.abs(everything).max())
    if all(same(group, scale) for group in groups):
        return Untested("no group varies, so there is nothing to measure differences against")
    grand = everything.mean()
    between = float(sum(len(g) * (g.mean() - grand) ** 2 for g in groups))
    within = float(sum(((g - g.mean()) ** 2).sum() for g in groups))
    df1, df2 = len(groups) - 1, len(everything) - len(groups)
    error = within / df2
    f = between / df1 / error
    return Anova(
        f=f,
        df1=df1,
        df2=df2,
        p=float(stats.f.sf(f, df1, df2)),
        eta2=between / (between + within),
        omega2=(between - df1 * error) / (between + within + error),
    )


def welch(groups: Sequence[Floats]) -> Welch | Untested:
    """Welch's test of equal means, which lets variances differ. groups: [n_i] each."""
    if too_few := _too_few(groups):
        return too_few
    if any(same(group) for group in groups):
        return Untested("a group is constant, and Welch's test weighs groups by 1/variance")
    test = anova_oneway(list(groups), use_var="unequal", welch_correction=True)
    df1, df2 = (float(df) for df in test.df)
    f = float(test.statistic)
    return Welch(f, df1, df2, float(stats.f.sf(f, df1, df2)))


def _too_few(groups: Sequence[Floats]) -> Untested | None:
    if len(groups) < 2:
        return Untested("a comparison needs two groups")
    if any(len(group) < 2 for group in groups):
        return Untested("each group needs two values")
    return None


MOST = 5000  # scipy's p is not to be trusted beyond


@dataclass(frozen=True)
class Check:
    """A statistic and its p: small where the assumption is doubtful."""

    statistic: float
    p: float


def shapiro(groups: Sequence[Floats]) -> Check | Untested:
    """Shapiro and Wilk's test that values minus their group's mean are normal. groups: [n_i] each."""
    residuals = np.concatenate([group - group.mean() for group in groups])
    if not 3 <= len(residuals) <= MOST:
        return Untested(f"Shapiro and Wilk's test takes 3 to {MOST} values, not {len(residuals)}")
    if same(residuals, float(max(np.abs(group).max() for group in groups))):
        return Untested("no group varies")
    test = stats.shapiro(residuals)
    return Check(float(test.statistic), float(test.pvalue))


def levene(groups: Sequence[Floats]) -> Check | Untested:
    """Levene's test of equal variances, around medians (Brown and Forsythe 1974). groups: [n_i] each."""
    if len(groups) < 2:
        return Untested("a comparison needs two groups")
    if any(len(group) < 3 for group in groups):
        return Untested("Levene's test needs three values in each group")
    spreads = [np.abs(group - np.median(group)) for group in groups]
    scale = float(max(np.abs(group).max() for group in groups))
    if all(same(spread, scale) for spread in spreads):
        return Untested("distances from the median do not vary within any group")
    test = stats.levene(*groups, center="median")
    return Check(float(test.statistic), float(test.pvalue))


@dataclass(frozen=True)
class Repeated:
    """F over blocks. df1 and df2 are corrected: epsilon times those of a plain block analysis, whose p
    is p_uncorrected."""

    f: float
    df1: float
    df2: float
    p: float
    epsilon: float
    p_uncorrected: float
    eta2_partial: float  # variance between groups as a share of it and the residual one
    eta2_generalized: float  # as a share of all, blocks included (comparable with the one-way eta2)
    blocks: int


def residuals(table: Floats) -> Floats:
    """Values without the effects of their block and of their group. table: [..., blocks, groups]."""
    centered = table - table.mean(axis=-1, keepdims=True)
    return np.asarray(centered - centered.mean(axis=-2, keepdims=True))


def epsilon(table: Floats) -> Floats:
    """Greenhouse and Geisser's estimate, 1/(k-1) to 1: 1 where all differences between groups have the
    same variance. table: [..., n, k]; returns [...]. Box's (1954) formula, on the double-centered
    covariances: tr(S)² / ((k-1)·tr(S²))."""
    rest, k = residuals(table), table.shape[-1]
    covariance = np.swapaxes(rest, -1, -2) @ rest
    trace = np.trace(covariance, axis1=-2, axis2=-1)
    estimate = trace**2 / ((k - 1) * (covariance**2).sum(axis=(-2, -1)))
    return np.asarray(np.clip(estimate, 1 / (k - 1), 1.0))


def f_over_blocks(table: Floats) -> Floats:
    """Mean square of groups over that of residuals. table: [..., n, k]; returns [...]."""
    n, k = table.shape[-2:]
    between = n * ((table.mean(axis=-2) - table.mean(axis=(-2, -1))[..., None]) ** 2).sum(axis=-1)
    rest = (residuals(table) ** 2).sum(axis=(-2, -1))
    return np.asarray(between / (k - 1) / (rest / ((n - 1) * (k - 1))))


def p_of(f: Floats, epsilons: Floats | float, n: int, k: int) -> Floats:
    """p of F with degrees of freedom multiplied by epsilon, for n blocks and k groups."""
    return np.asarray(stats.f.sf(f, epsilons * (k - 1), epsilons * (k - 1) * (n - 1)))


def repeated(table: Floats) -> Repeated | Untested:
    """Test of equal means over blocks. table: [blocks, groups], without gaps."""
    n, k = table.shape
    if k < 2:
        return Untested("a comparison needs two groups")
    if n < 2:
        count = "one" if n else "none"
        return Untested(f"two blocks that hold every group are needed, there is {count}")
    rest = residuals(table)
    if same(rest, float(np.abs(table).max())):
        return Untested(
            "groups differ by the same amount in every block, so there is nothing to measure it against"
        )
    f, e = f_over_blocks(table), epsilon(table)
    grand = table.mean()
    between = float(n * ((table.mean(axis=0) - grand) ** 2).sum())
    blocks = float(k * ((table.mean(axis=1) - grand) ** 2).sum())
    error = float((rest**2).sum())
    return Repeated(
        f=float(f),
        df1=float(e) * (k - 1),
        df2=float(e) * (k - 1) * (n - 1),
        p=float(p_of(f, e, n, k)),
        epsilon=float(e),
        p_uncorrected=float(p_of(f, 1.0, n, k)),
        eta2_partial=between / (between + error),
        eta2_generalized=between / (between + blocks + error),
        blocks=n,
    )
