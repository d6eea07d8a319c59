"""Numbers behind figures, as data frames: curves of training, and means over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from offramp.analysis import curves as analysis
from offramp.report.runs import Runs

FEW = 5  # up to so many seeds are drawn one by one
LEVEL = 0.95
SPLITS = ("train", "validation")
CURVE = ["strategy", "exit", "split", "metric"]


def curves(runs: Runs) -> pd.DataFrame:
    """Every exit's course of training, over all phases that trained it: columns strategy, exit, split
    (`train`, `validation`), metric (`accuracy`, `cross_entropy`), seed, step (from 1), value."""
    return _placed(runs, joined_curves(runs))


def overall(runs: Runs) -> pd.DataFrame:
    """The mean of a strategy's exits at each step, an exit that has stopped held at its last value:
    `curves` without the column exit."""
    return _placed(runs, analysis.overall(joined_curves(runs)))


def joined_curves(runs: Runs) -> pd.DataFrame:
    """Those of `analysis.curves.joined` that are of these trials."""
    every = runs.evidence.numbers.curves
    return every[every["trial"].isin([t.id for t in runs.trials]) & every["split"].isin(SPLITS)]


def trained(runs: Runs) -> pd.DataFrame:
    """The training split in eval mode, at the last epoch that trained each exit: columns of `curves`,
    split `train-eval`."""
    every = runs.evidence.numbers.curves
    mine = every["trial"].isin([t.id for t in runs.trials]) & (every["split"] == "train-eval")
    last = every[mine].drop_duplicates(["trial", "exit", "metric"], keep="last")
    return _placed(runs, last)


def _placed(runs: Runs, rows: pd.DataFrame) -> pd.DataFrame:
    by_id = runs.evidence.by_id
    rows = rows.rename(columns={"epoch": "step"}).assign(
        strategy=[by_id[id].strategy for id in rows["trial"]],
        seed=[by_id[id].seed for id in rows["trial"]],
    )
    columns = [c for c in (*CURVE, "seed", "step", "value") if c in rows]
    return rows[columns].reset_index(drop=True)


def over_seeds(rows: pd.DataFrame, keys: Sequence[str], points: int) -> pd.DataFrame:
    """The mean over seeds of each curve, and what lies around it, in columns `keys`, step, value, low
    and high.

    Args:
        rows: Curves with columns `keys`, seed, step, value. A seed that stopped early is held at
            its last value. low, high: the lowest and highest seed of up to FEW seeds, else the 95 %
            interval of the mean (Student's t).
        points: At most so many steps a curve; a step stands for those since the one before it with
            its own mean, and their lowest low and highest high.
    """
    parts = []
    finite = rows[np.isfinite(rows["value"].astype(float))]
    for key, part in finite.groupby(list(keys), sort=True):
        wide = part.pivot(index="step", columns="seed", values="value").sort_index().ffill().to_numpy()
        steps = np.sort(part["step"].unique())
        low, mean, high = band(wide)
        ends = np.unique(np.linspace(0, len(steps) - 1, min(points, len(steps))).round().astype(int))
        starts = np.concatenate([[0], ends[:-1] + 1])
        around = {"low": np.minimum.reduceat(low, starts), "high": np.maximum.reduceat(high, starts)}
        curve = pd.DataFrame({"step": steps[ends], "value": mean[ends], **around})
        about: dict[str, Any] = dict(zip(keys, key, strict=True))
        parts.append(curve.assign(**about))
    columns = [*keys, "step", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low, mean and high of [points, seeds], as `over_seeds` says."""
    mean = values.mean(axis=1)
    if values.shape[1] <= FEW:
        return values.min(axis=1), mean, values.max(axis=1)
    half = _half(values)
    return mean - half, mean, mean + half


def means(rows: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The mean of `value` over seeds: columns `keys`, n, value, low, high. The interval is that of the
    mean at 95 % (Student's t) of three seeds or more; NaN of fewer, whose interval would say nothing."""
    parts = []
    for key, part in rows.groupby(list(keys), sort=True, dropna=False):
        values = part["value"].to_numpy(dtype=float)
        half = float(_half(values[None, :])[0]) if len(values) > 2 else float("nan")
        row = {"n": len(values), "value": values.mean()}
        row |= {"low": values.mean() - half, "high": values.mean() + half}
        parts.append({**dict(zip(keys, key, strict=True)), **row})
    return pd.DataFrame(parts, columns=[*keys, "n", "value", "low", "high"])


def _half(values: np.ndarray) -> np.ndarray:
    """Half the width of the t interval of each row's mean. [rows, n], n at least 2."""
    n = values.shape[1]
    error = values.std(axis=1, ddof=1) / np.sqrt(n)
    return np.asarray(error * stats.t.ppf((1 + LEVEL) / 2, n - 1))


def counted(most: int, fewest: int) -> str:
    """`one seed`, `5 seeds`, `3 to 5 seeds`: as `per_strategy` has them."""
    if most > fewest:
        return f"{fewest} to {most} seeds"
    return "one seed" if most == 1 else f"{most} seeds"


def spoken(most: int, fewest: int, kind: Literal["curve", "mean"]) -> str:
    """What low and high are, for a caption. most, fewest: seeds that any mean has."""
    if most == 1:
        return "One seed, so nothing says how much values vary."
    seeds = counted(most, fewest)
    if kind == "curve":
        if most <= FEW:
            return f"Lines are means over {seeds}, bands reach from the lowest to the highest seed."
        return f"Lines are means over {seeds}, bands their 95 % intervals (Student's t)."
    dots = "; small dots are the seeds" if most <= FEW else ""
    if most == 2:
        return f"Marks are means over {seeds}, too few for an interval{dots}."
    of = "" if fewest > 2 else " where there are three or more"
    return f"Marks are means over {seeds} with 95 % intervals (Student's t){of}{dots}."


def per_strategy(rows: pd.DataFrame) -> tuple[int, int]:
    """The most and the fewest seeds that any strategy has."""
    counts = rows.groupby("strategy")["seed"].nunique()
    return (int(counts.max()), int(counts.min())) if len(counts) else (1, 1)
