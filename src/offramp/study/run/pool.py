"""Several processes on one plan and one store.

A worker's events come through a pipe of its own: one that is killed half-way through a word garbles
nobody else's, and one whose parent is gone finds the other end closed.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from offramp.errors import OfframpError
from offramp.meters import killed_for_memory
from offramp.process import (
    ENDING,
    Terminated,
    exit_code,
    keep_freed_memory,
    terminable,
    uninterrupted,
    watch_parent,
)
from offramp.store.store import Store
from offramp.study.plan.limits import share_of_workers
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.plan.workers import check_memory
from offramp.study.run.events import Event, Note
from offramp.study.run.ledger import Failures
from offramp.study.run.run import Conduct, run
from offramp.study.spec.models import Study
from offramp.units import counted

REPLACED = 3  # killed workers of a run that others are started for
SAVING_S = 60.0  # that all workers have to save what they are at
# Workers are forks of one process that has imported all of this and nothing else has happened in.
SERVER = multiprocessing.get_context("forkserver")
Crew = dict[Connection, ForkServerProcess]


def run_pooled(plan: Plan, store: Store, conduct: Conduct) -> Generator[Event, None, None]:
    """As `run`, with `conduct.workers` processes; events come in the order in which they happen.

    For a worker that is killed another one is started, up to REPLACED times; where the kernel did it for
    lack of memory, the others go on without it. They end, and save first, when this process ends,
    however it does.

    Raises OfframpError where memory is known not to suffice, for a strategy's function that a worker
    cannot have, when more workers are killed, and when one stops for a reason of its own.
    """
    left = any(not store.has_node(key, whole=False) for key in plan.nodes)
    if left and conduct.device.type == "cpu":
        check_memory(plan, conduct.workers)
    if conduct.workers == 1:
        yield from run(plan, store, conduct)
        return
    _check_own(plan.study)
    if conduct.memory is None:
        conduct = replace(conduct, memory=share_of_workers(conduct.workers))
    # Spinning OpenMP threads of one process steal the cores that another one needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    SERVER.set_forkserver_preload([__name__])
    with terminable(), TemporaryDirectory() as failures:
        asked = (plan.study, store.root, conduct, Failures(Path(failures)))
        crew: Crew = {}
        try:
            for _ in range(conduct.workers):
                _start(crew, asked)
            yield from _listen(crew, asked)
        finally:
            _end(crew)


def _check_own(study: Study) -> None:
    """Raises OfframpError for a strategy's function that other processes cannot find by its name."""
    for strategy in study.strategies:
        try:
            pickle.dumps(strategy.own)
        except (pickle.PicklingError, AttributeError):
            raise OfframpError(
                f"'{strategy.label}' cannot be sent to other processes; define it at the top of a "
                "module, or run with workers=1"
            ) from None


def _start(crew: Crew, asked: tuple[Any, ...]) -> None:
    """One more worker. A signal counts only when it is one of the crew, which `_end` ends."""
    events, theirs = SERVER.Pipe(duplex=False)
    # No daemon: those may not start processes of their own, which read images.
    worker = SERVER.Process(target=_work, args=(dict(os.environ), *asked, theirs))
    with uninterrupted(), _signals_held():
        worker.start()
        crew[events] = worker
    theirs.close()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Processes started here never see Ctrl-C, which a terminal sends to all: this process does, and
    ends them. Nor what schedulers send to all, until a worker wants to: what it is a fork of stays."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(crew: Crew, asked: tuple[Any, ...]) -> Iterator[Event]:
    """What workers say until all are finished. Changes `crew`, which is of those at work."""
    killed, for_memory = 0, killed_for_memory()
    while crew:
        for events in wait(list(crew)):
            assert isinstance(events, Connection)
            try:
                message = events.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                worker = crew.pop(events)
                worker.join()
                killed += 1
                before, for_memory = for_memory, killed_for_memory()
                short = worker.exitcode == -signal.SIGKILL and for_memory > before
                yield Note(_replaced(worker.exitcode, killed, short, len(crew)))
                if not (short and crew):
                    _start(crew, asked)
                continue
            if message is None:
                crew.pop(events).join()
            elif isinstance(message, str):
                raise OfframpError(message)
            else:
                yield message


def _replaced(code: int | None, killed: int, short: bool, left: int) -> str:
    """What is done about a worker that is gone. Raises OfframpError where nothing is."""
    why = "for lack of memory" if short else f"exit code {code}"
    ended = code is not None and code >= 0 and code != exit_code(Terminated(signal.SIGTERM))
    if ended or killed > REPLACED:
        many = "" if ended else f", and {REPLACED} had been replaced"
        raise OfframpError(
            f"a worker process died ({why}){many}; run the same command again, with fewer --workers if "
            "memory is short"
        )
    if short and left:
        return f"A worker was killed {why}; its work goes to what is left: {counted(left, 'worker')}."
    return f"A worker was killed ({why}); another one goes on with its work ({killed} of {REPLACED})."


def _end(crew: Crew) -> None:
    """Have workers save what they are at and end; those that do not are killed."""
    for worker in crew.values():
        worker.terminate()
    deadline = time.monotonic() + SAVING_S
    for worker in crew.values():
        worker.join(max(0.0, deadline - time.monotonic()))
        worker.kill()
        worker.join()


def _work(
    environment: dict[str, str],
    study: Study,
    root: Path,
    conduct: Conduct,
    failed: Failures,
    told: Connection,
) -> None:
    os.environ.clear()  # it is that of the day when the first worker was asked for
    os.environ.update(environment)
    keep_freed_memory()  # as the process that started this one
    try:
        with terminable():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING[1:])
            watch_parent(signal.SIGTERM)
            plan = make_plan(study, conduct.device)
            with closing(run(plan, Store(root), conduct, failed)) as events:
                for event in events:
                    told.send(event)
            told.send(None)
    except OfframpError as error:
        told.send(str(error))
    except KeyboardInterrupt as error:
        raise SystemExit(exit_code(error)) from None
    except (OSError, EOFError):
        parent = multiprocessing.parent_process()
        if parent is not None and parent.is_alive():
            raise
        raise SystemExit(exit_code(Terminated(signal.SIGHUP))) from None  # nobody listens
