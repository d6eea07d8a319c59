"""Runs: the same bits, nothing repeated, failures, what is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from kit import (
    STRATEGIES,
    began,
    check_equal,
    check_sound,
    check_tidy,
    closed,
    conduct,
    failed,
    finish,
    hashes,
    locks_free,
    notes,
    reused,
    trained,
)
from running_kit import by_phase, small_plan
from syrupy.assertion import SnapshotAssertion

from longer import long
from offramp.data import Data, from_dataset, order
from offramp.engine import fit as engine_fit
from offramp.engine.cost import written_macs
from offramp.nets.network import inside
from offramp.store.store import Store
from offramp.study.run import trials
from offramp.study.run.events import Epoch, Event, Failed, Finished
from offramp.study.run.ledger import reason_of
from offramp.study.run.run import run
from support import run_all, tiny_data, tiny_plan, tiny_study

# The same study gives the same bits, and finished work is never repeated.


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, list[Event]]:
    """The store of STRATEGIES, to be read, and what happened."""
    return finish(tiny_plan(tiny_study(STRATEGIES)), tmp_path_factory.mktemp("ran"))


def test_the_same_study_in_two_empty_stores_gives_the_same_bits(
    tmp_path: Path, ran: tuple[Store, list[Event]]
) -> None:
    first, events = ran
    torch.manual_seed(2)  # the generator of whoever calls does not matter
    torch.rand(100)
    other, _ = finish(tiny_plan(tiny_study(STRATEGIES)), tmp_path)
    check_equal(first, other)
    check_sound(first)
    check_tidy(first)
    assert len(closed(events)) == len(STRATEGIES)


def test_another_seed_gives_other_bits(tmp_path: Path) -> None:
    first, _ = finish(tiny_plan(tiny_study(["baseline"])), tmp_path / "one")
    other, _ = finish(tiny_plan(tiny_study(["baseline"], seeds=[43])), tmp_path / "other")
    assert set(hashes(first).values()).isdisjoint(hashes(other).values())


def test_every_key_is_trained_once_after_what_it_needs(ran: tuple[Store, list[Event]]) -> None:
    plan, events = tiny_plan(tiny_study(STRATEGIES)), ran[1]
    done = trained(events)
    assert sorted(done) == sorted(plan.nodes) and sorted(began(events)) == sorted(plan.nodes)
    for at, key in enumerate(done):
        assert set(plan.nodes[key].needs) <= set(done[:at])


def test_a_second_run_trains_nothing_and_writes_nothing(
    ran: tuple[Store, list[Event]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, first = ran
    files = {p: p.stat().st_mtime_ns for p in store.root.rglob("*.*") if p.parent.name != "locks"}
    monkeypatch.setattr(engine_fit, "step", None)
    again = tiny_plan(tiny_study(STRATEGIES))
    _, events = finish(again, store.root)
    assert not began(events) and not trained(events) and not notes(events)
    assert reused(events) == set(again.nodes)
    assert closed(events) == dict.fromkeys(closed(first), True)
    assert {p: p.stat().st_mtime_ns for p in files} == files
    check_tidy(store)


def test_a_study_that_grows_trains_only_what_is_new(tmp_path: Path) -> None:
    small, large = tiny_plan(tiny_study(["baseline"])), tiny_plan(tiny_study(["baseline", "two-stage"]))
    finish(small, tmp_path / "grown")
    grown, events = finish(large, tmp_path / "grown")
    assert set(trained(events)) == set(large.nodes) - set(small.nodes)
    assert reused(events) == set(small.nodes)
    whole, _ = finish(large, tmp_path / "whole")
    assert hashes(grown) == hashes(whole)


@pytest.mark.journey
def test_an_object_store_has_the_bits_of_a_folder(s3: str, tmp_path: Path) -> None:
    plan = tiny_plan(tiny_study(["baseline", "two-stage"], recipe={"epochs": 1}))
    folder, _ = finish(plan, tmp_path / "folder")
    list(run(plan, Store(s3), conduct(tmp_path)))
    check_equal(folder, Store(s3))
    assert reused(list(run(plan, Store(s3), conduct(tmp_path)))) == set(plan.nodes)


UNSHARED: dict[str, Any] = {
    "strategies": ["baseline", "two-stage", "distillation"],
    "recipe": {"epochs": 1},
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return finish(tiny_plan(tiny_study(**UNSHARED)), tmp_path_factory.mktemp("together"))[0]


@pytest.mark.parametrize("execution", ["plain", *long({"share": False})])
def test_unshared_studies_keep_keys_of_their_own_and_the_same_weights(
    tmp_path: Path, shared: Store, execution: Any
) -> None:
    apart = tiny_plan(tiny_study(**UNSHARED, execution=execution))
    keys = [key for trial in apart.trials for key in trial.keys]
    assert len(keys) == len(set(keys)) == sum(len(t.resolved.nodes) for t in apart.trials)
    store, events = finish(apart, tmp_path / "apart")
    assert sorted(trained(events)) == sorted(keys)

    together = tiny_plan(tiny_study(**UNSHARED))
    assert set(together.nodes).isdisjoint(keys)
    for mine, theirs in zip(apart.trials, together.trials, strict=True):
        for node, other in zip(mine.resolved.nodes, theirs.resolved.nodes, strict=True):
            a, b = store.node_weights(node.key), shared.node_weights(other.key)
            assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# Phases that fail.


def test_a_phase_that_diverges_leaves_the_other_trials_alone(tmp_path: Path) -> None:
    wild = {
        "name": "two-stage",
        "as": "wild",
        "phases": {"backbone": {"learning_rate": 1e30, "schedule": "cosine"}},
    }
    recipe = {"epochs": 2, "batch_size": 12}
    plan = tiny_plan(tiny_study(["baseline", wild, "two-stage"], recipe=recipe))
    store, events = finish(plan, tmp_path / "with")
    bad, *dependents = (node.key for node in plan.trials[1].resolved.nodes)
    reasons = failed(events)
    assert list(reasons) == [bad, *dependents]
    epoch = 1 + sum(isinstance(e, Epoch) and e.report.key == bad for e in events)
    steps = -(-len(plan.data.train) // 12)
    rates = {
        f"epoch {epoch}, step {step}, learning rate "
        f"{plan.nodes[bad].recipe.rate(epoch - 1 + (step - 1) / steps):g};"
        for step in range(1, steps + 1)
    }
    assert "is not finite" in reasons[bad]
    assert any(text in reasons[bad] for text in rates), reasons[bad]
    assert all("needs phase 'backbone'" in reasons[k] for k in dependents)
    assert not set(began(events)) & set(dependents)
    assert set(closed(events)) == {plan.trials[0].id, plan.trials[2].id} == set(store.trials())
    assert bad not in store.nodes() and locks_free(plan, store)
    check_sound(store)

    # What goes on is what it would be without the failure, and the next run tries only the rest.
    alone = tiny_plan(tiny_study(["baseline", "two-stage"], recipe=recipe))
    reference, _ = finish(alone, tmp_path / "without")
    assert hashes(reference) == hashes(store)
    _, again = finish(plan, tmp_path / "with")
    assert began(again) == [bad] and not trained(again)
    assert failed(again) == reasons and set(closed(again)) == set(store.trials())


def spiked(position: int) -> Data:
    """Float images; the one that is trained on at `position` of epoch 1 of seed 42 overflows."""
    data = tiny_data()
    floats = {n: s.images.to(torch.float32) / 100 for n, s in data.splits.items()}
    row = order(42, 0, len(data.train))[position]
    floats["train"][row] = 3e38
    pairs = {n: (floats[n], s.labels) for n, s in data.splits.items()}
    return from_dataset(**pairs)


def test_the_step_of_a_failure_is_the_one_whose_loss_is_not_finite(tmp_path: Path) -> None:
    recipe = {"epochs": 3, "batch_size": 8, "schedule": "cosine", "learning_rate": 0.25}
    for position, step in ((0, 1), (8, 2), (23, 3)):
        plan = tiny_plan(tiny_study(["baseline"], recipe=recipe), spiked(position))
        _, events = finish(plan, tmp_path / f"{position}")
        (reason,) = failed(events).values()
        rate = plan.study.recipe.recipe.rate((step - 1) / 4)
        assert f"epoch 1, step {step}, learning rate {rate:g}; lower" in reason


def test_a_fused_head_that_diverges_leaves_the_group(tmp_path: Path) -> None:
    wild = {"name": "two-stage", "phases": {"exit 2": {"learning_rate": 1e30}}}
    recipe = {"epochs": 2, "batch_size": 5}
    plan = tiny_plan(tiny_study([wild], recipe=recipe))
    store, events = finish(plan, tmp_path / "with")
    assert list(failed(events)) == [by_phase(plan, "exit 2")]
    assert not closed(events)
    calm = tiny_plan(tiny_study(["two-stage"], recipe=recipe))
    reference, _ = finish(calm, tmp_path / "without")
    for name in ("backbone", "exit 1", "exit 3"):
        key = by_phase(calm, name)
        assert hashes(store)[key] == hashes(reference)[key]


def test_a_group_that_fails_for_good_reports_each_failure_once(tmp_path: Path) -> None:
    wild = {"name": "two-stage", "phases": {"exit *": {"learning_rate": 1e30}}}
    plan = tiny_plan(tiny_study([wild], recipe={"epochs": 2, "batch_size": 5}))
    _, events = finish(plan, tmp_path)
    assert [e.key for e in events if isinstance(e, Failed)] == list(plan.nodes)[1:]
    assert [e.key for e in events if isinstance(e, Finished)] == list(plan.nodes)[:1]


# What a finished node and trial hold.


def test_a_node_holds_only_what_it_trained_with_its_history_and_cost(tmp_path: Path) -> None:
    plan = small_plan("patience", ["joint-branch"])
    store, _ = finish(plan, tmp_path)
    for key, node in plan.nodes.items():
        names = {n for part in node.trained for n in inside(plan.net).state(part)}
        assert set(store.node_weights(key)) == names
        record, history, cost = store.read_node(key), store.node_history(key), store.node_cost(key)
        assert list(record.labels.trains) == [str(part) for part in sorted(node.trained)]
        assert not history["value"].isna().any()
        epochs = record.summary.epochs
        assert 1 <= record.summary.best_epoch <= epochs <= 6
        assert record.summary.selected_epoch == record.summary.best_epoch
        for split in ("train", "validation"):
            rows = history[history["split"] == split]
            assert set(rows["epoch"]) == set(range(1, epochs + 1))
            assert set(rows["exit"]) == {"", *(plan.net.places[k - 1] for k in node.exits)}
        validation = history[(history["split"] == "validation") & (history["metric"] == "loss")]
        best = validation["value"].reset_index(drop=True).idxmin() + 1
        assert best == record.summary.best_epoch
        assert set(history[history["split"] == "train-eval"]["epoch"]) == {best, epochs}
        assert cost.macs_executed <= cost.macs_written and not cost.comparable
        images = {"train": len(plan.data.train), "validation": len(plan.data.validation)}
        assert cost.macs_written == written_macs(node, plan.net, images, epochs, len({best, epochs}))
        assert all(seconds >= 0 for seconds in cost.seconds.values())


def test_only_plain_runs_of_one_worker_have_times_to_compare(tmp_path: Path) -> None:
    plain = tiny_plan(tiny_study(["baseline"], execution="plain"))
    for root, workers, comparable in ((tmp_path / "1", 1, True), (tmp_path / "2", 2, False)):
        store, _ = finish(plain, root, workers=workers)
        (key,) = plain.nodes
        assert store.node_cost(key).comparable is comparable


def test_a_phase_that_cannot_train_fails_alone(tmp_path: Path) -> None:
    """BatchNorm cannot train on one sample a step: an error of that phase, not of the study."""
    alone = {"name": "two-stage", "phases": {"exit 1": {"batch_size": 1}}}
    plan = tiny_plan(tiny_study(["baseline", alone, "joint"], recipe={"epochs": 1}))
    store, events = run_all(plan, tmp_path)
    (bad,) = [e for e in events if isinstance(e, Failed)]
    assert plan.nodes[bad.key].name == "exit 1" and "batch_size" in bad.reason
    assert {t.split("-digits")[0] for t in store.trials()} == {"baseline", "joint"}


def test_logits_shared_by_trials_are_computed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []
    compute = trials.split_logits

    def count(net: Any, images: Any, split: str, exits: Any, *more: Any) -> Any:
        computed.extend(exits if split == "test" else ())
        return compute(net, images, split, exits, *more)

    monkeypatch.setattr(trials, "split_logits", count)
    strategies = ["baseline", "two-stage", "distillation"]
    store, _ = run_all(tiny_plan(tiny_study(strategies, recipe={"epochs": 1})), tmp_path)
    assert sorted(computed) == [1, 1, 2, 2, 3, 3, 4]  # the final exit is one for all three
    final = [store.trial_logits(t)["test"][:, -1] for t in store.trials()]
    assert (final[0] == final[1]).all() and (final[0] == final[2]).all()


def test_what_is_not_deterministic_on_a_device_is_named_with_a_remedy(
    snapshot: SnapshotAssertion,
) -> None:
    """As torch says it, but for what nobody can do here."""
    assert reason_of(RuntimeError(TORCH_S)) == snapshot
    assert reason_of(RuntimeError("no\nmemory")) == "no memory"


TORCH_S = (
    "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation, but you set "
    "'torch.use_deterministic_algorithms(True)'. You can turn off determinism just for this one"
)
