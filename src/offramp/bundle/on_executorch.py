"""The stages of a bundle in ExecuTorch, on its XNNPACK kernels: what phones and boards run.

It goes into the bundle as it is, beside run.py. ExecuTorch's Python needs torch; its C++, Kotlin and
Swift do not. A stage takes one image, so that a device plans memory for one.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what it tells at each start, in C++ and in Python: of the processor, of its threads,
    that its Python is experimental. Errors are raised, not written."""
    sys.stderr.flush()
    before = os.dup(2)
    with Path(os.devnull).open("wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)


with _quiet():
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
    from executorch.runtime import Runtime
    from executorch.version import __version__

VERSION: str = __version__


class ExecuTorchSession:
    """A program, loaded; called as a session of onnxruntime is, for images one after another."""

    def __init__(self, path: Path, threads: int) -> None:
        with _quiet():
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
        rows = []
        for row in range(len(tensors[0])):
            outputs = self._method.execute([tensor[row : row + 1] for tensor in tensors])
            rows.append([output.numpy().copy() for output in outputs])  # the next run writes there again
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def _tensor(name: str, about: Any) -> SimpleNamespace:
    return SimpleNamespace(name=name, shape=[None, *about.sizes()[1:]])


def session(path: Path, threads: int) -> ExecuTorchSession:
    """A stage, loaded: a file, and how many threads run it."""
    return ExecuTorchSession(path, threads)
