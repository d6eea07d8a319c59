"""Several processes on one plan and one store."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
from collections.abc import Generator, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from offramp.errors import OfframpError
from offramp.process import keep_freed_memory
from offramp.store.store import Store
from offramp.study.plan.limits import share_of_workers
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run.events import Event
from offramp.study.run.run import Conduct, run
from offramp.study.spec.models import Study


def run_pooled(plan: Plan, store: Store, conduct: Conduct) -> Generator[Event, None, None]:
    """As `run`, with `conduct.workers` processes; events come in the order in which they happen.

    Raises OfframpError for a strategy's function that a worker cannot have, and when a worker dies or
    stops for a reason of its own.
    """
    if conduct.workers == 1:
        yield from run(plan, store, conduct)
        return
    _check_own(plan.study)
    if conduct.memory is None:
        conduct = replace(conduct, memory=share_of_workers(conduct.workers))
    # Spinning OpenMP threads of one process steal the cores that another one needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        failed = manager.dict()
        events: Any = context.Queue()
        workers = [
            context.Process(
                target=_work, args=(plan.study, store.root, conduct, failed, events)
            )  # no daemon: those may not start processes of their own, which read images
            for _ in range(conduct.workers)
        ]
        with _interrupts_held():
            for worker in workers:
                worker.start()
        try:
            yield from _listen(workers, events)
        finally:
            for worker in workers:
                worker.terminate()
            for worker in workers:
                worker.join()


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


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes started here never see Ctrl-C, which a terminal sends to all: this process does, and
    ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(workers: list[Any], events: Any) -> Iterator[Event]:
    finished = 0
    while finished < len(workers):
        try:
            message = events.get(timeout=1.0)
        except queue.Empty:
            dead = [w for w in workers if w.exitcode not in (None, 0)]
            if dead:
                raise OfframpError(
                    f"a worker process died (exit code {dead[0].exitcode}), perhaps for lack of "
                    "memory; run the same command again, with fewer --workers"
                ) from None
            continue
        if message is None:
            finished += 1
        elif isinstance(message, str):
            raise OfframpError(message)
        else:
            yield message


def _work(
    study: Study, root: Any, conduct: Conduct, failed: MutableMapping[str, str], events: Any
) -> None:
    keep_freed_memory()  # as the process that started this one
    try:
        plan = make_plan(study, conduct.device)
        for event in run(plan, Store(root), conduct, failed):
            events.put(event)
    except OfframpError as error:
        events.put(str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # a worker that ends without a word has died
    else:
        events.put(None)
