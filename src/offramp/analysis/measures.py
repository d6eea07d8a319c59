"""The numbers that strategies are compared by: one observation a trial, at an exit or overall.

Definitions where the paper has none are those of docs/readings.md. Values come from the tidy table
alone (offramp.store.table.COLUMNS). A new measure is an entry of ALL, with a function of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd

from offramp import units, usercode
from offramp.analysis import costs
from offramp.analysis.curves import (
    FINAL,
    History,
    histories,
    joined,
    largest_spike,
    loss_rise,
    loss_spikes,
    min_loss_epoch,
    overfits,
    overfitting_epoch,
    peak_epoch,
    saturation_epoch,
    validation_stability,
)
from offramp.analysis.curves import METRICS as EVERY_EPOCH
from offramp.errors import OfframpError, nearest
from offramp.hashing import digest
from offramp.metrics import METRICS, ByImage, Floats, Labels, Metric
from offramp.units import percent
from offramp.usercode import is_user_code

OBSERVATION = ("model", "data", "strategy", "seed", "exit", "value", "source", "measured")
CELL = ["model", "data", "strategy", "seed"]
Better = Literal["higher", "lower"]
SPLITS = {"train": "Training", "validation": "Validation", "test": "Test"}


@dataclass(frozen=True, eq=False)
class Numbers:
    """A tidy table taken apart once, for many measures."""

    trials: pd.DataFrame  # model, data, strategy, seed by trial
    # exits, last: how many exits the fullest trial of the same model and data has, and the number of the
    # final one; by trial
    exits: pd.Series
    last: pd.Series
    final: pd.DataFrame  # the rows of closing metrics
    # curves, histories, phases, shares: of the functions of these names
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
    exits_of_trials = final.groupby("trial")["exit"].agg(["nunique", "max"]).reindex(trials.index)
    most = exits_of_trials.groupby([trials["model"], trials["data"]]).transform("max")
    curves = joined(table)
    return Numbers(
        *(trials, most["nunique"], most["max"], final),
        curves=curves,
        histories=histories(curves),
        phases=costs.phases(table),
        shares=costs.shares(table),
    )


Of = Callable[[Numbers], pd.DataFrame]  # columns trial, exit (missing: overall), value, source, measured


@dataclass(frozen=True)
class Unit:
    """What values are shown in."""

    name: str
    # what stored ones are multiplied by, as an accuracy that is stored as 0 to 1 for `%`
    scale: float = 1.0
    # what people write for a value that is not negative; None: three digits and the name, which is a
    # plural where it ends in s
    words: Callable[[float], str] | None = None

    def text(self, size: float) -> str:
        """A value, as stored, that is not negative: `1.8 GB`, `3 min 20 s`, `1 epoch`."""
        if self.words is not None:
            return self.words(size)
        number = f"{size * self.scale if size > 1e-12 else 0.0:.3g}"
        return f"{number} {self.name.removesuffix('s') if number == '1' else self.name}".rstrip()


def _macs(size: float) -> str:
    return f"{units.macs(size)} MACs"


PERCENT = Unit("%", 100.0, percent)
POINTS = Unit("points", 100.0)
NATS = Unit("nats")
EPOCHS = Unit("epochs")
SECONDS = Unit("s", words=units.duration)
GMAC, MMAC = Unit("GMAC", 1e-9, _macs), Unit("MMAC", 1e-6, _macs)
MB = Unit("MB", 1e-6, units.size)
WATT, JOULE = Unit("W"), Unit("J")


@dataclass(frozen=True)
class MetricOnSplit:
    """A metric of logits, by its name in the tidy table, and the split that they are of."""

    name: str
    split: str
    metric: Metric


@dataclass(frozen=True)
class Measure:
    """A number of a trial."""

    name: str
    title: str
    unit: Unit
    of: Of = field(repr=False)  # its values
    better: Better = "lower"  # the direction that is good
    per_exit: bool = True  # whether there are values of each exit, besides those of the trial as a whole
    column: str = ""  # its heading where it is a column of a table
    digits: int = 0  # after the point there
    # whether the deviation over seeds says anything; of yes or no the mean says it all
    spread: bool = True
    # what works it out of a trial's logits, where it comes from these
    metric: MetricOnSplit | None = field(default=None, repr=False)

    @property
    def on_images(self) -> ByImage | None:
        """What gives its values on each test image, whose mean it is, so that it is tested over images
        too; None of other measures."""
        return self.metric.metric.on_images if self.metric and self.metric.split == "test" else None

    @property
    def scale(self) -> float:
        """What values are multiplied by to be in `unit`."""
        return self.unit.scale

    def text(self, value: float) -> str:
        """A value, as stored, as people write it: `74.9 %`, `1.8 GB`, `3 min 20 s`."""
        text = self.unit.text(abs(value))
        return f"−{text}" if value < 0 and any(digit in text for digit in "123456789") else text

    def gap(self, value: float) -> str:
        """A difference of two values, in the same words: `0.41 points`, `−20 s`."""
        return (replace(self, unit=POINTS) if self.unit == PERCENT else self).text(value)

    @property
    def axis(self) -> str:
        """What stands beside an axis: `test accuracy, %`."""
        title = self.title if self.title[1].isupper() else self.title[0].lower() + self.title[1:]
        return f"{title}, {self.unit.name}" if self.unit.name else title

    @property
    def difference_unit(self) -> str:
        """That of a difference of two values."""
        return (POINTS if self.unit == PERCENT else self.unit).name

    @property
    def about(self) -> dict[str, str | float]:
        """What it is, for programs."""
        named = {"name": self.name, "title": self.title, "unit": self.unit.name, "better": self.better}
        return {**named, "scale": self.scale}


def observations(table: pd.DataFrame | Numbers, measure: Measure) -> pd.DataFrame:
    """A measure's values, a row a trial and exit; exit missing: overall.

    Overall is the mean over exits, equal weights; of a cost, that of the whole trial. A trial without
    all the exits that others of its model and data have (the baseline) gets no mean over exits, which
    would compare its one exit with the average of four.

    Returns:
        Columns OBSERVATION. value: as stored, without `scale`; rows without a value are left out.
        source: equal for numbers that come from the same trained weights. measured: false for estimates.
    """
    split_table = table if isinstance(table, Numbers) else numbers(table)
    rows = measure.of(split_table)
    rows = rows[rows["value"].notna()].join(split_table.trials, on="trial")
    rows["exit"] = rows["exit"].astype("Int64")
    rows["value"] = rows["value"].astype(float)
    rows["measured"] = rows["measured"].astype(bool)
    rows = rows.sort_values([*CELL, "exit"], na_position="last", kind="stable", ignore_index=True)
    return pd.DataFrame({name: rows[name] for name in OBSERVATION})


# What `of` is made of


def _whole(rows: Of) -> Of:
    """Values of exits, and their mean where a trial has them all."""
    return lambda table: _with_overall(table, rows(table))


def _deepest(rows: Of) -> Of:
    """Those of the final exit, as the trial's."""

    def of(table: Numbers) -> pd.DataFrame:
        all_ = rows(table)
        last = all_["exit"].to_numpy() == table.last.reindex(all_["trial"]).to_numpy()
        return _without_exit(all_[last].drop(columns="exit").set_index("trial"))

    return of


def _closing(split: str, metric: str) -> Of:
    """The closing metric of each exit, of the weights that were kept."""

    def of(table: Numbers) -> pd.DataFrame:
        if split == "train":
            return _selected_train(table, metric).assign(measured=True)
        at = (table.final["split"] == split) & (table.final["metric"] == metric)
        return table.final.loc[at, ["trial", "exit", "value", "source"]].assign(measured=True)

    return of


def _curve(function: Callable[..., float | None], *series: str) -> Of:
    """A function of curves of the last phase that trained an exit; epochs count from its start. series:
    names of History's arrays."""

    def of(table: Numbers) -> pd.DataFrame:
        rows = [
            (h.trial, h.exit, function(*(getattr(h, name) for name in series)), h.origin, True)
            for h in table.histories
        ]
        frame = pd.DataFrame(rows, columns=["trial", "exit", "value", "source", "measured"])
        return frame.astype({"value": float})

    return _whole(of)


def _cost(over: costs.Over, counted: bool = False) -> Of:
    """counted: it is not an estimate, however the trial was run."""

    def of(table: Numbers) -> pd.DataFrame:
        measured = table.phases.groupby(level="trial", sort=True)["measured"].all() | counted
        keys = _keys(table.phases.reset_index("trial"))
        overall = pd.DataFrame({"value": over(table.phases), "source": keys, "measured": measured})
        return _without_exit(overall.astype({"value": float, "measured": bool}))

    return of


def _written(table: Numbers) -> pd.DataFrame:
    return pd.concat([_exit_seconds(table), _cost(costs.written)(table)])


def _selected_train(table: Numbers, metric: str) -> pd.DataFrame:
    """The training split in eval mode at the epoch whose weights were kept: of the best and the last
    epoch, the one whose validation loss is nearest to the closing one."""
    curves = table.curves[table.curves["metric"].isin([metric, "cross_entropy"])]
    keys = ["trial", "exit", "epoch"]
    train = curves[(curves["split"] == "train-eval") & (curves["metric"] == metric)]
    checked = curves[(curves["split"] == "validation") & (curves["metric"] == "cross_entropy")]
    both = train.merge(checked[[*keys, "value"]], on=keys, suffixes=("", "_then"))
    at = (table.final["split"] == "validation") & (table.final["metric"] == "cross_entropy")
    closing = table.final.loc[at, ["trial", "exit", "value", "source"]].astype({"exit": int})
    both = both.merge(closing, on=["trial", "exit"], suffixes=("", "_kept"))
    # No record says which epoch's weights were kept; its validation loss gives it away.
    both["off"] = (both["value_then"] - both["value_kept"]).abs()
    nearest_ = both.sort_values(["off", "epoch"], ascending=[True, False], kind="stable")
    rows = nearest_.drop_duplicates(["trial", "exit"])[["trial", "exit", "value", "source_kept"]]
    return rows.rename(columns={"source_kept": "source"})


def _gap(table: Numbers, keep: Literal["first", "last"]) -> pd.DataFrame:
    """Training minus validation accuracy, both in eval mode, at the first (best) or the last
    epoch of those that have both, in the last phase that trained the exit."""
    curves = table.curves[table.curves["metric"] == "accuracy"]
    keys = ["trial", "exit", "epoch"]
    train = curves[curves["split"] == "train-eval"]
    checked = curves[curves["split"] == "validation"]
    both = train.merge(checked[[*keys, "value"]], on=keys, suffixes=("", "_validation"))
    ends = checked.drop_duplicates(["trial", "exit"], keep="last")[["trial", "exit", "phase"]]
    both = both.merge(ends, on=["trial", "exit", "phase"]).sort_values(keys, kind="stable")
    rows = both.drop_duplicates(["trial", "exit"], keep=keep)
    origin = {(h.trial, h.exit): h.origin for h in table.histories}
    sources = [origin[at] for at in zip(rows["trial"], rows["exit"], strict=True)]
    off = rows["value"] - rows["value_validation"]
    return rows[["trial", "exit"]].assign(value=off, source=sources, measured=True)


def _key(sources: Sequence[object]) -> str:
    """One key of several; empty, which agrees with nothing, where one is missing."""
    texts = [s if isinstance(s, str) else "" for s in sources]
    if not texts or not all(texts):
        return ""
    return texts[0] if len(texts) == 1 else digest(texts)[:16]


def _with_overall(table: Numbers, rows: pd.DataFrame) -> pd.DataFrame:
    """Values of exits, and their mean where a trial has them all."""
    rows = rows.sort_values(["trial", "exit"], kind="stable")
    groups = rows.groupby("trial", sort=True)
    # One missing exit and there is no mean: it would be one of other exits than the rest's.
    mean = groups["value"].mean().where(groups["value"].count() == groups.size())
    whole = groups["exit"].nunique() == table.exits.reindex(list(groups.groups))
    overall = {"value": mean, "source": _keys(rows), "measured": groups["measured"].all()}
    both = [rows.astype({"exit": "Int64"}), _without_exit(pd.DataFrame(overall)[whole])]
    return pd.concat(both)


def _without_exit(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by trial (the index), of no exit."""
    exits = pd.array([pd.NA] * len(rows), dtype="Int64")
    return rows.rename_axis("trial").reset_index().assign(exit=exits)


def _keys(rows: pd.DataFrame) -> pd.Series:
    """One key of all sources of each trial. rows: sorted by trial."""
    gathered: dict[str, list[object]] = {}
    for trial, source in zip(rows["trial"].tolist(), rows["source"].tolist(), strict=True):
        gathered.setdefault(trial, []).append(source)
    return pd.Series({trial: _key(sources) for trial, sources in gathered.items()}, dtype=object)


def _exit_seconds(table: Numbers) -> pd.DataFrame:
    """Time of each exit. Measured where each phase trained one; of a phase for several it is attributed,
    no measurement, and where nothing says how, the trial has none."""
    written = table.phases[["source", "measured"]].assign(value=costs.written_seconds(table.phases))
    rows = table.shares.join(written, on=["trial", "phase"])
    rows["value"] = rows["value"].astype(float) * rows["share"]
    rows["measured"] = rows["measured"].astype(bool) & rows["alone"]
    complete = rows["value"].notna().groupby(rows["trial"]).transform("all")
    groups = rows[complete].groupby(["trial", "exit"], sort=True)
    source = groups["source"].agg(lambda s: _key(s.tolist()))
    columns = {"value": groups["value"].sum(), "source": source, "measured": groups["measured"].all()}
    return pd.DataFrame(columns).reset_index()


def of_metric(name: str, metric: Metric, split: str) -> tuple[Measure, Measure]:
    """A metric of logits on a split as two measures: of every exit, and of the final one alone.

    Args:
        name: Under which the tidy table has it.
        metric: What works it out of logits where the table lacks it.
        split: Of SPLITS.
    """
    word = (metric.word or name).replace("_", "-")
    unit = {"%": PERCENT, "nats": NATS, "": Unit("")}[metric.unit]
    rows = _closing(split, name)
    measure = Measure(
        f"{word}-{split}",
        f"{SPLITS[split]} {metric.title or name}",
        unit,
        _whole(rows),
        metric.better,
        metric=MetricOnSplit(name, split, metric),
    )
    return measure, replace(
        measure,
        name=f"final-{measure.name}",
        title=f"{measure.title} of the final exit",
        of=_deepest(rows),
        per_exit=False,
    )


def _closing_measures() -> list[Measure]:
    """Every metric on validation and on test; on training what is recorded of epochs."""
    both = {
        split: [
            of_metric(n, m, split) for n, m in METRICS.items() if split != "train" or n in EVERY_EPOCH
        ]
        for split in SPLITS
    }
    return [measure for pairs in both.values() for side in zip(*pairs, strict=True) for measure in side]


def find_measure(name: str) -> Measure:
    """The measure of a name; of `path/file.py:name` the user's own metric on test.

    That is a function of logits [N, E, C] and labels [N] that returns a number of each exit, [E],
    higher is better; or a `Metric`, which says more.

    Raises:
        OfframpError: Where there is none.
    """
    if is_user_code(name):
        return replace(of_metric(name, find_metric(name), "test")[0], name=name)
    if name not in MEASURES:
        raise OfframpError(f"there is no measure '{name}'{nearest(name, MEASURES)}")
    return MEASURES[name]


def find_metric(name: str) -> Metric:
    """The metric that `path/file.py:name` names, as the file is now."""
    return _find_metric(name, usercode.read(name).sha256 if usercode.file_of(name).is_file() else "")


@cache
def _find_metric(name: str, sha256: str) -> Metric:
    function = usercode.load(name, "a metric").function
    metric = function if isinstance(function, Metric) else Metric(function)
    word = name.rpartition(":")[2]
    return replace(
        metric,
        of=_users(name, metric.of, slice(1, 2)),
        on_images=metric.on_images and _users(name, metric.on_images, slice(2)),
        title=metric.title or word,
        # With its name: functions that one factory made have the same code.
        code=f"{sha256} {word}",
    )


def _users(name: str, of: ByImage, axes: slice) -> ByImage:
    """A user's function of logits, whose faults are told as such. axes: of logits, those that its values
    have too."""

    def checked(logits: Floats, labels: Labels) -> Floats:
        with usercode.running(name):
            values = np.asarray(of(logits, labels), dtype=float)
            if values.shape != logits.shape[axes]:
                shapes = (list(logits.shape[axes]), list(logits.shape), list(values.shape))
                raise TypeError("it must return {} of logits {}, and returned {}".format(*shapes))
        return values

    return checked


def _costs(
    name: str, title: str, unit: Unit, over: costs.Over, column: str = "", counted: bool = False
) -> Measure:
    return Measure(
        name,
        title,
        unit=unit,
        of=_cost(over, counted),
        better="lower",
        per_exit=False,
        column=column,
        digits=1,
    )


MEMORY = "memory_rss_peak_bytes"
GPU = "memory_gpu_peak_bytes"
TORCH = "memory_torch_peak_bytes"

# fmt: off
ALL = (
    *_closing_measures(),
    Measure("min-loss-epoch", "Epoch of the least validation loss", EPOCHS,
            _curve(min_loss_epoch, "loss"), column="least loss, epoch"),
    Measure("peak-epoch", "Epoch of the highest validation accuracy", EPOCHS,
            _curve(peak_epoch, "accuracy"), column="peak, epoch"),
    Measure("saturation-epoch", "Epoch from which accuracy stays within 0.5 points of its peak",
            EPOCHS, _curve(saturation_epoch, "accuracy"), column="saturated, epoch"),
    Measure("generalization-gap-best", "Training minus validation accuracy, best epoch", POINTS,
            _whole(partial(_gap, keep="first")), column="gap best", digits=1),
    Measure("generalization-gap-last", "Training minus validation accuracy, last epoch", POINTS,
            _whole(partial(_gap, keep="last")), column="gap last", digits=1),
    Measure("validation-stability", "Spread of the last changes of validation loss", NATS,
            _curve(validation_stability, "loss"), column="stability", digits=3),
    Measure("overfits", "Exits that overfit", PERCENT,
            _curve(overfits, "loss", "running"), column="overfit, %", spread=False),
    Measure("overfitting-epoch", "First of five epochs that overfit", EPOCHS,
            _curve(overfitting_epoch, "loss", "running"), "higher", column="from, epoch"),
    Measure("loss-rise", "Last validation loss above the least one", PERCENT,
            _curve(loss_rise, "loss")),
    Measure("loss-spikes", "Epochs in which validation loss jumps by 20 %", EPOCHS,
            _curve(loss_spikes, "loss")),
    Measure("largest-spike", "Largest rise of validation loss in an epoch", NATS,
            _curve(largest_spike, "loss")),
    Measure("seconds-written", "Training time as the paper runs it", SECONDS, _written,
            column="time as written", digits=1),
    _costs("seconds-executed", "Time of all that ran", SECONDS, costs.executed),
    _costs("seconds-train", "Time of training steps", SECONDS, costs.summed("seconds_train")),
    _costs("seconds-validation", "Time of the validation of each epoch", SECONDS,
           costs.summed("seconds_validation")),
    _costs("seconds-data", "Time that epochs waited for images", SECONDS, costs.summed("seconds_data")),
    _costs("macs-written", "Training compute as the paper runs it", GMAC,
           costs.summed("macs_written"), counted=True),
    _costs("macs-executed", "Training compute that ran", GMAC,
           costs.summed("macs_executed"), counted=True),
    _costs("memory-cpu-max", "CPU memory, largest phase", MB, costs.largest(MEMORY)),
    _costs("memory-cpu-sum", "CPU memory, sum over phases", MB, costs.summed(MEMORY)),
    _costs("memory-gpu-max", "GPU memory, largest phase", MB, costs.largest(GPU)),
    _costs("memory-gpu-sum", "GPU memory, sum over phases", MB, costs.summed(GPU)),
    _costs("memory-torch-max", "GPU memory, torch's largest phase", MB, costs.largest(TORCH)),
    _costs("power-cpu-mean", "CPU power, mean", WATT, costs.mean("power_cpu_mean_w"), "CPU power, W"),
    _costs("power-cpu-peak", "CPU power, peak", WATT, costs.largest("power_cpu_peak_w")),
    _costs("power-gpu-mean", "GPU power, mean", WATT, costs.mean("power_gpu_mean_w"), "GPU power, W"),
    _costs("power-gpu-peak", "GPU power, peak", WATT, costs.largest("power_gpu_peak_w")),
    _costs("energy-cpu", "CPU energy", JOULE, costs.summed("energy_cpu_j")),
    _costs("energy-gpu", "GPU energy", JOULE, costs.summed("energy_gpu_j")),
    _costs("energy", "CPU and GPU energy", JOULE, costs.summed("energy_cpu_j", "energy_gpu_j")),
)
# fmt: on
MEASURES: Mapping[str, Measure] = MappingProxyType({measure.name: measure for measure in ALL})
