"""Which to ship, a policy or a smaller plain network: on made answers whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from offramp.policy.calibration import Target
from offramp.policy.candidates import SplitLogits
from offramp.policy.costs import Costs
from offramp.policy.limits import LIMITS
from offramp.policy.policy import Policy
from offramp.study.beside import Beside, beside, keeps
from offramp.study.trained import Trained, of_numbers, policy_for
from simulated import FINAL_SHARE

CLASSES, IMAGES = 4, 400


def rows(rng: np.random.Generator, labels: np.ndarray, rates: list[float]) -> SplitLogits:
    """Exits that are right at these rates, on the same images where rates are equal, and surer there."""
    luck = rng.random(len(labels))
    logits = rng.normal(0, 0.3, (len(labels), len(rates), CLASSES))
    for exit, rate in enumerate(rates):
        right = luck < rate
        answers = np.where(right, labels, (labels + 1) % CLASSES)
        logits[np.arange(len(labels)), exit, answers] += np.where(right, 4, 2)
    return SplitLogits(logits.astype(np.float32), labels)


def network(seed: int, rates: list[float], costs: tuple[int, ...], images: int = IMAGES) -> Trained:
    """Of three splits, with the same labels whatever the seed."""
    truth, rng = np.random.default_rng(0), np.random.default_rng(seed)
    splits = [rows(rng, truth.integers(0, CLASSES, images), rates) for _ in range(3)]
    spent = tuple(int(step) for step in np.diff(costs, prepend=0))
    made = of_numbers(
        splits[1].logits,
        splits[1].labels,
        Costs(spent, (0,) * len(spent), (0,) * len(spent), tuple(range(1, len(spent) + 1))),
        (splits[0].logits, splits[0].labels),
    )
    return replace(made, id=f"net {seed}", test=splits[2], plain_macs=costs[-1])


def compared(
    exits: list[float],
    plain: float,
    target: Target,
    macs: int = 600,
    seed: int = 0,
    images: int = IMAGES,
) -> Beside:
    early = network(2 * seed + 1, exits, (300, 1000), images)
    rule = policy_for(early, target, anyway=True).policy
    return beside(early, rule, network(2 * seed + 2, [plain], (macs,), images), "width small")


HALF = Target("max-mean-macs", 650)


@pytest.mark.parametrize(
    ("exits", "plain", "target", "macs", "ship"),
    [
        ([0.7, 0.9], 0.97, HALF, 600, "plain network"),
        ([0.7, 0.9], 0.5, HALF, 600, "early exits"),
        ([0.7, 0.9], 0.97, HALF, 700, "open"),  # which misses the limit
        ([0.7, 0.9], 0.5, HALF, 200, "open"),  # no exit is as cheap
        ([0.7, 0.9], 0.97, Target("max-accuracy-loss", 0.05), 600, "plain network"),
        ([0.55, 0.99], 0.8, Target("max-accuracy-loss", 0.01), 310, "open"),  # it loses 19 points
        ([0.7, 0.9], 0.97, Target("risk", 0.1), 600, "plain network"),
    ],
)
def test_the_better_of_both_is_named(
    exits: list[float], plain: float, target: Target, macs: int, ship: str
) -> None:
    result = compared(exits, plain, target, macs)
    assert result.ship == ship and result.p < 0.05
    assert [line.macs for line in result.networks][1:] == [1000, macs]
    assert ("misses" in result.why) is (ship == "open" and plain > 0.6)
    assert ("is not known" in result.why) is (target.kind == "risk")


def test_networks_that_are_equally_good_are_told_apart_at_the_promised_rate() -> None:
    """A plain network as accurate as all exits, and so as every policy, of few images and of many."""
    counts = [
        compared([0.8, 0.8], 0.8, HALF, seed=n, images=60 + 40 * (n % 3)).ship != "open"
        for n in range(80)
    ]
    assert sum(counts) <= 9  # 4 are expected at most, 10 or more in 0.6 % of such tests
    apart = [compared([0.8, 0.8], 0.99, HALF, seed=n, images=140).ship for n in range(10)]
    assert set(apart) == {"plain network"}


def test_too_few_images_say_how_large_a_difference_would_have_to_be() -> None:
    result = compared([0.7, 0.8], 0.8, HALF, images=60)
    assert result.ship == "open" and "would have been found in 80 % of such tests" in result.why


@pytest.mark.parametrize(
    ("kind", "value", "kept"),
    [
        ("max-mean-macs", 600, True),
        ("max-mean-macs", 599, False),
        ("max-mean-latency", 1, None),
        ("max-p95-latency", 1, None),
        ("min-accuracy", 0.75, True),
        ("min-accuracy", 0.85, False),
        ("max-accuracy-loss", 0.2, True),
        ("max-accuracy-loss", 0.02, False),
        ("max-disagreement", 0.05, False),
        ("risk", 0.3, None),
        ("risk", 0.01, False),
        ("max-final-share", 0.99, False),
        ("max-final-share", 1, True),
    ],
)
def test_whether_a_plain_network_keeps_a_limit(
    kind: str, value: float, kept: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "max-final-share", FINAL_SHARE)  # type: ignore[arg-type]
    early, plain = network(1, [0.7, 0.9], (300, 1000)), network(2, [0.8], (600,))
    assert keeps(plain, early, Target(kind, value)) is kept


def test_policies_of_other_scores_are_compared_by_the_same_score() -> None:
    early, plain = network(1, [0.7, 0.9], (300, 1000)), network(2, [0.97], (600,))
    fixed = Policy("fixed", (1, 2), (0.0, None))
    assert beside(early, fixed, plain, "small").ship == "plain network"
