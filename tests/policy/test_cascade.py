"""Cascades from logits: what they cost, where images leave, and what their answers are."""

import numpy as np
import pytest

from offramp.policy.cascade import (
    Cascade,
    Member,
    answers,
    cascades,
    of_stages,
    outcome,
    shares_within,
    sure,
    thresholds,
)

EARLY, LATE = Member("net", 1, 4.0), Member("net", 2, 10.0)
SMALL, LARGE = Member("small", 1, 3.0), Member("large", 1, 20.0)


def logits(seed: int, rows: int = 200, classes: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, classes)) * 2


def test_an_exit_of_the_same_network_costs_what_is_left_and_another_network_all_of_it() -> None:
    assert Cascade((EARLY, LATE)).costs == (4.0, 6.0)
    assert Cascade((SMALL, LARGE)).costs == (3.0, 20.0)
    assert Cascade((SMALL, EARLY, LATE)).costs == (3.0, 4.0, 6.0)


def test_all_cascades_of_three_networks_each_once() -> None:
    every = list(cascades([LATE, SMALL, EARLY, LARGE]))
    assert len(every) == len(set(every)) == 4 + 4 * (6 + 4)
    assert all(
        c.stages.index(EARLY) < c.stages.index(LATE) for c in every if {EARLY, LATE} <= {*c.stages}
    )
    assert not any(c.stages[0] == LARGE and len(c.stages) > 1 for c in every)


def test_combined_answers_are_the_mean_of_log_probabilities() -> None:
    first, second = logits(0), logits(1)
    alone, both = answers([first, second], combined=True)
    assert np.allclose(np.exp(alone).sum(-1), 1) and np.allclose(np.exp(both).sum(-1), 1)
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (first, second))
    expected = np.sqrt(p * q) / np.sqrt(p * q).sum(-1, keepdims=True)
    assert np.allclose(np.exp(both), expected)
    assert np.allclose(answers([first, second], combined=False)[1], np.log(q))


@pytest.mark.parametrize("sureness", ["confidence", "margin"])
def test_thresholds_send_the_shares_on_that_a_budget_pays(sureness) -> None:  # type: ignore[no-untyped-def]
    cascade = Cascade((SMALL, EARLY, LATE), True, sureness)
    stages = of_stages(cascade, dict(zip(cascade.stages, map(logits, range(3)), strict=True)))
    labels = np.random.default_rng(9).integers(0, 5, 200)
    for shares in shares_within(cascade, 7.0):
        chosen = thresholds(stages, sureness, shares)
        result = outcome(cascade, stages, chosen, labels)
        assert result.cost == pytest.approx(
            3 + 4 * np.mean(result.stages >= 1) + 6 * np.mean(result.stages == 2)
        )
        assert result.cost == pytest.approx(7.0, abs=0.06)  # to one image in 200
        for image in range(0, 200, 20):  # by hand
            stage = 0
            while stage < 2 and sure(stages[stage][image : image + 1], sureness)[0] < chosen[stage]:
                stage += 1
            assert stage == result.stages[image]
            assert result.right[image] == (stages[stage][image].argmax() == labels[image])


def test_what_no_budget_pays_is_no_candidate() -> None:
    assert list(shares_within(Cascade((LARGE,)), 19.0)) == []
    assert list(shares_within(Cascade((LARGE,)), 20.0)) == [()]
    assert list(shares_within(Cascade((SMALL, LARGE)), 30.0)) == [(1.0,)]
