"""docs/performance.md and a table of docs/deployment.md, made of the rows of results.json: `--page`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2

from benchmarks import runtimes
from offramp.files import replacing

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"
GUIDE = HERE.parent / "docs" / "deployment.md"
TABLE = re.compile(r"(<!-- of benchmarks/results.json -->\n).*?(<!-- to here -->\n)", re.DOTALL)
NETWORKS = ("mobilenetv1", "mobilenetv2", "resnet18", "resnet50", "vgg16")
Row = dict[str, Any]


def write() -> None:
    rows = json.loads((HERE / "results.json").read_text())
    for page, content in ((PAGE, text(rows)), (GUIDE, guide(rows))):
        with replacing(page) as temporary:
            temporary.write_text(content)


def guide(rows: Sequence[Row]) -> str:
    """docs/deployment.md with the table of runtimes of these rows."""
    return TABLE.sub(rf"\1\n{runtimes.table(rows)}\n\n\2", GUIDE.read_text())


def text(rows: Sequence[Row]) -> str:
    """The page of these rows. Raises KeyError where one that it quotes is missing."""
    named = {row["name"]: row for row in rows}
    quoting = (number, times, noted, percent, bar, networks, span)
    words: dict[str, Callable[..., str]] = {each.__name__: partial(each, named) for each in quoting}
    loader = jinja2.FileSystemLoader(HERE)
    page = jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    ).get_template("performance.md.jinja")
    return page.render(words)


def number(rows: dict[str, Row], name: str) -> str:
    return _short(rows[name]["ratio"])


def times(rows: dict[str, Row], name: str) -> str:
    """How many times as fast, and which bar it misses."""
    row = rows[name]
    return f"{_short(row['ratio'])} ×{_missed(row)}"


def noted(rows: dict[str, Row], name: str, before: str) -> str:
    """The number in a row's note that comes after these words, a pattern."""
    match = re.search(before + r"([\d.]+)", rows[name]["note"])
    if match is None:
        raise KeyError(f"{name}: no number after {before!r}")
    return match[1].rstrip(".")


def percent(rows: dict[str, Row], name: str) -> str:
    return f"{rows[name]['ratio']:.0%}".replace("%", " %")


def bar(rows: dict[str, Row], name: str) -> str:
    """The cells of a value and of its bar."""
    row = rows[name]
    return f"{_short(row['ratio'])}{_missed(row)} | {row['bar']:g}"


def networks(rows: dict[str, Row], pattern: str) -> str:
    """A cell for each network; its name stands for NET."""
    return " | ".join(_short(rows[pattern.replace("NET", name)]["ratio"]) for name in NETWORKS)


def span(rows: dict[str, Row], begin: str, *parts: str) -> str:
    """From the least to the largest of the rows that begin so, and have one of the parts."""
    names = [name for name in rows if name.startswith(begin) and any(p in name for p in parts or ("",))]
    if not names:
        raise KeyError(begin)
    ratios = sorted(rows[name]["ratio"] for name in names)
    low, high = _short(ratios[0]), _short(ratios[-1])
    return low if low == high else f"{low} to {high}"


def _missed(row: Row) -> str:
    return f" (bar of {row['bar']:g} not met)" if row["holds"] is False else ""


def _short(value: float) -> str:
    """Two digits behind the point below 10, none above."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2f}"
