"""The second tracer, `torch.export`: it runs the module's Python, so that sizes are numbers and whatever
depends on them is decided."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

import torch
from torch import Tensor, fx, nn

from offramp.nets.cut.calling import Called, Way
from offramp.nets.cut.trace import Traced, traced

_ROOT = "module."


def export(module: nn.Module, way: Way, images: Tensor) -> Traced:
    """The operations of `module` in the mode it is in, those of ATen, for images of this size in batches
    of any.

    Raises whatever `torch.export` does where control flow depends on values, or the size of a batch.
    """
    batch = torch.export.Dim("batch")
    with quiet():
        program = torch.export.export(
            Called(module, way), (images,), dynamic_shapes=({0: batch},), strict=False
        ).module()
    assert isinstance(program, fx.GraphModule)
    graph, scopes, constants = fx.Graph(), dict[fx.Node, str](), dict[str, Tensor]()
    copies: dict[fx.Node, fx.Node] = {}
    mode = "train" if module.training else "eval"

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies:  # a tensor of the module, where it is read first
            name = str(node.target)
            if not name.startswith(_ROOT):
                constants[f"_{mode}_{name}"] = _held(program, name)
                name = f"{_ROOT}_{mode}_{name}"
            copies[node] = graph.get_attr(name.removeprefix(_ROOT))
        return copies[node]

    for node in program.graph.nodes:
        if node.op == "placeholder":
            copies[node] = graph.placeholder("x")
        elif node.op == "call_function" and not (_checks(node) and not node.users):
            copies[node] = graph.node_copy(node, copied)
            copies[node].meta = {}
            scopes[copies[node]] = _scope(node)
    (logits,) = next(n for n in program.graph.nodes if n.op == "output").all_input_nodes
    graph.output(copied(logits))
    return traced(module, graph, scopes, _ends(scopes), constants)


def _held(program: fx.GraphModule, name: str) -> Tensor:
    path, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(program.get_submodule(path), leaf)
    return tensor


def _checks(node: fx.Node) -> bool:
    """Whether it only asserts something of sizes."""
    name = str(node.target)
    return "assert" in name or "_check" in name or "sym_constrain" in name


def _scope(node: fx.Node) -> str:
    """The path of the innermost module that the operation was called in."""
    paths = [str(path) for path, *_ in (node.meta.get("nn_module_stack") or {}).values()]
    inner = [path.removeprefix(_ROOT) for path in paths if path.startswith(_ROOT)]
    return inner[-1] if inner else ""


def _ends(scopes: dict[fx.Node, str]) -> dict[str, fx.Node]:
    """For each module, the last of its operations that is read outside of it."""
    found = {}
    for node, scope in scopes.items():
        steps = scope.split(".") if scope else []
        for n in range(1, len(steps) + 1):
            path = ".".join(steps[:n])
            if any(not f"{scopes.get(user, '')}.".startswith(f"{path}.") for user in node.users):
                found[path] = node
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """While the block runs, a tracer that fails prints and logs nothing."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
