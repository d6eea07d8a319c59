from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from handmade import HandTrial, Run, evidence
from scipy import stats

from offramp.report.figures import series


def test_an_exits_curve_joins_the_phases_that_trained_it() -> None:
    first = Run("joint", {1: [5.0, 4.0], 2: [6.0, 5.0], 3: [7.0, 6.0]})
    second = Run("branch 1", {1: [3.0, 2.0, 1.0]})
    actual = series.curves(evidence([HandTrial("joint-branch", 1, [first, second])]).runs[0])
    mine = actual[(actual["split"] == "validation") & (actual["metric"] == "cross_entropy")]
    assert mine[mine["exit"] == 1][["step", "value"]].to_numpy().tolist() == [
        *([1, 5.0], [2, 4.0], [3, 3.0], [4, 2.0], [5, 1.0])
    ]
    assert mine[mine["exit"] == 3]["value"].tolist() == [7.0, 6.0]
    train = actual[(actual["split"] == "train") & (actual["exit"] == 1)]
    assert train[train["metric"] == "cross_entropy"]["value"].tolist() == [2.5, 2.0, 1.5, 1.0, 0.5]


def test_the_mean_over_seeds_has_the_range_of_few_and_the_interval_of_many() -> None:
    few = pd.DataFrame({"k": "a", "seed": [1, 2, 3], "step": 1, "value": [1.0, 2.0, 6.0]})
    row = series.over_seeds(few, ["k"], 10).iloc[0]
    assert (row["low"], row["value"], row["high"]) == (1.0, 3.0, 6.0)
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0]
    many = pd.DataFrame({"k": "a", "seed": range(6), "step": 1, "value": values})
    row = series.over_seeds(many, ["k"], 10).iloc[0]
    low, high = stats.t.interval(0.95, 5, np.mean(values), stats.sem(values))
    assert (row["low"], row["high"]) == pytest.approx((low, high))


def test_a_seed_that_stopped_early_is_held() -> None:
    rows = [(1, 1, 4.0), (1, 2, 2.0), (1, 3, 0.0), (2, 1, 6.0), (2, 2, 4.0)]
    frame = pd.DataFrame(rows, columns=["seed", "step", "value"]).assign(k="a")
    assert series.over_seeds(frame, ["k"], 10)["value"].tolist() == [5.0, 3.0, 2.0]


def test_a_long_curve_is_thinned_and_keeps_its_peaks() -> None:
    value = np.zeros(1000)
    value[501] = 50.0
    frame = pd.DataFrame({"k": "a", "seed": 1, "step": range(1, 1001), "value": value})
    drawn = series.over_seeds(frame, ["k"], 80)
    assert len(drawn) == 80 and drawn["step"].iloc[0] == 1 and drawn["step"].iloc[-1] == 1000
    assert drawn["high"].max() == 50.0
    assert len(series.over_seeds(frame, ["k"], 2000)) == 1000


def test_means_of_fewer_than_three_seeds_have_no_interval() -> None:
    two = pd.DataFrame({"strategy": "a", "seed": [1, 2], "value": [1.0, 3.0]})
    row = series.means(two, ["strategy"]).iloc[0]
    assert row["value"] == 2.0 and math.isnan(row["low"]) and math.isnan(row["high"])
    three = pd.DataFrame({"strategy": "a", "seed": [1, 2, 3], "value": [1.0, 3.0, 5.0]})
    row = series.means(three, ["strategy"]).iloc[0]
    assert (row["low"], row["high"]) == pytest.approx(stats.t.interval(0.95, 2, 3.0, 2 / 3**0.5))
