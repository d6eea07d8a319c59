"""`offramp predict` on files, as a user runs it."""

import csv
import io
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Answer, Cli, call, refusal, refused
from PIL import Image
from syrupy.assertion import SnapshotAssertion

import offramp
import wording
from ghostscript import EPS, trap
from offramp.bundle.export import ExportOptions, export
from offramp.bundle.folder import is_bundle
from offramp.bundle.runtime import SUFFIXES, UNANSWERED
from offramp.data.images.files import SUFFIXES as TRAINED
from offramp.infer import image_files
from offramp.infer.image_files import Network
from offramp.policy import policy as policies
from offramp.policy.calibration import Calibration, Chosen
from offramp.policy.policy import Policy
from offramp.policy.scoring import SCORES, Score
from offramp.preprocessing import Preprocessing
from offramp.store.store import Store
from support import CPU, run_all, tiny_data, tiny_plan, tiny_study
from wording import unhashed

EXITS = (1, 2, 3, 4)
COUNT = 12
OUT = "answers.csv"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    study = tiny_study(("joint", "separate"))
    return run_all(tiny_plan(study), tmp_path_factory.mktemp("trained"))[0]


@pytest.fixture
def place(tmp_path: Path, trained: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a store, a policy for its joint trial, and images as PNG, some in a subfolder."""
    shutil.copytree(trained.root, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    write_policy(Path("policy.json"), (0.5, 0.5, 0.5, None))
    images = tiny_data().test.images
    for at in range(COUNT):
        file = Path("images", "more" if at % 2 else "", f"{at:02}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[at, 0].numpy()).save(file)
    return tmp_path


def write_policy(
    path: Path,
    thresholds: tuple[float | None, ...],
    exits: tuple[int, ...] = EXITS,
    score: str = "confidence",
) -> None:
    kept = Store(Path("runs"))
    name = kept.find_trial("joint")
    found = kept.read_trial(name).hash(kept.trial_logits(name))
    leaving = Chosen(leaving=(0.4, 0.3, 0.2, 0.1)[: len(exits)])
    made = Calibration(name, found, 3, chosen=leaving)
    Policy(score, exits, thresholds, calibration=made).save(path)


@pytest.fixture
def run() -> Cli:
    return lambda *words: call("predict", *words)


def told(answer: Answer) -> str:
    """The line in which a mistake is refused, without hashes."""
    return unhashed(refusal(answer))


def answers(path: str = OUT) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.journey
@pytest.mark.parametrize("batch", ["1", "5", "64"])
@pytest.mark.usefixtures("place")
def test_answers_are_those_of_the_network_on_the_training_pixels(run: Cli, batch: str) -> None:
    status, out, err = run("joint", "images", "--policy", "policy.json", "--batch", batch)
    assert status == 0 and err.startswith("Unreliable: ")  # after an epoch
    assert f"{COUNT} answers in {OUT}" in out
    rows = answers()
    assert list(rows[0]) == ["file", "class", "confidence", "exit", "compute_share", "error"]
    data = tiny_data()
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    # Whole images in one batch, through the API instead of files.
    pixels = data.test.images[:COUNT].float() / 255
    images = (pixels - mean[:, None, None]) / std[:, None, None]
    expected = offramp.predictor("joint", "policy.json", device="cpu")(images)
    by_file = {int(Path(row["file"]).stem): row for row in rows}
    assert sorted(by_file) == list(range(COUNT))
    for at, row in by_file.items():
        assert row["class"] == data.classes[int(expected.classes[at])]
        assert int(row["exit"]) == int(expected.exits[at])
        assert float(row["confidence"]) == pytest.approx(float(expected.confidence[at]), abs=1e-4)
        assert float(row["compute_share"]) == pytest.approx(float(expected.compute[at]), abs=1e-5)


@pytest.mark.usefixtures("place")
def test_without_a_policy_all_go_to_the_final_exit_and_it_says_so(run: Cli) -> None:
    status, out, err = run("joint", "images/00.png", "--out", "a.csv", "--json")
    assert status == 0 and "final exit" in err
    report = json.loads(out)
    assert report["images"] == 1 and report["exits"][-1]["images"] == 1
    assert [row["exit"] for row in answers("a.csv")] == ["4"]
    assert float(answers("a.csv")[0]["compute_share"]) == pytest.approx(1)


def largest(logits: Any, *_: object) -> tuple[Any, None]:
    """A score: the largest logit."""
    return (torch if isinstance(logits, torch.Tensor) else np).amax(logits, axis=-1), None


def sent(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


@pytest.mark.usefixtures("place")
def test_a_stream_is_answered_as_the_files_are(
    run: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    assert run("joint", "images", "--policy", "policy.json")[0] == 0
    files = {row["file"]: row for row in answers()}
    words = ("joint", "--policy", "policy.json", "--stream")
    sent(monkeypatch, *files)
    status, out, err = run(*words)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0 and [row["file"] for row in rows] == [*files]
    for row in rows:
        for name in ("class", "exit", "compute_share", "error"):
            assert row[name] == files[row["file"]][name]
        assert float(row["milliseconds"]) > 0
    assert f"{COUNT} images · " in err and "left at exit 1: " in err
    Path("broken.png").write_text("no image")
    sent(monkeypatch, "broken.png", "", next(iter(files)), "nowhere.png")
    status, out, _ = run(*words, "--json")
    first, second, third = map(json.loads, out.splitlines())
    assert status == 1 and first["error"] == snapshot and "class" not in first
    assert second["exit"] == int(rows[0]["exit"]) and "error" not in second
    assert third["file"] == "nowhere.png" and third["error"] == "No such file or directory"
    odd = b"\xff.png"  # no UTF-8
    shutil.copy(next(iter(files)), os.fsdecode(odd))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(odd + b"\n"), encoding="utf-8"))
    assert run(*words)[0] == 0


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("held", "exit"), [("1us", 1), ("10s", 4)])
@pytest.mark.parametrize("score", ["confidence", "largest"])
def test_a_latency_that_is_held_moves_where_images_leave(
    run: Cli, monkeypatch: pytest.MonkeyPatch, held: str, exit: int, score: str
) -> None:
    """Of a score without bounds too."""
    monkeypatch.setitem(SCORES, "largest", Score(largest, low=-math.inf, high=math.inf))
    write_policy(Path("policy.json"), (0.5, 0.5, 0.5, None), score=score)
    sent(monkeypatch, *(f"images/{2 * (i % 6):02}.png" for i in range(240)))
    words = ("joint", "--policy", "policy.json", "--stream", "--mean-latency", held)
    status, out, err = run(*words)
    assert status == 0 and "(held: " in err
    lines = list(csv.DictReader(io.StringIO(out)))[-20:]
    assert {int(row["exit"]) for row in lines} == {exit}


@pytest.mark.usefixtures("place")
def test_a_latency_cannot_be_held_without_thresholds(
    run: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    sent(monkeypatch)
    answer = run("joint", "--stream", "--mean-latency", "5ms")
    assert answer.code == 2 and answer.err.splitlines()[-1] == snapshot


@pytest.mark.usefixtures("place")
def test_damaged_files_are_named_and_skipped(run: Cli) -> None:
    Path("images/bad.png").write_bytes(Path("images/00.png").read_bytes()[:50])
    Path("images/worse.png").write_text("no image")
    cut = Path("images/00.png").read_bytes()
    Path("images/late.png").write_bytes(cut[:-30])  # the header is whole
    status, out, err = run("joint", "images", "--policy", "policy.json", "--json")
    assert status == 1
    for name in ("bad.png", "worse.png", "late.png"):
        assert f"Skipped images/{name}" in err
    report = json.loads(out)
    assert len(report["damaged"]) == 3 and report["images"] == COUNT == len(answers()) - 3
    named = {row["file"]: row for row in answers() if row["error"]}
    assert named.keys() == {"images/bad.png", "images/worse.png", "images/late.png"}
    assert not any(row["class"] or row["exit"] for row in named.values())


@pytest.mark.usefixtures("place")
def test_one_image_that_the_network_does_not_take_ends_nothing(
    run: Cli, snapshot: SnapshotAssertion
) -> None:
    Image.new("L", (9, 8)).save("images/wide.png")
    Image.new("RGB", (8, 8)).save("images/color.png")
    Image.new("F", (8, 8)).save("images/deep.tiff")
    status, out, err = run("joint", "images", "--policy", "policy.json", "--json")
    assert status == 1 and json.loads(out)["images"] == COUNT
    assert {row["file"]: row["error"] for row in answers() if row["error"]} == snapshot
    assert err.count("Skipped") == 3


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("out", ["answers", "images/00.png"])
def test_a_bad_place_for_the_answers_is_said_before_the_work(run: Cli, out: str) -> None:
    Path("answers").mkdir()
    if not Path(out).exists():
        shutil.copy(next(Path("images").rglob("*.png")), out)
    before = sorted(Path("images").rglob("*"))
    refused(run("joint", "images", "--policy", "policy.json", "--out", out), "--out")
    assert sorted(Path("images").rglob("*")) == before


@pytest.mark.usefixtures("place")
def test_a_folder_that_takes_no_new_file_is_said_before_the_work(
    run: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    """An earlier table in it could be written, and is replaced by a new file."""
    Path(OUT).write_text("earlier")
    here = Path.cwd()
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != here)
    assert told(run("joint", "images", "--policy", "policy.json")) == snapshot
    assert Path(OUT).read_text() == "earlier"


@pytest.mark.usefixtures("place")
def test_answers_replace_no_pipe_and_no_link(run: Cli, snapshot: SnapshotAssertion) -> None:
    words = ("joint", "images/00.png", "--policy", "policy.json", "--out")
    os.mkfifo("pipe.csv")
    assert told(run(*words, "pipe.csv")) == snapshot
    assert Path("pipe.csv").is_fifo()
    Path("kept.csv").write_text("earlier")
    Path("link.csv").symlink_to("kept.csv")
    assert run(*words, "link.csv")[0] == 0
    assert Path("link.csv").is_symlink() and len(answers("kept.csv")) == 1


@pytest.mark.usefixtures("place")
def test_only_damaged_files(run: Cli) -> None:
    Path("bad.png").write_text("no image")
    status, out, _ = run("joint", "bad.png", "--policy", "policy.json")
    assert status == 1 and "0 answers" in out and [row["file"] for row in answers()] == ["bad.png"]


def with_images(**images: Image.Image) -> None:
    """These alone, by the names of their files without `png`."""
    shutil.rmtree("images")
    Path("images").mkdir()
    for name, image in images.items():
        image.save(f"images/{name}.{'tiff' if image.mode == 'F' else 'png'}")


def with_policy(old: Callable[[Policy], str], new: str) -> None:
    text = Path("policy.json").read_text()
    Path("policy.json").write_text(text.replace(old(policies.parse(text)), new))


def without_weights() -> None:
    kept = Store(Path("runs"))
    node = kept.read_trial(kept.find_trial("joint")).keys[0]
    Path("runs", "nodes", node, "weights.safetensors").unlink()


SPOILT: dict[str, Callable[[], None]] = {
    "other_size": lambda: with_images(wide=Image.new("L", (9, 8))),
    "other_mode": lambda: with_images(color=Image.new("RGB", (8, 8))),
    "deep": lambda: with_images(deep=Image.new("F", (8, 8))),
    "empty_folder": with_images,
    "no_folder": lambda: shutil.rmtree("images"),
    "missing_exit": lambda: write_policy(Path("policy.json"), (0.5, 0.5, None), (1, 2, 4)),
    "other_trial": lambda: with_policy(lambda policy: policy.calibration.trial_hash, "0" * 64),
    "out_of_range": lambda: with_policy(lambda _: "0.5", "1.5"),
    "no_policy": lambda: Path("policy.json").unlink(),
    "missing_weights": without_weights,
}


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_mistakes_are_one_line_and_nothing_is_written(
    run: Cli, spoil: Callable[[], None], snapshot: SnapshotAssertion
) -> None:
    spoil()
    assert told(run("joint", "images", "--policy", "policy.json")) == snapshot
    assert not Path(OUT).exists()


@pytest.mark.usefixtures("place")
def test_trials_on_normalized_images_are_refused(run: Cli, snapshot: SnapshotAssertion) -> None:
    kept = Store(Path("runs"))
    name = kept.find_trial("joint")
    manifest = kept.read_trial(name).model_copy(update={"mean": (0.0,), "std": (1.0,)})
    kept.write_trial("floats", manifest, kept.trial_logits(name))
    assert told(run("floats", "images")) == snapshot


@pytest.mark.usefixtures("place")
def test_what_is_there_is_kept_on_ctrl_c(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    answer, calls = Network.answer, []

    def stopped(self: Network, pixels: np.ndarray) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(self, pixels)

    monkeypatch.setattr(Network, "answer", stopped)
    status, _, err = run("joint", "images", "--policy", "policy.json", "--batch", "4")
    assert status == 130 and "Interrupted after 8 images" in err
    assert len(answers()) == 8


def test_files_are_found_once_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.chdir(tmp_path)
    hidden = ("._b.png", ".trash/d.png", "__MACOSX/deep/._c.webp")  # as a Mac's archives have them
    for name in ("b.png", "a.JPG", "deep/c.webp", "notes.txt", *hidden):
        Path("d", name).parent.mkdir(parents=True, exist_ok=True)
        Path("d", name).touch()
    names = [str(p) for p in image_files.find([Path("d"), Path("d/b.png"), Path("d/notes.txt")])]
    assert names == ["d/a.JPG", "d/b.png", "d/deep/c.webp", "d/notes.txt"]
    assert image_files.find([Path("d/._b.png")]) == (Path("d/._b.png"),)  # one that is named
    os.mkfifo("pipe.png")
    assert wording.refusal(image_files.find, [Path("pipe.png")]) == snapshot
    assert wording.refusal(image_files.find, [Path("b" * 300)]) == snapshot  # no system takes it
    read = [
        image_files.read(Path(name), Preprocessing((4, 6), 1, (0.5,), (0.5,)))
        for name in ("pipe.png", "d")
    ]
    assert read == snapshot  # as of a stream, which asks nobody before
    assert set(SUFFIXES) == TRAINED  # training finds the same


def test_an_image_on_its_side_is_turned(tmp_path: Path) -> None:
    how = Preprocessing((4, 6), 1, (0.5,), (0.5,))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (4, 6)).save(tmp_path / "turned.jpg", exif=exif)  # shown as 6 wide, 4 high
    good, damaged = image_files.check([tmp_path / "turned.jpg"], how)
    assert good and not damaged
    assert image_files.read(good[0], how).shape == (1, 4, 6)  # type: ignore[union-attr]


def test_one_thing_tells_a_bundle_from_another_folder(tmp_path: Path) -> None:
    """A folder named SHA256SUMS was enough for `predict`, and not for `export`."""
    (tmp_path / "SHA256SUMS").mkdir()
    assert not is_bundle(tmp_path)
    assert "is no bundle" in wording.refusal(image_files.names_bundle, str(tmp_path))
    assert not image_files.names_bundle("joint-digits-cnn-digits-s1")  # a trial's id


def test_a_bundle_answers_as_its_trial(place: Path, run: Cli, snapshot: SnapshotAssertion) -> None:
    pytest.importorskip("onnxruntime")
    policy, quick = Path("policy.json"), ExportOptions(check=False, measure=False, anyway=True)
    for _ in export(Store(place / "runs"), "joint", Policy.load(policy), Path("bundle"), quick):
        pass
    unreliable = [
        json.loads(run(*words, "--json")[1])["unreliable"]
        for words in (
            ("bundle", "images", "--out", "b.csv"),
            ("joint", "images", "--policy", "policy.json", "--out", "t.csv"),
        )
    ]
    assert unreliable[0] == unreliable[1]
    assert re.sub(r"[\d.]+", "N", unreliable[0][0]) == snapshot(name="unreliable")
    for one, other in zip(answers("b.csv"), answers("t.csv"), strict=True):
        assert (one["file"], one["class"], one["exit"]) == (other["file"], other["class"], other["exit"])
        assert float(one["confidence"]) == pytest.approx(float(other["confidence"]), abs=1e-4)
        assert one["compute_share"] == other["compute_share"]
    assert told(run("bundle", "images", "--policy", "policy.json")) == snapshot(name="policy")
    Path("bundle/labels.json").write_text("[]")
    assert told(run("bundle", "images")) == snapshot(name="labels")


@pytest.mark.usefixtures("place")
def test_the_same_in_python(snapshot: SnapshotAssertion) -> None:
    net = offramp.load("joint", device="cpu")
    rule = Policy("confidence", EXITS, (0.5, 0.5, 0.5, None))
    images = torch.randn(5, 1, 8, 8, device=CPU)
    made = offramp.predictor(net, rule)(images)
    again = offramp.predictor(net, "policy.json")(images)
    assert torch.equal(made.classes, again.classes)
    other = wording.refusal(offramp.predictor, "separate", "policy.json", device="cpu")
    assert unhashed(other) == snapshot


def test_an_eps_that_is_called_png_starts_nothing(
    place: Path, run: Cli, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    mark = trap(place, monkeypatch)
    Path("a.png").write_bytes(EPS)
    status, _, err = run("joint", "a.png", "images/00.png", "--policy", "policy.json")
    assert status == 1 and not mark.exists()
    assert [line for line in err.splitlines() if line.startswith("Skipped")] == snapshot
    found = image_files.read(Path("a.png"), Preprocessing((8, 8), 1, (0.0,), (1.0,)))
    assert isinstance(found, image_files.Unanswered) and not mark.exists()


@pytest.mark.usefixtures("place")
def test_nan_is_no_answer(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line had the first class, and the command was content."""
    answer = Network.answer

    def broken(network: Network, pixels: Any) -> Any:
        answers = answer(network, pixels)
        nothing = torch.full_like(answers.confidence[:1], math.nan)
        return replace(answers, confidence=torch.cat([nothing, answers.confidence[1:]]))

    monkeypatch.setattr(Network, "answer", broken)
    status, _, err = run("joint", "images/00.png", "images/02.png", "--policy", "policy.json")
    assert status == 1
    assert f"Skipped images/00.png: it has no answer ({UNANSWERED})." in err.splitlines()
    assert [(row["class"] == "", row["error"]) for row in answers()] == [(False, ""), (True, UNANSWERED)]
    sent(monkeypatch, "images/00.png")
    status, out, _ = run("joint", "--policy", "policy.json", "--stream", "--json")
    assert status == 1 and json.loads(out) == {"file": "images/00.png", "error": UNANSWERED}
