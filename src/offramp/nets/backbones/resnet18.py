"""E-ResNet-18: torchvision's ResNet-18 with exits at the ends of its first three stages.

He et al., "Deep Residual Learning for Image Recognition", 2016. The paper leaves its exits open.
"""

from __future__ import annotations

from torch import nn
from torchvision import models

from offramp.nets.backbones.backbone import Shape
from offramp.nets.backbones.resnet import resnet, resnet_backbone


def resnet18(classes: int, input_shape: Shape, stem: str = "imagenet") -> nn.Module:
    """Images [B, C, H, W] → logits [B, classes]."""
    return resnet(models.resnet18, "resnet18", classes, input_shape, stem)


RESNET18 = resnet_backbone("resnet18", resnet18)
