"""A made-up report: what the page's tests show."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from offramp.report.model import Column, Contents, Figure, Question, RunDetail, Table
from offramp.report.page import folder
from offramp.report.render import charts
from offramp.store.table import COLUMNS

STRATEGIES = ("baseline", "joint", "separate", "branch-wise", "two-stage", "distillation")
PAIRS = (("resnet18", "cifar10"), ("digits-cnn", "digits"))
NASTY = "</script><script>alert(1)</script><b title='x\"'>&amp; {{ 7*7 }}"


def curve(exit: int, seed: int, epochs: int = 30) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    values = [
        {"epoch": epoch, "strategy": name, "loss": float(2.5 / (epoch + 1) ** 0.5 + noise)}
        for k, name in enumerate(STRATEGIES)
        for epoch, noise in enumerate(generator.normal(0.1 * k / exit, 0.02, epochs))
    ]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.1.0.json",
        "data": {"values": values},
        "mark": {"type": "line", "tooltip": True},
        "encoding": {
            "x": {"field": "epoch", "type": "quantitative", "title": "Epoch"},
            "y": {"field": "loss", "type": "quantitative", "title": "Validation loss"},
            "color": {"field": "strategy", "type": "nominal", "title": None},
        },
        "height": 260,
    }


def as_csv(spec: dict[str, Any]) -> dict[str, Any]:
    """The same with its data as CSV in a named set, as altair writes them; a value is missing."""
    rows = pd.DataFrame(spec["data"]["values"])
    rows["strategy"] = rows["strategy"].replace("joint", 'joint, "a"')
    rows.loc[3, "loss"] = np.nan
    parse = {"epoch": "number", "strategy": "string", "loss": "number"}
    text = rows.to_csv(index=False, lineterminator="\n")
    data = {"name": "data-1", "format": {"type": "csv", "parse": parse}}
    return {**spec, "data": data, "datasets": {"data-1": text}}


def panels(seed: int) -> dict[str, Any]:
    first = curve(1, seed)
    data = [dict(row, exit=f"exit {k}") for k in (1, 2, 3, 4) for row in first["data"]["values"]]
    inner = {"mark": first["mark"], "encoding": first["encoding"], "height": 180}
    facet = {"field": "exit", "type": "nominal", "title": None}
    return {"data": {"values": data}, "facet": facet, "columns": 2, "spec": inner}


def figure(name: str, question: Question, spec: dict[str, Any], **about: str) -> Figure:
    caption = "Cross-entropy on validation, mean over 3 seeds with a 95 % interval; lower is better."
    alt, title = "Lines that fall and flatten; joint is the highest.", f"Validation loss, {name}"
    sentence = {"title": title, "caption": caption, "alt": alt, "paper": "Figs. 8, 18"}
    return Figure(name, question, spec=spec, about=about, **sentence)


def table(name: str, question: Question, columns: int = 4, **about: str) -> Table:
    generator = np.random.default_rng(3)
    frame = pd.DataFrame({"strategy": STRATEGIES})
    visible = [Column("strategy", "Strategy")]
    for k in range(1, columns + 1):
        frame[f"exit{k}"] = generator.uniform(0.5 + k / 20, 0.55 + k / 20, len(STRATEGIES))
        frame[f"sd{k}"] = 0.01
        visible.append(Column(f"exit{k}", f"Exit {k}, %", "percent", 1, "higher", f"sd{k}"))
    frame.loc[0, "exit1"] = np.nan
    title = f"Accuracy at each exit, {name}"
    caption = "On test, mean ± sd over 3 seeds; higher is better."
    best, alike = frozenset({(1, "exit1"), (2, f"exit{columns}")}), frozenset({(3, "exit1")})
    more: Any = {"best": best, "alike": alike, "notes": ("– : the baseline has no early exit.",)}
    return Table(name, question, title, caption, frame, visible, "Table 7", about, **more)


def contents(missing: bool = True) -> Contents:
    figures, tables = [figure("all", "compute", as_csv(curve(1, 0)))], [table("main", "answer", 4)]
    for model, data in PAIRS:
        figures.append(figure(f"panels-{model}", "rq1", panels(1), model=model, data=data))
        for exit in (1, 2):
            about = {"model": model, "data": data, "exit": str(exit)}
            figures.append(figure(f"loss-{model}-{exit}", "rq1", curve(exit, exit), **about))
        tables.append(table(f"wide-{model}", "rq2", 16, model=model, data=data))
    figures.append(figure("hybrids", "rq3", curve(2, 9), data="digits"))
    frame = pd.DataFrame({"claim": [NASTY, "Joint uses least memory. " * 6], "p": [1e-20, 0.4]})
    columns = [Column("claim", "Claim"), Column("p", "p", "p", 3)]
    claims = Table("claims", "more", "Claims", "p adjusted after Holm over all claims.", frame, columns)
    return Contents(
        title=f"made-up {NASTY}",
        lead="6 strategies · 2 networks · 3 seeds",
        answer=[
            "For accuracy take separate: 61.2 % at exit 1.",
            f"No significant difference: {NASTY}.",
            *(f"Sentence {n}." for n in (3, 4, 5)),
        ],
        figures=figures,
        tables=tables,
        claims=[claims],
        how=[RunDetail("Study", ["made-up"]), RunDetail("Versions", ["torch 2.13", "numpy 2.4"])],
        first=["main", "panels-resnet18", "panels-digits-cnn"],
        missing=["joint on resnet18, cifar10: seed 44 is missing."] * 7 if missing else [],
    )


def numbers() -> pd.DataFrame:
    """A tidy table of two rows."""
    of_trial, closing = ("joint-s42", "joint", "resnet18", "cifar10", 42, "final"), ("0" * 16, True)
    rows = [
        (*of_trial, 1, "test", pd.NA, "accuracy", 0.5, *closing),
        (*of_trial, pd.NA, None, pd.NA, "seconds_train", 0.5, *closing),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"exit": "Int64", "epoch": "Int64"})


def write(
    contents: Contents, numbers: pd.DataFrame, out: Path, formats: Sequence[str], workers: int
) -> Iterator[tuple[int, int]]:
    """Write a report to `out` as `report` does; yields figures drawn so far and in total."""
    with (
        folder.staged(out) as place,
        charts.started(contents.figures, place / "figures", formats, workers) as drawn,
    ):
        folder.fill(place, contents, numbers, formats)
        yield from charts.progress(drawn)
