"""The kinds of exit heads: the paper's convolutional head, a linear probe, an MLP for tokens and
vectors, and the two of LGViT for transformers. A new kind is one entry of `KINDS`, at the end, and its
builder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from offramp.errors import OfframpError
from offramp.nets import lgvit

if TYPE_CHECKING:
    from offramp.nets.heads import HeadSpec

Modules = tuple[nn.Module, nn.Module]  # a head's `pool` and `body`


@dataclass(frozen=True)
class HeadInput:
    """What a head is made for.

    Attributes:
        shape: Of the tap, without the batch.
        where: The exit, as errors name it.
        sides: (height, width) of the images, of which only the proportion counts.
        place: The exit's number from 1, and how many early exits there are.
    """

    shape: tuple[int, ...]
    where: str
    sides: tuple[int, ...] = (1, 1)
    place: tuple[int, int] = (1, 1)


def _as_it_is(spec: HeadSpec, tap: HeadInput, overrides: Set[str]) -> HeadSpec:  # noqa: ARG001
    return spec


def _fit_map(spec: HeadSpec, tap: HeadInput, _: Set[str]) -> HeadSpec:
    """Refuses what is no map."""
    if len(tap.shape) != 3:
        raise OfframpError(
            f"{tap.where}: the head '{spec.kind}' reads maps [B, C, H, W] and this tensor has "
            f"{len(tap.shape) + 1} dimensions; use the head 'mlp' or 'linear'"
        )
    return spec


def _never_built(spec: HeadSpec, *_: Any) -> Modules:
    raise OfframpError(f"a head of kind '{spec.kind}' stands for others; resolve it first")


@dataclass(frozen=True)
class HeadKind:
    """A kind of head.

    Attributes:
        help: What it is, in a sentence or two.
        settings: The fields of `HeadSpec` that it reads.
        build: `build(spec, shape, classes, dropout)` → the head's `pool`, which has no parameters, no
            buffers and no random draws, and its `body`, whose last layer is an `nn.Linear`.
        fit: `fit(spec, tap, overrides)` → the spec, definite for the tap; `overrides` has the names of
            the settings that a user gave. Raises OfframpError for a tap that the kind cannot read: by
            default, for all but maps.
        one_size: Whether a head of this spec fits maps or tokens of one size only.
        choose: Of a kind that stands for others: the exit's number from 1 and how many early exits there
            are → the kind and the settings to take. Such a kind is never built.
    """

    help: str
    settings: tuple[str, ...]
    build: Callable[[HeadSpec, tuple[int, ...], int, nn.Module], Modules] = _never_built
    fit: Callable[[HeadSpec, HeadInput, Set[str]], HeadSpec] = _fit_map
    one_size: Callable[[HeadSpec], bool] = lambda _: False
    choose: Callable[[int, int], Mapping[str, Any]] | None = None


class TokenPool(nn.Module):
    """[B, T, D] → [B, D]: the mean over the tokens, or the first of them."""

    def __init__(self, mean: bool) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1) if self.mean else x[:, 0]


class MapPool(nn.Module):
    """[B, C, H, W] → [B, C]: the mean over the map."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class ChannelsFirst(nn.Module):
    """[B, H, W, C] → [B, C, H, W], as a view."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def layers(**modules: nn.Module | None) -> nn.Sequential:
    """The modules that are not None, one after another, under their names."""
    return nn.Sequential(OrderedDict((k, v) for k, v in modules.items() if v is not None))


def _map_shape(shape: tuple[int, ...], spec: HeadSpec) -> tuple[int, int, int]:
    """The shape of a map as (C, H, W)."""
    a, b, c = shape
    return (a, b, c) if spec.layout == "chw" else (c, a, b)


def _fit_paper(spec: HeadSpec, tap: HeadInput, overrides: Set[str]) -> HeadSpec:
    """Leaves out max-pools that would find less than 2 px."""
    _fit_map(spec, tap, overrides)
    side = min(_map_shape(tap.shape, spec)[1:])
    return replace(spec, pools=min(spec.pools, side.bit_length() - 1))


def _paper(spec: HeadSpec, shape: tuple[int, ...], classes: int, dropout: nn.Module) -> Modules:
    """MaxPool | Conv, BN, ReLU, MaxPool, flatten or average, Dense, Dropout, BN, Linear.

    The bar is where `pool` ends. With one max-pool it is the one before the convolution.
    """
    channels, *sides = _map_shape(shape, spec)
    pool = layers(
        transpose=ChannelsFirst() if spec.layout == "hwc" else None,
        maxpool=nn.MaxPool2d(2) if spec.pools >= 1 else None,
    )
    features = spec.width
    if spec.flatten:
        for side in sides:
            features *= side // 2**spec.pools
    # The names are in checkpoints. A layer before a normalization needs no bias.
    return pool, layers(
        conv=nn.Conv2d(channels, spec.width, spec.kernel, padding=spec.kernel // 2, bias=False),
        norm=nn.BatchNorm2d(spec.width),
        relu=nn.ReLU(inplace=True),
        maxpool=nn.MaxPool2d(2) if spec.pools >= 2 else None,
        flatten=nn.Flatten() if spec.flatten else MapPool(),
        dense=nn.Linear(features, spec.hidden, bias=False),
        dropout=dropout,
        dense_norm=nn.BatchNorm1d(spec.hidden),
        classifier=nn.Linear(spec.hidden, classes),
    )


def _pooled(spec: HeadSpec, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """The parameter-free part that makes a vector [B, D] of a tap, and D."""
    if len(shape) == 1:
        return nn.Identity(), shape[0]
    if len(shape) == 2:
        return TokenPool(spec.tokens == "mean"), shape[1]
    transpose = ChannelsFirst() if spec.layout == "hwc" else None
    return layers(transpose=transpose, mean=MapPool()), _map_shape(shape, spec)[0]


def _linear(spec: HeadSpec, shape: tuple[int, ...], classes: int, _: nn.Module) -> Modules:
    pool, features = _pooled(spec, shape)
    return pool, layers(classifier=nn.Linear(features, classes))


def _mlp(spec: HeadSpec, shape: tuple[int, ...], classes: int, dropout: nn.Module) -> Modules:
    pool, features = _pooled(spec, shape)
    return pool, layers(
        norm=nn.LayerNorm(features),
        dense=nn.Linear(features, spec.hidden),
        gelu=nn.GELU(),
        dropout=dropout,
        classifier=nn.Linear(spec.hidden, classes),
    )


def _fit_grid(spec: HeadSpec, tap: HeadInput, overrides: Set[str]) -> HeadSpec:
    """Says how the tokens lie, and of how many channels a local head is."""
    shape, sides = tap.shape, tap.sides
    if len(shape) == 1:
        raise OfframpError(
            f"{tap.where}: the head '{spec.kind}' reads tokens of images [B, T, D], or maps, and "
            "this tensor is [B, D]; use the head 'mlp' or 'linear'"
        )
    if len(shape) == 3:  # a map says itself how it lies
        size, width = (0, 0), _map_shape(shape, spec)[0]
    else:
        tokens, width = shape
        size = spec.rows, spec.columns
        if not any(size):
            size = lgvit.grid(tokens, (sides[0], sides[1]))
        if not 0 < size[0] * size[1] <= tokens:
            raise OfframpError(
                f"{tap.where}: {tokens} tokens cannot lie in {size[0]}×{size[1]}, as images of "
                f"{sides[0]}×{sides[1]} px or the head's settings have it; say rows and columns"
            )
    hidden = spec.hidden if "hidden" in overrides else width
    return replace(spec, hidden=hidden, rows=size[0], columns=size[1])


def _grid(
    spec: HeadSpec, shape: tuple[int, ...], stride: int
) -> tuple[nn.Module, tuple[int, int, int, bool]]:
    """The class token and the grid's tokens, those that are read; their width, the grid's rows and
    columns, and whether a class token leads."""
    is_map = len(shape) == 3
    width, rows, columns = _map_shape(shape, spec) if is_map else (shape[1], spec.rows, spec.columns)
    leading = 0 if is_map else shape[0] - rows * columns
    pool = layers(
        tokens=lgvit.MapTokens(spec.layout == "chw") if is_map else None,
        sampled=lgvit.Sampled(leading, rows, columns, stride) if leading > 1 or stride > 1 else None,
    )
    return pool, (width, rows, columns, leading > 0)


def _local(spec: HeadSpec, shape: tuple[int, ...], classes: int, _: nn.Module) -> Modules:
    pool, (width, rows, columns, leads) = _grid(spec, shape, stride=1)
    mix = lgvit.LocalPerception(width, spec.hidden, spec.kernel, (rows, columns), leads)
    return pool, layers(mix=mix, classifier=nn.Linear(width, classes))


def _global(spec: HeadSpec, shape: tuple[int, ...], classes: int, _: nn.Module) -> Modules:
    pool, (width, _rows, _columns, leads) = _grid(spec, shape, spec.stride)
    mix = lgvit.GlobalAggregation(width, leads)
    return pool, layers(mix=mix, classifier=nn.Linear(width, classes))


KINDS: dict[str, HeadKind] = {
    "paper": HeadKind(
        help="for maps alone (section 5.1): a convolution between max-pools, then a dense layer. On a "
        "small network its convolution can cost more than the network itself; `print(net)` says.",
        settings=("width", "hidden", "kernel", "dropout", "pools", "flatten", "layout"),
        build=_paper,
        fit=_fit_paper,
        one_size=lambda spec: spec.flatten,
    ),
    "linear": HeadKind(
        help="the mean over a map or over tokens, then one linear layer. Costs next to nothing.",
        settings=("tokens", "layout"),
        build=_linear,
        fit=_as_it_is,
    ),
    "mlp": HeadKind(
        help="the same mean, LayerNorm, a dense layer with GELU, a linear layer. Cheap too.",
        settings=("hidden", "dropout", "tokens", "layout"),
        build=_mlp,
        fit=_as_it_is,
    ),
    "local": HeadKind(
        help="neighboring tokens of an image, or pixels of a map, mixed by convolutions; their mean, "
        "plus the class token, and a linear layer.",
        settings=("hidden", "kernel", "layout", "rows", "columns"),
        build=_local,
        fit=_fit_grid,
        one_size=lambda _: True,
    ),
    "global": HeadKind(
        help="the same with attention among all tokens, or some, in place of convolutions.",
        settings=("layout", "stride", "rows", "columns"),
        build=_global,
        fit=_fit_grid,
        one_size=lambda _: True,
    ),
    "lgvit": HeadKind(
        help="`local` in the first half of the exits, `global` in the second, as LGViT has it for "
        "transformers.",
        settings=("layout", "rows", "columns"),
        choose=lgvit.kind_at,
    ),
}
