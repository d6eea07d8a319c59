"""Several processes on one plan and one store, each on phases of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from offramp import device as devices
from offramp.errors import OfframpError
from offramp.meters import killed_for_memory
from offramp.process import Terminated, ended_by, exit_code, terminable
from offramp.store.store import Store
from offramp.study.plan.limits import share_of_workers
from offramp.study.plan.plan import Plan
from offramp.study.plan.workers import check_memory
from offramp.study.run.crew import REPLACED, Crew, Task, check_own, end, hear, start
from offramp.study.run.events import Event, Note
from offramp.study.run.ledger import Failures
from offramp.study.run.rank_processes import run_together
from offramp.study.run.run import RunConfig, run
from offramp.units import counted


def run_pooled(plan: Plan, store: Store, conduct: RunConfig) -> Generator[Event, None, None]:
    """As `run`, with `conduct.workers` processes; events come in the order in which they happen.

    For a worker that is killed another one is started, up to REPLACED times; where the kernel did it for
    lack of memory, the others go on without it. They end, and save first, when this process ends,
    however it does.

    Raises OfframpError where memory is known not to suffice, for a strategy's function that a worker
    cannot have, when more workers are killed, and when one stops for a reason of its own.
    """
    left = any(not store.has_node(key, whole=False) for key in plan.nodes)
    if left and conduct.device.type == "cpu":
        check_memory(plan, conduct.workers * plan.numerics.ranks)
    if plan.numerics.ranks > 1:
        yield from run_together(plan, store, conduct)
        return
    if conduct.workers == 1:
        yield from run(plan, store, conduct)
        return
    check_own(plan.study)
    if conduct.memory is None:
        conduct = replace(conduct, memory=share_of_workers(conduct.workers))
    # Spinning OpenMP threads of one process steal the cores that another one needs.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with terminable(), TemporaryDirectory() as failures:
        failed = Failures(Path(failures))
        asked = [
            Task(plan.study, store.root, replace(conduct, device=place), failed)
            for place in devices.spread(conduct.device, conduct.workers)
        ]
        crew: Crew = {}
        try:
            for task in asked:
                start(crew, task)
            yield from _listen(crew, asked)
        finally:
            end(crew)


def _listen(crew: Crew, asked: Sequence[Task]) -> Iterator[Event]:
    """What workers say until all are finished. Changes `crew`, which is of those at work. asked: of each
    worker; one that takes another's place takes its task, and so its device."""
    killed, for_memory = 0, killed_for_memory()
    tasks = dict(zip(crew.values(), asked, strict=True))
    while crew:
        for events in wait(list(crew)):
            assert isinstance(events, Connection)
            said = hear(crew, events)
            if isinstance(said, BaseProcess):
                killed += 1
                before, for_memory = for_memory, killed_for_memory()
                short = said.exitcode == -signal.SIGKILL and for_memory > before
                yield Note(replaced(said.exitcode, killed, short, len(crew)))
                if not (short and crew):
                    tasks[start(crew, tasks[said])] = tasks[said]
            elif said is not None:
                yield said


def replaced(code: int | None, killed: int, short: bool, left: int) -> str:
    """What is done about a worker that is gone. Raises OfframpError where nothing is."""
    why = "for lack of memory" if short else ended_by(code)
    if code is not None and code >= 0 and code != exit_code(Terminated(signal.SIGTERM)):
        raise OfframpError(
            f"a worker process ended without a message ({why}); run the same again with one worker, "
            "which says more: finished work stays"
        )
    if killed > REPLACED:
        maybe = ", with fewer workers if memory is short" if code == -signal.SIGKILL else ""
        raise OfframpError(
            f"a worker process was killed ({why}), and {REPLACED} had been replaced; run the same "
            f"again{maybe}: finished work stays"
        )
    if short and left:
        return f"A worker was killed {why}; its work goes to what is left: {counted(left, 'worker')}."
    return f"A worker was killed ({why}); another one goes on with its work ({killed} of {REPLACED})."
