"""What a registered backbone declares, and the layers that their builders share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

from offramp.errors import OfframpError
from offramp.inputs import Shape
from offramp.nets.heads import HeadSpec
from offramp.nets.inside import FromImages


@dataclass(frozen=True)
class Backbone:
    """A network that exits can be attached to."""

    name: str  # in study files
    source: str  # the paper that the architecture comes from
    # whose definition it is and whose checkpoints fit, `torchvision/NAME` or `timm/NAME`
    upstream: str | None
    # `build(classes=, input_shape=, **options)` → a module from images [B, C, H, W] to logits [B,
    # classes]
    build: Callable[..., nn.Module]
    # module names of the early exits under each reading, the default reading first
    taps: Mapping[str, tuple[str, ...]]
    final: str  # the module whose output the classifier (head K) reads
    heads: tuple[HeadSpec, ...]  # of the default early exits; exits beyond them take the last one
    # values of each option, the default first
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    smallest: int = 1  # px a side of the smallest images that pass; of several stems see `strides`
    # total stride by stem, of a backbone that has several: images are at least as large
    strides: Mapping[str, int] = field(default_factory=dict)
    input_shape: Shape = (3, 32, 32)  # (C, H, W) of a typical image
    # weights that follow from the training images: `from_images(images, mean, std)` → tensors by name;
    # images [N, C, H, W] uint8, or float32 that is already normalized by mean and std, [C]
    from_images: FromImages | None = None

    def check_size(self, shape: Shape, stem: str | None) -> None:
        """Raises OfframpError when an image side is too small for the network with that stem."""
        smallest = self.smallest if stem is None else self.strides[stem]
        if min(shape[1:]) >= smallest:
            return
        finer = [s for s in self.strides if self.strides[s] < smallest]
        stems = (f"'stem: {s}' (at least {self.strides[s]}×{self.strides[s]} px)" for s in finer)
        remedy = f"use larger images or {' or '.join(stems)}" if finer else "use larger images"
        raise OfframpError(
            f"backbone '{self.name}' needs images of at least {smallest}×{smallest} px and these are "
            f"{shape[1]}×{shape[2]}; {remedy}"
        )


MAP = 4  # px a side: on smaller maps the last layers learn little


def fan_out(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution, its weights drawn as torchvision draws its own: normal, fan-out, biases zero."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def convolution_like(old: nn.Conv2d, channels: int, kernel: int, stride: int) -> nn.Conv2d:
    """A first convolution for `channels` input channels in place of `old`, with as many outputs."""
    bias = old.bias is not None
    return fan_out(nn.Conv2d(channels, old.out_channels, kernel, stride, padding=kernel // 2, bias=bias))
