"""Airbench: small networks for 32 px images that learn in few epochs, with exits between their groups.

Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024 (arXiv 2404.00498). A 2×2 convolution
that whitens patches and is never trained, then three groups of two 3×3 convolutions. `94` and `93` are
its two published widths, `small` its proxy; `medium` lies between, and four are narrower. Two things
are read otherwise: the bias of the whitening convolution trains all the time, and the last max-pool
takes whatever map is left, so that other sizes of image fit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offramp.inputs import Shape
from offramp.nets.backbones.backbone import Backbone
from offramp.nets.head_kinds import layers
from offramp.nets.heads import paper_head

WIDTHS = {
    "94": (64, 256, 256),
    "93": (64, 128, 128),
    "medium": (48, 96, 96),
    "small": (32, 64, 64),
    "slim": (28, 56, 56),
    "tiny": (24, 48, 48),
    "mini": (20, 40, 40),
    "micro": (16, 32, 32),
}
LOGITS_SCALE = 1 / 9
EIGENVALUE_FLOOR = 5e-4  # added before the root, as a flat patch has no direction of its own


class Airbench(nn.Module):
    """Images [B, C, H, W], each side at least 9 px → logits [B, classes]; total stride 8."""

    def __init__(self, classes: int, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        whitening = nn.Conv2d(channels, 8 * channels, 2)
        assert whitening.bias is not None
        nn.init.zeros_(whitening.bias)
        _fix_weight(whitening)
        self.stem = layers(whitening=whitening, gelu=nn.GELU())
        inputs = 8 * channels
        for number, width in enumerate(widths, start=1):
            group = layers(pooled=_block(inputs, width, pool=True), block=_block(width, width))
            self.add_module(f"group{number}", group)
            inputs = width
        self.classifier = nn.Linear(inputs, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for name in ("stem", "group1", "group2", "group3"):
            x = self.get_submodule(name)(x)
        return self.classifier(x.amax((2, 3))) * LOGITS_SCALE  # type: ignore[no-any-return]


def _block(inputs: int, width: int, pool: bool = False) -> nn.Sequential:
    """[B, inputs, H, W] → [B, width, H, W], or half of H and W. The convolution begins as the identity
    of as many channels as it has; the normalization shifts and does not scale."""
    conv = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight.data[:inputs])
    norm = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)  # the source's, for few epochs
    _fix_weight(norm)
    return layers(conv=conv, maxpool=nn.MaxPool2d(2) if pool else None, norm=norm, gelu=nn.GELU())


def _fix_weight(layer: nn.Module) -> None:
    """Make its weight a buffer, which moves and is saved with the network and never trains."""
    weight = layer.get_parameter("weight").detach()
    del layer.weight
    layer.register_buffer("weight", weight)


def whitening(images: Tensor, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """The first convolution's weight: the principal directions of 2×2 patches of training images, each
    divided by the root of its variance, and their negatives.

    Of whole pixel values every sum is exact, so that no number of threads changes a bit.

    Args:
        images: [N, C, H, W], uint8, or float32 that is already normalized by mean and std.
        mean: [C], of pixels from 0 to 1.
        std: [C].
    """
    channels = images.shape[1]
    patches = images.unfold(2, 2, 1).unfold(3, 2, 1).permute(1, 4, 5, 0, 2, 3)
    patches = patches.reshape(4 * channels, -1).to(torch.float64)
    count = patches.shape[1]
    sums, products = patches.sum(1), patches @ patches.T
    if not images.is_floating_point():
        shift = (255 * mean.to(torch.float64)).repeat_interleave(4)
        scale = (255 * std.to(torch.float64)).repeat_interleave(4)
        products = (
            products - shift[:, None] * sums - sums[:, None] * shift + count * shift[:, None] * shift
        )
        products = products / (scale[:, None] * scale)
    values, vectors = torch.linalg.eigh(products / count)
    directions = vectors.T.flip(0)  # the largest variance first
    peaks = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * peaks.sign() / (values.flip(0) + EIGENVALUE_FLOOR).sqrt()[:, None]
    weight = directions.reshape(-1, channels, 2, 2).to(torch.float32)
    return {"stem.whitening.weight": torch.cat([weight, -weight])}


def airbench(classes: int, input_shape: Shape, width: str = "94") -> nn.Module:
    """Images [B, C, H, W], each side at least 9 px → logits [B, classes]."""
    return Airbench(classes, input_shape[0], WIDTHS[width])


AIRBENCH = Backbone(
    name="airbench",
    source="Jordan, 2024",
    upstream=None,
    build=airbench,
    taps={"groups": ("group1", "group2.pooled", "group2")},
    final="group3",
    heads=(paper_head(1, gap=True, width=64), paper_head(2, gap=True, width=64)),
    options={"width": tuple(WIDTHS)},
    smallest=9,
    from_images=whitening,
)
