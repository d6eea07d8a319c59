"""`offramp calibrate`: from a trial to a policy and its report."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp.cli import options
from offramp.cli.options import argument, flag, option
from offramp.cli.render import emit, folded, say
from offramp.cli.store import opened, trusted
from offramp.errors import OfframpError
from offramp.policy.scoring import SCORES
from offramp.terminal import show, table
from offramp.units import counted, macs, percent

if TYPE_CHECKING:
    from offramp.nets.network import ExitNetwork
    from offramp.policy.calibrate import Calibrated, MeasuredCosts
    from offramp.policy.evaluate import ClassEvaluation, Evaluation
    from offramp.policy.limits import Limits
    from offramp.policy.policy import Policy
    from offramp.study.trained import Trained

SHOWN_POINTS = 9
SHOWN_CLASSES = 10


def calibrate(
    trial: Annotated[str, argument("TRIAL", "A trial's id, its beginning or its ending.")],
    store: options.StoreArgument = None,
    store_: options.StoreOption = None,
    max_accuracy_loss: options.AccuracyLossOption = None,
    min_accuracy: options.MinAccuracyOption = None,
    max_mean_macs: options.MeanMacsOption = None,
    max_mean_latency: Annotated[
        str | None,
        option("TIME", "Time an image on average, measured here or by --stage-times, such as 5ms."),
    ] = None,
    max_p95_latency: options.P95Option = None,
    stage_times: options.StageTimesOption = None,
    batch: Annotated[
        int | None, option("N", "With a limit on time: images at once.  [default: 1]", min=1)
    ] = None,
    max_disagreement: Annotated[
        str | None, option("SHARE", "Share of answers that may differ from the final exit's.")
    ] = None,
    risk: options.RiskOption = None,
    confidence: Annotated[
        str | None, option("SHARE", "With --risk: how sure the guarantee is.  [default: 0.95]")
    ] = None,
    on_average: Annotated[
        bool, flag("--on-average", "With --risk: guarantee it on average only.")
    ] = False,
    without_labels: Annotated[
        bool, flag("--without-labels", "Count any answer other than the full network's as wrong.")
    ] = False,
    score: Annotated[
        str, option("NAME", f"What decides whether an image leaves: {', '.join(SCORES)}.")
    ] = "confidence",
    shared: Annotated[bool, flag("--shared", "One threshold for all exits, not one per exit.")] = False,
    survivors: Annotated[
        bool,
        flag("--survivors", "Set thresholds exit by exit, each for the images that get there."),
    ] = False,
    temperature: Annotated[
        bool, flag("--temperature", "Fit a temperature for each exit, on validation.")
    ] = False,
    training_shares: Annotated[
        bool,
        flag("--training-shares", "Weigh calibration images: each class counts as it does in training."),
    ] = False,
    out: Annotated[Path, option("FILE", "The policy file to write.")] = Path("policy.json"),
    device: options.DeviceOption = None,
    trust: options.TrustOption = None,
    anyway: options.AnywayOption = False,
    json: options.JsonOption = False,
) -> None:
    """Choose where each image leaves, with or without a guarantee.

    How cheap can this trial run, and what does it lose? Name one target: a limit on accuracy, answers,
    MACs or time. Policies are made on validation images, one is chosen on calibration images and
    reported on test images.

    An unreliable result is refused: a network near chance, too few calibration images for
    the limit, times of a busy machine, a policy that decides nothing. --anyway goes on and marks it.

    \b
    Examples:
      offramp calibrate two-stage-resnet18-cifar10-s42 --max-accuracy-loss 0.01
      offramp calibrate two-stage-resnet18-cifar10-s42 --risk 0.01
      offramp calibrate two-stage-resnet18-cifar10-s42 --max-mean-latency 5ms
      offramp calibrate two-stage-resnet18-cifar10-s42 --max-p95-latency 5ms \\
        --stage-times phone.json
    """
    from offramp import device as devices
    from offramp.engine.settings import placed
    from offramp.infer.torch_timing import times_for
    from offramp.policy.calibrate import target
    from offramp.policy.candidates import Search
    from offramp.policy.evaluate import evaluate
    from offramp.policy.limits import LIMITS, check_times
    from offramp.study import trained as trials
    from offramp.study.run.trials import blank_network

    given: Limits = {
        "max_accuracy_loss": max_accuracy_loss,
        "min_accuracy": min_accuracy,
        "max_mean_macs": max_mean_macs,
        "max_mean_latency": max_mean_latency,
        "max_p95_latency": max_p95_latency,
        "max_disagreement": max_disagreement,
        "risk": risk,
        "confidence": confidence,
        "on_average": on_average,
        "without_labels": without_labels,
    }
    kind = target(1, **given).kind  # mistakes before the work
    if LIMITS[kind].stages != "mean" and stage_times is None and batch is not None:
        raise OfframpError("--batch goes with --max-mean-latency and --stage-times; leave it out")
    check_times(kind, stage_times is not None)
    how = Search(score, shared, temperature, survivors)
    kept = opened(store, store_)
    trust_code = trusted(kept, kept.find_trial(trial), trust)
    trained = trials.read(kept, trial, trust_code)
    wish = target(trained.plain_macs, **given)

    def net() -> ExitNetwork:
        made = blank_network(kept, trained.id, trust_code).eval()  # what it learned changes no time
        placed(made, devices.chosen(device))
        return made

    measured = times_for(wish, trained.costs, net, batch or 1, how.score, stage_times)
    shares = trained.training_shares if training_shares else None
    made = trials.policy_for(trained, wish, how, measured, shares, anyway)
    found, weak = made.calibrated, made.unreliable
    made.policy.save(out)
    # Only now, with the policy on the disk, is the test split looked at.
    tested = evaluate(found.policy, trained.test, trained.costs, trained.classes)
    if json:
        emit({**_json(trained, found, tested, out), "unreliable": weak})
    else:
        for reason in weak:
            say(f"Unreliable: {reason}.")
        _show(trained, found, tested, out)


def _json(trained: Trained, found: Calibrated, tested: Evaluation, out: Path) -> dict[str, Any]:
    from offramp.policy.calibrate import statement

    return {
        **({} if found.measured is None else {"stages": dict(found.measured.record)}),
        "trial": trained.id,
        "policy": str(out),
        "statement": statement(found),
        "remark": found.remark,
        "target": asdict(found.target),
        "chosen": found.chosen,
        "curve": [
            {**asdict(m), "thresholds": list(p.thresholds)}
            for p, m in zip(found.candidates, found.measures, strict=True)
        ],
        "plain_macs": trained.plain_macs,
        "test": asdict(tested),
    }


def _show(trained: Trained, found: Calibrated, tested: Evaluation, out: Path) -> None:
    from offramp.data.notes import unlike
    from offramp.policy.calibrate import statement

    typer.echo(f"{trained.id}: {found.policy.score} policy in {out}\n")
    if found.strata is not None:
        say(
            f"Calibration images are weighted to the class shares of training: {found.rows:,} count as "
            f"{found.strata.effective:,.0f}. Curve and guarantee are for these shares."
        )
    elif trained.by_class:
        for line in unlike(trained.by_class, trained.classes):
            say(f"Note: {line}.")
    _curve(trained, found)
    _exits(tested)
    _classes(tested)
    plain = trained.plain_macs
    spent, loss = tested.macs, tested.loss
    typer.echo(f"On {tested.images:,} test images, with 95 % intervals:")
    typer.echo(f"  accuracy           {_interval(tested.policy)}")
    typer.echo(f"  full network       {_interval(tested.full)}")
    typer.echo(f"  loss of accuracy   {100 * loss.value:.2f} points{_ends(loss.low, loss.high, 100)}")
    typer.echo(f"  right to wrong     {_interval(tested.harm)}")
    typer.echo(f"  differing answers  {_interval(tested.disagreement)}")
    typer.echo(
        f"  MACs an image      {macs(spent.mean)}, {percent(spent.mean / plain)} of the plain "
        f"network{_ends(spent.low, spent.high, 100 / plain)}"
    )
    if found.measured is not None:
        _time(found.policy, tested, found.measured)
    for name, bound in (("oracle", tested.oracle), ("random exit", tested.random)):
        typer.echo(
            f"  {name:<18} {percent(bound.accuracy)} at {percent(bound.macs / plain)} of the MACs"
        )
    promise = statement(found)
    typer.echo()
    say(promise)
    if found.remark is not None and found.remark not in promise:
        say(f"Note: {found.remark}.")


def _time(policy: Policy, tested: Evaluation, measured: MeasuredCosts) -> None:
    """The mean time of a test image, by what its stages keep and by medians."""
    record, where = measured.record, measured.record["machine"]
    upper, median = (
        sum(exit.share * each for exit, each in zip(tested.exits, policy.macs(costs), strict=True)) / 1e6
        for costs in (measured.costs, measured.median)
    )
    full, usual = measured.costs.full / 1e6, measured.median.full / 1e6
    said = {"mean": "on average", "p95": "by 95th percentiles"}
    rounds = said.get(record.get("of", ""), "in nine rounds of ten")
    typer.echo(
        f"  time an image      {upper:.4g} ms {rounds} "
        f"(median {median:.4g}); full network {full:.4g} ({usual:.4g}),\n"
        f"                     by the times of its stages, {record['repeats']:,} rounds at batch "
        f"{record['batch']} on {where['device']}, {where['threads']} threads"
    )


def _interval(share: Any) -> str:
    return f"{100 * share.value:.2f} % ({100 * share.low:.2f} to {100 * share.high:.2f})"


def _ends(low: float | None, high: float | None, factor: float) -> str:
    return "" if low is None or high is None else f" ({factor * low:.2f} to {factor * high:.2f})"


def _curve(trained: Trained, found: Calibrated) -> None:
    """Some points of the curve, the full network and the chosen one among them."""
    labeled = found.measures[0].accuracy is not None
    title = "accuracy" if labeled else "agreement"
    timed = found.measures[0].seconds is not None
    listing = table([""], ["MACs", "of plain", title, *(["ms an image"] if timed else [])])
    shown = _shown(found)
    for at, measure in enumerate(found.measures):
        if at in shown:
            value = 1 - measure.risk if measure.accuracy is None else measure.accuracy
            listing.add_row(
                "*" if at == found.chosen else "",
                macs(measure.macs),
                percent(measure.macs / trained.plain_macs),
                f"{100 * value:.2f} %",
                *([] if measure.seconds is None else [f"{1000 * measure.seconds:.4g}"]),
            )
    title = f"Accuracy and compute on {found.rows:,} calibration images"
    note = "Candidates were made on validation. * is the chosen one."
    if timed and found.measured is not None and "device" in found.measured.record:
        note += (
            " MACs leave out the heads that a policy does not use; ms are of stages timed with all "
            "heads."
        )
    show(listing, title, "\n".join(folded(note)))


def _shown(found: Calibrated) -> set[int]:
    """The first, the last and the chosen point, and some in between, evenly by MACs."""
    import numpy as np

    spent = np.array([measure.macs for measure in found.measures])
    evenly = np.linspace(spent.max(), spent.min(), SHOWN_POINTS)
    near = np.abs(spent[None] - evenly[:, None]).argmin(axis=1)
    return {0, len(spent) - 1, found.chosen, *(int(i) for i in near)}


def _exits(tested: Evaluation) -> None:
    listing = table(
        ["exit"], ["threshold", "leave", "right here", "right of all", "ECE", "AUROC", "AURC"]
    )
    for exit in tested.exits:
        listing.add_row(
            str(exit.exit),
            "–" if exit.threshold is None else f"{exit.threshold:.4g}",
            percent(exit.share),
            "–" if exit.accuracy is None else percent(exit.accuracy),
            percent(exit.accuracy_all),
            "–" if exit.ece is None else f"{exit.ece:.3f}",
            "–" if exit.auroc is None else f"{exit.auroc:.3f}",
            f"{exit.aurc:.3f}",
        )
    note = (
        "right here: of the images that leave there. ECE: of the confidence. AUROC, AURC:\n"
        "of the score over all. AURC: mistakes among the surest, lower is better."
    )
    show(listing, "Exits, on test", note)


def _classes(tested: Evaluation) -> None:
    """The classes that lose most; those whose loss is surely above 0 are named in any case."""

    def hurt(line: ClassEvaluation) -> bool:
        return line.loss.low > 0

    worst = sorted(tested.classes, key=lambda line: -line.loss.value)
    shown = [line for i, line in enumerate(worst) if i < SHOWN_CLASSES or hurt(line)]
    rest = len(worst) - len(shown)
    listing = table(["class"], ["images", "full", "policy", "loss", "95 %", ""])
    for line in shown:
        low, high = line.loss.low, line.loss.high
        listing.add_row(
            line.name,
            str(line.images),
            percent(line.full),
            percent(line.policy),
            f"{100 * line.loss.value:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            "loses" if hurt(line) else "",
        )
    note = f"and {counted(rest, 'more class', 'more classes')} (--json has all)" if rest else ""
    show(listing, "Loss of accuracy by class, on test, most first", note)
