"""Quantities as people write and read them: bytes, MACs, MACs a second, times.

One grammar wherever one is asked for: a number (`2e6`, `1.5`), a prefix, a unit; capitals do not
matter. `2e6`, `2M` and `2MMAC` are the same MACs.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge, Lt

from offramp.errors import OfframpError

LISTED = 5  # names, or pairs of them, that a sentence holds
Count = Annotated[int, Ge(1), Lt(2**63)]  # of images, epochs, …: one at least
_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15}
_BINARY = {f"{prefix}i": 1024.0**power for power, prefix in enumerate("kmgtp", start=1)}
_PIECE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:e[-+]?[0-9]+)?)\s*([a-zµ/%]*)\s*")


def _prefixed(prefixes: Mapping[str, float], *units: str, factor: float = 1.0) -> dict[str, float]:
    return {prefix + unit: factor * value for prefix, value in prefixes.items() for unit in units}


@dataclass(frozen=True)
class Quantity:
    """A kind of quantity.

    Attributes:
        units: what each is worth.
        such: what it is and examples, for messages.
        least: the smallest that is taken.
        most: the largest.
        pieces: whether several may be added up, as in `1h30m`.
    """

    units: Mapping[str, float]
    such: str
    least: float = 1e-300
    most: float = sys.float_info.max
    pieces: bool = False


SIZE = Quantity(
    _prefixed(_PREFIXES | _BINARY, "b", ""), "a size, such as 2GiB, 500MB or 1024", least=0, most=2**62
)
MACS = Quantity(
    _prefixed(_PREFIXES, "mac", "macs", ""), "a number of MACs, such as 1.5M or 2e6", least=1
)
PERCENT = Quantity({"%": 1.0}, "a share, such as 40%")
SPEED = Quantity(  # a MAC is two operations
    _prefixed(_PREFIXES, "mac/s", "macs/s", "macs")
    | _prefixed(_PREFIXES, "flops", "flop/s", factor=0.5),
    "a device's speed, such as 14TFLOPS or 7TMACs",
)
TIME = Quantity(
    {
        **{"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0},
        **{"m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0},
    },
    "a time, such as 5ms, 90min or 1h30m",
    pieces=True,
)


def read(text: str, kind: Quantity) -> float | None:
    """How much a text says, in bytes, MACs, percent, MACs a second, or seconds; None where it is no such
    quantity.

    Example:
        >>> read("1.5 GB", SIZE), read("14TFLOPS", SPEED), read("1h30m", TIME), read("soon", TIME)
        (1500000000.0, 7000000000000.0, 5400.0, None)
    """
    pieces = list(_PIECE.finditer(text.lower()))
    if not pieces or "".join(piece[0] for piece in pieces) != text.lower():
        return None
    if any(piece[2] not in kind.units for piece in pieces) or (pieces[1:] and not kind.pieces):
        return None
    total = sum(float(piece[1]) * kind.units[piece[2]] for piece in pieces)
    return total if kind.least <= total <= kind.most else None


def parse(text: str, kind: Quantity, name: str, also: str = "") -> float:
    """The quantity in a text, as `read` has it. name: of the option, for messages; also: what else the
    option takes.

    Raises:
        OfframpError: it is no such quantity.
    """
    quantity = read(text, kind)
    if quantity is None:
        raise OfframpError(f"{name} must be {f'{also} or ' if also else ''}{kind.such}; got '{text}'")
    return quantity


def share(text: str, name: str, usual: float = 0.01) -> float:
    """A share of 1 of a text, which may say it in percent; in what range is for the caller to say. name:
    of the option, for messages; usual: a share to name as an example.

    Raises:
        OfframpError: it is no number.

    Example:
        >>> share("1%", "risk"), share("0.01", "risk")
        (0.01, 0.01)
    """
    bare = text.strip()
    try:
        return float(bare[:-1]) / 100 if bare.endswith("%") else float(bare)
    except ValueError:
        raise OfframpError(
            f"{name} must be a share, such as {usual:g} or {100 * usual:g}%; got '{text}'"
        ) from None


def seconds(text: str, name: str, least: float = 0.0) -> float:
    """A time of a text; a bare number is one of seconds. Raises OfframpError for one below `least`.

    Example:
        >>> seconds("1min", "--every"), seconds("0.5", "--every")
        (60.0, 0.5)
    """
    try:
        time = float(text)
    except ValueError:
        time = parse(text, replace(TIME, least=0), name)
    if not least <= time < math.inf:
        raise OfframpError(f"{name} must be a finite time of at least {least:g} s; got '{text}'")
    return time


def counted(number: int, singular: str, plural: str = "") -> str:
    """`1 trial`, `2 trials`."""
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"


def first_few(names: Sequence[str]) -> list[str]:
    """`[a, b]`, or the first of more than a reader would take in, and how many more."""
    return [*names[:LISTED], *([f"{len(names) - LISTED} more"] if len(names) > LISTED else [])]


def noun(shape: Sequence[int]) -> str:
    """What an example of a shape is called: an image (C, H, W), or a text (T,)."""
    return "text" if len(shape) == 1 else "image"


def ranges(numbers: Iterable[int]) -> str:
    """`1–3, 5`"""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 05 min`, `1,234 h`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    if hours >= 100:
        return f"{round(seconds / 3600):,} h"
    return f"{hours} h {minutes:02d} min"


def size(count: float) -> str:
    """Bytes: `12 B`, `4.0 MB`."""
    for unit, digits in (("B", 0), ("kB", 1), ("MB", 1)):
        if round(count, digits) < 1000:
            return f"{count:.{digits}f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def percent(share: float) -> str:
    """A share as text, as a program writes it; people may leave the space out.

    Example:
        >>> percent(0.354)
        '35.4 %'
    """
    return f"{100 * share:.1f} %"


def macs(count: float) -> str:
    """`2.3 k`, `113 k`, `8.4 G`: to be followed by a unit, or in a column of MACs."""
    for unit in ("", " k", " M", " G", " T", " P"):
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} E"


def arithmetic(
    precision: str, threads: int | None, tf32: bool, memory_format: str, deterministic: bool
) -> str:
    """A profile of numerics, as plans, cards and reports have it. threads: None of an old record.

    Example:
        >>> arithmetic("float32", 2, False, "contiguous", True)
        'float32, 2 threads, contiguous memory'
    """
    parts = [f"{precision} with TF32" if tf32 else precision]
    parts += [counted(threads, "thread")] if threads else []
    parts += ["contiguous memory"] if memory_format == "contiguous" else []
    parts += [] if deterministic else ["kernels that may round differently each time"]
    return ", ".join(parts)
