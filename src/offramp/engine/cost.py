"""What a node costs, in multiply-accumulates, before it runs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from offramp.augment import Augment
from offramp.device import random_state_restored
from offramp.engine.resolve import Node
from offramp.engine.settings import laid_out
from offramp.engine.values import (
    IMAGES,
    FrozenValue,
    Point,
    Tensors,
    compute,
    frozen_inputs,
    route,
    teacher_logits,
)
from offramp.inputs import blank
from offramp.nets.network import ExitNetwork, inside
from offramp.parts import Part, heads, path, segments
from offramp.phase import adapters

BACKWARD = 2  # a backward pass costs about two forward passes of the same layers


@dataclass(frozen=True)
class Work:
    """A whole phase that trains all its epochs."""

    written: int  # MACs as the paper runs it, every epoch through every layer on the path
    executed: int  # MACs with frozen values computed once for each view of an image
    cache_bytes: int  # of the frozen values that are cached


def value_bytes(net: ExitNetwork) -> Mapping[Point, int]:
    """Bytes an image, in float32, of every value that can be cached; the images themselves are not."""
    if net not in _SIZES:
        _SIZES[net] = _sizes(net)
    return _SIZES[net]


_SIZES: WeakKeyDictionary[ExitNetwork, dict[Point, int]] = WeakKeyDictionary()
"""Of each network, since measuring them runs it, and every plan of it reads them."""


def _sizes(net: ExitNetwork) -> dict[Point, int]:
    exits = range(1, net.exits + 1)
    points = [p for k in exits for p in (Point("tap", k), *route(k)[-2:], Point("features", k))]
    # In eval mode, so that looking at the network does not move its running statistics.
    net = copy.deepcopy(net).eval() if any(module.training for module in net.modules()) else net
    with torch.no_grad():
        images = blank(net.input_shape, 2, next(net.parameters()))
        values: dict[Point, Tensors] = {IMAGES: (images,)}
        return {p: sum(4 * t[0].numel() for t in compute(net, values, p)) for p in points}


def work(
    node: Node,
    net: ExitNetwork,
    images: Mapping[str, int],
    sizes: Mapping[Point, int],
    augment: Augment | None = None,
) -> Work:
    """The work of `node`. images: counts of `train` and `validation`; sizes: of `value_bytes`; augment:
    of the training images. Views that never come again pass the frozen layers live, every epoch."""
    inputs, taught = frozen_inputs(node), teacher_logits(node)
    train, both = images["train"], images["train"] + images["validation"]
    epochs = node.recipe.epochs
    views = (0 if epochs > 1 else 1) if augment is None else augment.distinct(epochs)
    cached = views if augment is not None and views < epochs else 0
    live = live_macs(node, net, images, epochs, 1)
    values = {value.point for value in (*inputs.values(), *taught.values())} - {IMAGES}
    return Work(
        written=written_macs(node, net, images, epochs, 1),
        # Both splits as they are (training's once more at the end), and what trains, where it differs.
        executed=live + _below(node, net) * (both + views * train),
        cache_bytes=sum(sizes[point] for point in values) * (both + cached * train),
    )


def step_macs(net: ExitNetwork, batch: int) -> int:
    """MACs of a step that trains all of a network on so many images."""
    parts = segments(1, net.exits) | heads(1, net.exits)
    return batch * (1 + BACKWARD) * sum(net.macs(part) for part in parts)


def written_macs(
    node: Node, net: ExitNetwork, images: Mapping[str, int], epochs: int, closings: int
) -> int:
    """MACs of so many epochs and `closings` with every layer live, teachers included."""
    passes = epochs * (images["train"] + images["validation"]) + closings * images["train"]
    return live_macs(node, net, images, epochs, closings) + _below(node, net) * passes


def live_macs(
    node: Node, net: ExitNetwork, images: Mapping[str, int], epochs: int, closings: int
) -> int:
    """MACs of what runs live in any case, from the first trained layer up: so many epochs forward and
    backward with their validation, and `closings` passes over train in eval mode at the end."""
    on_path = {part for exit in node.exits for part in path(exit)}
    above = sum(
        net.macs(part, node.phase.carry) for part in on_path - _parts(frozen_inputs(node).values())
    )
    above += sum(_adapter(net, pair) for pair in adapters(node.terms))
    train, validation = images["train"], images["validation"]
    forward = epochs * (train + validation) + closings * train
    return above * (forward + BACKWARD * train * epochs)


def exit_shares(node: Node, net: ExitNetwork) -> dict[int, float]:
    """How a phase's time divides over the exits that it reads, by MACs: each part is charged to the
    first exit that needs it, an adapter to the exit that learns through it; three times over where a
    backward pass runs through it too."""
    frozen = _parts(frozen_inputs(node).values())
    charged: set[Part] = set()
    macs: dict[int, int] = {}
    for exit in sorted(node.exits):
        own = set(path(exit)) - charged
        charged |= own
        macs[exit] = sum(
            net.macs(part, node.phase.carry) * (1 if part in frozen else 1 + BACKWARD) for part in own
        )
        adapted = (_adapter(net, pair) for pair in adapters(node.terms) if pair[0] == exit)
        macs[exit] += sum(adapted) * (1 + BACKWARD)
    total = sum(macs.values())
    return {exit: value / total for exit, value in macs.items()}


def _adapter(net: ExitNetwork, pair: tuple[int, int]) -> int:
    """MACs of the adapter from one exit's features onto another's, for one image."""
    return inside(net).width(pair[0]) * inside(net).width(pair[1])


def _below(node: Node, net: ExitNetwork) -> int:
    """MACs of one image in the frozen layers below the cuts, and in the teacher."""
    groups = (_parts(frozen_inputs(node).values()), _parts(teacher_logits(node).values()))
    return sum(net.macs(part) for parts in groups for part in parts)


def _parts(values: Iterable[FrozenValue]) -> set[Part]:
    return {part for value in values for part in value.parts}


SAMPLE = 2  # images: the fewest that batch normalization takes


def saved_bytes(net: ExitNetwork) -> int:
    """Bytes an image that a step of `net` through all exits keeps for its backward pass, weights not
    counted. From one forward pass of two black images; `net` and torch's random state stay as they are.
    """
    twin = copy.deepcopy(net)
    twin.train()
    twin.requires_grad_(True)
    device = next(twin.parameters()).device
    own = {t.untyped_storage().data_ptr() for t in (*twin.parameters(), *twin.buffers())}
    storages: dict[int, int] = {}  # bytes by address
    alive: list[Tensor] = []  # an address may serve twice once a tensor is gone

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    images = laid_out(blank(net.input_shape, SAMPLE, next(twin.parameters())), "channels_last")
    hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with random_state_restored(device), hooks:
        logits = twin(images)
    del logits
    return sum(storages.values()) // SAMPLE
