"""Cut networks compute what the whole ones do, to the bit, wherever they are cut."""

import copy
import functools
import sys

import pytest
import torch
import torch.nn.functional as F
from partition_cases import CASES, CLASSES, images, parts, run, same_state, step, train, trains_as
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

from longer import long, long_where
from offramp.nets.cut.partition import Trunk, cut
from offramp.nets.cut.places import Survey, survey
from support import LARGE
from wording import refusal


@functools.cache
def built(name: str) -> tuple[nn.Module, Survey]:
    torch.manual_seed(0)
    module = CASES[name].build()
    return module, survey(module, CASES[name].shape)


def surveyed(name: str) -> tuple[nn.Module, Survey]:
    """A copy of the network, and its survey; both are made once."""
    module, seen = built(name)
    return copy.deepcopy(module), seen


def trunk_of(name: str, which: int = 0) -> Trunk:
    module, seen = surveyed(name)
    case = CASES[name]
    return cut(module, case.shape, case.taps[which], case.final, surveyed=seen)


@pytest.mark.parametrize(  # all, at their own taps: test_backbones
    ("name", "which"),
    long_where(
        [(name, which) for name in CASES for which in (0, 1)],
        lambda case: case[0] in LARGE or case in (("resnet18", 0), ("convnext", 0)),
    ),
)
class TestEveryNetwork:
    def test_logits_and_training_are_the_whole_networks(self, name: str, which: int) -> None:
        whole, trunk, x = surveyed(name)[0], trunk_of(name, which), images(CASES[name].shape, 4)
        with torch.no_grad():
            assert torch.equal(run(train(trunk, False), x), whole.eval()(x))
        before = copy.deepcopy(whole)
        assert trains_as(trunk, whole, x) and not same_state(whole, before)
        with torch.no_grad():
            assert torch.equal(run(train(trunk, False), x), whole.eval()(x))

    def test_each_tensor_has_one_owner_and_its_own_name(self, name: str, which: int) -> None:
        trunk = trunk_of(name, which)
        names = [n for part in parts(trunk) for n in part.state()]
        assert sorted(names) == sorted(surveyed(name)[0].state_dict())
        live = trunk.module.state_dict(keep_vars=True)
        assert all(t is live[n] for part in parts(trunk) for n, t in part.state().items())
        assert {id(p) for part in parts(trunk) for p in part.parameters()} == {
            id(p) for p in trunk.module.parameters()
        }

    def test_shapes_are_those_of_the_tensors_at_the_places(self, name: str, which: int) -> None:
        trunk = train(trunk_of(name, which), False)
        values: tuple[Tensor, ...] = (images(CASES[name].shape, 3),)
        for segment, shape in zip(trunk.segments, trunk.shapes, strict=True):
            values = segment(*values)
            assert values[0].shape == (3, *shape)


@pytest.mark.parametrize("name", ["vit", "convnext", *long("mobilenetv2")])
class TestNoise:
    def logits(self, name: str, which: int, step: int, distract: bool, active: bool) -> Tensor:
        trunk = train(trunk_of(name, which), True)
        if active:
            trunk.clock.tick(42, 1, step)
        torch.manual_seed(5)
        values: tuple[Tensor, ...] = (images(CASES[name].shape),)
        for part in parts(trunk):
            values = part(*values)
            if distract:
                torch.rand(3)
        return values[0]

    def test_depends_on_the_step_but_not_on_the_cuts_or_on_other_draws(self, name: str) -> None:
        logits = self.logits(name, 0, step=2, distract=False, active=True)
        assert torch.equal(logits, self.logits(name, 0, step=2, distract=True, active=True))
        assert torch.equal(logits, self.logits(name, 1, step=2, distract=True, active=True))
        assert not torch.equal(logits, self.logits(name, 0, step=3, distract=False, active=True))

    def test_depends_on_other_draws_without_a_clock(self, name: str) -> None:
        logits = self.logits(name, 0, step=2, distract=False, active=False)
        assert not torch.equal(logits, self.logits(name, 0, step=2, distract=True, active=False))

    def test_operations_of_one_step_draw_apart(self, name: str) -> None:
        trunk = trunk_of(name)
        reseeded = [
            node.args[1]
            for piece in trunk.pieces
            for node in piece.train.nodes
            if node.op == "call_method" and node.target == "reseed"
        ]
        assert reseeded
        assert len(set(reseeded)) == len(reseeded)


def test_a_frozen_segment_stands_still_while_the_rest_trains() -> None:
    whole, trunk, x = surveyed("resnet18")[0], trunk_of("resnet18"), images((3, 32, 32))
    whole.train()
    for frozen in (whole.conv1, whole.bn1, whole.layer1, whole.layer2):
        frozen.eval()
    before = {n: t.clone() for n, t in trunk.segments[1].state().items()}
    train(trunk, True)
    for segment in trunk.segments[:2]:
        segment.train(False)
    assert torch.equal(run(trunk, x), whole(x))
    assert same_state(whole, trunk.module)
    assert all(torch.equal(t, before[n]) for n, t in trunk.segments[1].state().items())
    live = trunk.segments[2].state()
    assert int(live["layer3.0.bn1.num_batches_tracked"]) == 1


def test_the_cuts_serve_another_instance_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, x = trunk_of("vit"), images((3, 32, 32))
    monkeypatch.setattr(
        sys.modules["offramp.nets.cut.modes"], "trace", lambda _: pytest.fail("traced again")
    )
    torch.manual_seed(9)
    other = CASES["vit"].build()
    moved = train(trunk.on(other), False)
    assert torch.equal(run(moved, x), other.eval()(x))
    assert moved.clock is not trunk.clock
    before = copy.deepcopy(trunk.module)
    step(moved.module, lambda x: run(train(moved, True), x), x)
    assert same_state(trunk.module, before)
    assert not torch.equal(run(train(trunk, False), x), run(train(moved, False), x))


def test_the_cuts_refuse_another_architecture(snapshot: SnapshotAssertion) -> None:
    other = CASES["resnet50"].build()
    assert refusal(trunk_of("resnet18").on, other) == snapshot


def test_a_moved_module_takes_its_cuts_along() -> None:
    whole, trunk = surveyed("mobilenetv1")[0].double().train(), trunk_of("mobilenetv1")
    trunk.module.double()
    x = images((3, 32, 32)).double()
    torch.manual_seed(1)
    expected = whole(x)
    torch.manual_seed(1)
    assert torch.equal(run(train(trunk, True), x), expected)
    assert same_state(whole, trunk.module)


def test_a_segment_is_a_module_of_its_own_for_export() -> None:
    trunk, x = train(trunk_of("vit", 1), False), images((3, 32, 32))
    values: tuple[Tensor, ...] = (x,)
    for part in parts(trunk):
        module = part.as_module()
        expected = part(*values)
        assert all(torch.equal(a, b) for a, b in zip(module(*values), expected, strict=True))
        assert {n for n, _ in module.named_parameters()} <= set(part.state())
        values = expected


def test_cutting_leaves_the_module_and_the_generator_as_they_were() -> None:
    torch.manual_seed(3)
    module = CASES["vit"].build().train()
    module.blocks[1].eval()
    modes = {n: m.training for n, m in module.named_modules()}
    before, state = copy.deepcopy(module), torch.get_rng_state()
    cut(module, (3, 32, 32), ["blocks.3"])
    assert same_state(module, before)
    assert {n: m.training for n, m in module.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_without_taps_is_one_segment_and_a_classifier() -> None:
    module, seen = surveyed("resnet18")
    trunk = cut(module, (3, 32, 32), [], surveyed=seen)
    assert trunk.places == ("layer4",)
    assert list(trunk.classifier.state()) == ["fc.weight", "fc.bias"]


@pytest.mark.parametrize(
    "taps", ["layer9", "zzz", "25", "layer2 layer1", "layer1 layer1.1", "layer1 layer4", "fc"]
)
def test_taps_that_make_no_sense_are_refused(taps: str, snapshot: SnapshotAssertion) -> None:
    module, seen = surveyed("resnet18")
    line = refusal(cut, module, (3, 32, 32), taps.split(), surveyed=seen)
    assert f"'{taps.split()[-1]}'" in line and line == snapshot


def test_a_final_place_that_something_bypasses_is_refused(snapshot: SnapshotAssertion) -> None:
    module, seen = surveyed("resnet18")
    assert refusal(cut, module, (3, 32, 32), [], "layer4.1.bn1", surveyed=seen) == snapshot


def test_gradients_reach_only_what_a_detached_cut_leaves() -> None:
    trunk = train(trunk_of("resnet18"), True)
    first, *rest = parts(trunk)
    values = tuple(t.detach() for t in first(images((3, 32, 32))))
    for part in rest:
        values = part(*values)
    F.cross_entropy(values[0], torch.arange(5) % CLASSES).backward()
    assert all(p.grad is None for p in first.parameters())
    assert all(p.grad is not None for part in rest for p in part.parameters())
