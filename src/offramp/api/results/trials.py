"""Trials of a store as a list: which, in what order, and how they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from offramp.errors import OfframpError, nearest
from offramp.terminal import TextTable

if TYPE_CHECKING:
    from offramp.store.live import TrialProgress

TEST = "test, %"
SortBy = Literal["trial", "seed", "accuracy", "finished", "phases"]
ORDERS: Mapping[SortBy, Callable[[dict[str, Any]], Any]] = {
    "trial": lambda row: row["trial"],
    "seed": lambda row: (row["seed"] or 0, row["trial"]),
    "accuracy": lambda row: -(row["accuracy"][-1] if row["accuracy"] else -1),
    "finished": lambda row: row["finished"] or "~",
    "phases": lambda row: (row["phases_finished"] - row["phases"], row["trial"]),
}


def trial_rows(
    trials: Sequence[TrialProgress],
    strategy: str | None = None,
    seed: int | None = None,
    unfinished: bool = False,
    failed: bool = False,
    sort: SortBy = "trial",
) -> list[dict[str, Any]]:
    """Trials in the types of JSON, sorted.

    Args:
        trials: All that there are.
        strategy: Only those of this strategy.
        seed: Only those of this seed.
        unfinished: Only those that are not finished.
        failed: Only those with a phase that failed.
        sort: Their order.

    Raises:
        OfframpError: No trial has this strategy.
    """
    names = sorted({each.plan.strategy for each in trials if each.plan.strategy is not None})
    if strategy is not None and names and strategy not in names:
        raise OfframpError(f"no trial of the strategy '{strategy}'{nearest(strategy, names)}")
    rows = [
        each.as_json()
        for each in trials
        if (strategy is None or each.plan.strategy == strategy)
        and (seed is None or each.plan.seed == seed)
        and not (unfinished and each.manifest is not None)
        and not (failed and each.failed is None)
    ]
    return sorted(rows, key=ORDERS[sort])


def trial_table(rows: Iterable[Mapping[str, Any]]) -> TextTable:
    """A line for each trial. Ids stay whole, to be copied: a narrow screen has fewer columns."""
    return TextTable(
        ["trial", "finished", "at"],
        ["seed", "phases", TEST],
        [
            (
                row["trial"],
                *_local(row["finished"]),
                str(row["seed"]),
                f"{row['phases_finished']}/{row['phases']}",
                accuracies(row["accuracy"]),
            )
            for row in rows
        ],
        note="test: accuracy of each exit, the final one last.",
        spare=("at", "seed", "finished", "phases"),
    )


def accuracies(values: Iterable[float]) -> str:
    """Of each exit, in percent."""
    return " ".join(f"{100 * value:.1f}" for value in values) or "-"


def _local(when: object) -> tuple[str, str]:
    """The day and time of provenance, in the time of logs; dashes for anything else."""
    try:
        local = datetime.fromisoformat(str(when)).astimezone()
    except ValueError:
        return "-", "-"
    return f"{local:%Y-%m-%d}", f"{local:%H:%M}"
