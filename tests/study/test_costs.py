"""What a finished phase says it cost is what was run for it."""

import math
from pathlib import Path
from typing import Any

import pytest
from kit import conduct, finish
from running_kit import by_phase

from longer import long
from offramp.engine.cost import live_macs, written_macs
from offramp.parts import Part
from offramp.store.store import Store
from offramp.study.plan.plan import Plan
from offramp.study.run.events import Epoch
from offramp.study.run.run import run
from support import tiny_plan, tiny_study

AGAIN = {"name": "two-stage", "as": "again", "phases": {"exit *": {"learning_rate": 0.02}}}
NO_ROOM = {"cache_memory": 0, "cache_disk": 0}


def two_stage(execution: Any, *more: Any) -> Plan:
    return tiny_plan(tiny_study(["two-stage", *more], execution=execution))


def check_written(plan: Plan, store: Store) -> None:
    """Every pass of every phase was paid for."""
    for key in plan.nodes:
        assert store.node_cost(key).macs_executed == written(plan, store, key)


def images(plan: Plan) -> dict[str, int]:
    return {"train": len(plan.data.train), "validation": len(plan.data.validation)}


def passed(store: Store, key: str) -> tuple[int, int]:
    """Epochs, and closing passes."""
    summary = store.read_node(key).summary
    return summary.epochs, len({summary.epochs, summary.best_epoch})


def frozen(plan: Plan, store: Store, key: str) -> int:
    """MACs of frozen layers, by the record."""
    live = live_macs(plan.nodes[key], plan.net, images(plan), *passed(store, key))
    return int(store.node_cost(key).macs_executed) - live


def written(plan: Plan, store: Store, key: str) -> int:
    return written_macs(plan.nodes[key], plan.net, images(plan), *passed(store, key))


def segment(plan: Plan, index: int) -> int:
    return plan.net.macs(Part("segment", index))


def test_a_cache_is_charged_to_the_phases_that_read_it_together(tmp_path: Path) -> None:
    plan = two_stage({})
    store, _ = finish(plan, tmp_path)
    both, shared = sum(images(plan).values()), 0.0
    for exit in (1, 2, 3):  # segment 1 serves three heads, segment 2 two of them
        shared += segment(plan, exit) * both / (4 - exit)
        assert frozen(plan, store, by_phase(plan, f"exit {exit}")) == math.ceil(shared - 1e-6)
    backbone = by_phase(plan, "backbone")
    assert frozen(plan, store, backbone) == 0


def test_a_cache_that_another_phase_filled_costs_nothing(tmp_path: Path) -> None:
    plan = two_stage({"fuse": False}, AGAIN)
    store, _ = finish(plan, tmp_path)
    heads = [[n.key for n in t.resolved.nodes if n.name == "exit 1"] for t in plan.trials]
    ((first,), (second,)) = heads
    assert frozen(plan, store, first) == segment(plan, 1) * sum(images(plan).values())
    assert frozen(plan, store, second) == 0


@pytest.mark.parametrize("none", [{"cache": False}, *long(NO_ROOM)])
def test_without_a_cache_every_pass_is_paid_for(tmp_path: Path, none: dict[str, Any]) -> None:
    """A cache that finds no room is no cache."""
    plan = two_stage({"fuse": False, **none})
    store, _ = finish(plan, tmp_path)
    check_written(plan, store)


def test_phases_that_share_live_layers_add_up_to_what_ran(tmp_path: Path) -> None:
    plan = two_stage({"cache": False})
    store, _ = finish(plan, tmp_path)
    heads = {exit: by_phase(plan, f"exit {exit}") for exit in (1, 2, 3)}
    both, train = sum(images(plan).values()), images(plan)["train"]
    total = 2 * both * sum(segment(plan, i) for i in heads)  # together
    for exit, key in heads.items():  # each alone, with the layers below it
        total += passed(store, key)[1] * train * sum(segment(plan, i) for i in range(1, exit + 1))
    assert sum(frozen(plan, store, key) for key in heads.values()) == pytest.approx(total, abs=3)


def test_plain_execution_runs_what_is_written(tmp_path: Path) -> None:
    plan = tiny_plan(
        tiny_study(["distillation", "joint-branch"], recipe={"epochs": 1}, execution="plain")
    )
    store, _ = finish(plan, tmp_path)
    for key in plan.nodes:
        cost = store.node_cost(key)
        assert cost.macs_executed == cost.macs_written == written(plan, store, key)


def cut(plan: Plan, root: Path, phase: str) -> None:
    """Stop in the second epoch of a phase, whose first has a checkpoint."""
    running = run(plan, Store(root), conduct(root, checkpoint_seconds=0))
    key = by_phase(plan, phase)
    next(e for e in running if isinstance(e, Epoch) and e.report.key == key and e.report.epoch == 2)
    running.close()


def test_a_resumed_phase_counts_what_ran_before_its_checkpoint(tmp_path: Path) -> None:
    plan = two_stage({"cache": False, "fuse": False})
    cut(plan, tmp_path, "exit 2")
    store, _ = finish(plan, tmp_path)
    check_written(plan, store)


def test_a_resumed_phase_has_no_times_to_compare(tmp_path: Path) -> None:
    plan = tiny_plan(tiny_study(["two-stage"], execution="plain"))
    cut(plan, tmp_path, "exit 2")
    store, _ = finish(plan, tmp_path)
    comparable = {node.name: store.node_cost(key).comparable for key, node in plan.nodes.items()}
    assert comparable == {"backbone": True, "exit 1": True, "exit 2": False, "exit 3": True}
