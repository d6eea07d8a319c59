"""The graph of one piece of a module, and which of the module's tensors the piece owns."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from offramp.errors import OfframpError
from offramp.nets.cut.observe import UNKNOWN, PerImage
from offramp.nets.cut.places import Side, under
from offramp.nets.cut.trace import compiled


@dataclass(frozen=True, eq=False)
class Piece:
    """What a segment runs, apart from the module that it runs it on.

    train, eval: graphs rooted on the module; their placeholders are the clock, then the tensors
        that come in.
    leaves: paths of the modules that they call.
    state: names of the parameters and persistent buffers that they use. parameters: of the former,
        each once.
    """

    train: fx.Graph
    eval: fx.Graph
    leaves: tuple[str, ...]
    state: tuple[str, ...]
    parameters: tuple[str, ...]

    @cached_property
    def functions(self) -> dict[bool, Callable[..., tuple[Tensor, ...]]]:
        """The graphs as functions of (module, clock, *tensors), by train mode or not."""
        return {True: compiled(self.train), False: compiled(self.eval)}


def crossing(side: Side, node: fx.Node) -> tuple[fx.Node, ...]:
    """What crosses a cut right after `node`: its own tensor, then the others in order."""
    return (node, *(n for n in side.crossing[side.order[node]] if n is not node))


def traced_graph(side: Side, start: fx.Node | None, end: fx.Node | None) -> fx.Graph:
    """The operations after `start` (None: from the images) up to `end` (None: to the logits).

    Operations keep their order, so random draws keep theirs. A tensor that comes in and would be
    written on is cloned first: heads, caches and the data set read it too.

    Raises OfframpError when something that is no tensor would have to cross a cut.
    """
    nodes = list(side.order)
    graph = fx.Graph()
    clock = graph.placeholder("clock")
    inputs = crossing(side, start) if start else tuple(nodes[:1])
    first = side.order[start] + 1 if start else 1
    stop = side.order[end] + 1 if end else len(nodes) - 1
    body = nodes[first:stop]
    copies: dict[fx.Node, Any] = {n: graph.placeholder(f"x{i}") for i, n in enumerate(inputs)}
    tap = copies[inputs[0]]
    for node in _overwritten(side, inputs, body):
        copies[node] = graph.call_method("clone", (copies[node],))

    def copied(node: fx.Node) -> Any:
        if node not in copies and node.op == "get_attr":
            copies[node] = graph.node_copy(node)
        elif node not in copies:
            copies[node] = _again(graph, tap, side.facts[node].value, side.traced.names[node])
        return copies[node]

    for node in body:
        if node.op == "get_attr":
            continue  # copied where it is used
        if side.facts[node].random:
            graph.call_method("reseed", (clock, side.traced.names[node]))
        copies[node] = graph.node_copy(node, copied)
    outputs = crossing(side, end) if end else (nodes[-1].args[0],)
    graph.output(tuple(copied(n) for n in outputs if isinstance(n, fx.Node)))
    return graph


def chain_graph(names: Sequence[str]) -> fx.Graph:
    """The submodules of those paths, one after another, each with its own random draws.

    They get a clone of what comes in: which of them write on it is not known, and heads, caches and
    the data set read it too.
    """
    graph = fx.Graph()
    clock = graph.placeholder("clock")
    x = graph.call_method("clone", (graph.placeholder("x0"),))
    for name in names:
        graph.call_method("reseed", (clock, name))
        x = graph.call_module(name, (x,))
    graph.output((x,))
    return graph


def pieces(module: nn.Module, graphs: Sequence[tuple[fx.Graph, fx.Graph]]) -> tuple[Piece, ...]:
    """Pieces of `module` from their (train, eval) graphs, the classifier's last.

    Raises OfframpError when two of them would own one parameter, or one leaf module with buffers.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    tensors = module.state_dict(keep_vars=True)
    owner: dict[int, int] = {}
    found = []
    for i, (train, evaluation) in enumerate(graphs):
        nodes = [*train.nodes, *evaluation.nodes]
        called = {str(n.target): None for n in nodes if n.op == "call_module"}
        read = {str(n.target) for n in nodes if n.op == "get_attr"}
        state = []
        for name in _in_order(tensors, under(called.keys() | read, tensors)):
            other = owner.setdefault(id(tensors[name]), i)
            if other == i:
                state.append(name)
            elif name in parameters or under(called, [name]):
                raise _shared(module, name, other, i, len(graphs))
        own = {id(parameters[name]): name for name in reversed(state) if name in parameters}
        found.append(
            Piece(train, evaluation, tuple(called), tuple(state), _in_order(tensors, own.values()))
        )
    return tuple(found)


def _overwritten(side: Side, inputs: Sequence[fx.Node], body: Sequence[fx.Node]) -> list[fx.Node]:
    """Those of the tensors that come in on which an operation of the body writes."""
    written = frozenset[int]().union(*(side.facts[n].writes for n in body))
    found = [n for n in inputs if side.facts[n].storage in written]
    storages = [side.facts[n].storage for n in inputs]
    for node in found:
        if storages.count(side.facts[node].storage) > 1:
            raise OfframpError(
                f"'{side.traced.names.get(node, 'the input')}' and a view of it cross a cut, and "
                "are written on after it; name a neighboring place"
            )
    return found


def _again(graph: fx.Graph, tap: fx.Node, rule: Any, name: str) -> Any:
    """A number, or the like, that an earlier segment computed, made from the tap's batch size."""
    if rule is UNKNOWN:
        raise OfframpError(f"the value of '{name}' cannot cross a cut; name a neighboring place")
    if isinstance(rule, tuple):
        return tuple(_again(graph, tap, item, name) for item in rule)
    if isinstance(rule, PerImage):
        size = graph.call_method("size", (tap, 0))
        return graph.call_function(operator.mul, (size, rule.factor)) if rule.factor != 1 else size
    if isinstance(rule, torch.device):
        return graph.call_function(getattr, (tap, "device"))
    return rule


def _in_order(reference: dict[str, Any], names: Any) -> tuple[str, ...]:
    chosen = set(names)
    return tuple(name for name in reference if name in chosen)


def _shared(module: nn.Module, name: str, a: int, b: int, count: int) -> OfframpError:
    def piece(i: int) -> str:
        return "the classifier" if i == count - 1 else f"segment {i + 1}"

    return OfframpError(
        f"'{name}' of {type(module).__name__} is used by {piece(a)} and by {piece(b)}; "
        "move the tap between them, so that one of them owns it"
    )
