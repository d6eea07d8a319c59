"""One mode of a module as a graph of named operations.

`fx` traces first. Where it stops, such as at a choice that depends on sizes, `torch.export` runs the
module's Python, so that sizes are numbers and whatever depends on them is decided. Where both stop, a
user lists submodules; `listing_remedy` says which.
"""

from __future__ import annotations

import copy
import logging
import math
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from itertools import pairwise
from typing import Any, final

import torch
from torch import Tensor, fx, nn

from offramp.errors import OfframpError
from offramp.nets.cut.calling import Called, CallStyle, call_style

_ROOT = "module"  # the name of the traced module in `Called`; names of operations in keys begin with it
CHAIN_LENGTH = 3  # submodules that make a chain worth cutting


@dataclass(frozen=True, eq=False)
class Traced:
    """What a module does in one mode."""

    # the operations in the order they run. Targets are paths from the module itself. The only
    # placeholder is the batch of images
    graph: fx.Graph
    # for each operation, its path in the module; `#1`, `#2`, … number repeated calls
    names: dict[fx.Node, str]
    # for each operation, the name of its module's class or of its function, in lower case
    kinds: dict[fx.Node, str]
    ends: dict[str, fx.Node]  # for each submodule that ran, the operation that made its (last) output
    # tensors that the trace had to keep, by the name of the `get_attr` that reads them
    constants: dict[str, Tensor]

    @cached_property
    def named(self) -> dict[str, fx.Node]:
        """Operations by name; the name of a submodule means the end of its last call."""
        return {name: node for node, name in self.names.items()} | self.ends


class Untraceable(OfframpError):
    """A module that does what a tracer does not follow."""


def compiled(graph: fx.Graph) -> Callable[..., Any]:
    """The graph as a function of the module that it is rooted on and of its placeholders."""
    # Parameters and buffers are looked up on the module at every call, so moving the module to
    # another device, or running the function on another instance, needs no new function.
    graph.lint()
    code = graph.python_code("self")
    namespace = dict(code.globals)
    exec(compile(code.src, "<part of a traced module>", "exec"), namespace)
    function: Callable[..., Any] = namespace["forward"]
    return function


# By fx


def trace(module: nn.Module, style: CallStyle, images: Tensor | None = None) -> Traced:  # noqa: ARG001
    """The operations of `module` in the mode it is in, without running it.

    Raises:
        Untraceable: When the module does what cannot be traced, naming the submodule that does.
    """
    root = Called(module, style)
    tracer = _PathTracer()
    buffers = {path: dict(part._buffers) for path, part in module.named_modules()}
    versions = {name: (b, b._version) for name, b in module.named_buffers()}
    generator_state = torch.get_rng_state()
    try:
        graph = tracer.trace(root)
    except Exception as error:
        raise _untraceable(module, tracer.stopped_in, error) from error
    if not torch.equal(generator_state, torch.get_rng_state()):
        raise _untraceable(module, "", "it draws random numbers whose shape the input does not set")
    # Tracing runs the module's Python, which may have written on buffers, or replaced them by a proxy.
    written = [name for name, (b, version) in versions.items() if b._version != version]
    for path, part in module.named_modules():
        for leaf, tensor in buffers[path].items():
            value = part._buffers[leaf]
            name = f"{path}.{leaf}" if path else leaf
            part._buffers[leaf] = tensor
            if isinstance(value, fx.Proxy) and tensor is not None:
                _write_buffer(value.node, name, tracer)
            elif value is not tensor and isinstance(value, Tensor):
                written.append(name)
    if written:
        raise _untraceable(module, written[0].rpartition(".")[0], f"it writes on {written[0]}")
    constants = {}
    mode = "train" if module.training else "eval"
    own = root.__dict__ | root._buffers  # where fx puts tensors that the forward makes
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = node.target.removeprefix(_ROOT + ".")
        if node.op == "get_attr" and node.target in own:
            tensor = own[node.target]
            node.target = f"_{mode}{node.target}"
            constants[node.target] = tensor
    scopes = {n: s.removeprefix(_ROOT).removeprefix(".") for n, s in tracer.scopes.items()}
    ends = {p.removeprefix(_ROOT + "."): n for p, n in tracer.ends.items() if p not in ("", _ROOT)}
    return _traced(module, graph, scopes, ends, constants)


def _write_buffer(value: fx.Node, buffer: str, tracer: _PathTracer) -> None:
    """Write on a buffer what a forward sets it to, and let the rest read it there: so it is kept, and
    crosses no cut."""
    graph, name = value.graph, f"{_ROOT}.{buffer}"
    with graph.inserting_after(value):
        after = graph.get_attr(name)
    value.replace_all_uses_with(after)
    with graph.inserting_before(after):
        writes = graph.call_method("copy_", (graph.get_attr(name), value))
    tracer.scopes[writes] = tracer.scopes[value]


@final
class _PathTracer(fx.Tracer):
    """fx's own tracer, which also notes where each operation comes from (fx asks for a subclass).

    Does not look inside the modules of torch, nor inside what timm and torchvision mark as opaque: a
    network made of their parts has imported them, and none else needs to wait for it.
    """

    # Otherwise an in-place update of a buffer (a counter of batches) happens while tracing, once.
    proxy_buffer_attributes = True

    def __init__(self) -> None:
        ops, timm_layers = sys.modules.get("torchvision.ops"), sys.modules.get("timm.layers")
        modules: Any = (math, ops) if ops else (math,)  # torch before 2.15 types it as one module
        super().__init__(
            autowrap_modules=modules,
            autowrap_functions=tuple(timm_layers.get_notrace_functions()) if timm_layers else (),
        )
        self.path = ""
        self.scopes: dict[fx.Node, str] = {}
        self.ends: dict[str, fx.Node] = {}
        self.stopped_in = ""
        # Taken now: while tracing, the names in torchvision.ops stand for wrapped functions.
        opaque = timm_layers.get_notrace_modules() if timm_layers else ()
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
            self.stopped_in = self.stopped_in or path
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


def _untraceable(module: nn.Module, path: str, reason: object) -> Untraceable:
    path = path.removeprefix(_ROOT).removeprefix(".")
    kind = type(module.get_submodule(path)).__name__
    where = f"its submodule '{path}' ({kind})" if path else "its own forward"
    first = str(reason).strip().splitlines()[0] if str(reason).strip() else repr(reason)
    return Untraceable(
        f"{type(module).__name__} cannot be cut, because {where} stops the trace: {first}"
    )


# By torch.export


def export(module: nn.Module, style: CallStyle, images: Tensor) -> Traced:
    """The operations of `module` in the mode it is in, those of ATen, for images of this size in batches
    of any. Raises whatever `torch.export` does where control flow depends on values, or the batch's
    size."""
    batch = torch.export.Dim("batch")
    with quiet():
        program = torch.export.export(
            Called(module, style), (images,), dynamic_shapes=({0: batch},), strict=False
        ).module()
    assert isinstance(program, fx.GraphModule)
    graph, scopes, constants = fx.Graph(), dict[fx.Node, str](), dict[str, Tensor]()
    copies: dict[fx.Node, fx.Node] = {}
    mode = "train" if module.training else "eval"

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:  # a tensor of the module, where it is read first
            name = str(node.target)
            if not name.startswith(f"{_ROOT}."):
                constants[f"_{mode}_{name}"] = attribute(program, name)
                name = f"_{mode}_{name}"
            copies[node] = graph.get_attr(name.removeprefix(f"{_ROOT}."))
        return copies[node]

    for node in program.graph.nodes:
        if node.op == "placeholder":
            copies[node] = graph.placeholder("x")
        elif node.op == "call_function" and not (_checks_sizes(node) and not node.users):
            copies[node] = graph.node_copy(node, copied)
            copies[node].meta = {}
            scopes[copies[node]] = _innermost_module(node)
    (logits,) = next(n for n in program.graph.nodes if n.op == "output").all_input_nodes
    graph.output(copied(logits))
    return _traced(module, graph, scopes, _module_ends(scopes), constants)


def attribute(module: nn.Module, name: str) -> Any:
    """What the dotted `name` stands for; None where nothing does."""
    path, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(path), leaf, None)


def _checks_sizes(node: fx.Node) -> bool:
    """Whether it only asserts something of sizes."""
    name = str(node.target)
    return "assert" in name or "_check" in name or "sym_constrain" in name


def _innermost_module(node: fx.Node) -> str:
    """The path of the innermost module that the operation was called in."""
    paths = [str(path) for path, *_ in (node.meta.get("nn_module_stack") or {}).values()]
    inner = [path.removeprefix(f"{_ROOT}.") for path in paths if path.startswith(f"{_ROOT}.")]
    return inner[-1] if inner else ""


def _module_ends(scopes: dict[fx.Node, str]) -> dict[str, fx.Node]:
    """For each module, the last of its operations that is read outside of it."""
    ends = {}
    for node, scope in scopes.items():
        steps = scope.split(".") if scope else []
        for n in range(1, len(steps) + 1):
            path = ".".join(steps[:n])
            if any(not f"{scopes.get(user, '')}.".startswith(f"{path}.") for user in node.users):
                ends[path] = node
    return ends


@contextmanager
def quiet() -> Iterator[None]:
    """While the block runs, a tracer that fails prints and logs nothing."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


# Names


def _traced(
    module: nn.Module,
    graph: fx.Graph,
    scopes: dict[fx.Node, str],
    ends: dict[str, fx.Node],
    constants: dict[str, Tensor],
) -> Traced:
    """The operations of a graph by name. scopes: the path of the module that each was called in.

    A leaf module is `layer1.0.conv1`, a function that `layer1.0` calls `layer1.0.add`.
    """
    names, kinds = dict[fx.Node, str](), dict[fx.Node, str]()
    for node in graph.nodes:
        if node.op == "call_module":
            names[node] = str(node.target)
            kinds[node] = type(module.get_submodule(names[node])).__name__.lower()
        elif node.op in ("call_function", "call_method"):
            kinds[node] = _function(node)
            names[node] = ".".join(filter(None, (scopes[node], kinds[node])))
        else:
            kinds[node] = node.op
    total, count = Counter(names.values()), Counter[str]()
    for node, name in names.items():
        count[name] += 1
        names[node] = f"{name}#{count[name]}" if total[name] > 1 else name
    return Traced(graph, names, kinds, ends, constants)


def _function(node: fx.Node) -> str:
    target = getattr(node.target, "overloadpacket", node.target)  # of ATen's: `relu` of `relu.default`
    name = target if isinstance(target, str) else getattr(target, "__name__", type(target).__name__)
    return name.strip("_")


# Where neither follows


@dataclass(frozen=True, eq=False)
class _Call:
    """A call of a submodule, seen by a hook."""

    name: str
    inputs: tuple[Any, ...]
    output: Any


def chain(module: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Submodules of which each takes what the one before it gave, from the images `[B, C, H, W]` to the
    logits, in eval mode; none where something else happens between them."""
    probe = copy.deepcopy(module).eval()
    calls: list[_Call] = []  # in the order they end

    def note(name: str) -> Any:
        return lambda _, inputs, output: calls.append(_Call(name, inputs, output))

    for name, part in probe.named_modules():
        if name:
            part.register_forward_hook(note(name))
    with torch.no_grad():
        style, _ = call_style(probe, images)
        calls.clear()
        x = images.clone()
        logits = style(probe, x)
    links = _links(calls, x, logits, "")
    while 0 < len(links) < CHAIN_LENGTH:  # look inside, such as one module that wraps all
        finer = [_links(calls, c.inputs[0], c.output, f"{c.name}.") or [c] for c in links]
        if all(len(inner) == 1 for inner in finer):
            break
        links = [call for inner in finer for call in inner]
    return tuple(call.name for call in links)


def _links(calls: list[_Call], start: Tensor, end: Any, prefix: str) -> list[_Call]:
    """The outermost calls under a prefix that lead from one tensor to another; empty where they do
    not."""
    links, x = [], start
    for call in calls:
        if call.name.startswith(prefix) and "." not in call.name.removeprefix(prefix):
            if len(call.inputs) != 1 or call.inputs[0] is not x:
                return []
            links.append(call)
            x = call.output
    return links if x is end else []


def listing_remedy(module: nn.Module, images: Tensor) -> str:
    """How to cut a module that cannot be traced: with its own submodules, where these make it up."""
    lists = (
        "give the segments as lists of submodule names in execution order, one list per segment and a "
        "last one for the classifier"
    )
    names = chain(module, images)
    if len(names) < 2:
        return f"make each step of its forward a submodule, then {lists}"
    *trunk, last = names
    count = min(3, len(trunk))
    cuts = [round(i * len(trunk) / count) for i in range(count + 1)]
    rows = [*(trunk[a:b] for a, b in pairwise(cuts)), [last]]
    # As YAML reads them: a bare number would be one.
    quoted = [[f"'{name}'" if name.isdecimal() else name for name in row] for row in rows]
    listed = ", ".join(f"[{', '.join(row)}]" for row in quoted)
    return f"{lists}: exits: [{listed}]"
