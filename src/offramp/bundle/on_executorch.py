"""The stages of a bundle in ExecuTorch, on its XNNPACK kernels: what phones and boards run.

It goes into the bundle as it is, beside run.py. ExecuTorch's Python needs torch; its C++, Kotlin and
Swift do not. A stage takes one image, so that a device plans memory for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
from executorch.runtime import Runtime
from executorch.version import __version__

VERSION: str = __version__


class ExecuTorchSession:
    """A program, loaded; called as a session of onnxruntime is, for one image."""

    def __init__(self, path: Path, threads: int) -> None:
        _unsafe_reset_threadpool(threads)  # of the process: stages share its threads
        self._program = Runtime.get().load_program(path)  # the method points into it
        self._method = self._program.load_method("forward")

    def get_inputs(self) -> list[SimpleNamespace]:
        about = self._method.metadata
        return [_tensor(f"in_{i}", about.input_tensor_meta(i)) for i in range(about.num_inputs())]

    def get_outputs(self) -> list[SimpleNamespace]:
        about = self._method.metadata
        return [_tensor(f"out_{i}", about.output_tensor_meta(i)) for i in range(about.num_outputs())]

    def run(self, _: None, values: Mapping[str, Any]) -> list[Any]:
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in values.values()]
        outputs = self._method.execute(tensors)
        return [output.numpy().copy() for output in outputs]  # the next run writes there again


def _tensor(name: str, about: Any) -> SimpleNamespace:
    return SimpleNamespace(name=name, shape=list(about.sizes()))


session = ExecuTorchSession  # what run.py calls: a file, and how many threads run it
