"""Answers of early-exit networks that never were: planted skill, with luck of seeds and of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from offramp.analysis.measures import numbers
from offramp.analysis.recommend import Facts
from offramp.analysis.recommend.goals import TrialKey
from offramp.analysis.tradeoff import NetAnswers
from simulate import Planted, tidy_table

MODEL, DATA = "resnet50", "cifar100"
SKILL = np.array([-0.2, 0.3, 0.7, 1.0])  # of the exits, beside images of which most are between -2 and 2
MACS = (1e6, 2e6, 3e6, 4e6)


@dataclass(frozen=True)
class Skill:
    """What is planted, by strategy. shift: everywhere.  tilt: more at later exits, less at earlier
    ones.  macs: of its exits, where they are not MACS."""

    shift: Mapping[str, float] = field(default_factory=dict)
    tilt: Mapping[str, float] = field(default_factory=dict)
    macs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


FOUR = ("joint", "two-stage", "separate", "distillation")
NAMES = {(MODEL, s): s for s in FOUR}
NOTHING = Skill()
NO_EFFECT = Planted()


def answers(
    seed: int,
    strategies: Sequence[str],
    skill: Skill = NOTHING,
    *,
    seeds: int = 5,
    images: int = 2000,
    luck: float = 0.05,
    taste: float = 0.3,
) -> dict[TrialKey, NetAnswers]:
    """luck: of a strategy's seeds.  taste: of a strategy in images, the same in all of its seeds."""
    generator = np.random.default_rng(seed)
    hard = generator.normal(0, 1.3, images)
    actual = {}
    for strategy in strategies:
        able = (
            SKILL
            + skill.shift.get(strategy, 0.0)
            + skill.tilt.get(strategy, 0.0) * np.linspace(-1, 1, 4)
        )
        liked = generator.normal(0, taste, images)
        for k in range(seeds):
            own = generator.normal(0, 0.3, images) + generator.normal(0, luck)
            sense = able[None, :] - hard[:, None] + liked[:, None] + own[:, None]
            right = sense + generator.normal(0, 0.4, (images, 4)) > 0
            sure = 1 / (1 + np.exp(-np.abs(sense + generator.normal(0, 0.5, (images, 4)) + 0.5)))
            macs = skill.macs.get(strategy, MACS)
            key = f"{strategy}-{k}"
            actual[MODEL, DATA, strategy, 42 + k] = NetAnswers(sure, right, macs, "these", source=key)
    return actual


def facts(
    seed: int,
    strategies: Sequence[str],
    skill: Skill = NOTHING,
    planted: Planted = NO_EFFECT,
    **more: object,
) -> Facts:
    """Facts of such networks: their accuracy at each exit is what the table says. planted: what else is
    in the table."""
    built = answers(seed, strategies, skill, **more)  # type: ignore[arg-type]
    seeds = len({key[3] for key in built})
    table = tidy_table(seed, planted, strategies=strategies, seeds=seeds)
    values = {
        (strategy, number, k + 1): float(a.right[:, k].mean())
        for (_, _, strategy, number), a in built.items()
        for k in range(4)
    }
    at = (table["split"] == "test") & (table["metric"] == "accuracy") & table["exit"].notna()
    places = zip(table.loc[at, "strategy"], table.loc[at, "seed"], table.loc[at, "exit"], strict=True)
    table.loc[at, "value"] = [values[s, int(n), int(e)] for s, n, e in places]
    return Facts(numbers(table), built, frozenset({"two-stage"}))


@cache
def equal() -> Facts:
    """Of four that are alike; as those below, to be read: what is computed of it stays."""
    return facts(1, FOUR)


@cache
def better() -> Facts:
    """Of which joint is better everywhere."""
    return facts(1, FOUR, Skill(shift={"joint": 0.6}))


@cache
def crossing() -> Facts:
    """Of which joint is better late and separate early."""
    return facts(1, FOUR, Skill(tilt={"joint": 0.4, "separate": -0.4}))
