"""The stages of a bundle in OpenVINO: the ONNX graphs, compiled for this processor.

It goes into the bundle as it is, beside run.py, and needs openvino and numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino

VERSION: str = openvino.__version__


class OpenVINOSession:
    """A graph, compiled; called as a session of onnxruntime is."""

    def __init__(self, path: Path, threads: int) -> None:
        # Without the hint it computes in bfloat16 where the processor has it, and answers differ.
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        self._model = openvino.Core().compile_model(str(path), "CPU", settings)
        self._request = self._model.create_infer_request()

    def get_inputs(self) -> list[SimpleNamespace]:
        return [_tensor(port) for port in self._model.inputs]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [_tensor(port) for port in self._model.outputs]

    def run(self, _: None, values: Mapping[str, Any]) -> list[Any]:
        outputs = self._request.infer(dict(values))
        return [np.array(outputs[port]) for port in self._model.outputs]


def _tensor(port: Any) -> SimpleNamespace:
    sizes = [None if size.is_dynamic else size.get_length() for size in port.partial_shape]
    return SimpleNamespace(name=port.get_any_name(), shape=sizes)


session = OpenVINOSession  # what run.py calls: a file, and how many threads run it
