"""Trials of a store as a list: which, in what order, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from offramp.errors import OfframpError, nearest
from offramp.terminal import GAP, console, folded, show, table

if TYPE_CHECKING:
    from offramp.store.live import TrialProgress


TEST = "test, %"
SPARED = ("seed", "finished", "phases")  # what a narrow screen goes without, in this order
DAY = len("2026-11-28")
NARROWEST = 10  # letters of accuracies beside each other


class SortBy(StrEnum):
    trial = "trial"
    seed = "seed"
    accuracy = "accuracy"
    finished = "finished"
    phases = "phases"


@dataclass(frozen=True)
class TrialFilter:
    """strategy, seed: of the trials that are wanted; None for any.  unfinished: those alone.  failed:
    those with a phase that failed."""

    strategy: str | None = None
    seed: int | None = None
    unfinished: bool = False
    failed: bool = False


def chosen(courses: Sequence[TrialProgress], wanted: TrialFilter, sort: SortBy) -> list[dict[str, Any]]:
    """The wanted trials, sorted, as for JSON. Raises OfframpError for a strategy that no trial has."""
    known = sorted({c.plan.strategy for c in courses if c.plan.strategy is not None})
    if wanted.strategy is not None and known and wanted.strategy not in known:
        raise OfframpError(
            f"no trial of the strategy '{wanted.strategy}'{nearest(wanted.strategy, known)}"
        )
    rows = [
        c.as_json()
        for c in courses
        if (wanted.strategy is None or c.plan.strategy == wanted.strategy)
        and (wanted.seed is None or c.plan.seed == wanted.seed)
        and not (wanted.unfinished and c.manifest is not None)
        and not (wanted.failed and c.failed is None)
    ]
    by: Mapping[SortBy, Callable[[dict[str, Any]], Any]] = {
        SortBy.trial: lambda row: row["trial"],
        SortBy.seed: lambda row: (row["seed"] or 0, row["trial"]),
        SortBy.accuracy: lambda row: -(row["accuracy"][-1] if row["accuracy"] else -1),
        SortBy.finished: lambda row: row["finished"] or "~",
        SortBy.phases: lambda row: (row["phases_finished"] - row["phases"], row["trial"]),
    }
    return sorted(rows, key=by[sort])


def show_trials(rows: Iterable[Mapping[str, Any]]) -> None:
    """A line each, with the columns that the screen has room for: ids stay whole, to be copied."""
    columns: dict[str, list[str]] = {name: [] for name in ("trial", "finished", "seed", "phases", TEST)}
    for row in rows:
        columns["trial"].append(row["trial"])
        columns["finished"].append(_local(row["finished"]))
        columns["seed"].append(str(row["seed"]))
        columns["phases"].append(f"{row['phases_finished']}/{row['phases']}")
        columns[TEST].append(accuracies(row["accuracy"]))
    screen, left_out = console().width, []
    for name in SPARED:
        if _width(columns) > screen and name == "finished":
            columns[name] = [when[:DAY] for when in columns[name]]
        if _width(columns) > screen:
            del columns[name]
            left_out.append(name)
    if _width(columns) > screen:
        room = max(screen - GAP - max(map(len, columns["trial"])), NARROWEST)
        columns[TEST] = ["\n".join(folded(text, room)) for text in columns[TEST]]
    left = [name for name in columns if name in ("trial", "finished")]
    right = [name for name in columns if name not in left]
    rest = f" A wider screen or --json also has: {', '.join(left_out)}." if left_out else ""
    note = f"test: accuracy of each exit, the final one last.{rest}"
    show(table(left, right, zip(*columns.values(), strict=True)), "", "\n".join(folded(note, screen)))


def accuracies(values: Iterable[float]) -> str:
    """Of each exit, in percent."""
    return " ".join(f"{100 * value:.1f}" for value in values) or "-"


def _local(when: object) -> str:
    """A time as provenance has it, in the machine's own, as logs are; a dash for anything else."""
    try:
        return f"{datetime.fromisoformat(str(when)).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return "-"


def _width(columns: Mapping[str, Sequence[str]]) -> int:
    """Of a table on the screen."""
    return sum(GAP + max(map(len, (name, *cells))) for name, cells in columns.items()) - GAP
