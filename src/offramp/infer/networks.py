"""A trial or a bundle that answers image files: two kinds of network under one interface."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from offramp.bundle import preprocessing
from offramp.bundle.preprocessing import Preprocessing
from offramp.engine.settings import placed
from offramp.errors import OfframpError
from offramp.infer.predictor import Predictor
from offramp.policy import policy as policies
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.study.run.trials import load_network
from offramp.study.trained import trial_hash

IN_PYTHON = "use offramp.predictor in Python"
SUMS = "SHA256SUMS"  # what a folder has that is a bundle


@dataclass(frozen=True, eq=False)
class Answers:
    """For B images: class [B], as a number; confidence [B], 0 to 1; exit [B]; MACs as a share of the
    plain backbone's [B]."""

    classes: NDArray[np.integer]
    confidence: NDArray[np.floating]
    exits: NDArray[np.integer]
    compute: NDArray[np.floating]


class Network(Protocol):
    """What answers images."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def exits(self) -> tuple[int, ...]: ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    def answer(self, pixels: NDArray[np.uint8]) -> Answers:
        """pixels: [B, C, H, W], of `preprocessing`."""


@dataclass(frozen=True, eq=False)
class TrialNetwork:
    """A trial of a store, run by torch."""

    name: str
    classes: tuple[str, ...]
    exits: tuple[int, ...]
    preprocessing: Preprocessing
    predictor: Predictor
    device: torch.device

    def answer(self, pixels: NDArray[np.uint8]) -> Answers:
        images = torch.from_numpy(self.preprocessing.normalized(pixels)).to(self.device)
        made = self.predictor(images.contiguous(memory_format=torch.channels_last))
        parts = (made.classes, made.confidence, made.exits, made.compute)
        return Answers(
            *(
                part.float().cpu().numpy() if part.is_floating_point() else part.cpu().numpy()
                for part in parts
            )
        )


@dataclass(frozen=True, eq=False)
class BundleNetwork:
    """A bundle, run by onnxruntime."""

    name: str
    bundle: Any  # of offramp.bundle.runtime, which needs onnxruntime

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.bundle.labels)

    @property
    def exits(self) -> tuple[int, ...]:
        return tuple(stage.exit for stage in self.bundle.stages)

    @property
    def preprocessing(self) -> Preprocessing:
        return preprocessing.from_json(self.bundle.preprocessing.as_json())

    def answer(self, pixels: NDArray[np.uint8]) -> Answers:
        made = self.bundle.run(self.preprocessing.normalized(pixels))
        return Answers(made.classes, made.confidence, made.exits, made.compute)


def is_bundle(name: str) -> bool:
    """Whether a path or a trial's id is the folder of a bundle. Raises OfframpError for a folder that
    is none."""
    folder = Path(name)
    if not folder.is_dir():
        return False
    if not (folder / SUMS).exists():
        raise OfframpError(
            f"the folder {folder} is no bundle ({SUMS} is not there); give a trial's id or a bundle"
        )
    return True


def open_bundle(folder: Path) -> BundleNetwork:
    """Raises OfframpError without onnxruntime, and for a bundle that is damaged or changed."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise OfframpError("a bundle needs onnxruntime; install it with pip install 'offramp[onnx]'")
    from offramp.bundle import runtime

    try:
        return BundleNetwork(str(folder), runtime.Bundle(folder))
    except runtime.BundleError as error:
        raise OfframpError(str(error)) from None


def open_trial(
    store: Store,
    prefix: str,
    policy_file: Path | None,
    device: torch.device,
    backend: str | None = None,
    trust_code: bool = False,
) -> TrialNetwork:
    """The trial whose id begins with `prefix`, under the policy in a file; without one, every image
    goes to the final exit.  trust_code: see `offramp.study.run.trials.blank_network`.

    Raises OfframpError for a policy of another network or one that misses an exit, for weights that are
    gone, and where it is not known how pictures become what the network takes.
    """
    trial = store.find_trial(prefix)
    manifest = store.read_trial(trial)
    exits = tuple(manifest["exits"])
    rule = Policy("fixed", exits, (None,) * len(exits))
    if policy_file is not None:
        rule = checked_policy(store, trial, policy_file)
    try:
        how = preprocessing.of_trial(manifest)
    except ValueError as error:
        raise OfframpError(f"trial {trial} cannot answer files: {error}; {IN_PYTHON}") from None
    if preprocessing.given_normalized(manifest):
        raise OfframpError(
            f"the images of trial {trial} were normalized beforehand, nobody knows how; {IN_PYTHON}"
        )
    net = load_network(store, trial, device, trust_code=trust_code)
    placed(net, device)
    predictor = Predictor(net, rule, backend)
    return TrialNetwork(trial, tuple(manifest["classes"]), exits, how, predictor, device)


def checked_policy(store: Store, trial: str, file: Path) -> Policy:
    """The policy in a file, if it was made for this trial. Raises OfframpError where it was not."""
    read = policies.read(file)
    manifest = store.read_trial(trial)
    found = trial_hash(manifest, store.trial_logits(trial))
    policies.check_fits(read, trial, found, manifest["exits"])
    return read.policy
