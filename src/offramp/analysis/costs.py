"""What trials cost, from the rows of their phases in the tidy table.

A phase without a reading makes the trial's missing too.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

KEYS = ["trial", "phase"]
Over = Callable[[pd.DataFrame], pd.Series]  # rows of `phases` to one number a trial (index: trial)
OURS = ("seconds_checkpoint", "seconds_evaluation")  # no part of training as it is written


def phases(table: pd.DataFrame) -> pd.DataFrame:
    """A row a phase (index: trial, phase), a column an amount (`seconds_train`, ..., and what meters
    added), NaN where it was not recorded; besides `source` and `measured`. Phases stay in the order in
    which they ran."""
    rows = table[table["epoch"].isna() & table["exit"].isna() & (table["phase"] != "final")]
    order = rows[KEYS].drop_duplicates()
    wide = rows.pivot_table(index=KEYS, columns="metric", values="value", aggfunc="last")
    about = rows.groupby(KEYS)[["source", "measured"]].agg({"source": "first", "measured": "all"})
    return wide.join(about).reindex(pd.MultiIndex.from_frame(order))


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """How a phase's time divides over the exits that it trained (columns trial, phase, exit, share,
    alone): all of it for one exit; for several, as `exit_seconds` attributes it, else NaN. alone:
    whether there is one."""
    rows = table[table["exit"].notna() & (table["phase"] != "final")]
    trained = rows[[*KEYS, "exit"]].drop_duplicates()
    spent = rows[rows["metric"] == "exit_seconds"].groupby([*KEYS, "exit"])["value"].sum()
    rows_of_exits = trained.join(spent, on=[*KEYS, "exit"])
    groups = rows_of_exits.groupby(KEYS)
    alone = groups["exit"].transform("count") == 1
    share = rows_of_exits["value"] / groups["value"].transform("sum")
    return rows_of_exits.assign(share=share.where(~alone, 1.0), alone=alone).drop(columns="value")


def _seconds(rows: pd.DataFrame, without: tuple[str, ...]) -> pd.Series:
    kinds = [c for c in rows.columns if str(c).startswith("seconds_") and c not in without]
    return rows[kinds].sum(axis=1, min_count=1)


def _total(values: pd.Series) -> pd.Series:
    """Sum over the phases of each trial, missing where one of them is."""
    whole = values.notna().groupby(level="trial").all()
    return values.groupby(level="trial").sum().where(whole)


def written(rows: pd.DataFrame) -> pd.Series:
    """Time of each trial as the paper runs it. Missing where that of a phase is."""
    return _total(written_seconds(rows))


def written_seconds(rows: pd.DataFrame) -> pd.Series:
    """Time of each phase as the paper runs it, in full, without checkpoints and the closing evaluation.

    Measured where the whole trial was; else estimated: the executed time, and the MACs that were spared
    at the speed of the trial's largest phase.

    Args:
        rows: Of `phases`.
    """
    spent = _seconds(rows, OURS)
    if not {"macs_written", "macs_executed"} <= set(rows.columns):
        return spent
    largest = rows["macs_executed"].groupby(level="trial").transform("max") == rows["macs_executed"]
    # The largest phase says most of the machine's speed; small ones are mostly overhead.
    pace = (spent / rows["macs_executed"].clip(lower=1)).where(largest)
    pace = pace.groupby(level="trial").transform("first")
    spared = rows["macs_written"] - rows["macs_executed"]
    alone = rows["measured"].groupby(level="trial").transform("all")
    return spent + (spared * pace).mask(alone.astype(bool), 0.0)


def executed(rows: pd.DataFrame) -> pd.Series:
    """Time of all that ran, checkpoints and the closing evaluation included."""
    return _total(_seconds(rows, ()))


def summed(*metrics: str) -> Over:
    """The sum of these amounts over all phases."""

    def total(rows: pd.DataFrame) -> pd.Series:
        return _total(_present(rows, metrics).sum(axis=1, skipna=False))

    return total


def largest(metric: str) -> Over:
    """The largest amount of any phase."""

    def over(rows: pd.DataFrame) -> pd.Series:
        values = _present(rows, (metric,))[metric]
        return values.groupby(level="trial").max().where(_total(values).notna())

    return over


def mean(metric: str) -> Over:
    """The mean of the phases, weighted by the time that meters ran: preparation and epochs."""

    def over(rows: pd.DataFrame) -> pd.Series:
        seconds = _seconds(rows, OURS)
        return _total(_present(rows, (metric,))[metric] * seconds) / _total(seconds)

    return over


def _present(rows: pd.DataFrame, metrics: tuple[str, ...]) -> pd.DataFrame:
    return rows.reindex(columns=list(metrics)).astype(float)
