"""Sections of a file that somebody writes: mappings of known keys, checked strictly.

A check takes what stands in the file and returns the checked value, or raises `fail(...)`, which
`study.spec.places.validated` turns into one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, is_dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from offramp.errors import OfframpError, complaint, literal, nearest, worst

EXACT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


def fail(what: str, *path: str | int) -> PydanticCustomError:
    """`what` completes the sentence that begins with the setting's name. `path` leads from the
    thing being checked to the setting."""
    return PydanticCustomError("setting", "{what}", {"what": what, "path": path})


def unknown(key: str, choices: Iterable[str]) -> PydanticCustomError:
    """A key that the thing being checked does not have."""
    hint = nearest(key, choices)
    return PydanticCustomError("unknown_key", "{hint}", {"hint": hint, "path": (key,)})


def typed(kind: Any, value: Any, what: str) -> Any:
    """`value`, of exactly the type that an annotation says; the message names it `what`. Raises
    OfframpError where it is of another type."""
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        raise OfframpError(f"{what} {complaint(worst(error))}") from None


class Section(BaseModel):
    """A part of a file: a mapping, or a dataclass that stands for one, with its fields as keys."""

    model_config = ConfigDict(**EXACT, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, value: Any) -> Any:
        kinds = {field.alias or name: field.annotation for name, field in cls.model_fields.items()}
        return mapping(value, kinds, kinds)


def mapping(
    value: Any, keys: Iterable[str], kinds: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """A mapping, or a dataclass that stands for one, with no other keys than `keys`. kinds: what parts
    are by key, for a hint: `epochs` may be meant for `recipe.epochs`."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if not isinstance(value, Mapping):
        raise fail(f"must be a mapping of keys, got {literal(value)}; fill it or remove it")
    for key in value:
        if key not in keys:
            parts = [name for name, kind in kinds.items() if key in _keys_of(kind)]
            raise unknown(str(key), [f"{parts[-1]}.{key}"] if parts else keys)
    return dict(value)


def _keys_of(kind: Any) -> list[str]:
    """Of a section, or of a dataclass that stands for one; of anything else none."""
    return [*getattr(kind, "model_fields", ()), *getattr(kind, "__dataclass_fields__", ())]
