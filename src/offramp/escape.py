"""Foreign text made safe for where it is shown: a terminal, Markdown, HTML, a table for spreadsheets.
Names of classes, studies, files and data sets may hold anything.

The page escapes in its template, LaTeX in `report.render.tables`; both print what is `printable` here.
"""

from __future__ import annotations

import html as _html
import re
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_SPECIAL = re.compile(r"([\\`*_\[\]|]|<(?=[a-zA-Z/!?])|&(?=[#\w])|^#)")
_PAIRED = ("~", "$")  # markup where there are two of them
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\t", "\r")


def printable(text: object, keep: str = "") -> str:
    """The text with everything spelled out that would steer a terminal or turn the direction of text,
    such as an escape, except for the characters in `keep`.

    Example:
        >>> printable("\x1b[31mred")
        '\\\\x1b[31mred'
    """
    words = str(text)
    if words.isprintable():
        return words
    return "".join(
        c if c.isprintable() or c in keep or unicodedata.category(c) == "Zs" else ascii(c)[1:-1]
        for c in words
    )


def has_controls(text: str) -> bool:
    """Whether it holds what no name should: control characters, or half a character."""
    return not text.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in text)


def printable_json(value: object) -> object:
    """A JSON value with all its text `printable`, line breaks kept."""
    if isinstance(value, str):
        return printable(value, keep="\n")
    if isinstance(value, Mapping):
        return {printable_json(key): printable_json(child) for key, child in value.items()}
    return [printable_json(child) for child in value] if isinstance(value, list | tuple) else value


def html(text: object) -> str:
    """The text of an element, or of an attribute in quotes."""
    return _html.escape(printable(text))


def preformatted(text: str) -> str:
    """An HTML element that shows a text as it is, line breaks too."""
    lines = _html.escape(printable(text, keep="\n"))
    return f"<pre>{lines}</pre>"


def markdown(text: str) -> str:
    r"""What Markdown would take for its own is written with a backslash; line breaks become spaces.

    Example:
        >>> print(markdown("<b>a_b</b>"))
        \<b>a\_b\</b>
    """
    words = _SPECIAL.sub(r"\\\1", printable(" ".join(text.split())))
    for sign in _PAIRED:
        if words.count(sign) > 1:
            words = words.replace(sign, f"\\{sign}")
    return words


def cell(value: object) -> object:
    """A value for a CSV file that a spreadsheet may open: text that it would take for a formula gets an
    apostrophe before it, which says that it is text; anything else stays.

    Example:
        >>> cell("=1+1"), cell("-1.5"), cell(-1.5)
        ("'=1+1", '-1.5', -1.5)
    """
    if not isinstance(value, str):
        return value
    text = printable(value, keep="\n\t\r")
    return f"'{text}" if text.startswith(_FORMULA) and not _is_number(text) else text


def cells(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame with `cell` for each of its values and names of columns."""
    words = frame.select_dtypes(["object", "string"])
    escaped = words.apply(lambda column: column.map({w: cell(w) for w in column.unique()}))
    return frame.assign(**dict(escaped.items())).rename(columns=cell)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
