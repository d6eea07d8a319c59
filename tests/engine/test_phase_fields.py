"""Every field of a phase is in its key, in the texts of it and in the step that trains it, by the engine
and in a loop of one's own."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from typing import Annotated, Any

import pytest
import torch
from annotated_types import Ge
from fit_runs import setting
from one_step import ALL, K, first_step
from syrupy.assertion import SnapshotAssertion

from offramp import program
from offramp.api.train.strategies import _phase
from offramp.engine.ranks import ALONE
from offramp.engine.resolve import Node, resolve
from offramp.engine.settings import applied
from offramp.engine.trainee import Step, loss_of, step, trained_state
from offramp.nets import NetSpec, build
from offramp.nets.network import inside
from offramp.parts import Part, Parts, backbone, head, heads, segment, segments
from offramp.phase import CE, KD, LIVE, Init, Phase, Unsolved, check, notes
from offramp.report.render.program import picture
from support import NUMERICS, network
from wording import refusal

FIRST = Phase("first", ALL, tuple(CE(k) for k in range(1, K + 1)))
USUAL = Phase("second", ALL, (*FIRST.loss, KD(1, teacher_exit=K)), teacher="first")
LAST = Phase("last", head(K), (CE(K),))

CASES: Mapping[str, Any] = {
    "name": "another",
    "train": heads(1, K),
    "loss": (*FIRST.loss, KD(1, teacher_exit=K, weight=0.5)),
    "trunk": 2,
    "init": {head(1): Init.FRESH},
    "teacher": LIVE,
    "recipe": {"learning_rate": 0.5},
    "backward": {head(1): 0.5},
    "sample_weights": Unsolved(),
    "carry": "learned",
    "rates": {segments(1, K): 0.1},
}
"""Another value of each field, by which a step differs. A new field of `Phase` needs one."""

TEXT_ALONE = {"name", "trunk"}
"""What no result of the phase itself depends on: a trunk of its own starts as the shared one is."""


def keys(phase: Phase) -> list[str]:
    return [node.key for node in resolve((FIRST, phase, LAST), network("digits-cnn"), setting()).nodes]


def node_of(phase: Phase) -> Node:
    return resolve((FIRST, phase, LAST), network("digits-cnn"), setting()).nodes[1]


def stepped(phase: Phase) -> dict[str, torch.Tensor]:
    """All weights after a step of the phase, frozen ones too."""
    with applied(NUMERICS):
        trainee, passes, pixels, labels = first_step(node_of(phase))
        answers = passes.answers(trainee.node, trainee.net, pixels)
        step(trainee, *answers, labels, None, Step(0, 4, ALONE, 1.0))
        return trainee.net.state_dict() | trained_state(trainee)


def differ(some: Mapping[str, torch.Tensor], others: Mapping[str, torch.Tensor]) -> bool:
    return any(not torch.equal(tensor, others[name]) for name, tensor in some.items())


@pytest.mark.parametrize("field", [each.name for each in fields(Phase)])
def test_every_field_is_in_the_key_the_texts_and_the_step(field: str) -> None:
    assert field in CASES, "give CASES another value of the new field"
    other = replace(USUAL, **{field: CASES[field]})
    assert keys(other)[1:] != keys(USUAL)[1:] or field == "name"
    assert (keys(other)[1] != keys(USUAL)[1]) == (field not in TEXT_ALONE)
    assert differ(stepped(USUAL), stepped(other)) == (field not in TEXT_ALONE)
    assert _phase(other) != _phase(USUAL)
    drawn = [picture((FIRST, phase, LAST), K, "") for phase in (USUAL, other)]
    assert drawn[0] != drawn[1]
    if field not in ("name", "train", "loss"):  # these have columns of their own
        assert notes(other) != notes(USUAL)


@dataclass(frozen=True)
class Newer(Phase):
    """A phase of tomorrow, with a field that nothing else names."""

    sharpness: Annotated[float, Ge(0)] = 1.0


def test_a_new_field_is_in_keys_and_texts_by_itself() -> None:
    usual, newer, sharp = (
        kind("second", ALL, FIRST.loss, **more)
        for kind, more in ((Phase, {}), (Newer, {}), (Newer, {"sharpness": 2.0}))
    )
    assert keys(newer) == keys(usual) != keys(sharp)  # keys of finished work hold at the default
    assert node_of(sharp).reads["sharpness"] == 2.0
    assert notes(newer) == [] and notes(sharp) == ["sharpness 2"] and _phase(sharp)["sharpness"] == 2.0


def test_the_range_of_a_new_field_is_that_of_its_annotation(snapshot: SnapshotAssertion) -> None:
    newer = Newer("second", ALL, FIRST.loss)
    check((newer,), K)
    for value in (-1.0, "sharp"):
        wrong = replace(newer, sharpness=value)  # type: ignore[arg-type]
        assert refusal(check, (wrong,), K) == snapshot


# A loop of one's own

PLAIN = Phase("first", backbone(K), (CE(K),))  # such a loop trains an early head on one trunk alone
IN_A_LOOP = {**CASES, "recipe": {"learning_rate_scale": 0.5}}
"""What else a recipe says is for the loop to choose."""
UNHEARD: Mapping[str, str] = {}
"""The fields that such a loop neither obeys nor hands on, each with the reason."""


def looped(phase: Phase) -> tuple[Mapping[str, Any], Mapping[str, torch.Tensor]]:
    """What the phase hands on to a loop of one's own, and all weights after a step of each phase there:
    what is trained on a trunk of its own tells in the next."""
    chance = torch.Generator().manual_seed(1)
    images, labels = torch.randn(16, 1, 8, 8, generator=chance), torch.arange(16) % 3
    net = network.__wrapped__("digits-cnn")
    with applied(NUMERICS):
        phases = program(net, lambda _: (PLAIN, phase, LAST))
        for each in phases:
            with each:
                inside(net).clock.tick(42, 0, 0)  # which dropout draws by
                optimizer = torch.optim.SGD(each.groups(0.1))
                each.module(images, labels).backward()
                optimizer.step()
    public = {name: value for name, value in vars(phases[1]).items() if not name.startswith("_")}
    return {name: value for name, value in public.items() if name != "declaration"}, net.state_dict()


@cache
def usual_loop() -> tuple[Mapping[str, Any], Mapping[str, torch.Tensor]]:
    return looped(USUAL)


def heard(
    some: tuple[Mapping[str, Any], Mapping[str, torch.Tensor]],
    others: tuple[Mapping[str, Any], Mapping[str, torch.Tensor]],
) -> bool:
    """Whether the phases of two loops hand on other things or train other weights."""
    return some[0] != others[0] or some[1].keys() != others[1].keys() or differ(some[1], others[1])


@pytest.mark.parametrize("field", [each.name for each in fields(Phase)])
def test_a_loop_of_ones_own_obeys_or_hands_on_every_field(field: str) -> None:
    other = replace(USUAL, **{field: IN_A_LOOP[field]})
    assert heard(looped(other), usual_loop()) == (field not in UNHEARD)


def test_a_new_field_that_a_loop_of_ones_own_passes_over_is_noticed() -> None:
    """The control."""
    newer = Newer("second", ALL, FIRST.loss)
    usual, sharp = looped(newer), looped(replace(newer, sharpness=2.0))
    assert not heard(sharp, usual)


# Rates of parts

RATES: Mapping[Parts, float] = {segments(1, 2) | head(2): 0.1, head(1): 4.0}


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_parts_train_at_their_own_rates(kind: str) -> None:
    """To the bit as by an optimizer of PyTorch with a group for each rate; otherwise not."""
    recipe = {"optimizer": kind, "learning_rate": 0.01, "weight_decay": 0.1}
    node = node_of(replace(FIRST, name="second", rates=RATES, recipe=recipe))
    of_part = {part: factor for parts, factor in RATES.items() for part in parts}
    assert differ(by_hand(node, {}), by_hand(node, of_part))
    with applied(NUMERICS):
        trainee, passes, pixels, labels = first_step(node)
        for number in range(3):
            answers = passes.answers(node, trainee.net, pixels)
            step(trainee, *answers, labels, None, Step(number, 4, ALONE, 1.0))
    assert not differ(trained_state(trainee), by_hand(node, of_part))


def by_hand(node: Node, factors: Mapping[Part, float]) -> dict[str, torch.Tensor]:
    """The weights after three steps of torch's optimizer."""
    with applied(NUMERICS):
        trainee, passes, pixels, labels = first_step(node)
        groups = [
            {"params": inside(trainee.net).parameters_of(part), "lr": 0.01 * factors.get(part, 1.0)}
            for part in sorted(ALL)
        ]
        kinds = {"sgd": partial(torch.optim.SGD, momentum=0.9), "adamw": torch.optim.AdamW}
        optimizer = kinds[node.recipe.optimizer](groups, weight_decay=0.1, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            answers = passes.answers(node, trainee.net, pixels)
            loss_of(trainee, *answers, labels, None).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return trained_state(trainee)


def test_a_rate_of_all_that_trains_is_the_rate_of_the_recipe() -> None:
    halved = node_of(replace(USUAL, rates={ALL: 0.5}))
    slower = replace(USUAL, recipe={"learning_rate": setting().recipe.learning_rate / 2})
    assert halved.key != node_of(slower).key
    assert not differ(stepped(halved.phase), stepped(slower))
    assert keys(replace(USUAL, rates={ALL: 1.0})) == keys(USUAL)


@pytest.mark.parametrize(
    ("rates", "token"),
    [
        ({segment(1): 0.1}, "segment 1"),
        ({head(2): 0.0}, "0"),
        ({head(2): math.inf}, "inf"),
        ({head(9): 1.0}, "1 to 4"),
    ],
    ids=["a part that does not train", "zero", "infinite", "a part that is not there"],
)
def test_rates_that_cannot_be_are_refused(rates: Any, token: str, snapshot: SnapshotAssertion) -> None:
    line = refusal(check, (FIRST, replace(USUAL, train=heads(1, K), rates=rates)), K)
    assert token in line and line == snapshot


@pytest.mark.parametrize("field", ["backward", "rates"])
def test_factors_are_keyed_by_the_layers_they_are_of(field: str) -> None:
    """A key names a cut only where the loss reads an exit there; a factor of another stretch of layers
    that ends at the same place must have another key."""

    def key(taps: tuple[str, ...], scaled: int) -> str:
        net = build(NetSpec("digits-cnn", taps=taps), (1, 8, 8), 3, 42)
        phase = Phase("one", backbone(net.exits), (CE(net.exits),), **{field: {segment(scaled): 0.5}})
        return resolve((phase,), net, setting()).nodes[0].key

    whole, later = key(("blocks.1",), 1), key(("blocks.0", "blocks.1"), 2)
    assert whole != later != key(("blocks.1", "blocks.2"), 2)
