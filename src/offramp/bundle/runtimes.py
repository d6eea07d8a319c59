"""What runs a bundle's stages beside onnxruntime, by name: `on_NAME.py` goes into the bundle."""

from __future__ import annotations

import copy
import importlib.util
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.export import ExportedProgram

from offramp.bundle.graphs import TracedStage, reason
from offramp.errors import OfframpError
from offramp.nets.cut.trace import quiet


@dataclass(frozen=True)
class Runtime:
    """Something that runs stages."""

    title: str  # as its makers write it
    packages: tuple[str, ...]  # what is imported to convert and to run
    suffix: str  # of a stage's file
    # converts a stage into a file; None where it reads the ONNX graph
    write: Callable[[ExportedProgram, Path], None] | None = None
    int8: bool = False  # whether it reads the int8 graphs of onnxruntime's quantizer

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [each for each in self.packages if importlib.util.find_spec(each) is None]


def _write_pte(program: ExportedProgram, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


RUNTIMES = {
    "executorch": Runtime("ExecuTorch", ("executorch",), ".pte", _write_pte),
    "openvino": Runtime("OpenVINO", ("openvino",), ".onnx", int8=True),
}


def check_runtimes(names: Sequence[str], int8: bool) -> None:
    """Check, before anything is written, that a bundle can be made for these runtimes.

    Raises:
        OfframpError: One is unknown or not installed, or reads no int8.
    """
    for name in names:
        if name not in RUNTIMES:
            raise OfframpError(f"no runtime is called '{name}'; choose from {', '.join(RUNTIMES)}")
        runtime = RUNTIMES[name]
        if runtime.missing:
            raise OfframpError(
                f"stages for {runtime.title} need {', '.join(runtime.missing)}; pip install "
                f"'offramp[{name}]'"
            )
        if int8 and not runtime.int8:
            raise OfframpError(f"offramp writes no int8 for {runtime.title}; leave out one of them")


def total_bytes(files: Iterable[Path]) -> int:
    """Of stages, and of weights that lie beside a graph as they are too large for it."""
    return sum(each.stat().st_size for file in files for each in file.parent.glob(f"{file.name}*"))


def write_stage(names: Sequence[str], stage: TracedStage, folder: Path) -> None:
    """Write a stage for runtimes that do not read its ONNX graph, beside it. Raises OfframpError naming
    the layer, or the layers, where a runtime lacks an operator."""
    program: ExportedProgram | None = None
    for runtime in (RUNTIMES[name] for name in names):
        if runtime.write is None:
            continue
        try:
            with quiet():
                program = program or _for_one_image(stage)
                path = (folder / stage.stage.file).with_suffix(runtime.suffix)
                runtime.write(program, path)
        except Exception as error:  # of many kinds: torch.export's, of each converter
            at, exit = program and _layer(program, str(error)), stage.stage.exit
            where = (
                f"the layer {at}, of the stage to exit {exit},"
                if at
                else f"the layers up to exit {exit}"
            )
            raise OfframpError(
                f"{where} cannot be a program of {runtime.title} ({reason(error)}); "
                "leave out this runtime, or tap another place"
            ) from error


def _for_one_image(stage: TracedStage) -> ExportedProgram:
    # Converters take weights in PyTorch's own order, and ours may be channels last.
    module = copy.deepcopy(stage.module).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return torch.export.export(module, tuple(tensor[:1].contiguous() for tensor in stage.tensors))


def _layer(program: ExportedProgram, text: str) -> str | None:
    """The first layer whose operator an error names, by its path in the network; None without one."""
    for node in program.graph.nodes:
        name = getattr(node.target, "_opname", None)
        paths = [path for path, _ in node.meta.get("nn_module_stack", {}).values() if path]
        if name and paths and re.search(rf"\b{name}\b", text):
            return re.sub(r"^segments\.\d+\.", "", paths[-1])
    return None
