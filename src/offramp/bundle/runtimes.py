"""What runs a bundle's stages beside onnxruntime, by name. Each has a file that goes into the bundle."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from offramp.bundle.graphs import TracedStage, reason
from offramp.errors import OfframpError, nearest
from offramp.nets.cut.trace import quiet


@dataclass(frozen=True)
class Runtime:
    """Something that runs stages.

    Attributes:
        title: As its makers write it.
        package: What is imported to convert and to run.
        suffix: Of a stage's file.
        write: Converts a stage into a file; None where it reads the ONNX graph.
    """

    title: str
    package: str
    suffix: str
    write: Callable[[TracedStage, Path], None] | None


def _write_pte(stage: TracedStage, path: Path) -> None:
    """By `torch.export` of the same cut, for one image."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    # Its passes take weights in PyTorch's own order, and ours may be channels last.
    module = copy.deepcopy(stage.module).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    single = tuple(tensor[:1].contiguous() for tensor in stage.tensors)
    exported = torch.export.export(module, single)
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    path.write_bytes(program.to_executorch().buffer)


RUNTIMES = {
    "executorch": Runtime("ExecuTorch", "executorch", ".pte", _write_pte),
    "openvino": Runtime("OpenVINO", "openvino", ".onnx", None),
}


def check_runtimes(names: Sequence[str], int8: bool) -> None:
    """Check, before anything is written, that a bundle can be made for these runtimes.

    Raises:
        OfframpError: One is unknown or not installed, or int8 was chosen: it is onnxruntime's alone.
    """
    for name in names:
        if name not in RUNTIMES:
            raise OfframpError(f"no runtime is called '{name}'{nearest(name, RUNTIMES)}")
        runtime = RUNTIMES[name]
        if importlib.util.find_spec(runtime.package) is None:
            raise OfframpError(
                f"stages for {runtime.title} need {runtime.package}; pip install 'offramp[{name}]'"
            )
        if int8:
            raise OfframpError(
                f"int8 is quantized for onnxruntime, not for {runtime.title}; leave out one of them"
            )


def write_stage(name: str, stage: TracedStage, folder: Path) -> None:
    """Write a stage for a runtime beside its ONNX graph. Raises OfframpError naming the layers where the
    runtime lacks an operator."""
    runtime = RUNTIMES[name]
    if runtime.write is None:
        return
    path = (folder / stage.stage.file).with_suffix(runtime.suffix)
    try:
        with quiet():
            runtime.write(stage, path)
    except Exception as error:  # of many kinds: torch.export's, ExecuTorch's, of its partitioner
        raise OfframpError(
            f"the layers up to exit {stage.stage.exit} cannot be a program of {runtime.title} "
            f"({reason(error)}); leave out this runtime, or tap another place"
        ) from error
