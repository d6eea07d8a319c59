"""Elastic weight consolidation against its formulas written out. K is 4."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fit_runs import USUAL, begin, equal, interrupted_run, resumed, to_its_end
from one_step import ALL, K, node_of
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

from offramp.engine.auxiliary import anchored
from offramp.engine.cost import live_macs
from offramp.engine.fit import fit
from offramp.engine.resolve import Node
from offramp.engine.settings import applied
from offramp.engine.trainee import Trainee, anchor, loss_of
from offramp.errors import OfframpError
from offramp.nets.network import inside
from offramp.phase import CE, EWC, Phase, check, describe
from offramp.store.store import Store
from offramp.strategies import STRATEGIES
from support import NUMERICS, network
from wording import refusal

IMAGES, WEIGHT = 7, 300.0
TERM = EWC((2, 4), WEIGHT, IMAGES)


def consolidated() -> Node:
    return node_of((Phase("held", ALL, (CE(1), TERM)),))


def begun(node: Node) -> tuple[Trainee, Any, Any]:
    trainee, passes, images = begin(node)
    anchor(trainee, passes, images)
    return trainee, passes, images


def named(trainee: Trainee) -> dict[str, nn.Parameter]:
    parts = (inside(trainee.net).state(part) for part in trainee.node.trained)
    return {n: t for state in parts for n, t in state.items() if isinstance(t, nn.Parameter)}


def slopes_by_hand(trainee: Trainee, images: Any, together: bool = False) -> dict[str, Tensor]:
    """The squared derivatives of Σ CE, image by image; the control squares those of their mean."""
    count = images.count("train")
    rows = torch.arange(IMAGES) * count // IMAGES
    slopes: dict[str, Tensor] = {}
    for few in rows.split(IMAGES if together else 1):
        trainee.net.zero_grad()
        logits = trainee.net(images.read("train", few))
        labels = images.labels("train", few)
        sum(F.cross_entropy(logits[k - 1], labels) for k in TERM.exits).backward()  # type: ignore[union-attr]
        for name, parameter in named(trainee).items():
            if parameter.grad is not None:
                slopes[name] = slopes.get(name, 0) + parameter.grad.square() * len(few) / IMAGES
    trainee.net.zero_grad()
    return slopes


def test_how_much_a_weight_matters_is_a_mean_of_squares_over_images() -> None:
    with applied(NUMERICS):
        trainee, _, images = begun(consolidated())
        trainee.net.eval()
        (anchor,) = trainee.anchors.values()
        expected, control = (slopes_by_hand(trainee, images, together) for together in (False, True))
    # The head of exit 1 is on no path of exits 2 and 4: nothing of theirs depends on it.
    assert {n for n, f in anchor.fisher.items() if f.any()} <= expected.keys() < anchor.fisher.keys()
    for name, value in expected.items():
        torch.testing.assert_close(anchor.fisher[name], value, rtol=1e-4, atol=1e-9)
    assert any(not torch.allclose(anchor.fisher[n], control[n], rtol=0.1) for n in expected)


def test_weights_that_no_image_weighs_are_refused() -> None:
    """Such as those of a loader that was read to its end: each mattered NaN, and so did the loss."""
    with pytest.raises(OfframpError, match="no image"):
        anchored((TERM,), {"weight": nn.Parameter(torch.ones(2))}, lambda _: iter(()))


def test_what_it_costs_to_move_them() -> None:
    with applied(NUMERICS):
        trainee, passes, images = begun(consolidated())
        rows = torch.arange(16)
        (pixels,) = images.reads("train", [rows])
        labels = images.labels("train", rows)

        def value() -> Tensor:
            mine, theirs = passes.answers(trainee.node, trainee.net, pixels)
            return loss_of(trainee, mine, theirs, labels, None) - F.cross_entropy(mine.logits[1], labels)

        assert value().item() == pytest.approx(0.0, abs=1e-6)  # nothing has moved
        (anchor,) = trainee.anchors.values()
        weights = named(trainee)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name in anchor.start:
                weights[name].add_(0.1 * torch.randn(weights[name].shape, generator=generator))
        moved = {name: (weights[name] - start).detach() for name, start in anchor.start.items()}
        expected = WEIGHT * sum(float((anchor.fisher[n] * d**2).sum()) for n, d in moved.items())
        assert value().item() == pytest.approx(expected, rel=1e-3) and expected > 1e-3
        trainee.net.zero_grad()
        value().backward()  # type: ignore[no-untyped-call]
        for name, difference in moved.items():
            slope = 2 * WEIGHT * anchor.fisher[name] * difference
            torch.testing.assert_close(weights[name].grad, slope, rtol=1e-3, atol=1e-4)


def test_what_matters_to_an_exit_moves_less() -> None:
    def moved(*terms: EWC) -> float:
        node = replace(node_of((Phase("next", ALL, (CE(1), *terms)),)), recipe=USUAL)
        with applied(NUMERICS):
            reference, _, _ = begun(node_of((Phase("next", ALL, (CE(1), EWC((4,)))),)))
            (anchor,) = reference.anchors.values()
            trainee, passes, images = begin(node)
            list(fit([trainee], passes, images, 16))
            now = named(trainee)
            drift = (anchor.fisher[n] * (now[n].detach() - s) ** 2 for n, s in anchor.start.items())
            return sum(float(each.sum()) for each in drift)

    assert 0 < moved(EWC((4,), 1e7)) < 0.85 * moved()


def test_a_checkpoint_holds_what_weights_began_at(tmp_path: Path) -> None:
    node = replace(consolidated(), recipe=replace(USUAL, epochs=3))
    store = Store(tmp_path)
    with applied(NUMERICS):
        whole, _ = to_its_end(*begin(node))
        assert equal(whole, interrupted_run(node, 1, store)[0])
        assert not equal(whole, interrupted_run(node, 1, store, "fisher/", 2.0)[0])  # the control
        again, _, _ = resumed(node, store)
    (anchor,) = again.anchors.values()
    for name, weight in named(again).items():  # sums go by how values lie
        assert anchor.start[name].stride() == anchor.fisher[name].stride() == weight.stride()


def test_programs_with_it() -> None:
    program = STRATEGIES["sequential"](K, against="ewc", keep=5.0)
    check(program, K)
    assert [describe(phase.loss) for phase in program] == [
        "CE(4)",
        "CE(1) + 5·EWC(4)",
        "CE(2) + 5·EWC(1,4)",
        "CE(3) + 5·EWC(1,2,4)",
    ]
    usual, other = (node_of((Phase("p", ALL, (CE(1), term)),)) for term in (TERM, EWC((2,), WEIGHT)))
    assert len({usual.key, other.key, node_of((Phase("p", ALL, (CE(1),)),)).key}) == 3


def test_programs_with_it_that_cannot_be(snapshot: SnapshotAssertion) -> None:
    descending, alone = ((Phase("p", ALL, loss),) for loss in ((CE(1), EWC((4, 2))), (EWC((2,)),)))
    assert [refusal(check, program, K) for program in (descending, alone)] == snapshot
    assert refusal(node_of, (Phase("p", ALL, (CE(1), TERM)),), 2) == snapshot
    node_of((Phase("p", ALL, (CE(1),)),), 2)


def test_it_is_counted() -> None:
    net, images = network("digits-cnn"), {"train": 50, "validation": 10}
    node = consolidated()
    bare = replace(node, phase=replace(node.phase, loss=tuple(CE(k) for k in node.exits)))
    more = live_macs(node, net, images, 2, 1) - live_macs(bare, net, images, 2, 1)
    assert more == 3 * IMAGES * live_macs(bare, net, {"train": 0, "validation": 1}, 1, 0)
