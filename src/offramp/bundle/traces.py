"""What PyTorch's exporter leaves in a graph of the machine that made it: with every node a traceback, of
paths and lines of source."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from offramp.errors import OfframpError

if TYPE_CHECKING:
    import onnx_ir

KEY = "pkg.torch.onnx.stack_trace"  # of a node's metadata


def remove(model: onnx_ir.Model) -> None:
    """Take them out of a graph."""
    graphs: list[onnx_ir.Graph | onnx_ir.Function] = [model.graph, *model.functions.values()]
    for graph in graphs:
        for node in graph.all_nodes():
            node.metadata_props.pop(KEY, None)


def remove_from(file: Path) -> None:
    """Take them out of a graph's file, where it has any. Raises OfframpError where what that takes is
    not installed."""
    if KEY.encode() not in file.read_bytes():
        return
    if importlib.util.find_spec("onnx_ir") is None:
        raise OfframpError(
            f"{file.name} names folders of this machine, and removing them needs onnx_ir; install with: "
            "pip install 'offramp[onnx]'"
        )
    import onnx_ir

    model = onnx_ir.load(file)
    remove(model)
    onnx_ir.save(model, file)
