"""The policy of a trained network for a limit, as every job asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from offramp.api.options import CommandOption, StageTimesFile, check_names
from offramp.errors import OfframpError
from offramp.policy.limits import LIMITS, Limits, check_times
from offramp.policy.scoring import SCORES

if TYPE_CHECKING:
    from offramp.nets.network import ExitNetwork
    from offramp.policy.calibration import Target
    from offramp.policy.candidates import Search
    from offramp.store.store import Store
    from offramp.study.trained import Deployable, Trained

SCORE_HELP = (
    f"What decides whether an image leaves: {', '.join(SCORES)}.  [default: confidence; of several "
    "labels an image least-label]"
)


class CalibrationOptions(Limits, total=False):
    """How a policy is made and chosen: one of `Limits`, and these.

    Attributes:
        score: What decides whether an image leaves, "confidence" by default, of several labels an image
            "least-label"; see `Policy`.
        shared: One threshold for all exits, not one per exit.
        survivors: Set thresholds exit by exit, each for the images that get there.
        temperature: Fit a temperature for each exit, on validation.
        training_shares: Weigh calibration images: each class counts as it does in training.
        batch: With a limit on time: images at once. 1 by default.
        stage_times: Times of the stages on the target device, to count instead of MACs. Make the file
            there: python run.py --measure --out FILE.
    """

    score: Annotated[str, CommandOption("NAME", SCORE_HELP)]
    shared: bool
    survivors: bool
    temperature: bool
    training_shares: bool
    batch: Annotated[int | None, CommandOption("N", least=1)]
    stage_times: StageTimesFile


def target_of(options: CalibrationOptions, plain_macs: int = 1) -> Target:
    """The limit of the options. plain_macs: of the network without early exits, which a percentage is
    of.

    Raises:
        OfframpError: There is not one limit, or it makes no sense.
    """
    from offramp.policy.calibrate import target

    limits: Any = {name: value for name, value in options.items() if name in Limits.__annotations__}
    return target(plain_macs, **limits)


def check_options(options: CalibrationOptions) -> Target:
    """The limit, checked with what goes with it, before any work.

    Raises:
        OfframpError: The options do not go together.
    """
    from offramp.policy.calibrate import check_labels

    check_names(options, CalibrationOptions)
    target = target_of(options)
    batch, stage_times = options.get("batch"), options.get("stage_times")
    if LIMITS[target.kind].stages != "mean" and stage_times is None and batch is not None:
        raise OfframpError("`batch` goes with `max_mean_latency` and `stage_times`; leave it out")
    check_times(target.kind, stage_times is not None)
    check_labels(target, _search(options).temperature, options.get("training_shares", False))
    return target


def policy_for(
    trained: Trained,
    net: Callable[[], ExitNetwork],
    options: CalibrationOptions,
    anyway: bool,
    call: str = "calibrate",
    other_call: str = "",
) -> Deployable:
    """The policy that keeps the limit on calibration images. The test split is not looked at.

    Args:
        trained: The network's answers.
        net: Makes the network, to be timed where the limit needs it.
        options: The limit, and how policies are made.
        anyway: Take an unreliable one too.
        call: The function that was called; a refusal ends in what it would have to be called with.
        other_call: As `calibration_call` has it; a refusal may end in it instead.

    Raises:
        OfframpError: No policy keeps the limit, or, unless `anyway`, it is unreliable.
    """
    from offramp.infer.torch_timing import times_for
    from offramp.study import trained as trials

    limit = target_of(options, trained.plain_macs)
    search = _search(options)
    file = options.get("stage_times")
    times = times_for(
        limit,
        trained.costs,
        net,
        options.get("batch") or 1,
        search.score,
        None if file is None else Path(file),
    )
    shares = trained.training_shares if options.get("training_shares") else None
    return trials.policy_for(
        trained, limit, search, times, shares, anyway, call=call, other_call=other_call
    )


def calibration_call(trial: str, store: Store, trust_code: bool, then: str | None = None) -> str:
    """The call that calibrates a trial for a limit of SHARE% of the MACs, which a command says in words
    of a shell. then: the second trial of a cascade."""
    options = {"then": then, "store": str(store.root), "trust_code": trust_code or None}
    words = [repr(trial), *(f"{name}={each!r}" for name, each in options.items() if each is not None)]
    return f"`offramp.calibrate({', '.join(words)}, max_mean_macs='SHARE%')`"


def _search(options: CalibrationOptions) -> Search:
    from offramp.policy.candidates import Search

    return Search(
        options.get("score", "confidence"),
        options.get("shared", False),
        options.get("temperature", False),
        options.get("survivors", False),
    )
