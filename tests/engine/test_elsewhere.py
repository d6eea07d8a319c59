"""The engine on a device that holds no numbers: torch's `meta`, which stands for a GPU.

An operation on tensors of two devices fails there, and so does whatever asks for a number: what gets
through a step neither mixes devices nor waits for one.
"""

import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fit_runs import USUAL, as_drawn, program_nodes, unlike
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from longer import long
from offramp.augment import Augment
from offramp.data import Data
from offramp.device import widest
from offramp.engine import fit as fitting
from offramp.engine import images as images_module
from offramp.engine import tally
from offramp.engine.cache import Cache
from offramp.engine.fit import evaluate, fit
from offramp.engine.images import Images
from offramp.engine.passes import Derived, Pass, Plain
from offramp.engine.ranks import ALONE, Ranks
from offramp.engine.resolve import Node
from offramp.engine.trainee import Trainee, enroll, pack
from offramp.engine.weights import Weights
from support import network, tiny_data

META = torch.device("meta")
RECIPES = {
    "sgd": replace(USUAL, class_weights="balanced", label_smoothing=0.1),
    "adamw": replace(USUAL, optimizer="adamw", schedule="cosine"),
    "lookahead": replace(USUAL, average="lookahead", average_every=2, decoupled_decay=True),
}


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done once, before training or after an epoch, may wait."""
    monkeypatch.setattr(fitting.devices, "synchronize", lambda _: None)
    monkeypatch.setattr(Data, "__post_init__", lambda _: None)


@pytest.fixture
def two_ranks() -> Iterator[Ranks]:
    """Rank 0 of two, of which the other one is not there: torch's `fake` group moves nothing."""
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    yield Ranks(0, 2)
    dist.destroy_process_group()


def begun(
    node: Node, folder: Path, mode: str, ranks: Ranks = ALONE, augment: Augment | None = None
) -> tuple[Trainee, Pass, Images]:
    """A phase on `meta`; what it starts from is drawn, whichever phase would have made it."""
    data: Data = replace(tiny_data(), augment=augment)
    images = Images(data, META, ranks=ranks)
    weights = Weights(network("digits-cnn"), node.seed, as_drawn, META)
    trainee = enroll(node, weights, False)  # no fused kernel is made for meta
    if mode == "plain":
        return trainee, Plain(images, [node], weights, 64), images
    cache = Cache(2**30, 0, folder)
    return trainee, Derived(images, [node], weights, 64, cache), images


def ended_in(trainee: Trainee, passes: Pass, images: Images) -> list[str]:
    """The functions at whose end an epoch asked for its first number."""
    with pytest.raises((NotImplementedError, RuntimeError), match="meta") as caught:
        list(fit([trainee], passes, images, trainee.node.recipe.batch_size))
    return [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


# Of each kind of loss, of frozen value and of gradient one.
KINDS = (
    *("joint", "two-stage", "distillation", "branch-wise", "self-distillation", "exit-ensemble"),
    *("confidence-gated", "survivors", "gradient-equilibrium", "boosted", "cascade"),
)


@pytest.mark.parametrize(
    ("strategy", "mode"),
    [
        *((s, "derived") for s in KINDS),
        ("distillation", "plain"),
        *long(("joint", "plain"), ("boosted", "plain")),
    ],
)
def test_an_epoch_waits_for_the_device_at_its_end_alone(
    strategy: str, mode: str, tmp_path: Path
) -> None:
    for node in unlike(program_nodes(strategy)):
        trainee, passes, images = begun(node, tmp_path, mode)
        assert "_close_epoch" in ended_in(trainee, passes, images)
        assert trainee.tally is not None and trainee.tally.images == images.count("train")
        tensors, _ = pack(trainee)
        # Adam and SGD count on the host; all else is on the device.
        assert {t.device.type for t in tensors.values() if t.dim()} == {"meta"}


@pytest.mark.parametrize("recipe", ["lookahead", *long("sgd", "adamw")])
def test_recipes_do_not_wait_either(recipe: str, tmp_path: Path) -> None:
    augment = Augment(flip=True, crop=1, jitter=0.1)
    for node in unlike(program_nodes("distillation", RECIPES[recipe])):
        trainee, passes, images = begun(node, tmp_path, "derived", augment=augment)
        assert "_close_epoch" in ended_in(trainee, passes, images)


@pytest.mark.parametrize("strategy", ["distillation", *long("joint", "two-stage")])
def test_ranks_do_not_wait_for_the_device(strategy: str, tmp_path: Path, two_ranks: Ranks) -> None:
    for node in unlike(program_nodes(strategy)):
        trainee, passes, images = begun(node, tmp_path, "derived", two_ranks)
        assert "_close_epoch" in ended_in(trainee, passes, images)
        assert trainee.tally is not None and trainee.tally.images == images.count("train")


@pytest.mark.parametrize(
    ("patched", "wrong"),
    [
        ("labels", lambda *args: torch.zeros(len(args[2]), dtype=torch.int64)),
        ("class_weights", lambda *_: torch.ones(3)),
        ("read", lambda *args: torch.zeros(len(args[2]), 1, 8, 8)),
    ],
)
def test_what_lies_on_another_device_is_found(
    patched: str, wrong: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: labels, weights of classes or images that stayed on the CPU end the first step."""
    monkeypatch.setattr(Images, patched, wrong)
    node = program_nodes("joint", RECIPES["sgd"])[0]
    trainee, passes, images = begun(node, tmp_path, "plain")
    assert "_train_epoch" in ended_in(trainee, passes, images)


def test_a_step_that_asks_for_a_number_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = fitting.step

    def curious(*args: Any) -> Tensor:
        sums = step(*args)
        print(float(sums[0]))
        return sums

    monkeypatch.setattr(fitting, "step", curious)
    trainee, passes, images = begun(program_nodes("joint")[0], tmp_path, "plain")
    assert "curious" in ended_in(trainee, passes, images)


class Typed(TorchDispatchMode):
    """Notes what comes to lie on the device in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        answer = function(*args, **(kwargs or {}))
        for value in tree_leaves(answer):
            if isinstance(value, Tensor) and value.is_meta and value.dtype == torch.float64:
                self.names.append(str(function))
        return answer


@pytest.mark.parametrize("strategy", ["distillation", *long("joint", "boosted")])
def test_a_device_without_float64_is_spared_it(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU of a Mac has none. The control: elsewhere sums and draws are in it."""
    node = program_nodes(strategy, RECIPES["sgd"])[-1]
    wide = []
    for device in (META, torch.device("mps")):
        for module in (tally, images_module):
            monkeypatch.setattr(module, "widest", lambda _, device=device: widest(device))
        augment = Augment(flip=True, crop=1, jitter=0.1)
        trainee, passes, images = begun(node, tmp_path, "derived", augment=augment)
        with Typed() as seen:
            ended_in(trainee, passes, images)
        wide.append(seen.names)
    assert wide[0] and not wide[1]


def test_evaluation_asks_for_nothing(tmp_path: Path) -> None:
    trainee, passes, images = begun(program_nodes("joint")[0], tmp_path, "plain")
    tallies = evaluate([trainee], passes, images, "validation", 16)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        tallies[trainee.node.key].read()
