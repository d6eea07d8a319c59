from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offramp.errors import OfframpError
from offramp.study.spec.file import parse, read
from offramp.study.spec.models import RECIPE_FIELDS, Study
from refusal import refuses

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

# A line of a study that is sound otherwise, and the message without `s.yaml:5: `.
WRONG = [
    ("recip: {epochs: 3}", "unknown key 'recip'; did you mean 'recipe'?"),
    ("recipe: {epoch: 3}", "unknown key 'recipe.epoch'; did you mean 'epochs'?"),
    ("recipe: {epochs: 0}", "recipe.epochs must be at least 1, got 0"),
    ("recipe: {epochs: '3'}", "recipe.epochs must be a whole number, got '3'"),
    ("recipe: {epochs: 3.0}", "recipe.epochs must be a whole number, got 3.0"),
    ("recipe: {epochs: true}", "recipe.epochs must be a whole number, got true"),
    ("recipe: {epochs: 010}", "recipe.epochs must be a whole number, got '010'"),
    ("recipe: {batch_size: 0}", "recipe.batch_size must be at least 1, got 0"),
    ("recipe: {learning_rate: 0}", "recipe.learning_rate must be greater than 0, got 0"),
    ("recipe: {learning_rate: '1e-3'}", "recipe.learning_rate must be a number, got '1e-3'"),
    ("recipe: {learning_rate: on}", "recipe.learning_rate must be a number, got true"),
    ("recipe: {learning_rate: .inf}", "recipe.learning_rate must be a finite number, got inf"),
    ("recipe: {momentum: 1}", "recipe.momentum must be less than 1, got 1"),
    ("recipe: {momentum: -0.1}", "recipe.momentum must be at least 0, got -0.1"),
    ("recipe: {patience: 0}", "recipe.patience must be at least 1, got 0"),
    (
        "recipe: {optimizer: adm}",
        "recipe.optimizer must be 'sgd', 'adam' or 'adamw', got 'adm'; did you mean 'adam'?",
    ),
    ("recipe: {step_at: [0.5, 1]}", "recipe.step_at[1] must be less than 1, got 1"),
    ("recipe: {step_at: 0.5}", "recipe.step_at must be a list, such as [a, b], got 0.5"),
    ("recipe: {alpha: 1.1}", "recipe.alpha must be at most 1, got 1.1"),
    ("recipe: {warmup_epochs: 30}", "recipe.warmup_epochs must be at most the 20 epochs, got 30"),
    (
        "recipe: {nesterov: true, momentum: 0}",
        "recipe.nesterov needs a momentum above 0; set recipe.momentum",
    ),
    (
        "recipe: {joint_weights: linar}",
        "recipe.joint_weights must be linear, eq3, mean, uniform or one number an exit"
        "; did you mean 'linear'?",
    ),
    (
        "recipe: {joint_weights: [1, -1]}",
        "recipe.joint_weights[1] must be a number of at least 0, got -1",
    ),
    (
        "recipe: {joint_weights: [0, 0]}",
        "recipe.joint_weights must have a weight above 0; nothing would train",
    ),
    ("recipe:", "recipe must be a mapping of keys, got null; fill it or remove it"),
    ("seeds: []", "seeds must have at least 1 entry, got []"),
    ("seeds: 42", "seeds must be a list, such as [a, b], got 42"),
    ("seeds: [1, 2, 1]", "seeds[2] repeats the seed 1; give each seed once"),
    ("seeds: [1, -2]", "seeds[1] must be at least 0, got -2"),
    ("seeds: [1, two]", "seeds[1] must be a whole number, got 'two'"),
    ("exits: 0", "exits must be at least 1 early exit, got 0"),
    ("exits: []", "exits must be a number of exits or a list of places, got []"),
    ("exits: [a, 3]", "exits must list names of places, got 3 among them"),
    ("exits: {taps: [a, a]}", "exits.taps names the place 'a' twice; remove one"),
    ("exits: [100%]", "exits must be shares above 0% and below 100%, got '100%' among them"),
    (
        "exits: [[a], []]",
        "exits must have one list of submodules for each segment and a last one for the classifier",
    ),
    ("exits: [[a], [b, a]]", "exits names the place 'a' twice; remove one"),
    ("exits: {tap: 2}", "unknown key 'exits.tap'; did you mean 'taps'?"),
    (
        "exits: {head: linea}",
        "exits.head must be paper, linear, mlp, local, global or lgvit, got 'linea'; "
        "did you mean 'linear'?",
    ),
    ("exits: {head: {widht: 3}}", "unknown key 'exits.head.widht'; did you mean 'width'?"),
    ("exits: {head: {kernel: 2}}", "exits.head.kernel must be an odd number, got 2"),
    ("exits: {head: {pools: 3}}", "exits.head.pools must be 0, 1 or 2, got 3"),
    ("execution: fast", "execution must be 'derived' or 'plain', got 'fast'"),
    ("execution: {cache: 1}", "execution.cache must be on or off, got 1"),
    (
        "execution: {mode: plain, fuse: on}",
        "execution.fuse must be off where the mode is plain; remove 'fuse'",
    ),
    ("numerics: ''", "numerics must be text that can be read, got ''"),
    ("name: 7", "name must be text, got 7"),
]


@pytest.mark.parametrize(("line", "message"), WRONG, ids=[line for line, _ in WRONG])
def test_one_line_names_place_thing_and_remedy(line: str, message: str, write: Any) -> None:
    text = f"# a comment\nstrategies: [joint]\nbackbone: digits-cnn\ndata: digits\n{line}\n"
    with pytest.raises(OfframpError) as caught:
        read(write(text))
    assert str(caught.value) == f"s.yaml:5: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml: the file is empty"),
        ("# nothing\n", "s.yaml: the file is empty"),
        ("- joint\n", "s.yaml: must be a mapping with strategies, backbone and data, got ['joint']"),
        ("backbone: x\ndata: y\n", "s.yaml: 'strategies' is missing; add it"),
        ("strategies: [{as: x}]\nbackbone: x\ndata: y\n", "s.yaml:1: 'strategies[0].name' is missing"),
        ("strategies: joint\nbackbone: x\ndata: y\n", "s.yaml:1: strategies must be a list"),
        ("strategies: []\nbackbone: x\ndata: y\n", "s.yaml:1: strategies must have at least 1"),
        ("strategies: [3]\nbackbone: x\ndata: y\n", "s.yaml:1: strategies[0] must be text, got 3"),
        ("strategies: [a]\nbackbone: x\ndata:\n", "s.yaml:3: data must be text, got null"),
        ("strategies: [a]\nbackbone: {stem: s}\ndata: d\n", "s.yaml:2: 'backbone.name' is missing"),
        (
            "strategies: [a]\nbackbone: b\ndata:\n  name: d\n  root: 3\n",
            "s.yaml:5: data.root must be text, got 3",
        ),
        (
            "strategies: [a]\nbackbone: b\ndata: {name: d, validation: train}\n",
            "s.yaml:3: data.validation must be 'held-out', 'test' or 'val', got 'train'",
        ),
        (
            "strategies: [a]\nbackbone: {name: b, drop: .nan}\ndata: d\n",
            "s.yaml:2: backbone.drop must be text, a finite number,",
        ),
        (
            "strategies:\n- a\n- b\n- {name: c, as: a}\nbackbone: b\ndata: d\n",
            "s.yaml:4: strategies[2] has the label 'a' of strategies[0]; give it one of its own",
        ),
        (
            "strategies:\n- name: a\n  phases:\n    'x *': {epocs: 3}\nbackbone: b\ndata: d\n",
            "s.yaml:4: unknown key 'strategies[0].phases['x *'].epocs'; did you mean 'epochs'?",
        ),
        (
            "strategies:\n- name: a\n  phases:\n    x:\n      alpha: 0.3\nbackbone: b\ndata: d\n",
            "s.yaml:5: strategies[0].phases.x.alpha belongs to the whole study; set it under",
        ),
        (
            "strategies:\n- name: a\n  phases: {x: {epochs: 0}}\nbackbone: b\ndata: d\n",
            "s.yaml:3: strategies[0].phases.x.epochs must be at least 1, got 0",
        ),
    ],
)
def test_files_that_are_no_study(text: str, message: str, write: Any) -> None:
    with pytest.raises(OfframpError) as caught:
        read(write(text))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("label", ["KD τ = 4", "= 4", "KD ="])
def test_a_label_is_not_read_as_two(label: str) -> None:
    study = SMALL | {"strategies": ["joint", {"name": "distillation", "as": label}]}
    refuses(f"strategies.1. has the label '{label}', .* with 'as'", parse, study)


@pytest.mark.parametrize("label", ["KD τ=4", "KD τ== 4"])
def test_other_labels_have_signs_too(label: str) -> None:
    parse(SMALL | {"strategies": ["joint", {"name": "distillation", "as": label}]})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    refuses(r"none\.yaml: no such study file; `offramp recipes demo", read, tmp_path / "none.yaml")
    refuses("cannot be read", read, tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    refuses("not a text file; save it as UTF-8", read, tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("recipe.epoch=3", "unknown key 'recipe.epoch'; did you mean 'epochs'?"),
        ("recipe={epoch: 3}", "unknown key 'recipe.epoch'; did you mean 'epochs'?"),
        ("recip.epochs=3", "unknown key 'recip'; did you mean 'recipe'?"),
        ("recipe.epochs=0", "recipe.epochs must be at least 1, got 0"),
        ("recipe.epochs=", "recipe.epochs must be a whole number, got null"),
        ("recipe.warmup_epochs=8", "recipe.warmup_epochs must be at most the 5 epochs, got 8"),
        ("seeds=[1, 1]", "seeds[1] repeats the seed 1; give each seed once"),
        (
            "data.normalize=imagent",
            "data.normalize must be 'train', 'imagenet', 'half', 'clip' or 'unit', got 'imagent'; "
            "did you mean 'imagenet'?",
        ),
        ("data.normalize=[[0.3]]", "'data.normalize[1]' is missing; add it"),
        ("data.normalize=[[120], [2]]", "data.normalize[0][0] must be at most 1, got 120"),
        ("data.normalize=[[0.3], [0]]", "data.normalize[1][0] must be greater than 0, got 0"),
        ("data.normalize=[0.3, 0.4]", "data.normalize[0] must be a list, such as [a, b], got 0.3"),
        ("seeds=[1", "not valid YAML (expected ',' or ']', but got '<stream end>'); mend it"),
        ("recipe.epochs", "write a key and a value, such as recipe.epochs=3"),
        ("=3", "write a key and a value, such as recipe.epochs=3"),
        ("recipe..epochs=3", "write a key and a value, such as recipe.epochs=3"),
        ("recipe.epochs.x=3", "'recipe.epochs' has no keys; set it as a whole"),
        ("seeds.5=3", "'seeds' is a list with 2 entries; write seeds.0 for the first"),
        ("backbone=", "backbone must be text, got null"),
    ],
)
def test_errors_name_the_flag(setting: str, message: str, write: Any) -> None:
    with pytest.raises(OfframpError) as caught:
        read(write(FILE), ["recipe.batch_size=4", setting])
    assert str(caught.value) == f"--set {setting}: {message}"


def test_a_clash_is_told_where_its_second_half_stands(write: Any) -> None:
    with pytest.raises(OfframpError, match=r"^s\.yaml:4: strategies\[1\] has the label 'students'"):
        read(write(FILE), ["strategies.0.as=students"])


def test_a_later_error_in_the_file_keeps_its_line(write: Any) -> None:
    with pytest.raises(OfframpError, match=r"^s\.yaml:9: unknown key 'recipe\.epoch'"):
        read(write(FILE.replace("  epochs: 5", "  # five\n  epoch: 5")), ["recipe.patience=3"])


def test_messages_about_a_mapping_name_its_source() -> None:
    refuses(r"^study: unknown key 'recipe\.epoch'", parse, SMALL | {"recipe": {"epoch": 3}})
    with pytest.raises(OfframpError, match=r"^fit: exits must be at least 1 early exit, got -1"):
        parse(SMALL | {"exits": -1}, source="fit")


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
@pytest.mark.slow
def test_any_value_is_read_or_refused_in_one_line(section: str, key: str | None, value: Any) -> None:
    study = SMALL | {section: value if key is None else {key: value}}
    try:
        parse(study)
    except OfframpError as error:
        assert len(str(error).splitlines()) == 1
