"""Where a network can be cut, and what each place costs to reach."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from offramp.device import reseed, seeded
from offramp.errors import OfframpError
from offramp.inputs import is_text, noise
from offramp.nets.cut.calling import STRAIGHT, Way, way_of
from offramp.nets.cut.chain import chain
from offramp.nets.cut.exported import export
from offramp.nets.cut.gradients import unlike
from offramp.nets.cut.trace import UNKNOWN, Observed, Traced, Untraceable, observe, trace
from offramp.nets.identity import functions, settings, tensors_digest

_SEED = 0  # of the images and the noise that a network is observed on; nothing depends on it


@dataclass(frozen=True)
class Tap:
    """A tensor that an exit can read, with nothing else crossing from what runs before it.

    name: its canonical name, the shortest path of a submodule that outputs it, else the path of the
        function that does (`blocks.2.add`; `#2` is the second of several calls).
    aliases: other names of the same place.
    shape: of one image's tensor, `[C, H, W]` or `[T, D]` or `[D]`.
    macs: multiply-accumulates from one image up to here; share: of the whole network's, 0 to 1.
    params: how many parameters run up to here.
    pooled: whether the network has pooled its map away before it.
    """

    name: str
    aliases: tuple[str, ...]
    shape: tuple[int, ...]
    macs: int
    share: float
    params: int
    pooled: bool = False


@dataclass(frozen=True, eq=False)
class ModeGraph:
    """One mode of a module: its operations in order, and what was observed of each."""

    traced: Traced
    facts: dict[fx.Node, Observed]

    @cached_property
    def order(self) -> dict[fx.Node, int]:
        return {node: i for i, node in enumerate(self.traced.graph.nodes)}

    @cached_property
    def crossing(self) -> tuple[tuple[fx.Node, ...], ...]:
        """For each operation: those at or before it that an operation after it reads.

        Parameters and buffers do not cross, nor does what the batch size alone decides.
        """
        crosses = {
            n: max((self.order[u] for u in n.users), default=-1)
            for n in self.order
            if n.op != "get_attr" and (self.facts[n].tensor or self.facts[n].value is UNKNOWN)
        }
        rows, live = [], list[fx.Node]()
        for node, i in self.order.items():
            live = [n for n in (*live, node) if crosses.get(n, -1) > i]
            rows.append(tuple(live))
        return tuple(rows)

    def origin(self, node: fx.Node) -> fx.Node:
        """The operation that made this very tensor: identities made nothing."""
        source = self.facts[node].untouched
        return node if source is None or source.op == "get_attr" else self.origin(source)

    @cached_property
    def weights(self) -> dict[fx.Node, frozenset[str]]:
        """The submodules and tensors that each operation on data reads, by path.

        Operations on weights alone count for the operation on data that reads their result.
        """
        constant: dict[fx.Node, frozenset[str]] = {}
        reads: dict[fx.Node, frozenset[str]] = {}
        for node in self.order:
            own = {str(node.target)} if node.op in ("call_module", "get_attr") else set[str]()
            names = frozenset(own).union(*(constant.get(n, ()) for n in node.all_input_nodes))
            is_constant = node.op != "placeholder" and all(n in constant for n in node.all_input_nodes)
            (constant if is_constant else reads)[node] = names
        return reads

    @cached_property
    def unlearned(self) -> frozenset[fx.Node]:
        """The operations that no weights lead to: the input, and what is made of it alone."""
        found = set[fx.Node]()
        for node in self.order:
            before = (n for n in node.all_input_nodes if n in self.weights)
            if self.weights.get(node) == frozenset() and all(n in found for n in before):
                found.add(node)
        return frozenset(found)


@dataclass(frozen=True)
class Site:
    """A place before it is known to be a good one: the operation to cut after, in each mode.

    clean: whether its tensor alone crosses the cut; of a text, with what is made of the ids alone, such
        as a mask.  parts: whether no weights are used on both sides.
    """

    name: str
    aliases: tuple[str, ...]
    train: fx.Node
    eval: fx.Node
    clean: bool
    parts: bool


@dataclass(frozen=True, eq=False)
class Survey:
    """A module traced and observed in both modes. Holds nothing of the module itself."""

    title: str
    train: ModeGraph
    eval: ModeGraph
    parameters: dict[str, int]  # their number of elements, by name
    weights: dict[
        str, frozenset[int]
    ]  # numbers of the tensors of each leaf module and parameter, by path
    code: str  # what the module computes, as text that no cut changes
    way: Way = STRAIGHT  # how it takes images and gives logits
    text: bool = False  # whether it reads ids of tokens
    lost: frozenset[str] = frozenset()  # parameters whose gradient is another one by the traces

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every named tensor, in the order of execution."""
        train, evaluation = _named(self.train), _named(self.eval)
        in_train, in_eval = self.train.order, self.eval.order
        groups: dict[tuple[fx.Node, fx.Node], list[str]] = {}
        for name in train.keys() & evaluation.keys():
            groups.setdefault((train[name], evaluation[name]), []).append(name)
        sites = []
        for (t, e), names in groups.items():
            first, *rest = self._shortest_first(names)
            clean = all(
                side.facts[n].shape is not None
                and set(side.crossing[side.order[n]]) <= {n} | (side.unlearned if self.text else set())
                and side.facts[n].shape == self.eval.facts[e].shape
                for side, n in ((self.train, t), (self.eval, e))
            )
            parts = not (self._torn[0][in_train[t]] or self._torn[1][in_eval[e]])
            sites.append(Site(first, tuple(rest), t, e, clean, parts))
        return tuple(sorted(sites, key=lambda s: (in_eval[s.eval], in_train[s.train])))

    @cached_property
    def _torn(self) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
        """For each operation, in train and in eval mode: whether a cut after it parts two uses of one
        tensor of weights, such as of a module that is called twice."""
        return _torn(self.train, self.weights), _torn(self.eval, self.weights)

    @cached_property
    def again(self) -> frozenset[fx.Node]:
        """The operations whose output any segment can make again: sizes and constants decide it, in both
        modes."""
        sides = (self.train, self.eval)
        train, evaluation = ({s.traced.names[n] for n, f in s.facts.items() if f.fixed} for s in sides)
        names = train & evaluation
        return frozenset(n for s in sides for n in s.facts if s.traced.names.get(n) in names)

    def _shortest_first(self, names: list[str]) -> list[str]:
        traced, order = self.eval.traced, self.eval.order
        modules = traced.ends.keys() & self.train.traced.ends.keys()
        # Of names as short, the one that outputs the tensor first: the others are identities.
        at = {name: order[node] for name, node in traced.named.items()}
        return sorted(names, key=lambda n: (n not in modules, n.count("."), at[n], len(n), n))

    def site(self, name: str) -> Site:
        """The site of that name. Raises OfframpError, with the nearest name, when there is none."""
        for site in self.sites:
            if name == site.name or name in site.aliases:
                return site
        names = [n for s in self.sites if s.clean for n in (s.name, *s.aliases)]
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        if not near:  # whole stages rather than what is inside them
            near = sorted(
                dict.fromkeys(s.name for s in self.sites if s.clean), key=lambda n: n.count(".")
            )
        share = f"; of its MACs, {name} per cent is '{name}%'" if name.isdecimal() else ""
        raise OfframpError(
            f"{self.title} has no place '{name}'; use one of "
            f"{', '.join(near[:8])}{', …' if len(near) > 8 else ''}{share}"
        )

    def final(self, name: str | None = None) -> Site:
        """The place that feeds the classifier: the one named, else the last one before it.

        The classifier is the last operation with parameters, together with what pools, flattens and
        drops before it. Raises OfframpError when no single tensor feeds it.
        """
        if name is not None:
            site = self.site(name)
            if not site.clean:
                raise OfframpError(
                    f"the classifier of {self.title} cannot begin after '{site.name}', because "
                    "other tensors pass it by; name another place"
                )
            return site
        latest = self.eval.order[self._before_classifier()]
        good = [s for s in self.sites if s.clean and s.parts]
        sites = [s for s in good if self.eval.order[s.eval] <= latest]
        if not sites:
            raise OfframpError(
                f"no single tensor feeds the classifier of {self.title} from a layer before it; "
                "name the last place of its trunk"
            )
        last = sites[-1].eval
        return next(s for s in sites if s.eval is last)

    def places(self, final: str | None = None) -> tuple[Tap, ...]:
        """Every place before the one that feeds the classifier, in the order of execution."""
        end = self.final(final)
        total = sum(f.macs for f in self.eval.facts.values())
        places, pooled = [], False
        for site in self.sites[: self.sites.index(end)]:
            shape = self.eval.facts[site.eval].shape
            if not (site.clean and site.parts) or shape is None:
                continue
            upto = self.eval.order[site.eval]
            macs = sum(self.eval.facts[n].macs for n, i in self.eval.order.items() if i <= upto)
            read = [w for n, w in self.eval.weights.items() if self.eval.order[n] <= upto]
            used = under(frozenset[str]().union(*read), self.parameters)
            params = sum(self.parameters[p] for p in used)
            share = macs / total if total else 0.0
            pooled = pooled or len(shape) == 1 or (max(shape[1:]) == 1 and _pools(self.eval, site.eval))
            places.append(Tap(site.name, site.aliases, shape, macs, share, params, pooled))
        return tuple(places)

    def _before_classifier(self) -> fx.Node:
        """The tensor that the parameter-free operations before the classifier begin with."""
        side = self.eval
        on_data = [n for n, w in side.weights.items() if under(w, self.parameters)]
        if not on_data:
            raise OfframpError(f"{self.title} has no parameters; there is nothing to train")
        chain: list[fx.Node] = []
        node = self._data_input(on_data[-1])
        if node is None:
            return on_data[-1].prev
        layer, pooled = 0, False  # how much of the chain leads back to the layer
        while node is not None:
            chain.append(node)
            if under(side.weights[node], self.parameters):
                layer = layer or len(chain)
                if pooled or "norm" not in side.traced.kinds[node]:
                    break
            elif _pools(side, node):
                layer, pooled = 0, True  # a norm after the pooling is the classifier's
            node = self._data_input(node)
        del chain[layer or len(chain) :]
        return self._end_of_layer(chain[::-1])

    def _end_of_layer(self, chain: list[fx.Node]) -> fx.Node:
        """Of a chain that begins with a layer: where the layer's activation or its module ends.

        Pooling ends it whatever the size of the map, and dropout is no part of it.
        """
        side, base = self.eval, chain[0]
        name = side.traced.names.get(base, "")
        around = {n for m, n in side.traced.ends.items() if name.startswith(m + ".")}
        last = base
        for node in chain[1:]:
            if _pools(side, node):
                break
            same = side.facts[node].shape == side.facts[base].shape
            if node in around or (same and side.facts[node].untouched is None):
                last = node
        return last

    def _data_input(self, node: fx.Node) -> fx.Node | None:
        """The one tensor that the operation reads, weights aside; None when there are several."""
        inputs = [
            n for n in node.all_input_nodes if n in self.eval.weights and self.eval.facts[n].tensor
        ]
        return inputs[0] if len(inputs) == 1 else None


def survey(module: nn.Module, input_shape: tuple[int, ...]) -> Survey:
    """Trace and observe a copy of `module` on noise of `input_shape` (`[C, H, W]`).

    What fx does not follow, such as a choice that depends on sizes, is traced by `torch.export`.

    Neither the module nor the global generator changes. Raises OfframpError when images of that
    shape do not pass, when the module cannot be traced, or when the trace computes something else.
    """
    title = type(module).__name__
    reference = next(module.parameters(), torch.empty(0))
    with seeded(_SEED), torch.no_grad():
        x = noise(input_shape, 3, like=reference)
        try:
            way, evaluation, training, lost = _sides(module, x, trace)
        except Untraceable as error:
            try:
                way, evaluation, training, lost = _sides(module, x, export)
            except Exception as last:  # of torch.export, a dozen kinds
                reason = last if isinstance(last, Untraceable) else error
                raise OfframpError(f"{reason}; {_remedy(module, x)}") from error
    graphs = [side.traced.graph for side in (training, evaluation)]
    called = {str(n.target) for graph in graphs for n in graph.nodes if n.op == "call_module"}
    names = under(called, [name for name, _ in module.named_modules(remove_duplicate=False)])
    texts = [*(g.python_code("self").src for g in graphs), repr(module), settings(module, names)]
    texts += functions(n.target for g in graphs for n in g.nodes if n.op == "call_function")
    texts += _plain_tensors(module, graphs)
    return Survey(
        title=title,
        train=training,
        eval=evaluation,
        parameters={n: p.numel() for n, p in module.named_parameters(remove_duplicate=False)},
        weights=_weights(module, called),
        code="\n".join(texts),
        way=way,
        text=is_text(input_shape),
        lost=lost,
    )


def _plain_tensors(module: nn.Module, graphs: Iterable[fx.Graph]) -> list[str]:
    """What the graphs read of tensors that are kept as plain attributes: no state_dict has them."""
    state = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    state |= {name for name, _ in module.named_buffers(remove_duplicate=False)}
    read = {str(n.target) for graph in graphs for n in graph.nodes if n.op == "get_attr"} - state
    found = {name: attribute(module, name) for name in sorted(read)}
    return [f"{n}: {tensors_digest({n: t})}" for n, t in found.items() if isinstance(t, Tensor)]


def attribute(module: nn.Module, name: str) -> Any:
    """What the dotted `name` stands for; None where nothing does."""
    path, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(path), leaf, None)


def places(module: nn.Module, input_shape: tuple[int, ...], final: str | None = None) -> tuple[Tap, ...]:
    """Every place that an early exit of `module` can go, in the order of execution.

    input_shape: of one image, `[C, H, W]`. final: the place that feeds the classifier, where it is
    not the one that `Survey.final` finds. Raises OfframpError as `survey` does.
    """
    return survey(module, input_shape).places(final)


def under(paths: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """Those of `names` (of parameters, of buffers) that are at or below one of `paths`."""
    found = set(paths)
    return frozenset(
        name
        for name in names
        if any(name[:i] in found for i, letter in enumerate(name + ".") if letter == ".")
    )


def _weights(module: nn.Module, called: Set[str]) -> dict[str, frozenset[int]]:
    """Numbers of the tensors of each module that is called and of each parameter, by path; a tensor of
    two names has one number."""
    found: dict[str, set[int]] = {}
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for name, tensor in module.state_dict(keep_vars=True).items():
        steps = name.split(".")
        paths = {".".join(steps[:n]) for n in range(1, len(steps))} & called
        for path in paths | ({name} & parameters):
            found.setdefault(path, set()).add(id(tensor))
    return {path: frozenset(numbers) for path, numbers in found.items()}


def _torn(side: ModeGraph, weights: Mapping[str, frozenset[int]]) -> tuple[bool, ...]:
    """For each operation, whether a tensor of weights is used both up to it and after it."""
    first, last = dict[int, int](), dict[int, int]()
    for node, at in side.order.items():
        read = [n for n in node.all_input_nodes if n.op == "get_attr"]
        read += [node] if node.op == "call_module" else []
        for number in frozenset[int]().union(*(weights.get(str(n.target), ()) for n in read)):
            first.setdefault(number, at)
            last[number] = at
    inside = [0] * (len(side.order) + 1)  # how many tensors more are torn after it than before
    for number, at in first.items():
        inside[at] += 1
        inside[last[number]] -= 1
    return tuple(n > 0 for n in accumulate(inside))


Tracer = Callable[[nn.Module, Way, Tensor], Traced]


def _sides(
    module: nn.Module, x: Tensor, tracer: Tracer
) -> tuple[Way, ModeGraph, ModeGraph, frozenset[str]]:
    """How it takes images in eval mode, what it does then, and what in train mode; and the parameters
    that learn something else by the trace."""
    probe, title = copy.deepcopy(module), type(module).__name__
    way, evaluation = _side(probe.eval(), title, x, tracer)
    as_trained, training = _side(probe.train(), title, x, tracer)
    run = fx.Interpreter(probe, graph=training.traced.graph).run
    two, given = x[:2], buffers(probe)  # copied for each run, which may write on them

    def whole() -> Tensor:
        put(given)
        return cast(Tensor, as_trained(probe, two.clone()))

    def pieces() -> Tensor:
        put(given)
        return cast(Tensor, run(two.clone()))

    return way, evaluation, training, unlike(probe, whole, pieces)


def _side(probe: nn.Module, title: str, x: Tensor, tracer: Tracer) -> tuple[Way, ModeGraph]:
    """The mode that `probe` is in, whose buffers stay as they are. x: three images `[3, C, H, W]`."""
    given = buffers(probe)
    mode = "train" if probe.training else "eval"
    reseed(_SEED)
    try:
        way, _ = way_of(probe, x[:2])
        put(given)
        reseed(_SEED)
        expected = way(probe, x[:2].clone())
        way(probe, x.clone())
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()
        raise OfframpError(
            f"images of {'×'.join(map(str, x.shape[1:]))} do not pass through {title}: "
            f"{reason[0] if reason else type(error).__name__}; give the shape it is made for"
        ) from error
    _check_kept(probe, given, f"{title} in {mode} mode")
    kept = buffers(probe)
    put(given)
    traced = tracer(probe, way, x)
    reseed(_SEED)
    hold(probe, traced.constants)
    facts, found = observe(traced.graph, probe, (x[:2].clone(), x.clone()))
    scale = expected.abs().max().clamp(min=1e-6)
    if found.shape != expected.shape or bool((found - expected).abs().max() > 1e-3 * scale):
        raise Untraceable(
            f"{title} cannot be cut, because its trace computes something else in {mode} mode"
        )
    for name, after, now in _pairs(probe, kept):
        if now is not None and not torch.allclose(after, now, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise Untraceable(
                f"{title} cannot be cut, because its trace does not set the buffer '{name}' as its "
                f"forward does in {mode} mode"
            )
    put(given)
    hold(probe, traced.constants)
    if way.answer is not None:
        _forget_other_answers(traced, facts)
    _read_what_was_overwritten(facts)
    return way, ModeGraph(traced, facts)


Buffers = list[tuple[nn.Module, dict[str, Tensor | None]]]


def buffers(module: nn.Module) -> Buffers:
    """Copies of the buffers of each submodule, by name."""
    return _cloned([(part, part._buffers) for part in module.modules()])


def put(given: Buffers) -> None:
    """Set buffers to what they were, also where a forward has put other tensors in their place."""
    for part, tensors in _cloned(given):
        part._buffers.clear()
        part._buffers.update(tensors)


def _cloned(given: Buffers) -> Buffers:
    fresh: dict[int, Tensor | None] = {id(None): None}  # a tensor of two names stays one
    return [
        (part, {k: fresh.setdefault(id(b), b if b is None else b.clone()) for k, b in tensors.items()})
        for part, tensors in given
    ]


def _pairs(module: nn.Module, given: Buffers) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Name, what it was and what it is, of each buffer that was there."""
    names = {part: f"{path}." if path else "" for path, part in module.named_modules()}
    for part, tensors in given:
        for name, before in tensors.items():
            if before is not None:
                yield names[part] + name, before, part._buffers.get(name)


def _check_kept(module: nn.Module, given: Buffers, title: str) -> None:
    """Raises OfframpError where running it gave a buffer another shape or type: it cannot be kept."""
    for name, before, now in _pairs(module, given):
        if now is None or (now.shape, now.dtype) != (before.shape, before.dtype):
            raise OfframpError(
                f"the forward of {title} sets the buffer '{name}' to a tensor of another shape or type; "
                "let it keep both, or compute it anew in each forward"
            )


def _forget_other_answers(traced: Traced, facts: dict[fx.Node, Observed]) -> None:
    """Leave out what only leads to outputs that nobody reads, such as auxiliary heads. What writes on
    tensors that the rest reads stays, and so do counters."""
    needed, read = set[fx.Node](), set[int | None]()
    for node in reversed(list(facts)):
        writes, inputs = facts[node].writes, node.all_input_nodes
        kept = inputs[:1] if node.target == "copy_" else inputs
        counts = bool(writes) and all(n.op == "get_attr" for n in kept)
        if node in needed or writes & read or counts or node.op in ("placeholder", "output"):
            needed.update(inputs)
            read.update(facts[n].storage for n in (node, *inputs))
        else:
            traced.graph.erase_node(node)
            del facts[node]
    for table in (traced.names, traced.kinds):
        for node in table.keys() - facts.keys():
            del table[node]
    for path in [path for path, node in traced.ends.items() if node not in facts]:
        del traced.ends[path]


def _remedy(module: nn.Module, x: Tensor) -> str:
    """How to cut a module that cannot be traced: with its own submodules, where these make it up."""
    lists = (
        "give the segments as lists of submodule names in execution order, one list per segment and a "
        "last one for the classifier"
    )
    names = chain(module, x)
    if len(names) < 2:
        return f"make each step of its forward a submodule, then {lists}"
    *trunk, last = names
    count = min(3, len(trunk))
    cuts = [round(i * len(trunk) / count) for i in range(count + 1)]
    rows = [trunk[a:b] for a, b in pairwise(cuts)]
    quoted = [[f"'{name}'" if name.isdecimal() else name for name in row] for row in (*rows, [last])]
    shown = ", ".join(f"[{', '.join(row)}]" for row in quoted)
    return f"{lists}: exits: [{shown}]"


def _pools(side: ModeGraph, node: fx.Node) -> bool:
    return any(word in side.traced.kinds[node] for word in ("pool", "mean"))


def hold(module: nn.Module, constants: dict[str, Tensor]) -> None:
    """Let `module` carry tensors that a trace kept, as buffers that its state_dict omits."""
    device = next((p.device for p in module.parameters()), None)
    for name, tensor in constants.items():
        module.register_buffer(name, tensor.detach().to(device, copy=True), persistent=False)


def _read_what_was_overwritten(facts: dict[fx.Node, Observed]) -> None:
    """After `relu_(x)`, let what reads `x` read the result: the same tensor, by its newer name."""
    order = {node: i for i, node in enumerate(facts)}
    for node, fact in facts.items():
        source = fact.overwrites
        if source is not None and source.op != "get_attr":
            for user in [u for u in source.users if order[u] > order[node]]:
                user.replace_input_with(source, node)


def _named(side: ModeGraph) -> dict[str, fx.Node]:
    """The operation that made the tensor of each name, where that is one of images `[B, ...]`."""
    return {
        name: side.origin(node)
        for name, node in side.traced.named.items()
        if side.facts[node].shape is not None and side.origin(node).op != "placeholder"
    }
