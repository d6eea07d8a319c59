"""A store's numbers in tables: the tidy table, and the results of each strategy over its seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from offramp.store.archive import Histories, Records
from offramp.store.manifest import Cost, Manifest
from offramp.store.record import Seconds, apart, as_written, cut_at, seconds
from offramp.store.sealed import TableKind

TIDY = TableKind(
    {
        **dict.fromkeys(("trial", "strategy", "model", "data"), "text"),
        "seed": "whole numbers",
        "phase": "text",
        "exit": "whole numbers?",
        "split": "text?",
        "epoch": "whole numbers?",
        "metric": "text",
        "value": "numbers?",
        "source": "text",
        "measured": "true or false",
    },
    ("trial", "phase", "exit", "split", "epoch", "metric"),
)
COLUMNS = tuple(TIDY.columns)


def tidy(store: Histories, trials: Iterable[str]) -> pd.DataFrame:
    """The tidy table: a row a number.

    It has histories of every phase, final metrics on validation, calibration and test (phase `final`,
    epoch missing), and costs (epoch missing; exit as well, except for `exit_seconds`, a phase's time
    without checkpoints and closing evaluation, by exit). A node that several trials share stands in it
    once for each of them.

    Returns:
        COLUMNS. `source` is a hash of the weights that a number comes from; trials with equal ones are
        identical by construction there. `measured` is false for a cost whose time is not comparable with
        others (shared, cached, or not alone on the machine).
    """
    phase = cache(partial(_tidy_phase, store))  # several trials have it
    columns = [_tidy_trial(store, trial, phase) for trial in trials]
    if not columns:
        return pd.DataFrame(columns=list(COLUMNS))
    table = pd.DataFrame({name: np.concatenate([c.pop(name) for c in columns]) for name in COLUMNS})
    for column in ("exit", "epoch"):
        table[column] = table[column].astype("Int64")
    return table


Arrays = dict[str, np.ndarray]  # of one length; by name of COLUMNS


def _tidy_phase(store: Histories, node: str, name: str, places: tuple[str, ...]) -> tuple[Arrays, ...]:
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
    store: Histories, trial: str, phase: Callable[[str, str, tuple[str, ...]], tuple[Arrays, ...]]
) -> Arrays:
    """The rows of one trial. Arrays, not frames: a store has thousands of phases, and a frame for each
    of them takes longer than its numbers."""
    manifest = store.read_trial(trial)
    parts = [part for p in manifest.phases for part in phase(p.node, p.name, manifest.places)]
    sources, exits = list(manifest.sources.values()), list(manifest.exits)
    of_final = {"phase": "final", "source": sources, "exit": exits, "measured": True}
    for split, metrics in manifest.metrics.items():
        for metric, values in metrics.by_name.items():
            value = list(values)
            parts.append(_columns({**of_final, "split": split, "metric": metric, "value": value}))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    of_trial = {"trial": trial, "strategy": manifest.strategy, "seed": manifest.seed}
    of_trial |= {"model": manifest.network.backbone, "data": manifest.data.label}
    return joined | {name: _filled(value, len(joined["value"])) for name, value in of_trial.items()}


OF_ROWS: Mapping[str, type] = {
    **{"phase": object, "exit": float, "split": object, "epoch": float, "metric": object},
    **{"value": float, "source": object, "measured": bool},
}
"""The columns that differ between the rows of a trial; a missing exit or epoch is NaN."""


def _columns(values: Mapping[str, Any]) -> Arrays:
    """Rows of OF_ROWS. What is no list or array is the same in all; what is not there is missing."""
    rows = len(values["value"])
    return {
        name: np.asarray(value, dtype=kind)
        if isinstance(value := values.get(name, np.nan), (list, np.ndarray))
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


def _amounts(cost: Cost) -> dict[str, Any]:
    amounts = {f"seconds_{kind}": value for kind, value in cost.seconds.items()}
    if cost.macs_written:  # else the weights came from elsewhere, and nobody knows
        amounts |= {"macs_written": cost.macs_written, "macs_executed": cost.macs_executed}
    amounts |= {name: used for name, used in cost.used.items() if used is not None}
    values = list(amounts.values())
    return {"metric": list(amounts), "value": values, "measured": cost.comparable}


def _exit_seconds(cost: Cost, number: Mapping[str, int]) -> dict[str, Any]:
    """A phase's time by exit: measured where it reads one exit, else attributed by MACs."""
    shares = {number[place]: share for place, share in cost.exit_shares.items()}
    spent = as_written(cost)
    value, measured = [spent * x for x in shares.values()], cost.comparable and len(shares) == 1
    return {"exit": list(shares), "metric": "exit_seconds", "value": value, "measured": measured}


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
    """One strategy over its seeds."""

    strategy: str  # its label
    seeds: tuple[int, ...]  # of its trials
    accuracy: Mapping[int, Spread]  # on test, by exit, 0 to 1
    # accuracy and compute (share of the plain network's MACs) by confidence threshold
    thresholds: Mapping[float, tuple[Spread, Spread]]
    seconds: Seconds  # a trial's, on average


def by_strategy(store: Records, trials: Iterable[str]) -> list[StrategyResult]:
    """A result for each strategy among `trials`, in the order in which they come, plain networks beside
    the first one's by their own names; a node's time is marginal for the first of them that reads it."""
    grouped: dict[str, dict[str, Manifest]] = {}
    times: dict[str, list[Seconds]] = {}
    before: set[str] = set()
    host: Manifest | None = None
    for trial in trials:
        manifest = store.read_trial(trial)
        host = host or manifest
        name = _line_name(manifest, host, grouped)
        grouped.setdefault(name, {})[trial] = manifest
        costs = {key: store.node_cost(key) for key in manifest.keys}
        times.setdefault(name, []).append(seconds(costs, [k for k in costs if k not in before]))
        before.update(costs)
    last = 0 if host is None else len(host.places)
    return [_result(store, name, group, times[name], last) for name, group in grouped.items()]


def _line_name(manifest: Manifest, host: Manifest, grouped: Mapping[str, Mapping[str, Manifest]]) -> str:
    """Of a strategy its label; of a plain network in what it differs from the host's, and from one that
    came before it under the same name."""
    name = (apart(manifest, host) if len(manifest.exits) == 1 else "") or manifest.strategy
    before = list(grouped.get(name, {}).values()) or [manifest]
    usual = dict(before[0].network.options)
    name = ", ".join((name, *(f"{k} {v}" for k, v in manifest.network.options if usual.get(k) != v)))
    # Of splits of its own each seed may train for other epochs; a seed that comes again is another line.
    again = before[0].recipe.epochs != manifest.recipe.epochs
    again &= manifest.seed in {other.seed for other in before}
    longer = f"{name}, {manifest.recipe.epochs} epochs"
    return longer if again or longer in grouped else name


def _result(
    store: Records, strategy: str, group: Mapping[str, Manifest], times: Sequence[Seconds], last: int
) -> StrategyResult:
    """last: the number of the host's final exit, which that of another backbone stands for."""
    from offramp.policy.quality import at_thresholds  # imports scipy, which takes a while

    manifests = list(group.values())
    accuracies = np.array([m.metrics["test"].accuracy for m in manifests])
    points = []
    for trial, manifest in group.items():
        arrays = store.trial_logits(trial)
        tested = (arrays["test"], arrays["test_labels"], manifest.macs, manifest.backbone_macs)
        points.append(at_thresholds(*tested, THRESHOLDS))
    first = manifests[0]
    whole = len(first.exits) == 1 and cut_at(first) is None
    names = [field.name for field in fields(Seconds) if field.name != "measured"]
    means = {name: float(np.mean([getattr(s, name) for s in times])) for name in names}
    return StrategyResult(
        strategy,
        tuple(m.seed for m in manifests),
        {
            k: Spread.of(accuracies[:, i].tolist())
            for i, k in enumerate((last,) if whole else first.exits)
        },
        {
            t: (Spread.of(a for a, _ in pairs), Spread.of(c for _, c in pairs))
            for t, pairs in zip(THRESHOLDS, zip(*points, strict=True), strict=True)
        },
        Seconds(**means, measured=all(s.measured for s in times)),
    )
