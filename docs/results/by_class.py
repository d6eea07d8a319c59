"""Policies with a threshold for each class beside those with one for all, on committed packs:

    python docs/results/by_class.py

Packs have no validation logits, so policies are made on half of the 2,500 calibration images and chosen
on the other half, for a loss of accuracy of at most one point. Test images only report.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import offramp
from offramp.store.pack import read

HERE = Path(__file__).parent
STRATEGIES = ("joint", "joint-branch", "two-stage", "mixed")


def main() -> None:
    for seed in range(42, 47):
        for name in ("cifar10", "cifar10-ways"):
            pack = read(HERE / name / str(seed))
            for trial in pack.trials():
                manifest = pack.read_trial(trial)
                again = name != "cifar10" and manifest.strategy == "joint"  # in both
                if manifest.strategy in STRATEGIES and not again:
                    arrays = pack.trial_logits(trial)
                    segments, heads = manifest.part_macs
                    owners, exits, carry = manifest.owners, manifest.exits, manifest.carry
                    costs = offramp.Costs(segments, heads, owners, exits, carry)
                    print(seed, manifest.strategy, *of_trial(arrays, costs, manifest.backbone_macs))


def of_trial(arrays: dict[str, np.ndarray], costs: offramp.Costs, plain_macs: int) -> list[str]:
    """MACs as a share of the plain network's, and accuracy, on test, of both policies."""
    logits, labels = (arrays[name].astype(np.float32) for name in ("test", "test_labels"))
    cells = []
    for score in ("confidence", "classwise"):
        policy = offramp.calibrate(
            logits=arrays["calibration"].astype(np.float32),
            labels=arrays["calibration_labels"].astype(np.int64),
            costs=costs,
            max_accuracy_loss=0.01,
            score=score,
            anyway=True,
        )
        leaves = policy.leaves(logits)
        spent = np.asarray(policy.macs(costs))[leaves].mean() / plain_macs
        right = (logits[np.arange(len(leaves)), leaves].argmax(axis=1) == labels).mean()
        cells.append(f"{score}: {100 * spent:.2f} % of MACs, {100 * right:.2f} % right")
    return cells


if __name__ == "__main__":
    main()
