"""Networks to cut, and what every test of a cut does with them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from offramp.nets.backbones import BACKBONES
from offramp.nets.cut.partition import Trunk

CLASSES = 5


@dataclass(frozen=True)
class Case:
    """A network, the place that feeds its classifier (None: to be found), and two lists of taps."""

    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    final: str | None
    taps: tuple[tuple[str, ...], tuple[str, ...]]


def _registered(name: str, *others: str) -> Case:
    backbone = BACKBONES[name]
    shape = backbone.input_shape
    return Case(
        lambda: backbone.build(classes=CLASSES, input_shape=shape),
        shape,
        backbone.final,
        (next(iter(backbone.taps.values())), others),
    )


def vit() -> nn.Module:
    """Of five narrow blocks, where timm's has twelve: it is cut between them all the same."""
    size = {"img_size": 32, "patch_size": 8, "num_classes": CLASSES, "depth": 5, "embed_dim": 96}
    noise = {"drop_rate": 0.1, "attn_drop_rate": 0.1, "drop_path_rate": 0.2}
    return timm.create_model("vit_tiny_patch16_224", **size, **noise)


def convnext() -> nn.Module:
    return timm.create_model(
        "convnext_atto", num_classes=CLASSES, depths=(1, 1, 4, 1), drop_rate=0.1, drop_path_rate=0.2
    )


IMAGE = (3, 32, 32)
CASES = {
    "digits-cnn": _registered("digits-cnn"),
    "mobilenetv1": _registered("mobilenetv1", "conv_stem", "blocks.0", "blocks.3.1"),
    "mobilenetv2": _registered("mobilenetv2", "features.1.conv.0.1", "features.14"),
    # Inside a residual block, so that a second tensor crosses the cut.
    "resnet18": _registered("resnet18", "conv1", "layer2.0.bn1", "layer3.1.conv2"),
    "resnet50": _registered("resnet50", "layer1.0", "layer3.4.bn2"),
    "vgg16": _registered("vgg16", "features.0", "features.14", "features.15"),
    "vit": Case(vit, IMAGE, None, (("blocks.0", "blocks.2", "blocks.3"), ("blocks.0.attn",))),
    "convnext": Case(
        convnext, IMAGE, None, (("stages.0", "stages.1", "stages.2"), ("stem", "stages.2.blocks.3"))
    ),
}


def parts(trunk: Trunk) -> tuple:
    return (*trunk.segments, trunk.classifier)


def train(trunk: Trunk, mode: bool) -> Trunk:
    for part in parts(trunk):
        part.train(mode)
    return trunk


def run(trunk: Trunk, x: Tensor) -> Tensor:
    """The logits, one part after another."""
    values: tuple[Tensor, ...] = (x,)
    for part in parts(trunk):
        values = part(*values)
    (logits,) = values
    return logits


def images(shape: Sequence[int], count: int = 5) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))


def step(module: nn.Module, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """One SGD step under a fixed generator; the logits before it."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    torch.manual_seed(7)
    logits = forward(x)
    F.cross_entropy(logits, torch.arange(len(x)) % CLASSES).backward()
    optimizer.step()
    return logits


def trains_as(trunk: Trunk, whole: nn.Module, x: Tensor) -> bool:
    """Whether the logits of a step, and all weights and buffers after it, are the whole module's."""
    expected = step(whole.train(), whole, x)
    logits = step(trunk.module, lambda x: run(train(trunk, True), x), x)
    return torch.equal(logits, expected) and same_state(whole, trunk.module)


def draws_by_its_clock(trunk: Trunk, x: Tensor) -> bool:
    """Whether noise is that of the step, whatever else drew before, and another at the next step."""

    def logits(step: int) -> Tensor:
        trunk.clock.tick(1, 0, step)
        torch.rand(3)
        return run(train(trunk, True), x)

    return torch.equal(logits(0), logits(0)) and not torch.equal(logits(0), logits(1))


def same_state(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[n], right[n]) for n in left)
