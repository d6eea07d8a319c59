"""What a trainer does with an order: it plans the study again and trains what it is told.

Keys that differ from those of the process that planned mean other data, weights, code or versions;
nothing is trained then.
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import tempfile
import traceback
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from offramp import usercode
from offramp.engine.ranks import RankLost
from offramp.errors import OfframpError, Unwritable, in_line
from offramp.escape import printable
from offramp.numerics import Numerics
from offramp.store.store import Store
from offramp.study.plan.caching import cache_folder
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.plan.workers import on_a_machine
from offramp.study.run import events
from offramp.study.run.ledger import Failures
from offramp.study.run.protocol import TaskOrder, imported, loads, read_by
from offramp.study.run.run import RunConfig, run, run_part
from offramp.study.spec import file as spec

# OSErrors that are no fault of a machine; a store that is gone says so itself.
MISTAKES = (
    *(FileNotFoundError, FileExistsError, PermissionError),
    *(IsADirectoryError, NotADirectoryError),
)
# What torch says on a CPU and on a GPU; of the former it has no exception of its own.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")


def carry_out(line: str) -> Iterator[str]:
    """Do what an order says. Whoever stops reading closes it; interrupted, it saves. line: what
    `TaskOrder.dumps` wrote.

    Yields:
        Events, a line of JSON each.

    Raises:
        RankLost: Where ranks lost each other, of an order for one of them.
    """
    order = loads(line)
    here = "" if order.failures else f"{host()}: "
    reported: set[str] = set()
    try:
        with closing(_whole(order) if order.failures else _part(order)) as happening:
            for event in happening:
                if isinstance(event, (events.Finished, events.Failed)):
                    reported.add(event.key)
                yield events.dumps(_at(here, event))
    except RankLost:
        raise
    except OfframpError as error:
        again = isinstance(error, Unwritable)  # a full disk, a store that is away: it may pass
        yield events.dumps(events.WorkerFailed(f"{here}{error}", again))
    except Exception as error:
        if order.failures:
            traceback.print_exc()
            reason = f"a worker process failed: {type(error).__name__}: {in_line(error)}"
            yield events.dumps(events.WorkerFailed(reason, again=False))
        elif isinstance(error, (MemoryError, OSError)) and (
            not isinstance(error, MISTAKES) or _is_away(order.store)
        ):
            yield events.dumps(events.WorkerFailed(f"{here}{in_line(error, 2000)}", again=True))
        else:
            yield from _failed(order, reported, error)


def _failed(order: TaskOrder, reported: Collection[str], error: Exception) -> Iterator[str]:
    """What the user's code raised: the same would happen anywhere."""
    reason = f"{type(error).__name__}: {in_line(error, 2000)} (on {host()})"
    for key in order.keys:
        if key not in reported:
            yield events.dumps(events.Failed(key, reason))
    if not order.keys:
        yield events.dumps(events.WorkerFailed(reason, again=False))


def host() -> str:
    """What this machine calls itself."""
    return printable(socket.gethostname()) or "a machine without a name"


def _at(here: str, event: events.Event) -> events.Event:
    """The event with the machine where it happened, `name: `; as it is on the machine that ordered."""
    match event:
        case events.GroupStarted() if here:
            return replace(event, where=here.removesuffix(": "))
        case events.Note(text):
            return events.Note(here + text)
    return event


def _whole(order: TaskOrder) -> Generator[events.Event, None, None]:
    """As one of several workers on this machine."""
    assert order.failures is not None
    (_, plan), config = _make_plan(order.dumps()), RunConfig.from_json(order.config)
    if unlike := _unlike(order, plan):
        raise OfframpError(
            f"a worker process read another {' and '.join(unlike)} than was planned with; run the same "
            "again when nothing changes the files"
        )
    with closing(run(plan, Store(order.store), config, Failures(Path(order.failures)))) as happening:
        yield from happening


def _part(order: TaskOrder) -> Generator[events.Event, None, None]:
    """Single nodes or trials, perhaps of another machine's plan."""
    store = Store(order.store)
    if _is_away(order.store):  # it was there when this was ordered: nothing is begun in its place
        raise Unwritable(f"there is no store at {order.store} now")
    sent, plan = _make_plan(replace(order, keys=(), trials=()).dumps())
    yield from map(events.Note, sent)
    lacking = [key for key in order.keys if key not in plan.nodes]
    if lacking or not set(order.trials) <= {trial.id for trial in plan.trials}:
        raise OfframpError(
            f"here the study is another one: its {' and '.join(_unlike(order, plan) or ['recipe'])} "
            "differ from what was planned with; put the same data, weights and versions there"
        )
    config = RunConfig.from_json(order.config)
    workers = on_a_machine(plan, config.device)  # they share what this one takes
    config = replace(config, cache_folder=cache_folder(), workers=workers, sharing=workers)
    with closing(run_part(plan, store, config, order.keys, order.trials)) as happening:
        for event in happening:
            if isinstance(event, events.Failed) and _is_away(order.store):
                raise Unwritable(event.reason)
            if isinstance(event, events.Failed) and any(words in event.reason for words in NO_MEMORY):
                raise MemoryError(event.reason)
            yield event


def _unlike(order: TaskOrder, plan: Plan) -> list[str]:
    """What of a plan differs from what was planned with: the data, the network."""
    mine = read_by(plan)
    return [name for name, sha256 in order.read.items() if mine[name] != sha256]


def _is_away(root: str) -> bool:
    try:
        return not Store(root).archive.exists()
    except (OfframpError, OSError):
        return True


@lru_cache(maxsize=1)
def _make_plan(line: str) -> tuple[tuple[str, ...], Plan]:
    """Notes on the code that was sent, and the plan. As planning reads all data, that of the last order
    serves the next one too. line: an order, but for what of the plan is to be done."""
    order = loads(line)
    if Path(order.folder).is_dir():  # this very machine, or a file system that both have
        os.chdir(order.folder)
    sent, numerics = tuple(_place_code(order.code)), Numerics(**order.numerics)
    places = {tuple(path): where for path, where in order.places}
    study = spec.from_text(order.study, places, _imported(order.functions))
    return sent, make_plan(study, torch.device(order.config["device"]), numerics=numerics)


def _imported(functions: Mapping[str, str]) -> dict[str, Any]:
    try:
        return {label: imported(place) for label, place in functions.items()}
    except (ImportError, AttributeError) as error:
        raise OfframpError(
            f"a worker process could not begin: {type(error).__name__}: {in_line(error)}; workers find "
            "functions in your script by name: write those at the top of a file that can be imported, "
            "or use one worker"
        ) from None


def _place_code(code: Mapping[str, Any]) -> Iterator[str]:
    """Have the files that a study names where it names them, just as they were sent; a note on each.

    Raises OfframpError for a name that leads out of the folder in which the command was started.
    """
    if all(_arrived(name, sha256) for name, (sha256, _) in code.items()):
        return
    scratch = Path(tempfile.mkdtemp(prefix="offramp-code-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    for name, (_, files) in code.items():
        path = usercode.file_of(name)
        if path.is_absolute() or ".." in path.parts:
            raise OfframpError(
                f"{name} is not there as it was sent; name it by a path below the folder in which the "
                "command is started"
            )
        for below, text in files.items():
            target = scratch / path.parent / below
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(text.encode("latin-1"))
    os.chdir(scratch)
    for name, (sha256, _) in code.items():
        if not _arrived(name, sha256):
            raise OfframpError(f"{name} did not arrive as it was sent; run the same command again")
        yield f"runs {name} as it was sent (SHA-256 {sha256[:12]})"


def _arrived(name: str, sha256: str) -> bool:
    return usercode.is_recorded(name, usercode.RecordedCode(sha256))
