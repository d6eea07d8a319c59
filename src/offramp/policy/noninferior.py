"""Is a policy's accuracy within a margin of the reference's? An exact score test, and bets.

Both answer the same images. x of n are *lost* (the reference right, the policy wrong) and y are *won*.
The hypothesis to refuse is P(lost) - P(won) >= margin.

Counts: Tango's score for paired proportions (Statistics in Medicine 17, 1998), with the critical value
for which the test's size, enumerated over x and y and maximized over the nuisance P(won), is at most the
level. So the level holds for every n, and not only in the limit.

Means of losses in [-1, 1] (several labels, weights, groups): a bet against the hypothesis (Waudby-Smith
and Ramdas, "Estimating means of bounded random variables by betting", 2024), whose wealth exceeds
1 / level with probability `level` at most.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from offramp.hashing import derive

Floats = NDArray[np.float64]

FAR = 9.0  # standard deviations beyond which nothing is summed: less than 1e-18
NUISANCE = 200  # values of P(won) at which the size is enumerated, a third of a standard deviation apart


def score(lost: ArrayLike, won: ArrayLike, rows: int, margin: float) -> Floats:
    """Tango's Z; the lower, the more speaks for P(lost) - P(won) < margin. It rises with `lost` and
    falls with `won`.

    Args:
        lost, won: Counts, of one shape.
        rows: Images, all of them.
        margin: In (0, 1).

    Example:
        >>> float(score(10, 10, 1000, 0.01).round(3))
        -2.042
    """
    x, y = np.asarray(lost, dtype=float), np.asarray(won, dtype=float)
    # q: the likeliest P(won) under P(lost) = P(won) + margin
    b = (2 * rows - x + y) * margin - x - y
    c = -y * margin * (1 - margin)
    q = (np.sqrt(b * b - 8 * rows * c) - b) / (4 * rows)
    spread = rows * (2 * q + margin * (1 - margin))
    return np.asarray((x - y - rows * margin) / np.sqrt(spread))


def certified(lost: int, won: int, rows: int, margin: float, level: float) -> bool:
    """Whether P(lost) - P(won) < margin holds but for a chance of `level`."""
    return bool(score(lost, won, rows, margin) <= -critical(rows, margin, level))


@lru_cache(maxsize=256)
def critical(rows: int, margin: float, level: float) -> float:
    """The least c, to 0.0005, of which {Z <= -c} has at most size `level`; infinite where none has."""
    low = high = float(stats.norm.isf(level))
    while size(rows, margin, high) > level:
        high += 0.25
        if high > FAR:
            return np.inf
    while low > 0 and size(rows, margin, low) <= level:
        low -= 0.25
    while high - low > 0.0005:
        middle = (low + high) / 2
        if size(rows, margin, middle) > level:
            low = middle
        else:
            high = middle
    return high


def size(rows: int, margin: float, c: float) -> float:
    """The greatest probability of {Z <= -c} where P(lost) - P(won) is `margin` exactly."""
    most = most_lost(rows, margin, c)
    nuisance = (1 - margin) / 2 * np.linspace(0, 1, NUISANCE) ** 2
    sizes = np.array([probability(most, rows, q + margin, q) for q in nuisance])
    peaks = np.argsort(sizes)[-3:]  # around which it is looked for more closely
    near = [np.linspace(nuisance[max(k - 1, 0)], nuisance[min(k + 1, NUISANCE - 1)], 17) for k in peaks]
    return float(max(sizes.max(), *(probability(most, rows, q + margin, q) for q in np.ravel(near))))


def most_lost(rows: int, margin: float, c: float) -> NDArray[np.int64]:
    """By the number won, 0 to rows: the most that may be lost with Z <= -c; -1 for none."""
    won = np.arange(rows + 1)
    low, high = np.full(rows + 1, -1), rows - won  # by bisection: Z rises with what is lost
    while (high > low).any():
        middle = (low + high + 1) // 2
        with np.errstate(invalid="ignore"):
            good = (middle < 0) | (score(np.maximum(middle, 0), won, rows, margin) <= -c)
        low, high = np.where(good, middle, low), np.where(good, high, middle - 1)
    return low


def probability(most: NDArray[np.int64], rows: int, lost: float, won: float) -> float:
    """Of the counts that `most_lost` allows, where images are lost and won with these probabilities."""
    around, spread = rows * won, FAR * np.sqrt(rows * won * (1 - won)) + FAR
    counts = np.arange(max(int(around - spread), 0), min(int(around + spread), rows) + 1)
    share = min(lost / (1 - won), 1.0) if won < 1 else 0.0  # of what is not won
    within = stats.binom.cdf(most[counts], rows - counts, share)
    return float((stats.binom.pmf(counts, rows, won) * within).sum())


def rows_needed(margin: float, level: float, rate: float = 0.0) -> int:
    """The fewest images, to a tenth, of which a policy could be certified that loses and wins a share
    `rate` each."""
    rows, usual = 10, -float(stats.norm.isf(level))

    def z() -> float:
        return float(score(round(rate * rows), round(rate * rows), rows, margin))

    while z() > usual or z() > -critical(rows, margin, level):
        rows += max(1, rows // 10)
    return rows


def wealth(losses: Floats, margin: float, bet: float, seed: int = 0) -> float:
    """The greatest wealth of a bet that the mean loss is below `margin`, over images in random order.

    Certified at a level where it reaches 1 / level. Bet and seed are chosen before the losses are seen.

    Args:
        losses: [N] in [-1, 1]; of images of a group (a patient), one mean.
        margin: In (0, 1).
        bet: At least 0 and below 1 / (1 - margin), so that no image takes all.
        seed: Of the order.
    """
    order = np.random.default_rng(derive(seed, "bets")).permutation(len(losses))
    logs = np.log1p(bet * (margin - losses[order]))
    return float(np.exp(min(np.maximum.accumulate(np.cumsum(logs))[-1], 700.0))) if len(losses) else 1.0


def best_bet(losses: Floats, margin: float) -> float:
    """The bet that would have gained most on other images, such as validation's."""
    bets = np.linspace(0, 0.99 / (1 - margin), 100)
    gains = [np.log1p(bet * (margin - losses)).mean() for bet in bets]
    return float(bets[int(np.argmax(gains))])
