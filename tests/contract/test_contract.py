"""What every strategy owes on the smallest backbone, and phases of every kind on all others. New entries
of either registry are covered untouched."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from contract_runs import (
    HEADS_ONLY,
    LAST_ONLY,
    OWN_DATA,
    SMALLEST,
    UNTRACEABLE,
    VISION,
    TrialRecord,
    contract_plan,
    run_derived,
    run_plain,
    violations,
)

import offramp.engine.fit
import offramp.engine.values
from offramp.engine.trainee import Trainee
from offramp.nets.backbones import BACKBONES
from offramp.nets.network import inside
from offramp.parts import Part
from offramp.study.plan.plan import Plan
from support import backbones

KEEP_BASELINE = ("two-stage", "distillation", "survivors", "cascade", HEADS_ONLY, LAST_ONLY)
KEEP_JOINT = ("joint-branch", "joint-two-stage")


@dataclass(frozen=True)
class Runs:
    exits: int
    plan: Plan
    plain: dict[str, TrialRecord]
    derived: dict[str, TrialRecord]

    @property
    def both(self) -> tuple[dict[str, TrialRecord], dict[str, TrialRecord]]:
        return self.plain, self.derived


TRAINED = backbones(BACKBONES, more=("airbench", "resnet18"))
"""Those two take many seconds, for what the smaller networks and test_caches show."""


@pytest.fixture(scope="module", params=[*TRAINED, UNTRACEABLE, OWN_DATA, VISION])
def runs(request: pytest.FixtureRequest) -> Runs:
    """Strategies on one backbone, in both modes. On the smallest one every strategy trains all of its
    phases; elsewhere the plain runs train once what strategies share."""
    derived = contract_plan(request.param, "derived")
    alone = contract_plan(request.param, "plain") if request.param == SMALLEST else derived
    return Runs(derived.net.exits, derived, run_plain(alone), run_derived(derived))


def test_what_a_phase_trains_changes_and_nothing_else(runs: Runs) -> None:
    violating = [v for r in runs.plain.values() for phase in r.phases for v in violations(phase)]
    assert not violating


@pytest.mark.journey
def test_plain_and_derived_give_the_same_bits(runs: Runs) -> None:
    assert not differences(runs.plain, runs.derived)


def test_the_final_exit_stays_as_the_first_phase_left_it(runs: Runs) -> None:
    for records in runs.both:
        for parent, children in (("baseline", KEEP_BASELINE), ("joint", KEEP_JOINT)):
            for child in records.keys() & children:
                assert records[child].final[runs.exits] == records[parent].final[runs.exits], child
                assert np.array_equal(records[child].logits[:, -1], records[parent].logits[:, -1]), child


def test_strategies_that_train_the_final_exit_end_elsewhere(runs: Runs) -> None:
    """Else the equalities above would say nothing."""
    names = {"baseline", "joint", "branch-wise", "pretrained-branch"} & runs.plain.keys()
    finals = [runs.plain[name].final[runs.exits] for name in names]
    assert len(finals) >= 3
    assert all(a != b for i, a in enumerate(finals) for b in finals[:i])


def test_a_finished_network_is_what_its_phases_left(runs: Runs) -> None:
    for records in runs.both:
        for name, record in records.items():
            for exit, left in record.left.items():
                assert left and left.items() <= record.final[exit].items(), (name, exit)


def test_a_trial_has_the_exits_that_were_trained_and_finite_logits(runs: Runs) -> None:
    for records in runs.both:
        for trial in runs.plan.trials:
            record = records[trial.label]
            trained = {p.index for n in trial.resolved.nodes for p in n.trained if p.kind == "head"}
            assert list(record.final) == sorted(trained), trial.label
            assert record.logits.shape == (len(runs.plan.data.test), len(trained), 3)
            assert np.isfinite(record.logits).all()


# That the checks above find what they look for: on one backbone, with the engine broken on purpose.


def differences(some: dict[str, TrialRecord], others: dict[str, TrialRecord]) -> list[str]:
    """Strategies and phases whose weights or logits are not the same bits."""
    names = []
    for name, record in some.items():
        pairs = zip(record.weights, others[name].weights, strict=True)
        names += [f"{name}, phase {i}" for i, (a, b) in enumerate(pairs) if a != b]
        if not np.array_equal(record.logits, others[name].logits):
            names.append(f"{name}, logits")
    return names


def faults(strategy: str) -> list[str]:
    (record, *_) = run_plain(contract_plan("digits-cnn", "plain", (strategy,))).values()
    return [v for phase in record.phases for v in violations(phase)]


def test_a_frozen_batchnorm_that_runs_on_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_of_it(trainee: Trainee, mode: bool) -> None:
        trainee.net.train(mode)

    assert not faults("two-stage")
    monkeypatch.setattr(offramp.engine.fit, "train_mode", all_of_it)
    assert any(
        "does not train blocks.0.norm.running_mean, but moved it" in f for f in faults("two-stage")
    )


def test_a_frozen_weight_that_moves_by_its_last_bit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = offramp.engine.fit.step

    def nudged(trainee: Trainee, *rest: Any) -> torch.Tensor:
        for parameter in trainee.net.parameters():
            if not parameter.requires_grad:
                some = parameter.detach()[0]
                some.copy_(torch.nextafter(some, torch.full_like(some, torch.inf)))
        return right(trainee, *rest)

    monkeypatch.setattr(offramp.engine.fit, "step", nudged)
    assert any("does not train blocks.0.conv.weight, but moved it" in f for f in faults("two-stage"))


def test_a_part_that_does_not_train_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = offramp.engine.fit.step

    def without_heads(trainee: Trainee, *rest: Any) -> torch.Tensor:
        for parameter in inside(trainee.net).parameters_of(Part("head", 1)):
            parameter.requires_grad_(False)
        return right(trainee, *rest)

    monkeypatch.setattr(offramp.engine.fit, "step", without_heads)
    assert any("trains head 1, but not" in fault for fault in faults("joint"))
