"""Repeated measures over blocks, corrected for unequal correlations (Greenhouse and Geisser 1959)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from offramp.analysis.stats.sample import Floats, Untested, same


@dataclass(frozen=True)
class Repeated:
    """F over blocks. df1 and df2 are corrected: epsilon times those of a plain block analysis, whose p
    is p_uncorrected.  eta2_partial: variance between groups as a share of it and the residual one.
    eta2_generalized: as a share of all, blocks included (comparable with the one-way eta2)."""

    f: float
    df1: float
    df2: float
    p: float
    epsilon: float
    p_uncorrected: float
    eta2_partial: float
    eta2_generalized: float
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
