"""What a registered backbone declares, and the few steps that their builders share."""

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
    """A network that exits can be attached to.

    name: in study files.  source: the paper that the architecture comes from.
    upstream: whose definition it is and whose checkpoints fit, `torchvision/NAME` or `timm/NAME`.
    build: `build(classes=, input_shape=, **options)` → a module from images [B, C, H, W] to logits
        [B, classes]; raises OfframpError for images that are too small.
    options: values of each option, the default first.
    taps: module names of the early exits under each reading, the default reading first.
    final: the module whose output the classifier (head K) reads.
    heads: of the default early exits; exits beyond them take the last one.
    input_shape: (C, H, W) of a typical image.
    strides: total stride by stem, of a backbone that has several.
    from_images: weights that follow from the training images: `from_images(images, mean, std)` → tensors
        by name; images [N, C, H, W] uint8, or float32 that is already normalized by mean and std, [C].
    """

    name: str
    source: str
    upstream: str | None
    build: Callable[..., nn.Module]
    taps: Mapping[str, tuple[str, ...]]
    final: str
    heads: tuple[HeadSpec, ...]
    options: Mapping[str, tuple[str, ...]]
    input_shape: Shape = (3, 32, 32)
    strides: Mapping[str, int] = field(default_factory=dict)
    from_images: FromImages | None = None


STEM = {"imagenet": 32, "small": 16}  # total strides of the MobileNets
MAP = 4  # px a side: on smaller maps the last layers learn little


def check_size(name: str, shape: Shape, stride: int, remedy: str = "use larger images") -> None:
    """Raises OfframpError when an image side is below the network's stride (both in pixels)."""
    if min(shape[1:]) < stride:
        raise OfframpError(
            f"backbone '{name}' needs images of at least {stride}×{stride} px and these are "
            f"{shape[1]}×{shape[2]}; {remedy}"
        )


def stem_stride(name: str, shape: Shape, stem: str, strides: Mapping[str, int]) -> None:
    """`check_size` for a network whose stems differ in their total stride, given by stem."""
    others = [s for s in strides if strides[s] < strides[stem]]
    remedy = "use larger images"
    if others:
        names = " or ".join(f"'stem: {s}' (at least {strides[s]}×{strides[s]} px)" for s in others)
        remedy = f"{remedy} or {names}"
    check_size(name, shape, strides[stem], remedy)


def convolution_like(old: nn.Conv2d, channels: int, kernel: int, stride: int) -> nn.Conv2d:
    """A first convolution for `channels` input channels in place of `old`, with as many outputs.

    Initialized as torchvision initializes its own: normal, fan-out, biases zero.
    """
    new = nn.Conv2d(
        channels, old.out_channels, kernel, stride, padding=kernel // 2, bias=old.bias is not None
    )
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new
