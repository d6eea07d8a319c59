"""Quantities as people write them: a time to spend, a device's speed, a number of processes."""

from __future__ import annotations

import math
import re
from typing import Literal

from pydantic_core import PydanticCustomError

from offramp.errors import OfframpError
from offramp.study.spec import fields

_PREFIX = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15}
_SPEED = re.compile(
    r"([0-9]+(?:\.[0-9]+)?) ?([kmgtp]?) ?(flops|flop/s|macs|mac/s|macs/s)", re.IGNORECASE
)
_SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(d|h|min|m|s)", re.IGNORECASE)
_SECONDS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0}


def speed(text: str) -> float:
    """MACs a second, of `14TFLOPS` (two operations a MAC), `7TMACs` or `500 GMAC/s`.

    Raises OfframpError for anything else.
    """
    found = _SPEED.fullmatch(text.strip())
    value = 0.0
    if found is not None:
        value = float(found[1]) * _PREFIX[found[2].lower()]
        value /= 2 if found[3].lower().startswith("flop") else 1
    if not 0 < value < math.inf:
        raise OfframpError(f"--speed must be a device's speed, such as 14TFLOPS or 7TMACs; got '{text}'")
    return value


def limit(text: str, flag: str) -> int | Literal["auto"]:
    """Bytes, of `4GB`, `512MiB` or `1024`, as study files spell them; or `auto`.

    flag: what the message calls it. Raises OfframpError for anything else.
    """
    body = text.strip()
    try:
        return fields.limit(int(body) if body.isdecimal() else body)
    except PydanticCustomError as error:
        raise OfframpError(f"{flag} {error.message()}") from None


def workers(text: str) -> int | None:
    """A number of processes; None of `auto`. Raises OfframpError for anything else."""
    if text == "auto":
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,3}", text):
        raise OfframpError(f"--workers must be auto or a number from 1 on; got '{text}'")
    return int(text)


def span(text: str) -> float:
    """Seconds, of `2h`, `90min`, `1h30m` or `45s`. Raises OfframpError for anything else."""
    body = text.strip().replace(" ", "")
    pieces = list(_SPAN.finditer(body))
    whole = "".join(piece[0] for piece in pieces) == body
    total = sum(float(piece[1]) * _SECONDS[piece[2].lower()] for piece in pieces)
    if not whole or not 0 < total < math.inf:
        raise OfframpError(f"--budget must be a time, such as 2h, 90min or 1h30m; got '{text}'")
    return total
