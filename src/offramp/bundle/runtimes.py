"""What runs a bundle's stages beside onnxruntime, by name.

A runtime that has Python has a file `on_NAME.py`, which goes into the bundle as it is.
"""

from __future__ import annotations

import copy
import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from offramp.bundle.graphs import TracedStage, reason
from offramp.bundle.triton import FOLDER, write_repository
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
    # puts the stages of a bundle together, once all its files are there: a folder, and the name of the
    # trial
    gather: Callable[[Path, str], None] | None = None
    int8: bool = False  # whether it reads the int8 graphs of onnxruntime's quantizer
    # turns a file of `write` into int8, by a quantizer of its own: the file, and what the stage takes,
    # by name, in batches of calibration images
    quantize: Callable[[Path, Iterable[Mapping[str, Any]]], None] | None = None
    # why its answers are not compared here; None where it runs here, by `on_NAME.py`
    elsewhere: str | None = None
    remedy: str | None = None  # how to install it where an extra cannot

    @property
    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [each for each in self.packages if importlib.util.find_spec(each) is None]


def _write_pte(program: ExportedProgram, path: Path) -> None:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    path.write_bytes(lowered.to_executorch().buffer)


def _write_tflite(program: ExportedProgram, path: Path) -> None:
    import litert_torch

    litert_torch.convert(program.module(), program.example_inputs[0]).export(str(path))


def _quantize_tflite(path: Path, batches: Iterable[Mapping[str, Any]]) -> None:
    """Weights and activations, with a scale for each channel of weights. What a stage takes and gives
    stays float32, as run.py and policies read it."""
    from ai_edge_quantizer import calibrator, qtyping, quantizer, recipe
    from ai_edge_quantizer.utils.qsv_utils import min_max_update

    # The quantizer's own way is an average of late images, by which the surest logits are cut off.
    mode = calibrator.CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS
    floating = calibrator.CalibrationInterpreter(str(path), mode, min_max_update)
    run = floating.get_signature_runner(*floating.get_signature_list())
    for batch in batches:
        for row in range(len(next(iter(batch.values())))):
            run(**{f"args_{i}": each[row : row + 1] for i, each in enumerate(batch.values())})
    work = quantizer.Quantizer(str(path), recipe.static_wi8_ai8())
    for side in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        nothing = quantizer.AlgorithmName.NO_QUANTIZE
        work.update_quantization_recipe(".*", side, algorithm_key=nothing)
    ranges = floating.get_calibration_results()
    path.write_bytes(work.quantize(ranges, enable_progress_report=False).quantized_model)


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
        quantize=_quantize_tflite,
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
            raise OfframpError(f"no runtime is called '{name}'; choose from {', '.join(RUNTIMES)}")
        runtime = RUNTIMES[name]
        if runtime.missing:
            remedy = runtime.remedy or f"pip install 'offramp[{name}]'"
            raise OfframpError(f"stages for {runtime.title} need {', '.join(runtime.missing)}; {remedy}")
        if int8 and not (runtime.int8 or runtime.quantize):
            raise OfframpError(f"offramp writes no int8 for {runtime.title}; leave out one of them")


def bundled(names: Sequence[str]) -> dict[str, str]:
    """Those of these runtimes that `run.py` runs, and the suffix of their stages."""
    return {name: RUNTIMES[name].suffix for name in names if RUNTIMES[name].elsewhere is None}


def size(name: str, folder: Path, stages: Sequence[Path]) -> int:
    """Bytes of a runtime's stages in a bundle. stages: the files of the ONNX graphs."""
    runtime = RUNTIMES[name]
    parts = [folder / FOLDER] if runtime.gather else [p.with_suffix(runtime.suffix) for p in stages]
    return total_bytes(parts)


def total_bytes(parts: Iterable[Path]) -> int:
    """Of files and folders, and of weights that lie beside a graph as they are too large for it."""
    whole = (each for part in parts for each in part.parent.glob(f"{part.name}*"))
    files = (file for each in whole for file in (each, *each.rglob("*")))
    return sum(file.stat().st_size for file in files if file.is_file())


def write_stage(
    names: Sequence[str],
    stage: TracedStage,
    folder: Path,
    batches: Iterable[Mapping[str, Any]] | None = None,
) -> None:
    """Write a stage for runtimes beside its ONNX graph; in int8 for the one that has a quantizer, where
    `batches` has what the stage takes of calibration images. Raises OfframpError naming the layer, or
    the layers, where a runtime lacks an operator."""
    program: ExportedProgram | None = None
    for runtime in (RUNTIMES[name] for name in names):
        if runtime.write is None:
            continue
        try:
            with quiet():
                program = program or _for_one_image(stage)
                path = (folder / stage.stage.file).with_suffix(runtime.suffix)
                runtime.write(program, path)
                if batches is not None and runtime.quantize is not None:
                    runtime.quantize(path, batches)
        except Exception as error:  # of many kinds: torch.export's, of each converter
            at, exit = program and _layer(program, str(error)), stage.stage.exit
            where = (
                f"the layer {at}, of the stage to exit {exit},"
                if at
                else f"the layers up to exit {exit}"
            )
            raise OfframpError(
                f"{where} cannot be a program of {runtime.title}{'' if batches is None else ' in int8'} "
                f"({reason(error)}); leave out this runtime, or tap another place"
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
