"""E-MobileNet (V1) and E-MobileNetV2, with exits inside.

V1: Howard et al., "MobileNets", 2017; timm's definition, exits after depthwise-separable blocks 3, 6 and
11. The paper's layers 8, 14 and 24 are depthwise layers; an exit there reads the tensor entering the
layer, which is the output of the block before it.

V2: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018; torchvision's
definition. The paper does not use it: exits are the block ends nearest to 1/4, 1/2 and 3/4 of the MACs
(25, 51 and 75 %), and the heads are E-MobileNet's.
"""

from __future__ import annotations

from torch import nn

from offramp.inputs import Shape
from offramp.nets.backbones.backbone import Backbone, convolution_like
from offramp.nets.heads import paper_head

STRIDES = {"imagenet": 32, "small": 16}  # of the whole network, by stem
HEADS = (paper_head(1, gap=True, width=64), paper_head(2, gap=True), paper_head(3, gap=True))


def mobilenetv1(classes: int, input_shape: Shape, stem: str = "imagenet") -> nn.Module:
    """Images [B, C, H, W] → logits [B, classes]; total stride 32, or 16 with the small stem."""
    import timm  # late: it takes seconds to import

    model: nn.Module = timm.create_model(
        "mobilenetv1_100", pretrained=False, num_classes=classes, in_chans=input_shape[0]
    )
    if stem == "small":
        model.get_submodule("conv_stem").stride = (1, 1)  # type: ignore[assignment]
    return model


def mobilenetv2(classes: int, input_shape: Shape, stem: str = "imagenet") -> nn.Module:
    """Images [B, C, H, W] → logits [B, classes]; total stride 32, or 16 with the small stem."""
    from torchvision import models  # late: it takes seconds to import

    model: nn.Module = models.mobilenet_v2(weights=None, num_classes=classes)
    first = model.get_submodule("features.0")
    assert isinstance(first, nn.Sequential) and isinstance(first[0], nn.Conv2d)
    if input_shape[0] != 3:
        first[0] = convolution_like(first[0], input_shape[0], kernel=3, stride=2)
    if stem == "small":
        first[0].stride = (1, 1)
    return model


MOBILENETV1 = Backbone(
    name="mobilenetv1",
    source="Howard et al., 2017",
    upstream="timm/mobilenetv1_100",
    build=mobilenetv1,
    taps={
        "entering": ("blocks.1.1", "blocks.3.0", "blocks.3.5"),  # blocks 3, 6, 11
        "leaving": ("blocks.2.0", "blocks.3.1", "blocks.4.0"),  # blocks 4, 7, 12
    },
    final="blocks",
    heads=HEADS,
    options={"stem": tuple(STRIDES)},
    strides=STRIDES,
)

MOBILENETV2 = Backbone(
    name="mobilenetv2",
    source="Sandler et al., 2018",
    upstream="torchvision/mobilenet_v2",
    build=mobilenetv2,
    taps={"quarters": ("features.3", "features.10", "features.14")},
    final="features",
    heads=HEADS,
    options={"stem": tuple(STRIDES)},
    strides=STRIDES,
)
