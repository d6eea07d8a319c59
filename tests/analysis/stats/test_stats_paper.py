"""The paper's Tables 2 and 4: printed p against printed F, with (4, 20) degrees of freedom."""

from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from offramp.analysis.stats.anova import Anova, one_way

PRINTED = pd.read_csv(Path(__file__).with_name("paper_anova.csv"), dtype=str)
# F = 341.46 gives 4.25e-18 and F = 626.72 gives 1.05e-20: both seem cut, not rounded, in print.
MISFITS = {
    ("E-ResNet (CIFAR-10)", "validation accuracy"): (4.25e-18, "4.2e-18"),
    ("E-VGG (CIFAR-100)", "train accuracy"): (1.05e-20, "1.0e-20"),
}


def rounding(printed: str) -> tuple[float, float]:
    """The numbers that are printed so."""
    number = Decimal(printed)
    half = Decimal(5).scaleb(int(number.as_tuple().exponent) - 1)
    return float(number - half), float(number + half)


def fits(f: str, p: str, df: tuple[int, int] = (4, 20)) -> bool:
    (low_f, high_f), (low_p, high_p) = rounding(f), rounding(p)
    return bool(stats.f.sf(high_f, *df) <= high_p and stats.f.sf(low_f, *df) >= low_p)


def test_every_printed_p_follows_from_its_f_but_two() -> None:
    assert len(PRINTED) == 24 + 30
    wrong = {(r.model, r.metric): r.p for r in PRINTED.itertuples() if not fits(r.f, r.p)}
    assert wrong == {place: printed for place, (_, printed) in MISFITS.items()}
    for row in PRINTED.itertuples():
        if (row.model, row.metric) in MISFITS:
            p, _ = MISFITS[row.model, row.metric]
            np.testing.assert_allclose(stats.f.sf(float(row.f), 4, 20), p, rtol=0.005)


def test_no_other_degrees_of_freedom_fit() -> None:
    for df in ((3, 16), (4, 19), (4, 21), (5, 24), (3, 20)):
        assert sum(fits(r.f, r.p, df) for r in PRINTED.itertuples()) < 5


def test_p_of_a_huge_f_is_the_papers() -> None:
    # Five groups of five whose F is the paper's largest but one with three digits, 2.17e10: p 4.64e-96.
    noise = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    step = np.sqrt(2.17e10 * 2.5 / 12.5)
    test = one_way([noise + i * step for i in range(5)])
    assert isinstance(test, Anova)
    np.testing.assert_allclose(test.f, 2.17e10, rtol=1e-9)
    assert 0 < test.p < 1e-95
    assert f"{test.p:.1e}" == "4.6e-96"
