"""E-MobileNetV2: torchvision's MobileNetV2 with exits at about 1/4, 1/2 and 3/4 of its MACs.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018. The paper does
not use it: the exits are the block ends nearest to those shares (25, 51 and 75 %), and the heads
are E-MobileNet's.
"""

from __future__ import annotations

from torch import nn

from offramp.inputs import Shape
from offramp.nets.backbones.backbone import STEM, Backbone, convolution_like, stem_stride
from offramp.nets.heads import paper_head


def mobilenetv2(classes: int, input_shape: Shape, stem: str = "imagenet") -> nn.Module:
    """Images [B, C, H, W] → logits [B, classes]; total stride 32, or 16 with the small stem."""
    stem_stride("mobilenetv2", input_shape, stem, STEM)
    from torchvision import models  # late: it takes seconds to import

    model: nn.Module = models.mobilenet_v2(weights=None, num_classes=classes)
    first = model.get_submodule("features.0")
    assert isinstance(first, nn.Sequential) and isinstance(first[0], nn.Conv2d)
    if input_shape[0] != 3:
        first[0] = convolution_like(first[0], input_shape[0], kernel=3, stride=2)
    if stem == "small":
        first[0].stride = (1, 1)
    return model


MOBILENETV2 = Backbone(
    name="mobilenetv2",
    source="Sandler et al., 2018",
    upstream="torchvision/mobilenet_v2",
    build=mobilenetv2,
    taps={"quarters": ("features.3", "features.10", "features.14")},
    final="features",
    heads=(paper_head(1, gap=True, width=64), paper_head(2, gap=True), paper_head(3, gap=True)),
    options={"stem": tuple(STEM)},
    strides=STEM,
)
