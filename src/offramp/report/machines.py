"""On which machines phases ran; times of unlike ones are not compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import pandas as pd

from offramp.store.record import PhaseRecord, TrialRecord
from offramp.units import counted

NetworkAndData = tuple[str, str]  # a network and a data set


def compared(
    trials: Sequence[TrialRecord], table: pd.DataFrame
) -> tuple[tuple[TrialRecord, ...], pd.DataFrame]:
    """Trials and their tidy table, where the costs of a network on a data set count as measured only if
    one kind of machine trained all of its phases."""
    unlike = _unlike(trials)
    if not unlike:
        return tuple(trials), table
    marked = tuple(_estimated(t) if (t.model, t.data) in unlike else t for t in trials)
    ids = {t.id for t in trials if (t.model, t.data) in unlike}
    costs = table["trial"].isin(ids) & (table["phase"] != "final") & table["epoch"].isna()
    return marked, table.assign(measured=table["measured"].mask(costs, False).astype(bool))


def notes(trials: Iterable[TrialRecord]) -> list[str]:
    """A sentence for each network and data set whose times are not compared."""
    return [
        f"times of {model} on {data} are estimates and are not compared: its phases ran on unlike "
        f"machines ({'; '.join(sorted(kinds))})"
        for (model, data), kinds in sorted(_unlike(list(trials)).items())
    ]


def ran(trials: Iterable[TrialRecord]) -> list[str]:
    """What ran where, a line a machine; nothing where no record names one."""
    phases = {phase.node: phase for trial in trials for phase in trial.phases}
    counts = Counter(map(_machine, phases.values()))
    return [f"{name}: {counted(n, 'phase')}" for name, n in sorted(counts.items()) if name]


def _machine(phase: PhaseRecord) -> str:
    name = phase.provenance.machine
    return f"{name} ({phase.kind})" if name else ""


def _unlike(trials: Sequence[TrialRecord]) -> dict[NetworkAndData, set[str]]:
    """Kinds of machines, where there are several."""
    kinds: dict[NetworkAndData, set[str]] = {}
    for trial in trials:
        kinds.setdefault((trial.model, trial.data), set()).update(p.kind for p in trial.phases)
    return {pair: several for pair, several in kinds.items() if len(several) > 1}


def _estimated(trial: TrialRecord) -> TrialRecord:
    def phase(record: PhaseRecord) -> PhaseRecord:
        return replace(record, cost=record.cost.model_copy(update={"comparable": False}))

    return replace(trial, phases=tuple(map(phase, trial.phases)))
