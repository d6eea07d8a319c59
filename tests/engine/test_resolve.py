"""Where the weights of each phase come from, and what the finished network is put together from."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from offramp.engine.resolve import Resolved, Setting, Source, phase_recipe, resolve
from offramp.engine.weights import Weights
from offramp.nets import attach
from offramp.nets.backbones.digits_cnn import DigitsCNN
from offramp.nets.network import inside
from offramp.parts import Part, head, heads, path, segment, segments
from offramp.phase import CE, KD, Init, Phase, Program
from offramp.recipe import Recipe
from offramp.strategies import STRATEGIES
from support import CPU, NUMERICS, network
from wording import refusal

K = 4
ALL = segments(1, K) | heads(1, K)
EVERY = tuple(CE(k) for k in range(1, K + 1))
SETTING = Setting({}, Recipe(), NUMERICS, seed=42)


def resolved(*program: Phase, **changes: Any) -> Resolved:
    return resolve(program, network("digits-cnn"), replace(SETTING, **changes))


def strategy(name: str, **options: Any) -> Resolved:
    return resolved(*STRATEGIES[name](K, **options))


def origin(program: Resolved, exit: int) -> list[str]:
    """Names of the phases, or of the draw, that the finished path of `exit` comes from."""
    names = {node.key: node.name for node in program.nodes}
    return [names[s.node] if s.node else s.draw for s in program.final[exit]]


def test_the_baseline_is_one_exit() -> None:
    program = strategy("baseline")
    assert list(program.final) == [K] and origin(program, K) == ["backbone"] * 5


def test_two_stage_puts_heads_on_the_backbone() -> None:
    program = strategy("two-stage")
    assert origin(program, 2) == ["backbone", "backbone", "exit 2"]
    assert origin(program, K) == ["backbone"] * 5
    assert program.owners == (0, 0, 0, 0)
    assert [node.needs for node in program.nodes[1:]] == [(program.nodes[0].key,)] * 3


def test_branch_wise_stands_on_all_stages_before() -> None:
    assert origin(strategy("branch-wise"), 3) == ["branch 1", "branch 2", "branch 3", "branch 3"]


def test_separate_has_a_trunk_for_each_exit() -> None:
    program = strategy("separate")
    assert origin(program, 3) == ["exit 3"] * 4
    assert program.owners == (1, 2, 3, 4)
    for node in program.nodes:
        assert set(node.start.values()) == {Source(draw="initial")} and node.needs == ()


def test_independent_students_start_as_the_teacher() -> None:
    program = strategy("distillation", students="independent")
    backbone = Source(program.nodes[0].key)
    assert program.nodes[2].start == {
        Part("segment", 1): backbone,
        Part("segment", 2): backbone,
        Part("head", 2): Source(),
    }
    assert origin(program, 2) == ["student 2"] * 3
    assert origin(program, K) == ["backbone"] * 5
    assert program.owners == (1, 2, 3, 0)


@pytest.mark.parametrize("students", ["heads", "independent", "shared"])
def test_the_teacher_is_what_the_first_phase_left(students: str) -> None:
    program = strategy("distillation", students=students)
    for node in program.nodes[1:]:
        assert node.teacher == {K: (Source(program.nodes[0].key),) * 5}


def test_a_teacher_is_read_as_its_phase_left_it_whatever_trained_since() -> None:
    program = resolved(
        Phase("teacher", train=ALL, loss=EVERY),
        Phase("later", train=ALL, loss=EVERY),
        Phase("student", train=head(1), loss=(KD(1, teacher_exit=3),), teacher="teacher"),
    )
    teacher, later, student = program.nodes
    assert student.teacher == {3: (Source(teacher.key),) * 4}
    assert student.start[Part("segment", 1)] == Source(later.key)
    assert set(student.needs) == {teacher.key, later.key}


def test_a_teacher_with_a_trunk_of_its_own_is_read_there() -> None:
    program = resolved(
        Phase("teacher", trunk=3, train=segments(1, 3) | head(3), loss=(CE(3),)),
        Phase("student", train=head(1), loss=(KD(1, teacher_exit=3),), teacher="teacher"),
    )
    assert program.nodes[1].teacher == {3: (Source(program.nodes[0].key),) * 4}
    assert program.nodes[1].start[Part("segment", 1)] == Source()


def test_shared_students_move_away_from_their_teacher() -> None:
    program = strategy("distillation", students="shared")
    assert origin(program, K) == ["students"] * 5


def test_heads_are_drawn_anew_or_kept() -> None:
    fresh, refined = strategy("joint-two-stage"), strategy("joint-branch")
    assert fresh.nodes[1].start[Part("head", 1)] == Source(draw="fresh")
    assert refined.nodes[1].start[Part("head", 1)] == Source(refined.nodes[0].key)


def test_a_trunk_of_ones_own_starts_as_the_shared_one_was_when_it_split_off() -> None:
    program = resolved(
        Phase("own", trunk=2, train=head(2), loss=(CE(2),)),
        Phase("shared", train=ALL - head(2), loss=(CE(1), CE(3), CE(4))),
        Phase("own again", trunk=2, train=segment(2), loss=(CE(2),)),
        Phase("late", trunk=3, train=head(3), loss=(CE(3),)),
    )
    # Exit 2's head was trained on initial layers: what becomes of the shared ones is no matter.
    assert origin(program, 2) == ["initial", "own again", "own"]
    assert program.nodes[2].start[Part("segment", 1)] == Source()
    assert origin(program, 3) == ["shared", "shared", "shared", "late"]
    assert program.owners == (0, 2, 3, 0)


@pytest.mark.parametrize("init", [Init.INITIAL, Init.FRESH])
def test_frozen_parts_that_a_phase_starts_anew_stay_so(init: Init) -> None:
    """A head must end on the layers that it was trained on."""
    program = resolved(
        Phase("joint", train=ALL, loss=EVERY),
        Phase("probe", train=head(2), loss=(CE(2),), init=((segments(1, 2), init),)),
    )
    assert origin(program, 2) == [init.value, init.value, "probe"]


def test_parts_off_the_path_start_anew_too() -> None:
    program = resolved(
        Phase("joint", train=ALL, loss=EVERY),
        Phase("one", train=head(1), loss=(CE(1),), init=((heads(1, 2), Init.INITIAL),)),
        Phase("two", train=head(2), loss=(CE(2),)),
    )
    assert program.nodes[2].start[Part("head", 2)] == Source(draw="initial")


def test_init_keep_keeps() -> None:
    program = resolved(
        Phase("joint", train=ALL, loss=EVERY),
        Phase("one", train=head(1), loss=(CE(1),), init=((head(1), Init.KEEP),)),
    )
    assert program.nodes[1].start[Part("head", 1)] == Source(program.nodes[0].key)


# Recipes of phases


def test_the_studys_word_on_a_phase_comes_last() -> None:
    phase = Phase("exit 1", head(1), (CE(1),), recipe=(("learning_rate", 0.2), ("epochs", 3)))
    overrides = (("exit *", (("learning_rate", 0.3),)), ("exit 1", (("momentum", 0.5),)))
    recipe = phase_recipe(phase, replace(SETTING, overrides=overrides), 1)
    assert (recipe.learning_rate, recipe.epochs, recipe.momentum) == (0.3, 3, 0.5)


@pytest.mark.parametrize(("epochs", "phases", "each"), [(20, 4, 5), (10, 4, 2), (2, 4, 1)])
def test_a_total_budget_is_split(epochs: int, phases: int, each: int) -> None:
    phase = Phase("any", head(1), (CE(1),))
    setting = replace(SETTING, recipe=Recipe(epochs=epochs), budget="total")
    assert phase_recipe(phase, setting, phases).epochs == each
    assert phase_recipe(phase, replace(setting, budget="phase"), phases).epochs == epochs


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ((("learning_rte", 0.2),), ()),
        ((("warmup_epochs", 99.0),), ()),
        ((("epochs", 0),), ()),
        ((), (("exits", (("epochs", 1),)),)),
    ],
    ids=["no field", "a clash", "out of range", "no phase"],
)
def test_mistakes_in_overrides_are_named(
    recipe: Any, overrides: Any, snapshot: SnapshotAssertion
) -> None:
    line = refusal(resolved, Phase("exit 1", head(1), (CE(1),), recipe=recipe), overrides=overrides)
    assert "exit 1" in line and line == snapshot


def test_layers_that_came_with_their_weights_cannot_be_drawn_anew(snapshot: SnapshotAssertion) -> None:
    attached = attach(DigitsCNN(3, 1), ["blocks.2"], (1, 8, 8))
    fresh: Program = (Phase("a", segment(1) | head(1), (CE(1),), init=((segment(1), Init.FRESH),)),)
    assert refusal(resolve, fresh, attached, SETTING) == snapshot
    resolve((replace(fresh[0], init=((head(1), Init.FRESH),)),), attached, SETTING)
    resolve((replace(fresh[0], init=((segment(1), Init.INITIAL),)),), attached, SETTING)


# Weights


def test_draws_are_functions_of_seed_draw_and_place() -> None:
    net = network("digits-cnn")

    def drawn(seed: int, draw: str) -> dict[str, torch.Tensor]:
        weights = Weights(net, seed, {}.__getitem__, CPU)
        part = Part("head", 1)
        return inside(weights.network({part: Source(draw=draw)})).state(part)

    name = "exits.blocks.0.body.conv.weight"
    first = drawn(42, "initial")[name]
    assert torch.equal(first, drawn(42, "initial")[name])
    assert not torch.equal(first, drawn(42, "fresh")[name])
    assert not torch.equal(first, drawn(43, "initial")[name])


def test_a_network_of_weights_is_frozen_in_eval_mode_and_its_own() -> None:
    net = network("digits-cnn")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    copy = Weights(net, 7, {}.__getitem__, CPU).network({p: Source() for p in path(K)})
    assert not any(p.requires_grad for p in copy.parameters())
    assert not any(m.training for m in copy.modules())
    for tensor in copy.state_dict().values():
        tensor.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_assembled_trunks_are_numbered_without_gaps() -> None:
    program = strategy("distillation", students="independent")
    networks = dict.fromkeys((node.key for node in program.nodes), network("digits-cnn"))

    def trained(key: str) -> dict[str, torch.Tensor]:
        net = networks[key]
        return {name: t for part in ALL for name, t in inside(net).state(part).items()}

    net = Weights(network("digits-cnn"), 42, trained, CPU).assembled(program.final, program.owners)
    assert inside(net).trunk_of == (1, 2, 3, 0) and len(inside(net).trunks) == 4
    program = strategy("separate")
    networks = dict.fromkeys((node.key for node in program.nodes), network("digits-cnn"))
    net = Weights(network("digits-cnn"), 42, trained, CPU).assembled(program.final, program.owners)
    assert inside(net).trunk_of == (0, 1, 2, 3) and len(inside(net).trunks) == 4
