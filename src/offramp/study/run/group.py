"""A group of nodes that train in one pass, from the store to the first step; and what ranks do with it.

Each rank makes its own. Those but the first follow: they take the steps that rank 0 says, and leave to
it all that goes to the store.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import torch

from offramp.engine.cache import Cache
from offramp.engine.fit import Diverged, conclude, fit
from offramp.engine.images import Images
from offramp.engine.passes import Derived, Pass, Plain
from offramp.engine.resolve import Node
from offramp.engine.trainee import Trainee, enroll, trained_state, unpack
from offramp.engine.values import reads_of
from offramp.engine.weights import Weights
from offramp.errors import OfframpError, in_line
from offramp.process import leave_signals_to_parent
from offramp.recipe import finished
from offramp.store.store import Store
from offramp.study.plan.plan import Plan
from offramp.study.run import events, trials
from offramp.study.run.ledger import Ledger, reason_of

log = logging.getLogger(__name__)


def weights_of(plan: Plan, store: Store, seed: int, device: torch.device) -> Weights:
    """Those that the store's nodes left, and drawn ones."""
    return Weights(plan.net, seed, store.node_weights, device, plan.numerics.memory_format)


def enlist(
    plan: Plan, store: Store, weights: Weights, nodes: Sequence[Node], images: Images
) -> list[Trainee]:
    """Trainees where their checkpoints left them.

    A group goes on together from one step; members that stand elsewhere are left for a later group.

    Raises:
        OfframpError: Where ranks do not read the same in the store.
    """
    trainees = []
    for node in nodes:
        trainee = enroll(node, weights, plan.numerics.fused_optimizer)
        saved = store.read_checkpoint(node.key)
        if saved is not None:
            try:
                unpack(trainee, *saved)
            except Exception as error:  # under a right seal, what anybody may have written
                log.warning(
                    "the checkpoint of phase '%s' (%s) is none of it (%s); the phase starts over",
                    *(node.name, node.key, in_line(error)),
                )
                trainee = enroll(node, weights, plan.numerics.fused_optimizer)
        trainees.append(trainee)
    at = trainees[0].epoch, trainees[0].steps
    if images.ranks.count > 1 and not images.ranks.agree("\n".join(map(_stand, trainees))):
        raise OfframpError(
            f"the ranks of phase '{nodes[0].name}' do not start from the same weights; give all of them "
            "the same store"
        )
    return [t for t in trainees if (t.epoch, t.steps) == at]


def _stand(trainee: Trainee) -> str:
    """Where a trainee is and what it holds, in short."""
    sums = [float(tensor.double().sum()) for tensor in trained_state(trainee).values()]
    return f"{trainee.node.key} {trainee.epoch} {trainee.steps} {sums}"


def passing(
    plan: Plan,
    weights: Weights,
    nodes: Sequence[Node],
    images: Images,
    cache: Cache | None,
) -> Pass:
    """How the study has a group see the data."""
    ranks, least = plan.numerics.ranks, plan.numerics.frozen_batch
    # Ranks' parts of a batch differ in size: their frozen parts run on as few rows at once as they may.
    batch = least if ranks > 1 else max(nodes[0].recipe.batch_size, least)
    if plan.study.execution.mode == "plain":
        return Plain(images, nodes, weights, batch)
    return Derived(images, nodes, weights, batch, cache)


def follow(ledger: Ledger, images: Images, cache: Cache | None) -> Iterator[events.Event]:
    """Do what rank 0 says, until its last word. It reports all that happens, but what fails here."""
    leave_signals_to_parent()  # rank 0 ends first, and saves; this one with it
    for order, *about in images.ranks.orders():
        if order == "train":
            nodes = [ledger.plan.nodes[key] for key in about]
            yield from _train(ledger, images, cache, nodes)
            if cache is not None:
                cache.keep({v for node in ledger.open() for v in reads_of(node)})
        else:
            trials.answer(ledger.plan, ledger.store, images, *about)


def _train(
    ledger: Ledger, images: Images, cache: Cache | None, nodes: Sequence[Node]
) -> Iterator[events.Event]:
    plan, store, failed = ledger.plan, ledger.store, ledger.failed
    try:
        weights = weights_of(plan, store, nodes[0].seed, images.device)
        trainees = enlist(plan, store, weights, nodes, images)
        nodes = [t.node for t in trainees]
        passes, size = passing(plan, weights, nodes, images, cache), nodes[0].recipe.batch_size
        by_key = {t.node.key: t for t in trainees}
        for trainee in trainees:
            if finished(trainee.validation_losses, trainee.node.recipe):
                conclude(trainee, passes, images, size)
        for reports in fit(trainees, passes, images, size):
            for trainee in [by_key[r.key] for r in reports if not isinstance(r, Diverged)]:
                if finished(trainee.validation_losses, trainee.node.recipe):
                    conclude(trainee, passes, images, size)
    except (OfframpError, RuntimeError) as error:
        for key in [node.key for node in nodes if node.key not in failed]:
            failed[key] = reason_of(error)
            yield events.Failed(key, failed[key])
        images.ranks.disband()
    ledger.done.update(node.key for node in nodes)
