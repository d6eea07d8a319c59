"""LGViT's heads: their arithmetic written out, what they read, and which exit has which."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from network_kit import resolve
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

from offramp.bundle import graphs
from offramp.device import seeded
from offramp.nets import ExitNetwork, attach, lgvit
from offramp.nets.clock import Clock
from offramp.nets.cut.observe import count_macs
from offramp.nets.heads import Head, HeadSpec, new_head
from offramp.nets.network import inside
from offramp.parts import Part
from support import Vision
from wording import refusal

WIDTH, CLASSES, SIDE = 12, 5, 5
GRID = SIDE * SIDE


def make(shape: tuple[int, ...], kind: str, sides=(20, 20), place=(1, 1), **settings) -> Head:
    spec = resolve(HeadSpec(), {"kind": kind, **settings}, shape, "exit 1", sides, place)
    with seeded(3):
        head = new_head(spec, shape, CLASSES, "exits.x", Clock())
    return head.train()


def tokens(count: int, rows: int = 6) -> Tensor:
    return torch.randn(rows, count, WIDTH, generator=torch.Generator().manual_seed(1))


def normalized(x: Tensor, norm: nn.Module) -> Tensor:
    """By the batch's own statistics. x: [B, C, H, W]."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    shaped = ((x - mean) / (var + 1e-5).sqrt()).permute(0, 2, 3, 1) * norm.weight + norm.bias
    return shaped.permute(0, 3, 1, 2)


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def local(head: Head, x: Tensor, depthwise: bool = True) -> Tensor:
    """[B, 1 + GRID, WIDTH] → logits."""
    mix, last = head.body.mix.mix, head.body.classifier
    first, rest = x[:, 0], x[:, 1:].reshape(-1, SIDE, SIDE, WIDTH)
    flat = rest @ mix.expand.weight[:, :, 0, 0].T + mix.expand.bias
    z = normalized(gelu(flat).permute(0, 3, 1, 2), mix.expand_norm)
    if depthwise:
        around = nn.functional.pad(z, (1, 1, 1, 1))
        sums = mix.depthwise.bias[:, None, None].expand_as(z)
        for i in range(3):
            for j in range(3):
                by = mix.depthwise.weight[:, 0, i, j][:, None, None]
                sums = sums + by * around[:, :, i : i + SIDE, j : j + SIDE]
        z = normalized(gelu(sums), mix.depthwise_norm)
    back = z.permute(0, 2, 3, 1) @ mix.project.weight[:, :, 0, 0].T
    z = normalized(back.permute(0, 3, 1, 2), mix.project_norm)
    mean = (z.permute(0, 2, 3, 1) + rest).mean((1, 2))
    return (mean + first) @ last.weight.T + last.bias


def aggregated(head: Head, x: Tensor, stride: int = 2) -> Tensor:
    """As the source writes it: every token is answered, projected, and then all are averaged."""
    mix, last = head.body.mix, head.body.classifier
    first, rest = x[:, 0], x[:, 1:].reshape(-1, SIDE, SIDE, WIDTH)
    some = rest[:, ::stride, ::stride].reshape(len(x), -1, WIDTH)
    q, k, v = (some @ mix.qkv.weight.T).chunk(3, dim=2)
    each = WIDTH // 4
    answers = []
    for n in range(4):
        part = slice(n * each, (n + 1) * each)
        weights = (q[..., part] @ k[..., part].mT / math.sqrt(each)).softmax(2)
        answers.append(weights @ v[..., part])
    mean = (torch.cat(answers, 2) @ mix.project.weight.T + mix.project.bias).mean(1)
    return (mean + first) @ last.weight.T + last.bias


@pytest.mark.parametrize(
    ("kind", "settings", "written", "broken"),
    [
        ("local", {}, local, lambda head, x: local(head, x, depthwise=False)),
        ("global", {}, aggregated, lambda head, x: aggregated(head, x, stride=1)),
        ("global", {"stride": 3}, lambda h, x: aggregated(h, x, stride=3), aggregated),
    ],
    ids=["local", "global", "every third"],
)
def test_a_head_is_what_its_source_writes(
    kind: str, settings: dict, written: Callable[..., Tensor], broken: Callable[..., Tensor]
) -> None:
    head, x = make((1 + GRID, WIDTH), kind, **settings), tokens(1 + GRID)
    torch.testing.assert_close(head(x), written(head, x), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(head(x), broken(head, x), atol=1e-3), "the control"
    head(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_without_a_depthwise_convolution() -> None:
    head, x = make((1 + GRID, WIDTH), "local", kernel=1), tokens(1 + GRID)
    assert not [name for name, _ in head.named_parameters() if "depthwise" in name]
    torch.testing.assert_close(head(x), local(head, x, depthwise=False), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["local", "global"])
def test_of_tokens_that_lead_the_first_counts_and_the_grid_is_what_is_left(kind: str) -> None:
    x = tokens(1 + GRID)
    single, four, none = (make((n + GRID, WIDTH), kind).eval() for n in (1, 4, 0))
    registers = torch.cat((x[:, :1], tokens(3), x[:, 1:]), 1)
    assert torch.equal(single(x), four(registers))
    assert not torch.equal(single(x), single(x.roll(1, 1))), "control: a shifted grid"
    sum_of_all = none.body.classifier.weight @ x[:, 0].T  # what the class token adds is linear
    torch.testing.assert_close(single(x), none(x[:, 1:]) + sum_of_all.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["local", "global"])
def test_a_map_is_read_as_tokens_without_a_class_token(kind: str) -> None:
    x = tokens(15)
    lying = make((15, WIDTH), kind, sides=(30, 50)).eval()
    as_map = x.unflatten(1, (3, 5))
    first = make((WIDTH, 3, 5), kind).eval()
    last = make((3, 5, WIDTH), kind, layout="hwc").eval()
    assert torch.equal(lying(x), first(as_map.permute(0, 3, 1, 2).contiguous()))
    assert torch.equal(lying(x), last(as_map))
    turned = make((15, WIDTH), kind, rows=5, columns=3).eval()
    assert not torch.equal(turned(x), lying(x)), "control: another grid"


def test_specs_are_definite_and_equal_heads_have_equal_ones() -> None:
    spec = resolve(HeadSpec(), {"kind": "local"}, (197, 192), "e", (224, 224))
    assert (spec.rows, spec.columns, spec.hidden, spec.stride) == (14, 14, 192, 2)
    same = resolve(
        HeadSpec(dropout=0.1), {"kind": "local", "rows": 14, "columns": 14}, (197, 192), "e", (32, 32)
    )
    assert same == spec
    assert resolve(HeadSpec(), {"kind": "local", "hidden": 8}, (197, 192), "e").hidden == 8
    mapped = resolve(HeadSpec(), {"kind": "global", "rows": 3, "columns": 9}, (16, 4, 4), "e")
    assert (mapped.rows, mapped.columns) == (0, 0)
    assert all(s.one_size for s in (spec, mapped)) and not HeadSpec("linear").one_size


@pytest.mark.parametrize(
    ("exits", "kinds"),
    [
        (1, "l3"),
        (2, "l3 g2"),
        (3, "l3 l1 g2"),
        (4, "l3 l1 g2 g3"),
        (8, "l3 l3 l1 l1 g2 g2 g3 g3"),
    ],
)
def test_which_exit_has_which_head(exits: int, kinds: str) -> None:
    """Of two, four and eight exits, those of the source."""
    chosen = []
    for k in range(1, exits + 1):
        spec = resolve(HeadSpec(), {"kind": "lgvit"}, (17, 8), "e", (32, 32), (k, exits))
        chosen.append(f"l{spec.kernel}" if spec.kind == "local" else f"g{spec.stride}")
    assert chosen == kinds.split()


@pytest.mark.parametrize(
    ("shape", "sides", "settings", "token"),
    [
        ((24,), (8, 8), {"kind": "local"}, "[B, D]"),
        ((9, 24), (8, 8), {"kind": "local", "stride": 2}, "'stride'"),
        ((9, 24), (8, 8), {"kind": "lgvit", "kernel": 5}, "'kernel'"),
        ((9, 24), (8, 8), {"kind": "local", "rows": 3, "columns": 4}, "3×4"),
        ((9, 24), (8, 8), {"kind": "local", "rows": 3}, "3×0"),
        ((9, 24), (7, 13), {"kind": "global"}, "0×0"),
        ((9, 24), (8, 8), {"kind": "global", "stride": 0}, "stride"),
    ],
    ids=str,
)
def test_mistakes_name_the_thing_and_the_remedy(
    shape: tuple[int, ...],
    sides: tuple[int, ...],
    settings: dict,
    token: str,
    snapshot: SnapshotAssertion,
) -> None:
    line = refusal(resolve, HeadSpec(), settings, shape, "exit 1", sides)
    assert token in line and line == snapshot


def vision() -> ExitNetwork:
    with seeded(0):
        module = Vision(4 * SIDE, WIDTH, CLASSES)
    return attach(module, [f"blocks.{n}" for n in range(4)], (3, 20, 20), head="lgvit")


def test_macs_are_those_of_the_products() -> None:
    net = vision()
    assert [spec.kind for spec in inside(net).head_specs] == ["local", "local", "global", "global"]
    last = WIDTH * CLASSES
    convolved = 2 * GRID * WIDTH * WIDTH
    attended = [n * 3 * WIDTH * WIDTH + n * n * WIDTH + n * WIDTH + WIDTH * WIDTH for n in (9, 4)]
    expected = [convolved + 9 * GRID * WIDTH, convolved, *attended]
    assert [net.macs(Part("head", k)) for k in (1, 2, 3, 4)] == [each + last for each in expected]


def test_the_pool_is_what_a_cache_needs_to_hold() -> None:
    net = vision()
    tap = torch.randn(2, 1 + GRID, WIDTH)
    assert [inside(net).head_pool(k)(tap).shape[1] for k in (1, 2, 3, 4)] == [26, 26, 10, 5]
    assert all(not inside(net).head_pool(k).state_dict() for k in (1, 2, 3, 4))
    _, spent = count_macs(lambda: [inside(net).head_pool(k)(tap) for k in (1, 2, 3, 4)])
    assert spent == 0


def patches() -> ExitNetwork:
    """Maps with a local and a global head, and next to nothing beside them."""
    with seeded(0):
        layers = nn.Conv2d(3, WIDTH, 4, stride=4), nn.Tanh(), nn.Conv2d(WIDTH, WIDTH, 1), nn.ReLU()
        rest = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, CLASSES)
        module = nn.Sequential(*layers, *rest)
    return attach(module, ["0", "1"], (3, 20, 20), head="lgvit")


@pytest.mark.parametrize("make_net", [patches, pytest.param(vision, marks=pytest.mark.long)])
def test_the_graphs_answer_as_the_network(make_net: Callable[[], ExitNetwork], tmp_path: Path) -> None:
    net = make_net()
    early = range(1, net.exits)
    for _ in range(3):  # statistics of batch norms that are not those they begin with
        net(torch.randn(8, 3, 20, 20))
    net.eval()
    pixels = torch.randn(3, 3, 20, 20, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = [logits.numpy() for logits in net(pixels)]
    assert graphs.one_size(net, range(1, net.exits + 1)) == tuple(early)
    values = [pixels.numpy()]
    for traced in graphs.export(net, graphs.layout(inside(net).trunk_of, early), tmp_path):
        stage = traced.stage
        session = onnxruntime.InferenceSession(tmp_path / stage.file)
        names = [entry.name for entry in session.get_inputs()]
        logits, *values = session.run(None, dict(zip(names, values, strict=True)))
        np.testing.assert_allclose(logits, expected[stage.exit - 1], atol=1e-5)
        assert not np.allclose(logits, expected[stage.exit], atol=1e-3), "control: the next"


def test_grids() -> None:
    assert lgvit.grid(5, (32, 32)) == (2, 2)
    assert lgvit.grid(201, (224, 224)) == (14, 14)
    assert lgvit.grid(71, (224, 160)) == (7, 5)
    assert lgvit.grid(70, (7, 5)) == (7, 5)
    assert lgvit.grid(3, (7, 5)) == (0, 0)
