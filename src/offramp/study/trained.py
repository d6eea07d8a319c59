"""What calibration needs of a finished trial: logits of every exit, and what each exit costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from offramp import arrays
from offramp.data.splits import stratified
from offramp.data_spec import HELD_OUT, SPLITS
from offramp.errors import OfframpError
from offramp.hashing import digest
from offramp.nets.network import ExitNetwork, inside
from offramp.policy.calibrate import Calibrated, MeasuredCosts, calibrate, statement
from offramp.policy.calibration import Calibration, Chosen, Target
from offramp.policy.candidates import BY_CONFIDENCE, Search, SplitLogits
from offramp.policy.costs import Costs
from offramp.policy.learned import GateNumbers
from offramp.policy.limits import LIMITS, words
from offramp.policy.policy import Policy
from offramp.policy.scoring import SCORES, all_carried, usual
from offramp.policy.stage_times import recorded
from offramp.policy.useful import (
    check,
    doubts,
    headline,
    least_loss,
    notes,
    resolution,
    seen,
    undertrained,
)
from offramp.store.manifest import Manifest
from offramp.store.store import Store
from offramp.study.run.trials import blank_network, is_attached, part_macs
from offramp.units import noun


@dataclass(frozen=True, eq=False)
class Trained:
    """A trial, as calibration needs it."""

    id: str  # its name in the store
    hash: str  # see `Manifest.hash`
    exits: tuple[int, ...]  # their numbers
    classes: tuple[str, ...]  # their names
    plain_macs: int  # of the backbone without early exits
    costs: Costs  # what each exit takes
    validation: SplitLogits  # logits and labels; so are the other two
    calibration: SplitLogits
    test: SplitLogits
    # images of each class, by split; empty of trials of an offramp that did not count them
    by_class: Mapping[str, Sequence[int]] = field(default_factory=dict)
    gates: GateNumbers | None = None  # what its exits learned of when to leave, where they did
    seen: int = 0  # how many calibration images are training images too, byte for byte

    def search(self, search: Search) -> Search:
        """The search, for a score that networks learn with the gates that the trial learned, where it
        did. Raises OfframpError for a score of other labels; the usual one is that of its labels."""
        search = of_labels(search, self.several)
        return replace(search, gates=self.gates) if SCORES[search.score].learned else search

    @property
    def noun(self) -> str:
        """What an example is called."""
        return self.calibration.noun

    @property
    def several(self) -> bool:
        """Whether its images have several labels each."""
        return self.calibration.several

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why no policy of it is to be trusted."""
        return seen(self.seen, len(self.calibration.labels), self.noun)

    @property
    def training_shares(self) -> tuple[float, ...]:
        """The share of each class among the training images, 0 to 1. Raises OfframpError where it is not
        known."""
        if self.several:
            raise OfframpError(
                "`training_shares` are of one class an image, and these have several labels; leave it "
                "out"
            )
        counts = self.by_class.get("train", ())
        if len(counts) != len(self.classes) or not any(counts):
            raise OfframpError(
                f"nothing says how many {self.noun}s of each class trial {self.id} was trained on; "
                f"leave `training_shares` out, adopt it with its training {self.noun}s, or train again"
            )
        return tuple(count / sum(counts) for count in counts)


def of_labels(search: Search, several: bool, target: Target | None = None) -> Search:
    """A search for images of several labels, or of one class; the usual score is that of these. Raises
    OfframpError for a score or a target of the other."""
    if search.score == usual(False):
        search = replace(search, score=usual(several))
    if SCORES[search.score].several != several:
        others = [name for name, score in SCORES.items() if score.several == several]
        form = "several labels" if several else "one class"
        raise OfframpError(
            f"the score {search.score} is not for images of {form}; take {', '.join(others)}"
        )
    if target is not None and LIMITS[target.kind].several and not several:
        raise OfframpError(
            f"{words(target.kind)} is for images with several labels, and these have one class each; "
            "give another limit"
        )
    return search


def read(store: Store, prefix: str, trust_code: bool = False) -> Trained:
    """A trial of a store. prefix: what its id begins with, or else ends with; trust_code: see
    `blank_network`.

    Raises:
        OfframpError: When there is not one, when it lacks logits or an exit answers NaN, or when two of
            its splits are the same images.
    """
    trial = store.find_trial(prefix)
    manifest, arrays = store.read_trial(trial), store.trial_logits(trial)
    if is_attached(store, trial) and manifest.part_macs:  # nobody can make it, nor is that needed
        segments, heads = manifest.part_macs
        return _of_costs(
            trial,
            Costs(segments, heads, manifest.owners, manifest.exits, manifest.carry),
            manifest,
            arrays,
        )
    return of_network(trial, blank_network(store, trial, trust_code), manifest, arrays)


def of_network(
    trial: str, net: ExitNetwork, manifest: Manifest, arrays: Mapping[str, np.ndarray]
) -> Trained:
    """A trial whose network is at hand; its weights are not read. Raises OfframpError as `read` does."""
    return _of_costs(trial, network_costs(net, manifest.owners, manifest.exits), manifest, arrays)


def cascade(store: Store, first: Trained, second: Trained) -> Trained:
    """Two plain networks as one with two exits: an image asks the first, and the second too where the
    first is not sure. Each answers by its last exit; an image that goes on has paid for both.

    Raises:
        OfframpError: They answered other images or classes, or the second costs no more.
    """
    small, large = (store.read_trial(each.id).data for each in (first, second))
    apart = [split for split in HELD_OUT if not small.same_pictures(large, split)]
    if apart or first.classes != second.classes:
        what = f"the {' and '.join(apart)} images" if apart else "the classes"
        raise OfframpError(
            f"{what} of {first.id} and {second.id} differ; take two trials with the same data and splits"
        )
    if first.costs.full >= second.costs.full:
        spent = f"{first.costs.full:,} MACs an image and {second.id} {second.costs.full:,}"
        raise OfframpError(f"{first.id} costs {spent}; name the cheaper one first")
    splits: Any = {
        name: replace(
            getattr(second, name),
            logits=np.stack([getattr(each, name).logits[:, -1] for each in (first, second)], axis=1),
        )
        for name in HELD_OUT
    }
    return replace(
        second,
        id=f"{first.id} then {second.id}",
        hash=digest([first.hash, second.hash]),
        exits=(1, 2),
        costs=Costs((first.costs.full, second.costs.full - first.costs.full), (0, 0), (0, 1), (1, 2)),
        **splits,
        gates=None,
        seen=max(first.seen, second.seen),
    )


UNNAMED = "No limit was named: "  # begins the last sentence of a statement, of a limit by default
FEWEST = 4  # rows that can be halved


def of_numbers(
    logits: Any, labels: Any, costs: Sequence[float] | Costs, validation: tuple[Any, Any] | None = None
) -> Trained:
    """A network of which nothing is at hand but its answers.

    Args:
        logits: [N, exits, classes], or [N, classes] of each exit, of calibration images; arrays or
            tensors of any framework.
        labels: [N], class numbers from 0; or [N, classes] of 0 and 1, of several labels an image.
        costs: Of an image that leaves at each exit, whole numbers that rise; or those of the parts.
        validation: Logits and labels; None takes every other row of each class, in a drawn order.

    Raises:
        OfframpError: They do not go together, or are not such numbers.
    """
    rows = _answers("calibration", logits, labels)
    _, exits, classes = rows.logits.shape
    if validation is None:
        if len(rows.labels) < FEWEST:
            raise OfframpError(
                f"{len(rows.labels)} images are too few to make policies on half of them and choose one "
                "on the others; give more"
            )
        half = stratified(torch.from_numpy(rows.labels), len(rows.labels) // 2, 0, "validation").numpy()
        other = np.setdiff1d(np.arange(len(rows.labels)), half)
        made_on, rows = (SplitLogits(rows.logits[n], rows.labels[n]) for n in (half, other))
    else:
        if not isinstance(validation, (tuple, list)) or len(validation) != 2:
            raise OfframpError("validation is a pair: its logits, its labels")
        made_on = _answers("validation", *validation)
        if made_on.logits.shape[1:] != (exits, classes):
            raise OfframpError(
                f"validation has logits of (exits, classes) {made_on.logits.shape[1:]}, calibration of "
                f"{(exits, classes)}; give those of one network"
            )
        if made_on.several != rows.several:
            forms = ["several labels" if each.several else "one class" for each in (made_on, rows)]
            raise OfframpError(
                f"validation has {forms[0]} an image, calibration {forms[1]}; give the same of both"
            )
        if np.array_equal(made_on.logits, rows.logits):
            raise OfframpError(
                "validation has the logits of calibration; give others, or leave it out: then each has "
                "one half"
            )
    spent = _costs(costs, exits)
    nothing = SplitLogits(rows.logits[:0], rows.labels[:0])
    names = tuple(map(str, range(classes)))
    tied = digest([arrays.digest(split.logits) for split in (made_on, rows)])
    return Trained("numbers", tied, spent.exits, names, spent.full, spent, made_on, rows, nothing)


def probability_notes(trained: Trained) -> list[str]:
    """What to say where rows look like probabilities: softmax would be taken of them once more."""
    rows, several = trained.calibration.logits, trained.several
    if rows.min() < 0 or (rows.max() > 1 if several else np.abs(rows.sum(-1) - 1).max() > 1e-3):
        return []
    sums, after = ("are at most 1", "sigmoid") if several else ("add up to 1", "softmax")
    return [
        f"The logits are at least 0 and {sums}, as probabilities do: confidences and thresholds "
        f"are wrong after a {after} of these; give what comes before it"
    ]


def _answers(split: str, logits: Any, labels: Any) -> SplitLogits:
    """Raises OfframpError for what are no logits, naming the first fault."""
    truth = _array(labels, f"the {split} labels")
    if isinstance(logits, (list, tuple)):
        by_exit = [_array(each, f"the {split} logits of exit {k}") for k, each in enumerate(logits, 1)]
        shapes = {each.shape: k for k, each in reversed([*enumerate(by_exit, 1)])}
        if len(shapes) > 1:
            several = " and ".join(f"{list(s)} at exit {k}" for s, k in reversed(shapes.items()))
            raise OfframpError(f"the {split} logits are {several}; give [N, classes] at each exit")
        answers = np.stack(by_exit, axis=-2) if by_exit else _array([], "the logits")
    else:
        answers = _array(logits, f"the {split} logits")
    numbers = answers.ndim == 3 and answers.dtype.kind in "iuf"
    if not numbers or not answers.shape[1] or answers.shape[2] < 2:
        raise OfframpError(
            f"the {split} logits are {list(answers.shape)} {answers.dtype}; give numbers [N, exits, "
            "classes], or a list with [N, classes] for each exit"
        )
    table = truth.ndim == 2 and truth.dtype.kind in "biuf"
    if table and not (truth.sum(axis=1) == 1).all():  # not one class, as 0s and a 1
        if truth.shape != (len(answers), answers.shape[2]) or not np.isin(truth, (0, 1)).all():
            raise OfframpError(
                f"the {split} labels are {list(truth.shape)}, up to {truth.max(initial=0):g}; give 0 or "
                f"1 for each of {answers.shape[2]} labels of {len(answers):,} images"
            )
        check_numbers(split, answers, tuple(range(1, answers.shape[1] + 1)))
        return SplitLogits(answers.astype(np.float32), truth.astype(np.uint8))
    if truth.ndim != 1 or truth.dtype.kind not in "iu":
        raise OfframpError(
            f"the {split} labels are {list(truth.shape)} {truth.dtype}; give a class number [N] for "
            "each image"
        )
    images, exits, classes = answers.shape
    if len(truth) != images:
        first = "; give list(logits), where exits come first" if len(truth) == exits else ""
        raise OfframpError(
            f"the {split} logits are {list(answers.shape)} and the labels {len(truth):,}; give logits "
            f"[N, exits, classes] and labels [N]{first}"
        )
    if outside := truth[(truth < 0) | (truth >= classes)].tolist():
        raise OfframpError(
            f"the {split} labels have class {outside[0]}, and the logits {classes} classes, from 0 to "
            f"{classes - 1}; give labels in that range"
        )
    check_numbers(split, answers, tuple(range(1, exits + 1)))
    return SplitLogits(answers.astype(np.float32), truth.astype(np.int64))


def check_numbers(split: str, logits: np.ndarray, exits: Sequence[int], noun: str = "image") -> None:
    """Raises OfframpError naming the first exit that answers NaN. logits: [N, exits, classes]."""
    # An overflow; that a class cannot be is minus infinity.
    broken = (np.isnan(logits) | (logits == np.inf)).any(axis=2).sum(axis=0)
    for exit, images in zip(exits, broken.tolist(), strict=True):
        if images:
            raise OfframpError(
                f"exit {exit} answers NaN or infinity for {images:,} of {len(logits):,} {split} "
                f"{noun}s; look for a wrong normalization, an overflow of half precision, or weights "
                "that are not finite"
            )


def _array(value: Any, what: str) -> NDArray[Any]:
    """An array of an array or tensor of any framework."""
    try:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu()
            value = value.float() if value.is_floating_point() else value
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise OfframpError(f"{what} are no array ({error}); give one on the CPU") from error


def _costs(costs: Sequence[float] | Costs, exits: int) -> Costs:
    """Raises OfframpError for costs that are not of these exits, or that do not rise."""
    if isinstance(costs, Costs):
        if len(costs.exits) != exits:
            raise OfframpError(f"the costs are of {len(costs.exits)} exits, the logits of {exits}")
        return costs
    spent = _array(costs, "the costs")
    if spent.ndim != 1 or spent.dtype.kind not in "iuf" or len(spent) != exits:
        raise OfframpError(
            f"the costs are {costs!r}, the logits of {exits} exits; give one number for each exit"
        )
    if not np.isfinite(spent).all() or (spent != np.round(spent)).any():
        such = "multiply-accumulates in millions where these are billions"
        if spent.min() > 0 and spent.max() <= 1:
            such = f"{[round(1000 * share) for share in spent.tolist()]} for shares like these"
        raise OfframpError(f"the costs are {spent.tolist()}; give whole numbers, such as {such}")
    steps = np.diff(spent, prepend=0)
    for at, step in enumerate(steps.tolist()):
        if step <= 0:
            before = f"exit {at}, {spent[at - 1]:g}" if at else "0"
            raise OfframpError(
                f"exit {at + 1} costs {spent[at]:g}, and that is not above {before}; give what an image "
                "has spent in all when it leaves there, exits in their order"
            )
    numbers = tuple(range(1, exits + 1))
    return Costs(tuple(map(int, steps)), (0,) * exits, (0,) * exits, numbers)


def _of_costs(trial: str, costs: Costs, manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> Trained:
    """Raises OfframpError when it lacks logits or has NaN among them, or when two of its splits are the
    same images."""
    splits: Any = {name: _rows(trial, name, manifest, arrays) for name in HELD_OUT}
    example = noun(manifest.input_shape)
    for split, other in combinations(SPLITS, 2):
        if manifest.data.splits[split] == manifest.data.splits[other]:
            raise OfframpError(
                f"the {split} and the {other} split of trial {trial} are the same {example}s, so "
                "nothing can be calibrated honestly; train with splits that differ, or that are held out"
            )
    provenance = manifest.data.provenance
    return Trained(
        trial,
        hash=manifest.hash(arrays),
        exits=manifest.exits,
        classes=manifest.classes,
        plain_macs=manifest.backbone_macs,
        costs=costs,
        **splits,
        by_class=provenance.by_class,
        gates=manifest.gates or None,
        seen=provenance.seen,
    )


@dataclass(frozen=True, eq=False)
class Deployable:
    """A policy for a target."""

    policy: Policy
    calibrated: Calibrated  # what calibration chose, and from what
    unreliable: tuple[str, ...]  # why the policy is not to be trusted, a sentence each
    notes: tuple[str, ...]  # what else is told first of it, a sentence each


def policy_for(
    trained: Trained,
    target: Target,
    search: Search = BY_CONFIDENCE,
    times: MeasuredCosts | None = None,
    shares: Sequence[float] | None = None,
    anyway: bool = False,
    *,
    call: str = "",
    other_call: str = "",
) -> Deployable:
    """The policy of a trial for a target. times, shares: as `calibrate` takes them.

    Args:
        anyway: Return one that is not to be trusted too.
        call: The function that a refusal names with what would do; empty for none.
        other_call: What calibrates the trial for a limit of SHARE% of the MACs; empty for the `call`.

    Raises:
        OfframpError: Where no policy meets the target, and for one that is not to be trusted. It begins
            with an undertrained backbone, and ends in what can be had.
    """
    search = of_labels(search, trained.several, target)
    ready, rows = trained.search(search), trained.calibration
    try:
        calibrated = calibrate(trained.validation, rows, trained.costs, target, ready, times, shares)
        policy = policy_of(trained, calibrated)
        weak = (*trained.doubts, *doubts(policy, rows, calibrated.remark))
        check(weak, anyway)
    except OfframpError as error:
        reason = "; also, ".join(filter(None, (undertrained(rows, trained.exits), str(error))))
        remedy = _remedy(trained, target, search, times, shares, call, other_call) if call else ""
        raise OfframpError(". ".join(filter(None, (reason, remedy)))) from None
    return Deployable(policy, calibrated, weak, notes(policy, trained.calibration))


def usual_share(costs: Costs, plain_macs: int) -> int | None:
    """Per cent of the plain network's MACs that a policy can keep: midway from the cheapest exit to the
    full network; None where no exit is cheaper."""
    cheapest = min(costs.leaving([i])[0] for i in range(len(costs.exits)))
    middle = math.ceil(100 * (cheapest + costs.full) / 2 / plain_macs)
    return middle if cheapest < costs.full else None


def _remedy(
    trained: Trained,
    target: Target,
    search: Search,
    times: MeasuredCosts | None,
    shares: Sequence[float] | None,
    call: str,
    other_call: str,
) -> str:
    """What works in place of a search that was refused: an exit alone, a loss that the images can tell,
    or else a limit on compute. Each is tried."""
    images, tries = len(trained.calibration.labels), []
    if not search.shared and not search.survivors:  # which mean nothing for an exit alone
        tries.append(("score='fixed'", target, replace(search, score="fixed")))
    if resolution(target, images):
        least = least_loss(images, target.confidence)
        tries.append(
            (f"{target.kind.replace('-', '_')}={least:g}", replace(target, value=least), search)
        )
    for setting, aim, among in tries:
        if _works(trained, aim, among, times, shares):
            return f"What can be had: `{call}(..., {setting})`"
    share = usual_share(trained.costs, trained.plain_macs)
    if share is None:
        return ""
    macs = Target("max-mean-macs", share * trained.plain_macs / 100)
    if not other_call and _works(trained, macs, search, times, shares):
        return f"What can be had: `{call}(..., max_mean_macs='{share}%')`"
    if other_call and _works(trained, macs, BY_CONFIDENCE):
        return f"What can be had: {other_call.replace('SHARE%', f'{share}%')}"
    return ""


def _works(trained: Trained, target: Target, search: Search, *how: Any) -> bool:
    """Whether there is a policy to be trusted. how: as in `policy_for`."""
    try:
        policy_for(trained, target, search, *how)
    except OfframpError:
        return False
    return True


def policy_of(trained: Trained, calibrated: Calibrated) -> Policy:
    """The chosen policy and where it comes from: nothing of the test split is in it. Where another score
    came to one exit alone, the statement begins with that."""
    calibration = Calibration(
        trained.id,
        trained.hash,
        classes=len(trained.classes),
        target=calibrated.target,
        chosen=calibrated.record(trained.plain_macs),
        statement=statement(calibrated),
    )
    policy = replace(calibrated.policy, calibration=calibration)
    first = headline(policy)
    if first is None or policy.score == calibrated.candidates[0].score:
        return policy
    stated = replace(calibration, statement=f"{first}. {calibration.statement}")
    return replace(policy, calibration=stated)


def with_logits(trained: Trained, logits: Mapping[str, np.ndarray]) -> Trained:
    """The trial with other logits, as quantized stages give them, for the images of each split. What
    heads have learned to add of the answer before is in them; a share of it is not. Raises OfframpError
    for NaN."""
    carry = trained.costs.carry
    share = 0.0 if isinstance(carry, str) else carry
    answers = {name: all_carried(logits[name], share) for name in HELD_OUT}
    for name, by_exit in answers.items():
        check_numbers(name, by_exit, trained.exits)
    rows: Any = {name: replace(getattr(trained, name), logits=answers[name]) for name in HELD_OUT}
    return replace(trained, **rows)


def search_of(rule: Policy) -> Search:
    """Among which policies one was chosen: of its score, with one threshold for all exits or more."""
    chosen = rule.calibration.chosen or Chosen()
    early = {threshold for threshold in rule.thresholds[:-1] if threshold is not None}
    graded, survivors = SCORES[rule.score].graded, chosen.survivors
    shared = graded and len(early) == 1 and len(rule.exits) > 2 and None not in rule.thresholds[:-1]
    temperature = rule.temperatures is not None
    return Search(rule.score, shared and not survivors, temperature, survivors and graded)


def solved_again(trained: Trained, rule: Policy) -> Policy:
    """A policy for other logits, by the target, score, class shares and times of an earlier one.

    Where one threshold served all exits, one does again; where they were set exit by exit, they are
    again. An earlier policy that was calibrated for no target is returned.

    Raises:
        OfframpError: Where no policy meets the target any more.
    """
    calibration = rule.calibration
    if calibration.target is None:
        return rule
    chosen, search = calibration.chosen or Chosen(), search_of(rule)
    times = None if chosen.stages is None else recorded(chosen.stages, trained.costs)
    again = policy_for(trained, calibration.target, search, times, chosen.class_shares, anyway=True)
    _, unnamed, line = calibration.statement.partition(UNNAMED)
    return stated(again.policy, unnamed + line) if line else again.policy


def stated(policy: Policy, line: str) -> Policy:
    """The policy, whose statement ends in one more sentence; cards have it."""
    origin = policy.calibration
    return replace(policy, calibration=replace(origin, statement=f"{origin.statement} {line}".rstrip()))


def network_costs(net: ExitNetwork, owners: Sequence[int], exits: Sequence[int]) -> Costs:
    """The costs of a network's parts. owners: the trunk of each of its exits."""
    return Costs(*part_macs(net), tuple(owners), tuple(exits), inside(net).carry)


def _rows(trial: str, split: str, manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> SplitLogits:
    logits, labels = arrays.get(split), arrays.get(f"{split}_labels")
    if logits is None or labels is None or not len(logits):
        raise OfframpError(f"trial {trial} has no {split} logits; train it again with this offramp")
    shape = (len(labels), len(manifest.exits), len(manifest.classes))
    if logits.shape != shape:
        raise OfframpError(
            f"the {split} logits of trial {trial} have shape {logits.shape} instead of {shape}; "
            "train it again with this offramp"
        )
    check_numbers(split, logits, manifest.exits, noun(manifest.input_shape))
    return SplitLogits(logits, labels, noun(manifest.input_shape))
