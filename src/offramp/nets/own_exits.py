"""A network with exits of its own, cut at them: what `attach` makes of a network without any.

Its forward computes everything. It is traced once for each exit, with the logits of that exit as what
it returns. What leads to those of the final exit is the backbone; what else leads to those of exit k is
head k, and the one tensor of the backbone that the head reads is where the backbone is cut.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, fx, nn

from offramp.errors import OfframpError, kind_of
from offramp.hashing import digest
from offramp.inputs import Shape
from offramp.nets.builder import measured
from offramp.nets.cut.calling import STRAIGHT
from offramp.nets.cut.modes import ModeGraph, ModuleGraphs, hold_constants
from offramp.nets.cut.observe import count_macs
from offramp.nets.cut.partition import Trunk, cut
from offramp.nets.cut.places import Survey, survey
from offramp.nets.cut.trace import compiled
from offramp.nets.foreign import MultiExit, Outputs, answering, of_exits
from offramp.nets.heads import Head, OwnHead
from offramp.nets.identity import attributes_digest, state_digest
from offramp.nets.inside import Exit, NetFacts, NetworkParts
from offramp.nets.network import ExitNetwork
from offramp.parts import Part

REASON = "the network came with it"


class FinalPath(nn.Module):
    """A network without what its final exit does not run: [B, C, H, W] → logits [B, classes].

    Parts have the names that they have there. It runs as in eval mode, but for the modes of its parts.
    """

    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__()
        part = fx.GraphModule(module, graph)
        for table in ("_modules", "_parameters", "_buffers"):
            getattr(self, table).update(getattr(part, table))
        self._run = compiled(graph)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self._run(self, x)
        return logits


def with_exits(
    net: Any, input_shape: Shape | None = None, outputs: Outputs | None = None
) -> ExitNetwork:
    """A network with exits, cut at them. net: of `attach`, which is what it is; or with exits of its
    own: the module, which needs the input_shape of one image, or its description by `multi_exit`.

    Raises:
        OfframpError: It is none of these, or cannot be cut.
    """
    if isinstance(net, ExitNetwork):
        return net
    if isinstance(net, MultiExit):
        return cut_at_exits(net)
    if not isinstance(net, nn.Module):
        raise OfframpError(
            f"the net is {kind_of(net)}; give a network of offramp.attach, or a module that "
            "returns the logits of several exits"
        )
    if input_shape is None:
        raise OfframpError(
            f"input_shape: say what {type(net).__name__} takes, such as (3, 32, 32) of one image"
        )
    return cut_at_exits(answering(net, input_shape, outputs))


def cut_at_exits(described: MultiExit) -> ExitNetwork:
    """The network cut at the exits that it came with, in eval mode; it computes the same, and stops
    where an image leaves. Its own module stays as it is.

    Raises:
        OfframpError: It cannot be traced, or cannot be cut at an exit; with what still works.
    """
    module = copy.deepcopy(described.module).eval()
    surveys: list[Survey] = []
    try:
        for k in range(described.exits):
            pick = partial(_logits, described.outputs, k)
            surveys.append(survey(module, described.input_shape, pick))
        return _cut(module, described, surveys)
    except OfframpError as error:
        counted = len(surveys) == described.exits
        raise OfframpError(
            f"{error}; what still works: a policy and what it saves, of its logits: "
            f"offramp.calibrate(logits=…, labels=…, costs={_costs(surveys) if counted else '[…]'}"
            "); no prediction that computes less, and no bundle"
        ) from error


def _costs(surveys: Sequence[Survey]) -> list[int]:
    """Multiply-accumulates of an image that leaves at each exit, if the network could stop there."""
    run: dict[str, int] = {}
    spent = []
    for each in surveys:
        mode = each.graphs.eval
        run |= {name: mode.facts[node].macs for node, name in mode.traced.names.items()}
        spent.append(sum(run.values()))
    return spent


def _cut(module: nn.Module, described: MultiExit, surveys: Sequence[Survey]) -> ExitNetwork:
    shape, count = described.input_shape, described.exits
    taps = [_tap(k, surveys[k - 1], surveys[-1].graphs) for k in range(1, count)]
    last = _in_order_of_need(surveys[-1], taps)
    heads = [_head(module, shape, each, tap) for each, tap in zip(surveys, taps, strict=False)]
    whole = cut(module, shape, [_name(last, tap) for tap in taps], surveyed=last)
    # Named as the network is, which messages and cards tell.
    kind: Any = type(type(module).__name__, (FinalPath,), {})
    path = kind(module, last.graphs.eval.traced.graph).eval()
    hold_constants(path, whole.constants)
    trunk = replace(whole, module=path, style=STRAIGHT)
    costs, shapes, _ = measured(trunk, shape)
    early = []
    for k, head in enumerate(heads, start=1):
        like = next(module.parameters())
        _, costs[Part("head", k)] = count_macs(partial(head, like.new_zeros(1, *shapes[k - 1])))
        spec = OwnHead(digest(surveys[k - 1].graphs.code))
        early.append(Exit(trunk.places[k - 1], spec, shapes[k - 1]))
    facts = NetFacts(
        tuple(early),
        described.classes,
        shape,
        identity={
            "code": digest(trunk.code),
            "state": state_digest(path),
            "input_shape": list(shape),
        },
        make=None,
        costs=costs,
        reasons=(REASON,) * len(early),
        attributes=attributes_digest(path),
    )
    return ExitNetwork(NetworkParts((trunk,), (0,) * count, tuple(heads), facts)).eval()


def _logits(outputs: Outputs | None, k: int, returned: Any) -> Any:
    return of_exits(returned, outputs)[k]


def _tap(exit: int, of_exit: Survey, backbone: ModuleGraphs) -> str:
    """The name of the one tensor of the backbone that the head of an exit reads.

    Raises:
        OfframpError: There is no such, or several.
    """
    mode, shared = of_exit.graphs.eval, set(backbone.eval.traced.names.values())
    names = mode.traced.names
    own = [node for node, name in names.items() if name not in shared]
    read = {
        mode.origin(tensor): None
        for node in own
        for tensor in node.all_input_nodes
        if names.get(tensor) in shared and mode.facts[tensor].tensor
    }
    title = backbone.title
    if not own:
        raise OfframpError(f"{title} cannot be cut at exit {exit}: later exits read its logits")
    if any(node.op == "placeholder" for each in own for node in each.all_input_nodes) or not read:
        raise OfframpError(f"{title} cannot be cut at exit {exit}: its head reads the input itself")
    if len(read) > 1:
        places = " and ".join(f"'{names[node]}'" for node in list(read)[:3])
        raise OfframpError(
            f"{title} cannot be cut at exit {exit}: its head reads several tensors of the backbone, "
            f"{places}; have it read one"
        )
    return names[next(iter(read))]


def _in_order_of_need(backbone: Survey, taps: Sequence[str]) -> Survey:
    """The backbone with what each tap needs moved before what it does not, so that an image which leaves
    there has not paid for what only later exits read. The order within either stays."""
    graphs, mode = backbone.graphs, backbone.graphs.eval
    first: dict[fx.Node, int] = {}
    ties = _ties(graphs, mode)
    for k, name in enumerate(taps):
        tap = mode.origin(mode.traced.named[name])
        waiting, needed = [tap], set[fx.Node]()
        while waiting:
            node = waiting.pop()
            if node not in needed and mode.order[node] <= mode.order[tap]:
                needed.add(node)
                first.setdefault(node, k)
                waiting += [*node.all_input_nodes, *ties[node]]
    end = mode.traced.graph.output_node()
    for node in sorted(
        mode.order, key=lambda n: -1 if n.op == "placeholder" else first.get(n, len(taps))
    ):
        if node is not end:
            end.prepend(node)
    moved = ModeGraph(mode.traced, mode.facts)
    return Survey(replace(graphs, train=moved, eval=moved))


def _ties(graphs: ModuleGraphs, mode: ModeGraph) -> Mapping[fx.Node, list[fx.Node]]:
    """What has to stay on an operation's side of a cut beside its inputs: what uses weights of it, and
    before it what wrote on memory that it reads, or read what it writes on."""
    using, touching, writing = (defaultdict[int, list[fx.Node]](list) for _ in range(3))
    ties: dict[fx.Node, list[fx.Node]] = {}
    for node in mode.order:
        fact = mode.facts[node]
        storages = (mode.facts[n].storage for n in (node, *node.all_input_nodes))
        touched = {storage for storage in storages if storage is not None}
        numbers = {n for path in mode.weights.get(node, ()) for n in graphs.weights.get(path, ())}
        ties[node] = [n for storage in touched for n in writing[storage]]
        ties[node] += [n for storage in fact.writes for n in touching[storage]]
        for table, keys in ((using, numbers), (touching, touched), (writing, fact.writes)):
            for key in keys:
                table[key].append(node)
    for together in using.values():
        for node in together:
            ties[node] += together
    return ties


def _name(backbone: Survey, tensor: str) -> str:
    """The name of the place in the backbone where a tensor is made."""
    mode = backbone.graphs.eval
    node = mode.origin(mode.traced.named[tensor])
    return next((p.name for p in backbone.points if p.eval is node), tensor)


def _head(module: nn.Module, shape: Shape, of_exit: Survey, tap: str) -> Head:
    """The head of an exit, of its own storage: what runs after the tensor `tap`."""
    alone: Trunk = cut(module, shape, (), _name(of_exit, tap), surveyed=of_exit)
    return Head(nn.Identity(), _First(copy.deepcopy(alone.classifier.as_module()))).eval()


class _First(nn.Module):
    """The logits of what a piece returns."""

    def __init__(self, piece: nn.Module) -> None:
        super().__init__()
        self.piece = piece

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.piece(x)[0]
        return logits
