"""What ranks but the first do: as rank 0 says, the same steps, and nothing of what goes to the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from offramp.engine.cache import Cache
from offramp.engine.fit import Diverged, conclude, fit
from offramp.engine.frozen_reads import reads_of
from offramp.engine.images import Images
from offramp.engine.placement import Speeds
from offramp.engine.resolve import Node
from offramp.errors import OfframpError
from offramp.process import leave_signals_to_parent
from offramp.recipe import finished
from offramp.study.run import events, trials
from offramp.study.run.group import enlist, passing, weights_of
from offramp.study.run.ledger import Ledger, reason_of


def follow(
    ledger: Ledger, images: Images, cache: Cache | None, speeds: Speeds | None
) -> Iterator[events.Event]:
    """Until rank 0's last word. What happens is told by it, all but what fails here."""
    leave_signals_to_parent()  # rank 0 ends first, and saves; this one with it
    for order, *about in images.ranks.hear():
        if order == "train":
            nodes = [ledger.plan.nodes[key] for key in about]
            yield from _train(ledger, images, cache, speeds, nodes)
            if cache is not None:
                cache.keep({v for node in ledger.open() for v in reads_of(node)})
        else:
            trials.answer(ledger.plan, ledger.store, images, *about)


def _train(
    ledger: Ledger, images: Images, cache: Cache | None, speeds: Speeds | None, nodes: Sequence[Node]
) -> Iterator[events.Event]:
    """A group, from where its checkpoints left it."""
    plan, store, failed = ledger.plan, ledger.store, ledger.failed
    try:
        weights = weights_of(plan, store, nodes[0].seed, images.device)
        trainees = enlist(plan, store, weights, nodes, images)
        nodes = [t.node for t in trainees]
        passes, size = passing(plan, weights, nodes, images, cache, speeds), nodes[0].recipe.batch_size
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
