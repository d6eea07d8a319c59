"""From a trial to a policy and its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack, overload

from offramp.api.answer import answer
from offramp.api.deploy.policies import (
    CalibrationOptions,
    calibration_call,
    check_options,
    policy_for,
)
from offramp.api.opening import opened, trusted
from offramp.api.options import (
    RUNS,
    Anyway,
    CommandOption,
    Device,
    InPython,
    StorePlace,
    TrialName,
    TrustCode,
)
from offramp.api.reporter import warn
from offramp.errors import OfframpError, with_article
from offramp.terminal import TextBlocks, TextTable
from offramp.units import counted, macs, percent

if TYPE_CHECKING:
    from offramp.nets.network import ExitNetwork
    from offramp.policy.calibrate import Calibrated, MeasuredCosts
    from offramp.policy.costs import Costs
    from offramp.policy.evaluate import ClassEvaluation, Evaluation
    from offramp.policy.policy import Policy
    from offramp.study.trained import Deployable, Trained

SHOWN_POINTS = 9  # of the curve
SHOWN_CLASSES = 10


@answer
class CalibrationReport:
    """A policy, how it was chosen, and what it comes to on test images.

    Attributes:
        policy: Where each image leaves.
        file: Where it was written; None where it was not.
        test: What it comes to on test images.
        unreliable: Why it is not to be trusted; empty for a reliable one.
        notes: What else is told first: that one exit alone does, that little is saved, that the backbone
            is undertrained, or that the loss on test is above the aim.

    On the command line:
        offramp calibrate two-stage-resnet18-cifar10-s42 --risk 0.01 --json
    """

    policy: Policy
    file: Path | None
    test: Evaluation
    unreliable: Sequence[str]
    notes: Sequence[str]
    _trained: Trained
    _calibrated: Calibrated

    def as_json(self) -> dict[str, Any]:
        calibrated = self._calibrated
        times = calibrated.measured
        return {
            **({} if times is None else {"stages": dict(times.record)}),
            "trial": self._trained.id,
            "policy": None if self.file is None else str(self.file),
            "statement": self.policy.calibration.statement,
            "remark": calibrated.remark,
            "target": asdict(calibrated.target),
            "chosen": calibrated.chosen,
            "curve": [
                {**asdict(measure), "thresholds": list(policy.thresholds)}
                for policy, measure in zip(calibrated.candidates, calibrated.measures, strict=True)
            ],
            "plain_macs": self._trained.plain_macs,
            "test": {k: v for k, v in asdict(self.test).items() if k != "labels" or v},
            "unreliable": self.unreliable,
            "notes": self.notes,
        }

    def document(self) -> TextBlocks:
        calibrated, promise = self._calibrated, self.policy.calibration.statement
        for note in self.notes:
            promise = promise.removeprefix(f"{note}. ")
        place = "" if self.file is None else f" in {self.file}"
        remark = calibrated.remark
        return [
            *(f"Unreliable: {reason}." for reason in self.unreliable),
            *(f"{note}." for note in self.notes),
            f"{self._trained.id}: {calibrated.policy.score} policy{place}",
            *self._weights(),
            _curve(self._trained, calibrated),
            _exits(self.test),
            _classes(self.test, self._trained.noun),
            "\n".join(self._on_test()),
            "",
            promise,
            *([f"Note: {remark}."] if remark is not None and remark not in promise else []),
        ]

    def _weights(self) -> list[str]:
        """What calibration images count for, where that is not one each as in training."""
        from offramp.data.notes import unlike

        calibrated, trained = self._calibrated, self._trained
        if calibrated.strata is not None:
            return [
                f"Calibration {trained.noun}s are weighted to the class shares of training: "
                f"{calibrated.rows:,} count as {calibrated.strata.effective:,.0f}. Curve and guarantee "
                "are for these shares."
            ]
        if trained.several:  # of which these are no shares of a whole
            return []
        return [
            f"Note: {line}." for line in unlike(trained.by_class or {}, trained.classes, trained.noun)
        ]

    def _on_test(self) -> list[str]:
        test, plain, noun = self.test, self._trained.plain_macs, self._trained.noun
        loss, spent = test.loss, test.macs
        right = "all labels right" if test.labels else "accuracy"
        lines = [
            f"On {test.images:,} test {noun}s, with 95 % intervals:",
            f"  {right:<18} {_interval(test.policy)}",
            f"  full network       {_interval(test.full)}",
            f"  loss of accuracy   {100 * loss.value:.2f} points{_ends(loss.low, loss.high, 100)}",
            f"  right to wrong     {_interval(test.harm)}",
            f"  differing answers  {_interval(test.disagreement)}",
            f"  {f'MACs {with_article(noun)}':<18} {macs(spent.mean)}, {percent(spent.mean / plain)} of "
            f"the plain network{_ends(spent.low, spent.high, 100 / plain)}",
        ]
        for kind, label in test.labels.items():
            what = {"label": "labels wrong", "miss": "labels missed"}[kind]
            more = f"{100 * label.more.mean:+.2f}{_ends(label.more.low, label.more.high, 100)}"
            lines.append(f"  {what:<18} {100 * label.policy:.2f} %, {more} points by leaving early")
        if self._calibrated.measured is not None:
            lines += _time(self._calibrated.policy, test, self._calibrated.measured, noun)
        for name, bound in (("oracle", test.oracle), ("random exit", test.random)):
            share = percent(bound.macs / plain)
            lines.append(f"  {name:<18} {percent(bound.accuracy)} at {share} of the MACs")
        return lines


NewPolicyFile = Annotated[Path | None, CommandOption(help="The policy file to write.")]
SecondTrial = Annotated[str | None, CommandOption("TRIAL")]
FILE = Path("policy.json")


@overload
def calibrate(
    trial: TrialName,
    store: StorePlace = RUNS,
    *,
    out: NewPolicyFile = FILE,
    then: SecondTrial = None,
    device: Device = None,
    trust_code: TrustCode = None,
    anyway: Anyway = False,
    **options: Unpack[CalibrationOptions],
) -> CalibrationReport: ...


@overload
def calibrate(
    *,
    logits: Any,
    labels: Any,
    costs: Sequence[float] | Costs,
    validation: tuple[Any, Any] | None = None,
    anyway: bool = False,
    **options: Unpack[CalibrationOptions],
) -> Policy: ...


def calibrate(
    trial: TrialName = "",
    store: StorePlace = RUNS,
    *,
    out: NewPolicyFile = FILE,
    then: SecondTrial = None,
    device: Device = None,
    trust_code: TrustCode = None,
    logits: InPython = None,
    labels: InPython = None,
    costs: InPython = None,
    validation: InPython = None,
    anyway: Anyway = False,
    **options: Unpack[CalibrationOptions],
) -> Any:
    """Choose where each image leaves, with or without a guarantee.

    How cheap can this trial run, and what does it lose? Name one target: a limit on accuracy, answers,
    MACs or time. Policies are made on validation images, one is chosen on calibration images and
    reported on test images.

    An unreliable result is refused: a network near chance, too few calibration images for
    the limit, times of a busy machine, a policy that decides nothing. `anyway` goes on and marks it.

    Args:
        trial: A trial's id, its beginning or its ending.
        store: The store: a folder, or s3://BUCKET/NAME.
        out: The policy file to write; None for none.
        then: Another trial, of a larger network on the same data: a cascade, in which an image asks
            `trial` first and this one too where that is not sure. Its policy is to compare with; no
            bundle runs it.
        device: Where the network runs to be timed.
        trust_code: Whether code that the store names may run.
        logits: In place of a trial: what the exits of any network, of any framework, answer to
            calibration images, [N, exits, classes], or an array [N, classes] for each exit; no softmax.
            What is returned is then the policy alone.
        labels: With `logits`: class numbers from 0, [N]; or, of several labels an image, 0 and 1,
            [N, classes].
        costs: With `logits`: multiply-accumulates, or any whole number that grows, of an image that
            leaves at each exit; or `Costs`, which counts heads apart.
        validation: With `logits`: logits and labels on which policies are made; None takes half of the
            images for that, classes in proportion.
        anyway: Take an unreliable policy too, and mark it.
        options: The limit, and how policies are made.

    Raises:
        OfframpError: There is no such trial, no policy keeps the limit, or the policy is unreliable; of
            numbers, also where they do not go together, or are not numbers.

    On the command line:
        offramp calibrate two-stage-resnet18-cifar10-s42 --max-accuracy-loss 0.01
        offramp calibrate two-stage-resnet18-cifar10-s42 --risk 0.01
        offramp calibrate two-stage-resnet18-cifar10-s42 --max-mean-latency 5ms
        offramp calibrate 1f2e60c4 --then 9b8c7d51 --max-accuracy-loss 0.01
        offramp calibrate two-stage-resnet18-cifar10-s42 --max-p95-latency 5ms \\
          --stage-times phone.json

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.integers(0, 10, size=2000)
        >>> noise = rng.normal(size=(2000, 3, 10))
        >>> logits = noise + np.array([2, 4, 6])[:, None] * np.eye(10)[labels][:, None]
        >>> costs = [10_000, 40_000, 100_000]
        >>> policy = offramp.calibrate(
        ...     logits=logits, labels=labels, costs=costs, max_accuracy_loss=0.01
        ... )
        >>> policy.exits, policy.leaves(logits[:3]).shape
        ((1, 2, 3), (3,))
    """
    check_options(options)  # mistakes before the work
    from offramp import device as devices
    from offramp.engine.settings import placed
    from offramp.policy.evaluate import evaluate
    from offramp.policy.useful import notes
    from offramp.study import trained as trials
    from offramp.study.run.trials import blank_network

    if device is not None:  # which only a limit on time would look at
        devices.chosen(device)
    numbers = {"logits": logits, "labels": labels, "costs": costs}
    absent = [name for name, value in numbers.items() if value is None]
    if len(absent) < len(numbers) and not trial:
        if absent:
            raise OfframpError(f"logits, labels and costs go together; give {' and '.join(absent)} too")
        answers = trials.of_numbers(logits, labels, costs, validation)
        from_numbers = policy_for(answers, _no_network, options, anyway)
        warn([*trials.probability_notes(answers), *from_numbers.notes])
        return from_numbers.policy
    if not trial or len(absent) < len(numbers):
        raise OfframpError("give either a trial's id, or logits, labels and costs")

    source = opened(store)
    code_runs = trusted(source, source.find_trial(trial), trust_code)
    trained = trials.read(source, trial, code_runs)
    if then is not None:
        larger = trusted(source, source.find_trial(then), trust_code)
        trained = trials.cascade(source, trained, trials.read(source, then, larger))

    def net() -> ExitNetwork:
        if then is not None:
            raise OfframpError("a limit on time is for one network, and this is a cascade of two")
        network = blank_network(source, trained.id, code_runs).eval()  # what it learned changes no time
        placed(network, devices.chosen(device))
        return network

    again = calibration_call(trial if then else trained.id, source, code_runs, then)
    deployable: Deployable = policy_for(trained, net, options, anyway, "calibrate", again)
    if out is not None:
        deployable.policy.save(out)
    # Only now, with the policy on the disk, is the test split looked at.
    tested = evaluate(deployable.calibrated.policy, trained.test, trained.costs, trained.classes)
    first = notes(deployable.policy, trained.calibration, tested)
    return CalibrationReport(
        deployable.policy, out, tested, deployable.unreliable, first, trained, deployable.calibrated
    )


def _no_network() -> ExitNetwork:
    raise OfframpError(
        "a limit on time goes by times of a network, and these are numbers; give `stage_times`, or its "
        "times as costs and a limit on them"
    )


def _time(policy: Policy, tested: Evaluation, measured: MeasuredCosts, noun: str) -> list[str]:
    """The mean time of a test row, by what its stages keep and by medians."""
    record, machine = measured.record, measured.record["machine"]
    upper, median = (
        sum(exit.share * each for exit, each in zip(tested.exits, policy.macs(costs), strict=True)) / 1e6
        for costs in (measured.costs, measured.median)
    )
    full, usual = measured.costs.full / 1e6, measured.median.full / 1e6
    names = {"mean": "on average", "p95": "by 95th percentiles"}
    rounds = names.get(record.get("of", ""), "in nine rounds of ten")
    return [
        f"  {f'time {with_article(noun)}':<18} {upper:.4g} ms {rounds} "
        f"(median {median:.4g}); full network {full:.4g} ({usual:.4g}),",
        f"                     by the times of its stages, {record['repeats']:,} rounds at batch "
        f"{record['batch']} on {machine['device']}, {machine['threads']} threads",
    ]


def _interval(share: Any) -> str:
    return f"{100 * share.value:.2f} % ({100 * share.low:.2f} to {100 * share.high:.2f})"


def _ends(low: float | None, high: float | None, factor: float) -> str:
    return "" if low is None or high is None else f" ({factor * low:.2f} to {factor * high:.2f})"


def _curve(trained: Trained, calibrated: Calibrated) -> TextTable:
    """Some points of the curve, the full network and the chosen one among them."""
    measures = calibrated.measures
    timed = measures[0].seconds is not None
    rows: list[tuple[str, ...]] = []
    points = _points(calibrated)
    for at, measure in enumerate(measures):
        if at in points:
            accuracy = 1 - measure.risk if measure.accuracy is None else measure.accuracy
            mark = "*" if at == calibrated.chosen else ""
            spent = macs(measure.macs), percent(measure.macs / trained.plain_macs)
            time = [] if measure.seconds is None else [f"{1000 * measure.seconds:.4g}"]
            cells = *spent, f"{100 * accuracy:.2f} %", *time
            if rows and rows[-1][1:] == cells:  # points that differ in digits that are not shown
                mark = rows.pop()[0] or mark
            rows.append((mark, *cells))
    title = "agreement" if measures[0].accuracy is None else "accuracy"
    note = "Candidates were made on validation. * is the chosen one."
    if timed and calibrated.measured is not None and "device" in calibrated.measured.record:
        note += (
            " MACs leave out the heads that a policy does not use; ms are of stages timed with all "
            "heads."
        )
    return TextTable(
        [""],
        ["MACs", "of plain", title, *([f"ms {with_article(calibrated.noun)}"] if timed else [])],
        rows,
        f"Accuracy and compute on {calibrated.rows:,} calibration {calibrated.noun}s",
        note,
    )


def _points(calibrated: Calibrated) -> set[int]:
    """The first, the last and the chosen point, and some in between, evenly by MACs."""
    import numpy as np

    spent = np.array([measure.macs for measure in calibrated.measures])
    evenly = np.linspace(spent.max(), spent.min(), SHOWN_POINTS)
    near = np.abs(spent[None] - evenly[:, None]).argmin(axis=1)
    return {0, len(spent) - 1, calibrated.chosen, *(int(i) for i in near)}


def _exits(tested: Evaluation) -> TextTable:
    rows = [
        (
            str(exit.exit),
            "–" if exit.threshold is None else f"{exit.threshold:.4g}",
            percent(exit.share),
            "–" if exit.accuracy is None else percent(exit.accuracy),
            percent(exit.accuracy_all),
            "–" if exit.ece is None else f"{exit.ece:.3f}",
            "–" if exit.auroc is None else f"{exit.auroc:.3f}",
            f"{exit.aurc:.3f}",
        )
        for exit in tested.exits
    ]
    return TextTable(
        ["exit"],
        ["threshold", "leave", "right here", "right of all", "ECE", "AUROC", "AURC"],
        rows,
        "Exits, on test",
        "right here: of those that leave there. ECE: of the confidence. AUROC, AURC: of the score "
        "over all. AURC: mistakes among the surest, lower is better.",
    )


def _classes(tested: Evaluation, noun: str) -> TextTable:
    """The classes that lose most; those whose loss is surely above 0 are named in any case."""

    def hurt(line: ClassEvaluation) -> bool:
        return line.loss.low > 0

    worst = sorted(tested.classes, key=lambda line: -line.loss.value)
    listed = [line for i, line in enumerate(worst) if i < SHOWN_CLASSES or hurt(line)]
    rest = len(worst) - len(listed)
    rows = [
        (
            line.name,
            str(line.images),
            percent(line.full),
            percent(line.policy),
            f"{100 * line.loss.value:+.1f}",
            f"{100 * line.loss.low:+.1f} to {100 * line.loss.high:+.1f}",
            "loses" if hurt(line) else "",
        )
        for line in listed
    ]
    several = bool(tested.labels)
    title = f"Labels found, of the {noun}s that have them" if several else "Loss of accuracy by class"
    return TextTable(
        ["label" if several else "class"],
        [f"{noun}s", "full", "policy", "loss", "95 %", ""],
        rows,
        f"{title}, on test, most first",
        f"and {counted(rest, 'more class', 'more classes')} (--json has all)" if rest else "",
    )
