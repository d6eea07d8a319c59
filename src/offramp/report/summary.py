"""What a run came to: accuracy at each exit, accuracy against compute, time; for people and programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from offramp.terminal import TextTable

if TYPE_CHECKING:
    from offramp.store.record import Seconds
    from offramp.store.table import Spread, StrategyResult

COMPUTE_NOTE = """\
≥ t: an image leaves at the first exit whose confidence is at least t.
written: each phase in full, as the paper runs it (~: estimated, MACs that did
not run taking half to twice as long as those that did).
run: all that the trial reads. added: what no strategy above it reads."""


def result_tables(lines: Sequence[StrategyResult], seeds: int) -> tuple[TextTable, TextTable]:
    """Accuracy at each exit; accuracy against compute, with the times. seeds: of the study."""
    return _exits(lines, seeds), _compute(lines)


def _exits(lines: Sequence[StrategyResult], seeds: int) -> TextTable:
    exits = sorted({k for line in lines for k in line.accuracy})
    columns = (*(f"exit {k}" for k in exits[:-1]), "final")
    rows = {
        line.strategy: tuple(percent(line.accuracy[k]) if k in line.accuracy else "–" for k in exits)
        for line in lines
    }
    over = f"{seeds} seeds"
    if any(len(line.seeds) != seeds for line in lines):  # interrupted, or some seeds failed
        columns, over = (*columns, "seeds"), "seeds"
        rows = {line.strategy: (*rows[line.strategy], str(len(line.seeds))) for line in lines}
    spread = f" (mean ± sd over {over})" if seeds > 1 else ""
    title = f"Test accuracy at each exit, %{spread}"
    return TextTable(["strategy"], columns, [(name, *cells) for name, cells in rows.items()], title)


def _compute(lines: Sequence[StrategyResult]) -> TextTable:
    thresholds = sorted({t for line in lines for t in line.thresholds})
    columns = (*(f"≥ {threshold:g}" for threshold in thresholds), "written", "run", "added")
    rows = []
    for line in lines:
        points = [line.thresholds[threshold] for threshold in thresholds]
        cells = (f"{100 * a.mean:.1f} @ {100 * c.mean:.0f}" for a, c in points)
        rows.append((line.strategy, *cells, *_times(line.seconds)))
    title = "Test accuracy % @ compute, % of the plain network's MACs; time a trial"
    return TextTable(["strategy"], columns, rows, title, COMPUTE_NOTE)


def _times(spent: Seconds) -> list[str]:
    written = _short(spent.written) if spent.measured else f"~{_range(spent)}"
    return [written, _short(spent.executed), _short(spent.marginal)]


def _range(spent: Seconds) -> str:
    """`10–19s`; one number where both ends print alike."""
    low, high = spent.written_low, spent.written_high
    unit, size = ("s", 1) if high < 99.95 else ("m", 60) if high < 5970 else ("h", 3600)
    digits = 1 if unit == "h" or high < 9.95 else 0
    ends = f"{low / size:.{digits}f}", f"{high / size:.{digits}f}"
    return _short(high) if ends[0] == ends[1] else f"{ends[0]}–{ends[1]}{unit}"


def percent(value: Spread) -> str:
    """`97.3 ±0.4`, in percent; without the deviation where there is one seed."""
    text = f"{100 * value.mean:.1f}"
    return text if math.isnan(value.sd) else f"{text} ±{100 * value.sd:.1f}"


def _short(seconds: float) -> str:
    if seconds < 99.95:
        return f"{seconds:.1f}s"
    return f"{seconds / 60:.0f}m" if seconds < 5970 else f"{seconds / 3600:.1f}h"


def as_json(lines: Sequence[StrategyResult]) -> list[dict[str, Any]]:
    """The same numbers for programs; a deviation of one value is not a number."""

    def spread(value: Spread) -> dict[str, float]:
        return {"mean": value.mean, "sd": value.sd}

    return [
        {
            "strategy": line.strategy,
            "seeds": list(line.seeds),
            "accuracy": {str(k): spread(v) for k, v in line.accuracy.items()},
            "thresholds": [
                {"threshold": t, "accuracy": spread(a), "compute": spread(c)}
                for t, (a, c) in line.thresholds.items()
            ],
            "seconds": dict(line.seconds.__dict__),
        }
        for line in lines
    ]
