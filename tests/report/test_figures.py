import json
import math
import random
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert
from altair.utils.schemapi import validate_jsonschema
from altair.vegalite.v6.schema.core import load_schema
from handmade import MACS, PLAIN, HandTrial, Run, at_random, evidence, simple
from jsonschema import ValidationError
from scipy import stats
from specs import LACKING, tables, views, with_columns
from syrupy.assertion import SnapshotAssertion

from longer import long
from offramp.analysis.measures import MEASURES
from offramp.infer.timing import WHOLE, Timing
from offramp.report.colors import DARK, KNOWN, OTHERS, both_colors, config, styles, themed
from offramp.report.evidence import Evidence
from offramp.report.figures import (
    FIGURES,
    DrawnFigures,
    compute,
    curves,
    dots,
    draw,
    reliability,
    series,
    times,
)
from offramp.report.figures.chart import (
    WIDTH,
    color,
    exit_color,
    hidden_text,
    legend_of,
    marks,
    short,
    spec,
    ticks,
    unit,
)
from offramp.report.figures.chart import figure as only
from offramp.report.figures.significance import MOST, edges, graphs, ring, significance
from offramp.report.figures.times import speed_figure
from offramp.report.model import Figure
from offramp.report.page.folder import first
from offramp.report.render.charts import text
from offramp.strategies import STRATEGIES
from wording import refusal

AT = "net-images"  # of the only network and data, at the end of names
METERS = ("memory_rss_peak_bytes", "power_cpu_mean_w", "energy_cpu_j")
LABELS = ("baseline", "joint", "separate", "branch-wise", "two-stage", "joint-branch", "mine")


@pytest.fixture(scope="module")
def many() -> Evidence:
    return evidence(at_random(LABELS))


@pytest.fixture(scope="module")
def every(many: Evidence) -> DrawnFigures:
    """All figures of it, to be read."""
    return draw(many)


def test_curves_are_drawn_with_the_numbers_of_the_table() -> None:
    built = [simple("joint", 1), simple("joint", 2, shift=1.0), simple("two-stage", 1)]
    loss = draw(evidence(built), ["curves"]).figures[0]
    assert loss.name == f"loss-core-{AT}" and loss.paper == "Fig. 8"
    actual = with_columns(dict(loss.spec), "strategy", "step", "value", "low", "high")
    validation = next(t for t in actual if t["value"].max() == 3.5)
    joint = validation[validation["strategy"] == "joint"]
    assert joint[["step", "value", "low", "high"]].to_numpy().tolist() == [
        *([1, 3.5, 3, 4], [2, 2.5, 2, 3], [3, 1.5, 1, 2])
    ]
    accuracy = curves.by_exit(evidence(built).runs[0])[1]
    visible = with_columns(dict(accuracy.spec), "strategy", "step", "value", "low", "high")[0]
    assert visible[visible["strategy"] == "joint"]["value"].tolist() == [20, 40, 60]  # percent


def test_epochs_are_whole_where_there_are_few() -> None:
    for epochs in (1, 2, 3):
        loss = {k: [float(k)] * epochs for k in (1, 2, 3)}
        (figure, *_) = curves.by_exit(evidence([HandTrial("joint", 1, [Run("all", loss)])]).runs[0])
        svg = str(vl_convert.vegalite_to_svg(text(themed(figure.spec)), vl_version="6.4"))
        at = re.findall(r">([\d.]+)</text>", svg.rpartition("X-axis titled 'epochs")[2])
        assert at and set(at) <= {"1", "2", "3"}


def test_where_no_arrow_is_stands_what_would_have_been_found(
    many: Evidence, snapshot: SnapshotAssertion
) -> None:
    """Nothing is planted in made trials."""
    core = next(f for f in significance(many.runs[0]) if f.name.startswith("significance-core"))
    power = next(clause for clause in re.split(r"[.;] ", core.caption) if "80 %" in clause)
    assert power == snapshot


def test_training_is_told_in_both_modes() -> None:
    whole = evidence([simple("joint", 1), simple("joint", 2)])
    last = whole.table[(whole.table["split"] == "train") & (whole.table["epoch"] == 3)]
    ended = last.assign(split="train-eval", value=last["value"] + 0.1)
    both = replace(whole, table=pd.concat([whole.table, ended], ignore_index=True))
    accuracy = curves.by_exit(both.runs[0])[1]
    visible = with_columns(dict(accuracy.spec), "strategy", "step", "value")
    (dots, *_) = [t for t in visible if "low" not in t]
    assert dots[["step", "value"]].to_numpy().tolist() == [[3, pytest.approx(70)]]
    assert "train (running)" in str(accuracy.spec)
    assert "in train mode" in accuracy.caption and "in eval mode" in accuracy.caption
    assert "in train mode" in curves.overall(both.runs[0])[0].caption


def test_curves_say_which_lines_coincide() -> None:
    backbone = Run("backbone", {3: [2.0, 1.0]}, key="shared")
    two = [
        HandTrial(label, 1, [backbone, Run("h", {1: [1.0]})]) for label in ("two-stage", "distillation")
    ]
    loss = curves.by_exit(evidence(two).runs[0])[0]
    assert "two-stage = distillation" in loss.caption
    assert re.findall(r"exit \d", loss.caption) == ["exit 3"]


@pytest.mark.long
def test_panels_and_their_titles_stand_in_rows_and_columns(many: Evidence) -> None:
    for figure in curves.by_exit(many.runs[0]):
        spec = dict(figure.spec)
        rows = [titles(spec, f"exit {exit} · ") for exit in (1, 2, 3)]
        for left, right in rows:
            assert left[1] == pytest.approx(right[1], abs=0.5), figure.name
        for side in (0, 1):
            assert len({row[side][0] for row in rows}) == 1, figure.name
        pushed = text(spec).replace('"labelExpr":"\'\'"', '"labels":false')  # as they were: seen
        left, right = titles(json.loads(pushed), "exit 2 · ")
        assert figure.name.startswith("loss") or right[1] - left[1] > 1


def titles(spec: dict[str, Any], start: str) -> list[tuple[float, float]]:
    """Where texts that begin so stand in a drawn chart, from the left."""
    actual = []

    def walk(part: dict[str, Any], x: float, y: float) -> None:
        for item in part.get("items", []):
            at = (x + item.get("x", 0.0), y + item.get("y", 0.0))
            words = item.get("text")
            if isinstance(words, str) and words.startswith(start):
                actual.append(at)
            walk(item, *(at if part.get("marktype") == "group" else (x, y)))

    scene = vl_convert.vegalite_to_scenegraph(themed(spec))
    walk({"items": [scene["scenegraph"]]}, 0.0, 0.0)
    return sorted(actual)


def test_hybrids_are_drawn_with_their_parents(many: Evidence) -> None:
    actual = {g.key: g.strategies for g in curves.groups(many.strategies)}
    assert actual["core"] == ("baseline", "joint", "separate", "branch-wise", "two-stage", "mine")
    assert actual["hybrid"] == ("joint", "branch-wise", "joint-branch")


def test_values_that_are_no_numbers_are_not_drawn() -> None:
    diverged = Run("all", {k: [1.0, math.nan, math.inf] for k in (1, 2, 3)})
    loss = curves.by_exit(evidence([HandTrial("joint", 1, [diverged])]).runs[0])[0]
    assert "Infinity" not in text(loss.spec) and "NaN" not in text(loss.spec)


def test_exits_are_drawn_at_their_accuracy_and_macs() -> None:
    right = {1: [True, False, False, False], 2: [True, True, False, False], 3: [True] * 4}
    whole = evidence([simple("joint", 1, right=right)])
    points = compute.exit_points(whole.runs[0])
    assert points["value"].tolist() == [25.0, 50.0, 100.0]
    assert points["macs"].tolist() == [100 * m / PLAIN for m in MACS]
    figure = compute.accuracy_compute(whole.runs[0])[0]
    drawn = with_columns(dict(figure.spec), "strategy", "exit", "macs", "value")[0]
    assert drawn["value"].tolist() == [25, 50, 100] and drawn["macs"].tolist() == [20, 60, 120]


def test_thresholds_trace_a_curve_from_the_first_exit_to_the_last() -> None:
    right = {1: [True, True, False, False], 2: [True, False, False, False], 3: [True, True, True, False]}
    whole = evidence([simple("joint", 1, right=right, sure=0.9)])
    curve = compute.threshold_points(whole.runs[0])
    first, last = curve.iloc[0], curve.iloc[-1]
    assert (first["macs"], first["value"]) == (100 * MACS[0] / PLAIN, 50.0)
    assert (last["macs"], last["value"]) == (100 * MACS[-1] / PLAIN, 75.0)
    at = curve.set_index("threshold")["value"]
    assert at["0.85"] == 50.0 and at["0.92"] == 75.0  # everyone is 0.9 sure: all leave, or none


def test_the_front_holds_what_nothing_beats() -> None:
    values = [10.0, 30.0, 20.0, 25.0, 30.0, 40.0]
    macs = [1.0, 2.0, 2.0, 3.0, 4.0, 5.0]
    points = pd.DataFrame({"strategy": "a", "macs": macs, "value": values})
    best = compute.envelope(points, points.head(0))
    on = compute.on_front(points, best)
    assert on[["macs", "value"]].to_numpy().tolist() == [[1, 10], [2, 30], [5, 40]]
    curve = pd.DataFrame({"strategy": "a", "macs": [1.0, 4.0], "value": [20.0, 40.0]})
    both = compute.envelope(points, curve)
    on = compute.on_front(pd.concat([points, curve]), both)
    assert on[["macs", "value"]].to_numpy().tolist() == [[1, 20], [2, 30], [4, 40]]  # 2: on the line


def test_the_front_lies_below_no_curve_that_is_drawn(many: Evidence) -> None:
    (figure,) = compute.accuracy_compute(many.runs[0])
    (best,) = with_columns(dict(figure.spec), "macs", "value")
    (curve,) = with_columns(dict(figure.spec), "strategy", "threshold", "at", "macs", "value")
    at = np.linspace(np.log(curve["macs"].min()), np.log(curve["macs"].max()), 1000)
    highest = np.interp(at, np.log(best["macs"]), best["value"])
    for _, line in curve.groupby("strategy"):
        drawn = np.interp(at, np.log(line["macs"]), line["value"], left=0, right=0)
        assert (drawn <= highest + 0.1).all()  # data have four digits
    assert best["value"].is_monotonic_increasing
    assert (np.diff(highest) > 0).any()
    points = next(v for v in views(dict(figure.spec)) if v["mark"]["type"] == "point")
    assert points["encoding"]["color"]["scale"]["domain"][-1] == compute.FRONT


def test_the_axis_of_accuracy_ends_at_all() -> None:
    right = {1: [True, False, False, False], 2: [True, True, False, False], 3: [True] * 4}
    joint = [simple("joint", seed, right=right) for seed in (1, 2, 3)]
    (figure,) = compute.accuracy_compute(evidence(joint).runs[0])
    vega: Any = vl_convert.vegalite_to_vega(text(themed(figure.spec)), vl_version="6.4")
    (scale,) = [scale for scale in vega["scales"] if scale["name"] == "y"]
    assert 0 < scale["domain"][0] < 25 and scale["domain"][1] == 100


@pytest.mark.parametrize("whole", [False, *long(True)], ids=["one of a kind", "all"])
def test_charts_are_drawn_without_a_warning_of_legends(
    every: DrawnFigures, capfd: pytest.CaptureFixture[str], whole: bool
) -> None:
    def warnings_of(spec: Mapping[str, Any]) -> str:
        vl_convert.vegalite_to_vega(text(themed(spec)), vl_version="6.4", show_warnings=True)
        return "".join(capfd.readouterr())

    kinds = {figure.name.partition("-")[0]: figure for figure in every.figures}
    for figure in every.figures if whole else kinds.values():
        assert "legend" not in warnings_of(figure.spec), figure.name
    seen, hidden = color("ab"), {**color("ab"), "legend": None}
    frame = pd.DataFrame({"strategy": ["a", "b"]})
    layers = [
        marks(frame, {"type": "point"}, color=seen),
        marks(frame, {"type": "area"}, fill=hidden),
    ]
    assert "Conflicting legend property" in warnings_of(spec({"layer": layers}))


def test_overthinking_counts_what_the_last_exit_spoils() -> None:
    yes, no = True, False
    right = {1: [yes, yes, no, no, no], 2: [yes, no, yes, no, no], 3: [yes, no, no, yes, no]}
    whole = evidence([simple("joint", 1, right=right)])
    outcome = next(iter(whole.outcomes.values()))
    assert outcome.overthought == (0.2, 0.2, 0.0) and outcome.lost == pytest.approx(0.4)
    assert outcome.agreement[0].tolist() == pytest.approx([1.0, 0.6, 0.6])
    visible = tables(dict(dots.overthinking(whole.runs[0])[0].spec))
    means = [t for t in visible if list(t.columns)[:3] == ["strategy", "value", "n"]]
    assert sorted(t["value"].iloc[0] for t in means) == [
        20,
        40,
    ]  # exits 1 and 2 have equal data, which are kept once
    matrix = reliability.agreement_matrix(whole.runs[0], "joint")
    assert matrix.to_numpy().tolist() == [[2, 1, 60.0], [3, 1, 60.0], [3, 2, 60.0]]


def test_reliability_pools_the_seeds_and_leaves_out_thin_bins() -> None:
    right = {k: [True] * 6 + [False] * 2 for k in (1, 2, 3)}
    both = [simple("joint", s, right=right, sure=0.9) for s in (1, 2)]
    actual = reliability.reliability_bins(evidence(both).runs[0])
    assert actual["images"].tolist() == [16] * 3
    assert actual["confidence"].tolist() == pytest.approx([90.0] * 3)
    assert actual["value"].tolist() == [75.0] * 3
    assert reliability.reliability_bins(evidence(both[:1]).runs[0]).empty  # eight images
    drawn = draw(evidence(both[:1]), ["reliability"])
    assert not drawn.figures and drawn.missing[0].endswith("few test images")


def test_one_early_exit_has_its_agreement_with_the_last() -> None:
    runs = [Run("all", {2: [2.0, 1.0], 3: [2.0, 1.0]})]
    right = {2: (True, True, False, False), 3: (True, True, True, False)}
    drawn_figures = draw(
        evidence([HandTrial("joint", 1, runs, exits=(2, 3), right=right)]), ["agreement"]
    )
    assert not drawn_figures.missing
    (figure,) = drawn_figures.figures
    assert "joint 75 %" in figure.alt and "3,2,75" in str(figure.spec)


def test_each_exit_has_its_row_where_confidence_tells_nothing() -> None:
    """Where all answers are wrong, or all right, the place at the right is empty."""
    right = {1: [False] * 4, 2: [True, True, False, True], 3: [True] * 4}
    trials = [replace(simple(s, seed), right=right) for s in ("a", "b") for seed in (1, 2)]
    (figure,) = dots.confidence(evidence(trials).runs[0])
    rows = [
        [(panel["title"][:6], panel["layer"][0]["encoding"]["x"]["title"]) for panel in row["hconcat"]]
        for row in figure.spec["vconcat"]
    ]
    assert rows == [[(f"exit {k}", "ECE, %"), (f"exit {k}", "AUROC of correctness")] for k in (1, 2, 3)]
    assert figure.alt.count("AUROC") == 1


def test_calibration_error_and_auroc_of_known_answers() -> None:
    right = {k: [True, True, True, False] for k in (1, 2, 3)}
    whole = evidence([simple("joint", 1, right=right, sure=0.9)])
    outcome = next(iter(whole.outcomes.values()))
    assert outcome.ece == pytest.approx([0.15] * 3) and outcome.auroc == (0.5, 0.5, 0.5)
    visible = tables(dict(dots.confidence(whole.runs[0])[0].spec))
    assert [t["value"].iloc[0] for t in visible] in ([15, 0.5], [0.5, 15])


def test_time_of_an_exit_is_that_of_the_phases_that_train_it() -> None:
    runs = [Run("joint", {1: [1.0], 2: [1.0], 3: [1.0]}, seconds=6.0), Run("b", {1: [1.0]}, seconds=1.0)]
    whole = evidence([HandTrial("joint-branch", 1, runs)])
    # 10, 20 and 30 MACs are new at exits 1, 2 and 3.
    bars = times.exit_seconds(whole.runs[0])
    assert bars["exit"].tolist() == [1, 2, 3] and bars["seconds"].tolist() == pytest.approx([2, 2, 3])
    assert set(bars["how"]) == {"attributed or estimated"}
    assert whole.trials[0].seconds.written == pytest.approx(7.0)


def test_times_are_measured_where_every_phase_ran_alone() -> None:
    alone = [Run("exit 1", {1: [1.0]}, seconds=2.0), Run("exit 3", {3: [1.0]}, seconds=3.0)]
    shared = [Run("exit 1", {1: [1.0]}, seconds=2.0, comparable=False, written=300), alone[1]]
    exact = evidence([HandTrial("two-stage", 1, alone, exits=(1, 3))])
    bars = times.exit_seconds(exact.runs[0])[["exit", "seconds", "how"]]
    assert bars.to_numpy().tolist() == [[1, 2.0, "measured"], [3, 3.0, "measured"]]
    assert "Measured:" in draw(exact, ["time-total"]).figures[0].caption
    rough = evidence([HandTrial("two-stage", 1, shared, exits=(1, 3))])
    bars = times.exit_seconds(rough.runs[0])[["exit", "seconds", "how"]]
    first = [1, pytest.approx(2.0 + 200 * 0.02), "attributed or estimated"]
    assert bars.to_numpy().tolist() == [first, [3, 3.0, "measured"]]
    assert "Estimated (~)" in draw(rough, ["time-total"]).figures[0].caption
    assert "~ s" in text(draw(rough, ["time-total"]).figures[0].spec)
    assert "~" not in text(draw(exact, ["time-total"]).figures[0].spec)


def test_estimates_have_no_interval() -> None:
    def at(seed: int, alone: bool) -> HandTrial:
        run = Run("all", {k: [1.0] for k in (1, 2, 3)}, seconds=1.0 + seed, comparable=alone)
        return HandTrial("joint", seed, [run])

    for alone in (True, False):
        spec = draw(evidence([at(s, alone) for s in (1, 2, 3)]), ["time-total"]).figures[0].spec
        assert bool(with_columns(dict(spec), "strategy", "low", "high")) is alone


def test_bars_of_time_by_exit_show_the_spread_of_what_was_measured() -> None:
    def at(seed: int, alone: bool) -> HandTrial:
        runs = [Run(f"e{k}", {k: [1.0]}, seconds=seed + k, comparable=alone) for k in (1, 2, 3)]
        return HandTrial("separate", seed, runs)

    for alone in (True, False):
        figure = draw(evidence([at(s, alone) for s in (1, 2, 3)]), ["time-by-exit"]).figures[0]
        drawn = with_columns(dict(figure.spec), "strategy", "low", "high")
        seeds = with_columns(dict(figure.spec), "strategy", "seed", "value")
        assert bool(drawn) is bool(seeds) is alone
        if alone:
            assert seeds[0]["value"].tolist() == [9, 12, 15]
            mean = (drawn[0]["low"] + drawn[0]["high"]) / 2
            assert mean.tolist() == pytest.approx([12.0], rel=1e-3)
            assert "of the total" in figure.caption
        else:
            assert "without intervals" in figure.caption
    few = draw(evidence([at(s, True) for s in (1, 2)]), ["time-by-exit"]).figures[0]
    assert not with_columns(dict(few.spec), "strategy", "low", "high")
    assert "intervals" not in few.caption and "totals of seeds" in few.caption


def test_exits_have_intervals_over_three_seeds_or_more(many: Evidence) -> None:
    figure = compute.accuracy_compute(many.runs[0])[0]
    drawn = pd.concat(with_columns(dict(figure.spec), "strategy", "exit", "macs", "low", "high"))
    assert len(drawn) == 3 * (len(LABELS) - 1) + 1
    points = compute.exit_points(many.runs[0])
    mine = points[(points["strategy"] == "mine") & (points["exit"] == 2)]["value"]
    row = drawn[(drawn["strategy"] == "mine") & (drawn["exit"] == 2)].iloc[0]
    half = stats.t.ppf(0.975, 2) * mine.std() / np.sqrt(3)
    assert (row["low"], row["high"]) == pytest.approx((mine.mean() - half, mine.mean() + half), rel=1e-3)
    assert "95 % intervals" in figure.caption and "front ignores uncertainty" in figure.caption
    two = compute.accuracy_compute(evidence([t for t in at_random(LABELS) if t.seed < 3]).runs[0])[0]
    assert not with_columns(dict(two.spec), "strategy", "exit", "macs", "low", "high")
    assert "too few" in two.caption


def test_captions_say_how_many_seeds_each_mean_has() -> None:
    uneven = evidence([t for t in at_random(LABELS) if t.seed < 3 or t.label == "joint"]).runs[0]
    each = [compute.accuracy_compute, reliability.agreement, times.total, significance]
    assert all("2 to 3 seeds" in make(uneven)[0].caption for make in each)


def test_meters_are_drawn_where_there_are_any() -> None:
    def metered(label: str, memory: tuple[float, float], power: tuple[float, float]) -> HandTrial:
        runs = []
        for k, seconds, m, p in zip((1, 3), (0.5, 2.5), memory, power, strict=True):
            read = dict(zip(METERS, (m, p, 10.0), strict=True))
            runs.append(Run(f"exit {k}", {k: [1.0]}, seconds=seconds, meters=read))
        return HandTrial(label, 1, runs, exits=(1, 3))

    whole = evidence([metered("joint", (2e9, 5e9), (10.0, 20.0)), simple("separate", 1)])
    assert whole.runs[0].values(MEASURES["memory-cpu-max"])["value"].tolist() == [5e9]
    mean = whole.runs[0].values(MEASURES["power-cpu-mean"])["value"].tolist()
    # Half a second of evaluation each, in which no meter ran, has no weight.
    assert mean == [pytest.approx((0.5 * 10 + 2.5 * 20) / 3)]
    assert whole.runs[0].values(MEASURES["energy-cpu"])["value"].tolist() == [20.0]
    assert whole.runs[0].values(MEASURES["energy-gpu"]).empty
    figure = draw(whole, ["memory-power"]).figures[0]
    assert figure.paper == "Figs. 15, 16, 17" and "GB" in text(figure.spec)
    none = draw(evidence([simple("separate", 1)]), ["memory-power"])
    assert none.figures == () and "not measured" in none.missing[0]


def test_arrows_point_from_the_better_to_the_worse() -> None:
    from offramp.analysis.stats import Columns, analyze

    rows = [
        (label, seed, value + 0.01 * ((seed * 7 + i) % 5))
        for i, (label, value) in enumerate([("good", 90.0), ("bad", 80.0), ("fair", 80.0)])
        for seed in range(6)
    ]
    frame = pd.DataFrame(rows, columns=["strategy", "seed", "value"])
    analysis = analyze(frame, Columns("value", "strategy", "seed"))
    actual = {(e.winner, e.loser): e for e in edges(analysis, "higher")}
    assert set(actual) == {("good", "bad"), ("good", "fair")}
    assert actual["good", "bad"].difference == pytest.approx(10.0, abs=0.05)
    assert actual["good", "bad"].way == "both"
    assert {(e.winner, e.loser) for e in edges(analysis, "lower")} == {("bad", "good"), ("fair", "good")}


def test_strategies_that_read_the_same_phases_are_one_node() -> None:
    shared = [Run("all", {k: [1.0] for k in (1, 2, 3)}, key="shared")]
    whole = evidence([HandTrial(label, 1, shared) for label in ("joint", "separate")])
    for metric in (curves.LOSS, curves.ACCURACY):
        assert whole.runs[0].values(metric.measure)["source"].nunique() == 1
    figures = significance(whole.runs[0])
    assert "joint = separate" in text(figures[0].spec) and "identical" in figures[0].caption


def test_long_names_are_cut_where_a_chart_writes_them() -> None:
    """Whole, the names of nodes made a chart so wide that nothing in it could be read."""
    path = f"/{'folder/' * 12}file.py:"
    same = [Run("all", {k: [1.0] for k in (1, 2, 3)}, key="shared")]
    whole = evidence([HandTrial(path + label, 1, same) for label in ("one", "two")])
    for figure in (*significance(whole.runs[0]), curves.by_exit(whole.runs[0])[0]):
        svg = str(vl_convert.vegalite_to_svg(text(themed(figure.spec)), vl_version="6.4"))
        assert float(re.findall(r'width="([\d.]+)"', svg)[0]) < 2 * WIDTH
        assert all("…" in name for name in re.findall(r">([^<>]*file.py:one[^<>]*)</text>", svg))


def test_estimated_costs_have_no_arrows() -> None:
    """Of times that nobody measured; the same numbers, measured, differ."""
    measure = MEASURES["seconds-executed"]
    seconds = {"joint": (1.0, 1.1, 1.3), "separate": (9.0, 9.2, 9.1)}
    for comparable in (False, True):
        trials = [
            HandTrial(
                s, n, [Run("all", {k: [1.0] for k in (1, 2, 3)}, seconds=x, comparable=comparable)]
            )
            for s, each in seconds.items()
            for n, x in enumerate(each)
        ]
        (figure,) = significance(evidence(trials).runs[0], measure)
        assert ("separate beats" in figure.alt or "joint beats" in figure.alt) is comparable
        assert ("estimated, not tested" in figure.alt) is not comparable


def test_who_lacks_exits_is_in_no_graph_and_a_strategy_of_ones_own_is_in_one(many: Evidence) -> None:
    means = many.runs[0].values(curves.ACCURACY.measure)
    assert set(means["strategy"]) == set(LABELS) - {"baseline"}
    joint = means[means["strategy"] == "joint"]
    expected = [np.mean(t.manifest.metrics["test"].accuracy) for t in many.runs[0].of("joint")]
    assert joint["value"].tolist() == pytest.approx(expected)
    actual = {f.name: f for f in significance(many.runs[0])}
    named = [f"significance-{family}-{AT}" for family in ("core", "joint-branch", "all")]
    assert set(actual) == set(named)
    every = actual[f"significance-all-{AT}"]
    assert "mine (" in text(every.spec) and "baseline (" not in text(every.spec)
    assert "baseline lacks exits" in every.caption
    assert "mine" not in text(actual[f"significance-core-{AT}"].spec)
    assert graphs({"joint", "separate"}) == {"core": ("joint", "separate")}
    assert graphs({"mine", "yours"}) == {"all": ("mine", "yours")}
    assert graphs({"mine"}) == {}


def test_of_many_strategies_the_best_are_drawn_and_all_of_them_tested() -> None:
    """Of sixty there are 1770 arrows, which took hours to place."""
    trials = at_random([f"way {n}" for n in range(30)])
    runs = evidence(trials).runs[0]
    (figure,) = significance(runs)
    nodes = [set(table["first"]) for table in with_columns(dict(figure.spec), "first", "x", "y")]
    means = runs.values(curves.ACCURACY.measure).groupby("strategy")["value"].mean()
    best = [means[list(each)].min() >= means.drop(list(each)).max() for each in nodes]
    assert any(best) and {len(each) for each in nodes} == {MOST}  # of loss, all are alike
    assert f"the best {MOST} of 30" in figure.caption


def test_nodes_stand_apart_on_a_ring() -> None:
    for count in range(1, 10):
        places = list(ring([str(i) for i in range(count)]).values())
        assert all(math.dist(a, b) > 40 for i, a in enumerate(places) for b in places[:i])


def test_a_chart_without_data_is_no_figure(many: Evidence) -> None:
    runs = many.runs[0]
    words = ("a-chart", "answer", "A chart", "What it shows.", "A dot plot.")
    panel = dots.Panel("exit 1", "loss", runs.by_trial(lambda t: float(t.seed)))
    (visible,) = only(runs, *words, dots.dots([panel], runs.strategies))
    assert visible.name.startswith("a-chart")
    assert not only(runs, *words, dots.dots([], runs.strategies))


@pytest.mark.parametrize(
    ("label", "seeds"),
    [("mine", 1), ("baseline", 1), *long(("joint", 1), ("mine", 3), ("joint", 3), ("baseline", 3))],
)
def test_one_strategy_and_one_seed_are_enough(label: str, seeds: int) -> None:
    rest = [t for t in at_random(LABELS) if t.label == label and t.seed <= seeds]
    drawn = draw(evidence(rest))
    names = {f.name for f in drawn.figures}
    assert {f"accuracy-by-exit-{AT}", f"time-total-{AT}"} <= names
    for figure in drawn.figures:
        check(figure)


def test_every_figure_is_whole(every: DrawnFigures) -> None:
    schema = load_schema()
    names = [f.name for f in every.figures]
    assert len(set(names)) == len(names)
    assert set(every.missing) == {
        f"no figure {name} ({FIGURES[name].shows}): {why}" for name, why in LACKING.items()
    }
    for figure in every.figures:
        check(figure)
        validate_jsonschema(dict(figure.spec), {"$ref": "#/definitions/TopLevelSpec"}, schema)
    papers = " ".join(f.paper for f in every.figures) + FIGURES["memory-power"].paper
    for number_ in range(8, 21):
        assert re.search(rf"\b{number_}\b", papers), number_


def test_names_of_figures_differ_where_those_of_networks_do_in_signs_alone() -> None:
    """One name would be one file, and on the page one chart under both titles."""
    places = {"NET": "images", "net": "images", "Net": "images 2"}
    built = [simple("joint", seed, model=m, data=d) for m, d in places.items() for seed in (1, 2)]
    whole = evidence(built)
    names = [f.name for f in draw(whole, ["accuracy-compute"]).figures]
    assert names == [f"accuracy-compute-{AT}{end}" for end in ("", "-2", "-3")]
    assert first(whole, names) == names


def test_the_schema_refuses_what_vega_lite_does_not_know(many: Evidence) -> None:
    broken = json.loads(text(draw(many, ["time-total"]).figures[0].spec))
    next(views(broken))["mark"]["colour"] = "red"
    with pytest.raises(ValidationError):
        validate_jsonschema(broken, {"$ref": "#/definitions/TopLevelSpec"}, load_schema())


def test_layers_agree_whether_a_channel_has_a_legend(every: DrawnFigures) -> None:
    """Vega-Lite takes one legend a channel, warns of a second, and may drop both."""
    for figure in every.figures:
        assert disagreeing(figure.spec) == [], figure.name
    odd = {"layer": [{"encoding": {"color": {"legend": None}}}, {"encoding": {"color": {"legend": {}}}}]}
    assert disagreeing({"hconcat": [odd]}) == ["color"]


def disagreeing(spec: Any) -> list[str]:
    """The channels of layered views that have a legend in one layer and none in another."""
    if isinstance(spec, list):
        return [channel for child in spec for channel in disagreeing(child)]
    if not isinstance(spec, Mapping):
        return []
    actual: dict[str, set[bool]] = {}
    for layer in spec.get("layer", []):
        for channel, encoding in layer.get("encoding", {}).items():
            if isinstance(encoding, dict) and "legend" in encoding:
                actual.setdefault(channel, set()).add(encoding["legend"] is None)
    odd = [channel for channel, ways in actual.items() if len(ways) > 1]
    return odd + [channel for child in spec.values() for channel in disagreeing(child)]


def check(figure: Figure) -> None:
    assert re.fullmatch(r"[a-z0-9-]+", figure.name)
    assert figure.caption.endswith(".") and figure.title and figure.alt
    assert set(figure.about) >= {"model", "data"}
    assert "config" not in figure.spec
    assert all("encoding" in view for view in views(dict(figure.spec)))


def test_a_chart_of_speed_does_not_say_where_a_bundle_lies() -> None:
    lines = [
        Timing("onnxruntime", what, batch=1, p50=0.002, p95=0.003, rate=500.0, macs=1e6, repeats=9)
        for what in WHOLE
    ]
    drawn = speed_figure(lines, "/home/somebody/flowers")
    assert drawn.title == drawn.spec["title"]["text"] == "flowers"
    assert "somebody" not in text(drawn.spec)
    assert speed_figure(lines, "joint-net-s1").title == "joint-net-s1"


@pytest.mark.parametrize(
    "names",
    [("accuracy-by-exit", "accuracy-compute", "significance"), *long(((),))],
    ids=["some", "all"],
)
def test_order_of_trials_and_repetition_change_nothing(many: Evidence, names: tuple[str, ...]) -> None:
    mixed = at_random(LABELS)
    random.Random(1).shuffle(mixed)
    each_first, other = draw(many, names).figures, draw(evidence(mixed), names).figures
    assert len(each_first) >= 3
    assert [(f.name, f.caption, f.alt, text(f.spec)) for f in each_first] == [
        (f.name, f.caption, f.alt, text(f.spec)) for f in other
    ]


def test_a_strategy_has_one_color_in_every_figure(many: Evidence, every: DrawnFigures) -> None:
    reference = {label: style.color for label, style in styles(many.strategies).items()}
    for figure in every.figures:
        for view in views(dict(figure.spec)):
            for channel in ("color", "fill", "stroke"):
                scale = view["encoding"].get(channel, {}).get("scale", {})
                for label, look in zip(scale.get("domain", []), scale.get("range", []), strict=False):
                    if label in reference:
                        assert look == reference[label], (figure.name, label)


def test_the_dark_theme_changes_colors_and_no_data(many: Evidence) -> None:
    figure = draw(many, ["accuracy-by-exit"]).figures[0]
    both, light = both_colors(figure.spec), themed(figure.spec)
    assert both["datasets"] == light["datasets"] == figure.spec["datasets"]
    pair = f"light-dark({KNOWN['joint'].color}, {KNOWN['joint'].dark})"
    assert pair in text(both) and pair not in text(light)
    assert light["config"]["background"] == "transparent"


def test_an_unknown_figure_is_refused(many: Evidence, snapshot: SnapshotAssertion) -> None:
    assert refusal(draw, many, ["curvs"]) == snapshot


# Curves and means that are drawn


def test_an_exits_curve_joins_the_phases_that_trained_it() -> None:
    first = Run("joint", {1: [5.0, 4.0], 2: [6.0, 5.0], 3: [7.0, 6.0]})
    second = Run("branch 1", {1: [3.0, 2.0, 1.0]})
    actual = series.curves(evidence([HandTrial("joint-branch", 1, [first, second])]).runs[0])
    mine = actual[(actual["split"] == "validation") & (actual["metric"] == "cross_entropy")]
    assert mine[mine["exit"] == 1][["step", "value"]].to_numpy().tolist() == [
        *([1, 5.0], [2, 4.0], [3, 3.0], [4, 2.0], [5, 1.0])
    ]
    assert mine[mine["exit"] == 3]["value"].tolist() == [7.0, 6.0]
    train = actual[(actual["split"] == "train") & (actual["exit"] == 1)]
    assert train[train["metric"] == "cross_entropy"]["value"].tolist() == [2.5, 2.0, 1.5, 1.0, 0.5]


def test_the_mean_over_seeds_has_the_range_of_few_and_the_interval_of_many() -> None:
    few = pd.DataFrame({"k": "a", "seed": [1, 2, 3], "step": 1, "value": [1.0, 2.0, 6.0]})
    row = series.over_seeds(few, ["k"], 10).iloc[0]
    assert (row["low"], row["value"], row["high"]) == (1.0, 3.0, 6.0)
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 9.0]
    many = pd.DataFrame({"k": "a", "seed": range(6), "step": 1, "value": values})
    row = series.over_seeds(many, ["k"], 10).iloc[0]
    low, high = stats.t.interval(0.95, 5, np.mean(values), stats.sem(values))
    assert (row["low"], row["high"]) == pytest.approx((low, high))


def test_a_seed_that_stopped_early_is_held() -> None:
    rows = [(1, 1, 4.0), (1, 2, 2.0), (1, 3, 0.0), (2, 1, 6.0), (2, 2, 4.0)]
    frame = pd.DataFrame(rows, columns=["seed", "step", "value"]).assign(k="a")
    assert series.over_seeds(frame, ["k"], 10)["value"].tolist() == [5.0, 3.0, 2.0]


def test_a_long_curve_is_thinned_and_keeps_its_peaks() -> None:
    value = np.zeros(1000)
    value[501] = 50.0
    frame = pd.DataFrame({"k": "a", "seed": 1, "step": range(1, 1001), "value": value})
    drawn = series.over_seeds(frame, ["k"], 80)
    assert len(drawn) == 80 and drawn["step"].iloc[0] == 1 and drawn["step"].iloc[-1] == 1000
    assert drawn["high"].max() == 50.0
    assert len(series.over_seeds(frame, ["k"], 2000)) == 1000


def test_means_of_fewer_than_three_seeds_have_no_interval() -> None:
    two = pd.DataFrame({"strategy": "a", "seed": [1, 2], "value": [1.0, 3.0]})
    row = series.means(two, ["strategy"]).iloc[0]
    assert row["value"] == 2.0 and math.isnan(row["low"]) and math.isnan(row["high"])
    three = pd.DataFrame({"strategy": "a", "seed": [1, 2, 3], "value": [1.0, 3.0, 5.0]})
    row = series.means(three, ["strategy"]).iloc[0]
    assert (row["low"], row["high"]) == pytest.approx(stats.t.interval(0.95, 2, 3.0, 2 / 3**0.5))


# Colors, ticks and units


def test_styles_differ_in_more_than_color() -> None:
    actual = list(styles([*KNOWN, "mine", "yours"]).values())
    assert len({s.color for s in actual}) == len({s.dark for s in actual}) == 11
    assert len({(s.dash, s.shape) for s in actual}) == 11
    assert len({s.shape for s in KNOWN.values()}) == len({s.dash for s in KNOWN.values()}) == 9


def test_no_two_of_the_strategies_that_come_with_offramp_look_alike() -> None:
    actual = list(styles(STRATEGIES).values())
    assert len({(s.color, s.dash) for s in actual}) == len({(s.color, s.shape) for s in actual})
    assert len({(s.color, s.dash) for s in actual}) == len(STRATEGIES)
    assert styles(["mixed", "mine"])["mixed"] == styles(STRATEGIES)["mixed"], "alone as among others"


@pytest.mark.parametrize("dark", [False, True])
def test_colors_stand_out_from_the_page(dark: bool) -> None:
    page = 0.0 if dark else 1.0
    for label, style in KNOWN.items():
        ink = luminance(style.dark if dark else style.color)
        low, high = sorted((ink, page))
        assert (high + 0.05) / (low + 0.05) >= 3, label


def test_exits_have_colors_of_their_own() -> None:
    """The ninth had that of the first, on the page too."""
    colors = exit_color(range(1, 25))["scale"]["range"]
    reference = [*KNOWN.values(), *OTHERS]
    assert len({*colors, *(s.color for s in reference)}) == 24 + len(reference)
    assert len({DARK[color] for color in colors}) == 24
    for start in range(0, 24, 4):
        inks = [luminance(color) for color in colors[start : start + 4]]
        assert inks == sorted(inks, reverse=True)  # the deeper the darker, within a hue
        inks = [luminance(DARK[color]) for color in colors[start : start + 4]]
        assert inks == sorted(inks)


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_numbers_are_short() -> None:
    assert [short(v) for v in (0.123456, 1234567.0, 1e-7, 30.0, 0.0)] == [
        *("0.1235", "1.235e6", "1e-7", "30", "0")
    ]


def test_a_legend_of_many_has_two_columns_and_all_of_them() -> None:
    """Vega names thirty, and counts the others as one more."""
    legend = legend_of([f"joint-branch, rate 0.{k:03d}, long" for k in range(60)], "stroke")
    assert legend is not None and legend["columns"] == 2
    assert config()["legend"]["symbolLimit"] == 0


def test_of_many_lines_that_hide_others_a_few_are_named() -> None:
    words = hidden_text("one line", [[f"a{k}", f"b{k}"] for k in range(14)])
    assert words == "one line: a0 = b0; a1 = b1; a2 = b2; a3 = b3; a4 = b4; 9 more"


def test_a_legend_tells_long_names_apart() -> None:
    """Cascades end alike; of their last 32 letters nobody knew which line was which."""
    second = "width small, cut at group3.block.norm"
    legend = legend_of([f"width tiny then {second}", f"width tiny, cut at a then {second}"], "circle")
    assert legend and "> 32 " not in legend["labelExpr"] and legend["columns"] == 1
    usual = legend_of([f"{name}.py:{'x' * 40}{name}" for name in "ab"], "circle")
    assert usual and "> 32 " in usual["labelExpr"] and "labelLimit" not in usual


def test_ticks_of_a_logarithmic_axis() -> None:
    assert ticks(3.0, 200.0) == [5, 10, 20, 50, 100, 200]
    assert ticks(0.001, 1000.0) == [0.001, 0.01, 0.1, 1, 10, 100, 1000][:7]
    assert ticks(0.0, 1.0) == [] and ticks(1.0, 1.0) == []


def test_units_fit_the_largest_value() -> None:
    assert [unit(v, "s").name for v in (0.5, 90.0, 600.0, 9000.0)] == ["ms", "s", "min", "h"]
    assert unit(5e9, "MB").name == "GB" and unit(0.0, "J").name == "J"
