"""How a module takes images (by position, by name, in a mapping) and gives logits (alone or not)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, final

from torch import Tensor, nn

from offramp.errors import OfframpError

# What a module raises where it is given images in another way than it takes them.
_MISTAKEN = (TypeError, IndexError, KeyError, AttributeError)


@dataclass(frozen=True)
class Way:
    """argument: the name by which it takes the images; None by position.  entry: the key under which a
    mapping of them has the images; None where they come as they are.  answer: the entry of what it
    returns that is the logits, or its attribute; None where it returns nothing else.
    """

    argument: str | None = None
    entry: str | None = None
    answer: str | int | None = None
    attribute: bool = False

    def __call__(self, module: nn.Module, images: Any) -> Any:
        given = images if self.entry is None else {self.entry: images}
        out = module(given) if self.argument is None else module(**{self.argument: given})
        if self.answer is None:
            return out
        return getattr(out, str(self.answer)) if self.attribute else out[self.answer]


@final
class Called(nn.Module):
    """A module that is called by its own way: images `[B, C, H, W]` → logits `[B, classes]`."""

    def __init__(self, module: nn.Module, way: Way) -> None:
        super().__init__()
        self.module = module
        self._way = way

    def forward(self, x: Any) -> Any:
        return self._way(self.module, x)


def way_of(module: nn.Module, images: Tensor) -> tuple[Way, Tensor]:
    """How `module` takes `images` `[B, C, H, W]` in the mode it is in, and its logits on them.

    Raises OfframpError where no way leads to logits; what the module raises of images that do not fit it
    passes through.
    """
    title = type(module).__name__
    first: Exception | None = None
    for way in (Way(), *_by_name(module)):
        try:
            return _answered(way, way(module, images.clone()), title, module.training)
        except _MISTAKEN as error:
            first = first or error
        asked = _Asked(images)
        try:
            Way(way.argument)(module, asked)
        except _MISTAKEN:
            continue
        if len(asked.keys_read) == 1:
            way = Way(way.argument, next(iter(asked.keys_read)))
            return _answered(way, way(module, images.clone()), title, module.training)
    assert first is not None
    reason = (str(first).strip() or repr(first)).splitlines()[0]
    raise OfframpError(
        f"{title} takes no images as they are ({type(first).__name__}: {reason}); let its forward take "
        "one tensor [B, C, H, W], by position or by name, or a mapping with one"
    ) from first


STRAIGHT = Way()
"""One tensor in, one tensor out."""


class _Asked(dict[str, Tensor]):
    """A mapping that has the images under any key, and keeps the keys that were looked up."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._images = images
        self.keys_read: dict[str, None] = {}

    def __missing__(self, key: str) -> Tensor:
        self.keys_read[key] = None
        return self._images.clone()


def _by_name(module: nn.Module) -> list[Way]:
    """By the name of the one argument that must be given by name, if there is one."""
    parameters = signature(module.forward).parameters.values()
    names = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY and p.default is p.empty]
    return [Way(name) for name in names] if len(names) == 1 else []


def _answered(way: Way, output: Any, title: str, training: bool) -> tuple[Way, Tensor]:
    """The way, with where in the output the logits are. Raises OfframpError where none can tell."""
    found: tuple[str | int | None, bool] | None = None
    if isinstance(output, Tensor):
        found = None, False
    elif isinstance(output, Mapping):
        tensors = [key for key, value in output.items() if isinstance(value, Tensor)]
        if "logits" in tensors or len(tensors) == 1:
            found = "logits" if "logits" in tensors else tensors[0], False
    elif isinstance(getattr(output, "logits", None), Tensor):
        found = "logits", True
    elif isinstance(output, (tuple, list)) and output and isinstance(output[0], Tensor):
        found = (0, False) if output[0].ndim == 2 else None
    if found is None:
        mode = "train" if training else "eval"
        raise OfframpError(
            f"{title} returns a {type(output).__name__} in {mode} mode, whose logits cannot be told "
            "from the rest; let its forward return them alone, first, or as `logits`"
        )
    answer, attribute = found
    if answer is None:
        return way, output
    value = getattr(output, str(answer)) if attribute else output[answer]
    return Way(way.argument, way.entry, answer, attribute), value
