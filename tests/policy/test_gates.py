"""Gates that calibration learns, against the formulas of their source written out."""

import json
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from offramp.policy import learned as fitted
from offramp.policy import quality, scoring
from offramp.policy.calibrate import calibrate
from offramp.policy.calibration import Calibration, Target
from offramp.policy.candidates import Search, SplitLogits, candidates
from offramp.policy.costs import Costs
from offramp.policy.policy import Policy, parse, to_json
from refusal import refuses
from simulated import COSTS, FOUR, simulated

ROWS = simulated(1500, 1)
SHARES = fitted.shares(COSTS)
LEARNED = fitted.gates(ROWS.logits, ROWS.labels, SHARES)
LESS = Costs((10,) * 3, (1,) * 3, (0,) * 3, FOUR[:3])  # of three exits, quicker to search
FEW = simulated(300, 1, exits=3)


def test_costs_are_shares_of_all_that_is_run() -> None:
    assert list(SHARES) == pytest.approx([11 / 44, 22 / 44, 33 / 44, 1])


def test_the_best_exit_is_that_of_least_entropy_and_cost() -> None:
    exits = fitted.best_exits(ROWS.logits, ROWS.labels, SHARES, cost=0.5)
    for row, label, best in zip(ROWS.logits[:200], ROWS.labels, exits, strict=False):
        total = [
            math.log(sum(math.exp(float(z)) for z in exit)) - float(exit[label]) + 0.5 * share
            for exit, share in zip(row, SHARES, strict=True)
        ]
        assert best == total.index(min(total))
    assert set(exits) == {0, 1, 2, 3}


def source_loss(learned: torch.Tensor, cost: float = fitted.COST) -> torch.Tensor:
    """The gates' loss as the source has it, in torch: binary cross-entropies to the cumulative one-hot
    of the best exit, ones counting zeros / ones times; and the decay of weights. learned: [K - 1, 5]."""
    logits, labels = torch.from_numpy(ROWS.logits).double(), torch.from_numpy(ROWS.labels)
    entropies = torch.stack([F.cross_entropy(z, labels, reduction="none") for z in logits.unbind(1)], 1)
    best = (entropies + cost * torch.tensor(SHARES)).argmin(1)
    goal = F.one_hot(best, 4)[:, :-1].cumsum(1).double()
    scores = []
    for k in range(3):
        odds = logits[:, k].softmax(1)
        squared = odds**2 / (odds**2).sum(1, keepdim=True)
        top = odds.topk(2).values
        flat = [1 - torch.special.entr(p).sum(1) / math.log(10) for p in (odds, squared)]
        seen = torch.stack([top[:, 0], flat[0], top[:, 0] - top[:, 1], flat[1], torch.ones(len(top))], 1)
        scores.append(seen @ learned[k])
    weight = torch.where(goal > 0, (goal == 0).sum() / goal.sum(), 1.0)
    every = F.binary_cross_entropy_with_logits(torch.stack(scores, 1), goal, weight, reduction="none")
    return every.mean(0).sum() + fitted.DECAY / 2 * (learned**2).sum()


def test_what_is_learned_is_the_least_of_the_source_s_loss() -> None:
    learned = torch.tensor(LEARNED[:-1], dtype=torch.float64, requires_grad=True)
    source_loss(learned).backward()
    assert learned.grad is not None and learned.grad.abs().max() < 1e-5
    other = torch.tensor(LEARNED[:-1], dtype=torch.float64, requires_grad=True)
    source_loss(other, cost=2 * fitted.COST).backward()  # it is of this cost, and of no other
    assert other.grad is not None and other.grad.abs().max() > 1e-3


def test_a_dearer_network_is_left_earlier() -> None:
    def at_half(cost: float) -> float:
        learned = fitted.gates(ROWS.logits, ROWS.labels, SHARES, cost)
        return float(scoring.leaves("gate", ROWS.logits, (0.5,) * 3 + (None,), None, learned).mean())

    assert at_half(0.0) > at_half(0.5) > at_half(5.0)


def test_a_gate_tells_better_than_chance_where_it_should_be_left() -> None:
    other = simulated(1500, 2)
    goal = fitted.best_exits(other.logits, other.labels, SHARES)[:, None] <= np.arange(3)
    scores = scoring.scores("gate", other.logits, None, LEARNED)
    areas = [quality.auroc(scores[:, k], goal[:, k]) for k in range(3)]
    assert min(f or 0.0 for f in areas) > 0.6, areas
    chance = [quality.auroc(scores[:, k], np.roll(goal[:, k], 1)) for k in range(3)]
    assert max(f or 1.0 for f in chance) < 0.55


def test_splits_that_teach_nothing() -> None:
    broken = np.full((3, 2, 2), np.nan)
    assert fitted.gates(broken, np.zeros(3, int), (0.5, 1.0)) == ((0.0,) * 5, None)
    assert fitted.gates(ROWS.logits[:, :1], ROWS.labels, (1.0,)) == (None,)
    alike = fitted.gates(ROWS.logits, ROWS.labels, SHARES, cost=1e9)  # all leave at once
    assert (scoring.scores("gate", ROWS.logits, None, alike)[:, :3] > 0.5).all()


@pytest.mark.usefixtures("narrow")
def test_policies_are_left_by_gates_of_validation_and_certified_on_calibration() -> None:
    rows, calibration = simulated(800, 1, exits=3), simulated(2000, 3, exits=3)
    outcome = calibrate(rows, calibration, LESS, Target("risk", 0.05, 0.95), Search("gate"))
    policy = outcome.policy
    assert policy.gates == fitted.gates(rows.logits, rows.labels, fitted.shares(LESS))
    assert policy.gates != fitted.gates(calibration.logits, calibration.labels, fitted.shares(LESS))
    assert outcome.chosen > 0
    fresh = simulated(20_000, 4, exits=3)
    place = policy.leaves(fresh.logits)
    right = scoring.answers(fresh.logits) == fresh.labels[:, None]
    harm = right[:, -1] & ~right[np.arange(len(place)), place]
    assert 0 < harm.mean() <= 0.05 and outcome.bound is not None and outcome.bound <= 0.05


@pytest.mark.usefixtures("narrow")
def test_gates_that_a_network_learned_are_taken_as_they_are() -> None:
    own = ((1.0, 2.0, 3.0, 4.0, -5.0),) * 2 + (None,)
    assert {p.gates for p in candidates(FEW, LESS, Search("gate", gates=own), "wrong")} == {own}


@pytest.mark.usefixtures("narrow")
def test_calibration_images_teach_nothing() -> None:
    target = Target("max-accuracy-loss", 0.05)
    of = [calibrate(FEW, simulated(900, s, exits=3), LESS, target, Search("gate")) for s in (5, 6)]
    assert of[0].candidates == of[1].candidates and of[0].measures != of[1].measures


@pytest.mark.usefixtures("narrow")
def test_without_labels_the_full_network_s_answers_stand_for_them() -> None:
    shuffled = SplitLogits(FEW.logits, np.roll(FEW.labels, 1))
    policies = candidates(FEW, LESS, Search("gate"), "disagreement")
    assert policies == candidates(shuffled, LESS, Search("gate"), "disagreement")
    final = scoring.answers(FEW.logits[:, -1])
    assert {p.gates for p in policies} == {fitted.gates(FEW.logits, final, fitted.shares(LESS))}
    assert {p.gates for p in policies} != {fitted.gates(FEW.logits, FEW.labels, fitted.shares(LESS))}


def test_a_policy_file_keeps_gates_to_the_bit() -> None:
    gates = ((1 / 3, -1.0, 0.1, 2.0, -7.0),) * 3 + (None,)
    origin = Calibration("t", "ab" * 32, 10)
    policy = Policy("gate", FOUR, (0.5, None, 0.25, None), None, origin, gates=gates)
    assert parse(to_json(policy)) == policy
    rows = json.loads(to_json(policy))["exits"]
    assert tuple(rows[0]["gate"]) == gates[0] and rows[3]["gate"] is None


@pytest.mark.parametrize(
    ("score", "gates", "message"),
    [
        ("gate", None, "exit 1 has"),
        ("gate", (*LEARNED[:2], None, None), "exit 3 has"),
        ("gate", LEARNED[1:], "gates, got 3"),
        ("gate", ((1.0, 2.0), *LEARNED[1:]), "gate of exit 1 .* 5 finite"),
        ("gate", ((math.inf,) * 5, *LEARNED[1:]), "gate of exit 1 .* 5 finite"),
        ("margin", LEARNED, "not with margin"),
    ],
)
def test_gates_that_do_not_fit_are_refused(
    score: str, gates: fitted.GateNumbers | None, message: str
) -> None:
    refuses(message, Policy, score, FOUR, (0.5, None, 0.25, None), gates=gates)
