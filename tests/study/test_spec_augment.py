"""The study file's `augment`: short forms, and what is wrong said in one line."""

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

import offramp
from offramp.augment import Augment
from offramp.errors import OfframpError
from offramp.nets.backbones.digits_cnn import DigitsCNN
from offramp.study.spec import file as spec
from wording import refusal

HEAD = "strategies: [joint]\nbackbone: digits-cnn\ndata: digits\n"


def read(tmp_path: Path, text: str, *settings: str) -> spec.Study:
    file = tmp_path / "study.yaml"
    file.write_text(HEAD + text)
    return spec.read(file, settings)


SHORT = [
    ("augment: [flip, crop]", Augment(flip=True, crop=4)),
    ("augment: flip", Augment(flip=True)),
    ("augment: {flip: true, crop: true}", Augment(flip=True, crop=4)),
    ("augment: {crop: 2, flip: false}", Augment(crop=2)),
    ("augment: {resized_crop: true, jitter: true}", Augment(resized_crop=(0.08, 1.0), jitter=0.2)),
    ("augment:\n  resized_crop: [0.3, 0.8]\n  views: 5", Augment(resized_crop=(0.3, 0.8), views=5)),
    ("augment: {rotate: 5, crop: false, flip: true}", Augment(flip=True, rotate=5)),
]


@pytest.mark.parametrize(("text", "expected"), SHORT)
def test_what_is_read(text: str, expected: Augment, tmp_path: Path) -> None:
    study = read(tmp_path, text)
    assert study.augment is not None and study.augment == expected
    again = spec.parse(study.model_dump(mode="json", by_alias=True))
    assert again.augment == study.augment


def test_nothing_is_augmented_unless_asked(tmp_path: Path) -> None:
    assert read(tmp_path, "").augment is None
    study = read(tmp_path, "", "augment.flip=true", "augment.crop=2")
    assert study.augment is not None and study.augment == Augment(flip=True, crop=2)
    study = read(tmp_path, "augment: [flip]", "augment=[crop]")
    assert study.augment is not None and study.augment == Augment(crop=4)


def test_the_examples_of_the_documentation_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "loading.md").read_text()
    blocks = re.findall(r"(?:^    .*\n)+", page, re.MULTILINE)
    examples = [b for b in map(textwrap.dedent, blocks) if b.startswith(("augment:", "execution:"))]
    assert len(examples) == 4
    for example in examples:
        assert read(tmp_path, example)


WRONG = [
    "{flop: true}",
    "[flip, corp]",
    "[{crop: 4}]",
    "{crop: -1}",
    "{crop: 4, resized_crop: true}",
    "{resized_crop: [0.5, 0.2]}",
    "{flip: true, views: 0}",
    "{jitter: 1.5}",
    "{rotate: 200}",
    "{views: 4}",
    "4",
    "{crop: a}",
]


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_said(text: str, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    line = refusal(read, tmp_path, f"augment: {text}")
    assert "study.yaml:4: " in line and line == snapshot


def test_floats_cannot_be_jittered() -> None:
    floats: Any = (torch.randn(80, 1, 8, 8), torch.arange(80) % 3)
    net = offramp.attach(DigitsCNN(3, 1), ["blocks.2"], (1, 8, 8))
    with pytest.raises(OfframpError, match=r"augment.jitter needs uint8 images"):
        offramp.fit(net, "joint", floats, augment={"jitter": 0.2})
    done = offramp.fit(net, "joint", floats, augment=["flip"], recipe={"epochs": 1})
    assert set(done.accuracy) == {1, 2}
