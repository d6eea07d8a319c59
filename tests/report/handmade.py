"""HandTrial evidence, with numbers that a test can know: trials without any training."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

import records
from offramp.hashing import digest
from offramp.report.evidence import Evidence, Gathered, gather
from offramp.store.manifest import Cost, Manifest, NodeRecord
from offramp.store.record import read
from offramp.store.table import tidy

PLACES = ("p1", "p2", "p3")
MACS = (10, 30, 60)
PLAIN = 50  # MACs of the backbone


@dataclass(frozen=True)
class Run:
    """A phase. loss, accuracy: validation, by exit, one number an epoch; train is half of the loss and
    the accuracy itself.  meters: more numbers of the phase."""

    name: str
    loss: Mapping[int, Sequence[float]]
    accuracy: Mapping[int, Sequence[float]] = field(default_factory=dict)
    seconds: float = 2.0
    executed: int = 100
    written: int = 100
    comparable: bool = True
    key: str = ""  # of the node, where trials share it
    meters: Mapping[str, float] = field(default_factory=dict)
    shares: Mapping[int, float] = field(default_factory=dict)  # of its time, by exit; as their MACs


@dataclass(frozen=True)
class HandTrial:
    """A trial. right: by exit, for each of the images whether the exit is right, and how sure it is."""

    label: str
    seed: int
    runs: Sequence[Run]
    exits: Sequence[int] = (1, 2, 3)
    right: Mapping[int, Sequence[bool]] = field(default_factory=dict)
    sure: float = 0.9
    model: str = "net"
    data: str = "images"
    study: str | None = "made"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    finished: str = "2025-01-01"
    width: tuple[str, int] | None = None  # of another network, and its MACs
    even: bool = False  # whether half of the images are of the second class

    @property
    def id(self) -> str:
        return (
            f"{self.label}-{self.model}-{self.data}-s{self.seed}-"
            f"{digest([self.study, self.recipe, *(self.width or ())])[:4]}"
        )


class Memory:
    """Records and histories of made trials, as a store has them."""

    def __init__(self, trials: Iterable[HandTrial]) -> None:
        self.made = {trial.id: trial for trial in trials}
        self.runs = {_key(t, run): run for t in self.made.values() for run in t.runs}

    def read_trial(self, trial: str) -> Manifest:
        entry = self.made[trial]
        numbers = list(entry.exits)
        logits = self.trial_logits(trial)
        right = (logits["test"].argmax(2) == logits["test_labels"][:, None]).mean(0)
        metrics = {"accuracy": right.tolist(), "cross_entropy": [float(k) for k in numbers]}
        keys = [_key(entry, run) for run in entry.runs]
        own = {
            k: [
                {"node": key, "draw": "initial"}
                for key, run in zip(keys, entry.runs, strict=True)
                if k in run.loss
            ]
            for k in numbers
        }
        usual = records.manifest()
        return records.manifest(
            **{
                "strategy": entry.label,
                "program": entry.label,
                "study": entry.study,
                "seed": entry.seed,
            },
            **{"exits": numbers, "places": PLACES, "marginal": keys[-1:], "parameters": numbers},
            phases=[{"name": r.name, "node": k} for r, k in zip(entry.runs, keys, strict=True)],
            final={str(k): own[k] or [{"node": keys[0], "draw": "initial"}] for k in numbers},
            **{"owners": [0, 0, 0], "macs": [_macs(entry, k) for k in numbers]},
            backbone_macs=entry.width[1] if entry.width else PLAIN,
            metrics=dict.fromkeys(records.SPLITS, metrics),
            network={
                **{"backbone": entry.model, "taps": None},
                "options": [["width", entry.width[0]]] if entry.width else [],
            },
            data={
                **usual.data.as_json(),
                **{"name": entry.data, "provenance": {"images": {"test": 4}}},
            },
            recipe=records.RECIPE | dict(entry.recipe),
            provenance={"finished": entry.finished, "torch": "2"},
        )

    def trial_logits(self, trial: str) -> dict[str, np.ndarray]:
        """Two classes; label 0 everywhere, or on every other image."""
        entry = self.made[trial]
        right = np.array([list(entry.right.get(k, (True, True, False, True))) for k in entry.exits]).T
        gap = np.log(entry.sure / (1 - entry.sure))
        logits = np.stack([np.where(right, gap, 0.0), np.where(right, 0.0, gap)], axis=2)
        labels = np.arange(len(right)) % 2 if entry.even else np.zeros(len(right), dtype=np.int64)
        logits = np.where(labels[:, None, None] == 1, logits[:, :, ::-1], logits)
        actual = {}
        for split in ("validation", "calibration", "test"):
            actual[split] = logits.astype(np.float32)
            actual[f"{split}_labels"] = labels
        return actual

    def read_node(self, key: str) -> NodeRecord:
        run = self.runs[key]
        exits = {
            PLACES[k - 1]: {
                "head": {"spec": {}, "trains": True},
                "spans": [{"to": PLACES[k - 1], "trains": True}],
            }
            for k in run.loss
        }
        epochs = max(len(values) for values in run.loss.values())
        return records.node({"exits": exits}, epochs, key=key)

    def node_cost(self, key: str) -> Cost:
        run = self.runs[key]
        return records.cost(
            comparable=run.comparable,
            seconds={"train": run.seconds, "evaluation": 0.5},
            **{"macs_executed": run.executed, "macs_written": run.written},
            exit_shares={PLACES[k - 1]: share for k, share in (run.shares or _shares(run)).items()},
        )

    def node_history(self, key: str) -> pd.DataFrame:
        run = self.runs[key]
        rows: list[tuple[Any, ...]] = []
        for exit, values in run.loss.items():
            hits = run.accuracy.get(exit, [0.5] * len(values))
            for epoch, (loss, hit) in enumerate(zip(values, hits, strict=True), start=1):
                place = PLACES[exit - 1]
                rows += [
                    (epoch, place, "train", "cross_entropy", loss / 2),
                    (epoch, place, "validation", "cross_entropy", loss),
                    (epoch, place, "train", "accuracy", hit),
                    (epoch, place, "validation", "accuracy", hit),
                ]
        return pd.DataFrame(rows, columns=["epoch", "exit", "split", "metric", "value"])


def _macs(entry: HandTrial, exit: int) -> int:
    return entry.width[1] if entry.width else MACS[exit - 1]


def _shares(run: Run) -> dict[int, float]:
    """Of a phase's time, by exit: as their MACs."""
    exits = sorted(run.loss)
    new = [MACS[k - 1] - (MACS[before - 1] if before else 0) for before, k in pairwise([0, *exits])]
    return {k: macs / sum(new) for k, macs in zip(exits, new, strict=True)}


def evidence(trials: Iterable[HandTrial], study: str | None = None) -> Evidence:
    """The evidence of made trials, in the order given."""
    memory = Memory(trials)
    frames = {}
    for trial, entry in memory.made.items():
        extra = [
            {"phase": run.name, "metric": metric, "value": value, "measured": run.comparable}
            for run in entry.runs
            for metric, value in run.meters.items()
        ]
        frame = tidy(memory, [trial])
        if extra:
            fixed = {c: frame[c].iloc[0] for c in ("trial", "strategy", "model", "data", "seed")}
            frame = pd.concat([frame, pd.DataFrame(extra).assign(**fixed)], ignore_index=True)
        frames[trial] = frame
    trials = {t: read(memory, t, memory.read_trial(t)) for t in memory.made}
    return gather(Gathered(memory, trials, frames), study)


def simple(label: str, seed: int, shift: float = 0.0, **more: Any) -> HandTrial:
    """One phase of three epochs that trains all three exits."""
    loss = {k: [3.0 + shift, 2.0 + shift, 1.0 + shift] for k in (1, 2, 3)}
    hits = {k: [0.2, 0.4, 0.6] for k in (1, 2, 3)}
    return HandTrial(label, seed, [Run("all", loss, hits)], **more)


def at_random(labels: Sequence[str]) -> list[HandTrial]:
    """Trials of three seeds each, with numbers at random; a baseline has the final exit alone."""
    generator = np.random.default_rng(0)
    actual = []
    for label in labels:
        exits = (3,) if label == "baseline" else (1, 2, 3)
        for seed in (1, 2, 3):
            loss = {k: (3 - 2 * generator.random(4)).tolist() for k in exits}
            hits = {k: generator.random(4).tolist() for k in exits}
            right = {k: (generator.random(40) < 0.7).tolist() for k in exits}
            actual.append(HandTrial(label, seed, [Run("all", loss, hits)], exits, right))
    return actual


def _key(entry: HandTrial, run: Run) -> str:
    return digest([run.key]) if run.key else digest([entry.id, run.name])
