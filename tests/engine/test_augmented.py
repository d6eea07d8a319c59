"""Training on augmented images: who sees them, and that no arrangement of the work changes a bit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fit_runs import USUAL as RUNS
from fit_runs import begin, derived, program_nodes
from test_execution import differences, finished
from torch import Tensor

from longer import long
from offramp.augment import Augment, View
from offramp.data import Data
from offramp.engine.cache import Cache
from offramp.engine.cost import live_macs, value_bytes, work
from offramp.engine.fit import conclude, fit
from offramp.engine.passes import Images, Plain
from offramp.engine.resolve import Setting, resolve
from offramp.engine.settings import applied
from offramp.parts import Part
from offramp.recipe import Recipe
from offramp.store.store import Store
from offramp.strategies import STRATEGIES
from offramp.study.plan.plan import Plan, data_identity
from support import CPU, NUMERICS, network, run_all, tiny_data, tiny_plan, tiny_study

# Everything at once, segments on frozen ones, heads on a frozen trunk, with a teacher and without.
SOME = ("joint", "branch-wise", "two-stage", "distillation")
USUAL: Mapping[str, Any] = {"flip": True, "crop": 1, "jitter": 0.1}
VIEWS: Mapping[str, Any] = {**USUAL, "views": 2}

ARRANGEMENTS: Mapping[str, Mapping[str, Any]] = {
    "as it comes": {},
    "neither cache nor fusing": {"cache": False, "fuse": False},
    "room for some values": {"cache_memory": 40_000, "cache_disk": 0},
    "cache on disk": {"cache_memory": 0},
}


def plan_of(
    augment: Mapping[str, Any] | None, mode: str, strategies: Sequence[str] = SOME, **more: Any
) -> Plan:
    extra = {} if augment is None else {"augment": augment}
    recipe = {"epochs": 3}
    study = tiny_study(strategies, recipe=recipe, execution={"mode": mode, **more}, **extra)
    return tiny_plan(study, tiny_data(images=75))


PlanAndStore = tuple[Plan, Store]
Oracles = Callable[..., PlanAndStore]


@pytest.fixture(scope="module")
def oracles(tmp_path_factory: pytest.TempPathFactory) -> Oracles:
    """`oracles("fresh", strategies)`, or `"views"`: plain execution, once."""

    @cache
    def oracle(name: str, strategies: tuple[str, ...] = SOME) -> PlanAndStore:
        plan = plan_of({"fresh": USUAL, "views": VIEWS}[name], "plain", strategies)
        return plan, finished(plan, tmp_path_factory.mktemp(name))[0]

    return oracle


@pytest.mark.parametrize(
    ("name", "arrangement"),
    [
        ("views", "as it comes"),  # without views, the others too: test_execution
        *long(*(("views", arrangement) for arrangement in ARRANGEMENTS if arrangement != "as it comes")),
        *long(*(("fresh", arrangement) for arrangement in ARRANGEMENTS)),
    ],
)
def test_no_arrangement_changes_a_bit(
    name: str, arrangement: str, oracles: Oracles, tmp_path: Path
) -> None:
    augment = {"fresh": USUAL, "views": VIEWS}[name]
    plan = plan_of(augment, "derived", **ARRANGEMENTS[arrangement])
    assert not differences(oracles(name), (plan, finished(plan, tmp_path)[0]))


FEW = ("joint", "two-stage")
"""Everything at once, and heads on a frozen trunk."""
BOTH = pytest.mark.parametrize("strategies", [FEW, *long((SOME,))])


@BOTH
def test_it_would_be_found(
    strategies: tuple[str, ...], oracles: Oracles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Derived execution that takes the values of another epoch for this one's."""
    get = Cache.get

    def stale(self: Cache, key: Any) -> Any:
        value, split, view, batch = key
        cached = get(self, key)
        return cached if view is None or cached else get(self, (value, split, None, batch))

    oracle = oracles("fresh", strategies)
    monkeypatch.setattr(Cache, "get", stale)
    plan = plan_of(USUAL, "derived", strategies)
    changed = differences(oracle, (plan, finished(plan, tmp_path)[0]))
    wrong = {line.partition(":")[0] for line in changed}
    assert wrong == {*strategies} - {"joint"}


@BOTH
def test_augmentation_changes_what_is_learned(
    strategies: tuple[str, ...], oracles: Oracles, tmp_path: Path
) -> None:
    plan = plan_of(None, "plain", strategies)
    plain = plan, finished(plan, tmp_path)[0]
    fresh, views = oracles("fresh", strategies), oracles("views")
    for some, others in ((plain, fresh), (plain, views), (fresh, views)):  # views are of more strategies
        changed = {line.partition(":")[0] for line in differences(others, some)}
        assert changed == set(strategies)


@BOTH
def test_more_views_than_epochs_are_fresh_views(
    strategies: tuple[str, ...], oracles: Oracles, tmp_path: Path
) -> None:
    plan = plan_of({**USUAL, "views": 3}, "derived", strategies)
    assert not differences(oracles("fresh", strategies), (plan, finished(plan, tmp_path)[0]))


# Who sees them


class Recorded(Images):
    """Images that write down what is read, and what it looked like."""

    def __init__(self, data: Data) -> None:
        super().__init__(data, CPU)
        self.seen: list[tuple[str, View | None, bool]] = []

    def read(self, split: str, rows: Tensor, view: View | None = None) -> Tensor:
        images = super().read(split, rows, view)
        as_they_are = torch.equal(images, super().read(split, rows, None))
        self.seen.append((split, view, as_they_are))
        return images


def watched(kind: str, augment: Augment, cache: Cache | None = None) -> Recorded:
    """A phase of one head on a frozen trunk, from its beginning to its closing evaluation."""
    images, recipe = Recorded(replace(tiny_data(), augment=augment)), replace(RUNS, epochs=4)
    (joint,) = program_nodes("joint", recipe)  # whose parts are all as they were drawn
    node = program_nodes("two-stage", recipe)[1]
    node = replace(node, start={part: joint.start[part] for part in node.start})
    passing = Plain if kind == "plain" else partial(derived, cache=cache)
    with applied(NUMERICS):
        trainee, passes, _ = begin(node, images=images, passing=passing)
        list(fit([trainee], passes, images, 16))
        conclude(trainee, passes, images, 16)
    return images


@pytest.mark.parametrize("kind", ["plain", "derived"])
def test_only_training_passes_see_augmented_images(kind: str) -> None:
    images = watched(kind, Augment(flip=True, crop=2))
    for split, view, as_they_are in images.seen:
        assert as_they_are == (view is None)
        assert view is None or split == "train"
    numbers = [view.number for _, view, _ in images.seen if view is not None]
    batches = -(-images.count("train") // 16)
    assert numbers == [epoch for epoch in range(4) for _ in range(batches)]
    assert {view.seed for _, view, _ in images.seen if view is not None} == {42}
    # Validation, and the training split once more at the end, are read as they are.
    assert {split for split, view, _ in images.seen if view is None} == {"train", "validation"}


def test_reading_validation_with_a_view_would_be_seen() -> None:
    images = Recorded(replace(tiny_data(), augment=Augment(flip=True)))
    images.read("validation", torch.arange(16), View(42, 0))
    assert images.seen == [("validation", View(42, 0), False)]


def test_fresh_views_are_read_every_epoch_and_all_else_once(tmp_path: Path) -> None:
    images = watched("derived", Augment(flip=True), Cache(2**30, 0, tmp_path))
    pieces = -(-images.count("train") // 64)
    batches = -(-images.count("train") // 16)
    seen = [(split, view and view.number) for split, view, _ in images.seen]
    assert [s for s in seen if s[1] is None] == [
        *[("validation", None)] * -(-images.count("validation") // 64),
        *[("train", None)] * pieces,
    ]
    fresh = [number for _, number in seen if number is not None]
    assert fresh == [epoch for epoch in range(4) for _ in range(batches)]


def test_fixed_views_are_read_once_each(tmp_path: Path) -> None:
    images = watched("derived", Augment(flip=True, views=2), Cache(2**30, 0, tmp_path))
    pieces = -(-images.count("train") // 64)
    seen = [(split, view and view.number) for split, view, _ in images.seen if split == "train"]
    assert seen == [("train", number) for number in (0, 1, None) for _ in range(pieces)]


# Keys and costs


def test_augmentation_is_in_every_key_and_absence_of_it_in_none() -> None:
    usual = tiny_plan(tiny_study())
    augments: list[Mapping[str, Any]] = [USUAL, VIEWS, {"flip": True}, {"crop": 4}, {"rotate": 5}]
    keys = [set(tiny_plan(tiny_study(augment=augment)).nodes) for augment in augments]
    everything = [set(usual.nodes), *keys]
    assert len(set().union(*everything)) == sum(map(len, everything))
    assert "augment" not in data_identity(tiny_data())


def test_a_field_at_its_default_leaves_the_key_alone() -> None:
    short = tiny_plan(tiny_study(augment={"flip": True}))
    long = tiny_plan(tiny_study(augment={"flip": True, "crop": 0, "jitter": 0.0, "views": None}))
    assert list(short.nodes) == list(long.nodes)


@pytest.mark.parametrize(
    ("augment", "executed", "cached"),
    [
        (None, 120, 120),
        (Augment(flip=True), 5 * 100 + 120, 120),
        (Augment(flip=True, views=2), 2 * 100 + 120, 2 * 100 + 120),
        (Augment(flip=True, views=9), 5 * 100 + 120, 120),
    ],
)
def test_views_pass_the_frozen_layers_once_each(
    augment: Augment | None, executed: int, cached: int
) -> None:
    setting = Setting({}, Recipe(epochs=5), NUMERICS, seed=42)
    net = network("digits-cnn")
    node = resolve(STRATEGIES["branch-wise"](4), net, setting).nodes[2]
    sizes, counts = value_bytes(net), {"train": 100, "validation": 20}
    nothing = work(node, net, {"train": 0, "validation": 0}, sizes)
    cost = work(node, net, counts, sizes, augment)
    usual = work(node, net, counts, sizes)
    below = sum(net.macs(Part("segment", i)) for i in (1, 2))
    assert nothing.executed == 0 and cost.written == usual.written
    assert cost.executed - usual.executed == below * (executed - 120)
    assert cost.cache_bytes * 120 == usual.cache_bytes * cached


@pytest.mark.parametrize("augment", [VIEWS, *long(USUAL)])
def test_what_was_executed_is_what_was_forecast(augment: Mapping[str, Any], tmp_path: Path) -> None:
    plan = tiny_plan(tiny_study(["branch-wise"], recipe={"epochs": 4}, augment=augment))
    store, _ = run_all(plan, tmp_path)
    node = list(plan.nodes.values())[1]  # those after it find its frozen values in the cache
    summary = store.read_node(node.key).summary
    counts = {name: len(getattr(plan.data, name)) for name in ("train", "validation")}
    closings = len({summary.best_epoch, summary.epochs})  # one is forecast
    more = live_macs(node, plan.net, counts, 4, closings) - live_macs(node, plan.net, counts, 4, 1)
    assert store.node_cost(node.key).macs_executed == plan.work[node.key].executed + more


def test_a_trial_says_how_its_images_were_augmented(tmp_path: Path) -> None:
    from offramp.store.table import tidy

    plan = tiny_plan(tiny_study(["baseline"], augment=VIEWS))
    store, _ = run_all(plan, tmp_path)
    manifest = store.read_trial(plan.trials[0].id)
    assert manifest.data.augment is not None
    assert manifest.data.augment.as_json() == {**VIEWS, "label": "crop 1, flip, jitter 0.1, 2 views"}
    labels = set(tidy(store, [plan.trials[0].id])["data"])
    assert labels == {f"{plan.data.name} (crop 1, flip, jitter 0.1, 2 views)"}
