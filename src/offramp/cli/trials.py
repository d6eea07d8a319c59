"""Trials of a store as a list: which, in what order, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from offramp.errors import OfframpError, nearest
from offramp.terminal import show, table

if TYPE_CHECKING:
    from offramp.store.live import Course


class Column(StrEnum):
    trial = "trial"
    seed = "seed"
    accuracy = "accuracy"
    finished = "finished"


@dataclass(frozen=True)
class Wanted:
    """strategy, seed: of the trials that are wanted; None for any.  unfinished: those alone.  failed:
    those with a phase that failed."""

    strategy: str | None = None
    seed: int | None = None
    unfinished: bool = False
    failed: bool = False


def chosen(courses: Sequence[Course], wanted: Wanted, sort: Column) -> list[dict[str, Any]]:
    """What is known of them, for programs. Raises OfframpError for a strategy that no trial is of."""
    known = sorted({c.strategy for c in courses if c.strategy is not None})
    if wanted.strategy is not None and known and wanted.strategy not in known:
        raise OfframpError(
            f"no finished trial is of '{wanted.strategy}'{nearest(wanted.strategy, known)}"
        )
    rows = [
        c.as_json()
        for c in courses
        if (wanted.strategy is None or c.strategy == wanted.strategy)
        and (wanted.seed is None or c.seed == wanted.seed)
        and not (wanted.unfinished and c.manifest is not None)
        and not (wanted.failed and c.failed is None)
    ]
    by: Mapping[Column, Callable[[dict[str, Any]], Any]] = {
        Column.trial: lambda row: row["trial"],
        Column.seed: lambda row: (row["seed"] or 0, row["trial"]),
        Column.accuracy: lambda row: -(row["accuracy"][-1] if row["accuracy"] else -1),
        Column.finished: lambda row: row["finished"] or "~",
    }
    return sorted(rows, key=by[sort])


def show_trials(rows: Iterable[Mapping[str, Any]]) -> None:
    """A line each."""
    listing = []
    for row in rows:
        accuracies = " ".join(f"{100 * value:.1f}" for value in row["accuracy"]) or "-"
        phases = f"{row['phases_finished']}/{row['phases']}"
        when = (row["finished"] or "-").partition("+")[0].replace("T", " ")
        listing.append((row["trial"], when, str(row["seed"]), phases, accuracies))
    shown = table(["trial", "finished"], ["seed", "phases", "test, %"], listing)
    show(shown, "", "test: accuracy of each exit, the final one last.")
