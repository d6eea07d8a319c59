"""Tables of made stores: planted effects, hand-computed values, and stores with too little in them."""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from handmade import HandTrial, Run
from handmade import evidence as phased
from scipy import stats
from syrupy.assertion import SnapshotAssertion
from table_evidence import TabledTrial, evidence, only, planted, shuffled, usual

from longer import long
from offramp.analysis.measures import MEASURES
from offramp.analysis.recommend import Preference, recommend
from offramp.analysis.stats.pairwise import ALPHA, Pair
from offramp.analysis.tradeoff import NetAnswers
from offramp.report.figures import draw
from offramp.report.model import Table
from offramp.report.render.cells import layout
from offramp.report.render.tables import csv, latex, markdown
from offramp.report.tables import TABLES, make
from offramp.report.tables.compute import regret
from records import changed
from wording import refusal

AT = "net-images"  # of the only network and data, at the end of names
METERS = {"memory_rss_peak_bytes": 2e9, "power_cpu_peak_w": 60.0, "power_cpu_mean_w": 50.0}
TIME = MEASURES["seconds-written"].title


def marked(table: Table, key: str) -> tuple[set[object], set[object]]:
    return {row for row, k in table.best if k == key}, {row for row, k in table.alike if k == key}


# The main table


def test_main_table_has_means_and_deviations() -> None:
    trials = [TabledTrial("joint", s, {1: a, 2: 0.8}) for s, a in ((1, 0.5), (2, 0.6), (3, 0.7))]
    row = only(evidence(trials), "main").frame.loc["joint"]
    assert row["exit_1"] == pytest.approx(0.6)
    assert row["exit_1_sd"] == pytest.approx(0.1)
    assert row["exit_2_sd"] == pytest.approx(0.0, abs=1e-12)
    assert row["seeds"] == 3
    assert row["written"] == 10.0
    # All are sure, so every image leaves at exit 1, for 10 of the plain network's 40 MACs.
    assert row["accuracy_at_0.95"] == pytest.approx(0.6)
    assert row["compute_at_0.95"] == pytest.approx(0.25)


def test_planted_effects_are_marked() -> None:
    table = only(usual(), "main")
    for exit in (1, 2, 3):
        best, alike = marked(table, f"exit_{exit}")
        assert best | alike == {"joint", "separate"}
        assert len(best) == 1
    texts = {row[0].text: row[1] for row in layout(table).rows}
    assert texts["two-stage"].mark == "" and texts["branch-wise"].mark == ""


def test_what_is_alike_says_what_would_have_been_found(snapshot: SnapshotAssertion) -> None:
    """That of the best and the others, whichever is larger; nothing where all differ. Without effects
    nothing is told apart from the best."""
    whole = evidence(planted(shift=dict.fromkeys(("joint", "separate", "two-stage"), 0.0)))
    main, exits = make(whole, ["main", "exits"])
    best, alike = marked(main, "exit_1")
    assert best | alike == {"joint", "separate", "two-stage"}
    powers = [[note for note in table.notes if "80 %" in note] for table in (main, exits)]
    assert powers == snapshot
    actual = whole.runs[0].analysis(MEASURES["accuracy-test"])
    assert actual is not None
    first = max(actual.means, key=lambda mean: mean.mean).group
    pairs = [p for p in actual.pairs if isinstance(p, Pair) and first in (p.a, p.b)]
    least = max(p.detectable or 0.0 for p in pairs if p.p >= ALPHA)
    assert f"differences of {100 * least:.1f} (overall), " in main.notes[-1]
    apart = planted(shift={"joint": 0.0, "separate": 0.1, "two-stage": 0.2})
    assert "80 %" not in " ".join(only(evidence(apart), "main").notes)


def test_what_is_identical_by_construction_is_best_together() -> None:
    trials = [
        replace(
            t, sources={3: f"backbone-{t.seed}"}, accuracy={1: 0.5 + t.seed / 1e3, 3: 0.9 - t.seed / 999}
        )
        if t.strategy in ("separate", "two-stage")
        else replace(t, accuracy={1: t.accuracy[1], 3: t.accuracy[3] - 0.3})
        for t in planted()
    ]
    whole = evidence(trials)
    best, _ = marked(only(whole, "main"), "exit_3")
    assert best == {"separate", "two-stage"}
    tables = {t.name: t for t in make(whole, ["pairs"])}
    final = tables[f"pairs-{AT}-exit-3"]
    assert "separate = two-stage" in {*final.frame["a"], *final.frame["b"]}
    assert "separate" not in {*final.frame["a"], *final.frame["b"]}
    assert any("identical by construction" in note for note in final.notes)
    first = tables[f"pairs-{AT}-exit-1"]  # other weights there, though equal numbers
    assert "separate" in {*first.frame["a"], *first.frame["b"]}


def test_who_is_better_in_all_seeds_that_both_have_is_the_best() -> None:
    """Seeds that one strategy alone has may lift its mean above that of a better one."""
    values = {"joint": (0.7, 0.72, 0.71, 0.8, 0.81), "separate": (0.705, 0.7251, 0.7149)}
    least = {"joint": (6, 7, 6, 7, 1), "separate": (4, 4, 4)}  # epoch of the least loss
    trials = [
        TabledTrial(name, seed, {1: value, 2: value}, [1 + abs(epoch - low) for epoch in range(1, 30)])
        for name, some in values.items()
        for seed, (value, low) in enumerate(zip(some, least[name], strict=True))
    ]
    trials += [
        TabledTrial("separate", seed, {1: 0.6, 2: 0.6}, [1 + abs(epoch - 25) for epoch in range(1, 30)])
        for seed in (5, 6)
    ]
    table, digest = make(evidence(trials), ["main", "epochs-digest"])
    assert table.frame.loc["joint", "exit_1"] > table.frame.loc["separate", "exit_1"]
    assert marked(table, "exit_1") == marked(table, "mean") == ({"separate"}, set())
    frame = digest.frame.set_index("measure")
    row = frame.loc[MEASURES["min-loss-epoch"].title]
    assert (row["best"], row["alike"], row["worst"]) == ("S 12.4", "–", "J 5.4")


# Statistics


def test_analysis_of_variance_is_that_of_the_means_over_exits() -> None:
    table = only(usual(), "anova")
    row = table.frame[table.frame["measure"] == "Test accuracy"].iloc[0]
    names = ("joint", "separate", "branch-wise", "two-stage")
    groups = [[np.mean(list(t.accuracy.values())) for t in planted() if t.strategy == s] for s in names]
    expected = stats.f_oneway(*groups)
    assert row["f"] == pytest.approx(expected.statistic)
    assert row["p"] == pytest.approx(expected.pvalue)
    assert row["df"] == "3, 16"
    assert row["p_seeds"] < row["p"]  # seeds share most of the variance here


def test_hybrids_are_compared_with_their_parents_only() -> None:
    shift = {"joint": 0.0, "branch-wise": 0.0, "separate": 0.0, "joint-branch": 0.05}
    frame = only(evidence(planted(shift=shift)), "anova-hybrids").frame
    assert set(frame["compared"]) == {"joint-branch"}
    assert set(frame["df"]) <= {"2, 12", "–"}


@pytest.mark.parametrize("own", [False, True], ids=["one test split", "own ones"])
def test_what_is_said_to_be_tested_over_is(own: bool) -> None:
    """Values of images line up only where all seeds answered the same ones."""
    whole = evidence(planted())
    if own:
        drawn = (changed(t, "manifest.data", test=f"of seed {t.seed}") for t in whole.trials)
        whole = replace(whole, trials=tuple(drawn))
    (runs,) = whole.runs
    assert (runs.images(MEASURES["accuracy-test"]) is None) is own
    shown = [*make(whole, ["main", "equal", "pairs"]), *draw(whole, ["significance"]).figures]
    assert {item.name.partition("-")[0] for item in shown} == {"main", "equal", "pairs", "significance"}
    assert [item.name for item in shown if ("and test images" in item.caption) is own] == []


def test_order_agrees_with_the_pairs() -> None:
    orders = only(usual(), "order-accuracy")
    row = orders.frame[orders.frame["measure"] == "Test accuracy"].iloc[0]
    assert sorted(row["seeds"].split(" >> ")[0].split(" ≈ ")) == ["J", "S"]
    assert row["seeds"].split(" >> ")[1:] == ["B", "T"]
    names = {"J": "joint", "S": "separate", "B": "branch-wise", "T": "two-stage"}
    (pairs,) = (t for t in make(usual(), ["pairs"]) if t.name.endswith("overall"))
    actual = {frozenset((r["a"], r["b"])): r for _, r in pairs.frame.iterrows()}
    groups = [part.split(" ≈ ") for part in row["seeds"].split(" >> ")]
    for left, right in pairwise(groups):
        for a in left:
            for b in right:
                pair = actual[frozenset((names[a], names[b]))]
                assert pair["p"] < 0.001
                assert (pair["difference"] > 0) == (pair["a"] == names[a])
    for group in groups:
        for a in group:
            assert all(a == b or actual[frozenset((names[a], names[b]))]["p"] >= 0.05 for b in group)


def test_captions_tell_the_direction_and_the_assumptions() -> None:
    families = ["order-accuracy", "order-loss", "order-costs", "anova", "tests"]
    actual = {t.name: t for t in make(usual(), families)}
    assert "higher (better)" in actual["order-accuracy"].caption
    assert "higher (worse)" in actual["order-loss"].caption
    assert "higher (worse)" in actual["order-costs"].caption
    assert "independent" in actual["anova"].caption
    assert TABLES["order-accuracy"].paper == TABLES["order-loss"].paper == "Fig. 11"
    assert "belong together" in actual["tests-net-images"].caption
    assert "joint" in actual["order-costs"].caption and "J = joint" in actual["order-costs"].caption


def test_tukey_has_a_floor() -> None:
    shift = {"joint": 0.3, "separate": -0.3, "two-stage": 0.0}
    generator = np.random.default_rng(1)
    trials = [
        replace(t, accuracy={1: 0.5 + shift[t.strategy] + 1e-9 * generator.normal()})
        for t in planted(shift=shift)
    ]
    table = only(evidence(trials), "pairs-one-way")
    texts = {row[6].text for row in layout(table).rows}
    assert "< 1e-12" in texts


# Costs


def test_measured_costs_are_tested_and_estimates_never() -> None:
    times = {"joint": 30.0, "separate": 20.0, "branch-wise": 10.0, "two-stage": 5.0}
    trials = [
        replace(t, seconds=times[t.strategy] + t.seed / 10 + len(t.strategy) % 3 / 7 * (t.seed % 2))
        for t in planted()
    ]
    table, order = make(evidence(trials), ["anova-costs", "order-costs"])
    row = table.frame.iloc[0]
    assert row["measure"] == TIME
    assert row["p"] < 1e-10
    assert order.frame.iloc[0]["tukey"] == "J >> S >> B >> T"
    spoiled = evidence([replace(trials[0], measured=False), *trials[1:]])
    table, order = make(spoiled, ["anova-costs", "order-costs"])
    assert table.frame.iloc[0]["p"] == "estimated, not tested"
    assert table.frame.iloc[0]["f"] is None
    assert any("estimated, not tested" in note for note in table.notes)
    assert order.frame.iloc[0]["tukey"] == "estimated, not tested"


def test_meters_come_in_where_there_are_some() -> None:
    trials = [
        replace(t, meters={"power_cpu_mean_w": 50.0 + t.seed + len(t.strategy) % 5}) for t in planted()
    ]
    whole = evidence(trials)
    (costs,), (exits,) = make(whole, ["anova-costs"]), make(whole, ["exits"])
    assert "CPU power, mean" in set(costs.frame["measure"])
    assert "CPU power" not in " ".join(exits.notes)
    assert "GPU power" in " ".join(exits.notes)
    assert exits.frame.loc["joint", "power-cpu-mean"] == pytest.approx(50 + 44 + 0)


def test_memory_is_shown_added_up_first_then_the_largest_phase(snapshot: SnapshotAssertion) -> None:
    trials = [replace(t, meters={k: v + t.seed for k, v in METERS.items()}) for t in planted()]
    for table in make(evidence(trials), ["anova-costs", "order-costs"]):
        assert list(dict.fromkeys(table.frame["measure"])) == snapshot
        assert re.findall(r"[^.;]*sum over phases[^.;]*", table.caption) == snapshot


def test_time_of_an_exit_is_tested_among_those_whose_time_was_measured() -> None:
    def at(strategy: str, seed: int, longer: float) -> HandTrial:
        whole = {k: [1.0, 0.5] for k in (1, 2, 3)}
        luck = (seed * 7 + len(strategy)) % 5 / 10
        if strategy == "joint":  # one phase for all exits: its time at an exit is attributed
            thirds = dict.fromkeys(whole, 1 / 3)
            return HandTrial(strategy, seed, [Run("all", whole, seconds=9.0 + luck, shares=thirds)])
        runs = [Run(f"e{k}", {k: whole[k]}, seconds=k + longer + luck) for k in whole]
        return HandTrial(strategy, seed, runs)

    trials = [
        at(s, seed, longer)
        for s, longer in (("joint", 0.0), ("separate", 5.0), ("two-stage", 0.0))
        for seed in (1, 2, 3, 4)
    ]
    both = make(phased(trials), ["tests", "tests-one-way"])
    assert len(both) == 2
    for table in both:
        rows = table.frame[table.frame["measure"] == TIME].set_index("exit")
        assert list(rows.index) == ["overall", "exit 1", "exit 2", "final"]
        assert rows.loc["exit 1", "p"] < 0.01
        assert any("estimate: joint" in note for note in table.notes)
    spoiled = [replace(t, runs=[replace(r, comparable=False) for r in t.runs]) for t in trials]
    (table,) = make(phased(spoiled), ["tests"])
    rows = table.frame[table.frame["measure"] == TIME]
    assert list(rows["exit"]) == ["overall"] and list(rows["p"]) == ["estimated, not tested"]


# Too little


def test_one_seed_marks_the_best_mean_and_says_that_nothing_was_tested() -> None:
    table, anova = make(evidence(planted(seeds=1)), ["main", "anova"])
    best, alike = marked(table, "exit_1")
    assert len(best) == 1 and not alike
    assert any("no test" in note for note in table.notes)
    row = anova.frame.iloc[0]
    assert row["p"] == "not tested" and row["p_seeds"] == "not tested"


def test_a_strategy_that_misses_a_seed_is_named(snapshot: SnapshotAssertion) -> None:
    trials = [t for t in planted() if (t.strategy, t.seed) != ("two-stage", 44)]
    main, anova = make(evidence(trials), ["main", "anova"])
    assert [note for note in anova.notes if "seed 44" in note] == snapshot
    assert main.frame.loc["two-stage", "seeds"] == 4


def test_a_strategy_with_one_seed_stays_unmarked_and_is_named(snapshot: SnapshotAssertion) -> None:
    trials = [t for t in planted() if t.strategy != "two-stage" or t.seed == 42]
    main, exits, order = make(evidence(trials), ["main", "exits", "order-accuracy"])
    for table in (main, exits):
        assert "two-stage" not in {row for row, _ in table.best | table.alike}
    named = [[note for note in t.notes if "two-stage" in note] for t in (main, exits, order)]
    assert named == snapshot
    assert "against the best" not in " ".join(only(usual(), "main").notes)


def test_a_missing_number_is_left_out_and_named() -> None:
    trials = planted()
    trials[0] = replace(trials[0], accuracy={**trials[0].accuracy, 2: float("nan")})
    assert any("joint" in note for note in only(evidence(trials), "anova").notes)


def test_constant_groups_give_no_infinite_f() -> None:
    means = {"joint": 0.5, "separate": 0.7}
    trials = [TabledTrial(s, seed, {1: a, 2: a}) for s, a in means.items() for seed in (1, 2, 3)]
    main, anova = make(evidence(trials), ["main", "anova"])
    assert set(anova.frame["p"]) == {"not tested"}
    assert not np.isinf(anova.frame["f"].astype(float)).any()
    assert any("nothing to measure" in note for note in anova.notes)
    best, alike = marked(main, "exit_1")
    assert best == {"separate"} and not alike


@pytest.mark.parametrize(
    "trials",
    [
        [],
        *long(
            planted(seeds=1)[:1],
            planted(shift={"joint": 0.0, "two-stage": 0.1}),
            planted(shift={"my own": 0.0, "another": 0.1}),
        ),
        [TabledTrial("baseline", 1, {4: 0.9})],
        *long([TabledTrial("baseline", s, {4: 0.9 + s / 100}) for s in (1, 2)] + planted(exits=4)),
        [
            *planted(3, 2, {"joint": 0.0, "two-stage": 0.1}),
            *(replace(t, data="other") for t in planted(1, 2, {"joint": 0.0, "two-stage": 0.1})),
        ],
        [
            TabledTrial("joint", 1, {1: float("nan"), 2: 0.5}, loss=(1.0,)),
            TabledTrial("joint", 2, {1: 0.4, 2: 0.5}, loss=(1.0,)),
        ],
        *long([TabledTrial(s, 1, {1: 0.5, 2: 0.6}, loss=(1.0,)) for s in ("joint", "two-stage")]),
    ],
    ids=["empty", "one trial", "two", "own", "baseline", "with it", "partly", "nan", "one epoch"],
)
def test_partial_stores_give_tables_that_can_be_written(trials: list[TabledTrial]) -> None:
    tables = make(evidence(trials))
    assert bool(tables) == bool(trials)
    assert len({table.name for table in tables}) == len(tables)
    for table in tables:
        assert re.fullmatch(r"[a-z0-9-]+", table.name)
        text = markdown(table) + latex(table) + csv(table)
        assert "nan" not in text.lower().replace("finance", ""), table.name
        assert " inf" not in text


# The same store, the same bytes


@pytest.mark.parametrize("only", [("main", "pairs"), *long(((),))], ids=["some", "all"])
def test_order_of_seeds_and_trials_does_not_matter(only: tuple[str, ...]) -> None:
    other_net = planted(seeds=3, exits=2, shift={"joint": 0, "two-stage": 0.1})
    trials = planted(seeds=3, exits=2) + planted(seeds=3, exits=2, shift={"joint-branch": 0.1})
    trials += [replace(t, model="a") for t in other_net]
    trials = [replace(t, measured=t.model == "a", loss=(1.0, 0.9 + t.seed / 1e4, 0.8)) for t in trials]
    whole = evidence(trials)

    def written(tables: tuple[Table, ...]) -> list[str]:
        return [render(t) for t in tables for render in (markdown, latex, csv)]

    first = written(make(whole, only))
    assert written(make(evidence(trials), only)) == first
    assert written(make(shuffled(whole), only)) == first
    other = [replace(trials[0], accuracy={1: 0.1, 2: 0.1}), *trials[1:]]
    assert written(make(evidence(other), ["main"])) != written(make(whole, ["main"]))  # it does look


def test_names_of_files_are_plain_and_differ() -> None:
    trials = [replace(t, model=model) for model in ("net", "NET", "a/b_c") for t in planted(2, 2)]
    names = [t.name for t in make(evidence(trials), ["main", "exits", "pairs"])]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)
    assert "main-a-b-c-images" in names and "main-net-images-2" in names


def test_an_unknown_table_is_refused_with_the_nearest_name(snapshot: SnapshotAssertion) -> None:
    assert refusal(make, usual(), ["manic"]) == snapshot
    assert next(iter(TABLES)) == "main"


# Where images leave, and over networks and data sets


def test_leaving_early_in_a_few_numbers() -> None:
    """All answers are equally sure, so AURC is the share of mistakes, and all images leave at exit 1."""
    trials = [
        TabledTrial(n, s, {1: 0.6, 2: 0.7, 3: 0.8}) for n in ("joint", "separate") for s in (1, 2, 3)
    ]
    frame = only(evidence([*trials, TabledTrial("baseline", 1, {3: 0.8})]), "leaving").frame
    row = frame.loc["joint"]
    assert row["aurc_1"] == pytest.approx(400) and row["aurc_3"] == pytest.approx(200)
    # The best choice: 0.6 leave at exit 1, 0.1 at exit 2, the rest at the last.
    assert row["best"] == pytest.approx(0.8) and row["regret"] > 0
    assert 0.6 < row["area"] < 0.8 and row["area_sd"] == pytest.approx(0)
    assert "baseline" not in frame.index
    assert not make(evidence([TabledTrial("baseline", 1, {3: 0.8})]), ["leaving"])


def test_interquartile_means_over_data_sets() -> None:
    trials = [
        TabledTrial(name, s, {1: 0.5 + s / 100, 2: level + s / 100}, data=data)
        for name, data in (("joint", "a"), ("joint", "b"), ("separate", "a"))
        for level in [0.7 if data == "a" else 0.9]
        for s in (1, 2, 3)
    ]
    table = only(evidence(trials), "overall")
    assert table.paper == TABLES["overall"].paper == ""  # the figure of that name answers to two
    assert list(table.frame.index) == ["joint"]  # who is not everywhere is left out
    row = table.frame.loc["joint"]
    finals = sorted([0.71, 0.72, 0.73, 0.91, 0.92, 0.93])
    assert row["final"] == pytest.approx(np.mean(finals[1:-1])) and row["runs"] == 6
    assert row["final_low"] < row["final"] < row["final_high"]
    assert not make(evidence([t for t in trials if t.data == "a"]), ["overall"])


def test_of_one_test_image_pairs_are_tested_over_seeds() -> None:
    """It says nothing of how much images vary."""
    runs, seeds = [Run("all", {k: [2.0, 1.0] for k in (1, 2, 3)})], (1, 2, 3)
    right = {"joint": {k: [True] for k in (1, 2, 3)}, "separate": {k: [k > 1] for k in (1, 2, 3)}}
    whole = phased([HandTrial(name, s, runs, right=r) for name, r in right.items() for s in seeds])
    analysis = whole.runs[0].analysis(MEASURES["accuracy-test"])
    assert analysis is not None and analysis.default == "over blocks"
    assert make(whole, ["main", "pairs", "equal"])
    assert recommend(whole.facts, Preference("accuracy"))
    assert recommend(whole.facts, Preference("latency"))


def test_at_equal_compute_who_was_not_tested_is_not_marked(snapshot: SnapshotAssertion) -> None:
    right = {n: {k: [i < n for i in range(100)] for k in (1, 2, 3)} for n in (60, 61, 90)}
    runs = [Run("all", {k: [2.0, 1.0] for k in (1, 2, 3)})]
    seeds = [(n, s) for n, some in ((60, (1, 2, 3)), (90, (4, 5, 6))) for s in some]
    trials = [HandTrial("joint" if n == 60 else "separate", s, runs, right=right[n]) for n, s in seeds]
    trials += [HandTrial("two-stage", s, runs, right=right[61]) for s in (1, 2, 3)]
    (table,) = make(phased(trials), ["equal"])
    assert {name for name, _ in table.best} == {"separate"} and not table.alike
    assert table.notes[0] == snapshot


def test_captions_end_in_a_sentence_where_no_strategy_has_a_letter() -> None:
    trials = [
        TabledTrial(n, s, {1: 0.5 + s / 100, 2: 0.6}) for n in ("mine", "yours") for s in (1, 2, 3)
    ]
    families = ["order-accuracy", "order-loss", "order-costs", "epochs-digest"]
    for table in make(evidence(trials), families):
        assert " ." not in table.caption and "  " not in table.caption


def test_the_baseline_may_be_all_that_data_sets_share() -> None:
    trials = [TabledTrial("baseline", s, {2: 0.8}, data=data) for data in "ab" for s in (1, 2, 3)]
    trials += [
        TabledTrial(n, s, {1: 0.5, 2: 0.7}, data=d)
        for n, d in (("joint", "a"), ("separate", "b"))
        for s in (1, 2, 3)
    ]
    (row,) = layout(only(evidence(trials), "overall")).rows
    assert [cell.text for cell in row[:5]] == ["baseline", "–", "–", "–", "80.0"]


def test_regret_is_to_the_first_exit_that_is_right() -> None:
    right = np.array(
        [[True, True, True], [False, True, True], [False, False, False], [True, False, False]]
    )
    sure = np.array([[0.9, 0.9, 1], [0.5, 0.9, 1], [0.4, 0.5, 1], [0.3, 0.9, 1]])
    actual = NetAnswers(sure, right, (1.0, 2.0, 4.0))
    best, lost = regret(actual)
    assert (best.accuracy, best.macs) == (0.75, (1 + 2 + 4 + 1) / 4)
    assert lost == pytest.approx(0.75 - float(actual.accuracy(2.0))) and lost > 0
    # Scores that know what is right have none.
    knowing = NetAnswers(right * 1.0 + [0, 0, 1], right, (1.0, 2.0, 4.0))
    assert regret(knowing)[1] == pytest.approx(0)
