"""Small networks for tests, and what there is to compare of them."""

import copy
import functools

import pytest
import torch

from offramp.nets import BACKBONES, NetSpec, build, heads
from offramp.nets.cut.places import ExitPlace, survey
from offramp.nets.head_kinds import HeadInput
from offramp.nets.network import inside
from offramp.parts import Part, path
from support import backbones

CLASSES, SEED = 5, 1
# resnet18 is in test_backbones.
every_backbone = pytest.mark.parametrize("name", backbones(BACKBONES, more=["resnet18"]))


@functools.cache
def built(name, options=()):
    return build(NetSpec(name, options), BACKBONES[name].input_shape, CLASSES, SEED)


def network(name="digits-cnn", options=()):
    return copy.deepcopy(built(name, options))


def places(module, input_shape) -> tuple[ExitPlace, ...]:
    return survey(module, input_shape).places()


def resolve(default, overrides, *tap) -> heads.HeadSpec:
    """tap: shape, where, sides, place."""
    return heads.resolve(default, overrides, HeadInput(*tap))


def images(net, count=4):
    return torch.randn(count, *net.input_shape, generator=torch.Generator().manual_seed(0))


def parts(net):
    return [*path(net.exits), *(Part("head", k) for k in range(1, net.exits))]


def state(net, trunk=0):
    return {key: t for part in parts(net) for key, t in inside(net).state(part, trunk).items()}


def storages(net):
    return {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}


def identity_of(net):
    return inside(net).facts.identity


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[key], b[key]) for key in a)


def shift(net):
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.add_(1)
