"""Stores that never ran: tidy tables with planted effects and known randomness, from a generator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from offramp.analysis.claims import Regime
from offramp.store.table import COLUMNS

CORE = ("joint", "separate", "branch-wise", "two-stage", "distillation")
HYBRIDS = ("joint-branch", "joint-two-stage", "pretrained-branch")
NINE = ("baseline", *CORE, *HYBRIDS)
# Strategies whose trials share a backbone, so that they vary together.
FAMILIES = {
    **dict.fromkeys(("baseline", "separate", "two-stage", "distillation", "pretrained-branch"), 0),
    **dict.fromkeys(("joint", "joint-branch", "joint-two-stage"), 1),
    "branch-wise": 2,
}
# As if the tables of `tidy_table` came from runs like the paper's.
PAPERS = Regime(
    named=("apple", "leopard", "worm", *(f"class {k}" for k in range(97))),
    train=45000,
    test=10000,
    size=32,
    channels=3,
    epochs=300,
    weights="pretrained",
)
CIFAR100 = {("resnet50", "cifar100"): PAPERS}
SPLITS = ("test", "validation", "calibration")
METERS = (
    "memory_gpu_peak_bytes",
    "memory_rss_peak_bytes",
    "power_gpu_mean_w",
    "power_cpu_mean_w",
    "energy_gpu_j",
)


@dataclass(frozen=True)
class Planted:
    """True differences from the middle, in standard deviations of the noise within a seed.

    By strategy; of accuracy and loss also by (strategy, exit), which adds up. curves: of the epoch of
    the least loss, in epochs. gap: of training accuracy at the end.
    """

    accuracy: Mapping[str | tuple[str, int], float] = field(default_factory=dict)
    loss: Mapping[str | tuple[str, int], float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    meters: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, int] = field(default_factory=dict)
    gap: Mapping[str, float] = field(default_factory=dict)


NOTHING = Planted()


def tidy_table(
    seed: int,
    planted: Planted = NOTHING,
    *,
    strategies: Sequence[str] = NINE,
    pairs: Sequence[tuple[str, str]] = (("resnet50", "cifar100"),),
    seeds: int = 5,
    exits: int = 4,
    epochs: int = 0,
    shared: float = 0.95,
    luck: float = 2.0,
    measured: bool = True,
) -> pd.DataFrame:
    """A tidy table as `study.summary.tidy` makes it (columns COLUMNS), a phase a trial.

    shared: the correlation of strategies of one family, within a seed.  luck: how much seeds differ,
    in the same unit.  epochs: of curves; none without.  The baseline has the final exit alone.
    """
    rng = np.random.default_rng(seed)
    draw = _Draw(rng, len(pairs), len(strategies), seeds, exits, shared, luck, strategies)
    trials = _trials(strategies, pairs, seeds)
    frames = [_final(draw, planted, trials, strategies, exits)]
    frames.append(_costs(draw, planted, trials, strategies, measured))
    if epochs:
        frames.append(_curves(rng, planted, trials, exits, epochs))
    table = pd.concat(frames, ignore_index=True).reindex(columns=list(COLUMNS))
    alone = (table["strategy"] == "baseline") & table["exit"].notna() & (table["exit"] != exits)
    table = table[~alone].reset_index(drop=True)
    for column in ("exit", "epoch"):
        table[column] = table[column].astype("Int64")
    return table


@dataclass(frozen=True)
class _Draw:
    """Noise of [pairs, strategies, seeds, exits]: luck of a seed, of a family, of a trial; unit sd but
    for the luck."""

    rng: np.random.Generator
    pairs: int
    groups: int
    seeds: int
    exits: int
    shared: float
    luck: float
    strategies: Sequence[str]

    def noise(self, exits: int) -> np.ndarray:
        shape = (self.pairs, 1, self.seeds, exits)
        of_seed = self.luck * self.rng.normal(size=shape)
        of_family = self.rng.normal(size=(self.pairs, 3, self.seeds, exits))
        families = [FAMILIES.get(s, 0) for s in self.strategies]
        own = self.rng.normal(size=(self.pairs, self.groups, self.seeds, exits))
        both = np.sqrt(self.shared) * of_family[:, families] + np.sqrt(1 - self.shared) * own
        return np.asarray(of_seed + both)


def _trials(strategies: Sequence[str], pairs: Sequence[tuple[str, str]], seeds: int) -> pd.DataFrame:
    """A row a trial, in the order of [pairs, strategies, seeds]."""
    rows = [(m, d, s, 42 + k) for m, d in pairs for s in strategies for k in range(seeds)]
    trials = pd.DataFrame(rows, columns=["model", "data", "strategy", "seed"])
    parts = [trials[c].astype(str) for c in ("strategy", "model", "data", "seed")]
    return trials.assign(trial=parts[0] + "-" + parts[1] + "-" + parts[2] + "-s" + parts[3])


def _repeat(trials: pd.DataFrame, times: int, columns: Mapping[str, object]) -> pd.DataFrame:
    return trials.loc[trials.index.repeat(times)].assign(**columns).reset_index(drop=True)


def _shift(effect: Mapping[object, float], strategies: Sequence[str], exits: int) -> np.ndarray:
    """Effects of [strategies, 1, exits]."""
    table = [
        [effect.get(s, 0.0) + effect.get((s, k + 1), 0.0) for k in range(exits)] for s in strategies
    ]
    return np.array(table)[:, None, :]


def _final(
    draw: _Draw, planted: Planted, trials: pd.DataFrame, strategies: Sequence[str], exits: int
) -> pd.DataFrame:
    """Closing metrics. Validation and calibration differ from test by a little noise."""
    frames = []
    numbers = np.tile(np.arange(1, exits + 1), len(trials))
    for metric, middle, unit, effect in (
        ("accuracy", 0.6, 0.005, planted.accuracy),
        ("cross_entropy", 1.4, 0.02, planted.loss),
    ):
        truth = _shift(dict(effect), strategies, exits)
        values = middle + unit * (draw.noise(exits) + truth)
        for split in SPLITS:
            noisy = (
                values if split == "test" else values + 0.1 * unit * draw.rng.normal(size=values.shape)
            )
            columns = {"exit": numbers, "split": split, "metric": metric, "value": noisy.ravel()}
            frames.append(_repeat(trials, exits, {**columns, "phase": "final", "measured": True}))
    table = pd.concat(frames, ignore_index=True)
    return table.assign(source=table["trial"] + "-" + table["exit"].astype(str))


def _costs(
    draw: _Draw, planted: Planted, trials: pd.DataFrame, strategies: Sequence[str], measured: bool
) -> pd.DataFrame:
    """Costs of the one phase of each trial."""
    frames = []
    for metric in ("seconds_train", *METERS, "macs_written", "macs_executed"):
        effect = planted.seconds if metric == "seconds_train" else planted.meters
        truth = _shift(dict(effect), strategies, 1)
        values = 100 + draw.noise(1) + truth
        counted = np.full_like(values, 1e12)
        values = counted if metric.startswith("macs") else values
        columns = {"metric": metric, "value": values.ravel(), "measured": measured}
        frames.append(_repeat(trials, 1, columns))
    table = pd.concat(frames, ignore_index=True)
    return table.assign(phase="train", source=table["trial"])


def _curves(
    rng: np.random.Generator, planted: Planted, trials: pd.DataFrame, exits: int, epochs: int
) -> pd.DataFrame:
    """Histories: loss falls to its least value, then rises by as much everywhere; every trial and exit
    on its own."""
    shape = (len(trials), exits, 1)
    epoch = np.arange(1, epochs + 1)
    later = np.array([planted.curves.get(s, 0) for s in trials["strategy"]])[:, None, None]
    low = np.clip(epochs * 0.6 + later + rng.normal(size=shape), 2, epochs - 1)
    fall, rise = np.maximum(1 - epoch / low, 0), np.maximum(epoch - low, 0) / (epochs - low)
    loss = 1 + 0.2 * fall + 0.02 * rise + 0.001 * rng.normal(size=(*shape[:2], epochs))
    running = 1 - 0.5 * epoch / epochs + 0.001 * rng.normal(size=loss.shape)
    accuracy = 0.7 - 0.2 * fall - 0.02 * rise + 0.001 * rng.normal(size=loss.shape)
    wider = np.array([planted.gap.get(s, 0.0) for s in trials["strategy"]])[:, None, None]
    trained = accuracy + 0.005 * (10 + wider + rng.normal(size=shape))
    every = {
        ("validation", "cross_entropy"): loss,
        ("validation", "accuracy"): accuracy,
        ("train", "cross_entropy"): running,
        ("train", "accuracy"): accuracy + 0.05,
        ("train-eval", "accuracy"): trained[:, :, -1:],
        ("train-eval", "cross_entropy"): loss[:, :, -1:] - 0.1,
    }
    frames = []
    for (split, metric), values in every.items():
        count = values.shape[2]
        numbers = np.tile(np.repeat(np.arange(1, exits + 1), count), len(trials))
        at = np.tile(epoch[-count:], len(trials) * exits)
        columns = {"exit": numbers, "epoch": at, "split": split, "metric": metric}
        frames.append(_repeat(trials, exits * count, {**columns, "value": values.ravel()}))
    table = pd.concat(frames, ignore_index=True)
    return table.assign(phase="train", source=table["trial"], measured=True)
