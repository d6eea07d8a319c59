"""Docstrings as Sphinx's napoleon extension reads them: plain words are no markup, commands are code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

COMMANDS = "On the command line:"
LITERAL = re.compile(r"(`[^`]+`)")


def as_rst(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a docstring; examples stay as they are.

    >>> list(as_rst(["Fits a `net` on *args.", ">>> fit(*args)"]))
    ['Fits a ``net`` on \\\\*args.', '>>> fit(*args)']
    """
    example = commands = False
    for line in lines:
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        commands = commands and (line.startswith(" ") or not line)
        if line == COMMANDS:
            commands = True
            yield from (f"{line}:", "")
        else:
            yield line if example or commands else _inline(line)


def _inline(text: str) -> str:
    """Literals doubled, and what would be markup outside of them written out."""
    parts = LITERAL.split(text)
    for at, part in enumerate(parts):
        if LITERAL.fullmatch(part):
            parts[at] = f"`{part}`"
        else:
            parts[at] = re.sub(r"([*|])|(?<=\w)(_)(?=\W|$)", r"\\\g<0>", part)
    return "".join(parts)
