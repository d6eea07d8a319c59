"""A network that somebody else trained, as `fit` returns those that it trains."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from offramp import device as devices
from offramp.api.fit import Fitted, check_apart, check_data_fits, fitted, order_notes
from offramp.api.reporter import warn
from offramp.data import Data
from offramp.data.load import of_trained, read_for_trained
from offramp.data.notes import notes
from offramp.data.samples import Samples
from offramp.data_spec import GIVEN, HELD_OUT, Normalization
from offramp.engine import resolve
from offramp.engine.fit import split_logits
from offramp.engine.images import Images
from offramp.engine.settings import applied
from offramp.errors import OfframpError
from offramp.hashing import plain
from offramp.nets import ExitNetwork, NetSpec, pretrained
from offramp.nets.backbones.lookup import origin_of
from offramp.nets.foreign import MultiExit, Outputs
from offramp.nets.inside import drawn_module
from offramp.nets.network import identified, inside, with_trunks
from offramp.nets.own_exits import with_exits
from offramp.numerics import profile
from offramp.recipe import ADOPTED
from offramp.store.archive import HISTORY
from offramp.store.manifest import Cost, NodeLabels, NodeRecord, NodeSummary
from offramp.store.place import Place
from offramp.store.provenance import provenance
from offramp.store.store import Store
from offramp.study import trained
from offramp.study.plan.plan import Plan, Trial, trial_id
from offramp.study.run import trials
from offramp.study.spec import file as spec
from offramp.study.spec.models import Study
from offramp.units import noun


def adopt(
    net: ExitNetwork | MultiExit | nn.Module,
    calibration: Samples,
    *,
    validation: Samples | None = None,
    test: Samples | None = None,
    train: Samples | None = None,
    normalize: Normalization | None = None,
    classes: Sequence[str] | None = None,
    input_shape: Sequence[int] | None = None,
    outputs: Outputs | None = None,
    name: str = ADOPTED,
    seed: int = 0,
    store: str | Path | None = None,
    device: torch.device | str | None = None,
) -> Fitted:
    """What `fit` returns, of a network that was trained elsewhere. Nothing trains.

    It answers the images of three splits, and so has an accuracy and a compute at each exit. Then it
    calibrates, predicts, measures and exports as after `fit`. `net` itself stays as it is.

    A module that returns the logits of several exits computes all of them, whatever leaves. It is traced
    and cut at its exits, so that what lies behind an image's exit does not run. Where that cannot be
    done, the error says why.

    Give images that it was not trained on: on others its exits look better than they are. Images are as
    `fit` takes them, without a random transform. Warns as `fit` does of what to know of them.

    Args:
        net: Of `attach`, with the weights that its exits were trained to, heads included; or a module
            with exits of its own, [B, C, H, W] → a list, tuple or mapping of logits [B, classes], first
            exit first, or its description by `multi_exit`.
        calibration: Images that choose policies, (image, label) each, as `fit` takes them.
        validation: Images that policies are made on; None holds them out of calibration.
        test: Images that the results are for; None holds them out of calibration.
        train: What it was trained on, if that is at hand: the other splits are compared with it, and
            `training_shares` goes by it.
        normalize: How pixels were normalized when it was trained: `imagenet`, `half` (0.5 and 0.5),
            `clip`, `unit` (0 and 1), or (mean, deviation), each one number a channel, as shares of 255;
            `train` measures `train`. None for images that are normalized already.
        classes: Names of the classes, in the order of its answers; by default those that the Dataset
            names itself, else numbers.
        input_shape: Of a module with exits of its own: (C, H, W) of one image; by
            default that of the arrays of calibration.
        outputs: Of such a module: which of what it returns are the exits' logits (see `multi_exit`).
        name: What reports call it.
        seed: Tells several trainings of one network apart, in reports.
        store: A folder in which it is kept, for `load`, `report` and the command line; by default a
            temporary one.
        device: Where it answers; by default OFFRAMP_DEVICE, else a GPU if there is one.

    Raises:
        OfframpError: The input cannot work: a split is half in another one, pixels of which nobody says
            how to normalize them, other classes than the network has, an exit that answers NaN.

    Example:
        >>> import torch, offramp
        >>> from sklearn.datasets import load_digits
        >>> digits = load_digits()
        >>> images = torch.tensor(digits.images * 15).to(torch.uint8)[:, None]  # [1797, 1, 8, 8]
        >>> labels = torch.tensor(digits.target)
        >>> _ = torch.manual_seed(0)
        >>> module = torch.nn.Sequential(
        ...     torch.nn.Sequential(torch.nn.Conv2d(1, 16, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2)),
        ...     torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 64), torch.nn.ReLU()),
        ...     torch.nn.Linear(64, 10),
        ... )
        >>> net = offramp.attach(module, exits=["0"], input_shape=(1, 8, 8), head="linear")
        >>> optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        >>> for _ in range(30):  # a loop of your own
        ...     losses = [
        ...         torch.nn.functional.cross_entropy(exit, labels[:1000])
        ...         for exit in net(images[:1000] / 255)
        ...     ]
        ...     optimizer.zero_grad(); sum(losses).backward(); optimizer.step()
        >>> unit = ((0.0,), (1.0,))
        >>> adopted = offramp.adopt(net, (images[1000:], labels[1000:]), normalize=unit)
        >>> policy = adopted.calibrate(max_accuracy_loss=0.05)
        >>> adopted.predict(images[1000:1100], policy).exits.shape
        torch.Size([100])
    """
    shape = _shape_of(calibration) if input_shape is None else tuple(input_shape)
    net = with_exits(net, shape, outputs)
    names = tuple(map(str, range(net.classes)))
    data = of_trained(
        calibration,
        validation,
        test,
        train,
        classes=names,
        named=classes,
        normalize=normalize,
        shape=net.input_shape,
    )
    check_data_fits(net, data)
    splits = {"train": train, "validation": validation, "test": test}
    named = [split for split, samples in splits.items() if samples is not None]
    check_apart(data, named, "calibration")
    order = [] if classes else order_notes(calibration, data, "the network")
    warn([*notes(data.provenance, noun(data.shape)), *order])
    request = {"data": GIVEN, "seeds": [seed], "strategies": [{"name": ADOPTED, "as": name}]}
    backbone = {"backbone": type(net.backbone).__name__}
    study = spec.parse({**request, **(inside(net).facts.as_study or backbone)}, "adopt")
    by_name = normalize is None or isinstance(normalize, str)
    how = normalize or "train" if by_name else (data.mean, data.std)
    study = study.model_copy(update={"data": replace(study.data, normalize=how)})
    return _adopted(net, data, study, store, devices.chosen(device))


def of_study(
    study: Study, weights: str | None, store: Place | str, device: torch.device | str | None
) -> tuple[Fitted, str]:
    """As `adopt`, of a network that a name makes, `my.py:make_net`, and of data by name; and what was
    loaded into it, in words. weights: a file with all of them; None where what is made has them.

    Raises:
        OfframpError: As `adopt`, and for weights of another network.
    """
    normalize, backbone = study.data.normalize, study.backbone
    data = read_for_trained(study.data, None if normalize == "train" else normalize)
    named = NetSpec(backbone.name, tuple(backbone.options.items()))
    origin = origin_of(named, data.shape, len(data.classes))
    assert origin.make is not None
    module = drawn_module(origin.make, study.seeds[0], "initial")
    loaded = f"no file of weights: they are as {backbone.name} returns them"
    if weights is not None:
        loaded = pretrained.fill(module, weights)
    net = with_exits(module, data.shape)
    check_data_fits(net, data)
    check_apart(data, ("train", "validation", "test"), "calibration")
    file = {name: sha for name, sha in origin.identity.items() if name == "file"}
    return _adopted(net, data, study, store, devices.chosen(device), file), loaded


def _adopted(
    net: ExitNetwork,
    data: Data,
    study: Study,
    store: Place | str | None,
    device: torch.device,
    file: Mapping[str, str] = MappingProxyType({}),
) -> Fitted:
    """The network and its answers, kept as a trial of the study. file: the hash of what makes it."""
    plan, weights = _planned(net, data, study, device, file)
    name = plan.trials[0].label
    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
        target = Store(store if store is not None else Path(scratch) / "store")
        for node in plan.nodes.values():
            _keep(target, node, weights[node.key], name, device)
        read = Images(data, device, 0, plan.numerics.memory_format)
        with closing(read) as images, applied(plan.numerics):
            trials.write(plan, target, plan.trials[0], images, _answers(plan, target, images))
        return fitted(plan, target, device)


def _shape_of(samples: Any) -> tuple[int, ...] | None:
    """Of one example, where samples are arrays of images with channels first. Raises OfframpError
    where channels are surely last."""
    images = samples[0] if isinstance(samples, tuple) else None
    shape = tuple(getattr(images, "shape", ()))[1:]
    if len(shape) == 3 and shape[2] in (1, 3) and min(shape[:2]) > 4:
        height, width, channels = shape
        if isinstance(images, np.ndarray):  # which are turned as they are read
            return channels, height, width
        raise OfframpError(
            f"the images are [N, {height}, {width}, {channels}], channels last; give [N, {channels}, "
            f"{height}, {width}]: torch.as_tensor(images).permute(0, 3, 1, 2)"
        )
    return shape if len(shape) == 3 else None


def _answers(plan: Plan, store: Store, images: Images) -> trials.LogitsByName:
    """What exits answer. Raises OfframpError for NaN, before the trial is kept."""
    (trial,) = plan.trials
    net, exits = trials.assemble(plan, trial, store, images.device), list(trial.resolved.final)
    answers: trials.LogitsByName = {}
    for split in HELD_OUT:
        logits = split_logits(net, images, split, exits, trials.EVALUATION_BATCH)
        trained.check_numbers(split, logits, exits, noun(plan.data.shape))
        for at, (exit, lineage) in enumerate(trial.resolved.final.items()):
            answers[trial.seed, exit, lineage, split] = logits[:, at]
    return answers


def _planned(
    net: ExitNetwork, data: Data, study: Study, device: torch.device, file: Mapping[str, str]
) -> tuple[Plan, dict[str, resolve.StateByName]]:
    """The plan of one trial that trains nothing, and the weights of its nodes."""
    (strategy,), (seed,) = study.strategies, study.seeds
    numerics = profile(study.numerics, device.type)
    single = net if len(inside(net).trunks) == 1 else with_trunks(net, (0,) * net.exits)
    template = identified(single)
    made_by = {**inside(template).facts.identity, **file}
    resolved, weights = resolve.adopted(net, made_by, seed, numerics)
    nodes = {node.key: node for node in resolved.nodes}
    more = [list(data.mean), list(data.std), data.validation.digest]
    identity = trial_id(study, strategy.label, resolved, data, seed, more)
    trial = Trial(identity, strategy.label, strategy, seed, resolved, tuple(nodes))
    return Plan(study, data, template, numerics, (trial,), nodes, work={}), weights


def _keep(
    store: Store, node: resolve.Node, weights: resolve.StateByName, name: str, device: torch.device
) -> None:
    """Write a node that nothing trained: it has no history, and cost nothing here."""
    labels = NodeLabels(phase=node.name, seed=node.seed, trains=(), strategies=(name,))
    summary = NodeSummary(epochs=0, best_epoch=0, selected_epoch=0, validation_loss=0.0)
    record = NodeRecord(
        key=node.key,
        reads=plain(node.reads),
        labels=labels,
        provenance=provenance(device),
        summary=summary,
    )
    nothing = Cost(seconds={}, macs_written=0, macs_executed=0, comparable=False)
    store.write_node(record, weights, pd.DataFrame({name: [] for name in HISTORY.columns}), nothing)
