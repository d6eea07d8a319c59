"""Heads: what they are made of, what they refuse, and that they fit every tap."""

import dataclasses

import pytest
import torch
from network_kit import resolve
from torch import nn

from offramp.nets import attach, head_kinds, heads
from offramp.nets.clock import Clock
from offramp.nets.heads import HeadSpec, new_head, paper_head
from offramp.nets.network import inside
from offramp.study.spec.models import ExitsSpec
from wording import refusal

MAPS = [(16, 1, 1), (16, 2, 2), (16, 3, 3), (16, 8, 8), (8, 5, 3)]
TOKENS = [(1, 24), (9, 24)]
VECTORS = [(24,)]


PAPER = HeadSpec()


def make(shape, default=PAPER, **overrides):
    spec = resolve(default, overrides, shape, "exit 1")
    return new_head(spec, shape, 7, "exits.x", Clock())


def kinds(module: nn.Module) -> list[str]:
    return [type(m).__name__ for m in module]


def broken(head: heads.Head, shape: tuple[int, ...]) -> str:
    """What is wrong with a head of 7 classes; nothing where it is as every head must be."""
    images = torch.randn(5, *shape)
    for mode in (True, False):
        logits = head.train(mode)(images)
        if logits.shape != (5, 7):
            return "other logits than [B, classes]"
    logits.square().sum().backward()
    if not all(p.grad is not None for p in head.parameters()):
        return "a parameter without a gradient"
    if head.pool.state_dict():
        return "a pool with weights or statistics"
    pool = head.train().pool
    first, again, few = pool(images), pool(images), pool(images[:2])
    if not torch.equal(first, again) or not torch.equal(first, head.eval().pool(images)):
        return "a pool with random draws"
    if not torch.allclose(first[:2], few, atol=1e-6):
        return "a pool in which images depend on each other"
    if not torch.equal(head(images), head.body(first)):
        return "more than a pool and a body"
    return "" if isinstance([*head.body.modules()][-1], nn.Linear) else "no linear layer at the end"


READABLE = {  # by kind, what it reads; others read maps alone
    **dict.fromkeys(("linear", "mlp"), MAPS + TOKENS + VECTORS),
    **dict.fromkeys(("local", "global", "lgvit"), MAPS + TOKENS),
}


@pytest.mark.parametrize("shape", MAPS + TOKENS + VECTORS, ids=str)
@pytest.mark.parametrize("kind", head_kinds.KINDS)
def test_every_kind_reads_a_tap_or_refuses_it(kind, shape):
    """Caches below frozen trunks keep what pools answer."""
    if shape in READABLE.get(kind, MAPS):
        assert broken(make(shape, kind=kind), shape) == ""
    else:
        refusal(make, shape, kind=kind)


class Poolings(nn.Module):
    """A pool that is the mean of a map, and more."""

    def __init__(self, more):
        super().__init__()
        self.more = more

    def forward(self, x):
        return self.more(x).mean((2, 3))


@pytest.mark.parametrize(
    ("pool", "body", "fault"),
    [
        (nn.Identity(), nn.Linear(16, 7), ""),
        (nn.Identity(), nn.Linear(16, 6), "other logits"),
        (nn.Conv2d(16, 16, 1), nn.Linear(16, 7), "weights"),
        (nn.BatchNorm2d(16, affine=False), nn.Linear(16, 7), "statistics"),
        (nn.Dropout(0.5), nn.Linear(16, 7), "random draws"),
        (
            nn.BatchNorm2d(16, affine=False, track_running_stats=False),
            nn.Linear(16, 7),
            "depend on each other",
        ),
        (nn.Identity(), nn.Sequential(nn.Linear(16, 7), nn.Softmax(1)), "no linear layer"),
    ],
    ids=str,
)
def test_a_head_that_is_not_as_heads_must_be_is_noticed(pool, body, fault):
    """The control."""
    actual = broken(heads.Head(Poolings(pool), body), (16, 8, 8))
    assert fault in actual and bool(fault) == bool(actual)


def test_the_papers_head_layer_by_layer():
    first, third = make((64, 16, 16), paper_head(1)), make((64, 16, 16), paper_head(3))
    assert kinds(first.pool) == ["MaxPool2d"]
    assert kinds(first.body) == [
        "Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Flatten",
        "Linear", "ClockedDropout", "BatchNorm1d", "Linear",
    ]  # fmt: skip
    assert first.body.conv.weight.shape == (128, 64, 3, 3)
    assert first.body.dense.weight.shape == (128, 128 * 4 * 4)
    assert first.body.dropout.p == 0.5
    assert "MaxPool2d" not in kinds(third.body)
    assert third.body.dense.weight.shape == (128, 128 * 8 * 8)
    mobile = make((64, 16, 16), paper_head(1, gap=True, width=64))
    assert mobile.body.conv.weight.shape[0] == 64
    assert mobile.body.dense.weight.shape == (128, 64)


@pytest.mark.parametrize(
    ("side", "pooled", "pools_inside"), [(1, 1, 0), (2, 1, 0), (3, 1, 0), (4, 2, 1), (8, 4, 1)]
)
def test_a_pool_that_finds_less_than_two_pixels_is_left_out(side, pooled, pools_inside):
    head = make((4, side, side), paper_head(1))
    assert head.pool(torch.zeros(2, 4, side, side)).shape[2:] == (pooled, pooled)
    assert kinds(head.body).count("MaxPool2d") == pools_inside


def test_tokens_are_averaged_or_the_first_is_read():
    x = torch.randn(2, 9, 24)
    assert torch.equal(make((9, 24)).pool(x), x.mean(1))
    assert torch.equal(make((9, 24), tokens="class").pool(x), x[:, 0])
    maps = torch.randn(2, 16, 8, 8)
    assert torch.equal(make((16, 8, 8), kind="linear").pool(maps), maps.mean((2, 3)))


def test_channels_last_maps_are_recognized():
    spec = resolve(HeadSpec(), {}, (8, 8, 96), "exit 1")
    assert spec.layout == "hwc"
    head = make((8, 8, 96), default=paper_head(1))
    assert head.body.conv.weight.shape[1] == 96
    assert head(torch.randn(2, 8, 8, 96)).shape == (2, 7)
    assert resolve(HeadSpec(), {}, (8, 8, 8), "exit 1").layout == "chw"
    assert resolve(HeadSpec(), {}, (8, 8, 16), "exit 1", (16, 24)).layout == "chw"
    assert resolve(HeadSpec(), {"layout": "chw"}, (8, 8, 96), "exit 1").layout == "chw"


@pytest.mark.parametrize("kind", [name for name, kind in heads.KINDS.items() if kind.choose is None])
def test_every_kind_that_reads_maps_keeps_how_they_lie(kind):
    head = make((8, 8, 96), kind=kind)
    assert resolve(HeadSpec(), {"kind": kind}, (8, 8, 96), "exit 1").layout == "hwc"
    assert head(torch.randn(2, 8, 8, 96)).shape == (2, 7)


def test_equal_heads_have_equal_specs():
    assert resolve(paper_head(1), {}, (16, 2, 2), "e") == resolve(paper_head(3), {}, (16, 2, 2), "e")
    assert resolve(paper_head(1), {}, (16, 8, 8), "e") != resolve(paper_head(3), {}, (16, 8, 8), "e")
    papers = paper_head(1, width=64), paper_head(3, width=128)
    first, third = (resolve(paper, {"kind": "linear"}, (9, 9, 9), "e") for paper in papers)
    assert first == third and hash(first) == hash(third)


def test_a_stopped_clock_leaves_the_generator_alone():
    head = make((16, 8, 8)).train()
    plain = nn.Sequential(
        *[nn.Dropout(0.5) if n == "dropout" else m for n, m in head.body.named_children()]
    )
    x = head.pool(torch.randn(4, 16, 8, 8))
    torch.manual_seed(0)
    expected = plain.train()(x)
    torch.manual_seed(0)
    assert torch.equal(head.body(x), expected)


@pytest.mark.parametrize(
    ("shape", "overrides", "token"),
    [
        ((9, 24), {"kind": "paper"}, "maps"),
        ((2, 3, 4, 5), {}, "[B, 2, 3, 4, 5]"),
        ((), {}, "[B]"),
        ((16, 8, 8), {"kind": "papre"}, "'paper'"),
        ((16, 8, 8), {"widht": 3}, "'width'"),
        ((16, 8, 8), {"kind": "linear", "width": 3}, "'width'"),
        ((16, 8, 8), {"width": 0}, "width"),
        ((16, 8, 8), {"width": "64"}, "'64'"),
        ((16, 8, 8), {"kernel": 2}, "odd"),
        ((16, 8, 8), {"dropout": 1.0}, "1.0"),
        ((16, 8, 8), {"pools": 3}, "pools"),
        ((16, 8, 8), {"flatten": "no"}, "'no'"),
        ((9, 24), {"tokens": "last"}, "'last'"),
    ],
    ids=str,
)
def test_mistakes_name_the_thing_and_the_remedy(shape, overrides, token, snapshot):
    line = refusal(resolve, HeadSpec(), overrides, shape, "exit 1")
    assert token in line and line == snapshot


def squared(_spec, shape, classes, _dropout):
    """A head that no kind of ours is: the mean of squares, then a linear layer."""
    return nn.Identity(), head_kinds.layers(square=Squared(), classifier=nn.Linear(shape[0], classes))


class Squared(nn.Module):
    def forward(self, x):
        return x.square().mean((2, 3))


def test_a_new_kind_is_one_entry_and_nothing_stands_for_another(monkeypatch, snapshot):
    assert refusal(HeadSpec, "squared") == snapshot
    kind = head_kinds.HeadKind(help="of squares.", settings=("layout",), build=squared)
    monkeypatch.setitem(head_kinds.KINDS, "squared", kind)
    head = make((4, 8, 8), kind="squared")
    assert refusal(make, (9, 24), kind="squared") == snapshot  # which says nothing of what it reads
    assert kinds(head.body) == ["Squared", "Linear"]  # and not the layers of an MLP
    (help,) = [line for line in heads.explained() if line.startswith("`squared`")]
    assert help.endswith("Settings: `layout`.")
    layers = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5)
    net = attach(nn.Sequential(*layers), ["0"], (3, 8, 8), head="squared")
    assert kinds(inside(net).heads[0].body) == ["Squared", "Linear"]
    section = ExitsSpec.model_validate({"taps": 1, "head": {"kind": "squared"}})  # of a study file
    assert section.head == {"kind": "squared"}
    unbuilt = head_kinds.HeadKind(help="without a builder.", settings=())
    monkeypatch.setitem(head_kinds.KINDS, "unbuilt", unbuilt)
    assert refusal(make, (4, 8, 8), kind="unbuilt") == snapshot


def test_help_of_attach_has_every_kind_and_every_setting():
    text = " ".join(attach.__doc__.split())
    for kind, entry in head_kinds.KINDS.items():
        assert f"`{kind}`: {entry.help}" in text
    for field in dataclasses.fields(HeadSpec):
        assert field.name == "kind" or f"`{field.name}` ({heads.must_be(field.name)})" in text
