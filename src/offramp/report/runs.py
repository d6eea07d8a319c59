"""The trials of one network on one data set, and what is worked out from them, each once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd

from offramp.analysis.measures import MEASURES, OBSERVATION, Measure
from offramp.analysis.recommend.equal import ComputeLevel, beside_controls, equal_compute
from offramp.analysis.stats import Analysis, Columns, Sample, analyze_sample, sample
from offramp.analysis.stats.sample import ValuesOnImages
from offramp.analysis.stats.sequential import InterimAnalyses
from offramp.analysis.stats.text import in_seeds
from offramp.report.controls import Controls, controls
from offramp.report.model import slug
from offramp.report.registry import publication
from offramp.store.manifest import SeedLog
from offramp.store.record import TrialRecord
from offramp.store.table import Spread
from offramp.units import noun

if TYPE_CHECKING:
    from offramp.report.evidence import Evidence

VALUES = ("strategy", "seed", "value")
NONE = pd.DataFrame(columns=list(OBSERVATION))
COLUMNS = Columns("value", "strategy", "seed", same="source", measured="measured")


def _seeds(seeds: Sequence[int], single: str, several: str) -> str:
    """`seed 3 is`, `seeds 3, 4 are`."""
    return (
        f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))} {several if seeds[1:] else single}"
    )


@dataclass(frozen=True, eq=False)
class Runs:
    """Trials by strategy and seed.

    What is asked for is kept, so equal questions get the same object; nothing else changes.
    """

    evidence: Evidence = field(repr=False)  # that they are a part of
    model: str
    data: str
    place_slug: str  # what names of files say of the network and the data set
    _samples: dict[tuple[str, int | None], Sample | None] = field(default_factory=dict, repr=False)
    _analyses: dict[tuple[str, int | None, tuple[str, ...]], Analysis | None] = field(
        default_factory=dict, repr=False
    )

    # Names

    def name(self, *words: object) -> str:
        """Of a file: `words`, the network, the data set."""
        return slug(*words, self.place_slug)

    @property
    def about(self) -> dict[str, str]:
        """What a figure or table of these trials is about."""
        return {"model": self.model, "data": self.data}

    @property
    def where(self) -> str:
        return f"{self.model} on {self.data}"

    @property
    def place(self) -> str:
        return f"{self.model}, {self.data}"

    # Trials

    @cached_property
    def trials(self) -> tuple[TrialRecord, ...]:
        return tuple(t for t in self.evidence.trials if (t.model, t.data) == (self.model, self.data))

    def of(self, strategy: str) -> tuple[TrialRecord, ...]:
        """Trials of a strategy."""
        return tuple(t for t in self.trials if t.strategy == strategy)

    @cached_property
    def strategies(self) -> list[str]:
        """Labels of the strategies that are here, in the order in which they are listed."""
        return self.evidence.among(t.strategy for t in self.trials)

    @cached_property
    def exits(self) -> tuple[int, ...]:
        """Numbers of the exits that any trial has, ascending."""
        return tuple(sorted({k for t in self.trials for k in t.exits}))

    @cached_property
    def families(self) -> dict[str, tuple[str, ...]]:
        """The families of the publication that are here: `core`, and each hybrid's, by name."""
        return publication().families.among([t.strategy for t in self.trials])

    @property
    def measured(self) -> bool:
        """Whether the time of every trial was measured, none estimated."""
        return all(t.seconds.measured for t in self.trials)

    def by_trial(self, value: Callable[[TrialRecord], float]) -> pd.DataFrame:
        """A number of every trial: columns strategy, seed, value."""
        rows = [(t.strategy, t.seed, value(t)) for t in self.trials]
        return pd.DataFrame(rows, columns=["strategy", "seed", "value"])

    def by_exit(self, value: Callable[[TrialRecord, int], float | None]) -> pd.DataFrame:
        """A number of every exit of every trial, where there is one: columns strategy, exit, seed,
        value. value: takes a trial and the place of an exit among its exits."""
        rows = [
            (t.strategy, exit, t.seed, value(t, place))
            for t in self.trials
            for place, exit in enumerate(t.exits)
        ]
        frame = pd.DataFrame(rows, columns=["strategy", "exit", "seed", "value"])
        return frame.astype({"value": float}).dropna(subset=["value"])

    @property
    def several(self) -> bool:
        """Whether images have several labels each: metrics of labels are recorded then."""
        return any("hamming_loss" in t.manifest.metrics["test"].by_name for t in self.trials)

    # Measures and their statistics

    def observations(self, measure: Measure) -> pd.DataFrame:
        """All values of a measure (columns `measures.OBSERVATION`), at every exit and overall."""
        return self.evidence.observed(measure).get((self.model, self.data), NONE)

    def values(self, measure: Measure, exit: int | None = None) -> pd.DataFrame:
        """Values at one exit, or overall."""
        rows = self.observations(measure)
        return rows[rows["exit"].isna() if exit is None else rows["exit"] == exit]

    def spread(self, measure: str, strategy: str, exit: int | None = None) -> Spread:
        """Over the seeds of a strategy."""
        rows = self.values(MEASURES[measure], exit)
        return Spread.of(rows.loc[rows["strategy"] == strategy, "value"])

    def analysis(
        self, measure: Measure, exit: int | None = None, members: tuple[str, ...] = ()
    ) -> Analysis | None:
        """Whether strategies differ; None where there are no values.

        Args:
            measure: By which.
            exit: At which exit; None: overall.
            members: Compare these, both ways; else all, over seeds only, as the paper's way has no
                test of them all.
        """
        key = (measure.name, exit, members)
        if key not in self._analyses:
            whole = self.sample(measure, exit)
            compared = whole.keep(members) if whole is not None and members else whole
            if compared is None:
                self._analyses[key] = None
            else:
                analysis = analyze_sample(compared, both=bool(members), looks=self.looks)
                self._analyses[key] = replace(
                    analysis, notes=(*map(in_seeds, analysis.notes), *self.added)
                )
        return self._analyses[key]

    @cached_property
    def looks(self) -> InterimAnalyses | None:
        """The looks after which seeds were added; None where no log tells of any."""
        here = {t.id for t in self.trials}
        # Of several rules that of most trials here; `added` tells of the others.
        log = max(self._logs, key=lambda log: len(here & set(log.trials)), default=None)
        return None if log is None else InterimAnalyses(tuple(map(str, log.seeds)), log.first)

    @cached_property
    def _logs(self) -> tuple[SeedLog, ...]:
        here = {t.id for t in self.trials}
        return tuple(log for log in self.evidence.logs.values() if here & set(log.trials))

    @cached_property
    def added(self) -> tuple[str, ...]:
        """What to say where seeds were asked for one after the other and no log tells why, where several
        do, or where seeds are not of the log's."""
        if len(self._logs) > 1:
            return (
                f"seeds were added by {len(self._logs)} rules, each fixed before its own first look; p "
                "is adjusted for the looks of one",
            )
        seeds = {t.seed for t in self.trials}
        if self.looks is not None:
            outside = sorted(s for s in seeds if str(s) not in self.looks.order)
            rule = "not of the rule by which seeds were added: they count in means, not in pairs"
            return (f"{_seeds(outside, 'is', 'are')} {rule}",) if outside else ()
        requests = [t.manifest.asked for t in self.trials if t.manifest.asked is not None]
        later = sorted(s for s in seeds if any(s not in request for request in requests))
        if not later:
            return ()
        return (
            f"{_seeds(later, 'was', 'were')} asked for later than others, or apart; if any were added "
            "because of what others had shown, p is too small (offramp run --until-decided adjusts for "
            "that)",
        )

    @cached_property
    def controls(self) -> Controls:
        """Plain networks beside these trials."""
        return controls(self)

    @cached_property
    def levels(self) -> tuple[ComputeLevel, ...]:
        """Strategies compared at equal compute, with a coin between plain networks and cascades."""
        names = {(self.model, s): s for s in self.strategies}
        names |= self.controls.named("mixture", "cascade")
        return equal_compute(self.evidence.facts, self.data, names)

    @cached_property
    def beside_controls(self) -> Mapping[str, ComputeLevel]:
        """Strategies beside each cheaper plain network, at its compute."""
        names = {(self.model, s): s for s in self.strategies}
        plain = {(self.model, c.label): c.label for c in self.controls.cheaper}
        return beside_controls(self.evidence.facts, self.data, names, plain)

    @cached_property
    def same_images(self) -> bool:
        """Whether all trials answered the same test images. Where each seed drew its own, seeds carry
        the luck of images too."""
        return len({t.manifest.data.test for t in self.trials}) == 1

    @property
    def noun(self) -> str:
        """What a test example is called."""
        return noun(self.trials[0].manifest.input_shape)

    @property
    def tested_over(self) -> str:
        """What differences of accuracy are tested over, in words."""
        return f"seeds and test {self.noun}s" if self.same_images else "seeds"

    def over_images(self, measure: Measure) -> bool:
        """Whether differences of a measure are tested over test images, besides seeds."""
        return measure.on_images is not None and self.same_images

    def images(self, measure: Measure, exit: int | None = None) -> ValuesOnImages | None:
        """A measure of test data, image by image; None for other measures, and of one image, which says
        nothing of how much images vary."""
        of = measure.on_images
        # Values of other images do not line up; their luck is then a part of what varies over seeds.
        if of is None or not self.same_images:
            return None
        rows = self.values(measure, exit)
        values = {(str(s), int(x)): v for s, x, v in zip(*(rows[c] for c in VALUES), strict=True)}
        by_trial = {}
        for trial in self.trials:
            value = values.get((trial.strategy, trial.seed))
            if value is None:
                continue
            by_exit = self.evidence.on_images(trial.id, of)
            by_exit = by_exit if measure.per_exit else by_exit[:, -1:]
            row = by_exit.mean(axis=1) if exit is None else by_exit[:, trial.exits.index(exit)]
            # Packed logits are rounded: what is said of a trial is the number that it was stored with.
            by_trial[trial.strategy, str(trial.seed)] = row + (value - row.mean())
        return None if any(len(row) < 2 for row in by_trial.values()) else by_trial

    def sample(self, measure: Measure, exit: int | None = None) -> Sample | None:
        """Values at one exit, or overall, by strategy and seed. None: there are none."""
        key = (measure.name, exit)
        if key not in self._samples:
            rows = self.values(measure, exit)
            images = self.images(measure, exit)
            read = None if rows.empty else sample(rows, COLUMNS, images)
            self._samples[key] = None if read is None or not read.groups else read
        return self._samples[key]
