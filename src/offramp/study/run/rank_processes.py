"""One training on several devices: a process for each, which stand and fall together.

Rank 0 runs the plan as a process alone would; it takes the locks, tells the others what to train, and
is the only one that writes. Should one be gone, the others cannot go on: all start again, from the last
checkpoint. Started by `torchrun`, which has made the processes, each is one of them.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Generator
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from offramp import device as devices
from offramp.engine.ranks import Deserted, RankInfo
from offramp.errors import OfframpError
from offramp.meters import killed_for_memory, usable_cores
from offramp.process import ended_by, terminable
from offramp.store.store import Store
from offramp.study.plan.limits import share_of_workers
from offramp.study.plan.plan import Plan
from offramp.study.run.crew import DESERTED, DISBANDED, REPLACED, Crew, Task, check_own, end, hear, start
from offramp.study.run.events import Event, Note
from offramp.study.run.ledger import Failures
from offramp.study.run.run import RunConfig, run

GRACE_S = 20.0  # for ranks to notice that one is gone
INTERFACE = "GLOO_SOCKET_IFNAME"  # where ranks on the CPU listen
LOOPBACK = "127.0.0.1"


def run_together(plan: Plan, store: Store, conduct: RunConfig) -> Generator[Event, None, None]:
    """As `run`, each phase on `plan.numerics.ranks` devices of this machine.

    When a rank is killed all start again, up to REPLACED times. They end, and rank 0 saves first, when
    this process ends.

    Raises OfframpError where there are fewer devices, and when more ranks are killed.
    """
    launched = devices.launched()
    if launched is not None:
        yield from _as_launched(plan, store, conduct, launched)
        return
    count = plan.numerics.ranks
    places = devices.several(conduct.device, count)
    check_own(plan.study)
    memory = share_of_workers(count) if conduct.memory is None else conduct.memory
    conduct = replace(conduct, workers=count, memory=memory)
    if count * plan.numerics.threads > usable_cores():
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault(INTERFACE, _loopback())
    killed = 0
    with terminable(), TemporaryDirectory() as shared:
        failed = Failures(Path(shared) / "failed")
        failed.folder.mkdir()
        for attempt in itertools.count():
            crew: Crew = {}
            meeting = f"file://{shared}/meeting-{attempt}"
            try:
                for rank, place in enumerate(places):
                    seated = replace(conduct, device=place, seat=RankInfo(rank, count, meeting))
                    start(crew, Task(plan.study, store.root, seated, failed))
                codes = yield from _heard(crew)
            finally:
                end(crew)
            if not codes:
                return
            if set(codes) - {DESERTED, DISBANDED} or DISBANDED not in codes:
                killed += 1
                yield Note(_again(codes, killed))


def _heard(crew: Crew) -> Generator[Event, None, list[int | None]]:
    """What ranks say until all are finished; the exit codes of those that ended before. Changes
    `crew`, which is of those at work."""
    codes: list[int | None] = []
    before = killed_for_memory()
    while crew:
        ready = wait(list(crew), GRACE_S if codes else None)
        for events in ready:
            assert isinstance(events, Connection)
            said = hear(crew, events)
            if isinstance(said, BaseProcess):
                codes.append(said.exitcode)
            elif said is not None:
                yield said
        if codes and not ready:
            break
    for rank in crew.values():  # they wait for one that is gone
        rank.kill()
    if -signal.SIGKILL in codes and killed_for_memory() > before:
        yield Note("Memory was short: the system killed a process of this training.")
    return codes


def _again(codes: list[int | None], killed: int) -> str:
    """What is done when a rank is gone. Raises OfframpError where nothing is."""
    code = next((code for code in codes if code not in (DESERTED, DISBANDED)), DESERTED)
    why = "the ranks lost each other" if code == DESERTED else f"a rank ended ({ended_by(code)})"
    if (code is not None and code >= 0 and code != DESERTED) or killed > REPLACED:
        raise OfframpError(
            f"{why}, and the others cannot go on without it; run the same command again, which goes on "
            "from the last checkpoint"
        )
    return (
        f"Of {len(codes)} ranks that train together {why.removeprefix('the ranks ')}"
        f"; all start again from the last checkpoint ({killed} of {REPLACED})."
    )


def _as_launched(
    plan: Plan, store: Store, conduct: RunConfig, launched: devices.Launched
) -> Generator[Event, None, None]:
    """As the rank that torchrun made of this process."""
    seat = RankInfo(launched.rank, launched.count, "env://")
    if seat.count != plan.numerics.ranks:
        raise OfframpError(
            f"torchrun has started {seat.count} processes, and execution.devices is "
            f"{plan.numerics.ranks}; make them equal, or leave execution.devices out"
        )
    place = devices.several(conduct.device, launched.here)[launched.local]
    conduct = replace(conduct, device=place, seat=seat, workers=launched.here)
    try:
        yield from run(plan, store, conduct)
    except Deserted as error:
        raise OfframpError(
            f"this rank ({seat.rank}) cannot go on without the others ({error}); run the same command "
            "again, which goes on from the last checkpoint"
        ) from None


def _loopback() -> str:
    """The name of the network interface that nobody else reaches."""
    every = psutil.net_if_addrs().items()
    return next((name for name, found in every if LOOPBACK in {one.address for one in found}), "lo")
