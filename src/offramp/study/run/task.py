"""What one machine of a cluster does at once: some phases of a study, or some of its trials.

It is told in a line of JSON and tells what happens in lines of JSON; all else goes through the store.
The plan is made here again, from the study. Keys that differ from those of the machine that planned
mean other data, weights, code or versions; nothing is trained then.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from offramp import usercode
from offramp.errors import OfframpError, Unwritable, in_line
from offramp.escape import printable
from offramp.hashing import digest
from offramp.nets.network import inside
from offramp.numerics import Numerics
from offramp.store.store import Store
from offramp.study.plan.limits import cache_folder
from offramp.study.plan.plan import Plan, data_identity, make_plan
from offramp.study.plan.workers import on_a_machine
from offramp.study.run import events
from offramp.study.run.run import RunConfig, run_part
from offramp.study.spec import record
from offramp.study.spec.models import Study

Texts = dict[str, str]
"""Text of each file, one character a byte, by its path from the named file's folder."""


@dataclass(frozen=True)
class TaskOrder:
    """study: of `spec.record`.  numerics: what its profile says.  store: where it is, from everywhere.
    device: `cpu` or `cuda`.  keys: nodes to train in one pass, whose parents are in the store.  trials:
    ids of those to write.  folder: where the command was started.  code: files of the user's own, by the
    name that the study has for them, each with its SHA-256.  read: hashes of what the plan read, to tell
    what differs."""

    study: str
    numerics: dict[str, Any]
    store: str
    device: str
    checkpoint_seconds: float
    keys: tuple[str, ...]
    trials: tuple[str, ...]
    folder: str
    code: dict[str, tuple[str, Texts]]
    read: dict[str, str]

    def dumps(self) -> str:
        return json.dumps(asdict(self))


# OSErrors that are no fault of a machine; a store that is gone says so itself.
MISTAKES = (
    *(FileNotFoundError, FileExistsError, PermissionError, IsADirectoryError, NotADirectoryError),
    UnicodeError,
)
# What torch says on a CPU and on a GPU; of the former it has no exception of its own.
NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "Cannot allocate memory")


def loads(line: str) -> TaskOrder:
    said = json.loads(line)
    code = {name: (sha256, files) for name, (sha256, files) in said["code"].items()}
    lists = {name: tuple(said[name]) for name in ("keys", "trials")}
    return TaskOrder(**{**said, **lists, "code": code})


def given(order: TaskOrder, keys: tuple[str, ...], trials: tuple[str, ...]) -> TaskOrder:
    return replace(order, keys=keys, trials=trials)


def code_of(study: Study) -> dict[str, tuple[str, Texts]]:
    """The user's own files that a study names, with their neighbors."""
    found = {}
    for name in study.code_names:
        code = usercode.read(name)
        files = {code.main.path.name: code.main.text or b"", **code.files}
        found[name] = (code.sha256, {path: text.decode("latin-1") for path, text in files.items()})
    return found


def read_by(plan: Plan) -> dict[str, str]:
    """Hashes of what a plan is made of, each by what a person calls it."""
    return {
        "data": digest(data_identity(plan.data)),
        "network": digest(inside(plan.net).facts.identity),
    }


def carry_out(line: str) -> Iterator[str]:
    """Do what an order says; yields events. Whoever stops reading closes it; interrupted, it saves."""
    order, here = loads(line), host()
    told: set[str] = set()
    try:
        with closing(_events(order)) as happened:
            for event in happened:
                told |= {event.key} if isinstance(event, (events.Finished, events.Failed)) else set()
                yield events.dumps(_said_from(event, here))
    except (Unwritable, MemoryError, OSError) as error:
        if isinstance(error, MISTAKES) and not _is_away(order.store):
            yield from _failed(order, told, error, here)
            return
        yield events.dumps(events.WorkerFailed(f"{here}: {in_line(error, 2000)}", again=True))
    except OfframpError as error:
        yield events.dumps(events.WorkerFailed(f"{here}: {error}", again=False))
    except Exception as error:
        yield from _failed(order, told, error, here)


def _failed(order: TaskOrder, told: Collection[str], error: Exception, here: str) -> Iterator[str]:
    """What the user's code raised: the same would happen anywhere."""
    reason = f"{type(error).__name__}: {in_line(error, 2000)} (on {here})"
    for key in order.keys:
        if key not in told:
            yield events.dumps(events.Failed(key, reason))
    if not order.keys:
        yield events.dumps(events.WorkerFailed(reason, again=False))


def host() -> str:
    """What this machine calls itself."""
    return printable(socket.gethostname()) or "a machine without a name"


def _said_from(event: events.Event, here: str) -> events.Event:
    match event:
        case events.GroupStarted():
            return replace(event, where=here)
        case events.Note(text):
            return events.Note(f"{here}: {text}")
    return event


def _events(order: TaskOrder) -> Generator[events.Event, None, None]:
    store = Store(order.store)
    if _is_away(order.store):  # it was there when this was ordered: nothing is begun in its place
        raise Unwritable(f"there is no store at {order.store} now")
    sent, plan = _planned(
        order.study, json.dumps(order.numerics), order.device, order.folder, json.dumps(order.code)
    )
    yield from map(events.Note, sent)
    lacking = [key for key in order.keys if key not in plan.nodes]
    if lacking or not set(order.trials) <= {trial.id for trial in plan.trials}:
        mine = read_by(plan)
        unlike = [name for name, sha256 in order.read.items() if mine[name] != sha256]
        raise OfframpError(
            f"here the study is another one: its {' and '.join(unlike or ['recipe'])} differ from what "
            "was planned with; put the same data, weights and versions there"
        )
    device = torch.device(order.device)
    workers = on_a_machine(plan, device)  # they share what this one takes
    conduct = RunConfig(device, cache_folder(), order.checkpoint_seconds, workers)
    with closing(run_part(plan, store, conduct, order.keys, order.trials)) as happened:
        for event in happened:
            if isinstance(event, events.Failed) and _is_away(order.store):
                raise Unwritable(event.reason)
            if isinstance(event, events.Failed) and any(words in event.reason for words in NO_MEMORY):
                raise MemoryError(event.reason)
            yield event


def _is_away(root: str) -> bool:
    try:
        return not Store(root).archive.exists()
    except (OfframpError, OSError):
        return True


@lru_cache(maxsize=1)
def _planned(
    study: str, numerics: str, device: str, folder: str, code: str
) -> tuple[tuple[str, ...], Plan]:
    """The plan, which takes reading all data, is kept for the next order; with it, what to say."""
    if Path(folder).is_dir():  # this very machine, or a file system that both have
        os.chdir(folder)
    sent = tuple(_placed(json.loads(code)))
    profile = Numerics(**json.loads(numerics))
    return sent, make_plan(record.loads(study), torch.device(device), numerics=profile)


def _placed(code: Mapping[str, Any]) -> Iterator[str]:
    """Have the files that a study names where it names them, just as they were sent; says of which.

    Raises OfframpError for a name that leads out of the folder in which the command was started.
    """
    if all(
        usercode.is_recorded(name, usercode.RecordedCode(sha256)) for name, (sha256, _) in code.items()
    ):
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
        if not usercode.is_recorded(name, usercode.RecordedCode(sha256)):
            raise OfframpError(f"{name} did not arrive as it was sent; run the same command again")
        yield f"runs {name} as it was sent (SHA-256 {sha256[:12]})"
