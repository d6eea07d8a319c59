"""Words and numbers for the terminal, and JSON for programs."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar

import typer

from offramp.hashing import finite
from offramp.terminal import console, show, table

T = TypeVar("T")


def emit(value: Any) -> None:
    """An answer for programs: JSON on standard output, null for a number that is not finite."""
    typer.echo(json.dumps(finite(value), indent=2, allow_nan=False))


def study_file(study: Mapping[str, Any]) -> str:
    """A study in the types of JSON as YAML."""
    import yaml

    text: str = yaml.safe_dump(dict(study), sort_keys=False, default_flow_style=None, width=90)
    return text


def say(*paragraphs: str, indent: str = "") -> None:
    """Sentences, folded at spaces to the screen's width or 100 columns."""
    for text in paragraphs:
        typer.echo("\n".join(folded(text, indent)))


def folded(text: str, indent: str = "") -> list[str]:
    """The lines of a paragraph. Words stay whole: a path can be copied."""
    width = min(console().width, 100)
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    ) or [""]


def alike(found: Mapping[str, str]) -> dict[str, list[str]]:
    """The names that go with each value, in their order."""
    names: dict[str, list[str]] = {}
    for name, value in found.items():
        names.setdefault(value, []).append(name)
    return names


def told(steps: Generator[str, None, T], quiet: bool) -> T:
    """Run to the end, each step a line on standard error."""
    from offramp.api.progress import finished

    return finished(steps, None if quiet else lambda step: typer.echo(f"{step} …", err=True))


def notes(missing: Sequence[str], most: int = 4) -> None:
    """What results lack, a sentence each; of many, the first ones and how many there are."""
    for note in missing if len(missing) <= most else missing[: most - 1]:
        say(f"Note: {note}.")
    if len(missing) > most:
        say(f"Note: {len(missing) - most + 1} more of these; --json lists all.")


def tell_missing(missing: Sequence[str]) -> None:
    """What results lack, on standard error."""
    for note in missing:
        typer.echo(f"Missing: {note}.", err=True)


def show_names(what: str, about: Mapping[str, str], as_json: bool) -> None:
    """Names with a line on each. what: their kind, such as `figure`."""
    if as_json:
        emit(about)
        return
    show(table([what, "what it shows"], rows=about.items()))
