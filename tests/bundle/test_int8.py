"""`export --int8`: stages quantized one by one, thresholds solved again, a loss refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from bundle_kit import digits_store, export_to, policy_of, read
from syrupy.assertion import SnapshotAssertion

from offramp.bundle import graphs, int8, parity
from offramp.bundle.export import ExportOptions
from offramp.bundle.runtime import Bundle
from offramp.bundle.trial_images import SplitImages
from offramp.data import DataSpec, load
from offramp.data_spec import HELD_OUT
from offramp.nets.network import inside
from offramp.policy.calibrate import calibrate, target
from offramp.policy.candidates import Search
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.study import trained as trial
from offramp.study.run.trials import load_network
from refusal import refuses
from support import network
from wording import refusal

ASKED = ExportOptions(measure=False, anyway=True, int8=0.05)


@pytest.fixture(scope="module")
def store(request: pytest.FixtureRequest, digits: Path) -> Store:
    more = ("cascade", "imta") if request.config.getoption("long") else ()
    return digits_store(digits, ("joint", *more))


def solved(store: Store, strategy: str) -> Policy:
    """The policy of `offramp calibrate --max-accuracy-loss 0.1`."""
    trained = read(store, strategy)
    rows = (trained.validation, trained.calibration)
    return trial.policy_of(trained, calibrate(*rows, trained.costs, target(1, max_accuracy_loss=0.1)))


def images_of(name: str) -> SplitImages:
    """A split of the trials."""
    data = load(DataSpec("digits", train_images=300, test_images=100))
    return SplitImages(data.splits[name].images, torch.tensor(data.mean), torch.tensor(data.std))


@pytest.mark.journey
def test_it_answers_in_int8_as_it_was_calibrated(store: Store, tmp_path: Path) -> None:
    rule = solved(store, "joint")
    card = export_to(tmp_path / "b", store, rule, ASKED).card
    bundle = Bundle(tmp_path / "b")
    assert bundle.precision == card["precision"] == "int8"
    for stage in bundle.stages:
        graph = onnx.load(stage.file).graph
        types = {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}
        assert types == {onnx.TensorProto.INT8}, stage.file  # every weight
        assert "QuantizeLinear" in {node.op_type for node in graph.node}
    again = Policy.load(tmp_path / "b" / "policy.json")
    assert again.thresholds != rule.thresholds  # solved on other logits
    assert again.calibration.target == rule.calibration.target
    float32, small = card["int8"]["beside"]
    trained = read(store, "joint")
    right = trained.test.logits[:, -1].argmax(axis=1) == trained.test.labels
    assert float32["full_accuracy"] == pytest.approx(right.mean())
    assert abs(small["accuracy"] - float32["accuracy"]) < 0.08 and card["int8"]["lost"] <= 0.05
    assert card["check"]["images"] == 100 and card["check"]["share"] <= parity.SHARE
    text = (tmp_path / "b" / "card.md").read_text()
    assert "## In int8" in text and "| bytes of" in text
    assert small["stages"] == len(bundle.stages)
    assert f"| {float32['stages']} | {small['stages']} |" in text


def test_heads_of_a_cascade_are_quantized_on_the_answers_that_they_add_to(tmp_path: Path) -> None:
    net = network("digits-cnn").carrying("learned").eval()
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        matrix = inside(net).heads[1].before.weight
        matrix.copy_(3 * torch.randn(matrix.shape, generator=draw))
    every = graphs.layout(inside(net).trunk_of, [1, 2])
    list(graphs.export(net, every, tmp_path / "float"))
    images = torch.randint(0, 256, (64, *net.input_shape), dtype=torch.uint8, generator=draw)
    split = SplitImages(images, torch.tensor([0.5]), torch.tensor([0.25]))
    list(int8.quantize(every, tmp_path / "float", split, tmp_path / "int"))
    (pixels,) = split.batches(64)
    with torch.inference_mode():
        expected, alone = (
            torch.stack(each(torch.from_numpy(pixels))[:2], dim=1).numpy()
            for each in (net, net.carrying(0.0))
        )
    tensors = int8.Layers(every, tmp_path / "float").inputs(every[1], pixels)
    np.testing.assert_allclose(tensors[graphs.BEFORE], expected[:, 0], atol=1e-4)
    answers = int8.Layers(every, tmp_path / "int").logits(iter([pixels]))
    gap = np.abs(answers - expected).max(axis=(0, 2))
    assert (gap > 1e-4).all() and (gap < 0.1 * np.abs(expected).max()).all(), gap
    assert np.abs(alone - expected)[:, 1].max() > 5 * gap[1]  # the control: what the answer before adds


@pytest.mark.long
@pytest.mark.parametrize("strategy", ["cascade", "imta"])
def test_a_cascade_in_int8(strategy: str, store: Store, tmp_path: Path) -> None:
    """A head is quantized on the answers that it adds to, and exits answer as they were calibrated."""
    rule = solved(store, strategy)
    net = load_network(store, rule.calibration.trial, torch.device("cpu"))
    every = graphs.layout(inside(net).trunk_of, rule.exits)
    list(graphs.export(net, every, tmp_path / "float"))
    split = images_of("test")
    pixels = next(split.batches(9))
    tensors = int8.Layers(every, tmp_path / "float").inputs(every[1], pixels)
    with torch.inference_mode():
        expected = torch.stack(net(torch.from_numpy(pixels)), dim=1).numpy()
    np.testing.assert_allclose(tensors[graphs.BEFORE], expected[:, 0], atol=1e-4)
    card = export_to(tmp_path / "b", store, rule, replace(ASKED, every_exit=True)).card
    bundle = Bundle(tmp_path / "b")
    assert [stage.adds for stage in bundle.stages] == [False, True, False]
    gap = np.abs(bundle.all_exits(pixels) - expected).max(axis=(0, 2))
    assert (gap > 1e-3).all() and (gap < 0.2 * np.abs(expected).max()).all(), gap
    assert card["check"]["images"] == 100 and card["check"]["share"] <= parity.SHARE
    (tmp_path / "joined").mkdir()
    int8.join(
        every, tmp_path / "float", graphs.layout(inside(net).trunk_of, [1, 3]), tmp_path / "joined"
    )
    last = onnx.load(tmp_path / "joined" / "stages" / "exit-3.onnx").graph
    assert not [tensor for tensor in last.input if graphs.BEFORE in tensor.name]


def test_what_costs_more_than_is_allowed_is_refused(store: Store, tmp_path: Path) -> None:
    rule = solved(store, "joint")
    options = replace(ASKED, int8=-1.0)
    number = r"-?\d+\.\d\d"
    refuses(
        rf"int8 costs .* {number} .* {number}; .* int8", export_to, tmp_path / "b", store, rule, options
    )
    assert not (tmp_path / "b").exists()


def test_thresholds_are_solved_again_as_they_were(store: Store) -> None:
    trained = read(store, "joint")
    rows = (trained.validation, trained.calibration)
    limit = target(1, max_accuracy_loss=0.1)
    rules = [
        trial.policy_of(trained, calibrate(*rows, trained.costs, limit, Search(survivors=survivors)))
        for survivors in (False, True)
    ]
    assert rules[0].thresholds != rules[1].thresholds
    rules.append(trial.policy_of(trained, calibrate(*rows, trained.costs, limit, Search("gate"))))
    for rule in rules:
        assert trial.solved_again(trained, rule) == rule
    # Gates are learned again of what int8 says.
    other = {name: getattr(trained, name).logits[:, :, ::-1] for name in HELD_OUT}
    again = trial.solved_again(trial.with_logits(trained, other), rules[-1])
    assert again.gates != rules[-1].gates is not None


def test_without_the_images_there_is_no_int8(
    store: Store, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    options = replace(ASKED, root=str(tmp_path))  # digits take no root
    assert refusal(export_to, tmp_path / "b", store, solved(store, "joint"), options) == snapshot


def test_a_head_is_cut_off_and_the_others_answer_as_before(store: Store, tmp_path: Path) -> None:
    trained = read(store, "joint")
    net = load_network(store, trained.id, torch.device("cpu"))
    every = graphs.layout(inside(net).trunk_of, trained.exits)
    split = images_of("calibration")
    (images,) = split.batches(1000)
    list(graphs.export(net, every, tmp_path / "float"))
    list(int8.quantize(every, tmp_path / "float", split, tmp_path / "int"))
    # What a stage is calibrated on is what PyTorch's segments before it put out.
    layers = int8.Layers(every, tmp_path / "float")
    with torch.inference_mode():
        carried = inside(net).segment(1)(torch.from_numpy(images[:5]))
    for values, tensor in zip(layers.inputs(every[1], images[:5]).values(), carried, strict=True):
        np.testing.assert_allclose(values, tensor.numpy(), atol=1e-5)
    parts = graphs.layout(inside(net).trunk_of, [trained.exits[0], trained.exits[-1]])
    int8.join(every, tmp_path / "int", parts, tmp_path / "joined")
    before = int8.Layers(every, tmp_path / "int").logits(split.batches())
    after = int8.Layers(parts, tmp_path / "joined").logits(split.batches())
    np.testing.assert_allclose(after, before[:, [0, -1]], atol=1e-4)
    exact = int8.Layers(every, tmp_path / "float").logits(split.batches())
    assert np.abs(before - exact).max() > 1e-3  # it was quantized indeed
    assert (before.argmax(-1) == exact.argmax(-1)).mean() > 0.9


def test_a_bundle_that_leaves_elsewhere_is_found(store: Store, tmp_path: Path) -> None:
    rule = solved(store, "joint")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "alike", None)  # nothing is compared where that is left out
        card = export_to(tmp_path / "b", store, rule, replace(ASKED, check=False)).card
    assert card["check"] is None
    again = Policy.load(tmp_path / "b" / "policy.json")
    split = images_of("test")
    never = policy_of(store, "joint", "confidence", (None,) * len(again.exits))
    rows = read(store, "joint").test
    refuses("nothing was written", parity.alike, Bundle(tmp_path / "b"), never, rows, split.batches(), 0)
