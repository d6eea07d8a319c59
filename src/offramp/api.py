"""The same words for Python: attach, fit, run, load."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch

from offramp.analysis.exits import accuracy
from offramp.data import Data, from_dataset, normalize
from offramp.engine.settings import placed
from offramp.errors import OfframpError
from offramp.infer import networks as loaded
from offramp.infer.predictor import Prediction, Predictor
from offramp.nets import ExitNetwork, attach
from offramp.numerics import profile
from offramp.policy import policy as policies
from offramp.policy.policy import Policy
from offramp.store.store import Store
from offramp.store.summary import Line, lines, tidy
from offramp.study.plan.collection import Member, check_data, members, plans
from offramp.study.plan.limits import cache_folder
from offramp.study.plan.plan import Plan, default_device, plan_trials
from offramp.study.plan.workers import suited
from offramp.study.run import trials
from offramp.study.run.events import Event, Failed
from offramp.study.run.pool import run_pooled
from offramp.study.run.run import Conduct
from offramp.study.run.run import run as run_plan
from offramp.study.spec import models as spec
from offramp.study.spec.models import Study

__all__ = ["Fitted", "Results", "attach", "fit", "load", "predictor", "run"]


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


@dataclass(frozen=True)
class Results:
    """What `run` returns. trials: ids in `store`.  lines: a strategy each, as in the printed table.
    failed: reasons by the key of the node that failed.  studies: of a file that lists several, what
    each came to, by its path; the rest is then of all, in the order of the list."""

    store: Store
    trials: tuple[str, ...]
    lines: tuple[Line, ...]
    failed: Mapping[str, str]
    studies: Mapping[str, Results] = field(default_factory=dict)


def fit(
    net: ExitNetwork,
    strategy: str,
    train: Any,
    *,
    validation: Any = None,
    calibration: Any = None,
    test: Any = None,
    seed: int = 42,
    recipe: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    augment: Mapping[str, Any] | Sequence[str] | None = None,
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
            "recipe": dict(recipe or {}),
            **({} if augment is None else {"augment": augment}),
        },
        "fit",
    )
    place = torch.device(device) if device is not None else default_device()
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


def run(
    study: str | Path | Mapping[str, Any] | Study,
    store: str | Path = "runs",
    *,
    workers: int | Literal["auto"] = 1,
    watch: Callable[[Event], None] | None = None,
) -> Results:
    """Run a study (a file's path, a mapping as in a file, or a `Study`), as `offramp run` does; of a
    file that lists studies, one after another.

    workers: processes, or as many as suit this machine and the study. Where there are several, Python
    starts them by reading the calling script again, which therefore needs `if __name__ == "__main__":`.

    What fails is in `failed`; everything else has gone on. Raises OfframpError for input that cannot
    work.
    """
    if isinstance(study, (str, Path)):
        asked = members(Path(study))
    else:
        asked = (Member(Path(), study if isinstance(study, Study) else spec.parse(study)),)
    if len(asked) > 1:
        check_data([member.study for member in asked])
    kept = Store(Path(store))
    made = plans([member.study for member in asked])
    found = [_run(plan, kept, workers, watch) for plan in made]
    if len(found) == 1:
        return found[0]
    trials = tuple(dict.fromkeys(trial for one in found for trial in one.trials))
    failed = {key: reason for one in found for key, reason in one.failed.items()}
    studies = {str(member.path): one for member, one in zip(asked, found, strict=True)}
    return Results(kept, trials, tuple(line for one in found for line in one.lines), failed, studies)


def _run(
    plan: Plan,
    store: Store,
    workers: int | Literal["auto"],
    watch: Callable[[Event], None] | None,
) -> Results:
    device = default_device()
    count = suited(plan, store, device).count if workers == "auto" else workers
    failed: dict[str, str] = {}
    conduct = Conduct(device, cache_folder(), workers=count)
    with closing(run_pooled(plan, store, conduct)) as events:
        for event in events:
            if watch is not None:
                watch(event)
            if isinstance(event, Failed):
                failed[event.key] = event.reason
    done = tuple(t.id for t in plan.trials if store.has_trial(t.id))
    return Results(store, done, tuple(lines(store, done)), failed)


def load(
    trial: str,
    store: str | Path = "runs",
    device: torch.device | str | None = None,
    net: ExitNetwork | None = None,
    trust_code: bool = False,
) -> ExitNetwork:
    """The trained network of a trial (its id, or the beginning of it), in eval mode, ready to call:
    normalized images [B, C, H, W] → logits [B, classes] of every exit.

    net: for a trial of `fit`, the network attached in the same way (the module with the weights it had
    before training); it stays as it is.  trust_code: run the file that the store names, where the
    backbone is code such as `net.py:make_net`; it must be what was recorded.

    Raises OfframpError for a trial that is not there, whose network cannot be made any more or by code
    that is not trusted, or for another `net` than the trial's.
    """
    kept = Store(Path(store))
    place = torch.device(device) if device is not None else default_device()
    return trials.load_network(kept, kept.find_trial(trial), place, net, trust_code)


def predictor(
    net: ExitNetwork | str,
    policy: Policy | str | Path,
    *,
    store: str | Path = "runs",
    device: torch.device | str | None = None,
    backend: str | None = None,
    trust_code: bool = False,
) -> Predictor:
    """What answers batches of normalized images [B, C, H, W], of which those that leave early stop
    costing.

    net: a network in eval mode, as `load` gives it and where it is; or a trial's id, or the beginning
    of one, in `store`, to be put on `device`.  policy: one, or a file of `offramp calibrate`, which
    must have been made for the trial where that is named.  backend: of torch.compile, such as
    "inductor", for each stage alone.  trust_code: as `load` takes it.

    Raises OfframpError for a trial or file that is not there, a policy of another network, and a network
    in train mode.
    """
    if isinstance(net, ExitNetwork):
        rule = policy if isinstance(policy, Policy) else policies.read(Path(policy)).policy
        return Predictor(net, rule, backend)
    kept = Store(Path(store))
    trial = kept.find_trial(net)
    rule = policy if isinstance(policy, Policy) else loaded.checked_policy(kept, trial, Path(policy))
    made = load(trial, store, device, trust_code=trust_code)
    placed(made, next(made.parameters()).device)
    return Predictor(made, rule, backend)
