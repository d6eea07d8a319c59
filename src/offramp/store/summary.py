"""What a store's trials come to: accuracy, compute and time by strategy; the tidy table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd

from offramp.analysis.exits import at_threshold
from offramp.hashing import digest
from offramp.store.archive import LIBRARIES, Damaged, Histories, Records

THRESHOLDS = (0.5, 0.8, 0.95)
OURS = ("checkpoint", "evaluation")  # kinds of seconds that are no part of training as it is written
MADE_WITH = (*LIBRARIES, "device", "git")
COLUMNS = (
    *("trial", "strategy", "model", "data", "seed"),
    *("phase", "exit", "split", "epoch", "metric", "value"),
    *("source", "measured"),
)


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (NaN for one value)."""

    mean: float
    sd: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
        return Spread(float(np.mean(values)), sd)


@dataclass(frozen=True)
class Seconds:
    """Time of a trial, three ways.

    written: every phase in full, as the paper runs it, without checkpoints and the closing evaluation;
    measured where the trial ran plain, alone and in one go, else estimated: the executed time, and the
    MACs that did not run at the speed of the trial's largest phase.  executed: of all nodes it reads.
    marginal: of those that no trial before it reads.
    """

    written: float
    executed: float
    marginal: float
    measured: bool


@dataclass(frozen=True)
class Line:
    """One strategy over its seeds. accuracy: on test, by exit, 0 to 1.  thresholds: accuracy and
    compute (share of the plain network's MACs) by confidence threshold."""

    strategy: str
    seeds: tuple[int, ...]
    accuracy: Mapping[int, Spread]
    thresholds: Mapping[float, tuple[Spread, Spread]]
    seconds: Seconds


def trial_seconds(
    store: Records, manifest: Mapping[str, Any], before: Collection[str] | None = None
) -> Seconds:
    """What a trial took, from the costs of its nodes. before: keys of the nodes that count for other
    trials; by default those that came before it in the study that made it."""
    phases = [phase["node"] for phase in manifest["phases"]]
    costs = {key: store.node_cost(key) for key in phases}
    spent = {key: sum(cost["seconds"].values()) for key, cost in costs.items()}
    written = written_seconds(costs)
    measured = all(cost["comparable"] for cost in costs.values())
    added = manifest["marginal"] if before is None else [k for k in spent if k not in before]
    return Seconds(
        written=sum(written[k] for k in phases),
        executed=sum(spent.values()),
        marginal=sum(spent[key] for key in added),
        measured=measured,
    )


def written_seconds(costs: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Seconds of each phase of a trial as the paper would run it, by its key: see `Seconds.written`."""
    paper = {key: _as_written(cost["seconds"]) for key, cost in costs.items()}
    if all(cost["comparable"] for cost in costs.values()):
        return paper
    largest = max(costs, key=lambda key: float(costs[key]["macs_executed"]))
    second_per_mac = paper[largest] / max(costs[largest]["macs_executed"], 1)
    spared = {k: cost["macs_written"] - cost["macs_executed"] for k, cost in costs.items()}
    return {key: seconds + spared[key] * second_per_mac for key, seconds in paper.items()}


def _as_written(seconds: Mapping[str, float]) -> float:
    """Time of what the paper does too."""
    return sum(spent for kind, spent in seconds.items() if kind not in OURS)


def made_with(store: Records, manifests: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Every version, device and git revision with which trials and the nodes that they read were made,
    by name. A node that is damaged says nothing; the next run finds it."""
    records, keys = [], set()
    for manifest in manifests:
        records.append(manifest["provenance"])
        keys |= {phase["node"] for phase in manifest["phases"]}
    for key in sorted(keys):
        with suppress(Damaged):
            records.append(store.read_node(key).provenance)
    found = {name: {str(r[name]) for r in records if r.get(name) is not None} for name in MADE_WITH}
    return {name: sorted(values) for name, values in found.items()}


def lines(store: Records, trials: Iterable[str]) -> list[Line]:
    """A line for each strategy among `trials`, in the order in which they come; a node's time is
    marginal for the first of them that reads it."""
    grouped: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    seconds: dict[str, list[Seconds]] = {}
    before: set[str] = set()
    for trial in trials:
        manifest = store.read_trial(trial)
        grouped.setdefault(manifest["strategy"], []).append((trial, manifest))
        took = trial_seconds(store, manifest, before)
        seconds.setdefault(manifest["strategy"], []).append(took)
        before |= {phase["node"] for phase in manifest["phases"]}
    return [_line(store, name, group, seconds[name]) for name, group in grouped.items()]


def _line(
    store: Records, strategy: str, group: list[tuple[str, dict[str, Any]]], seconds: list[Seconds]
) -> Line:
    exits = group[0][1]["exits"]
    accuracies = np.array([m["metrics"]["test"]["accuracy"] for _, m in group])
    points: dict[float, list[tuple[float, float]]] = {t: [] for t in THRESHOLDS}
    for trial, manifest in group:
        arrays = store.trial_logits(trial)
        for threshold in THRESHOLDS:
            point = at_threshold(
                arrays["test"],
                arrays["test_labels"],
                manifest["macs"],
                manifest["backbone_macs"],
                threshold,
            )
            points[threshold].append((point.accuracy, point.compute))
    return Line(
        strategy,
        tuple(m["seed"] for _, m in group),
        {k: Spread.of(accuracies[:, i].tolist()) for i, k in enumerate(exits)},
        {
            t: (Spread.of([a for a, _ in found]), Spread.of([c for _, c in found]))
            for t, found in points.items()
        },
        Seconds(
            written=float(np.mean([s.written for s in seconds])),
            executed=float(np.mean([s.executed for s in seconds])),
            marginal=float(np.mean([s.marginal for s in seconds])),
            measured=all(s.measured for s in seconds),
        ),
    )


def tidy(store: Histories, trials: Iterable[str]) -> pd.DataFrame:
    """The tidy table: a row a number (COLUMNS). Histories of every phase, final metrics on validation,
    calibration and test (phase `final`, epoch missing), and costs (epoch missing; exit as well, except
    for `exit_seconds`, a phase's time without checkpoints and closing evaluation, by exit).

    source: a hash of the weights that a number comes from; trials with equal ones are identical by
    construction there.  measured: false for a cost whose time is not comparable with others (shared,
    cached, or not alone on the machine).
    A node that several trials share stands in the table once for each of them.
    """
    phase = cache(partial(_tidy_phase, store))  # several trials have it
    columns = [_tidy_trial(store, trial, phase) for trial in trials]
    if not columns:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.DataFrame({name: np.concatenate([c.pop(name) for c in columns]) for name in COLUMNS})
    for column in ("exit", "epoch"):
        table[column] = table[column].astype("Int64")
    return table


def data_label(manifest: Mapping[str, Any]) -> str:
    """What a trial trained on: `cifar10`, or `cifar10 (crop 4, flip)` where images were augmented, which
    is another recipe."""
    name, augment = str(manifest["data"]["name"]), manifest["data"].get("augment")
    return name if augment is None else f"{name} ({augment['label']})"


Columns = dict[str, np.ndarray]  # of one length; by name of COLUMNS


def _tidy_phase(store: Histories, node: str, name: str, places: tuple[str, ...]) -> tuple[Columns, ...]:
    """The rows of one phase."""
    number = {place: k for k, place in enumerate(places, start=1)}
    of_phase = {"phase": name, "source": node[:16]}
    history, cost = store.node_history(node), store.node_cost(node)
    return (
        _columns(of_phase | _history(history, number)),
        _columns(of_phase | _amounts(cost)),
        _columns(of_phase | _exit_seconds(cost, number)),
    )


def _tidy_trial(
    store: Histories, trial: str, phase: Callable[[str, str, tuple[str, ...]], tuple[Columns, ...]]
) -> Columns:
    """The rows of one trial. Arrays, not frames: a store has thousands of phases, and a frame for each
    of them takes longer than its numbers."""
    manifest = store.read_trial(trial)
    places = tuple(manifest["places"])
    parts = [part for p in manifest["phases"] for part in phase(p["node"], p["name"], places)]
    of_final = {
        "phase": "final",
        "source": [digest(manifest["final"][str(exit)])[:16] for exit in manifest["exits"]],
        "exit": list(manifest["exits"]),
        "measured": True,
    }
    for split, metrics in manifest["metrics"].items():
        for metric, values in metrics.items():
            parts.append(_columns({**of_final, "split": split, "metric": metric, "value": values}))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    of_trial = {
        "trial": trial,
        "strategy": manifest["strategy"],
        "model": manifest["network"]["backbone"],
        "data": data_label(manifest),
        "seed": manifest["seed"],
    }
    return joined | {name: _filled(value, len(joined["value"])) for name, value in of_trial.items()}


OF_ROWS: Mapping[str, type] = {
    **{"phase": object, "exit": float, "split": object, "epoch": float, "metric": object},
    **{"value": float, "source": object, "measured": bool},
}
"""The columns that differ between the rows of a trial; a missing exit or epoch is NaN."""


def _columns(given: Mapping[str, Any]) -> Columns:
    """Rows of OF_ROWS. What is no list or array is the same in all; what is not given is missing."""
    rows = len(given["value"])
    return {
        name: np.asarray(value, dtype=kind)
        if isinstance(value := given.get(name, np.nan), (list, np.ndarray))
        else _filled(value, rows, kind)
        for name, kind in OF_ROWS.items()
    }


def _filled(value: Any, rows: int, kind: type | None = None) -> np.ndarray:
    return np.full(rows, value, dtype=kind or (object if isinstance(value, str) else type(value)))


def _history(history: pd.DataFrame, number: Mapping[str, int]) -> dict[str, Any]:
    exits = [number.get(place, np.nan) for place in history["exit"]]
    same = {
        name: history[name].to_numpy(OF_ROWS[name]) for name in ("epoch", "split", "metric", "value")
    }
    return {**same, "exit": exits, "measured": True}


def _amounts(cost: Mapping[str, Any]) -> dict[str, Any]:
    amounts = {f"seconds_{kind}": value for kind, value in cost["seconds"].items()}
    amounts |= {name: cost[name] for name in ("macs_written", "macs_executed")}
    amounts |= {name: used for name, used in cost.get("used", {}).items() if used is not None}
    values = list(amounts.values())
    return {"metric": list(amounts), "value": values, "measured": cost["comparable"]}


def _exit_seconds(cost: Mapping[str, Any], number: Mapping[str, int]) -> dict[str, Any]:
    """A phase's time by exit: measured where it reads one exit, else attributed by MACs."""
    shares = {number[place]: share for place, share in cost.get("exit_shares", {}).items()}
    spent = _as_written(cost["seconds"])
    return {
        "exit": list(shares),
        "metric": "exit_seconds",
        "value": [spent * share for share in shares.values()],
        "measured": cost["comparable"] and len(shares) == 1,
    }
