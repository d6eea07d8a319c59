"""What Triton's server gives its Python models (`triton_python_backend_utils`), for one repository.

Models of onnxruntime are run by it here, by what their `config.pbtxt` says. Where Triton's client is
installed, the server's own protobuf reads that file.
"""

import importlib.util
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime

TYPES = {
    "TYPE_FP32": np.float32,
    "TYPE_INT64": np.int64,
    "TYPE_UINT8": np.uint8,
    "TYPE_STRING": np.object_,
}
TENSOR = r'^{} {{ name: "([^"]+)" data_type: (\w+) dims: \[ ([-\d, ]+) \] }}$'
CALLS: list[tuple[str, int]] = []  # which models were run, and on how many images
RUNNING: dict[str, onnxruntime.InferenceSession] = {}


@dataclass(frozen=True)
class Config:
    """What a `config.pbtxt` says."""

    folder: Path

    @property
    def text(self) -> str:
        return (self.folder / "config.pbtxt").read_text("utf-8")

    def value(self, name: str) -> str:
        (line,) = re.findall(rf'^{name}: "?([^"\n]+)"?$', self.text, re.M)
        return str(line)

    def tensors(self, side: str) -> dict[str, tuple[str, list[int]]]:
        lines = re.findall(TENSOR.format(side), self.text, re.M)
        return {name: (kind, [int(n) for n in dims.split(",")]) for name, kind, dims in lines}

    def check(self, side: str, arrays: dict[str, Any]) -> int:
        """Whether tensors are as they shall be, as the server looks; how many images they have."""
        expected = self.tensors(side)
        assert sorted(expected) == sorted(arrays), (self.folder.name, side)
        (count,) = {len(array) for array in arrays.values()}
        assert 0 < count <= int(self.value("max_batch_size"))
        for name, (kind, dims) in expected.items():
            assert arrays[name].dtype == TYPES[kind], (name, arrays[name].dtype)
            assert all(d in (-1, n) for d, n in zip(dims, arrays[name].shape[1:], strict=True)), name
        return count


class Tensor:
    def __init__(self, name: str, array: Any) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        return self._array


@dataclass
class InferenceResponse:
    output_tensors: Sequence[Tensor]
    error: Any = None

    def has_error(self) -> bool:
        return self.error is not None


@dataclass
class InferenceRequest:
    inputs: Sequence[Tensor]
    model_name: str = ""
    requested_output_names: Sequence[str] = ()
    preferred_memory: Any = None

    def exec(self) -> InferenceResponse:
        config = Config(REPOSITORY / self.model_name)
        assert config.value("backend") == "onnxruntime" and config.value("name") == self.model_name
        arrays = {tensor.name(): tensor.as_numpy() for tensor in self.inputs}
        CALLS.append((self.model_name, config.check("input", arrays)))
        file = config.folder / "1" / config.value("default_model_filename")
        session = RUNNING.setdefault(str(file), onnxruntime.InferenceSession(str(file)))
        outputs = dict(
            zip([t.name for t in session.get_outputs()], session.run(None, arrays), strict=True)
        )
        config.check("output", outputs)
        return InferenceResponse([Tensor(name, outputs[name]) for name in self.requested_output_names])


def _by_name(tensors: Sequence[Tensor], name: str) -> Tensor:
    (tensor,) = (each for each in tensors if each.name() == name)
    return tensor


REPOSITORY = Path()


@dataclass
class Server:
    """The model that routes, loaded as the server does. folder: of the repository."""

    folder: Path
    router: Any = field(init=False)
    config: Config = field(init=False)

    def __post_init__(self) -> None:
        global REPOSITORY
        REPOSITORY = self.folder
        module = ModuleType("triton_python_backend_utils")
        for name, value in {
            **{"Tensor": Tensor, "InferenceRequest": InferenceRequest},
            **{"InferenceResponse": InferenceResponse, "TritonError": str},
            **{"TritonModelException": RuntimeError, "TRITONSERVER_MEMORY_CPU": 0},
            "PreferredMemory": lambda kind, device: (kind, device),
            "get_input_tensor_by_name": lambda request, name: _by_name(request.inputs, name),
            "get_output_tensor_by_name": lambda answer, name: _by_name(answer.output_tensors, name),
        }.items():
            setattr(module, name, value)
        sys.modules["triton_python_backend_utils"] = module
        for name in ("run", "on_triton"):  # of another repository; in the server each has a process
            sys.modules.pop(name, None)
        models = {each.name: Config(each) for each in self.folder.iterdir()}
        (self.config,) = (each for each in models.values() if each.value("backend") == "python")
        file = self.config.folder / "1" / self.config.value("default_model_filename")
        spec = importlib.util.spec_from_file_location("model", file)
        assert spec is not None and spec.loader is not None
        model = importlib.util.module_from_spec(spec)
        paths = list(sys.path)
        sys.path.append(str(file.parent))
        spec.loader.exec_module(model)
        self.router = model.TritonPythonModel()
        self.router.initialize({"model_name": self.config.folder.name})
        sys.path[:] = paths

    def answer(self, *batches: Any) -> list[dict[str, Any] | str]:
        """What requests that came together are answered: tensors by name, or what went wrong."""
        for batch in batches:
            self.config.check("input", {"images": batch})
        requests = [InferenceRequest([Tensor("images", batch)]) for batch in batches]
        answers: list[dict[str, Any] | str] = []
        for batch, response in zip(batches, self.router.execute(requests), strict=True):
            if response.has_error():
                answers.append(str(response.error))
                continue
            tensors = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors}
            assert self.config.check("output", tensors) == len(batch)
            answers.append(tensors)
        return answers
