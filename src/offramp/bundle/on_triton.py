"""Routes images between the stages of a bundle in Triton's server, where each stage is a model.

It goes into the model repository as it is, beside run.py, and needs numpy and what the server gives its
Python models. The file of a stage names its model, and what that takes and gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import triton_python_backend_utils as server

VERSION = "of the server"


class StageModel:
    """A model of the server; called as a session of onnxruntime is."""

    def __init__(self, path: Path, _: int) -> None:  # the server has threads of its own
        self._about = json.loads(path.read_text("utf-8"))

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(**tensor) for tensor in self._about["inputs"]]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(**tensor) for tensor in self._about["outputs"]]

    def run(self, _: None, values: Mapping[str, Any]) -> list[Any]:
        names = [tensor["name"] for tensor in self._about["outputs"]]
        response = server.InferenceRequest(
            model_name=self._about["model"],
            requested_output_names=names,
            inputs=[server.Tensor(name, np.ascontiguousarray(array)) for name, array in values.items()],
            # Scores are worked out here, wherever the stage ran.
            preferred_memory=server.PreferredMemory(server.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if response.has_error():
            raise server.TritonModelException(response.error().message())
        return [server.get_output_tensor_by_name(response, name).as_numpy() for name in names]


session = StageModel  # what run.py calls


class TritonPythonModel:
    """What the server calls; its name and methods are Triton's."""

    def initialize(self, arguments: Mapping[str, str]) -> None:  # noqa: ARG002
        from run import Bundle  # type: ignore[import-not-found]  # beside this file

        self._bundle = Bundle(Path(__file__).parent, runtime="triton")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests together: stages run on what is left of all of them."""
        arrays = [server.get_input_tensor_by_name(each, "images").as_numpy() for each in requests]
        try:
            answers = self._bundle.predict(np.concatenate(arrays))
        except Exception as error:  # such as of an image with NaN: the others have answers
            if len(requests) > 1:
                return [response for each in requests for response in self.execute([each])]
            return [server.InferenceResponse(output_tensors=[], error=server.TritonError(str(error)))]
        labels = np.array([label.encode() for label in answers.labels], np.object_)
        columns = {
            "class": labels[:, None],
            "confidence": answers.confidence[:, None],
            "exit": answers.exits[:, None].astype(np.int64),
            "compute_share": answers.compute[:, None],
            "logits": answers.logits,
        }
        responses, first = [], 0
        for array in arrays:
            rows = slice(first, first + len(array))
            tensors = [server.Tensor(name, column[rows]) for name, column in columns.items()]
            responses.append(server.InferenceResponse(output_tensors=tensors))
            first += len(array)
        return responses
