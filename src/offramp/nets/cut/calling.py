"""How a module takes images (by position, by name, in a mapping) and gives logits (alone or not)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from inspect import Parameter, signature
from typing import Any, final

from torch import Tensor, nn

from offramp.errors import OfframpError, kind_of

# What a module raises where it is given images in another way than it takes them.
_MISTAKEN = (TypeError, IndexError, KeyError, AttributeError)


Pick = Callable[[Any], Any]


@dataclass(frozen=True)
class CallStyle:
    """How a module is called: images `[B, C, H, W]` → logits `[B, classes]`."""

    argument: str | None = None  # the name by which it takes the images; None by position
    # the key under which a mapping has the images; None where they come as they are
    entry: str | None = None
    # the entry of what it returns that is the logits; None where it returns nothing else
    answer: str | int | None = None
    attribute: bool = False  # whether `answer` is an attribute and not an entry
    # of a module that answers at several exits: takes the logits of one of them out of what it returns;
    # `answer` is then not read
    pick: Pick | None = None

    def __call__(self, module: nn.Module, images: Any) -> Any:
        batch = images if self.entry is None else {self.entry: images}
        output = module(batch) if self.argument is None else module(**{self.argument: batch})
        if self.pick is not None:
            return self.pick(output)
        if self.answer is None:
            return output
        return getattr(output, str(self.answer)) if self.attribute else output[self.answer]


STRAIGHT = CallStyle()
"""One tensor in, one tensor out."""


@final
class Called(nn.Module):
    """A module that is called in its own style: images `[B, C, H, W]` → logits `[B, classes]`."""

    def __init__(self, module: nn.Module, style: CallStyle) -> None:
        super().__init__()
        self.module = module
        self._style = style

    def forward(self, x: Any) -> Any:
        return self._style(self.module, x)


def call_style(module: nn.Module, images: Tensor, pick: Pick | None = None) -> tuple[CallStyle, Tensor]:
    """How `module` takes `images` `[B, C, H, W]` in the mode it is in, and its logits on them; of a
    module with several exits, those that `pick` takes.

    Raises:
        OfframpError: Where no style leads to logits. What the module raises of images that do not fit it
            passes through.
    """
    title = type(module).__name__
    mistake: Exception | None = None
    for style in (STRAIGHT, *_by_name(module)):
        try:
            if pick is not None:
                style = replace(style, pick=pick)
                return style, style(module, images.clone())
            return _with_answer(style, style(module, images.clone()), module)
        except _MISTAKEN as error:
            mistake = mistake or error
        recorder = _KeyRecorder(images)
        try:
            style(module, recorder)
        except _MISTAKEN:
            continue
        if len(recorder.keys_read) == 1:
            style = replace(style, entry=next(iter(recorder.keys_read)))
            return _with_answer(style, style(module, images.clone()), module)
    assert mistake is not None
    reason = (str(mistake).strip() or repr(mistake)).splitlines()[0]
    raise OfframpError(
        f"{title} takes no images as they are ({type(mistake).__name__}: {reason}); let its forward "
        "take one tensor [B, C, H, W], by position or by name, or a mapping with one"
    ) from mistake


class _KeyRecorder(dict[str, Tensor]):
    """A mapping that has the images under any key, and records the keys that are looked up."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self._images = images
        self.keys_read: dict[str, None] = {}

    def __missing__(self, key: str) -> Tensor:
        self.keys_read[key] = None
        return self._images.clone()


def _by_name(module: nn.Module) -> list[CallStyle]:
    """By the name of the one argument that must be given by name, if there is one."""
    parameters = signature(module.forward).parameters.values()
    names = [p.name for p in parameters if p.kind is Parameter.KEYWORD_ONLY and p.default is p.empty]
    return [CallStyle(name) for name in names] if len(names) == 1 else []


def _with_answer(style: CallStyle, output: Any, module: nn.Module) -> tuple[CallStyle, Tensor]:
    """The style, with where in the output the logits are. Raises OfframpError where that is
    ambiguous."""
    if isinstance(output, Tensor):
        return style, output
    logits = None
    if isinstance(output, Mapping):
        names = [key for key, value in output.items() if isinstance(value, Tensor)]
        if "logits" in names:  # by which they are known, whatever lies beside them
            return replace(style, answer="logits"), output["logits"]
        if len(names) == 1:
            style, logits = replace(style, answer=names[0]), output[names[0]]
    elif isinstance(getattr(output, "logits", None), Tensor):
        return replace(style, answer="logits", attribute=True), output.logits
    elif (
        isinstance(output, (tuple, list))
        and output
        and isinstance(output[0], Tensor)
        and output[0].ndim == 2  # or it is a map
    ):
        style, logits = replace(style, answer=0), output[0]
    rows = [tensor for tensor in _tensors(output) if tensor.ndim == 2]
    alike = [row for row in rows if row.shape == (rows[0] if logits is None else logits).shape]
    if len(alike) > 1 and not module.training:  # auxiliary ones of training are no answers
        raise OfframpError(
            f"{type(module).__name__} returns {len(alike)} outputs of {list(alike[0].shape)}; let its "
            "forward return the final logits alone, or, if these are exits of its own, describe it with "
            "multi_exit"
        )
    if logits is not None:
        return style, logits
    mode = "train" if module.training else "eval"
    raise OfframpError(
        f"{type(module).__name__} returns {kind_of(output)} in {mode} mode, whose logits cannot "
        "be told from the rest; let its forward return them alone, first, or as `logits`"
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    """Those in a tensor, or in mappings, tuples and lists, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, tuple, list)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(part)
