"""The training loop: what an epoch reads, when it stops, what it hands on, and what goes wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import offramp.engine.fit
from offramp.data import Data, from_dataset, order
from offramp.engine.fit import Diverged, EpochReport, conclude, evaluate, fit
from offramp.engine.passes import Derived, Images, Logits, Plain
from offramp.engine.resolve import Node, Setting, resolve
from offramp.engine.settings import applied
from offramp.engine.trainee import Trainee, enroll, trained_state
from offramp.engine.values import Frozen
from offramp.engine.weights import Weights
from offramp.errors import OfframpError
from offramp.nets import ExitNetwork
from offramp.nets.clock import Clock
from offramp.parts import Part
from offramp.recipe import Recipe, best_epoch, finished
from offramp.strategies import STRATEGIES
from offramp.study.events import Epoch, Failed, Finished
from offramp.study.plan import data_identity
from support import CPU, NUMERICS, network, run_all, tiny_data, tiny_plan, tiny_study

USUAL = Recipe(epochs=2, batch_size=16, learning_rate=0.01)


def program_nodes(strategy: str, recipe: Recipe = USUAL, **options: Any) -> tuple[Node, ...]:
    setting = Setting(data_identity(tiny_data()), recipe, NUMERICS, seed=42)
    return resolve(STRATEGIES[strategy](4, **options), network("digits-cnn"), setting).nodes


def begin(
    node: Node, data: Data | None = None, made: Mapping[str, Mapping[str, Tensor]] | None = None
) -> tuple[Trainee, Plain, Images]:
    images = Images(data or tiny_data(), CPU)
    weights = Weights(network("digits-cnn"), node.seed, (made or {}).__getitem__, CPU)
    trainee = enroll(node, weights.network(node.start), NUMERICS.fused_optimizer)
    return trainee, Plain(images, [node], weights, 64), images


def train(
    node: Node, data: Data | None = None
) -> tuple[Trainee, list[EpochReport | Diverged], dict[str, Tensor]]:
    """A whole phase; the trainee, its reports, and the weights it hands on (none if it diverged)."""
    with applied(NUMERICS):
        trainee, passes, images = begin(node, data)
        size = node.recipe.batch_size
        reports = [report for epoch in fit([trainee], passes, images, size) for report in epoch]
        bad = any(isinstance(r, Diverged) for r in reports)
        return trainee, reports, {} if bad else conclude(trainee, passes, images, size)


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def split_data(train_images: int, validation_images: int = 20, classes: int = 3) -> Data:
    generator = torch.Generator().manual_seed(5)

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % classes
        noise = torch.randint(0, 120, (count, 1, 8, 8), generator=generator)
        return (noise + 40 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels

    rest = split(validation_images)
    return from_dataset(split(train_images), rest, rest, rest)


# The whole of it


@pytest.mark.parametrize("strategy", ["joint", "baseline"])
def test_training_is_the_loop_that_anyone_would_write(strategy: str) -> None:
    """Written out in plain PyTorch; the same bits. (Where nothing is frozen, nothing is padded.)"""
    data = tiny_data()
    weights = [0.3, 0.3 + 0.7 / 3, 0.3 + 1.4 / 3, 1.0] if strategy == "joint" else [0.0, 0.0, 0.0, 1.0]
    net = network("digits-cnn").redrawn(42).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9, fused=True)
    images = Images(data, CPU)
    with applied(NUMERICS):
        for epoch in range(2):
            rows = order(42, epoch, len(data.train))
            for step, batch in enumerate((rows[:16], rows[16:])):
                net.clock.tick(42, epoch, step)
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
    _, _, found = train(node)
    expected = {n: t for part in node.trained for n, t in net.state(part).items()}
    assert equal(found, expected)


# What is read


class Watch:
    """A pass that writes down what it is asked for, and of which logits a loss is made."""

    def __init__(self, inner: Plain | Derived) -> None:
        self._inner = inner
        self.asked: list[tuple[str, list[int]]] = []

    def read(self, split: str, rows: Tensor) -> Any:
        self.asked.append((split, rows.tolist()))
        return self._inner.read(split, rows)

    def logits(self, node: Node, net: ExitNetwork, read: Any) -> tuple[Logits, Logits]:
        return self._inner.logits(node, net, read)


def rows_by_pass(asked: Sequence[tuple[str, list[int]]]) -> Iterator[tuple[str, list[int]]]:
    """Rows of neighboring batches of one split, joined."""
    split, rows = asked[0][0], list[int]()
    for name, more in asked:
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
        for _ in fit([trainee], watch, images, 16):
            pass
    train, validation = images.count("train"), images.count("validation")
    found = list(rows_by_pass(watch.asked))
    assert [split for split, _ in found] == ["train", "validation"] * 2
    for epoch, ((_, shuffled), (_, straight)) in enumerate(zip(found[::2], found[1::2], strict=True)):
        assert shuffled == order(42, epoch, train).tolist() != sorted(shuffled)
        assert straight == list(range(validation))
    assert found[0] != found[2]


class Recorded(Images):
    """Images that write down which splits are read."""

    def __init__(self, data: Data) -> None:
        super().__init__(data, CPU)
        self.splits: set[str] = set()

    def labels(self, split: str, rows: Tensor) -> Tensor:
        self.splits.add(split)
        return super().labels(split, rows)

    def read(self, split: str, rows: Tensor) -> Tensor:
        self.splits.add(split)
        return super().read(split, rows)


@pytest.mark.parametrize("kind", [Plain, Derived])
def test_training_reads_neither_calibration_nor_test(kind: type[Plain] | type[Derived]) -> None:
    (node,) = program_nodes("joint", replace(USUAL, patience=1))
    images = Recorded(tiny_data())
    with applied(NUMERICS):
        weights = Weights(network("digits-cnn"), 42, {}.__getitem__, CPU)
        trainee = enroll(node, weights.network(node.start), True)
        more: tuple[Any, ...] = (None,) if kind is Derived else ()
        passes = kind(images, [node], weights, 64, *more)
        for _ in fit([trainee], passes, images, 16):
            pass
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
                names = {name.rpartition(".")[0] for name in net.state(part)}
                early = kind == "head" and k < net.exits
                for name in names:
                    if early:
                        inner = name.removeprefix(f"exits.{net.places[k - 1]}.")
                        module = net.heads[k - 1].get_submodule(inner)
                    else:
                        module = net.trunks[0].module.get_submodule(name)
                    if module.training != (part in node.trained):
                        wrong.append(f"{node.name}: {name}")
        return right(trainee, *rest)

    monkeypatch.setattr(offramp.engine.fit, "step", watched)
    made: dict[str, dict[str, Tensor]] = {}
    for strategy in ("branch-wise", "distillation", "joint-two-stage"):
        with applied(NUMERICS):
            for node in program_nodes(strategy):
                trainee, passes, images = begin(node, made=made)
                for _ in fit([trainee], passes, images, 16):
                    assert not any(m.training for m in trainee.net.modules() if not list(m.children()))
                made[node.key] = conclude(trainee, passes, images, 16)
    assert not wrong


@pytest.mark.parametrize("students", ["heads", "independent", "shared"])
@pytest.mark.parametrize("kind", [Plain, Derived])
def test_a_teacher_is_frozen_in_eval_mode_and_apart(
    students: str, kind: type[Plain] | type[Derived], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *rest = program_nodes("distillation", students=students)
    _, _, taught = train(first)
    made = {first.key: taught}
    teachers: list[ExitNetwork] = []
    right = Weights.frozen

    def watched(self: Weights, values: Any) -> list[tuple[ExitNetwork, list[Frozen]]]:
        found = right(self, values)
        teachers.extend(n for n, held in found if any(v.point.kind == "logits" for v in held))
        return found

    monkeypatch.setattr(Weights, "frozen", watched)
    with applied(NUMERICS):
        weights = Weights(network("digits-cnn"), 42, made.__getitem__, CPU)
        node = rest[0]
        net = weights.network(node.start)
        trainee = enroll(node, net, True)
        images = Images(tiny_data(), CPU)
        more: tuple[Any, ...] = (None,) if kind is Derived else ()
        passes = kind(images, [node], weights, 64, *more)
        (teacher,) = teachers
        before = {n: t.clone() for n, t in teacher.state_dict().items()}
        for _ in fit([trainee], passes, images, 16):
            assert not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    assert equal(before, teacher.state_dict())
    mine = {t.untyped_storage().data_ptr() for t in net.state_dict().values()}
    theirs = {t.untyped_storage().data_ptr() for t in teacher.state_dict().values()}
    assert not mine & theirs


def test_logits_of_a_teacher_do_not_change_from_epoch_to_epoch() -> None:
    """VGG's and our heads' dropout is off in a teacher: one image, one target."""
    first, node, *_ = program_nodes("distillation")
    _, _, taught = train(first)
    with applied(NUMERICS):
        trainee, passes, _ = begin(node, made={first.key: taught})
        rows = torch.arange(20)
        targets = []
        for epoch in range(2):
            trainee.net.clock.tick(42, epoch, 0)
            targets.append(passes.logits(node, trainee.net, passes.read("train", rows))[1][4])
    assert torch.equal(*targets)


# Small and odd numbers of samples


@pytest.mark.parametrize("mode", ["plain", "derived"])
@pytest.mark.parametrize("images", [17, 33, 5, 2])
def test_few_samples_and_a_last_batch_of_one_train(images: int, mode: str, tmp_path: Path) -> None:
    study = tiny_study(["joint", "two-stage", "distillation"], execution={"mode": mode})
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
    with pytest.raises(OfframpError, match=r"set recipe\.batch_size to 2 or more"):
        run_all(tiny_plan(study), tmp_path)


def test_one_validation_image_is_enough() -> None:
    (node,) = program_nodes("joint")
    _, reports, _ = train(node, split_data(20, validation_images=17))  # batches of 16 and 1
    assert all(isinstance(r, EpochReport) for r in reports)


# Stopping and selection

WILD = Recipe(epochs=12, batch_size=16, learning_rate=0.3, patience=2)


def test_a_phase_stops_when_its_patience_ends() -> None:
    (node,) = program_nodes("baseline", WILD)
    trainee, reports, _ = train(node)
    losses = trainee.validation_losses
    assert len(reports) == len(losses) == trainee.epoch < WILD.epochs, "nothing stopped early"
    assert finished(losses, WILD) and not finished(losses[:-1], WILD)
    assert trainee.best_epoch == best_epoch(losses) + 1 == len(losses) - 2
    assert [r.validation_loss for r in reports if isinstance(r, EpochReport)] == losses


def test_the_weights_handed_on_are_those_of_the_best_epoch() -> None:
    """They equal those of a run that ends there, which has seen the same batches."""
    (node,) = program_nodes("baseline", WILD)
    trainee, _, chosen = train(node)
    assert trainee.best_epoch < trainee.epoch and trainee.selected_epoch == trainee.best_epoch
    (short,) = program_nodes("baseline", replace(WILD, epochs=trainee.best_epoch, patience=None))
    _, _, expected = train(short)
    assert equal(chosen, expected)
    assert equal(trained_state(trainee), chosen), "the network must hold what was handed on"


def test_the_last_weights_are_handed_on_where_the_recipe_says_so() -> None:
    (node,) = program_nodes("baseline", replace(WILD, select="last"))
    trainee, _, chosen = train(node)
    assert trainee.best_epoch < trainee.epoch == trainee.selected_epoch
    (short,) = program_nodes("baseline", replace(WILD, epochs=trainee.epoch, patience=None))
    _, _, expected = train(short)
    assert equal(chosen, expected)
    assert equal(trained_state(trainee), chosen), "the network must hold what was handed on"
    (best,) = program_nodes("baseline", WILD)
    assert not equal(chosen, train(best)[2])


def test_train_is_checked_in_eval_mode_at_the_best_and_the_last_epoch() -> None:
    (node,) = program_nodes("baseline", WILD)
    trainee, _, _ = train(node)
    found = {r.epoch for r in trainee.rows if r.split == "train-eval"}
    assert found == {trainee.best_epoch, trainee.epoch}


def test_the_monitor_is_the_phases_own_loss() -> None:
    """Of distillation it is the distillation loss, not the cross-entropy."""
    first, node, *_ = program_nodes("distillation")
    made = {first.key: train(first)[2]}
    with applied(NUMERICS):
        trainee, passes, images = begin(node, made=made)
        for _ in fit([trainee], passes, images, 16):
            pass
    place = trainee.net.places[0]
    entropies = [
        r.value
        for r in trainee.rows
        if (r.split, r.exit, r.metric) == ("validation", place, "cross_entropy")
    ]
    assert len(entropies) == len(trainee.validation_losses) == 2
    assert all(
        abs(loss - entropy) > 1e-3
        for loss, entropy in zip(trainee.validation_losses, entropies, strict=True)
    )


# Noise


def test_every_step_of_every_epoch_draws_masks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """By (seed, epoch, step), all of them; and nothing is drawn in a check."""
    (node,) = program_nodes("joint")
    drawn: list[tuple[int, int, int] | None] = []
    right = Clock.reseed

    def watched(self: Clock, name: str) -> None:
        drawn.append(self._now)
        right(self, name)

    monkeypatch.setattr(Clock, "reseed", watched)
    train(node)
    # Three heads with dropout, two steps, two epochs.
    assert drawn == [(42, epoch, step) for epoch in (0, 1) for step in (0, 1) for _ in range(3)]


def test_a_seed_decides_everything_and_nothing_else_does() -> None:
    (node,) = program_nodes("joint")
    setting = Setting(data_identity(tiny_data()), USUAL, NUMERICS, seed=43)
    (other,) = resolve(STRATEGIES["joint"](4), network("digits-cnn"), setting).nodes
    torch.manual_seed(1)
    first = train(node)[2]
    torch.manual_seed(2)
    assert equal(first, train(node)[2])
    assert not equal(first, train(other)[2])


# Learning rates


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_every_step_uses_the_schedules_rate(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(USUAL, epochs=4, schedule=schedule, warmup_epochs=1.0)  # type: ignore[arg-type]
    (node,) = program_nodes("baseline", recipe)
    right = offramp.engine.fit.step
    used: list[float] = []

    def watched(trainee: Trainee, *rest: Any) -> Tensor:
        loss = right(trainee, *rest)
        used.extend(group["lr"] for group in trainee.optimizer.param_groups)
        return loss

    monkeypatch.setattr(offramp.engine.fit, "step", watched)
    train(node)
    steps = -(-len(tiny_data().train) // 16)
    expected = [recipe.rate(epoch + n / steps) for epoch in range(4) for n in range(steps)]
    assert used == pytest.approx(expected) and len(set(used)) > 1


# Losses that are not finite


def test_a_diverged_phase_says_where() -> None:
    recipe = replace(USUAL, epochs=5, learning_rate=1e25)
    (node,) = program_nodes("baseline", recipe)
    trainee, reports, _ = train(node)
    (report,) = [r for r in reports if isinstance(r, Diverged)]
    assert report is reports[-1] and report.key == node.key
    assert (report.phase, report.epoch, report.rate) == ("backbone", len(reports), 1e25)
    assert 1 <= report.step <= 2 and trainee.epoch == report.epoch - 1
    words = str(report)
    for word in ("'backbone'", f"epoch {report.epoch}", f"step {report.step}", "1e+25", "lower"):
        assert word in words


def test_the_step_is_the_first_bad_one(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(USUAL, schedule="cosine")
    (node,) = program_nodes("baseline", recipe)
    right = offramp.engine.fit.step
    count = 0

    def spoilt(trainee: Trainee, *rest: Any) -> Tensor:
        nonlocal count
        count += 1
        loss = right(trainee, *rest)
        return torch.full_like(loss, torch.inf if count == 3 else torch.nan) if count >= 3 else loss

    monkeypatch.setattr(offramp.engine.fit, "step", spoilt)
    _, reports, _ = train(node)
    steps = -(-len(tiny_data().train) // 16)
    assert steps == 2
    assert reports[-1] == Diverged(node.key, "backbone", 2, 1, recipe.rate(1.0))


def test_weights_that_the_last_step_spoilt_are_noticed_in_the_check(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All losses of the epoch were finite; the step that broke the weights is the last one."""
    (node,) = program_nodes("baseline")
    right = offramp.engine.fit.step
    count = 0

    def spoilt(trainee: Trainee, *rest: Any) -> Tensor:
        nonlocal count
        count += 1
        loss = right(trainee, *rest)
        if count == 4:
            with torch.no_grad():
                trainee.net.parameters_of(Part("head", 4))[0].fill_(torch.nan)
        return loss

    monkeypatch.setattr(offramp.engine.fit, "step", spoilt)
    trainee, reports, _ = train(node)
    assert reports[-1] == Diverged(node.key, "backbone", 2, 2, USUAL.learning_rate)
    assert trainee.epoch == 1 and len(trainee.validation_losses) == 1


def test_others_go_on_and_what_was_finished_stays(tmp_path: Path) -> None:
    wild = {"name": "two-stage", "as": "wild", "phases": {"exit 2": {"learning_rate": 1e25}}}
    plan = tiny_plan(tiny_study([wild, "two-stage", "joint"], recipe={"epochs": 3}))
    store, events = run_all(plan, tmp_path)
    (failed,) = [e for e in events if isinstance(e, Failed)]
    assert "phase 'exit 2'" in failed.reason and "1e+25" in failed.reason
    assert plan.nodes[failed.key].name == "exit 2"
    assert not store.has_node(failed.key)
    kept = {e.key for e in events if isinstance(e, Finished)}
    assert kept == set(plan.nodes) - {failed.key}
    assert [store.has_trial(t.id) for t in plan.trials] == [False, True, True]
    # The good heads were trained beside the bad one, in one pass; none of it reached them.
    alone = tiny_plan(tiny_study(["two-stage"], recipe={"epochs": 3}))
    apart, _ = run_all(alone, tmp_path / "alone")
    for key in alone.nodes:
        assert equal(store.node_weights(key), apart.node_weights(key))


def test_phases_that_need_a_failed_one_are_not_tried(tmp_path: Path) -> None:
    plan = tiny_plan(tiny_study(["two-stage"], recipe={"learning_rate": 1e25}))
    _, events = run_all(plan, tmp_path)
    failed = [e for e in events if isinstance(e, Failed)]
    assert len(failed) == 4 and all("'backbone'" in e.reason for e in failed)
    assert {e.report.key for e in events if isinstance(e, Epoch)} <= {next(iter(plan.nodes))}


def test_training_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    threads, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    run_all(tiny_plan(tiny_study(["baseline"])), tmp_path)
    assert torch.equal(torch.rand(3), expected)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, exact)
