"""Curves over epochs: of an exit over all phases that trained it, and over all exits of a trial."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FINAL = "final"  # the phase under which the tidy table keeps a trial's closing metrics
METRICS = ("cross_entropy", "accuracy")
SPLITS = ("train", "validation", "train-eval")
JOINED = ("trial", "exit", "split", "metric", "phase", "epoch", "value", "source")


def joined(table: pd.DataFrame) -> pd.DataFrame:
    """Every curve of a tidy table (columns JOINED): an exit's epochs run on over the phases that
    trained it, 1 to the sum of theirs.

    Phases of a trial stand in the table in the order in which they ran. `train-eval` has values only at
    the best and the last epoch of each phase.
    """
    rows = table[
        (table["phase"] != FINAL)
        & table["epoch"].notna()
        & table["exit"].notna()
        & table["metric"].isin(METRICS)
        & table["split"].isin(SPLITS)
    ]
    curves = rows[["trial", "exit", "split", "metric", "phase", "value", "source"]].copy()
    curves["exit"] = rows["exit"].astype(int)
    curves["epoch"] = rows["epoch"].astype(int)
    groups = curves.groupby(["trial", "exit", "phase"], sort=False)
    lengths = groups["epoch"].max()
    before = lengths.groupby(["trial", "exit"], sort=False).cumsum() - lengths
    curves["epoch"] += before.to_numpy()[groups.ngroup().to_numpy()]
    return curves[list(JOINED)].sort_values(
        ["trial", "exit", "split", "metric", "epoch"], ignore_index=True, kind="stable"
    )


def overall(curves: pd.DataFrame) -> pd.DataFrame:
    """The mean over exits of each trial, split and metric (columns trial, split, metric, epoch, value).

    curves: of `joined`.  An exit that has stopped is held at its last value. Of `train-eval`, which is
    no curve, the result is empty.
    """
    keys = ["trial", "split", "metric"]
    rows = curves[curves["split"] != "train-eval"]
    wide = rows.set_index([*keys, "epoch", "exit"])["value"].unstack("exit").sort_index()
    filled = wide.groupby(level=keys).ffill()  # an exit that never was in a trial stays missing
    return filled.mean(axis=1).rename("value").reset_index()


@dataclass(frozen=True, eq=False)
class History:
    """The curves of one exit as arrays, [n] over the epochs of the last phase that trained it; empty
    where the table lacks one.

    What an earlier phase did is left to whoever has it as its last: a head that is drawn anew begins
    high, and a hybrid's curve begins with its parent's own.  loss, accuracy: on validation.  running:
    training loss, as it is recorded every epoch.  phase, origin: its name and key.
    """

    trial: str
    exit: int
    loss: Floats
    accuracy: Floats
    running: Floats
    phase: str
    origin: str


CurveKey = tuple[str, int, str, str]  # trial, exit, split, metric
SERIES = (("validation", "cross_entropy"), ("validation", "accuracy"), ("train", "cross_entropy"))


def histories(curves: pd.DataFrame) -> list[History]:
    """Every exit of every trial in its last phase. curves: of `joined`."""
    values = curves["value"].to_numpy(dtype=float)
    sources = curves["source"].astype(object).where(curves["source"].notna(), "").to_numpy()
    phases = curves["phase"].to_numpy()
    groups = curves.groupby(["trial", "exit", "split", "metric"], sort=True).indices
    rows = {cast(CurveKey, key): np.asarray(at) for key, at in groups.items()}
    none = np.array([], dtype=int)
    histories_of_exits = []
    for trial, exit in sorted({key[:2] for key in rows}):
        series = [rows.get((trial, exit, *which), none) for which in SERIES]
        ends = [at[-1] for at in series if len(at)]
        if not ends:
            continue
        end = ends[0]
        loss, accuracy, running = (values[at[phases[at] == phases[end]]] for at in series)
        phase, origin = str(phases[end]), str(sources[end])
        histories_of_exits.append(History(trial, int(exit), loss, accuracy, running, phase, origin))
    return histories_of_exits
