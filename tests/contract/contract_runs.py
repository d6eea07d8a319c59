"""Every strategy, run on one backbone in both modes, and what is to be known of it afterwards.

The plain runs use the engine alone, phase by phase, so that the whole network of a phase can be
compared before and after it. The derived runs are those of a study, through the store.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from offramp.data import Data, DataSpec, from_dataset, samples
from offramp.data.load import assemble
from offramp.device import seeded
from offramp.engine.fit import Diverged, answers_of, conclude, fit, split_logits
from offramp.engine.passes import Images, Plain
from offramp.engine.resolve import Node
from offramp.engine.settings import applied
from offramp.engine.trainee import enroll
from offramp.engine.weights import Weights
from offramp.nets import ExitNetwork, attach
from offramp.nets.network import inside
from offramp.numerics import Numerics
from offramp.parts import Part, path
from offramp.strategies import STRATEGIES
from offramp.study.plan.plan import Plan, Trial, plan_trials
from offramp.study.run import trials
from offramp.study.run.events import Failed
from support import CPU, NUMERICS, Vision, network, run_all, tiny_data, tiny_study

LAST_ONLY = "joint, last exit only"
"""Joint training with all weight on the last exit."""
HEADS_ONLY = "pretrained-branch, scope head"
SMALLEST = "digits-cnn"
"""The backbone that runs every strategy."""
UNTRACEABLE = "attached by lists of submodules"
"""A network that no tracer follows."""
OWN_DATA = "a Dataset of one's own"
"""SMALLEST on images that a Dataset makes as they are needed, under a random transform."""
VISION = "a vision transformer"
"""Five layers of attention over 16 tokens and a class token, with LGViT's heads: one of each kind."""
LIKE = {OWN_DATA: SMALLEST}
KINDS = ("baseline", "joint", "branch-wise", "distillation")
"""What other backbones run. Among these are phases of every kind: a whole network, all exits at once,
segments on frozen ones, and heads on a frozen trunk with a teacher."""
ON_OWN_DATA = KINDS[:3]
"""A teacher sees the same images as its students, wherever those come from."""

TRAIN, OTHERS, BATCH = 19, 9, 10
"""Images to train on (10 and 9 a step), and in each other split."""
FROZEN_BATCH, EVALUATION_BATCH = 16, 16
"""Smaller than in production, since rows of padding cost as much as others: test_padding is about
full-sized batches."""


@dataclass(frozen=True)
class PhaseRecord:
    """What a phase did to the network it ran on.

    moved: names of the tensors, buffers included, that are not bit for bit what they were.
    parts: names of the tensors of each part.  counters: by how much each BatchNorm's count of
    batches went up.  steps: updates of the phase.
    """

    name: str
    trained: frozenset[Part]
    moved: frozenset[str]
    parts: Mapping[Part, frozenset[str]]
    counters: Mapping[str, int]
    steps: int


@dataclass(frozen=True)
class TrialRecord:
    """What came of one trial.

    phases: what each did (plain runs only).  weights: of each phase, a digest for each tensor it
    trained.  final: digests of the finished network's tensors along each exit's path.  left: those
    of them that a phase trained, as the last such phase left them.  logits: of the test split
    [N, exits, classes].
    """

    phases: tuple[PhaseRecord, ...]
    weights: tuple[Mapping[str, str], ...]
    final: Mapping[int, Mapping[str, str]]
    left: Mapping[int, Mapping[str, str]]
    logits: np.ndarray


def contract_plan(
    backbone: str, mode: str, strategies: tuple[str, ...] = (), numerics: Numerics = NUMERICS
) -> Plan:
    """One epoch of `strategies`; by default of KINDS, and on SMALLEST of every registered one and of
    two more that the contract has a word about."""
    own = {UNTRACEABLE: untraceable, VISION: vision}
    net = own[backbone]() if backbone in own else network(LIKE.get(backbone, backbone))
    last = {"name": "joint", "as": LAST_ONLY, "joint_weights": [0.0] * (net.exits - 1) + [1.0]}
    heads = {"name": "pretrained-branch", "as": HEADS_ONLY, "scope": "head"}
    study = tiny_study(
        strategies or {SMALLEST: [*STRATEGIES, last, heads], OWN_DATA: ON_OWN_DATA}.get(backbone, KINDS),
        backbone,
        recipe={"epochs": 1, "batch_size": BATCH},
        execution={"mode": mode},
    )
    small = replace(numerics, frozen_batch=FROZEN_BATCH)
    data = (own_data if backbone == OWN_DATA else contract_data)(net.input_shape)
    return plan_trials(study, data, net, small)


class _Choice(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > -1e9 else -x)


@cache
def untraceable() -> ExitNetwork:
    """Three segments with batch norms and dropout, cut by their names."""
    with seeded(0):
        layers = [
            _Choice(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True)),
            _Choice(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()),
            _Choice(nn.Dropout(0.2), nn.Conv2d(6, 8, 3), nn.ReLU()),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 3),
        ]
    return attach(_Choice(*layers), [["0"], ["1"], ["2"], ["3", "4", "5"]], (3, 16, 16))


@cache
def vision() -> ExitNetwork:
    with seeded(0):
        module = Vision(16, 8, 3)
    return attach(module, [f"blocks.{n}" for n in range(4)], (3, 16, 16), head="lgvit")


@cache
def contract_data(shape: tuple[int, int, int], train: int = TRAIN) -> Data:
    """`train` images to train on and OTHERS in each other split."""
    drawn = tiny_data(shape, images=120 if train <= TRAIN else 400).train
    assert len(drawn) >= train + OTHERS
    cuts = (slice(0, train), *[slice(train, train + OTHERS)] * 3)
    splits = [(drawn.images[rows], drawn.labels[rows]) for rows in cuts]
    return from_dataset(*splits)


class _Lazy(Dataset[Any]):
    def __init__(self, split: Any, random: bool = False) -> None:
        self.split, self.random = split, random

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> Any:
        image = self.split.images[row]
        return image.roll(int(torch.randint(1, 8, ())), -1) if self.random else image, self.split.labels[
            row
        ]


@cache
def own_data(shape: tuple[int, int, int]) -> Data:
    """That of `contract_data`, too large to keep, and drawn anew each epoch to train."""
    splits = contract_data(shape).splits
    datasets = {name: _Lazy(split, name == "train") for name, split in splits.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "IN_MEMORY", 0)
        raw = samples.read_samples(datasets, plain=_Lazy(splits["train"]))
    data = assemble(raw, DataSpec("own"), None, "streaming")
    assert data.train.digest == splits["train"].digest and data.augment is not None
    return data


def run_plain(plan: Plan) -> dict[str, TrialRecord]:
    """Every trial of a plan by its label, each phase alone on the plain pass. In a plain plan every
    trial has keys of its own; phases of one key in a derived one are trained once."""
    layout = plan.numerics.memory_format
    images = Images(plan.data, CPU, memory_format=layout)
    phases: dict[str, PhaseRecord] = {}
    weights_of: dict[str, dict[str, Tensor]] = {}
    records = {}
    with applied(plan.numerics):
        for trial in plan.trials:
            weights = Weights(plan.net, trial.seed, weights_of.__getitem__, CPU, layout)
            nodes = trial.resolved.nodes
            for node in nodes:
                if node.key not in weights_of:
                    phases[node.key], weights_of[node.key] = train_phase(plan, images, weights, node)
            digests = tuple(_digests(weights_of[node.key]) for node in nodes)
            resolved = trial.resolved
            net = weights.assembled(resolved.final, resolved.owners, resolved.carry)
            exits = list(trial.resolved.final)
            own = split_logits(net, images, "test", exits, EVALUATION_BATCH)
            logits = answers_of(net, own, exits)
            run = tuple(phases[node.key] for node in nodes)
            records[trial.label] = _finished(trial, run, digests, net, logits)
    return records


def run_derived(plan: Plan) -> dict[str, TrialRecord]:
    """Every trial of a derived plan by its label, as `offramp run` runs them."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(trials, "EVALUATION_BATCH", EVALUATION_BATCH)
        patch.setattr(trials, "uneven", lambda *_: False)  # slow, and not looked at
        store, events = run_all(plan, Path(folder))
        assert not [e for e in events if isinstance(e, Failed)]
        records = {}
        for trial in plan.trials:
            digests = tuple(_digests(store.node_weights(n.key)) for n in trial.resolved.nodes)
            weights = Weights(plan.net, trial.seed, store.node_weights, CPU)
            resolved = trial.resolved
            net = weights.assembled(resolved.final, resolved.owners, resolved.carry)
            logits = store.trial_logits(trial.id)["test"]
            records[trial.label] = _finished(trial, (), digests, net, logits)
    return records


def train_phase(
    plan: Plan, images: Images, weights: Weights, node: Node
) -> tuple[PhaseRecord, dict[str, Tensor]]:
    """Train one phase on the plain pass; what it did, and the weights it hands on."""
    trainee = enroll(node, weights, plan.numerics.fused_optimizer)
    net = trainee.net
    before = {name: tensor.clone() for name, tensor in _tensors(net).items()}
    batch = max(node.recipe.batch_size, plan.numerics.frozen_batch)
    passes = Plain(images, [node], weights, batch)
    reports = [r for epoch in fit([trainee], passes, images, node.recipe.batch_size) for r in epoch]
    assert not [r for r in reports if isinstance(r, Diverged)]
    chosen = conclude(trainee, passes, images, node.recipe.batch_size)
    after = _tensors(net)
    # Of the exits that the phase does not read, the network holds some weights too; all must stand.
    parts = {part: frozenset(_part_names(net, part)) for part in _all_parts(net)}
    record = PhaseRecord(
        node.name,
        node.trained,
        frozenset(name for name in before if not torch.equal(before[name], after[name])),
        parts,
        {
            name: int(after[name] - before[name])
            for name in before
            if name.endswith("num_batches_tracked")
        },
        len(reports) * -(-images.count("train") // node.recipe.batch_size),
    )
    return record, chosen


def violations(record: PhaseRecord) -> list[str]:
    """What a phase did that it must not, or did not do that it must; empty when all is well."""
    names = []
    owned = {name for part in record.trained for name in record.parts[part]}
    for name in sorted(record.moved - owned):
        names.append(f"phase '{record.name}' does not train {name}, but moved it")
    for part in sorted(record.trained):
        still = [n for n in record.parts[part] - record.moved if not n.endswith(".bias")]
        if still:  # a bias may stand still: one before a BatchNorm or below dead ReLUs has no gradient
            names.append(f"phase '{record.name}' trains {part}, but not {sorted(still)}")
    for name, count in record.counters.items():
        if count != (record.steps if name in owned else 0):
            names.append(f"phase '{record.name}' ran {name} {count} times in {record.steps} steps")
    return names


def _finished(
    trial: Trial,
    phases: tuple[PhaseRecord, ...],
    digests: tuple[Mapping[str, str], ...],
    net: ExitNetwork,
    logits: np.ndarray,
) -> TrialRecord:
    by_key = {node.key: d for node, d in zip(trial.resolved.nodes, digests, strict=True)}
    final, left = {}, {}
    hashed: dict[tuple[int, torch.Size], str] = {}
    for exit, lineage in trial.resolved.final.items():
        sources = zip(path(exit), lineage, strict=True)
        trained = [(part, source.node) for part, source in sources if source.node is not None]
        left[exit] = {
            name: by_key[key][name] for part, key in trained for name in inside(net).state(part)
        }
        trunk = inside(net).trunk_of[exit - 1]
        state = {n: t for part in path(exit) for n, t in inside(net).state(part, trunk).items()}
        final[exit] = _digests(state, hashed)
    return TrialRecord(phases, digests, final, left, logits)


def _digests(
    state: Mapping[str, Tensor], hashed: dict[tuple[int, torch.Size], str] | None = None
) -> dict[str, str]:
    """SHA-256 of each tensor; those of a network that are `hashed`, by address, are not hashed again."""
    hashed = {} if hashed is None else hashed
    at = {name: (tensor.data_ptr(), tensor.shape) for name, tensor in state.items()}
    for name, tensor in state.items():
        if at[name] not in hashed:
            hashed[at[name]] = hashlib.sha256(tensor.detach().contiguous().numpy().data).hexdigest()
    return {name: hashed[address] for name, address in at.items()}


def _tensors(net: ExitNetwork) -> dict[str, Tensor]:
    """Every tensor of a network with one trunk: parameters and buffers, under the parts' names."""
    named = {name: t for part in _all_parts(net) for name, t in inside(net).state(part).items()}
    own = {id(t) for t in named.values()}
    everything = [*net.named_parameters(), *net.named_buffers()]
    return named | {f"other: {name}": t for name, t in everything if id(t) not in own}


def _part_names(net: ExitNetwork, part: Part) -> list[str]:
    """Of what training moves: parameters and statistics. Other buffers are fixed."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    state = inside(net).state(part).items()
    return [name for name, t in state if isinstance(t, torch.nn.Parameter) or name.endswith(statistics)]


def _all_parts(net: ExitNetwork) -> list[Part]:
    return [Part(kind, k) for kind in ("segment", "head") for k in range(1, net.exits + 1)]
