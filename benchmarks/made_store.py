"""A store with all the nodes and trials of a study, of which nothing was trained.

Keys, lineage, sizes and files are as a run leaves them, written by the store itself; weights are the
network's initial ones and every other number is drawn. So commands can be timed on thousands of trials.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from offramp.engine.cost import exit_shares
from offramp.engine.images import Images
from offramp.engine.resolve import Node
from offramp.store.provenance import provenance
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run import trials
from offramp.study.run.costs import USED
from offramp.study.spec import models as spec

CPU = torch.device("cpu")


def make_store(root: Path, study: Path, settings: Sequence[str] = ()) -> Store:
    """The finished store of a study file with `settings`, as of `--set`."""
    plan = make_plan(spec.read(study, settings))
    store = Store(root)
    rng = np.random.default_rng(0)
    users, made_with = plan.users, provenance(CPU)
    for key, node in plan.nodes.items():
        labels = {"phase": node.name, "seed": node.seed, "strategies": users[key]}
        labels["trains"] = [str(part) for part in sorted(node.trained)]
        weights = _weights(plan, node)
        summary = _summary(node, rng)
        history, cost = _history(plan, node, rng), _cost(plan, node, rng)
        store.write_node(key, node.reads, labels, made_with, summary, weights, history, cost)
    images = Images(plan.data, CPU)
    answers = _answers(plan, rng)
    for trial in plan.trials:
        trials.write(plan, store, trial, images, answers)
    return store


def _weights(plan: Plan, node: Node) -> dict[str, Tensor]:
    return {n: t.detach() for part in node.trained for n, t in plan.net.state(part).items()}


def _summary(node: Node, rng: np.random.Generator) -> dict[str, Any]:
    epochs = node.recipe.epochs
    kept = int(rng.integers(1, epochs + 1))
    loss = float(rng.uniform())
    return {
        "epochs": epochs,
        "best_epoch": kept,
        "selected_epoch": kept,
        "validation_loss": loss,
    }


def _history(plan: Plan, node: Node, rng: np.random.Generator) -> pd.DataFrame:
    exits = [
        ("", ("loss",)),
        *((plan.net.places[k - 1], ("cross_entropy", "accuracy")) for k in node.exits),
    ]
    rows = [
        (epoch, split, exit, metric)
        for epoch in range(1, node.recipe.epochs + 1)
        for split in ("train", "validation", *(["train-eval"] if epoch == node.recipe.epochs else []))
        for exit, metrics in exits
        for metric in metrics
    ]
    history = pd.DataFrame(rows, columns=["epoch", "split", "exit", "metric"])
    return history.assign(value=rng.uniform(size=len(rows)))


def _cost(plan: Plan, node: Node, rng: np.random.Generator) -> dict[str, Any]:
    kinds = ("preparation", "train", "validation", "evaluation")
    seconds: Mapping[str, float] = {kind: float(rng.uniform(0.1, 10)) for kind in kinds}
    shares = exit_shares(node, plan.net)
    work = plan.work[node.key]
    return {
        "seconds": seconds,
        "exit_shares": {plan.net.places[exit - 1]: share for exit, share in shares.items()},
        "macs_written": work.written,
        "macs_executed": work.executed,
        "used": dict.fromkeys(USED),
        "idle": {"power_cpu_w": None, "power_gpu_w": None},
        "not_measured": {},
        "mode": "derived",
        "cache": True,
        "group": 1,
        "workers": 1,
        "comparable": False,
    }


def _answers(plan: Plan, rng: np.random.Generator) -> trials.Answers:
    """Logits for every weights that any trial ends with."""
    names = {name for trial in plan.trials for name in trials.answered(trial)}
    shapes = {split: (len(s), plan.net.classes) for split, s in plan.data.splits.items()}
    drawn = sorted(names, key=repr)
    return {name: rng.normal(size=shapes[name[3]]).astype(np.float32) for name in drawn}
