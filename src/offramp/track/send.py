"""Finished trials in the trackers that laboratories have open: settings, and the tidy table's numbers.

A new tracker is a file whose `connect` gives a `Tracker` for an address, and an entry of TRACKERS.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

import numpy as np
import pandas as pd

from offramp.errors import OfframpError, in_line, nearest
from offramp.store.archive import Archive, Damaged
from offramp.store.table import tidy

_SERVER = "start its server, or for sqlite:///FILE pip install mlflow"
_NETWORK = "see to the network and `wandb login`, or set WANDB_MODE=offline"
TRACKERS: Mapping[str, tuple[str, str]] = {  # by kind an example, and the remedy where it fails
    "tensorboard": ("tensorboard:runs/board", "name a folder that can be written"),
    "mlflow": ("mlflow:http://localhost:5000#digits", _SERVER),
    "wandb": ("wandb:my-project", _NETWORK),
}


@dataclass(frozen=True)
class TrialRun:
    trial: str  # its id
    settings: Mapping[str, str | int | float | bool]  # by name, such as `recipe.epochs`
    curves: Mapping[int, Mapping[str, float]]  # by epoch and name: `joint/validation/accuracy/exit 1`
    results: Mapping[str, float]  # by name: `test/accuracy/exit 1`, `joint/seconds_train`


class Tracker(Protocol):
    """Where trials go. Raises whatever its library does."""

    def has(self, trial: str) -> bool:
        """Whether all of a trial was sent before."""

    def send(self, run: TrialRun) -> None: ...


def trial_run(store: Archive, trial: str) -> TrialRun:
    """A finished trial of a store. Raises Damaged as the store does."""
    manifest = store.read_trial(trial)
    named = {
        **{name: getattr(manifest, name) for name in ("study", "strategy", "seed")},
        "backbone": manifest.network.backbone,
        "data": manifest.data.label,
        "finished": manifest.provenance.finished,
        **{f"strategy.{name}": value for name, value in manifest.options.items()},
        **{f"recipe.{name}": value for name, value in manifest.recipe.as_json().items()},
    }
    settings = {
        name: value for name, value in named.items() if isinstance(value, str | int | float | bool)
    }
    curves: dict[int, dict[str, float]] = {}
    results: dict[str, float] = {}
    table = tidy(store, [trial])
    table = table[np.isfinite(table["value"])]  # a database may refuse others
    columns = (table[name] for name in ("phase", "split", "metric", "exit", "epoch", "value"))
    for phase, split, metric, exit, epoch, value in zip(*columns, strict=True):
        parts = (phase if phase != "final" else None, split, metric)
        name = "/".join(part for part in parts if isinstance(part, str))
        name += "" if exit is pd.NA else f"/exit {exit}"
        (results if epoch is pd.NA else curves.setdefault(int(epoch), {}))[name] = float(value)
    return TrialRun(trial, settings, curves, results)


def check(text: str) -> None:
    """Raises OfframpError where `KIND:ADDRESS` names no tracker."""
    kind, _, address = text.partition(":")
    if kind not in TRACKERS or not address:
        hint, example = nearest(kind, TRACKERS), TRACKERS.get(kind, TRACKERS["tensorboard"])[0]
        raise OfframpError(f"'{text}' names no tracker{hint}; name one such as {example}")


def send(store: Archive, to: str) -> int:
    """Send each finished trial that the tracker `to` lacks; how many there were.

    Damaged ones are left out. Raises OfframpError where it is not installed, not reached, or refuses.
    """
    kind, _, address = to.partition(":")
    with _at_work(to, kind):
        tracker: Tracker = import_module(f"offramp.track.{kind}").connect(address)
        missing = [trial for trial in store.trials() if not tracker.has(trial)]
    for trial in missing:
        try:
            run = trial_run(store, trial)
        except Damaged:
            continue
        with _at_work(to, kind):
            tracker.send(run)
    return len(missing)


@contextmanager
def _at_work(to: str, kind: str) -> Iterator[None]:
    """A library's failure is one line; what it prints leaves standard output alone."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except OfframpError:
        raise
    except ImportError as error:
        hint = "pip install 'offramp[track]'"
        raise OfframpError(f"{to} lacks a library ({in_line(error)}); {hint}") from None
    except Exception as error:  # of a library, the network, a database: classes of many libraries
        raise OfframpError(f"{to} takes nothing ({in_line(error)}); {TRACKERS[kind][1]}") from error
