"""The one error that a user is meant to see."""

from __future__ import annotations

import difflib
import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

from offramp.escape import printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class OfframpError(Exception):
    """A mistake that the user can fix: the message names it and the remedy.

    The command line prints it as one line and exits with 2; it never shows a traceback for it.

    Example:
        >>> try:
        ...     offramp.load("nothing", store="nowhere")
        ... except offramp.OfframpError as error:
        ...     print(error)
        no trial 'nothing' in nowhere; run a study first
    """

    exit_code = 2  # of a command

    def __str__(self) -> str:
        """One line, whatever stood in what it names."""
        return readable(super().__str__())


def readable(message: str) -> str:
    """A message as one line of what can be printed, in which no word has more than 200 characters."""
    line = " ".join(message.splitlines())
    cut = re.sub(r"\S{201,}", lambda word: f"{word[0][:140]}…{word[0][-59:]}", line)
    if len(cut) > LONGEST:  # a value of many words
        cut = f"{cut[: LONGEST // 2]}…{cut[-LONGEST // 2 :]}"
    return printable(cut)


LONGEST = 4000  # characters of a message


class OfframpWarning(UserWarning):
    """Something to know before training: of a network, data or a study, such as few images. The command
    line prints it as a note; `attach`, `fit`, `run` and `build` warn.

    Example:
        >>> import warnings
        >>> warnings.simplefilter("ignore", offramp.OfframpWarning)  # or "error", to stop there
    """


class Unwritable(OfframpError):
    """A place that cannot be written, such as a full disk: no other work can go on there either."""


class UnknownKey(OfframpError):
    """A key of a study file, or an option in it, that does not exist, whatever its value."""


class UntrustedCode(OfframpError):
    """Code that a store names and nobody has trusted."""


class DataChanged(OfframpError):
    """Data that changed since they were planned with: all work on them is void."""


def in_line(error: BaseException, most: int = 200) -> str:
    """The message of a library's error, in one line of at most so many characters; its type where it has
    no message. Of a traceback in it, as those of other processes have, only the end is the reason."""
    message, _, trace = str(error).partition("Traceback (most recent call last)")
    text = (
        " ".join((message + " ".join(trace.strip().splitlines()[-1:])).split()) or type(error).__name__
    )
    return shortened(text, most)


def check_installed(what: str, extra: str, *packages: str) -> None:
    """Raise OfframpError naming the packages that `what` needs and that are not here; an extra of
    offramp brings them."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        needs = f"{what} needs {', '.join(missing)}"
        raise OfframpError(f"{needs}; install with: pip install 'offramp[{extra}]'")


def with_article(name: str) -> str:
    """`an ExitNetwork`, `a list`."""
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def kind_of(value: object) -> str:
    """The type of a value, with its article; `None` itself."""
    return "None" if value is None else with_article(type(value).__name__)


def shortened(text: str, most: int) -> str:
    """At most so many characters of a text; where that is not all, `…` at its end says so."""
    return text if len(text) <= most else text[: most - 1] + "…"


MANY = 40  # choices that a line lists


def nearest(word: str, choices: Iterable[str]) -> str:
    """A hint for a mistyped word: `; did you mean 'joint'?`, or the choices when none is near."""
    options = sorted(choices)
    begun = [option for option in options if word and option.startswith(word)]
    if len(word) > 1:  # `lr` is the learning_rate
        begun = begun or [o for o in options if word == "".join(re.findall(r"(?<![^_-])\w", o))]
    close = begun if len(begun) == 1 else difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    more = f" and {len(options) - MANY:,} more" if len(options) > MANY else ""
    return f"; choose from {', '.join(options[:MANY])}{more}" if options else ""


MUST = {  # in place of pydantic's own words
    "string_type": "must be text",
    "predicate_failed": "must be text that can be read (PYTHONUTF8=1 reads names beyond ASCII)",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list, such as [a, b]",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "extra_forbidden": "is no field of it; remove it",
    "missing": "is missing; add it",
    "json_invalid": "is no JSON",
    "greater_than": "must be greater than {gt:.12g}",
    "greater_than_equal": "must be at least {ge:.12g}",
    "less_than": "must be less than {lt:.12g}",
    "less_than_equal": "must be at most {le:.12g}",
    "too_short": "must have at least {min_length} entries",
    "literal_error": "must be {expected}",
    "is_instance_of": "must be a {class}",
    "string_pattern_mismatch": "must match {pattern}",
}


def worst(error: ValidationError) -> ErrorDetails:
    """The error of pydantic's that is told. Of what may be a name or numbers, whoever wrote no name is
    told what is wrong with the numbers."""
    errors = error.errors(include_url=False)
    others = (e for e in errors if not _of_names(e) or isinstance(e["input"], str))
    return next(others, errors[0])


def _of_names(error: ErrorDetails) -> bool:
    """Whether it says which names are allowed, where something else is allowed too: pydantic then writes
    the kind of value, `literal['a']`, behind the field's name."""
    *_, last = ("", *error["loc"])  # a value alone has no place
    return error["type"] == "literal_error" and not str(last).isidentifier()


def complaint(error: ErrorDetails) -> str:
    """What a value must be, by pydantic's error."""
    context, value = error.get("ctx", {}), error["input"]
    words = MUST.get(error["type"])
    must = f"cannot be used ({error['msg'].lower()})" if words is None else words.format(**context)
    must = re.sub(r"\b1 entries", "1 entry", must)
    if rule := re.fullmatch(r"Predicate '?_is_(\w+?)'? failed", error["msg"]):
        must = f"must be {rule[1].replace('_', ' ')}"
    hint = ""
    if error["type"] == "literal_error" and isinstance(value, str):
        hint = nearest(value, re.findall(r"'([^']*)'", context["expected"]))
        hint = hint if "did you mean" in hint else ""
    return f"{must}, got {literal(value)}{hint}" if must.startswith("must") else must


def literal(value: Any) -> str:
    """A value as a file spells it, short and on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a mapping"
    text = repr([*value] if isinstance(value, tuple) else value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def check_fields(value: DataclassInstance, options: bool = False) -> None:
    """Raise OfframpError for a field that is not of the type, or in the range, of its annotation.
    options: the fields are a job's options, and nobody knows the class."""
    for name, words in wrong_fields(value):
        where = f"`{name}`" if options else f"{type(value).__name__}: {name}"
        raise OfframpError(f"{where} {words}")


def wrong_fields(value: DataclassInstance) -> Iterator[tuple[str, str]]:
    """The fields that are not of the type, or in the range, of their annotations, and what they must
    be."""
    from pydantic import ValidationError

    for name, field in _validators(type(value)).items():
        try:
            field.validate_python(getattr(value, name), strict=True)
        except ValidationError as error:
            yield name, complaint(worst(error))


@cache
def _validators(kind: type[DataclassInstance]) -> dict[str, Any]:
    from pydantic import TypeAdapter

    hints = get_type_hints(kind, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in fields(kind)}
