"""Who beats whom: directed graphs of significant differences ."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from offramp.analysis.measures import Measure
from offramp.analysis.stats import Analysis, Mean, Untested
from offramp.analysis.stats.pairwise import ALPHA, POWER, Pair, Pairs, least_shown
from offramp.analysis.stats.text import in_seeds
from offramp.report.colors import styles
from offramp.report.figures import series
from offramp.report.figures.chart import (
    GRAY,
    LETTER,
    WIDTH,
    Json,
    alike_text,
    figure,
    marks,
    named,
    number,
    panel,
    word,
)
from offramp.report.figures.curves import ACCURACY, LOSS, CurveMetric
from offramp.report.model import Figure, Question
from offramp.report.registry import publication
from offramp.report.runs import Runs

RADIUS = {2: 46, 3: 54, 4: 64, 5: 74}  # of the ring of nodes, by their number; larger ones have 96
MOST = 10  # nodes that a ring has, the best ones: arrows between more cannot be told apart
NODE = 8  # radius of a node, in pixels
TALL = 6  # half the height of a number
BOTH = "both"
PixelPosition = tuple[float, float]
DEFAULT = "paired differences"
PAPER = "one-way only"


@dataclass(frozen=True)
class SignificantEdge:
    """winner is significantly better than loser by `difference` (above 0, in the axis's unit)."""

    winner: str
    loser: str
    difference: float
    way: str


def significance(runs: Runs, measure: Measure | None = None) -> list[Figure]:
    """A figure for the core strategies, and one for each hybrid with its parents; one for all
    strategies where any, as one of the user's own, is in none of these. By loss and accuracy, or by
    another measure."""
    own = measure is None or measure is ACCURACY.measure
    metrics = (LOSS, ACCURACY) if own or measure is None else (_metric(measure),)
    here = set(runs.values(metrics[0].measure)["strategy"])  # who has no exit missing
    figures: list[Figure] = []
    for family, members in graphs(here).items():
        absent = [s for s in runs.strategies if s not in here and (family == "all" or s in members)]
        figures += _figure(runs, metrics, family, members, absent)
    return figures


def _metric(measure: Measure) -> CurveMetric:
    word = measure.axis.partition(",")[0].removeprefix("test ")
    return CurveMetric(measure.name, word, measure.axis, measure)


def graphs(here: Collection[str]) -> dict[str, tuple[str, ...]]:
    """The strategies of each graph, by its name: those of `families`, and `all`."""
    families = publication().families.among(here)
    drawn = {member for members in families.values() for member in members}
    every = {"all": tuple(sorted(here))} if len(here) > 1 and set(here) - drawn else {}
    return {**families, **every}


def edges(analysis: Analysis, better: str, factor: float = 1.0) -> list[SignificantEdge]:
    """The significant differences by either way of testing, from the better to the worse. factor: from
    the analysis's unit to the axis's."""
    ways: dict[str, Pairs] = {DEFAULT: analysis.pairs}
    one_way = analysis.one_way
    if not isinstance(one_way, Untested):
        ways[PAPER] = (one_way.unequal or one_way).pairs
    by_pair: dict[tuple[str, str], dict[str, float]] = {}
    for way, pairs in ways.items():
        for pair in pairs:
            if isinstance(pair, Pair) and pair.p < ALPHA:
                first_better = (pair.difference > 0) == (better == "higher")
                key = (pair.a, pair.b) if first_better else (pair.b, pair.a)
                by_pair.setdefault(key, {})[way] = factor * abs(pair.difference)
    return [
        SignificantEdge(*key, next(iter(by.values())), BOTH if len(by) > 1 else next(iter(by)))
        for key, by in sorted(by_pair.items())
    ]


def _figure(
    runs: Runs,
    metrics: Sequence[CurveMetric],
    family: str,
    members: Sequence[str],
    absent: Sequence[str],
) -> list[Figure]:
    charts, words, lost, least = [], [], [], []
    notes = [f"{label} lacks exits that others have, so it has no mean over them" for label in absent]
    counts = []
    for metric in metrics:
        rows = runs.values(metric.measure)
        counts.append(series.per_strategy(rows[rows["strategy"].isin(members)]))
        analysis = runs.analysis(metric.measure, None, tuple(members))
        if analysis is None:
            continue
        better, scale = metric.measure.better, metric.measure.scale
        sign = 1 if better == "lower" else -1
        best = sorted(analysis.means, key=lambda m: (sign * m.mean, m.group))[:MOST]
        names = {m.group for m in best}
        arrows = [e for e in edges(analysis, better, scale) if {e.winner, e.loser} <= names]
        chart, crowded = _graph(best, arrows, metric, members)
        charts.append(chart)
        lost += [
            f"{edge.winner} → {edge.loser} {edge.difference:.2g} ({metric.word})" for edge in crowded
        ]
        joined = {frozenset((edge.winner, edge.loser)) for edge in arrows}
        apart = (p for p in analysis.pairs if {p.a, p.b} <= names and {p.a, p.b} not in joined)
        if (detectable := least_shown(apart)) is not None:
            least.append(f"{metric.measure.scale * detectable:.2g} ({metric.word})")
        words.append(f"{metric.word.capitalize()}: {_spoken(arrows, analysis)}")
        if len(analysis.means) > MOST:
            notes.append(f"drawn are the best {MOST} of {len(analysis.means)}; the table pairs has all")
        about = tuple(f"{name}:" for name in names)
        remarks = (note for note in analysis.notes if note.startswith(about) or "left out" in note)
        notes += map(in_seeds, remarks)
    titles = {"core": "core strategies", "all": "all strategies"}
    title = titles.get(family, f"{family} and its parents")
    seeds = series.counted(max(most for most, _ in counts), min(few for _, few in counts))
    remarks_text = f" {'; '.join(dict.fromkeys(notes))}." if notes else ""
    crowd = f" (where others leave no room: {'; '.join(lost)})" if lost else ""
    power = (
        f": of pairs without one, differences of {' and '.join(least)} would have been found in "
        f"{100 * POWER:.0f} % of such runs"
        if least
        else ""
    )
    by_image = all(runs.over_images(metric.measure) for metric in metrics)
    drawn = f"{runs.tested_over}, both taken as drawn at random" if by_image else "seeds"
    caption = (
        "A → B: A is significantly better than B (adjusted p < 0.05), by the mean difference on the "
        f"arrow{crowd}. {_compared(metrics)}, "
        f"{runs.where}, {seeds}; in brackets the means. Solid: Holm-adjusted paired "
        f"differences over {drawn} (default). "
        "Dashed: significant only one-way (Tukey; Games–Howell where variances differ), the paper's "
        "way, which assumes that all runs are independent; runs that share seeds or phases are not. No "
        f"arrow does not mean equal{power}.{remarks_text}"
    )
    question: Question = "rq1" if family in titles else "rq3"
    name, title = named(f"significance-{family}", metrics[-1].measure), f"Who beats whom: {title}"
    stacked = {"vconcat": charts, "spacing": 4}
    return figure(runs, name, question, title, caption, " ".join(words), stacked)


def _compared(metrics: Sequence[CurveMetric]) -> str:
    """What is compared, as a sentence begins."""
    if len(metrics) > 1:
        return "Test loss (cross-entropy) and accuracy (percentage points), mean over exits"
    (measure,) = (metric.measure for metric in metrics)
    unit = f" ({measure.difference_unit})" if measure.difference_unit else ""
    return f"{measure.title}{unit}{', mean over exits' if measure.per_exit else ''}"


def _spoken(arrows: Sequence[SignificantEdge], analysis: Analysis) -> str:
    if not arrows:
        ways = (analysis.believed, analysis.one_way)
        reasons = [way.why for way in ways if isinstance(way, Untested)]
        return f"no significant difference{f' ({in_seeds(reasons[0])})' if reasons else ''}."
    return "; ".join(f"{e.winner} beats {e.loser} by {e.difference:.3g} ({e.way})" for e in arrows) + "."


def _graph(
    order: Sequence[Mean], arrows: Sequence[SignificantEdge], metric: CurveMetric, hues: Sequence[str]
) -> tuple[Json, list[SignificantEdge]]:
    """Groups on a ring, the first on top and on clockwise, arrows between them; and the arrows that
    have no room for their number. hues: all strategies that have a color, the same in each graph."""
    place = ring([m.group for m in order])
    height = max(y for _, y in place.values()) + NODE + 8
    across: Json = {"scale": {"domain": [0, WIDTH], "nice": False}, "axis": None}
    down: Json = {"scale": {"domain": [height, 0], "nice": False, "zero": False}, "axis": None}
    x, y = number("x", **across), number("y", **down)
    means = {
        m.group: f"{alike_text(m.group.split(' = '))} ({metric.measure.scale * m.mean:.3g})"
        for m in order
    }
    rows = [(group.split(" = ")[0], text, *place[group]) for group, text in means.items()]
    nodes = pd.DataFrame(rows, columns=["first", "text", "x", "y"])
    # A label is aligned away from the middle, that of the topmost node to its right.
    left = nodes["x"] - WIDTH / 2 > -1
    by_label = styles(hues)
    hue = {"domain": list(by_label), "range": [style.color for style in by_label.values()]}
    numbers = [f"{edge.difference:.2g}" for edge in arrows]
    ats = texts([(place[e.winner], place[e.loser]) for e in arrows], numbers)
    layers = _arrows(arrows, place, numbers, ats, across, down) if arrows else []
    circle = {"type": "circle", "size": 4 * NODE**2, "opacity": 1}
    shade = word("first", scale=hue, legend=None)
    layers.append(marks(nodes[["first", "x", "y"]], circle, x=x, y=y, color=shade))
    for side, dx, mine in (("left", NODE + 4, nodes[left]), ("right", -NODE - 4, nodes[~left])):
        if len(mine):
            label = {"type": "text", "align": side, "dx": dx}
            layers.append(marks(mine[["text", "x", "y"]], label, x=x, y=y, text=word("text")))
    none = "" if arrows else " (no significant difference)"
    crowded = [edge for edge, at in zip(arrows, ats, strict=True) if at is None]
    split = "test " if metric.measure.metric else ""
    title = f"{split}{metric.word}, {metric.measure.better} is better{none}"
    return panel(layers, WIDTH - 6, height, title), crowded


def ring(groups: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Where each group stands, in pixels, the first on top and the others clockwise."""
    radius = RADIUS.get(len(groups), 96)
    turns = [2 * math.pi * i / len(groups) for i in range(len(groups))]
    return {
        group: (WIDTH / 2 + radius * math.sin(turn), radius * (1 - math.cos(turn)) + NODE + 4)
        for group, turn in zip(groups, turns, strict=True)
    }


def texts(
    lines: Sequence[tuple[PixelPosition, PixelPosition]], words: Sequence[str]
) -> list[PixelPosition | None]:
    """Where the number of each arrow stands: on it, where no other arrow and no other number comes
    near. None where there is no such place. lines: from tail to head; words: what is written, one for
    each."""
    spots: list[PixelPosition | None] = []
    boxes: list[tuple[PixelPosition, float]] = []
    for i, ((tail, head), word_) in enumerate(zip(lines, words, strict=True)):
        others = [line for k, line in enumerate(lines) if k != i]
        wide = half(word_)
        best: tuple[float, PixelPosition] | None = None
        for step in sorted(range(15, 86, 2), key=lambda step: abs(step - 45)):
            at = (
                tail[0] + step / 100 * (head[0] - tail[0]),
                tail[1] + step / 100 * (head[1] - tail[1]),
            )
            if min(math.dist(at, tail), math.dist(at, head)) < NODE + 6 + wide:
                continue
            apart = [max(abs(at[0] - x) - wide - w, abs(at[1] - y) - 2 * TALL) for (x, y), w in boxes]
            room = min([12.0, *(_room(at, wide, line) for line in others), *apart])
            if room > 1 and (best is None or room > best[0] + 1e-6):
                best = (room, at)
        spots.append(None if best is None else best[1])
        if best is not None:
            boxes.append((best[1], wide))
    return spots


def half(word_: str) -> float:
    """Half the width of a number, in pixels."""
    return LETTER * len(word_) / 2 + 2


def _room(at: PixelPosition, wide: float, line: tuple[PixelPosition, PixelPosition]) -> float:
    """Between a line and a box around `at`, 2 * wide by 2 * TALL pixels; 0 or less where they meet."""
    (x1, y1), (x2, y2) = line
    steps = max(2, int(math.dist(*line) / 3))
    return min(
        max(
            abs(x1 + k / steps * (x2 - x1) - at[0]) - wide,
            abs(y1 + k / steps * (y2 - y1) - at[1]) - TALL,
        )
        for k in range(steps + 1)
    )


def _arrows(
    arrows: Sequence[SignificantEdge],
    place: Mapping[str, PixelPosition],
    words: Sequence[str],
    ats: Sequence[PixelPosition | None],
    across: Json,
    down: Json,
) -> list[Json]:
    rules, heads, numbers = [], [], []
    for edge, text, at in zip(arrows, words, ats, strict=True):
        (x1, y1), (x2, y2) = place[edge.winner], place[edge.loser]
        length = math.hypot(x2 - x1, y2 - y1)
        dx, dy = (x2 - x1) / length, (y2 - y1) / length
        stops = [NODE + 2, length - NODE - 4]
        if at is not None:  # the arrow leaves room for its number
            gap = min(half(text) / max(abs(dx), 1e-9), TALL / max(abs(dy), 1e-9))
            middle = math.dist(at, (x1, y1))
            stops[1:1] = [middle - gap, middle + gap]
            numbers.append((*at, text))
        way = "solid" if edge.way in (BOTH, DEFAULT) else "dashed"
        for start, end in zip(stops[::2], stops[1::2], strict=True):
            ends = (x1 + start * dx, y1 + start * dy, x1 + end * dx, y1 + end * dy)
            rules.append((*ends, way))
        tip = (x1 + stops[-1] * dx, y1 + stops[-1] * dy)
        heads.append((*tip, math.degrees(math.atan2(dx, -dy)) % 360))
    strokes = {"domain": ["solid", "dashed"], "range": [[1, 0], [4, 3]]}
    turn = {"domain": [0, 360], "range": [0, 360]}
    head: Json = {"type": "point", "shape": "triangle", "filled": True, "opacity": 1}
    head |= {"size": 44, "color": GRAY}
    return [
        marks(
            pd.DataFrame(rules, columns=["x", "y", "x2", "y2", "way"]),
            {"type": "rule", "strokeWidth": 1.2, "opacity": 0.8},
            **{"x": number("x", **across), "y": number("y", **down)},
            **{"x2": {"field": "x2"}, "y2": {"field": "y2"}},
            strokeDash=word("way", scale=strokes, legend=None),
        ),
        marks(
            pd.DataFrame(heads, columns=["x2", "y2", "angle"]),
            {**head, "color": GRAY},
            **{"x": number("x2", **across), "y": number("y2", **down)},
            angle=number("angle", scale=turn),
        ),
        marks(
            pd.DataFrame(numbers, columns=["tx", "ty", "text"]),
            {"type": "text"},
            **{"x": number("tx", **across), "y": number("ty", **down), "text": word("text")},
        ),
    ]
