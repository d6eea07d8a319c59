"""One module cut into segments and a classifier that compute, together, what it computes.

Every piece is a graph of its own, rooted on the module: parameters stay where they are, under their
own names, and the module keeps working whole.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, cast, final

import torch
from torch import Tensor, fx, nn

from offramp.device import seeded
from offramp.errors import OfframpError, in_line, nearest
from offramp.inputs import blank, noise
from offramp.nets.clock import Clock
from offramp.nets.cut.calling import STRAIGHT, Called, Way, way_of
from offramp.nets.cut.gradients import unlike
from offramp.nets.cut.places import (
    ModeGraph,
    Site,
    Survey,
    Tap,
    attribute,
    buffers,
    hold,
    put,
    survey,
    under,
)
from offramp.nets.cut.trace import UNKNOWN, PerImage, compiled
from offramp.nets.identity import settings
from offramp.nets.macs import count_macs

# What a submodule raises that is given what it does not take, such as a tuple in place of a tensor.
_UNFIT = (RuntimeError, ValueError, TypeError, AssertionError, AttributeError, LookupError)


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


@final
class Segment:
    """A stretch of a module: takes tensors, and returns the tensor at its end first.

    The tensors that cross the cut beside that one follow it, and the next segment takes them in the
    same order. A segment has a mode of its own, which chooses the graph; `train` also sets that of the
    modules it calls, which may then be changed one by one.

    modes: of all segments of the module, by number; this is number `index`.
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
        graph = copy.deepcopy(self._piece.eval)
        clock = next(iter(graph.nodes))
        for node in [*clock.users, clock]:
            graph.erase_node(node)
        return fx.GraphModule(self._module, graph).eval()


@dataclass(frozen=True, eq=False)
class Trunk:
    """One module, cut in pieces.

    module: the module itself, its state_dict as ever.
    places: the K canonical names: of the taps, then of the place that feeds the classifier.
    shapes: of one image's tensor at each place; empty where no image was shown.
    segments: K of them, each ending at its place. classifier: from the last place to the logits.
    code: what the module computes, as text in which no cut shows.
    way: how the module takes images and gives logits, in eval mode.
    loose: numbers, from 1, of the segments that hand on a tensor without a row for each image.
    lost: names of the parameters whose gradient in the pieces is another one than in the module.
    """

    module: nn.Module
    places: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    pieces: tuple[Piece, ...]
    constants: dict[str, Tensor]
    code: str
    clock: Clock
    way: Way = STRAIGHT
    loose: frozenset[int] = frozenset()
    lost: frozenset[str] = frozenset()

    def check_rows(self, segment: int) -> None:
        """Raises OfframpError where a segment hands on a tensor without a row for each image, whose size
        may be that of a batch by chance."""
        if segment in self.loose:
            raise OfframpError(
                "a tensor without a batch dimension crosses a tap; tap a place of `offramp taps`"
            )

    @property
    def plain(self) -> nn.Module:
        """The module as a whole, images `[B, C, H, W]` → logits `[B, classes]`, without a cut."""
        return self.module if self.way == STRAIGHT else Called(self.module, self.way)

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
        """The same cuts on another instance of the same architecture, without tracing it.

        clock: of the network that the new trunk belongs to; None makes one. Raises OfframpError
        when a parameter or a buffer is missing or has another shape.
        """
        mine, theirs = self.module.state_dict(), module.state_dict()
        for name in sorted(mine.keys() | theirs.keys()):
            if name not in mine or name not in theirs or mine[name].shape != theirs[name].shape:
                raise OfframpError(
                    f"{type(module).__name__} cannot take these cuts, because '{name}' differs; "
                    "build it with the same arguments"
                )
        hold(module, self.constants)
        return replace(self, module=module, clock=clock or Clock())


def cut(
    module: nn.Module,
    input_shape: tuple[int, ...],
    taps: Sequence[str],
    final: str | None = None,
    *,
    surveyed: Survey | None = None,
) -> Trunk:
    """Cut `module` after each of `taps` and before its classifier.

    input_shape: of one image, `[C, H, W]`. taps: names of places, first to last; a submodule's path
    means its (last) output. final: the place that feeds the classifier; None finds it. surveyed:
    `survey(module, input_shape)`, where the caller has it already.

    Raises OfframpError when a name is unknown, when places are out of order or not before the
    classifier, when two pieces would use one parameter, and as `survey` does.
    """
    seen = surveyed or survey(module, input_shape)
    sites = _ordered(seen, taps, seen.final(final))
    graphs = [
        (
            _traced_graph(seen, seen.train, a.train if a else None, b.train if b else None),
            _traced_graph(seen, seen.eval, a.eval if a else None, b.eval if b else None),
        )
        for a, b in zip((None, *sites), (*sites, None), strict=True)
    ]
    names = tuple(site.name for site in sites)
    shapes = tuple(seen.eval.facts[site.eval].shape or () for site in sites)
    constants = seen.train.traced.constants | seen.eval.traced.constants
    hold(module, constants)
    pieces = _pieces(module, graphs)
    side = seen.eval
    loose = frozenset(
        i
        for i, site in enumerate(sites, start=1)
        if not all(side.facts[n].rows for n in _crossing(seen, side, site.eval))
    )
    return Trunk(
        module,
        places=names,
        shapes=shapes,
        pieces=pieces,
        constants=constants,
        code=seen.code,
        clock=Clock(),
        way=seen.way,
        loose=loose,
        lost=seen.lost,
    )


def cut_by_names(
    module: nn.Module, names: Sequence[Sequence[str]], input_shape: tuple[int, ...] | None = None
) -> Trunk:
    """Cut a module that cannot be traced.

    names: the paths of the submodules that each segment runs, one after another, then a last list
    for the classifier. A place is named by the submodule it follows. input_shape: of one image,
    `[C, H, W]`; with it, the pieces are run on noise and compared with the module.

    Raises OfframpError when a name is unknown, a list empty, a parameter in two pieces, or when the
    pieces compute something else than the module.
    """
    if len(names) < 2 or not all(names):
        raise OfframpError(
            f"{type(module).__name__} needs at least two lists of submodule names, none of them "
            "empty; give one list per segment and a last one for the classifier"
        )
    known = {name for name, _ in module.named_modules() if name}
    for name in (name for row in names for name in row):
        if name not in known:
            hint = nearest(name, known)
            raise OfframpError(f"{type(module).__name__} has no submodule '{name}'{hint}")
    before = [[name for row in names[:i] for name in row] for i in range(len(names))]
    pairs = zip(names, before, strict=True)
    found = _pieces(module, [(_chain_graph(*pair), _chain_graph(*pair)) for pair in pairs])
    ends = tuple(row[-1] for row in names[:-1])
    run = under([name for row in names for name in row], known)
    code = f"{module!r}\n{settings(module, [name for name, _ in module.named_modules()], run)}"
    if len({name for row in names for name in row}) < sum(map(len, names)):
        code += "\nsubmodules that run again draw anew"  # earlier keys are of work in which they did not
    trunk = Trunk(module, ends, shapes=(), pieces=found, constants={}, code=code, clock=Clock())
    if input_shape is None:
        return trunk
    way, shapes, lost = _compared(trunk, input_shape)
    return replace(trunk, shapes=shapes, way=way, lost=lost)


def chain_places(
    module: nn.Module, names: Sequence[Sequence[str]], input_shape: tuple[int, ...]
) -> tuple[Tap, ...]:
    """The ends of the submodules that `cut_by_names` lists, but for those of the classifier and the last
    before it: the places where it could be cut."""
    *row, last = [name for names in names[:-1] for name in names]
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
        Tap(name, (), shape, cost, cost / macs if macs else 0.0, count, len(shape) == 1)
        for name, (cost, count, shape) in ends
    )


def _ordered(seen: Survey, taps: Sequence[str], end: Site) -> list[Site]:
    """The sites of the taps and `end`, each after the one before it in both modes."""
    sites = [*(seen.site(tap) for tap in taps), end]
    for name, site in zip(taps, sites, strict=False):
        if not _before(seen, site, end):
            raise OfframpError(
                f"the tap '{name}' is not before the final exit of {seen.title}, whose classifier "
                f"reads the output of '{end.name}'; name an earlier place"
            )
    for name, a, b in zip(taps[1:], sites, sites[1:], strict=False):
        if a is b:
            raise OfframpError(f"the tap '{name}' is the same place as '{a.name}'; name it once")
        if not _before(seen, a, b):
            raise OfframpError(
                f"the tap '{name}' runs before '{a.name}'; list taps in the order of execution"
            )
    for site in sites:
        train, evaluation = (
            [side.traced.names.get(n, "the images") for n in _crossing(seen, side, node)[1:]]
            for side, node in ((seen.train, site.train), (seen.eval, site.eval))
        )
        if train != evaluation:
            raise OfframpError(
                f"{seen.title} cannot be cut after '{site.name}', because other tensors cross there in "
                "train mode than in eval mode; name a neighboring place"
            )
    return sites


def _before(seen: Survey, a: Site, b: Site) -> bool:
    in_train = seen.train.order[a.train] <= seen.train.order[b.train]
    return a is not b and in_train and seen.eval.order[a.eval] <= seen.eval.order[b.eval]


def _compared(
    trunk: Trunk, input_shape: tuple[int, ...]
) -> tuple[Way, tuple[tuple[int, ...], ...], frozenset[str]]:
    """How the module takes images, and the shapes at the places, of pieces that give what it gives; and
    the parameters that learn something else in them."""
    probe = copy.deepcopy(trunk.module).eval()
    pieces_of_it = trunk.on(probe)
    title = type(probe).__name__
    like = next(probe.parameters(), torch.empty(0))
    with torch.no_grad():
        with seeded(0):
            x = noise(input_shape, 2, like=like)
        given = buffers(probe)
        try:
            way, _ = way_of(probe, x)
            put(given)  # each run begins with the same, whatever a forward does to them
            expected = way(probe, x.clone())
            put(given)
            shapes = []
            y = x
            for segment in pieces_of_it.segments:
                (y,) = segment(y)
                shapes.append(tuple(y.shape[1:]))
            (y,) = pieces_of_it.classifier(y)
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

    def whole() -> Tensor:
        put(given)
        return cast(Tensor, way(probe, x.clone()))

    def in_pieces() -> Tensor:
        put(given)
        y = x
        for piece in (*pieces_of_it.segments, pieces_of_it.classifier):
            (y,) = piece(y)
        return y

    with seeded(0):
        lost = unlike(probe, whole, in_pieces)
    return way, tuple(shapes), lost


def _crossing(seen: Survey, side: ModeGraph, node: fx.Node) -> tuple[fx.Node, ...]:
    """What crosses a cut right after `node`: its own tensor, then the others in order. What can be made
    again does not: it has no rows, by which tensors are kept and images leave."""
    others = (n for n in side.crossing[side.order[node]] if n not in seen.again)
    return (node, *(n for n in others if n is not node))


def _traced_graph(seen: Survey, side: ModeGraph, start: fx.Node | None, end: fx.Node | None) -> fx.Graph:
    """The operations after `start` (None: from the images) up to `end` (None: to the logits).

    Operations keep their order, so random draws keep theirs. A tensor that comes in and would be
    written on is cloned first: heads, caches and the data set read it too.

    Raises OfframpError when something that is not a tensor would have to cross a cut.
    """
    nodes = list(side.order)
    graph = fx.Graph()
    clock = graph.placeholder("clock")
    inputs = _crossing(seen, side, start) if start else tuple(nodes[:1])
    first = side.order[start] + 1 if start else 1
    stop = side.order[end] + 1 if end else len(nodes) - 1
    body = nodes[first:stop]
    copies: dict[fx.Node, Any] = {n: graph.placeholder(f"x{i}") for i, n in enumerate(inputs)}
    tap = copies[inputs[0]]
    for node in _overwritten(side, inputs, body):
        copies[node] = graph.call_method("clone", (copies[node],))

    def copied(node: fx.Node) -> Any:
        if node not in copies and (node.op == "get_attr" or side.facts[node].fixed):
            copies[node] = graph.node_copy(node, copied)
        elif node not in copies:
            copies[node] = _again(graph, tap, side.facts[node].value, side.traced.names[node])
        return copies[node]

    for node in body:
        if node.op == "get_attr":
            continue  # copied where it is used
        if side.facts[node].random:
            graph.call_method("reseed", (clock, side.traced.names[node]))
        copies[node] = graph.node_copy(node, copied)
    outputs = _crossing(seen, side, end) if end else (nodes[-1].args[0],)
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


def _pieces(module: nn.Module, graphs: Sequence[tuple[fx.Graph, fx.Graph]]) -> tuple[Piece, ...]:
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


def _overwritten(side: ModeGraph, inputs: Sequence[fx.Node], body: Sequence[fx.Node]) -> list[fx.Node]:
    """Those of the tensors that come in on which an operation of the body writes."""
    written = frozenset[int]().union(*(side.facts[n].writes for n in body))
    found = [n for n in inputs if side.facts[n].storage in written]
    storages = [side.facts[n].storage for n in inputs]
    for node in found:
        if storages.count(side.facts[node].storage) > 1:
            raise OfframpError(
                f"'{side.traced.names.get(node, 'the input')}' and a view of it cross a cut, and "
                "are overwritten after it; name a neighboring place"
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
