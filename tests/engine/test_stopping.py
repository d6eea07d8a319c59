"""When a phase stops, which weights it hands on, and what happens when its loss is not finite."""

import signal
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from fit_runs import USUAL, begin, equal, program_nodes, setting, train
from torch import Tensor

import offramp.engine.fit
from offramp.engine.fit import Diverged, EpochReport, fit
from offramp.engine.resolve import resolve
from offramp.engine.settings import applied
from offramp.engine.trainee import Trainee, pack, trained_state, unpack
from offramp.nets.clock import Clock
from offramp.nets.network import inside
from offramp.parts import Part
from offramp.recipe import Recipe, best_epoch, finished
from offramp.strategies import STRATEGIES
from offramp.study.run.events import Epoch, Failed, Finished
from support import NUMERICS, network, run_all, tiny_data, tiny_plan, tiny_study

# Stopping and selection

WILD = Recipe(epochs=12, batch_size=16, learning_rate=0.3, patience=2)


@cache
def trained_wild(**changes: Any) -> tuple[Trainee, list[EpochReport | Diverged], dict[str, Tensor]]:
    (node,) = program_nodes("baseline", replace(WILD, **changes))
    return train(node)


def test_a_phase_stops_when_its_patience_ends() -> None:
    trainee, reports, _ = trained_wild(select="auto")
    losses = trainee.validation_losses
    assert len(reports) == len(losses) == trainee.epoch < WILD.epochs, "nothing stopped early"
    assert finished(losses, WILD) and not finished(losses[:-1], WILD)
    assert trainee.best_epoch == best_epoch(losses) + 1 == len(losses) - 2
    assert [r.validation_loss for r in reports if isinstance(r, EpochReport)] == losses
    # Train is checked in eval mode at the best and the last epoch.
    epochs = {r.epoch for r in trainee.rows if r.split == "train-eval"}
    assert epochs == {trainee.best_epoch, trainee.epoch}


@pytest.mark.parametrize("select", ["auto", "last"])
def test_the_weights_handed_on_are_those_of_the_best_epoch_or_of_the_last(select: str) -> None:
    """They equal those of a run that ends there, which has seen the same batches."""
    trainee, _, chosen = trained_wild(select=select)
    assert trainee.best_epoch < trainee.epoch
    assert trainee.selected_epoch == (trainee.epoch if select == "last" else trainee.best_epoch)
    short = trained_wild(select=select, epochs=trainee.selected_epoch, patience=None)
    assert equal(chosen, short[2])
    assert equal(trained_state(trainee), chosen), "the network must hold what was handed on"
    other = trained_wild(select="last" if select == "auto" else "auto")
    assert not equal(chosen, other[2])


def test_the_monitor_is_the_phases_own_loss() -> None:
    """Of distillation it is the distillation loss, not the cross-entropy."""
    first, node, *_ = program_nodes("distillation")
    weights_of = {first.key: train(first)[2]}
    with applied(NUMERICS):
        trainee, passes, images = begin(node, weights_of=weights_of)
        list(fit([trainee], passes, images, 16))
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
    (other,) = resolve(STRATEGIES["joint"](4), network("digits-cnn"), setting(seed=43)).nodes
    torch.manual_seed(1)
    first = train(node)[2]
    torch.manual_seed(2)
    assert equal(first, train(node)[2])
    assert not equal(first, train(other)[2])


# Learning rates


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step", "triangular"])
def test_every_step_uses_the_schedules_rate(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warm = 0.0 if schedule == "triangular" else 1.0
    recipe = replace(USUAL, epochs=4, schedule=schedule, warmup_epochs=warm)  # type: ignore[arg-type]
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


def test_what_was_interrupted_as_it_diverged_diverges_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that comes while the epoch is closed counts right after, before anybody is told."""
    (node,) = program_nodes("baseline", replace(USUAL, epochs=5, learning_rate=1e25))
    right = offramp.engine.fit._close_epoch
    reports: list[Diverged] = []

    def disturbed(*args: Any) -> EpochReport | Diverged:
        report = right(*args)
        if isinstance(report, Diverged):
            reports.append(report)
            signal.raise_signal(signal.SIGINT)
        return report

    monkeypatch.setattr(offramp.engine.fit, "_close_epoch", disturbed)
    with applied(NUMERICS):
        trainee, passes, images = begin(node)
        with pytest.raises(KeyboardInterrupt):
            list(fit([trainee], passes, images, 16))
        monkeypatch.setattr(offramp.engine.fit, "_close_epoch", right)
        resumed, passes, images = begin(node)
        unpack(resumed, *pack(trainee))
        assert [*fit([resumed], passes, images, 16)] == [reports] and len(reports) == 1


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
                inside(trainee.net).parameters_of(Part("head", 4))[0].fill_(torch.nan)
        return loss

    monkeypatch.setattr(offramp.engine.fit, "step", spoilt)
    trainee, reports, _ = train(node)
    assert reports[-1] == Diverged(node.key, "backbone", 2, 2, USUAL.learning_rate)
    assert trainee.epoch == 1 and len(trainee.validation_losses) == 1


@pytest.mark.long
def test_others_go_on_and_what_was_finished_stays(tmp_path: Path) -> None:
    wild = {"name": "two-stage", "as": "wild", "phases": {"exit 2": {"learning_rate": 1e25}}}
    plan = tiny_plan(tiny_study([wild, "two-stage"], recipe={"epochs": 2}))
    store, events = run_all(plan, tmp_path)
    (failed,) = [e for e in events if isinstance(e, Failed)]
    assert "phase 'exit 2'" in failed.reason and "1e+25" in failed.reason
    assert plan.nodes[failed.key].name == "exit 2"
    assert not store.has_node(failed.key)
    finished = {e.key for e in events if isinstance(e, Finished)}
    assert finished == set(plan.nodes) - {failed.key}
    assert [store.has_trial(t.id) for t in plan.trials] == [False, True]
    # The good heads were trained beside the bad one, in one pass; none of it reached them.
    alone = tiny_plan(tiny_study(["two-stage"], recipe={"epochs": 2}))
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
