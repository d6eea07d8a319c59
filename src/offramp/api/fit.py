"""Training the exits of a network at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from offramp import device as devices
from offramp.analysis.exits import accuracy
from offramp.augment import Augment
from offramp.data import Data, from_dataset, normalize
from offramp.errors import OfframpError
from offramp.infer.predictor import Prediction, Predictor
from offramp.nets import ExitNetwork
from offramp.numerics import profile
from offramp.policy.policy import Policy
from offramp.recipe import Recipe
from offramp.store.store import Store
from offramp.store.table import tidy
from offramp.strategies import Strategy
from offramp.study.plan.limits import cache_folder
from offramp.study.plan.plan import Plan, plan_trials
from offramp.study.run import trials
from offramp.study.run.events import Event, Failed
from offramp.study.run.run import Conduct
from offramp.study.run.run import run as run_plan
from offramp.study.spec import models as spec


@dataclass(frozen=True)
class Fitted:
    """What `fit` returns.

    net: trained, in eval mode.  accuracy: on the test split, by exit, 0 to 1.  logits: arrays of the
    splits `validation`, `calibration` and `test`, [N, exits, classes], with `…_labels` [N].  history:
    every number of every phase, as in the tidy table.  mean, std: per channel, of the training images
    scaled to [0, 1]; zeros and ones where they were float32, which are taken as already normalized.
    """

    net: ExitNetwork
    accuracy: Mapping[int, float]
    logits: Mapping[str, np.ndarray]
    history: pd.DataFrame
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """What `net` takes, on its device: uint8 [B, C, H, W] → float32 of the same shape.

        Raises OfframpError for other images than uint8 of the network's shape, and where training
        images were float32: those go into the network as they are.
        """
        if not any(self.mean) and set(self.std) == {1.0}:
            raise OfframpError(
                "the training images were float32, taken as normalized; give such images to the network"
            )
        shape = self.net.input_shape
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != shape:
            kind = str(images.dtype).removeprefix("torch.")
            wanted = ", ".join(map(str, shape))
            raise OfframpError(f"the images are {list(images.shape)} {kind}; give uint8 [B, {wanted}]")
        device = next(self.net.parameters()).device
        mean, std = (torch.tensor(values, device=device) for values in (self.mean, self.std))
        pixels = normalize(images.to(device), mean, std)
        return pixels.contiguous(memory_format=torch.channels_last)

    def predict(self, images: torch.Tensor, policy: Policy) -> Prediction:
        """Answers for a batch, of which images that leave early stop costing.

        images: uint8 [B, C, H, W], as `normalize` takes them, or already normalized float32.  policy:
        names exits of `net`.  To answer many batches, make a `predictor` once.
        """
        ready = images if images.is_floating_point() else self.normalize(images)
        return Predictor(self.net, policy)(ready)


def fit(
    net: ExitNetwork,
    strategy: str | Strategy,
    train: Any,
    *,
    validation: Any = None,
    calibration: Any = None,
    test: Any = None,
    seed: int = 42,
    recipe: Recipe | Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    augment: Augment | Mapping[str, Any] | Sequence[str] | None = None,
    store: str | Path | None = None,
    device: torch.device | str | None = None,
    watch: Callable[[Event], None] | None = None,
) -> Fitted:
    """Train the exits of `net` by a strategy; `net` itself stays as it is.

    net: of `attach`. Its trunk begins with the weights that it has now, so a fitted network can be
    fitted further; its early exits begin anew, with weights drawn from the seed. A network that `load`
    made is drawn anew as a whole.  strategy: a name, or `my_file.py:my_strategy`.  train and the other
    splits: any map-style Dataset of (image, label), or a pair of arrays; a split that is not given is
    held out of train.  recipe, options, augment: as in a study file, such as {"epochs": 5},
    {"students": "shared"} and {"flip": True, "crop": 4}.  store: a folder in which work is kept and
    found again; a temporary one by default.  watch: is given every event.

    Raises OfframpError for input that cannot work (such as a network of several trunks, which some
    strategies return), and when training fails.
    """
    data = from_dataset(train, validation, calibration, test)
    study = spec.parse(
        {
            "seeds": [seed],
            "strategies": [{"name": strategy, **(options or {})}],
            "backbone": "attached",
            "data": "given",
            "recipe": recipe or {},
            **({} if augment is None else {"augment": augment}),
        },
        "fit",
    )
    place = devices.chosen(device)
    _check_fit(net, data)
    net = net.identified()
    plan = plan_trials(study, data, net, profile(study.numerics, place.type))
    with tempfile.TemporaryDirectory(prefix="offramp-") as scratch:
        kept = Store(Path(store) if store is not None else Path(scratch) / "store")
        conduct = Conduct(device=place, cache_folder=cache_folder())
        with closing(run_plan(plan, kept, conduct)) as events:
            for event in events:
                if watch is not None:
                    watch(event)
                if isinstance(event, Failed):
                    raise OfframpError(event.reason)
        return _fitted(plan, kept, place)


def _check_fit(net: ExitNetwork, data: Data) -> None:
    if data.shape != net.input_shape:
        raise OfframpError(
            f"the images are {list(data.shape)}, the network takes {list(net.input_shape)}; "
            "attach with the images' shape"
        )
    if len(data.classes) != net.classes:
        raise OfframpError(
            f"the data have {len(data.classes)} classes, the network {net.classes}; make them equal"
        )


def _fitted(plan: Plan, store: Store, device: torch.device) -> Fitted:
    (trial,) = plan.trials
    arrays = store.trial_logits(trial.id)
    scores = accuracy(arrays["test"], arrays["test_labels"])
    return Fitted(
        trials.assemble(plan, trial, store, device),
        dict(zip(trial.resolved.final, map(float, scores), strict=True)),
        arrays,
        tidy(store, [trial.id]),
        plan.data.mean,
        plan.data.std,
    )
