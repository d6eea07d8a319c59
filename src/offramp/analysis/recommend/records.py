"""What is asked for, what advice rests on, and what comes out."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from offramp.analysis.measures import MEASURES, Measure, Numbers, observations
from offramp.paper.guidelines import Goal

Candidate = tuple[str, str]  # model, strategy


@dataclass(frozen=True, eq=False)
class Facts:
    """What advice rests on. points: of `operating.POINTS`, may be empty.  heads_only: strategies that
    leave a given backbone as it is."""

    numbers: Numbers
    points: pd.DataFrame
    heads_only: frozenset[str] = frozenset()
    _known: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    def observed(self, measure: str) -> pd.DataFrame:
        """Overall observations of a measure (columns measures.OBSERVATION), worked out once."""
        if measure not in self._known:
            rows = observations(self.numbers, MEASURES[measure])
            self._known[measure] = rows[rows["exit"].isna()]
        return self._known[measure]


@dataclass(frozen=True)
class Wish:
    """What is asked for. min_accuracy: 0 to 1.  max_macs: of an image, on average."""

    goal: Goal
    min_accuracy: float | None = None
    max_macs: float | None = None
    frozen_backbone: bool = False


@dataclass(frozen=True)
class Ranked:
    """A strategy on a network, or several that are identical by construction.

    mean, sd: over seeds, of the advice's measure.  p: of the difference from the first, adjusted; None
    where it was not tested.  behind: whether it is told apart from the first one; None if untested.
    use, accuracy: how to use the network so, such as `exit 2`, and what its test accuracy then is; empty
    and None where the measure is not of one way to use it.
    """

    name: str
    mean: float
    sd: float | None
    seeds: int
    p: float | None
    behind: bool | None
    use: str = ""
    accuracy: float | None = None


@dataclass(frozen=True)
class RuledOut:
    """Who is out, and why: a clause."""

    name: str
    why: str


@dataclass(frozen=True)
class Advice:
    """A ranking for one data set, the best first.

    measure: what is ranked by; values are in its stored unit.  untested: why nothing was tested, or
    None.  notes: whole sentences.  target: the accuracy (0 to 1, on calibration data) that places to
    leave were chosen for; None where there is none.
    """

    goal: Goal
    data: str
    measure: Measure
    ranking: tuple[Ranked, ...]
    ruled_out: tuple[RuledOut, ...]
    untested: str | None
    notes: tuple[str, ...]
    target: float | None = None

    @property
    def first(self) -> tuple[Ranked, ...]:
        """The best one, and all that were tested against it and are not separable from it."""
        return tuple(r for i, r in enumerate(self.ranking) if i == 0 or r.behind is False)
