"""`offramp.run` and `offramp.load`, with networks, data and strategies of one's own."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from syrupy.assertion import SnapshotAssertion

import offramp
from offramp import CE, Phase, Recipe, head
from offramp.api.train.request import requested
from offramp.store.store import Store
from offramp.study.plan import workers as plan_workers
from offramp.study.plan.plan import make_plan
from offramp.study.plan.workers import Workers
from offramp.study.run import processes
from offramp.study.run.events import Epoch, GroupStarted
from offramp.study.spec import file as spec_file
from wording import refusal

CODE = """
import torch
from torch import nn
from offramp.parts import backbone, head
from offramp.phase import CE, Phase

def make_net(classes, input_shape, width=6):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes),
    )

def make_data(count=90):
    labels = torch.arange(count) % 3
    noise = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 80
    images = noise.to(torch.uint8) + labels.view(-1, 1, 1, 1).to(torch.uint8) * 60
    return {"train": (images, labels), "classes": ["a", "b", "c"]}

def my_strategy(exits, *, rate: float = 1.0):
    return (
        Phase("all but heads", train=backbone(exits), loss=(CE(exits),)),
        Phase("head 1", train=head(1), loss=(CE(1),), recipe=(("learning_rate_scale", rate),)),
    )

def diverging(exits):
    return (
        Phase("fine", train=backbone(exits), loss=(CE(exits),)),
        Phase("wild", train=head(1), loss=(CE(1),), recipe=(("learning_rate", 3e38),)),
        Phase("after", train=head(1), loss=(CE(1),)),
    )
"""

WIDE = CODE.replace("width, width, 3", "width, layers.WIDE, 3") + "import layers\n"
WITH_MODULE = WIDE.replace("nn.Linear(width", "nn.Linear(layers.WIDE")
"""The same with a number of a module beside it."""

STUDY = """
seeds: [42]
strategies:
  - two-stage
  - {name: "my.py:my_strategy", as: mine, rate: 0.5}
backbone: {name: "my.py:make_net", width: 5}
exits: {taps: ["2"], head: linear}
data: "my.py:make_data"
recipe: {epochs: 2, batch_size: 16}
"""
MINE, DIVERGING = '"my.py:my_strategy", as: mine, rate: 0.5', '"my.py:diverging"'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(CODE)
    Path("study.yaml").write_text(STUDY)
    return tmp_path


def test_run_a_file_whose_network_data_and_strategy_are_ones_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    events: list[Any] = []
    with pytest.warns(offramp.OfframpWarning) as heard:
        results = offramp.run("study.yaml", store="runs/mine", watch=events.append)
    assert not results.failed and len(results.trials) == 2
    assert [str(one.message) for one in heard] == snapshot
    assert [str(event) for event in events if isinstance(event, GroupStarted)] == snapshot
    assert [line.strategy for line in results.lines] == ["two-stage", "mine"]
    assert sorted(p.name for p in (folder / "runs").iterdir()) == ["mine"]
    assert (
        results.lines[1].seconds.marginal < results.lines[1].seconds.executed
    )  # the backbone is shared
    assert len([e for e in events if isinstance(e, Epoch)]) == 3 * 2
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter does: its text has no codes all the same
    assert "\x1b" not in repr(results) and "two-stage" in repr(results)
    shown = results._repr_html_()
    assert shown.count("<table") == 2 and "two-stage" in shown and "mine" in shown
    assert results.figure("accuracy-by-exit")._repr_svg_().startswith("<svg")

    for trial in results.trials:
        net = offramp.load(trial, store="runs/mine", trust_code=True)
        manifest = results.store.read_trial(trial)
        assert manifest.classes == ("a", "b", "c") and net.places[:-1] == ("2",)
        with torch.no_grad():
            logits = net(torch.zeros(2, *net.input_shape))
        assert [tuple(x.shape) for x in logits] == [(2, 3), (2, 3)]
        assert not net.training
    untrusted = refusal(offramp.load, "mine", store="runs/mine")
    assert re.sub(r"[0-9a-f]{12,}", "HASH", untrusted) == snapshot
    # The beginning of an id will do.
    assert offramp.load("mine", store="runs/mine", trust_code=True).exits == 2


def test_workers_run_code_with_the_modules_beside_it_which_are_part_of_its_keys(folder: Path) -> None:
    Path("my.py").write_text(WITH_MODULE)
    Path("layers.py").write_text("WIDE = 6\n")
    one, two = (offramp.run("study.yaml", folder / str(n), workers=n) for n in (1, 2))
    assert not two.failed and one.trials == two.trials
    for trial in one.trials:
        logits = [r.store.trial_logits(trial)["test"] for r in (one, two)]
        assert np.array_equal(*logits)
    Path("layers.py").write_text("WIDE = 6  # changed\n")
    planned = make_plan(spec_file.read("study.yaml"))
    assert not {trial.id for trial in planned.trials} & set(one.trials)


def test_run_a_mapping_and_a_path_and_a_study_alike(folder: Path) -> None:
    mapping = yaml.safe_load(STUDY)
    one = offramp.run(mapping, store=folder / "one")
    for study in (folder / "study.yaml", spec_file.parse(mapping)):
        events: list[Any] = []
        again = offramp.run(study, store=str(folder / "one"), watch=events.append)
        assert again.trials == one.trials and not [e for e in events if isinstance(e, GroupStarted)]
        assert again.lines == one.lines or repr(again.lines) == repr(one.lines)  # NaN of one seed


def listed(folder: Path) -> Path:
    """A file that lists the study, and one that has its first strategy and another one."""
    other = STUDY.replace(f"{{name: {MINE}}}", "joint")
    (folder / "other.yaml").write_text(other)
    (folder / "all.yaml").write_text("studies: [study.yaml, other.yaml]")
    return folder / "all.yaml"


def test_run_a_list_of_studies_into_one_store(folder: Path) -> None:
    events: list[Any] = []
    results = offramp.run(listed(folder), store="runs", watch=events.append)
    one, other = results.studies.values()
    assert list(results.studies) == [str(folder / "study.yaml"), str(folder / "other.yaml")]
    assert [line.strategy for line in one.lines] == ["two-stage", "mine"]
    assert [line.strategy for line in other.lines] == ["two-stage", "joint"]
    assert [line.strategy for line in results.lines] == ["two-stage", "mine", "two-stage", "joint"]
    assert len(results.trials) == 3 and set(results.trials) == {*one.trials, *other.trials}
    began = [key for e in events if isinstance(e, GroupStarted) for key in e.keys]
    assert len(began) == len(set(began)) == 4  # a backbone and a head, once; mine; joint
    assert not offramp.run("study.yaml", store="runs").studies


def test_networks_of_a_list_may_have_other_exits_and_have_lines_of_their_own(folder: Path) -> None:
    path = listed(folder)
    taps = 'taps: ["1", "2"]'
    (folder / "other.yaml").write_text(STUDY.replace('taps: ["2"]', taps).replace(", as: mine", ""))
    results = offramp.run(path, store="runs", watch=False)
    one, other = results.studies.values()
    assert [len(each.lines[0].accuracy) for each in (one, other)] == [2, 3]
    assert results.lines == (*one.lines, *other.lines)


def test_what_fails_in_one_study_of_a_list_leaves_the_next(folder: Path) -> None:
    path = listed(folder)
    (folder / "study.yaml").write_text(STUDY.replace(MINE, DIVERGING))
    results = offramp.run(path, store="runs")
    one, other = results.studies.values()
    assert results.failed == one.failed and one.failed and not other.failed
    assert len(other.trials) == 2


def test_a_run_without_a_study_has_its_data_where_it_is_told() -> None:
    named = {"strategy": "joint", "backbone": "digits-cnn", "data": "cifar10", "data_root": "a"}
    assert requested(None, named).studies[0].data.root == "a"


def test_the_data_root_of_a_mapping_is_a_path_and_a_setting_wins_over_it() -> None:
    study = {"strategies": ["joint"], "backbone": "digits-cnn", "data": "cifar10"}
    for name in ("2024", "runs: a", "images # old"):
        assert requested(study, {"data_root": name}).studies[0].data.root == name
    both = requested(study, {"data_root": "a", "settings": ["data.root=b"]})
    assert both.studies[0].data.root == "b"


@pytest.mark.usefixtures("folder")
def test_workers_of_a_study_are_chosen_where_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def pool(plan: Any, store: Any, conduct: Any) -> Any:
        asked.append(conduct.workers)
        return run_pooled(plan, store, replace(conduct, workers=1))

    run_pooled = processes.run_pooled
    monkeypatch.setattr(processes, "run_pooled", pool)
    monkeypatch.setattr(plan_workers, "suited", lambda *_: Workers(2, "for a test"))
    offramp.run("study.yaml", workers="auto")
    offramp.run("study.yaml")
    assert asked == [2, 1]


@pytest.mark.usefixtures("folder")
def test_a_strategy_that_diverges_is_listed_and_the_others_go_on(snapshot: SnapshotAssertion) -> None:
    study = yaml.safe_load(STUDY)
    study["strategies"] = [{"name": "my.py:diverging", "as": "wild"}, *study["strategies"]]
    results = offramp.run(study, store="runs")
    assert sorted(results.failed.values()) == snapshot
    assert [line.strategy for line in results.lines] == ["two-stage", "mine"]
    assert len(results.trials) == 2
    added = sum(line.seconds.marginal for line in results.lines)  # though `wild` had the backbone first
    nodes = {key for t in results.trials for key in results.store.read_trial(t).keys}
    spent = sum(sum(results.store.node_cost(key).seconds.values()) for key in nodes)
    assert added == pytest.approx(spent)


WRONG = {
    "name of data": ('"my.py:make_data"', '"my.py:make_dat"'),
    "option of data": ('"my.py:make_data"', "{name: 'my.py:make_data', counts: 3}"),
    "argument of a network": ("width: 5", "widht: 5"),
    "place of an exit": ('taps: ["2"]', 'taps: ["two"]'),
    "name of a strategy": ("my.py:my_strategy", "my.py:my_stratgy"),
    "option of a strategy": ("rate: 0.5", "rate: fast"),
}


@pytest.mark.parametrize(("words", "instead"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_ones_own_code_is_said_and_nothing_is_written(
    folder: Path, words: str, instead: str, snapshot: SnapshotAssertion
) -> None:
    assert words in STUDY
    Path("study.yaml").write_text(STUDY.replace(words, instead))
    assert refusal(offramp.run, "study.yaml", store="runs") == snapshot
    assert not (folder / "runs").exists()


def test_load_says_what_is_not_there(folder: Path, snapshot: SnapshotAssertion) -> None:
    assert refusal(offramp.load, "nothing", store="runs") == snapshot
    assert not (folder / "runs").exists()


def test_run_takes_functions_and_values_too(folder: Path, snapshot: SnapshotAssertion) -> None:
    def heads_only(exits: int, *, weight: float = 1.0) -> tuple[Phase, ...]:
        return tuple(Phase(f"e{k}", head(k), (CE(k, weight),)) for k in range(1, exits + 1))

    study = yaml.safe_load(STUDY) | {
        "strategies": [heads_only, {"name": heads_only, "as": "half", "weight": 0.5}],
        "recipe": Recipe(epochs=1, batch_size=16),
    }
    results = offramp.run(study, store=folder / "runs")
    assert [line.strategy for line in results.lines] == ["heads_only", "half"] and not results.failed
    program = results.store.read_trial(results.trials[0]).program
    assert program.endswith(f"{test_run_takes_functions_and_values_too.__name__}.<locals>.heads_only")
    assert refusal(offramp.run, study, store=folder / "others", workers=2) == snapshot


def test_a_notebook_is_told_too_that_nothing_was_finished(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    """It prefers HTML, even where that is empty."""
    results = offramp.Results(Store(tmp_path), (), (), {"0" * 64: "the loss diverged"})
    assert repr(results) == snapshot
    assert results._repr_html_() == f"<p>{results!r}</p>"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("workers", [0, "all"])
def test_workers_are_a_number_or_auto(workers: Any, snapshot: SnapshotAssertion) -> None:
    assert refusal(offramp.run, "study.yaml", workers=workers) == snapshot


def test_a_name_that_is_not_public_is_refused(snapshot: SnapshotAssertion) -> None:
    with pytest.raises(AttributeError) as caught:
        offramp.fitt  # type: ignore[attr-defined]  # noqa: B018
    assert str(caught.value) == snapshot


def test_the_public_names_are_listed_and_there() -> None:
    for name in offramp.__all__:
        assert getattr(offramp, name) is not None
    assert dir(offramp) == sorted([*offramp.__all__, "__version__"])
    assert offramp.__version__.count(".") == 2
