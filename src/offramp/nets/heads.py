"""Exit heads: the paper's convolutional head, a linear probe, an MLP for tokens and vectors, and the two
of LGViT for transformers.

Every head is `body(pool(tap))`. `pool` has no parameters and no randomness, so below a frozen trunk
its output is the same in every epoch; `body` is everything that trains. Heads return logits.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from offramp.errors import OfframpError, nearest
from offramp.hashing import YOUNGER
from offramp.inputs import is_square
from offramp.nets import lgvit
from offramp.nets.clock import Clock

HeadKind = Literal["paper", "linear", "mlp", "local", "global", "lgvit"]


@dataclass(frozen=True)
class HeadSpec:
    """What one early exit is made of. `resolve` fills it in for the tensor it reads.

    kind: `paper` (section 5.1; maps only), `linear` (pooled features → linear), `mlp` (pooled
        features → LayerNorm → hidden → GELU → dropout → linear); `local` and `global` (see `nets/lgvit`;
        tokens of images, and maps); `lgvit`, which `resolve` makes one of these two by the exit's place.
    width: channels (≥ 1) of the paper head's convolution.  kernel: size (odd) of that one, and of the
        depthwise one of `local`; there 1 leaves it out.
    hidden: units of the dense layer of `paper` and `mlp`; channels inside of `local`, by default as many
        as it reads.  dropout: in [0, 1).
    pools: 2×2 max-pools of the paper head, 0 to 2: one before its convolution, one after.
    flatten: whether the paper head flattens its map or averages over it.
    tokens: what of [B, T, D] is read, the `mean` over T or the first (`class`) token.
    layout: of a map, `chw` for [B, C, H, W], `hwc` for [B, H, W, C].
    stride: `global` reads every `stride`-th token along rows and columns.
    rows, columns: how the tokens of an image lie, for `local` and `global`; 0 and 0 take the largest
        grid in the images' proportion. Tokens left over come first: a class token, registers.
    """

    kind: HeadKind = "paper"
    width: int = 128
    hidden: int = 128
    kernel: int = 3
    dropout: float = 0.5
    pools: int = 2
    flatten: bool = True
    tokens: Literal["mean", "class"] = "mean"
    layout: Literal["chw", "hwc"] = "chw"
    stride: int = field(default=2, metadata=YOUNGER)
    rows: int = field(default=0, metadata=YOUNGER)
    columns: int = field(default=0, metadata=YOUNGER)

    def __post_init__(self) -> None:
        """Raises OfframpError naming the first field that is out of range."""
        for name, (_, must) in _ALLOWED.items():
            if not allowed(name, value := getattr(self, name)):
                raise OfframpError(f"head: {name} cannot be {value!r}; use {must}")

    @property
    def one_size(self) -> bool:
        """Whether it fits maps or tokens of images of one size only."""
        return self.kind in ("local", "global") or (self.kind == "paper" and self.flatten)


SETTINGS: dict[str, tuple[str, ...]] = {
    "paper": ("width", "hidden", "kernel", "dropout", "pools", "flatten", "layout"),
    "linear": ("tokens", "layout"),
    "mlp": ("hidden", "dropout", "tokens", "layout"),
    "local": ("hidden", "kernel", "layout", "rows", "columns"),
    "global": ("layout", "stride", "rows", "columns"),
    "lgvit": ("layout", "rows", "columns"),
}
"""The fields that each kind of head reads."""


def whole(value: Any) -> bool:
    """Whether it is an int and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "kind": (lambda v: v in tuple(SETTINGS), "paper, linear, mlp, local, global or lgvit"),
    "width": (lambda v: whole(v) and v >= 1, "1 or more"),
    "hidden": (lambda v: whole(v) and v >= 1, "1 or more"),
    "kernel": (lambda v: whole(v) and v >= 1 and v % 2 == 1, "an odd number"),
    "dropout": (
        lambda v: (whole(v) or isinstance(v, float)) and 0 <= v < 1,
        "0 or more and less than 1",
    ),
    "pools": (lambda v: whole(v) and 0 <= v <= 2, "0, 1 or 2"),
    "flatten": (lambda v: isinstance(v, bool), "true or false"),
    "tokens": (lambda v: v in ("mean", "class"), "mean or class"),
    "layout": (lambda v: v in ("chw", "hwc"), "chw or hwc"),
    "stride": (lambda v: whole(v) and v >= 1, "1 or more"),
    "rows": (lambda v: whole(v) and v >= 0, "1 or more, or 0 for what images tell"),
    "columns": (lambda v: whole(v) and v >= 0, "1 or more, or 0 for what images tell"),
}
"""Which values each field may have, and the same in words."""


def allowed(name: str, value: Any) -> bool:
    """Whether a field may have a value, whatever the others are."""
    return _ALLOWED[name][0](value)


def must_be(name: str) -> str:
    """What a field may be, in words."""
    return _ALLOWED[name][1]


def paper_head(exit: int, gap: bool = False, width: int = 128) -> HeadSpec:
    """The paper's head for early exit `exit` (from 1): only the first two exits pool twice."""
    return HeadSpec("paper", width=width, pools=2 if exit <= 2 else 1, flatten=not gap)


def resolve(
    default: HeadSpec,
    overrides: Mapping[str, Any],
    shape: tuple[int, ...],
    where: str,
    sides: tuple[int, ...] = (1, 1),
    place: tuple[int, int] = (1, 1),
) -> HeadSpec:
    """`default` with `overrides`, made definite for a tap of `shape` (without the batch).

    Without a `kind` in `overrides`, a tap that is not a map gets an `mlp`. Fields that the kind does
    not read are set to their defaults and max-pools that find less than 2 px are left out, so that
    equal heads have equal specs. `where` names the exit in errors. `sides`: (height, width) of the
    images, of which only the proportion counts, or () of texts; of square ones a map [8, 8, 96] can
    only be [H, W, C]. `place`: the exit's number from 1, and how many early exits there are.

    Raises OfframpError for a tap that no head can read, an unknown setting, or one out of range.
    """
    if len(shape) not in (1, 2, 3):
        raise OfframpError(
            f"{where}: its tensor is [B{''.join(f', {n}' for n in shape)}]; "
            "tap a map [B, C, H, W], tokens [B, T, D] or vectors [B, D]"
        )
    kind = overrides.get("kind", default.kind if len(shape) == 3 else "mlp")
    if kind not in SETTINGS:
        raise OfframpError(f"{where}: unknown head '{kind}'{nearest(str(kind), SETTINGS)}")
    if kind == "paper" and len(shape) != 3:
        raise OfframpError(
            f"{where}: the paper's head reads maps [B, C, H, W] and this tensor has "
            f"{len(shape) + 1} dimensions; use the head 'mlp' or 'linear'"
        )
    for name in overrides:
        if name != "kind" and name not in SETTINGS[kind]:
            hint = nearest(name, SETTINGS[kind])
            raise OfframpError(f"{where}: a {kind} head has no setting '{name}'{hint}")
    if kind == "lgvit":
        overrides = {**overrides, **lgvit.chosen(*place)}
        kind = overrides["kind"]
    base = default if kind == default.kind else HeadSpec(kind)
    if len(shape) == 3 and is_channels_last(shape, is_square(sides)):
        base = dataclasses.replace(base, layout="hwc")
    spec = dataclasses.replace(base, **overrides)
    if kind in ("local", "global"):
        spec = _on_grid(spec, "hidden" in overrides, shape, where, sides)
    unread: dict[str, Any] = {
        f.name: f.default for f in dataclasses.fields(spec) if f.name not in SETTINGS[kind]
    }
    unread.pop("kind")
    spec = dataclasses.replace(spec, **unread)
    if kind != "paper":
        return spec
    side = min(_map(shape, spec)[1:])
    return dataclasses.replace(spec, pools=min(spec.pools, side.bit_length() - 1))


def _on_grid(
    spec: HeadSpec, narrowed: bool, shape: tuple[int, ...], where: str, sides: tuple[int, ...]
) -> HeadSpec:
    """A local or global head made definite. narrowed: whether somebody said how many channels."""
    if len(shape) == 1 or not sides:
        what = "these are tokens of texts" if len(shape) == 2 else "this tensor is [B, D]"
        raise OfframpError(
            f"{where}: the head '{spec.kind}' reads tokens of images [B, T, D], or maps, and {what}; "
            "use the head 'mlp' or 'linear'"
        )
    if len(shape) == 3:  # a map says itself how it lies
        size, width = (0, 0), _map(shape, spec)[0]
    else:
        given, (tokens, width) = (spec.rows, spec.columns), shape
        size = given if any(given) else lgvit.grid(tokens, (sides[0], sides[1]))
        if not 0 < size[0] * size[1] <= tokens:
            raise OfframpError(
                f"{where}: {tokens} tokens cannot lie in {size[0]}×{size[1]}, as images of "
                f"{sides[0]}×{sides[1]} px or the head's settings have it; say rows and columns"
            )
    hidden = spec.hidden if narrowed else width
    return dataclasses.replace(spec, hidden=hidden, rows=size[0], columns=size[1])


def is_channels_last(shape: tuple[int, ...], square: bool) -> bool:
    """Whether a map of `shape`, without the batch, is [H, W, C] for sure. square: of the images."""
    return square and shape[0] == shape[1] != shape[2]


class Head(nn.Module):
    """One early exit: `pool`, then `body`. Reads a tap of `shape`, returns logits [B, classes].

    `spec` must be what `resolve` returned for `shape`. `name` ("exits.layer1") and `clock` decide
    what the dropout draws from. `before`: the answer before [B, classes] → what the exit adds of it to
    these logits; None where that is nothing (see `Carry`).
    """

    before: nn.Module | None

    def __init__(
        self, spec: HeadSpec, shape: tuple[int, ...], classes: int, name: str, clock: Clock
    ) -> None:
        super().__init__()
        self.before = None
        dropout = ClockedDropout(spec.dropout, f"{name}.dropout", clock)
        self.pool: nn.Module
        self.body: nn.Module
        self.gate: nn.Linear | None = None  # given to those that learn when to leave
        if spec.kind == "paper":
            self.pool, self.body = _paper(spec, _map(shape, spec), classes, dropout)
        elif spec.kind in ("local", "global"):
            self.pool, self.body = _lgvit(spec, shape, classes)
        else:
            self.pool, features = _pooled(spec, shape)
            self.body = _vector_body(spec, features, classes, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, *shape] → logits [B, classes]."""
        return self.body(self.pool(x))  # type: ignore[no-any-return]


def zeros(columns: int, rows: int, bias: bool) -> nn.Linear:
    """A layer for `Head.before` or `Head.gate`. It begins at zero and draws nothing: the head begins as
    one without it, and draws what that draws."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, columns, rows, bias=bias)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    return layer


def through(classes: int, hidden: int) -> nn.Sequential:
    """For `Head.before`: `hidden` units, BatchNorm, ReLU, and a matrix that begins at zero."""
    return _sequence(
        dense=nn.Linear(classes, hidden, bias=False),
        norm=nn.BatchNorm1d(hidden),
        relu=nn.ReLU(),
        matrix=zeros(hidden, classes, bias=False),
    )


class ClockedDropout(nn.Module):
    """Dropout whose mask, while the clock runs, depends on (seed, name, epoch, step) alone."""

    def __init__(self, p: float, name: str, clock: Clock) -> None:
        super().__init__()
        self.p = p
        self.name = name
        self.clock = clock

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.p > 0:
            self.clock.reseed(self.name)
        return nn.functional.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


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


def _map(shape: tuple[int, ...], spec: HeadSpec) -> tuple[int, int, int]:
    """`shape` as (C, H, W)."""
    a, b, c = shape
    return (a, b, c) if spec.layout == "chw" else (c, a, b)


def _paper(
    spec: HeadSpec, shape: tuple[int, int, int], classes: int, dropout: nn.Module
) -> tuple[nn.Module, nn.Module]:
    """MaxPool | Conv, BN, ReLU, MaxPool, flatten or average, Dense, Dropout, BN, Linear.

    The bar is where `pool` ends. With one max-pool it is the one before the convolution.
    """
    channels, *sides = shape
    pool = _sequence(
        transpose=ChannelsFirst() if spec.layout == "hwc" else None,
        maxpool=nn.MaxPool2d(2) if spec.pools >= 1 else None,
    )
    features = spec.width
    if spec.flatten:
        for side in sides:
            features *= side // 2**spec.pools
    body = _sequence(
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
    return pool, body


def _lgvit(spec: HeadSpec, shape: tuple[int, ...], classes: int) -> tuple[nn.Module, nn.Module]:
    """The class token and the grid's tokens, those that are read | local or global, Linear."""
    is_map = len(shape) == 3
    width, rows, columns = _map(shape, spec) if is_map else (shape[1], spec.rows, spec.columns)
    leading = 0 if is_map else shape[0] - rows * columns
    stride = spec.stride if spec.kind == "global" else 1
    pool = _sequence(
        tokens=lgvit.MapTokens(spec.layout == "chw") if is_map else None,
        sampled=lgvit.Sampled(leading, rows, columns, stride) if leading > 1 or stride > 1 else None,
    )
    mix: nn.Module
    if spec.kind == "local":
        mix = lgvit.LocalPerception(width, spec.hidden, spec.kernel, rows, columns, leading > 0)
    else:
        mix = lgvit.GlobalAggregation(width, leading > 0)
    return pool, _sequence(mix=mix, classifier=nn.Linear(width, classes))


def _pooled(spec: HeadSpec, shape: tuple[int, ...]) -> tuple[nn.Module, int]:
    """The parameter-free part that makes a vector [B, D] of a tap, and D."""
    if len(shape) == 1:
        return nn.Identity(), shape[0]
    if len(shape) == 2:
        return TokenPool(spec.tokens == "mean"), shape[1]
    transpose = ChannelsFirst() if spec.layout == "hwc" else None
    return _sequence(transpose=transpose, mean=MapPool()), _map(shape, spec)[0]


def _vector_body(spec: HeadSpec, features: int, classes: int, dropout: nn.Module) -> nn.Module:
    """[B, D] → logits: one linear layer, or an MLP that normalizes its input."""
    if spec.kind == "linear":
        return _sequence(classifier=nn.Linear(features, classes))
    return _sequence(
        norm=nn.LayerNorm(features),
        dense=nn.Linear(features, spec.hidden),
        gelu=nn.GELU(),
        dropout=dropout,
        classifier=nn.Linear(spec.hidden, classes),
    )


def _sequence(**layers: nn.Module | None) -> nn.Sequential:
    """The layers that are there, under their names."""
    return nn.Sequential(OrderedDict((k, v) for k, v in layers.items() if v is not None))
