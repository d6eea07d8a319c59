"""One module as two graphs of named operations: what it does in train mode and in eval mode."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import torch
import torchvision
from timm.layers import (  # type: ignore[attr-defined]
    get_notrace_functions,
    get_notrace_modules,
)
from torch import Tensor, fx, nn

from offramp.errors import OfframpError

_ROOT = "module"


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


def trace(module: nn.Module) -> Traced:
    """The operations of `module` in the mode it is in, without running it.

    Raises OfframpError when the module does what cannot be traced, naming the submodule that does.
    """
    root = _OneInput(module)
    tracer = _PathTracer()
    buffers = {name: (b, b._version) for name, b in module.named_buffers()}
    before = torch.get_rng_state()
    try:
        graph = tracer.trace(root)
    except Exception as error:
        raise _untraceable(module, tracer.stopped, error) from error
    if not torch.equal(before, torch.get_rng_state()):
        raise _untraceable(module, "", "it draws random numbers whose shape the input does not set")
    written = [name for name, (b, version) in buffers.items() if b._version != version]
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
class _OneInput(nn.Module):
    """Calls the module with the images only, so that its other arguments take their defaults."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Any) -> Any:
        return self.module(x)


@final
class _PathTracer(fx.Tracer):
    """fx's own tracer, which also notes where each operation comes from (fx asks for a subclass).

    Does not look inside the modules of torch, nor inside what timm and torchvision mark as opaque.
    """

    # Otherwise an in-place update of a buffer (a counter of batches) happens while tracing, once.
    proxy_buffer_attributes = True

    def __init__(self) -> None:
        super().__init__(
            autowrap_modules=(math, torchvision.ops),  # type: ignore[arg-type]
            autowrap_functions=tuple(get_notrace_functions()),  # type: ignore[no-untyped-call]
        )
        self.path = ""
        self.scopes: dict[fx.Node, str] = {}
        self.ends: dict[str, fx.Node] = {}
        self.stopped = ""
        # Taken now: while tracing, the names in torchvision.ops stand for wrapped functions.
        ops = torchvision.ops
        opaque = get_notrace_modules()  # type: ignore[no-untyped-call]
        self._leaves = (*opaque, ops.StochasticDepth, ops.DropBlock2d)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name == _ROOT:
            return False
        return isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
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
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)
    return name.strip("_")


def _untraceable(module: nn.Module, path: str, reason: object) -> OfframpError:
    path = path.removeprefix(_ROOT).removeprefix(".")
    kind = type(module.get_submodule(path)).__name__
    where = f"its submodule '{path}' ({kind})" if path else "its own forward"
    first = str(reason).strip().splitlines()[0] if str(reason).strip() else repr(reason)
    return OfframpError(
        f"{type(module).__name__} cannot be cut, because {where} stops the trace: {first}; "
        "give offramp.attach the segments as lists of submodule names in execution order, one list "
        "per segment and a last one for the classifier"
    )
