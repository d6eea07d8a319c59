"""The loss between features and its adapters, against one that is written out here. K is 4.

The reference runs the network by its own forward and reads what its last linear layers are given.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from fit_runs import USUAL, begin, equal, interrupted_run, to_its_end
from one_step import ALL, Gradients, K, by_the_engine, ce, close, first_step, gradients_of, kl, node_of
from torch import Tensor, nn

from longer import long
from offramp.device import seeded
from offramp.engine import auxiliary
from offramp.engine.cost import exit_shares, live_macs
from offramp.engine.losses import LossContext, objective
from offramp.engine.resolve import Node
from offramp.engine.settings import applied
from offramp.engine.trainee import Trainee
from offramp.hashing import derive
from offramp.nets import ExitNetwork, attach
from offramp.nets.network import inside
from offramp.parts import backbone, heads, path
from offramp.phase import BEFORE, CE, LIVE, Features, Phase, Unsolved, check, describe
from offramp.store.store import Store
from offramp.strategies import STRATEGIES
from support import NUMERICS, network, run_all, tiny_plan, tiny_study


@dataclass(frozen=True)
class Seen:
    """Of exits 1 … K: logits, features, and features through the adapters (the last exit has none)."""

    z: Sequence[Tensor]
    f: Sequence[Tensor]
    g: Sequence[Tensor]


Loss = Callable[[Seen, Tensor], Tensor]


def seen(trainee: Trainee, pixels: Tensor) -> Seen:
    net, features = trainee.net, dict[int, Tensor]()
    layers = [*(head.body.classifier for head in inside(net).heads), net.get_submodule("classifier")]
    hooks = [
        layer.register_forward_pre_hook(lambda _, args, n=n: features.update({n: args[0]}))
        for n, layer in enumerate(layers)
    ]
    z = net(pixels)
    for hook in hooks:
        hook.remove()
    f = [features[n] for n in range(K)]
    adapters = [trainee.adapters.get((n + 1, K)) for n in range(K)]
    g = [x if a is None else x @ a.weight.T + a.bias for x, a in zip(f, adapters, strict=True)]
    return Seen(z, f, g)


def by_hand(node: Node, loss: Loss) -> tuple[float, Gradients]:
    with applied(NUMERICS):
        trainee, _, pixels, labels = first_step(node)
        return gradients_of(trainee, loss(seen(trainee, pixels), labels))


def self_distillation(s: Seen, y: Tensor, heard: bool = False, averaged: bool = False) -> Tensor:
    """heard: the teacher hears its students.  averaged: a mean where the source has a sum."""
    early = sum((0.7 * ce(z, y) + 0.3 * kl(z, s.z[-1], 3.0)).mean() for z in s.z[:-1])
    last = s.f[-1] if heard else s.f[-1].detach()
    squares = [(g - last) ** 2 for g in s.g[:-1]]
    hints = sum(each.mean() if averaged else each.sum(1).mean() for each in squares)
    return early + ce(s.z[-1], y).mean() + 0.03 * hints


def exit_ensemble(s: Seen, y: Tensor) -> Tensor:
    answer, feature = (sum(values).detach() / K for values in (s.z, s.g))
    every = [
        ce(z, y).mean() + ((z - answer) ** 2).mean() + ((g - feature) ** 2).mean()
        for z, g in zip(s.z, s.g, strict=True)
    ]
    return torch.stack(every).sum()


WAYS: dict[str, Loss] = {"self-distillation": self_distillation, "exit-ensemble": exit_ensemble}


@pytest.mark.parametrize("name", WAYS)
def test_the_step_is_the_one_written_out(name: str) -> None:
    node = node_of(STRATEGIES[name](K))
    loss, gradients = by_the_engine(node)
    value, expected = by_hand(node, WAYS[name])
    assert loss == pytest.approx(value, rel=1e-5)
    assert close(gradients, expected)
    assert sum(gradient.startswith("adapter/") for gradient in gradients) == 2 * (K - 1)


@pytest.mark.parametrize("wrong", ["heard", "averaged"])
def test_another_loss_is_noticed(wrong: str) -> None:
    """The control."""
    node = node_of(STRATEGIES["self-distillation"](K))
    other = partial(self_distillation, **{wrong: True})
    assert not close(by_the_engine(node)[1], by_hand(node, other)[1])


def test_an_image_counts_as_much_as_its_exit_says() -> None:
    term, labels = Features(2, 4), torch.tensor([0, 1])
    z = {1: torch.tensor([[9.0, 0.0], [9.0, 0.0]]), 2: torch.zeros(2, 2)}  # exit 1 solves image 0
    features = {term: (torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.zeros(2, 2))}
    plain = objective((term,), z, {}, labels, LossContext(features=features))
    weighed = objective((term,), z, {}, labels, LossContext(weights=Unsolved(), features=features))
    assert plain.item() == pytest.approx((1 + 2) / 2) and weighed.item() == pytest.approx(2 / 2)
    summed = replace(term, over="sum")
    context = LossContext(features={summed: features[term]})
    assert objective((summed,), z, {}, labels, context).item() == 3


# Frozen teachers, and exits of which nothing trains

FROZEN = """
from offramp import BEFORE, CE, LIVE, Features, KD, Phase, backbone, head, heads, segment


def hints(exits: int):
    \"\"\"Features of frozen teachers and of frozen exits, early and final.\"\"\"
    early = range(1, exits)
    return (
        Phase("start", backbone(exits) | head(2), (CE(2), CE(exits)), recipe=(("epochs", 1),)),
        Phase(
            "taught",
            train=heads(1, exits - 1),
            loss=tuple(term for k in early for term in (CE(k), Features(k, exits, 0.1, "sum"))),
            teacher="start",
        ),
        Phase(
            "alive",
            train=head(1) | segment(3),
            loss=(CE(1), KD(1, 2), Features(1, 2, 0.5), Features(2, 3), CE(3), Features(3, (2, 3))),
            teacher=LIVE,
        ),
        Phase("still", train=head(1), loss=(CE(1), Features(1, exits)), teacher=LIVE),
        Phase("again", head(3), (CE(3), Features(3, 2), Features(3, 1)), teacher="taught"),
        Phase("before", head(1), (CE(1), Features(1, 2), Features(2, exits)), teacher=BEFORE),
    )
"""


def test_the_example_of_the_docs_is_a_program() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", guide, re.S) if "Features" in b]
    namespace: dict[str, Any] = {}
    exec(block, namespace)
    first, second = namespace["hinted"](K)
    check((first, second), K)
    assert describe(second.loss).endswith("0.03·features(4→3, sum)")


def runs_of(folder: Path, strategy: str, **execution: Any) -> list[dict[str, Tensor]]:
    """What each phase hands on."""
    plan = tiny_plan(tiny_study([strategy], execution=execution))
    store, _ = run_all(plan, folder)
    return [store.node_weights(node.key) for node in plan.trials[0].resolved.nodes]


def test_frozen_features_are_the_same_bits_however_they_are_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hinted.py").write_text(FROZEN)
    strategy = f"{tmp_path / 'hinted.py'}:hints"
    plain = runs_of(tmp_path / "plain", strategy, mode="plain")
    for name, more in {"cached": {}, "live": {"cache": False}}.items():
        derived = runs_of(tmp_path / name, strategy, mode="derived", **more)
        assert all(map(equal, plain, derived)), name
    right = auxiliary.drawn_adapters

    def nudged(loss: Loss, seed: int, net: ExitNetwork) -> auxiliary.Adapters:
        layers = right(loss, seed, net)
        for layer in layers.values():
            layer.weight.data.mul_(1.01)
        return layers

    monkeypatch.setattr("offramp.engine.trainee.drawn_adapters", nudged)
    other = runs_of(tmp_path / "other", strategy, mode="derived")
    alike = [equal(a, b) for a, b in zip(plain, other, strict=True)]
    assert alike == [True, *[False] * 5], "the control: other adapters, other bits"


# What adapters are, and what is left of them


def test_keys() -> None:
    """Without features, the two strategies are what they were before there were any."""

    def key(*terms: Features, teacher: str = LIVE) -> str:
        start = STRATEGIES["baseline"](K)
        return node_of((*start, Phase("next", ALL, (CE(K), *terms), teacher=teacher))).key

    keys = [
        key(),
        key(Features(1, 4)),
        key(Features(1, 3)),
        key(Features(1, 4, over="sum")),
        key(Features(1, 4), teacher=BEFORE),
        key(Features(1, 4), teacher="backbone"),
    ]
    assert len(set(keys)) == len(keys) and key(Features(1, 4, weight=0.0)) == keys[0]
    for name in WAYS:
        (bare,) = STRATEGIES[name](K, features=0.0)
        without = replace(bare, loss=tuple(t for t in bare.loss if not isinstance(t, Features)))
        assert node_of((bare,)).key == node_of((without,)).key != node_of(STRATEGIES[name](K)).key


@pytest.mark.parametrize(("after", "average"), [(1, "ema"), (2, "none"), *long((1, "none"), (2, "ema"))])
def test_a_checkpoint_holds_the_adapters(after: int, average: str, tmp_path: Path) -> None:
    recipe = replace(USUAL, epochs=3, select="best", average=average, average_every=1)
    node = replace(node_of(STRATEGIES["exit-ensemble"](K)), recipe=recipe)
    with applied(NUMERICS):
        whole, rows = to_its_end(*begin(node))
        other, other_rows = interrupted_run(node, after, Store(tmp_path))
        assert equal(whole, other) and rows == other_rows
        damaged, _ = interrupted_run(node, after, Store(tmp_path), "adapter/", 1.01)
        assert not equal(whole, damaged), "the control: adapters matter to the bits"


@pytest.mark.parametrize("exits", [(1, 2, 3), (3,), (3, 1), (4,)])
def test_an_adapter_begins_by_the_places_that_it_joins(exits: tuple[int, ...]) -> None:
    """And by the seed; the final exit has none onto itself."""
    net, state = network("digits-cnn"), torch.get_rng_state()
    layers = auxiliary.drawn_adapters(tuple(Features(exit, K) for exit in exits), 3, net)
    assert torch.equal(state, torch.get_rng_state())
    assert layers.keys() == {(exit, K) for exit in exits if exit < K}
    for (exit, onto), layer in layers.items():
        with seeded(derive(3, "adapter", net.places[exit - 1], net.places[onto - 1])):
            alike = nn.Linear(inside(net).width(exit), inside(net).width(onto))
        assert torch.equal(layer.weight, alike.weight) and torch.equal(layer.bias, alike.bias)
    names = auxiliary.adapter_state(layers, net)
    assert {n for n in names if "weight" in n} == {
        f"adapter/{net.places[exit - 1]}/blocks/weight" for exit in exits if exit < K
    }


def test_nothing_is_left_of_adapters(tmp_path: Path) -> None:
    """What is kept, counted and answered with is of the same shape as without features."""
    with_them = {"name": "exit-ensemble", "as": "with"}
    without = {"name": "exit-ensemble", "as": "without", "features": 0.0}
    plan = tiny_plan(tiny_study([with_them, without]))
    store, _ = run_all(plan, tmp_path)
    first, second = plan.trials
    mine, theirs = (store.node_weights(trial.keys[0]) for trial in (first, second))
    assert {n: t.shape for n, t in mine.items()} == {n: t.shape for n, t in theirs.items()}
    assert not equal(mine, theirs), "the control: they did train"
    manifest, without = (store.read_trial(trial.id) for trial in (first, second))
    for field in ("macs", "backbone_macs", "part_macs", "parameters"):
        assert getattr(manifest, field) == getattr(without, field)
    costs = [store.node_cost(trial.keys[0]) for trial in (first, second)]
    assert costs[0].macs_written > costs[1].macs_written


def test_training_pays_for_adapters() -> None:
    net, images = network("digits-cnn"), {"train": 100, "validation": 20}
    node = node_of(STRATEGIES["self-distillation"](K))
    bare = node_of(STRATEGIES["self-distillation"](K, features=0.0))
    more = live_macs(node, net, images, 5, 1) - live_macs(bare, net, images, 5, 1)
    assert [inside(net).width(k) for k in range(1, K + 1)] == [32, 32, 32, 64]
    assert more == 3 * 32 * 64 * (3 * 5 * 100 + 5 * 20 + 100)
    shares, parts = exit_shares(node, net), {p for k in range(1, K + 1) for p in path(k)}
    assert sum(shares.values()) == pytest.approx(1)
    total = sum(map(net.macs, parts)) + 3 * 32 * 64
    own = sum(net.macs(part) for part in path(1)) + 32 * 64
    assert shares[1] == pytest.approx(own / total)


# Features of other networks


class Tokens(nn.Module):
    """[B, 3, 8, 8] → 16 tokens of 6, or with `last` a map [B, 4, 4, 6]; then a mean and a classifier."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last
        self.patches, self.mix = nn.Conv2d(3, 6, 2, 2), nn.Linear(6, 6)
        self.norm, self.classifier = nn.LayerNorm(6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x)
        x = x.permute(0, 2, 3, 1) if self.last else x.flatten(2).transpose(1, 2)
        x = self.norm(self.mix(x))
        return self.classifier(x.mean((1, 2) if self.last else 1))


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("head", ["mlp", "linear"])
def test_answers_are_the_logits_and_what_the_last_layer_reads(head: str, last: bool) -> None:
    net = attach(Tokens(last), ["mix"], (3, 8, 8), head=head).eval()
    images = torch.randn(3, 3, 8, 8)
    (tap,) = inside(net).segment(1)(images)
    (final,) = inside(net).segment(2)(tap)
    layers = inside(net).heads[0].body.classifier, net.get_submodule("classifier")
    for exit, answer in ((1, inside(net).head_pool(1)(tap)), (2, final)):
        logits, features = inside(net).with_features(exit)(answer)
        assert torch.equal(logits, inside(net).head_body(exit)(answer))
        assert features.shape == (3, inside(net).width(exit))
        assert torch.equal(layers[exit - 1](features), logits)
    assert inside(net).width(2) == 6


def test_a_vector_is_its_own_features() -> None:
    layers = (nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 3))
    net = attach(nn.Sequential(*layers), ["2"], (3, 2, 2), head="linear").eval()
    (tap,) = inside(net).segment(1)(torch.randn(5, 3, 2, 2))
    assert torch.equal(inside(net).with_features(1)(tap)[1], tap) and inside(net).width(1) == 7
    (final,) = inside(net).segment(2)(tap)
    assert torch.equal(inside(net).with_features(2)(final)[1], final) and inside(net).width(2) == 4


def test_the_backbone_can_learn_from_features_alone() -> None:
    """As hints: no answer of exit 1 is asked for, and its last layer stays as it was."""
    loss = (CE(K), Features(1, K, 0.1, "sum"))
    phase = Phase("hints", backbone(K) | heads(1, 1), loss, teacher=LIVE)
    _, gradients = by_the_engine(node_of((phase,)))
    early = {name for name in gradients if name.startswith("exit_heads.")}
    assert early and not any("classifier" in name for name in early)
