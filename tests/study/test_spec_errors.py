from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion

from offramp.errors import OfframpError
from offramp.study.spec.file import parse, read
from offramp.study.spec.models import RECIPE_FIELDS, Study
from refusal import refuses
from wording import refusal

FILE = """\
seeds: [0, 7]
strategies:
  - joint
  - {name: distillation, as: students}
backbone: b
data: d
recipe:
  epochs: 5
"""

SMALL: dict[str, Any] = {"strategies": ["joint"], "backbone": "digits-cnn", "data": "digits"}

SOUND = "# a comment\nstrategies: [joint]\nbackbone: digits-cnn\ndata: digits\n"
WRONG = [
    "recip: {epochs: 3}",
    "recipe: {epoch: 3}",
    "recipe: {epochs: 0}",
    "recipe: {epochs: [3]}",
    "recipe: {epochs: '3'}",
    "recipe: {epochs: 3.0}",
    "recipe: {epochs: true}",
    "recipe: {epochs: 010}",
    "recipe: {batch_size: 0}",
    "recipe: {learning_rate: 0}",
    "recipe: {learning_rate: '1e-3'}",
    "recipe: {learning_rate: on}",
    "recipe: {learning_rate: .inf}",
    "recipe: {momentum: 1}",
    "recipe: {momentum: -0.1}",
    "recipe: {patience: 0}",
    "recipe: {optimizer: adm}",
    "recipe: {step_at: [0.5, 1]}",
    "recipe: {step_at: 0.5}",
    "recipe: {alpha: 1.1}",
    "recipe: {warmup_epochs: 30}",
    "recipe: {nesterov: true, momentum: 0}",
    "recipe: {joint_weights: linar}",
    "recipe: {joint_weights: [1, -1]}",
    "recipe: {joint_weights: [0, 0]}",
    "recipe:",
    "seeds: []",
    "seeds: 42",
    "seeds: [1, 2, 1]",
    "seeds: [1, -2]",
    "seeds: [1, two]",
    "exits: 0",
    "exits: []",
    "exits: [a, 3]",
    "exits: {taps: [a, a]}",
    "exits: [100%]",
    "exits: [[a], []]",
    "exits: [[a], [b, a]]",
    "exits: {tap: 2}",
    "exits: {head: linea}",
    "exits: {head: {widht: 3}}",
    "exits: {head: {kernel: 2}}",
    "exits: {head: {pools: 3}}",
    "execution: fast",
    "execution: {cache: 1}",
    "execution: {mode: plain, fuse: on}",
    "numerics: ''",
    "name: 7",
]


@pytest.mark.parametrize("line", WRONG)
def test_one_line_names_place_thing_and_remedy(
    line: str, write: Any, snapshot: SnapshotAssertion
) -> None:
    message = refusal(read, write(SOUND + line))
    assert message.startswith("s.yaml:5: ") and message == snapshot


NO_STUDY = [
    "",
    "# nothing\n",
    "- joint\n",
    "backbone: x\ndata: y\n",
    "strategies: [{as: x}]\nbackbone: x\ndata: y\n",
    "strategies: [{joint: {epochs: 1}}]\nbackbone: x\ndata: y\n",
    "strategies: joint\nbackbone: x\ndata: y\n",
    "strategies: []\nbackbone: x\ndata: y\n",
    "strategies: [3]\nbackbone: x\ndata: y\n",
    "strategies: [a]\nbackbone: x\ndata:\n",
    "strategies: [a]\nbackbone: {stem: s}\ndata: d\n",
    "strategies: [a]\nbackbone: b\ndata:\n  name: d\n  root: 3\n",
    "strategies: [a]\nbackbone: b\ndata: {name: d, validation: train}\n",
    "strategies: [a]\nbackbone: {name: b, drop: .nan}\ndata: d\n",
    "strategies:\n- a\n- b\n- {name: c, as: a}\nbackbone: b\ndata: d\n",
    "strategies:\n- name: a\n  phases:\n    'x *': {epocs: 3}\nbackbone: b\ndata: d\n",
    "strategies:\n- name: a\n  phases:\n    x:\n      alpha: 0.3\nbackbone: b\ndata: d\n",
    "strategies:\n- name: a\n  phases: {x: {epochs: 0}}\nbackbone: b\ndata: d\n",
]


@pytest.mark.parametrize("text", NO_STUDY)
def test_files_that_are_no_study(text: str, write: Any, snapshot: SnapshotAssertion) -> None:
    assert refusal(read, write(text)) == snapshot


@pytest.mark.parametrize("label", ["KD τ = 4", "= 4", "KD ="])
def test_a_label_is_not_read_as_two(label: str, snapshot: SnapshotAssertion) -> None:
    study = SMALL | {"strategies": ["joint", {"name": "distillation", "as": label}]}
    assert refusal(parse, study) == snapshot


@pytest.mark.parametrize("label", ["KD τ=4", "KD τ== 4"])
def test_other_labels_have_signs_too(label: str) -> None:
    parse(SMALL | {"strategies": ["joint", {"name": "distillation", "as": label}]})


def test_files_that_cannot_be_read(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    assert refusal(read, tmp_path / "none.yaml") == snapshot
    refuses("cannot be read", read, tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert refusal(read, tmp_path / "binary.yaml") == snapshot


WRONG_FLAGS = [
    "recipe.epoch=3",
    "recipe={epoch: 3}",
    "recip.epochs=3",
    "epochs=3",
    "recipe.epochs=0",
    "recipe.epochs=",
    "recipe.warmup_epochs=8",
    "seeds=[1, 1]",
    "data.normalize=imagent",
    "data.normalize=[[0.3]]",
    "data.normalize=[[120], [2]]",
    "data.normalize=[[0.3], [0]]",
    "data.normalize=[0.3, 0.4]",
    "seeds=[1",
    "recipe.epochs",
    "=3",
    "recipe..epochs=3",
    "recipe.epochs.x=3",
    "seeds.5=3",
    "backbone=",
]


@pytest.mark.parametrize("setting", WRONG_FLAGS)
def test_errors_name_the_flag(setting: str, write: Any, snapshot: SnapshotAssertion) -> None:
    message = refusal(read, write(FILE), ["recipe.batch_size=4", setting])
    assert message.startswith(f"--set {setting}: ") and message == snapshot


def test_an_error_beside_a_flag_is_told_where_it_stands(write: Any, snapshot: SnapshotAssertion) -> None:
    """A clash, where its second half does; a later error in the file keeps its line."""
    assert refusal(read, write(FILE), ["strategies.0.as=students"]) == snapshot
    later = FILE.replace("  epochs: 5", "  # a comment\n  epoch: 5")
    assert refusal(read, write(later), ["recipe.patience=3"]) == snapshot


def test_messages_about_a_mapping_name_its_source(snapshot: SnapshotAssertion) -> None:
    assert refusal(parse, SMALL | {"recipe": {"epoch": 3}}) == snapshot
    assert refusal(parse, SMALL | {"exits": -1}, source="fit") == snapshot


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, max_examples=50)
@given(
    section=st.sampled_from(sorted(Study.model_fields)),
    key=st.sampled_from([None, *RECIPE_FIELDS, "taps", "head", "mode", "cache_disk", "root"]),
    value=JSON,
)
def test_any_value_is_read_or_refused_in_one_line(section: str, key: str | None, value: Any) -> None:
    study = SMALL | {section: value if key is None else {key: value}}
    try:
        parse(study)
    except OfframpError as error:
        assert len(str(error).splitlines()) == 1
