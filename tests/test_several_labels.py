"""Several labels an image: data, losses, metrics and training. What is deployed: see
test_several_deployed."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
import torch
import torch.nn.functional as F
from syrupy.assertion import SnapshotAssertion

import offramp
from offramp.data import from_dataset
from offramp.data.audit import audit, open_data
from offramp.data.samples import numbered
from offramp.data.sources.table import table
from offramp.data.splits import hold_out, strata
from offramp.data_spec import DataSpec
from offramp.engine import losses
from offramp.metrics import METRICS, of_logits
from offramp.phase import CE, KD, MSE, Survivors, Unsolved
from offramp.strategies import STRATEGIES
from offramp.study.plan.plan import data_identity
from several import DIGITS, NAMES, folder, tiles
from support import network, tiny_plan, tiny_study
from wording import refusal

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 4.0, -0.2], [1.0, 1.0, -1.0], [0.3, -0.3, 2.0]])
TRUTH = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


# Data


def test_a_column_a_label_and_a_list_in_a_cell_say_the_same(tmp_path: Path) -> None:
    path = folder(tmp_path / "tiles", 30)
    rows = pd.read_csv(path)
    columns = table(path, several=True)
    assert columns.classes == tuple(sorted(NAMES))
    lists = rows[[*NAMES]].apply(lambda row: [n for n in NAMES if row[n]], axis=1)
    listed = pd.DataFrame({"image": rows["image"], "findings": lists})
    forms: dict[str, Callable[[Path], Any]] = {
        "a.csv": listed.assign(findings=lists.map("|".join).replace("", "No Finding")).to_csv,
        "b.csv": listed.assign(findings=lists.map("; ".join)).to_csv,
        "c.parquet": listed.to_parquet,
        "d.jsonl": lambda p: listed.to_json(p, orient="records", lines=True),
    }
    for name, write in forms.items():
        write(path.parent / name)
        read = table(path.parent, name, label="findings", image="image", several=True)
        assert read.classes == columns.classes
        assert torch.equal(read.train.labels, columns.train.labels)
    order = [sorted(NAMES).index(name) for name in NAMES]
    images: Any = columns.train.images
    for name, row in zip(images.ids, columns.train.labels, strict=True):
        assert torch.equal(row[order], tiles(30)[1][int(Path(name).stem)])


def test_a_label_that_no_line_has_is_told(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    path = folder(tmp_path / "tiles", 30)
    assert not any("no line" in remark for remark in table(path, several=True).remarks)
    rows = pd.read_csv(path).assign(five=0, six=0)
    rows.to_csv(path, index=False)
    read = table(path, several=True)
    assert read.classes == tuple(sorted(NAMES))
    assert [remark for remark in read.remarks if "no line" in remark] == snapshot


def test_a_table_is_of_one_class_unless_it_is_said(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    path = folder(tmp_path / "tiles", 12)
    assert refusal(table, path, label=NAMES) == snapshot
    rows = pd.read_csv(path).astype(object)
    rows.loc[3, "two"] = -1
    rows.to_csv(path, index=False)
    assert refusal(table, path, label=NAMES, several=True) == snapshot


@pytest.mark.parametrize(
    "labels",
    [
        {"train": [[1, 0], [1, 1], [0, 0]], "test": [[1, 2]]},
        {"train": [[1, 0], [1, 1], [0, 0, 1]]},
        {"train": [["cat"], ["cat", "dog"]], "test": [["cow"]]},
        {"train": [["cat"], 3]},
        {"train": [[], []], "test": [[]]},
    ],
    ids=["a two", "a longer one", "another name", "one class among them", "none at all"],
)
def test_labels_in_python_that_are_refused(labels: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    assert refusal(numbered, labels, ["cat", "dog"]) == snapshot


def test_regression_is_left_out_with_the_reason(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    path = folder(tmp_path / "tiles", 40)
    rows = pd.DataFrame({"image": [f"{n}.png" for n in range(40)], "age": np.arange(40) / 4 + 0.1})
    rows.to_csv(path.parent / "ages.csv", index=False)
    assert refusal(table, path.parent, "ages.csv", label="age") == snapshot
    assert refusal(numbered, {"train": [0.5, 0.25]}) == snapshot


def test_one_hot_labels_are_one_class() -> None:
    assert numbered({"train": [[1, 0], [0, 1]]})[0]["train"].tolist() == [0, 1]
    assert numbered({"train": [[1, 0], [0, 1], [0, 0]]})[0]["train"].shape == (3, 2)


def test_splits_keep_the_shares_of_labels() -> None:
    labels = tiles(2000)[1]
    rows = hold_out(labels, ["validation", "calibration"], 0)
    shares = [labels[r].double().mean(0) for r in rows.values()]
    assert sorted(torch.cat([*rows.values()]).tolist()) == list(range(2000))
    assert max(float((s - labels.double().mean(0)).abs().max()) for s in shares) < 0.02
    assert int(strata(labels).bincount().where(strata(labels).bincount() > 0, 99).min()) >= 20


def test_data_are_audited_by_label(tmp_path: Path) -> None:
    spec = DataSpec("table", str(folder(tmp_path / "tiles", 200)), options=(("several", True),))
    about = audit(open_data(spec))
    images = sum(split.images for split in about.splits.values())
    counts = [sum(s.by_class[n] for s in about.splits.values()) for n in sorted(NAMES)]
    assert images == 200 and sum(counts) > images
    order = [NAMES.index(name) for name in sorted(NAMES)]
    assert counts == tiles(200)[1].sum(0)[order].tolist()
    twin = open_data(replace(spec, validation="test"))  # a split less to count
    assert any(remark.startswith("few images") for remark in twin.remarks)


def test_training_images_without_any_label_are_audited(tmp_path: Path) -> None:
    path = folder(tmp_path / "tiles", 60)
    rows = pd.read_csv(path)
    rows["split"] = ["train"] * 40 + ["test"] * 20
    rows.loc[:39, list(NAMES)] = 0
    rows.to_csv(path, index=False)
    about = audit(open_data(DataSpec("table", str(path), options=(("several", True),))))
    assert not any(about.splits["train"].by_class.values()) and about.wrong


def test_keys_tell_the_two_apart() -> None:
    """The same bytes as labels are another thing in another form, and other data to train on."""
    pictures, labels = tiles(200)
    several = from_dataset((pictures, labels))
    assert several.several and several.train.labels.dtype == torch.uint8
    one = from_dataset((pictures, labels[:, 0].long()))
    assert data_identity(several) != data_identity(one)
    again = from_dataset((pictures, labels))
    assert data_identity(several) == data_identity(again)
    other = from_dataset((pictures, labels[:, [1, 0, 2, 3, 4]]))
    assert data_identity(several)["train"] != data_identity(other)["train"]


# Losses


def by_hand(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean over labels of their binary cross-entropies, [B]."""
    yes = torch.sigmoid(logits.double())
    return -(labels * yes.log() + (1 - labels) * (1 - yes).log()).mean(1)


def test_the_label_term_is_binary_cross_entropy() -> None:
    loss = losses.cross_entropy(LOGITS, TRUTH, None, several=True)
    torch.testing.assert_close(loss.double(), by_hand(LOGITS, TRUTH).mean())
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(LOGITS, TRUTH))
    smooth = losses.cross_entropy(LOGITS, TRUTH, None, 0.2, several=True)
    torch.testing.assert_close(smooth.double(), by_hand(LOGITS, TRUTH * 0.8 + 0.1).mean())
    counts = losses.balanced(TRUTH.to(torch.uint8), 3)
    assert counts.tolist() == pytest.approx([3.0, 1.0, 1 / 3])
    weighted = losses.cross_entropy(LOGITS, TRUTH, counts, several=True)
    torch.testing.assert_close(
        weighted, F.binary_cross_entropy_with_logits(LOGITS, TRUTH, pos_weight=counts)
    )
    assert not torch.isclose(loss, losses.cross_entropy(LOGITS, TRUTH, None))  # shares of one class


def test_distillation_has_the_gradient_of_soft_targets() -> None:
    teacher, tau = LOGITS.flip(0), 3.0
    student = LOGITS.clone().requires_grad_(True)
    losses.distance(student, teacher, tau, several=True).backward()
    other = LOGITS.clone().requires_grad_(True)
    target = torch.sigmoid(teacher / tau)
    (tau**2 * F.binary_cross_entropy_with_logits(other / tau, target)).backward()
    torch.testing.assert_close(student.grad, other.grad)
    assert losses.distance(teacher, teacher, tau, several=True).item() == pytest.approx(0, abs=1e-6)
    assert losses.distance(LOGITS, teacher, tau, several=True).item() > 0


def test_weights_of_images_go_by_all_labels() -> None:
    sure = torch.tensor([[9.0, -9.0], [9.0, 0.1]])
    truth = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    hard = losses.sample_weights(Unsolved(), [sure, sure], truth, several=True)
    assert hard[:, 1].tolist() == [0.0, 0.0]  # both right, the second by a little: p = 0.52
    strict = losses.sample_weights(Unsolved(threshold=0.9), [sure, sure], truth, several=True)
    assert strict[:, 1].tolist() == [0.0, 1.0]
    wrong = losses.sample_weights(Unsolved(), [sure, sure], 1 - truth, several=True)
    assert wrong[:, 1].tolist() == [1.0, 1.0]
    soft = losses.sample_weights(Unsolved(hard=False), [sure, sure], truth, several=True)
    yes = torch.sigmoid(sure)
    all_right = (yes * truth + (1 - yes) * (1 - truth)).prod(1)
    torch.testing.assert_close(soft[:, 1], 1 - all_right)
    goes_on = losses.sample_weights(Survivors(0.9, 0.05), [sure, sure], truth, several=True)
    torch.testing.assert_close(
        goes_on[:, 1], torch.sigmoid((0.9 - torch.maximum(yes, 1 - yes).amin(1)) / 0.05)
    )


def test_early_exit_loss_of_several_labels() -> None:
    terms = (CE(1, weight=0.5), CE(2), KD(1, teacher_exit=2), MSE(1, teacher_exit=2))
    both = [LOGITS, LOGITS.flip(0)]
    loss = offramp.early_exit_loss(terms, both, TRUTH, several_labels=True)
    parts = [
        0.5 * F.binary_cross_entropy_with_logits(both[0], TRUTH),
        F.binary_cross_entropy_with_logits(both[1], TRUTH),
        losses.distance(both[0], both[1], 3.0, several=True),
        F.mse_loss(both[0], both[1]),
    ]
    torch.testing.assert_close(loss, sum(parts))
    assert "0 or 1" in refusal(
        offramp.early_exit_loss, terms, both, torch.tensor([0, 1, 2, 0]), several_labels=True
    )


# Metrics


def test_metrics_are_those_of_scikit_learn() -> None:
    draw = np.random.default_rng(3)
    labels = (draw.random((80, 4)) < (0.5, 0.3, 0.7, 0.1)).astype(np.uint8)
    logits = (draw.normal(size=(80, 2, 4)) + 1.5 * labels[:, None] - 0.5).astype(np.float32)
    found = of_logits(logits, labels, uneven=True)
    assert found.keys() == {n for n, m in METRICS.items() if m.labels != "one"}
    for exit in range(2):
        own, yes = logits[:, exit].astype(np.float64), logits[:, exit] > 0
        shares = 1 / (1 + np.exp(-own))
        expected = {
            "accuracy": reference.accuracy_score(labels, yes),
            "cross_entropy": np.mean([reference.log_loss(labels[:, c], shares[:, c]) for c in range(4)]),
            "auroc": reference.roc_auc_score(labels, shares, average="macro"),
            "auroc_micro": reference.roc_auc_score(labels, shares, average="micro"),
            "average_precision": reference.average_precision_score(labels, shares, average="macro"),
            "f1": reference.f1_score(labels, yes, average="macro"),
            "f1_micro": reference.f1_score(labels, yes, average="micro"),
            "hamming_loss": reference.hamming_loss(labels, yes),
        }
        assert {name: values[exit] for name, values in found.items()} == pytest.approx(expected)
    for name in ("accuracy", "cross_entropy", "hamming_loss"):
        by_image = METRICS[name].on_images
        assert by_image is not None
        assert by_image(logits, labels).mean(axis=0) == pytest.approx(found[name])
    rare = labels.copy()
    rare[:, 3] = 0  # a label that no image has says nothing of ranks
    assert METRICS["auroc"](logits, rare)[0] == pytest.approx(
        reference.roc_auc_score(labels[:, :3], logits[:, 0, :3], average="macro")
    )
    assert np.isnan(METRICS["hamming_loss"](logits, labels[:, 0])).all()
    assert np.isnan(METRICS["balanced_accuracy"](logits, labels)).all()


# Training


@cache
def net() -> offramp.ExitNetwork:
    return network.__wrapped__("digits-cnn", DIGITS)  # type: ignore[no-any-return]


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "gated"])
def test_every_strategy_learns_by_binary_cross_entropy(strategy: str) -> None:
    """In a loop by hand: each phase's loss falls on a batch, and its exits' losses are binary ones."""
    images, labels = tiles(16)
    pixels = images.float()[:, :, :, ::2] / 128 - 1
    own = network.__wrapped__("digits-cnn", DIGITS)
    for phase in offramp.program(own, strategy, several_labels=True):
        with phase:
            optimizer = torch.optim.Adam(phase.parameters(), lr=0.01)
            steps = []
            for _ in range(6):
                loss = phase.module(pixels, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                steps.append(loss.item())
            assert np.isfinite(steps).all() and min(steps[1:]) < steps[0]
            seen, truth = phase.module.seen or ({}, labels)
            for exit, value in phase.exit_losses().items():
                assert value == pytest.approx(by_hand(seen[exit], truth).mean().item(), rel=1e-4)


def test_gates_are_refused(snapshot: SnapshotAssertion) -> None:
    assert refusal(offramp.program, net(), "gated", several_labels=True) == snapshot
    data = from_dataset(tiles(200))
    study = tiny_study(["gated"])
    assert "has gates" in refusal(tiny_plan, study, data, network("digits-cnn", DIGITS))


def test_labels_of_a_loop_that_are_refused(snapshot: SnapshotAssertion) -> None:
    images = torch.zeros(4, 1, 8, 8)
    for phase in offramp.program(network.__wrapped__("digits-cnn", 3), "baseline", several_labels=True):
        with phase:
            for wrong in (torch.tensor([0, 1, 2, 0]), TRUTH * 2, TRUTH[:, :2]):
                assert refusal(phase.module, images, wrong) == snapshot
            phase.module(images, 0.3 * TRUTH + 0.1).backward()  # as mixup makes them
            torch.optim.SGD(phase.parameters(), lr=0.1).step()
