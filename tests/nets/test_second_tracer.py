"""Networks that fx does not follow: choices by size, images by name, several outputs, and others."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
import torchvision
from network_kit import places
from partition_cases import draws_by_its_clock, images, run, train, trains_as
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

from offramp.nets import attach
from offramp.nets.cut.calling import call_style
from offramp.nets.cut.partition import cut
from offramp.nets.network import inside
from wording import refusal

IMAGE = (3, 12, 12)


class Block(nn.Module):
    """What it does depends on the size of its map; it drops, normalizes and writes in place."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.drop, self.relu = nn.Dropout(0.3), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > 4:
            x = x * 1.5
        return self.relu(self.drop(self.bn(self.conv(x))) + x)


class Sized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.b1, self.b2, self.fc = nn.Conv2d(3, 4, 3), Block(), Block(), nn.Linear(4, 5)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.b2(self.b1(self.stem(x)))
        if x.shape[-1] % 2:
            raise ValueError("odd")
        return self.fc(x.reshape(x.shape[0], 4, -1).mean(-1) * self.scale + torch.arange(4.0))


class Noisy(Sized):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 + torch.rand(1))


def test_a_buffer_that_a_forward_sets_and_the_trace_forgets_is_refused(
    snapshot: SnapshotAssertion,
) -> None:
    class Moved(Sized):
        def forward(self, x: Tensor) -> Tensor:
            self.scale = self.scale + 0 * self.training + 1
            return super().forward(x)

    assert refusal(cut, Moved(), IMAGE, ["b1"]) == snapshot


@pytest.mark.parametrize("taps", [["stem"], ["b1.conv", "b1"]], ids="-".join)
def test_a_choice_by_size_is_cut_exactly(taps: list[str]) -> None:
    torch.manual_seed(0)
    whole = Sized()
    trunk = cut(copy.deepcopy(whole), IMAGE, taps)
    assert trunk.places == (*taps, "b2")
    for count in (5, 2, 1):
        x = images(IMAGE, count)
        assert trains_as(trunk, whole, x)  # counters of batches among its state
    assert torch.equal(run(train(trunk, False), x), whole.eval()(x))
    trunk.segments[0].train(True)  # a frozen segment stands still
    before = copy.deepcopy(trunk.module.state_dict())
    trunk.segments[1](*trunk.segments[0](x))
    after = trunk.module.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in after if name.startswith("b2"))


def test_its_places_cost_what_they_cost_fx() -> None:
    class Straight(Block):
        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.drop(self.bn(self.conv(x))) + x * 1.5)

    straight = Sized()
    straight.b1, straight.b2 = Straight(), Straight()
    exported = {p.name: (p.macs, p.params) for p in places(Sized(), IMAGE)}
    traced = {p.name: (p.macs, p.params) for p in places(straight, IMAGE)}
    assert exported.items() >= {(name, traced[name]) for name in ("stem", "b1")}


def test_its_noise_follows_the_clock() -> None:
    assert draws_by_its_clock(cut(Noisy(), IMAGE, ["b1"]), images(IMAGE))


class Named(Sized):
    def forward(self, *, pixel_values: Tensor, mask: Tensor | None = None) -> Tensor:
        return super().forward(pixel_values if mask is None else pixel_values * mask)


class Batch(Sized):
    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"logits": super().forward(batch["image"]), "given": batch["image"]}


class Pair(Sized):
    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return super().forward(x), None


class Two(Sized):
    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return super().forward(batch["image"] + batch["mask"])


class Lost(Sized):
    def forward(self, x: Tensor) -> list[str]:
        return ["cat" for _ in super().forward(x)]


@pytest.mark.parametrize("kind", [Named, Batch, Pair])
def test_images_by_name_and_logits_among_others(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = kind()
    plain = Sized()
    plain.load_state_dict(module.state_dict())
    x = images(IMAGE)
    net = attach(module, ["b1"], IMAGE).eval()
    assert torch.equal(net(x)[-1], plain.eval()(x))
    assert torch.equal(inside(net).trunks[0].plain(x), plain(x))
    assert torch.equal(copy.deepcopy(net)(x)[-1], plain(x))


def test_what_takes_no_images_or_gives_no_logits_is_refused(snapshot: SnapshotAssertion) -> None:
    assert "one tensor" in refusal(attach, Two(), 1, IMAGE)
    assert refusal(attach, Lost(), 1, IMAGE) == snapshot


class Exits(Sized):
    """Answers of the same shape: two in training, and as many as `several` else."""

    def __init__(self, several: int) -> None:
        super().__init__()
        self.several = several

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        logits = super().forward(x)
        number = 2 if self.training else self.several
        return logits if number == 1 else (logits, *[2 * logits] * (number - 1))


def test_several_answers_of_one_shape_are_no_logits(snapshot: SnapshotAssertion) -> None:
    """Where training alone has them, they are auxiliary."""
    assert refusal(attach, Exits(3), ["b1"], IMAGE) == snapshot
    assert len(attach(Exits(1), ["b1"], IMAGE).eval()(images(IMAGE))) == 2


@dataclass
class Output:
    logits: Tensor
    aux: Tensor


class NamedOutput(NamedTuple):
    logits: Tensor
    aux: Tensor


FORMS: dict[str, Callable[[Tensor, Tensor], object]] = {
    "tuple-of-dict": lambda logits, aux: (logits, {"aux": aux}),
    "dict": lambda logits, aux: {"logits": logits, "aux": aux},
    "dict-of-list": lambda logits, aux: {"out": logits, "aux": [aux]},
    "dict-of-other-names": lambda logits, aux: {"out": logits, "aux": aux},
    "dataclass": Output,
    "namedtuple": NamedOutput,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_several_answers_are_counted_in_any_form(form: Callable[[Tensor, Tensor], object]) -> None:
    class Formed(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.width = width

        def forward(self, x: Tensor) -> object:
            logits = x.new_ones(len(x), 5)
            return form(logits, x.new_zeros(len(x), self.width))

    named = form in (FORMS["dict"], Output, NamedOutput)  # `logits` says which of them is the answer
    if not named:
        assert "returns 2 outputs of [5, 5]" in refusal(call_style, Formed(5).eval(), images(IMAGE))
    others = [Formed(5).eval()] if named else []
    # Auxiliary ones of training, and features.
    for module in (*others, Formed(5).train(), Formed(7).eval()):
        if form is not FORMS["dict-of-other-names"]:
            assert bool((call_style(module, images(IMAGE))[1] == 1).all())


def test_auxiliary_heads_are_left_out() -> None:
    net = torchvision.models.googlenet(num_classes=5, init_weights=False)
    trunk = cut(net, (3, 32, 32), ["inception3b", "inception4e"])
    used = {name for part in (*trunk.segments, trunk.classifier) for name in part.state()}
    assert not any(name.startswith("aux") for name in used) and "inception4a.branch1.conv.weight" in used
    x = images((3, 32, 32), 2)
    assert torch.equal(run(train(trunk, False), x), net.eval()(x))


class Chooses(nn.Module):
    def __init__(self, between: bool = False) -> None:
        super().__init__()
        layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(256, 5)
        self.net, self.between = nn.Sequential(*layers), between

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0 if self.between else x
        return self.net(x) if x.sum() > -1e9 else x


def test_a_refusal_of_what_no_tracer_follows_lists_its_submodules() -> None:
    line = refusal(attach, Chooses(), 1, IMAGE)
    assert line.endswith("exits: [[net.0], [net.1, net.2], [net.3], [net.4]]")
    net = attach(Chooses(), [["net.0"], ["net.1", "net.2"], ["net.3", "net.4"]], IMAGE)
    assert net.places == ("net.0", "net.2")
    assert "each step" in refusal(attach, Chooses(between=True), 1, IMAGE)
