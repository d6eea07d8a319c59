"""Measures and their statistics over a whole store, each computed once however many tables ask."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import final

import numpy as np
import pandas as pd

from offramp.analysis.claims import Judgment, check
from offramp.analysis.curves import History
from offramp.analysis.measures import MEASURES, Measure, Numbers, numbers, observations
from offramp.analysis.stats import Analysis, Columns, Sample, analyze_sample, sample
from offramp.paper.families import families
from offramp.report.claims_file import paper
from offramp.report.evidence import Evidence

COLUMNS = Columns("value", "strategy", "seed", same="source", measured="measured")
Place = tuple[str, str, str, int | None]  # model, data, measure, exit


@final
class Findings:
    """Values and analyses by model, data set, measure and exit (None: overall).

    What is asked for is kept, so equal questions get the same object; nothing else changes.
    """

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self._whole: dict[str, pd.DataFrame] = {}
        self._parts: dict[str, Mapping[tuple[str, str, str], pd.DataFrame]] = {}
        self._samples: dict[Place, Sample | None] = {}
        self._analyses: dict[tuple[Place, tuple[str, ...]], Analysis | None] = {}

    @cached_property
    def numbers(self) -> Numbers:
        """The tidy table, taken apart."""
        return numbers(self.evidence.table)

    @cached_property
    def histories(self) -> Mapping[str, list[History]]:
        """Curves of every exit by trial."""
        found: dict[str, list[History]] = {}
        for history in self.numbers.histories:
            found.setdefault(history.trial, []).append(history)
        return found

    @cached_property
    def outcomes(self) -> Mapping[str, Judgment]:
        """What the evidence says of the paper's claims, by id."""
        return {outcome.claim.id: outcome for outcome in check(paper(), self.numbers)}

    def everywhere(self, measure: Measure) -> pd.DataFrame:
        """All values of a measure (columns `measures.OBSERVATION`)."""
        if measure.name not in self._whole:
            self._whole[measure.name] = observations(self.numbers, measure)
        return self._whole[measure.name]

    def observations(self, model: str, data: str, measure: Measure) -> pd.DataFrame:
        """Those of a model and data set, every exit and overall."""
        whole = self.everywhere(measure)
        return whole[(whole["model"] == model) & (whole["data"] == data)]

    def values(self, model: str, data: str, measure: Measure, exit: int | None = None) -> pd.DataFrame:
        """Values at one exit, or overall."""
        if measure.name not in self._parts:
            whole = self.everywhere(measure)
            exits = whole["exit"].map(str)  # `<NA>` overall
            groups = whole.groupby([whole["model"], whole["data"], exits], sort=True)
            self._parts[measure.name] = {(str(m), str(d), str(k)): part for (m, d, k), part in groups}
        none = self.everywhere(measure).iloc[:0]
        return self._parts[measure.name].get((model, data, str(pd.NA if exit is None else exit)), none)

    def analysis(
        self,
        model: str,
        data: str,
        measure: Measure,
        exit: int | None = None,
        members: tuple[str, ...] = (),
    ) -> Analysis | None:
        """Whether strategies differ. members: compare these, both ways; else all, over seeds only, as
        the paper's way has no test of them all. None: there are no values."""
        place = (model, data, measure.name, exit)
        key = (place, members)
        if key not in self._analyses:
            found = self._sample(place)
            if found is None:
                self._analyses[key] = None
            elif members:
                self._analyses[key] = analyze_sample(found.keep(members))
            else:
                self._analyses[key] = analyze_sample(found, both=False)
        return self._analyses[key]

    def _sample(self, place: Place) -> Sample | None:
        if place not in self._samples:
            model, data, name, exit = place
            rows = self.values(model, data, MEASURES[name], exit)
            self._samples[place] = None if rows.empty else sample(rows, COLUMNS)
        return self._samples[place]

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
        values = rows.loc[rows["strategy"] == strategy, "value"].to_numpy(dtype=float)
        if not len(values):
            return float("nan"), float("nan")
        return float(values.mean()), float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
