"""Backbones by name. A new one is one file here and one line below."""

from __future__ import annotations

from offramp.nets.backbones.airbench import AIRBENCH
from offramp.nets.backbones.backbone import Backbone
from offramp.nets.backbones.digits_cnn import DIGITS_CNN
from offramp.nets.backbones.mobilenet import MOBILENETV1, MOBILENETV2
from offramp.nets.backbones.resnet import RESNET18, RESNET50
from offramp.nets.backbones.resnet20 import RESNET20
from offramp.nets.backbones.vgg16 import VGG_16

BACKBONES: dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        *(AIRBENCH, DIGITS_CNN, MOBILENETV1, MOBILENETV2),
        *(RESNET18, RESNET20, RESNET50, VGG_16),
    )
}

__all__ = ["BACKBONES", "Backbone"]
