"""A key is made of what a phase reads, all of it and nothing else, and is known before it runs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from longer import long
from offramp.data import Data, DataSpec, Split
from offramp.engine.resolve import Node, Setting, resolve
from offramp.hashing import YOUNGER, digest, plain
from offramp.nets import ExitNetwork, HeadSpec, NetSpec, attach, build
from offramp.nets.backbones.digits_cnn import DigitsCNN
from offramp.nets.network import inside
from offramp.numerics import Numerics
from offramp.parts import backbone, head, heads, segment, segments
from offramp.phase import CE, KD, LIVE, Init, Phase, Program
from offramp.recipe import Recipe
from offramp.store.store import Store
from offramp.strategies import STRATEGIES
from offramp.study.plan.forecast import forecast
from offramp.study.plan.plan import Plan, data_identity
from support import CPU, NUMERICS, PAPER, SHAPES, run_all, tiny_data, tiny_plan, tiny_study
from support import network as usual_network

TAPS = ("blocks.0", "blocks.2", "blocks.4")


def net(*taps: str, head: Mapping[str, Any] | None = None) -> ExitNetwork:
    described = NetSpec("digits-cnn", taps=taps or None, head=tuple(sorted((head or {}).items())))
    return build(described, (1, 8, 8), 3, seed=42)


# Spelled out, for keys that are written down below: defaults of fields that are in every key may change.
RECIPE = Recipe(
    **{"epochs": 2, "batch_size": 128, "optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9},
    **{"learning_rate_scale": 1.0, "nesterov": False, "weight_decay": 0.0, "schedule": "constant"},
    **{"step_at": (0.5, 0.75), "step_factor": 0.1, "warmup_epochs": 0.0, "patience": None},
    select="auto",
)


def setting(**changes: Any) -> Setting:
    usual = Setting(data_identity(tiny_data()), RECIPE, NUMERICS, seed=42)
    return replace(usual, **changes)


def nodes(strategy: str, network: ExitNetwork | None = None, **changes: Any) -> tuple[Node, ...]:
    network = network or usual_network("digits-cnn")
    return resolve(STRATEGIES[strategy](network.exits), network, setting(**changes)).nodes


def keys(strategy: str, network: ExitNetwork | None = None, **changes: Any) -> list[str]:
    return [node.key for node in nodes(strategy, network, **changes)]


def trained_by(plan: Plan, *sets: frozenset[Any]) -> list[Node]:
    return [n for n in plan.nodes.values() if n.trained in sets]


# Sharing


def test_all_nine_and_one_seed_have_one_backbone_node_and_one_joint_node() -> None:
    plan = tiny_plan(tiny_study(PAPER))
    exits = plan.net.exits
    (trunk,) = trained_by(plan, backbone(exits))
    (everything,) = trained_by(plan, segments(1, exits) | heads(1, exits))
    assert plan.users[trunk.key] == [
        "baseline",
        "separate",  # its full trunk is the baseline
        "two-stage",
        "distillation",
        "pretrained-branch",
    ]
    assert plan.users[everything.key] == ["joint", "joint-branch", "joint-two-stage"]
    (stage,) = trained_by(plan, segment(1) | head(1))[:1]
    assert plan.users[stage.key] == ["separate", "branch-wise"]


def test_a_forecast_shows_the_shared_nodes(tmp_path: Path) -> None:
    plan = tiny_plan(tiny_study(PAPER))
    planned = forecast(plan, Store(tmp_path / "store"), CPU).nodes
    parts = [sorted(node.trains) for node in planned]
    assert parts.count(sorted(map(str, backbone(4)))) == 1
    assert parts.count(sorted(map(str, segments(1, 4) | heads(1, 4)))) == 1
    assert not (tmp_path / "store").exists()


def test_seeds_share_nothing() -> None:
    plan = tiny_plan(tiny_study(seeds=(1, 2)))
    first, second = ({k for t in plan.trials if t.seed == s for k in t.keys} for s in (1, 2))
    assert first and len(first) == len(second) and not first & second


# What leaves the backbone's key alone


@pytest.mark.parametrize(
    ("taps", "head"),
    [
        (("blocks.1", "blocks.2", "blocks.4"), {}),
        (("blocks.3",), {}),
        (("blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4"), {}),
        *((TAPS, head) for head in ({"width": 5}, {"kind": "linear"}, {"dropout": 0.0})),
    ],
    ids=["other taps", "one exit", "five exits", "head width", "linear heads", "no dropout"],
)
def test_exits_leave_the_backbone_alone(taps: tuple[str, ...], head: Mapping[str, Any]) -> None:
    (usual,), other = keys("baseline"), net(*taps, head=head)
    assert keys("baseline", other) == [usual]
    for strategy in ("two-stage", "distillation", "pretrained-branch"):
        assert keys(strategy, other)[0] == usual
    assert keys("separate", other)[-1] == usual


@pytest.mark.parametrize(
    ("backbone", "taps"),
    [
        ("digits-cnn", (None, ("blocks.1",), ("blocks.0", "blocks.3"))),
        *long(("resnet18", (None, ("layer1.0", "layer1.1.conv1", "layer3.0")))),
    ],
)
def test_exits_leave_the_trained_backbone_alone_as_well(
    backbone: str, taps: Sequence[tuple[str, ...] | None], tmp_path: Path
) -> None:
    """An equal key promises equal bits: cuts and heads must not change the trunk's arithmetic."""
    shape = SHAPES.get(backbone, (3, 32, 32))
    data = tiny_data(shape, images=48)
    study = tiny_study(["baseline"], backbone)
    trained = []
    for number, names in enumerate(taps):
        plan = tiny_plan(study, data, build(NetSpec(backbone, taps=names), shape, 3, 42))
        store, _ = run_all(plan, tmp_path / str(number))
        (key,) = plan.nodes
        trained.append((key, store.node_weights(key)))
    (key, usual), *others = trained
    for other_key, weights in others:
        assert other_key == key and weights.keys() == usual.keys()
        assert all(torch.equal(weights[name], usual[name]) for name in usual)


def renamed(program: Program) -> Program:
    names = {phase.name: f"another name {i}" for i, phase in enumerate(program)}
    reserved = {None: None, LIVE: LIVE}
    return tuple(replace(p, name=names[p.name], teacher=(names | reserved)[p.teacher]) for p in program)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_names_of_phases_leave_keys_alone(strategy: str) -> None:
    program = STRATEGIES[strategy](4)
    other = resolve(renamed(program), usual_network("digits-cnn"), setting())
    assert [node.key for node in other.nodes] == keys(strategy)


def test_labels_names_and_folders_leave_keys_alone(tmp_path: Path) -> None:
    usual = tiny_plan(tiny_study(["baseline"]))
    labeled = tiny_plan(tiny_study([{"name": "baseline", "as": "mine"}], name="my study"))
    other_name = tiny_plan(tiny_study(["baseline"]), replace(tiny_data(), name="elsewhere"))
    assert list(usual.nodes) == list(labeled.nodes) == list(other_name.nodes)
    (trial,), (other,) = usual.trials, labeled.trials
    assert trial.id != other.id  # a trial is told apart by its label, its nodes are not
    stores = [run_all(usual, tmp_path / folder)[0] for folder in ("here", "there")]
    assert stores[0].nodes() == stores[1].nodes() == sorted(usual.nodes)


def test_later_phases_and_other_strategies_leave_keys_alone() -> None:
    program = STRATEGIES["two-stage"](4)
    alone = [n.key for n in resolve(program[:2], usual_network("digits-cnn"), setting()).nodes]
    assert alone == keys("two-stage")[:2]
    together = tiny_plan(tiny_study(["joint", "two-stage"])).trials[1]
    assert list(together.keys) == list(tiny_plan(tiny_study(["two-stage"])).trials[0].keys)


def test_a_tap_of_another_exit_leaves_a_heads_key_alone() -> None:
    usual, moved = nodes("two-stage"), nodes("two-stage", net("blocks.0", "blocks.2", "blocks.3"))
    assert [n.key for n in moved[:3]] == [n.key for n in usual[:3]]  # backbone, exits 1 and 2
    assert moved[3].key != usual[3].key
    fewer = nodes("two-stage", net("blocks.0", "blocks.2"))
    assert [n.key for n in fewer] == [n.key for n in usual[:3]]


def test_a_tap_in_a_frozen_or_trained_stretch_leaves_the_key_alone() -> None:
    more = net("blocks.0", "blocks.1", "blocks.2", "blocks.4")
    assert keys("two-stage")[3] == keys("two-stage", more)[4]  # the exit at blocks.4
    assert keys("separate")[2] == keys("separate", more)[3]
    assert keys("branch-wise")[1] != keys("branch-wise", more)[2]  # another stretch trains there


def test_a_head_of_equal_weights_on_other_layers_has_another_key() -> None:
    assert not set(keys("two-stage")[1:]) & set(keys("joint-two-stage")[1:])
    assert not set(keys("branch-wise")[1:]) & set(keys("pretrained-branch")[1:])


def test_splits_that_training_does_not_read_leave_keys_alone() -> None:
    data = tiny_data()
    usual = tiny_plan(tiny_study(["two-stage"]))
    for changed in ({"test": other_pixel(data.test)}, {"calibration": other_label(data.calibration)}):
        other = tiny_plan(tiny_study(["two-stage"]), replace(data, **changed))
        assert list(usual.nodes) == list(other.nodes)
        assert usual.trials[0].id != other.trials[0].id  # its logits are of those splits


# What changes every key


def other_pixel(split: Split) -> Split:
    images = split.images.clone()
    images[-1, 0, -1, -1] ^= 1
    return Split(images, split.labels)


def other_label(split: Split) -> Split:
    labels = split.labels.clone()
    labels[0] = (labels[0] + 1) % 3
    return Split(split.images, labels)


def swapped(split: Split) -> Split:
    """The same images in another order: batches would differ."""
    order = torch.arange(len(split))
    order[[0, 1]] = order[[1, 0]]
    return Split(split.images[order], split.labels[order])


DATA_CHANGES: Mapping[str, Callable[[Data], Data]] = {
    "a byte of train": lambda d: replace(d, train=other_pixel(d.train)),
    "a label of train": lambda d: replace(d, train=other_label(d.train)),
    "order of train": lambda d: replace(d, train=swapped(d.train)),
    "a byte of validation": lambda d: replace(d, validation=other_pixel(d.validation)),
    "a label of validation": lambda d: replace(d, validation=other_label(d.validation)),
    "mean": lambda d: replace(d, mean=(d.mean[0] * 1.0001,)),
    "std": lambda d: replace(d, std=(d.std[0] * 1.0001,)),
}


@pytest.mark.parametrize("change", DATA_CHANGES)
def test_data_that_training_reads_is_in_every_key(change: str) -> None:
    usual = tiny_plan(tiny_study(["two-stage", "joint"]))
    other = tiny_plan(tiny_study(["two-stage", "joint"]), DATA_CHANGES[change](tiny_data()))
    assert not set(usual.nodes) & set(other.nodes)


def test_seed_and_network_are_in_every_key() -> None:
    more_classes = build(NetSpec("digits-cnn"), (1, 8, 8), 4, 42)
    larger_images = build(NetSpec("digits-cnn"), (1, 12, 12), 3, 42)
    for strategy in STRATEGIES:
        usual = set(keys(strategy))
        assert not usual & set(keys(strategy, seed=43))
        assert not usual & set(keys(strategy, more_classes))
        assert not usual & set(keys(strategy, larger_images))


def other_value(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, tuple):
        return (*value, 0.9)
    return 7 if value is None else value + 1


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Numerics)])
def test_every_field_of_the_numerics_profile_is_in_every_key(field: str) -> None:
    changed: Any = {field: other_value(getattr(NUMERICS, field))}
    other = keys("two-stage", numerics=replace(NUMERICS, **changed))
    assert not set(keys("two-stage")) & set(other)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Recipe)])
def test_every_field_of_the_recipe_is_in_every_key(field: str) -> None:
    usual = Recipe(epochs=2)
    words = {"optimizer": "adam", "schedule": "cosine", "select": "best", "class_weights": "balanced"}
    words["average"] = "ema"
    names = ("momentum", "step_factor", "label_smoothing", "peak_at", "start_factor", "average_decay")
    shares = dict.fromkeys(names, 0.5)
    value = (words | shares).get(field, other_value(getattr(usual, field)))
    changed: Any = {field: value}
    other = keys("two-stage", recipe=replace(usual, **changed))
    assert not set(keys("two-stage", recipe=usual)) & set(other)


HEAD_FIELDS = {"width": 5, "hidden": 9, "kernel": 1, "dropout": 0.25, "pools": 1, "flatten": True}


@pytest.mark.parametrize("field", HEAD_FIELDS)
def test_a_heads_settings_are_in_its_key(field: str) -> None:
    other = keys("two-stage", net(*TAPS, head={field: HEAD_FIELDS[field]}))
    usual = keys("two-stage")
    assert other[0] == usual[0] and other[1] != usual[1]


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(HeadSpec)])
def test_every_field_of_a_head_is_in_its_key(field: str) -> None:
    """Whatever kind of head reads it."""
    network = net(*TAPS)
    usual = keys("two-stage", network)
    own = inside(network)
    first, *rest = own.facts.early
    spec = first.spec
    values: dict[str, Any] = {"kind": "mlp", "tokens": "class", "layout": "hwc"}
    values |= {"kernel": 1, "dropout": 0.25, "pools": (spec.pools + 1) % 3}
    changed: Any = {field: values.get(field, other_value(getattr(spec, field)))}
    early = (replace(first, spec=replace(spec, **changed)), *rest)
    network._inside = replace(own, facts=replace(own.facts, early=early))
    other = keys("two-stage", network)
    assert [old == new for old, new in zip(usual, other, strict=True)] == [True, False, True, True]


def loss_keys(*programs: Program) -> list[str]:
    return [resolve(p, usual_network("digits-cnn"), setting()).nodes[-1].key for p in programs]


def test_loss_teacher_and_initial_weights_are_in_the_key() -> None:
    first = Phase("first", segments(1, 4) | heads(1, 4), (CE(1), CE(4)))
    second = Phase("second", segments(1, 4), (CE(4),))

    def student(**changes: Any) -> Program:
        usual: dict[str, Any] = {"loss": (CE(1, 0.1), KD(1, 4, 3.0, 0.9)), "teacher": "first"}
        return (first, second, Phase("student", **({"train": head(1)} | usual | changes)))

    every = loss_keys(
        student(),
        student(loss=(CE(1, 0.1), KD(1, 4, 3.0, 0.8))),
        student(loss=(CE(1, 0.2), KD(1, 4, 3.0, 0.9))),
        student(loss=(CE(1, 0.1), KD(1, 4, 2.0, 0.9))),
        student(loss=(CE(1, 0.1), KD(1, 1, 3.0, 0.9))),
        student(teacher="second"),
        student(train=head(1) | segment(1)),
        student(init=((head(1), Init.FRESH),)),
        student(init=((head(1), Init.INITIAL),)),
        student(init=((segment(1), Init.FRESH),)),
    )
    assert len(set(every)) == len(every)
    assert loss_keys(student()) == every[:1]


def test_terms_of_weight_zero_are_not_there() -> None:
    last = STRATEGIES["joint"](4, joint_weights=(0.0, 0.0, 0.0, 1.0))
    assert loss_keys(last) == keys("baseline")


# A network of the user's own


def attached(seed: int) -> ExitNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return attach(DigitsCNN(3, 1), ["blocks.2"], (1, 8, 8))


def test_the_weights_an_attached_network_came_with_are_in_the_key() -> None:
    assert keys("two-stage", attached(1)) == keys("two-stage", attached(1))
    assert not set(keys("two-stage", attached(1))) & set(keys("two-stage", attached(2)))


def test_keys_are_what_they_have_always_been() -> None:
    """In every process: nothing that varies with it, such as a set's order, is in them."""
    hashed = digest([keys(strategy) for strategy in PAPER])
    assert hashed == "ceb6e66c6a94c3526d09a95b17f85ed4ce341380eb3087ebdbdcf6b3f104ca50"


def test_a_field_that_is_younger_than_a_key_leaves_it_alone() -> None:
    """Keys of finished work hold: these are from before there were class weights."""
    assert keys("two-stage")[-1].startswith("99d0e5c6f0461312"), "a new field needs metadata=YOUNGER"
    assert keys("distillation")[-1].startswith("4e23abbb5bae2c98")
    (node, *_) = nodes("two-stage", recipe=Recipe(epochs=2, class_weights="balanced"))
    assert node.reads["recipe"]["class_weights"] == "balanced"
    assert "class_weights" not in nodes("two-stage")[0].reads["recipe"]
    (node, *_) = nodes("two-stage", recipe=Recipe(epochs=2, label_smoothing=0.1))
    assert node.reads["recipe"]["label_smoothing"] == 0.1
    assert "label_smoothing" not in nodes("two-stage")[0].reads["recipe"]


@pytest.mark.parametrize(
    ("value", "defaults"),
    [
        (DataSpec("digits"), {"test": "test", "url": None, "sha256": None, "title": None}),
        (NUMERICS, {"ranks": 1}),
        (HeadSpec(), {"stride": 2, "rows": 0, "columns": 0}),
        (Phase("one", head(1), (CE(1),)), {"rates": ()}),
        (
            Recipe(),
            {
                **{"class_weights": "none", "label_smoothing": 0.0, "decoupled_decay": False},
                **{"norm_weight_decay": None, "norm_bias_rate_scale": 1.0, "peak_at": 0.3},
                **{"start_factor": 0.04, "end_factor": 0.0, "average": "none", "average_every": 5},
                **{"average_decay": 0.9, "average_ramp": 0.0},
            },
        ),
    ],
    ids=("DataSpec", "Numerics", "HeadSpec", "Phase", "Recipe"),
)
def test_the_default_of_a_younger_field_never_changes(value: Any, defaults: dict[str, Any]) -> None:
    """Work of the old default has no word of it in its keys, so it would be taken for the new one's. A
    new field is listed here."""
    younger = [f for f in dataclasses.fields(value) if YOUNGER.items() <= f.metadata.items()]
    assert {f.name: f.default for f in younger} == defaults, "list the field here"
    assert not set(defaults) & set(plain(value))
