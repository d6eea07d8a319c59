"""Plain networks beside networks with early exits: each alone, two by a coin, two as a cascade.

A smaller network trained alone is the cheapest way to a cheaper answer. It stands on the same axes: at
its compute every strategy is compared with it. Between two networks a coin gives the straight line, and
no more; a cascade asks the small one first and the large one for what that is unsure of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from offramp.analysis.recommend.goals import Candidate, PlainFacts
from offramp.analysis.stats.pairwise import FEWEST
from offramp.analysis.tradeoff import AnyAnswers, coin, hull, then
from offramp.store.manifest import Manifest
from offramp.store.record import TrialRecord, apart
from offramp.store.table import Spread
from offramp.strategies import PLAIN

if TYPE_CHECKING:
    from offramp.report.runs import Runs

COIN = "plain networks"  # what tables call a mixture of them


@dataclass(frozen=True, eq=False)
class PlainNetwork:
    """A plain network. trials: by seed."""

    label: str
    trials: tuple[TrialRecord, ...]

    @property
    def macs(self) -> int:
        """Of an image."""
        return self.trials[0].macs[-1]

    @property
    def epochs(self) -> int:
        """Of its training."""
        return self.trials[0].manifest.recipe.epochs

    @property
    def training(self) -> float:
        """MACs of its training."""
        return float(np.mean([sum(p.cost.macs_written for p in t.phases) for t in self.trials]))

    def accuracy(self, split: str = "test") -> Spread:
        """Over its seeds."""
        return Spread.of(t.manifest.metrics[split].accuracy[-1] for t in self.trials)


@dataclass(frozen=True, eq=False)
class ControlCandidate:
    """What is compared with strategies at equal compute. answers: by seed."""

    label: str
    facts: PlainFacts
    answers: Mapping[int, AnyAnswers]


@dataclass(frozen=True, eq=False)
class Controls:
    """The plain networks of one model and data set."""

    runs: Runs
    cheaper: tuple[PlainNetwork, ...]  # those that were trained beside it, ascending by their MACs
    whole: PlainNetwork | None  # the network itself without early exits; None where it was not trained

    @property
    def networks(self) -> tuple[PlainNetwork, ...]:
        """All of them; none where there is nothing but the network itself."""
        return (*self.cheaper, *([self.whole] if self.whole and self.cheaper else []))

    @cached_property
    def frontier(self) -> tuple[PlainNetwork, ...]:
        """Those that no coin between two others beats on validation, so that test images choose none."""
        by_label = {c.label: c for c in self.networks}
        points = {c.label: (float(c.macs), c.accuracy("validation").mean) for c in self.networks}
        return tuple(by_label[label] for label in hull(points))

    @cached_property
    def candidates(self) -> tuple[ControlCandidate, ...]:
        """Each network; the frontier, as a coin between neighbors; and each two of it as a cascade; of
        those that have seeds in common with the strategies."""
        every = {
            c.label: {t.seed: self.runs.evidence.answers_of(t) for t in c.trials} for c in self.networks
        }
        spent = {c.label: c.training for c in self.networks}
        parts = [
            ControlCandidate(label, PlainFacts("network", spent[label]), answers)
            for label, answers in every.items()
        ]
        best = [c.label for c in self.frontier]
        for first, second in combinations(best, 2):
            seeds = sorted(every[first].keys() & every[second].keys())
            both = {seed: then(every[first][seed], every[second][seed]) for seed in seeds}
            cascade = PlainFacts("cascade", spent[first] + spent[second])
            parts.append(ControlCandidate(f"{first} then {second}", cascade, both))
        if best[1:]:
            shared = sorted(set.intersection(*(set(every[name]) for name in best)))
            mixed = {seed: coin([every[name][seed] for name in best]) for seed in shared}
            facts = PlainFacts("mixture", sum(spent[name] for name in best))
            parts.append(ControlCandidate(COIN, facts, mixed))
        # One that lacks seeds would leave nothing to test, nor to advise; the sentence on it says so.
        usual = {t.seed for t in self.runs.trials}
        least = min(FEWEST, len(usual))
        enough = [part for part in parts if len(usual & part.answers.keys()) >= least]
        labels = {c.label for c in self.cheaper}
        return tuple(enough) if any(part.label in labels for part in enough) else ()

    def named(self, *kinds: str) -> dict[Candidate, str]:
        """Candidates of these kinds, as facts name them."""
        return {(self.runs.model, c.label): c.label for c in self.candidates if c.facts.kind in kinds}


def controls(runs: Runs) -> Controls:
    """The plain networks of these runs."""
    alone = [t for t in runs.trials if t.manifest.program == PLAIN and len(t.exits) == 1]
    whole = [t for t in alone if t.strategy == alone[0].strategy]  # of several the first one
    own = runs.trials[0].manifest
    beside = runs.evidence.plain.get((runs.model, own.data.name), ())
    cheaper: dict[str, PlainNetwork] = {}
    for trials in beside:
        label = _label(trials[0].manifest, own, [*runs.strategies, *cheaper])
        cheaper[label] = PlainNetwork(label, trials)
    ordered = sorted(cheaper.values(), key=lambda c: (c.macs, c.label))
    return Controls(
        runs, tuple(ordered), PlainNetwork(whole[0].strategy, tuple(whole)) if whole else None
    )


def _label(manifest: Manifest, host: Manifest, others: Sequence[str]) -> str:
    """In what a plain network differs from the host's, as no other label."""
    label = apart(manifest, host) or "plain"
    while label in others:
        label += "'"
    return label
