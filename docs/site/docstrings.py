"""The project's docstrings, which are written to be read in a terminal, as reStructuredText.

What stands in single backticks is code; `name: what it is`, with deeper lines below it, is a term and
its definition; examples and numbered steps stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

TERM = re.compile(r"([\w*][\w*, .]{0,60}): +(?=\S)")
LITERAL = re.compile(r"(`[^`]+`)")


def as_rst(lines: Sequence[str]) -> list[str]:
    """Lines of a docstring, without its common indentation.

    >>> as_rst(["Fits a `net`.", "", "net: of `attach`, or", "    one at hand."])
    ['Fits a ``net``.', '', '``net``', '    of ``attach``, or', '    one at hand.', '']
    """
    found: list[str] = []
    for block in _blocks(lines):
        if block[0].lstrip().startswith(">>>"):
            found += block
        elif re.match(r" *\d+\. ", block[0]):
            found += ["::", "", *(f"    {line}" for line in block)]
        elif any(line.startswith(" ") for line in block) or TERM.match(block[0]):
            found += _terms(block)
        else:
            found += map(_inline, block)
        found.append("")
    return found


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    for filled, block in groupby(lines, key=lambda line: bool(line.strip())):
        if filled:
            yield list(block)


def _terms(block: Sequence[str]) -> Iterator[str]:
    """A definition for each line that begins one; what stands before the first is a paragraph."""
    inside = False
    for line in block:
        found = TERM.match(line)
        if found and not line.startswith(" "):
            if not inside:
                yield ""
            inside = True
            yield ", ".join(f"``{name.strip()}``" for name in found[1].split(","))
            yield f"    {_inline(line[found.end() :])}"
        else:
            yield f"    {_inline(line.strip())}" if inside else _inline(line.strip())


def _inline(text: str) -> str:
    """Literals doubled, and what would be markup outside of them written out."""
    parts = LITERAL.split(text)
    for at, part in enumerate(parts):
        if LITERAL.fullmatch(part):
            parts[at] = f"`{part}`"
        else:
            parts[at] = re.sub(r"([*|])|(?<=\w)(_)(?=\W|$)", r"\\\g<0>", part)
    return "".join(parts)
