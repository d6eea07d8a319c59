"""Plain networks that a study trains beside itself: the trials that they are, and their epochs."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import yaml
from syrupy.assertion import SnapshotAssertion

import offramp
from offramp.report import evidence
from offramp.study.plan.plan import Plan, make_plan, plans
from offramp.study.spec import file as spec
from offramp.study.spec.models import Study, part_names
from offramp.study.trained import cascade, read
from offramp.study.variants import Variants
from support import CPU
from wording import refusal

STUDY: dict[str, Any] = {
    "seeds": [1, 2],
    "strategies": ["baseline", "joint", "separate", "two-stage"],
    "backbone": {"name": "airbench", "width": "small"},
    "data": {"name": "digits", "train_images": 200, "test_images": 60, "size": 12},
    "recipe": {"epochs": 2, "learning_rate": 0.05},
}


def parts(*controls: dict[str, Any]) -> tuple[Study, ...]:
    return spec.parse({**STUDY, "controls": list(controls)}).parts


def plan_of(*settings: str) -> Plan:
    return make_plan(spec.parse(copy.deepcopy(STUDY), overrides=settings), CPU)


def ids(plan: Plan, label: str = "baseline") -> list[str]:
    return [trial.id for trial in plan.trials if trial.label == label]


@pytest.fixture(scope="module")
def study_plan() -> Plan:
    return plan_of()


def check_matched(host: Plan, control: Plan) -> None:
    """A control costs what the middle one of the strategies with early exits does, and less than an
    epoch short of it."""
    early = [t for t in host.trials if t.seed == 1 and t.label != "baseline"]
    budget = median(sum(host.macs(key) for key in t.keys) for t in early)
    spent = sum(control.macs(key) for key in control.trials[0].keys)
    assert spent <= budget < spent + spent / control.study.recipe.epochs


def test_a_control_is_the_baseline_trial_of_its_network(study_plan: Plan) -> None:
    """Its id and key are those of a run with `--set`, so packs of either are one."""
    own, control = (make_plan(part, CPU) for part in parts({"width": "tiny", "epochs": 3}))
    by_hand = plan_of("backbone.width=tiny", "recipe.epochs=3", "strategies=[baseline]")
    assert [t.id for t in control.trials] == ids(
        by_hand
    ) and control.nodes.keys() == by_hand.nodes.keys()
    assert [t.id for t in own.trials] == [t.id for t in study_plan.trials]


def test_a_network_that_is_cut_off_is_what_separate_trains(study_plan: Plan) -> None:
    _, control = (make_plan(part, CPU) for part in parts({"cut": 2, "epochs": 2}))
    separate = next(t for t in study_plan.trials if t.label == "separate")
    assert control.trials[0].keys == separate.keys[1:2]
    taps = "exits.taps=[group1, group2]"
    named = spec.parse({**STUDY, "controls": [{"cut": "group2"}]}, overrides=[taps]).parts[1]
    assert named.strategies[0].options == {"only": 2}


@pytest.mark.parametrize("width", ["small", "tiny"])
def test_matched_epochs_cost_what_a_strategy_costs(study_plan: Plan, width: str) -> None:
    (_, control) = plans(parts({"width": width}), CPU)
    check_matched(study_plan, control)
    assert part_names(control.study) == [f"control width {width}, {control.study.recipe.epochs} epochs"]


def test_a_warm_up_of_several_epochs_leaves_matched_epochs_as_they_are() -> None:
    """Which are found by what epochs cost, of which one alone would be shorter than the warm-up."""
    epochs = []
    for warm_up in (0, 2):
        study = {**STUDY, "recipe": {"epochs": 2, "warmup_epochs": warm_up}}
        part = spec.parse({**study, "controls": [{"width": "tiny"}]}).parts[1]
        epochs.append(make_plan(part, CPU).study.recipe.epochs)
    assert epochs[0] == epochs[1] > 2


def test_a_control_at_another_size_has_the_same_part_of_each_picture() -> None:
    data = {**STUDY["data"], "size": 12, "resize": 16}
    _, control = spec.parse({**STUDY, "data": data, "controls": [{"size": 9}]}).parts
    assert (control.data.size, control.data.resize) == (9, 12)


def test_another_backbone_has_its_own_exits() -> None:
    _, control = parts({"backbone": "digits-cnn", "epochs": 1})
    assert control.backbone.name == "digits-cnn" and control.exits.taps is None
    assert control.recipe.learning_rate == 0.05 and control.seeds == (1, 2)


def test_a_rehearsal_and_each_seed_s_own_splits_hold_for_controls() -> None:
    small = spec.parse({**STUDY, "scale": "small", "controls": [{"width": "tiny", "epochs": 40}]})
    assert [part.recipe.epochs for part in small.parts] == [2, 2]
    data = {**STUDY["data"], "split_seed": "trial"}
    own = spec.parse({**STUDY, "data": data, "controls": [{"width": "tiny", "epochs": 3}]}).parts
    assert [part.seeds for part in own] == [(1,), (2,), (1,), (2,)]


def test_epochs_that_a_phase_or_a_search_set_are_not_a_control_s() -> None:
    """A worker reads the study of each part by itself."""
    own = {"name": "baseline", "phases": {"*": {"epochs": 4, "momentum": 0.5}}}
    search = {"over": {"recipe.epochs": "int(1,4)"}, "trials": 1, "validation": {"all": 0.5}}
    study = {
        **STUDY,
        "strategies": [own, "joint"],
        "search": {**search, "found": {"all": {"recipe.epochs": 2}}},
        "controls": [{"width": "tiny", "epochs": 3}, {"width": "tiny"}],
    }
    for plan in plans(spec.parse(study).parts[1:], CPU):
        (node,) = {node.recipe for node in plan.nodes.values()}
        assert node.momentum == 0.5 and node.epochs == plan.study.recipe.epochs
        assert plan.study.control is not None
        assert plan.study.control.spec.epochs in (node.epochs, "matched")
        assert spec.from_text(spec.as_text(plan.study)).recipe.epochs == node.epochs


def test_a_search_tries_the_study_without_its_controls(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "controls": [{"width": "tiny"}]}))
    (file,) = spec.study_files(path)
    assert Variants(file).study({"recipe.epochs": 1}).controls == ()


def test_a_control_at_another_size_has_the_same_pictures_in_each_split() -> None:
    """And matched epochs go by the work of the study at its own size."""
    host, control = plans(parts({"size": 9}), CPU)
    assert control.data.shape == (1, 9, 9) and control.study.control is not None
    read = [plan.data.provenance["sources"] for plan in (host, control)]
    assert read[0] == read[1] and len(set(read[0].values())) == 4
    assert host.data.test.digest != control.data.test.digest
    check_matched(host, control)
    other = make_plan(spec.parse({**STUDY, "data": {**STUDY["data"], "split_seed": 3}}), CPU)
    assert other.data.provenance["sources"]["train"] != read[0]["train"]


WRONG: list[Sequence[Any]] = [
    [{"size": 20000}],
    [{"width": "tiny", "cut": 1}],
    [{}],
    [{"width": "tiny", "epochs": 0}],
    [{"width": "tiny", "epochs": "all"}],
    [{"cut": "group9"}],
    ["tiny"],
    [{"cut": 9, "epochs": 1}],
    [{"cut": 0}],
    [{"width": "huge", "epochs": 1}],
]


@pytest.mark.parametrize("controls", WRONG, ids=str)
def test_what_is_wrong_is_said_of_the_control(
    controls: Sequence[Any], tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, "controls": list(controls)}))

    def planned() -> None:
        for member in spec.members(path):
            make_plan(member.study, CPU)

    message = refusal(planned).replace(str(tmp_path), "…")
    assert message == snapshot
    assert "study.yaml:" in message


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> offramp.Results:
    """A study with three controls."""
    recipe = {"epochs": 2, "learning_rate": 0.01, "optimizer": "adam", "batch_size": 32}
    study = {**STUDY, "strategies": ["baseline", "joint"], "seeds": [1], "recipe": recipe}
    study["controls"] = [
        {"width": "tiny", "epochs": 3},
        {"cut": 1, "epochs": 2},
        {"size": 9, "epochs": 2},
    ]
    return offramp.run(study, store=tmp_path_factory.mktemp("ran") / "runs")


def plain(results: offramp.Results) -> tuple[str, str]:
    """The trials of the smaller and the larger plain network."""
    records = {t: results.store.read_trial(t) for t in results.trials if "baseline" in t}
    wide = {m.backbone_macs: t for t, m in records.items() if m.input_shape[-1] == 12}
    return wide[min(wide)], wide[max(wide)]


def test_a_study_with_controls_runs_and_its_report_knows_them(ran: offramp.Results) -> None:
    labels = ["width tiny", "cut at group1", "size 9"]
    assert ran.seeds == 1
    assert [line.strategy for line in ran.lines] == ["baseline", "joint", *labels]
    whole = evidence.open(ran.store.root)
    (runs,) = whole.runs
    assert {c.label for c in runs.controls.cheaper} == set(labels)
    small = next(c.trials[0] for c in runs.controls.cheaper if c.label == "size 9")
    keys = {whole.answers_of(trial).images for trial in (*whole.trials, small)}
    assert len(keys) == 1 and small.manifest.data.test != whole.trials[0].manifest.data.test
    assert whole.missing == () and len(whole.trials) == 2


def test_a_cascade_is_calibrated_as_two_exits(ran: offramp.Results) -> None:
    """An image that goes on has paid for both; the full network is the larger one alone."""
    store = ran.store
    small, large = plain(ran)
    report = offramp.calibrate(small, store.root, then=large, out=None, max_mean_macs="90%", anyway=True)
    low, high = (store.read_trial(t).backbone_macs for t in (small, large))
    threshold = report.policy.thresholds[0]
    first, second = store.trial_logits(small), store.trial_logits(large)
    logits = np.stack([first["test"][:, -1], second["test"][:, -1]], axis=1)
    leaves = report.policy.leaves(logits)
    assert report.policy.exits == (1, 2) and threshold is not None
    spent = np.where(leaves == 0, low, low + high).mean()
    assert report.test.macs.mean == pytest.approx(spent)
    right = logits[np.arange(len(leaves)), leaves].argmax(1) == first["test_labels"]
    assert report.test.policy.value == pytest.approx(right.mean())
    assert report.test.full.value == pytest.approx(
        (second["test"][:, -1].argmax(1) == first["test_labels"]).mean()
    )
    calibrated = np.stack([first["calibration"][:, -1], second["calibration"][:, -1]], axis=1)
    paid = np.where(report.policy.leaves(calibrated) == 0, low, low + high).mean()
    assert paid <= 0.9 * high  # the threshold keeps the limit on calibration


@pytest.mark.parametrize("which", [0, 1], ids=["the smaller", "the larger"])
def test_a_cascade_is_as_doubtful_as_either_network(ran: offramp.Results, which: int) -> None:
    pair = [read(ran.store, trial) for trial in plain(ran)]
    pair[which] = replace(pair[which], seen=7)
    assert cascade(ran.store, *pair).doubts == pair[which].doubts != ()


def test_a_cascade_wants_the_smaller_network_first(
    ran: offramp.Results, snapshot: SnapshotAssertion
) -> None:
    store = ran.store
    small, large = plain(ran)
    more = {"out": None, "max_mean_macs": "90%"}
    message = refusal(lambda: offramp.calibrate(large, store.root, then=small, **more))
    assert message.replace(large, "LARGE").replace(small, "SMALL") == snapshot
    timed = {"out": None, "max_mean_latency": "5ms"}
    assert refusal(lambda: offramp.calibrate(small, store.root, then=large, **timed)) == snapshot
