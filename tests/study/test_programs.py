import re
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.phase import CE, Phase
from offramp.strategies import STRATEGIES
from offramp.study.plan import programs
from support import tiny_plan, tiny_study
from wording import refusal

DEFAULTS = {"joint_weights": "linear", "temperature": 3.0, "alpha": 0.1}

OWN = '''
from __future__ import annotations
from typing import Literal
from offramp.parts import backbone, head
from offramp.phase import CE, KD, Phase

def mine(exits: int, *, first: int = 1, mode: Literal["a", "b"] = "a"):
    """My own way."""
    return (
        Phase("trunk", train=backbone(exits), loss=(CE(exits),)),
        Phase("one head", train=head(first), loss=(CE(first),), recipe=(("epochs", 3),)),
    )

def with_alpha(exits: int, *, alpha: float = 0.5):
    return (Phase("all", train=head(1), loss=(CE(1, weight=alpha),)),)
'''


def program(name: str, exits: int = 4, **options: Any) -> tuple[Phase, ...]:
    return programs.program(name, exits, options, DEFAULTS)


@pytest.fixture
def own(tmp_path: Path) -> str:
    """The file of a strategy of one's own; `:function` follows."""
    file = tmp_path / "own.py"
    file.write_text(OWN)
    return str(file)


def written(tmp_path: Path, body: str) -> str:
    file = tmp_path / "bad.py"
    file.write_text(body)
    return f"{file}:f"


@pytest.mark.parametrize("name", STRATEGIES)
def test_registered_strategies_come_with_their_defaults(name: str) -> None:
    assert programs.find(name) is STRATEGIES[name]
    assert program(name) == STRATEGIES[name](4)


def test_options_are_the_keyword_arguments_with_type_and_default() -> None:
    by_name = {o.name: o for o in programs.options(STRATEGIES["joint-branch"])}
    assert list(by_name) == ["joint_weights", "scope", "refine_final", "fine_tune_scale"]
    assert by_name["fine_tune_scale"].annotation is float and by_name["fine_tune_scale"].default == 0.1
    assert not programs.options(STRATEGIES["baseline"])


def test_the_strategys_own_options_win_over_the_studys_defaults() -> None:
    phases = programs.program("joint", 3, {"joint_weights": [1, 2, 3.5]}, DEFAULTS)
    assert phases[0].loss == (CE(1, weight=1.0), CE(2, weight=2.0), CE(3, weight=3.5))
    default = programs.program("joint", 3, {}, DEFAULTS | {"joint_weights": "uniform"})
    assert default[0].loss == (CE(1), CE(2), CE(3))
    scaled = programs.program("distillation", 2, {"temperature": 4}, DEFAULTS | {"alpha": 0.25})
    assert [t.weight for t in scaled[1].loss] == [0.25, 0.75] and scaled[1].loss[1].temperature == 4.0  # type: ignore[union-attr]


def test_an_int_where_a_float_belongs_gives_the_same_program() -> None:
    assert program("distillation", temperature=3) == program("distillation", temperature=3.0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("jiont", {}),
        ("baseline", {"scope": "head"}),
        ("joint", {"weights": "uniform"}),
        ("joint", {"joint_weights": "eq4"}),
        ("joint", {"joint_weights": [1, 2]}),
        ("joint-branch", {"scope": "heads"}),
        ("joint-branch", {"refine_final": "yes"}),
        ("joint-branch", {"refine_final": 1}),
        ("distillation", {"alpha": True}),
        ("distillation", {"alpha": "0.5"}),
        ("distillation", {"temperature": None}),
        ("distillation", {"students": ["heads"]}),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    name: str, options: dict[str, Any], snapshot: SnapshotAssertion
) -> None:
    assert refusal(program, name, **options) == snapshot


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "distillation", "temperature": 0},
        {"name": "distillation", "temperature": -2.0},
        {"name": "distillation", "alpha": 1.5},
        {"name": "joint", "joint_weights": [1, -1, 1, 1]},
        {"name": "joint", "joint_weights": [0, 0, 0, 0]},
        {"name": "joint-branch", "fine_tune_scale": 0},
    ],
)
def test_options_that_cannot_train_are_refused_before_anything_runs(
    strategy: dict[str, Any], snapshot: SnapshotAssertion
) -> None:
    assert refusal(tiny_plan, tiny_study([strategy])) == snapshot


def test_a_strategy_of_ones_own_from_a_file(own: str) -> None:
    trunk, head = program(f"{own}:mine", first=2)
    assert trunk.name == "trunk" and head.loss == (CE(2),)
    assert program(f"{own}:mine", mode="b") == program(f"{own}:mine")
    for alpha, weight in ((0.1, 0.5), (0.25, 0.25)):  # a recipe that is silent, and one that is not
        (phase,) = programs.program(f"{own}:with_alpha", 4, {}, DEFAULTS | {"alpha": alpha})
        assert phase.loss == (CE(1, weight=weight),)
    assert [o.name for o in programs.options(programs.find(f"{own}:mine"))] == ["first", "mode"]


def test_a_strategy_of_ones_own_shares_nodes_with_others(own: str) -> None:
    plan = tiny_plan(tiny_study(["two-stage", {"name": f"{own}:mine", "as": "mine", "first": 3}]))
    two, mine = plan.trials
    assert mine.keys[0] == two.keys[0] and mine.keys[1] not in two.keys
    assert mine.resolved.nodes[1].recipe.epochs == 3
    assert list(mine.resolved.final) == [3, 4]


MISNAMED: list[tuple[str, dict[str, Any]]] = [
    ("nowhere.py:mine", {}),
    ("{own}:yours", {}),
    ("{own}:mien", {}),
    ("{own}:mine", {"second": 1}),
    ("{own}:mine", {"first": "x"}),
    ("{own}:Phase", {}),
]


@pytest.mark.parametrize(("name", "options"), MISNAMED)
def test_what_is_wrong_with_naming_ones_own_strategy(
    own: str, name: str, options: dict[str, Any], snapshot: SnapshotAssertion
) -> None:
    assert refusal(program, name.format(own=own), **options) == snapshot


BODIES = [
    "def f(exits:\n",
    "import nothing_such\n",
    "def f(exits):\n    return 1 / 0\n",
    "def f():\n    return ()\n",
    "def f(exits):\n    return [1]\n",
    "def f(exits):\n    return None\n",
    "f = 3\n",
    "import functools\nf = functools.partial(print)\n",
    "from __future__ import annotations\ndef f(exits, *, x: Unknown = 1):\n    return ()\n",
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_what_is_wrong_inside_ones_own_strategy(
    tmp_path: Path, body: str, snapshot: SnapshotAssertion
) -> None:
    line = refusal(program, written(tmp_path, body))
    assert re.sub("TypeError: .*;", "TypeError;", line) == snapshot  # Python's own words differ


PHASES = """
from offramp.parts import backbone, head
from offramp.phase import CE, KD, Init, Phase
def f(exits):
    first = Phase("first", train=backbone(exits), loss=(CE(exits),))
    return ({},)
"""


CANNOT_RUN = [
    'Phase("x", train=head(9), loss=(CE(9),))',
    'first, Phase("x", train=head(1), loss=(KD(1, 9),), teacher="first")',
    'Phase("x", train=head(2), loss=(CE(1),))',
    'Phase("x", train=head(1), loss=())',
    "first, first",
    'Phase("x", train=head(1), loss=(KD(1, 4),), teacher="y")',
    'Phase("x", train=head(1), loss=(CE(1),), recipe=(("epochs", 0),))',
    'Phase("x", train=head(1), loss=(CE(1),), recipe=(("epoch", 1),))',
    'Phase("x", train=head(1), loss=(CE(1),), recipe=(("optimizer", "sdg"),))',
    'Phase("x", train=head(1), loss=(CE(1, weight=float("nan")),))',
]


@pytest.mark.parametrize("phases", CANNOT_RUN)
def test_phases_that_cannot_run_are_refused(
    tmp_path: Path, phases: str, snapshot: SnapshotAssertion
) -> None:
    name = written(tmp_path, PHASES.replace("{}", phases))
    assert refusal(tiny_plan, tiny_study([name])) == snapshot
