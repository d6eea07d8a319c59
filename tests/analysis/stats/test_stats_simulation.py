"""How often each way finds what is not there, and what is. Fixed generators, vectorized."""

import numpy as np
import pandas as pd
from scipy import stats
from worked import correlated

from offramp.analysis.stats import Columns, OverBlocks, analyze
from offramp.analysis.stats.anova import Repeated, epsilon, f_over_blocks, p_of
from offramp.analysis.stats.pairwise import Pair

DRAWS = 4000
PHASES = [0, 0, 0, 1, 1]  # five strategies, two trained backbones between them


def rates(tables: np.ndarray) -> dict[str, float]:
    """How often each way rejects at 5 %. tables: [draws, blocks, groups]."""
    n, k = tables.shape[-2:]
    f = f_over_blocks(tables)
    paired = [
        stats.ttest_rel(tables[..., i], tables[..., j], axis=1).pvalue
        for i in range(k)
        for j in range(i)
    ]
    ps = {
        "one-way": stats.f_oneway(*np.moveaxis(tables, 2, 0), axis=1).pvalue,
        "plain blocks": p_of(f, 1.0, n, k),
        "default": p_of(f, epsilon(tables), n, k),
        "Holm, any pair": np.min(paired, axis=0) * len(paired),
    }
    return {name: float((p <= 0.05).mean()) for name, p in ps.items()}


def test_one_way_is_right_where_seeds_are_independent() -> None:
    rejected = rates(correlated(1, DRAWS, 5, [0, 1, 2, 3, 4], 0.0))
    assert 0.039 <= rejected["one-way"] <= 0.061


def test_the_default_holds_its_level_where_phases_are_shared() -> None:
    for seed, families in enumerate((PHASES, [0, 0, 1, 1, 2], [0] * 5, [0, 0, 0, 0, 1, 1, 1, 2, 3])):
        rejected = rates(correlated(seed, DRAWS, 5, families, 0.95))
        assert rejected["default"] <= 0.061
        assert rejected["Holm, any pair"] <= 0.061


def test_a_plain_block_analysis_does_not() -> None:
    # The worked example of docs/statistics.md.
    rejected = rates(correlated(1, DRAWS, 5, PHASES, 0.95))
    assert 0.12 <= rejected["plain blocks"] <= 0.16


def test_the_default_sees_more_where_seeds_share_variance() -> None:
    effects = np.array([0.0, 0.5, 0.5, 0.5, 1.0])
    luck = 2 * np.random.default_rng(5).normal(size=(DRAWS, 5, 1))
    for families, shared in (([0, 1, 2, 3, 4], 0.0), (PHASES, 0.95)):
        rejected = rates(0.5 * correlated(6, DRAWS, 5, families, shared) + luck + effects)
        assert rejected["default"] > rejected["one-way"] + 0.2


def test_rates_are_those_of_the_analysis_itself() -> None:
    tables = correlated(9, 3, 5, PHASES, 0.95)
    for table in tables:
        rows = [(f"s{g}", b, table[b, g]) for b in range(5) for g in range(5)]
        data = pd.DataFrame(rows, columns=["strategy", "seed", "accuracy"])
        over = analyze(data, Columns("accuracy", "strategy", "seed")).over_blocks
        assert isinstance(over, OverBlocks) and isinstance(over.anova, Repeated)
        np.testing.assert_allclose(
            over.anova.p, p_of(f_over_blocks(table), epsilon(table), 5, 5), rtol=1e-9
        )
        smallest = min(p.p for p in over.pairs if isinstance(p, Pair))
        raw = min(stats.ttest_rel(table[:, i], table[:, j]).pvalue for i in range(5) for j in range(i))
        np.testing.assert_allclose(smallest, min(1.0, raw * 10), rtol=1e-9)
