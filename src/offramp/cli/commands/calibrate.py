"""`offramp calibrate`: from a trial to a policy and its report."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from offramp.cli.options import RUNS, JsonOption, StoreOption, TrustOption
from offramp.cli.render import show, table
from offramp.cli.store import opened, trusted
from offramp.errors import OfframpError, nearest
from offramp.units import macs

if TYPE_CHECKING:
    from offramp.infer.timing import StageTimes
    from offramp.policy.calibrate import Calibrated, Measure, Target
    from offramp.policy.candidates import Search
    from offramp.policy.costs import Costs
    from offramp.policy.outcome import ClassOutcome, Outcome
    from offramp.policy.policy import Policy, PolicyFile
    from offramp.store.store import Store
    from offramp.study.trained import Trained


def calibrate(
    trial: Annotated[str, typer.Argument(help="A trial's id, or the beginning of one.")],
    store: StoreOption = RUNS,
    max_accuracy_loss: Annotated[
        float | None,
        typer.Option(help="Accuracy to give up against the final exit: 0.01 is one point."),
    ] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Accuracy to keep, as 0.9.")] = None,
    max_mean_macs: Annotated[
        str | None, typer.Option(help="MACs an image on average: 40% of the plain network, or 1.5M.")
    ] = None,
    max_mean_latency: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Time an image on average, as 5ms, on this machine."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Images at once, for that time.  [default: 1]"),
    ] = None,
    max_disagreement: Annotated[
        float | None, typer.Option(help="Share of answers that may differ from the final exit's.")
    ] = None,
    risk: Annotated[
        float | None,
        typer.Option(
            help="With a guarantee: share of inputs that the full network has right, the policy wrong."
        ),
    ] = None,
    confidence: Annotated[
        float | None, typer.Option(help="Of the guarantee, over calibration draws.  [default: 0.95]")
    ] = None,
    on_average: Annotated[
        bool, typer.Option("--on-average", help="Bound the mean risk over calibration draws instead.")
    ] = False,
    without_labels: Annotated[
        bool,
        typer.Option("--without-labels", help="The risk is any answer other than the full network's."),
    ] = False,
    score: Annotated[
        str, typer.Option(help="confidence, entropy, margin, patience or fixed.")
    ] = "confidence",
    shared: Annotated[
        bool, typer.Option("--shared", help="One threshold for all exits, not one per exit.")
    ] = False,
    temperature: Annotated[
        bool, typer.Option("--temperature", help="Fit a temperature per exit, on validation.")
    ] = False,
    out: Annotated[Path, typer.Option(help="The policy file to write.")] = Path("policy.json"),
    trust: TrustOption = None,
    json: JsonOption = False,
) -> None:
    """Choose where each input leaves, with or without a guarantee.

    Writes a policy for a trial. Name one target. Candidates are made on validation, chosen on
    calibration, and reported on test.

    \b
    Examples:
      offramp calibrate two-stage-resnet18-cifar10-s42 --max-accuracy-loss 0.01
      offramp calibrate two-stage-resnet18-cifar10-s42 --risk 0.01
      offramp calibrate two-stage-resnet18-cifar10-s42 --max-mean-latency 5ms
    """
    wanted = {
        "max-accuracy-loss": max_accuracy_loss,
        "min-accuracy": min_accuracy,
        "max-mean-macs": max_mean_macs,
        "max-mean-latency": max_mean_latency,
        "max-disagreement": max_disagreement,
        "risk": risk,
    }
    asked = Asked(wanted, confidence, on_average, without_labels, batch, trust)
    how = search(score, shared, temperature, without_labels or max_disagreement is not None)
    _calibrate(opened(store), trial, asked, how, out, json)


SHOWN_POINTS = 9


SHOWN_CLASSES = 10


@dataclass(frozen=True)
class Asked:
    """The target options as they were given; None for those that were not. trust: see
    `offramp.cli.store`."""

    wanted: Mapping[str, float | str | None]
    confidence: float | None
    on_average: bool
    without_labels: bool
    batch: int | None = None
    trust: bool | None = None


def search(score: str, shared: bool, temperature: bool, without_labels: bool) -> Search:
    """Raises OfframpError for options that do not go together."""
    from offramp.policy.candidates import Search
    from offramp.policy.policy import ScoreName

    names = get_args(ScoreName)
    if score not in names:
        raise OfframpError(f"no score '{score}'{nearest(score, names)}")
    if temperature and without_labels:
        raise OfframpError("--temperature is fitted on labels; leave it out of a target that needs none")
    if (shared or temperature) and score in ("patience", "fixed"):
        flag = "--shared" if shared else "--temperature"
        raise OfframpError(f"{flag} means nothing for the score {score}; leave it out")
    return Search(cast(ScoreName, score), shared, temperature)


def target(asked: Asked, plain_macs: int) -> Target:
    """What is asked for, checked. Raises OfframpError."""
    from offramp import units
    from offramp.policy.calibrate import Kind, Target

    given = {kind: value for kind, value in asked.wanted.items() if value is not None}
    if len(given) != 1:
        options = ", ".join(f"--{kind}" for kind in asked.wanted)
        found = " and ".join(f"--{kind}" for kind in given) or "none"
        raise OfframpError(f"give exactly one target of {options}; got {found}")
    ((kind, value),) = given.items()
    if kind != "risk" and (asked.on_average or asked.without_labels or asked.confidence is not None):
        raise OfframpError(
            f"--confidence, --on-average and --without-labels go with --risk, not with --{kind}"
        )
    if asked.on_average and asked.confidence is not None:
        raise OfframpError("--on-average has no confidence; give one of the two")
    if asked.batch is not None and kind != "max-mean-latency":
        raise OfframpError(f"--batch goes with --max-mean-latency, not with --{kind}")
    if kind == "max-mean-latency":
        number = units.parse(str(value), units.TIME, f"--{kind}")
    elif kind == "max-mean-macs":
        number = _macs(str(value), plain_macs, f"--{kind}")
    else:
        number = _share(kind, float(value), least_excluded=kind == "risk")
    confidence = None
    if kind == "risk" and not asked.on_average:
        given_confidence = 0.95 if asked.confidence is None else asked.confidence
        confidence = _share("confidence", given_confidence, least_excluded=True)
    return Target(cast(Kind, kind), number, confidence, not asked.without_labels)


def _share(name: str, value: float, least_excluded: bool) -> float:
    if name in ("max-accuracy-loss", "max-disagreement") and value >= 1:
        raise OfframpError(f"--{name} is a share of all images; for one point in a hundred give 0.01")
    if not (0 < value < 1 if least_excluded else 0 <= value <= 1):
        span = "between 0 and 1" if least_excluded else "from 0 to 1"
        raise OfframpError(f"--{name} must be a share {span}, such as 0.01; got {value:g}")
    return value


def _macs(text: str, plain_macs: int, name: str) -> float:
    """MACs, or a share of the plain network's."""
    from offramp import units

    percent = units.read(text, units.PERCENT)
    if percent is not None:
        return percent * (plain_macs / 100)
    return units.parse(text, units.MACS, name, also="a share such as 40%")


def _calibrate(store: Store, prefix: str, asked: Asked, how: Search, out: Path, as_json: bool) -> None:
    from offramp.policy.calibrate import calibrate as choose
    from offramp.policy.outcome import outcome
    from offramp.policy.policy import write
    from offramp.study import trained as trials

    target(asked, 1)  # mistakes in the options before the work
    trust_code = trusted(store, store.find_trial(prefix), asked.trust)
    trained = trials.read(store, prefix, trust_code)
    wish = target(asked, trained.plain_macs)
    timed = None
    if wish.kind == "max-mean-latency":
        timed = measured(store, trained, asked.batch or 1, how.score, trust_code)
    found = choose(
        trained.validation,
        trained.calibration,
        trained.exits,
        trained.costs,
        wish,
        how,
        None if timed is None else timed.costs,
    )
    write(out, policy_file(trained, found, timed))
    # Only now, with the policy on the disk, is the test split looked at.
    tested = outcome(found.policy, trained.test, trained.costs, trained.classes)
    if as_json:
        typer.echo(jsonlib.dumps(_json(trained, found, tested, out, timed), indent=2))
    else:
        _show(trained, found, tested, out, timed)


def policy_file(trained: Trained, found: Calibrated, timed: Timed | None = None) -> PolicyFile:
    """The chosen policy as a file: nothing of the test split is in it."""
    from offramp.policy.calibrate import statement
    from offramp.policy.policy import PolicyFile

    chosen, full = found.measures[found.chosen], found.measures[0]
    return PolicyFile(
        found.policy,
        trained.id,
        trained.hash,
        len(trained.classes),
        asdict(found.target),
        {
            "images": found.rows,
            "accuracy": chosen.accuracy,
            "full_accuracy": full.accuracy,
            "mean_macs": chosen.macs,
            "plain_macs": trained.plain_macs,
            "loss": chosen.loss,
            "leaving": list(chosen.shares),
            "risk_below": found.bound,
            **({} if timed is None else record(timed, chosen, full)),
        },
        statement(found),
    )


def _json(
    trained: Trained, found: Calibrated, tested: Outcome, out: Path, timed: Timed | None
) -> dict[str, Any]:
    from offramp.policy.calibrate import statement

    return {
        **({} if timed is None else {"stages": stages(timed)}),
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


def _show(trained: Trained, found: Calibrated, tested: Outcome, out: Path, timed: Timed | None) -> None:
    from offramp.policy.calibrate import statement

    typer.echo(f"{trained.id}: {found.policy.score} policy in {out}\n")
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
        f"  MACs an image      {macs(spent.mean)}, {100 * spent.mean / plain:.1f} % of the plain "
        f"network{_ends(spent.low, spent.high, 100 / plain)}"
    )
    if timed is not None:
        _show_time(found.policy, tested, timed)
    for name, bound in (("oracle", tested.oracle), ("random exit", tested.random)):
        typer.echo(
            f"  {name:<18} {100 * bound.accuracy:.1f} % at {100 * bound.macs / plain:.1f} % of the MACs"
        )
    promise = statement(found)
    typer.echo(f"\n{promise}")
    if found.remark is not None and found.remark not in promise:
        typer.echo(f"Note: {found.remark}.")


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
            value = 1 - measure.loss if measure.accuracy is None else measure.accuracy
            listing.add_row(
                "*" if at == found.chosen else "",
                macs(measure.macs),
                f"{100 * measure.macs / trained.plain_macs:.1f} %",
                f"{100 * value:.2f} %",
                *([] if measure.seconds is None else [f"{1000 * measure.seconds:.4g}"]),
            )
    title = f"What can be had, on {found.rows:,} calibration images"
    show(listing, title, "Candidates were made on validation. * is the chosen one.")


def _shown(found: Calibrated) -> set[int]:
    """The first, the last and the chosen point, and some in between, evenly by MACs."""
    import numpy as np

    spent = np.array([measure.macs for measure in found.measures])
    evenly = np.linspace(spent.max(), spent.min(), SHOWN_POINTS)
    near = np.abs(spent[None] - evenly[:, None]).argmin(axis=1)
    return {0, len(spent) - 1, found.chosen, *(int(i) for i in near)}


def _exits(tested: Outcome) -> None:
    listing = table(["exit"], ["threshold", "leave", "right here", "right of all", "ECE", "AUROC"])
    for exit in tested.exits:
        listing.add_row(
            str(exit.exit),
            "–" if exit.threshold is None else f"{exit.threshold:.4g}",
            f"{100 * exit.share:.1f} %",
            "–" if exit.accuracy is None else f"{100 * exit.accuracy:.1f} %",
            f"{100 * exit.accuracy_all:.1f} %",
            "–" if exit.ece is None else f"{exit.ece:.3f}",
            "–" if exit.auroc is None else f"{exit.auroc:.3f}",
        )
    note = (
        "right here: of those that leave there; ECE of the confidence and AUROC of the score over all."
    )
    show(listing, "Exits, on test", note)


def _classes(tested: Outcome) -> None:
    """The classes that lose most; those whose loss is surely above 0 are named in any case."""

    def hurt(line: ClassOutcome) -> bool:
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
            f"{100 * line.full:.1f} %",
            f"{100 * line.policy:.1f} %",
            f"{100 * line.loss.value:+.1f}",
            f"{100 * low:+.1f} to {100 * high:+.1f}",
            "loses" if hurt(line) else "",
        )
    note = f"and {rest} classes that lose no more (--json has them)" if rest else ""
    show(listing, "Loss of accuracy by class, on test, most first", note)


@dataclass(frozen=True)
class Timed:
    """Measured times of a trial's stages. costs: nanoseconds an image of each.  machine: where."""

    times: StageTimes
    costs: Costs
    machine: Mapping[str, Any]


def measured(store: Store, trained: Trained, batch: int, score: str, trust_code: bool) -> Timed:
    """What the stages of a trial's network take here. What it has learned changes no time."""
    from offramp import device as devices
    from offramp.engine.settings import placed
    from offramp.infer.timing import machine, stage_times
    from offramp.study.run.trials import blank_network

    device = devices.chosen()
    net = blank_network(store, trained.id, trust_code).eval()
    placed(net, device)
    times = stage_times(net, batch, score)
    return Timed(times, times.costs(trained.costs.owners, trained.exits), machine(device))


def stages(timed: Timed) -> dict[str, Any]:
    """Median seconds of a batch by stage, and where they were measured, as JSON."""
    times = timed.times
    return {
        "batch": times.batch,
        "segments": [t.p50 for t in times.segments],
        "heads": [t.p50 for t in times.heads],
        "plain": times.plain.p50,
        "repeats": len(times.plain.samples),
        "machine": dict(timed.machine),
    }


def record(timed: Timed, chosen: Measure, full: Measure) -> dict[str, Any]:
    """What the policy file keeps of it."""
    return {"mean_seconds": chosen.seconds, "full_seconds": full.seconds, "stages": stages(timed)}


def _show_time(policy: Policy, tested: Outcome, timed: Timed) -> None:
    """The mean time of a test image."""
    spent = policy.macs(timed.costs)
    mean = sum(exit.share * each for exit, each in zip(tested.exits, spent, strict=True)) / 1e6
    full, where = timed.costs.full / 1e6, timed.machine
    typer.echo(
        f"  time an image      {mean:.4g} ms (full network {full:.4g} ms), of stages measured apart\n"
        f"                     at batch {timed.times.batch} on {where['device']}, "
        f"{where['threads']} threads"
    )
