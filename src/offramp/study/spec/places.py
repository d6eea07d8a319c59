"""Where each setting was written, in the study file or a `--set` flag, and messages that say so."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from offramp.errors import OfframpError, UnknownKey, nearest
from offramp.sections import literal
from offramp.study.spec.yaml_lines import Path, parse

T = TypeVar("T")
Places = dict[Path, str]  # of every setting that was written, and () for the whole

# What a section that is not a mapping stands for.
_SHORT = {"backbone": "name", "data": "name", "exits": "taps", "execution": "mode"}

_MUST = {
    "string_type": "must be text",
    "predicate_failed": "must be text that can be read",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "too_short": "must have at least {min_length} entry",
    "literal_error": "must be {expected}",
}


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
    """An expanded study with one `key.key=value` applied, and the places that go with it.

    Args:
        value: The study.
        places: Where its settings were written.
        setting: The key, dotted, and the value as YAML.
        origin: What wants it, for messages.

    Raises:
        OfframpError: For a setting without a value, or below what has no keys.
    """
    flag = f"{origin} {' '.join(setting.split())}"
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
    errors = error.errors(include_url=False)
    # Of what may be a name or numbers, whoever wrote no name is told what is wrong with the numbers.
    others = (e for e in errors if e["type"] != "literal_error" or isinstance(e["input"], str))
    first = next(others, errors[0])
    context = first.get("ctx", {})
    within = (step for step in first["loc"] if not str(step).startswith("tuple["))  # of a union: which
    path: Path = (*within, *context.get("path", ()))
    where = place(places, path)
    if first["type"] == "unknown_key":
        return f"{where}: unknown key '{dotted(path)}'{context['hint']}"
    if first["type"] == "missing":
        return f"{where}: '{dotted(path)}' is missing; add it"
    name = dotted(written(places, path)) or "the file"
    return f"{where}: {name} {_complaint(first, context)}"


def _complaint(first: ErrorDetails, context: dict[str, Any]) -> str:
    if first["type"] == "setting":
        return str(context["what"])
    must = _MUST.get(first["type"])
    if must is None:
        return f"cannot be used ({first['msg'].lower()})"
    value = first["input"]
    hint = ""
    if first["type"] == "literal_error" and isinstance(value, str):
        hint = nearest(value, re.findall(r"'([^']*)'", context["expected"]))
        hint = hint if "did you mean" in hint else ""
    return f"{must.format(**context)}, got {literal(value)}{hint}"
