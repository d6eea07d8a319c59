"""Trainers in processes of this machine: workers with phases of their own, or ranks of one training.

Every worker takes what is free of the whole plan, phase by phase, so nobody schedules. Ranks train each
phase together, on a device each, and stand and fall together: rank 0 runs the plan as a process alone
would, tells the others what to train, and is the only one that writes. Started by `torchrun`, which has
made the processes, each is one of them.

A process's events come through a pipe of its own: one that is killed half-way through a word garbles
nobody else's, and one whose parent is gone meets a closed end.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import psutil

from offramp import device as devices
from offramp.engine.ranks import RankInfo, RankLost, RankStopped
from offramp.errors import OfframpError
from offramp.meters.capacity import killed_for_memory, usable_cores
from offramp.process import (
    ENDING,
    Terminated,
    ended_by,
    exit_code,
    prepare,
    terminable,
    uninterrupted,
    watch_parent,
)
from offramp.store.store import Store
from offramp.study.plan.caching import share_of_workers
from offramp.study.plan.plan import Plan
from offramp.study.plan.workers import check_memory
from offramp.study.run import protocol
from offramp.study.run.events import Event, Note, WorkerFailed, loads
from offramp.study.run.protocol import (
    Launcher,
    Message,
    Needs,
    Restarts,
    TaskFailure,
    TaskOrder,
    end,
    order_of,
)
from offramp.study.run.run import RunConfig, run
from offramp.study.run.worker import carry_out
from offramp.units import counted

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, ForkServerProcess

WORKER = "offramp worker"  # name of each process
DESERTED, DISBANDED = 75, 76  # exit codes of ranks that lost another one, or left the others
GRACE_S = 20.0  # for ranks to notice that one is gone
LOOK_S = 0.5  # between two looks at whether a lost worker has rested
INTERFACE, LOOPBACK = "GLOO_SOCKET_IFNAME", "127.0.0.1"  # where ranks on the CPU listen


def server() -> ForkServerContext:
    """Workers are forks of one process that has imported all of this, and in which nothing else was."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        raise OfframpError("several processes need Linux or macOS; on Windows use WSL, or one worker")
    return multiprocessing.get_context("forkserver")


@dataclass
class Processes:
    """The launcher of this machine. Tasks are the pipes through which events come."""

    workers: dict[Connection, ForkServerProcess] = field(default_factory=dict)  # each task's process
    # how many processes the system has killed so far for lack of memory
    memory_kills: int = field(default_factory=lambda: killed_for_memory())

    def start(self, order: TaskOrder) -> Connection:
        """One more process. A signal counts only when it is among the workers, which `end` ends."""
        # The former imports this module; the latter is what any optimizer imports as it steps.
        context = server()
        context.set_forkserver_preload(["offramp.study.run.worker_errors", "torch._dynamo"])
        events, theirs = context.Pipe(duplex=False)
        # No daemon: those may not start processes of their own, which read images.
        arguments = (dict(os.environ), order.dumps(), theirs)
        worker = context.Process(name=WORKER, target=_work, args=arguments)
        with uninterrupted(), _signals_held():
            worker.start()
            self.workers[events] = worker
        theirs.close()
        return events

    def hear(self, tasks: Sequence[Connection], seconds: float | None) -> list[Message]:
        """What processes say next; nothing after so many seconds."""
        return [self._hear(task) for task in wait(tasks, seconds) if isinstance(task, Connection)]

    def _hear(self, task: Connection) -> Message:
        try:
            line = task.recv_bytes()
        except (EOFError, OSError):
            code = self._joined(task)
            before, self.memory_kills = self.memory_kills, killed_for_memory()
            short = code == -signal.SIGKILL and self.memory_kills > before
            return Message(task, ended=True, loss=TaskFailure(ended_by(code), code, short))
        if not line:
            self._joined(task)
            return Message(task, ended=True)
        return Message(task, (loads(line.decode()),))

    def _joined(self, task: Connection) -> int | None:
        worker = self.workers.pop(task)
        worker.join()
        return worker.exitcode

    def cancel(self, task: Connection, force: bool = False) -> None:
        """Send a process SIGTERM, so that it saves and ends; with `force` SIGKILL."""
        worker = self.workers.get(task)
        if worker is None:
            return
        if not force:
            worker.terminate()
            return
        worker.kill()
        self._joined(task)


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


def _work(environment: dict[str, str], order: str, pipe: Connection) -> None:
    """What a process does."""
    os.environ.clear()  # the fork server's is as old as the first worker
    os.environ.update(environment)
    prepare()  # as the process that started this one
    try:
        with terminable():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING[1:])
            watch_parent(signal.SIGTERM)
            with closing(carry_out(order)) as lines:  # type: ignore[type-var]  # a generator
                for line in lines:
                    pipe.send_bytes(line.encode())
            pipe.send_bytes(b"")
    except RankLost as error:
        raise SystemExit(DISBANDED if isinstance(error, RankStopped) else DESERTED) from None
    except KeyboardInterrupt as error:
        raise SystemExit(exit_code(error)) from None
    except OSError:
        parent = multiprocessing.parent_process()
        if parent is None or not parent.is_alive():
            raise SystemExit(exit_code(Terminated(signal.SIGHUP))) from None  # nobody listens
        raise


def run_pooled(plan: Plan, store: Store, config: RunConfig) -> Generator[Event, None, None]:
    """Run a plan with `config.workers` processes, or each phase on several devices of this machine.

    A process that is killed is replaced by the rule of `protocol.Restarts`; where the system killed it
    for lack of memory, the others go on without it. Ranks start again together, from the last
    checkpoint. All end, and save first, when this process ends, however it does. The device of `config`
    may stand for several.

    Raises:
        OfframpError: As `run` does; where memory is known not to suffice or devices are fewer than
            ranks; for a strategy's function that a worker cannot import; when a process is killed too
            often, and when one stops for a reason of its own.
    """
    ranks = plan.numerics.ranks
    left = any(not store.has_node(key, whole=False) for key in plan.nodes)
    if left and config.device.type == "cpu":
        check_memory(plan, config.workers * ranks)
    launched = devices.launched() if ranks > 1 else None
    if launched is not None:
        yield from _run_launched(plan, store, config, launched)
    elif ranks > 1:
        yield from _run_ranks(plan, store, config)
    elif config.workers > 1:
        yield from _run_workers(plan, store, config)
    else:
        yield from run(plan, store, config)


def _shared(config: RunConfig, workers: int) -> RunConfig:
    """As one of so many processes, with its share of what memory is free."""
    memory = share_of_workers(workers) if config.memory is None else config.memory
    return replace(config, workers=workers, memory=memory)


def _run_workers(plan: Plan, store: Store, config: RunConfig) -> Generator[Event, None, None]:
    config = _shared(config, config.workers)
    needs = Needs(plan.numerics.threads, 0)
    with terminable(), TemporaryDirectory() as failures:
        places = devices.spread(config.device, config.workers)
        each = [replace(config, device=place, sharing=places.count(place)) for place in places]
        orders = [order_of(plan, store, own, needs, Path(failures)) for own in each]
        launcher = Processes()
        try:
            yield from listen(launcher, orders, Restarts())
        finally:
            end(launcher, tuple(launcher.workers))


def listen(launcher: Launcher, orders: Sequence[TaskOrder], restarts: Restarts) -> Iterator[Event]:
    """Start a worker for each order, and tell what they do, until all have finished. One that is lost is
    replaced, by the rule; whoever takes its place takes its order, and so its device.

    Raises:
        OfframpError: For the reason for which a worker stopped, and where one is lost too often.
    """
    orders_of = {f"worker {number}": order for number, order in enumerate(orders)}
    running = {launcher.start(order): name for name, order in orders_of.items()}
    while running or restarts.rests:
        for name in restarts.rested():
            running[launcher.start(orders_of[name])] = name
        for message in launcher.hear(list(running), LOOK_S if restarts.rests else None):
            name = running[message.task]
            for event in message.events:
                if isinstance(event, WorkerFailed):
                    raise OfframpError(event.text)
                restarts.see(event, name)
                yield event
            if message.ended:
                del running[message.task]
            if message.loss is not None:
                yield Note(_replaced(message.loss, name, restarts, len(running)))


def _replaced(loss: TaskFailure, name: str, restarts: Restarts, left: int) -> str:
    """What is done about a worker that is gone. Raises OfframpError where nothing is."""
    if loss.short and left:
        return (
            f"A worker was killed for lack of memory; its work goes to what is left: "
            f"{counted(left, 'worker')}."
        )
    count = restarts.lost([name])
    check_killed(loss, count)
    restarts.rest([name], protocol.pause_before(count))
    reason = "for lack of memory" if loss.short else f"({loss.reason})"
    return (
        f"A worker was killed {reason}; another one goes on with its work {protocol.restarted(count)}."
    )


def check_killed(loss: TaskFailure, count: int) -> None:
    """Refuse what no new process mends. count: how often it was lost by now.

    Raises:
        OfframpError: Where it ended by itself without a word, and where it was killed too often.
    """
    if loss.code is not None and loss.code >= 0 and loss.code != exit_code(Terminated(signal.SIGTERM)):
        raise OfframpError(
            f"a worker process ended without a message ({loss.reason}); run the same again with one "
            "worker, which says more: finished work stays"
        )
    if count > protocol.RETRIES:
        maybe = ", with fewer workers if memory is short" if loss.code == -signal.SIGKILL else ""
        raise OfframpError(
            f"a worker process was killed ({loss.reason}), and {protocol.RETRIES} had been replaced; "
            f"run the same again{maybe}: finished work stays"
        )


def _run_ranks(plan: Plan, store: Store, config: RunConfig) -> Generator[Event, None, None]:
    count = plan.numerics.ranks
    places = devices.several(config.device, count)
    config = _shared(config, count)
    if count * plan.numerics.threads > usable_cores():
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault(INTERFACE, _loopback())
    restarts, needs = Restarts(), Needs(plan.numerics.threads, 0)
    with terminable(), TemporaryDirectory() as shared:
        failures = Path(shared) / "failed"
        failures.mkdir()
        for attempt in itertools.count():
            seats = [
                RankInfo(rank, count, f"file://{shared}/meeting-{attempt}") for rank in range(count)
            ]
            each = [replace(config, device=d, seat=s) for d, s in zip(places, seats, strict=True)]
            launcher = Processes()
            try:
                for own in each:
                    launcher.start(order_of(plan, store, own, needs, failures))
                losses = yield from _together(launcher, restarts)
            finally:
                end(launcher, tuple(launcher.workers))
            if not losses:
                return
            codes = {loss.code for loss in losses}
            if codes - {DESERTED, DISBANDED} or DISBANDED not in codes:
                times = restarts.lost(["ranks"])
                yield Note(_again(losses, times))
                time.sleep(protocol.pause_before(times))


def _together(launcher: Processes, restarts: Restarts) -> Generator[Event, None, list[TaskFailure]]:
    """What ranks say until all are finished; the losses of those that ended before. What is left GRACE_S
    after the last of them waits for one that is gone, and is killed."""
    losses: list[TaskFailure] = []
    while launcher.workers:
        messages = launcher.hear(list(launcher.workers), GRACE_S if losses else None)
        for message in messages:
            for event in message.events:
                if isinstance(event, WorkerFailed):
                    raise OfframpError(event.text)
                restarts.see(event, "ranks")
                yield event
            if message.loss is not None:
                losses.append(message.loss)
        if losses and not messages:
            break
    for task in tuple(launcher.workers):
        launcher.cancel(task, force=True)
    if any(loss.short for loss in losses):
        yield Note("Memory was short: the system killed a process of this training.")
    return losses


def _again(losses: Sequence[TaskFailure], count: int) -> str:
    """A note that ranks start again, for the `count`-th time. Raises OfframpError where they do not."""
    gone = next((loss for loss in losses if loss.code not in (DESERTED, DISBANDED)), None)
    reason = "lost each other" if gone is None else f"a rank ended ({gone.reason})"
    by_itself = gone is not None and gone.code is not None and gone.code >= 0
    if by_itself or count > protocol.RETRIES:
        reason = "the ranks lost each other" if gone is None else reason
        raise OfframpError(
            f"{reason}, and the others cannot go on without it; run the same command again, which goes "
            "on from the last checkpoint"
        )
    return (
        f"Of {len(losses)} ranks that train together {reason}; all start again from the last checkpoint "
        f"{protocol.restarted(count)}."
    )


def _run_launched(
    plan: Plan, store: Store, config: RunConfig, launched: devices.Launched
) -> Generator[Event, None, None]:
    """As the rank that torchrun made of this process."""
    seat = RankInfo(launched.rank, launched.count, "env://")
    if seat.count != plan.numerics.ranks:
        raise OfframpError(
            f"torchrun has started {seat.count} processes, and execution.devices is "
            f"{plan.numerics.ranks}; make them equal, or leave execution.devices out"
        )
    place = devices.several(config.device, launched.here)[launched.local]
    config = replace(config, device=place, seat=seat, workers=launched.here)
    try:
        yield from run(plan, store, config)
    except RankLost as error:
        raise OfframpError(
            f"this rank ({seat.rank}) cannot go on without the others ({error}); run the same command "
            "again, which goes on from the last checkpoint"
        ) from None


def _loopback() -> str:
    """The name of the network interface that nobody else reaches."""
    interfaces = psutil.net_if_addrs().items()
    at_home = (
        name for name, addresses in interfaces if LOOPBACK in {address.address for address in addresses}
    )
    return next(at_home, "lo")
