"""E-ResNet-50: torchvision's ResNet-50 with exits at the ends of conv2_x, conv3_x and conv4_x.

He et al., "Deep Residual Learning for Image Recognition", 2016. Counting convolutions, these ends
are layers 10, 22 and 40, where the paper puts its exits.
"""

from __future__ import annotations

from torch import nn
from torchvision import models

from offramp.nets.backbones.backbone import Shape
from offramp.nets.backbones.resnet import resnet, resnet_backbone


def resnet50(classes: int, input_shape: Shape, stem: str = "imagenet") -> nn.Module:
    """Images [B, C, H, W] → logits [B, classes]."""
    return resnet(models.resnet50, "resnet50", classes, input_shape, stem)


RESNET50 = resnet_backbone("resnet50", resnet50)
