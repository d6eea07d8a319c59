"""Networks with exits of their own, cut at them: the same logits, and each part alone."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nets.published import BranchyNet, MSDNet, RANet, TokenViT, conv
from offramp.device import seeded
from offramp.nets import own_exits
from offramp.nets.cut.observe import count_macs
from offramp.nets.cut.places import survey
from offramp.nets.foreign import answering
from offramp.nets.network import exit_macs, inside
from offramp.nets.own_exits import with_exits
from offramp.parts import Part
from wording import refusal

SHAPE = (3, 16, 16)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "msdnet": MSDNet,
    "ranet": RANet,
    "branchynet": BranchyNet,
    "vit": TokenViT,
}


def fresh(kind: Callable[[], nn.Module]) -> nn.Module:
    with seeded(1):
        return kind().eval()


@pytest.mark.parametrize("kind", NETWORKS.values(), ids=NETWORKS)
def test_cut_at_its_exits_it_computes_the_same(kind: Callable[[], nn.Module]) -> None:
    module = fresh(kind)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    net = with_exits(module, SHAPE)
    x = torch.randn(5, *SHAPE)
    with torch.no_grad():
        expected = answering(module, SHAPE).logits(module(x))
        for twin in (net, copy.deepcopy(net)):
            torch.testing.assert_close(twin(x), expected)
        torch.testing.assert_close(net.backbone(x), expected[-1])
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert type(net.backbone).__name__ == type(module).__name__


@pytest.mark.parametrize("kind", NETWORKS.values(), ids=NETWORKS)
def test_every_part_is_counted_once(kind: Callable[[], nn.Module]) -> None:
    """Segments and heads make up what the module computes; MSDNet computes more than exits read."""
    module = fresh(kind)
    net = with_exits(module, SHAPE)
    numbers = range(1, net.exits + 1)
    parts = sum(net.macs(Part(side, k)) for k in numbers for side in ("segment", "head"))  # type: ignore[arg-type]
    _, whole = count_macs(lambda: module(torch.zeros(1, *SHAPE)))
    assert parts < whole if kind is MSDNet else parts == whole
    assert net.plain_macs < parts
    heads = {name for name in net.head_keys if name.endswith("weight")}
    assert heads and not {
        n for n in net.backbone.state_dict() if n.startswith(("classifier.0", "branch"))
    }


@pytest.mark.parametrize("kind", NETWORKS.values(), ids=NETWORKS)
def test_an_exit_runs_what_it_needs_and_no_more(kind: Callable[[], nn.Module]) -> None:
    """The cost of an image that leaves is what the traces of that exit and of those before run: a
    refusal names the same numbers."""
    module = fresh(kind)
    net = with_exits(module, SHAPE)
    described = answering(module, SHAPE)
    picks = [partial(own_exits._logits, described.outputs, k) for k in range(net.exits)]
    needed = own_exits._costs([survey(module, SHAPE, pick) for pick in picks])
    assert [exit_macs(net, range(1, k + 1)) for k in range(1, net.exits + 1)] == needed


class Late(nn.Module):
    """A layer that only the final exit reads runs before the early head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.side = conv(3, 4), conv(4, 4), conv(4, 4)
        self.early, self.late = nn.Linear(4, 3), nn.Linear(4, 3)

    def between(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.side(x), x

    def forward(self, x: Tensor) -> Any:
        side, x = self.between(self.stem(x))
        x = self.body(x)
        return [self.early(x.mean((2, 3))), self.late((x + side).mean((2, 3)))]


class Written(Late):
    """The side writes on what the early exit reads."""

    def between(self, x: Tensor) -> tuple[Tensor, Tensor]:
        view = x.flatten(2)
        side = self.side(x)
        view.mul_(0.5)
        return side, x


class Read(Late):
    """The side reads what the early exit writes on afterwards."""

    def between(self, x: Tensor) -> tuple[Tensor, Tensor]:
        side = self.side(x)
        return side, x.mul_(0.5)


class Shared(Late):
    """The side has the layer of the early exit."""

    def between(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), x


@pytest.mark.parametrize("kind", [Late, Written, Read, Shared])
def test_what_waits_computes_the_same(kind: Callable[[], nn.Module]) -> None:
    module = fresh(kind)
    net = with_exits(module, SHAPE)
    x = torch.randn(4, *SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(net(x), module(x.clone()))
    late = net.macs(Part("segment", 2))
    assert late > 0 if kind is Late else late == 0


class Pair(nn.Module):
    """A stem, a body, two heads; subclasses of no use to anybody change what its forward does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.other = conv(3, 4), conv(4, 4), conv(4, 4)
        self.early, self.late = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        early = self.early(x.mean((2, 3)))
        return [early, self.late(self.body(x.relu_()).mean((2, 3)))]


class TwoTensors(Pair):
    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        y = self.body(x)
        z = self.other(y)
        return [self.early(x.mean((2, 3)) + y.mean((2, 3))), self.late(z.mean((2, 3)) + x.mean((2, 3)))]


class Cascade(Pair):
    def forward(self, x: Tensor) -> Any:
        x = self.stem(x)
        early = self.early(x.mean((2, 3)))
        return [early, early + self.late(self.body(x).mean((2, 3)))]


class FromPixels(Pair):
    def forward(self, x: Tensor) -> Any:
        early = self.early(x.mean((2, 3)).sum(1, keepdim=True).expand(-1, 4))
        return [early, self.late(self.body(self.stem(x)).mean((2, 3)))]


class ByValue(Pair):
    def forward(self, x: Tensor) -> Any:
        if float(x.sum()) > 1e9:
            x = x * 2
        return super().forward(x)


class Backwards(Pair):
    """The first exit is the deeper one."""

    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[::-1]


class Single(Pair):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[-1]


def test_a_tap_that_is_overwritten_later_is_read_before() -> None:
    module = fresh(Pair)
    net = with_exits(module, SHAPE)
    x = torch.randn(4, *SHAPE)
    torch.testing.assert_close(net(x), module(x))
    assert net.places == ("stem", "body") and inside(net).head_specs[0].kind == "its own"


def test_some_outputs_of_many() -> None:
    class Named(Pair):
        def forward(self, x: Tensor) -> Any:
            early, late = super().forward(x)
            return {"main": late, "features": x, "aux": early}

    module = fresh(Named)
    x = torch.randn(4, *SHAPE)
    for outputs in (["aux", "main"], lambda returned: [returned["aux"], returned["main"]]):
        net = with_exits(module, SHAPE, outputs)
        torch.testing.assert_close(net(x), fresh(Pair)(x))


REFUSED = {
    "two-tensors": TwoTensors,
    "cascade": Cascade,
    "from-pixels": FromPixels,
    "by-value": ByValue,
    "backwards": Backwards,
    "one-exit": Single,
}


@pytest.mark.parametrize("kind", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_cut_says_why_and_what_still_works(
    kind: Callable[[], nn.Module], snapshot: object
) -> None:
    assert refusal(with_exits, fresh(kind), SHAPE) == snapshot


def test_what_is_no_network_is_refused(snapshot: object) -> None:
    assert refusal(with_exits, fresh(Pair), (5, 16, 16)) == snapshot
    assert refusal(with_exits, fresh(Pair)) == snapshot
    assert refusal(with_exits, "msdnet") == snapshot
