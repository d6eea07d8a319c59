"""What trials come to: seconds, the results table, the tidy table."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

import records
from offramp.policy.quality import at_thresholds
from offramp.store.archive import Records
from offramp.store.manifest import Cost
from offramp.store.record import Seconds, made_with, read, seconds
from offramp.store.store import Store
from offramp.store.table import COLUMNS, THRESHOLDS, Spread, StrategyResult, by_strategy, tidy
from offramp.study.plan.plan import Plan
from support import run_all, tiny_plan, tiny_study

STRATEGIES = ["two-stage", "baseline", "joint", "joint-branch", "separate"]
Finished = tuple[Plan, Store]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    plan = tiny_plan(tiny_study(STRATEGIES, seeds=(42, 43), recipe={"epochs": 1}))
    return plan, run_all(plan, tmp_path_factory.mktemp("store"))[0]


def ids(plan: Plan) -> list[str]:
    return [t.id for t in plan.trials]


def seconds_of(store: Store, trial: str) -> Seconds:
    return read(store, trial, store.read_trial(trial)).seconds


def spent(store: Store, keys: Any) -> float:
    return sum(sum(store.node_cost(key).seconds.values()) for key in keys)


def as_written(store: Store, key: str) -> float:
    """Seconds of a node without what the paper does not do."""
    kinds = store.node_cost(key).seconds
    return float(sum(kinds[kind] for kind in ("preparation", "train", "validation", "data")))


def by_label(plan: Plan, store: Store) -> dict[str, StrategyResult]:
    return {line.strategy: line for line in by_strategy(store, ids(plan))}


def test_a_line_a_strategy_in_the_order_of_the_study(done: Finished) -> None:
    plan, store = done
    lines = by_strategy(store, ids(plan))
    assert [line.strategy for line in lines] == STRATEGIES
    assert all(line.seeds == (42, 43) for line in lines)
    for line in lines:
        exits = [4] if line.strategy == "baseline" else [1, 2, 3, 4]
        assert list(line.accuracy) == exits and list(line.thresholds) == list(THRESHOLDS)


def test_plain_networks_of_one_name_have_lines_of_their_own(done: Finished) -> None:
    """Another backbone's final exit, whatever its number, stands in the column of the host's."""
    plan, store = done
    host, plain = (next(t.id for t in plan.trials if t.label == name) for name in ("joint", "baseline"))
    manifest = store.read_trial(plain)
    network = manifest.network.model_copy(update={"backbone": "resnet20"})
    wide = network.model_copy(update={"options": (("width", 2),)})
    longer = manifest.recipe.model_copy(update={"epochs": 9})
    last = {"exits": (5,), "places": (*manifest.places, "final")}
    others = {
        "usual": {"network": network, **last},
        "longer": {"network": network, "recipe": longer, **last},
        "wide": {"network": wide, **last},
        "cut": {"exits": (2,)},
    }
    manifests = {name: manifest.model_copy(update=about) for name, about in others.items()}
    manifests[host] = store.read_trial(host)
    records = cast(
        Records,
        SimpleNamespace(
            read_trial=manifests.__getitem__,
            node_cost=store.node_cost,
            trial_logits=lambda trial: store.trial_logits(host if trial == host else plain),
        ),
    )
    lines = by_strategy(records, [host, *others])
    assert {line.strategy: list(line.accuracy) for line in lines} == {
        "joint": [1, 2, 3, 4],
        "resnet20": [4],
        "resnet20, 9 epochs": [4],
        "resnet20, width 2": [4],
        f"cut at {manifest.places[1]}": [2],
    }


def test_accuracies_are_means_over_seeds_with_the_sample_deviation(done: Finished) -> None:
    plan, store = done
    joint = by_label(plan, store)["joint"]
    tests = [store.read_trial(t.id).metrics["test"].accuracy for t in plan.trials if t.label == "joint"]
    for column, exit in enumerate((1, 2, 3, 4)):
        a, b = tests[0][column], tests[1][column]
        assert joint.accuracy[exit].mean == pytest.approx((a + b) / 2)
        assert joint.accuracy[exit].sd == pytest.approx(abs(a - b) / math.sqrt(2))


def test_thresholds_are_those_of_the_stored_logits(done: Finished) -> None:
    plan, store = done
    (first, second) = (t.id for t in plan.trials if t.label == "separate")
    points = []
    for trial in (first, second):
        arrays, manifest = store.trial_logits(trial), store.read_trial(trial)
        macs = (manifest.macs, manifest.backbone_macs)
        points.append(at_thresholds(arrays["test"], arrays["test_labels"], *macs, THRESHOLDS))
    thresholds = by_label(plan, store)["separate"].thresholds
    means = [[thresholds[threshold][k].mean for k in (0, 1)] for threshold in THRESHOLDS]
    np.testing.assert_allclose(means, np.mean(points, axis=0))


def test_the_plain_network_costs_itself_at_any_threshold(done: Finished) -> None:
    plan, store = done
    for _, compute in by_label(plan, store)["baseline"].thresholds.values():
        assert compute == Spread(1.0, 0.0)


def test_one_seed_has_no_deviation() -> None:
    assert Spread.of([0.5]).mean == 0.5 and math.isnan(Spread.of([0.5]).sd)


def test_marginal_times_add_up_to_what_the_study_took(done: Finished) -> None:
    plan, store = done
    total = spent(store, plan.nodes)
    trials = [seconds_of(store, t) for t in ids(plan)]
    assert sum(s.marginal for s in trials) == pytest.approx(total)
    lines = by_strategy(store, ids(plan))
    assert sum(line.seconds.marginal for line in lines) * 2 == pytest.approx(total)
    assert by_label(plan, store)["baseline"].seconds.marginal == 0  # two-stage came before it


def test_marginal_times_add_up_for_any_trials_of_a_store(done: Finished) -> None:
    """Also where the trials come in another order, or one that shares with others is missing."""
    plan, store = done
    some = [t for t in reversed(plan.trials) if t.label not in ("two-stage", "separate")]
    lines = {line.strategy: line for line in by_strategy(store, [t.id for t in some])}
    total = spent(store, {key for t in some for key in t.keys})
    assert sum(line.seconds.marginal for line in lines.values()) * 2 == pytest.approx(total)
    assert lines["baseline"].seconds.marginal > 0
    assert lines["joint"].seconds.marginal == 0  # joint-branch comes first now


def test_executed_time_is_of_all_that_a_trial_reads_and_written_is_in_full(done: Finished) -> None:
    plan, store = done
    for trial in plan.trials:
        times = seconds_of(store, trial.id)
        assert times.executed == pytest.approx(spent(store, trial.keys))
        assert times.executed >= times.marginal and not times.measured
        assert times.written >= sum(as_written(store, key) for key in trial.keys) - 1e-9
    two, _ = (t for t in plan.trials if t.label == "two-stage")
    times = seconds_of(store, two.id)
    costs = {key: store.node_cost(key) for key in two.keys}
    backbone = two.resolved.nodes[0].key  # the largest phase
    second_per_mac = as_written(store, backbone) / costs[backbone].macs_executed
    by_hand = sum(
        as_written(store, key) + (c.macs_written - c.macs_executed) * second_per_mac
        for key, c in costs.items()
    )
    assert times.written == pytest.approx(by_hand)
    ran = sum(as_written(store, key) for key in two.keys)
    assert ran < times.written_low < times.written < times.written_high
    assert times.written_low - ran == pytest.approx((times.written - ran) / 2)
    assert times.written_high - ran == pytest.approx(2 * (times.written - ran))


@pytest.mark.parametrize("speed", [0.55, 1.0, 1.5, 1.9])
def test_what_forward_passes_of_frozen_layers_would_have_taken_is_between_the_ends(speed: float) -> None:
    """Distillation: students, whose frozen layers and teacher were cached. speed: seconds of a GMAC
    there, where training the backbone takes 1."""

    def cost(train: float, executed: int, written: int) -> Cost:
        return Cost(
            seconds={"train": train}, macs_written=written, macs_executed=executed, comparable=False
        )

    giga = 10**9
    students = {str(i): cost(0.8, giga // 10, k * giga) for i, k in enumerate((6, 7, 9))}
    times = seconds({"backbone": cost(14.0, 14 * giga, 14 * giga), **students}, ())
    plain = 14.0 + sum(
        0.8 + speed * (c.macs_written - c.macs_executed) / giga for c in students.values()
    )
    assert times.written_low < plain < times.written_high


def test_plain_runs_are_measured_as_written(tmp_path: Path) -> None:
    plan = tiny_plan(tiny_study(["baseline", "two-stage"], execution="plain"))
    store, _ = run_all(plan, tmp_path)
    for line in by_strategy(store, ids(plan)):
        spent = line.seconds
        assert spent.measured
        assert spent.executed == pytest.approx(spent.marginal)
        (trial,) = (t for t in plan.trials if t.label == line.strategy)
        assert spent.written == pytest.approx(sum(as_written(store, key) for key in trial.keys))
        assert spent.written_low == spent.written == spent.written_high
        assert spent.written < spent.executed  # the closing evaluation is ours


def test_no_trials_are_no_lines_and_an_empty_table(done: Finished) -> None:
    _, store = done
    assert by_strategy(store, []) == []
    assert list(tidy(store, []).columns) == list(COLUMNS) and tidy(store, []).empty


# The tidy table.


def test_the_tidy_table_has_its_columns_and_no_missing_value(done: Finished) -> None:
    plan, store = done
    table = tidy(store, ids(plan))
    assert list(table.columns) == list(COLUMNS)
    for column in ("trial", "strategy", "model", "data", "seed", "phase", "metric", "value"):
        assert not table[column].isna().any(), column
    assert set(table["trial"]) == set(ids(plan)) and set(table["seed"]) == {42, 43}
    assert set(table["model"]) == {"digits-cnn"} and set(table["data"]) == {"custom"}
    assert not table.duplicated(list(COLUMNS[:-1])).any()


def test_the_baseline_has_only_the_final_exit(done: Finished) -> None:
    plan, store = done
    table = tidy(store, ids(plan))
    baseline = table[table["strategy"] == "baseline"]
    assert set(baseline["exit"].dropna()) == {4}
    assert set(table[table["strategy"] == "joint"]["exit"].dropna()) == {1, 2, 3, 4}


def test_histories_are_those_of_the_nodes(done: Finished) -> None:
    plan, store = done
    (trial, _) = (t for t in plan.trials if t.label == "joint-branch")
    table = tidy(store, [trial.id])
    for node in trial.resolved.nodes:
        rows = table[(table["phase"] == node.name) & table["epoch"].notna()]
        history = store.node_history(node.key)
        assert rows["value"].tolist() == history["value"].tolist()
        objective = rows[rows["exit"].isna()]
        assert set(objective["metric"]) == {"loss"}
        assert set(rows["exit"].dropna()) == set(node.exits)


def test_final_metrics_and_costs_stand_in_the_table(done: Finished) -> None:
    plan, store = done
    trial = plan.trials[0]
    table = tidy(store, [trial.id])
    final = table[table["phase"] == "final"]
    assert len(final) == 3 * 2 * 4 and final["epoch"].isna().all()
    metrics = store.read_trial(trial.id).metrics
    row = final[(final["split"] == "test") & (final["metric"] == "accuracy") & (final["exit"] == 2)]
    assert row["value"].item() == metrics["test"].accuracy[1]
    costs = table[table["split"].isna()]
    assert costs["epoch"].isna().all()
    by_exit = costs["metric"] == "exit_seconds"
    assert costs.loc[~by_exit, "exit"].isna().all()
    paper = seconds_of(store, trial.id).written
    assert costs.loc[by_exit, "value"].sum() <= paper + 1e-9
    assert sorted(costs.loc[by_exit, "exit"]) == [1, 2, 3, 4]
    assert (costs.loc[costs["metric"] == "memory_rss_peak_bytes", "value"] > 10**7).all()
    seconds = costs[costs["metric"].str.startswith("seconds_")]["value"].sum()
    assert seconds == pytest.approx(seconds_of(store, trial.id).executed)


def test_versions_are_told_in_their_order(tmp_path: Path) -> None:
    whole = records.manifest()
    versions = [f"2.{n}" for n in (5, 1, 9, 3, 7, 2, 8)]
    trials = [records.changed(whole, "provenance", torch=version) for version in versions]
    assert made_with(Store(tmp_path / "runs"), trials)["torch"] == sorted(versions)
