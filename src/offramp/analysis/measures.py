"""The numbers that strategies are compared by: one observation a trial, at an exit or overall.

Definitions where the paper has none are those of docs/readings.md. Values come from the tidy table
alone (offramp.store.summary.COLUMNS).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import pandas as pd

from offramp.analysis import epochs
from offramp.analysis.costs import COSTS, phases, shares, written_seconds
from offramp.analysis.curves import FINAL, History, histories, joined
from offramp.errors import OfframpError, nearest
from offramp.hashing import digest

OBSERVATION = ("model", "data", "strategy", "seed", "exit", "value", "source", "measured")
CELL = ["model", "data", "strategy", "seed"]
Kind = Literal["quality", "cost", "epoch"]
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Measure:
    """A number of a trial.

    unit: of `value * scale`, which is how it is shown (`%` of an accuracy that is stored as 0 to 1).
    better: the direction that is good.  kind: `cost` is tested only where it was measured.
    per_exit, overall: whether there are observations of each exit, and of the trial as a whole.
    """

    name: str
    title: str
    unit: str
    better: Better
    kind: Kind
    per_exit: bool
    overall: bool = True
    scale: float = 1.0


def _quality_measures() -> list[Measure]:
    found = []
    for split, word in (("train", "Training"), ("validation", "Validation"), ("test", "Test")):
        for whole in (
            Measure(
                f"accuracy-{split}", f"{word} accuracy", "%", "higher", "quality", True, True, 100.0
            ),
            Measure(f"loss-{split}", f"{word} cross-entropy", "nats", "lower", "quality", True),
        ):
            title = f"{whole.title} of the final exit"
            found += [whole, replace(whole, name=f"final-{whole.name}", title=title, per_exit=False)]
    return found


def _registry() -> dict[str, Measure]:
    found = _quality_measures()
    for name, title, unit, scale in (
        ("min-loss-epoch", "Epoch of the least validation loss", "epochs", 1.0),
        ("peak-epoch", "Epoch of the highest validation accuracy", "epochs", 1.0),
        (
            "saturation-epoch",
            "Epoch from which accuracy stays within 0.5 points of its peak",
            "epochs",
            1.0,
        ),
        ("generalization-gap-best", "Training minus validation accuracy, best epoch", "points", 100.0),
        ("generalization-gap-last", "Training minus validation accuracy, last epoch", "points", 100.0),
        ("validation-stability", "Spread of the last changes of validation loss", "nats", 1.0),
        ("overfits", "Exits that overfit", "%", 100.0),
        ("loss-rise", "Last validation loss above the least one", "%", 100.0),
        ("loss-spikes", "Epochs in which validation loss jumps by 20 %", "epochs", 1.0),
        ("largest-spike", "Largest rise of validation loss in an epoch", "nats", 1.0),
    ):
        found.append(Measure(name, title, unit, "lower", "epoch", True, True, scale))
    overfitting = "First of five epochs that overfit"
    found.append(Measure("overfitting-epoch", overfitting, "epochs", "higher", "epoch", True))
    for name, title, unit, scale in (
        ("seconds-written", "Training time as the paper runs it", "s", 1.0),
        ("seconds-executed", "Time of all that ran", "s", 1.0),
        ("seconds-train", "Time of training steps", "s", 1.0),
        ("seconds-validation", "Time of the validation of each epoch", "s", 1.0),
        ("seconds-data", "Time that epochs waited for images", "s", 1.0),
        ("macs-written", "Training compute as the paper runs it", "GMAC", 1e-9),
        ("macs-executed", "Training compute that ran", "GMAC", 1e-9),
        ("memory-cpu-max", "CPU memory, largest phase", "MB", 1e-6),
        ("memory-cpu-sum", "CPU memory, sum over phases", "MB", 1e-6),
        ("memory-gpu-max", "GPU memory, largest phase", "MB", 1e-6),
        ("memory-gpu-sum", "GPU memory, sum over phases", "MB", 1e-6),
        ("power-cpu-mean", "CPU power, mean", "W", 1.0),
        ("power-cpu-peak", "CPU power, peak", "W", 1.0),
        ("power-gpu-mean", "GPU power, mean", "W", 1.0),
        ("power-gpu-peak", "GPU power, peak", "W", 1.0),
        ("energy-cpu", "CPU energy", "J", 1.0),
        ("energy-gpu", "GPU energy", "J", 1.0),
        ("energy", "CPU and GPU energy", "J", 1.0),
    ):
        per_exit = name == "seconds-written"
        found.append(Measure(name, title, unit, "lower", "cost", per_exit, True, scale))
    return {m.name: m for m in found}


MEASURES: Mapping[str, Measure] = MappingProxyType(_registry())


def measure(name: str) -> Measure:
    """The measure of that name. Raises OfframpError where there is none."""
    if name not in MEASURES:
        raise OfframpError(f"there is no measure '{name}'{nearest(name, MEASURES)}")
    return MEASURES[name]


@dataclass(frozen=True, eq=False)
class Numbers:
    """A tidy table taken apart once, for many measures.

    trials: model, data, strategy, seed by trial.  exits, last: how many exits the fullest trial of the
    same model and data has, and the number of the final one; by trial.  final: the rows of closing
    metrics.  curves, histories, phases, shares: of the functions of these names.
    """

    trials: pd.DataFrame
    exits: pd.Series
    last: pd.Series
    final: pd.DataFrame
    curves: pd.DataFrame
    histories: Sequence[History]
    phases: pd.DataFrame
    shares: pd.DataFrame


def numbers(table: pd.DataFrame) -> Numbers:
    """Take a tidy table apart. Raises OfframpError where two trials have the same model, data, strategy
    and seed: their settings differ, so no table may hold both."""
    trials = table.drop_duplicates("trial").set_index("trial")[CELL].sort_index()
    twice = trials[trials.duplicated(keep=False)].sort_values(CELL)
    if len(twice):
        model, data, strategy, seed = twice.iloc[0]
        names = " and ".join(str(t) for t in twice.index[:2])
        raise OfframpError(
            f"{strategy} on {model}, {data}, seed {seed} was trained in two ways ({names}); "
            "choose the trials of one study"
        )
    final = table[table["phase"] == FINAL]
    known = final.groupby("trial")["exit"].agg(["nunique", "max"]).reindex(trials.index)
    most = known.groupby([trials["model"], trials["data"]]).transform("max")
    curves = joined(table)
    return Numbers(
        *(trials, most["nunique"], most["max"], final),
        curves=curves,
        histories=histories(curves),
        phases=phases(table),
        shares=shares(table),
    )


def observations(table: pd.DataFrame | Numbers, measure: Measure) -> pd.DataFrame:
    """A measure's values (columns OBSERVATION), a row a trial and exit; exit missing: overall.

    Overall is the mean over exits, equal weights; of a cost, that of the whole trial. A trial without
    all the exits that others of its model and data have (the baseline) gets no mean over exits, which
    would compare its one exit with the average of four. value: as stored, without `scale`; rows
    without a value are left out.
    source: equal for numbers that come from the same trained weights.  measured: false for estimates.
    """
    found = table if isinstance(table, Numbers) else numbers(table)
    if measure.kind == "quality":
        rows = _quality(found, measure)
    elif measure.kind == "epoch":
        rows = _with_overall(found, _epoch(found, measure.name))
    else:
        rows = _cost(found, measure)
    rows = rows[rows["value"].notna()].join(found.trials, on="trial")
    rows["exit"] = rows["exit"].astype("Int64")
    rows["value"] = rows["value"].astype(float)
    rows["measured"] = rows["measured"].astype(bool)
    rows = rows.sort_values([*CELL, "exit"], na_position="last", kind="stable", ignore_index=True)
    return pd.DataFrame({name: rows[name] for name in OBSERVATION})


def _quality(found: Numbers, measure: Measure) -> pd.DataFrame:
    *last, short, split = measure.name.split("-")
    metric = "cross_entropy" if short == "loss" else "accuracy"
    if split == "train":
        rows = _selected_train(found, metric)
    else:
        at = (found.final["split"] == split) & (found.final["metric"] == metric)
        rows = found.final.loc[at, ["trial", "exit", "value", "source"]]
    rows = rows.assign(measured=True)
    if not last:
        return _with_overall(found, rows)
    deepest = rows["exit"].to_numpy() == found.last.reindex(rows["trial"]).to_numpy()
    return _without_exit(rows[deepest].drop(columns="exit").set_index("trial"))


def _selected_train(found: Numbers, metric: str) -> pd.DataFrame:
    """The training split in eval mode at the epoch whose weights were kept: of the best and the last
    epoch, the one whose validation loss is nearest to the closing one."""
    curves = found.curves[found.curves["metric"].isin([metric, "cross_entropy"])]
    keys = ["trial", "exit", "epoch"]
    train = curves[(curves["split"] == "train-eval") & (curves["metric"] == metric)]
    checked = curves[(curves["split"] == "validation") & (curves["metric"] == "cross_entropy")]
    both = train.merge(checked[[*keys, "value"]], on=keys, suffixes=("", "_then"))
    at = (found.final["split"] == "validation") & (found.final["metric"] == "cross_entropy")
    closing = found.final.loc[at, ["trial", "exit", "value", "source"]].astype({"exit": int})
    both = both.merge(closing, on=["trial", "exit"], suffixes=("", "_kept"))
    both["off"] = (both["value_then"] - both["value_kept"]).abs()
    nearest_ = both.sort_values(["off", "epoch"], ascending=[True, False], kind="stable")
    rows = nearest_.drop_duplicates(["trial", "exit"])[["trial", "exit", "value", "source_kept"]]
    return rows.rename(columns={"source_kept": "source"})


def _epoch(found: Numbers, name: str) -> pd.DataFrame:
    """An epoch metric of every trial and exit, in the last phase that trained the exit; epochs count
    from its start."""
    if name.startswith("generalization-gap"):
        return _gap(found, best=name.endswith("-best"))
    rows = [(h.trial, h.exit, _metric(name, h), h.origin) for h in found.histories]
    frame = pd.DataFrame(rows, columns=["trial", "exit", "value", "source"])
    return frame.assign(value=frame["value"].astype(float), measured=True)


def _metric(name: str, h: History) -> float | None:
    match name:
        case "min-loss-epoch":
            return epochs.min_loss_epoch(h.loss)
        case "peak-epoch":
            return epochs.peak_epoch(h.accuracy)
        case "saturation-epoch":
            return epochs.saturation_epoch(h.accuracy)
        case "overfitting-epoch":
            return epochs.overfitting_epoch(h.loss, h.running)
        case "overfits":
            return float(epochs.overfitting_epoch(h.loss, h.running) is not None)
        case "validation-stability":
            return epochs.validation_stability(h.loss)
        case "loss-rise":
            return epochs.loss_rise(h.loss)
        case "loss-spikes":
            return epochs.loss_spikes(h.loss)
        case _:
            return epochs.largest_spike(h.loss)


def _gap(found: Numbers, best: bool) -> pd.DataFrame:
    """Training minus validation accuracy, both in eval mode, at the best or the last epoch of the last
    phase that trained the exit."""
    curves = found.curves[found.curves["metric"] == "accuracy"]
    keys = ["trial", "exit", "epoch"]
    train = curves[curves["split"] == "train-eval"]
    checked = curves[curves["split"] == "validation"]
    both = train.merge(checked[[*keys, "value"]], on=keys, suffixes=("", "_validation"))
    ends = checked.drop_duplicates(["trial", "exit"], keep="last")[["trial", "exit", "phase"]]
    both = both.merge(ends, on=["trial", "exit", "phase"]).sort_values(keys, kind="stable")
    rows = both.drop_duplicates(["trial", "exit"], keep="first" if best else "last")
    origin = {(h.trial, h.exit): h.origin for h in found.histories}
    return pd.DataFrame(
        {
            "trial": rows["trial"],
            "exit": rows["exit"],
            "value": rows["value"] - rows["value_validation"],
            "source": [origin[at] for at in zip(rows["trial"], rows["exit"], strict=True)],
            "measured": True,
        }
    )


def _key(sources: Sequence[object]) -> str:
    """One key of several; empty, which agrees with nothing, where one is missing."""
    texts = [s if isinstance(s, str) else "" for s in sources]
    if not texts or not all(texts):
        return ""
    return texts[0] if len(texts) == 1 else digest(texts)[:16]


def _with_overall(found: Numbers, rows: pd.DataFrame) -> pd.DataFrame:
    """Values of exits, and their mean where a trial has them all."""
    rows = rows.sort_values(["trial", "exit"], kind="stable")
    groups = rows.groupby("trial", sort=True)
    overall = pd.DataFrame(
        {
            "value": groups["value"].mean().where(groups["value"].count() == groups.size()),
            "source": _keys(rows),
            "measured": groups["measured"].all(),
        }
    )[groups["exit"].nunique() == found.exits.reindex(list(groups.groups))]
    return pd.concat([rows.astype({"exit": "Int64"}), _without_exit(overall)])


def _without_exit(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by trial (the index), of no exit."""
    exits = pd.array([pd.NA] * len(rows), dtype="Int64")
    return rows.rename_axis("trial").reset_index().assign(exit=exits)


def _keys(rows: pd.DataFrame) -> pd.Series:
    """One key of all sources of each trial. rows: sorted by trial."""
    trials, sources = rows["trial"].tolist(), rows["source"].tolist()
    gathered: dict[str, list[object]] = {}
    for trial, source in zip(trials, sources, strict=True):
        gathered.setdefault(trial, []).append(source)
    return pd.Series({trial: _key(found) for trial, found in gathered.items()}, dtype=object)


def _cost(found: Numbers, measure: Measure) -> pd.DataFrame:
    groups = found.phases.groupby(level="trial", sort=True)
    counted = measure.name.startswith("macs")  # counted, so no estimate however the trial was run
    overall = pd.DataFrame(
        {
            "value": COSTS[measure.name](found.phases),
            "source": _keys(found.phases.reset_index("trial")),
            "measured": groups["measured"].all() | counted,
        }
    )
    overall = _without_exit(overall.astype({"value": float, "measured": bool}))
    return overall if not measure.per_exit else pd.concat([_exit_seconds(found), overall])


def _exit_seconds(found: Numbers) -> pd.DataFrame:
    """Time of each exit. Measured where each phase trained one; of a phase for several it is attributed,
    no measurement, and where nothing says how, the trial has none."""
    written = found.phases[["source", "measured"]].assign(value=written_seconds(found.phases))
    rows = found.shares.join(written, on=["trial", "phase"])
    rows["value"] = rows["value"].astype(float) * rows["share"]
    rows["measured"] = rows["measured"].astype(bool) & rows["alone"]
    known = rows["value"].notna().groupby(rows["trial"]).transform("all")
    groups = rows[known].groupby(["trial", "exit"], sort=True)
    return pd.DataFrame(
        {
            "value": groups["value"].sum(),
            "source": groups["source"].agg(lambda s: _key(s.tolist())),
            "measured": groups["measured"].all(),
        }
    ).reset_index()
