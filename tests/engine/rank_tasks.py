"""What the ranks of `test_ranks` are asked to do; each answers with tensors by name."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from fit_runs import program_nodes, split_data
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from offramp import attach, program
from offramp.device import seeded
from offramp.engine.cache import Cache
from offramp.engine.fit import conclude, fit, split_logits
from offramp.engine.images import Images
from offramp.engine.norms import normalizing
from offramp.engine.passes import Derived, Pass, Plain
from offramp.engine.ranks import Ranks
from offramp.engine.settings import applied
from offramp.engine.trainee import enroll
from offramp.engine.values import reads_cached
from offramp.engine.weights import Weights
from offramp.nets.heads import ClockedDropout
from offramp.recipe import Recipe
from support import CPU, NUMERICS, network

Tensors = dict[str, Tensor]


def sums(ranks: Ranks, counts: list[int]) -> Tensors:
    """The sums of so many numbers of very unlike sizes, and the same added up in order by each rank
    itself."""
    sums = Tensors()
    for count in counts:
        parts = [numbers(rank, count) for rank in range(ranks.count)]
        expected = parts[0]
        for part in parts[1:]:
            expected = expected + part
        sums |= {f"sum/{count}": ranks.sum(parts[ranks.rank]), f"expected/{count}": expected}
    return sums


def numbers(rank: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(count, generator=generator) * 10.0 ** torch.randint(
        -6, 7, (count,), generator=generator
    )


def orders(ranks: Ranks) -> Tensors:
    """What rank 0 sends gets to the others."""
    every: list[list[Any]] = [["train", "a"], ["logits", 3, None]]
    if ranks.leads:
        for order in [*every, None]:
            ranks.send(order)
        return {}
    assert list(ranks.orders()) == every
    return {}


class Exported(nn.BatchNorm2d):
    """As torch.export leaves it."""

    def forward(self, input: Tensor) -> Tensor:
        state = (self.weight, self.bias, self.running_mean, self.running_var)
        output: Tensor = torch.ops.aten.batch_norm.default(input, *state, True, 0.3, self.eps, False)
        return output


def normalized(ranks: Ranks, rows: int, together: bool = True) -> Tensors:
    """A batch of `rows` through convolution and normalization, forward and backward: the output, the
    gradients of weights, the running statistics. together: by the statistics of all rows."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(2, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3))
    net.append(Exported(4)).append(nn.Flatten()).append(nn.Linear(64, 3))
    net.append(nn.BatchNorm1d(3, momentum=0.3, affine=False)).double()
    batch, target = torch.randn(8, 2, 8, 8).double() * 3 + 5, torch.randn(8, 3).double()
    (share,) = ranks.shares(torch.arange(8), [(0, rows)], owned=False, device=CPU)
    context: AbstractContextManager[object] = normalizing(ranks, share) if together else nullcontext()
    with context:
        loss = (net(batch[share.rows]) * target[share.rows]).pow(2).mean() * share.weight
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    total = ranks.sum_(gradients, loss.detach() if not share.idle else torch.zeros(()).double())
    every = {f"gradient/{n}": p.grad for n, p in net.named_parameters() if p.grad is not None}
    return every | {f"buffer/{n}": b for n, b in net.named_buffers()} | {"loss": total}


RECIPES: dict[str, Recipe] = {
    "plain": Recipe(epochs=2, batch_size=16, learning_rate=0.01),
    "weighted": Recipe(epochs=2, batch_size=16, class_weights="balanced", label_smoothing=0.1),
    "averaged": Recipe(epochs=3, batch_size=7, average="lookahead", average_every=2),
    "weighted and averaged": Recipe(
        **{"epochs": 2, "batch_size": 16, "class_weights": "balanced", "label_smoothing": 0.1},
        **{"average": "lookahead", "average_every": 2},
    ),
}


def trained(
    ranks: Ranks,
    strategy: str,
    recipe: str,
    folder: str,
    images: int = 45,
    derived: bool = False,
    dropout: bool = True,
) -> Tensors:
    """All phases of a strategy, one after another; what each hands on, its history, and the answers of
    its last network. derived: from cached values.  dropout: each rank drops other units."""
    data = split_data(images)
    here, weights_of, every = Images(data, CPU, ranks=ranks), dict[str, Tensors](), Tensors()
    with applied(NUMERICS):
        for number, node in enumerate(program_nodes(strategy, RECIPES[recipe])):
            size = node.recipe.batch_size
            weights = Weights(network("digits-cnn"), node.seed, weights_of.__getitem__, CPU)
            trainee = enroll(node, weights, NUMERICS.fused_optimizer)
            for module in trainee.net.modules():
                if isinstance(module, ClockedDropout) and not dropout:
                    module.p = 0.0
            cache = Cache(2**30, 0, Path(folder))
            passes: Pass = Plain(here, [node], weights, 64)
            if derived:
                passes = Derived(here, [node], weights, 64, cache)
                assert bool(passes.cached.memory) == reads_cached(node)
            list(fit([trainee], passes, here, size))
            weights_of[node.key] = conclude(trainee, passes, here, size)
            every |= {f"{number}/{name}": tensor for name, tensor in weights_of[node.key].items()}
            rows = [row.value for row in trainee.rows]
            every[f"{number}/history"] = torch.tensor(rows, dtype=torch.float64)
        answers = split_logits(trainee.net, here, "test", node.exits, 8)
        every["answers"] = torch.from_numpy(answers)
    return every


def in_a_loop(ranks: Ranks, wrapper: str, strategy: str, norm: bool = False) -> Tensors:
    """What a loop of one's own ends in, each rank with its part of every batch. norm: with BatchNorm,
    whose statistics are those of a part."""
    with seeded(0):
        first = nn.BatchNorm2d(6) if norm else nn.ReLU()
        layers = [nn.Conv2d(1, 6, 3, padding=1), first, nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()]
        module = nn.Sequential(*layers, nn.Conv2d(6, 6, 3), nn.Flatten(), nn.Linear(216, 5))
    net = attach(module, ["1", "3"], (1, 8, 8), head="linear")
    generator = torch.Generator().manual_seed(1)
    batches = torch.randn(4, 8, 1, 8, 8, generator=generator)
    labels = torch.randint(5, (4, 8), generator=generator)
    for phase in program(net, strategy):
        with phase:
            model: Any = phase.module
            if ranks.count > 1 and wrapper == "ddp":
                model = DistributedDataParallel(model)
            elif ranks.count > 1:
                fully_shard(model, mesh=init_device_mesh("cpu", (ranks.count,)))
            optimizer = torch.optim.SGD(phase.parameters(), lr=0.05, momentum=0.9)
            for images, classes in zip(batches, labels, strict=True):
                own = slice(ranks.rank, None, ranks.count)
                loss = model(images[own], classes[own])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}
