"""E-VGG-16: torchvision's VGG-16 features with the paper's dense block as its classifier.

Simonyan and Zisserman, "Very Deep Convolutional Networks", 2015. Read as indices into Keras' list
of layers, the paper's 5, 9 and 13 are block2_conv2, block3_conv3 and block4_conv3, each with its
ReLU; read as a count of convolutions they are conv3_1, conv4_2 and conv5_3. The two 4096-wide
layers, 90 % of the weights and made for 224 px, give way to the dense block that the paper's exits
end in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offramp.inputs import Shape
from offramp.nets.backbones.backbone import Backbone, convolution_like, fan_out
from offramp.nets.head_kinds import layers
from offramp.nets.heads import paper_head


class VGG16(nn.Module):
    """Images [B, C, H, W], each side at least 32 px → logits [B, classes]; total stride 32."""

    def __init__(self, classes: int, input_shape: Shape) -> None:
        from torchvision.models.vgg import cfgs, make_layers  # late: it takes seconds to import

        super().__init__()
        channels, height, width = input_shape
        self.features = make_layers(cfgs["D"], batch_norm=False)
        for layer in self.features:
            if isinstance(layer, nn.Conv2d):
                fan_out(layer)
        if channels != 3:
            first = self.features[0]
            assert isinstance(first, nn.Conv2d)
            self.features[0] = convolution_like(first, channels, kernel=3, stride=1)
        self.classifier = layers(
            dense=nn.Linear(512 * (height // 32) * (width // 32), 128, bias=False),
            dropout=nn.Dropout(0.5),
            norm=nn.BatchNorm1d(128),
            linear=nn.Linear(128, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))  # type: ignore[no-any-return]


VGG_16 = Backbone(
    name="vgg16",
    source="Simonyan and Zisserman, 2015",
    upstream="torchvision/vgg16",
    build=VGG16,
    taps={
        "keras": ("features.8", "features.15", "features.22"),
        "convolutions": ("features.11", "features.20", "features.29"),
    },
    final="features",
    heads=(paper_head(1), paper_head(2), paper_head(3)),
    smallest=32,
)
