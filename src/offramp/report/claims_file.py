"""Claims files: the paper's, which comes with the package, and a user's own."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from offramp.analysis.claims import Claim, Claims
from offramp.errors import OfframpError
from offramp.study.spec.places import Places, message
from offramp.study.spec.yaml_lines import parse

PAPER = "claims.yaml"


def paper() -> Sequence[Claim]:
    """What the paper found."""
    text = resources.files("offramp.paper").joinpath(PAPER).read_text(encoding="utf-8")
    return parse_claims(text, PAPER)


def read(path: Path) -> Sequence[Claim]:
    """The claims of a file. Raises OfframpError, `<file>:<line>: ...`, for the first mistake in it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise OfframpError(f"{path}: no such claims file; docs/claims.md shows one") from None
    except UnicodeDecodeError:
        raise OfframpError(f"{path}: not a text file; save it as UTF-8") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise OfframpError(f"{path}: cannot be read ({reason}); give a readable file") from None
    return parse_claims(text, str(path))


def parse_claims(text: str, source: str) -> Sequence[Claim]:
    """The claims of a file's text. source: its name, for messages."""
    document = parse(text, source)
    places: Places = {path: f"{source}:{line}" for path, line in document.lines.items()} | {(): source}
    try:
        return Claims.model_validate(document.value).claims
    except ValidationError as error:
        raise OfframpError(message(error, places)) from None
