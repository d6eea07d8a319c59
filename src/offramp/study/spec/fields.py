"""Checks of the study file's values, one function a kind of value: see `offramp.sections`."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from pydantic.dataclasses import dataclass

from offramp import units
from offramp.augment import Augment, clash
from offramp.errors import literal, nearest
from offramp.hashing import canonical
from offramp.parts import Taps
from offramp.sections import EXACT, fail, mapping, unknown
from offramp.strategies.joint import JointWeights
from offramp.usercode import is_user_code

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
_ROOTED = re.compile(r"[a-z0-9_]+:.+")
_SCHEMES = get_args(get_args(JointWeights)[0])
# What a name that stands in a list, or `name: true`, means.
_USUAL: Mapping[str, Any] = {
    **{"flip": True, "vertical_flip": True, "crop": 4, "resized_crop": (0.08, 1.0)},
    **{"rotate": 10.0, "jitter": 0.2, "alternating_flip": True},
}
_WRITTEN = tuple(name for name in Augment.__dataclass_fields__ if name != "own")  # that is looked up


def reader(kind: type[T]) -> Callable[[Any], T]:
    """What makes a `kind`, a frozen dataclass, of a mapping: no other keys than its fields, each of
    exactly its type and in its range."""
    strict = dataclass(kind, config=EXACT, frozen=True)  # a class of its own: `kind` stays as it is
    names = [field.name for field in fields(kind)]

    def read(value: Any) -> T:
        checked = strict(**{key: _tuples(each) for key, each in mapping(value, names).items()})
        return kind(**{name: getattr(checked, name) for name in names})

    return read


def _tuples(value: Any) -> Any:
    """Lists of a file, and those in them, as the tuples that a frozen dataclass holds."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def gather_options(value: Any, keys: set[str]) -> dict[str, Any]:
    """A mapping whose other keys become `options`."""
    if not isinstance(value, Mapping):
        raise fail(f"must be a name or a mapping with a name, got {literal(value)}")
    rest = {str(k): v for k, v in value.items() if k not in keys}
    if "name" in keys and "name" not in value:
        inner = next((k for k, v in rest.items() if isinstance(v, Mapping)), None)
        raise fail(f"has no name; write 'name: {inner}'" if inner else "has no name; add it")
    for name, option in rest.items():
        try:
            canonical(option)
        except (TypeError, ValueError):
            what = "must be text, a finite number, true, false, null, or lists and mappings of these"
            raise fail(what, name) from None
    return {**{k: v for k, v in value.items() if k in keys}, "options": rest}


def name_and_root(value: Any) -> Any:
    """Data named as `folder:path/to/images` with its root written out; all else as it is."""
    name = value.get("name") if isinstance(value, Mapping) else None
    if not isinstance(name, str) or is_user_code(name) or not _ROOTED.fullmatch(name):
        return value
    name, _, root = name.partition(":")
    return {"root": root, **value, "name": name}


def switch(value: Any) -> Any:
    """YAML reads a bare on or off as true or false already; quoted ones mean the same."""
    if isinstance(value, bool):
        return value
    if value not in ("on", "off"):
        raise fail(f"must be on or off, got {literal(value)}")
    return value == "on"


def limit(value: Any) -> int | Literal["auto"]:
    """Bytes, or `auto`."""
    if value == "auto":
        return "auto"
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1
    size = units.read(str(value), units.SIZE) if whole or isinstance(value, str) else None
    if size is None:
        raise fail(f"must be auto or {units.SIZE.such}, got {literal(value)}")
    return int(size)


def taps(value: Any) -> Taps:
    """Names or shares of places, a number of exits, or lists of submodules."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise fail(f"must be at least 1 early exit, got {value}")
        return value
    if not isinstance(value, (list, tuple)) or not value:
        raise fail(f"must be a number of exits or a list of places, got {literal(value)}")
    if isinstance(value[0], (list, tuple)):
        if not all(isinstance(row, (list, tuple)) and row for row in value) or len(value) < 2:
            raise fail(
                "must have one list of submodules for each segment and a last one for the classifier"
            )
        _names([name for row in value for name in row])
        return tuple(tuple(row) for row in value)
    return _names(value)


def _names(value: Sequence[Any]) -> tuple[str, ...]:
    """Each a text, and there once; a share is above nothing and below all."""
    for i, tap in enumerate(value):
        if not isinstance(tap, str) or not tap:
            raise fail(f"must list names of places, got {literal(tap)} among them")
        if tap in value[:i]:
            raise fail(f"names the place '{tap}' twice; remove one")
        percent = units.read(tap, units.PERCENT)
        if tap.endswith("%") and (percent is None or percent >= 100):
            raise fail(f"must be shares above 0% and below 100%, got {literal(tap)} among them")
    return tuple(value)


def joint_weights(value: Any) -> JointWeights:
    """A scheme by name, or one number an exit."""
    if isinstance(value, str):
        if value not in _SCHEMES:
            raise fail(f"must be {', '.join(_SCHEMES)} or one number an exit{nearest(value, _SCHEMES)}")
        return value  # type: ignore[return-value]  # just checked
    if not isinstance(value, (list, tuple)) or not value:
        what = f"must be {', '.join(_SCHEMES)} or a list with one number an exit"
        raise fail(f"{what}, got {literal(value)}")
    for i, weight in enumerate(value):
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not math.isfinite(weight) or weight < 0:
            raise fail(f"must be a number of at least 0, got {literal(weight)}", i)
    if not any(value):
        raise fail("must have a weight above 0; nothing would train")
    return tuple(float(weight) for weight in value)


_read_augment = reader(Augment)


def augment(value: Any) -> Augment | None:
    """A mapping, or names such as [flip, crop]. `true` stands for the usual strength of each."""
    if value is None:
        return None
    value = [value] if isinstance(value, str) else value
    if isinstance(value, (list, tuple)):
        for name in value:
            if not isinstance(name, str):
                what = f"must list names such as flip and crop, got {literal(name)} among them"
                raise fail(f"{what}; with numbers, write a mapping: {{crop: 4}}")
            if name not in _USUAL:
                raise unknown(name, _USUAL)
        value = dict.fromkeys(value, True)
    value = asdict(value) if isinstance(value, Augment) else value
    if isinstance(value, Mapping):
        value = {name: setting for name, setting in value.items() if (name, setting) != ("own", None)}
    off, settings = Augment(), mapping(value, _WRITTEN)
    for name, setting in settings.items():
        if isinstance(setting, bool) and name in _USUAL:
            settings[name] = _USUAL[name] if setting else getattr(off, name)
    augment = _read_augment(settings)
    if wrong := clash(augment):
        raise fail(wrong[1], wrong[0])
    return augment


def refuse_repeated_seeds(seeds: Sequence[int]) -> None:
    """Refuse a seed that stands twice."""
    seed, times = Counter(seeds).most_common(1)[0]
    if times > 1:
        last = len(seeds) - 1 - list(reversed(seeds)).index(seed)
        raise fail(f"repeats the seed {seed}; give each seed once", "seeds", last)


def refuse_labels(labels: Sequence[str]) -> None:
    """Refuse a label that two strategies have, or that reports would read as two."""
    for i, label in enumerate(labels):
        if label in labels[:i]:
            what = f"has the label '{label}' of strategies[{labels.index(label)}]"
            raise fail(f"{what}; give it one of its own with 'as'", "strategies", i)
        if " = " in f" {label} ":
            what = f"has the label '{label}', and reports join names of equal networks by ' = '"
            raise fail(f"{what}; give it another with 'as', such as τ=4", "strategies", i)
