"""E-MobileNet (V1): timm's definition, exits after depthwise-separable blocks 3, 6 and 11.

Howard et al., "MobileNets", 2017. The paper's layers 8, 14 and 24 are depthwise layers; an exit
there reads the tensor entering the layer, which is the output of the block before it.
"""

from __future__ import annotations

from torch import nn

from offramp.inputs import Shape
from offramp.nets.backbones.backbone import STEM, Backbone, stem_stride
from offramp.nets.heads import paper_head


def mobilenetv1(classes: int, input_shape: Shape, stem: str = "imagenet") -> nn.Module:
    """Images [B, C, H, W] → logits [B, classes]; total stride 32, or 16 with the small stem."""
    stem_stride("mobilenetv1", input_shape, stem, STEM)
    import timm  # late: it takes seconds to import

    model: nn.Module = timm.create_model(
        "mobilenetv1_100", pretrained=False, num_classes=classes, in_chans=input_shape[0]
    )
    if stem == "small":
        model.get_submodule("conv_stem").stride = (1, 1)  # type: ignore[assignment]
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
    heads=(paper_head(1, gap=True, width=64), paper_head(2, gap=True), paper_head(3, gap=True)),
    options={"stem": tuple(STEM)},
    strides=STEM,
)
