from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.recipe import Recipe
from offramp.study.spec.file import parse, read
from support import PAPER
from wording import refusal

DEMO = Path(__file__).parents[2] / "studies" / "demo.yaml"

SMALL: dict[str, Any] = {"strategies": ["joint"], "backbone": "digits-cnn", "data": "digits"}

FULL = """\
name: everything
seeds: [0, 7]
strategies:
  - joint
  - name: distillation
    as: independent students
    students: independent
    phases:
      "student *": {epochs: 3, learning_rate: 1e-3}
      "student 1":
        patience: null
backbone: {name: mobilenetv2, stem: small}
exits:
  taps: [layer1, layer2]
  head: {kind: linear, dropout: 0}
data:
  name: cifar10
  root: ../data
  train_images: 1_000
  image_column: img
recipe:
  epochs: 5
  learning_rate: 1e-3
  weight_decay: 5E-4
  momentum: 0
  step_at: [0.5, .75]
  joint_weights: [1, 2, 0.5]
  budget: total
execution: {cache: off, fuse: on, cache_memory: 2GiB, cache_disk: 500MB}
"""


def test_the_demo_runs_every_strategy() -> None:
    study = read(DEMO)
    assert [s.name for s in study.strategies] == list(PAPER)
    assert study.seeds == (42, 43)
    assert (study.backbone.name, study.data.name) == ("digits-cnn", "digits")


def test_what_is_written_is_what_is_read(write: Any) -> None:
    study = read(write(FULL))
    distillation = study.strategies[1]
    assert study.strategies[0].label == "joint"
    assert distillation.label == "independent students"
    assert distillation.options == {"students": "independent"}
    assert distillation.overrides == (
        ("student *", (("epochs", 3), ("learning_rate", 1e-3))),
        ("student 1", (("patience", None),)),
    )
    assert study.backbone.options == {"stem": "small"}
    assert study.exits.taps == ("layer1", "layer2")
    assert repr(study.exits.head) == "{'kind': 'linear', 'dropout': 0.0}"  # also where it says 0
    assert (study.data.train_images, study.data.options) == (1000, (("image_column", "img"),))
    assert study.recipe.recipe == Recipe(
        epochs=5, learning_rate=1e-3, weight_decay=5e-4, momentum=0.0, step_at=(0.5, 0.75)
    )
    assert study.recipe.joint_weights == (1.0, 2.0, 0.5)
    assert study.recipe.budget == "total"
    assert (study.execution.cache, study.execution.fuse) == (False, True)
    assert study.execution.cache_memory == 2 * 1024**3
    assert study.execution.cache_disk == 500_000_000
    assert isinstance(study.recipe.recipe.momentum, float)  # 0 and 0.0 must hash alike


def test_defaults() -> None:
    study = parse(SMALL)
    assert study.seeds == (42, 43, 44, 45, 46)
    assert study.recipe.recipe == Recipe()
    assert (study.recipe.joint_weights, study.recipe.temperature) == ("linear", 3.0)
    assert (study.recipe.alpha, study.recipe.budget) == (0.1, "phase")
    assert study.exits.taps is None
    assert study.exits.head == {}
    assert study.numerics == "default"
    assert study.execution.mode == "derived"


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ({"data": "digits"}, {"data": {"name": "digits"}}),
        ({"exits": 2}, {"exits": {"taps": 2}}),
        ({"exits": ["a", "b"]}, {"exits": {"taps": ["a", "b"]}}),
        ({"exits": {"head": "linear"}}, {"exits": {"head": {"kind": "linear"}}}),
        ({"execution": "plain"}, {"execution": {"mode": "plain", "cache": False}}),
        ({"strategies": ["joint"]}, {"strategies": [{"name": "joint", "as": "joint"}]}),
    ],
)
def test_shorthands(short: dict[str, Any], full: dict[str, Any]) -> None:
    assert parse(SMALL | short).model_dump() == parse(SMALL | full).model_dump()


def test_plain_switches_everything_off() -> None:
    execution = parse(SMALL | {"execution": "plain"}).execution
    assert (execution.cache, execution.fuse, execution.share) == (False, False, False)


@pytest.mark.parametrize(
    ("text", "size"),
    [(0, 0), (1024, 1024), ("1KiB", 1024), ("1.5 GB", 1_500_000_000), (2e9, 2_000_000_000)],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse(SMALL | {"execution": {"cache_memory": text}}).execution.cache_memory == size


@pytest.mark.parametrize("text", ["-1GiB", "GiB", "", -1, True, 1.5, None])
def test_no_sizes(text: Any, snapshot: SnapshotAssertion) -> None:
    assert refusal(parse, SMALL | {"execution": {"cache_disk": text}}) == snapshot


def test_anchors_and_merges(write: Any) -> None:
    text = """\
strategies:
  - {name: joint, phases: {a: &short {epochs: 3, patience: 2}, b: *short}}
  - name: baseline
    phases:
      c:
        <<: *short
        epochs: 4
backbone: b
data: d
"""
    study = read(write(text))
    assert study.strategies[0].phases["b"] == study.strategies[0].phases["a"]
    assert study.strategies[1].phases["c"] == {"epochs": 4, "patience": 2}
    assert study.where("strategies", 1, "phases", "c", "epochs") == "s.yaml:7"


def test_set_changes_a_setting(write: Any) -> None:
    sets = [
        "recipe.epochs=9",
        "seeds=[1]",
        "strategies.0.as=mine",
        "strategies.1.phases.student.batch_size=2",
        "data.root=elsewhere",
        "execution=plain",
        "execution.cache_memory=1MiB",
        "exits=2",
        "exits.head=mlp",
        "recipe.learning_rate=2e-2",
        "recipe.patience=null",
    ]
    # `execution` gives way as a whole, so `cache: off` and the sizes of the file are gone with it.
    study = read(write(FULL), sets)
    assert (study.recipe.epochs, study.seeds, study.strategies[0].label) == (9, (1,), "mine")
    assert study.strategies[1].phases["student"] == {"batch_size": 2}
    assert (study.data.name, study.data.root) == ("cifar10", "elsewhere")
    assert (study.execution.mode, study.execution.cache_memory) == ("plain", 2**20)
    assert study.execution.cache_disk == "auto"
    assert (study.exits.taps, study.exits.head) == (2, {"kind": "mlp"})
    assert (study.recipe.learning_rate, study.recipe.weight_decay) == (0.02, 5e-4)


def test_set_reaches_into_a_section_that_is_not_there(write: Any) -> None:
    text = "strategies: [joint]\nbackbone: b\ndata: digits\n"
    study = read(write(text), ["recipe.epochs=3", "data.train_images=50", "exits.head.width=8"])
    assert study.recipe.epochs == 3
    assert (study.data.name, study.data.train_images) == ("digits", 50)
    assert study.exits.head["width"] == 8


def test_where(write: Any) -> None:
    study = read(write(FULL), ["backbone=resnet18", "recipe.patience=2"])
    assert study.where("strategies", 1) == "s.yaml:5"
    assert study.where("strategies", 1, "students") == "s.yaml:7"
    assert study.where("strategies", 0, "name") == "s.yaml:4"
    assert study.where("backbone", "stem") == "--set backbone=resnet18"
    assert study.where("recipe", "patience") == "--set recipe.patience=2"
    assert study.where("recipe", "epochs") == "s.yaml:22"
    assert study.where("numerics") == "s.yaml"
    assert parse(SMALL, "the arguments").where("seeds") == "the arguments"


def test_a_mapping_is_left_as_it_was() -> None:
    mapping = SMALL | {"exits": {"head": "mlp"}, "strategies": ["joint", {"name": "baseline"}]}
    before = repr(mapping)
    parse(mapping)
    assert repr(mapping) == before


@pytest.mark.parametrize(
    ("written", "name", "root"),
    [
        ("folder:path/to/images", "folder", "path/to/images"),
        ({"name": "folder:~/a b:c"}, "folder", "~/a b:c"),
        ({"name": "folder:here", "root": "there"}, "folder", "there"),  # as --data-root has it
        ("my.py:make_data", "my.py:make_data", None),
        ("path/to/my.py:make_data", "path/to/my.py:make_data", None),
        ("digits", "digits", None),
        ("folder:", "folder:", None),  # refused where names are looked up
    ],
)
def test_data_may_be_named_with_its_folder(written: Any, name: str, root: str | None) -> None:
    study = parse({"strategies": ["joint"], "backbone": "digits-cnn", "data": written})
    assert (study.data.name, study.data.root) == (name, root)
