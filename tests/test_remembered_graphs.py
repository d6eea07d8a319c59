"""What the tests remember of exported graphs makes none that the exporter would not make."""

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from offramp.bundle import graphs
from offramp.nets import NetSpec, build
from remembered_graphs import EXPORT


def content(file: Path) -> tuple[Any, ...]:
    """A graph without the names of its nodes, which count them."""
    graph = onnx.load(file).graph
    nodes = [(node.op_type, node.input, node.output, node.attribute) for node in graph.node]
    return nodes, graph.initializer, graph.input, graph.output


def test_a_graph_with_other_weights_is_as_the_exporter_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (stage,) = graphs.layout((0, 0, 0, 0), (1,))

    def exported(seed: int, folder: str) -> tuple[Any, ...]:
        net = build(NetSpec("digits-cnn"), (1, 8, 8), 3, seed).eval()
        assert [each.stage for each in graphs.export(net, (stage,), tmp_path / folder)] == [stage]
        return content(tmp_path / folder / stage.file)

    first, other = exported(1, "one"), exported(2, "other")
    monkeypatch.setattr(torch.onnx, "export", EXPORT)
    assert exported(2, "anew") == other != first
