"""No step waits for the device: what a host asks of it, value by value, does not grow with the steps.
And what a step computes up to the optimizer is one graph, which a compiler could take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from fit_runs import begin, derived, program_nodes, unlike
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from longer import long
from offramp.device import moved
from offramp.engine.fit import fit
from offramp.engine.resolve import Node
from offramp.engine.settings import applied
from offramp.engine.tally import measured
from offramp.engine.trainee import loss_of, train_mode
from offramp.nets.heads import ClockedDropout
from offramp.nets.network import inside
from offramp.strategies import GROUPS
from support import NUMERICS

NINE = tuple(next(iter(GROUPS.values())))
WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "unique", "equal")
"""Operations whose answer, or its size, the host must have before it goes on."""


class Asked(TorchDispatchMode):
    """How often the host waits for an answer of the device."""

    count = 0

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: Any = (),
        kwargs: Any = None,
    ) -> Any:
        name = function.overloadpacket.__name__
        own_mask = name == "index" and any(t is not None and t.dtype == torch.bool for t in args[1])
        self.count += name in WAITING or own_mask
        return function(*args, **(kwargs or {}))


def asked(strategy: str, batch_size: int, per_step: bool = False) -> tuple[int, int]:
    """How often an epoch of the first phase waits, and its steps."""
    node = program_nodes(strategy)[0]
    with applied(NUMERICS):
        trainee, passes, images = begin(node)
        steps = -(-images.count("train") // batch_size)
        with Asked() as mode:
            for _ in fit([trainee], passes, images, batch_size):
                break
            if per_step:
                for _ in range(steps):
                    torch.zeros(1).item()
    return mode.count, steps


@pytest.mark.parametrize(
    "strategy",
    ["joint", "boosted", "gradient-equilibrium", "imta", "self-distillation", "confidence-gated"],
)
def test_an_epoch_waits_as_often_however_many_steps_it_has(strategy: str) -> None:
    (few, one), (many, several) = asked(strategy, 32), asked(strategy, 4)
    assert several >= 6 * one
    assert many <= few
    assert asked(strategy, 4, per_step=True)[0] - many == several  # a step that waits is seen


def computed(node: Node, noisy: bool = False) -> Callable[..., Tensor]:
    """What a step of a phase computes of a batch: the loss, with the tally's sums."""
    trainee, passes, images = begin(node, passing=derived)
    train_mode(trainee, True)
    for module in trainee.net.modules():
        if isinstance(module, ClockedDropout):
            module.p = 0.5 if noisy else 0.0
    inside(trainee.net).clock.tick(1, 0, 0)
    rows = torch.arange(16)
    read, labels = next(passes.reads("train", [rows], None, [node])), images.labels("train", rows)

    def compute(curious: bool = False) -> Tensor:
        mine, theirs = passes.answers(node, trainee.net, read)
        loss = loss_of(trainee, mine, theirs, labels, None)
        if curious and loss > 0:
            loss = 2 * loss
        return loss + 0 * measured(node.exits, loss.detach(), mine.logits, labels).sum()

    return compute


@pytest.mark.parametrize("strategy", ["distillation", *long(*(s for s in NINE if s != "distillation"))])
@pytest.mark.skipif(torch.__version__ < "2.13", reason="older compilers break the graph")
def test_a_step_up_to_the_optimizer_is_one_graph(strategy: str) -> None:
    """`fullgraph` refuses whatever PyTorch's compiler cannot put into it; gradients are part of it. The
    controls are a branch on a number, and dropout, whose masks the host seeds by name: what has it takes
    no graph."""
    for node in unlike(program_nodes(strategy)):
        torch._dynamo.reset()
        compute = computed(node)
        loss = torch.compile(compute, fullgraph=True, backend="aot_eager")()
        assert torch.equal(loss, compute())
        loss.backward()
    if strategy != "distillation":
        return
    noisy = computed(program_nodes("joint")[0], noisy=True)
    for wrong in (partial(computed(node), curious=True), noisy):
        with pytest.raises(torch._dynamo.exc.TorchDynamoException):
            torch.compile(wrong, fullgraph=True, backend="eager")()


class Pinned:
    """A tensor of the CPU on its way to a GPU."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def pin_memory(self) -> Pinned:
        self.calls.append("pinned")
        return self

    def to(self, device: torch.device, non_blocking: bool = False) -> Pinned:
        self.calls.append((str(device), non_blocking))
        return self


def test_images_go_to_a_gpu_out_of_pinned_memory_while_the_host_goes_on() -> None:
    tensor: Any = Pinned()
    moved(tensor, torch.device("cuda", 1))
    assert tensor.calls == ["pinned", ("cuda:1", True)]
    images = torch.zeros(2)
    assert moved(images, torch.device("cpu")) is images
