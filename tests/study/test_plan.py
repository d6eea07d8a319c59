import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from offramp.store.archive import NAME
from offramp.study.plan.plan import Plan, can_fuse, make_plan
from offramp.study.spec import file as spec
from support import CPU, PAPER, network, tiny_plan, tiny_study
from wording import refusal

STUDY: dict[str, Any] = {
    "seeds": [42],
    "strategies": ["two-stage"],
    "backbone": "digits-cnn",
    "data": {"name": "digits", "train_images": 200, "test_images": 60},
    "recipe": {"epochs": 2},
}


def keys(plan: Plan) -> list[tuple[str, ...]]:
    return [trial.keys for trial in plan.trials]


def test_each_trial_has_its_strategy_seed_and_an_id_that_is_a_name() -> None:
    plan = tiny_plan(tiny_study(seeds=(1, 2)))
    assert [(t.label, t.seed) for t in plan.trials] == [(s, n) for n in (1, 2) for s in PAPER]
    ids = [t.id for t in plan.trials]
    assert len(set(ids)) == 18 and all(NAME.fullmatch(i) for i in ids)
    assert ids[0].startswith("baseline-digits-cnn-given-s1-")


def test_nodes_come_after_what_they_need_and_belong_to_a_trial() -> None:
    plan = tiny_plan(tiny_study(seeds=(1, 2)))
    seen: set[str] = set()
    for key, node in plan.nodes.items():
        assert set(node.needs) <= seen and node.key == key
        seen.add(key)
    assert seen == {key for trial in plan.trials for key in trial.keys} == set(plan.work)


def test_marginal_nodes_are_those_that_no_trial_before_reads() -> None:
    plan = tiny_plan(tiny_study(["two-stage", "baseline", "distillation", "joint"], seeds=(1, 2)))
    marginal = [key for trial in plan.trials for key in trial.marginal]
    assert marginal == list(plan.nodes)
    by_label = {t.label: t for t in plan.trials if t.seed == 1}
    assert by_label["baseline"].marginal == ()
    assert by_label["two-stage"].marginal == by_label["two-stage"].keys
    assert by_label["distillation"].marginal == by_label["distillation"].keys[1:]


def test_the_work_of_a_plan_is_the_sum_of_its_nodes() -> None:
    plan = tiny_plan(tiny_study())
    written = sum(plan.work[n.key].written for t in plan.trials for n in t.resolved.nodes)
    assert plan.written == written > plan.executed == sum(w.executed for w in plan.work.values())
    bare = tiny_plan(tiny_study(execution={"cache": False, "share": False}))
    assert bare.executed == bare.written == plan.written


def test_labels_phase_patterns_and_options_that_change_nothing_leave_the_keys() -> None:
    plain = tiny_plan(tiny_study(["distillation"]))
    same = {
        "name": "distillation",
        "as": "mine",
        "temperature": 3,
        "phases": {"student *": {"epochs": 2}},
    }
    assert keys(tiny_plan(tiny_study([same]))) == keys(plain)
    other = {"name": "distillation", "temperature": 2}
    (mine,), (theirs,) = keys(tiny_plan(tiny_study([other]))), keys(plain)
    assert mine[0] == theirs[0] and not set(mine[1:]) & set(theirs[1:])


def test_a_phase_recipe_changes_that_phase_and_what_builds_on_it() -> None:
    plan = tiny_plan(tiny_study(["joint-branch"]))
    head = tiny_plan(tiny_study([{"name": "joint-branch", "phases": {"branch 2": {"epochs": 3}}}]))
    base = tiny_plan(tiny_study([{"name": "joint-branch", "phases": {"joint": {"epochs": 3}}}]))
    (whole,), (of_head,), (of_base,) = keys(plan), keys(head), keys(base)
    assert [a == b for a, b in zip(whole, of_head, strict=True)] == [True, True, False, True]
    assert not set(whole) & set(of_base)


def test_unshared_keys_differ_by_strategy_and_mode() -> None:
    keys_of = []
    for execution in ({"share": False}, "plain"):
        plan = tiny_plan(tiny_study(["baseline", "two-stage"], execution=execution))
        keys_of += [key for trial in plan.trials for key in trial.keys]
    assert len(set(keys_of)) == len(keys_of) == 10


def test_total_budget_is_split_over_the_phases() -> None:
    plan = tiny_plan(tiny_study(["two-stage", "baseline"], recipe={"epochs": 8, "budget": "total"}))
    assert [n.recipe.epochs for n in plan.trials[0].resolved.nodes] == [2, 2, 2, 2]
    assert [n.recipe.epochs for n in plan.trials[1].resolved.nodes] == [8]


@pytest.mark.parametrize(
    "strategy",
    [
        "two-stages",
        {"name": "joint", "alhpa": 1},
        {"name": "joint", "phases": {"jiont": {"epochs": 1}}},
        {"name": "joint", "phases": {"joint": {"warmup_epochs": 9}}},
    ],
)
def test_what_a_strategy_asks_wrongly_is_said_with_its_place(
    strategy: Any, snapshot: SnapshotAssertion
) -> None:
    assert refusal(tiny_plan, tiny_study([strategy])) == snapshot


def test_an_error_names_the_line_of_the_file(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "seeds: [42]\nbackbone: digits-cnn\ndata: digits\nstrategies:\n- baseline\n- jiont\n"
    )
    assert refusal(make_plan, spec.read(file), CPU) == snapshot


def test_a_plan_from_a_study_alone_starts_nothing_and_is_the_same_each_time() -> None:
    state = torch.get_rng_state()
    first, other = (make_plan(spec.parse(STUDY), CPU) for _ in range(2))
    assert keys(first) == keys(other) and [t.id for t in first.trials] == [t.id for t in other.trials]
    assert torch.equal(torch.get_rng_state(), state)


def test_planning_leaves_the_network_as_it_was() -> None:
    net = copy.deepcopy(network("digits-cnn"))
    net.eval()
    net.backbone.blocks[1].train()
    modes = [m.training for m in net.modules()]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    tiny_plan(tiny_study(), net=net)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert [m.training for m in net.modules()] == modes and 0 < sum(modes) < len(modes)


@pytest.mark.parametrize("label", ["日本", "x" * 300, "../../etc", "-", "."])
def test_any_label_makes_a_trial_id_that_a_folder_can_have(label: str) -> None:
    (trial,) = tiny_plan(tiny_study([{"name": "baseline", "as": label}])).trials
    assert NAME.fullmatch(trial.id)


def test_long_paths_of_own_code_make_ids_that_name_the_function(tmp_path: Path) -> None:
    folder = tmp_path / "/".join(["a-rather-long-name-of-a-folder"] * 4)
    folder.mkdir(parents=True)
    file = folder / "mine.py"
    file.write_text("from offramp.strategies import STRATEGIES\nours = STRATEGIES['baseline']\n")
    (trial,) = tiny_plan(tiny_study([f"{file}:ours"])).trials
    assert trial.id.startswith("mine-ours-digits-cnn-given-s42-")


# What may share a pass over the data.


def named(plan: Plan, label: str) -> dict[str, Any]:
    (trial,) = (t for t in plan.trials if t.label == label)
    return {node.name: node for node in trial.resolved.nodes}


def test_heads_on_one_frozen_trunk_share_a_pass_and_nothing_else_does() -> None:
    joint_2 = {"name": "joint-two-stage", "phases": {"exit 2": {"batch_size": 8}}}
    plan = tiny_plan(tiny_study(["two-stage", "distillation", joint_2, "branch-wise", "separate"]))
    two, distil = named(plan, "two-stage"), named(plan, "distillation")
    hybrid, branch, apart = (named(plan, n) for n in ("joint-two-stage", "branch-wise", "separate"))
    assert can_fuse(two["exit 1"], two["exit 3"])
    assert can_fuse(two["exit 1"], distil["student 1"])  # of two strategies, on the same backbone
    assert not can_fuse(two["backbone"], two["exit 1"])
    assert not can_fuse(two["exit 1"], hybrid["exit 1"])  # other trunks
    assert not can_fuse(hybrid["exit 1"], hybrid["exit 2"])  # other batches
    assert can_fuse(hybrid["exit 1"], hybrid["exit 3"])
    assert not can_fuse(branch["branch 2"], branch["branch 3"])
    assert not can_fuse(apart["exit 1"], apart["exit 2"])


def test_seeds_never_share_a_pass() -> None:
    plan = tiny_plan(tiny_study(["two-stage"], seeds=(1, 2)))
    first, other = (t.resolved.nodes[1] for t in plan.trials)
    assert first.name == other.name == "exit 1" and not can_fuse(first, other)
