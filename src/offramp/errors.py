"""The one error that a user is meant to see."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OfframpError(Exception):
    """Something the user can mend: the message names the thing and the remedy.

    The command line prints it as one line and exits with 2; it never shows a traceback for it.

    >>> try:
    ...     offramp.load("nothing", store="nowhere")
    ... except offramp.OfframpError as error:
    ...     print(error)
    no trial 'nothing' in nowhere; run a study first
    """


class Unwritable(OfframpError):
    """A place that cannot be written, such as a full disk: no other work can go on there either."""


class Changed(OfframpError):
    """Data that is not what it was when it was planned with: all that is at work on it is void."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """A hint for a mistyped word: `; did you mean 'joint'?`, or the choices when none is near."""
    options = sorted(choices)
    begun = [option for option in options if word and option.startswith(word)]
    close = begun if len(begun) == 1 else difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; choose from {', '.join(options)}" if options else ""
