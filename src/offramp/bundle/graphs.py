"""The stages of an early-exit network as ONNX graphs: an exit's head, and the layers since the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from offramp.bundle.folder import remove_traces
from offramp.bundle.runtime import BEFORE
from offramp.errors import OfframpError, check_installed
from offramp.inputs import blank
from offramp.nets import ExitNetwork
from offramp.nets.cut.trace import quiet
from offramp.nets.network import inside

NEEDED = ("onnx", "onnxscript", "onnxruntime")
INLINE_BYTES = 2**30  # a graph file is a Protocol Buffer, which ends at 2 GiB; weights go beside it then
TRACED_BATCH = 2  # the exporter would take a batch of one for a constant


@dataclass(frozen=True)
class StageGraph:
    """A stage of a bundle."""

    exit: int  # whose head it ends with
    trunk: int  # which it runs
    first: int  # its first segment, from 1; it runs those up to `exit`
    after: int | None  # index of the stage whose tensors it goes on from; None for the images
    carries: bool  # whether a later stage goes on from its tensors

    @property
    def file(self) -> str:
        """Its name in a bundle."""
        return f"stages/exit-{self.exit}.onnx"


def check_exporter() -> None:
    """Raises OfframpError naming what the export needs and is not installed."""
    check_installed("export", "onnx", *NEEDED)


def layout(trunk_of: Sequence[int], exits: Sequence[int]) -> tuple[StageGraph, ...]:
    """The stages that answer at `exits` (numbers, ascending), in order. trunk_of: the trunk of every
    exit of the network. A stage goes on from the last one on its trunk; the first one on a trunk starts
    from the images."""
    newest: dict[int, int] = {}
    stages = []
    for at, exit in enumerate(exits):
        trunk = trunk_of[exit - 1]
        after = newest.get(trunk)
        later = any(trunk_of[other - 1] == trunk for other in exits[at + 1 :])
        first = 1 if after is None else exits[after] + 1
        stages.append(StageGraph(exit, trunk, first, after, later))
        newest[trunk] = at
    return tuple(stages)


def one_size(net: ExitNetwork, exits: Sequence[int]) -> tuple[int, ...]:
    """Those of the early exits whose heads fit images of one size only, as one that flattens its map."""
    return tuple(k for k in exits if k < net.exits and inside(net).head_specs[k - 1].one_size)


@dataclass(frozen=True)
class TracedStage:
    """A stage as a module of PyTorch, and tensors that it takes."""

    stage: StageGraph  # which it is
    module: StageModule  # in eval mode: tensors → logits [B, classes], then what is carried
    tensors: tuple[Tensor, ...]  # of a batch of `TRACED_BATCH`
    carried: int  # how many tensors a later stage goes on from


def traced(net: ExitNetwork, stages: Sequence[StageGraph]) -> Iterator[TracedStage]:
    """The modules that graphs are made of.

    Inputs and outputs have a free batch: the images [B, C, H, W] in float32, or
    what the stage before carried → logits [B, classes], then what is carried. Where the exit has learned
    what to add of the answer before, that is the last input, BEFORE [B, classes], and the logits are its
    answer. net: in eval mode, on the CPU.

    Raises:
        OfframpError: A stage carries what has no row for each image.
    """
    first = blank(net.input_shape, TRACED_BATCH, torch.empty(0))
    carried_by: dict[int | None, tuple[Tensor, ...]] = {None: (first,)}
    for at, stage in enumerate(stages):
        module, tensors = _module(net, stage), carried_by[stage.after]
        if module.adds is not None:
            tensors = (*tensors, torch.zeros(TRACED_BATCH, net.classes))
        with torch.no_grad():
            _, *carried = module(*tensors)
        for tensor in carried:
            if tensor.ndim == 0 or tensor.shape[0] != TRACED_BATCH:
                raise OfframpError(
                    f"a tensor {list(tensor.shape)} without a row for each image passes exit "
                    f"{stage.exit} by; put that exit elsewhere"
                )
        carried_by[at] = tuple(carried)
        yield TracedStage(stage, module, tensors, len(carried))


def export(net: ExitNetwork, stages: Sequence[StageGraph], folder: Path) -> Iterator[TracedStage]:
    """Write the ONNX graph of each stage to `folder / stage.file`. net: in eval mode, on the CPU.

    Yields:
        Each stage, once it is written.

    Raises:
        OfframpError: A stage cannot be a graph.
    """
    for stage in traced(net, stages):
        _write(stage, folder / stage.stage.file)
        yield stage


class StageModule(nn.Module):
    """Segments one after another, then the exit: tensors → logits, and what is carried.

    adds: what the exit adds of the answer before, which is the last tensor then; None for nothing."""

    adds: nn.Module | None

    def __init__(
        self,
        segments: Sequence[nn.Module],
        head: nn.Module,
        early: bool,
        carries: bool,
        adds: nn.Module | None,
    ) -> None:
        super().__init__()
        self.segments = nn.ModuleList(segments)
        self.head = head
        self.early = early
        self.carries = carries
        self.adds = adds

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        before = tensors[-1]
        tensors = tensors if self.adds is None else tensors[:-1]
        for segment in self.segments:
            tensors = segment(*tensors)
        logits: Tensor = self.head(tensors[0]) if self.early else self.head(*tensors)[0]
        logits = logits if self.adds is None else logits + self.adds(before)
        return (logits, *tensors) if self.carries else (logits,)


def _module(net: ExitNetwork, stage: StageGraph) -> StageModule:
    own = inside(net)
    segments = [own.segment(i, stage.trunk).as_module() for i in range(stage.first, stage.exit + 1)]
    early = stage.exit < net.exits
    head = own.heads[stage.exit - 1] if early else own.trunks[stage.trunk].classifier.as_module()
    adds = own.heads[stage.exit - 1].before if early else None
    return StageModule(segments, head, early, stage.carries, adds).eval()


def _write(stage: TracedStage, path: Path) -> None:
    module, tensors = stage.module, stage.tensors
    batch = torch.export.Dim("batch")
    names = [f"in_{i}" for i in range(len(tensors))]
    names[-1] = names[-1] if module.adds is None else BEFORE
    path.parent.mkdir(parents=True, exist_ok=True)
    size = sum(p.numel() * p.element_size() for p in module.state_dict().values())
    try:
        with quiet():  # the exporter tells of its failure at length; it uses what torch has deprecated
            program = torch.onnx.export(
                module,
                tensors,
                dynamo=True,
                dynamic_shapes=(tuple({0: batch} for _ in tensors),),
                input_names=names,
                output_names=["logits", *(f"out_{i}" for i in range(stage.carried))],
                verbose=False,
            )
    except RuntimeError as error:  # OnnxExporterError, and what torch.export raises
        raise OfframpError(
            f"the layers up to exit {stage.stage.exit} cannot be an ONNX graph ({reason(error)}); "
            "tap another place, or use another backbone"
        ) from error
    assert program is not None
    remove_traces(program.model)  # a bundle goes to others
    program.save(str(path), external_data=size > INLINE_BYTES)


def reason(error: BaseException) -> str:
    """What went wrong at first, in a line: what the exporter makes of it is advice to its own makers."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
