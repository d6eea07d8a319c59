"""A bundle answers as PyTorch does, for every kind of trial and policy, and says what it is."""

import copy
import json
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from bundle_kit import (
    QUICK,
    STRATEGIES,
    digits_store,
    export_to,
    halving,
    photos_store,
    policy_of,
    read,
)
from onnxruntime import InferenceSession
from PIL import Image
from syrupy.assertion import SnapshotAssertion
from torchvision.models.resnet import BasicBlock, ResNet

from longer import long
from offramp.api.deploy.card import card_document, page_lines
from offramp.bundle import graphs, parity
from offramp.bundle.export import ExportOptions
from offramp.bundle.folder import SOURCES, measured, writing
from offramp.bundle.runtime import Bundle
from offramp.bundle.trial_images import Shown, SplitImages, for_check, for_int8
from offramp.data import DataSpec, load, normalize
from offramp.errors import OfframpError
from offramp.hashing import file_digest
from offramp.nets import NetSpec, attach, build
from offramp.nets.network import inside
from offramp.policy import scoring
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.study.run.trials import load_network
from records import changed
from refusal import refuses
from support import run_all, tiny_plan, tiny_study
from wording import refusal

USUAL = ("joint", "two-stage", "separate", "cascade", "boosted", "imta")
"""What tests read that are not long."""


@pytest.fixture(scope="module")
def store(request: pytest.FixtureRequest, digits: Path) -> Store:
    """With --long, trials of every kind."""
    every = request.config.getoption("long")
    return digits_store(digits, (*STRATEGIES, "gated") if every else USUAL)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """The test images of the trials: [100, 8, 8, 1] uint8."""
    images = load(DataSpec("digits", test_images=100)).test.images
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())


def check_answers(folder: Path, store: Store, rule: Policy, pictures: np.ndarray) -> Bundle:
    """The bundle answers as the trial's logits and the policy do, in batches of any size."""
    trained = read(store, rule.calibration.trial)
    logits = trained.test.logits
    place = rule.leaves(logits)
    expected_logits = scoring.all_answer_logits(rule.score, logits)[np.arange(len(logits)), place]
    bundle = Bundle(folder)
    for size in (1, 7, 100):
        parts = [bundle.predict(pictures[i : i + size]) for i in range(0, 100, size)]
        exits = np.concatenate([part.exits for part in parts])
        assert (exits == np.array(rule.exits)[place]).all()
        classes = np.concatenate([part.classes for part in parts])
        assert (classes == scoring.answers(expected_logits)).all()
        answered = np.concatenate([part.logits for part in parts])
        np.testing.assert_allclose(answered, expected_logits, atol=1e-4)
        spent = np.concatenate([part.compute for part in parts])
        expected = np.array(rule.macs(trained.costs))[place] / trained.plain_macs
        np.testing.assert_allclose(spent, expected, rtol=1e-6)
    return bundle


@pytest.mark.parametrize(
    "strategy", ["joint", "separate", "two-stage", "boosted", "cascade", "imta", *long("students")]
)
def test_every_kind_of_trial(strategy: str, store: Store, pictures: np.ndarray, tmp_path: Path) -> None:
    rule = halving(store, strategy)
    timed = strategy == "separate"
    done = export_to(tmp_path / "b", store, rule, ExportOptions(measure=timed))
    bundle = check_answers(tmp_path / "b", store, rule, pictures)
    assert len(set(bundle.predict(pictures).exits.tolist())) > 1  # early and late, both were tested
    card = json.loads((tmp_path / "b" / "card.json").read_text())
    assert card == done.card
    assert card["check"]["what"].startswith("the whole") and card["check"]["images"] == 100
    assert card["check"]["largest"] < 1e-4
    assert sum(exit["share_leaving"] for exit in card["exits"]) == pytest.approx(1)
    own = strategy in ("separate", "students")
    assert card["network"]["own_trunks"] is own
    text = (tmp_path / "b" / "card.md").read_text()
    assert ("are their sum" in " ".join(text.split())) is own
    assert (bundle.stages[1].after is None) is own
    for token in (strategy, "set by hand", "100 test images"):
        assert token in text
    assert ("Milliseconds of" in text) is timed


@pytest.mark.parametrize(
    ("score", "thresholds", "in_bundle"),
    [
        ("entropy", (0.5, 0.6, None), [1, 2, 3]),
        ("margin", (None, 0.5, None), [2, 3]),
        ("patience", (None, 2, None), [1, 2, 3]),
        ("ensemble", (0.5, 0.6, None), [1, 2, 3]),
        ("gate", (0.5, 0.6, None), [1, 2, 3]),
        *long(
            ("confidence", (0.6, None, None), [1, 3]),
            ("confidence", (None, None, None), [3]),
            ("fixed", (None, 0, None), [2]),
            ("ensemble", (None, 0.0, None), [1, 2]),
            ("margin", (0.5, 0.0, None), [1, 2]),
            ("confidence", (0.0, 0.5, None), [1]),
            ("gate", (None, 0.5, None), [2, 3]),
        ),
    ],
)
def test_every_policy_and_only_the_heads_it_needs(
    score: Any, thresholds: Any, in_bundle: list[int], store: Store, pictures: np.ndarray, tmp_path: Path
) -> None:
    rule = policy_of(store, "two-stage", score, thresholds)
    done = export_to(tmp_path / "b", store, rule)
    bundle = check_answers(tmp_path / "b", store, rule, pictures)
    assert [stage.exit for stage in bundle.stages] == in_bundle
    assert len(list((tmp_path / "b" / "stages").iterdir())) == len(in_bundle)
    assert [e["exit"] for e in done.card["exits"] if e["in_bundle"]] == in_bundle
    assert done.card["check"] is None
    text = (tmp_path / "b" / "card.md").read_text()
    assert "nobody has compared" in text
    gone = [str(exit) for exit in rule.exits if exit not in in_bundle]
    assert not gone or f"leaves them: {gone[0]}" in text


def test_a_cascade_in_a_bundle(
    store: Store, pictures: np.ndarray, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    """A graph takes the answer before where its head has learned to add to it, and nowhere else; heads
    that no image can leave by go, and what is left of them at the end as well."""
    rule = halving(store, "cascade", "ensemble")
    export_to(tmp_path / "b", store, rule)
    bundle = check_answers(tmp_path / "b", store, rule, pictures)
    assert [stage.adds for stage in bundle.stages] == [False, True, False]
    assert "carry" not in json.loads((tmp_path / "b" / "stages.json").read_text())
    for thresholds, left in (((0.6, None, None), [1, 3]), ((None, 0.6, None), [1, 2, 3])):
        some = policy_of(store, "cascade", "confidence", thresholds)
        export_to(tmp_path / "c", store, some, replace(QUICK, force=True))
        assert [s.exit for s in check_answers(tmp_path / "c", store, some, pictures).stages] == left
    # The control: another answer before is noticed, and the same one is not.
    pixels = bundle.pixels(pictures)
    first, *carried = bundle.stages[0].run([pixels])
    second = bundle.all_exits(pixels)[:, 1]
    assert (bundle.stages[1].run(carried, first)[0] == second).all()
    assert np.abs(bundle.stages[1].run(carried, 0 * first)[0] - second).max() > 1e-2
    alone = replace(rule, carry=0.0)
    assert refusal(export_to, tmp_path / "d", store, alone) == snapshot


@pytest.mark.long  # gates of validation are a policy above
def test_a_trial_is_left_by_the_gates_that_it_learned(
    store: Store, pictures: np.ndarray, tmp_path: Path
) -> None:
    rule = halving(store, "gated", "gate")
    assert rule.gates == read(store, "gated").gates
    export_to(tmp_path / "b", store, rule, ExportOptions(measure=False))
    bundle = check_answers(tmp_path / "b", store, rule, pictures)
    assert [stage.gate for stage in bundle.stages] == list(rule.gates or ())
    assert len(set(bundle.predict(pictures).exits.tolist())) > 1


def test_what_is_not_to_be_trusted_is_refused_or_branded(store: Store, tmp_path: Path) -> None:
    rule = policy_of(store, "joint", "confidence", (0.0, 0.5, None))
    quick = ExportOptions(check=False, measure=False)
    refuses(r"exit 1, .* `anyway=True`", export_to, tmp_path / "b", store, rule, quick)
    assert not (tmp_path / "b").exists()
    done = export_to(tmp_path / "b", store, rule)
    (reason,) = done.card["unreliable"]
    assert (tmp_path / "b" / "card.md").read_text().splitlines()[2] == f"> **Unreliable: {reason}.**"
    bundle = Bundle(tmp_path / "b")
    assert bundle.unreliable == (reason,) and [stage.exit for stage in bundle.stages] == [1]
    good = export_to(
        tmp_path / "c", store, halving(store, "joint"), ExportOptions(check=False, measure=False)
    )
    assert good.card["unreliable"] == [] and Bundle(tmp_path / "c").unreliable == ()
    assert "nreliable" not in (tmp_path / "c" / "card.md").read_text()


def test_a_stage_is_a_graph_with_a_free_batch(store: Store, tmp_path: Path) -> None:
    export_to(tmp_path / "b", store, halving(store, "joint"))
    for file in (tmp_path / "b" / "stages").iterdir():
        onnx.checker.check_model(str(file), full_check=True)
        graph = onnx.load(str(file)).graph
        for tensor in (*graph.input, *graph.output):
            assert tensor.type.tensor_type.shape.dim[0].dim_param
        assert "If" not in {node.op_type for node in graph.node}


def test_the_check_finds_a_bundle_that_answers_otherwise(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    """Weights that moved by little are found by the logits, and leave no folder."""
    export = graphs.export

    def spoiled(net: Any, *arguments: Any) -> Any:
        other = copy.deepcopy(net)
        with torch.no_grad():
            inside(other).heads[0].body.classifier.bias += 2e-4
        return export(other, *arguments)

    monkeypatch.setattr(graphs, "export", spoiled)
    assert (
        refusal(export_to, tmp_path / "b", store, halving(store, "joint"), ExportOptions()) == snapshot
    )
    assert not list(tmp_path.glob("*b*/*")) and not (tmp_path / "b").exists()


def test_the_check_finds_images_that_leave_elsewhere(store: Store, tmp_path: Path) -> None:
    rule = halving(store, "joint")
    export_to(tmp_path / "b", store, rule)
    net = load_network(store, rule.calibration.trial, torch.device("cpu"))
    other = policy_of(store, "joint", "confidence", (0.05, 0.05, None))
    digits = load(DataSpec("digits", test_images=60)).test.images
    images = SplitImages(digits, torch.zeros(1), torch.ones(1))
    assert parity.compare(Bundle(tmp_path / "b"), net, rule, Shown(images, "digits")).near == 0
    (pixels,) = images.batches(60)
    with torch.inference_mode():
        logits = torch.stack(net(torch.from_numpy(pixels)), dim=1).numpy()
    answered, place = Bundle(tmp_path / "b").run(pixels), other.leaves(logits)
    elsewhere = answered.exits != np.array(other.exits)[place]
    otherwise = answered.classes != scoring.answers(logits[np.arange(60), place])
    strays = int((elsewhere | otherwise).sum())
    assert strays > (elsewhere & otherwise).sum()  # the same class from another exit counts too
    compared = Shown(images, "digits")
    refuses(f"{strays} of 60 images", parity.compare, Bundle(tmp_path / "b"), net, other, compared)


def test_a_split_is_normalized_a_batch_at_a_time_to_the_same_bits() -> None:
    """As float32 it takes four times the memory, which a split that just fits does not have."""
    pixels = torch.randint(0, 256, (70, 3, 5, 4), dtype=torch.uint8)
    how = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    batches = list(SplitImages(pixels, *how).batches(32))
    assert [len(batch) for batch in batches] == [32, 32, 6]
    assert np.array_equal(np.concatenate(batches), normalize(pixels, *how).numpy())


def test_a_policy_of_another_trial_is_refused(store: Store, tmp_path: Path) -> None:
    rule = halving(store, "joint")
    refuses("joint.*two-stage", export_to, tmp_path / "b", store, rule, trial="two-stage")
    assert not (tmp_path / "b").exists()


def test_what_runs_a_bundle_is_said_as_a_shell_takes_it(store: Store, tmp_path: Path) -> None:
    card = export_to(tmp_path / "my b", store, halving(store, "joint")).card
    folder, site = Path("my b"), Path("my site")
    said = [str(card_document(folder, card)[-1]), *page_lines(site)]
    words = [shlex.split(line) for line in said]
    assert "my b/run.py" in words[0] and "my site," in words[1], said


def test_a_place_that_is_taken(store: Store, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    rule = halving(store, "joint")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for force in (False, True):
        assert (
            refusal(export_to, tmp_path / "mine", store, rule, replace(QUICK, force=force)) == snapshot
        )
    export_to(tmp_path / "b", store, rule)
    before = file_digest(tmp_path / "b" / "SHA256SUMS")
    assert refusal(export_to, tmp_path / "b", store, rule) == snapshot
    assert file_digest(tmp_path / "b" / "SHA256SUMS") == before
    (tmp_path / "b" / ".DS_Store").touch()
    export_to(tmp_path / "b", store, halving(store, "two-stage"), replace(QUICK, force=True))
    assert json.loads((tmp_path / "b" / "card.json").read_text())["trial"].startswith("two-stage")
    (tmp_path / "mine" / "SHA256SUMS").write_text("of something else")
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    (tmp_path / "c" / "thesis.txt").write_text("years of work")
    for name in ("mine", "c"):  # a list of sums makes no bundle, and a bundle may hold more than itself
        assert refusal(export_to, tmp_path / name, store, rule, replace(QUICK, force=True)) == snapshot
        assert (tmp_path / name / "thesis.txt").read_text() == "years of work"
    assert not list(tmp_path.glob(".*"))


def test_files_that_no_bundle_wrote_are_spared(
    store: Store, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    rule, out = halving(store, "joint"), tmp_path / "ex" / "b"
    mine = tmp_path / "ex" / ".b.staging" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    export_to(out, store, rule)
    again = replace(QUICK, force=True)
    for name in ("__pycache__/notes.txt", "__pycache__/run.cpython-311.pyc", ".hidden", "link"):
        (out / name).parent.mkdir(exist_ok=True)
        if name == "link":
            (out / name).symlink_to(tmp_path / "ex")
        else:
            (out / name).write_text("mine")
        assert refusal(export_to, out, store, rule, again) == snapshot
        (out / name).unlink()
    export_to(out, store, rule, again)
    assert mine.read_text() == "years of work"
    assert sorted(path.name for path in out.parent.iterdir()) == [".b.staging", "b"]
    (tmp_path / "to-b").symlink_to(out)
    refuses("is a link", export_to, tmp_path / "to-b", store, rule, again)


def test_a_file_put_there_meanwhile_is_spared(tmp_path: Path) -> None:
    out = tmp_path / "b"
    with (
        pytest.raises(OfframpError, match=r"holds thesis\.txt"),
        writing(out, force=True) as folder,
    ):
        (folder / "card.md").write_text("new")
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")
    assert (out / "thesis.txt").read_text() == "years of work"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_without_the_extra(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.setattr(graphs, "NEEDED", ("onnx", "no_such_package"))
    assert refusal(export_to, tmp_path / "b", store, halving(store, "joint")) == snapshot


@pytest.mark.parametrize("root", [None, "."])
def test_images_that_were_given_in_python_are_said_to_be(
    store: Store, root: str | None, snapshot: SnapshotAssertion
) -> None:
    """A trial of `fit` names no data set: its card said that it was unknown, and listed those there
    are."""
    manifest = changed(store.read_trial(store.trials()[0]), "data", spec={"name": "given"})
    assert for_check(manifest, root, trust_code=False).what == snapshot
    assert refusal(for_int8, manifest, root, trust_code=False) == snapshot


@pytest.mark.long
def test_where_the_data_are_not_at_hand_noise_is_compared(tmp_path: Path) -> None:
    store = run_all(tiny_plan(tiny_study(("joint",), recipe={"epochs": 1})), tmp_path / "runs")[0]
    done = export_to(
        tmp_path / "b", store, halving(store, "joint"), ExportOptions(measure=False, anyway=True)
    )
    assert done.card["check"]["what"].startswith("random") and done.card["check"]["images"] == 256


def test_images_that_memory_does_not_hold_are_compared_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training reads them from their files; so does the check, and no image that it does not ask for."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = photos_store(tmp_path, (8, 8, 3))
    monkeypatch.setattr("offramp.data.read.MEMORY_SHARE", 2**62)  # none is free
    monkeypatch.setattr("offramp.bundle.trial_images.COMPARED", 15)
    options = ExportOptions(measure=False, anyway=True)
    check = export_to(tmp_path / "b", store, halving(store, "two-stage"), options).card["check"]
    assert (check["images"], check["what"]) == (15, "15 test images") and check["largest"] < 1e-4
    (manifest,) = map(store.read_trial, store.trials())
    splits = for_int8(manifest, None, trust_code=False)
    counts = {name: len(split.pixels) for name, split in splits.items()}
    assert counts.items() <= manifest.data.provenance.images.items()  # int8 needs all of its three


def test_stages_that_take_too_long_are_said_to_be_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    """The lines of a process that is ended come as bytes, which no card can hold."""

    def ended(command: Any, timeout: float, **_: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout, stderr=b"a warning")

    monkeypatch.setattr(subprocess, "run", ended)
    assert measured(tmp_path) == snapshot


def test_sources_and_sums(store: Store, tmp_path: Path) -> None:
    export_to(tmp_path / "b", store, halving(store, "joint"))
    package = Path(graphs.__file__).parents[1]
    for name, source in SOURCES.items():
        assert (tmp_path / "b" / name).read_bytes() == (package / source).read_bytes()
    command = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=tmp_path / "b", check=False).returncode == 0
    listed = {line.split("  ")[1] for line in (tmp_path / "b" / "SHA256SUMS").read_text().splitlines()}
    files = {p.relative_to(tmp_path / "b").as_posix() for p in (tmp_path / "b").rglob("*.*")}
    assert files == listed  # SHA256SUMS itself has no dot


@pytest.mark.parametrize(
    ("trunk_of", "exits", "expected"),
    [
        ((0, 0, 0), (1, 2, 3), [(1, None, True), (2, 0, True), (3, 1, False)]),
        ((0, 0, 0), (2, 3), [(1, None, True), (3, 0, False)]),
        ((0, 1, 2), (1, 2, 3), [(1, None, False), (1, None, False), (1, None, False)]),
        ((0, 1, 0), (1, 2, 3), [(1, None, True), (1, None, False), (2, 0, False)]),
    ],
)
def test_stages(trunk_of: Any, exits: Any, expected: list[Any]) -> None:
    stages = graphs.layout(trunk_of, exits)
    assert [(s.first, s.after, s.carries) for s in stages] == expected


@pytest.mark.long
@pytest.mark.parametrize("name", ["residual", "resnet18", "timm/vit_tiny_patch16_224"])
def test_other_backbones(name: str, tmp_path: Path) -> None:
    """Channels-last convolutions, and tokens; exits skipped, batches of 1 and 5."""
    options = (("img_size", 32), ("patch_size", 8)) if "vit" in name else ()
    if name == "residual":  # as resnet18, of half its blocks
        module = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=4)
        net = attach(module, ["layer1", "layer2", "layer3"], (3, 32, 32))
    else:
        net = build(NetSpec(name, options, 3), (3, 32, 32), 4, 0)
    net.eval().requires_grad_(False)
    stages = graphs.layout(inside(net).trunk_of, (2, 4))
    assert [each.stage for each in graphs.export(net, stages, tmp_path)] == list(stages)
    for batch in (1, 5):
        x = torch.randn(batch, 3, 32, 32)
        tensors = [x.numpy()]
        for stage in stages:
            session = InferenceSession(tmp_path / stage.file)
            names = [each.name for each in session.get_inputs()]
            logits, *tensors = session.run(None, dict(zip(names, tensors, strict=True)))
            np.testing.assert_allclose(logits, net(x)[stage.exit - 1].numpy(), atol=1e-4)


def test_pillow_images_and_arrays_are_one(store: Store, pictures: np.ndarray, tmp_path: Path) -> None:
    export_to(tmp_path / "b", store, halving(store, "joint"))
    bundle = Bundle(tmp_path / "b")
    from_array = bundle.predict(pictures[:9])
    listed = bundle.predict([Image.fromarray(image[..., 0]) for image in pictures[:9]])
    assert (from_array.logits == listed.logits).all()
    assert bundle.predict(pictures[:0]).classes.shape == (0,)
    data = load(DataSpec("digits", train_images=300, test_images=100))
    pixels = normalize(data.test.images, torch.tensor(data.mean), torch.tensor(data.std)).numpy()
    assert (bundle.pixels(pictures) == pixels).all()  # to the bit
    floats = bundle.predict(pixels[:9].transpose(0, 2, 3, 1))
    assert (floats.logits == listed.logits).all()


@pytest.mark.long  # tests/engine/test_features.py counts parts and tensors
def test_a_bundle_holds_nothing_of_what_training_alone_has(store: Store, tmp_path: Path) -> None:
    """Of a trial with a loss between features it is the same files of the same operations as of one
    without."""
    taught = digits_store(tmp_path / "runs", ("exit-ensemble",))
    contents = []
    for source, label in ((store, "joint"), (taught, "exit-ensemble")):
        out = tmp_path / label
        export_to(out, source, policy_of(source, label, "confidence", (0.5, 0.5, None)))
        files = sorted(path.relative_to(out) for path in out.rglob("*"))
        models = [onnx.load(out / name).graph for name in files if name.suffix == ".onnx"]
        weights = [[tuple(t.dims) for t in graph.initializer] for graph in models]
        contents.append((files, [[n.op_type for n in graph.node] for graph in models], weights))
    assert contents[0] == contents[1] and len(contents[0][1]) == 3
