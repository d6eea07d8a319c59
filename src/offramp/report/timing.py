"""Training time: of a whole trial three ways, and what of it each exit took."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from offramp.report.evidence import Evidence
from offramp.report.record import Phase, Trial
from offramp.store.summary import written_seconds

How = Literal["measured", "attributed or estimated"]


def by_exit(trial: Trial) -> list[tuple[int, float, How]]:
    """Seconds as written for each exit that the trial trained.

    A phase that trained one exit counts for that exit; of one that trained several, each segment is
    charged to the first exit that needs it, by its share of the MACs, and so is each head: attributed.
    What was cached, shared or not alone on the machine is an estimate (see `Seconds.written`).
    """
    written = written_seconds({phase.node: phase.cost for phase in trial.phases})
    found: dict[int, float] = {}
    exact: dict[int, bool] = {}
    for phase in trial.phases:
        for exit, share in _shares(trial, phase).items():
            found[exit] = found.get(exit, 0.0) + share * written[phase.node]
            exact[exit] = exact.get(exit, True) and trial.comparable and len(phase.exits) == 1
    return [
        (exit, found[exit], "measured" if exact[exit] else "attributed or estimated")
        for exit in sorted(found)
    ]


def _shares(trial: Trial, phase: Phase) -> dict[int, float]:
    """Of a phase's time, by exit; they add up to 1."""
    if len(phase.exits) == 1:
        return {phase.exits[0]: 1.0}
    if kept := phase.cost.get("exit_shares"):
        return {trial.places.index(place) + 1: share for place, share in kept.items()}
    spent = dict(zip(trial.exits, trial.macs, strict=True))
    numbers = [exit for exit in phase.exits if exit in spent]
    before, added = 0, {}
    for exit in numbers:
        added[exit] = spent[exit] - before
        before = spent[exit]
    return {exit: macs / before for exit, macs in added.items()}


def exit_seconds(evidence: Evidence, model: str, data: str) -> pd.DataFrame:
    """Means over seeds: columns strategy, exit, seconds, how."""
    rows = [
        (t.strategy, exit, seconds, how)
        for t in evidence.of(model, data)
        for exit, seconds, how in by_exit(t)
    ]
    found = pd.DataFrame(rows, columns=["strategy", "exit", "seconds", "how"])
    grouped = found.groupby(["strategy", "exit"], sort=True)
    return grouped.agg(seconds=("seconds", "mean"), how=("how", "min")).reset_index()


def totals(evidence: Evidence, model: str, data: str) -> pd.DataFrame:
    """Of every trial: columns strategy, seed, written, executed, marginal (seconds), macs_written,
    macs_executed, macs_marginal, measured."""
    rows = [
        (
            *(t.strategy, t.seed, t.seconds.written, t.seconds.executed, t.seconds.marginal),
            float(sum(p.cost["macs_written"] for p in t.phases)),
            float(sum(p.cost["macs_executed"] for p in t.phases)),
            float(sum(p.cost["macs_executed"] for p in t.phases if p.node in t.manifest["marginal"])),
            t.seconds.measured,
        )
        for t in evidence.of(model, data)
    ]
    columns = ["strategy", "seed", "written", "executed", "marginal", "macs_written", "macs_executed"]
    return pd.DataFrame(rows, columns=[*columns, "macs_marginal", "measured"])
