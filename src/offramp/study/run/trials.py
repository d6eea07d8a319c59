"""A finished trial: its manifest, its logits, and the network it describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from offramp import usercode
from offramp.analysis import imbalance
from offramp.analysis.exits import accuracy, cross_entropy
from offramp.augment import Augment
from offramp.data import Data
from offramp.data.dataset import FileSplit
from offramp.engine.cost import exit_macs
from offramp.engine.evaluate import split_logits
from offramp.engine.images import Images
from offramp.engine.resolve import Lineage, Source
from offramp.engine.weights import Weights
from offramp.errors import Changed, OfframpError
from offramp.hashing import canonical, plain
from offramp.nets import ExitNetwork, NetSpec, build
from offramp.parts import backbone, path
from offramp.store.provenance import provenance
from offramp.store.store import Damaged, Store
from offramp.study.plan.plan import Plan, Trial, data_spec, net_spec
from offramp.usercode import Recorded

EVALUATED = ("validation", "calibration", "test")
EVALUATION_BATCH = 128


def damage(store: Store, trial: str) -> Damaged | None:
    """What is wrong with a trial's files, every byte checked; None where nothing is."""
    try:
        store.trial_logits(trial)
    except Damaged as error:
        return error
    return None


def assemble(plan: Plan, trial: Trial, store: Store, device: torch.device) -> ExitNetwork:
    """The finished network of a trial whose nodes are in the store."""
    layout = plan.numerics.memory_format
    weights = Weights(plan.net, trial.seed, store.node_weights, device, layout)
    return weights.assembled(trial.resolved.final, trial.resolved.owners)


Answers = dict[tuple[int, int, Lineage, str], np.ndarray]  # by seed, exit, weights and split


def answered(trial: Trial) -> set[tuple[int, int, Lineage, str]]:
    """What a trial's logits are made of: one entry for each exit and split."""
    final = trial.resolved.final.items()
    return {(trial.seed, k, way, split) for k, way in final for split in EVALUATED}


def write(plan: Plan, store: Store, trial: Trial, images: Images, answers: Answers) -> None:
    """Assemble the trial's network, compute its logits on three splits, and keep both.

    answers: logits [N, classes] that other trials have computed already; those of this one are added.

    Raises Changed as `check_unchanged`; nothing is written then.
    """
    net = assemble(plan, trial, store, images.device)
    exits = list(trial.resolved.final)
    arrays: dict[str, np.ndarray] = {}
    metrics: dict[str, Any] = {}
    for split in EVALUATED:
        labels = getattr(plan.data, split).labels.cpu().numpy()
        names = {k: (trial.seed, k, trial.resolved.final[k], split) for k in exits}
        new = [k for k in exits if names[k] not in answers]
        if new:
            found = split_logits(net, images, split, new, EVALUATION_BATCH)
            answers |= {names[k]: found[:, i] for i, k in enumerate(new)}
        logits = np.stack([answers[names[k]] for k in exits], axis=1)
        arrays[split], arrays[f"{split}_labels"] = logits, labels
        metrics[split] = {
            "accuracy": accuracy(logits, labels).tolist(),
            "cross_entropy": cross_entropy(logits, labels).tolist(),
        }
        if imbalance.uneven(plan.data.train.labels.cpu().numpy(), len(plan.data.classes)):
            metrics[split] |= imbalance.metrics(logits, labels)
    check_unchanged(plan.data, EVALUATED, trial.id)
    store.write_trial(trial.id, _manifest(plan, trial, net, metrics), arrays)


def check_unchanged(data: Data, splits: Sequence[str], key: str) -> None:
    """Raises Changed, naming it, for an image file that was read as it was needed and is no longer what
    the plan's keys were made of. splits: which to look at.  key: chooses the files that are read for
    that, a few hundred at most of a split (see `offramp.data.images.manifest.changed`)."""
    for split in {id(found): found for found in map(data.splits.get, splits)}.values():
        name = split.changed(key) if isinstance(split, FileSplit) else None
        if name is not None:
            raise Changed(
                f"{name} changed while it was trained on, so what was at work is not kept; run "
                "`offramp data check --fresh`, which names all that changed, then the same command again"
            )


def _manifest(plan: Plan, trial: Trial, net: ExitNetwork, metrics: dict[str, Any]) -> dict[str, Any]:
    study, data = plan.study, plan.data
    exits = list(trial.resolved.final)
    return {
        "strategy": trial.label,
        "program": trial.strategy.name,
        "options": plain(trial.strategy.options),
        "study": study.name,
        "seed": trial.seed,
        "phases": [{"name": n.name, "node": n.key} for n in trial.resolved.nodes],
        "marginal": list(trial.marginal),
        "exits": exits,
        "places": list(net.places),
        "final": {str(k): [plain(s) for s in way] for k, way in trial.resolved.final.items()},
        "owners": list(trial.resolved.owners),
        "macs": [exit_macs(net, exits[: i + 1]) for i in range(len(exits))],
        "backbone_macs": sum(net.macs(part) for part in backbone(net.exits)),
        "parameters": [_parameters(net, exits[: i + 1]) for i in range(len(exits))],
        "metrics": metrics,
        "network": plain(net_spec(study)),
        "initial": net.initial,
        "input_shape": list(data.shape),
        "classes": list(data.classes),
        "mean": list(data.mean),
        "std": list(data.std),
        "data": {
            "name": data.name,
            "augment": _augment(data.augment),
            "spec": plain(data_spec(study)),
            "provenance": plain(data.provenance),
            **{split: getattr(data, split).digest for split in ("train", *EVALUATED)},
        },
        "recipe": study.recipe.model_dump(mode="json"),
        "execution": study.execution.model_dump(mode="json"),
        "numerics": plain(plan.numerics),
        "provenance": provenance(next(net.parameters()).device),
    }


def _augment(augment: Augment | None) -> dict[str, Any] | None:
    """Its fields that are set, and `label`, what tables call it."""
    return None if augment is None else {**plain(augment.changes), "label": str(augment)}


def _parameters(net: ExitNetwork, passed: Sequence[int]) -> int:
    """Parameters of the network that is cut off after the last of the exits `passed`."""
    held = {(net.trunk_of[k - 1], part) for k in passed for part in path(k)}
    return sum(net.parameter_count(part) for _, part in held)


def recorded_code(store: Store, trial: str, data: bool = False) -> dict[str, Recorded]:
    """The code of somebody's own that rebuilding a trial's network would run, by its name
    (`net.py:make_net`); with `data`, that of its data too. Not trusted yet; nothing runs here."""
    manifest = store.read_trial(trial)
    found = {}
    if usercode.is_user_code(net := manifest["network"]["backbone"]):
        trained = store.read_node(manifest["phases"][0]["node"]).reads["network"]
        found[net] = Recorded(trained.get("file"))
    made = (manifest["data"].get("spec") or manifest["data"])["name"]
    if data and usercode.is_user_code(made):
        found[made] = data_code(manifest)
    return found


def data_code(manifest: Mapping[str, Any], trust_code: bool = False) -> Recorded:
    """What is recorded of the code that made a trial's data, if code did."""
    source = manifest["data"]["provenance"].get("source")
    sha256 = source.get("sha256") if isinstance(source, Mapping) else None
    return Recorded(sha256, trust_code)


def load_network(
    store: Store,
    trial: str,
    device: torch.device,
    attached: ExitNetwork | None = None,
    trust_code: bool = False,
) -> ExitNetwork:
    """The trained network of a trial, in eval mode, on `device`. attached: the network to fill a copy
    of, where the trial's was attached in Python.  trust_code: see `blank_network`.

    Raises OfframpError for a trial whose network or files are gone.
    """
    manifest = store.read_trial(trial)
    net = (
        blank_network(store, trial, trust_code)
        if attached is None
        else _checked(store, trial, attached.identified())
    )
    final: dict[int, Lineage] = {
        int(k): tuple(Source(s["node"], s["draw"]) for s in way) for k, way in manifest["final"].items()
    }
    weights = Weights(net, manifest["seed"], store.node_weights, device)
    return weights.assembled(final, tuple(manifest["owners"]))


def blank_network(store: Store, trial: str, trust_code: bool = False) -> ExitNetwork:
    """A trial's network without what it learned. trust_code: run the file that the store names, where
    the backbone is code of somebody's own.

    Raises OfframpError for a backbone that has changed since, or whose file is gone or not trusted.
    """
    manifest = store.read_trial(trial)
    spec = _net_spec(manifest["network"])
    trained = store.read_node(manifest["phases"][0]["node"]).reads["network"]
    if "state" in trained:
        raise OfframpError(
            f"the network of trial {trial} was attached in Python and has no name to make it by; "
            "attach it the same way and give it to offramp.load as net="
        )
    shape = tuple(manifest["input_shape"])
    net = build(
        spec,
        (shape[0], shape[1], shape[2]),
        len(manifest["classes"]),
        manifest["seed"],
        Recorded(trained.get("file"), trust_code),
    )
    same = canonical(net.identity) == canonical(trained)
    if not same or list(net.places) != manifest["places"]:
        raise OfframpError(
            f"the backbone '{spec.backbone}' is not what trial {trial} was trained on; "
            "bring back its code as it was, or train again"
        )
    return net


def _checked(store: Store, trial: str, net: ExitNetwork) -> ExitNetwork:
    """`net`, if it is what the trial was trained on. Raises OfframpError where it is not."""
    manifest = store.read_trial(trial)
    heads = {p: plain(spec) for p, spec in zip(net.places, net.head_specs, strict=False)}
    same = list(net.places) == manifest["places"] and net.classes == len(manifest["classes"])
    for phase in manifest["phases"]:
        reads = store.read_node(phase["node"]).reads
        same = same and canonical(reads["network"]) == canonical(net.identity)
        for place, exit in reads["exits"].items():
            same = same and exit["head"]["spec"] == heads.get(place, "classifier")
    if not same:
        raise OfframpError(
            f"net is not what trial {trial} was trained on; attach the same module, with the weights it "
            "had then, with the same taps and heads"
        )
    return net


def _net_spec(fields: dict[str, Any]) -> NetSpec:
    def pairs(value: list[list[Any]]) -> tuple[tuple[str, Any], ...]:
        return tuple((str(k), tuple(v) if isinstance(v, list) else v) for k, v in value)

    taps = fields["taps"]
    return NetSpec(
        backbone=fields["backbone"],
        options=pairs(fields["options"]),
        taps=tuple(taps) if isinstance(taps, list) else taps,
        head=pairs(fields["head"]),
        weights=fields.get("weights"),
    )
