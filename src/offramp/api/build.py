"""`offramp build`, from Python: from a backbone and images to a bundle."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Unpack

import torch

from offramp import device as devices
from offramp.analysis.goals import Goal, known_goal
from offramp.api.notes import warn, words
from offramp.api.progress import finished
from offramp.bundle import folder as bundle
from offramp.bundle import graphs
from offramp.bundle.export import ExportOptions, export, int8_share
from offramp.data_spec import Normalization
from offramp.paper.guidelines import guidelines
from offramp.policy import useful
from offramp.policy.calibrate import target
from offramp.policy.calibration import Target
from offramp.policy.limits import Limits
from offramp.policy.policy import Policy
from offramp.policy.stage_times import of_file
from offramp.store.store import Store
from offramp.study import trained as trials
from offramp.study.build import BuildOptions, StrategyAdvice, choose
from offramp.study.plan.limits import cache_folder
from offramp.study.plan.plan import Plan
from offramp.study.run.events import Event, watched
from offramp.study.run.run import RunConfig
from offramp.study.run.run import run as run_plan
from offramp.study.run.trials import recorded_code


@dataclass(frozen=True)
class Built:
    """What `build` returns.

    folder: of the bundle.  policy: where each image leaves.  card: what the network is, how it was
    trained, what it loses and what it costs, in types of JSON.  trial: its id in the store.
    reasons: what was chosen, and why, a line each.

    >>> built.policy.calibration.statement[:13]
    'No guarantee:'
    """

    folder: Path
    policy: Policy
    card: dict[str, Any] = field(repr=False)  # pages long
    trial: str
    reasons: tuple[str, ...] = ()


def strategy_advice(goal: Goal, frozen_backbone: bool = False) -> tuple[StrategyAdvice, ...]:
    """The guidelines for a goal, as `offramp build` takes them."""
    advised, _ = guidelines(goal, frozen_backbone)
    source = f"the paper's guidelines for the goal '{goal}', section"
    return tuple(StrategyAdvice(g.strategies, g.text, f"{source} {g.section}") for g in advised)


def build(
    backbone: str,
    data: str,
    out: str | Path,
    *,
    exits: int | Sequence[str] | Literal["auto"] = "auto",
    weights: str | None = None,
    keep_frozen: bool = False,
    pretrained: bool = False,
    goal: Goal = "accuracy",
    strategy: str | None = None,
    size: int | None = None,
    normalize: Normalization | None = None,
    seed: int = 42,
    settings: Sequence[str] = (),
    store: str | Path = "runs",
    device: torch.device | str | None = None,
    check: bool = True,
    measure: bool = True,
    force: bool = False,
    anyway: bool = False,
    int8: bool | float = False,
    watch: Callable[[Event], None] | None = None,
    stage_times: str | Path | None = None,
    **limits: Unpack[Limits],
) -> Built:
    """Attach exits, train, choose a policy, and write a bundle that answers pictures without PyTorch.

    backbone: a name, `timm/NAME` or `file.py:function`.
    data: a name, or `folder:PATH` for your own images, with a folder for each class.
    out: the bundle's folder.
    exits: "auto", how many, names of places, or shares of the MACs such as "25%".
    weights: what the backbone starts from: a file, "imagenet" or "random". None takes public weights
        if they are on this machine, else random ones from the seed.
    keep_frozen: keep those weights as they are and train heads only.
    pretrained: keep the public weights as they are, and take images at the size of their training.
    goal: what the strategy is chosen for: "accuracy", "latency" and so on, as in `offramp recommend`.
    strategy: instead of the one that fits the goal.
    size: pixels of a side; None chooses it by the images.
    normalize: "train", "imagenet", "half", "clip", "unit", or (mean, deviation) by channel, as in a
        study. None is that of the public weights' training, else train.
    settings: `key=value` of a study file, such as "recipe.epochs=5". They win over all else.
    store: the folder that keeps the training; the same call goes on from there.
    device: such as "cuda"; by default OFFRAMP_DEVICE, else a GPU if there is one.
    check: compare the bundle's answers with PyTorch's.  measure: time its stages here.
    force: replace an earlier bundle.
    anyway: write a bundle even if it is unreliable, and mark it.
    int8: quantize the stages, as `Fitted.export` does.
    watch: is given every event of the training.
    stage_times: as `Fitted.calibrate` takes them; limits on latency need them.
    limits: as `Fitted.calibrate` takes them: exactly one, such as max_accuracy_loss=0.01.

    Raises OfframpError for input that cannot work, when training fails, and unless `anyway`, for
    unreliable results, as `Fitted.calibrate` does.

    >>> built = offramp.build(
    ...     "digits-cnn",
    ...     "digits",
    ...     "built",
    ...     exits=1,
    ...     settings=["recipe.epochs=8", "data.train_images=400"],
    ...     measure=False,
    ...     max_accuracy_loss=0.05,
    ... )
    >>> built.folder, built.card["network"]["classes"]
    (PosixPath('built'), 10)
    """
    limit = target(1, **limits)  # mistakes before the work
    times, allowed = None if stage_times is None else Path(stage_times), int8_share(int8)
    useful.check_stage_times(times, limit.kind, allowed is not None, anyway)
    folder = Path(out)
    graphs.check_installed()
    bundle.check_place(folder, force)
    places = str(exits) if isinstance(exits, int | str) else ",".join(exits)
    wish = BuildOptions(
        backbone=backbone,
        data=data,
        exits=places,
        weights=weights,
        keep_frozen=keep_frozen,
        goal=goal,
        advice=strategy_advice(known_goal(goal), keep_frozen or pretrained),
        strategy=strategy,
        size=size,
        normalize=normalize,
        seed=seed,
        settings=tuple(settings),
        device=None if device is None else str(device),
        calibration=useful.images_needed(limit.kind, limit.value),
        pretrained=pretrained,
    )
    chosen, kept = choose(wish), Store(store)
    useful.check(resolved(chosen.plan, limit), anyway)
    conduct = RunConfig(devices.chosen(device), cache_folder())
    warn(chosen.plan.notes)
    watched(run_plan(chosen.plan, kept, conduct), watch, words(chosen.plan))
    asked = ExportOptions(check=check, measure=measure, force=force, anyway=anyway, int8=allowed)
    limit = target(chosen.plan.net.plain_macs, **limits)
    built = finished(deployed(chosen.plan, kept, limit, folder, asked, times))
    return replace(built, reasons=chosen.reasons)


def resolved(plan: Plan, limit: Target) -> tuple[str, ...]:
    """Why the plan's calibration images are too few for the limit, before anything is trained."""
    return useful.resolution(limit.kind, limit.value, len(plan.data.calibration))


def deployed(
    plan: Plan, store: Store, wish: Target, out: Path, asked: ExportOptions, times: Path | None = None
) -> Generator[str, None, Built]:
    """Calibrate and export the plan's one trial, which has been trained; yields what it does. times: a
    file of stages' times, of one image at a time."""
    name, typed = plan.trials[0].id, {plan.study.backbone.name, plan.study.data.name}
    trust_code = recorded_code(store, name, data=True).keys() <= typed
    trained = trials.read(store, name, trust_code)
    measured = None if times is None else of_file(times, trained.costs, 1, wish.kind)
    rule = trials.policy_for(trained, wish, times=measured, anyway=asked.anyway).policy
    done = yield from export(store, name, rule, out, replace(asked, trust_code=trust_code))
    return Built(done.folder, rule, done.card, name)
