"""Tables for the terminal, 80 columns wide at most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from offramp.study.summary import Line, Spread


def table(title: str | None = None, caption: str | None = None) -> Table:
    return Table(
        title=title,
        caption=caption,
        box=box.SIMPLE_HEAD,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
        expand=False,
        min_width=min(len(title or ""), 78),
    )


def percent(value: Spread) -> str:
    """`97.3 ±0.4`, in percent; without the deviation where there is one seed."""
    text = f"{100 * value.mean:.1f}"
    return text if math.isnan(value.sd) else f"{text} ±{100 * value.sd:.1f}"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def bytes_(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def macs(count: float) -> str:
    for unit in ("", " k", " M", " G", " T"):
        if count < 1000:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} P"


def results(lines: Sequence[Line], seeds: int) -> list[Table]:
    """Accuracy at each exit, and accuracy against compute with the times."""
    return [_exits(lines, seeds), _compute(lines)]


def _exits(lines: Sequence[Line], seeds: int) -> Table:
    exits = sorted({k for line in lines for k in line.accuracy})
    spread = f" (mean ± sd over {seeds} seeds)" if seeds > 1 else ""
    first = table(f"Test accuracy at each exit, %{spread}")
    first.add_column("strategy", no_wrap=True)
    for k in exits:
        name = "final" if k == exits[-1] else f"exit {k}"
        first.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        cells = [percent(line.accuracy[k]) if k in line.accuracy else "–" for k in exits]
        first.add_row(line.strategy, *cells)
    return first


def _compute(lines: Sequence[Line]) -> Table:
    thresholds = sorted({t for line in lines for t in line.thresholds})
    second = table(
        "Accuracy % @ average compute, % of the plain network's MACs; time a trial",
        "conf. ≥ t: an image leaves at the first exit whose softmax confidence reaches t.\n"
        "written: every phase in full, as the paper runs it (~ estimated from MACs);\n"
        "run: all nodes that the trial reads; added: those that no strategy above reads.",
    )
    second.add_column("strategy", no_wrap=True)
    for threshold in thresholds:
        second.add_column(f"conf. ≥ {threshold:g}", justify="right", no_wrap=True)
    for name in ("written", "run", "added"):
        second.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        cells = []
        for threshold in thresholds:
            accuracy, compute = line.thresholds[threshold]
            cells.append(f"{100 * accuracy.mean:.1f} @ {100 * compute.mean:.0f}")
        spent = line.seconds
        sign = "" if spent.measured else "~"
        times = (sign + _short(spent.written), _short(spent.executed), _short(spent.marginal))
        second.add_row(line.strategy, *cells, *times)
    return second


def _short(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f}s"
    return f"{seconds / 60:.0f}m" if seconds < 6000 else f"{seconds / 3600:.1f}h"


def as_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The same numbers for programs; a deviation of one value is null."""

    def spread(value: Spread) -> dict[str, float | None]:
        return {"mean": value.mean, "sd": None if math.isnan(value.sd) else value.sd}

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


def console() -> Console:
    """Standard output; rich finds the width, 80 where there is no terminal."""
    return Console(highlight=False)
