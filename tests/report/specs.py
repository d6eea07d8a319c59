"""Reading specifications as a test needs them."""

import io
from collections.abc import Iterator
from typing import Any

import pandas as pd

LACKING = {
    "memory-power": "not measured",
    "budget": "all trials were trained for as many epochs",
}
"""Figures that the trials of `handmade.at_random` do not show, and why. A new one that needs what they
lack is listed here."""


def views(spec: Any) -> Iterator[dict[str, Any]]:
    """Every part of a specification that has a mark."""
    if isinstance(spec, dict):
        if "mark" in spec:
            yield spec
        for child in spec.values():
            yield from views(child)
    elif isinstance(spec, list):
        for child in spec:
            yield from views(child)


def tables(spec: dict[str, Any]) -> list[pd.DataFrame]:
    """The data of a specification, each set once, in the order of their names."""
    return [pd.read_csv(io.StringIO(text)) for _, text in sorted(spec["datasets"].items())]


def with_columns(spec: dict[str, Any], *columns: str) -> list[pd.DataFrame]:
    """The data that have exactly these columns."""
    return [table for table in tables(spec) if list(table.columns) == list(columns)]
