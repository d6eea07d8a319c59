from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
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
    reused,
    trained,
)

from offramp.data import Data, from_dataset, order
from offramp.engine import fit as engine_fit
from offramp.engine.trainee import pack
from offramp.errors import OfframpError
from offramp.hashing import file_digest
from offramp.study.events import Began, Epoch, Failed, Finished
from offramp.study.plan import Plan
from offramp.study.run import run
from offramp.study.store import Store
from support import tiny_data, tiny_plan, tiny_study

RECIPES: dict[str, dict[str, Any]] = {
    "momentum": {"epochs": 3},
    "adam": {"epochs": 3, "optimizer": "adam", "schedule": "cosine", "warmup_epochs": 1.5},
    "patience": {"epochs": 6, "patience": 1, "learning_rate": 0.5, "optimizer": "adamw"},
}


def small_plan(recipe: str = "momentum", **more: Any) -> Plan:
    return tiny_plan(tiny_study(STRATEGIES, recipe=RECIPES[recipe], **more))


def by_phase(plan: Plan, name: str) -> str:
    """The key of the one node of that name."""
    (key,) = (key for key, node in plan.nodes.items() if node.name == name)
    return key


# The same study gives the same bits, and finished work is never repeated.


def test_the_same_study_in_two_empty_stores_gives_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(1)
    one, events = finish(tiny_plan(tiny_study()), tmp_path / "one")
    torch.manual_seed(2)  # the generator of whoever calls does not matter
    torch.rand(100)
    other, _ = finish(tiny_plan(tiny_study()), tmp_path / "other")
    check_equal(one, other)
    check_sound(one)
    check_tidy(one)
    assert len(closed(events)) == 9


def test_another_seed_gives_other_bits(tmp_path: Path) -> None:
    one, _ = finish(tiny_plan(tiny_study(["baseline"])), tmp_path / "one")
    other, _ = finish(tiny_plan(tiny_study(["baseline"], seeds=[43])), tmp_path / "other")
    assert set(hashes(one).values()).isdisjoint(hashes(other).values())


def test_every_key_is_trained_once_after_what_it_needs(tmp_path: Path) -> None:
    plan = tiny_plan(tiny_study(seeds=(42, 43)))
    _, events = finish(plan, tmp_path)
    done = trained(events)
    assert sorted(done) == sorted(plan.nodes) and sorted(began(events)) == sorted(plan.nodes)
    for at, key in enumerate(done):
        assert set(plan.nodes[key].needs) <= set(done[:at])


def test_a_second_run_trains_nothing_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, first = finish(tiny_plan(tiny_study()), tmp_path)
    files = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*") if p.parent.name != "locks"}
    monkeypatch.setattr(engine_fit, "step", None)
    again = tiny_plan(tiny_study())
    _, events = finish(again, tmp_path)
    assert not began(events) and not trained(events)
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


@pytest.mark.parametrize("execution", [{"share": False}, "plain"])
def test_unshared_studies_keep_keys_of_their_own_and_the_same_weights(
    tmp_path: Path, execution: Any
) -> None:
    names = ["baseline", "two-stage", "distillation"]
    apart = tiny_plan(tiny_study(names, execution=execution))
    keys = [key for trial in apart.trials for key in trial.keys]
    assert len(keys) == len(set(keys)) == sum(len(t.resolved.nodes) for t in apart.trials)
    store, events = finish(apart, tmp_path / "apart")
    assert sorted(trained(events)) == sorted(keys)

    together = tiny_plan(tiny_study(names))
    assert set(together.nodes).isdisjoint(keys)
    shared, _ = finish(together, tmp_path / "together")
    for mine, theirs in zip(apart.trials, together.trials, strict=True):
        for one, other in zip(mine.resolved.nodes, theirs.resolved.nodes, strict=True):
            a, b = store.node_weights(one.key), shared.node_weights(other.key)
            assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_plain_and_unshared_runs_in_one_store_do_not_mix(tmp_path: Path) -> None:
    executions: list[Any] = ["derived", {"share": False}, "plain"]
    for execution in executions:
        given = {"mode": "derived"} if execution == "derived" else execution
        _, events = finish(tiny_plan(tiny_study(["two-stage"], execution=given)), tmp_path)
        assert len(trained(events)) == 4 and not reused(events)
    assert len(Store(tmp_path).trials()) == 3


# A run that is cut short goes on, and ends in the same bits.


def interrupted(plan: Plan, store: Store, after: int) -> bool:
    """Whether Ctrl-C came, while the run told its `after`-th event; else the run ended."""
    running = run(plan, store, conduct(store.root, checkpoint_seconds=0))
    for number, _ in enumerate(running, start=1):
        if number == after:
            with pytest.raises(KeyboardInterrupt):
                running.throw(KeyboardInterrupt)
            return True
    return False


@pytest.mark.parametrize("recipe", RECIPES)
def test_interrupted_again_and_again_a_run_ends_in_the_same_bits(tmp_path: Path, recipe: str) -> None:
    plan = small_plan(recipe)
    whole, _ = finish(plan, tmp_path / "whole")
    store, threads, after = Store(tmp_path / "cut"), torch.get_num_threads(), 1
    while interrupted(plan, store, after):  # one event later each time
        after += 1
        assert locks_free(plan, store), after
        assert not list((store.root / "caches").glob("*"))
        assert torch.get_num_threads() == threads
        assert not torch.are_deterministic_algorithms_enabled()
        check_sound(store)
    assert after > 5
    check_equal(whole, store)
    check_tidy(store)


@pytest.mark.parametrize("stop", [0, 3, 7, 20])
def test_interrupted_within_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> None:
    plan = small_plan()
    whole, _ = finish(plan, tmp_path / "whole")
    original, calls = engine_fit.step, iter(range(10**6))

    def step(*args: Any) -> Any:
        if next(calls) == stop:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(engine_fit, "step", step)
        with pytest.raises(KeyboardInterrupt):
            finish(plan, tmp_path / "cut", checkpoint_seconds=0)
    assert locks_free(plan, Store(tmp_path / "cut"))
    store, _ = finish(plan, tmp_path / "cut")
    check_equal(whole, store)
    check_tidy(store)


def test_a_generator_that_nobody_reads_on_lets_go(tmp_path: Path) -> None:
    plan, store = small_plan(), Store(tmp_path)
    running = run(plan, store, conduct(tmp_path))
    next(e for e in running if isinstance(e, Epoch))
    assert not locks_free(plan, store)
    running.close()
    assert locks_free(plan, store)


def test_a_resumed_phase_goes_on_after_its_last_checkpoint(tmp_path: Path) -> None:
    plan, store = small_plan(), Store(tmp_path)
    running = run(plan, store, conduct(tmp_path, checkpoint_seconds=0))
    epochs = (e.report.epoch for e in running if isinstance(e, Epoch))
    assert next(epoch for epoch in epochs if epoch == 2) == 2
    running.close()  # before the second checkpoint
    _, events = finish(plan, tmp_path)
    assert next(e for e in events if isinstance(e, Began)).epoch == 1


def test_without_checkpoints_a_cut_phase_starts_over(tmp_path: Path) -> None:
    plan = small_plan()
    whole, _ = finish(plan, tmp_path / "whole")
    store = Store(tmp_path / "cut")
    running = run(plan, store, conduct(tmp_path / "cut", checkpoint_seconds=1e9))
    next(e for e in running if isinstance(e, Epoch) and e.report.epoch == 2)
    running.close()
    assert not list((tmp_path / "cut" / "work").glob("*/*"))
    _, events = finish(plan, tmp_path / "cut", checkpoint_seconds=1e9)
    assert all(e.epoch == 0 for e in events if isinstance(e, Began))
    check_equal(whole, store)


def test_saving_after_every_epoch_changes_nothing_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    original = Store.write_checkpoint

    def write(self: Store, key: str, *rest: Any) -> None:
        saved.append(key)
        original(self, key, *rest)

    monkeypatch.setattr(Store, "write_checkpoint", write)
    plan = small_plan()
    never, _ = finish(plan, tmp_path / "never", checkpoint_seconds=1e9)
    assert not saved
    always, _ = finish(plan, tmp_path / "always", checkpoint_seconds=0)
    # Three epochs: after the first and the second; the third is kept as a node.
    assert sorted(saved) == sorted([*plan.nodes] * 2)
    check_equal(never, always)
    check_tidy(always)


def test_fused_heads_that_stand_at_different_epochs(tmp_path: Path) -> None:
    plan = tiny_plan(tiny_study(["two-stage"], recipe={"epochs": 4, "optimizer": "adam"}))
    whole, _ = finish(plan, tmp_path / "whole")
    root = tmp_path / "cut"
    store = Store(root)
    heads = [by_phase(plan, f"exit {n}") for n in (1, 2, 3)]
    running = run(plan, store, conduct(root, checkpoint_seconds=0))
    for event in running:
        if isinstance(event, Epoch) and event.report.key == heads[0] and event.report.epoch == 2:
            shutil.copytree(root / "work", tmp_path / "after 1 epoch")
        if isinstance(event, Epoch) and event.report.key == heads[0] and event.report.epoch == 4:
            break
    running.close()
    # Head 1 keeps the checkpoint of epoch 3, head 2 has that of epoch 1, head 3 has none.
    shutil.rmtree(root / "work" / heads[1])
    shutil.copytree(tmp_path / "after 1 epoch" / heads[1], root / "work" / heads[1])
    shutil.rmtree(root / "work" / heads[2])
    _, events = finish(plan, root, checkpoint_seconds=0)
    starts = {key: e.epoch for e in events if isinstance(e, Began) for key in e.keys}
    assert starts == dict(zip(heads, (3, 1, 0), strict=True))
    check_equal(whole, store)
    check_tidy(store)


def test_a_checkpoint_of_a_phase_that_had_ended_is_kept_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the last epoch's checkpoint and the node: only keeping it is left to do."""
    plan = tiny_plan(tiny_study(["baseline"]))
    whole, _ = finish(plan, tmp_path / "whole")
    root = tmp_path / "cut"

    def stop(*arguments: Any) -> None:
        _, store, _, trainee, *_ = arguments
        store.write_checkpoint(trainee.node.key, *pack(trainee))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("offramp.study.run._keep", stop)
        with pytest.raises(KeyboardInterrupt):
            finish(plan, root)
    monkeypatch.setattr(engine_fit, "step", None)
    store, events = finish(plan, root)
    assert trained(events) == list(plan.nodes)
    assert hashes(store) == hashes(whole)


def test_a_damaged_checkpoint_starts_the_phase_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = tiny_plan(tiny_study(["baseline"], recipe={"epochs": 3}))
    whole, _ = finish(plan, tmp_path / "whole")
    root = tmp_path / "cut"
    running = run(plan, Store(root), conduct(root, checkpoint_seconds=0))
    next(e for e in running if isinstance(e, Epoch) and e.report.epoch == 2)
    running.close()
    (checkpoint,) = (root / "work").glob("*/*")
    data = bytearray(checkpoint.read_bytes())
    data[-1] ^= 1
    checkpoint.write_bytes(data)
    store, events = finish(plan, root)
    assert [e.epoch for e in events if isinstance(e, Began)] == [0]
    assert str(checkpoint) in caplog.text
    check_equal(whole, store)


# A full disk.


def full_disk(patch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """The `at`-th file from now on is cut in half by a full disk; returns a count of files."""
    original, written = Path.write_bytes, 0

    def write(self: Path, data: bytes) -> int:
        nonlocal written
        written += 1
        if written >= at:
            original(self, bytes(data[: len(data) // 2]))
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return original(self, data)

    patch.setattr(Path, "write_bytes", write)
    return lambda: written


def test_a_disk_that_is_full_at_any_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = tiny_plan(tiny_study(["two-stage"]))
    with monkeypatch.context() as patch:
        written = full_disk(patch, 10**9)
        whole, _ = finish(plan, tmp_path / "whole", checkpoint_seconds=0)
    # The store's version, a plan, 4 checkpoints, 4 nodes of 4 files, a trial of 2 files.
    assert written() == 1 + 1 + 4 + 16 + 2
    for at in range(1, written() + 1):
        root = tmp_path / f"full at {at}"
        with monkeypatch.context() as patch:
            full_disk(patch, at)
            with pytest.raises(OfframpError, match=f"the disk is full while writing {root}/.*; free"):
                finish(plan, root, checkpoint_seconds=0)
        cut = Store(root)
        assert locks_free(plan, cut)
        check_sound(cut)
        assert not list((root / "staging").glob("*")) and not list(root.rglob("*.tmp"))
        before = set(cut.nodes())
        store, events = finish(plan, root)
        assert reused(events) == before and set(trained(events)) == set(plan.nodes) - before
        check_equal(whole, store)
        check_tidy(store)


# Phases that fail.


def test_a_phase_that_diverges_leaves_the_other_trials_alone(tmp_path: Path) -> None:
    wild = {
        "name": "two-stage",
        "as": "wild",
        "phases": {"backbone": {"learning_rate": 1e30, "schedule": "cosine"}},
    }
    plan = tiny_plan(tiny_study(["joint", wild, "two-stage"], recipe={"epochs": 5, "batch_size": 5}))
    store, events = finish(plan, tmp_path / "with")
    bad, *dependents = (node.key for node in plan.trials[1].resolved.nodes)
    reasons = failed(events)
    assert list(reasons) == [bad, *dependents]
    epoch = 1 + sum(isinstance(e, Epoch) and e.report.key == bad for e in events)
    steps = -(-len(plan.data.train) // 5)
    rates = {
        f"epoch {epoch}, step {step}, learning rate "
        f"{plan.nodes[bad].recipe.rate(epoch - 1 + (step - 1) / steps):g};"
        for step in range(1, steps + 1)
    }
    assert reasons[bad].startswith("the loss of phase 'backbone' is not finite at epoch ")
    assert any(text in reasons[bad] for text in rates), reasons[bad]
    assert all(reasons[k] == "needs phase 'backbone', which failed" for k in dependents)
    assert not set(began(events)) & set(dependents)
    assert set(closed(events)) == {plan.trials[0].id, plan.trials[2].id} == set(store.trials())
    assert bad not in store.nodes() and locks_free(plan, store)
    check_sound(store)

    # What goes on is what it would be without the failure, and the next run tries only the rest.
    alone = tiny_plan(tiny_study(["joint", "two-stage"], recipe={"epochs": 5, "batch_size": 5}))
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
    recipe = {"epochs": 6, "batch_size": 5}
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
    plan = tiny_plan(tiny_study([wild], recipe={"epochs": 6, "batch_size": 5}))
    _, events = finish(plan, tmp_path)
    assert [e.key for e in events if isinstance(e, Failed)] == list(plan.nodes)[1:]
    assert [e.key for e in events if isinstance(e, Finished)] == list(plan.nodes)[:1]


# What a finished node and trial hold.


def test_a_node_holds_only_what_it_trained_with_its_history_and_cost(tmp_path: Path) -> None:
    plan = small_plan("patience")
    store, _ = finish(plan, tmp_path)
    for key, node in plan.nodes.items():
        names = {n for part in node.trained for n in plan.net.state(part)}
        assert set(store.node_weights(key)) == names
        record, history, cost = store.read_node(key), store.node_history(key), store.node_cost(key)
        assert record.labels["trains"] == [str(part) for part in sorted(node.trained)]
        assert not history["value"].isna().any()
        epochs = record.summary["epochs"]
        assert 1 <= record.summary["best_epoch"] <= epochs <= 6
        assert record.summary["selected_epoch"] == record.summary["best_epoch"]
        for split in ("train", "validation"):
            rows = history[history["split"] == split]
            assert set(rows["epoch"]) == set(range(1, epochs + 1))
            assert set(rows["exit"]) == {"", *(plan.net.places[k - 1] for k in node.exits)}
        validation = history[(history["split"] == "validation") & (history["metric"] == "loss")]
        best = validation["value"].reset_index(drop=True).idxmin() + 1
        assert best == record.summary["best_epoch"]
        assert set(history[history["split"] == "train-eval"]["epoch"]) == {best, epochs}
        assert cost["macs_executed"] <= cost["macs_written"] and not cost["comparable"]
        assert cost["macs_written"] == -(-plan.work[key].written * epochs // 6)
        assert all(seconds >= 0 for seconds in cost["seconds"].values())


def test_only_plain_runs_of_one_worker_have_times_to_compare(tmp_path: Path) -> None:
    plain = tiny_plan(tiny_study(["baseline"], execution="plain"))
    for root, workers, comparable in ((tmp_path / "1", 1, True), (tmp_path / "2", 2, False)):
        store, _ = finish(plain, root, workers=workers)
        (key,) = plain.nodes
        assert store.node_cost(key)["comparable"] is comparable


def test_files_of_a_finished_node_do_not_change_when_another_strategy_reads_it(tmp_path: Path) -> None:
    store, _ = finish(tiny_plan(tiny_study(["baseline"])), tmp_path)
    (key,) = store.nodes()
    before = {p.name: file_digest(p) for p in (tmp_path / "nodes" / key).iterdir()}
    finish(tiny_plan(tiny_study(["distillation"])), tmp_path)
    assert {p.name: file_digest(p) for p in (tmp_path / "nodes" / key).iterdir()} == before
