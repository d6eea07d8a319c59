"""The study file's `augment`: short forms, and what is wrong said in one line."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import offramp
from offramp.augment import Augment
from offramp.errors import OfframpError
from offramp.nets.backbones.digits_cnn import DigitsCNN
from offramp.study.spec import file as spec

HEAD = "strategies: [joint]\nbackbone: digits-cnn\ndata: digits\n"


def read(tmp_path: Path, text: str, *settings: str) -> spec.Study:
    file = tmp_path / "study.yaml"
    file.write_text(HEAD + text)
    return spec.read(file, settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("augment: [flip, crop]", Augment(flip=True, crop=4)),
        ("augment: flip", Augment(flip=True)),
        ("augment: {flip: true, crop: true}", Augment(flip=True, crop=4)),
        ("augment: {crop: 2, flip: false}", Augment(crop=2)),
        ("augment: {resized_crop: true, jitter: true}", Augment(resized_crop=(0.08, 1.0), jitter=0.2)),
        ("augment:\n  resized_crop: [0.3, 0.8]\n  views: 5", Augment(resized_crop=(0.3, 0.8), views=5)),
        ("augment: {rotate: 5, crop: false, flip: true}", Augment(flip=True, rotate=5)),
    ],
)
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("augment: {flop: true}", ":4: unknown key 'augment.flop'; did you mean 'flip'"),
        ("augment: [flip, corp]", "did you mean 'crop'"),
        ("augment: [{crop: 4}]", "must list names such as flip and crop"),
        ("augment: {crop: -1}", ":4: augment.crop must be at least 0, got -1"),
        ("augment: {crop: 4, resized_crop: true}", "augment.crop goes with no resized_crop"),
        ("augment: {resized_crop: [0.5, 0.2]}", "augment.resized_crop must be shares of the area"),
        ("augment: {flip: true, views: 0}", "augment.views must be at least 1, got 0"),
        ("augment: {jitter: 1.5}", "augment.jitter must be less than 1, got 1.5"),
        ("augment: {rotate: 200}", "augment.rotate must be at most 180"),
        ("augment: {views: 4}", "nothing is augmented"),
        ("augment: 4", "must be a mapping"),
        ("augment: {crop: a}", "augment.crop must be a whole number"),
    ],
)
def test_what_is_wrong_is_said(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(OfframpError) as caught:
        read(tmp_path, text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_floats_cannot_be_jittered() -> None:
    floats: Any = (torch.randn(80, 1, 8, 8), torch.arange(80) % 3)
    net = offramp.attach(DigitsCNN(3, 1), ["blocks.2"], (1, 8, 8))
    with pytest.raises(OfframpError, match=r"augment.jitter needs uint8 images"):
        offramp.fit(net, "joint", floats, augment={"jitter": 0.2})
    done = offramp.fit(net, "joint", floats, augment=["flip"], recipe={"epochs": 1})
    assert set(done.accuracy) == {1, 2}
