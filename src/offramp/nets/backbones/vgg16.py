"""E-VGG-16: torchvision's VGG-16 features with the paper's dense block as its classifier.

Simonyan and Zisserman, "Very Deep Convolutional Networks", 2015. Read as indices into Keras' list
of layers, the paper's 5, 9 and 13 are block2_conv2, block3_conv3 and block4_conv3, each with its
ReLU; read as a count of convolutions they are conv3_1, conv4_2 and conv5_3. The two 4096-wide
layers, 90 % of the weights and made for 224 px, give way to the dense block that the paper's exits
end in.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from offramp.inputs import Shape
from offramp.nets.backbones.backbone import Backbone, check_size, convolution_like
from offramp.nets.heads import paper_head


class VGG16(nn.Module):
    """Images [B, C, H, W] → logits [B, classes]; total stride 32."""

    def __init__(self, classes: int, input_shape: Shape) -> None:
        from torchvision.models.vgg import cfgs, make_layers  # late: it takes seconds to import

        super().__init__()
        channels, height, width = input_shape
        self.features = make_layers(cfgs["D"], batch_norm=False)
        for old in self.features:
            if isinstance(old, nn.Conv2d):
                nn.init.kaiming_normal_(old.weight, mode="fan_out", nonlinearity="relu")
                assert old.bias is not None
                nn.init.zeros_(old.bias)
        if channels != 3:
            first = self.features[0]
            assert isinstance(first, nn.Conv2d)
            self.features[0] = convolution_like(first, channels, kernel=3, stride=1)
        self.classifier = nn.Sequential(
            OrderedDict(
                dense=nn.Linear(512 * (height // 32) * (width // 32), 128, bias=False),
                dropout=nn.Dropout(0.5),
                norm=nn.BatchNorm1d(128),
                linear=nn.Linear(128, classes),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))  # type: ignore[no-any-return]


def vgg16(classes: int, input_shape: Shape) -> nn.Module:
    """Images [B, C, H, W], each side at least 32 px → logits [B, classes]."""
    check_size("vgg16", input_shape, 32)
    return VGG16(classes, input_shape)


VGG_16 = Backbone(
    name="vgg16",
    source="Simonyan and Zisserman, 2015",
    upstream="torchvision/vgg16",
    build=vgg16,
    taps={
        "keras": ("features.8", "features.15", "features.22"),
        "convolutions": ("features.11", "features.20", "features.29"),
    },
    final="features",
    heads=(paper_head(1), paper_head(2), paper_head(3)),
    options={},
)
