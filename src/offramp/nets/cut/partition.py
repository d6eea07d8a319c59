"""One module cut into segments and a classifier that compute, together, what it computes.

Every piece is a graph of its own, rooted on the module: parameters stay where they are, under their
own names, and the module keeps working whole.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from offramp.device import seeded
from offramp.errors import OfframpError, in_line, nearest
from offramp.inputs import blank, noise
from offramp.nets.clock import Clock
from offramp.nets.cut.calling import STRAIGHT, Called, CallStyle, call_style
from offramp.nets.cut.modes import (
    ModeGraph,
    ModuleGraphs,
    below,
    buffers,
    differing_gradients,
    hold_constants,
    restore,
)
from offramp.nets.cut.observe import UNKNOWN, PerImage, count_macs
from offramp.nets.cut.places import CutPoint, ExitPlace, Survey, survey
from offramp.nets.cut.trace import attribute, compiled
from offramp.nets.identity import settings

# What a submodule raises that is given what it does not take, such as a tuple in place of a tensor.
_UNFIT = (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, LookupError)


@dataclass(frozen=True, eq=False)
class Piece:
    """What a segment runs, apart from the module that it runs it on."""

    # the graph of train mode, rooted on the module; its placeholders are the clock, then the tensors
    # that come in
    train: fx.Graph
    eval: fx.Graph  # the same of eval mode
    leaves: tuple[str, ...]  # paths of the modules that they call
    state: tuple[str, ...]  # names of the parameters and persistent buffers that they use
    parameters: tuple[str, ...]  # names of these parameters, each parameter once

    @cached_property
    def functions(self) -> dict[bool, Callable[..., tuple[Tensor, ...]]]:
        """The graphs as functions of (module, clock, *tensors), by train mode or not."""
        return {True: compiled(self.train), False: compiled(self.eval)}


@final
class Segment:
    """A stretch of a module: takes tensors, and returns the tensor at its end first.

    The tensors that cross the cut beside that one follow it, and the next segment takes them in the
    same order. A segment has a mode of its own, which chooses the graph; `train` also sets that of the
    modules it calls, which may then be changed one by one.

    Args:
        module: What its piece is rooted on.
        clock: What dropout and drop-path draw from.
        pieces: Of all segments of the module.
        index: Which of them this is, from 0.
        modes: Of all segments, by number; they share it.
    """

    def __init__(
        self,
        module: nn.Module,
        clock: Clock,
        pieces: Sequence[Piece],
        index: int,
        modes: dict[int, bool],
    ) -> None:
        self._module = module
        self._clock = clock
        self._piece = pieces[index]
        self._index, self._modes = index, modes
        self._functions = self._piece.functions
        self._leaves = tuple(module.get_submodule(path) for path in self._piece.leaves)
        others = {
            id(part)
            for other in (*pieces[:index], *pieces[index + 1 :])
            for path in other.leaves
            for part in module.get_submodule(path).modules()
        }
        self._shared = [m for m in self._leaves if any(id(part) in others for part in m.modules())]

    @property
    def training(self) -> bool:
        return self._modes[self._index]

    @training.setter
    def training(self, mode: bool) -> None:
        self._modes[self._index] = mode

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """tensors: `[B, ...]` each; for the first segment the images `[B, C, H, W]`."""
        if self._shared and len(set(self._modes.values())) > 1:
            for leaf in self._shared:  # another segment calls it in another mode
                leaf.train(self.training)
        return self._functions[self.training](self._module, self._clock, *tensors)

    def train(self, mode: bool = True) -> None:
        """Train mode, or eval mode, for this segment and the modules it calls."""
        self.training = mode
        for leaf in self._leaves:
            leaf.train(mode)

    def state(self) -> dict[str, Tensor]:
        """The live parameters and persistent buffers it uses, under the module's own names."""
        return {name: attribute(self._module, name) for name in self._piece.state}

    def parameters(self) -> list[nn.Parameter]:
        """The live parameters it uses."""
        return [self._module.get_parameter(name) for name in self._piece.parameters]

    def as_module(self) -> fx.GraphModule:
        """What it runs in eval mode as a module of its own, for export: live tensors, no clock."""
        graph = copy.deepcopy(self._piece.eval)  # the clock is for training alone
        clock = next(iter(graph.nodes))
        for node in [*clock.users, clock]:
            graph.erase_node(node)
        return fx.GraphModule(self._module, graph).eval()


@dataclass(frozen=True, eq=False)
class Trunk:
    """One module, cut in pieces: K segments, each ending at its place, and the classifier, from the last
    place to the logits."""

    module: nn.Module  # the module itself, its state_dict as ever
    # the K canonical names: of the taps, then of the place that feeds the classifier
    places: tuple[str, ...]
    # of one image's tensor at each place; empty where no image was run
    shapes: tuple[tuple[int, ...], ...]
    pieces: tuple[Piece, ...]  # what the segments and the classifier run
    constants: dict[str, Tensor]  # tensors that a trace had to keep, by name
    code: str  # what the module computes, as text in which no cut shows
    clock: Clock  # what dropout and drop-path draw from
    style: CallStyle = STRAIGHT  # how the module takes images and gives logits, in eval mode
    # numbers, from 1, of the segments that hand on a tensor without a row for each image
    rowless: frozenset[int] = frozenset()
    # names of the parameters whose gradient in the pieces is another one than in the module
    wrong_gradients: frozenset[str] = frozenset()

    def check_rows(self, segment: int) -> None:
        """Raises OfframpError where a segment hands on a tensor without a row for each image, whose size
        may be that of a batch by chance."""
        if segment in self.rowless:
            raise OfframpError(
                "a tensor without a batch dimension crosses a tap; tap a place of `offramp taps`"
            )

    @property
    def plain(self) -> nn.Module:
        """The module as a whole, images `[B, C, H, W]` → logits `[B, classes]`, without a cut."""
        return self.module if self.style == STRAIGHT else Called(self.module, self.style)

    @cached_property
    def _live(self) -> tuple[Segment, ...]:
        modes = dict.fromkeys(range(len(self.pieces)), self.module.training)
        return tuple(Segment(self.module, self.clock, self.pieces, i, modes) for i in modes)

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self._live[:-1]

    @property
    def classifier(self) -> Segment:
        return self._live[-1]

    def on(self, module: nn.Module, clock: Clock | None = None) -> Trunk:
        """The same cuts on another instance of the same architecture, without tracing it. clock: of the
        network that the new trunk belongs to; None makes one.

        Raises:
            OfframpError: When a parameter or a buffer is missing or has another shape.
        """
        mine, theirs = self.module.state_dict(), module.state_dict()
        for name in sorted(mine.keys() | theirs.keys()):
            if name not in mine or name not in theirs or mine[name].shape != theirs[name].shape:
                raise OfframpError(
                    f"{type(module).__name__} cannot take these cuts, because '{name}' differs; "
                    "build it with the same arguments"
                )
        hold_constants(module, self.constants)
        return replace(self, module=module, clock=clock or Clock())


def cut(
    module: nn.Module,
    input_shape: tuple[int, ...],
    taps: Sequence[str],
    final: str | None = None,
    *,
    surveyed: Survey | None = None,
) -> Trunk:
    """Cut `module` after each of `taps` and before its classifier. taps: first to last; a submodule's
    path means its (last) output. final: the place that feeds the classifier; None finds it. The module
    stays as it is, but for constants that a trace kept.

    Raises:
        OfframpError: When a name is unknown, when places are out of order or not before the classifier,
            when two pieces would use one parameter, and as `survey` does.
    """
    surveyed = surveyed or survey(module, input_shape)
    graphs = surveyed.graphs
    points = _ordered(surveyed, taps, surveyed.final(final))
    pairs = [
        (
            _piece_graph(graphs, graphs.train, a.train if a else None, b.train if b else None),
            _piece_graph(graphs, graphs.eval, a.eval if a else None, b.eval if b else None),
        )
        for a, b in pairwise((None, *points, None))
    ]
    facts = graphs.eval.facts
    constants = graphs.train.traced.constants | graphs.eval.traced.constants
    hold_constants(module, constants)
    return Trunk(
        module,
        places=tuple(point.name for point in points),
        shapes=tuple(facts[point.eval].shape or () for point in points),
        pieces=_pieces(module, pairs),
        constants=constants,
        code=graphs.code,
        clock=Clock(),
        style=graphs.style,
        rowless=frozenset(
            i
            for i, point in enumerate(points, start=1)
            if not all(facts[n].rows for n in graphs.crossing(graphs.eval, point.eval))
        ),
        wrong_gradients=graphs.wrong_gradients,
    )


def _ordered(surveyed: Survey, taps: Sequence[str], end: CutPoint) -> list[CutPoint]:
    """The cut points of the taps and `end`, each after the one before it in both modes."""
    graphs = surveyed.graphs

    def in_order(a: CutPoint, b: CutPoint) -> bool:
        train, evaluation = graphs.train.order, graphs.eval.order
        return train[a.train] <= train[b.train] and evaluation[a.eval] <= evaluation[b.eval]

    points = [*(surveyed.point(tap) for tap in taps), end]
    for name, point in zip(taps, points, strict=False):
        if point is end or not in_order(point, end):
            raise OfframpError(
                f"the tap '{name}' is not before the final exit of {graphs.title}, whose classifier "
                f"reads the output of '{end.name}'; name an earlier place"
            )
    for name, a, b in zip(taps[1:], points, points[1:], strict=False):
        if a is b:
            raise OfframpError(f"the tap '{name}' is the same place as '{a.name}'; name it once")
        if not in_order(a, b):
            raise OfframpError(
                f"the tap '{name}' runs before '{a.name}'; list taps in the order of execution"
            )
    for point in points:
        train, evaluation = (
            [mode.traced.names.get(n, "the images") for n in graphs.crossing(mode, node)[1:]]
            for mode, node in ((graphs.train, point.train), (graphs.eval, point.eval))
        )
        if train != evaluation:
            raise OfframpError(
                f"{graphs.title} cannot be cut after '{point.name}', because other tensors cross there "
                "in train mode than in eval mode; name a neighboring place"
            )
    return points


# A module that cannot be traced


def cut_by_names(
    module: nn.Module, names: Sequence[Sequence[str]], input_shape: tuple[int, ...] | None = None
) -> Trunk:
    """Cut a module that cannot be traced.

    Args:
        module: Made up of submodules that run one after another.
        names: The paths of the submodules that each segment runs, then a last list for the classifier. A
            place is named by the submodule it follows.
        input_shape: Of one image, `[C, H, W]`; with it, the pieces are run on noise and compared with
            the module.

    Raises:
        OfframpError: When a name is unknown, a list empty, a parameter in two pieces, or when the pieces
            compute something else than the module.
    """
    title = type(module).__name__
    if len(names) < 2 or not all(names):
        raise OfframpError(
            f"{title} needs at least two lists of submodule names, none of them "
            "empty; give one list per segment and a last one for the classifier"
        )
    submodules = [name for name, _ in module.named_modules() if name]
    listed = [name for row in names for name in row]
    for name in listed:
        if name not in submodules:
            hint = nearest(name, submodules)
            raise OfframpError(f"{title} has no submodule '{name}'{hint}")
    before = [[name for row in names[:i] for name in row] for i in range(len(names))]
    pairs = [(_chain_graph(*p), _chain_graph(*p)) for p in zip(names, before, strict=True)]
    code = f"{module!r}\n{settings(module, ['', *submodules], below(listed, submodules))}"
    if len(set(listed)) < len(listed):
        code += "\nsubmodules that run again draw anew"  # earlier keys are of work in which they did not
    ends = tuple(row[-1] for row in names[:-1])
    trunk = Trunk(module, ends, (), _pieces(module, pairs), {}, code, Clock())
    return trunk if input_shape is None else _compared(trunk, input_shape)


def chain_places(
    module: nn.Module, names: Sequence[Sequence[str]], input_shape: tuple[int, ...]
) -> tuple[ExitPlace, ...]:
    """The ends of the submodules that `cut_by_names` lists, but for those of the classifier and the last
    before it: the places where it could be cut."""
    *row, last = [name for names in names[:-1] for name in names]
    if not row:
        return ()
    trunk = cut_by_names(module, [*([name] for name in row), [last, *names[-1]]], input_shape)
    values: tuple[Tensor, ...] = (blank(input_shape, 1, next(module.parameters())),)
    rows, macs, params = [], 0, 0
    for segment in (*trunk.segments, trunk.classifier):
        segment.train(False)
        values, cost = count_macs(partial(segment, *values))
        macs, params = macs + cost, params + sum(p.numel() for p in segment.parameters())
        rows.append((macs, params, tuple(values[0].shape[1:])))
    ends = zip(trunk.places, rows, strict=False)
    return tuple(
        ExitPlace(name, (), shape, cost, cost / macs if macs else 0.0, count, len(shape) == 1)
        for name, (cost, count, shape) in ends
    )


def _compared(trunk: Trunk, input_shape: tuple[int, ...]) -> Trunk:
    """The trunk with what a run on noise tells: how the module takes images, and the shapes at its
    places.

    Raises:
        OfframpError: Where its pieces do not give what the module gives.
    """
    probe = copy.deepcopy(trunk.module).eval()
    copied = trunk.on(probe)
    title, initial = type(probe).__name__, buffers(probe)
    with seeded(0):
        x = noise(input_shape, 2, like=next(probe.parameters(), torch.empty(0)))

    def outputs() -> list[Tensor]:
        values = [x]
        for piece in (*copied.segments, copied.classifier):
            (y,) = piece(values[-1])
            values.append(y)
        return values[1:]

    with torch.no_grad():
        try:
            style, _ = call_style(probe, x)
            restore(initial)  # each run begins with the same, whatever a forward does to them
            expected = style(probe, x.clone())
            restore(initial)
            *ends, y = outputs()
            shapes = tuple(tuple(end.shape[1:]) for end in ends)
        except _UNFIT as error:
            raise OfframpError(
                f"the submodules listed for {title} do not run one after another: {in_line(error)}; "
                "list all of them in execution order, and make steps between them submodules too"
            ) from error
    same = isinstance(y, Tensor) and y.shape == expected.shape
    if not same or not torch.allclose(y, expected, rtol=1e-3, atol=1e-5):
        raise OfframpError(
            f"the submodules listed for {title}, run one after another, do not compute what it "
            "computes; list all of them, and make steps between them (an activation, a flatten) "
            "submodules too"
        )
    restore(initial)
    with seeded(0):
        wrong = differing_gradients(probe, lambda: style(probe, x.clone()), lambda: outputs()[-1])
    return replace(trunk, shapes=shapes, style=style, wrong_gradients=wrong)


# The graph of a piece


def _piece_graph(
    graphs: ModuleGraphs, mode: ModeGraph, start: fx.Node | None, end: fx.Node | None
) -> fx.Graph:
    """The operations after `start` (None: from the images) up to `end` (None: to the logits).

    Operations keep their order, so random draws keep theirs. A tensor that comes in and would be
    written on is cloned first: heads, caches and the data set read it too.

    Raises OfframpError when something that is not a tensor would have to cross a cut.
    """
    nodes = list(mode.order)
    graph = fx.Graph()
    clock = graph.placeholder("clock")
    inputs = graphs.crossing(mode, start) if start else tuple(nodes[:1])
    first = mode.order[start] + 1 if start else 1
    stop = mode.order[end] + 1 if end else len(nodes) - 1
    body = [node for node in nodes[first:stop] if node not in mode.unread]
    copies: dict[fx.Node, Any] = {n: graph.placeholder(f"x{i}") for i, n in enumerate(inputs)}
    tap = copies[inputs[0]]
    for node in _overwritten(mode, inputs, body):
        copies[node] = graph.call_method("clone", (copies[node],))

    def copied(node: fx.Node) -> Any:
        if node not in copies and (node.op == "get_attr" or mode.facts[node].fixed):
            copies[node] = graph.node_copy(node, copied)
        elif node not in copies:
            copies[node] = _recomputed(graph, tap, mode.facts[node].rule, mode.traced.names[node])
        return copies[node]

    for node in body:
        if node.op == "get_attr":
            continue  # copied where it is used
        if mode.facts[node].random:  # so that its draw depends on its name and on no other draw
            graph.call_method("reseed", (clock, mode.traced.names[node]))
        copies[node] = graph.node_copy(node, copied)
    outputs = graphs.crossing(mode, end) if end else (nodes[-1].args[0],)
    graph.output(tuple(copied(n) for n in outputs if isinstance(n, fx.Node)))
    return graph


def _chain_graph(names: Sequence[str], before: Sequence[str]) -> fx.Graph:
    """The submodules of those paths, one after another, each with its own random draws, also where it
    ran already. before: the paths of the pieces before.

    They get a clone of what comes in: which of them write on it is not known, and heads, caches and
    the data set read it too.
    """
    graph = fx.Graph()
    clock = graph.placeholder("clock")
    x = graph.call_method("clone", (graph.placeholder("x0"),))
    for at, name in enumerate(names):
        times = [*before, *names[:at]].count(name)
        graph.call_method("reseed", (clock, f"{name} {times + 1}" if times else name))
        x = graph.call_module(name, (x,))
    graph.output((x,))
    return graph


def _overwritten(mode: ModeGraph, inputs: Sequence[fx.Node], body: Sequence[fx.Node]) -> list[fx.Node]:
    """Those of the tensors that come in on which an operation of the body writes."""
    written = frozenset[int]().union(*(mode.facts[n].writes for n in body))
    overwritten = [n for n in inputs if mode.facts[n].storage in written]
    storages = [mode.facts[n].storage for n in inputs]
    for node in overwritten:
        if storages.count(mode.facts[node].storage) > 1:
            raise OfframpError(
                f"'{mode.traced.names.get(node, 'the input')}' and a view of it cross a cut, and "
                "are overwritten after it; name a neighboring place"
            )
    return overwritten


def _recomputed(graph: fx.Graph, tap: fx.Node, rule: Any, name: str) -> Any:
    """A number, or the like, that an earlier segment computed, from the tap's batch size."""
    if rule is UNKNOWN:
        raise OfframpError(f"the value of '{name}' cannot cross a cut; name a neighboring place")
    if isinstance(rule, tuple):
        return tuple(_recomputed(graph, tap, element, name) for element in rule)
    if isinstance(rule, PerImage):
        size = graph.call_method("size", (tap, 0))
        return graph.call_function(operator.mul, (size, rule.factor)) if rule.factor != 1 else size
    if isinstance(rule, torch.device):
        return graph.call_function(getattr, (tap, "device"))
    return rule


def _pieces(module: nn.Module, graphs: Sequence[tuple[fx.Graph, fx.Graph]]) -> tuple[Piece, ...]:
    """Pieces of `module` from their (train, eval) graphs, the classifier's last.

    Raises OfframpError when two of them would own one parameter, or one leaf module with buffers.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    tensors = module.state_dict(keep_vars=True)
    owner: dict[int, int] = {}
    pieces = []

    def in_order(names: Iterable[str]) -> tuple[str, ...]:
        chosen = set(names)
        return tuple(name for name in tensors if name in chosen)

    for i, (train, evaluation) in enumerate(graphs):
        nodes = [*train.nodes, *evaluation.nodes]
        called = {str(n.target): None for n in nodes if n.op == "call_module"}
        read = {str(n.target) for n in nodes if n.op == "get_attr"}
        state = []
        for name in in_order(below(called.keys() | read, tensors)):
            other = owner.setdefault(id(tensors[name]), i)
            if other == i:
                state.append(name)
            elif name in parameters or below(called, [name]):
                a, b = (
                    "the classifier" if n == len(graphs) - 1 else f"segment {n + 1}" for n in (other, i)
                )
                raise OfframpError(
                    f"'{name}' of {type(module).__name__} is used by {a} and by {b}; "
                    "move the tap between them, so that one of them owns it"
                )
        # Reversed, so that of two names of one parameter the first stays.
        own = {id(parameters[name]): name for name in reversed(state) if name in parameters}
        pieces.append(Piece(train, evaluation, tuple(called), tuple(state), in_order(own.values())))
    return tuple(pieces)
