"""Strategies over all networks and data sets that are here: interquartile means of accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from offramp.analysis.measures import MEASURES
from offramp.analysis.stats.iqm import Iqm, iqm
from offramp.report.colors import rank
from offramp.report.evidence import Evidence
from offramp.report.model import Column, Table

CAPTION = (
    "Interquartile mean, over all networks, data sets and seeds, of test accuracy (mean over exits, and "
    "of the final exit), with 95 % intervals of a bootstrap that draws seeds anew within each network "
    "and data set, where each has three seeds at least. Of strategies that every network and data set "
    "here has. Intervals that overlap are no test; differences are tested elsewhere, pair by pair."
)
SHOWN = {"mean": "accuracy-test", "final": "final-accuracy-test"}
NONE = Iqm(*[float("nan")] * 3)  # of who has no mean over exits somewhere, as the baseline


def overall(evidence: Evidence) -> list[Table]:
    """Interquartile means over networks and data sets, where there are several."""
    if len(evidence.runs) < 2:
        return []
    everywhere = set.intersection(*(set(runs.strategies) for runs in evidence.runs))
    rows: dict[str, dict[str, Any]] = {}
    for name in sorted(everywhere, key=rank):
        row: dict[str, Any] = {"strategy": name}
        for key, measure in SHOWN.items():
            values = [runs.values(MEASURES[measure]) for runs in evidence.runs]
            tasks = [seen.loc[seen["strategy"] == name, "value"].tolist() for seen in values]
            mean = iqm(tasks) if all(map(len, tasks)) else NONE
            row |= {key: mean.value, f"{key}_low": mean.low, f"{key}_high": mean.high}
        row["runs"] = int(np.sum([len(runs.of(name)) for runs in evidence.runs]))
        rows[name] = row
    if not rows:
        return []
    columns = (
        Column("strategy", "strategy"),
        *(
            column
            for key, title in (("mean", "mean over exits, %"), ("final", "final exit, %"))
            for column in (
                Column(key, title, "percent", 1, "higher"),
                Column(f"{key}_low", "from", "percent", 1),
                Column(f"{key}_high", "to", "percent", 1),
            )
        ),
        Column("runs", "trials", "integer"),
    )
    frame = pd.DataFrame.from_dict(rows, orient="index")
    title = f"Over {len(evidence.runs)} networks and data sets"
    return [Table("overall", "answer", title, CAPTION, frame, columns)]
