"""`offramp benchmark --images`, on images whose answers are known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import call, refused
from PIL import Image

import offramp
from offramp.data import load
from offramp.data_spec import DataSpec
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.terminal import plain_text

STUDY = """\
seeds: [1]
strategies: [joint]
backbone: digits-cnn
exits: {taps: [blocks.0, blocks.2], head: linear}
data: {name: digits, train_images: 600, test_images: 150}
recipe: {epochs: 2, optimizer: adam, learning_rate: 0.01, batch_size: 32}
"""
QUICK = ("--batch", 1, "--repeats", 5, "--seconds", "0ms")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store, a policy file, a bundle, and its 150 test images: under their classes in
    `same`, and those of 0 to 4 under the next class in `next`."""
    folder = tmp_path_factory.mktemp("other")
    (folder / "study.yaml").write_text(STUDY)
    assert call("run", folder / "study.yaml", "--store", folder / "runs", "-q").code == 0
    options = ("--max-mean-macs", "60%", "--out", folder / "policy.json", "--anyway")
    assert call("calibrate", "joint", folder / "runs", *options).code == 0
    test = load(DataSpec("digits", train_images=600, test_images=150)).test
    for at, (image, label) in enumerate(
        zip(test.read(np.arange(150)), test.labels.tolist(), strict=True)
    ):
        for name, number in (("same", label), ("next", label + 1 if label < 5 else None)):
            if number is not None:
                (folder / name / str(number)).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image[0].numpy()).save(folder / name / str(number) / f"{at:03}.png")
    (folder / "next" / "1" / "bad.png").write_bytes(b"no image")
    return folder


def benchmark(place: Path, images: str, network: str = "joint", *more: object) -> Any:
    named = (network, place / "runs", "--images", place / images, *QUICK, *more)
    return json.loads(call("benchmark", *named, "--json").out)["images"]


def test_what_is_lost_is_what_stored_logits_say(place: Path) -> None:
    policy = ("--policy", place / "policy.json")
    same = benchmark(place, "same", "joint", *policy)
    of_files, of_test = (
        {k: same[name][k] for k in ("images", "full", "policy", "loss")}
        for name in ("elsewhere", "test")
    )
    assert of_files == of_test and of_test["images"] == 150 and same["unread"] == 0
    assert same["elsewhere"]["macs"] == pytest.approx(same["test"]["macs"])
    store, rule = Store(place / "runs"), Policy.load(place / "policy.json")
    arrays = store.trial_logits(store.find_trial("joint"))
    rows = arrays["test_labels"] < 5
    logits, named = arrays["test"][rows], arrays["test_labels"][rows] + 1
    answers = logits.argmax(-1)
    left = answers[np.arange(len(named)), rule.leaves(logits)]
    moved = benchmark(place, "next", "joint", *policy)
    assert moved["unread"] == 1 and moved["elsewhere"]["images"] == rows.sum()
    assert moved["elsewhere"]["full"]["value"] == pytest.approx((answers[:, -1] == named).mean())
    assert moved["elsewhere"]["policy"]["value"] == pytest.approx((left == named).mean()) != 1
    assert moved["test"] == same["test"]


def test_python_and_a_bundle_say_the_same(place: Path) -> None:
    policy, options = place / "policy.json", {"batch": [1], "repeats": 5, "seconds": 0.0}
    report = offramp.benchmark("joint", place / "runs", policy=policy, images=place / "next", **options)
    text = plain_text(report.document())
    assert "lost, in points" in text and "1 file could not be read." in text
    words = ("--policy", policy, "--no-check", "--no-measure", "--anyway", "--out", place / "bundle")
    assert call("export", "joint", place / "runs", *words).code == 0
    bundled = benchmark(place, "next", str(place / "bundle"))
    assert bundled == json.loads(json.dumps(report.as_json()["images"]))


def test_what_it_cannot_answer_is_refused(place: Path) -> None:
    def asked(*words: object) -> Any:
        return call("benchmark", "joint", place / "runs", "--images", *words)

    policy = ("--policy", place / "policy.json")
    refused(asked(place / "same"), "give --policy")
    refused(asked(place / "nowhere", *policy), "nowhere")
    refused(asked(place, *policy), "none of the network's classes")
