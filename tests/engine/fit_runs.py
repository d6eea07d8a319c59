"""Phases of the small network, trained by the engine alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from offramp.data import Data, from_dataset
from offramp.engine.cache import Cache
from offramp.engine.fit import Diverged, EpochReport, conclude, fit
from offramp.engine.passes import Derived, Images, Plain
from offramp.engine.resolve import Node, Setting, resolve
from offramp.engine.settings import applied
from offramp.engine.trainee import Row, Trainee, enroll, pack, unpack
from offramp.engine.weights import Weights
from offramp.nets.network import inside
from offramp.parts import heads, segments
from offramp.recipe import Recipe
from offramp.store.store import Store
from offramp.strategies import STRATEGIES
from offramp.study.plan.plan import data_identity
from support import CPU, NUMERICS, network, tiny_data

USUAL = Recipe(epochs=2, batch_size=16, learning_rate=0.01)


def setting(recipe: Recipe = USUAL, seed: int = 42) -> Setting:
    return Setting(data_identity(tiny_data()), recipe, NUMERICS, seed)


def program_nodes(strategy: str, recipe: Recipe = USUAL, **options: Any) -> tuple[Node, ...]:
    return resolve(STRATEGIES[strategy](4, **options), network("digits-cnn"), setting(recipe)).nodes


def as_drawn(_: str) -> dict[str, Tensor]:
    """Weights of the whole network, whichever phase would have left them."""
    drawn = network("digits-cnn")
    parts = [inside(drawn).state(p) for p in segments(1, drawn.exits) | heads(1, drawn.exits)]
    return {name: tensor for state in parts for name, tensor in state.items()}


def unlike(nodes: Sequence[Node]) -> list[Node]:
    """The last phase of each name, numbers aside, that trains parts of the same kinds: `exit 3` stands
    for `exit 1` and `exit 2`, `branch 4`, above what is frozen, for `branch 3`."""
    kinds = {(n.name.rstrip("0123456789"), frozenset(p.kind for p in n.trained)): n for n in nodes}
    return list(kinds.values())


def begin(
    node: Node,
    data: Data | None = None,
    weights_of: Mapping[str, Mapping[str, Tensor]] | None = None,
    images: Images | None = None,
    passing: Callable[..., Any] = Plain,
) -> tuple[Trainee, Any, Images]:
    """A phase before its first step. passing: makes its pass, such as `derived`."""
    images = images or Images(data or tiny_data(), CPU)
    of = as_drawn if weights_of is None else weights_of.__getitem__
    weights = Weights(network("digits-cnn"), node.seed, of, CPU)
    trainee = enroll(node, weights, NUMERICS.fused_optimizer)
    return trainee, passing(images, [node], weights, 64), images


def resumed(
    node: Node, store: Store, part: str | None = None, damage: float = 1.0
) -> tuple[Trainee, Plain, Images]:
    """A phase as a later process begins it, from the checkpoint in a store. damage: by which tensors are
    multiplied that have `part` in their names."""
    trainee, passes, images = begin(node)
    saved = store.read_checkpoint(node.key)
    assert saved is not None
    tensors = {n: t * damage if part is not None and part in n else t for n, t in saved[0].items()}
    unpack(trainee, tensors, saved[1])
    return trainee, passes, images


def to_its_end(trainee: Trainee, passes: Any, images: Images) -> tuple[dict[str, Tensor], list[Row]]:
    """The weights that a phase hands on, and its history."""
    size = trainee.node.recipe.batch_size
    list(fit([trainee], passes, images, size))
    return conclude(trainee, passes, images, size), list(trainee.rows)


def interrupted_run(
    node: Node, after: int, store: Store, part: str | None = None, damage: float = 1.0
) -> tuple[dict[str, Tensor], list[Row]]:
    """`to_its_end`, stopped after so many epochs, then gone on with from what the store kept."""
    trainee, passes, images = begin(node)
    run = fit([trainee], passes, images, node.recipe.batch_size)
    for _ in range(after):
        next(run)
    store.write_checkpoint(node.key, *pack(trainee))
    again, passes, images = resumed(node, store, part, damage)
    assert again.epoch == after and again.validation_losses == trainee.validation_losses
    return to_its_end(again, passes, images)


def derived(*about: Any, cache: Cache | None = None) -> Derived:
    return Derived(*about, cache)


def train(
    node: Node, data: Data | None = None
) -> tuple[Trainee, list[EpochReport | Diverged], dict[str, Tensor]]:
    """A whole phase; the trainee, its reports, and the weights it hands on (none if it diverged)."""
    with applied(NUMERICS):
        trainee, passes, images = begin(node, data)
        size = node.recipe.batch_size
        reports = [report for epoch in fit([trainee], passes, images, size) for report in epoch]
        bad = any(isinstance(r, Diverged) for r in reports)
        return trainee, reports, {} if bad else conclude(trainee, passes, images, size)


def equal(some: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> bool:
    return some.keys() == others.keys() and all(torch.equal(some[n], others[n]) for n in some)


def split_data(train_images: int, validation_images: int = 20, classes: int = 3) -> Data:
    generator = torch.Generator().manual_seed(5)

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % classes
        noise = torch.randint(0, 120, (count, 1, 8, 8), generator=generator)
        return (noise + 40 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels

    rest = split(validation_images)
    return from_dataset(split(train_images), rest, rest, rest)
