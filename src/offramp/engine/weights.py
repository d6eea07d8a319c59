"""Networks filled with weights: drawn ones, and those that nodes left."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from offramp.engine.resolve import Lineage, Source
from offramp.engine.settings import placed
from offramp.engine.values import FrozenValue
from offramp.nets.network import ExitNetwork, gated, inside, with_trunks
from offramp.numerics import MemoryFormat
from offramp.parts import Carry, Part, path

GATES = (".gate.weight", ".gate.bias")  # how the tensors of a head's gate end
ADDS = ".before."  # in the names of what a head adds of the answer before
NodeWeights = Callable[[str], Mapping[str, Tensor]]


class Weights:
    """Networks filled with the weights of any source, for one architecture, seed and device.

    Args:
        template: The network with its drawn weights; it is copied and never changed.
        seed: Of what is drawn.
        nodes: The weights that a node left, by its key.
    """

    def __init__(
        self,
        template: ExitNetwork,
        seed: int,
        nodes: NodeWeights,
        device: torch.device,
        memory_format: MemoryFormat = "channels_last",
    ) -> None:
        self.seed = seed
        self._template = template
        self._nodes = functools.cache(nodes)
        self._device = device
        self._memory_format = memory_format
        self._drawn_trunk = functools.cache(lambda draw: inside(template).drawn_trunk(seed, draw))

    def network(self, sources: Mapping[Part, Source], carry: Carry = 0.0) -> ExitNetwork:
        """A network of its own storage with the weights of `sources`, frozen, in eval mode; `carry` is
        that of the phase which trains it."""
        net = self._blank(sources.values(), carry)
        for part, source in sources.items():
            self._fill(net, part, source, trunk=0)
        return self._ready(net)

    def assembled(
        self, final: Mapping[int, Lineage], owners: tuple[int, ...], carry: Carry = 0.0
    ) -> ExitNetwork:
        """The finished network: every trained exit's path, in the trunk that it owns."""
        net = self._blank((source for lineage in final.values() for source in lineage), carry)
        if any(owners):  # trunks are numbered anew, without gaps
            numbers = {owner: i for i, owner in enumerate(sorted(set(owners)))}
            net = with_trunks(net, [numbers[owner] for owner in owners])
        for exit, lineage in final.items():
            for part, source in zip(path(exit), lineage, strict=True):
                self._fill(net, part, source, trunk=inside(net).trunk_of[exit - 1])
        return self._ready(net)

    def _blank(self, sources: Iterable[Source], carry: Carry) -> ExitNetwork:
        """A network to fill, with gates where a source has some."""
        nodes = {source.node for source in sources if source.node is not None}
        template = self._template
        own = {exit.name + end for exit in inside(template).facts.early for end in GATES}
        gates = any(own & self._nodes(node).keys() for node in nodes)
        net = copy.deepcopy(template) if carry == inside(template).carry else template.carrying(carry)
        return gated(net) if gates else net

    def _ready(self, net: ExitNetwork) -> ExitNetwork:
        net.requires_grad_(False)
        net.eval()
        placed(net, self._device, self._memory_format)
        return net

    def frozen(self, values: Iterable[FrozenValue]) -> list[tuple[ExitNetwork, list[FrozenValue]]]:
        """The fewest networks that compute all `values`, each with the values it computes."""
        # Values whose parts agree share a network, so that the layers they have in common run once.
        groups: list[tuple[dict[Part, Source], list[FrozenValue]]] = []
        for value in values:
            for sources, members in groups:
                if all(sources.get(part, source) == source for part, source in value.parts.items()):
                    sources.update(value.parts)
                    members.append(value)
                    break
            else:
                groups.append((value.parts, [value]))
        return [
            (self.network(sources) if sources else self._template, members)
            for sources, members in groups
        ]

    def _fill(self, net: ExitNetwork, part: Part, source: Source, trunk: int) -> None:
        state = inside(net).state(part, trunk)
        carry = inside(net).carry
        if source.node is None:
            weights = self._draw(source.draw, carry, part)
        else:
            weights = self._nodes(source.node)
        if any(
            ADDS in name and name not in weights for name in state
        ):  # no earlier phase added anything
            weights = {**self._draw("initial", carry, part), **weights}
        with torch.no_grad():
            for name, tensor in state.items():
                if name in weights or not name.endswith(GATES):  # a head may have had no gate before
                    tensor.copy_(weights[name])

    def _draw(self, draw: str, carry: Carry, part: Part) -> Mapping[str, Tensor]:
        if part.kind == "head" and part.index < self._template.exits:
            return inside(self._template).drawn_head(part.index, carry, self.seed, draw)
        return self._drawn_trunk(draw)
