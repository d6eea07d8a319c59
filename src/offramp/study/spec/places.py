"""Where each setting was written, in the study file or a `--set` flag, and messages that say so."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from offramp.errors import OfframpError, UnknownKey, complaint, literal, shortened, worst
from offramp.study.spec.yaml_lines import Path, parse

T = TypeVar("T")
Places = dict[Path, str]  # of every setting that was written, and () for the whole

# What a section that is not a mapping stands for.
_SHORT = {"backbone": "name", "data": "name", "exits": "taps", "execution": "mode"}


def everywhere(value: Any, path: Path, where: str) -> Places:
    """`where` for `value` and all that is in it."""
    places = {path: where}
    value = vars(value) if is_dataclass(value) else value  # a Recipe at hand
    if isinstance(value, Mapping):
        children: list[tuple[str | int, Any]] = [(str(k), v) for k, v in value.items()]
    else:
        children = list(enumerate(value)) if isinstance(value, (list, tuple)) else []
    for key, child in children:
        places |= everywhere(child, (*path, key), where)
    return places


def expanded(value: Any, where: str) -> dict[str, Any]:
    """The study with its shorthands written out: `data: digits` becomes `data: {name: digits}`."""
    if not isinstance(value, Mapping):
        raise OfframpError(
            f"{where}: must be a mapping with strategies, backbone and data, got {literal(value)}"
        )
    full = {
        key: {_SHORT[key]: section} if key in _SHORT and not isinstance(section, Mapping) else section
        for key, section in value.items()
    }
    exits = full.get("exits", {})
    if "head" in exits and not isinstance(exits["head"], Mapping):
        full["exits"] = {**exits, "head": {"kind": exits["head"]}}
    if isinstance(full.get("strategies"), (list, tuple)):
        full["strategies"] = [
            entry if isinstance(entry, Mapping) else {"name": entry} for entry in full["strategies"]
        ]
    return full


def overridden(
    value: dict[str, Any], places: Places, setting: str, origin: str = "--set"
) -> tuple[dict[str, Any], Places]:
    """An expanded study with one `key.key=value` applied, and the places that go with it. origin: what
    wants it, for messages.

    Raises:
        OfframpError: For a setting without a value, or below what has no keys.
    """
    flag = f"{origin} {shortened(' '.join(setting.split()), 200)}"
    key, equals, text = setting.partition("=")
    names = [name.strip() for name in key.split(".")]
    if not equals or not all(names):
        raise OfframpError(f"{flag}: write a key and a value, such as recipe.epochs=3")
    new = parse(text, flag, numbered=False).value
    changed, path = _with(value, names, new, (), flag)
    others = {at: where for at, where in places.items() if at[: len(path)] != path}
    above = {path[:n]: flag for n in range(1, len(path)) if path[:n] not in places}
    return expanded(changed, flag), above | others | everywhere(new, path, flag)


def _with(holder: Any, names: list[str], new: Any, path: Path, flag: str) -> tuple[Any, Path]:
    """A copy of `holder` with `new` at `names`, and the path of that place."""
    if not names:
        return new, path
    name, *rest = names
    if isinstance(holder, Mapping):
        inner = holder.get(name)
        child, end = _with({} if inner is None else inner, rest, new, (*path, name), flag)
        return {**holder, name: child}, end
    if isinstance(holder, list):
        if not re.fullmatch(r"[0-9]{1,6}", name) or int(name) >= len(holder):
            raise OfframpError(
                f"{flag}: '{dotted(path)}' is a list with {len(holder)} entries; "
                f"write {dotted(path)}.0 for the first"
            )
        index = int(name)
        child, end = _with(holder[index], rest, new, (*path, index), flag)
        return [*holder[:index], child, *holder[index + 1 :]], end
    raise OfframpError(f"{flag}: '{dotted(path)}' has no keys; set it as a whole")


def place(places: Places, path: Path) -> str:
    """Where `path` was written, or the nearest setting around it."""
    return places.get(written(places, path), "study")


def written(places: Places, path: Path) -> Path:
    """The longest beginning of `path` that was written."""
    return next((path[:n] for n in range(len(path), 0, -1) if path[:n] in places), ())


def dotted(path: Path) -> str:
    """`strategies[0].phases['branch *'].epochs`"""
    steps = [
        f".{step}" if isinstance(step, str) and re.fullmatch(r"[\w-]+", step) else f"[{step!r}]"
        for step in path
    ]
    return "".join(steps).removeprefix(".")


def validated(check: Callable[[Any], T], value: Any, places: Places) -> T:
    """What pydantic's `check` makes of a value. Raises OfframpError, one line, for the first thing that
    is wrong."""
    try:
        return check(value)
    except ValidationError as error:
        unknown = any(each["type"] == "unknown_key" for each in error.errors(include_url=False))
        raise (UnknownKey if unknown else OfframpError)(_message(error, places)) from None


def _message(error: ValidationError, places: Places) -> str:
    first = worst(error)
    context = first.get("ctx", {})
    within = (step for step in first["loc"] if not str(step).startswith("tuple["))  # of a union: which
    path: Path = (*within, *context.get("path", ()))
    where = place(places, path)
    if first["type"] == "unknown_key":
        return f"{where}: unknown key '{dotted(path)}'{context['hint']}"
    if first["type"] == "missing":
        return f"{where}: '{dotted(path)}' is missing; add it"
    name = dotted(written(places, path)) or "the file"
    what = str(context["what"]) if first["type"] == "setting" else complaint(first)
    return f"{where}: {name} {what}"
