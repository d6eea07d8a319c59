"""A plan carried out by the machines of a cluster: one process decides what is trained next.

Groups of phases become tasks as soon as what they begin from is in the store. A task claims its phases
there, as every process does, so that two of these on one store do no harm; it saves as usual, so that a
task whose machine is gone goes on elsewhere from its last checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from offramp.engine.resolve import Node
from offramp.errors import OfframpError, Unwritable
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, Trial
from offramp.study.plan.schedule import Passes, Schedule
from offramp.study.plan.workers import need
from offramp.study.run import events, task, trials
from offramp.study.run.cluster import Cluster, Heard, Needs
from offramp.study.run.ledger import Failures, Ledger
from offramp.study.spec import record
from offramp.units import counted

RETRIES = 6  # of a task: with the pauses between them about a minute
PAUSE_S = 2.0  # before the second one, and each time twice as long
LOOK_S = 1.0  # between two looks at the machines
SAVING_S = 60.0  # that tasks have to save what they are at
SAID: dict[Passes, str] = {
    "shared": "phases that may share a pass over the data do",
    "where short": "phases share a pass where machines are fewer than phases",
    "divided": "no two phases share a pass, so that none waits for another",
}


@dataclass(frozen=True)
class Given:
    """What a task was given to do: nodes to train together, or trials to write."""

    nodes: tuple[Node, ...] = ()
    trials: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*(node.key for node in self.nodes), *self.trials)


@dataclass
class DriverState:
    """What changes while it runs. room: of the cluster.  passes: how phases share them.  fresh: whether
    there may be something to submit.  served: whether any machine has trained an epoch."""

    room: events.Room = field(default_factory=lambda: events.Room(-1, -1))  # not known yet
    passes: Passes = "shared"
    fresh: bool = True
    served: bool = False


@dataclass(frozen=True)
class Driver:
    """order: what all tasks have in common.  running: by task.  tries: how often the task of a key or a
    trial was lost since it last came further.  reached: the last epoch of a key.  rests: until when
    nothing is done about a key or a trial.  elsewhere: keys that other processes were seen at.
    open_trials: by id."""

    ledger: Ledger
    cluster: Cluster
    needs: Needs
    order: task.TaskOrder
    open_trials: dict[str, Trial]
    running: dict[Any, Given] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    reached: dict[str, int] = field(default_factory=dict)
    rests: dict[str, float] = field(default_factory=dict)
    elsewhere: set[str] = field(default_factory=set)
    now: DriverState = field(default_factory=DriverState)

    @property
    def plan(self) -> Plan:
        return self.ledger.plan

    def work(self) -> Iterator[events.Event]:
        """All that happens until nothing is left to do."""
        yield from self.ledger.begin()
        schedule = Schedule(self.plan, frozenset(self.ledger.done))
        looked = -LOOK_S
        try:
            while True:
                if time.monotonic() - looked >= LOOK_S:
                    yield from self._look(schedule)
                    looked = time.monotonic()
                if self.now.fresh:
                    self.now.fresh = False
                    yield from self.ledger.give_up(self.ledger.open())
                    yield from self._close_trials()
                    if not self.open_trials:
                        return
                    self._submit(schedule)
                for heard in self.cluster.hear(list(self.running), LOOK_S):
                    yield from self._take(heard)
        finally:
            self._end()

    def _look(self, schedule: Schedule) -> Iterator[events.Event]:
        """What there is room for by now, and whether what rested may go on."""
        room = self.cluster.room(self.needs)
        if room != self.now.room:
            self.now.room = room
            yield room
            if room.groups:
                passes = schedule.best(room.groups)
                if passes != self.now.passes:
                    yield events.Note(f"With room for {room.groups} at once, {SAID[passes]}.")
                self.now.passes = passes
            elif self.cluster.own:  # no other one will come
                raise OfframpError(
                    f"this machine has no room for a phase, which takes {self.needs}; train with fewer "
                    "threads (numerics) or smaller batches, or join a cluster by RAY_ADDRESS"
                )
            else:
                yield events.Note(
                    f"No machine of the cluster has room for a phase, which takes {self.needs}; waiting "
                    "for one that has."
                )
        over = [name for name, until in self.rests.items() if until <= time.monotonic()]
        for name in over:
            del self.rests[name]
        for key in self.elsewhere.intersection(over):
            yield from self._ask_again(key)
        self.now.fresh |= bool(over)

    def _ask_again(self, key: str) -> Iterator[events.Event]:
        """Whether those who were at a node are done with it, or gone, which only patience can tell."""
        try:
            if self.ledger.store.has_node(key):
                yield from self.ledger.check(key)
            else:
                held = self.ledger.store.try_lock(key)
                if held is None:
                    yield self._await((key,))
                    return
                held.release()
        except Unwritable:  # the store is away: whoever is given the node will find out
            pass
        self.elsewhere.discard(key)

    def _await(self, keys: tuple[str, ...]) -> events.Waiting:
        for key in keys:
            self.elsewhere.add(key)
            self.rests[key] = time.monotonic() + LOOK_S
        return events.Waiting(keys, next(filter(None, map(self.ledger.store.holder, keys)), None))

    def _close_trials(self) -> Iterator[events.Event]:
        """Leave out trials that cannot be had, and those that are there."""
        failed = self.ledger.failed.keys()
        for trial in list(self.open_trials.values()):
            if failed and not failed.isdisjoint(trial.keys):
                del self.open_trials[trial.id]
            elif self.ledger.done.issuperset(trial.keys) and self._is_there(trial):
                del self.open_trials[trial.id]
                yield events.TrialDone(trial.id, True)

    def _is_there(self, trial: Trial) -> bool:
        store = self.ledger.store
        there = store.has_trial(trial.id, whole=False) and not store.is_planned(trial.id)
        return there and trials.damage(store.trial_logits, trial.id) is None

    def _submit(self, schedule: Schedule) -> None:
        """Everything that is ready, so that a cluster which grows by what is asked of it does."""
        busy = {name for given in self.running.values() for name in given.names} | self.rests.keys()
        done = self.ledger.done
        ready = [n for n in self.ledger.open() if n.key not in busy and done.issuperset(n.needs)]
        room = self.now.room.groups - len(self.running)
        for group in schedule.groups(ready, room, self.now.passes) if ready else ():
            self._start(Given(nodes=group))
        of_seed: dict[int, list[str]] = {}  # they have logits in common
        for trial in self.open_trials.values():
            if trial.id not in busy and done.issuperset(trial.keys):
                of_seed.setdefault(trial.seed, []).append(trial.id)
        for ids in of_seed.values():
            self._start(Given(trials=tuple(ids)))

    def _start(self, given: Given) -> None:
        order = task.given(self.order, tuple(node.key for node in given.nodes), given.trials)
        self.running[self.cluster.submit(order.dumps(), self.needs)] = given

    def _take(self, heard: Heard) -> Iterator[events.Event]:
        """Take in what a task said."""
        given = self.running[heard.task]
        for line in heard.lines:
            event = events.loads(line)
            if isinstance(event, events.WorkerFailed):
                # A machine that lacks something ends nothing where others have what it takes.
                if not (event.again or self.now.served):
                    raise OfframpError(event.text)
                yield from self._again(given, f"{self._words(given)}: {event.text}")
                continue
            self._note(event)
            if isinstance(event, events.Waiting):
                event = self._await(event.keys)
            yield event
        if heard.ended:
            del self.running[heard.task]
            self.now.fresh = True
            yield events.GroupEnded(tuple(node.key for node in given.nodes))
            if heard.lost is not None:
                yield from self._again(given, f"{self._words(given)}: {heard.lost}")

    def _note(self, event: events.Event) -> None:
        match event:
            case events.Epoch(report):
                self.now.served = True
                if report.epoch > self.reached.get(report.key, -1):
                    self.reached[report.key] = report.epoch
                    self.tries.pop(report.key, None)
            case events.Finished(key) | events.Reused(key):
                self.ledger.done.add(key)
                self.now.fresh = self.now.served = True
            case events.Failed(key, reason):
                self.ledger.failed[key] = reason
                self.now.fresh = True
            case events.TrialDone(trial):
                self.open_trials.pop(trial, None)

    def _again(self, given: Given, text: str) -> Iterator[events.Event]:
        """A task that was lost is started again after a pause; one that was too often is given up."""
        count = 1 + max(self.tries.get(name, 0) for name in given.names)
        self.tries.update(dict.fromkeys(given.names, count))
        left = [n for n in given.nodes if n.key not in self.ledger.done | self.ledger.failed.keys()]
        if count > RETRIES:
            if given.trials:
                raise OfframpError(f"{text} ({count} times); run the same command again")
            for node in left:
                self.ledger.failed[node.key] = f"{text} ({count} times)"
                yield events.Failed(node.key, self.ledger.failed[node.key])
            return
        pause = 0.0 if count == 1 else PAUSE_S * 2 ** (count - 2)
        for name in (*(node.key for node in left), *given.trials):
            self.rests[name] = time.monotonic() + pause
        after = f"in {pause:.0f} s" if pause else "at once"
        yield events.Note(f"{text}; it is given to a machine again {after} ({count} of {RETRIES}).")

    def _words(self, given: Given) -> str:
        if not given.nodes:
            seeds = {trial.seed for trial in self.plan.trials if trial.id in given.trials}
            return f"{counted(len(given.trials), 'trial')} of seed {', '.join(map(str, sorted(seeds)))}"
        names = ", ".join(f"'{node.name}'" for node in given.nodes)
        return f"phase {names} of seed {given.nodes[0].seed}"

    def _end(self) -> None:
        """Have tasks save what they are at and end; those that do not are killed."""
        for each in self.running:
            self.cluster.cancel(each)
        deadline = time.monotonic() + SAVING_S
        while self.running and time.monotonic() < deadline:
            for heard in self.cluster.hear(list(self.running), LOOK_S):
                if heard.ended:
                    del self.running[heard.task]
        for each in self.running:
            self.cluster.cancel(each, force=True)


def run_on_cluster(
    plan: Plan, store: Store, cluster: Cluster, checkpoint_seconds: float = 20.0
) -> Generator[events.Event, None, None]:
    """As `offramp.study.run.run`, by the machines of a cluster; events come in the order in which they
    are heard of. What is at work is saved when whoever reads closes this.

    Raises OfframpError as `run` does, and where a machine makes another plan of the same study.
    """
    if plan.numerics.ranks > 1:
        raise OfframpError(
            "execution.devices trains a phase on several devices of one machine, which no task of a "
            "cluster does; leave it out here, or run with torchrun"
        )
    order, needs = order_of(plan, store, checkpoint_seconds), needs_of(plan)
    with TemporaryDirectory() as folder:
        ledger = Ledger(plan, store, Failures(Path(folder)))
        open_trials = {trial.id: trial for trial in plan.trials}
        with closing(Driver(ledger, cluster, needs, order, open_trials).work()) as happened:  # type: ignore[type-var]
            yield from happened


def order_of(plan: Plan, store: Store, checkpoint_seconds: float) -> task.TaskOrder:
    """What all orders of a plan have in common."""
    return task.TaskOrder(
        study=record.dumps(plan.study),
        numerics=asdict(plan.numerics),
        store=str(root.absolute() if isinstance(root := store.root, Path) else root),
        device=plan.numerics.device,
        checkpoint_seconds=checkpoint_seconds,
        keys=(),
        trials=(),
        folder=str(Path.cwd()),
        code=task.code_of(plan.study),
        read=task.read_by(plan),
    )


def needs_of(plan: Plan) -> Needs:
    """What a task of this plan takes of a machine: threads of its profile, memory by forecast."""
    gpus = 0.0 if plan.numerics.device == "cpu" else plan.study.execution.gpus_per_trial
    return Needs(plan.numerics.threads, need(plan).trial, gpus)
