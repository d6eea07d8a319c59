"""A store with all the nodes and trials of a study, of which nothing was trained.

Keys, lineage, sizes and files are as a run leaves them, written by the store itself; weights are the
network's initial ones and every other number is drawn. So commands can be timed on thousands of trials.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from offramp.engine.cost import exit_shares
from offramp.engine.images import Images
from offramp.engine.resolve import Node
from offramp.hashing import plain
from offramp.nets.network import inside
from offramp.store.manifest import Cost, NodeLabels, NodeRecord, NodeSummary
from offramp.store.provenance import provenance
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run import trials
from offramp.study.run.costs import USED
from offramp.study.spec import file as spec

CPU = torch.device("cpu")


def make_store(root: Path, study: Path, settings: Sequence[str] = ()) -> Store:
    """The finished store of a study file with `settings`, as of `--set`, or what it lacks of one that is
    there."""
    plan = make_plan(spec.read(study, settings))
    store, users, made_with = Store(root), plan.users, provenance(CPU)
    rng = np.random.default_rng(0)
    for key, node in plan.nodes.items():
        labels = NodeLabels(
            phase=node.name,
            seed=node.seed,
            strategies=tuple(users[key]),
            trains=tuple(map(str, sorted(node.trained))),
        )
        weights = {
            n: t.detach() for part in node.trained for n, t in inside(plan.net).state(part).items()
        }
        best = int(rng.integers(1, node.recipe.epochs + 1))
        summary = NodeSummary(
            epochs=node.recipe.epochs,
            best_epoch=best,
            selected_epoch=best,
            validation_loss=float(rng.uniform()),
        )
        record = NodeRecord(
            key=key, reads=plain(node.reads), labels=labels, provenance=made_with, summary=summary
        )
        history, cost = _history(plan, node, rng), _cost(plan, node, rng)
        store.write_node(record, weights, history, cost)
    images = Images(plan.data, CPU)
    shapes = {split: (len(s), plan.net.classes) for split, s in plan.data.splits.items()}
    names = {name for trial in plan.trials for name in trials.answered(trial)}
    answers = {
        name: rng.normal(size=shapes[name[3]]).astype(np.float32) for name in sorted(names, key=repr)
    }
    for trial in plan.trials:
        trials.write(plan, store, trial, images, answers)
    return store


def _history(plan: Plan, node: Node, rng: np.random.Generator) -> pd.DataFrame:
    exits = [("", "loss")]
    exits += [(plan.net.places[k - 1], m) for k in node.exits for m in ("cross_entropy", "accuracy")]
    last = node.recipe.epochs
    rows = [
        (epoch, split, *exit)
        for epoch in range(1, last + 1)
        for split in ("train", "validation", *(["train-eval"] if epoch == last else []))
        for exit in exits
    ]
    history = pd.DataFrame(rows, columns=["epoch", "split", "exit", "metric"])
    return history.assign(value=rng.uniform(size=len(rows)))


def _cost(plan: Plan, node: Node, rng: np.random.Generator) -> Cost:
    kinds = ("preparation", "train", "validation", "evaluation")
    shares, work = exit_shares(node, plan.net), plan.work[node.key]
    return Cost(
        seconds={kind: float(rng.uniform(0.1, 10)) for kind in kinds},
        exit_shares={plan.net.places[exit - 1]: share for exit, share in shares.items()},
        macs_written=work.written,
        macs_executed=work.executed,
        used=dict.fromkeys(USED),
        comparable=False,
    )
