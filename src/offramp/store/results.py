"""The results table: accuracy, compute and time of each strategy over its seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np

from offramp.policy.quality import at_thresholds
from offramp.store.archive import Records
from offramp.store.manifest import Manifest
from offramp.store.record import Seconds, seconds

THRESHOLDS = (0.5, 0.8, 0.95)


class Spread(NamedTuple):
    """Mean and sample standard deviation; NaN where there are no values, or one."""

    mean: float
    sd: float

    @staticmethod
    def of(values: Iterable[float]) -> Spread:
        numbers = np.array(list(values), dtype=float)
        sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else float("nan")
        return Spread(float(numbers.mean()) if len(numbers) else float("nan"), sd)


@dataclass(frozen=True)
class StrategyResult:
    """One strategy over its seeds.

    Attributes:
        strategy: its label.
        seeds: of its trials.
        accuracy: on test, by exit, 0 to 1.
        thresholds: accuracy and compute (share of the plain network's MACs) by confidence threshold.
        seconds: a trial's, on average.
    """

    strategy: str
    seeds: tuple[int, ...]
    accuracy: Mapping[int, Spread]
    thresholds: Mapping[float, tuple[Spread, Spread]]
    seconds: Seconds


def by_strategy(store: Records, trials: Iterable[str]) -> list[StrategyResult]:
    """A result for each strategy among `trials`, in the order in which they come; a node's time is
    marginal for the first of them that reads it."""
    grouped: dict[str, dict[str, Manifest]] = {}
    times: dict[str, list[Seconds]] = {}
    before: set[str] = set()
    for trial in trials:
        manifest = store.read_trial(trial)
        grouped.setdefault(manifest.strategy, {})[trial] = manifest
        costs = {key: store.node_cost(key) for key in manifest.keys}
        times.setdefault(manifest.strategy, []).append(
            seconds(costs, [k for k in costs if k not in before])
        )
        before.update(costs)
    return [_result(store, name, group, times[name]) for name, group in grouped.items()]


def _result(
    store: Records, strategy: str, group: Mapping[str, Manifest], times: Sequence[Seconds]
) -> StrategyResult:
    manifests = list(group.values())
    accuracies = np.array([m.metrics["test"].accuracy for m in manifests])
    points = []
    for trial, manifest in group.items():
        arrays = store.trial_logits(trial)
        tested = (arrays["test"], arrays["test_labels"], manifest.macs, manifest.backbone_macs)
        points.append(at_thresholds(*tested, THRESHOLDS))
    names = [field.name for field in fields(Seconds) if field.name != "measured"]
    means = {name: float(np.mean([getattr(s, name) for s in times])) for name in names}
    return StrategyResult(
        strategy,
        tuple(m.seed for m in manifests),
        {k: Spread.of(accuracies[:, i].tolist()) for i, k in enumerate(manifests[0].exits)},
        {
            t: (Spread.of(a for a, _ in pairs), Spread.of(c for _, c in pairs))
            for t, pairs in zip(THRESHOLDS, zip(*points, strict=True), strict=True)
        },
        Seconds(**means, measured=all(s.measured for s in times)),
    )
