"""A held latency, on images that become harder, by a clock that the test makes."""

import math
from itertools import pairwise

import numpy as np
import pytest

from offramp.infer.stream import STEPS, Hold, moved
from offramp.policy.scoring import SCORES, Score

SECONDS = np.array([1.0, 2.5, 5.0])  # of an image that leaves at each exit
THRESHOLDS = (0.7, 0.6, None)


def streamed(target: float | None, images: int = 4000) -> np.ndarray:
    """[images] seconds; from the middle on images are harder. target: held, or nothing is."""
    chance = np.random.default_rng(0)
    hold = Hold(1.0 if target is None else target)
    seconds = []
    for i in range(images):
        hard = 2.0 if i < images / 2 else 5.0
        sure = chance.beta(5.0, hard, 2) ** (1.0, 0.7)  # deeper exits are surer
        thresholds = moved("confidence", THRESHOLDS, 0 if target is None else hold.step)
        leaves = [k for k in (0, 1) if (t := thresholds[k]) is not None and sure[k] >= t]
        seconds.append(SECONDS[leaves[0] if leaves else 2] * chance.uniform(0.9, 1.1))
        hold = hold.after(seconds[-1])
    return np.array(seconds)


@pytest.mark.parametrize("target", [1.6, 2.5, 3.5])
def test_the_mean_is_held_before_and_after_images_become_harder(target: float) -> None:
    seconds = streamed(target)
    for settled in (seconds[500:2000], seconds[2500:]):
        assert settled.mean() == pytest.approx(target, rel=0.06)


def test_without_it_the_mean_drifts() -> None:
    """The control."""
    seconds = streamed(None)
    assert seconds[2500:].mean() > 1.4 * seconds[500:2000].mean()


@pytest.mark.parametrize(("target", "end"), [(0.5, -1.0), (50.0, 1.0)])
def test_what_cannot_be_had_ends_at_an_end(target: float, end: float) -> None:
    hold = Hold(target)
    for _ in range(1000):
        hold = hold.after(SECONDS[0 if hold.position == -1.0 else 1])
    assert hold.position == end
    assert Hold(target).after(1.0).mean == 1.0


@pytest.mark.parametrize("score", ["margin", "gate"])
def test_thresholds_go_from_everybody_over_the_policy_to_nobody(score: str) -> None:
    lowest, own, highest = (moved(score, THRESHOLDS, step) for step in (-STEPS, 0, STEPS))
    assert lowest == (0.0, 0.0, None) and own == THRESHOLDS and highest == (None, None, None)
    steps = [moved(score, THRESHOLDS, step)[0] for step in range(-STEPS, STEPS)]
    assert steps == sorted(steps)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="by degrees"):
        moved("patience", (1.0, None), 1)


@pytest.mark.parametrize("own", [-3.0, 0.2, 12.0])
def test_thresholds_of_a_score_without_bounds_move_by_degrees(
    monkeypatch: pytest.MonkeyPatch, own: float
) -> None:
    score = Score(SCORES["confidence"].rate, low=-math.inf, high=math.inf)
    monkeypatch.setitem(SCORES, "largest", score)
    steps = [moved("largest", (own, None), step)[0] for step in range(-STEPS, STEPS)]
    assert steps[0] == -math.inf and steps[STEPS] == own
    assert all(a is not None and b is not None and a < b for a, b in pairwise(steps))
    assert all(step is not None and math.isfinite(step) for step in steps[1:])
    assert moved("largest", (own, None), STEPS) == (None, None)
