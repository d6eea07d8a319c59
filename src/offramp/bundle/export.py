"""From a trial and its policy to a bundle that runs without PyTorch."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offramp.bundle import card, graphs
from offramp.bundle import folder as bundle
from offramp.bundle.preprocessing import Preprocessing
from offramp.data import DataSpec, Split, load, normalize
from offramp.data.fetch import kept
from offramp.errors import OfframpError
from offramp.nets import ExitNetwork
from offramp.policy import policy, useful
from offramp.policy.evaluate import evaluate
from offramp.policy.policy import Policy
from offramp.store.manifest import GeometryRecord, Manifest
from offramp.store.store import Store
from offramp.study import trained as trials
from offramp.study.run.trials import data_code, load_network
from offramp.study.trained import Trained

RANDOM_IMAGES = 256


@dataclass(frozen=True)
class Asked:
    """root: the folder of the data set's files, for the check, where the trial's is gone.  check:
    compare with PyTorch.  measure: time the stages.  force: replace a bundle that is there.
    trust_code: see `offramp.study.run.trials.blank_network`; of the data's code too, for the check.
    anyway: write what is not to be trusted, marked as such.  doubts: what else speaks against it."""

    root: str | None = None
    check: bool = True
    measure: bool = True
    force: bool = False
    trust_code: bool = False
    anyway: bool = False
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exported:
    """folder: of the bundle.  card: in types of JSON.

    >>> done = fitted.export("exported", policy, check=False, measure=False)
    >>> done.folder.name
    'exported'
    """

    folder: Path
    card: dict[str, Any]


def export(
    store: Store, prefix: str, rule: Policy, out: Path, asked: Asked
) -> Generator[str, None, Exported]:
    """Write the bundle of a trial, whole or not at all; yields what it does, in words.

    Raises OfframpError for a policy of another trial, a place that is taken, a network that cannot be
    a graph, a bundle that answers otherwise than PyTorch, and as `useful.check` does.
    """
    graphs.check_installed()
    bundle.check_place(out, asked.force)
    yield "reading the trial"
    trained = trials.read(store, prefix, asked.trust_code)
    net = load_network(store, trained.id, torch.device("cpu"), trust_code=asked.trust_code)
    return (yield from of_network(net, rule, trained, store.read_trial(trained.id), out, asked))


def of_network(
    net: ExitNetwork,
    rule: Policy,
    trained: Trained,
    manifest: Manifest,
    out: Path,
    asked: Asked,
    images: tuple[Tensor, str] | None = None,
) -> Generator[str, None, Exported]:
    """As `export`, of a network at hand. net: in eval mode, on the CPU.  images: normalized ones to
    compare on, and what they are; None reads the test split where it can be read."""
    graphs.check_installed()
    bundle.check_place(out, asked.force)
    policy.check_fits(rule, trained.id, trained.hash, trained.exits)
    doubts = (*asked.doubts, *useful.doubts(rule, trained.calibration))
    useful.check(doubts, asked.anyway)
    with bundle.writing(out, asked.force) as folder:
        made = yield from _fill(folder, net, rule, trained, manifest, doubts)
        if asked.check:
            yield "comparing with PyTorch"
            from offramp.bundle import parity, runtime  # needs onnxruntime, an extra

            images = images or _images(net, manifest, asked)
            made = card.with_check(made, parity.compare(runtime.Bundle(folder), net, rule, *images))
        else:
            made = card.with_check(made, None)
        if asked.measure:
            yield "measuring the stages"
        times = bundle.measured(folder) if asked.measure else {"reason": "left out (--no-measure)"}
        made = card.with_latency(made, times)
        bundle.write_json(folder / "card.json", made)
        (folder / "card.md").write_text(card.markdown(made), encoding="utf-8")
        bundle.seal(folder)
    return Exported(out, made)


def _fill(
    folder: Path,
    net: ExitNetwork,
    rule: Policy,
    trained: Trained,
    manifest: Manifest,
    doubts: tuple[str, ...],
) -> Generator[str, None, dict[str, Any]]:
    """All but the card's files; returns the card without check and times."""
    numbers = [rule.exits[i] for i in rule.active]
    parts = graphs.layout(net.trunk_of, numbers)
    for at, stage in enumerate(graphs.export(net, parts, folder), start=1):
        yield f"stage {at} of {len(parts)}: up to exit {stage.exit}"
    flat = graphs.flattened(net, numbers)
    spent = rule.macs(trained.costs)
    stages = [
        {"file": p.file, "exit": p.exit, "after": p.after, "macs": spent[i]}
        for p, i in zip(parts, rule.active, strict=True)
    ]
    about = {"format": 1, "normalized": manifest.normalized, "plain_macs": trained.plain_macs}
    stages_json = {
        **about,
        "unreliable": list(doubts),
        "fixed_size": _fixed_size(flat),
        "stages": stages,
    }
    bundle.write_json(folder / "stages.json", stages_json)
    (folder / "policy.json").write_text(policy.to_json(rule), encoding="utf-8")
    bundle.write_json(folder / "labels.json", list(trained.classes))
    try:
        pictures = preprocessing(manifest).as_json()
    except ValueError as error:
        raise OfframpError(f"a bundle answers pictures: {error}; train on gray or RGB images") from None
    bundle.write_json(folder / "preprocessing.json", pictures)
    bundle.copy_sources(folder)
    bundle.seal(folder)
    tested = evaluate(rule, trained.test, trained.costs, trained.classes)
    own = len({p.trunk for p in parts}) > 1
    made = card.card(manifest, trained, rule, tested, own, flat)
    return {"unreliable": list(doubts), **made}


def _fixed_size(flat: tuple[int, ...]) -> str:
    if not flat:
        return "its stages were exported for that size"
    exits = f"exit {flat[0]}" if len(flat) == 1 else f"exits {', '.join(map(str, flat))}"
    return f"the head of {exits} flattens its map, which fits one size only"


def preprocessing(manifest: Manifest) -> Preprocessing:
    """What the training data's geometry does, for a picture. Means nothing where the images came
    normalized.

    Raises ValueError for a network of other channels than pictures have.
    """
    channels, height, width = manifest.input_shape
    geometry = manifest.data.provenance.geometry or GeometryRecord()
    resize: int | tuple[int, int] | None = None
    crop = geometry.size is not None and geometry.fit == "crop"
    if crop:
        resize = geometry.resize or geometry.size
    elif geometry.size is not None:
        resize = (height, width)
    gray = geometry.channels == 1
    size = (height, width)
    return Preprocessing(size, channels, manifest.mean, manifest.std, resize, crop, gray=gray)


def _images(net: ExitNetwork, manifest: Manifest, asked: Asked) -> tuple[Tensor, str]:
    """What to compare on, normalized [N, C, H, W], and what that is: the test split where it can be
    read, else noise."""
    try:
        recorded = data_code(manifest, asked.trust_code)
        data = load(_spec(manifest, asked.root), loader="resident", recorded=recorded)
    except OfframpError as error:
        if asked.root is not None:
            raise
        reason = str(error)
    else:
        if isinstance(data.test, Split) and data.test.digest == manifest.data.test:
            mean, std = (torch.tensor(values) for values in (manifest.mean, manifest.std))
            return normalize(data.test.images, mean, std), "the whole test split"
        reason = "the data have changed since"
    noise = np.random.default_rng(0).standard_normal((RANDOM_IMAGES, *net.input_shape))
    return torch.from_numpy(noise.astype(np.float32)), f"random numbers, as {reason}"


def _spec(manifest: Manifest, root: str | None) -> DataSpec:
    """How the trial's data were asked for; older trials kept the name and the counts."""
    known = manifest.data.spec
    if known is None:
        provenance = manifest.data.provenance
        images, available = provenance.images, provenance.available
        trained = sum(images[split] for split in ("train", "validation", "calibration"))
        known = {
            "name": manifest.data.name,
            "root": provenance.root,
            "train_images": trained if trained < available["train"] else None,
            "test_images": images["test"] if images["test"] < available["test"] else None,
            "split_seed": provenance.split_seed,
        }
    fields = {field.name for field in dataclasses.fields(DataSpec)}
    given = {name: value for name, value in known.items() if name in fields}
    given["split_seed"] = manifest.data.provenance.split_seed
    given["options"] = tuple((name, value) for name, value in known.get("options", ()))
    asked = DataSpec(**{**given, **({} if root is None else {"root": root})})
    if asked.url is None:
        return asked
    # Nothing is fetched because a record says so.
    here = kept(asked)
    root = asked.root if here is None or root is not None else str(here.files)
    return dataclasses.replace(asked, root=root, url=None, sha256=None)
