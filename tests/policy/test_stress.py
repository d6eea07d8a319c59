"""Conclusions about images that are not as those of calibration, on made cases whose truth is known."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.policy import stress
from offramp.policy.calibrate import Performance
from offramp.policy.calibration import Calibration, Target
from offramp.policy.candidates import SplitLogits
from offramp.policy.costs import Costs
from offramp.policy.limits import LIMITS, Budget
from offramp.policy.policy import Policy
from offramp.policy.stress import FEWEST, PROMISE, StressRow, conclusions, stress_row, taken
from offramp.policy.useful import above_aim
from simulated import FINAL_SHARE

MACS = np.array([250_000, 600_000, 1_100_000])  # by exit; with all heads a little more than FULL
COSTS = Costs((200_000, 300_000, 500_000), (50_000, 50_000, 0), (0, 0, 0), (1, 2, 3))
FULL = PLAIN = 1_000_000
POLICY = Policy("confidence", (1, 2, 3), (0.8, 0.8, None))
LOSS = Target("max-accuracy-loss", 0.01)


def images(kind: Any, exits: Any, lost: Any = 0, sure: float = 5.0, **more: Any) -> StressRow:
    """Images that leave at the exits of these indices. The full network is right, and an exit before it
    wrong on the images of `lost`, or on the first so many."""
    places = np.asarray(exits)
    count = len(places)
    wrong = np.arange(count) < lost if isinstance(lost, int) else lost
    logits = np.zeros((count, 3, 3), dtype=np.float32)
    logits[:, 2, 0] = sure
    logits[np.arange(count), places] = 0
    answers = np.where(wrong & (places < 2), 1, 0)
    logits[np.arange(count), places, answers] = sure
    labels = np.full(count, -1 if kind == "foreign" else 0)
    name = more.get("name", kind)
    strength = more.get("strength", 0), more.get("amount", 0.0)
    rows = SplitLogits(logits, labels)
    return stress_row(kind, name, POLICY, COSTS, rows, ("a", "b", "c"), strength)


HALF = np.arange(1000) % 2  # half at the first exit, half at the second
AS_IS = images("test", HALF, lost=2)
NAMED = {"name": "blur", "strength": 3}


def about(lines: list[str], word: str) -> str:
    (line,) = (line for line in lines if word in line)
    return line


def test_a_corruption_that_changes_nothing_is_not_told_from_images_as_they_are() -> None:
    same = images("corruption", HALF, lost=2, **NAMED)
    lines = conclusions(LOSS, [AS_IS, same], FULL, PLAIN)
    assert "On none of 1" in about(lines, "is to keep")
    assert "on none of 1" in about(lines, "take")
    assert lines[-1] == PROMISE and len(lines) == 3


def test_what_costs_more_and_loses_more_is_named(snapshot: SnapshotAssertion) -> None:
    hard = images("corruption", np.where(np.arange(1000) < 500, 1, 2), lost=60, **NAMED)
    easy = images("corruption", np.zeros(1000, dtype=int), lost=300, name="contrast", strength=5)
    nearly = images("corruption", HALF, lost=13, name="jpeg", strength=1)  # 1.3 points, by chance
    foreign = images("foreign", np.arange(400) % 4 // 2 * 2, sure=2.2)
    random = images("random", HALF, amount=8.0)
    attacked = images("attack", np.full(1000, 2), amount=8.0)
    every = [AS_IS, hard, easy, nearly, foreign, random, attacked]
    assert conclusions(LOSS, every, FULL, PLAIN) == snapshot


# Of each limit, a value that `HARD` or `HARD_LABELS` are above, and one that they are not; None where it
# is not looked at. At 0.1 labels are told from those of an image.
VALUES: dict[str, tuple[float, float] | None] = {
    "max-accuracy-loss": (0.01, 0.1),
    "min-accuracy": (0.99, 0.9),
    "max-mean-macs": (450_000, 900_000),
    "max-mean-latency": None,
    "max-p95-latency": None,
    "max-disagreement": (0.01, 0.1),
    "risk": (0.01, 0.1),
    "max-hamming-loss": (0.05, 0.1),
    "max-missed-labels": (0.1, 0.2),
    "hamming-risk": (0.05, 0.1),
    "missed-risk": (0.1, 0.2),
    "max-final-share": (0.2, 0.6),
}


def labeled(kind: Any, lost: int, **more: Any) -> StressRow:
    """Images with two labels of four each, which all leave first. Of the `lost` the exit misses one."""
    policy = Policy("least-label", (1, 2, 3), (0.8, 0.8, None))
    labels = np.tile(np.array([1, 1, 0, 0], np.uint8), (1000, 1))
    logits = np.repeat(np.where(labels, 5.0, -5.0)[:, None], 3, axis=1).astype(np.float32)
    logits[:lost, 0, 1] = -5
    answers, names = SplitLogits(logits, labels), ("a", "b", "c", "d")
    strength = more.get("strength", 0), 0.0
    return stress_row(kind, more.get("name", kind), policy, COSTS, answers, names, strength)


HARD = images("corruption", np.where(np.arange(1000) < 500, 1, 2), lost=60, **NAMED)
HARD_LABELS = labeled("corruption", 240, **NAMED)  # 6 % of all labels, 12 % of an image's


@pytest.mark.parametrize("kind", [*LIMITS, "max-final-share"])
@pytest.mark.usefixtures("final_share")
def test_each_limit_is_looked_at_by_what_it_counts(kind: str, snapshot: SnapshotAssertion) -> None:
    rule, values = LIMITS[kind], VALUES[kind]
    rows = [labeled("test", 0), HARD_LABELS] if rule.several else [AS_IS, HARD]
    confidence = 0.95 if rule.by == "guarantee" else None
    lines = [conclusions(Target(kind, v, confidence), rows, FULL, PLAIN) for v in values or (0, 1)]
    if values is None:
        assert not any("is to keep" in line for each in lines for line in each)
        return
    above, below = (about(each, f"to keep the {rule.counts} to ") for each in lines)
    assert "most on blur 3" in above and "blur 3" not in below
    assert above == snapshot


@pytest.mark.parametrize(
    "budget",
    [rule.by for rule in (*LIMITS.values(), FINAL_SHARE) if isinstance(rule.by, Budget)],
    ids=lambda budget: budget.noted,
)
def test_a_budget_is_the_mean_of_what_images_spend(budget: Budget) -> None:
    """As calibration counts it; nothing is left out but what is measured there alone."""
    shares = tuple(exit.share for exit in HARD.tested.exits)
    spent = budget.spent(Performance(0.94, float(HARD.spent.mean()), risk=0.06, shares=shares))
    if budget.by_image is None:
        assert spent is None
    else:
        assert budget.by_image(HARD).mean() == pytest.approx(spent)


def test_a_risk_without_labels_is_of_answers_that_differ(snapshot: SnapshotAssertion) -> None:
    lines = conclusions(Target("risk", 0.01, 0.95, labels=False), [AS_IS, HARD], FULL, PLAIN)
    assert about(lines, "is to keep") == snapshot


@pytest.mark.usefixtures("final_share")
def test_a_share_of_images_has_the_exact_interval() -> None:
    """Of a share of 98 %, all of a hundred images are 13 in 100 draws; of 97 %, they are 5."""
    rows = [images("test", HALF[:100]), images("corruption", np.full(100, 2), **NAMED)]
    for value, above in ((0.98, False), (0.97, True)):
        line = about(conclusions(Target("max-final-share", value), rows, FULL, PLAIN), "is to keep")
        assert ("blur 3: 100.0 %" in line) == above


def test_nothing_is_said_of_a_limit_that_is_not_there() -> None:
    lines = conclusions(None, [AS_IS, images("corruption", HALF, **NAMED)], FULL, PLAIN)
    assert not any("is to keep" in line for line in lines)


def test_a_network_that_sends_everything_to_the_end_has_nothing_to_take() -> None:
    end = np.full(500, 2)
    every = [images(kind, end) for kind in ("test", "foreign", "random", "attack")]
    lines = conclusions(LOSS, every, FULL, PLAIN)
    assert "nothing to take" in about(lines, "attack")
    assert "0.0 % leave early" in about(lines, "no class") and "confidence" not in lines[0]
    assert every[0].confidence is None and every[0].early.value == 0


def test_an_attack_of_size_0_takes_nothing() -> None:
    every = [AS_IS, images("random", HALF), images("attack", HALF)]
    assert "not shown to" in about(conclusions(LOSS, every, FULL, PLAIN), "attack")


def test_too_few_images_conclude_nothing() -> None:
    few = [images(kind, HALF[: FEWEST - 1], lost=50) for kind in ("test", "corruption", "attack")]
    lines = conclusions(LOSS, few, FULL, PLAIN)
    assert lines[0].startswith("99 images") and f"take {FEWEST} " in lines[0] and lines[1:] == [PROMISE]
    enough = images("test", HALF[:FEWEST])
    few_foreign = conclusions(LOSS, [enough, images("foreign", HALF[:99])], FULL, PLAIN)
    assert few_foreign == [PROMISE]


def test_a_row_is_what_evaluation_says_and_how_sure_it_is() -> None:
    row = images("corruption", [0, 0, 1, 2], lost=1, name="blur", strength=3, amount=0.7)
    assert row.title == "blur 3" and row.spent.tolist() == MACS[[0, 0, 1, 2]].tolist()
    assert row.early.value == 0.75 and row.confidence == pytest.approx(0.987, abs=0.001)
    assert [exit.share for exit in row.tested.exits] == [0.5, 0.25, 0.25]
    assert row.tested.policy.value == 0.75 and row.tested.full.value == 1
    foreign = images("foreign", [0, 2])
    assert foreign.tested.full.value == 0 and foreign.title == "foreign"


def null_draws(draws: int, corruptions: int = 30, count: int = 400) -> Iterator[list[StressRow]]:
    """Of corruptions of which none differs from images as they are, and each loses exactly what the
    limit allows."""
    generator = np.random.default_rng(1)
    for _ in range(draws):
        every = [images("test", generator.choice(3, count, p=[0.5, 0.3, 0.2]))]
        for _ in range(corruptions):
            exits = generator.choice(3, count, p=[0.5, 0.3, 0.2])
            wrong = generator.random(count) < 0.05 / 0.8  # of the four in five that leave early
            every.append(images("corruption", exits, lost=wrong))
        yield every


def naming(draws: list[list[StressRow]]) -> tuple[int, int]:
    """In how many draws a corruption is named, by what is lost and by what is spent."""
    lines = [conclusions(Target("risk", 0.05, 0.95), every, FULL, PLAIN) for every in draws]
    return sum("On none of" not in a for a, *_ in lines), sum(
        "on none of" not in b for _, b, *_ in lines
    )


def test_of_corruptions_that_change_nothing_one_is_named_in_few_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draws = list(null_draws(60))
    limited, differing = naming(draws)
    assert limited <= 9 and differing <= 9  # 5 %, and three and a half standard errors
    monkeypatch.setattr(stress, "ERROR", 30 * stress.ERROR)  # as if each were looked at alone
    limited, differing = naming(draws[:20])
    assert limited >= 8 and differing >= 6


def test_the_share_that_an_attack_takes_has_an_interval_that_covers_it() -> None:
    """Of images 40 % go to the last exit, wherever they left before."""
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        plain = MACS[generator.choice(3, 300, p=[0.6, 0.3, 0.1])]
        moved = generator.random(300) < 0.4
        share = taken(plain, np.where(moved, MACS[2], plain), FULL)
        mean = MACS @ [0.6, 0.3, 0.1]
        truth = 0.4 * (MACS[2] - mean) / (FULL - mean)
        assert share is not None
        covered += share.low <= truth <= share.high
    assert covered >= 180
    assert taken(np.full(300, MACS[2]), np.full(300, MACS[2]), FULL) is None


@pytest.mark.parametrize("kind", [kind for kind, rule in LIMITS.items() if rule.several])
def test_a_loss_of_labels_above_the_aim_is_told(kind: str, snapshot: SnapshotAssertion) -> None:
    """What calibration says first of test images, by the same numbers."""
    origin = Calibration(target=Target(kind, 0.05, 0.95 if kind.endswith("risk") else None))
    policy = Policy("least-label", (1, 2, 3), (0.8, 0.8, None), calibration=origin)
    assert above_aim(policy, HARD_LABELS.tested) == snapshot
    assert above_aim(policy, labeled("test", 0).tested) is None
