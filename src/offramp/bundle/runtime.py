"""Runs a bundle: an early-exit network in stages, and the policy that says where each image leaves.

    python run.py image.jpg more.png folder/        class, confidence, exit and milliseconds of each
    python run.py --measure --out times.json        what each stage takes on this device

    from run import Bundle                          # with the bundle's folder on sys.path
    answers = Bundle("bundle").predict(images)

Needs numpy, onnxruntime and Pillow, and the files that lie beside it: SHA256SUMS lists them all with
their hashes, and a bundle of which one is missing or changed is refused. Nothing is unpickled. Pillow is
imported for pictures alone, and onnxruntime where no other runtime runs the stages.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import csv
import functools
import hashlib
import io
import json
import math
import mmap
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PureWindowsPath
from types import ModuleType
from typing import TYPE_CHECKING, Any

try:
    import numpy as np
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    sys.exit("numpy is not installed here; pip install numpy onnxruntime Pillow")

if TYPE_CHECKING:
    from PIL import Image

Array = Any  # of numpy

FORMAT = 1
ONNXRUNTIME = "onnxruntime"  # what every bundle has stages for
SUMS = "SHA256SUMS"  # `sha256sum --check SHA256SUMS` reads it too
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MEASURED_BATCHES = (1, 32)
TIMES = "offramp-stage-times-1"  # the format of what `--measure` says
PRECISIONS = ("float32", "int8")  # of weights and activations; images and logits are float32
ROUNDS = 100  # of a stage, for a file that a policy is chosen by
SPREAD = 2.0  # of the median: what nineteen rounds of twenty may take; as `calibrate` has it
TEMPERATURES = (1e-6, 1e6)  # beyond, float32 has no room for logits that are divided by them
AGAIN = "export the bundle again"
UNANSWERED = "the network answers NaN or infinity"  # its confidence is NaN, and its class means nothing
BEFORE = "before"  # the input of a graph that adds to the answer of the stage before
SEPARATOR = "|"  # of the names of several labels
SPINS_BRIEFLY = (1, 27)  # the version from which on onnxruntime is told how long threads spin
LARGEST = 16 * 2**20  # bytes of a list or JSON of a bundle
WHOLE = 2**63 - 1  # the largest whole number that is believed
# What exporters write, and nothing that takes text, draws at random or goes round without end (Loop).
OPERATORS = frozenset(
    """Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool
    BatchNormalization BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil Celu Clip
    Col2Im Compress Concat ConcatFromSequence Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos
    Cosh CumSum DFT DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear Einsum Elu Equal
    Erf Exp Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
    GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid HardSwish Identity
    InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax MatMul MatMulInteger Max MaxPool MaxRoiPool Mean Min Mish Mod Mul Neg NonMaxSuppression
    NonZero Not OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN
    Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding
    Round STFT ScatterElements ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty SequenceInsert
    SequenceLength Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split
    SplitToSequence Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unique
    Unsqueeze Where Xor""".split()  # noqa: SIM905 - a list would take a line for each
)
# Where a graph has tensors: field numbers of its Protocol Buffers, from the model's down.
TENSORS = frozenset(
    {(7, 5), (7, 15, 1), (7, 15, 2), (7, 1, 5, 5), (7, 1, 5, 10)}
    | {(7, 1, 5, sparse, part) for sparse in (22, 23) for part in (1, 2)}
)
MESSAGES = frozenset(path[:end] for path in TENSORS for end in range(1, len(path) + 1))
PARTS = 2_000_000  # of a graph that are looked at; a network of thousands of operators has some 100,000


class BundleError(Exception):
    """A mistake that the user can mend, in one line: what no terminal prints is spelled out."""

    def __init__(self, text: str) -> None:
        super().__init__(_printable(text))


@dataclass(frozen=True)
class JsonField:
    """A value of a JSON file, checked as it is read. Every method raises BundleError, naming both, for
    anything else than it returns."""

    where: str  # the file, then the field
    value: Any  # of JSON

    def field(self, name: str, absent: Any = ...) -> JsonField:
        """A field of an object. absent: the value of one that may be absent."""
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        value = self.value.get(name, absent)
        if value is ...:
            raise BundleError(f"{self._at(name)} is missing; {AGAIN}")
        return JsonField(self._at(name), value)

    def items(self, least: int = 0) -> tuple[JsonField, ...]:
        """All of a list of `least` or more."""
        if not isinstance(self.value, list) or len(self.value) < least:
            raise self.wrong(f"a list of {least} or more" if least else "a list")
        return tuple(JsonField(self._at(str(i)), value) for i, value in enumerate(self.value))

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.wrong("text")
        return self.value

    def flag(self) -> bool:
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def whole(self, low: int, high: int = WHOLE) -> int:
        if type(self.value) is not int or not low <= self.value <= high:
            raise self.wrong(f"a whole number from {low} to {high}")
        return self.value

    def number(self, low: float, high: float) -> float:
        if type(self.value) not in (int, float) or not low <= self.value <= min(high, WHOLE):
            raise self.wrong(f"a number from {low:g} to {high:g}")
        return float(self.value)

    def wrong(self, expected: str) -> BundleError:
        """The refusal of a value that is not what is expected."""
        value = "an object" if isinstance(self.value, dict) else ascii(self.value)[:40]
        if isinstance(self.value, list):
            value = f"a list of {len(self.value)}"
        return BundleError(f"{self.where} must be {expected}, not {value}; {AGAIN}")

    def _at(self, name: str) -> str:
        return f"{self.where}{'.' if ': ' in self.where else ': '}{name}"


@functools.cache
def _beside(name: str) -> ModuleType:
    """The source file that lies beside this one, whatever other modules of its name there are. In a
    bundle the very bytes that are run are checked, and no compiled copy of them is read or left."""
    path = Path(__file__).with_name(f"{name}.py")
    sums = path.with_name(SUMS)
    if not sums.exists() and not path.exists():  # in offramp itself each has a folder of its own
        path = path.parents[1] / ("policy" if name == "scoring" else "") / path.name
    source = path.read_bytes()
    if sums.exists() and f"{hashlib.sha256(source).hexdigest()}  {path.name}" not in _lines(sums):
        raise BundleError(f"{path} is not what {SUMS} lists; export the bundle again")
    module = ModuleType(f"_bundled_{name}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


def _lines(sums: Path) -> list[str]:
    try:
        if not sums.is_file() or sums.stat().st_size > LARGEST:
            raise FileNotFoundError
        return sums.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise BundleError(
            f"{sums.parent} is no bundle: it has no readable {SUMS}; {AGAIN}, or copy it anew"
        ) from None


@dataclass(frozen=True)
class Answers:
    """What a batch of B images came to.

    Attributes:
        classes: [B] int, numbers of classes; of several labels an image [B, C] bool, those that it has.
        labels: Their names; several with | between them, and in quotes those that have one in them.
        confidence: [B] float32, the largest softmax probability, under the policy's temperature; of
            several labels the probability of the least sure one's answer. NaN for an image of which the
            network's logits say nothing.
        exits: [B] int, the exit that each image left at.
        logits: [B, C] float32 of that exit.
        compute: [B] float32, MACs as a share of the network without early exits; above 1 where all heads
            were run in vain.
    """

    classes: Array
    labels: tuple[str, ...]
    confidence: Array
    exits: Array
    logits: Array
    compute: Array
    # [B, C] of each label, of several labels an image; else None
    probabilities: Array = None


@dataclass(frozen=True)
class Stage:
    """One graph: an exit's head, and the layers since the exit before it."""

    file: Path  # of the graph
    exit: int  # its number
    after: int | None  # which stage's tensors it goes on from; None begins at the images
    threshold: float | None  # none where nothing leaves
    temperature: float  # which logits are divided by
    macs: int  # of an image that leaves here, from the start
    classes: int  # how many it tells apart
    session: Any  # of onnxruntime
    # whether the graph takes the answer of the stage before, and adds what it has learned to add of it
    adds: bool = False
    gate: tuple[float, ...] | None = None  # what the exit has learned, for a score that reads it

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Of the graph's inputs; onnxruntime makes them anew each time."""
        return tuple(values.name for values in self.session.get_inputs())

    def run(self, tensors: Sequence[Array], before: Array = None) -> list[Array]:
        """[B, …] each → the logits [B, C], then what the next stage needs. before: the answer of the
        stage before, [B, C]. Raises BundleError where the graph gives something else."""
        values = (*tensors, before) if self.adds else tensors
        try:
            outputs = self._outputs(values)
        except Exception as error:  # onnxruntime raises classes of its own that it does not name
            raise BundleError(f"{self.file} fails ({_line(error)}); {AGAIN}") from error
        if outputs[0].shape != (len(tensors[0]), self.classes):
            raise BundleError(f"{self.file} does not give {self.classes} logits an image; {AGAIN}")
        return outputs

    @functools.cached_property
    def _single(self) -> bool:
        """Whether the graph takes one image, as those for phones do."""
        return bool(self.session.get_inputs()[0].shape[0] == 1)

    def _outputs(self, values: Sequence[Array]) -> list[Array]:
        if self._single and len(values[0]) > 1:
            rows = [self._outputs([v[i : i + 1] for v in values]) for i in range(len(values[0]))]
            return [np.concatenate(parts) for parts in zip(*rows, strict=True)]
        outputs: list[Array] = self.session.run(None, dict(zip(self.names, values, strict=True)))
        return outputs


@dataclass(frozen=True)
class ExitedRows:
    """Images that leave at one stage."""

    rows: Array  # [L] int, which of the batch
    stage: int  # counted from 0
    logits: Array  # [L, C] float32
    confidence: Array  # [L]
    scores: Array = None  # [L, stage + 1], how sure each stage was that they ran, if it is told
    probabilities: Array = None  # [L, C], of each of several labels


@dataclass(frozen=True)
class StageInput:
    """Images that have come to a stage. Each is answered by itself, so those of several batches may go
    on together: `joined`.

    Attributes:
        tensors: What this stage and later ones go on from, [L, …] each, by the stage that gave it; by
            None the pixels.
        before: The answer of the stage before, [L, C]; None at the first.
        past: What the score knows of the stages before, [L, …] each, or None.
        scores: How sure each stage before was, [L, stages]; None at the first, and unless they are told.
    """

    tensors: dict[int | None, list[Array]]
    before: Array = None
    past: tuple[Array, ...] | None = None
    scores: Array = None

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values()))[0])

    def __getitem__(self, rows: Any) -> StageInput:
        """Some of the images: a slice, or an array of numbers or of yes and no."""
        return StageInput(
            {stage: [t[rows] for t in tensors] for stage, tensors in self.tensors.items()},
            None if self.before is None else self.before[rows],
            None if self.past is None else tuple(each[rows] for each in self.past),
            None if self.scores is None else self.scores[rows],
        )


def named(labels: Sequence[str], marks: Iterable[bool]) -> str:
    """The labels that an image has, as one text: a row of CSV with SEPARATOR, so that names with one in
    them are in quotes. marks: one for each label."""
    text = io.StringIO()
    row = [label for label, mark in zip(labels, marks, strict=True) if mark]
    csv.writer(text, delimiter=SEPARATOR, lineterminator="\r\n").writerow(row)
    return text.getvalue()[:-2]


def answer_fields(name: str, probabilities: Mapping[str, float] | None = None) -> dict[str, Any]:
    """An answer in JSON. name: of a class; or as `named`, with the probability of each label."""
    if probabilities is None:
        return {"class": name}
    (labels,) = csv.reader([name], delimiter=SEPARATOR)
    return {"labels": labels, "probabilities": probabilities}


def joined(inputs: Sequence[StageInput]) -> StageInput:
    """The images of several batches that have come to the same stage, one batch after the other."""
    first = inputs[0]
    if len(inputs) == 1:
        return first

    def rows(of: Iterable[Sequence[Array]]) -> list[Array]:
        return [np.concatenate(parts) for parts in zip(*of, strict=True)]

    return StageInput(
        {stage: rows(each.tensors[stage] for each in inputs) for stage in first.tensors},
        None if first.before is None else np.concatenate([each.before for each in inputs]),
        None if first.past is None else tuple(rows(each.past or () for each in inputs)),
        None if first.scores is None else np.concatenate([each.scores for each in inputs]),
    )


class Bundle:
    """A bundle, checked and loaded. `unreliable` says why its answers are not to be trusted, where they
    are not.

    Args:
        path: Its folder.
        threads: Of onnxruntime; by default the cores that this process may use.
        providers: Of onnxruntime, such as ("CUDAExecutionProvider", "CPUExecutionProvider").
        runtime: onnxruntime, or another that the bundle was made for (`--runtime` of the export).

    Raises:
        BundleError: A file of the bundle is missing or changed, or it has no stages for the runtime.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        runtime: str = ONNXRUNTIME,
    ) -> None:
        self.path = Path(path)
        self.files = _verified(self.path)
        layout, policy, labels = map(self._json, ("stages.json", "policy.json", "labels.json"))
        if layout.field("format").value != FORMAT:
            raise BundleError(
                f"{self.path} has bundle format {layout.value['format']!r:.20}, not {FORMAT}"
            )
        self.labels: tuple[str, ...] = tuple(label.text() for label in labels.items(1))
        self._scoring = _beside("scoring")
        how = self._json("preprocessing.json")
        try:
            self.preprocessing = _beside("preprocessing").from_json(how.value)
        except ValueError as error:
            between = " " if str(error).startswith("must") else ": "
            raise BundleError(f"{how.where}{between}{_line(error)}; {AGAIN}") from None
        self.normalized = layout.field("normalized").flag()
        precise = layout.field("precision", "float32")
        if precise.value not in PRECISIONS:
            raise precise.wrong(f"one of {', '.join(PRECISIONS)}")
        self.precision: str = precise.text()
        self.threads: int = threads or _cores()
        self.runtime = runtime
        suffixes = layout.field("runtimes", {})
        if not isinstance(suffixes.value, dict):
            raise suffixes.wrong("an object")
        if runtime != ONNXRUNTIME and runtime not in suffixes.value:
            others = ", ".join((ONNXRUNTIME, *suffixes.value))
            raise BundleError(f"{self.path} has no stages for {runtime}; it has some for {others}")
        self._suffix = ".onnx" if runtime == ONNXRUNTIME else suffixes.field(runtime).text()
        self._other = None if runtime == ONNXRUNTIME else _other(runtime)
        self.runtime_version: str = (
            self._other.VERSION if self._other else load_onnxruntime().__version__
        )
        weak = layout.field("unreliable", []).items()
        self.unreliable: tuple[str, ...] = tuple(reason.text() for reason in weak)
        self.score = policy.field("score").text()
        if self.score not in self._scoring.SCORES:
            raise policy.field("score").wrong(f"one of {', '.join(self._scoring.SCORES)}")
        # whether each image has several labels: the score is of all of them
        self.several: bool = self._scoring.SCORES[self.score].several
        self.plain_macs = layout.field("plain_macs").whole(1)
        self.carry = layout.field("carry", 0).number(0, 1)
        self._fixed_size = layout.field("fixed_size").text()
        rules = {rule.field("exit").whole(1): rule for rule in policy.field("exits").items(1)}
        self.stages: tuple[Stage, ...] = ()
        for row in layout.field("stages").items(1):
            exit = row.field("exit").whole(self.stages[-1].exit + 1 if self.stages else 1)
            if exit not in rules:
                raise BundleError(f"{policy.where}: exits says nothing of exit {exit}; {AGAIN}")
            self.stages += (self._stage(row, exit, rules[exit], (self.threads, providers)),)

    def _stage(
        self, row: JsonField, exit: int, rule: JsonField, how: tuple[int, Sequence[str]]
    ) -> Stage:
        """The stage after those that there are. how: threads and providers, of `session`."""
        after, threshold = row.field("after"), rule.field("threshold")
        if after.value is not None and not self.stages:
            raise after.wrong("null")
        begins = None if after.value is None else after.whole(0, len(self.stages) - 1)
        kind = self._scoring.SCORES[self.score]
        least = None if threshold.value is None else threshold.number(kind.low, kind.high)
        warmth = rule.field("temperature", 1).number(*TEMPERATURES)
        name = row.field("file").text()
        name = name if self._other is None else name.removesuffix(".onnx") + self._suffix
        file, (threads, providers) = self._file(name), how
        listed = {self.path / each for each in self.files}
        if self._other is None:
            graph = session(file, threads, providers, listed)
        else:
            if self._suffix == ".onnx":
                check_operators(file, listed)
            try:
                with _quiet():
                    graph = self._other.session(file, threads)
            except Exception as error:  # each runtime raises classes of its own
                raise BundleError(
                    f"{file} cannot be loaded by {self.runtime} ({_line(error)})"
                ) from error
        outputs = 2 if begins is None else len(self.stages[begins].session.get_outputs())
        size = (self.preprocessing.channels, *self.preprocessing.size)
        inputs = graph.get_inputs()
        adds = bool(inputs) and inputs[-1].name == BEFORE
        if self._other is not None:  # not every runtime keeps names
            adds = len(inputs) == outputs
        if len(inputs) - adds != outputs - 1:
            raise BundleError(f"{after.where} does not fit {name}; {AGAIN}")
        if adds and not (self.stages and _fits(inputs[-1].shape, (len(self.labels),))):
            raise BundleError(f"{name} adds to an answer that no stage before it gives; {AGAIN}")
        if begins is None and not _fits(inputs[0].shape, size):
            wrong = after.where if self.stages else f"{self.path / 'preprocessing.json'}: size"
            raise BundleError(f"{wrong} does not fit {name}; {AGAIN}")
        if not _fits(graph.get_outputs()[0].shape, (len(self.labels),)):
            counts = f"{len(self.labels)} labels; {name} tells {graph.get_outputs()[0].shape[-1]} apart"
            raise BundleError(f"{self.path / 'labels.json'} has {counts}; {AGAIN}")
        return Stage(
            file,
            exit=exit,
            after=begins,
            threshold=least,
            temperature=warmth,
            macs=row.field("macs").whole(1),
            classes=len(self.labels),
            session=graph,
            adds=adds,
            gate=self._gate(rule, kind, least),
        )

    def _gate(self, rule: JsonField, kind: Any, threshold: float | None) -> tuple[float, ...] | None:
        """What the exit has learned; one that nothing leaves by may have nothing. kind: of the score."""
        gate = rule.field("gate", ... if kind.learned and threshold is not None else None)
        if not kind.learned or (gate.value is None and threshold is None):
            return None
        size = self._scoring.GATE_SIZE
        numbers = gate.items(size)
        if len(numbers) > size:
            raise gate.wrong(f"a list of {size}")
        return tuple(number.number(-WHOLE, WHOLE) for number in numbers)

    def predict(self, images: Any) -> Answers:
        """Answer a batch; images that have left cost nothing any more.

        Args:
            images: A list of Pillow's images, which are resized and cropped as in training; or an array
                [B, H, W, C] of the network's size, uint8, or floating point, which is taken as
                normalized already.

        Raises:
            BundleError: Images have another mode, size or type.
        """
        return self.run(self.pixels(images))

    def pixels(self, images: Any) -> Array:
        """What the network takes, [B, C, H, W] float32, of what `predict` takes."""
        if isinstance(images, np.ndarray):
            return self._array(images)
        if hasattr(images, "getbands"):  # of Pillow
            raise BundleError("that is one image; give a list of them, as [image]")
        self.check_pictures()
        try:
            return self.preprocessing.normalized(self.preprocessing.batch(images))
        except ValueError as error:
            raise BundleError(str(error)) from None

    def check_pictures(self) -> None:
        """Raises BundleError where pictures have no answers."""
        if self.normalized:
            raise BundleError(
                "the network was trained on numbers that were normalized beforehand, and how is not "
                "known; give such an array [B, H, W, C] of float32"
            )

    def run(self, pixels: Array) -> Answers:
        """`predict` of what `pixels` returns: [B, C, H, W] float32."""
        if len(pixels) == 1:
            return self._alone(pixels)
        return self._answers(len(pixels), self._stages(pixels))

    def step(
        self, at: int, images: StageInput, scored: bool = True
    ) -> tuple[ExitedRows | None, Array, StageInput | None]:
        """Run stage `at`, counted from 0, for images that have come to it; at the first that is
        `StageInput({None: [pixels]})`, with pixels as for `run`. Returns those that leave; which rows
        stay, [S] int; and these at the next stage. None where there are none. scored: whether scores are
        told that decide nothing; else none is."""
        stage = self.stages[at]
        answer, *tensors = stage.run(images.tensors[stage.after], images.before)
        answer = self._scoring.carried(answer, images.before, self.carry)
        leaving, sure, past = self._decided(at, answer, images.past, scored)
        scores = None
        if scored:
            scores = sure[:, None] if images.scores is None else np.column_stack((images.scores, sure))
        needed = {later.after for later in self.stages[at + 1 :]}
        every = {k: v for k, v in {**images.tensors, at: tensors}.items() if k in needed}
        onward = StageInput(every, answer, past, scores)
        staying = np.flatnonzero(~leaving)
        if len(staying) == len(leaving):
            return None, staying, onward
        left = self._exited(at, leaving, answer, past, scores)
        # What goes on is made smaller, so that what left stops costing.
        return left, staying, onward[staying] if len(staying) else None

    def _alone(self, pixels: Array) -> Answers:
        """What one image [1, C, H, W] came to: `step` after `step`, without what tells rows apart and
        with few kernels, which take longer than some stages."""
        tensors: dict[int | None, list[Array]] = {None: [pixels]}
        answer: Array = None
        past: Any = None
        for at, stage in enumerate(self.stages):
            logits, *tensors[at] = stage.run(tensors[stage.after], answer)
            answer = self._scoring.carried(logits, answer, self.carry)
            leaving, _, past = self._decided(at, answer, past, scored=False)
            if leaving[0]:
                break
        together = self.several or self._scoring.SCORES[self.score].together
        few = None if together else self._scoring.row_answers(answer, stage.temperature)
        if few is None:
            return self._answers(1, [self._exited(at, leaving, answer, past)])
        ((number, sure),) = few
        return Answers(
            np.array([number]),
            (self.labels[number],),
            np.array([sure], np.float32),
            np.array([stage.exit]),
            answer.astype(np.float32, copy=False),
            np.array([self.compute(at)], np.float32),
        )

    def _decided(self, at: int, answer: Array, past: Any, scored: bool) -> tuple[Array, Array, Any]:
        """Of answers [n, C] of stage `at`: which leave, [n] bool; their scores, [n], None where none is
        needed; what scores with a history know by then."""
        leaving = None if scored else self._soon(at, answer)
        if leaving is not None:
            return leaving, None, None
        stage = self.stages[at]
        sure, past = self._scoring.score(self.score, answer, stage.temperature, past, stage.gate)
        return self._leaving(at, sure), sure, past

    def _exited(
        self, at: int, leaving: Array, answer: Array, past: Any, scores: Array = None
    ) -> ExitedRows:
        """Those of the answers [n, C] of stage `at` that leave."""
        stage, scoring = self.stages[at], self._scoring
        final = stage.threshold is None and at == len(self.stages) - 1
        answering = answer if final else scoring.answer_logits(self.score, answer, past)
        gone = answering[leaving]
        sure = scoring.certainty(gone, stage.temperature, self.several)
        each = None if scores is None else scores[leaving]
        shares = scoring.label_probabilities(gone, stage.temperature) if self.several else None
        return ExitedRows(np.flatnonzero(leaving), at, gone, sure, each, shares)

    def _stages(self, pixels: Array) -> Iterator[ExitedRows | None]:
        """What leaves at each stage, as long as there is anything left."""
        rows = np.arange(len(pixels))
        images: StageInput | None = StageInput({None: [pixels]}) if len(rows) else None
        for at in range(len(self.stages)):
            if images is None:
                return
            left, staying, images = self.step(at, images, scored=False)
            yield None if left is None else replace(left, rows=rows[left.rows])
            rows = rows[staying]

    def _answers(self, count: int, leaving: Iterable[ExitedRows | None]) -> Answers:
        """What a batch of `count` images came to, all of which leave."""
        place = np.zeros(count, np.int64)
        logits = np.zeros((count, len(self.labels)), np.float32)
        confidence = np.zeros(count, np.float32)
        shares = np.zeros_like(logits) if self.several else None
        for left in filter(None, leaving):
            place[left.rows], logits[left.rows] = left.stage, left.logits
            confidence[left.rows] = left.confidence
            if shares is not None:
                shares[left.rows] = left.probabilities
        classes = self.classes(logits)
        return Answers(
            classes,
            tuple(map(self.name, classes)),
            confidence,
            np.array([stage.exit for stage in self.stages])[place],
            logits,
            np.array([self.compute(at) for at in range(len(self.stages))], np.float32)[place],
            shares,
        )

    def name(self, answer: Array) -> str:
        """Of a class, by its number; of several labels [C], those that are answered."""
        if not self.several:
            return self.labels[answer]
        return named(self.labels, answer)

    def as_json(self, name: str, probabilities: Sequence[float] | None) -> dict[str, Any]:
        """An answer in words, in the types of JSON. probabilities: of several labels."""
        if not self.several or probabilities is None:
            return answer_fields(name)
        return answer_fields(name, dict(zip(self.labels, probabilities, strict=True)))

    def with_thresholds(self, thresholds: Sequence[float | None]) -> Bundle:
        """The same sessions under other thresholds, one a stage."""
        twin = copy.copy(self)
        pairs = zip(self.stages, thresholds, strict=True)
        twin.stages = tuple(replace(stage, threshold=threshold) for stage, threshold in pairs)
        return twin

    def times(self, images: Array) -> list[float]:
        """Seconds of each stage as `predict` runs it for images that all go on to the last: the graph,
        its score and who leaves. The first has in it what an answer costs once: normalizing the array,
        and putting the answers together. images: an array as for `predict`."""
        through = self.with_thresholds([*[math.inf] * (len(self.stages) - 1), None])
        ends: list[float] = []

        def ending(stages: Iterator[ExitedRows | None]) -> Iterator[ExitedRows | None]:
            for left in stages:
                ends.append(time.perf_counter())
                yield left

        began = time.perf_counter()
        through._answers(len(images), ending(through._stages(through.pixels(images))))
        once = time.perf_counter() - ends[-1]
        seconds = [end - start for start, end in zip((began, *ends), ends, strict=False)]
        return [seconds[0] + once, *seconds[1:]]

    def classes(self, logits: Array) -> Array:
        """Numbers of classes, [L], of logits [L, C]; of several labels what is answered, [L, C] bool."""
        return self._scoring.answers(logits, self.several)

    def compute(self, stage: int) -> float:
        """MACs of an image that leaves at this stage, as a share of the network without early exits."""
        return self.stages[stage].macs / self.plain_macs

    def all_exits(self, pixels: Array) -> Array:
        """Logits [B, stages, C] of every stage, nobody leaving; pixels as for `run`."""
        carried: dict[int | None, list[Array]] = {None: [pixels]}
        before: Array = None
        by_stage = []
        for at, stage in enumerate(self.stages):
            answer, *carried[at] = stage.run(carried[stage.after], before)
            before = self._scoring.carried(answer, before, self.carry)
            by_stage.append(before)
        return np.stack(by_stage, axis=1)

    def _leaving(self, at: int, sure: Array) -> Array:
        """Which rows leave at stage `at`: [B] bool."""
        threshold = self.stages[at].threshold
        if at == len(self.stages) - 1:
            return np.ones(len(sure), bool)
        return np.zeros(len(sure), bool) if threshold is None else sure >= threshold

    def _soon(self, at: int, answer: Array) -> Array:
        """`_leaving`, where it is known without a score of the batch, which takes longer than some
        stages; else None."""
        stage, kind = self.stages[at], self._scoring.SCORES[self.score]
        if kind.history:
            return None
        if stage.threshold is None or at == len(self.stages) - 1:
            return np.full(len(answer), at == len(self.stages) - 1)
        how = stage.temperature, stage.threshold
        leaves = self._scoring.rows_leave(self.score, answer, *how)
        return None if leaves is None else np.array(leaves)

    def _array(self, images: Array) -> Array:
        height, width = self.preprocessing.size
        expected = (height, width, self.preprocessing.channels)
        if images.ndim != 4 or images.shape[3] != expected[2]:
            shape = "×".join(map(str, images.shape))
            raise BundleError(f"the array is {shape}; give [B, {', '.join(map(str, expected))}]")
        if images.shape[1:3] != (height, width):
            size = f"{images.shape[1]}×{images.shape[2]}"
            raise BundleError(
                f"the images are {size} pixels and the network takes {height}×{width}: "
                f"{self._fixed_size}; resize them as the training images were"
            )
        pixels = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        if images.dtype == np.uint8 and not self.normalized:
            return self.preprocessing.normalized(pixels)
        if not np.issubdtype(images.dtype, np.floating):
            kinds = "floats, normalized" if self.normalized else "uint8, or floats, normalized"
            raise BundleError(f"the array is of {images.dtype}; give {kinds}")
        if not np.isfinite(pixels).all():
            at = np.flatnonzero(~np.isfinite(pixels).all(axis=(1, 2, 3)))[0]
            raise BundleError(f"image {at} has NaN or infinite values, which have no answer; mend it")
        return pixels.astype(np.float32, copy=False)

    def _json(self, name: str) -> JsonField:
        path = self._file(name)
        if path.stat().st_size > LARGEST:
            raise BundleError(f"{path} is larger than any that offramp writes; {AGAIN}")
        try:
            return JsonField(str(path), json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:  # the latter of lists in lists in lists
            raise BundleError(f"{path} is no JSON; {AGAIN}") from error

    def _file(self, name: str) -> Path:
        if name not in self.files:
            raise BundleError(f"{self.path / SUMS} does not list {name}; export the bundle again")
        return self.path / name


def check_operators(path: Path, listed: Collection[Path] | None = None) -> None:
    """Check that a graph has operators of OPERATORS alone, and weights in itself or in listed files. It
    is read as Protocol Buffers say: a model has a graph (field 7) and functions (25), a graph nodes (1),
    a node an operator (4) and the set that it is of (7), a tensor the place of its numbers (13).

    Args:
        path: Of the graph.
        listed: Files that may have weights; None: any.

    Raises:
        BundleError: It has others, or the file is no graph.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for count, (where, start, end) in enumerate(_parts(data, 0, len(data)), 1):
                if where == (25,):
                    raise BundleError(f"{path} has functions of its own, which no export has; {AGAIN}")
                if where == (7, 1, 4) or (where == (7, 1, 7) and end > start):
                    _check_name(path, where[-1], data[start : min(end, start + 60)])
                if where[-1] == 13 and where[:-1] in TENSORS and listed is not None:
                    _check_weights(
                        path, [(at, data[s:e]) for at, s, e in _fields(data, start, end)], listed
                    )
                if count > PARTS:
                    raise BundleError(f"{path} has more than {PARTS:,} parts; {AGAIN}")
    except (OSError, ValueError, IndexError):  # an empty file has no map
        raise BundleError(f"{path} is no graph; {AGAIN}") from None


def _check_weights(path: Path, entry: Sequence[tuple[int, bytes]], listed: Collection[Path]) -> None:
    """Check what a tensor says of the file of its numbers: a key (1) and a value (2)."""
    if {text for at, text in entry if at == 1} <= {b"offset", b"length"}:
        return
    for name in (text.decode() for at, text in entry if at == 2):
        if path.parent / name not in listed:
            raise BundleError(
                f"{path} has weights in '{name:.200}', which {SUMS} does not list; {AGAIN}"
            )


def _check_name(path: Path, field: int, name: bytes) -> None:
    text = name.decode(errors="replace")
    if text not in (OPERATORS if field == 4 else ("ai.onnx",)):
        kind = "the operator" if field == 4 else "an operator of the set"
        raise BundleError(f"{path} has {kind} '{text}', which no export has; {AGAIN}")


def _parts(
    data: Any, at: int, end: int, above: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], int, int]]:
    """The fields of a message, and of those in it that MESSAGES names: the numbers that lead to each,
    then as `_fields`."""
    for field, start, stop in _fields(data, at, end):
        where = (*above, field)
        yield where, start, stop
        if where in MESSAGES:
            yield from _parts(data, start, stop, where)


def _fields(data: Any, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a message of Protocol Buffers from `at` to `end`: number, and where its bytes begin
    and end; of a number these are nowhere. Raises ValueError or IndexError for what is no message."""
    while at < end:
        key, at = _number(data, at)
        size = {1: 8, 5: 4}.get(key & 7, 0)
        if key & 7 in (0, 2):
            size, at = _number(data, at)
            size *= key & 7 == 2
        # Of a larger key onnxruntime reads the lower bits, which are another field's.
        if (key & 7 not in (0, 2) and not size) or at + size > end or key >= 2**32:
            raise ValueError
        yield key >> 3, at, at + size
        at += size


def _number(data: Any, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        value |= (data[at] & 127) << shift
        at += 1
        if data[at - 1] < 128:
            return value, at
    raise ValueError


def _other(runtime: str) -> Any:
    """The file beside this one that loads stages in another runtime, as a module."""
    try:
        with _quiet():
            return _beside(f"on_{runtime}")
    except ImportError as error:
        package = (error.name or runtime).partition(".")[0].replace("_", "-")
        raise BundleError(f"{package} is not installed here; pip install {package}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of what runtimes tell at each start, in C++ and in Python: of the processor, of their
    threads, that they are experimental. Errors are raised, not written."""
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


def load_onnxruntime() -> Any:
    """The package. Raises BundleError where it is not installed."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else it tells its makers of each start
    try:
        import onnxruntime
    except ImportError as error:
        raise BundleError(f"{error.name} is not installed here; pip install onnxruntime") from None
    return onnxruntime


def _room() -> int:
    """Bytes that graphs may have together: half of this machine's, or of what a container has of it."""
    room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 2**34
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="utf-8").strip() if limit.is_file() else ""
    return min(room, int(text) if text.isdecimal() else room) // 2


@functools.cache
def _bound_memory() -> None:
    """Bound what graphs of this process ask for while they run: a small one may ask for any amount."""
    onnxruntime = load_onnxruntime()
    kinds = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    with contextlib.suppress(Exception):  # another copy of this file has done so
        onnxruntime.create_and_register_allocator(
            onnxruntime.OrtMemoryInfo("Cpu", *kinds), onnxruntime.OrtArenaCfg({"max_mem": _room()})
        )


def session(
    path: Path,
    threads: int,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    listed: Collection[Path] | None = None,
) -> Any:
    """The graph in a file, loaded. Raises BundleError where onnxruntime cannot, and as
    `check_operators`."""
    check_operators(path, listed)
    onnxruntime = load_onnxruntime()
    _bound_memory()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what it says has names of the graph as they are, escapes and all
    options.add_session_config_entry("session.load_model_format", "ONNX")
    options.add_session_config_entry("session.use_env_allocators", "1")  # the bounded one
    # Each stage has a pool of its own. Threads of one that spin take the cores from the next: they may
    # only for a moment, where this version knows one, and not after the stage.
    brief = tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= SPINS_BRIEFLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if brief else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", "5")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        name = os.fsencode(path).decode("utf-8", "surrogateescape")  # whatever the locale
        return onnxruntime.InferenceSession(name, options, providers=list(providers))
    except Exception as error:  # onnxruntime raises classes of its own that it does not name
        raise BundleError(f"{path} cannot be loaded ({_line(error)})") from error


def _fits(shape: Sequence[Any], sizes: tuple[int, ...]) -> bool:
    """Whether a graph's tensor [B, …] may have these sizes after B; a size with a name is any."""
    return len(shape) == len(sizes) + 1 and all(
        size == expected or not isinstance(size, int)
        for size, expected in zip(shape[1:], sizes, strict=True)
    )


def _line(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _printable(text: object) -> str:
    """Text for a terminal: what would steer it, such as an escape, is spelled out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(text))


def _verified(folder: Path) -> frozenset[str]:
    """The names of the files of a bundle, every byte of them checked."""
    names = set()
    for line in _lines(folder / SUMS):
        digest, _, name = line.partition("  ")
        path = folder / name
        place = PureWindowsPath(name)  # which reads the separators and drives of every system
        if place.as_posix() != name or place.anchor or ".." in place.parts or name in names:
            raise BundleError(
                f"{folder / SUMS} has a line that names no file of the bundle, or one again: {line!r}"
            )
        try:
            if not path.is_file():  # a pipe would be waited for, a device never ends
                raise FileNotFoundError
            actual = _digest(path)
        except FileNotFoundError:
            raise BundleError(f"{path} is missing; export the bundle again, or copy it anew") from None
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read ({error.strerror}); copy the bundle anew"
            ) from None
        if actual != digest:
            raise BundleError(f"{path} has been changed; export the bundle again, or copy it anew")
        names.add(name)
    return frozenset(names)


def _digest(path: Path) -> str:
    sums = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            sums.update(part)
    return sums.hexdigest()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure(
    bundle: Bundle,
    batches: Sequence[int] = MEASURED_BATCHES,
    repeats: int = 30,
    device: str | None = None,
) -> Any:
    """Milliseconds of each stage on noise, by batch size, as JSON: mean, median and 95th percentile, of
    `Bundle.times`. The time of a stage does not depend on the image, so this needs none. device: its
    name, by default the processor's."""
    height, width = bundle.preprocessing.size
    rows: list[dict[str, Any]] = []
    for batch in batches:
        shape = (batch, height, width, bundle.preprocessing.channels)
        noise = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        if not bundle.normalized:
            noise = (noise * 64 + 128).clip(0, 255).astype(np.uint8)
        bundle.times(noise)  # the first is for the start
        rounds = [bundle.times(noise) for _ in range(repeats)]
        for stage, seconds in zip(bundle.stages, zip(*rounds, strict=True), strict=True):
            ordered = sorted(1000 * second for second in seconds)
            late = ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]
            about = {"batch": batch, "exit": stage.exit, "macs": stage.macs}
            times = {"mean": statistics.fmean(ordered), "p50": statistics.median(ordered), "p95": late}
            rows.append({**about, **times})
    machine = {
        "processor": _processor(),
        "cores": _cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        bundle.runtime: bundle.runtime_version,
    }
    return {
        "format": TIMES,
        "device": device or machine["processor"],
        "precision": bundle.precision,
        "threads": bundle.threads,
        "machine": machine,
        "repeats": repeats,
        "stages": rows,
    }


def _write_times(bundle: Bundle, batch: int, out: Path, device: str | None) -> None:
    """Raises BundleError where the file cannot be written; it appears whole or not at all."""
    if not out.absolute().parent.is_dir():  # said before minutes are spent
        raise BundleError(f"there is no folder {out.parent} for the times; choose another --out")
    special = out.exists() and not out.is_file()  # a pipe, a terminal
    if out.is_dir() or not os.access(out if special else out.absolute().parent, os.W_OK):
        raise BundleError(f"{out} cannot be written; choose another --out")
    batches = tuple(dict.fromkeys((*MEASURED_BATCHES, batch)))
    sizes = ", ".join(map(str, batches))
    _say(f"timing {len(bundle.stages)} stages, {ROUNDS} rounds at batches of {sizes} …")
    times = measure(bundle, batches, ROUNDS, device)
    written = out if special else out.with_name(f"{out.name}.{os.getpid()}")
    try:
        written.write_text(f"{json.dumps(times, indent=1)}\n", encoding="utf-8")
        written.replace(out)
    except OSError as error:
        if not special:
            written.unlink(missing_ok=True)
        raise BundleError(f"{out} cannot be written ({error.strerror}); choose another --out") from None
    _say(f"stage times of {times['device']}: {out} ({ROUNDS} rounds)")
    late, median = (sum(row[of] for row in times["stages"]) for of in ("p95", "p50"))
    if late > SPREAD * median:
        _say("they are unsteady, as beside other work: measure again when the device is quiet")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def find_images(paths: Iterable[Path]) -> Iterator[Path]:
    """The paths themselves, and for a folder the images anywhere in it, sorted; hidden ones are passed
    over, as in training. Raises BundleError for a path that is not there, or a folder without images."""
    for path in paths:
        # Of os.path, which is False also where a folder is closed or the name is too long.
        if os.path.isfile(path):  # noqa: PTH113
            yield path
            continue
        if not os.path.isdir(path):  # noqa: PTH112 - a pipe would be waited for
            raise BundleError(f"there is no image {path}; give files or folders")
        images = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        inside = sorted(p for p in images if _beside("preprocessing").shown(p.relative_to(path)))
        if not inside:
            raise BundleError(f"the folder {path} holds no image ({', '.join(SUFFIXES)}); give another")
        yield from inside


def opened(path: Path, bundle: Bundle) -> Image.Image:
    """The image of a file, whole. Raises BundleError where it is damaged or the network cannot take
    it."""
    from PIL import Image

    try:
        with Image.open(path, formats=_beside("preprocessing").FORMATS) as file:
            image: Image.Image = _beside("preprocessing").upright(file)
        bundle.preprocessing.check(image.mode, *image.size)
        return image
    except ValueError as error:
        raise BundleError(f"{path} {error}") from None
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        reason = _beside("preprocessing").why_unreadable(path, error)
        raise BundleError(f"{path} is no image that can be read ({reason})") from None


def _answer_all(bundle: Bundle, paths: Sequence[Path], batch: int, as_json: bool) -> bool:
    """Print a line for each image; whether every one has an answer."""
    good = True

    def lacks(path: Path, reason: str) -> None:
        nonlocal good
        good = False
        _say(reason)
        if as_json:
            print(json.dumps({"file": str(path), "error": reason}))

    marked = {"unreliable": list(bundle.unreliable)} if bundle.unreliable else {}
    blank = np.zeros((1, bundle.preprocessing.channels, *bundle.preprocessing.size), np.float32)
    bundle.all_exits(blank)  # so that the first image does not pay for the start
    bundle.run(blank)
    for first in range(0, len(paths), batch):
        files, pictures = [], []
        for path in paths[first : first + batch]:
            try:
                pictures.append(opened(path, bundle))
                files.append(path)
            except BundleError as error:
                lacks(path, str(error))
        began = time.perf_counter()
        answers = bundle.predict(pictures)
        spent = 1000 * (time.perf_counter() - began) / max(len(files), 1)
        for row, path in enumerate(files):
            label, exit = answers.labels[row], int(answers.exits[row])
            odds = None if answers.probabilities is None else answers.probabilities[row].tolist()
            confidence = float(answers.confidence[row])
            if math.isnan(confidence):
                lacks(path, f"{path} has no answer: {UNANSWERED}")
            elif as_json:
                fields = bundle.as_json(label, odds)
                line = {"file": str(path), **fields, "confidence": confidence, "exit": exit}
                line |= {"compute_share": float(answers.compute[row]), "milliseconds": spent, **marked}
                print(json.dumps(line))
            else:
                named, sure = _printable(label), f"  {100 * confidence:.1f} %"
                if odds is not None:
                    marks = zip(odds, bundle.labels, answers.classes[row], strict=True)
                    pairs = [(p, name) for p, name, yes in marks if yes]
                    each = [f"{_printable(name)} {100 * p:.1f} %" for p, name in sorted(pairs)[::-1]]
                    named, sure = ", ".join(each) or "no label", ""
                print(f"{_printable(path)}  {named}{sure}  exit {exit}  {spent:.2f} ms")
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 when something could not be read."""
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="Classify images with the early-exit network in this folder.",
        epilog="One line an image: file, class, confidence, exit, milliseconds (preprocessing "
        "included, reading the file not); of several labels an image, those that are answered. Files "
        "that cannot be read are named, and the exit code is 2.",
    )
    parser.add_argument("images", nargs="*", type=Path, help="images, or folders of images")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="images at once (1)")
    parser.add_argument("--threads", type=int, metavar="N", help="by default as many as cores")
    parser.add_argument("--runtime", default=ONNXRUNTIME, metavar="NAME", help="what runs the stages")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    parser.add_argument("--measure", action="store_true", help="time each stage on noise, as JSON")
    parser.add_argument("--out", type=Path, metavar="FILE", help="with --measure: write the times there")
    parser.add_argument("--device", metavar="NAME", help="with --measure: what this device is called")
    if hasattr(sys.stdout, "reconfigure"):  # a console of Windows lacks most letters
        sys.stdout.reconfigure(errors="backslashreplace")
    options = parser.parse_args(arguments)
    if options.batch < 1 or (options.threads is not None and options.threads < 1):
        parser.error("--batch and --threads must be at least 1")
    if bool(options.images) is options.measure:
        parser.error("give images or folders of images, or --measure")
    if not options.measure and (options.out is not None or options.device is not None):
        parser.error("--out and --device go with --measure")
    if options.device is not None and not 0 < len(options.device) <= 200:
        parser.error("--device is a name of 1 to 200 letters")
    try:
        bundle = Bundle(Path(__file__).parent, options.threads, runtime=options.runtime)
        if options.measure and options.out is not None:
            _write_times(bundle, options.batch, options.out, options.device)
            return 0
        if options.measure:
            batches = tuple(dict.fromkeys((*MEASURED_BATCHES, options.batch)))
            print(json.dumps(measure(bundle, batches, device=options.device)))
            return 0
        for reason in bundle.unreliable:
            _say(f"unreliable: {reason}")
        good = _answer_all(bundle, list(find_images(options.images)), options.batch, options.json)
        sys.stdout.flush()
    except BundleError as error:
        _say(error)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read the answers has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ModuleNotFoundError as error:
        package = "Pillow" if error.name == "PIL" else error.name
        _say(f"{package} is not installed here; pip install {package}")
        return 2
    except Exception as error:  # such as no memory for a batch
        _say(f"{type(error).__name__}: {_line(error)}; give fewer images at once, or {AGAIN}")
        return 2
    return 0 if good else 2


def _say(what: object) -> None:
    print(f"run.py: {_printable(what)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
