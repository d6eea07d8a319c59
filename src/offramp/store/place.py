"""Where a store lies: a folder, or an address such as `s3://bucket/runs`. Imports nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/(?P<second>/?)(?P<rest>.*)", re.DOTALL)


class Place(Protocol):
    """A folder or an address, or what lies below it; `str` is how a user would write it."""

    def joinpath(self, *names: str) -> Place: ...


@dataclass(frozen=True)
class Url:
    """An address that fsspec knows, without a slash at its end."""

    text: str

    def joinpath(self, *names: str) -> Url:
        return Url("/".join((self.text, *names)))

    def __truediv__(self, name: str) -> Url:
        return self.joinpath(name)

    def __str__(self) -> str:
        return self.text

    @property
    def scheme(self) -> str:
        """Such as `s3`."""
        return self.text.partition("://")[0]


def place(named: str | Place) -> Path | Url:
    """What a user named. A `Path` of an address has lost one of its slashes, and gets it back.

    >>> place("runs/demo")
    PosixPath('runs/demo')
    >>> place("s3://bucket/runs/"), place(Path("s3://bucket/runs"))
    (Url(text='s3://bucket/runs'), Url(text='s3://bucket/runs'))
    >>> place("file:///data/runs")
    PosixPath('/data/runs')
    """
    if isinstance(named, Url):
        return named
    parsed = ADDRESS.fullmatch(str(named))
    if parsed is None or (isinstance(named, str) and not parsed["second"]):
        return Path(str(named))
    scheme, rest = parsed["scheme"].lower(), parsed["rest"].rstrip("/")
    return Path("/", rest) if scheme in ("file", "local") else Url(f"{scheme}://{rest}")
