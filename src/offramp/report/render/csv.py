"""A table as CSV: values unrounded, one header line of the columns' keys."""

from __future__ import annotations

from offramp.report.model import Table


def csv(table: Table) -> str:
    """The frame's columns, the printed ones first, each followed by its deviation. Where values are
    marked, a column `KEY_mark` says `best` or `alike`. Missing values are empty."""
    shown: list[str] = []
    for column in table.columns:
        shown += [key for key in (column.key, column.spread) if key is not None and key not in shown]
    rest = [key for key in table.frame.columns if key not in shown]
    frame = table.frame[[*shown, *rest]].copy()
    for key in sorted({key for _, key in table.best | table.alike}):
        marks = [
            "best" if (i, key) in table.best else "alike" if (i, key) in table.alike else ""
            for i in frame.index
        ]
        frame.insert(list(frame.columns).index(key) + 1, f"{key}_mark", marks)
    return str(frame.to_csv(index=False, lineterminator="\n"))
