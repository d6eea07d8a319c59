import numpy as np
import pytest
from scipy.special import softmax
from syrupy.assertion import SnapshotAssertion

from offramp.errors import OfframpError
from offramp.policy import candidates as module
from offramp.policy import scoring
from offramp.policy.candidates import (
    COLDEST,
    WARMEST,
    Search,
    SplitLogits,
    candidates,
    loss_of,
    temperatures,
    where_left,
)
from offramp.policy.costs import Costs
from simulated import COSTS, FOUR, SEARCHES, simulated
from wording import refusal

VALIDATION = simulated(1000, 1)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_candidates_go_from_dear_to_cheap(search: Search) -> None:
    policies = candidates(VALIDATION, COSTS, search, "harm")
    spent = [np.array(p.macs(COSTS))[p.leaves(VALIDATION.logits)].mean() for p in policies]
    assert spent == sorted(spent, reverse=True) and spent[0] == COSTS.full > spent[1]
    assert policies[0].active == (3,) and len(set(policies)) == len(policies)


def test_the_order_is_that_of_cost_not_of_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """And exit 1, whose head is so dear that exits 2 and 3 cost less and lose less, is left out."""
    heavy = Costs((10, 10, 10, 10), (25, 1, 1, 1), (0, 0, 0, 0), FOUR)
    policies = candidates(VALIDATION, heavy, Search("fixed"), "harm")
    assert [p.active for p in policies] == [(3,), (2,), (1,)]
    monkeypatch.setattr(module, "SURELY", 1e9)
    policies = candidates(VALIDATION, heavy, Search("fixed"), "harm")
    assert [p.active for p in policies] == [(3,), (0,), (2,), (1,)]


def test_a_temperature_that_was_put_in_is_found() -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(20_000, 2, 5)) * 2
    labels = np.array([draw.choice(5, p=p) for p in softmax(logits[:, 0], axis=1)])
    logits[:, 1] = logits[:, 0] * 3
    fitted = temperatures(SplitLogits(logits.astype(np.float32), labels))
    assert fitted == pytest.approx((1, 3), rel=0.05)


def test_odd_splits_have_a_temperature() -> None:
    logits, labels = np.array([[[9.0, 0.0]], [[0.0, 9.0]]]), np.array([0, 1])
    assert temperatures(SplitLogits(logits, labels))[0] == pytest.approx(COLDEST, rel=0.2)
    assert temperatures(SplitLogits(logits, 1 - labels))[0] == pytest.approx(WARMEST, rel=0.2)
    assert temperatures(SplitLogits(np.full((3, 2, 2), np.nan), np.zeros(3, int))) == (1.0, 1.0)


def test_losses_by_hand() -> None:
    answers, labels = np.array([[0, 1], [1, 1], [1, 0], [2, 0]]), np.array([1, 1, 1, 1])
    assert loss_of("wrong", answers, labels).tolist() == [[1, 0], [0, 0], [0, 1], [1, 1]]
    assert loss_of("harm", answers, labels).tolist() == [[1, 0], [0, 0], [0, 0], [0, 0]]
    assert loss_of("disagreement", answers, labels).tolist() == [[1, 0], [0, 0], [1, 0], [1, 0]]
    assert where_left(loss_of("harm", answers, labels), np.array([0, 0, 1, 1])).tolist() == [1, 0, 0, 0]


def test_thresholds_exit_by_exit_are_for_those_who_get_there() -> None:
    """At every exit, those who leave lose at most the same share, and no lower threshold does that."""
    logits, labels = VALIDATION.logits, VALIDATION.labels
    sure = scoring.scores("confidence", logits)
    wrong = scoring.answers(logits) != labels[:, None]
    policies = candidates(VALIDATION, COSTS, Search(survivors=True), "wrong")[1:]
    assert len(policies) > 20
    for policy in policies[:: len(policies) // 8]:
        inside, shares = np.ones(len(labels), bool), []
        for exit, threshold in enumerate(policy.thresholds[:-1]):
            if threshold is not None:
                leaving = inside & (sure[:, exit] >= threshold)
                shares.append(wrong[leaving, exit].mean())
                inside &= ~leaving
        allowed, inside = max(shares), np.ones(len(labels), bool)
        for exit, threshold in enumerate(policy.thresholds[:-1]):
            lowest = -1.0 if threshold is None else threshold
            for cut in np.unique(sure[inside, exit]):
                leaving = inside & (sure[:, exit] >= cut)
                if cut < lowest and leaving.sum() != (inside & (sure[:, exit] >= lowest)).sum():
                    assert wrong[leaving, exit].mean() > allowed
            if threshold is not None:
                inside &= sure[:, exit] < threshold


def test_shared_and_survivors_exclude_each_other(snapshot: SnapshotAssertion) -> None:
    with pytest.raises(OfframpError, match="exclude each other"):
        Search(shared=True, survivors=True)
    assert refusal(Search, "patience", survivors=True) == snapshot
