"""Each strategy, phase by phase, against what the paper's algorithms and `readings` say of it.

K is 4 throughout: three early exits and the final one, as in the paper.
"""

import ast
import inspect
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

import offramp.strategies
from offramp.parts import Parts, backbone, head, heads, segment, segments
from offramp.phase import CE, KD, Init, Phase, Program, check
from offramp.strategies import STRATEGIES, explained
from wording import refusal

NINE = (
    *("baseline", "joint", "separate", "branch-wise", "two-stage", "distillation"),
    *("joint-branch", "joint-two-stage", "pretrained-branch"),
)
K = 4
ALL = segments(1, K) | heads(1, K)
FE = CE(K)
"""The final exit's cross-entropy."""
WORDS = {11: "Eleven", 12: "Twelve", 13: "Thirteen", 14: "Fourteen", 15: "Fifteen", 16: "Sixteen"}
LINEAR = (CE(1, 0.3), CE(2, 0.3 + 0.7 / 3), CE(3, 0.3 + 1.4 / 3), CE(4, 1.0))


def program(name: str, **options: Any) -> Program:
    return STRATEGIES[name](K, **options)


def trains(phases: Program) -> list[Parts]:
    return [phase.train for phase in phases]


def losses(phases: Program) -> list[Any]:
    return [phase.loss for phase in phases]


def plain(phases: Program) -> bool:
    """Whether every phase goes on from the weights it finds, on the shared trunk, without teacher or
    recipe of its own."""
    return all((p.trunk, p.init, p.teacher, p.recipe) == (0, (), None, ()) for p in phases)


def test_baseline() -> None:
    (phase,) = program("baseline")
    assert phase == Phase("backbone", backbone(K), (FE,))


def test_joint() -> None:
    phases = program("joint")
    assert trains(phases) == [ALL] and plain(phases)
    (loss,) = losses(phases)
    assert [t.exit for t in loss] == [1, 2, 3, 4]
    assert [t.weight for t in loss] == pytest.approx([t.weight for t in LINEAR])


@pytest.mark.parametrize(
    ("scheme", "weights"),
    [("eq3", [0.1, 0.2, 0.3, 0.4]), ("uniform", [1, 1, 1, 1]), ((0.0, 0.5, 0.0, 2.0), [0, 0.5, 0, 2])],
)
@pytest.mark.parametrize("name", ["joint", "joint-branch", "joint-two-stage"])
def test_joint_weights_of_the_joint_phase(name: str, scheme: Any, weights: list[float]) -> None:
    first = program(name, joint_weights=scheme)[0]
    assert [t.weight for t in first.loss] == pytest.approx(weights)
    assert first.train == ALL and first.name == "joint"


def test_separate() -> None:
    phases = program("separate")
    assert [p.trunk for p in phases] == [1, 2, 3, 4]
    assert trains(phases) == [segments(1, n) | head(n) for n in (1, 2, 3, 4)]
    assert losses(phases) == [(CE(n),) for n in (1, 2, 3, 4)]
    assert not any(p.init or p.teacher or p.recipe for p in phases)


def test_branch_wise() -> None:
    phases = program("branch-wise")
    assert trains(phases) == [segment(n) | head(n) for n in (1, 2, 3, 4)]
    assert losses(phases) == [(CE(n),) for n in (1, 2, 3, 4)] and plain(phases)


def test_two_stage() -> None:
    phases = program("two-stage")
    assert phases[:1] == program("baseline")
    assert trains(phases[1:]) == [head(1), head(2), head(3)]
    assert losses(phases[1:]) == [(CE(1),), (CE(2),), (CE(3),)] and plain(phases)


def student_loss(n: int, alpha: float = 0.1, temperature: float = 3.0) -> tuple[CE | KD, ...]:
    return CE(n, alpha), KD(n, teacher_exit=K, temperature=temperature, weight=1 - alpha)


def test_distillation() -> None:
    phases = program("distillation")
    assert phases[:1] == program("baseline")
    assert trains(phases[1:]) == [head(1), head(2), head(3)]
    assert losses(phases[1:]) == [student_loss(n) for n in (1, 2, 3)]
    assert {(p.teacher, p.trunk, p.init) for p in phases[1:]} == {("backbone", 0, ())}


def test_distillation_with_other_constants() -> None:
    phases = program("distillation", temperature=5.0, alpha=0.4)
    assert losses(phases[1:]) == [student_loss(n, 0.4, 5.0) for n in (1, 2, 3)]


def test_distillation_of_independent_students() -> None:
    phases = program("distillation", students="independent")
    assert trains(phases[1:]) == [segments(1, n) | head(n) for n in (1, 2, 3)]
    assert losses(phases[1:]) == [student_loss(n) for n in (1, 2, 3)]
    assert [(p.trunk, p.teacher) for p in phases[1:]] == [(n, "backbone") for n in (1, 2, 3)]


def test_distillation_of_shared_students() -> None:
    teacher, phase = program("distillation", students="shared")
    assert (teacher,) == program("baseline")
    assert phase.train == ALL and phase.teacher == "backbone" and phase.trunk == 0
    assert phase.loss == (*student_loss(1), *student_loss(2), *student_loss(3), FE)


def test_joint_branch() -> None:
    phases = program("joint-branch")
    assert phases[:1] == program("joint")
    assert trains(phases[1:]) == [head(1), head(2), head(3)]
    assert losses(phases[1:]) == [(CE(n),) for n in (1, 2, 3)]
    assert {(p.init, p.recipe) for p in phases[1:]} == {((), (("learning_rate_scale", 0.1),))}


def test_joint_branch_options() -> None:
    refined = program("joint-branch", refine_final=True, fine_tune_scale=0.5)
    assert trains(refined[1:]) == [head(n) for n in (1, 2, 3, 4)]
    assert refined[1].recipe == (("learning_rate_scale", 0.5),)
    segmental = program("joint-branch", scope="segment")
    assert trains(segmental[1:]) == trains(program("branch-wise"))
    assert losses(segmental[1:]) == losses(program("branch-wise"))


def test_joint_two_stage() -> None:
    phases = program("joint-two-stage")
    assert phases[:1] == program("joint")
    assert trains(phases[1:]) == [head(1), head(2), head(3)]
    assert losses(phases[1:]) == [(CE(n),) for n in (1, 2, 3)]
    assert [p.init for p in phases[1:]] == [((head(n), Init.FRESH),) for n in (1, 2, 3)]
    assert not any(p.recipe for p in phases)
    assert trains(program("joint-two-stage", refine_final=True))[-1] == head(K)


def test_pretrained_branch() -> None:
    phases = program("pretrained-branch")
    assert phases[:1] == program("baseline")
    assert trains(phases[1:]) == trains(program("branch-wise"))
    assert losses(phases[1:]) == losses(program("branch-wise"))
    assert not any(p.init for p in phases)  # it goes on from the pretrained weights
    tuned = program("pretrained-branch", fine_tune_scale=0.1)
    assert {p.recipe for p in tuned[1:]} == {(("learning_rate_scale", 0.1),)} and not tuned[0].recipe
    of_heads = program("pretrained-branch", scope="head", fine_tune_scale=0.1)
    assert {p.recipe for p in of_heads[1:]} == {p.recipe for p in tuned[1:]}
    assert tuple(replace(p, recipe=()) for p in of_heads) == program("two-stage")


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("exits", [1, 2, 3, 4, 9])
def test_programs_are_valid_for_any_number_of_exits(name: str, exits: int) -> None:
    phases = STRATEGIES[name](exits)
    check(phases, exits)
    assert phases == STRATEGIES[name](exits) and hash(phases) == hash(STRATEGIES[name](exits))


@pytest.mark.parametrize("name", NINE)
@pytest.mark.parametrize("exits", [1, 2, 4])
def test_all_parts_are_trained_by_some_phase(name: str, exits: int) -> None:
    trained = frozenset[Any]().union(*(p.trained for p in STRATEGIES[name](exits)))
    everything = segments(1, exits) | heads(1, exits)
    assert trained == (backbone(exits) if name == "baseline" else everything)


@pytest.mark.parametrize("name", STRATEGIES)
def test_options_are_keyword_only_and_have_defaults(name: str) -> None:
    first, *options = inspect.signature(STRATEGIES[name]).parameters.values()
    assert first.name == "exits" and first.default is inspect.Parameter.empty
    for option in options:
        assert option.kind is inspect.Parameter.KEYWORD_ONLY, option
        assert option.default is not inspect.Parameter.empty, option


@pytest.mark.parametrize("name", STRATEGIES)
def test_each_strategy_is_a_file_that_tells_its_algorithm(name: str) -> None:
    strategy = STRATEGIES[name]
    module = inspect.getmodule(strategy)
    assert module is not None and module.__name__ == f"offramp.strategies.{name.replace('-', '_')}"
    text = inspect.getdoc(strategy) or ""
    assert "1. " in text  # the algorithm in numbered steps
    assert "(paper section" in text or name not in NINE  # where it comes from


def test_readme_counts_and_names_every_strategy() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    sentence = re.search(r"(\w+) more come [\w ]+: ([^.]*)\.", readme)
    assert sentence is not None
    beyond = sorted(name for name in STRATEGIES if name not in NINE)
    assert WORDS[len(beyond)] == sentence[1] and sorted(re.findall(r"`([\w-]+)`", sentence[2])) == beyond


def test_how_many_ways_there_are_is_the_same_everywhere() -> None:
    root, number = Path(__file__).parents[1], {20: "twenty", 21: "twenty-one", 22: "twenty-two"}
    places = (
        "README.md",
        "docs/site/index.md",
        "src/offramp/__init__.py",
        "pyproject.toml",
        "CITATION.cff",
    )
    for place in places:
        text = (root / place).read_text(encoding="utf-8")
        assert re.findall(r"in ([\w-]+) ways", text) == [number[len(STRATEGIES)]], place


def test_the_engine_knows_no_strategy_by_name() -> None:
    root = Path(offramp.strategies.__file__).parents[1]
    names = [name for name in STRATEGIES if name != "separate"]
    paths = [*root.glob("engine/*.py"), *root.glob("study/*/*.py"), root / "phase.py"]
    for path in paths:
        nodes = ast.walk(ast.parse(path.read_text()))
        strings = {node.value for node in nodes if isinstance(node, ast.Constant)}
        assert not strings & {*names}, path  # a docstring may name some in its examples


@pytest.mark.parametrize("name", ["joint", "joint-branch", "joint-two-stage"])
def test_a_list_of_weights_must_fit(name: str, snapshot: SnapshotAssertion) -> None:
    assert refusal(program, name, joint_weights=(1.0, 1.0)) == snapshot


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_option_is_explained(name: str) -> None:
    prose, words = explained(STRATEGIES[name])
    assert list(words) in ([], [*inspect.signature(STRATEGIES[name]).parameters])
    assert "Args" not in prose and all(words.values())


@pytest.mark.parametrize(
    ("name", "option"),
    [
        *((name, "backbone") for name in ("two-stage", "distillation", "survivors", "cascade", "gated")),
        *(("distillation", "students"), ("joint-branch", "scope"), ("pretrained-branch", "scope")),
        *(("imta", "teacher"), ("confidence-gated", "gate")),
        *((name, "exit_weights") for name in ("mixed", "gradient-equilibrium")),
        *((name, "joint_weights") for name in ("joint", "joint-branch", "joint-two-stage")),
    ],
)
def test_a_kind_that_an_option_does_not_have_is_refused(name: str, option: str) -> None:
    """Rather than taken for another one."""
    with pytest.raises(AssertionError, match="made up"):
        program(name, **{option: "made up"})
