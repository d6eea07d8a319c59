"""Run a plan against a store: train what is missing, one group of nodes after another.

Any number of processes may do this on one store at the same time, each from the same plan: the lock of
a key decides who trains it, and a finished node is read by all.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from offramp.engine.cache import Cache
from offramp.engine.fit import Diverged, conclude, fit
from offramp.engine.images import Images
from offramp.engine.looks import reads_of
from offramp.engine.passes import Derived, Pass, Plain
from offramp.engine.placement import Speeds
from offramp.engine.resolve import Node
from offramp.engine.settings import applied
from offramp.engine.trainee import Trainee, enroll, pack, unpack
from offramp.engine.weights import Weights
from offramp.errors import Changed, OfframpError, Unwritable
from offramp.hashing import plain
from offramp.meters import Meter, usable_cores
from offramp.recipe import finished
from offramp.store.manifest import NodeLabels, NodeRecord, NodeSummary
from offramp.store.provenance import provenance
from offramp.store.store import Damaged, Held, Store
from offramp.study.plan import caching
from offramp.study.plan.limits import Limits
from offramp.study.plan.plan import Plan, Trial, can_fuse
from offramp.study.run import costs, trials
from offramp.study.run.events import (
    Began,
    Epoch,
    Event,
    Failed,
    Finished,
    Note,
    Reused,
    TrialDone,
    Waiting,
)

POLL_SECONDS = 0.2
CHEAP_SECONDS = 0.2  # of writing a checkpoint: 1 % of the usual 20 seconds between two
MOST_READERS = 8
TRAINED_ON = ("train", "validation")


@dataclass(frozen=True)
class Conduct:
    """How a process runs a plan. checkpoint_seconds: at most so much finished training is lost when the
    process is killed (besides the epoch at hand), or as many times more as writing takes longer than
    CHEAP_SECONDS; 0 saves after every epoch.  workers: how many processes share the machine, and the
    limits of caches.  cache_folder: where caches too big for memory go, on this machine's own disk.
    memory: bytes that this process may take in all, where the study sets no limit; None for a share of
    what is free.  speeds: see `offramp.engine.passes.Derived`.
    """

    device: torch.device
    cache_folder: Path
    checkpoint_seconds: float = 20.0
    workers: int = 1
    memory: int | None = None
    speeds: Speeds | None = None


@dataclass
class _State:
    """What this process knows of the nodes so far."""

    done: set[str]
    failed: MutableMapping[str, str]

    def blocked(self, node: Node) -> str | None:
        """The failed node that this one needs."""
        return next((key for key in node.needs if key in self.failed), None)

    def open(self, plan: Plan) -> list[Node]:
        """The nodes that are neither done nor failed."""
        # Another process's dictionary answers for its keys; it cannot be iterated here.
        settled = self.done | set(self.failed.keys())
        return [node for node in plan.nodes.values() if node.key not in settled]

    def ready(self, plan: Plan) -> list[Node]:
        return [node for node in self.open(plan) if self.done.issuperset(node.needs)]


@dataclass
class _Claim:
    node: Node
    lock: Held


def run(
    plan: Plan,
    store: Store,
    conduct: Conduct,
    failed: MutableMapping[str, str] | None = None,
) -> Generator[Event, None, None]:
    """Train every missing node and write every trial; yields what happens. Whoever stops reading
    closes it: locks, caches and torch's settings are put back then.

    A node that fails takes what needs it with it, and the rest goes on. failed: reasons by key, shared
    by processes that run the same plan, so that none repeats what failed in another. Raises
    OfframpError when nothing can go on (a full disk, image files that changed meanwhile).
    """
    state = _State(done=set(), failed={} if failed is None else failed)
    execution = plan.study.execution
    layout = plan.numerics.memory_format
    images = Images(plan.data, conduct.device, _readers(plan, conduct), layout)
    allowed = caching.limits(plan, conduct.device, conduct.cache_folder, conduct.workers, conduct.memory)
    cache = Cache(allowed.memory, allowed.disk, conduct.cache_folder) if execution.cache else None
    open_trials = list(plan.trials)
    answers: trials.Answers = {}
    told = False
    for trial in plan.trials:
        if not store.has_trial(trial.id):
            store.plan_trial(trial.id, trial.keys)
    try:
        with applied(plan.numerics), costs.meter(conduct.device) as meter:
            yield from _reuse(plan, store, state)
            while True:
                yield from _refresh(plan, store, state)
                yield from _close_trials(plan, store, state, open_trials, images, answers)
                if not open_trials:
                    return
                claims = _claim(plan, store, state)
                if claims:
                    if not told:
                        if execution.mode == "plain":  # where costs are results
                            yield from map(Note, costs.not_measured(meter))
                        meter.rest()
                        told = True
                    if cache is not None:
                        caching.adapt(cache, plan, allowed, conduct.device, conduct.workers)
                    yield from _train(plan, store, conduct, state, images, cache, allowed, claims, meter)
                    if cache is not None:
                        cache.keep({v for node in state.open(plan) for v in reads_of(node)})
                elif not state.open(plan):
                    continue
                else:
                    yield Waiting(tuple(node.key for node in state.open(plan)))
                    time.sleep(POLL_SECONDS)
    finally:
        images.close()
        if cache is not None:
            cache.close()


def _readers(plan: Plan, conduct: Conduct) -> int:
    """How many processes read images from files: as the study says, else this process's share of the
    cores."""
    given = plan.study.execution.loader_workers
    if given is not None:
        return given
    return max(1, min(MOST_READERS, usable_cores() // conduct.workers))


def _reuse(plan: Plan, store: Store, state: _State) -> Iterator[Event]:
    """What the store holds already, every byte checked; a damaged node is named and made anew."""
    for key in plan.nodes:
        if (store.root / "nodes" / key).exists():
            yield from _check(store, state, key)


def _check(store: Store, state: _State, key: str) -> Iterator[Event]:
    if _damage(store, key) is not None:
        held = store.try_lock(key)
        if held is None:  # another process makes it anew
            return
        with held:
            damage = _damage(store, key)  # or has done so, before the lock was free
            if damage is not None:
                store.discard_node(key)
        if damage is not None:
            yield Note(f"{damage.path} {damage.reason}; that node is computed again")
            return
    store.drop_checkpoint(key)  # of a process that was killed right after it had kept the node
    state.done.add(key)
    yield Reused(key)


def _damage(store: Store, key: str) -> Damaged | None:
    try:
        store.verify_node(key)
    except Damaged as error:
        return error
    return None


def _refresh(plan: Plan, store: Store, state: _State) -> Iterator[Event]:
    """What other processes have finished, and what can no longer be had."""
    for node in state.open(plan):
        if store.has_node(node.key):
            yield from _check(store, state, node.key)
        elif (cause := state.blocked(node)) is not None:
            state.failed[node.key] = state.failed[cause]
            yield Failed(node.key, f"needs phase '{plan.nodes[cause].name}', which failed")


def _claim(plan: Plan, store: Store, state: _State) -> list[_Claim]:
    """The next node that is ready and free, with all that can share its pass over the data."""
    claims: list[_Claim] = []
    for node in state.ready(plan):
        if claims and not all(can_fuse(claim.node, node) for claim in claims):
            continue
        lock = store.try_lock(node.key)
        if lock is None:
            continue
        if store.has_node(node.key):  # finished by another process a moment ago
            lock.release()
            continue
        claims.append(_Claim(node, lock))
        if not plan.study.execution.fuse:
            break
    return claims


def _train(
    plan: Plan,
    store: Store,
    conduct: Conduct,
    state: _State,
    images: Images,
    cache: Cache | None,
    allowed: Limits,
    claims: list[_Claim],
    meter: Meter,
) -> Iterator[Event]:
    """Train a group: resume what has a checkpoint, keep each node as soon as it is finished."""
    locks = {claim.node.key: claim.lock for claim in claims}
    try:
        began = time.perf_counter()
        meter.lap()
        nodes = [claim.node for claim in claims]
        layout = plan.numerics.memory_format
        weights = Weights(plan.net, nodes[0].seed, store.node_weights, conduct.device, layout)
        trainees = _enlist(plan, store, weights, nodes)
        nodes = [t.node for t in trainees]
        for key in locks.keys() - {node.key for node in nodes}:
            locks.pop(key).release()
        batch = max(nodes[0].recipe.batch_size, plan.numerics.frozen_batch)
        yield Began(tuple(n.key for n in nodes), trainees[0].epoch)
        passes: Pass
        if plan.study.execution.mode == "plain":
            passes = Plain(images, nodes, weights, batch)
        else:
            passes = Derived(images, nodes, weights, batch, cache, conduct.speeds)
            if cache is not None:
                yield from map(Note, caching.remarks(cache, passes.kept, allowed))
        for trainee in trainees:
            trainee.spend("preparation", (time.perf_counter() - began) / len(trainees))
        costs.charge(trainees, meter)
        yield from _epochs(plan, store, conduct, state, images, trainees, passes, locks, meter)
    except Unwritable:
        raise
    except Changed:
        for key in locks:  # what was trained since may have seen other images
            store.drop_checkpoint(key)
        raise
    except (OfframpError, RuntimeError) as error:  # torch's own: no memory, no deterministic kernel
        for key in [key for key in locks if key not in state.failed]:  # some may have diverged before
            state.failed[key] = " ".join(str(error).split())
            yield Failed(key, state.failed[key])
    finally:
        for lock in locks.values():
            lock.release()


def _enlist(plan: Plan, store: Store, weights: Weights, nodes: list[Node]) -> list[Trainee]:
    """Trainees where their checkpoints left them; a group goes on together from the same epoch, and
    members that stand elsewhere are left for a later group."""
    trainees = []
    for node in nodes:
        trainee = enroll(node, weights.network(node.start), plan.numerics.fused_optimizer)
        saved = store.read_checkpoint(node.key)
        if saved is not None:
            unpack(trainee, *saved)
        trainees.append(trainee)
    return [t for t in trainees if t.epoch == trainees[0].epoch]


def _epochs(
    plan: Plan,
    store: Store,
    conduct: Conduct,
    state: _State,
    images: Images,
    trainees: list[Trainee],
    passes: Pass,
    locks: dict[str, Held],
    meter: Meter,
) -> Iterator[Event]:
    batch_size = trainees[0].node.recipe.batch_size
    by_key = {t.node.key: t for t in trainees}
    saved, pause = time.monotonic(), conduct.checkpoint_seconds

    def settle(trainee: Trainee) -> Event:
        chosen = conclude(trainee, passes, images, batch_size)
        trials.check_unchanged(plan.data, TRAINED_ON, trainee.node.key)
        _keep(plan, store, conduct, trainee, chosen, len(trainees), passes, meter)
        state.done.add(trainee.node.key)
        locks.pop(trainee.node.key).release()
        return Finished(trainee.node.key, sum(trainee.seconds.values()))

    for trainee in trainees:  # killed after its last epoch, before it was kept
        if finished(trainee.validation_losses, trainee.node.recipe):
            yield settle(trainee)
    meter.lap()
    for reports in fit(trainees, passes, images, batch_size):
        costs.charge([by_key[report.key] for report in reports], meter)
        for report in reports:
            if isinstance(report, Diverged):
                state.failed[report.key] = str(report)
                yield Failed(report.key, str(report))
                continue
            yield Epoch(report)
            trainee = by_key[report.key]
            if finished(trainee.validation_losses, trainee.node.recipe):
                yield settle(trainee)
        if time.monotonic() - saved >= pause:
            began = time.perf_counter()
            at_work = {node.key for node in state.open(plan)}
            alive = [t for t in trainees if t.node.key in at_work]
            if alive:
                trials.check_unchanged(plan.data, TRAINED_ON, alive[0].node.key)
            for trainee in alive:
                trainee.frozen_macs += passes.take(trainee.node.key)
                store.write_checkpoint(trainee.node.key, *pack(trainee))
            took = time.perf_counter() - began
            for trainee in alive:
                trainee.spend("checkpoint", took / len(alive))
            saved, pause = time.monotonic(), pause_after(took, conduct.checkpoint_seconds)
        meter.lap()  # keeping and checkpointing are no part of training


def pause_after(took: float, usual: float) -> float:
    """Seconds until the next checkpoint, after one that took so long to write: large networks save less
    often, so that writing takes at most 1 % of the time at the usual 20 seconds."""
    return usual * max(1.0, took / CHEAP_SECONDS)


def _keep(
    plan: Plan,
    store: Store,
    conduct: Conduct,
    trainee: Trainee,
    chosen: dict[str, torch.Tensor],
    fused_with: int,
    passes: Pass,
    meter: Meter,
) -> None:
    node = trainee.node
    frozen = passes.take(node.key)
    cost = costs.record(plan, trainee, frozen, passes.kept, fused_with, conduct.workers, meter)
    record = NodeRecord(
        key=node.key,
        reads=plain(node.reads),
        labels=NodeLabels(
            phase=node.name,
            seed=node.seed,
            trains=tuple(str(part) for part in sorted(node.trained)),
            strategies=tuple(plan.users[node.key]),
        ),
        provenance=provenance(conduct.device),
        summary=NodeSummary(
            epochs=trainee.epoch,
            best_epoch=trainee.best_epoch,
            selected_epoch=trainee.selected_epoch,
            validation_loss=trainee.validation_losses[trainee.selected_epoch - 1],
        ),
    )
    rows = [(r.epoch, r.split, r.exit, r.metric, r.value) for r in trainee.rows]
    history = pd.DataFrame(rows, columns=["epoch", "split", "exit", "metric", "value"])
    store.write_node(record, chosen, history, cost)
    store.drop_checkpoint(node.key)


def _close_trials(
    plan: Plan,
    store: Store,
    state: _State,
    open_trials: list[Trial],
    images: Images,
    answers: trials.Answers,
) -> Iterator[Event]:
    """Write the trials whose nodes are all there; drop those that cannot be had."""
    for trial in list(open_trials):
        if any(key in state.failed for key in trial.keys):
            open_trials.remove(trial)
            continue
        if not state.done.issuperset(trial.keys):
            continue
        with store.lock(trial.id):
            there = (store.root / "trials" / trial.id).exists()
            damage = trials.damage(store, trial.id) if there else None
            if not there or damage is not None:
                trials.write(plan, store, trial, images, answers)
            store.drop_plan(trial.id)  # which another process may have written a moment ago
        if damage is not None:
            yield Note(f"{damage.path} {damage.reason}; that trial's logits are computed again")
        open_trials.remove(trial)
        yield TrialDone(trial.id, there and damage is None)
    wanted = {name for trial in open_trials for name in trials.answered(trial)}
    for name in answers.keys() - wanted:
        del answers[name]
