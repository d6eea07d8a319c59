"""What schedulers and trainers tell each other: orders go one way, events the other, both as JSON.

A launcher starts trainers, in processes of this machine (`processes`) or of others (`cluster`). It is
given an order and passes on the events of `worker.carry_out`; all else goes through the store.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import TypeAdapter

from offramp import usercode
from offramp.errors import OfframpError
from offramp.hashing import digest
from offramp.nets.network import inside
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, data_identity
from offramp.study.run.events import Epoch, Event
from offramp.study.spec import file as spec
from offramp.study.spec.models import Study
from offramp.units import counted, size

if TYPE_CHECKING:
    from offramp.study.run.run import RunConfig

RETRIES = 6  # of a task that comes no further: with the pauses between them about a minute
PAUSE_S = 2.0  # before the second one, and each time twice as long
SAVING_S = 60.0  # that tasks have to save what they are at
Texts = dict[str, str]
"""Text of each file, one character a byte, by its path from the named file's folder."""


@dataclass(frozen=True)
class Needs:
    """What a task takes of its machine."""

    cpus: int  # cores
    memory: int  # bytes
    gpus: float = 0.0  # 0 for none, less than 1 for a share of one

    def __str__(self) -> str:
        gpus = f", {self.gpus:g} of a GPU" if self.gpus else ""
        return f"{counted(self.cpus, 'core')}, {size(self.memory)} of memory{gpus}"


@dataclass(frozen=True)
class TaskOrder:
    """What a trainer is to do, in the types of JSON."""

    study: str  # the text of the study (`spec.file.as_text`)
    places: list[Any]  # where each of its settings was written, for messages
    functions: dict[str, str]  # where to import the strategies that are functions of a module, by label
    numerics: dict[str, Any]  # the fields of the plan's numerics profile
    store: str  # where the store is, from everywhere
    config: dict[str, Any]  # `RunConfig.as_json`
    needs: Needs  # what the task takes of its machine
    folder: str  # where the command was started
    # files of the user's own, by the name that the study has for them, each with its SHA-256
    code: dict[str, tuple[str, Texts]]
    # hashes of what the plan read, to tell what differs where the plan comes out as another
    read: dict[str, str]
    keys: tuple[str, ...] = ()  # nodes to train in one pass, whose parents are in the store
    trials: tuple[str, ...] = ()  # ids of those to write
    # the folder of `ledger.Failures`, of workers of one machine, which take all that is free of the
    # whole plan. None for an order of single nodes and trials, on any machine
    failures: str | None = None

    def dumps(self) -> str:
        """The order as a line of JSON."""
        return json.dumps(asdict(self))


def loads(line: str) -> TaskOrder:
    """The order that `TaskOrder.dumps` wrote."""
    return TypeAdapter(TaskOrder).validate_python(json.loads(line))


def order_of(
    plan: Plan, store: Store, config: RunConfig, needs: Needs, failures: Path | None = None
) -> TaskOrder:
    """The order to work on a plan; what of it, `replace` adds. config: its folder of caches and number
    of workers count on this machine alone.

    Raises:
        OfframpError: For a strategy that is a function which another process cannot import.
    """
    functions: dict[str, str] = {}
    if failures is not None:  # another machine may not have the module, or another text of it
        own = {strategy.label: strategy.own for strategy in plan.study.strategies if strategy.own}
        functions = {label: _importable(label, function) for label, function in own.items()}
    root = store.root
    return TaskOrder(
        study=spec.as_text(plan.study, without_functions=failures is None),
        places=[[list(path), where] for path, where in plan.study._places.items()],
        functions=functions,
        numerics=asdict(plan.numerics),
        store=str(root.absolute() if isinstance(root, Path) else root),
        config=config.as_json(),
        needs=needs,
        folder=str(Path.cwd()),
        code=code_of(plan.study),
        read=read_by(plan),
        failures=None if failures is None else str(failures),
    )


def _importable(label: str, function: Any) -> str:
    """Where another process imports a function from: `module:name`."""
    place = f"{function.__module__}:{function.__qualname__}"
    try:
        if imported(place) is function:
            return place
    except (ImportError, AttributeError):
        pass
    raise OfframpError(
        f"'{label}' cannot be sent to other processes; define it at the top of a module, or run with "
        "workers=1"
    )


def imported(place: str) -> Any:
    """The function at `module:name`. Raises ImportError or AttributeError where there is none."""
    module, _, names = place.partition(":")
    function = importlib.import_module(module)
    for name in names.split("."):
        function = getattr(function, name)
    return function


def code_of(study: Study) -> dict[str, tuple[str, Texts]]:
    """The user's own files that a study names, with their neighbors."""
    codes = {}
    for name in study.code_names:
        code = usercode.read(name)
        files = {code.main.path.name: code.main.text or b"", **code.files}
        codes[name] = (code.sha256, {path: text.decode("latin-1") for path, text in files.items()})
    return codes


def read_by(plan: Plan) -> dict[str, str]:
    """Hashes of what a plan is made of, each by what a person calls it."""
    return {
        "data": digest(data_identity(plan.data)),
        "network": digest(inside(plan.net).facts.identity),
    }


@dataclass(frozen=True)
class TaskFailure:
    """Why a task ended although it was not finished."""

    reason: str  # in words
    code: int | None = None  # the exit code of its process, where that is known
    short: bool = False  # whether the system killed it for lack of memory


@dataclass(frozen=True)
class Message:
    """What is heard of a task."""

    task: Any  # what the launcher calls it
    events: tuple[Event, ...] = ()  # what happened
    ended: bool = False  # whether nothing more will come
    loss: TaskFailure | None = None  # why, where the task was not finished


class Launcher(Protocol):
    """Starts trainers and hears them."""

    def start(self, order: TaskOrder) -> Any:
        """A new task, as soon as there is room for it."""

    def hear(self, tasks: Sequence[Any], seconds: float | None) -> list[Message]:
        """What tasks say next; nothing after so many seconds."""

    def cancel(self, task: Any, force: bool = False) -> None:
        """Interrupt a task as Ctrl-C would; or kill it."""


def end(launcher: Launcher, tasks: Iterable[Any]) -> None:
    """Have tasks save what they are at and end; those that do not within SAVING_S are killed."""
    left = set(tasks)
    for task in left:
        launcher.cancel(task)
    deadline = time.monotonic() + SAVING_S
    while left and (seconds := deadline - time.monotonic()) > 0:
        left -= {message.task for message in launcher.hear(list(left), seconds) if message.ended}
    for task in left:
        launcher.cancel(task, force=True)


@dataclass
class Restarts:
    """The rule by which lost tasks are started again, whoever trains.

    The first time at once, then after pauses that double from PAUSE_S on. After more than RETRIES losses
    without an epoch that was not reached before, a task is given up. Tasks go by names of what they do,
    such as keys of nodes.
    """

    clock: Callable[[], float] = time.monotonic  # seconds, as `time.monotonic`
    # how often a task of a name was lost since it last came further
    losses: dict[str, int] = field(default_factory=dict)
    # the last epoch of each node that any task has reached, by key
    epochs: dict[str, int] = field(default_factory=dict)
    rests: dict[str, float] = field(default_factory=dict)  # until when nothing of a name is started

    def see(self, event: Event, name: str) -> None:
        """Take in an event of the task `name`: one that comes further has lost nothing."""
        if isinstance(event, Epoch) and event.report.epoch > self.epochs.get(event.report.key, -1):
            self.epochs[event.report.key] = event.report.epoch
            self.losses.pop(name, None)

    def lost(self, names: Iterable[str]) -> int:
        """Count a loss of what has these names; how many there are by now, of the most unlucky."""
        names = tuple(names)
        count = 1 + max(self.losses.get(name, 0) for name in names)
        self.losses.update(dict.fromkeys(names, count))
        return count

    def rest(self, names: Iterable[str], seconds: float) -> None:
        """Leave these names alone for so long."""
        self.rests.update(dict.fromkeys(names, self.clock() + seconds))

    def rested(self) -> list[str]:
        """Names whose rest is over, each once."""
        over = [name for name, until in self.rests.items() if until <= self.clock()]
        for name in over:
            del self.rests[name]
        return over


def pause_before(count: int) -> float:
    """Seconds before a task is started for the `count`-th time again.

    Example:
        >>> [pause_before(count) for count in (1, 2, 3, RETRIES)]
        [0.0, 2.0, 4.0, 32.0]
    """
    return 0.0 if count == 1 else PAUSE_S * 2 ** (count - 2)


def restarted(count: int) -> str:
    """When a task is started again, in words: `in 4 s (3 of 6)`."""
    pause = pause_before(count)
    return f"{f'in {pause:.0f} s' if pause else 'at once'} ({count} of {RETRIES})"
