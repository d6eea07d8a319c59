"""Evidence without a store: trials with the numbers that a test wants, in the shape of real ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

import records
from offramp.report.evidence import Evidence, Gathered
from offramp.report.model import Table
from offramp.report.tables import make
from offramp.store.record import PhaseRecord, TrialRecord
from offramp.store.table import COLUMNS

IMAGES = 1000


@dataclass(frozen=True)
class TabledTrial:
    """One trial. accuracy: by exit, on every split (0 to 1).  loss: validation loss by epoch, of every
    exit.  sources: by exit, a key of its weights; equal ones are identical by construction.
    meters: further costs of its one phase, as power_cpu_mean_w.  weights: that it began with.  images:
    of each split.  facts: of its manifest, in place of the usual ones."""

    strategy: str
    seed: int
    accuracy: Mapping[int, float]
    loss: Sequence[float] = (1.0, 0.8, 0.7, 0.65, 0.64)
    seconds: float = 10.0
    measured: bool = True
    model: str = "net"
    data: str = "images"
    sources: Mapping[int, str] = field(default_factory=dict)
    meters: Mapping[str, float] = field(default_factory=dict)
    weights: str | None = None
    images: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.strategy}-{self.model}-{self.data}-s{self.seed}"


class Logits:
    """Records that hold logits only: a trial's first right answers, then wrong ones, all sure."""

    def __init__(self, trials: Sequence[TabledTrial]) -> None:
        self.trials = {t.id: t for t in trials}

    def trial_logits(self, trial: str) -> dict[str, np.ndarray]:
        accuracy = list(self.trials[trial].accuracy.values())
        right = np.arange(IMAGES)[:, None] < np.round(np.array(accuracy) * IMAGES)
        labels = np.arange(IMAGES) % 2
        answers = np.where(right, labels[:, None], 1 - labels[:, None])
        return {"test": 9.0 * np.eye(2)[answers], "test_labels": labels}


def evidence(trials: Sequence[TabledTrial]) -> Evidence:
    """Evidence of made trials, in the order in which they come."""
    frames = [_rows(t) for t in trials]
    table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))
    for column in ("exit", "epoch"):
        table[column] = table[column].astype("Int64")
    return Evidence(table, tuple(_trial(t) for t in trials), (), Gathered(Logits(trials)))  # type: ignore[arg-type]


def shuffled(whole: Evidence, seed: int = 0) -> Evidence:
    """The same trials in another order."""
    order = np.random.default_rng(seed).permutation(len(whole.trials))
    trials = tuple(whole.trials[i] for i in order)
    frames = [whole.table[whole.table["trial"] == t.id] for t in trials]
    return replace(whole, trials=trials, table=pd.concat(frames, ignore_index=True))


def _rows(built: TabledTrial) -> pd.DataFrame:
    rows: list[tuple[Any, ...]] = []
    for exit, accuracy in built.accuracy.items():
        source = built.sources.get(exit, f"{built.id}-{exit}")
        for split in records.SPLITS:
            at = ("final", exit, split, None)
            rows.append((*at, "accuracy", accuracy, source, True))
            rows.append((*at, "cross_entropy", built.loss[-1], source, True))
        for epoch, loss in enumerate(built.loss, start=1):
            for split in ("train", "validation", "train-eval"):
                rows.append(("phase", exit, split, epoch, "cross_entropy", loss, source, True))
                rows.append(("phase", exit, split, epoch, "accuracy", accuracy, source, True))
    costs = {"seconds_train": built.seconds, "macs_written": 100.0, "macs_executed": 100.0}
    for metric, value in {**costs, **built.meters}.items():
        rows.append(("phase", None, None, None, metric, value, f"{built.id}-phase", built.measured))
    about = (built.id, built.strategy, built.model, built.data, built.seed)
    return pd.DataFrame([(*about, *row) for row in rows], columns=list(COLUMNS))


def _trial(built: TabledTrial) -> TrialRecord:
    exits, numbers = tuple(built.accuracy), list(built.accuracy.values())
    node = f"{built.id}-phase"
    cost = records.cost(seconds={"train": built.seconds}, comparable=built.measured)
    written = [0.0 if np.isnan(n) else n for n in numbers]  # a manifest holds no NaN, a table may
    metrics = {"accuracy": written, "cross_entropy": [built.loss[-1]] * len(exits)}
    manifest = records.manifest(
        (node,),
        **{"strategy": built.strategy, "program": built.strategy, "seed": built.seed, "exits": exits},
        places=[f"place {k}" for k in range(1, max(exits) + 1)],
        parameters=list(exits),
        final={
            str(k): [{"node": built.sources.get(k, f"{built.id}-{k}"), "draw": "initial"}] for k in exits
        },
        **{"macs": [10 * k for k in exits], "backbone_macs": 40},
        metrics=dict.fromkeys(records.SPLITS, metrics),
        network={"backbone": built.model, "taps": None, "weights": built.weights},
        data=records.manifest().data.as_json()
        | {"name": built.data, "provenance": {"images": dict(built.images)}},
        **built.facts,
    )
    return TrialRecord(built.id, manifest, (PhaseRecord("phase", node, exits, (), cost),))


def planted(
    seeds: int = 5, exits: int = 3, shift: Mapping[str, float] | None = None
) -> list[TabledTrial]:
    """Trials whose seeds share much luck. shift: accuracy of each strategy above the rest; noise within
    a seed is a tenth of a point, so a shift of a point is found and one of zero is not."""
    generator = np.random.default_rng(7)
    if shift is None:
        shift = {"joint": 0.05, "separate": 0.05, "branch-wise": 0.0, "two-stage": -0.05}
    luck, numbers, actual = generator.normal(0, 0.02, seeds), range(1, exits + 1), []
    for strategy, above in shift.items():
        for seed in range(seeds):
            base = 0.6 + above + luck[seed]
            accuracy = {k: float(base + 0.05 * k + generator.normal(0, 0.001)) for k in numbers}
            actual.append(TabledTrial(strategy, 42 + seed, accuracy))
    return actual


@cache
def usual() -> Evidence:
    """Of `planted()`, for tests that change nothing of it: what is computed of it stays."""
    return evidence(planted())


def only(whole: Evidence, name: str) -> Table:
    """Its one table of that name."""
    (table,) = make(whole, [name])
    return table
