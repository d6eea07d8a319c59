"""One module as two graphs of named operations, of train mode and of eval mode, and what each operation
does when it runs: shapes, work, aliases, random draws."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from offramp.device import random_state
from offramp.errors import OfframpError
from offramp.nets.cut.calling import Called, Way
from offramp.nets.macs import count_macs

_ROOT = "module"
_BATCHES = (2, 3)


@dataclass(frozen=True, eq=False)
class Traced:
    """What a module does in one mode.

    graph: the operations in the order they run. Targets are paths from the module itself. The only
        placeholder is the batch of images.
    names: for each operation, its path in the module; `#1`, `#2`, … tell repeated calls apart.
    kinds: for each operation, the name of its module's class or of its function, in lower case.
    ends: for each submodule that ran, the operation that made its (last) output.
    constants: tensors that the trace had to keep, by the name of the `get_attr` that reads them.
    """

    graph: fx.Graph
    names: dict[fx.Node, str]
    kinds: dict[fx.Node, str]
    ends: dict[str, fx.Node]
    constants: dict[str, Tensor]

    @cached_property
    def named(self) -> dict[str, fx.Node]:
        """Operations by name; the name of a submodule means the end of its last call."""
        return {name: node for node, name in self.names.items()} | self.ends


class Untraceable(OfframpError):
    """A module that does what a tracer does not follow."""


def trace(module: nn.Module, way: Way, images: Tensor | None = None) -> Traced:  # noqa: ARG001
    """The operations of `module` in the mode it is in, without running it.

    Raises Untraceable when the module does what cannot be traced, naming the submodule that does.
    """
    root = Called(module, way)
    tracer = _PathTracer()
    parts = dict(module.named_modules())
    buffers = {path: dict(part._buffers) for path, part in parts.items()}
    versions = {name: (b, b._version) for name, b in module.named_buffers()}
    before = torch.get_rng_state()
    try:
        graph = tracer.trace(root)
    except Exception as error:
        raise _untraceable(module, tracer.stopped, error) from error
    if not torch.equal(before, torch.get_rng_state()):
        raise _untraceable(module, "", "it draws random numbers whose shape the input does not set")
    written = [name for name, (b, version) in versions.items() if b._version != version]
    for path, part in parts.items():
        for leaf, tensor in buffers[path].items():
            value = part._buffers[leaf]
            name = f"{path}.{leaf}" if path else leaf
            part._buffers[leaf] = tensor
            if isinstance(value, fx.Proxy) and tensor is not None:
                _keep(value.node, name, tracer)
            elif value is not tensor and isinstance(value, Tensor):
                written.append(name)
    if written:
        raise _untraceable(module, written[0].rpartition(".")[0], f"it writes on {written[0]}")
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = node.target.removeprefix(_ROOT + ".")
    kept = root.__dict__ | root._buffers
    constants = {}
    for node in graph.nodes:
        if node.op == "get_attr" and node.target in kept:
            tensor = kept[node.target]
            node.target = f"_{'train' if module.training else 'eval'}{node.target}"
            constants[node.target] = tensor
    scopes = {n: s.removeprefix(_ROOT).removeprefix(".") for n, s in tracer.scopes.items()}
    ends = {p.removeprefix(_ROOT + "."): n for p, n in tracer.ends.items() if p not in ("", _ROOT)}
    return traced(module, graph, scopes, ends, constants)


def _keep(value: fx.Node, buffer: str, tracer: _PathTracer) -> None:
    """Write on a buffer what a forward sets it to, and let the rest read it there: so it is kept, and
    crosses no cut."""
    graph, name = value.graph, f"{_ROOT}.{buffer}"
    with graph.inserting_after(value):
        after = graph.get_attr(name)
    value.replace_all_uses_with(after)
    with graph.inserting_before(after):
        writes = graph.call_method("copy_", (graph.get_attr(name), value))
    tracer.scopes[writes] = tracer.scopes[value]


def traced(
    module: nn.Module,
    graph: fx.Graph,
    scopes: dict[fx.Node, str],
    ends: dict[str, fx.Node],
    constants: dict[str, Tensor],
) -> Traced:
    """The operations of a graph by name. scopes: the path of the module that each was called in."""
    kinds = {node: _kind(module, node) for node in graph.nodes}
    return Traced(graph, _names(graph, scopes), kinds, ends, constants)


def compiled(graph: fx.Graph) -> Callable[..., Any]:
    """The graph as a function of the module that it is rooted on and of its placeholders.

    Parameters and buffers are looked up on the module at every call, so moving the module to
    another device, or running the function on another instance, needs no new function.
    """
    graph.lint()
    code = graph.python_code("self")
    namespace = dict(code.globals)
    exec(compile(code.src, "<part of a traced module>", "exec"), namespace)
    function: Callable[..., Any] = namespace["forward"]
    return function


@final
class _PathTracer(fx.Tracer):
    """fx's own tracer, which also notes where each operation comes from (fx asks for a subclass).

    Does not look inside the modules of torch, nor inside what timm and torchvision mark as opaque: a
    network made of their parts has imported them, and none else needs to wait for it.
    """

    # Otherwise an in-place update of a buffer (a counter of batches) happens while tracing, once.
    proxy_buffer_attributes = True

    def __init__(self) -> None:
        ops, layers = sys.modules.get("torchvision.ops"), sys.modules.get("timm.layers")
        super().__init__(
            autowrap_modules=(math, ops) if ops else (math,),  # type: ignore[arg-type]
            autowrap_functions=tuple(layers.get_notrace_functions()) if layers else (),
        )
        self.path = ""
        self.scopes: dict[fx.Node, str] = {}
        self.ends: dict[str, fx.Node] = {}
        self.stopped = ""
        # Taken now: while tracing, the names in torchvision.ops stand for wrapped functions.
        opaque = layers.get_notrace_modules() if layers else ()
        self._leaves = (*opaque, *((ops.StochasticDepth, ops.DropBlock2d) if ops else ()))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name == _ROOT:
            return False
        return isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        caller, self.path = self.path, self.path_of_module(m)
        path = self.path
        try:
            out = super().call_module(m, forward, args, kwargs)
        except Exception:
            self.stopped = self.stopped or path
            raise
        finally:
            self.path = caller
        if isinstance(out, fx.Proxy):
            self.ends[path] = out.node
        return out

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        self.scopes[node] = self.path
        return node


def _names(graph: fx.Graph, scopes: dict[fx.Node, str]) -> dict[fx.Node, str]:
    """`layer1.0.conv1` for a leaf module, `layer1.0.add` for a function that `layer1.0` calls."""
    plain = {}
    for node in graph.nodes:
        if node.op == "call_module":
            plain[node] = str(node.target)
        elif node.op in ("call_function", "call_method"):
            plain[node] = ".".join(filter(None, (scopes[node], _function(node))))
    repeated = Counter(plain.values())
    count: Counter[str] = Counter()
    names = {}
    for node, name in plain.items():
        count[name] += 1
        names[node] = f"{name}#{count[name]}" if repeated[name] > 1 else name
    return names


def _kind(module: nn.Module, node: fx.Node) -> str:
    if node.op == "call_module":
        return type(module.get_submodule(str(node.target))).__name__.lower()
    return _function(node) if node.op in ("call_function", "call_method") else node.op


def _function(node: fx.Node) -> str:
    target = getattr(node.target, "overloadpacket", node.target)  # of ATen's: `relu` of `relu.default`
    name = target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)
    return name.strip("_")


def _untraceable(module: nn.Module, path: str, reason: object) -> Untraceable:
    path = path.removeprefix(_ROOT).removeprefix(".")
    kind = type(module.get_submodule(path)).__name__
    where = f"its submodule '{path}' ({kind})" if path else "its own forward"
    first = str(reason).strip().splitlines()[0] if str(reason).strip() else repr(reason)
    return Untraceable(
        f"{type(module).__name__} cannot be cut, because {where} stops the trace: {first}"
    )


@dataclass(frozen=True)
class Observed:
    """What one operation did, seen on a batch of two images and on a batch of three.

    shape: of its output without the batch `[...]`, where that is a floating tensor `[B, ...]`.
    tensor: whether the output is a tensor.
    value: what a later segment computes the output from when it is not a tensor, see `scaled`.
    macs: multiply-accumulates for one image.
    random: it moved the global generator.
    untouched: the input whose very tensor it returns, unchanged (identity, dropout in eval mode).
    overwrites: the input whose very tensor it returns after writing on it (`relu_`).
    writes: storages that it wrote on; storage: the one its output lives in. Numbers of one run.
    rows: whether the output is a tensor with a row for each image.
    fixed: whether it is a tensor that sizes and constants alone decide, such as a causal mask: the same
        for every batch, so it can be made again anywhere.
    """

    shape: tuple[int, ...] | None
    tensor: bool
    value: Any
    macs: int
    random: bool
    untouched: fx.Node | None
    overwrites: fx.Node | None
    writes: frozenset[int]
    storage: int | None
    rows: bool
    fixed: bool


@dataclass(frozen=True)
class PerImage:
    """A whole number that is `factor` times the batch size."""

    factor: int


UNKNOWN = object()


def observe(
    graph: fx.Graph, module: nn.Module, batches: tuple[Tensor, Tensor]
) -> tuple[dict[fx.Node, Observed], Tensor]:
    """Facts on every operation, and the output on the first batch.

    graph: rooted on `module`, whose buffers the run updates as a forward pass does.
    batches: two and three images, `[2, C, H, W]` and `[3, C, H, W]`.
    """
    two, three = (_run(graph, module, x) for x in batches)
    count = len(batches[0])
    fixed = _fixed(two, three)
    facts = {}
    for node, seen in two.items():
        a, b = seen.output, three[node].output
        facts[node] = Observed(
            shape=_per_image(a, b),
            tensor=isinstance(a, Tensor),
            value=UNKNOWN if isinstance(a, Tensor) else scaled(a, b),
            macs=round(seen.macs / count),
            random=seen.random or three[node].random,
            untouched=None if seen.writes else seen.returns,
            overwrites=seen.returns if seen.writes else None,
            writes=seen.writes,
            storage=_storage(a) if isinstance(a, Tensor) else None,
            rows=isinstance(a, Tensor) and a.ndim > 0 and (len(a), len(b)) == _BATCHES,
            fixed=node in fixed,
        )
    output = next(n for n in graph.nodes if n.op == "output")
    return facts, two[output].output


def _fixed(two: dict[fx.Node, _Seen], three: dict[fx.Node, _Seen]) -> set[fx.Node]:
    """The operations whose output sizes and constants alone decide; weights may train, and are none."""
    written = frozenset[int]().union(*(seen.writes for seen in two.values()))

    def constant(node: fx.Node) -> bool:
        made = two[node].output
        if not isinstance(made, Tensor):
            return scaled(made, three[node].output) is not UNKNOWN
        kept = node.op == "get_attr" and not isinstance(made, nn.Parameter)
        return node in found or (kept and _storage(made) not in written)

    found = set[fx.Node]()
    for node, seen in two.items():
        a, b = seen.output, three[node].output
        if (
            node.op in ("call_function", "call_method")
            and isinstance(a, Tensor)
            and not (seen.random or seen.writes or _storage(a) in written)
            and all(map(constant, node.all_input_nodes))
            and torch.equal(a, b)
        ):
            found.add(node)
    return found


def scaled(two: Any, three: Any) -> Any:
    """The rule behind a value that is not a tensor, from its values on two images and on three.

    A constant stays, a multiple of the batch size becomes `PerImage`, a tuple holds rules; anything
    else is `UNKNOWN`.
    """
    if isinstance(two, (tuple, list)) and isinstance(three, (tuple, list)):
        rules = tuple(scaled(a, b) for a, b in zip(two, three, strict=False))
        return rules if UNKNOWN not in rules and len(two) == len(three) else UNKNOWN
    if isinstance(two, (int, float, str, torch.dtype, type(None))) and two == three:
        return two
    if type(two) is int and type(three) is int and two % 2 == 0 and two // 2 * 3 == three:
        return PerImage(two // 2)
    if isinstance(two, torch.device):
        return two
    return UNKNOWN


@dataclass(frozen=True)
class _Seen:
    output: Any
    macs: int
    random: bool
    writes: frozenset[int]
    returns: fx.Node | None


def _run(graph: fx.Graph, module: nn.Module, x: Tensor) -> dict[fx.Node, _Seen]:
    # Every value is kept to the end, so that no two storages have the same address.
    machine = fx.Interpreter(module, garbage_collect_values=False, graph=graph)
    machine.args_iter = iter((x,))
    seen = {}
    for node in graph.nodes:
        read = [t for n in node.all_input_nodes for t in _tensors(machine.env[n])]
        versions = [t._version for t in read]
        before = random_state(x.device)
        output, macs = count_macs(partial(machine.run_node, node))
        machine.env[node] = output
        seen[node] = _Seen(
            output=output,
            macs=macs,
            random=not all(map(torch.equal, before, random_state(x.device))),
            writes=frozenset(
                _storage(t) for t, v in zip(read, versions, strict=True) if t._version != v
            ),
            returns=next((n for n in node.all_input_nodes if machine.env[n] is output), None)
            if isinstance(output, Tensor)
            else None,
        )
    return seen


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _per_image(two: Any, three: Any) -> tuple[int, ...] | None:
    """The shape without the batch, where both are floating tensors with the batch in front."""
    if not (isinstance(two, Tensor) and isinstance(three, Tensor) and two.is_floating_point()):
        return None
    batched = two.ndim > 1 and (two.shape[0], three.shape[0]) == _BATCHES
    return tuple(two.shape[1:]) if batched and two.shape[1:] == three.shape[1:] else None
