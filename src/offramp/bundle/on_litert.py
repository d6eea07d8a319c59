"""The stages of a bundle in LiteRT, on its XNNPACK kernels: what Android and small boards run.

It goes into the bundle as it is, beside run.py, and needs ai-edge-litert and numpy. A stage takes one
image, so that a device plans memory for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

VERSION: str = version("ai-edge-litert")


class LiteRTSession:
    """A program, loaded; called as a session of onnxruntime is, for one image."""

    def __init__(self, path: Path, threads: int) -> None:
        self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
        self._interpreter.allocate_tensors()
        (name,) = self._interpreter.get_signature_list()
        self._runner = self._interpreter.get_signature_runner(name)

    def get_inputs(self) -> list[SimpleNamespace]:
        return _tensors(self._runner.get_input_details())

    def get_outputs(self) -> list[SimpleNamespace]:
        return _tensors(self._runner.get_output_details())

    def run(self, _: None, values: Mapping[str, Any]) -> list[Any]:
        outputs = self._runner(**{name: np.ascontiguousarray(array) for name, array in values.items()})
        return [outputs[tensor.name] for tensor in self.get_outputs()]


def _tensors(details: Mapping[str, Any]) -> list[SimpleNamespace]:
    """In the order of their numbers, which their names end with; LiteRT sorts them as text."""
    names = sorted(details, key=lambda name: int(name.rpartition("_")[2]))
    return [SimpleNamespace(name=name, shape=details[name]["shape"].tolist()) for name in names]


session = LiteRTSession  # what run.py calls: a file, and how many threads run it
