"""Arguments from Python, checked by the annotations of what takes them; a command checks its options."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, ForwardRef, Literal, TypeVar, Union, get_args, get_origin

from offramp.api.options import CommandOption
from offramp.errors import OfframpError, kind_of, shortened, with_article

F = TypeVar("F", bound=Callable[..., Any])
LONGEST, LONGEST_NAME = 4096, 255  # letters of a text or a path, and of a name in it, as Linux has them
WORDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
NAMES: Mapping[str, Callable[[Any], bool]] = {  # of types that are not imported for their annotation
    "None": lambda value: value is None,
    "str": lambda value: _readable(value, str),
    "Path": lambda value: _readable(value, (str, PathLike)),
    "Place": lambda value: _readable(value, (str, PathLike)) or type(value).__name__ == "Url",
    "torch.device": lambda value: type(value).__name__ == "device",
    "Callable": callable,
    "Literal": lambda value: value is False,
    "Reporter": lambda value: hasattr(value, "say"),
    "Sequence": lambda value: isinstance(value, (list, tuple)),
}


@cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function, eval_str=True)


def checked(function: F) -> F:
    """The function, which refuses arguments that are not of their annotations before any work, and makes
    paths of texts."""
    return _checked(function)  # type: ignore[return-value]


@cache
def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        signature = _signature(function)
        try:
            bound = signature.bind(*args, **options)
        except TypeError:  # Python says it better
            return function(*args, **options)
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            if parameter.kind is not parameter.VAR_KEYWORD:
                bound.arguments[name] = _accepted(name, value, parameter.annotation)
                continue
            hints = get_args(parameter.annotation)[0].__annotations__
            for option in value.keys() & hints.keys():
                value[option] = _accepted(option, value[option], _evaluated(hints[option]))
        return function(*bound.args, **bound.kwargs)

    return call


def _evaluated(hint: Any) -> Any:
    """An annotation of a group of settings, in its module; what it names in turn stays a name."""
    if not isinstance(hint, ForwardRef):
        return hint
    return eval(hint.__forward_arg__, vars(sys.modules[str(hint.__forward_module__)]))


def _accepted(name: str, value: Any, hint: Any) -> Any:
    """The value; a text for a path as a path. Raises OfframpError if it is not of its annotation."""
    if not _fits(value, hint):
        text = repr(value)
        if len(text) > 60 and not isinstance(value, str):
            text = kind_of(value)
        text = shortened(" ".join(text.split()), 60)
        raise OfframpError(f"`{name}` cannot be {text}; give {_words(hint)}")
    bare = hint.__origin__ if hasattr(hint, "__metadata__") else hint
    kinds = get_args(bare) or (bare,)
    return Path(value) if isinstance(value, str) and Path in kinds and str not in kinds else value


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotation, where that is of numbers, texts, paths or switches."""
    if isinstance(value, Integral) and abs(int(value)) > sys.float_info.max:
        return False
    if hasattr(hint, "__metadata__"):
        notes = [note for note in hint.__metadata__ if isinstance(note, CommandOption)]
        return not notes or (_within(value, notes) and _fits(value, hint.__origin__))
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if hint is Any:
        return True
    if isinstance(hint, str | ForwardRef):
        text = hint if isinstance(hint, str) else hint.__forward_arg__
        parts = [part.partition("[")[0] for part in text.split(" | ") if "[" in part or "]" not in part]
        return any(NAMES.get(part, lambda _: True)(value) for part in parts)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in inner)
    if hint is inspect.Parameter.empty:
        return True
    if hint is None or hint is types.NoneType:
        return value is None
    if hint is int or hint is float:
        number = isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
        return number and not (hint is int and abs(value) >= 2**63)
    if hint is str or (isinstance(hint, type) and issubclass(hint, PathLike)):
        return _readable(value, str if hint is str else (str, PathLike))
    if origin is tuple or getattr(origin, "_is_protocol", False):
        return True  # what is in it, its reader knows
    if origin is Literal:
        return isinstance(value, str) or value in inner
    if hint is bool or (isinstance(origin, type) and issubclass(origin, Mapping)):
        return isinstance(value, origin)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        listed = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        return listed and all(_fits(each, inner[0]) for each in (value if inner else ()))
    if origin is Callable or getattr(origin, "__name__", "") == "Callable":
        return callable(value)
    # Names among a few, and whatever is of a class: the function says what it needs.
    return not (isinstance(origin, type) and isinstance(value, str)) or isinstance(value, origin)


def _within(value: Any, notes: Sequence[CommandOption]) -> bool:
    """Whether a number, or each of several, is no smaller and no larger than an option's may be."""
    several = value if isinstance(value, list | tuple) else [value]
    numbers: list[Any] = [each for each in several if isinstance(each, Real)]
    return all(
        (note.least is None or each >= note.least) and (note.most is None or each <= note.most)
        for each in numbers
        for note in notes
    )


def _readable(value: Any, kinds: Any) -> bool:
    """Whether it is a text, or a path whose names are no longer than any system takes."""
    if not isinstance(value, kinds) or "\0" in str(value) or len(str(value)) > LONGEST:
        return False
    return kinds is str or max(map(len, str(value).encode(errors="replace").split(b"/"))) <= LONGEST_NAME


def _words(hint: Any) -> str:
    """What a value may be."""
    if hasattr(hint, "__metadata__"):
        notes = [note for note in hint.__metadata__ if isinstance(note, CommandOption)]
        least = [f" from {each.least:g}" for each in notes if each.least is not None]
        most = [f" up to {each.most:g}" for each in notes if each.most is not None]
        words, none = _words(hint.__origin__), " or None"
        return "".join([words.removesuffix(none), *least, *most, none * words.endswith(none)])
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if isinstance(hint, str | ForwardRef):
        return (hint if isinstance(hint, str) else hint.__forward_arg__).replace(" | ", " or ")
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, inner))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if hint is None or hint is types.NoneType:
        return "None"
    if isinstance(origin, type) and issubclass(origin, PathLike):
        return "a path"
    if isinstance(origin, type) and issubclass(origin, Sequence) and inner:
        return f"a list of {_words(inner[0])}"
    return WORDS.get(origin, with_article(getattr(origin, "__name__", str(origin))))
