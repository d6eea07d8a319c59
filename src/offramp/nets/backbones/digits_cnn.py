"""A small network for 8×8 images: seconds to train, with exits that differ in accuracy.

Six blocks of 3×3 convolution, BatchNorm and ReLU, a pooled linear classifier, and exits after
blocks 1, 3 and 5. Made for tests, examples and the first run; no claim of the paper rests on it.
"""

from __future__ import annotations

from torch import Tensor, nn

from offramp.inputs import Shape
from offramp.nets.backbones.backbone import Backbone
from offramp.nets.head_kinds import layers
from offramp.nets.heads import HeadSpec

WIDTHS_AND_STRIDES = ((4, 1), (8, 1), (16, 2), (32, 1), (32, 2), (64, 1))


class DigitsCNN(nn.Module):
    """Images [B, C, H, W], each side at least 4 px → logits [B, classes]; total stride 4."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        blocks = []
        for width, stride in WIDTHS_AND_STRIDES:
            blocks.append(block(channels, width, stride))
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(x).mean((2, 3)))  # type: ignore[no-any-return]


def block(channels: int, width: int, stride: int) -> nn.Module:
    """[B, channels, H, W] → [B, width, H / stride, W / stride]."""
    return layers(
        conv=nn.Conv2d(channels, width, 3, stride, padding=1, bias=False),
        norm=nn.BatchNorm2d(width),
        relu=nn.ReLU(inplace=True),
    )


def digits_cnn(classes: int, input_shape: Shape) -> nn.Module:
    """Images [B, C, H, W], each side at least 4 px → logits [B, classes]."""
    return DigitsCNN(classes, input_shape[0])


def _head(width: int, pools: int) -> HeadSpec:
    return HeadSpec("paper", width=width, hidden=32, pools=pools, flatten=False)


DIGITS_CNN = Backbone(
    name="digits-cnn",
    source="this project",
    upstream=None,
    build=digits_cnn,
    taps={"blocks": ("blocks.0", "blocks.2", "blocks.4")},
    final="blocks",
    heads=(_head(8, 2), _head(8, 2), _head(16, 1)),
    smallest=4,
    input_shape=(1, 8, 8),
)
