"""Run a plan against a store: train what is missing, one group of nodes after another.

Any number of processes may do this on one store at the same time, each from the same plan: the lock of
a key decides who trains it, and a finished node is read by all.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import pandas as pd
import torch
from pydantic import PlainSerializer, PlainValidator, TypeAdapter

from offramp.engine.cache import Cache
from offramp.engine.fit import Diverged, conclude, fit
from offramp.engine.images import Images
from offramp.engine.passes import Pass
from offramp.engine.ranks import ONLY, RankInfo, joined
from offramp.engine.resolve import Node
from offramp.engine.settings import applied
from offramp.engine.trainee import Trainee, pack
from offramp.engine.values import reads_of
from offramp.engine.waiting import waits_by_load
from offramp.errors import DataChanged, OfframpError, Unwritable
from offramp.hashing import plain
from offramp.meters.capacity import usable_cores
from offramp.meters.meter import Meter, not_measured
from offramp.process import prepared as prepared_process
from offramp.process import terminable, uninterrupted
from offramp.recipe import finished
from offramp.store.archive import HISTORY
from offramp.store.manifest import NodeLabels, NodeRecord, NodeSummary
from offramp.store.provenance import provenance
from offramp.store.store import Lease, Store
from offramp.study.plan import caching
from offramp.study.plan.caching import CacheLimits
from offramp.study.plan.plan import Plan, Trial, can_fuse
from offramp.study.plan.schedule import Schedule
from offramp.study.run import costs, events, trials
from offramp.study.run.group import enlist, follow, passing, weights_of
from offramp.study.run.ledger import Failures, Ledger, reason_of

POLL_SECONDS = 0.2
CHEAP_SECONDS = 0.2  # of writing a checkpoint: 1 % of the usual 20 seconds between two
MOST_READERS = 8
TRAINED_ON = ("train", "validation")


@dataclass(frozen=True)
class RunConfig:
    """How a process runs a plan."""

    # where it trains
    device: Annotated[torch.device, PlainValidator(torch.device), PlainSerializer(str)]
    cache_folder: Path  # where caches too big for memory go, on this machine's own disk
    # at most so much finished training is lost when the process is killed, besides the epoch at hand;
    # more where a checkpoint takes longer to write than CHEAP_SECONDS (`pause_after`). 0 saves after
    # every epoch. On Ctrl-C and SIGTERM it saves first, within an epoch too
    checkpoint_seconds: float = 20.0
    workers: int = 1  # how many processes share the machine and the limits of caches, ranks included
    sharing: int = 1  # how many of them share the device, of an accelerator
    # bytes that this process may take in all, where the study sets no limit; None for a share of what is
    # free
    memory: int | None = None
    # which one it is of the ranks that train together, `numerics.ranks` of the plan in all
    seat: RankInfo = ONLY

    def as_json(self) -> dict[str, Any]:
        """In the types of JSON, for another process."""
        fields: dict[str, Any] = TypeAdapter(RunConfig).dump_python(self, mode="json")
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> RunConfig:
        """What `as_json` made."""
        return TypeAdapter(cls).validate_python(fields)


class Lost(Exception):
    """Locks that other processes took since this one was not heard of for too long."""


@dataclass(frozen=True)
class Run:
    """One process at work on a plan."""

    ledger: Ledger  # what is finished and what failed
    config: RunConfig  # how it works
    images: Images  # of the plan's data
    allowed: CacheLimits  # the limits of `cache`
    cache: Cache | None  # of frozen values; None where the study wants none
    meter: Meter  # what it measures costs with
    answers: trials.LogitsByName = field(default_factory=dict)  # logits that trials have in common

    @property
    def plan(self) -> Plan:
        return self.ledger.plan

    @cached_property
    def _schedule(self) -> Schedule:
        return Schedule(self.plan)

    @property
    def store(self) -> Store:
        return self.ledger.store

    @property
    def done(self) -> set[str]:
        return self.ledger.done

    @property
    def failed(self) -> Failures:
        return self.ledger.failed

    def work(self, with_trials: bool = True) -> Iterator[events.Event]:
        """All that happens until nothing is left to do. with_trials: write them too, not nodes alone."""
        open_trials = list(self.plan.trials) if with_trials else []
        rested = False
        yield from self.ledger.begin(with_trials)
        while True:
            yield from self.ledger.refresh()
            yield from self._close_trials(open_trials)
            if not (open_trials if with_trials else self.ledger.open()):
                return
            left = self.ledger.open()
            if self.config.workers > 1:
                left = self._schedule.by_urgency(left)
            if locks := self._claim(left):
                yield from self._train(locks, rested)
                rested = True
                if self.cache is not None:
                    self.cache.keep({v for node in self.ledger.open() for v in reads_of(node)})
            elif waiting := self.ledger.open():
                yield self.ledger.waiting(waiting)
                time.sleep(POLL_SECONDS)

    def part(self, keys: Collection[str], of: Collection[str]) -> Iterator[events.Event]:
        """Train the nodes `keys`, whose parents are in the store, and write the trials `of`, whose nodes
        are. What other processes are at is left to them, and said."""
        nodes = [self.plan.nodes[key] for key in keys]
        to_write = [trial for trial in self.plan.trials if trial.id in of]
        self.done.update(key for node in nodes for key in node.needs)
        self.done.update(key for trial in to_write for key in trial.keys)
        if nodes:
            yield from self._rest()
        while locks := self._claim([n for n in nodes if n.key not in self.done | self.failed.keys()]):
            yield from self._train(locks)
        left = [n for n in nodes if n.key not in self.done | self.failed.keys()]
        for node in left:
            if self.store.has_node(node.key):
                yield from self.ledger.check(node.key)
        if waiting := [node for node in left if node.key not in self.done]:
            yield self.ledger.waiting(waiting)
        yield from self._close_trials(to_write)

    def _rest(self) -> Iterator[events.Event]:
        """Once before training: what the machine draws meanwhile is known then."""
        if self.plan.study.execution.mode == "plain":  # where costs are results
            yield from map(events.Note, not_measured(self.meter))
        self.meter.rest()

    def _claim(self, nodes: Sequence[Node]) -> dict[str, Lease]:
        """The lock of the first of `nodes` that is ready and free, and of all that can share its pass
        over the data, by key. Interrupted, none is held."""
        locks: dict[str, Lease] = {}
        with ExitStack() as undone:
            for node in nodes:
                if not self.done.issuperset(node.needs):
                    continue
                if not all(can_fuse(self.plan.nodes[key], node) for key in locks):
                    continue
                lock = self.store.try_lock(node.key)
                if lock is None:
                    continue
                undone.enter_context(lock)
                # Finished, or given up, by another process a moment ago.
                if node.key in self.failed or self.store.has_node(node.key):
                    lock.release()
                    continue
                locks[node.key] = lock
                if not self.plan.study.execution.fuse:
                    break
            undone.pop_all()
        return locks

    def _train(self, locks: dict[str, Lease], rested: bool = True) -> Iterator[events.Event]:
        """Train a group: resume what has a checkpoint, keep each node as soon as it is finished.
        rested: whether `_rest` is behind this process."""
        ranks = self.images.ranks
        try:
            if not rested:
                yield from self._rest()
            began = time.perf_counter()
            if self.cache is not None:
                device, workers = self.config.device, self.config.workers
                caching.adapt(self.cache, self.plan, self.allowed, device, workers)
            self.meter.lap()
            nodes = [self.plan.nodes[key] for key in locks]
            ranks.send(["train", *locks])
            weights = weights_of(self.plan, self.store, nodes[0].seed, self.config.device)
            trainees = enlist(self.plan, self.store, weights, nodes, self.images)
            nodes = [t.node for t in trainees]
            for key in locks.keys() - {node.key for node in nodes}:
                locks.pop(key).release()
            yield events.GroupStarted(tuple(n.key for n in nodes), trainees[0].epoch)
            passes = passing(self.plan, weights, nodes, self.images, self.cache)
            if self.cache is not None:
                yield from map(events.Note, caching.remarks(self.cache, passes.cached, self.allowed))
            for trainee in trainees:
                trainee.spend("preparation", (time.perf_counter() - began) / len(trainees))
            costs.charge(trainees, self.meter)
            yield from self._epochs(trainees, passes, locks)
        except Unwritable:
            raise
        except Lost as error:
            yield events.Note(str(error))
            ranks.disband()
        except DataChanged:
            for key in locks:  # what was trained since may have seen other images
                self.store.drop_checkpoint(key)
            raise
        except (OfframpError, RuntimeError) as error:  # torch's own: no memory, no deterministic kernel
            for key in [key for key in locks if key not in self.failed]:  # some may have diverged before
                yield self._fail(key, reason_of(error))
            ranks.disband()
        finally:
            for lock in locks.values():
                lock.release()

    def _epochs(
        self, trainees: list[Trainee], passes: Pass, locks: dict[str, Lease]
    ) -> Iterator[events.Event]:
        """Train to the end; interrupted, save where each stands."""
        try:
            yield from self._undisturbed(trainees, passes, locks)
        except (KeyboardInterrupt, GeneratorExit, Lost):
            with suppress(Lost):
                self._renew(locks)
            self._checkpoint([t for t in trainees if t.node.key in locks], passes)
            raise

    def _undisturbed(
        self, trainees: list[Trainee], passes: Pass, locks: dict[str, Lease]
    ) -> Iterator[events.Event]:
        batch_size = trainees[0].node.recipe.batch_size
        by_key = {t.node.key: t for t in trainees}
        saved, pause = time.monotonic(), self.config.checkpoint_seconds

        def settle(trainee: Trainee) -> events.Event:
            key = trainee.node.key
            chosen = conclude(trainee, passes, self.images, batch_size)
            with uninterrupted():
                trials.check_unchanged(self.plan.data, TRAINED_ON, key)
                # Its own alone: where another one is lost, all that are left are checkpointed, and this
                # one is concluded by now.
                self._renew({key: locks[key]})
                self._keep(trainee, chosen, passes, len(trainees))
                self.done.add(key)
                locks.pop(key).release()
            return events.Finished(key, sum(trainee.seconds.values()))

        for trainee in trainees:  # killed after its last epoch, before it was kept
            if finished(trainee.validation_losses, trainee.node.recipe):
                yield settle(trainee)
        self.meter.lap()
        for reports in fit(trainees, passes, self.images, batch_size):
            costs.charge([by_key[report.key] for report in reports], self.meter)
            for report in reports:
                if isinstance(report, Diverged):
                    failed = self._fail(report.key, str(report))
                    locks.pop(report.key).release()
                    yield failed
                    continue
                yield events.Epoch(report)
                trainee = by_key[report.key]
                if finished(trainee.validation_losses, trainee.node.recipe):
                    yield settle(trainee)
            if time.monotonic() - saved >= pause:
                self._renew(locks)
                took = self._checkpoint([t for t in trainees if t.node.key in locks], passes)
                saved = time.monotonic()
                pause = pause_after(took, self.config.checkpoint_seconds)
            self.meter.lap()  # keeping and checkpointing are no part of training

    def _fail(self, key: str, reason: str) -> events.Failed:
        self.failed[key] = reason
        self.store.note_failure(key, reason)
        return events.Failed(key, reason)

    def _renew(self, locks: dict[str, Lease]) -> None:
        """Raises Lost where others took some of these locks, which are then no longer among them."""
        lost = [key for key, lock in locks.items() if not self.store.renew(lock)]
        for key in lost:
            locks.pop(key).release()
        if lost:
            names = ", ".join(f"'{self.plan.nodes[key].name}'" for key in lost)
            raise Lost(
                f"phase {names} went to {self.store.holder(lost[0]) or 'another process'}, since this "
                "process had been silent for a minute; what it did since its last checkpoint is void"
            )

    def _checkpoint(self, alive: list[Trainee], passes: Pass) -> float:
        """Save what is still at work; the answer is how many seconds that took."""
        began = time.perf_counter()
        if alive:
            trials.check_unchanged(self.plan.data, TRAINED_ON, alive[0].node.key)
        with uninterrupted():
            for trainee in alive:
                trainee.frozen_macs += self._frozen(passes, trainee.node.key)
                self.store.write_checkpoint(trainee.node.key, *pack(trainee))
        took = time.perf_counter() - began
        for trainee in alive:
            trainee.spend("checkpoint", took / len(alive))
        return took

    def _frozen(self, passes: Pass, key: str) -> float:
        """MACs of frozen layers since this was last asked; other ranks are taken to have run as many."""
        return passes.take(key) * self.images.ranks.count

    def _keep(
        self, trainee: Trainee, chosen: dict[str, torch.Tensor], passes: Pass, fused_with: int
    ) -> None:
        node, workers = trainee.node, self.config.workers
        frozen = self._frozen(passes, node.key)
        cost = costs.record(self.plan, trainee, frozen, passes.cached, fused_with, workers, self.meter)
        record = NodeRecord(
            key=node.key,
            reads=plain(node.reads),
            labels=NodeLabels(
                phase=node.name,
                seed=node.seed,
                trains=tuple(str(part) for part in sorted(node.trained)),
                strategies=tuple(self.plan.users[node.key]),
            ),
            provenance=provenance(self.config.device, trainee.began),
            summary=NodeSummary(
                epochs=trainee.epoch,
                best_epoch=trainee.best_epoch,
                selected_epoch=trainee.selected_epoch,
                validation_loss=trainee.validation_losses[trainee.selected_epoch - 1],
            ),
        )
        rows = [(r.epoch, r.split, r.exit, r.metric, r.value) for r in trainee.rows]
        history = pd.DataFrame(rows, columns=list(HISTORY.columns))
        self.store.write_node(record, chosen, history, cost)
        self.store.drop_checkpoint(node.key)

    def _close_trials(self, open_trials: list[Trial]) -> Iterator[events.Event]:
        """Write the trials whose nodes are all there; drop those that cannot be had."""
        for trial in list(open_trials):
            if any(key in self.failed for key in trial.keys):
                open_trials.remove(trial)
                continue
            if not self.done.issuperset(trial.keys):
                continue
            written, damage = self.ledger.written(trial)
            if not written or self.store.is_planned(trial.id):  # where all is done nothing is written
                with self.store.lock(trial.id):
                    written, damage = self.ledger.written(trial)
                    if not written:
                        trials.write(self.plan, self.store, trial, self.images, self.answers)
                    self.store.drop_plan(trial.id)  # which another process may have written a moment ago
            if damage is not None:
                yield events.Note(
                    f"{damage.path} {damage.reason}; that trial's logits are computed again"
                )
            open_trials.remove(trial)
            yield events.TrialDone(trial.id, written)
        needed = {name for trial in open_trials for name in trials.answered(trial)}
        for name in self.answers.keys() - needed:
            del self.answers[name]


def run(
    plan: Plan,
    store: Store,
    config: RunConfig,
    failed: Failures | None = None,
    with_trials: bool = True,
) -> Generator[events.Event, None, None]:
    """Train every missing node and write every trial, in this process.

    A node that fails takes what needs it with it, and the rest goes on. Whoever stops reading closes it:
    locks, caches and torch's settings are put back then. Processes that run the same plan share
    `failed`, so that none repeats what failed in another. with_trials: write trials too, not nodes
    alone.

    Raises:
        OfframpError: When nothing can go on (a full disk, image files that changed meanwhile).
    """
    with _prepared(plan, store, config, failed) as prepared:
        if not config.seat.leads:
            yield from follow(prepared.ledger, prepared.images, prepared.cache)
            return
        yield from prepared.work(with_trials)
        prepared.images.ranks.send(None)


def run_part(
    plan: Plan, store: Store, config: RunConfig, keys: Collection[str], of: Collection[str]
) -> Generator[events.Event, None, None]:
    """As `run`, of these nodes and trials alone: see `Run.part`."""
    with _prepared(plan, store, config, None) as prepared:
        yield from prepared.part(keys, of)


@contextmanager
def _prepared(plan: Plan, store: Store, config: RunConfig, failed: Failures | None) -> Iterator[Run]:
    folder, layout = config.cache_folder, plan.numerics.memory_format
    if plan.numerics.ranks != config.seat.count:
        raise OfframpError(
            f"execution.devices is {plan.numerics.ranks}, and this process is one of "
            f"{config.seat.count}; leave execution.devices out here"
        )
    allowed = caching.limits(
        plan, config.device, folder, config.workers, config.memory, sharing=config.sharing
    )
    cache = Cache(allowed.memory, allowed.disk, folder) if plan.study.execution.cache else None
    try:
        with (
            TemporaryDirectory() if failed is None else nullcontext(failed.folder) as shared,
            terminable(),
            joined(config.seat, config.device) as ranks,
            closing(Images(plan.data, config.device, _readers(plan, config), layout, ranks)) as images,
            applied(plan.numerics),
            prepared_process(),
            waits_by_load(plan.numerics.threads if config.device.type == "cpu" else 1),
            costs.meter(config.device) as meter,
        ):
            ledger = Ledger(plan, store, Failures(Path(shared)))
            yield Run(ledger, config, images, allowed, cache, meter)
    finally:
        if cache is not None:
            cache.close()


def _readers(plan: Plan, config: RunConfig) -> int:
    """How many processes read images from files: as the study says, else this process's share of the
    cores."""
    readers = plan.study.execution.loader_workers
    return max(1, min(MOST_READERS, usable_cores() // config.workers)) if readers is None else readers


def pause_after(took: float, usual: float) -> float:
    """Seconds until the next checkpoint, after one that took so long to write: large networks save less
    often, so that writing takes at most 1 % of the time at the usual 20 seconds."""
    return usual * max(1.0, took / CHEAP_SECONDS)
