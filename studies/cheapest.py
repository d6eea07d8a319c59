"""What docs/results/cheapest.md asks, answered: python studies/cheapest.py STORE

Early exits on a small network, beside cascades of plain networks and a plain network of equal compute.
It reads validation, calibration and test logits from the store that cheapest.sh filled. Before every
seed is there it names what is missing and looks at no test image.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from offramp.analysis.stats.pairwise import Estimate, crossed, p_values
from offramp.data.splits import stratified
from offramp.policy.cascade import (
    Cascade,
    Member,
    cascades,
    of_stages,
    outcome,
    shares_within,
    thresholds,
)
from offramp.store.archive import Archive

Floats = NDArray[np.float64]
SEEDS = {"cifar100": range(101, 109), "cifar10": range(101, 106)}
EARLIER = 2000  # test images of the earlier studies of CIFAR-100
WIDTHS = ("small", "slim", "tiny", "mini", "micro")
ALONE = ("slim", 31)  # the plain network of equal compute, and its epochs
EPOCHS = 19  # of the others


@dataclass(frozen=True, eq=False)
class Trained:
    """What one seed trained: logits by member and split, and labels by split."""

    logits: Mapping[Member, Mapping[str, Floats]]
    labels: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Choice:
    """A cascade, and the shares of images that go on."""

    cascade: Cascade
    shares: tuple[float, ...]

    def __str__(self) -> str:
        names = " → ".join(
            f"{stage.network}{f' exit {stage.depth}' if stage.depth else ''}"
            for stage in self.cascade.stages
        )
        how = "combined" if self.cascade.combined else "alone"
        on = ", ".join(f"{100 * share:.0f} %" for share in self.shares)
        return f"{names} ({how}, {self.cascade.sureness}{f'; {on} go on' if on else ''})"


def read(store: Archive, seed: int) -> tuple[Trained, Trained, Trained, dict[str, float]]:
    """The exits, the plain networks and the one of equal compute; and training MACs by name."""
    parts: tuple[dict[Member, Mapping[str, Floats]], ...] = ({}, {}, {})
    labels: dict[str, NDArray[np.int64]] = {}
    spent: dict[str, float] = {}
    for trial in store.trials():
        manifest = store.read_trial(trial)
        if manifest.seed != seed:
            continue
        width, epochs = str(dict(manifest.network.options)["width"]), manifest.recipe.epochs
        work = sum(store.node_cost(phase.node).macs_executed for phase in manifest.phases)
        arrays = store.trial_logits(trial)
        labels |= {name: arrays[f"{name}_labels"] for name in ("validation", "calibration", "test")}
        if manifest.strategy == "joint-branch":
            part, depths, name = parts[0], range(1, len(manifest.exits) + 1), f"exits of {width}"
        else:
            alone = (width, epochs) == ALONE
            part, depths, name = parts[2 if alone else 1], range(1), f"{width}, {epochs} epochs"
        spent[name] = work
        for place, depth in enumerate(depths):
            member = Member(width, depth, float(manifest.macs[place]))
            part[member] = {
                split: np.asarray(arrays[split][:, place], dtype=np.float64)
                for split in ("validation", "calibration", "test")
            }
    exits, plain, alone = (Trained(part, labels) for part in parts)
    return exits, plain, alone, spent


def choose(seeds: Sequence[Trained], budget: float) -> Choice:
    """The choice with the highest mean accuracy on validation, its thresholds set on calibration."""
    best, most = None, -1.0
    for cascade in cascades(sorted(seeds[0].logits, key=lambda m: (m.network, m.depth))):
        shares = list(shares_within(cascade, budget))
        if not shares:
            continue
        answers = [{split: staged(seed, cascade, split) for split in SPLITS} for seed in seeds]
        for share in shares:
            accuracies = [
                outcome(
                    cascade,
                    each["validation"],
                    thresholds(each["calibration"], cascade.sureness, share),
                    seed.labels["validation"],
                ).accuracy
                for seed, each in zip(seeds, answers, strict=True)
            ]
            if (mean := float(np.mean(accuracies))) > most:
                best, most = Choice(cascade, share), mean
    assert best is not None
    return best


SPLITS = ("validation", "calibration")


def staged(seed: Trained, cascade: Cascade, split: str) -> list[Floats]:
    return of_stages(cascade, {stage: seed.logits[stage][split] for stage in cascade.stages})


def tested(seeds: Sequence[Trained], choice: Choice, rows: NDArray[np.bool_]) -> tuple[Floats, float]:
    """Right answers [seeds, images] on the test images of `rows`, and the mean compute."""
    right, costs = [], []
    for seed in seeds:
        chosen = thresholds(
            staged(seed, choice.cascade, "calibration"), choice.cascade.sureness, choice.shares
        )
        test = [stage[rows] for stage in staged(seed, choice.cascade, "test")]
        result = outcome(choice.cascade, test, chosen, seed.labels["test"][rows])
        right.append(result.right.astype(float))
        costs.append(result.cost)
    return np.array(right), float(np.mean(costs))


def one_sided(estimate: Estimate) -> float:
    """p of a mean difference above zero."""
    (both,) = p_values(
        np.array([estimate.mean]),
        np.array([estimate.between / estimate.blocks]),
        np.array([estimate.shared]),
        np.array([estimate.blocks - 1.0]),
    )
    return float(both / 2 if estimate.mean > 0 else 1 - both / 2)


def fresh(labels: NDArray[np.int64], data: str) -> NDArray[np.bool_]:
    """Which test images no earlier study has used; of CIFAR-10 all were."""
    rows = np.ones(len(labels), dtype=bool)
    if data == "cifar100":
        rows[stratified(torch.from_numpy(labels), EARLIER, 0, "subset of test").numpy()] = False
    return rows


def missing(store: Archive, seeds: Sequence[int]) -> list[str]:
    """What is not trained yet, in words."""
    there = set()
    for trial in store.trials():
        manifest = store.read_trial(trial)
        width = str(dict(manifest.network.options)["width"])
        there.add((manifest.seed, manifest.strategy == "joint-branch", width, manifest.recipe.epochs))
    wanted = [(True, "small", 16), (False, *ALONE), *((False, width, EPOCHS) for width in WIDTHS)]
    return [
        f"seed {seed}: {'exits of ' if exits else ''}{width}, {epochs} epochs"
        for seed in seeds
        for exits, width, epochs in wanted
        if (seed, exits, width, epochs) not in there
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("--seeds", type=int, nargs="*", help="whole ones, where a machine was lost")
    options = parser.parse_args()
    store = Archive(options.store)
    data = store.read_trial(store.trials()[0]).data.name
    seeds = options.seeds or list(SEEDS[data])
    if lacks := missing(store, seeds):
        print(f"{len(lacks)} trainings are not there yet:", *lacks, sep="\n  ")
        raise SystemExit(1)
    exits, plain, alone, spent = zip(*(read(store, seed) for seed in seeds), strict=True)
    (equal,) = alone[0].logits
    rows = fresh(alone[0].labels["test"], data)
    print(
        f"{data}, {len(seeds)} seeds, {rows.sum():,} test images, {equal.cost / 1e6:.2f} MMACs an image"
    )
    results = {}
    for name, side in (("exits", exits), ("cascade", plain), ("alone", alone)):
        choice = choose(side, equal.cost)
        right, cost = tested(side, choice, rows)
        results[name] = right
        print(f"{name}: {choice}: {100 * right.mean():.2f} % at {cost / 1e6:.2f} MMACs")
    for name, work in spent[0].items():
        print(f"training, {name}: {work / 1e12:.1f} T MACs")
    for rival in ("cascade", "alone"):
        estimate = crossed(results["exits"] - results[rival])
        error = np.sqrt(estimate.between / estimate.blocks + estimate.shared)
        print(
            f"exits - {rival}: {100 * estimate.mean:+.2f} points, standard error {100 * error:.2f}, "
            f"one-sided p {one_sided(estimate):.4f}"
        )


if __name__ == "__main__":
    main()
