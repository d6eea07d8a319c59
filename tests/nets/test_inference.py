"""Twins that keep weights packed answer alike, see weights that change, and leave the module be."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import mobilenet_v2

from offramp import device
from offramp.nets import attach, inference
from offramp.nets.inference import InferenceConv2d, InferenceLinear, for_inference
from offramp.nets.network import inside

LAST = torch.channels_last


def maps(rows: int, channels: int = 16, size: int = 40) -> Tensor:
    """Noise [B, C, H, W], in channels_last."""
    noise = torch.randn(rows, channels, size, size, generator=torch.Generator().manual_seed(rows))
    return noise.contiguous(memory_format=LAST)


@pytest.fixture
def packs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each packing was for."""
    rows: list[int] = []
    convolution = torch.ops.aten.mkldnn_reorder_conv2d_weight
    linear = torch.ops.mkldnn._reorder_linear_weight

    def counted(*args: Any) -> Tensor:
        rows.append(args[-1][0])
        return convolution(*args)

    def counted_linear(weight: Tensor, number: int) -> Tensor:
        rows.append(number)
        return linear(weight, number)

    monkeypatch.setattr(torch.ops.aten, "mkldnn_reorder_conv2d_weight", counted)
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", counted_linear)
    monkeypatch.setattr(inference, "packs_weights", lambda: True)
    return rows


@pytest.fixture
def slow_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that is not Intel's."""
    monkeypatch.setattr(inference, "multiplies_quickly", lambda: False)


@pytest.mark.parametrize("quickly", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 3, 8, 33])
def test_answers_are_the_same_up_to_rounding(
    rows: int, quickly: bool, packs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "multiplies_quickly", lambda: quickly)
    module = mobilenet_v2(num_classes=10).eval().to(memory_format=LAST)
    twin = for_inference(module)
    with torch.inference_mode():
        for _ in range(2):
            expected = module(maps(rows, 3))
            torch.testing.assert_close(
                twin(maps(rows, 3)) / expected.abs().max(), expected / expected.abs().max()
            )
    convolutions = sum(type(m) is nn.Conv2d for m in module.modules())
    # once each, for one image or for several; a single small image has no need of some
    assert set(packs) == {1 if rows == 1 else 8}
    assert 0 < len(packs) < convolutions if rows == 1 else len(packs) == convolutions
    assert not any(isinstance(m, InferenceConv2d) for m in module.modules())


def test_a_batch_norm_reads_what_it_has_now() -> None:
    module = nn.Sequential(nn.BatchNorm2d(16)).eval()
    twin = for_inference(module)
    before = twin(maps(2))
    module.train()(maps(2))  # its statistics move
    assert torch.equal(twin(maps(2)), module.eval()(maps(2)))
    assert not torch.equal(twin(maps(2)), before)


LAYERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "convolution": (lambda: nn.Conv2d(16, 8, 3), maps(2)),
    "linear": (lambda: nn.Linear(256, 300), torch.randn(16, 256, generator=torch.Generator())),
}
CHANGES: dict[str, Callable[[Any, Tensor], Any]] = {
    "in place": lambda layer, _: layer.weight.detach().mul_(2),
    "loaded": lambda layer, _: layer.load_state_dict(
        {name: torch.ones_like(value) for name, value in layer.state_dict().items()}
    ),
    "assigned": lambda layer, _: setattr(layer, "weight", nn.Parameter(torch.ones_like(layer.weight))),
    "bias": lambda layer, _: layer.bias.detach().mul_(2),
    "an optimizer": lambda layer, input: _step(layer, input),
    "another tensor": lambda layer, _: setattr(layer.weight, "data", torch.ones_like(layer.weight)),
    "a hook": lambda layer, _: layer.register_forward_hook(lambda *args: args[-1] + 1),
}


def _step(layer: nn.Module, input: Tensor) -> None:
    layer(input).sum().backward()
    torch.optim.SGD(layer.parameters(), 0.1).step()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.usefixtures("slow_matrices")
def test_a_change_is_seen(kind: str, name: str, packs: list[int]) -> None:
    make, input = LAYERS[kind]
    module = nn.Sequential(make()).eval()
    twin = for_inference(module)
    with torch.inference_mode():
        before = twin(input)
    CHANGES[name](module[0], input)
    with torch.inference_mode():
        after = twin(input)
        torch.testing.assert_close(after, module(input))
        assert not torch.equal(after, before)
    assert len(packs) == (1 if name in ("bias", "a hook") else 2)


@pytest.mark.parametrize("shape", [(16, 256), (2, 8, 256), (2, 2, 8, 256)])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.usefixtures("slow_matrices")
def test_a_linear_layer_answers_the_same_up_to_rounding(
    shape: tuple[int, ...], strided: bool, bias: bool, packs: list[int]
) -> None:
    module = nn.Sequential(nn.Linear(256, 300, bias=bias)).eval()
    twin: Any = for_inference(module)
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rows = rows.transpose(0, -2).contiguous().transpose(0, -2) if strided else rows
    with torch.inference_mode():
        for _ in range(2):
            torch.testing.assert_close(twin(rows), module(rows))
    assert packs == [8]
    assert type(twin[0]) is InferenceLinear


@pytest.mark.parametrize("why", ["quick", "inference mode", "not measured"])
def test_a_linear_layer_has_no_twin(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "multiplies_quickly", lambda: why == "quick")
    monkeypatch.setattr(inference, "packs_weights", lambda: why != "not measured")
    with torch.inference_mode(why == "inference mode"):
        module = nn.Sequential(nn.Linear(256, 300), nn.Flatten(1))
    assert for_inference(module) is module


@pytest.mark.usefixtures("slow_matrices")
def test_a_copy_of_a_twin_has_weights_of_its_own(packs: list[int]) -> None:
    module = nn.Sequential(nn.Conv2d(16, 8, 3), nn.Flatten(1), nn.Linear(8 * 38 * 38, 99)).eval()
    twin = for_inference(module)
    with torch.inference_mode():
        answers = twin(maps(2))
    other = copy.deepcopy(twin)
    module[0].weight.detach().mul_(2)
    with torch.inference_mode():
        assert torch.equal(other(maps(2)), answers)
        assert not torch.equal(twin(maps(2)), answers)
    assert packs == [8, 8, 8, 8, 8]  # two layers, their copies, and the one that changed


def test_a_module_in_two_places_is_one_twin() -> None:
    conv = nn.Conv2d(16, 16, 1)
    twin: Any = for_inference(nn.Sequential(conv, nn.ReLU(), conv))
    assert twin[0] is twin[2]


class _Other(nn.Conv2d):
    """A convolution that computes something else."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


def _weight_by_a_hook() -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.Conv2d(16, 8, 3))


def _empty() -> nn.Module:
    with pytest.warns(UserWarning):
        return nn.Linear(16, 0)


def _scripted() -> Any:
    with pytest.warns((DeprecationWarning, FutureWarning)):
        return torch.jit.script(nn.Sequential(nn.Conv2d(16, 8, 3)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(16, 8, 3, padding_mode="reflect", padding=1),
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 8, 3)),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(16, 8)),
        lambda: nn.MultiheadAttention(16, 2).out_proj,  # a subclass
        _empty,
        lambda: _Other(16, 8, 3),
        _weight_by_a_hook,
        _scripted,
    ],
)
@pytest.mark.usefixtures("slow_matrices")
def test_others_stay_as_they_are(make: Callable[[], nn.Module]) -> None:
    module = nn.Sequential(make(), nn.ReLU(), nn.BatchNorm2d(8, track_running_stats=False)).eval()
    assert for_inference(module) is module


@pytest.mark.parametrize(
    ("kind", "input"),
    [
        ("convolution", maps(2).contiguous()),  # where another layout may be quicker
        ("convolution", maps(2).double()),
        ("convolution", maps(1, size=4)),  # a small one
        ("linear", torch.randn(2, 256)),
        ("linear", torch.randn(16, 256).double()),
    ],
)
@pytest.mark.usefixtures("slow_matrices")
def test_where_it_does_not_pay_nothing_is_packed(kind: str, input: Tensor, packs: list[int]) -> None:
    module = nn.Sequential(LAYERS[kind][0]()).eval().to(input.dtype)
    with torch.inference_mode():
        assert torch.equal(for_inference(module)(input), module(input))
    assert not packs


@pytest.mark.parametrize(
    ("channels", "kernel", "size", "stride", "packed"),
    [
        (512, 3, 2, 1, [False, True]),  # many weights
        (64, 3, 16, 1, [False, True]),  # much work
        (64, 3, 16, 4, [False, False]),
        (64, 1, 16, 1, [False, False]),
        (16, 1, 40, 1, [True, True]),  # PyTorch multiplies no matrices here
    ],
)
def test_where_matrices_are_slow_a_small_image_reads_packed_weights(
    channels: int,
    kernel: int,
    size: int,
    stride: int,
    packed: list[bool],
    packs: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """packed: where matrices are multiplied quickly, and elsewhere."""
    module = nn.Sequential(nn.Conv2d(channels, channels, kernel, stride, padding=kernel // 2)).eval()
    images = maps(1, channels, size)
    for quickly, expected in zip((True, False), packed, strict=True):
        packs.clear()
        monkeypatch.setattr(inference, "multiplies_quickly", lambda quickly=quickly: quickly)
        with torch.inference_mode():
            torch.testing.assert_close(for_inference(module)(images), module(images))
        assert bool(packs) == expected


@pytest.mark.parametrize(
    ("model", "quickly"),
    [("Intel(R) Xeon(R) Processor", True), ("AMD EPYC", False), ("AMD64 Family 25", False)],
)
def test_matrices_are_quick_on_processors_of_intel(
    model: str, quickly: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "name", lambda _: model)
    assert device.multiplies_quickly() == quickly


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.usefixtures("slow_matrices")
def test_under_autocast_nothing_is_packed(kind: str, packs: list[int]) -> None:
    make, input = LAYERS[kind]
    module = nn.Sequential(make()).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert for_inference(module)(input).dtype == torch.bfloat16
    assert not packs


def test_elsewhere_nothing_is_packed(packs: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "packs_weights", lambda: False)
    module = nn.Sequential(
        nn.Conv2d(16, 8, 3), nn.Conv2d(8, 8, 3, padding="same"), nn.BatchNorm2d(8)
    ).eval()
    with torch.inference_mode():
        assert torch.equal(for_inference(module)(maps(2)), module(maps(2)))
    assert not packs


def test_padding_in_words_is_not_packed(packs: list[int]) -> None:
    module = nn.Sequential(nn.Conv2d(16, 8, 3, padding="same")).eval()
    with torch.inference_mode():
        assert torch.equal(for_inference(module)(maps(2)), module(maps(2)))
    assert not packs


@pytest.mark.parametrize("machine", ["x86_64", "AMD64", "aarch64"])
def test_weights_are_packed_where_it_was_measured(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.platform, "machine", lambda: machine)
    assert device.packs_weights() == (machine != "aarch64")
    monkeypatch.setattr(torch.ops, "mkldnn", object())  # another version of PyTorch
    assert not device.packs_weights()


def test_a_network_trains_on_as_before() -> None:
    """What answers shares its tensors, and nothing else."""
    net = attach(
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 36 * 36, 10)
        ),
        ["0"],
        (3, 40, 40),
    ).eval()
    twin = copy.deepcopy(net)
    parts = inside(net).for_inference
    assert parts is inside(net).for_inference
    with torch.inference_mode():
        parts.segment(1)(maps(2, 3))
    for each in (net, twin):
        each.train()
        optimizer = torch.optim.SGD(each.parameters(), 0.01)
        torch.manual_seed(0)
        for _ in range(2):
            optimizer.zero_grad()
            sum(logits.square().mean() for logits in each(maps(4, 3))).backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    assert {type(m) for m in net.modules()} == {type(m) for m in twin.modules()}
    net.eval()
    with torch.inference_mode():
        (tap,) = inside(net).for_inference.segment(1)(maps(2, 3))
        torch.testing.assert_close(tap, inside(net).segment(1)(maps(2, 3))[0])
