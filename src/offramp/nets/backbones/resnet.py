"""What ResNet-18 and ResNet-50 share: torchvision's definition, stems, and exits at stage ends."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn
from torchvision.models import ResNet

from offramp.nets.backbones.backbone import Backbone, Shape, convolution_like, stem_stride
from offramp.nets.heads import paper_head

STRIDES = {"imagenet": 32, "medium": 16, "small": 8}  # of the whole network, by stem


def resnet(make: Callable[..., ResNet], name: str, classes: int, shape: Shape, stem: str) -> nn.Module:
    """torchvision's `make` for images of `shape`: [B, C, H, W] → logits [B, classes].

    Total stride 32; 16 with the medium stem (3×3, stride 2, no max-pool), 8 with the small one (3×3,
    stride 1, no max-pool).
    """
    stem_stride(name, shape, stem, STRIDES)
    model = make(weights=None, num_classes=classes)
    if stem != "imagenet":
        stride = {"medium": 2, "small": 1}[stem]
        model.conv1 = convolution_like(model.conv1, shape[0], kernel=3, stride=stride)
        model.maxpool = nn.Identity()
    elif shape[0] != 3:
        model.conv1 = convolution_like(model.conv1, shape[0], kernel=7, stride=2)
    return model  # type: ignore[no-any-return]


def resnet_backbone(name: str, build: Callable[..., nn.Module]) -> Backbone:
    """The entry of a ResNet with exits at the ends of conv2_x, conv3_x and conv4_x."""
    return Backbone(
        name=name,
        source="He et al., 2016",
        upstream=f"torchvision/{name}",
        build=build,
        taps={"stages": ("layer1", "layer2", "layer3")},
        final="layer4",
        heads=(paper_head(1), paper_head(2), paper_head(3)),
        options={"stem": tuple(STRIDES)},
        replaced=("fc.",),
    )
