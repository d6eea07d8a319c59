"""Do the guarantees hold on a real trial? Calibrate on many re-drawn splits and count.

    python benchmarks/resplits.py TRIAL --store runs/cifar10 --rows 2500

Calibration and test rows of a finished trial are pooled. Each draw takes `--rows` of them, without
replacement, for calibration; candidates come from the validation split once, as always. Shown for each
target: in how many draws the chosen policy's risk is above it, on the whole pool, whose risk is the
true one of drawing from it, and on the rows left out; the mean risk on the pool; and the MACs. The rows
left out are a finite sample that is bad where the drawn one was good by chance, so that a guarantee
that is kept may look broken there more often than it promises. No policy is written.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from offramp.policy import guarantees as risk
from offramp.policy import losses, scoring
from offramp.policy.candidates import Search, candidates, loss_of
from offramp.store.store import Store
from offramp.study import trained as trial

RISKS = (0.005, 0.01, 0.02, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description="Count broken guarantees over re-drawn splits.")
    parser.add_argument("trial")
    parser.add_argument("--store", type=Path, default=Path("runs"))
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--confidence", type=float, default=0.95)
    given = parser.parse_args()
    trained = trial.read(Store(given.store), given.trial)
    splits = (trained.calibration, trained.test)
    logits = np.concatenate([s.logits for s in splits])
    labels = np.concatenate([s.labels for s in splits])
    print(f"{trained.id}: {given.draws} draws of {given.rows} of {len(labels)} images")
    print(
        f"{'risk':>12}  {'target':>6}  {'method':>15}  {'above, pool':>12}  {'above, rest':>12}"
        f"  {'mean risk':>9}  {'of plain MACs':>12}"
    )
    for kind in ("harm", "disagreement"):
        made = candidates(trained.validation, trained.exits, trained.costs, Search(), kind)
        leaves = [policy.leaves(logits) for policy in made]
        lost = loss_of(kind, scoring.answers(logits), labels)
        taken = np.column_stack([losses.taken(lost, out) for out in leaves])
        spent = np.array(
            [np.array(p.macs(trained.costs))[out].mean() for p, out in zip(made, leaves, strict=True)]
        )
        for level in RISKS:
            draw = np.random.default_rng(0)
            chosen = np.zeros((2, given.draws), dtype=int)
            rest = np.zeros((2, given.draws))
            pool = taken.mean(axis=0)
            for i in range(given.draws):
                order = draw.permutation(len(labels))
                sample, other = taken[order[: given.rows], 1:], taken[order[given.rows :]]
                chosen[0, i] = risk.learn_then_test(sample, level, given.confidence)
                chosen[1, i] = risk.conformal(sample, level)
                rest[:, i] = other[:, chosen[:, i]].mean(axis=0)
            for row, method in enumerate(("learn then test", "on average")):
                risks, macs = pool[chosen[row]], spent[chosen[row]].mean() / trained.plain_macs
                print(
                    f"{kind:>12}  {level:>6}  {method:>15}  {100 * (risks > level).mean():>10.1f} %"
                    f"  {100 * (rest[row] > level).mean():>10.1f} %"
                    f"  {100 * risks.mean():>7.2f} %  {100 * macs:>10.1f} %"
                )


if __name__ == "__main__":
    main()
