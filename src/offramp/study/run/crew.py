"""Processes that are at work on a plan, and what each of them does.

A process's events come through a pipe of its own: one that is killed half-way through a word garbles
nobody else's, and one whose parent is gone finds the other end closed.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess

from offramp.engine.ranks import Deserted, Disbanded
from offramp.errors import OfframpError, in_line
from offramp.process import (
    ENDING,
    Terminated,
    exit_code,
    keep_freed_memory,
    look_less_for_garbage,
    terminable,
    uninterrupted,
    watch_parent,
)
from offramp.store.place import Place
from offramp.store.store import Store
from offramp.study.plan.plan import make_plan
from offramp.study.run.events import Event
from offramp.study.run.ledger import Failures
from offramp.study.run.run import RunConfig, run
from offramp.study.spec.models import Study

REPLACED = 3  # killed processes of a run that others are started for
WORKER = "offramp worker"  # name of each process
SAVING_S = 60.0  # that all have to save what they are at
DESERTED, DISBANDED = 75, 76  # exit codes of ranks that lost another one, or left the others
# They are forks of one process that has imported all of this and nothing else has happened in.
SERVER = multiprocessing.get_context("forkserver")
Crew = dict[Connection, ForkServerProcess]


@dataclass(frozen=True)
class Task:
    """What a process is told: to run a study into a store."""

    study: Study
    root: Place
    conduct: RunConfig
    failed: Failures


def check_own(study: Study) -> None:
    """Raises OfframpError for a strategy's function that other processes cannot find by its name."""
    for strategy in study.strategies:
        try:
            pickle.dumps(strategy.own)
        except (pickle.PicklingError, AttributeError):
            raise OfframpError(
                f"'{strategy.label}' cannot be sent to other processes; define it at the top of a "
                "module, or run with workers=1"
            ) from None


def start(crew: Crew, task: Task) -> ForkServerProcess:
    """One more process, which is returned. A signal counts only when it is one of the crew, which
    `end` ends."""
    # The former imports this module; the latter is what any optimizer imports as it steps.
    SERVER.set_forkserver_preload(["offramp.study.run.worker_errors", "torch._dynamo"])
    events, theirs = SERVER.Pipe(duplex=False)
    # No daemon: those may not start processes of their own, which read images.
    worker = SERVER.Process(name=WORKER, target=_work, args=(dict(os.environ), task, theirs))
    with uninterrupted(), _signals_held():
        worker.start()
        crew[events] = worker
    theirs.close()
    return worker


@contextmanager
def _signals_held() -> Iterator[None]:
    """Processes started here never see Ctrl-C, which a terminal sends to all: this process does, and
    ends them. Nor what schedulers send to all, until a worker wants to: what it is a fork of stays."""
    resource_tracker.ensure_running()  # where it starts, it lets through what was held
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hear(crew: Crew, events: Connection) -> Event | ForkServerProcess | None:
    """What one of the crew has to say, for which it may be waited: an event; None once it has finished;
    itself where it is gone without a word. Either is of the crew no more.

    Raises OfframpError for the reason for which it stopped.
    """
    try:
        message = events.recv()
    except (EOFError, OSError, pickle.UnpicklingError):
        gone = crew.pop(events)
        gone.join()
        return gone
    if isinstance(message, str):
        raise OfframpError(message)
    if message is None:
        crew.pop(events).join()
    told: Event | None = message
    return told


def end(crew: Crew) -> None:
    """Have all save what they are at and end; those that do not are killed."""
    for worker in crew.values():
        worker.terminate()
    deadline = time.monotonic() + SAVING_S
    for worker in crew.values():
        worker.join(max(0.0, deadline - time.monotonic()))
        worker.kill()
        worker.join()


def _work(environment: dict[str, str], task: Task, told: Connection) -> None:
    os.environ.clear()  # the fork server's is as old as the first worker
    os.environ.update(environment)
    look_less_for_garbage()  # this and the next as the process that started this one
    keep_freed_memory()
    try:
        with terminable():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING[1:])
            watch_parent(signal.SIGTERM)
            plan = make_plan(task.study, task.conduct.device)
            with closing(run(plan, Store(task.root), task.conduct, task.failed)) as events:
                for event in events:
                    told.send(event)
            told.send(None)
    except OfframpError as error:
        told.send(str(error))
    except Disbanded:
        raise SystemExit(DISBANDED) from None
    except Deserted:
        raise SystemExit(DESERTED) from None
    except KeyboardInterrupt as error:
        raise SystemExit(exit_code(error)) from None
    except Exception as error:
        parent = multiprocessing.parent_process()
        if isinstance(error, OSError | EOFError) and not (parent is not None and parent.is_alive()):
            raise SystemExit(exit_code(Terminated(signal.SIGHUP))) from None  # nobody listens
        told.send(f"a worker process failed: {type(error).__name__}: {in_line(error)}")
        raise  # for the traceback
