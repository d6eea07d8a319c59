"""ResNet-20 for 32 px images, with exits after each of its first two stages and inside the second.

He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2: three stages of three
blocks at 16, 32 and 64 channels, and shortcuts without weights, which skip every other pixel and fill
new channels with zeros.
"""

from __future__ import annotations

from torch import Tensor, nn

from offramp.inputs import Shape
from offramp.nets.backbones.backbone import Backbone, fan_out
from offramp.nets.heads import paper_head

WIDTHS = (16, 32, 64)
BLOCKS = 3  # in each stage


class Block(nn.Module):
    """[B, inputs, H, W] → [B, width, H / stride, W / stride]."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added = stride, width - inputs
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        fan_out(self.conv1)
        fan_out(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.added:
            half = self.added // 2
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return self.relu(x + y)  # type: ignore[no-any-return]


class ResNet20(nn.Module):
    """Images [B, C, H, W], each side at least 4 px → logits [B, classes]; total stride 4."""

    def __init__(self, classes: int, input_shape: Shape) -> None:
        super().__init__()
        inputs = WIDTHS[0]
        self.conv1 = fan_out(nn.Conv2d(input_shape[0], inputs, 3, padding=1, bias=False))
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        for number, width in enumerate(WIDTHS, start=1):
            first = Block(inputs, width, stride=1 if number == 1 else 2)
            others = (Block(width, width, stride=1) for _ in range(BLOCKS - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *others))
            inputs = width
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for name in ("layer1", "layer2", "layer3"):
            x = self.get_submodule(name)(x)
        return self.fc(x.mean((2, 3)))  # type: ignore[no-any-return]


RESNET20 = Backbone(
    name="resnet20",
    source="He et al., 2016",
    upstream=None,
    build=ResNet20,
    taps={"stages": ("layer1", "layer2.0", "layer2")},
    final="layer3",
    heads=(paper_head(1, gap=True, width=64), paper_head(2, gap=True, width=64)),
    smallest=4,
)
