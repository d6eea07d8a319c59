"""Measures and their statistics over a whole store, each computed once however many tables ask."""

from __future__ import annotations

from typing import final

import pandas as pd

from offramp.analysis.measures import MEASURES, Measure, Numbers, numbers, observations
from offramp.analysis.stats import Analysis, Columns, Sample, analyze_sample, sample
from offramp.analysis.stats.families import families
from offramp.report.evidence import Evidence

COLUMNS = Columns("value", "strategy", "seed", same="source", measured="measured")


@final
class Findings:
    """Values and analyses by model, data set, measure and exit (None: overall).

    What is asked for is kept, so equal questions get the same object; nothing else changes.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._numbers: dict[tuple[str, str], Numbers] = {}
        self._values: dict[tuple[str, str, str], pd.DataFrame] = {}
        self._samples: dict[tuple[str, str, str, int | None], Sample | None] = {}
        self._analyses: dict[tuple[str, str, str, int | None, tuple[str, ...]], Analysis | None] = {}

    def observations(self, model: str, data: str, measure: Measure) -> pd.DataFrame:
        """All values of a measure (columns `measures.OBSERVATION`), every exit and overall."""
        key = (model, data, measure.name)
        if key not in self._values:
            self._values[key] = observations(self.numbers(model, data), measure)
        return self._values[key]

    def numbers(self, model: str, data: str) -> Numbers:
        """The tidy table of a model and data set, taken apart."""
        if (model, data) not in self._numbers:
            self._numbers[model, data] = numbers(self.evidence.rows(model, data))
        return self._numbers[model, data]

    def values(self, model: str, data: str, measure: Measure, exit: int | None = None) -> pd.DataFrame:
        """Values at one exit, or overall."""
        found = self.observations(model, data, measure)
        return found[found["exit"].isna() if exit is None else (found["exit"] == exit).fillna(False)]

    def analysis(
        self,
        model: str,
        data: str,
        measure: Measure,
        exit: int | None = None,
        members: tuple[str, ...] = (),
    ) -> Analysis | None:
        """Both ways of testing whether strategies differ. members: compare these only, else all.
        None: there are no values."""
        key = (model, data, measure.name, exit, members)
        if key not in self._analyses:
            whole = self._sample(model, data, measure, exit)
            if whole is not None and members:
                whole = whole.keep(members)
            self._analyses[key] = None if whole is None else analyze_sample(whole)
        return self._analyses[key]

    def _sample(self, model: str, data: str, measure: Measure, exit: int | None) -> Sample | None:
        key = (model, data, measure.name, exit)
        if key not in self._samples:
            rows = self.values(model, data, measure, exit)
            self._samples[key] = None if rows.empty else sample(rows, COLUMNS)
        return self._samples[key]

    def families(self, model: str, data: str) -> dict[str, tuple[str, ...]]:
        """The paper's families that are here: `core`, and each hybrid's, by name."""
        return families([t.strategy for t in self.evidence.of(model, data)])

    def exits(self, model: str, data: str) -> tuple[int, ...]:
        """Numbers of the exits that any trial has, ascending."""
        return tuple(sorted({k for t in self.evidence.of(model, data) for k in t.exits}))

    def spread(
        self, model: str, data: str, measure: str, strategy: str, exit: int | None = None
    ) -> tuple[float, float]:
        """Mean and sample standard deviation over the seeds of a strategy; NaN where there is none."""
        rows = self.values(model, data, MEASURES[measure], exit)
        values = rows.loc[rows["strategy"] == strategy, "value"]
        return float(values.mean()), float(values.std(ddof=1))
