"""Curves over epochs: of an exit over all phases that trained it, and over all exits of a trial."""

from __future__ import annotations

import math
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
    """Every curve of a tidy table: an exit's epochs run on over the phases that trained it. Phases of a
    trial stand in the table in the order in which they ran.

    Returns:
        Columns JOINED; epochs from 1 to the sum of the phases'. `train-eval` has values only at the best
        and the last epoch of each phase.
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
    """The mean over exits of each trial, split and metric (columns trial, split, metric, epoch, value)
    of curves that `joined` made. An exit that has stopped is held at its last value. Of `train-eval`,
    which is no curve, the result is empty."""
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
    high, and a hybrid's curve begins with its parent's own.
    """

    trial: str
    exit: int
    # loss, accuracy: on validation
    loss: Floats
    accuracy: Floats
    running: Floats  # training loss, as it is recorded every epoch
    # phase, origin: its name and key
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


WITHIN = 0.005  # of the peak accuracy: saturated
ABOVE = 0.05  # of the least validation loss: overfitted
RUN = 5  # epochs in a row that make overfitting
TAIL = 0.2  # the last share of the epochs, for stability
SPIKE = 0.2  # a rise by this share of the loss of the epoch before
ROUNDING = 1e-9


def min_loss_epoch(validation_loss: Floats) -> int | None:
    """The first epoch with the least validation loss."""
    return None if not len(validation_loss) else int(np.argmin(validation_loss)) + 1


def peak_epoch(validation_accuracy: Floats) -> int | None:
    """The first epoch with the highest validation accuracy."""
    return None if not len(validation_accuracy) else int(np.argmax(validation_accuracy)) + 1


def saturation_epoch(validation_accuracy: Floats) -> int | None:
    """The first epoch from which on accuracy stays within 0.5 points of its peak; None where the last
    one does not."""
    if not len(validation_accuracy):
        return None
    off = validation_accuracy < validation_accuracy.max() - WITHIN - ROUNDING
    if off[-1]:
        return None
    return int(np.flatnonzero(off)[-1]) + 2 if off.any() else 1


def overfitting_epoch(validation_loss: Floats, training_loss: Floats) -> int | None:
    """The first of five consecutive epochs, after the one with the least validation loss, in each of
    which validation loss is at least 5 % above that least one and training loss is below that of the
    epoch before. training_loss: [n], running, as it is recorded every epoch."""
    if len(validation_loss) != len(training_loss) or not len(validation_loss):
        return None
    least = int(np.argmin(validation_loss))
    high = validation_loss >= (1 + ABOVE) * validation_loss[least] * (1 - ROUNDING)
    falls = np.diff(training_loss, prepend=-np.inf) < 0
    over = high & falls & (np.arange(len(high)) > least)
    if len(over) < RUN:
        return None
    runs = np.flatnonzero(np.lib.stride_tricks.sliding_window_view(over, RUN).all(axis=1))
    return int(runs[0]) + 1 if len(runs) else None


def overfits(validation_loss: Floats, training_loss: Floats) -> float:
    """1 where there is an epoch from which on the exit overfits, else 0."""
    return float(overfitting_epoch(validation_loss, training_loss) is not None)


def validation_stability(validation_loss: Floats) -> float | None:
    """Sample standard deviation of the changes of validation loss from epoch to epoch, over the last
    20 % of the epochs (rounded up); smaller is more stable. None with fewer than two changes."""
    changes = np.diff(validation_loss)
    changes = changes[max(len(changes) - math.ceil(TAIL * len(validation_loss) - ROUNDING), 0) :]
    return float(changes.std(ddof=1)) if len(changes) > 1 else None


def loss_rise(validation_loss: Floats) -> float | None:
    """How far the last validation loss is above the least one, as a share of it."""
    if not len(validation_loss) or validation_loss.min() <= 0:
        return None
    return float(validation_loss[-1] / validation_loss.min() - 1)


def loss_spikes(validation_loss: Floats) -> int | None:
    """Epochs whose validation loss is at least 20 % above that of the epoch before."""
    if len(validation_loss) < 2:
        return None
    before, after = validation_loss[:-1], validation_loss[1:]
    return int((after >= (1 + SPIKE) * before * (1 - ROUNDING)).sum())


def largest_spike(validation_loss: Floats) -> float | None:
    """The largest rise of validation loss from an epoch to the next, in nats; 0 where it never rises."""
    return max(0.0, float(np.diff(validation_loss).max())) if len(validation_loss) > 1 else None
