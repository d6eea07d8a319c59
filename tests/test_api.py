"""The Python API on a user's own network, data and strategy."""

import copy
import re
import warnings
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Subset

import offramp
from longer import long
from offramp import CE, Augment, OfframpError, OfframpWarning, Phase, Recipe, heads, numerics, segments
from offramp.data_spec import SPLITS
from offramp.engine import fit as engine_fit
from offramp.nets.network import inside, loaded
from offramp.store.store import Store
from offramp.strategies.two_stage import two_stage
from offramp.study.plan import plan as planning
from offramp.study.run.events import Epoch, GroupStarted, Reused
from refusal import refuses
from wording import refusal

RECIPE = {"epochs": 2, "batch_size": 16, "learning_rate": 0.02}


class Net(nn.Module):
    """Nobody's idea of early exits: a plain network with dropout and BatchNorm."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.top = nn.Sequential(nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU())
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(2 * width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.top(self.middle(self.stem(x)))
        return self.out(self.drop(x.mean((2, 3))))  # type: ignore[no-any-return]


class Untraceable(Net):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > -1e9:  # a choice that depends on the data
            return super().forward(x)
        return x


class Listed(nn.Module):
    """As a list of modules has to be: each fed with what the one before gave."""

    def __init__(self, of: Net) -> None:
        super().__init__()
        self.stem, self.middle, self.top = of.stem, of.middle, of.top
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.drop, self.out = of.drop, of.out

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > -1e9:
            x = self.top(self.middle(self.stem(x)))
        return self.out(self.drop(self.pool(x)))  # type: ignore[no-any-return]


class Pictures:
    """A map-style Dataset of PIL images, as one finds them: sizes equal, no tensor in sight."""

    classes = ("dark", "middle", "bright")

    def __init__(self, count: int = 90, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.labels = [i % 3 for i in range(count)]
        noise = generator.integers(0, 80, (count, 12, 12, 3), dtype=np.uint8)
        self.images = [noise[i] + np.uint8(60 * label) for i, label in enumerate(self.labels)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return Image.fromarray(self.images[index]), self.labels[index]


class Tensors(Pictures):
    """The same as uint8 tensors, with labels as torch has them."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image = torch.from_numpy(self.images[index]).permute(2, 0, 1)
        return image, torch.tensor(self.labels[index])


@cache
def usual() -> Any:
    torch.manual_seed(7)
    return offramp.attach(Net(), exits=("stem", "middle"), input_shape=(3, 12, 12), head="linear")


def attached(module: nn.Module | None = None, exits: Any = ("stem", "middle")) -> Any:
    if module is None and exits == ("stem", "middle"):
        return copy.deepcopy(usual())  # it is observed once
    if module is None:
        torch.manual_seed(7)
        module = Net()
    return offramp.attach(module, exits=exits, input_shape=(3, 12, 12), head="linear")


IMAGES = torch.stack([Tensors()[i][0] for i in range(90)])
LABELS = torch.arange(90) % 3


def partly_frozen() -> Net:
    net = Net()
    net.middle.requires_grad_(False)
    return net


def copies(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def unnumbered(text: str) -> str:
    """A text with HASH in the place of hashes, which trials of other weights have others of."""
    return re.sub(r"\b[0-9a-f]{6,}\b", "HASH", text)


def begins(strategy: str = "joint", **given: Any) -> None:
    """That `fit` gets as far as training. It ends there."""

    def stop(_: Any) -> None:
        raise RuntimeError("it trains")

    with pytest.raises(RuntimeError, match="it trains"):
        offramp.fit(attached(), strategy, **given, watch=stop)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def usual_fit(strategy: Any = "joint", **more: Any) -> Any:
    """`fit` of the usual network on a few images. The global generators stay as they are."""
    with torch.random.fork_rng():
        net = attached()
    return offramp.fit(net, strategy, **{"train": Tensors(), "recipe": RECIPE, **more})


# fit


@pytest.mark.parametrize("dataset", [Pictures, *long(Tensors)])
def test_fit_on_a_dataset_of_ones_own(dataset: type[Pictures]) -> None:
    recipe = {"epochs": 8, "batch_size": 16, "optimizer": "adam", "learning_rate": 0.01}
    splits = {"train": dataset(150), "test": dataset(30, seed=1)}
    fitted = usual_fit("two-stage", recipe=recipe, **splits)
    assert list(fitted.accuracy) == [1, 2, 3]
    assert fitted.logits["test"].shape == (30, 3, 3) and len(fitted.logits["test_labels"]) == 30
    right = (fitted.logits["test"].argmax(2) == fitted.logits["test_labels"][:, None]).mean(0)
    assert list(fitted.accuracy.values()) == right.tolist()
    assert max(right) > 0.6  # brightness is easily learned; chance is a third
    assert not any(m.training for m in fitted.net.modules())
    assert set(fitted.history["phase"]) == {"backbone", "exit 1", "exit 2", "final"}
    assert set(fitted.history["strategy"]) == {"two-stage"}


def heads_then_all(exits: int, *, weight: float = 0.5) -> tuple[Phase, ...]:
    everything = segments(1, exits) | heads(1, exits)
    return (
        Phase("heads", train=heads(1, exits), loss=tuple(CE(k) for k in range(1, exits + 1))),
        Phase("all", train=everything, loss=(CE(1, weight=weight), CE(exits))),
    )


def test_a_function_that_is_no_strategy_and_an_option_that_it_lacks(snapshot: SnapshotAssertion) -> None:
    def nothing(exits: int) -> Any:
        return [exits]

    assert refusal(offramp.fit, attached(), nothing, train=Tensors()) == snapshot
    wrong = {"wait": 1}
    assert refusal(offramp.fit, attached(), heads_then_all, Tensors(), options=wrong) == snapshot


def test_a_strategy_of_ones_own_is_a_function() -> None:
    def listed(exits: int) -> list[Phase]:
        return [
            Phase("heads", heads(1, exits), [CE(k) for k in range(1, exits + 1)], recipe={"epochs": 1})
        ]

    about = {"options": {"weight": 0.25}, "augment": Augment(flip=True)}
    fitted = usual_fit(heads_then_all, recipe=Recipe(epochs=1, batch_size=16), **about)
    assert set(fitted.history["strategy"]) == {"heads_then_all"}
    assert set(fitted.history["phase"]) == {"heads", "all", "final"}
    assert offramp.fit(attached(), listed, train=Tensors()).history["epoch"].max() == 1


def test_a_function_s_work_is_that_of_its_phases(tmp_path: Path) -> None:
    def alike(exits: int) -> tuple[Phase, ...]:
        return tuple(replace(phase, name=f"mine {phase.name}") for phase in two_stage(exits))

    usual_fit("two-stage", store=tmp_path)
    events: list[Any] = []
    mine = usual_fit(alike, store=tmp_path, watch=events.append)
    assert not [e for e in events if isinstance(e, GroupStarted)]
    assert set(mine.history["strategy"]) == {"alike"}


def test_a_recipe_as_a_value_and_as_a_mapping_is_the_same_work(tmp_path: Path) -> None:
    events: list[Any] = []
    for recipe in (RECIPE, Recipe(**RECIPE)):  # type: ignore[arg-type]
        usual_fit(recipe=recipe, store=tmp_path, watch=events.append)
    assert len([e for e in events if isinstance(e, GroupStarted)]) == 1


def test_pictures_and_tensors_of_the_same_pixels_give_the_same_bits() -> None:
    nets = [usual_fit("baseline", train=images()).net for images in (Pictures, Tensors)]
    assert equal(nets[0].state_dict(), nets[1].state_dict())


@pytest.mark.parametrize("strategy", ["separate", *long("joint", "joint-two-stage")])
def test_fit_leaves_the_network_alone_and_starts_from_its_weights(strategy: str) -> None:
    module = Net()
    module.stem.eval()
    before, modes = copies(module), [m.training for m in module.modules()]
    net = attached(module)
    net.train()
    net.backbone.stem.eval()
    kept, its = copies(net), [m.training for m in net.modules()]
    fitted = offramp.fit(net, strategy, train=Tensors(), recipe=RECIPE)
    assert equal(copies(net), kept) and [m.training for m in net.modules()] == its
    assert equal(copies(module), before) and [m.training for m in module.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not equal(copies(fitted.net), kept)
    slow = offramp.fit(net, strategy, train=Tensors(), recipe=RECIPE | {"learning_rate": 1e-12})
    name = "out.weight"  # from where it was given, not from a draw
    assert torch.allclose(slow.net.state_dict()[name], before[name], atol=1e-6)


def test_a_checkpoint_in_a_network_with_a_name_is_not_lost_in_silence(
    snapshot: SnapshotAssertion,
) -> None:
    net = offramp.attach("digits-cnn", ["blocks.0"], (1, 8, 8), classes=3)
    state = net.state_dict()
    net.load_state_dict({key: state[key] for key in net.head_keys}, strict=False)
    assert not loaded(net)  # heads begin anew in any case
    net.load_state_dict(state)
    assert refusal(offramp.fit, copy.deepcopy(net), "two-stage", train=None) == snapshot
    at_hand = attached()
    at_hand.load_state_dict(at_hand.state_dict())
    assert refusal(offramp.fit, at_hand, "two-stage", train=None) == snapshot


def test_fit_is_reproducible_and_leaves_the_global_generators_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    state, numbers = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    threads = torch.get_num_threads()
    one = usual_fit()
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numbers)  # type: ignore[index]
    assert torch.get_num_threads() == threads and not torch.are_deterministic_algorithms_enabled()
    torch.manual_seed(2)
    other = usual_fit()
    assert equal(one.net.state_dict(), other.net.state_dict())
    assert all(np.array_equal(one.logits[k], other.logits[k]) for k in one.logits)
    third = usual_fit(seed=43)
    assert not equal(one.net.state_dict(), third.net.state_dict())


def test_a_fit_on_more_cores_repeats_itself_and_says_what_it_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(planning, "computing_cores", lambda: 3)
    monkeypatch.setattr(numerics, "THREAD_MACS", 1.0)  # as if the network were a large one
    one, other, exact = (
        usual_fit(store=tmp_path / name, numerics=of)
        for name, of in (("one", "fast"), ("other", "fast"), ("exact", "exact"))
    )
    assert equal(one.net.state_dict(), other.net.state_dict())
    keys = [set(Store(tmp_path / name).nodes()) for name in ("one", "other", "exact")]
    assert keys[0] == keys[1] and not keys[0] & keys[2]
    used = [fitted._manifest.numerics for fitted in (one, other, exact)]
    assert [(each.threads, each.deterministic) for each in used] == [(3, True), (3, True), (2, True)]


def test_a_fit_that_fails_puts_torchs_settings_back_at_once() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(OfframpError) as caught:
        usual_fit(recipe=RECIPE | {"learning_rate": 3e38})
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert "'joint' is not finite at epoch" in str(caught.value)  # who keeps it keeps no run alive


def test_a_watcher_that_raises_ends_the_run_at_once(tmp_path: Path) -> None:
    def watch(event: Any) -> None:
        if isinstance(event, Epoch):
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough") as caught:
        usual_fit(store=tmp_path, watch=watch)
    assert not torch.are_deterministic_algorithms_enabled() and caught.value
    events: list[Any] = []
    usual_fit(store=tmp_path, watch=events.append)
    assert isinstance(events[0], GroupStarted)  # no lock is held


def test_a_watcher_reads_words_and_few_images_are_warned_of(snapshot: SnapshotAssertion) -> None:
    told: list[str] = []

    def watch(event: Any) -> None:
        told.append(str(event))

    with pytest.warns(OfframpWarning) as heard:
        usual_fit(watch=watch)
    assert {Path(one.filename) for one in heard} == {Path(__file__)}  # where it was called from
    assert [str(one.message) for one in heard] == snapshot
    words = [line.partition(" ")[0] for line in told]
    assert words == ["joint"] * 4 + [told[-1].partition(" ")[0]] and told[-1].startswith("joint-")


def test_labels_that_are_names_have_the_order_of_a_kept_backbone(snapshot: SnapshotAssertion) -> None:
    class Named(Pictures):
        def __getitem__(self, index: int) -> tuple[Any, Any]:
            image, label = super().__getitem__(index)
            return image, ("dark", "middle", "bright")[label]

    class Nameless(Named):
        classes = ()  # type: ignore[assignment]

    def warned(train: Any, **options: str) -> list[str]:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            begins("two-stage", train=train, options=options)
        return [str(one.message) for one in heard if "alphabet" in str(one.message)]

    assert warned(Nameless(), backbone="kept") == snapshot
    assert not warned(Named(), backbone="kept") and not warned(Nameless())
    assert not warned((IMAGES, LABELS), backbone="kept")


def test_images_that_are_enough_are_not_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        begins(**{name: Tensors(102, seed=n) for n, name in enumerate(SPLITS, 1)})


def test_fit_with_a_store_finds_its_work_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = usual_fit("two-stage", store=tmp_path)
    monkeypatch.setattr(engine_fit, "step", None)
    events: list[Any] = []
    again = usual_fit("two-stage", store=tmp_path, watch=events.append)
    assert not [e for e in events if isinstance(e, GroupStarted)]
    assert len([e for e in events if isinstance(e, Reused)]) == 3
    assert equal(first.net.state_dict(), again.net.state_dict())
    assert first.accuracy == again.accuracy


def test_names_of_classes_that_were_corrected_are_the_ones_in_use(tmp_path: Path) -> None:
    class Corrected(Tensors):
        classes = ("night", "dusk", "day")

    first = usual_fit("baseline", store=tmp_path)
    again = usual_fit("baseline", train=Corrected(), store=tmp_path)
    assert first.trial == again.trial
    assert Store(tmp_path).read_trial(again.trial).classes == Corrected.classes
    assert again._trained.classes == Corrected.classes  # what bundles are labeled with


def test_other_weights_of_the_same_network_are_other_work(tmp_path: Path) -> None:
    torch.manual_seed(8)
    nets = [attached(), attached(Net())]
    for net in nets:
        events: list[Any] = []
        offramp.fit(net, "baseline", train=Tensors(), recipe=RECIPE, store=tmp_path, watch=events.append)
        assert [e for e in events if isinstance(e, GroupStarted)]


def test_a_network_that_cannot_be_traced_is_cut_by_lists_of_names() -> None:
    refuses("trace", attached, Untraceable())
    with torch.random.fork_rng():
        torch.manual_seed(7)
        by_names = Listed(Untraceable())
    net = attached(by_names, exits=[["stem"], ["middle"], ["top", "pool"], ["drop", "out"]])
    assert net.exits == 3
    fitted = offramp.fit(net, "two-stage", train=Tensors(), recipe=RECIPE)
    traced = usual_fit("two-stage")
    assert list(fitted.accuracy) == [1, 2, 3]
    mine, theirs = (
        inside(fitted.net).trunks[0].module.state_dict(),
        inside(traced.net).trunks[0].module.state_dict(),
    )
    assert all(torch.allclose(mine[name], theirs[name], rtol=1e-3, atol=1e-4) for name in theirs)


def test_taps_by_number_and_splits_by_hand() -> None:
    net = attached(exits=2)
    assert net.exits == 3
    fitted = offramp.fit(
        net,
        "joint",
        train=Tensors(40),
        validation=Tensors(9, seed=1),
        calibration=Tensors(6, seed=2),
        test=Tensors(12, seed=3),
        recipe=RECIPE,
        options={"joint_weights": "uniform"},
    )
    sizes = {split: len(fitted.logits[split]) for split in ("validation", "calibration", "test")}
    assert sizes == {"validation": 9, "calibration": 6, "test": 12}


@pytest.mark.parametrize("names", [*combinations(SPLITS, 2)])
def test_no_split_is_another_one(names: tuple[str, str]) -> None:
    """What is promised on training images holds for no new one."""
    one, other = names
    given: dict[str, Any] = {"train": Tensors(300)} | {name: Tensors(60, seed=4) for name in names}
    refuses(rf"60 of the 60 {other} images are in {one} too.*give others", usual_fit, **given)
    given[other] = Subset(given[one], range(30))
    refuses(rf"30 of the 30 {other} images are in {one} too", usual_fit, **given)


def test_a_few_images_that_two_splits_show_are_no_mistake() -> None:
    test: Any = ConcatDataset([Subset(Tensors(), range(14)), Tensors(15, seed=2)])
    begins(train=Tensors(), test=test)


REFUSED: dict[str, dict[str, Any]] = {
    "strategy": {"strategy": "jiont"},
    "key of a recipe": {"recipe": {"epoch": 3}},
    "no epochs": {"recipe": {"epochs": 0}},
    "long warm-up": {"recipe": Recipe(epochs=1, warmup_epochs=5)},
    "option": {"options": {"weights": 1}},
    "samples that are numbers": {"train": [1, 2]},
    "a number of samples": {"train": 3},
    "one label": {"train": (IMAGES, 5)},
    "channels last": {"train": (IMAGES.permute(0, 2, 3, 1), LABELS)},
    "a mean for all channels": {"normalize": (0.5, 0.25)},
    "a number to normalize by": {"normalize": 0.5},
    "a mean of pixels": {"normalize": ((124, 116, 104), (58, 57, 57))},
    "no mean": {"normalize": ((), ())},
    "pixels to 1": {"train": (IMAGES / 255, LABELS)},
    "dark pixels": {"train": (IMAGES / 255 / 255, LABELS)},
    "pixels to 255": {"train": (IMAGES.float(), LABELS)},
    "a module": {"net": Net()},
    "doubles": {"net": attached().double()},
    "a frozen network": {"net": attached(Net().requires_grad_(False))},
    "a network frozen in part": {"net": attached(partly_frozen())},
    "no strategy": {"strategy": None},
    "name of a normalization": {"normalize": "imgenet"},
    "a deviation of 0": {"normalize": ([0.5] * 3, [0, 1, 1])},
    "another number of channels": {"normalize": ([0.5], [0.5])},
    "a seed below 0": {"seed": -1},
}


@pytest.mark.parametrize("more", REFUSED.values(), ids=REFUSED)
def test_what_fit_cannot_do(more: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    given = {"net": attached(), "strategy": "joint", "train": Tensors(), "recipe": RECIPE}
    assert refusal(offramp.fit, **{**given, **more}) == snapshot


OWN = ([0.5, 0.4, 0.3], [0.25, 0.2, 1])


@pytest.mark.parametrize(
    ("asked", "mean", "std"),
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (OWN, (0.5, 0.4, 0.3), (0.25, 0.2, 1)),
        ((np.float32([0.5, 0.25, 0]), torch.ones(3)), (0.5, 0.25, 0), (1, 1, 1)),
    ],
)
def test_heads_alone_train_on_a_frozen_backbone_with_the_pixels_that_it_knows(
    asked: Any, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    net = attached(Net().requires_grad_(False))
    about = {"recipe": {"epochs": 1}, "options": {"backbone": "kept"}, "normalize": asked}
    fitted = offramp.fit(net, "two-stage", (IMAGES, LABELS), **about)
    assert equal(copies(fitted.net.backbone), copies(net.backbone))
    assert fitted.mean == mean and fitted.std == std
    seen = fitted.normalize(IMAGES[:2]).cpu()
    by_hand = (IMAGES[:2] / 255 - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(seen, by_hand)


class Held(Net):
    """Whose stem never learns."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.stem(x)
        return self.out(self.drop(self.top(self.middle(x)).mean((2, 3))))  # type: ignore[no-any-return]


def test_what_would_learn_something_else_in_pieces_is_not_trained(snapshot: SnapshotAssertion) -> None:
    net = attached(Held())
    data = IMAGES, LABELS
    assert refusal(offramp.fit, net, "joint", data) == snapshot
    fitted = offramp.fit(net, "two-stage", data, recipe={"epochs": 1}, options={"backbone": "kept"})
    assert equal(copies(fitted.net.backbone), copies(net.backbone))


def test_images_and_classes_must_be_the_networks(snapshot: SnapshotAssertion) -> None:
    small = offramp.attach(Net(), ["stem"], (3, 16, 16), head="linear")
    assert refusal(offramp.fit, small, "joint", train=(IMAGES, LABELS)) == snapshot
    module = Net()
    module.out = nn.Linear(16, 5)
    assert refusal(offramp.fit, attached(module), "joint", train=Tensors()) == snapshot


def test_a_trial_of_an_attached_network_says_why_it_cannot_be_loaded(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    usual_fit("baseline", store=tmp_path)
    assert unnumbered(refusal(offramp.load, "baseline", store=tmp_path)) == snapshot


def test_a_trial_of_an_attached_network_is_loaded_into_one_attached_alike(tmp_path: Path) -> None:
    for strategy in ("joint", "separate"):
        fitted = usual_fit(strategy, store=tmp_path)
        net = attached()
        before = copies(net)
        loaded = offramp.load(strategy, store=tmp_path, net=net)
        assert equal(loaded.state_dict(), fitted.net.state_dict()) and equal(copies(net), before)
        assert not loaded.training


@pytest.fixture(scope="module")
def joint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a trial of `joint`; treat it as read-only."""
    store = tmp_path_factory.mktemp("joint")
    usual_fit(store=store)
    return store


@pytest.mark.parametrize("other", ["weights", "taps", "head"])
def test_a_trial_is_not_loaded_into_another_network(
    joint: Path, other: str, snapshot: SnapshotAssertion
) -> None:
    torch.manual_seed(7)
    nets = {
        "weights": lambda: attached(Net().requires_grad_(False).double().float().apply(shifted)),
        "taps": lambda: attached(exits=("stem.0", "middle")),
        "head": lambda: offramp.attach(Net(), ["stem", "middle"], (3, 12, 12), head="paper"),
    }
    assert unnumbered(refusal(offramp.load, "joint", store=joint, net=nets[other]())) == snapshot


def test_a_registered_network_is_recorded_with_the_stem_that_it_has(tmp_path: Path) -> None:
    """A study gives it the stem that fits its images, `attach` that of ImageNet."""
    net = offramp.attach("mobilenetv1", 1, (3, 32, 32), classes=3, head="linear")
    images = torch.randint(256, (30, 3, 32, 32), dtype=torch.uint8)
    recipe = {"epochs": 1, "batch_size": 16}
    fitted = offramp.fit(net, "two-stage", (images, LABELS[:30]), recipe=recipe, store=tmp_path)
    loaded = offramp.load(fitted.trial, store=tmp_path)
    assert equal(copies(loaded), copies(fitted.net))


def shifted(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        parameter.add_(0.01)


def test_pixels_are_normalized_as_in_training(snapshot: SnapshotAssertion) -> None:
    test = Tensors(30, seed=1)
    fitted = usual_fit(test=test)
    images = torch.stack([test[i][0] for i in range(len(test))])
    pixels = fitted.normalize(images)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (fitted.mean, fitted.std))
    assert torch.allclose(pixels, (images / 255 - mean) / std, atol=1e-5)
    with torch.no_grad():
        logits = torch.stack(fitted.net(pixels), dim=1).numpy()
    np.testing.assert_allclose(logits, fitted.logits["test"], rtol=1e-4, atol=1e-5)
    wrong = (images.float(), images[0], images[:, :1])
    assert [refusal(fitted.normalize, each) for each in wrong] == snapshot


def test_float_images_are_taken_as_normalized(snapshot: SnapshotAssertion) -> None:
    fitted = usual_fit(train=(IMAGES / 100, LABELS))
    assert fitted.mean == (0, 0, 0) and fitted.std == (1, 1, 1)
    pixels = torch.zeros(1, 3, 12, 12, dtype=torch.uint8)
    assert refusal(fitted.normalize, pixels) == snapshot
