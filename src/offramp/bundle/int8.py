"""Stages in int8: quantized one by one, each on what the float32 stages before it put out.

onnxruntime's static quantization in the form of QDQ: weights and activations are int8, and a graph stays
one that any runtime of ONNX reads. Weights keep seven bits, so that no processor's sums of int8 products
saturate (those of x86 without VNNI do).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offramp.bundle.folder import refusing
from offramp.bundle.graphs import StageGraph
from offramp.bundle.runtime import BEFORE, load_onnxruntime, session
from offramp.bundle.trial_images import SplitImages
from offramp.errors import OfframpError, in_line
from offramp.nets.cut.trace import quiet
from offramp.policy.candidates import where_left
from offramp.policy.policy import Policy
from offramp.study.trained import Trained

Floats = NDArray[np.float32]
MOST = 512  # calibration images that tell the ranges of activations; more hardly move them


class Layers:
    """The sessions of stages that follow each other: from images to the logits of all of them."""

    def __init__(self, stages: Sequence[StageGraph], folder: Path) -> None:
        self._stages = tuple(stages)
        with refusing():  # as many threads as fit
            self._sessions = [session(folder / stage.file, threads=0) for stage in stages]

    def inputs(self, part: StageGraph, pixels: Floats) -> dict[str, Any]:
        """What one of these stages takes, by name, of images [B, C, H, W]; those before it run."""
        *_, (tensors, _) = self._walk(pixels, self._needed(self._stages.index(part)))
        return tensors

    def logits(self, batches: Iterator[Floats]) -> Floats:
        """[N, stages, classes] of batches of images, nobody leaving."""
        every = range(len(self._stages))
        by_batch = [[answer for _, answer in self._walk(pixels, every)] for pixels in batches]
        return np.concatenate([np.stack(answers, axis=1) for answers in by_batch])

    def _needed(self, at: int) -> Sequence[int]:
        """The stages up to `at` without which it cannot run: trunks of other exits are left out."""
        if any(BEFORE in self._names(i) for i in range(at + 1)):
            return range(at + 1)
        after = self._stages[at].after
        return [*([] if after is None else self._needed(after)), at]

    def _names(self, at: int) -> list[str]:
        return [tensor.name for tensor in self._sessions[at].get_inputs()]

    def _walk(self, pixels: Floats, needed: Iterable[int]) -> Iterator[tuple[dict[str, Any], Floats]]:
        """What each of some stages takes, by name, and its logits."""
        carried: dict[int | None, list[Any]] = {None: [pixels]}
        before: Any = None
        for at in needed:
            names = self._names(at)
            values = (*carried[self._stages[at].after], *([before] if BEFORE in names else []))
            tensors = dict(zip(names, values, strict=True))
            before, *carried[at] = self._sessions[at].run(None, tensors)
            yield tensors, before


def quantize(
    stages: Sequence[StageGraph], floats: Path, images: SplitImages, out: Path
) -> Iterator[StageGraph]:
    """Write the int8 graph of each stage of a network to `out / stage.file`, and yield the stage.
    floats: the folder of the float32 graphs; images: of calibration, of which some are used, spread
    evenly. Raises OfframpError for a stage that cannot be quantized."""
    some = images.spread(MOST)
    network = Layers(stages, floats)
    for stage in stages:
        (out / stage.file).parent.mkdir(parents=True, exist_ok=True)
        tensors = (network.inputs(stage, batch) for batch in some.batches())
        _quantize(floats / stage.file, tensors, out / stage.file, stage.exit)
        yield stage


def within(stages: Sequence[StageGraph], part: StageGraph) -> list[int]:
    """Which of these stages a stage has the layers of."""
    return [
        at
        for at, stage in enumerate(stages)
        if stage.trunk == part.trunk and part.first <= stage.exit <= part.exit
    ]


def _quantize(source: Path, tensors: Iterator[dict[str, Any]], out: Path, exit: int) -> None:
    load_onnxruntime()  # before it loads itself, and tells of it
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class CalibrationReader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            return next(tensors, None)

    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch, quiet():
        ready = Path(scratch) / "ready.onnx"
        try:
            # Batch normalization is folded into convolutions, which then have one rounding, not two.
            quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(ready),
                str(out),
                CalibrationReader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=True,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except Exception as error:  # the quantizer raises whatever its parts raise
            reason = in_line(error)
            raise OfframpError(
                f"the layers up to exit {exit} cannot be quantized ({reason}); export without int8"
            ) from error


def accuracies(trained: Trained, rule: Policy) -> tuple[float, float]:
    """Of the policy and of the full network, on calibration."""
    rows = trained.calibration
    right = rows.right(rule.score)
    return float(where_left(right.astype(np.float64), rule.leaves(rows.logits)).mean()), float(
        right[:, -1].mean()
    )


def join(every: Sequence[StageGraph], folder: Path, parts: Sequence[StageGraph], out: Path) -> None:
    """Write the graphs of `parts`, the stages between the exits of a policy, out of those of all exits:
    heads that nobody leaves by are cut off, and the layers around them put together. The integers that
    flow stay the same. folder: of the graphs of `every`."""
    for part in parts:
        path = out / part.file
        path.parent.mkdir(parents=True, exist_ok=True)
        _joined([folder / every[at].file for at in within(every, part)], part.carries, path)


def _joined(files: Sequence[Path], carries: bool, out: Path) -> None:
    import onnx
    from onnx import compose
    from onnx.utils import Extractor

    last = len(files) - 1
    joined: Any = None
    for at, file in enumerate(files):
        graph = compose.add_prefix(
            onnx.load(file), f"part{at}_", rename_inputs=at > 0, rename_outputs=at < last
        )
        logits, *carried = [tensor.name for tensor in graph.graph.output]
        outputs = carried if at < last else [logits, *(carried if carries else [])]
        inputs = [tensor.name for tensor in graph.graph.input]
        if at < last:  # its head is cut off, and with it what that adds of the answer before
            inputs = [name for name in inputs if name.removeprefix(f"part{at}_") != BEFORE]
        if joined is None:
            joined = Extractor(graph).extract_model(inputs, outputs)
            continue
        pairs = list(zip((tensor.name for tensor in joined.graph.output), inputs, strict=True))
        joined = compose.merge_models(joined, graph, io_map=pairs, outputs=outputs)
    onnx.save(joined, out)
