"""Training from caches gives the bits of plain execution, on every backbone.

The contract's derived runs last one epoch, for which nothing is cached. Here phases last two, so that
all they read comes from caches: what every head reads of its tap, the teacher's logits, what the final
classifier reads, and maps that a segment goes on from. The engine alone runs them, from one short joint
phase that is trained once.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import pytest
import torch
from contract_runs import BATCH, FROZEN_BATCH, TRAIN, contract_data
from torch import Tensor

from longer import long
from offramp.engine.cache import Cache, CacheKey
from offramp.engine.fit import Diverged, conclude, fit
from offramp.engine.passes import Derived, Images, Pass, Plain
from offramp.engine.resolve import Node, Setting, resolve
from offramp.engine.settings import applied
from offramp.engine.trainee import Row, enroll
from offramp.engine.values import IMAGES, FrozenValue, Tensors, frozen_inputs, teacher_logits, union
from offramp.engine.weights import Weights
from offramp.nets.backbones import BACKBONES
from offramp.nets.network import prepared
from offramp.numerics import Numerics, profile
from offramp.phase import Phase, Program
from offramp.recipe import Recipe
from offramp.strategies import STRATEGIES
from offramp.study.plan.plan import data_identity
from support import CPU, NUMERICS, backbones, network

EPOCHS = 2
ROOM = 2**30  # bytes, more than any of these runs needs


@dataclass(frozen=True)
class Scale:
    """Images to train on, a step's, and the numerics: always several steps, the last one short."""

    train: int
    batch: int
    numerics: Numerics

    @property
    def frozen_batch(self) -> int:
        return max(self.batch, self.numerics.frozen_batch)


TINY = Scale(TRAIN, BATCH, replace(NUMERICS, frozen_batch=FROZEN_BATCH))
SHIPPED = Scale(70, 48, profile("default", "cpu"))
"""Every setting as users run it, the two threads among them; two pieces of 64 in a cache."""

WHOLE = ("digits-cnn", "mobilenetv2")
"""Where the heads of all exits, and segments too, are trained."""
LAYOUTS = {
    name: {"a map of 1 px", "a map, channels last", "a vector"}
    for name in ("mobilenetv1", "mobilenetv2", "resnet18", "resnet50", "vgg16")
} | {"digits-cnn": {"a map, channels last"}}
"""What is to be among the cached values, so that the comparison says something of it."""


class Watched(Cache):
    """A cache that counts what is read from it, and knows what was ever filled.

    grown: what other values were computed from while they were filled in.  layouts: of what was read.
    """

    def __init__(self, folder: Path, memory: int = ROOM, disk: int = 0) -> None:
        super().__init__(memory, disk, folder)
        self.grown: set[FrozenValue] = set()
        self.ever: set[CacheKey] = set()
        self.reads: Counter[CacheKey] = Counter()
        self.layouts: set[str] = set()

    def filled(self, key: CacheKey) -> None:
        super().filled(key)
        self.ever.add(key)

    def get(self, key: CacheKey) -> Tensors | None:
        value = super().get(key)
        if value is not None:
            self.reads[key] += 1
            self.layouts |= {_layout(t) for t in value}
        return value


def _layout(value: Tensor) -> str:
    if value.dim() != 4:
        return "a vector"
    if value.shape[2:] == (1, 1):
        return "a map of 1 px"
    nhwc = value.is_contiguous(memory_format=torch.channels_last)
    return "a map, channels last" if nhwc else "a map, channels first"


@dataclass(frozen=True)
class Left:
    """What a phase leaves: its weights and its history."""

    weights: Mapping[str, Tensor]
    rows: Sequence[Row]


def filler(backbone: str, seed: int, left: Mapping[str, Left]) -> Weights:
    """Networks filled from what is left of nodes at that time."""
    template = network(backbone)
    images = contract_data(template.input_shape, TRAIN)
    net = prepared(template, lambda: images.sample(TRAIN))
    return Weights(net, seed, lambda key: left[key].weights, CPU)


def program(exits: int, full: bool) -> Program:
    """Frozen parts of every kind; the first word of a phase's name says which phases share a pass.

    The final classifier is refined before students are taught, so that the teacher's logits are computed
    from what the classifier reads, by then in the cache. full: every exit's head, and segments too.
    """
    start = replace(STRATEGIES["joint"](exits)[0], name="start", recipe=(("epochs", 1),))

    def tail(strategy: str, word: str, teacher: str | None = None, **options: object) -> list[Phase]:
        phases = STRATEGIES[strategy](exits, **options)[1:]
        return [replace(p, name=f"{word} {i}", teacher=teacher) for i, p in enumerate(phases, 1)]

    heads = tail("two-stage", "head")
    students = tail("distillation", "student", teacher="start")
    refined = tail("joint-branch", "refined", refine_final=True)
    if not full:
        return (start, heads[0], heads[-1], refined[-1], students[0])
    branches = STRATEGIES["branch-wise"](exits)
    return (start, *heads, refined[0], refined[-1], students[0], students[-1], branches[1], branches[-1])


def nodes_of(backbone: str, scale: Scale, full: bool) -> tuple[Node, ...]:
    net = network(backbone)
    data = data_identity(contract_data(net.input_shape, scale.train))
    recipe = Recipe(epochs=EPOCHS, batch_size=scale.batch, learning_rate=0.01)
    return resolve(program(net.exits, full), net, Setting(data, recipe, scale.numerics, seed=42)).nodes


def groups(nodes: Sequence[Node]) -> Iterator[list[Node]]:
    """Nodes that share a pass; branches of a trunk do not."""
    for word, members in groupby(nodes, lambda node: node.name.split()[0]):
        together = list(members)
        yield from ([node] for node in together) if word == "branch" else [together]


def train(images: Images, nodes: Sequence[Node], weights: Weights, passes: Pass) -> dict[str, Left]:
    trainees = [enroll(n, weights, NUMERICS.fused_optimizer) for n in nodes]
    size = nodes[0].recipe.batch_size
    reports = [r for epoch in fit(trainees, passes, images, size) for r in epoch]
    assert not [r for r in reports if isinstance(r, Diverged)]
    assert len(reports) == sum(n.recipe.epochs for n in nodes)
    return {t.node.key: Left(conclude(t, passes, images, size), t.rows) for t in trainees}


def run_plain(
    backbone: str, nodes: Sequence[Node], scale: Scale, left: Mapping[str, Left]
) -> dict[str, Left]:
    """Each node alone, layer by layer, after what is `left` of nodes before them; with it."""
    images = Images(contract_data(network(backbone).input_shape, scale.train), CPU)
    left = dict(left)
    with applied(scale.numerics):
        for node in nodes:
            weights = filler(backbone, node.seed, left)
            passes = Plain(images, [node], weights, scale.frozen_batch)
            left |= train(images, [node], weights, passes)
    return left


def run_cached(
    backbone: str, nodes: Sequence[Node], scale: Scale, left: Mapping[str, Left], cache: Watched
) -> dict[str, Left]:
    """The same from caches, a group of nodes at a time; each group is to have read nothing else."""
    images = Images(contract_data(network(backbone).input_shape, scale.train), CPU)
    left = dict(left)
    with applied(scale.numerics):
        for group in groups(nodes):
            weights = filler(backbone, group[0].seed, left)
            cache.reads.clear()
            passes = Derived(images, group, weights, scale.frozen_batch, cache)
            cache.grown |= {value for value, *_ in cache.reads} - set(frozen_values(group))
            cache.reads.clear()
            left |= train(images, group, weights, passes)
            check_reads(cache, group, scale, images)
    return left


def frozen_values(group: Sequence[Node]) -> list[FrozenValue]:
    """All that the phases of a group read and that layers put out."""
    values = [v for n in group for v in (*frozen_inputs(n).values(), *teacher_logits(n).values())]
    return [value for value in union(values) if value.point != IMAGES]


def check_reads(cache: Watched, group: Sequence[Node], scale: Scale, images: Images) -> None:
    """Every batch of every epoch read every frozen value from the cache."""
    values = frozen_values(group)
    assert values
    for split in ("train", "validation"):
        batches = -(-images.count(split) // scale.batch)
        for value in values:
            key = (value, split, None, scale.frozen_batch)
            assert key in cache.ever, f"{value.point} of {split} was never cached"
            assert cache.reads[key] >= EPOCHS * batches, f"{value.point} of {split} was not read"


def differences(
    nodes: Sequence[Node], some: Mapping[str, Left], others: Mapping[str, Left]
) -> list[str]:
    names = []
    for node in nodes:
        a, b = some[node.key], others[node.key]
        assert a.weights.keys() == b.weights.keys()
        names += [f"{node.name}: {n}" for n in a.weights if not torch.equal(a.weights[n], b.weights[n])]
        if a.rows != b.rows:
            names.append(f"{node.name}: history")
    return names


def compared(backbone: str, scale: Scale, cache: Watched, *, full: bool) -> list[str]:
    """How a run from caches differs from a plain one."""
    start, *nodes = nodes_of(backbone, scale, full)
    begun = run_plain(backbone, [start], scale, {})
    plain = run_plain(backbone, nodes, scale, begun)
    return differences(nodes, plain, run_cached(backbone, nodes, scale, begun, cache))


@pytest.mark.journey
@pytest.mark.parametrize("backbone", backbones(BACKBONES, more=["resnet18", "airbench"]))
def test_training_from_caches_gives_the_bits_of_plain_training(backbone: str, tmp_path: Path) -> None:
    cache = Watched(tmp_path)
    assert not compared(backbone, TINY, cache, full=backbone in WHOLE)
    assert cache.grown, "no value was computed from a cached one"
    assert LAYOUTS.get(backbone, set()) <= cache.layouts


@pytest.mark.parametrize("backbone", ["digits-cnn", *long("resnet18", "mobilenetv2")])
def test_so_it_does_on_two_threads_with_every_setting_as_shipped(backbone: str, tmp_path: Path) -> None:
    assert SHIPPED.numerics.threads == 2
    assert not compared(backbone, SHIPPED, Watched(tmp_path), full=False)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("backbone", ["digits-cnn", *long("resnet18", "mobilenetv2")])
def test_so_it_does_from_files(backbone: str, tmp_path: Path) -> None:
    cache = Watched(tmp_path, memory=0, disk=ROOM)
    assert not compared(backbone, TINY, cache, full=backbone in WHOLE)
    assert cache.used("disk") > 0 and cache.layouts >= LAYOUTS[backbone]


# That the checks above find what they look for.


def test_a_cached_value_that_is_off_by_its_last_bit_is_found(tmp_path: Path) -> None:
    class Nudged(Watched):
        def filled(self, key: CacheKey) -> None:
            super().filled(key)
            for t in super().get(key) or ():
                t.copy_(torch.nextafter(t, torch.full_like(t, torch.inf)))

    changed = compared("digits-cnn", TINY, Nudged(tmp_path), full=False)
    assert any(f.startswith("head 1: ") for f in changed)


def test_values_that_found_no_room_in_the_cache_are_missed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="was never cached"):
        compared("digits-cnn", TINY, Watched(tmp_path, memory=0), full=False)
