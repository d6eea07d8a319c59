"""How often equal strategies are told apart, and unlike ones: python -m benchmarks.error_rates

Studies that never ran, [draws, strategies, seeds, images], right or wrong; at 10,000 images their
normal limit, in which the variance by images is known. The table is in docs/statistics.md. It takes some
minutes of a core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offramp.analysis.stats.pairwise import ALPHA, FEWEST, drawn, half_width

Floats = NDArray[np.float64]
HARD, NOISE = 1.5, 0.6  # how much images differ, and what is left to chance
SLOPE = 0.15  # of accuracy, by luck
LIMIT = 10_000  # images from which the normal limit stands for right and wrong


@dataclass(frozen=True)
class Luck:
    """How strategies vary.

    Attributes:
        seeds: By strategy, of its seeds, far below 1. It moves accuracy by SLOPE and is even in the
            mean, however large: a strategy that varies more is no worse.
        taste: Of each strategy in images, the same for all its seeds.
        skewed: Luck of seeds is exponential and not normal.
        shared: How much of a seed's luck strategies of one half have in common, as of one backbone.
        shift: By which the first strategy is better.
    """

    seeds: Floats
    taste: float = 0.05
    skewed: bool = False
    shared: float = 0.0
    shift: float = 0.0


def lucks(groups: int) -> dict[str, Luck]:
    """Without any difference, by name."""
    one, half = np.full(groups, 0.04), np.full(groups, 0.1)
    half[groups // 2 :] = 0.4
    out = {
        "even": Luck(np.full(groups, 0.2), 0.1),
        "images": Luck(np.full(groups, 0.02), 0.5),
        "skewed": Luck(np.full(groups, 0.2), skewed=True),
        "shared phases": Luck(np.full(groups, 0.3), shared=0.9),
        "half x4": Luck(half),
        "x1 to x12": Luck(np.geomspace(0.04, 0.48, groups)),
    }
    for times in (4, 8, 16):
        out[f"one x{times}"] = Luck(np.where(np.arange(groups) == groups - 1, times, 1) * one)
    return out


@dataclass(frozen=True)
class PairEstimates:
    """Of all pairs, [draws, pairs]: mean difference, its variance by seeds (of one), and by images."""

    mean: Floats
    between: Floats
    shared: Floats


def studies(
    generator: np.random.Generator, draws: int, luck: Luck, seeds: int, images: int
) -> PairEstimates:
    """The estimates of `draws` studies."""
    of = normal if images >= LIMIT else right_or_wrong
    parts = [of(generator, luck, seeds, images) for _ in range(draws)]
    return PairEstimates(*(np.array(side) for side in zip(*parts, strict=True)))


def of_seeds(generator: np.random.Generator, luck: Luck, seeds: int) -> Floats:
    """Luck, [strategies, seeds]."""
    groups = len(luck.seeds)

    def draw(count: int) -> Floats:
        shape = (count, seeds)
        return generator.exponential(size=shape) - 1 if luck.skewed else generator.normal(size=shape)

    common = draw(2)[np.arange(groups) * 2 // groups]
    own = np.sqrt(luck.shared) * common + np.sqrt(1 - luck.shared) * draw(groups)
    return np.asarray(luck.seeds[:, None] * own)


def normal(
    generator: np.random.Generator, luck: Luck, seeds: int, images: int
) -> tuple[Floats, Floats, Floats]:
    """With the variances that right_or_wrong comes to."""
    groups = len(luck.seeds)
    a, b = np.triu_indices(groups, 1)
    rest, liked = np.sqrt(0.1 / images), 0.17 * luck.taste / np.sqrt(images)
    means = SLOPE * of_seeds(generator, luck, seeds) + rest * generator.normal(size=(groups, seeds))
    means += liked * generator.normal(size=(groups, 1))
    means[0] += SLOPE * luck.shift
    differences = means[a] - means[b]
    between = differences.var(axis=1, ddof=1)
    return differences.mean(axis=1), between, np.full(len(a), 2 * liked**2)


def answers(generator: np.random.Generator, luck: Luck, seeds: int, images: int) -> Floats:
    """What is right, [strategies, seeds, images]."""
    able = 1.2 + HARD * generator.normal(size=(1, images))
    able = able + luck.taste * generator.normal(size=(len(luck.seeds), images))
    sure = (1 / (1 + np.exp(-able / NOISE)))[:, None]
    moved = np.clip(of_seeds(generator, luck, seeds), -1, 1)
    moved[0] += luck.shift
    chance = sure + moved[:, :, None] * np.minimum(sure, 1 - sure)
    return np.asarray(generator.random(chance.shape, np.float32) < chance, dtype=np.float32)


def right_or_wrong(
    generator: np.random.Generator, luck: Luck, seeds: int, images: int
) -> tuple[Floats, Floats, Floats]:
    """As `crossed` works them out, from sums of products: no array of pairs and images."""
    right = answers(generator, luck, seeds, images)
    a, b = np.triu_indices(len(right), 1)
    by_seed, by_image = right.mean(axis=2, dtype=float), right.mean(axis=1, dtype=float)

    def squares(rows: Floats) -> Floats:
        products = rows @ rows.T
        return np.asarray(products[a, a] + products[b, b] - 2 * products[a, b], dtype=float)

    differences = by_seed[a] - by_seed[b]
    mean, between = differences.mean(axis=1), differences.var(axis=1, ddof=1)
    whole = images * seeds * mean**2
    images_ss = seeds * squares(by_image) - whole
    all_ss = squares(right.reshape(len(right), -1)) - whole
    seed_ms, image_ms = images * between, images_ss / (images - 1)
    left = (all_ss - images_ss - (seeds - 1) * seed_ms) / ((seeds - 1) * (images - 1))
    total = np.maximum(np.maximum(seed_ms + image_ms - left, seed_ms), image_ms)
    return mean, between, (total - seed_ms) / (seeds * images)


def multi_bootstrap(right: Floats, generator: np.random.Generator, draws: int = 4000) -> Floats:
    """Two-sided p of each pair by the Multi-Bootstrap (Sellam et al. 2022, arXiv 2106.16163): seeds and
    images drawn anew, the same ones for all strategies; twice the share of draws on the other side of 0.

    Args:
        right: [strategies, seeds, images].
    """
    groups, seeds, images = right.shape
    of_seed = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    of_image = generator.multinomial(images, np.full(images, 1 / images), size=draws) / images
    means = np.array([((of_seed @ of) * of_image).sum(axis=1) for of in right])  # [strategies, draws]
    a, b = np.triu_indices(groups, 1)
    above = (means[a] > means[b]).mean(axis=1) + (means[a] == means[b]).mean(axis=1) / 2
    return np.asarray(2 * np.minimum(above, 1 - above))


def shown(of: PairEstimates, groups: int, seeds: int) -> dict[str, NDArray[np.bool_]]:
    """Which pairs differ significantly over all of them, [draws, pairs]: by variances of their own, and
    moderated."""
    pairs = of.mean.shape[1]
    df = np.full(pairs, seeds - 1.0)
    level = np.array(ALPHA / pairs)
    half = half_width(level, of.between / seeds, of.shared, df)
    result = {"own": np.abs(of.mean) > half}
    result["moderated"] = result["own"] if seeds >= FEWEST else np.zeros_like(result["own"])
    if seeds >= FEWEST and pairs >= 3:
        between, backing = drawn(np.maximum(of.between, 1e-12), df, groups)
        half = half_width(level, between / seeds, of.shared, df * (1 + backing))
        result["moderated"] = np.abs(of.mean) > half
    return result


def errors(
    groups: int, seeds: int, images: int, draws: int, seed: int = 0
) -> Mapping[str, dict[str, float]]:
    """The share of studies of equal strategies with any finding, by luck and way."""
    generator = np.random.default_rng([seed, groups, seeds, images])
    rates = {}
    for name, luck in lucks(groups).items():
        ways = shown(studies(generator, draws, luck, seeds, images), groups, seeds)
        rates[name] = {way: float(pairs.any(axis=1).mean()) for way, pairs in ways.items()}
    return rates


def power(seeds: int, images: int, points: float, draws: int, seed: int = 1) -> dict[str, float]:
    """Of eight strategies of which one is better by so many points: the share of its seven pairs that
    are found. Seeds vary as in docs/results/cifar10."""
    generator = np.random.default_rng([seed, seeds, images])
    luck = Luck(np.full(8, 0.008), 0.2, shift=points / 100 / SLOPE)
    ways = shown(studies(generator, draws, luck, seeds, images), 8, seeds)
    return {way: float(pairs[:, :7].mean()) for way, pairs in ways.items()}


def main() -> None:
    print("| strategies, pairs | images | " + " | ".join(f"{s} seeds" for s in SEEDS) + " |")
    print("|---|---:|" + "---:|" * len(SEEDS))
    for groups in (3, 4, 8, 20):
        for images in (200, 1000, LIMIT):
            cells = []
            for seeds in SEEDS:
                size = groups * seeds * images
                draws = 3000 if images >= LIMIT else max(200, min(1000, 8_000_000 // size))
                rates = errors(groups, seeds, images, draws)
                worst = max(rates, key=lambda name: rates[name]["moderated"])
                own = max(rate["own"] for rate in rates.values())
                cells.append(f"{100 * own:.1f} / {100 * rates[worst]['moderated']:.1f} ({worst})")
            pairs = groups * (groups - 1) // 2
            print(f"| {groups}, {pairs} | {images:,} | " + " | ".join(cells) + " |", flush=True)
    for points in (0.5, 1.0, 1.3):
        cells = []
        for seeds in SEEDS[1:]:
            finds = power(seeds, LIMIT, points, 1000)
            cells.append(f"{100 * finds['own']:.0f} / {100 * finds['moderated']:.0f}")
        print(f"| {points} points apart | {LIMIT:,} | – | " + " | ".join(cells) + " |", flush=True)
    generator = np.random.default_rng(2)
    for name, luck in lucks(8).items():
        means = [of_seeds(generator, luck, 5)[:, :, None] for _ in range(300)]  # images do not matter
        finds = [(multi_bootstrap(of, generator) < ALPHA / 28).any() for of in means]
        print(f"Multi-Bootstrap, 5 seeds, {name}: {100 * np.mean(finds):.0f} %", flush=True)


SEEDS = (2, 3, 5, 8, 12)

if __name__ == "__main__":
    main()
