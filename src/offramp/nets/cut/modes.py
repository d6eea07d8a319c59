"""A module as it runs in train and in eval mode: traced, observed, and compared with the module
itself."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from operator import getitem
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from offramp.device import reseed, seeded
from offramp.errors import OfframpError
from offramp.inputs import noise
from offramp.nets.cut.calling import STRAIGHT, CallStyle, Pick, call_style
from offramp.nets.cut.observe import UNKNOWN, Observed, observe
from offramp.nets.cut.trace import Traced, Untraceable, attribute, export, listing_remedy, trace
from offramp.nets.identity import functions, settings, tensors_digest

_SEED = 0  # of the images and the noise that a network is observed on; nothing depends on it
_APART = 0.1  # of a gradient's norm: rounding does not part two gradients further
_LEAST = 1e-4  # of the largest norm: gradients below it are taken for rounding
Tracer = Callable[[nn.Module, CallStyle, Tensor], Traced]


@dataclass(frozen=True, eq=False)
class ModeGraph:
    """One mode of a module: its operations in order, and what was observed of each."""

    traced: Traced
    facts: dict[fx.Node, Observed]

    @cached_property
    def order(self) -> dict[fx.Node, int]:
        return {node: i for i, node in enumerate(self.traced.graph.nodes)}

    @cached_property
    def unread(self) -> frozenset[fx.Node]:
        """The operations that nothing comes of, such as what takes the state of `x, _ = self.gru(x)`."""
        nodes = set[fx.Node]()
        for node in reversed(self.order):
            fact = self.facts[node]
            does = fact.writes or fact.random or node.op not in ("call_function", "call_method")
            if not does and nodes.issuperset(node.users):
                nodes.add(node)
        return frozenset(nodes)

    @cached_property
    def crossing(self) -> tuple[tuple[fx.Node, ...], ...]:
        """For each operation: those at or before it that an operation after it reads.

        Parameters and buffers do not cross, nor does what the batch size alone decides.
        """
        last_use = {
            n: max((self.order[u] for u in n.users if u not in self.unread), default=-1)
            for n in self.order
            if n.op != "get_attr" and (self.facts[n].tensor or self.facts[n].rule is UNKNOWN)
        }
        rows, live = [], list[fx.Node]()  # in the order they run, which graphs rely on
        for node, i in self.order.items():
            live = [n for n in (*live, node) if last_use.get(n, -1) > i]
            rows.append(tuple(live))
        return tuple(rows)

    def origin(self, node: fx.Node) -> fx.Node:
        """The operation that computed this very tensor: identities compute nothing."""
        source = self.facts[node].untouched
        return node if source is None or source.op == "get_attr" else self.origin(source)

    @cached_property
    def tensors(self) -> dict[str, fx.Node]:
        """The operation that computed the tensor of each name, where that is one of images `[B, ...]`;
        the first tensor of a module that gives several, as `x` of `x, _ = self.gru(x)`."""
        nodes = self.traced.named | {name: self._first(end) for name, end in self.traced.ends.items()}
        return {
            name: self.origin(node)
            for name, node in nodes.items()
            if self.facts[node].shape is not None and self.origin(node).op != "placeholder"
        }

    def _first(self, end: fx.Node) -> fx.Node:
        """What takes the first of several values; the operation itself where it gives one tensor."""
        takes = (user for user in end.users if user.target is getitem and user.args[1] == 0)
        return end if self.facts[end].tensor else next(takes, end)

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

    def data_input(self, node: fx.Node) -> fx.Node | None:
        """The one tensor that the operation reads, weights aside; None when there are several."""
        inputs = [n for n in node.all_input_nodes if n in self.weights and self.facts[n].tensor]
        return inputs[0] if len(inputs) == 1 else None

    def pools(self, node: fx.Node) -> bool:
        return any(word in self.traced.kinds[node] for word in ("pool", "mean"))

    def tears(self, weights: Mapping[str, frozenset[int]]) -> tuple[bool, ...]:
        """For each operation, whether a cut after it parts two uses of one tensor of `weights`, such as
        of a module that is called twice."""
        first, last = dict[int, int](), dict[int, int]()
        for node, at in self.order.items():
            read = [n for n in node.all_input_nodes if n.op == "get_attr"]
            read += [node] if node.op == "call_module" else []
            for number in frozenset[int]().union(*(weights.get(str(n.target), ()) for n in read)):
                first.setdefault(number, at)
                last[number] = at
        change = [0] * (len(self.order) + 1)  # how many tensors more are torn after it than before
        for number, at in first.items():
            change[at] += 1
            change[last[number]] -= 1
        return tuple(n > 0 for n in accumulate(change))


@dataclass(frozen=True, eq=False)
class ModuleGraphs:
    """A module traced and observed in both modes. Holds nothing of the module itself."""

    title: str  # the module's class
    train: ModeGraph  # what it does in train mode
    eval: ModeGraph  # what it does in eval mode
    parameters: dict[str, int]  # how many elements each parameter has, by name
    # numbers of the tensors of each leaf module and parameter, by path
    weights: dict[str, frozenset[int]]
    code: str  # what the module computes, as text that no cut changes. Keys have its digest
    style: CallStyle = STRAIGHT  # how it takes images and gives logits
    # parameters whose gradient is another one by the traces
    wrong_gradients: frozenset[str] = frozenset()

    @cached_property
    def tears(self) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
        """`ModeGraph.tears` in train and in eval mode."""
        return self.train.tears(self.weights), self.eval.tears(self.weights)

    @cached_property
    def recomputable(self) -> frozenset[fx.Node]:
        """The operations whose output any segment can compute again: sizes and constants decide it, in
        both modes."""
        modes = (self.train, self.eval)
        train, evaluation = ({m.traced.names[n] for n, f in m.facts.items() if f.fixed} for m in modes)
        names = train & evaluation
        return frozenset(n for m in modes for n in m.facts if m.traced.names.get(n) in names)

    def crossing(self, mode: ModeGraph, node: fx.Node) -> tuple[fx.Node, ...]:
        """What crosses a cut right after `node`: its own tensor, then the others in order. What can be
        computed again does not: it has no rows, by which tensors are stored and images leave."""
        others = (n for n in mode.crossing[mode.order[node]] if n not in self.recomputable)
        return (node, *(n for n in others if n is not node))


def graphs_of(module: nn.Module, input_shape: tuple[int, ...], pick: Pick | None = None) -> ModuleGraphs:
    """Trace and observe a copy of `module` on noise of `input_shape` (`[C, H, W]`).

    What fx does not follow, such as a choice that depends on sizes, is traced by `torch.export`. Neither
    the module nor the global generator changes. pick: of a module that was trained with several exits,
    whose logits it answers with; such a one is taken as it is in eval mode.

    Raises:
        OfframpError: When images of that shape do not pass, when the module cannot be traced, or when
            the trace computes something else.
    """
    reference = next(module.parameters(), torch.empty(0))
    with seeded(_SEED), torch.no_grad():
        x = noise(input_shape, 3, like=reference)
        try:
            style, evaluation, training, wrong = _both_modes(module, x, trace, pick)
        except Untraceable as error:
            try:
                style, evaluation, training, wrong = _both_modes(module, x, export, pick)
            except Exception as last:  # of torch.export, a dozen kinds
                reason = last if isinstance(last, Untraceable) else error
                remedy = "" if pick else f"; {listing_remedy(module, x)}"
                raise OfframpError(f"{reason}{remedy}") from error
    # Both graphs: what only train mode runs is a part of what the module is.
    graphs = [mode.traced.graph for mode in (training, evaluation)]
    called = {str(n.target) for graph in graphs for n in graph.nodes if n.op == "call_module"}
    # The parts of the text and their order are in keys.
    names = below(called, [name for name, _ in module.named_modules(remove_duplicate=False)])
    texts = [*(g.python_code("self").src for g in graphs), repr(module), settings(module, names)]
    texts += functions(n.target for g in graphs for n in g.nodes if n.op == "call_function")
    texts += _plain_tensors(module, graphs)
    return ModuleGraphs(
        title=type(module).__name__,
        train=training,
        eval=evaluation,
        parameters={n: p.numel() for n, p in module.named_parameters(remove_duplicate=False)},
        weights=_numbered_weights(module, called),
        code="\n".join(texts),
        style=style,
        wrong_gradients=wrong,
    )


def below(paths: Iterable[str], names: Iterable[str]) -> frozenset[str]:
    """Those of `names` (of parameters, of buffers) that are at or below one of `paths`."""
    paths = set(paths)
    return frozenset(
        name
        for name in names
        if any(name[:i] in paths for i, letter in enumerate(name + ".") if letter == ".")
    )


def _plain_tensors(module: nn.Module, graphs: Iterable[fx.Graph]) -> list[str]:
    """What the graphs read of tensors that are plain attributes: no state_dict has them."""
    state = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    state |= {name for name, _ in module.named_buffers(remove_duplicate=False)}
    read = {str(n.target) for graph in graphs for n in graph.nodes if n.op == "get_attr"} - state
    values = {name: attribute(module, name) for name in sorted(read)}
    return [f"{n}: {tensors_digest({n: t})}" for n, t in values.items() if isinstance(t, Tensor)]


def _numbered_weights(module: nn.Module, called: Set[str]) -> dict[str, frozenset[int]]:
    """Numbers of the tensors of each module that is called and of each parameter, by path; a tensor of
    two names has one number."""
    numbers: dict[str, set[int]] = {}
    parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
    for name, tensor in module.state_dict(keep_vars=True).items():
        steps = name.split(".")
        paths = {".".join(steps[:n]) for n in range(1, len(steps))} & called
        for path in paths | ({name} & parameters):
            numbers.setdefault(path, set()).add(id(tensor))
    return {path: frozenset(ids) for path, ids in numbers.items()}


def _both_modes(
    module: nn.Module, x: Tensor, tracer: Tracer, pick: Pick | None
) -> tuple[CallStyle, ModeGraph, ModeGraph, frozenset[str]]:
    """How it takes images in eval mode, what it does then, and what in train mode; and the parameters
    that learn something else by the trace."""
    probe, title = copy.deepcopy(module), type(module).__name__
    style, evaluation = _mode(probe.eval(), title, x, tracer, pick)
    if pick is not None:
        return style, evaluation, evaluation, frozenset()
    train_style, training = _mode(probe.train(), title, x, tracer)
    run = fx.Interpreter(probe, graph=training.traced.graph).run
    two = x[:2]
    wrong = differing_gradients(
        probe, lambda: train_style(probe, two.clone()), lambda: cast(Tensor, run(two.clone()))
    )
    return style, evaluation, training, wrong


def _mode(
    probe: nn.Module, title: str, x: Tensor, tracer: Tracer, pick: Pick | None = None
) -> tuple[CallStyle, ModeGraph]:
    """The mode that `probe` is in, whose buffers stay as they are. x: three images `[3, C, H, W]`."""
    initial = buffers(probe)
    mode = "train" if probe.training else "eval"
    reseed(_SEED)  # before each run, so that all of them draw the same masks
    try:
        style, _ = call_style(probe, x[:2], pick)
        restore(initial)
        reseed(_SEED)
        expected = style(probe, x[:2].clone())
        style(probe, x.clone())
    except (RuntimeError, ValueError, AssertionError) as error:
        reason = str(error).strip().splitlines()
        raise OfframpError(
            f"images of {'×'.join(map(str, x.shape[1:]))} do not pass through {title}: "
            f"{reason[0] if reason else type(error).__name__}; give the shape it is made for"
        ) from error
    for name, before, now in _pairs(probe, initial):
        if now is None or (now.shape, now.dtype) != (before.shape, before.dtype):
            raise OfframpError(
                f"the forward of {title} in {mode} mode sets the buffer '{name}' to a tensor of another "
                "shape or type; let it keep both, or compute it anew in each forward"
            )
    after_forward = buffers(probe)
    restore(initial)
    traced = tracer(probe, style, x)
    reseed(_SEED)
    hold_constants(probe, traced.constants)
    facts, output = observe(traced.graph, probe, (x[:2].clone(), x.clone()))
    scale = expected.abs().max().clamp(min=1e-6)  # a trace may add in another order, and so round
    if output.shape != expected.shape or bool((output - expected).abs().max() > 1e-3 * scale):
        raise Untraceable(
            f"{title} cannot be cut, because its trace computes something else in {mode} mode"
        )
    for name, after, now in _pairs(probe, after_forward):
        if now is not None and not torch.allclose(after, now, rtol=1e-3, atol=1e-5, equal_nan=True):
            raise Untraceable(
                f"{title} cannot be cut, because its trace does not set the buffer '{name}' as its "
                f"forward does in {mode} mode"
            )
    restore(initial)
    hold_constants(probe, traced.constants)
    if style.answer is not None or pick is not None:
        _drop_other_answers(traced, facts)
    _read_what_was_overwritten(facts)
    return style, ModeGraph(traced, facts)


def _drop_other_answers(traced: Traced, facts: dict[fx.Node, Observed]) -> None:
    """Leave out what only leads to outputs that nobody reads, such as auxiliary heads. What writes on
    tensors that the rest reads stays, and so do counters."""
    needed, read = set[fx.Node](), set[int | None]()
    for node in reversed(list(facts)):
        writes, inputs = facts[node].writes, node.all_input_nodes
        targets = inputs[:1] if node.target == "copy_" else inputs
        counts = bool(writes) and all(n.op == "get_attr" for n in targets)
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


def _read_what_was_overwritten(facts: dict[fx.Node, Observed]) -> None:
    """After `relu_(x)`, let what reads `x` read the result: the same tensor, by its newer name."""
    order = {node: i for i, node in enumerate(facts)}
    for node, fact in facts.items():
        source = fact.overwrites
        if source is not None and source.op != "get_attr":
            for user in [u for u in source.users if order[u] > order[node]]:
                user.replace_input_with(source, node)


# Buffers, which a forward may write on or replace

Buffers = list[tuple[nn.Module, dict[str, Tensor | None]]]


def buffers(module: nn.Module) -> Buffers:
    """Copies of the buffers of each submodule, by name."""
    return _cloned([(part, part._buffers) for part in module.modules()])


def restore(initial: Buffers) -> None:
    """Set buffers to what they were, also where a forward has put other tensors in their place."""
    for part, tensors in _cloned(initial):
        part._buffers.clear()
        part._buffers.update(tensors)


def _cloned(tables: Buffers) -> Buffers:
    fresh: dict[int, Tensor | None] = {id(None): None}  # a tensor of two names stays one
    return [
        (part, {k: fresh.setdefault(id(b), b if b is None else b.clone()) for k, b in tensors.items()})
        for part, tensors in tables
    ]


def _pairs(module: nn.Module, initial: Buffers) -> Iterator[tuple[str, Tensor, Tensor | None]]:
    """Name, what it was and what it is, of each buffer that there was."""
    names = {part: f"{path}." if path else "" for path, part in module.named_modules()}
    for part, tensors in initial:
        for name, before in tensors.items():
            if before is not None:
                yield names[part] + name, before, part._buffers.get(name)


def hold_constants(module: nn.Module, constants: dict[str, Tensor]) -> None:
    """Let `module` carry tensors that a trace kept, as buffers that its state_dict omits."""
    device = next((p.device for p in module.parameters()), None)
    for name, tensor in constants.items():
        module.register_buffer(name, tensor.detach().to(device, copy=True), persistent=False)


# Gradients: tracers see what a forward computes, and nothing of what it says of gradients


def differing_gradients(
    module: nn.Module, whole: Callable[[], Tensor], pieces: Callable[[], Tensor]
) -> frozenset[str]:
    """Names of the parameters whose gradient is another one in `pieces` than in `whole`, such as those
    before an `autograd.Function` with a backward of its own, or in a block of `no_grad`.

    None where the two draw other random numbers, and where either cannot be differentiated: that shows
    when it trains.

    Args:
        module: Has the parameters; each run begins with the buffers that it has now.
        whole: One way to its logits `[B, classes]`.
        pieces: The other. Gradients are only taken where other steps lead to them.
    """
    initial = buffers(module)

    def seeded_run(run: Callable[[], Tensor]) -> Tensor:
        restore(initial)
        reseed(_SEED)
        return run()

    with torch.enable_grad():
        try:
            a, b = seeded_run(whole), seeded_run(pieces)
            if a.dtype not in (torch.float32, torch.float64) or _backward_steps(a) == _backward_steps(b):
                return frozenset()
            if bool((a - b).abs().max() > 1e-3 * a.abs().max()):
                return frozenset()
            named = module.named_parameters(remove_duplicate=False)
            trained = {name: p for name, p in named if p.requires_grad}
            pairs = zip(*(_gradients(y, list(trained.values())) for y in (a, b)), strict=True)
        except Exception:  # whatever the user's code raises
            return frozenset()
    norms = [(float(g.norm()), float(h.norm()), float((g - h).norm())) for g, h in pairs]
    least = _LEAST * max((max(g, h) for g, h, _ in norms), default=0.0)
    return frozenset(
        name
        for name, (g, h, apart) in zip(trained, norms, strict=True)
        if max(g, h) > least and apart > _APART * max(g, h)
    )


def _backward_steps(logits: Tensor) -> Counter[tuple[str, int]]:
    """How often each kind of step is taken back from the logits, and each parameter reached."""
    steps, waiting = dict[Any, None](), [logits.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is not None and step not in steps:
            steps[step] = None
            waiting += [before for before, _ in step.next_functions]
    return Counter((type(step).__name__, id(getattr(step, "variable", None))) for step in steps)


def _gradients(logits: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Of the logits in one direction; zeros where none arrives."""
    if not logits.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    reseed(_SEED)
    gradients = torch.autograd.grad(logits, parameters, torch.randn_like(logits), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
