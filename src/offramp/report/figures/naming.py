"""Names of figures and of what they are about."""

from __future__ import annotations

import re


def name(*words: str | int) -> str:
    """A file name made of words: lower case letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(map(str, words)).lower()).strip("-")


def about(model: str, data: str) -> dict[str, str]:
    return {"model": model, "data": data}


def where(model: str, data: str) -> str:
    return f"{model} on {data}"
