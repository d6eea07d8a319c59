"""The training loop: what an epoch reads, in which modes it runs, and how few samples will do."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fit_runs import USUAL, begin, derived, equal, program_nodes, split_data, train
from torch import Tensor
from torch.nn.functional import cross_entropy

import offramp.engine.fit
from longer import long
from offramp.augment import View
from offramp.data import Data, from_dataset, order
from offramp.engine.fit import EpochReport, conclude, evaluate, fit
from offramp.engine.passes import Derived, ExitAnswers, Images, Plain
from offramp.engine.resolve import Node
from offramp.engine.settings import applied
from offramp.engine.trainee import Trainee, trained_state
from offramp.engine.values import FrozenValue
from offramp.engine.weights import Weights
from offramp.nets import ExitNetwork
from offramp.nets.network import inside, redrawn
from offramp.parts import Part
from offramp.study.run.events import Failed
from support import CPU, NUMERICS, network, run_all, tiny_data, tiny_plan, tiny_study

# The whole of it


@pytest.mark.parametrize("strategy", ["joint", "baseline"])
def test_training_is_the_loop_that_anyone_would_write(strategy: str) -> None:
    """Written out in plain PyTorch; the same bits. (Where nothing is frozen, nothing is padded.)"""
    data = tiny_data()
    weights = [0.3, 0.3 + 0.7 / 3, 0.3 + 1.4 / 3, 1.0] if strategy == "joint" else [0.0, 0.0, 0.0, 1.0]
    net = redrawn(network("digits-cnn"), 42).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)
    images = Images(data, CPU)
    with applied(NUMERICS):
        for epoch in range(2):
            rows = order(42, epoch, len(data.train))
            for step, batch in enumerate((rows[:16], rows[16:])):
                inside(net).clock.tick(42, epoch, step)
                outputs = net(images.read("train", batch))
                terms = [
                    w * cross_entropy(z, data.train.labels[batch])
                    for w, z in zip(weights, outputs, strict=True)
                    if w
                ]
                optimizer.zero_grad()
                sum(terms[1:], terms[0]).backward()
                optimizer.step()
    (node,) = program_nodes(strategy)
    _, _, outcome = train(node)
    expected = {n: t for part in node.trained for n, t in inside(net).state(part).items()}
    assert equal(outcome, expected)


# What is read


class Watch:
    """A pass that writes down what it is asked for, and of which logits a loss is made."""

    def __init__(self, inner: Plain | Derived) -> None:
        self._inner = inner
        self.asked: list[tuple[str, list[int]]] = []

    def reads(
        self, split: str, chunks: Sequence[Tensor], view: View | None, nodes: Sequence[Node]
    ) -> Iterator[Any]:
        for rows, read in zip(chunks, self._inner.reads(split, chunks, view, nodes), strict=True):
            self.asked.append((split, rows.tolist()))
            yield read

    def answers(self, node: Node, net: ExitNetwork, read: Any) -> tuple[ExitAnswers, ExitAnswers]:
        return self._inner.answers(node, net, read)


def rows_by_pass(reads: Sequence[tuple[str, list[int]]]) -> Iterator[tuple[str, list[int]]]:
    """Rows of neighboring batches of one split, joined."""
    split, rows = reads[0][0], list[int]()
    for name, more in reads:
        if name != split:
            yield split, rows
            split, rows = name, []
        rows = rows + more
    yield split, rows


def test_an_epoch_reads_train_shuffled_and_validation_in_order() -> None:
    (node,) = program_nodes("joint")
    with applied(NUMERICS):
        trainee, passes, images = begin(node)
        watch = Watch(passes)
        list(fit([trainee], watch, images, 16))
    train, validation = images.count("train"), images.count("validation")
    passes = list(rows_by_pass(watch.asked))
    assert [split for split, _ in passes] == ["train", "validation"] * 2
    for epoch, ((_, shuffled), (_, straight)) in enumerate(zip(passes[::2], passes[1::2], strict=True)):
        assert shuffled == order(42, epoch, train).tolist() != sorted(shuffled)
        assert straight == list(range(validation))
    assert passes[0] != passes[2]


class Recorded(Images):
    """Images that write down which splits are read."""

    def __init__(self, data: Data) -> None:
        super().__init__(data, CPU)
        self.splits: set[str] = set()

    def labels(self, split: str, rows: Tensor) -> Tensor:
        self.splits.add(split)
        return super().labels(split, rows)

    def read(self, split: str, rows: Tensor, view: View | None = None) -> Tensor:
        self.splits.add(split)
        return super().read(split, rows, view)


@pytest.mark.parametrize("kind", [Plain, derived])
def test_training_reads_neither_calibration_nor_test(kind: Callable[..., Any]) -> None:
    (node,) = program_nodes("joint", replace(USUAL, patience=1))
    images = Recorded(tiny_data())
    with applied(NUMERICS):
        trainee, passes, _ = begin(node, images=images, passing=kind)
        list(fit([trainee], passes, images, 16))
        conclude(trainee, passes, images, 16)
    assert images.splits == {"train", "validation"}


def test_validation_changes_nothing() -> None:
    """Checked as often as you like: in eval mode, without gradient, off the clock."""
    (node,) = program_nodes("joint")
    with applied(NUMERICS):
        trainee, passes, images = begin(node)
        run = fit([trainee], passes, images, 16)
        next(run)
        before = {n: t.clone() for n, t in trainee.net.state_dict().items()}
        losses = [
            evaluate([trainee], passes, images, "validation", 16)[node.key].read() for _ in range(3)
        ]
        assert losses[0] == losses[1] == losses[2]
        assert equal(before, trainee.net.state_dict())
        next(run)
    _, _, undisturbed = train(node)
    assert equal(trained_state(trainee), undisturbed)


def test_reported_numbers_are_those_of_the_weights() -> None:
    """Validation loss, cross-entropy and accuracy of an epoch, computed anew from the network."""
    (node,) = program_nodes("joint", replace(USUAL, select="last"))
    trainee, reports, _ = train(node)
    data = tiny_data()
    with applied(NUMERICS), torch.no_grad():
        images = Images(data, CPU)
        pixels = images.read("validation", torch.arange(images.count("validation")))
        outputs = trainee.net.eval()(pixels)
    labels = data.validation.labels
    last = reports[-1]
    assert isinstance(last, EpochReport)
    entropies = [cross_entropy(z, labels).item() for z in outputs]
    weights = [0.3, 0.3 + 0.7 / 3, 0.3 + 1.4 / 3, 1.0]
    # The reported loss is a mean over batches of 16 by their sizes.
    expected = sum(w * e for w, e in zip(weights, entropies, strict=True))
    assert last.validation_loss == pytest.approx(expected, rel=1e-4)
    for exit, logits in enumerate(outputs, start=1):
        hits = (logits.argmax(1) == labels).double().mean().item()
        assert last.validation_accuracy[exit] == pytest.approx(hits)
        place = trainee.net.places[exit - 1]
        (row,) = [
            r.value
            for r in trainee.rows
            if (r.epoch, r.split, r.exit, r.metric) == (2, "validation", place, "cross_entropy")
        ]
        assert row == pytest.approx(entropies[exit - 1], rel=1e-4)


# Modes


def test_what_is_frozen_stands_in_eval_mode_while_it_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segment by segment and layer by layer, at every step; eval mode throughout a check."""
    right = offramp.engine.fit.step
    wrong: list[str] = []

    def watched(trainee: Trainee, *rest: Any) -> Tensor:
        net, node = trainee.net, trainee.node
        for kind in ("segment", "head"):
            for k in range(1, net.exits + 1):
                part = Part(kind, k)  # type: ignore[arg-type]
                names = {name.rpartition(".")[0] for name in inside(net).state(part)}
                early = kind == "head" and k < net.exits
                for name in names:
                    if early:
                        inner = name.removeprefix(f"exits.{net.places[k - 1]}.")
                        module = inside(net).heads[k - 1].get_submodule(inner)
                    else:
                        module = inside(net).trunks[0].module.get_submodule(name)
                    if module.training != (part in node.trained):
                        wrong.append(f"{node.name}: {name}")
        return right(trainee, *rest)

    monkeypatch.setattr(offramp.engine.fit, "step", watched)
    weights_of: dict[str, dict[str, Tensor]] = {}
    for strategy in ("branch-wise", "distillation"):
        with applied(NUMERICS):
            for node in program_nodes(strategy):
                trainee, passes, images = begin(node, weights_of=weights_of)
                for _ in fit([trainee], passes, images, 16):
                    assert not any(m.training for m in trainee.net.modules() if not list(m.children()))
                weights_of[node.key] = conclude(trainee, passes, images, 16)
    assert not wrong


@pytest.mark.parametrize("students", ["heads", "independent", "shared"])
@pytest.mark.parametrize("kind", [Plain, derived])
def test_a_teacher_is_frozen_in_eval_mode_and_apart(
    students: str, kind: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, node, *_ = program_nodes("distillation", students=students)
    _, _, taught = train(first)
    teachers: list[ExitNetwork] = []
    right = Weights.frozen

    def watched(self: Weights, values: Any) -> list[tuple[ExitNetwork, list[FrozenValue]]]:
        groups = right(self, values)
        teachers.extend(n for n, members in groups if any(v.point.kind == "logits" for v in members))
        return groups

    monkeypatch.setattr(Weights, "frozen", watched)
    with applied(NUMERICS):
        trainee, passes, images = begin(node, weights_of={first.key: taught}, passing=kind)
        (teacher,) = teachers
        before = {n: t.clone() for n, t in teacher.state_dict().items()}
        for _ in fit([trainee], passes, images, 16):
            assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    assert equal(before, teacher.state_dict())
    mine = {t.untyped_storage().data_ptr() for t in trainee.net.state_dict().values()}
    theirs = {t.untyped_storage().data_ptr() for t in teacher.state_dict().values()}
    assert not mine & theirs


def test_logits_of_a_teacher_do_not_change_from_epoch_to_epoch() -> None:
    """VGG's and our heads' dropout is off in a teacher: one image, one target."""
    first, node, *_ = program_nodes("distillation")
    _, _, taught = train(first)
    with applied(NUMERICS):
        trainee, passes, _ = begin(node, weights_of={first.key: taught})
        rows = torch.arange(20)
        targets = []
        for epoch in range(2):
            inside(trainee.net).clock.tick(42, epoch, 0)
            read = next(passes.reads("train", [rows], None, [node]))
            targets.append(passes.answers(node, trainee.net, read)[1].logits[4])
    assert torch.equal(*targets)


# Small and odd numbers of samples


@pytest.mark.parametrize(
    ("images", "mode"),
    [
        *[(17, "derived"), (2, "plain")],
        *long((17, "plain"), (2, "derived"), (33, "plain"), (33, "derived")),
        *long((5, "plain"), (5, "derived")),
    ],
)
def test_few_samples_and_a_last_batch_of_one_train(images: int, mode: str, tmp_path: Path) -> None:
    study = tiny_study(["joint", "distillation"], execution={"mode": mode})
    plan = tiny_plan(study, split_data(images, classes=min(images, 3)))
    store, events = run_all(plan, tmp_path)
    assert not [e for e in events if isinstance(e, Failed)]
    assert all(store.has_trial(trial.id) for trial in plan.trials)
    for key in plan.nodes:
        history = store.node_history(key)
        assert history["value"].map(math.isfinite).all()


def test_a_last_batch_of_one_joins_the_one_before_it() -> None:
    (node,) = program_nodes("joint")
    with applied(NUMERICS):
        trainee, passes, images = begin(node, split_data(33))
        watch = Watch(passes)
        next(fit([trainee], watch, images, 16))
    assert [len(rows) for split, rows in watch.asked if split == "train"] == [16, 17]


@pytest.mark.parametrize("mode", ["plain", "derived"])
def test_batches_of_one_image_are_refused_in_words(mode: str, tmp_path: Path) -> None:
    study = tiny_study(["two-stage"], recipe={"batch_size": 1}, execution={"mode": mode})
    store, events = run_all(tiny_plan(study), tmp_path)
    reasons = [e.reason for e in events if isinstance(e, Failed)]
    assert re.search(r"set recipe\.batch_size to 2 or more", reasons[0]) and not store.trials()


def test_one_validation_image_is_enough() -> None:
    (node,) = program_nodes("joint")
    _, reports, _ = train(node, split_data(20, validation_images=17))  # batches of 16 and 1
    assert all(isinstance(r, EpochReport) for r in reports)


def test_class_weights_are_of_the_training_split_in_plain_and_derived_alike(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = (torch.arange(160) % 5 == 0).to(torch.int64)
    noise = (torch.rand(160, 1, 8, 8, generator=generator) * 120).to(torch.uint8)
    data = from_dataset((noise + (labels * 40).view(-1, 1, 1, 1).to(torch.uint8), labels))
    logits = {}
    for weights in ("none", "balanced"):
        for mode in ("derived", "plain"):
            recipe = {"epochs": 1, "class_weights": weights}
            study = tiny_study(["two-stage"], recipe=recipe, execution=mode)
            store, _ = run_all(tiny_plan(study, data), tmp_path / weights / mode)
            (trial,) = store.trials()
            logits[weights, mode] = store.trial_logits(trial)["test"]
            first = store.node_history(store.read_trial(trial).keys[0])
            first = first[(first["epoch"] == 1) & (first["split"] == "train")]
            rows = first.set_index("metric")["value"]
            same = rows["loss"] == pytest.approx(rows["cross_entropy"], rel=1e-6)
            assert same == (weights == "none")
    for weights in ("none", "balanced"):
        assert np.array_equal(logits[weights, "derived"], logits[weights, "plain"])
    plain, balanced = (
        np.diff(logits[weights, "plain"], axis=-1).mean() for weights in ("none", "balanced")
    )
    assert balanced > plain  # the rare class is answered more often


def test_label_smoothing_is_of_the_loss_that_trains_alone(tmp_path: Path) -> None:
    study = tiny_study(["baseline"], recipe={"epochs": 1, "label_smoothing": 0.2})
    store, _ = run_all(tiny_plan(study), tmp_path)
    (trial,) = store.trials()
    history = store.node_history(store.read_trial(trial).keys[0])
    for split in ("train", "validation", "train-eval"):
        rows = history[history["split"] == split].set_index("metric")["value"]
        same = rows["loss"] == pytest.approx(rows["cross_entropy"], rel=1e-6)
        assert same == (split != "train")
