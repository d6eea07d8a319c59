"""What every job returns: an answer, answers alike in a terminal, in Python and in a notebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, dataclass_transform, runtime_checkable

from offramp.errors import OfframpError
from offramp.terminal import TextBlocks, as_html, plain_text

T = TypeVar("T")
MOST_NOTES = 4  # of what results lack, in a terminal


class JobAnswer(Protocol):
    """What a job returns.

    Example:
        >>> strategies: offramp.JobAnswer = offramp.list_strategies()
        >>> strategies.as_json()[0]["name"]
        'baseline'
    """

    def as_json(self) -> Any:
        """The answer for programs, in the types of JSON."""

    def document(self) -> TextBlocks:
        """The answer for people: paragraphs and tables."""


@runtime_checkable
class WithWarnings(Protocol):
    """An answer that a command gives with lines on standard error."""

    def warnings(self) -> Sequence[str]:
        """The lines."""


@runtime_checkable
class WithExitCode(Protocol):
    """An answer after which a command need not end with 0."""

    @property
    def exit_code(self) -> int: ...


@runtime_checkable
class WithFailure(Protocol):
    """An answer a part of which may have failed, which a command tells after the rest."""

    @property
    def failure(self) -> OfframpError | None: ...


@runtime_checkable
class Ongoing(Protocol):
    """An answer with work that goes on, such as a server's."""

    def run(self, as_json: bool, show: Callable[[], None]) -> int:
        """Do the work to its end.

        Args:
            as_json: Whether a program reads what is printed.
            show: Prints the answer.

        Returns:
            The exit code of the command.
        """


@dataclass_transform(frozen_default=True, kw_only_default=False, eq_default=False)
def answer(kind: type[T]) -> type[T]:
    """Make a class an `JobAnswer`: a frozen dataclass that Python and notebooks show as its document."""
    answers: Any = dataclass(frozen=True, eq=False, repr=False)(kind)
    answers.__repr__ = lambda self: plain_text(self.document())
    answers._repr_html_ = lambda self: as_html(self.document())
    return kind


def missing_notes(missing: Sequence[str]) -> list[str]:
    """What results lack, a sentence each; of many, the first ones and how many more there are."""
    many = len(missing) > MOST_NOTES
    lines = [f"Note: {line}." for line in (missing[: MOST_NOTES - 1] if many else missing)]
    if many:
        lines.append(f"Note: {len(missing) - MOST_NOTES + 1} more of these; --json lists all.")
    return lines


def missing_lines(missing: Sequence[str]) -> list[str]:
    """What results lack, for standard error."""
    return [f"Missing: {line}." for line in missing]
