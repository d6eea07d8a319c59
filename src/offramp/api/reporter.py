"""Who hears how long work goes: a function of the caller, or a display."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

from offramp.api.run_state import RunState
from offramp.errors import OfframpError, OfframpWarning

if TYPE_CHECKING:
    from offramp.study.plan.plan import Plan
    from offramp.study.run.events import Event
    from offramp.study.search import SearchEvent
    from offramp.study.variants import Best, SearchOptions
    from offramp.terminal import TextBlocks

T = TypeVar("T")
PACKAGE = str(Path(__file__).parents[1])


class TrainingFailed(OfframpError):
    """A phase of the training failed, which no other command line would have changed."""

    exit_code = 1


@runtime_checkable
class Reporter(Protocol):
    """What long work tells, as it goes."""

    def say(self, text: str, must: bool = False) -> None:
        """Tell a fact. must: even to those who want no progress."""

    def note(self, text: str) -> None:
        """Tell of something odd in the request or the data."""

    def fail(self, text: str) -> None:
        """Tell of a failure after which the rest goes on, which the answer has too."""

    def show(self, document: TextBlocks) -> bool:
        """Show a part of the answer before the rest. Returns whether it is shown."""

    def reading(self) -> AbstractContextManager[None]:
        """Show how far the reading of data is, while the block runs."""

    def train(self, plan: Plan, events: Generator[Event, None, None]) -> RunState:
        """Train a plan, by its events, to the end or until interrupted."""

    def search(self, request: SearchOptions, happenings: Generator[SearchEvent, None, Best]) -> Best:
        """Search to the end."""


@dataclass(frozen=True)
class Caller:
    """Tells a function of the caller's, which takes events, and warns of what is odd."""

    watch: Callable[[Event], None] | None

    def say(self, text: str, must: bool = False) -> None:
        pass

    def note(self, text: str) -> None:
        warn([text])

    def fail(self, text: str) -> None:
        pass

    def show(self, document: TextBlocks) -> bool:  # noqa: ARG002
        return False

    def reading(self) -> AbstractContextManager[None]:
        return nullcontext()

    def train(self, plan: Plan, events: Generator[Event, None, None]) -> RunState:
        from offramp.study.run.events import called

        state, names = RunState(plan), phase_names(plan)
        with closing(events):
            for event in events:
                if self.watch is not None:
                    self.watch(called(event, names))
                state.see(event)
        return state

    def search(
        self,
        request: SearchOptions,  # noqa: ARG002
        happenings: Generator[SearchEvent, None, Best],
    ) -> Best:
        from offramp.study.search import Proposed, Scored

        def tell(happening: Any) -> None:
            if self.watch is not None and not isinstance(happening, Proposed | Scored):
                self.watch(happening)

        return finished(happenings, tell)


def reporter_for(watch: Callable[[Event], None] | Reporter | Literal[False] | None) -> Reporter:
    """The reporter itself; one that tells a function of the caller's, or nobody for False; for None one
    that shows progress."""
    if watch is None:
        from offramp.api.progress.display import Display
        from offramp.api.progress.log import log_here

        return Display(log_here())
    return watch if isinstance(watch, Reporter) else Caller(watch or None)


def finished(steps: Generator[Any, None, T], tell: Callable[[Any], object] | None = None) -> T:
    """Run work to its end, and return what it returns. tell: called with each step."""
    with closing(steps):
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                outcome: T = end.value
                return outcome
            if tell is not None:
                tell(step)


def warn(notes: Iterable[str]) -> None:
    """Warn the first caller outside of offramp, whose line the warning then shows."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(PACKAGE):
        level, frame = level + 1, frame.f_back
    for line in notes:
        warnings.warn(line, OfframpWarning, stacklevel=level)


def phase_names(plan: Plan) -> dict[str, str]:
    """What each phase is called, by its key; where a plan has several trials, with its seed and the
    strategies that read it."""
    if len(plan.trials) == 1:
        return {key: node.name for key, node in plan.nodes.items()}
    return plan.titles
