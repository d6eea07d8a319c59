"""What a report is made of: the tidy table, a record of every trial, and logits when asked for.

From a store or from packed results (see `pack`), which give the same up to the float16 rounding of
packed logits. What is damaged, unfinished or of another setting is left out, and said in `missing`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offramp.errors import OfframpError
from offramp.report.outcome import Outcome, outcome
from offramp.report.record import Trial, record
from offramp.report.select import chosen, gaps
from offramp.store import pack as packed
from offramp.store.archive import Archive, Damaged, Records
from offramp.store.summary import COLUMNS, tidy


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that figures, tables, claims and advice read.

    table: the tidy table (`study.summary.COLUMNS`) of `trials`.  trials: by model, data, strategy and
    seed, strategies in the paper's order.  missing: what is not here and why, a sentence each.
    """

    table: pd.DataFrame
    trials: tuple[Trial, ...]
    missing: tuple[str, ...]
    records: Records = field(repr=False)

    def logits(self, trial: str, split: str = "test") -> tuple[np.ndarray, np.ndarray]:
        """Logits [N, E, C] (float32, or float16 from a pack) and labels [N] of a trial's split.

        Raises OfframpError (Damaged) when they were harmed since the evidence was read.
        """
        arrays = self.records.trial_logits(trial)
        return arrays[split], arrays[f"{split}_labels"]

    @cached_property
    def outcomes(self) -> Mapping[str, Outcome]:
        """What every trial's test logits come to, by its id. Reads each trial's logits once."""
        return {t.id: outcome(*self.logits(t.id), t.macs) for t in self.trials}

    @cached_property
    def by_id(self) -> Mapping[str, Trial]:
        """Trials by their id."""
        return {trial.id: trial for trial in self.trials}

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Model and data set of every combination that has trials, sorted."""
        return tuple(sorted({(t.model, t.data) for t in self.trials}))

    @cached_property
    def strategies(self) -> tuple[str, ...]:
        """Labels of the strategies, in the order in which figures and tables list them."""
        return tuple(dict.fromkeys(t.strategy for t in sorted(self.trials, key=lambda t: t.rank)))

    def among(self, labels: Iterable[str]) -> list[str]:
        """Those of `strategies` that are among `labels`, in their order."""
        here = set(labels)
        return [label for label in self.strategies if label in here]

    def of(self, model: str, data: str, strategy: str | None = None) -> tuple[Trial, ...]:
        """Trials of a model on a data set, of one strategy or of all."""
        return tuple(
            t
            for t in self.trials
            if (t.model, t.data) == (model, data) and strategy in (None, t.strategy)
        )

    def rows(self, model: str, data: str, **equal: Any) -> pd.DataFrame:
        """Rows of the table for a model and a data set where columns have the values given."""
        table = self._by_pair.get((model, data), self.table.iloc[:0])
        for column, value in equal.items():
            table = table[table[column] == value]
        return table

    @cached_property
    def _by_pair(self) -> Mapping[tuple[str, str], pd.DataFrame]:
        return {(str(m), str(d)): part for (m, d), part in self.table.groupby(["model", "data"])}


def open(path: Path, study: str | None = None) -> Evidence:
    """The evidence in a store or in a folder that `offramp pack` wrote. study: only trials that a study
    of that name made.

    Raises OfframpError where `path` is neither, and where there is no such study.
    """
    if packed.is_pack(path):
        return from_pack(path, study)
    if not (path / "store.json").exists():
        raise OfframpError(
            f"there is neither a store nor packed results at {path}; run a study first, or name "
            "another folder"
        )
    return from_store(path, study)


def from_store(path: Path, study: str | None = None) -> Evidence:
    """The evidence in a store. Raises OfframpError as `Archive` does."""
    archive = Archive(path)
    manifests: dict[str, dict[str, Any]] = {}
    frames: dict[str, pd.DataFrame] = {}
    begun = sorted(set(archive.begun()) - set(archive.trials()))
    missing = [f"trial {trial} was begun and is not finished" for trial in begun]
    for trial in archive.trials():
        try:
            archive.verify_trial(trial)
            manifests[trial] = archive.read_trial(trial)
            frames[trial] = tidy(archive, [trial])
            for phase in manifests[trial]["phases"]:
                archive.read_node(phase["node"])
        except Damaged as error:
            manifests.pop(trial, None)
            where = error.path.relative_to(path) if error.path.is_relative_to(path) else error.path
            missing.append(f"trial {trial} is left out: {where} {error.reason}")
    return gather(archive, manifests, frames, missing, study)


def from_pack(path: Path, study: str | None = None) -> Evidence:
    """The evidence in a folder that `offramp pack` wrote. Raises OfframpError where it is damaged."""
    pack = packed.read(path)
    frames = {str(trial): part for trial, part in pack.table.groupby("trial", sort=False)}
    manifests = {trial: pack.read_trial(trial) for trial in pack.trials()}
    return gather(pack, manifests, frames, list(pack.missing), study)


def gather(
    records: Records,
    manifests: Mapping[str, dict[str, Any]],
    frames: Mapping[str, pd.DataFrame],
    missing: Sequence[str] = (),
    study: str | None = None,
) -> Evidence:
    """The evidence of trials at hand. manifests, frames (tidy tables): by id of the trial."""
    if study is not None:
        manifests = _of_study(manifests, study)
    kept, left_out = chosen(manifests)
    trials = sorted(
        (record(records, trial, manifests[trial]) for trial in kept),
        key=lambda t: (t.model, t.data, t.rank, t.seed, t.id),
    )
    notes = [*missing, *left_out, *gaps(trials)]
    return Evidence(
        _table(frames[t.id] for t in trials), tuple(trials), tuple(dict.fromkeys(notes)), records
    )


def _of_study(manifests: Mapping[str, dict[str, Any]], study: str) -> dict[str, dict[str, Any]]:
    found = {trial: m for trial, m in manifests.items() if m["study"] == study}
    if not found:
        names = ", ".join(sorted({str(m["study"]) for m in manifests.values()})) or "none"
        raise OfframpError(f"no trial was made by a study '{study}'; choose among: {names}")
    return found


def _table(frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
    found = list(frames)
    if not found:
        return pd.DataFrame(columns=list(COLUMNS))
    return pd.concat(found, ignore_index=True)
