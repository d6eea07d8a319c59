"""What runs a bundle's stages beside onnxruntime, by name.

A runtime that has Python has a file `on_NAME.py`, which goes into the bundle as it is.
"""

from __future__ import annotations

import copy
import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.export import ExportedProgram

from offramp.bundle.graphs import TracedStage, reason
from offramp.bundle.triton import FOLDER, write_repository
from offramp.errors import OfframpError, nearest
from offramp.nets.cut.trace import quiet


@dataclass(frozen=True)
class Runtime:
    """Something that runs stages.

    Attributes:
        title: As its makers write it.
        packages: What is imported to convert and to run.
        suffix: Of a stage's file.
        write: Converts a stage into a file; None where it reads the ONNX graph.
        gather: Puts the stages of a bundle together, once all its files are there: a folder, and the
            name of the trial.
        int8: Whether it reads the int8 graphs of onnxruntime's quantizer.
        elsewhere: Why its answers are not compared here; None where it runs here, by `on_NAME.py`.
        remedy: How to install it where an extra cannot.
    """

    title: str
    packages: tuple[str, ...]
    suffix: str
    write: Callable[[ExportedProgram, Path], None] | None = None
    gather: Callable[[Path, str], None] | None = None
    int8: bool = False
    elsewhere: str | None = None
    remedy: str | None = None


def _write_pte(program: ExportedProgram, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


def _write_tflite(program: ExportedProgram, path: Path) -> None:
    import litert_torch

    litert_torch.convert(program.module(), program.example_inputs[0]).export(str(path))


def _write_mlpackage(program: ExportedProgram, path: Path) -> None:
    """In float32, by which thresholds were chosen: the default of Core ML has half of the digits."""
    import coremltools as ct

    names = [f"out_{i - 1}" if i else "logits" for i in range(len(program.graph_signature.user_outputs))]
    model = ct.convert(
        program.run_decompositions({}),
        convert_to="mlprogram",
        compute_precision=ct.precision.FLOAT32,
        minimum_deployment_target=ct.target.iOS16,
        inputs=[
            ct.TensorType(f"in_{i}", each.shape) for i, each in enumerate(program.example_inputs[0])
        ],
        outputs=[ct.TensorType(name) for name in names],
        skip_model_load=True,
    )
    model.save(str(path))
    (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)  # of another runtime
    for file in path.rglob("*.mlmodel"):
        file.chmod(0o644)  # whoever copies a bundle reads it


RUNTIMES = {
    "coreml": Runtime(
        "Core ML",
        ("coremltools",),
        ".mlpackage",
        _write_mlpackage,
        elsewhere="Core ML runs on Apple's systems alone",
    ),
    "executorch": Runtime("ExecuTorch", ("executorch",), ".pte", _write_pte),
    "litert": Runtime(
        "LiteRT",
        ("litert_torch", "ai_edge_litert"),
        ".tflite",
        _write_tflite,
        # Its converter asks for an older typing-extensions than pydantic does, and works with the newer.
        remedy="pip cannot install them beside offramp, uv can: docs/deployment.md has the command",
    ),
    "openvino": Runtime("OpenVINO", ("openvino",), ".onnx", int8=True),
    "triton": Runtime(
        "Triton",
        (),
        ".onnx",
        gather=write_repository,
        int8=True,
        elsewhere="Triton's server was not there; its models are the stages of onnxruntime",
    ),
}


def check_runtimes(names: Sequence[str], int8: bool) -> None:
    """Check, before anything is written, that a bundle can be made for these runtimes.

    Raises:
        OfframpError: One is unknown or not installed, or reads no int8.
    """
    for name in names:
        if name not in RUNTIMES:
            raise OfframpError(f"no runtime is called '{name}'{nearest(name, RUNTIMES)}")
        runtime = RUNTIMES[name]
        missing = [each for each in runtime.packages if importlib.util.find_spec(each) is None]
        if missing:
            remedy = runtime.remedy or f"pip install 'offramp[{name}]'"
            raise OfframpError(f"stages for {runtime.title} need {', '.join(missing)}; {remedy}")
        if int8 and not runtime.int8:
            raise OfframpError(
                f"int8 is quantized for onnxruntime, not for {runtime.title}; leave out one of them"
            )


def bundled(names: Sequence[str]) -> dict[str, str]:
    """Those of these runtimes that `run.py` runs, and the suffix of their stages."""
    return {name: RUNTIMES[name].suffix for name in names if RUNTIMES[name].elsewhere is None}


def size(name: str, folder: Path, stages: Sequence[Path]) -> int:
    """Bytes of a runtime's stages in a bundle. stages: the files of the ONNX graphs."""
    runtime = RUNTIMES[name]
    parts = [folder / FOLDER] if runtime.gather else [p.with_suffix(runtime.suffix) for p in stages]
    files = (file for part in parts for file in ([part] if part.is_file() else part.rglob("*")))
    return sum(file.stat().st_size for file in files if file.is_file())


def write_stage(names: Sequence[str], stage: TracedStage, folder: Path) -> None:
    """Write a stage for runtimes beside its ONNX graph. Raises OfframpError naming the layer, or the
    layers, where one lacks an operator."""
    program: ExportedProgram | None = None
    for runtime in (RUNTIMES[name] for name in names):
        if runtime.write is None:
            continue
        try:
            with quiet():
                program = program or _for_one_image(stage)
                runtime.write(program, (folder / stage.stage.file).with_suffix(runtime.suffix))
        except Exception as error:  # of many kinds: torch.export's, of each converter
            at, exit = program and _layer(program, str(error)), stage.stage.exit
            where = (
                f"the layer {at}, of the stage to exit {exit},"
                if at
                else f"the layers up to exit {exit}"
            )
            raise OfframpError(
                f"{where} cannot be a program of {runtime.title} ({reason(error)}); leave out this "
                "runtime, or tap another place"
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
