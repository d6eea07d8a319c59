"""Forward functions as users write them: in-place steps, sizes, counters, constants, options."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from partition_cases import draws_by_its_clock, images, parts, run, same_state, train, trains_as
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

from offramp.nets import attach
from offramp.nets.cut.partition import cut, cut_by_names
from wording import refusal

IMAGE = (3, 8, 8)


class Net(nn.Module):
    """Two convolutions and a classifier; `between` runs on the first one's output."""

    def __init__(self, between: Callable[[Net, Tensor], Tensor] = lambda _, x: x) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)
        self.bn, self.act = nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self._between = between

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self._between(self, self.a(x)))
        return self.fc(self.drop(x.mean((2, 3))))


def counted(net: Net, x: Tensor) -> Tensor:
    if net.training:
        net.calls.add_(1)
    return x


def recounted(net: Net, x: Tensor) -> Tensor:
    net.calls = net.calls + 1
    return x / net.calls


def added(net: Net, x: Tensor) -> Tensor:
    if net.training:
        net.calls += 1
    return x


def averaged(net: Net, x: Tensor) -> Tensor:
    if net.training:
        net.bn.running_mean = 0.9 * net.bn.running_mean + 0.1 * x.detach().mean((0, 2, 3))
    return x - net.bn.running_mean.view(-1, 1, 1)


def averaged_in_place(net: Net, x: Tensor) -> Tensor:
    if net.training:
        net.bn.running_mean.mul_(0.9).add_(x.detach().mean((0, 2, 3)), alpha=0.1)
    return x - net.bn.running_mean.view(-1, 1, 1)


def moved_on(net: Net, x: Tensor) -> Tensor:
    net.bn.running_var = net.bn.running_mean
    net.bn.running_mean = x.detach().mean((0, 2, 3))
    return x - net.bn.running_var.view(-1, 1, 1)


def normalized(net: Net, x: Tensor) -> Tensor:
    mean, var = net.bn.running_mean, net.bn.running_var
    return F.batch_norm(x, mean, var, net.bn.weight, net.bn.bias, net.training, 0.1)


def unassigned(net: Net, x: Tensor) -> Tensor:
    F.relu_(x)
    return x + net.bn(x)


def view_written(_: Net, x: Tensor) -> Tensor:
    flat = x.view(x.shape[0], -1)
    flat.mul_(2)
    return x


def by_size(_: Net, x: Tensor) -> Tensor:
    count, channels, height, width = x.shape
    halves = x.reshape(count * 2, -1)
    return halves.softmax(-1).reshape(count, channels, height, width)


def dropped(_: Net, x: Tensor) -> Tensor:
    return F.dropout(x, 0.5, _.training) + torch.rand_like(x) * _.training


def constant(_: Net, x: Tensor) -> Tensor:
    return x * torch.arange(1.0, 5.0).view(4, 1, 1)


def shortcut(net: Net, x: Tensor) -> Tensor:
    return x + net.act(net.bn(x))


SETS = (recounted, added, averaged, averaged_in_place, moved_on)
BETWEEN = (counted, normalized, unassigned, view_written, by_size, dropped, constant, shortcut, *SETS)


@pytest.mark.parametrize("between", BETWEEN, ids=lambda f: f.__name__)
@pytest.mark.parametrize("taps", [["a"], ["b"], ["a", "b"]], ids="-".join)
def test_cut_networks_train_as_whole_ones(between, taps: list[str]) -> None:
    torch.manual_seed(0)
    whole = Net(between)
    final = "drop" if "b" in taps else None
    trunk = cut(copy.deepcopy(whole), IMAGE, taps, final)
    for count in (5, 2):  # neither is a batch size that the cut has seen alone
        x = images(IMAGE, count)
        assert trains_as(trunk, whole, x)
    assert torch.equal(run(train(trunk, False), x), whole.eval()(x))


@pytest.mark.parametrize("between", [counted, *SETS], ids=lambda f: f.__name__)
def test_attaching_leaves_buffers_as_they_were(between) -> None:
    module = Net(between)
    net = attach(module, ["a"], IMAGE, head="linear")
    assert same_state(module, net.backbone)
    x = images(IMAGE)
    for mode in (False, True):
        for whole in (module.train(mode), net.train(mode)):
            whole.drop.eval()
        assert torch.equal(net(x)[-1], module(x))
        assert same_state(module, net.backbone) and same_state(module, copy.deepcopy(net).backbone)


@pytest.mark.parametrize(
    ("between", "mode"),
    [
        (lambda net, x: setattr(net, "calls", x.detach()) or x, "eval"),
        (lambda net, x: setattr(net, "calls", net.calls + 0.5) or x, "eval"),
        (lambda net, x: (net.training and setattr(net, "calls", None)) or x, "train"),
    ],
    ids=["shape", "type", "nothing"],
)
def test_a_buffer_that_is_set_to_something_else_is_refused(
    between, mode: str, snapshot: SnapshotAssertion
) -> None:
    line = refusal(cut, Net(between), IMAGE, ["a"])
    assert f"{mode} mode" in line and line == snapshot


def test_a_buffer_that_is_made_by_the_first_forward_is_made_by_each() -> None:
    class Masked(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", None, persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            if self.mask is None:
                self.mask = torch.tril(x.new_ones(8, 8))
            return super().forward(x * self.mask)

    net = Masked().eval()
    trunk = train(cut(net, IMAGE, ["a"]), False)
    assert net.mask is None
    assert torch.equal(run(trunk, images(IMAGE)), net(images(IMAGE)))


def test_sizes_taken_before_a_cut_follow_the_batch_after_it() -> None:
    class Sized(Net):
        def forward(self, x: Tensor) -> Tensor:
            shape, device, kind = x.shape, x.device, x.dtype
            count, pairs = x.size(0), 2 * x.size(0)
            x = self.b(self.a(x)).reshape(pairs, 2, -1).softmax(-1)
            x = x.reshape(count, 4, -1) + x.new_ones(shape[0], 4, 1, device=device, dtype=kind)
            return self.fc(x.reshape(shape[:1] + (4, -1)).mean(-1))  # noqa: RUF005

    net = Sized().eval()
    for taps in (["a"], ["b"], ["a", "b"]):
        trunk = train(cut(net, IMAGE, taps, "add#1"), False)
        for count in (1, 2, 5):
            x = images(IMAGE, count)
            assert torch.equal(run(trunk, x), net(x))


class Straight(torch.autograd.Function):
    """The sign, with a gradient that passes straight through: its own is zero."""

    @staticmethod
    def forward(ctx, x):  # noqa: ARG004
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):  # noqa: ARG004
        return gradient


class Frugal(torch.autograd.Function):
    """What keeps less for the gradient, which is the plain one."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


def ungraded(_: Net, x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * 2


GRADIENTS = {
    "straight through": (lambda _, x: Straight.apply(x), {"a.weight", "a.bias"}),
    "no_grad": (ungraded, {"a.weight", "a.bias"}),
    "as plain": (lambda _, x: Frugal.apply(x), set()),
    "detach": (lambda _, x: x + (x.sign() - x).detach(), set()),
    "sign": (lambda _, x: x.sign(), set()),
} | {between.__name__: (between, set()) for between in BETWEEN}


@pytest.mark.parametrize(("between", "wrong"), GRADIENTS.values(), ids=GRADIENTS)
def test_parameters_whose_gradient_a_trace_changes_are_named(between, wrong: set[str]) -> None:
    torch.manual_seed(0)
    trunk = cut(Net(between), IMAGE, ["a"])
    assert trunk.wrong_gradients == wrong == trunk.on(Net(between)).wrong_gradients
    frozen = Net(between).requires_grad_(False)
    assert not cut(frozen, IMAGE, ["a"]).wrong_gradients


class TestInPlace:
    def outputs(self, taps: list[str], net: nn.Module) -> list[tuple[Tensor, Tensor]]:
        """What each segment returned: right after it ran, and after the whole network did."""
        trunk = train(cut(net, IMAGE, taps), True)
        values: tuple[Tensor, ...] = (images(IMAGE),)
        pairs = [(values[0].clone(), values[0])]
        for part in parts(trunk):
            values = part(*values)
            pairs.append((values[0].clone(), values[0]))
        return pairs

    def net(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(3, 4, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, 4, 3),
            nn.Flatten(),
            nn.Linear(64, 5),
        )

    def test_what_follows_a_tap_does_not_write_on_it(self) -> None:
        for before, after in self.outputs(["1"], self.net()):
            assert torch.equal(before, after)

    def test_the_whole_network_does(self) -> None:
        net, x = self.net(), images(IMAGE)
        seen = []
        net[1].register_forward_hook(lambda _, __, out: seen.append((out.clone(), out)))
        net(x)
        ((before, after),) = seen
        assert not torch.equal(before, after)
        assert not torch.equal(x, images(IMAGE))

    def test_heads_and_the_next_segment_can_both_train(self) -> None:
        trunk = train(cut(self.net(), IMAGE, ["1"]), True)
        (tap,) = trunk.segments[0](images(IMAGE))
        side = tap.square().mean()  # keeps the tap for its gradient
        (rest,) = trunk.segments[1](tap)
        (side + trunk.classifier(rest)[0].mean()).backward()
        assert trunk.segments[0].parameters()[0].grad is not None


def test_other_arguments_take_their_defaults() -> None:
    class Optional(Net):
        def forward(self, x, mask=None, *rest, scale: float = 2.0, **options):  # noqa: ARG002
            if mask is not None:
                x = x * mask
            return super().forward(x) * scale

    net = Optional().eval()
    trunk = train(cut(copy.deepcopy(net), IMAGE, ["a"]), False)
    assert torch.equal(run(trunk, images(IMAGE)), net(images(IMAGE)))


def test_a_constant_stays_out_of_the_state_and_follows_the_module() -> None:
    net = Net(constant)
    names = list(net.state_dict())
    trunk = cut(net, IMAGE, ["a"])
    assert list(net.state_dict()) == names
    moved = train(trunk.on(Net(constant).double()), False)
    assert run(moved, images(IMAGE).double()).dtype == torch.float64


def test_a_module_called_in_two_segments_has_the_mode_of_each() -> None:
    net = Net(lambda net, x: net.drop(x))
    trunk = train(cut(net, IMAGE, ["b"], "mean"), True)
    trunk.segments[0].train(False)
    x = images(IMAGE)
    (first,), (again,) = trunk.segments[0](x), trunk.segments[0](x)
    assert torch.equal(first, again)
    (pooled,) = trunk.segments[1](first)
    assert not torch.equal(trunk.classifier(pooled)[0], trunk.classifier(pooled)[0])
    assert torch.equal(trunk.segments[0](x)[0], first)


def test_a_parameter_in_two_parts_is_refused(snapshot: SnapshotAssertion) -> None:
    class Tied(Net):
        def __init__(self) -> None:
            super().__init__()
            self.c = nn.Conv2d(4, 4, 3)
            self.c.weight = self.b.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.c(self.b(self.a(x))).mean((2, 3)))

    assert refusal(cut, Tied(), IMAGE, ["b"]) == snapshot
    trunk = cut(Tied(), IMAGE, ["a"])  # one part has both
    assert len(trunk.segments[1].parameters()) == len(trunk.segments[1].state()) - 1


def test_a_batch_norm_in_two_parts_is_refused(snapshot: SnapshotAssertion) -> None:
    class Reused(Net):
        def __init__(self) -> None:
            super().__init__()
            self.bn = nn.BatchNorm2d(4, affine=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.bn(self.b(self.bn(self.a(x)))).mean((2, 3)))

    assert refusal(cut, Reused(), IMAGE, ["b"]) == snapshot


class Choice(nn.Module):
    """Cannot be traced: what it does depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class Untraceable(Net):
    def __init__(self) -> None:
        super().__init__()
        self.stage = nn.Sequential(nn.Conv2d(4, 4, 1), Choice())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.drop(self.pool(self.b(self.stage(self.act(self.a(x)))))))


class TestUntraceable:
    names = (("a", "act"), ("stage", "b"), ("pool", "drop", "fc"))

    def test_the_error_names_the_submodule_and_the_remedy(self) -> None:
        line = refusal(cut, Untraceable(), IMAGE, ["a"])
        assert "'stage.1' (Choice)" in line and "lists of submodule" in line

    def test_the_error_names_the_module_itself(self) -> None:
        net = Net(lambda _, x: x if x.sum() > 0 else -x)
        assert "its own forward" in refusal(cut, net, IMAGE, ["a"])

    def test_names_of_submodules_cut_it_exactly(self) -> None:
        torch.manual_seed(0)
        whole = Untraceable()
        trunk = cut_by_names(copy.deepcopy(whole), self.names, IMAGE)
        assert trunk.places == ("act", "b")
        assert trunk.shapes == ((4, 6, 6), (4, 4, 4))
        assert trains_as(trunk, whole, images(IMAGE))
        assert "b.weight" in trunk.segments[1].state()

    def test_gradients_that_names_of_submodules_change_are_named(self) -> None:
        class Ungraded(Untraceable):
            def forward(self, x: Tensor) -> Tensor:
                with torch.no_grad():
                    x = self.act(self.a(x))
                return self.fc(self.drop(self.pool(self.b(self.stage(x)))))

        torch.manual_seed(0)
        assert cut_by_names(Ungraded(), self.names, IMAGE).wrong_gradients == {"a.weight", "a.bias"}
        assert not cut_by_names(Untraceable(), self.names, IMAGE).wrong_gradients

    def test_its_noise_follows_the_clock(self) -> None:
        assert draws_by_its_clock(cut_by_names(Untraceable(), self.names), images(IMAGE))

    def test_what_is_listed_twice_draws_twice(self) -> None:
        """One dropout between all layers, in two pieces or in one: as in a plain forward."""

        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.choice, self.drop, self.fc = Choice(), nn.Dropout(0.5), nn.Identity()

        ones = torch.ones(1, 64)
        for names in (["choice", "drop"], ["drop", "fc"]), (["choice", "drop", "drop"], ["fc"]):
            trunk = cut_by_names(Twice(), names)
            trunk.clock.tick(1, 0, 0)
            left = run(train(trunk, True), ones)
            assert set(left.unique().tolist()) == {0.0, 4.0 * 2} and (left == 0).sum() > 40

    @pytest.mark.parametrize(
        ("names", "token"),
        [
            ([["a", "two"], ["silent", "fc"]], "'tuple' object"),
            ([["a"], ["silent", "fc"]], "AssertionError; list"),
            ([["a"], ["two"]], "do not compute"),
        ],
    )
    def test_what_gives_no_tensor_or_fails_without_a_word_is_refused(self, names, token: str) -> None:
        class Two(nn.Module):
            def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
                return x, x

        class Silent(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                if x.ndim != 2:
                    raise AssertionError
                return x

        class Odd(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.two, self.silent = nn.Conv2d(3, 4, 3), Two(), Silent()
                self.fc = nn.Linear(144, 5)

            def forward(self, x: Tensor) -> Tensor:
                x, _ = self.two(self.a(x))
                return self.fc(self.silent(x.flatten(1)))

        assert token in refusal(cut_by_names, Odd(), names, IMAGE)

    @pytest.mark.parametrize(
        ("names", "token"),
        [
            ([["a"], ["stge"], ["fc"]], "'stage'"),
            ([["a", "act", "stage", "b"]], "two lists"),
            ([["a"], []], "empty"),
            ([["b", "act"], ["stage", "a"], ["pool", "fc"]], "do not run"),
            ([["a"], ["stage", "b"], ["pool", "fc"]], "do not compute"),
            ([["a"], ["stage", "a"], ["fc"]], "'a.weight'"),
        ],
    )
    def test_lists_that_do_not_fit_are_refused(self, names, token: str) -> None:
        assert token in refusal(cut_by_names, Untraceable(), names, IMAGE)
