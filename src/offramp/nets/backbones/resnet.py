"""ResNet-18 and ResNet-50 of torchvision, with exits at the ends of conv2_x, conv3_x and conv4_x.

He et al., "Deep Residual Learning for Image Recognition", 2016. Counting convolutions, these ends of
ResNet-50 are layers 10, 22 and 40, where the paper puts its exits. It leaves those of ResNet-18 open.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from offramp.inputs import Shape
from offramp.nets.backbones.backbone import Backbone, convolution_like
from offramp.nets.heads import paper_head

STRIDES = {"imagenet": 32, "medium": 16, "small": 8}
"""Total stride by stem. The medium stem is 3×3 with stride 2, the small one with stride 1; neither has
the max-pool."""


def resnet(name: str, classes: int, input_shape: Shape, stem: str = "imagenet") -> nn.Module:
    """torchvision's network of that name: images [B, C, H, W] → logits [B, classes]."""
    from torchvision import models  # late: it takes seconds to import

    model = models.get_model(name, weights=None, num_classes=classes)
    if stem != "imagenet":
        stride = {"medium": 2, "small": 1}[stem]
        model.conv1 = convolution_like(model.conv1, input_shape[0], kernel=3, stride=stride)
        model.maxpool = nn.Identity()
    elif input_shape[0] != 3:
        model.conv1 = convolution_like(model.conv1, input_shape[0], kernel=7, stride=2)
    return model  # type: ignore[no-any-return]


RESNET18, RESNET50 = (
    Backbone(
        name=name,
        source="He et al., 2016",
        upstream=f"torchvision/{name}",
        build=partial(resnet, name),
        taps={"stages": ("layer1", "layer2", "layer3")},
        final="layer4",
        heads=(paper_head(1), paper_head(2), paper_head(3)),
        options={"stem": tuple(STRIDES)},
        strides=STRIDES,
    )
    for name in ("resnet18", "resnet50")
)
