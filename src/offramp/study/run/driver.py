"""A plan carried out by the machines of a cluster: one process decides what is trained next.

Groups of phases become tasks as soon as what they begin from is in the store. A task claims its phases
there, as every process does, so that two of these on one store do no harm; it saves as usual, so that a
task whose machine is gone goes on elsewhere from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch

from offramp.engine.resolve import Node
from offramp.errors import OfframpError, Unwritable
from offramp.store.store import Store
from offramp.study.plan.caching import cache_folder
from offramp.study.plan.plan import Plan, Trial
from offramp.study.plan.schedule import Schedule
from offramp.study.plan.workers import need
from offramp.study.run import events, protocol
from offramp.study.run.ledger import Failures, Ledger
from offramp.study.run.protocol import Launcher, Message, Needs, Restarts, TaskOrder, end, order_of
from offramp.study.run.run import RunConfig
from offramp.units import counted

LOOK_S = 1.0  # between two looks at the machines


class ClusterLauncher(Launcher, Protocol):
    """A launcher whose machines come and go.

    Attributes:
        own: Whether this process started them, so that no other one will come.
    """

    @property
    def own(self) -> bool: ...

    def room(self, needs: Needs) -> events.Room:
        """For how many tasks at a time there is room, on machines that are up now."""


@dataclass(frozen=True)
class Assignment:
    """What a task is to do: nodes to train together, or trials to write."""

    nodes: tuple[Node, ...] = ()
    trials: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Keys of the nodes, or ids of the trials."""
        return (*(node.key for node in self.nodes), *self.trials)


@dataclass
class Driver:
    """A run of a plan on a cluster."""

    ledger: Ledger  # what is finished and what failed
    machines: ClusterLauncher  # the cluster
    order: TaskOrder  # what all tasks have in common
    # the rule for those that are lost; its rests hold also for what other processes are at
    restarts: Restarts = field(default_factory=Restarts)
    running: dict[Any, Assignment] = field(default_factory=dict)  # what each task is at
    elsewhere: set[str] = field(default_factory=set)  # keys that other processes were seen at
    open_trials: dict[str, Trial] = field(default_factory=dict)  # those that are not written yet, by id
    # of the cluster, by now
    room: events.Room = field(default_factory=lambda: events.Room(-1, -1))  # not known yet
    idle: bool = True  # whether there may be something to start
    served: bool = False  # whether any machine has trained an epoch

    def __post_init__(self) -> None:
        self.open_trials = {trial.id: trial for trial in self.ledger.plan.trials}

    def work(self) -> Iterator[events.Event]:
        """All that happens until nothing is left to do."""
        yield from self.ledger.begin()
        schedule = Schedule(self.ledger.plan, frozenset(self.ledger.done))
        clock, next_look = self.restarts.clock, 0.0
        try:
            while True:
                if clock() >= next_look:
                    yield from self._look()
                    next_look = clock() + LOOK_S
                if self.idle:
                    self.idle = False
                    yield from self.ledger.give_up(self.ledger.open())
                    yield from self._close_trials()
                    if not self.open_trials:
                        return
                    self._start_ready(schedule)
                for message in self.machines.hear(list(self.running), LOOK_S):
                    yield from self._take(message)
        finally:
            end(self.machines, self.running)

    def _look(self) -> Iterator[events.Event]:
        """What there is room for by now, and whether what rested may go on."""
        room = self.machines.room(self.order.needs)
        if room != self.room:
            self.room = room
            yield room
            if not room.groups:
                yield self._without_room()
        rested = self.restarts.rested()
        for key in self.elsewhere.intersection(rested):
            yield from self._look_elsewhere(key)
        self.idle |= bool(rested)

    def _without_room(self) -> events.Note:
        """A note that a machine must come. Raises OfframpError where none will."""
        needs = self.order.needs
        if self.machines.own:
            raise OfframpError(
                f"this machine has no room for a phase, which takes {needs}; train with fewer threads "
                "(numerics) or smaller batches, or join a cluster by RAY_ADDRESS"
            )
        return events.Note(
            f"No machine of the cluster has room for a phase, which takes {needs}; waiting for one that "
            "has."
        )

    def _look_elsewhere(self, key: str) -> Iterator[events.Event]:
        """Whether those who were at a node are done with it, or gone, which only patience can tell."""
        try:
            if self.ledger.store.has_node(key):
                yield from self.ledger.check(key)
            else:
                lock = self.ledger.store.try_lock(key)
                if lock is None:
                    yield self._await([self.ledger.plan.nodes[key]])
                    return
                lock.release()
        except Unwritable:  # the store is away: whoever trains the node next will meet it
            pass
        self.elsewhere.discard(key)

    def _await(self, nodes: Sequence[Node]) -> events.Waiting:
        waiting = self.ledger.waiting(nodes)
        self.elsewhere.update(waiting.keys)
        self.restarts.rest(waiting.keys, LOOK_S)
        return waiting

    def _close_trials(self) -> Iterator[events.Event]:
        """Leave out trials that cannot be had, and those that are written."""
        failed = self.ledger.failed.keys()
        for trial in list(self.open_trials.values()):
            if failed and not failed.isdisjoint(trial.keys):
                del self.open_trials[trial.id]
            elif self.ledger.done.issuperset(trial.keys) and self._is_closed(trial):
                del self.open_trials[trial.id]
                yield events.TrialDone(trial.id, True)

    def _is_closed(self, trial: Trial) -> bool:
        return not self.ledger.store.is_planned(trial.id) and self.ledger.written(trial)[0]

    def _start_ready(self, schedule: Schedule) -> None:
        """Start everything that is ready, so that a cluster which grows on demand does."""
        busy = {name for at in self.running.values() for name in at.names} | self.restarts.rests.keys()
        done = self.ledger.done
        ready = [n for n in self.ledger.open() if n.key not in busy and done.issuperset(n.needs)]
        for group in schedule.groups(ready):
            self._start(Assignment(nodes=group))
        of_seed: dict[int, list[str]] = {}  # they have logits in common
        for trial in self.open_trials.values():
            if trial.id not in busy and done.issuperset(trial.keys):
                of_seed.setdefault(trial.seed, []).append(trial.id)
        for ids in of_seed.values():
            self._start(Assignment(trials=tuple(ids)))

    def _start(self, assignment: Assignment) -> None:
        keys = tuple(node.key for node in assignment.nodes)
        task = self.machines.start(replace(self.order, keys=keys, trials=assignment.trials))
        self.running[task] = assignment

    def _take(self, message: Message) -> Iterator[events.Event]:
        """Take in what a task said."""
        assignment = self.running[message.task]
        for event in message.events:
            if isinstance(event, events.WorkerFailed):
                # A machine that lacks something ends nothing where others have what it takes.
                if not (event.again or self.served):
                    raise OfframpError(event.text)
                yield from self._again(assignment, event.text)
                continue
            self._note(event)
            if isinstance(event, events.Waiting):
                event = self._await([self.ledger.plan.nodes[key] for key in event.keys])
            yield event
        if message.ended:
            del self.running[message.task]
            self.idle = True
            yield events.GroupEnded(tuple(node.key for node in assignment.nodes))
        if message.loss is not None:
            yield from self._again(assignment, message.loss.reason)

    def _note(self, event: events.Event) -> None:
        match event:
            case events.Epoch(report):
                self.served = True
                self.restarts.see(event, report.key)
            case events.Finished(key) | events.Reused(key):
                self.ledger.done.add(key)
                self.idle = self.served = True
            case events.Failed(key, reason):
                self.ledger.failed[key] = reason
                self.idle = True
            case events.TrialDone(trial):
                self.open_trials.pop(trial, None)

    def _again(self, assignment: Assignment, reason: str) -> Iterator[events.Event]:
        """Have a lost task start again, by the rule."""
        text = f"{self._words(assignment)}: {reason}"
        count = self.restarts.lost(assignment.names)
        settled = self.ledger.done | self.ledger.failed.keys()
        left = [node.key for node in assignment.nodes if node.key not in settled]
        if count <= protocol.RETRIES:
            self.restarts.rest((*left, *assignment.trials), protocol.pause_before(count))
            yield events.Note(f"{text}; it goes to a machine again {protocol.restarted(count)}.")
            return
        if assignment.trials:
            raise OfframpError(f"{text} ({count} times); run the same command again")
        for key in left:
            self.ledger.failed[key] = f"{text} ({count} times)"
            yield events.Failed(key, self.ledger.failed[key])

    def _words(self, assignment: Assignment) -> str:
        if not assignment.nodes:
            seeds = {t.seed for t in self.ledger.plan.trials if t.id in assignment.trials}
            words = f"{counted(len(assignment.trials), 'trial')} of seed"
            return f"{words} {', '.join(map(str, sorted(seeds)))}"
        names = ", ".join(f"'{node.name}'" for node in assignment.nodes)
        return f"phase {names} of seed {assignment.nodes[0].seed}"


def run_on_cluster(
    plan: Plan, store: Store, cluster: ClusterLauncher, checkpoint_seconds: float = 20.0
) -> Generator[events.Event, None, None]:
    """Train every missing node and write every trial, by the machines of a cluster.

    What is at work is saved when whoever reads closes this. Every machine must reach the store.

    Raises:
        OfframpError: As `run` does, and where a machine makes another plan of the same study.
    """
    if plan.numerics.ranks > 1:
        raise OfframpError(
            "execution.devices trains a phase on several devices of one machine, which no task of a "
            "cluster does; leave it out here, or run with torchrun"
        )
    config = RunConfig(torch.device(plan.numerics.device), cache_folder(), checkpoint_seconds)
    order = order_of(plan, store, config, needs_of(plan))
    with TemporaryDirectory() as folder:
        driver = Driver(Ledger(plan, store, Failures(Path(folder))), cluster, order)
        with closing(driver.work()) as happening:  # type: ignore[type-var]  # a generator
            yield from happening


def needs_of(plan: Plan) -> Needs:
    """What a task of this plan takes of a machine: threads of its profile, memory by forecast."""
    gpus = 0.0 if plan.numerics.device == "cpu" else plan.study.execution.gpus_per_trial
    return Needs(plan.numerics.threads, need(plan).trial, gpus)
