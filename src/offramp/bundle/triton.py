"""A model repository of Triton's server: a model of each stage, and one that routes images between."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from offramp.bundle.folder import SOURCES, opened, seal, write_json
from offramp.errors import OfframpError

FOLDER = "model_repository"  # one named `triton` would hide that package from what run.py imports
ROUTER = "on_triton.py"
MOST = 64  # images of all requests that the server puts into one batch
DELAY = 1000  # microseconds that a request waits for others
KINDS = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(bool)": "TYPE_BOOL"}
ANSWERS = (
    ("class", "TYPE_STRING"),
    ("confidence", "TYPE_FP32"),
    ("exit", "TYPE_INT64"),
    ("compute_share", "TYPE_FP32"),
)  # as `run.py --json` calls them


@dataclass(frozen=True)
class ModelTensor:
    """What a model takes or gives. kind: of Triton; shape: [B, …], None for any size."""

    name: str
    kind: str
    shape: tuple[int | None, ...]

    def as_config(self, side: str) -> str:
        """The entry of `config.pbtxt`, which has no batch."""
        dims = ", ".join("-1" if size is None else str(size) for size in self.shape[1:])
        return f'{side} {{ name: "{self.name}" data_type: {self.kind} dims: [ {dims} ] }}'


def write_repository(folder: Path, trial: str) -> None:
    """Write the repository of a bundle into it, whose files are all there. trial: its models are named
    after it. Raises OfframpError for a tensor between stages that the server cannot hand over."""
    name = re.sub(r"[^\w.-]", "-", trial)
    bundle = opened(folder, pictures=False)
    router = folder / FOLDER / name / "1"
    (router / "stages").mkdir(parents=True)
    for stage in bundle.stages:
        model = f"{name}-exit-{stage.exit}"
        version = folder / FOLDER / model / "1"
        version.mkdir(parents=True)
        for file in stage.file.parent.glob(f"{stage.file.name}*"):  # weights beside it too
            shutil.copyfile(file, version / file.name)
        inputs = [_tensor(value, stage.exit) for value in stage.session.get_inputs()]
        outputs = [_tensor(value, stage.exit) for value in stage.session.get_outputs()]
        _configure(version.parent, "onnxruntime", stage.file.name, inputs, outputs)
        sides = {"inputs": [asdict(t) for t in inputs], "outputs": [asdict(t) for t in outputs]}
        write_json(router / "stages" / f"{stage.file.stem}.json", {"model": model, **sides})
    kind = "TYPE_FP32" if bundle.normalized else "TYPE_UINT8"
    shape = (None, *bundle.preprocessing.size, bundle.preprocessing.channels)
    answers = [ModelTensor(*answer, (None, 1)) for answer in ANSWERS]
    answers.append(ModelTensor("logits", "TYPE_FP32", (None, len(bundle.labels))))
    _configure(router.parent, "python", ROUTER, [ModelTensor("images", kind, shape)], answers)
    for part in (*SOURCES, "policy.json", "labels.json", "preprocessing.json"):
        shutil.copyfile(folder / part, router / part)
    shutil.copyfile(Path(__file__).with_name(ROUTER), router / ROUTER)
    layout = json.loads((folder / "stages.json").read_text("utf-8"))
    write_json(router / "stages.json", layout | {"runtimes": {"triton": ".json"}})
    seal(router)


def _tensor(value: Any, exit: int) -> ModelTensor:
    """value: of onnxruntime."""
    if len(value.shape) < 2 or value.type not in KINDS:
        raise OfframpError(
            f"{value.name} of exit {exit} is {value.type} {value.shape}, which Triton does not hand "
            "from model to model; leave out this runtime, or tap another place"
        )
    sizes = (size if isinstance(size, int) else None for size in value.shape)
    return ModelTensor(value.name, KINDS[value.type], tuple(sizes))


def _configure(
    model: Path, backend: str, file: str, inputs: Sequence[ModelTensor], outputs: Sequence[ModelTensor]
) -> None:
    """Write a model's `config.pbtxt`: a ModelConfig of Triton as the text of Protocol Buffers."""
    lines = [
        f'name: "{model.name}"',
        f'backend: "{backend}"',
        f'default_model_filename: "{file}"',
        f"max_batch_size: {MOST}",
        *(tensor.as_config("input") for tensor in inputs),
        *(tensor.as_config("output") for tensor in outputs),
        f"dynamic_batching {{ max_queue_delay_microseconds: {DELAY if backend == 'python' else 0} }}",
    ]
    (model / "config.pbtxt").write_text("\n".join(lines) + "\n", encoding="utf-8")
