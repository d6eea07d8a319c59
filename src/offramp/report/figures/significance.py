"""Who beats whom: directed graphs of significant differences (paper's Fig. 11)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from offramp.analysis.measures import MEASURES
from offramp.analysis.stats import Analysis, Columns, Untested, analyze_sample, sample
from offramp.analysis.stats.pairwise import ALPHA, Pair, Pairs
from offramp.paper.families import families
from offramp.report.colors import styles
from offramp.report.figures import series
from offramp.report.figures.chart import GRAY, WIDTH, Json, figure, marks, number, panel, word
from offramp.report.figures.curves import ACCURACY, LOSS, Metric
from offramp.report.model import Figure, Question
from offramp.report.runs import Runs

RADIUS = {2: 50, 3: 66, 4: 84}  # of the ring of nodes, by their number; larger ones have 96
NODE = 8  # radius of a node, in pixels
BOTH = "both"
Point = tuple[float, float]
DEFAULT = "paired differences"
PAPER = "one-way only"


@dataclass(frozen=True)
class Edge:
    """winner is significantly better than loser by `difference` (above 0, in the axis's unit)."""

    winner: str
    loser: str
    difference: float
    way: str


def significance(runs: Runs) -> list[Figure]:
    """A figure for the core strategies, and one for each hybrid with its parents; one for all
    strategies where any, as one of the user's own, is in none of these."""
    here = set(runs.values(MEASURES["loss-test"])["strategy"])  # who has no exit missing
    figures: list[Figure] = []
    for family, members in graphs(here).items():
        absent = [s for s in runs.strategies if s not in here and (family == "all" or s in members)]
        figures += _figure(runs, family, members, absent)
    return figures


def graphs(here: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The strategies of each graph, by its name: those of `families`, and `all`."""
    found = families(here)
    drawn = {member for members in found.values() for member in members}
    every = {"all": tuple(sorted(here))} if len(here) > 1 and set(here) - drawn else {}
    return {**found, **every}


def observations(runs: Runs, metric: Metric) -> pd.DataFrame:
    """Test loss or accuracy (in %), mean over exits, of every trial that has all exits (columns
    `measures.OBSERVATION`)."""
    rows = runs.values(MEASURES[f"{metric.word}-test"])
    return rows.assign(value=metric.factor * rows["value"])


def edges(analysis: Analysis, better: str) -> list[Edge]:
    """The significant differences by either way of testing, from the better to the worse."""
    ways: dict[str, Pairs] = {DEFAULT: analysis.pairs}
    one_way = analysis.one_way
    if not isinstance(one_way, Untested):
        ways[PAPER] = (one_way.unequal or one_way).pairs
    found: dict[tuple[str, str], dict[str, float]] = {}
    for way, pairs in ways.items():
        for pair in pairs:
            if isinstance(pair, Pair) and pair.p < ALPHA:
                first_better = (pair.difference > 0) == (better == "higher")
                key = (pair.a, pair.b) if first_better else (pair.b, pair.a)
                found.setdefault(key, {})[way] = abs(pair.difference)
    return [
        Edge(*key, next(iter(by.values())), BOTH if len(by) > 1 else next(iter(by)))
        for key, by in sorted(found.items())
    ]


def _figure(runs: Runs, family: str, members: Sequence[str], absent: Sequence[str]) -> list[Figure]:
    charts, words = [], []
    notes = [f"{label} lacks exits that others have, so it has no mean over them" for label in absent]
    seeds = 0
    for metric in (LOSS, ACCURACY):
        found = observations(runs, metric)
        seeds = max(seeds, found["seed"].nunique())
        mine = found[found["strategy"].isin(members)]
        read = sample(mine, Columns("value", "strategy", "seed", "source"))
        images = runs.images(MEASURES[f"{metric.word}-test"]) or {}
        scaled = {key: metric.factor * values for key, values in images.items()}
        analysis = analyze_sample(read, ALPHA, images=scaled or None, looks=runs.looks)
        arrows = edges(analysis, metric.better)
        charts.append(_graph(analysis, arrows, metric))
        words.append(f"{metric.word.capitalize()}: {_spoken(arrows, analysis)}")
        notes += [note for note in analysis.notes if "identical" in note or "left out" in note]
    titles = {"core": "core strategies", "all": "all strategies"}
    title = titles.get(family, f"{family} and its parents")
    told = f" {'; '.join(dict.fromkeys(notes))}." if notes else ""
    caption = (
        "A → B: A is significantly better than B (adjusted p < 0.05), by the mean difference on the "
        "arrow. Test loss (cross-entropy) and accuracy (points of percent), mean over exits, "
        f"{runs.where}, {series.counted(seeds)}; in brackets the means. Solid: Holm-adjusted paired "
        "differences over seeds and test images, both taken as drawn at random (default). "
        "Dashed: significant only one-way (Tukey; Games–Howell where variances differ), the paper's "
        "way, which assumes that all runs are independent; runs that share seeds or phases are not. No "
        f"arrow does not mean equal.{told}"
    )
    question: Question = "rq1" if family in titles else "rq3"
    name, title = f"significance-{family}", f"Who beats whom: {title}"
    made = {"vconcat": charts, "spacing": 4}
    return figure(runs, name, question, title, caption, " ".join(words), made)


def _spoken(arrows: Sequence[Edge], analysis: Analysis) -> str:
    if not arrows:
        ways = (analysis.believed, analysis.one_way)
        reasons = [way.why for way in ways if isinstance(way, Untested)]
        return f"no significant difference{f' ({reasons[0]})' if reasons else ''}."
    return "; ".join(f"{e.winner} beats {e.loser} by {e.difference:.3g} ({e.way})" for e in arrows) + "."


def _graph(analysis: Analysis, arrows: Sequence[Edge], metric: Metric) -> Json:
    """Groups on a ring, the best on top and on clockwise, arrows between them."""
    order = sorted(
        analysis.means, key=lambda m: (m.mean if metric.better == "lower" else -m.mean, m.group)
    )
    place = ring([m.group for m in order])
    height = max(y for _, y in place.values()) + NODE + 8
    across: Json = {"scale": {"domain": [0, WIDTH], "nice": False}, "axis": None}
    down: Json = {"scale": {"domain": [height, 0], "nice": False, "zero": False}, "axis": None}
    x, y = number("x", **across), number("y", **down)
    rows = [(m.group.split(" = ")[0], f"{m.group} ({m.mean:.3g})", *place[m.group]) for m in order]
    nodes = pd.DataFrame(rows, columns=["first", "text", "x", "y"])
    # A label is aligned away from the middle, that of the topmost node to its right.
    left = nodes["x"] - WIDTH / 2 > -1
    found = styles(nodes["first"])
    hue = {"domain": list(found), "range": [style.color for style in found.values()]}
    layers = _arrows(arrows, place, across, down) if arrows else []
    circle = {"type": "circle", "size": 4 * NODE**2, "opacity": 1}
    shade = word("first", scale=hue, legend=None)
    layers.append(marks(nodes[["first", "x", "y"]], circle, x=x, y=y, color=shade))
    for side, dx, mine in (("left", NODE + 4, nodes[left]), ("right", -NODE - 4, nodes[~left])):
        if len(mine):
            label = {"type": "text", "align": side, "dx": dx}
            layers.append(marks(mine[["text", "x", "y"]], label, x=x, y=y, text=word("text")))
    none = "" if arrows else " (no significant difference)"
    return panel(layers, WIDTH - 6, height, f"test {metric.word}, {metric.better} is better{none}")


def ring(groups: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Where each group stands, in pixels, the first on top and the others clockwise."""
    radius = RADIUS.get(len(groups), 96)
    turns = [2 * math.pi * i / len(groups) for i in range(len(groups))]
    return {
        group: (WIDTH / 2 + radius * math.sin(turn), radius * (1 - math.cos(turn)) + NODE + 4)
        for group, turn in zip(groups, turns, strict=True)
    }


def _texts(lines: Sequence[tuple[Point, Point]]) -> list[Point]:
    """Where the number of each arrow goes: beside it, of a few places the one with most room around."""
    found: list[Point] = []
    for i, (tail, head) in enumerate(lines):
        length = math.dist(tail, head)
        dx, dy = (head[0] - tail[0]) / length, (head[1] - tail[1]) / length
        others = [line for k, line in enumerate(lines) if k != i]
        best: tuple[float, Point] | None = None
        for share in (0.3, 0.4, 0.22, 0.5, 0.6):
            for side in (-9, 9):
                along = share * length
                at = (tail[0] + along * dx - side * dy, tail[1] + along * dy + side * dx)
                rooms = [_distance(at, *line) for line in others]
                room = min([12.0, *rooms, *(0.5 * math.dist(at, other) for other in found)])
                if best is None or room > best[0] + 1e-6:
                    best = (room, at)
        if best is not None:
            found.append(best[1])
    return found


def _distance(at: Point, tail: Point, head: Point) -> float:
    """Of a point from a line between two others."""
    length = math.dist(tail, head)
    dx, dy = (head[0] - tail[0]) / length, (head[1] - tail[1]) / length
    along = (at[0] - tail[0]) * dx + (at[1] - tail[1]) * dy
    along = min(max(along, 0.0), length)
    return math.dist(at, (tail[0] + along * dx, tail[1] + along * dy))


def _arrows(arrows: Sequence[Edge], place: Mapping[str, Point], across: Json, down: Json) -> list[Json]:
    rows = []
    texts_at = _texts([(place[e.winner], place[e.loser]) for e in arrows])
    for edge, (tx, ty) in zip(arrows, texts_at, strict=True):
        (x1, y1), (x2, y2) = place[edge.winner], place[edge.loser]
        length = math.hypot(x2 - x1, y2 - y1)
        dx, dy = (x2 - x1) / length, (y2 - y1) / length
        start, end = NODE + 2, length - NODE - 4
        rows.append(
            {
                **{"x": x1 + start * dx, "y": y1 + start * dy, "x2": x1 + end * dx, "y2": y1 + end * dy},
                **{"tx": tx, "ty": ty, "angle": math.degrees(math.atan2(dx, -dy)) % 360},
                "text": f"{edge.difference:.2g}",
                "way": "solid" if edge.way in (BOTH, DEFAULT) else "dashed",
            }
        )
    found = pd.DataFrame(rows)
    strokes = {"domain": ["solid", "dashed"], "range": [[1, 0], [4, 3]]}
    turn = {"domain": [0, 360], "range": [0, 360]}
    head: Json = {"type": "point", "shape": "triangle", "filled": True, "opacity": 1}
    head |= {"size": 44, "color": GRAY}
    return [
        marks(
            found[["x", "y", "x2", "y2", "way"]],
            {"type": "rule", "strokeWidth": 1.2, "opacity": 0.8},
            **{"x": number("x", **across), "y": number("y", **down)},
            **{"x2": {"field": "x2"}, "y2": {"field": "y2"}},
            strokeDash=word("way", scale=strokes, legend=None),
        ),
        marks(
            found[["x2", "y2", "angle"]],
            {**head, "color": GRAY},
            **{"x": number("x2", **across), "y": number("y2", **down)},
            angle=number("angle", scale=turn),
        ),
        marks(
            found[["tx", "ty", "text"]],
            {"type": "text", "fontSize": 9},
            **{"x": number("tx", **across), "y": number("ty", **down), "text": word("text")},
        ),
    ]
