"""Exit heads: what a head is made of, and how it is made definite for the tensor that it reads.

Every head is `body(pool(tap))`. `pool` has no parameters and no randomness, so below a frozen trunk
its output is the same in every epoch; `body` is everything that trains. Heads return logits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from offramp.errors import OfframpError, nearest
from offramp.hashing import YOUNGER
from offramp.inputs import is_square
from offramp.nets.clock import Clock
from offramp.nets.head_kinds import KINDS as KINDS
from offramp.nets.head_kinds import HeadInput, layers

Range = tuple[Callable[[Any], bool], str]  # which values are allowed, and the same in words


def whole(value: Any) -> bool:
    """Whether it is an int and not a bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def _words(*words: str) -> Range:
    return lambda v: v in words, f"{', '.join(words[:-1])} or {words[-1]}"


POSITIVE: Range = lambda v: whole(v) and 1 <= v <= 65536, "1 to 65536"
ODD: Range = lambda v: whole(v) and 1 <= v < 100 and v % 2 == 1, "an odd number below 100"
SIDE: Range = lambda v: whole(v) and 0 <= v <= 1024, "1 to 1024, or 0 for what images tell"
SHARE: Range = (
    lambda v: (whole(v) or isinstance(v, float)) and 0 <= v < 1,
    "0 or more and less than 1",
)


def _setting(default: Any, allowed: Range, help: str, younger: bool = False) -> Any:
    """A field of `HeadSpec`. younger: whether it is left out of keys at its default (see `YOUNGER`)."""
    return field(
        default=default, metadata={**(YOUNGER if younger else {}), "range": allowed, "help": help}
    )


@dataclass(frozen=True)
class HeadSpec:
    """What one early exit is made of. Each field carries its range and its help; `KINDS` says which
    fields a kind of head reads. Raises OfframpError naming the first field that is out of range."""

    kind: str = "paper"
    width: int = _setting(128, POSITIVE, "channels of the convolution")
    hidden: int = _setting(
        128,
        POSITIVE,
        "units of the dense layer; of `local`, channels inside, by default as many as it reads",
    )
    kernel: int = _setting(
        3, ODD, "size of the convolution; of `local`, of the depthwise one, which 1 leaves out"
    )
    dropout: float = _setting(0.5, SHARE, "after the dense layer")
    pools: int = _setting(
        2,
        (lambda v: whole(v) and 0 <= v <= 2, "0, 1 or 2"),
        "2×2 max-pools: one before the convolution, one after it",
    )
    flatten: bool = _setting(
        True,
        (lambda v: isinstance(v, bool), "true or false"),
        "flattens the map, or else averages over it",
    )
    tokens: Literal["mean", "class"] = _setting(
        "mean", _words("mean", "class"), "read of [B, T, D]: the mean over T, or the first"
    )
    layout: Literal["chw", "hwc"] = _setting(
        "chw", _words("chw", "hwc"), "of a map: [B, C, H, W] or [B, H, W, C]"
    )
    stride: int = _setting(2, POSITIVE, "reads every so many-th row and column of tokens", younger=True)
    rows: int = _setting(0, SIDE, "of the grid that an image's tokens lie in", younger=True)
    columns: int = _setting(0, SIDE, "of that grid; tokens left over come first", younger=True)

    def __post_init__(self) -> None:
        for name in _FIELDS:
            if not allowed(name, value := getattr(self, name)):
                raise OfframpError(f"head: {name} cannot be {value!r}; use {must_be(name)}")

    @property
    def one_size(self) -> bool:
        """Whether it fits maps or tokens of images of one size only."""
        return KINDS[self.kind].one_size(self)


@dataclass(frozen=True)
class OwnHead:
    """What an early exit is made of that came with its network: a stretch of the network."""

    code: str  # digest of what the network computes up to its logits
    kind: Literal["its own"] = "its own"

    @property
    def one_size(self) -> bool:
        """Nobody knows which other sizes it would fit."""
        return True


_FIELDS = {f.name: f for f in dataclasses.fields(HeadSpec)}


def _range(name: str) -> Range:
    limits: Range = _words(*KINDS) if name == "kind" else _FIELDS[name].metadata["range"]
    return limits


def allowed(name: str, value: Any) -> bool:
    """Whether a field may have a value, whatever the others are."""
    return _range(name)[0](value)


def must_be(name: str) -> str:
    """What a field may be, in words."""
    return _range(name)[1]


def explained() -> Iterator[str]:
    """Lines that say what each kind of head is, and what its settings mean."""
    for name, kind in KINDS.items():
        yield f"`{name}`: {kind.help} Settings: {', '.join(f'`{s}`' for s in kind.settings)}."
    for name, setting in _FIELDS.items():
        if name != "kind":
            yield f"`{name}` ({must_be(name)}): {setting.metadata['help']}."


def paper_head(exit: int, gap: bool = False, width: int = 128) -> HeadSpec:
    """The paper's head for early exit `exit` (from 1): only the first two exits pool twice."""
    return HeadSpec("paper", width=width, pools=2 if exit <= 2 else 1, flatten=not gap)


def resolve(default: HeadSpec, overrides: Mapping[str, Any], tap: HeadInput) -> HeadSpec:
    """`default` with `overrides`, made definite for what it reads.

    Fields that the kind does not read are set to their defaults, so that equal heads have equal specs.
    Without a kind in `overrides` a map gets the default's, anything else an `mlp`. Of square images a
    map [8, 8, 96] can only be [H, W, C].

    Raises:
        OfframpError: For a tap that no head can read, an unknown setting, or one out of range.
    """
    if len(tap.shape) not in (1, 2, 3):
        raise OfframpError(
            f"{tap.where}: its tensor is [B{''.join(f', {n}' for n in tap.shape)}]; "
            "tap a map [B, C, H, W], tokens [B, T, D] or vectors [B, D]"
        )
    is_map = len(tap.shape) == 3
    name = overrides.get("kind", default.kind if is_map else "mlp")
    if name not in KINDS:
        raise OfframpError(f"{tap.where}: unknown head '{name}'{nearest(str(name), KINDS)}")
    kind = KINDS[name]
    for setting in overrides:
        if setting != "kind" and setting not in kind.settings:
            hint = nearest(setting, kind.settings)
            raise OfframpError(f"{tap.where}: a {name} head has no setting '{setting}'{hint}")
    if kind.choose is not None:
        return resolve(default, {**overrides, **kind.choose(*tap.place)}, tap)
    spec = default if name == default.kind else HeadSpec(name)
    if is_map and is_channels_last(tap.shape, is_square(tap.sides)):
        spec = dataclasses.replace(spec, layout="hwc")
    spec = kind.fit(dataclasses.replace(spec, **overrides), tap, frozenset(overrides))
    unread = _FIELDS.keys() - {"kind", *kind.settings}
    defaults: dict[str, Any] = {setting: _FIELDS[setting].default for setting in unread}
    return dataclasses.replace(spec, **defaults)


def is_channels_last(shape: tuple[int, ...], square: bool) -> bool:
    """Whether a map of `shape`, without the batch, is [H, W, C] for sure. square: of the images."""
    return square and shape[0] == shape[1] != shape[2]


class Head(nn.Module):
    """One early exit: `pool`, then `body`. Reads a tap, returns logits [B, classes]."""

    # the answer before [B, classes] → what the exit adds of it to these logits; None where that is
    # nothing (see `Carry`)
    before: nn.Module | None
    gate: nn.Linear | None  # of heads that learn when to leave

    def __init__(self, pool: nn.Module, body: nn.Module) -> None:
        super().__init__()
        self.before = self.gate = None
        self.pool, self.body = pool, body

    def forward(self, x: Tensor) -> Tensor:
        """[B, *shape] → logits [B, classes]."""
        return self.body(self.pool(x))  # type: ignore[no-any-return]


def new_head(spec: HeadSpec, shape: tuple[int, ...], classes: int, name: str, clock: Clock) -> Head:
    """A head with weights of the global generator.

    Args:
        spec: What `resolve` returned for the tap.
        shape: Of the tap, without the batch.
        classes: How many logits.
        name: Such as "exits.layer1"; with the clock, it decides what the dropout draws from.
        clock: Of the network.
    """
    dropout = ClockedDropout(spec.dropout, f"{name}.dropout", clock)
    return Head(*KINDS[spec.kind].build(spec, shape, classes, dropout))


def zeros(columns: int, rows: int, bias: bool) -> nn.Linear:
    """A layer for `Head.before` or `Head.gate`. It begins at zero and draws nothing: the head begins as
    it is without the layer, and draws the same."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, columns, rows, bias=bias)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    return layer


def through(classes: int, hidden: int) -> nn.Sequential:
    """For `Head.before`: `hidden` units, BatchNorm, ReLU, and a matrix that begins at zero."""
    return layers(
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
