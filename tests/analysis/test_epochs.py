"""Epoch metrics on curves made by hand."""

import numpy as np
import pytest

from offramp.analysis import curves as epochs


def a(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)


def test_min_loss_epoch_is_the_first_of_equals() -> None:
    assert epochs.min_loss_epoch(a(3, 1, 2, 1)) == 2
    assert epochs.min_loss_epoch(a()) is None


def test_peak_epoch_is_the_first_of_equals() -> None:
    assert epochs.peak_epoch(a(0.1, 0.9, 0.5, 0.9)) == 2
    assert epochs.peak_epoch(a()) is None


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        (a(0.5, 0.896, 0.9, 0.895), 2),  # within half a point, its edge included
        (a(0.5, 0.9, 0.89, 0.896), 4),  # one epoch falls out
        (a(0.9, 0.9, 0.9), 1),
        (a(0.5, 0.9, 0.8), None),  # the last one has left
        (a(), None),
    ],
)
def test_saturation_epoch(accuracy: np.ndarray, expected: int | None) -> None:
    assert epochs.saturation_epoch(accuracy) == expected


LOSS = a(2.0, 1.0, 1.04, 1.05, 1.06, 1.07, 1.08, 1.09)
FALLING = a(9, 8, 7, 6, 5, 4, 3, 2)


def test_overfitting_begins_with_the_first_of_five_epochs() -> None:
    assert epochs.overfitting_epoch(LOSS, FALLING) == 4


def test_no_overfitting_without_five_in_a_row() -> None:
    assert epochs.overfitting_epoch(LOSS[:7], FALLING[:7]) is None
    dip = LOSS.copy()
    dip[5] = 1.04
    assert epochs.overfitting_epoch(dip, FALLING) is None


def test_no_overfitting_where_training_loss_does_not_fall() -> None:
    flat = FALLING.copy()
    flat[5] = flat[4]
    assert epochs.overfitting_epoch(LOSS, flat) is None
    assert epochs.overfitting_epoch(LOSS, FALLING[::-1]) is None


def test_high_losses_before_the_least_one_are_no_overfitting() -> None:
    assert epochs.overfitting_epoch(FALLING, FALLING) is None


def test_stability_is_the_spread_of_the_last_changes() -> None:
    loss = a(5, 4, 3, 2, 1, 1, 1, 1, 1.2, 1.1)  # the last fifth: changes 0.2 and -0.1
    assert epochs.validation_stability(loss) == pytest.approx(np.std([0.2, -0.1], ddof=1))
    assert epochs.validation_stability(a(*range(10))) == pytest.approx(0.0)
    assert epochs.validation_stability(a(1, 2, 1)) is None  # one change


def test_loss_rise_is_relative_to_the_least() -> None:
    assert epochs.loss_rise(a(3, 2, 2.5)) == pytest.approx(0.25)
    assert epochs.loss_rise(a(3, 2)) == 0.0
    assert epochs.loss_rise(a()) is None


def test_spikes_are_rises_by_a_fifth() -> None:
    assert epochs.loss_spikes(a(1, 1.2, 1, 1.19)) == 1
    assert epochs.largest_spike(a(5, 4, 5)) == pytest.approx(1.0)
    assert epochs.largest_spike(a(3, 2, 1)) == 0.0
    assert epochs.loss_spikes(a(1)) is None
    assert epochs.largest_spike(a()) is None
