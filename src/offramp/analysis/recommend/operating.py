"""Ways to use a trained network: leave at one exit, or where confidence reaches a threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

POINTS = ("model", "data", "strategy", "seed", "point", "macs", "held_out", "accuracy", "source")
# point: `exit 2` or `confidence >= 0.8`.  macs: of an image, on average, on test.  held_out, accuracy:
# on calibration data, where points are chosen, and on test.  source: a key of the weights in use.
LESS = 0.01  # accuracy to give up when no target is named


@dataclass(frozen=True, eq=False)
class Choice:
    """One point of a candidate. rows: of POINTS, a row a seed."""

    use: str
    rows: pd.DataFrame


Candidate = tuple[str, str]  # model, strategy


def _means(points: pd.DataFrame) -> pd.DataFrame:
    keys = ["model", "strategy", "point"]
    return points.groupby(keys, sort=True)[["macs", "held_out", "accuracy"]].mean().reset_index()


def best_accuracy(points: pd.DataFrame, max_macs: float | None) -> float | None:
    """The highest mean calibration accuracy of any point within the MACs; None where there is none."""
    means = _means(points)
    if max_macs is not None:
        means = means[means["macs"] <= max_macs]
    return float(means["held_out"].max()) if len(means) else None


def default_target(points: pd.DataFrame) -> float | None:
    """A point less than the best mean accuracy (on calibration data) of any final exit."""
    exits = points[points["point"].str.startswith("exit ")]
    if exits.empty:
        return None
    keys = ["model", "strategy", "seed"]
    last = exits.loc[exits.groupby(keys)["macs"].idxmax()]
    return float(last.groupby(["model", "strategy"])["held_out"].mean().max()) - LESS


def cheapest(points: pd.DataFrame, target: float, max_macs: float | None) -> Mapping[Candidate, Choice]:
    """Of each candidate, the point with the fewest MACs that reaches the target on calibration data."""
    means = _means(points)
    means = means[means["held_out"] >= target]
    if max_macs is not None:
        means = means[means["macs"] <= max_macs]
    return _first(points, means.sort_values(["macs", "point"], kind="stable"))


def most_accurate_within(points: pd.DataFrame, max_macs: float) -> Mapping[Candidate, Choice]:
    """Of each candidate, the point with the highest calibration accuracy within the MACs."""
    means = _means(points)
    means = means[means["macs"] <= max_macs]
    order = means.sort_values(["held_out", "macs"], ascending=[False, True], kind="stable")
    return _first(points, order)


def _first(points: pd.DataFrame, order: pd.DataFrame) -> dict[Candidate, Choice]:
    chosen = order.drop_duplicates(["model", "strategy"]).sort_values(["model", "strategy"])
    found = {}
    for model, strategy, point in chosen[["model", "strategy", "point"]].itertuples(index=False):
        at = (points["model"] == model) & (points["strategy"] == strategy) & (points["point"] == point)
        found[str(model), str(strategy)] = Choice(str(point), points[at])
    return found
