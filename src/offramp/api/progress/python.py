"""What a call from Python shows while it works, where the caller names no `watch`: the facts that a
command shows, on a terminal or in a notebook. Elsewhere the logger `offramp` has them, at level INFO."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, final

from offramp.api.progress.display import Progress, watch
from offramp.api.progress.log import Log
from offramp.api.progress.proposals import Proposals
from offramp.api.progress.reading import moving, reading_shown
from offramp.api.reporter import finished, warn
from offramp.api.run_state import RunState
from offramp.escape import html

if TYPE_CHECKING:
    from offramp.study.plan.plan import Plan
    from offramp.study.run.events import Event
    from offramp.study.search import SearchEvent
    from offramp.study.variants import Best, SearchOptions
    from offramp.terminal import TextBlocks

FRAME_S = 0.25  # between two changes of what moves in a notebook


@final
class Frame:
    """Lines that change in the output of a notebook's cell. display: of IPython."""

    def __init__(self, display: Callable[..., Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._display, self._clock = display, clock
        self._handle: Any = None
        self._latest = -FRAME_S
        self._shown: Sequence[str] = ()

    def __call__(self, lines: Sequence[str]) -> None:
        """Show these lines, the last of all in any case."""
        whole = " 100 % " in lines[0]
        if lines == self._shown or (self._clock() - self._latest < FRAME_S and not whole):
            return
        self._latest, self._shown = self._clock(), lines
        text = "\n".join(lines)
        bundle = {"text/plain": text, "text/html": f"<pre>{html(text)}</pre>"}
        if self._handle is None:
            self._handle = self._display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return hasattr(shell, "kernel")


def log_here() -> Log:
    """The log that suits where Python runs."""
    if in_notebook():
        from IPython.display import display

        return Log(progress=False, frame=Frame(display))
    log = Log()
    return log if log.moves else Log(progress=False, logger=logging.getLogger("offramp"))


class PythonDisplay:
    """Shows the work of a function that Python calls."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def say(self, text: str, must: bool = False) -> None:
        self._log.say(text, must)

    def note(self, text: str) -> None:
        warn([text])

    def fail(self, text: str) -> None:
        self._log.say(text)

    def step(self, text: str) -> None:
        self._log.say(f"{text} …")

    def show(self, document: TextBlocks) -> bool:  # noqa: ARG002
        return False

    def reading(self) -> AbstractContextManager[None]:
        return reading_shown(self._log) if self._log.moves else nullcontext()

    def train(self, plan: Plan, events: Generator[Event, None, None]) -> RunState:
        progress = Progress(plan, self._log)
        watch(events, progress)
        return progress.state

    def search(self, request: SearchOptions, happenings: Generator[SearchEvent, None, Best]) -> Best:
        proposals = Proposals(request, self._log)
        with moving("preparing", self._log) as status:
            return finished(happenings, lambda happening: proposals.see(happening, status))
