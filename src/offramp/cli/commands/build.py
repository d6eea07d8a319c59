"""`offramp build`: plan, train, calibrate, export."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from offramp import units
from offramp.analysis.goals import GOALS, known_goal
from offramp.cli import options
from offramp.cli.bundle import Page, describe, int8_share, page_at
from offramp.cli.forecast import said_of_data, show_forecast
from offramp.cli.options import flag, option
from offramp.cli.progress.display import Progress, watch
from offramp.cli.progress.log import Log, LogOptions, opened
from offramp.cli.progress.reading import reading_shown
from offramp.cli.render import emit, say, told
from offramp.cli.training.budget import fitting
from offramp.cli.training.run_options import RunOptions, conduct
from offramp.cli.training.study import say_interrupted
from offramp.errors import OfframpError
from offramp.parts import Part
from offramp.store.place import Place, place
from offramp.terminal import show, table
from offramp.units import macs, percent

if TYPE_CHECKING:
    import torch

    from offramp.api.build import Built
    from offramp.policy.calibration import Target
    from offramp.policy.limits import Limits
    from offramp.store.store import Store
    from offramp.study.build import BuildOptions, BuildPlan
    from offramp.study.plan.plan import Plan


def build(
    backbone: Annotated[str, option("NAME", "A network: resnet18, timm/NAME or my.py:make_net.")],
    data: Annotated[str, option("NAME", "A data set: folder:path/to/images, cifar10:path or digits.")],
    out: Annotated[Path, option("FOLDER", "The bundle's folder, a new one.")],
    exits: Annotated[str, option("auto|N|PLACES", "How many exits, or where: a,b or 25%,50%.")] = "auto",
    max_accuracy_loss: options.AccuracyLossOption = None,
    max_mean_macs: options.MeanMacsOption = None,
    max_mean_latency: Annotated[
        str | None, option("TIME", "Time an image on average, by --stage-times, such as 5ms.")
    ] = None,
    max_p95_latency: options.P95Option = None,
    stage_times: options.StageTimesOption = None,
    risk: options.RiskOption = None,
    weights: Annotated[
        str | None,
        option(
            "FILE|imagenet|random",
            "The backbone's initial weights. By default public ones if they are here, else random.",
        ),
    ] = None,
    keep_frozen: Annotated[
        bool, flag("--keep-frozen", "Train heads only. The final exit's answers stay as they are.")
    ] = False,
    pretrained: Annotated[
        bool,
        flag("--pretrained", "Train heads only, on the public weights and at their image size."),
    ] = False,
    goal: Annotated[str, option("NAME", f"What matters most: {', '.join(GOALS)}.")] = "accuracy",
    evidence: Annotated[
        Place | None,
        option(
            "STORE",
            "Choose the strategy by this store's results, not by the paper's guidelines.",
            parser=place,
        ),
    ] = None,
    strategy: Annotated[
        str | None, option("NAME", "Train this strategy, whatever the goal says.")
    ] = None,
    size: Annotated[
        int | None, option("N", "Pixels a side of an image. By default chosen from the images.", min=1)
    ] = None,
    normalize: Annotated[
        str | None,
        option(
            "NAME",
            "How pixels are normalized: train, imagenet, half, clip or unit. By default as the weights "
            "expect, else train.",
        ),
    ] = None,
    int8: options.Int8Option = False,
    int8_loss: options.Int8LossOption = None,
    web: options.WebOption = None,
    onnxruntime_web: options.RuntimeOption = None,
    seed: Annotated[int, option("N", "The seed of weights, order and dropout.", min=0)] = 42,
    store: options.TrainingStoreOption = options.RUNS / "build",
    device: options.DeviceOption = None,
    set_: options.SetOption = None,
    budget: options.BudgetOption = None,
    dry_run: Annotated[
        bool, flag("--dry-run", "Show data, exits, strategy, work and target. Start nothing.")
    ] = False,
    force: Annotated[bool, flag("--force", "Replace an earlier bundle or page.")] = False,
    anyway: options.AnywayOption = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
    verbose: options.VerboseOption = False,
    log_file: options.LogFileOption = None,
    log_format: options.LogFormatOption = None,
) -> None:
    """Make a bundle from a backbone and images.

    It places exits, chooses a strategy, trains, calibrates and exports. First it prints its
    choices, with reasons. You may interrupt it at any time: the same command goes on.

    Name one limit, on accuracy, MACs, time or risk. Without one, --max-accuracy-loss is 0.01.

    \b
    Examples:
      offramp build --backbone resnet18 --data folder:photos --out bundle
      offramp build --backbone timm/efficientnet_b0 --pretrained \\
        --data folder:photos --out bundle
      offramp build --backbone resnet18 --data folder:photos --out bundle \\
        --weights mine.pth --keep-frozen --normalize imagenet
      offramp build --backbone digits-cnn --data digits --out bundle
    """
    from offramp.api.build import strategy_advice
    from offramp.bundle import graphs
    from offramp.policy.calibrate import target
    from offramp.policy.useful import check_stage_times, images_needed
    from offramp.study.build import BuildOptions

    limits: Limits = {
        "max_accuracy_loss": max_accuracy_loss,
        "max_mean_macs": max_mean_macs,
        "max_mean_latency": max_mean_latency,
        "max_p95_latency": max_p95_latency,
        "risk": risk,
    }
    if all(value is None for value in limits.values()):
        limits["max_accuracy_loss"] = 0.01
    limit = target(1, **limits)
    allowed = int8_share(int8, int8_loss)
    check_stage_times(stage_times, limit.kind, allowed is not None, anyway)
    kept = keep_frozen or pretrained
    known = chosen_from(evidence, goal, backbone, kept) if evidence else None
    wish = BuildOptions(
        backbone=backbone,
        data=data,
        exits=exits,
        weights=weights,
        keep_frozen=keep_frozen,
        goal=goal,
        advice=strategy_advice(known_goal(goal), kept),
        strategy=strategy,
        evidence=known,
        size=size,
        normalize=normalize,
        seed=seed,
        settings=tuple(set_ or ()),
        device=device,
        calibration=images_needed(limit.kind, limit.value),
        pretrained=pretrained,
    )
    graphs.check_installed()
    page = page_at(web, onnxruntime_web, force, out)
    aim = BundleRequest(
        limits,
        out,
        force=force,
        anyway=anyway,
        budget=budget,
        times=stage_times,
        int8=allowed,
        page=page,
    )
    with opened(LogOptions(log_file, log_format, verbose, quiet), json) as log:
        start(wish, aim, store, dry_run, json, quiet, log)


@dataclass(frozen=True)
class BundleRequest:
    """limits: of the policy.  out: the bundle's folder.  force: replace one that is there.  anyway: go
    on with what is not to be trusted.  budget: of the training, a time.  times: of stages, on the
    device.  int8: as of `bundle.export.ExportOptions`.  page: for browsers."""

    limits: Limits
    out: Path
    force: bool
    anyway: bool
    budget: str | None = None
    times: Path | None = None
    int8: float | None = None
    page: Page | None = None

    def target(self, plain_macs: int = 1) -> Target:
        """plain_macs: of the network without early exits, which a percentage is of. Raises OfframpError
        for a limit that makes no sense."""
        from offramp.policy.calibrate import target

        return target(plain_macs, **self.limits)


def chosen_from(
    source: Place, goal: str, backbone: str, keep_frozen: bool
) -> tuple[str, Mapping[str, Any], str]:
    """The strategy that runs put first: its name, its options, and what the runs are."""
    from offramp.analysis.recommend import Preference
    from offramp.report import evidence
    from offramp.report.advice import choice
    from offramp.usercode import is_user_code

    asked = Preference(known_goal(goal), frozen_backbone=keep_frozen)
    found = choice(evidence.open(source), asked, backbone)
    if found is None:
        raise OfframpError(
            f"the runs in {source} say nothing of {backbone} for the goal '{goal}'; leave --evidence "
            "out, to go by the paper's guidelines"
        )
    trial, why = found
    program = trial.manifest.program
    if is_user_code(program):
        raise OfframpError(
            f"the best strategy of the runs in {source} is code, {program}; read it, and if you want "
            f"it, name it yourself: --strategy {program}"
        )
    return program, trial.manifest.options, f"{why} ({source})"


def start(
    wish: BuildOptions,
    aim: BundleRequest,
    root: Place,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    log: Log,
) -> None:
    """Exits with 1 when training failed, 130 when interrupted."""
    from offramp import device as devices
    from offramp.bundle import folder as bundle
    from offramp.store.store import Store
    from offramp.study.build import batch_size, choose

    aim.target()  # mistakes before the work
    bundle.check_place(aim.out, aim.force)
    store = Store(root)
    device = devices.chosen(wish.device)
    weak: tuple[str, ...] = ()
    fits: tuple[str, ...] | None = None
    with reading_shown(log):
        chosen = choose(wish)
    if aim.budget is not None:
        how = RunOptions(root, dry_run, None, as_json, log, place=wish.device, anyway=aim.anyway)
        seconds = units.parse(aim.budget, units.TIME, "--budget")
        # Of fewer images a step takes fewer, unless `--set` says how many.
        taken = chosen.plan.study.recipe.batch_size
        open_ = taken == batch_size(len(chosen.plan.data.train))
        fits, weak = fitting(chosen.plan, seconds, aim.budget, how, batch_size if open_ else None)
        with reading_shown(log):
            chosen = choose(replace(wish, settings=(*wish.settings, *fits)))
    if dry_run:
        _dry(chosen, aim, store, device, as_json)
        return
    from offramp.api.build import resolved
    from offramp.policy.useful import check

    check(resolved(chosen.plan, aim.target()), aim.anyway)
    silent = quiet or as_json
    if not silent:
        _show_plan(chosen, aim)
    _train(chosen.plan, store, device, log, fits)
    done = _finish(chosen.plan, aim, store, silent, weak)
    if aim.page is not None:
        aim.page.write(done.folder)
    if as_json:
        page = {} if aim.page is None else {"web": str(aim.page.out)}
        emit({"bundle": str(done.folder), **page, "reasons": chosen.reasons, "card": done.card})
        return
    describe(done.folder, done.card)
    if aim.page is not None:
        aim.page.say()
    for line in _next(done, root):
        typer.echo(line)


def _next(done: Built, store: Place) -> list[str]:
    """Commands that go on from here, with the store that they read."""
    trial = done.trial.rpartition("-")[2]  # the hash
    bundle, where = shlex.quote(str(done.folder)), f"--store {shlex.quote(str(store))}"
    return [
        "Next:",
        f"  offramp show {trial} {where}",
        f"  offramp benchmark {bundle} {where}",
        f"  offramp calibrate {trial} {where} --max-mean-macs 40%",
        f"  offramp export {trial} {where} --policy policy.json --out other",
    ]


def _train(
    plan: Plan, store: Store, device: torch.device, log: Log, fits: tuple[str, ...] | None
) -> None:
    from offramp.study.run.processes import run_pooled

    progress = Progress(plan, log)
    try:
        watch(run_pooled(plan, store, conduct(device, 1)), progress)
    except KeyboardInterrupt as error:
        say_interrupted(error, log, fits)
    for failure in progress.state.failures():
        log.say(f"failed: {failure['strategy']}: {failure['reason']}", must=True)
    if progress.state.failed:
        raise typer.Exit(1)


def _finish(plan: Plan, aim: BundleRequest, store: Store, silent: bool, weak: tuple[str, ...]) -> Built:
    from offramp.api.build import deployed
    from offramp.bundle.export import ExportOptions

    wanted = aim.target(plan.net.plain_macs)
    asked = ExportOptions(force=aim.force, anyway=aim.anyway, doubts=weak, int8=aim.int8)
    return told(deployed(plan, store, wanted, aim.out, asked, aim.times), silent)


def _dry(
    chosen: BuildPlan, aim: BundleRequest, store: Store, device: torch.device, as_json: bool
) -> None:
    from offramp.api.build import resolved
    from offramp.study.plan.forecast import forecast

    found = forecast(chosen.plan, store, device)
    refused = () if aim.anyway else resolved(chosen.plan, aim.target())
    if as_json:
        emit({**_as_json(chosen, aim), "refused": refused, **found.as_json()})
        return
    _show_plan(chosen, aim)
    show_forecast(found)
    for why in refused:
        say(f"It would be refused: {why}, or --anyway.")


def _as_json(chosen: BuildPlan, aim: BundleRequest) -> dict[str, Any]:
    from offramp.nets.network import inside

    plan = chosen.plan
    return {
        "study": plan.study.model_dump(mode="json"),
        "reasons": chosen.reasons,
        "classes": plan.data.classes,
        "initial": inside(plan.net).facts.initial,
        "exits": _exits(plan),
        "target": _target(aim),
        "out": str(aim.out),
    }


def _exits(plan: Plan) -> list[dict[str, Any]]:
    from offramp.nets.network import inside

    net = plan.net
    plain = net.plain_macs
    rows = []
    for k, name in enumerate(net.places, start=1):
        head = net.macs(Part("head", k))
        reached = sum(net.macs(Part("segment", i)) for i in range(1, k + 1))
        kind = "classifier" if k == net.exits else inside(net).head_specs[k - 1].kind
        rows.append(
            {"exit": k, "after": name, "share": reached / plain, "head": kind, "head_macs": head}
        )
    return rows


def _target(aim: BundleRequest) -> dict[str, Any]:
    """A share as a number; of others what was given, as a percentage is of a network's MACs."""
    from offramp.policy.limits import LIMITS

    (given,) = (value for value in aim.limits.values() if value is not None)
    wish = aim.target()
    return {wish.kind: wish.value if LIMITS[wish.kind].metavar == "SHARE" else given}


def _show_plan(chosen: BuildPlan, aim: BundleRequest) -> None:
    from offramp.data.notes import notes

    plan = chosen.plan
    data = plan.data
    say(said_of_data(data))
    if plan.weights is not None:
        typer.echo(plan.weights)
    for line in (*chosen.reasons, *notes(data.provenance)):
        say(f"- {line}", indent="  ")
    rows = []
    for row in _exits(plan):
        spent = percent(row["share"]), macs(row["head_macs"])
        rows.append((str(row["exit"]), row["after"], row["head"], *spent))
    typer.echo("")
    listing = table(["exit", "after", "head"], ["MACs before it", "of its head"], rows)
    show(listing, f"{plan.study.backbone.name} with early exits")
    target = ", ".join(f"{kind} {value}" for kind, value in _target(aim).items())
    typer.echo(f"Target: {target}. Bundle: {aim.out}.\n")
