"""The one error that a user is meant to see."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING, Any, get_type_hints

from offramp.escape import printable

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


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
        return printable(" ".join(super().__str__().splitlines()))


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
    """A key of a study file that does not exist, whatever its value."""


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


def shortened(text: str, most: int) -> str:
    """At most so many characters of a text; where that is not all, `…` at its end says so."""
    return text if len(text) <= most else text[: most - 1] + "…"


def nearest(word: str, choices: Iterable[str]) -> str:
    """A hint for a mistyped word: `; did you mean 'joint'?`, or the choices when none is near."""
    options = sorted(choices)
    begun = [option for option in options if word and option.startswith(word)]
    if len(word) > 1:  # `lr` is the learning_rate
        begun = begun or [o for o in options if word == "".join(re.findall(r"(?<![^_-])\w", o))]
    close = begun if len(begun) == 1 else difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; choose from {', '.join(options)}" if options else ""


def check_fields(value: DataclassInstance) -> None:
    """Raise OfframpError for a field that is not of the type, or in the range, of its annotation."""
    from pydantic import ValidationError

    for name, field in _validators(type(value)).items():
        content = getattr(value, name)
        try:
            field.validate_python(content, strict=True)
        except ValidationError as error:
            what = error.errors()[0]["msg"].lower()
            if rule := re.fullmatch(r"predicate '_is_(\w+)' failed", what):
                what = f"must be {rule[1].replace('_', ' ')}"
            raise OfframpError(f"{type(value).__name__}({name}={content!r}): {what}") from None


@cache
def _validators(kind: type[DataclassInstance]) -> dict[str, Any]:
    from pydantic import TypeAdapter

    hints = get_type_hints(kind, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in fields(kind)}
