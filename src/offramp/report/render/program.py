"""A picture of a strategy: for each of its phases, what trains, what is frozen, and what is left out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from offramp.escape import html
from offramp.parts import Part, path
from offramp.phase import Init, Phase, Program, check, describe, notes

COLUMN, LINE, MARGIN = 74, 15, 14  # pixels: a segment's width, a line's height
WIDTH = 340  # pixels, at least: a phone's, where words beside the boxes would be too small to read
BOX, HEAD = (56, 24), (34, 16)  # of a segment, of a head
INK, SOFT, PAPER = "#1a1a1a", "#595959", "#ffffff"
FILLS = {"trains": "#1f5fbf", "frozen": "#cfd6de", "unread": PAPER}
WORDS = {"trains": "trains", "frozen": "frozen, runs", "unread": "does not run"}


def picture(program: Program, exits: int, title: str) -> str:
    """SVG: a row for each phase, from the input on the left to the final exit on the right. title: for
    readers who cannot see it; what each phase trains is said too.

    Raises:
        OfframpError: For a program that does not fit so many exits.

    >>> from offramp.strategies import STRATEGIES
    >>> picture(STRATEGIES["two-stage"](3), 3, "two-stage").count("<g ")
    4
    """
    check(program, exits)
    rows: list[str] = []
    top = MARGIN
    for phase in program:
        words = _words(phase)
        rows += _row(phase, words, exits, top)
        top = _boxes(words, top) + HEAD[1] + BOX[1] + 30
    width = max(WIDTH, COLUMN * exits + 2 * MARGIN)
    height = top + 2 * LINE + MARGIN
    description = "; ".join(f"{phase.name} trains {_parts(phase)}" for phase in program)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" font-family="Helvetica, Arial, sans-serif" font-size="12">',
        f"<title>{html(title)}</title>",
        f"<desc>{html(description)}</desc>",
        f'<rect width="100%" height="100%" rx="6" fill="{PAPER}"/>',
        *rows,
        *_legend(top),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _words(phase: Phase) -> list[str]:
    """What stands below a phase's name."""
    return [line for text in (describe(phase.terms), *notes(phase)) for line in textwrap.wrap(text, 42)]


def _boxes(words: list[str], top: int) -> int:
    """Where a phase's boxes begin, below its name and these words."""
    return top + LINE * (len(words) + 1) + 8


def _parts(phase: Phase) -> str:
    return " and ".join(str(part) for part in sorted(phase.trained))


def _row(phase: Phase, words: list[str], exits: int, top: int) -> Iterator[str]:
    yield f'<g data-phase="{html(phase.name)}">'
    yield f'<text x="{MARGIN}" y="{top + 14}" font-weight="bold" fill="{INK}">{html(phase.name)}</text>'
    for number, line in enumerate(words, start=1):
        y = top + 14 + LINE * number
        yield _text(MARGIN, y, line)
    top = _boxes(words, top)
    read = {part for k in phase.exits for part in path(k)}
    fresh = {part for part, init in phase.starts.items() if init is Init.FRESH}
    for k in range(1, exits + 1):
        segment, head = Part("segment", k), Part("head", k)
        middle, bottom = MARGIN + COLUMN * (k - 0.5), top + HEAD[1] + 12
        if k > 1:
            yield _line(
                middle - COLUMN + BOX[0] / 2,
                bottom + 12,
                middle - BOX[0] / 2,
                bottom + 12,
                segment in read,
            )
        yield _line(middle, top + HEAD[1], middle, bottom, head in read)
        name = "FE" if k == exits else str(k)
        label = f"{name} new" if head in fresh else name
        yield from _box(middle, top, HEAD, head, _state(head, phase, read), label, 8)
        yield from _box(middle, bottom, BOX, segment, _state(segment, phase, read), f"L{k}", 3)
    yield "</g>"


def _state(part: Part, phase: Phase, read: set[Part]) -> str:
    return "trains" if part in phase.trained else "frozen" if part in read else "unread"


def _box(
    middle: float, top: int, size: tuple[int, int], part: Part, state: str, label: str, radius: int
) -> Iterator[str]:
    width, height = max(size[0], 8 + 7 * len(label)), size[1]
    dash = ' stroke-dasharray="3 3"' if state == "unread" else ""
    yield (
        f'<rect x="{middle - width / 2:g}" y="{top}" width="{width}" height="{height}" rx="{radius}" '
        f'fill="{FILLS[state]}" stroke="{SOFT}" stroke-width="0.8"{dash} data-state="{state}" '
        f'data-part="{part}"/>'
    )
    ink = {"trains": PAPER, "frozen": INK, "unread": SOFT}[state]
    yield _text(middle, top + height / 2 + 4, label, ink, ' text-anchor="middle"')


def _line(x1: float, y1: float, x2: float, y2: float, solid: bool) -> str:
    dash = "" if solid else ' stroke-dasharray="3 3"'
    ends = f'x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"'
    return f'<line {ends} stroke="{SOFT}" stroke-width="0.8"{dash}/>'


def _text(x: float, y: float, words: str, ink: str = SOFT, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="11" fill="{ink}"{more}>{html(words)}</text>'


def _legend(top: int) -> Iterator[str]:
    x = MARGIN
    yield '<g data-legend="">'
    for state, words in WORDS.items():
        dash = ' stroke-dasharray="3 3"' if state == "unread" else ""
        yield (
            f'<rect x="{x}" y="{top + 6}" width="18" height="12" rx="3" fill="{FILLS[state]}" '
            f'stroke="{SOFT}" stroke-width="0.8"{dash}/>'
        )
        yield _text(x + 24, top + 16, words)
        x += 36 + 6 * len(words)
    yield _text(MARGIN, top + 16 + LINE, "L1 …: layers; 1 …, FE: exits")
    yield "</g>"
