"""Metrics by exit: cases counted by hand, and what must not matter."""

import numpy as np
import pytest

from offramp.metrics import (
    METRICS,
    Metric,
    accuracy,
    auroc,
    balanced_accuracy,
    cross_entropy,
    f1,
    of_logits,
    uneven,
)
from simulated import OF_FOUR_IMAGES

LABELS = np.array([0] * 8 + [1] * 2)


def margins(*exits: list[float]) -> np.ndarray:
    """Logits [N, E, 2] whose class 1 leads by the margins given for each exit."""
    lead = np.array(exits, dtype=np.float32).T
    return np.stack([np.zeros_like(lead), lead], axis=2)


NEVER = [-1.0] * 10
RIGHT = [-1.0] * 8 + [1.0] * 2
MIXED = [-4.0, -3, -2, -1, -1, -1, 2, 5, 1, 3]  # two false alarms, nothing missed


P = OF_FOUR_IMAGES
FOUR = np.log(P)
OF_FOUR = np.array([0, 0, 1, 1])


def test_accuracy_by_exit() -> None:
    assert accuracy(FOUR, OF_FOUR).tolist() == [0.5, 1.0]


def test_of_no_number_nothing_is_right() -> None:
    logits = np.full((4, 1, 3), np.nan)
    assert accuracy(logits, np.zeros(4, int)) == accuracy(logits, np.zeros((4, 3), int)) == 0
    logits[:3] = 0
    told = of_logits(logits, np.array([0, 1, 2, 0]), uneven=True)
    assert told["accuracy"] == (0.25,) and told["auroc"] == told["f1"] == (None,)


def test_cross_entropy_by_exit() -> None:
    by_hand = [-np.log([0.9, 0.4, 0.8, 0.45]).mean(), -np.log([0.8, 0.7, 0.9, 0.7]).mean()]
    np.testing.assert_allclose(cross_entropy(FOUR, OF_FOUR), by_hand)
    np.testing.assert_allclose(cross_entropy(FOUR - 1e3, OF_FOUR), by_hand)
    huge = np.array([[[3e38, -3e38]]], dtype=np.float32)
    assert cross_entropy(huge, np.array([0])).tolist() == [0.0]


OF_ONE_CLASS = [n for n, m in METRICS.items() if m.on_images and m.labels != "several"]


@pytest.mark.parametrize("name", OF_ONE_CLASS)
def test_the_mean_over_images_is_the_metric(name: str) -> None:
    of, on_images = METRICS[name].of, METRICS[name].on_images
    assert on_images is not None
    np.testing.assert_allclose(on_images(FOUR, OF_FOUR).mean(axis=0), of(FOUR, OF_FOUR))


def test_counted_by_hand() -> None:
    logits = margins(NEVER, RIGHT, MIXED)
    assert balanced_accuracy(logits, LABELS).tolist() == pytest.approx([0.5, 1, (6 / 8 + 1) / 2])
    assert f1(logits, LABELS).tolist() == pytest.approx([0, 1, 2 * 0.5 * 1 / 1.5])
    pairs = [(6 + 0 + 0) / 8, (7 + 0) / 8]  # negatives that each positive beats
    assert auroc(logits, LABELS).tolist() == pytest.approx([0.5, 1, sum(pairs) / 2])


def test_accuracy_hides_what_they_show() -> None:
    never = margins(NEVER)
    assert (never.argmax(2)[:, 0] == LABELS).mean() == 0.8
    assert balanced_accuracy(never, LABELS)[0] == 0.5 and f1(never, LABELS)[0] == 0


def test_three_classes_count_alike() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [2])
    answers = np.array([0] * 6 + [0, 1, 1] + [0])
    logits = np.eye(3)[answers][:, None] * 5
    assert balanced_accuracy(logits, labels)[0] == pytest.approx((1 + 2 / 3 + 0) / 3)
    f = [2 * (6 / 8) / (6 / 8 + 1), 2 * (2 / 3) / (1 + 2 / 3), 0]
    assert f1(logits, labels)[0] == pytest.approx(np.mean(f))
    one = [0.75, (2 + 0.5) / 3, 0.5]  # 0: beats 2 of 4, ties with 2; 1: 2 of 3 beat all, 1 ties
    assert auroc(logits, labels)[0] == pytest.approx(np.mean(one))


def test_auroc_does_not_saturate() -> None:
    """Sure answers, whose softmax is 1 in single precision, keep their order."""
    lead = [40.0 + i for i in range(8)] + [60.0, 70.0]
    assert auroc(margins(lead), LABELS)[0] == 1


def test_what_cannot_be_said() -> None:
    logits = margins(RIGHT)[:8]
    assert np.isnan(auroc(logits, LABELS[:8])).all()
    found = of_logits(logits, LABELS[:8], uneven=True)
    assert [found[name] for name in ("balanced_accuracy", "auroc", "f1")] == [(1.0,), (None,), (0.0,)]


def test_a_metric_is_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is worked out everywhere, or where classes are uneven alone."""
    share = Metric(lambda logits, _: (logits.argmax(2) == 1).mean(axis=0))
    monkeypatch.setitem(METRICS, "ones", share)
    monkeypatch.setitem(METRICS, "uneven_ones", Metric(share.of, uneven=True))
    even, all_ = (of_logits(margins(NEVER, RIGHT), LABELS, uneven) for uneven in (False, True))
    assert even["accuracy"] == (0.8, 1.0) and even["ones"] == (0.0, 0.2) and "uneven_ones" not in even
    assert all_.keys() == {n for n, m in METRICS.items() if m.labels != "several"}
    assert all_["uneven_ones"] == (0.0, 0.2)


def test_a_cross_entropy_that_is_no_number_is_kept_as_it_is() -> None:
    """Of a network that came apart: the record asks for a number."""
    (found,) = of_logits(np.full((2, 1, 2), np.nan), LABELS[:2], uneven=False)["cross_entropy"]
    assert found is not None and np.isnan(found)


@pytest.mark.parametrize(
    ("counts", "expected"), [((5, 5), True), ((5, 5, 5), False), ((6, 5, 5), False), ((9, 6, 6), True)]
)
def test_uneven(counts: tuple[int, ...], expected: bool) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    assert uneven(labels, len(counts)) is expected
    assert uneven(labels, len(counts) + 1) is True  # a class that never occurs
