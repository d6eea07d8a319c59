"""A group of nodes that train in one pass, from the store to the first step: each rank makes its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from offramp.engine.cache import Cache
from offramp.engine.images import Images
from offramp.engine.passes import Derived, Pass, Plain
from offramp.engine.placement import Speeds
from offramp.engine.resolve import Node
from offramp.engine.trainee import Trainee, enroll, trained_state, unpack
from offramp.engine.weights import Weights
from offramp.errors import OfframpError
from offramp.store.store import Store
from offramp.study.plan.plan import Plan


def weights_of(plan: Plan, store: Store, seed: int, device: torch.device) -> Weights:
    """Those that the store's nodes left, and drawn ones."""
    return Weights(plan.net, seed, store.node_weights, device, plan.numerics.memory_format)


def enlist(
    plan: Plan, store: Store, weights: Weights, nodes: Sequence[Node], images: Images
) -> list[Trainee]:
    """Trainees where their checkpoints left them; a group goes on together from the same step, and
    members that stand elsewhere are left for a later group.

    Raises OfframpError where ranks do not find the same in the store.
    """
    trainees = []
    for node in nodes:
        trainee = enroll(node, weights, plan.numerics.fused_optimizer)
        saved = store.read_checkpoint(node.key)
        if saved is not None:
            unpack(trainee, *saved)
        trainees.append(trainee)
    at = trainees[0].epoch, trainees[0].steps
    if images.ranks.count > 1 and not images.ranks.alike("\n".join(map(_stand, trainees))):
        raise OfframpError(
            f"the ranks of phase '{nodes[0].name}' do not start from the same weights; give all of them "
            "the same store"
        )
    return [t for t in trainees if (t.epoch, t.steps) == at]


def _stand(trainee: Trainee) -> str:
    """Where a trainee is and what it holds, in short."""
    return f"{trainee.node.key} {trainee.epoch} {trainee.steps} {_sums(trained_state(trainee))}"


def _sums(state: Mapping[str, Tensor]) -> list[float]:
    return [float(tensor.double().sum()) for tensor in state.values()]


def passing(
    plan: Plan,
    weights: Weights,
    nodes: Sequence[Node],
    images: Images,
    cache: Cache | None,
    speeds: Speeds | None,
) -> Pass:
    """How the study has them see the data. With several ranks, whose parts of a batch differ in size,
    frozen parts run on as few rows at once as they may."""
    ranks, least = plan.numerics.ranks, plan.numerics.frozen_batch
    batch = least if ranks > 1 else max(nodes[0].recipe.batch_size, least)
    if plan.study.execution.mode == "plain":
        return Plain(images, nodes, weights, batch)
    return Derived(images, nodes, weights, batch, cache, speeds)
