"""Heads and gates that train together, against the formulas of their source written out. K is 4."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fit_runs import begin, equal, interrupted_run, program_nodes, to_its_end
from one_step import K, every_weight
from syrupy.assertion import SnapshotAssertion
from torch import Tensor

from longer import long
from offramp.engine.losses import Gating, LossContext, gate_loss, gating, leaving, objective, statistics
from offramp.engine.settings import applied
from offramp.nets import ExitNetwork
from offramp.nets.network import STATISTICS, exit_macs, gated, inside
from offramp.parts import heads
from offramp.phase import CE, Gated, Gates, Phase, check, describe
from offramp.policy import learned as fitted
from offramp.policy import scoring
from offramp.policy.calibrate import calibrate
from offramp.policy.calibration import Target
from offramp.policy.candidates import Search
from offramp.store.store import Store
from offramp.strategies import STRATEGIES
from offramp.study import trained
from offramp.study.run.trials import load_network
from support import CPU, NUMERICS, network, run_all, tiny_plan, tiny_study
from wording import refusal

TERM = Gates((1, 2, 3, 4), cost=0.15)


def drawn(rows: int = 64) -> tuple[dict[int, Tensor], Tensor]:
    """Logits by exit, better with depth, and labels."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (rows,), generator=generator)
    noise = torch.randn(rows, K, 3, generator=generator)
    return {k: noise[:, k - 1] + k * F.one_hot(labels, 3) for k in range(1, K + 1)}, labels


def with_gates(net: ExitNetwork) -> ExitNetwork:
    """Its gates say something."""
    generator = torch.Generator().manual_seed(1)
    net = gated(net)
    with torch.no_grad():
        for head in inside(net).heads:
            assert head.gate is not None
            head.gate.weight.copy_(torch.randn(1, 4, generator=generator))
            head.gate.bias.copy_(torch.randn(1, generator=generator))
    return net


def test_what_gates_see_in_training_is_what_they_see_in_use() -> None:
    logits, _ = drawn()
    net = with_gates(network("digits-cnn"))
    assert STATISTICS == scoring.STATISTICS == statistics(logits[1]).shape[1]
    for k in range(1, K):
        np.testing.assert_allclose(
            statistics(logits[k]), scoring.statistics(logits[k].numpy()), atol=1e-6
        )
        used, _ = scoring.score("gate", logits[k].numpy(), gate=inside(net).gates[k - 1])
        answer = gating(net, logits).logits[k].detach()
        np.testing.assert_allclose(torch.sigmoid(answer), used, atol=1e-6)
    assert inside(net).gates[-1] is None and set(gating(net, logits).logits) == {1, 2, 3}


def test_a_network_s_answers_do_not_depend_on_its_gates() -> None:
    net = network("digits-cnn")
    images = torch.rand(3, 1, 8, 8)
    plain, twin = copy.deepcopy(net).eval(), with_gates(net).eval()
    assert all(map(torch.equal, plain(images), twin(images)))
    assert not any("gate" in name for name in net.state_dict())
    assert gated(twin) is twin
    assert inside(copy.deepcopy(twin)).gates == inside(twin).gates != inside(gated(net)).gates


def source_probabilities(gate_logits: Tensor) -> Tensor:
    """P of the source, image by image: what a gate says, at most what earlier ones left over."""
    rows = []
    for gates in torch.sigmoid(gate_logits).tolist():
        row = [max(0.0, min(g, 1 - sum(gates[:k]))) for k, g in enumerate(gates)]
        rows.append([*row, 1 - sum(row)])
    return torch.tensor(rows)


def test_images_count_where_they_leave_by_the_gates() -> None:
    gate_logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    shares = leaving([*gate_logits.unbind(1), None], torch.zeros(50))
    torch.testing.assert_close(shares, source_probabilities(gate_logits))
    torch.testing.assert_close(shares.sum(1), torch.ones(50))
    survivors = torch.cat([torch.ones(50, 1), (1 - torch.sigmoid(gate_logits)).cumprod(1)], 1)
    assert not torch.allclose(shares, survivors, atol=0.1)  # it is not who gets there


def source_gate_loss(gate_logits: Tensor, logits: Tensor, labels: Tensor, spent: Tensor) -> Tensor:
    """As the source trains gates: said [B, K - 1], logits [B, K, C]."""
    entropies = torch.stack([F.cross_entropy(z, labels, reduction="none") for z in logits.unbind(1)], 1)
    goal = F.one_hot((entropies + 0.15 * spent).argmin(1), K)[:, :-1].cumsum(1).float()
    ratio = (goal == 0).sum() / (goal == 1).sum()
    every = F.binary_cross_entropy_with_logits(gate_logits, goal, reduction="none")
    return (every * torch.where(goal == 1, ratio, 1.0)).mean()


def engine_loss(net: ExitNetwork, logits: dict[int, Tensor], labels: Tensor) -> Tensor:
    loss = (CE(1), CE(2), CE(3), TERM)
    return objective(loss, logits, {}, labels, LossContext(weights=Gated(), gating=gating(net, logits)))


def test_the_step_is_the_source_s() -> None:
    """Heads learn by P · CE and nothing of gates; gates by their targets and nothing of heads."""
    logits, labels = drawn()
    net = with_gates(network("digits-cnn")).requires_grad_(True)
    own = {k: z.clone().requires_grad_(True) for k, z in logits.items()}
    value = engine_loss(net, own, labels)
    value.backward()
    theirs = {k: z.clone().requires_grad_(True) for k, z in logits.items()}
    spent = torch.tensor([exit_macs(net, range(1, k + 1)) for k in range(1, K + 1)])
    numbers = [torch.tensor(g, requires_grad=True) for g in inside(net).gates[:-1] if g is not None]
    gate_logits = torch.stack(
        [statistics(theirs[k].detach()) @ numbers[k - 1][:4] + numbers[k - 1][4] for k in range(1, K)], 1
    )
    odds = source_probabilities(gate_logits.detach())
    entropies = [F.cross_entropy(theirs[k], labels, reduction="none") for k in range(1, K)]
    expected = sum((odds[:, k] * entropies[k]).mean() for k in range(K - 1))
    stacked = torch.stack([theirs[k].detach() for k in range(1, K + 1)], 1)
    expected = expected + source_gate_loss(gate_logits, stacked, labels, spent / spent[-1])
    expected.backward()
    torch.testing.assert_close(value, expected)
    for k in range(1, K):
        torch.testing.assert_close(own[k].grad, theirs[k].grad)
        gate, grad = inside(net).heads[k - 1].gate, numbers[k - 1].grad
        assert gate is not None and grad is not None and gate.weight.grad is not None
        torch.testing.assert_close(gate.weight.grad[0], grad[:4])
        torch.testing.assert_close(gate.bias.grad, grad[4:])
        assert gate.weight.grad.abs().max() > 1e-4
    assert own[K].grad is None  # the final exit learns nothing


def test_a_step_by_other_weights_is_another() -> None:
    logits, labels = drawn()
    net = with_gates(network("digits-cnn"))
    value = engine_loss(net, logits, labels)
    loss = (CE(1), CE(2), CE(3), TERM)
    others = objective(loss, logits, {}, labels, LossContext(gating=gating(net, logits)))
    assert abs(value - others) > 0.1


def test_a_batch_that_always_stays_or_always_leaves_has_a_loss() -> None:
    logits, labels = drawn()
    gate_logits = {k: torch.zeros(64) for k in range(1, K)}
    for cost in (1e9, -1e9):
        spent = {k: k / K for k in logits}
        loss = gate_loss((1, 2, 3, 4), cost, logits, labels, Gating(gate_logits, spent))
        torch.testing.assert_close(loss, torch.tensor(2.0).log())


def test_gates_that_were_trained_go_on_in_the_next_phase_and_before_it_say_nothing() -> None:
    nodes = program_nodes("gated")
    assert [node.phase.gated for node in nodes] == [False, False, True]
    trainee, _, _ = begin(nodes[-1])
    assert inside(trainee.net).gates == (*((0.0,) * 5,) * 3, None)
    taught = with_gates(network("digits-cnn"))
    trainee, _, _ = begin(nodes[-1], weights_of=dict.fromkeys(nodes[-1].needs, every_weight(taught)))
    assert inside(trainee.net).gates == inside(taught).gates


def test_a_checkpoint_within_brings_gates_and_their_moments_back(tmp_path: Path) -> None:
    node, store = program_nodes("gated")[-1], Store(tmp_path)
    with applied(NUMERICS):
        whole, rows = to_its_end(*begin(node))
        again, other_rows = interrupted_run(node, 1, store)
    tensors, _ = store.read_checkpoint(node.key) or ({}, {})
    assert any(n.startswith("optimizer/") and "gate.weight" in n for n in tensors)
    assert node.recipe.epochs > 1 and any(t.any() for n, t in whole.items() if ".gate." in n)
    assert equal(whole, again) and rows == other_rows


def test_programs_that_cannot_be(snapshot: SnapshotAssertion) -> None:
    assert refusal(Gates, (1,)) == snapshot
    for exits in ((2, 1), (1, 4)):
        phase = Phase("p", heads(1, 2), (CE(1), Gates(exits)))
        assert refusal(check, (phase,), 3) == snapshot
    assert describe((CE(1), TERM)) == "CE(1) + Gates(1,2,3,4, λ=0.15)"
    assert STRATEGIES["gated"](1) == STRATEGIES["baseline"](1)


@pytest.mark.parametrize("mode", ["plain", *long("derived")])
def test_a_trial_is_calibrated_by_its_own_gates(mode: str, tmp_path: Path) -> None:
    weights = {}
    for other in dict.fromkeys(("derived", mode)):
        plan = tiny_plan(tiny_study(("gated",), execution={"mode": other}))
        store, _ = run_all(plan, tmp_path / other)
        weights[other] = [store.node_weights(n.key) for n in plan.trials[0].resolved.nodes]
    for state, same in zip(weights["derived"], weights[mode], strict=True):
        assert equal(state, same)
    assert not any("gate" in name for name in weights[mode][1])
    assert sum("gate" in name for name in weights[mode][2]) == 6
    trial = trained.read(store, "gated")
    net = load_network(store, trial.id, CPU)
    assert trial.gates == inside(net).gates and any(trial.gates[0] or ())
    rows = (trial.validation, trial.calibration, trial.costs, Target("max-mean-macs", 1e12))
    search = trial.search(Search("gate"))
    assert calibrate(*rows, search).policy.gates == trial.gates
    assert trial.search(Search("margin")) == Search("margin")
    shares = fitted.shares(trial.costs)
    assert fitted.gates(trial.validation.logits, trial.validation.labels, shares) != trial.gates
