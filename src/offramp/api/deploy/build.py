"""From a backbone and images to a bundle: plan, train, calibrate, export."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from offramp.analysis.goals import GOALS, Goal, known_goal
from offramp.api.answer import answer
from offramp.api.deploy.card import (
    Int8,
    Int8Loss,
    Runtimes,
    WebFolder,
    card_document,
    check_one_class,
    check_page,
    int8_share,
    page_lines,
)
from offramp.api.deploy.policies import (
    CalibrationOptions,
    calibration_call,
    check_options,
    policy_for,
    target_of,
)
from offramp.api.options import (
    RUNS,
    Anyway,
    BackboneName,
    CommandOption,
    DataName,
    Device,
    Force,
    Settings,
    Time,
    Watcher,
    check_names,
    read_place,
)
from offramp.api.reporter import Reporter, TrainingFailed, finished, reporter_for
from offramp.api.train.forecast import data_line, forecast_document
from offramp.api.train.request import run_config
from offramp.api.train.run import interruptible
from offramp.errors import OfframpError
from offramp.paper.guidelines import guidelines
from offramp.parts import Part, path
from offramp.policy.limits import LIMITS, refuse_below
from offramp.recipe import ADOPTED
from offramp.store.place import Place, place
from offramp.terminal import TextBlocks, TextTable
from offramp.units import macs, percent
from offramp.usercode import is_user_code

if TYPE_CHECKING:
    from offramp.api.fit import Fitted
    from offramp.bundle.export import ExportOptions
    from offramp.data_spec import Normalization
    from offramp.policy.policy import Policy
    from offramp.store.store import Store
    from offramp.study.build import BuildOptions, BuildPlan, StrategyAdvice
    from offramp.study.plan.forecast import Forecast
    from offramp.study.plan.plan import Plan

NormalizationName = Annotated["Normalization | str | None", CommandOption("NAME")]
GoalName = Annotated[
    Goal,
    CommandOption(
        "NAME",
        f"What matters most: {', '.join(GOALS)}.  [default: accuracy]",
        parse=lambda text, _: known_goal(text),
    ),
]
AS_NAMED = {"weights", "keep_frozen", "strategy", "size", "normalize", "seed", "pretrained", "control"}
USUAL_LOSS, MOST_LOSS = 0.01, 0.05  # of accuracy, where no limit is named


class BuildChoices(CalibrationOptions, total=False):
    """What a bundle is made of: a limit and how policies are made, as for `calibrate`, and these.

    Attributes:
        exits: "auto" by default, how many, names of places, or shares of the MACs such as "25%": a,b or
            25%,50%.
        weights: What the backbone starts from: a file, imagenet or random. By default public weights if
            they are here, else random.
        adopt: The network has exits of its own and is trained, `weights` are all of its weights, and
            data are images that it was not trained on: nothing trains. Say `normalize`.
        keep_frozen: Train heads only. The final exit's answers stay as they are.
        pretrained: Train heads only, on the public weights and at their image size.
        goal: What the strategy is chosen for, as in `recommend`. "accuracy" by default.
        evidence: Choose the strategy by this store's results, not by the paper's guidelines.
        strategy: Train this strategy, whatever the goal says.
        size: Pixels a side of an image. By default chosen from the images.
        normalize: How pixels are normalized: train, imagenet, half, clip or unit; in Python also (mean,
            deviation) by channel. By default as the weights expect, else train.
        seed: The seed of weights, order and dropout. 42 by default.
        settings: Settings of a study to change, such as "recipe.epochs=5". They win over all else.
        device: Where the network trains.
        store: The store, which keeps finished work: a folder, or s3://BUCKET/NAME. runs/build by
            default.
        budget: Cut epochs and images until training here fits this time, such as 2h or 90min.
        int8: Quantize the stages; in Python, a number is the accuracy that this may cost.
        int8_loss: Accuracy to give up for int8: 0.01 or 1% is one point.
        runtime: Also write stages for executorch or openvino. Repeatable.
        web: Also write a web page that classifies images in the browser: a new folder.
        onnxruntime_web: With `web`: the npm package that the page needs. By default
            node_modules/onnxruntime-web, here or in a folder above.
        control: Train a smaller plain network of the family too, of about as much compute as the policy
            takes and for as much training. The better one of both at that compute is the bundle.
        force: Replace an earlier bundle or page.
        anyway: Go on with an unreliable result, and mark it.
    """

    exits: Annotated[int | str | Sequence[str], CommandOption("auto|N|PLACES")]
    weights: Annotated[str | None, CommandOption("FILE|imagenet|random")]
    adopt: bool
    keep_frozen: bool
    pretrained: bool
    goal: GoalName
    evidence: Annotated[Place | str | None, CommandOption("STORE", parse=read_place)]
    strategy: Annotated[str | None, CommandOption("NAME")]
    size: Annotated[int | None, CommandOption("N", least=1)]
    normalize: NormalizationName
    seed: Annotated[int, CommandOption("N", least=0)]
    settings: Settings
    device: Device
    store: Annotated[Place | str, CommandOption("STORE", parse=read_place)]
    budget: Time
    int8: Int8
    int8_loss: Int8Loss
    runtime: Runtimes
    web: WebFolder
    onnxruntime_web: WebFolder
    control: bool
    force: Force
    anyway: Anyway


@answer
class Built:
    """What `build` returns.

    Attributes:
        folder: Of the bundle.
        policy: Where each image leaves.
        card: What the network is, how it was trained, what it loses and what it costs, in types of JSON.
        trial: Its id in the store.
        reasons: What was chosen, and why, a line each.
        store: The store that has the trial.
        web: The folder of the page for browsers; None without one.

    Example:
        >>> built.policy.calibration.statement[:13]
        'No guarantee:'
    """

    folder: Path
    policy: Policy
    card: Mapping[str, Any]
    trial: str
    reasons: tuple[str, ...] = ()
    store: str = "runs/build"
    web: Path | None = None
    _share: int | None = None  # per cent of the MACs that a policy can keep; None of a plain network
    _trust: bool = False  # whether code that the store names ran

    def as_json(self) -> dict[str, Any]:
        page = {} if self.web is None else {"web": str(self.web)}
        reasons = list(self.reasons)
        return {"bundle": str(self.folder), **page, "reasons": reasons, "card": self.card}

    def document(self) -> TextBlocks:
        trial = self.trial.rpartition("-")[2]  # the hash
        bundle, where = shlex.quote(str(self.folder)), f"--store {shlex.quote(self.store)}"
        trust = " --trust-code" if self._trust else ""
        again = [
            f"  offramp calibrate {trial} {where}{trust} --max-mean-macs {self._share}%",
            f"  offramp export {trial} {where}{trust} --policy policy.json --out other",
        ]
        return [
            *card_document(self.folder, self.card),
            *page_lines(self.web),
            "Next:",
            f"  offramp show {trial} {where}",
            f"  offramp benchmark {bundle} {where}{trust}",
            f"  offramp serve {bundle}",
            *([] if self._share is None else again),
        ]


@answer
class BuildForecast:
    """What `build` would do.

    Attributes:
        choices: The plan, and why.
        forecast: What it would take.
        limit: What the policy is to keep, as it was named.
        out: The bundle's folder.
        refused: Why it would be refused; empty where it would not.
    """

    choices: BuildPlan
    forecast: Forecast
    limit: Mapping[str, Any]
    out: Path
    refused: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        from offramp.nets.network import inside

        plan = self.choices.plan
        return {
            "study": plan.study.model_dump(mode="json"),
            "reasons": self.choices.reasons,
            "classes": plan.data.classes,
            "initial": inside(plan.net).facts.initial,
            "exits": _exits(plan),
            "target": self.limit,
            "out": str(self.out),
            "refused": self.refused,
            **self.forecast.as_json(),
        }

    def document(self) -> TextBlocks:
        return [
            *_plan_document(self.choices, self.limit, self.out),
            *forecast_document(self.forecast),
            *(f"It would be refused: {why}, or --anyway (anyway=True)." for why in self.refused),
        ]


def build(
    backbone: BackboneName,
    data: DataName,
    out: Annotated[Path | str, CommandOption("FOLDER", by_name=True)],
    *,
    check: bool = True,
    measure: bool = True,
    watch: Watcher = None,
    **choices: Unpack[BuildChoices],
) -> Built:
    """Make a bundle from a backbone and images.

    It places exits, chooses a strategy, trains, calibrates and exports. First it says its
    choices, with reasons. You may interrupt it at any time: the same command goes on.

    Name one limit, on accuracy, MACs, time or risk. Without one, `max_accuracy_loss` is 0.01 or, of
    few calibration images, the least loss that they can tell, up to 0.05.

    Args:
        backbone: A network: resnet18, timm/NAME or my.py:make_net.
        data: A data set: folder:path/to/images, with a folder for each class, cifar10:path or digits.
        out: The bundle's folder, a new one.
        check: Compare the bundle's answers with PyTorch's.
        measure: Time the stages here, for the card.
        watch: Called with every event of the training; as for `run`, progress is shown by default, and
            False is silence.
        choices: A limit, and what was decided already.

    Raises:
        OfframpError: The input cannot work, training fails, or, unless `anyway`, the result is
            unreliable.

    On the command line:
        offramp build --backbone resnet18 --data folder:photos --out bundle
        offramp build --backbone timm/efficientnet_b0 --pretrained \\
          --data folder:photos --out bundle
        offramp build --backbone resnet18 --data folder:photos --out bundle \\
          --weights mine.pth --keep-frozen --normalize imagenet
        offramp build --backbone digits-cnn --data digits --out bundle
        offramp build --backbone my.py:make_net --weights trained.pth --adopt \\
          --data folder:unseen --normalize imagenet --out bundle

    Example:
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
    from offramp.bundle import web as pages
    from offramp.bundle.export import ExportOptions
    from offramp.policy import useful

    check_names(choices, BuildChoices)
    folder = Path(out)
    runtime, allowed = _check(choices, folder)
    anyway, force, web = choices.get("anyway", False), choices.get("force", False), choices.get("web")
    reporter, store = reporter_for(watch), _store(choices)
    if choices.get("adopt"):
        with reporter.reading():
            trained, loaded = _adopted(backbone, data, choices)
        reporter.say(f"Weights: {loaded}.")
        how = {"int8": False if allowed is None else allowed, "check": check, "measure": measure}
        built = _of_adopted(trained, folder, store, choices, reporter, loaded, **how)
    else:
        ready = _ready(backbone, data, choices, anyway, reporter)
        plan, limit = ready.chosen.plan, target_of(ready.choices)
        images = len(plan.data.calibration)
        least = useful.least_loss(images, limit.confidence)
        remedy = f"What can be had: `build(..., {limit.kind.replace('-', '_')}={least:g})`"
        useful.check(useful.resolution(limit, images), anyway, remedy)
        reporter.show(_plan_document(ready.chosen, _named_limit(ready.choices), folder))
        for note in plan.notes if not isinstance(watch, Reporter) else ():
            reporter.note(note)
        options = ExportOptions(
            check=check,
            measure=measure,
            force=force,
            anyway=anyway,
            doubts=ready.weak,
            int8=allowed,
            runtimes=tuple(choices.get("runtime", ())),
        )
        with interruptible(reporter, ready.fits):
            _train(plan, store, choices, reporter)
            built = _deployed(ready, store, folder, options, reporter)
    if web is not None and runtime is not None:
        pages.write(built.folder, web, runtime, force)
    return replace(built, store=str(store.root), web=web)


def forecast_build(
    backbone: BackboneName,
    data: DataName,
    out: Annotated[Path | str, CommandOption("FOLDER", by_name=True)],
    *,
    watch: Watcher = None,
    **choices: Unpack[BuildChoices],
) -> BuildForecast:
    """Show data, exits, strategy, work and target. Start nothing.

    Args:
        backbone: A network: resnet18, timm/NAME or my.py:make_net.
        data: A data set: folder:path/to/images, cifar10:path or digits.
        out: The bundle's folder, a new one.
        watch: Called with events; there are none yet.
        choices: A limit, and what was decided already.

    Raises:
        OfframpError: The input cannot work.

    On the command line:
        offramp build --backbone digits-cnn --data digits --out bundle --dry-run
    """
    from offramp import device as devices
    from offramp.policy.useful import resolution
    from offramp.study.plan.forecast import forecast

    check_names(choices, BuildChoices)
    if choices.get("adopt"):
        raise OfframpError("`adopt` trains nothing, so there is no work to show; leave one out")
    _check(choices, Path(out))
    ready = _ready(backbone, data, choices, True, reporter_for(watch))
    plan, limit = ready.chosen.plan, target_of(ready.choices)
    work = forecast(plan, _store(choices), devices.chosen(choices.get("device")))
    refused = () if choices.get("anyway") else resolution(limit, len(plan.data.calibration))
    return BuildForecast(ready.chosen, work, _named_limit(ready.choices), Path(out), refused)


TRAINING = ("exits", "keep_frozen", "pretrained", "goal", "evidence", "strategy", "budget", "control")


def _adopted(backbone: str, data: str, choices: BuildChoices) -> tuple[Fitted, str]:
    """The network of a name, with its own exits and weights; and what was loaded."""
    from offramp.api.adopt import of_study
    from offramp.study.spec import file as spec

    for name in TRAINING:
        if choices.get(name):
            raise OfframpError(f"`adopt` trains nothing, and `{name}` is of training; leave one out")
    more = {n: v for n in ("size", "normalize") if (v := choices.get(n)) is not None}
    request = {
        "seeds": [choices.get("seed", 0)],
        "strategies": [ADOPTED],
        "backbone": backbone,
        "data": {"name": data, **more},
    }
    flags = {"backbone": "backbone", "data": "data"}
    study = spec.parse(request, "build", tuple(choices.get("settings", ())), flags)
    return of_study(study, choices.get("weights"), _store(choices).root, choices.get("device"))


def _of_adopted(
    trained: Fitted,
    folder: Path,
    store: Store,
    choices: BuildChoices,
    reporter: Reporter,
    loaded: str,
    **how: Any,
) -> Built:
    """Calibrate and export it."""
    from offramp.data.notes import notes
    from offramp.study.trained import usual_share

    anyway, force = choices.get("anyway", False), choices.get("force", False)
    images = trained.logits["calibration"].shape[0]
    choices, unnamed = _limited(choices, images)
    again = calibration_call(trained.trial.rpartition("-")[2], store, True)
    own = trained._trained
    deployable = policy_for(own, lambda: trained.net, choices, anyway, "build", again)
    for note in (*unnamed, *notes(trained._data.provenance)):  # the card has those of the policy
        reporter.note(note)
    policy = _stated(deployable.policy, unnamed)
    runtimes = choices.get("runtime", ())
    done = trained.export(folder, policy, force=force, anyway=anyway, runtime=runtimes, **how)
    reasons = (loaded, f"adopted, nothing trained; calibrated on {images:,} images", *unnamed)
    share = usual_share(own.costs, own.plain_macs)
    return Built(done.folder, policy, done.card, trained.trial, reasons, _share=share, _trust=True)


def strategy_advice(goal: Goal, frozen_backbone: bool = False) -> tuple[StrategyAdvice, ...]:
    """The guidelines for a goal, as `offramp.study.build` takes them."""
    from offramp.study.build import StrategyAdvice

    advised, _ = guidelines(goal, frozen_backbone)
    source = f"the paper's guidelines for the goal '{goal}', section"
    return tuple(StrategyAdvice(g.strategies, g.text, f"{source} {g.section}") for g in advised)


def _limited(choices: BuildChoices, images: int | None = None) -> tuple[BuildChoices, tuple[str, ...]]:
    """The choices, with a limit, and what to say of it. Where none is named, it is the usual loss or, of
    too few calibration images for that, the least that they can tell, if that is of use."""
    from offramp.policy.useful import least_loss

    names = [name.replace("-", "_") for name in LIMITS]
    if any(choices.get(name) is not None for name in names):
        return choices, ()
    least = USUAL_LOSS if images is None else least_loss(images)
    if least <= USUAL_LOSS:
        return {**choices, "max_accuracy_loss": USUAL_LOSS}, ()
    loss = min(least, MOST_LOSS)
    line = f"no limit was named: it is a loss of accuracy of {loss:g}, as {images:,} calibration images "
    return {**choices, "max_accuracy_loss": loss}, (f"{line}tell no smaller one",)


@dataclass(frozen=True)
class _Ready:
    """What is to be trained.

    Attributes:
        chosen: The plan, and why.
        choices: With a limit.
        unnamed: What to say of a limit that nobody named.
        weak: Why the training is unreliable.
        fits: The settings that a budget came to; None without one.
    """

    chosen: BuildPlan
    choices: BuildChoices
    unnamed: tuple[str, ...]
    weak: tuple[str, ...]
    fits: tuple[str, ...] | None


def _stated(policy: Policy, unnamed: Sequence[str]) -> Policy:
    """The policy, whose statement also says what there is to say of its limit; cards have it."""
    from offramp.study.trained import stated

    for line in unnamed:
        policy = stated(policy, f"{line[:1].upper()}{line[1:]}.")
    return policy


def _check(choices: BuildChoices, out: Path) -> tuple[Path | None, float | None]:
    """What a page needs, and the accuracy that int8 may cost, before the work.

    Raises OfframpError for mistakes.
    """
    from offramp import device as devices
    from offramp.bundle import folder, graphs
    from offramp.bundle.runtimes import check_runtimes
    from offramp.policy.useful import check_stage_times

    devices.chosen(choices.get("device"))
    usual, _ = _limited(choices)
    options: Any = {n: v for n, v in usual.items() if n in CalibrationOptions.__annotations__}
    limit, file = check_options(options), choices.get("stage_times")
    force = choices.get("force", False)
    allowed = int8_share(choices.get("int8", False), choices.get("int8_loss"))
    times = None if file is None else Path(file)
    check_stage_times(times, limit.kind, allowed is not None, choices.get("anyway", False))
    graphs.check_exporter()
    check_runtimes(choices.get("runtime", ()), int8=allowed is not None)
    folder.check_place(out, force)
    return check_page(choices.get("web"), choices.get("onnxruntime_web"), force, out), allowed


def _check_labels(several: bool, choices: BuildChoices) -> None:
    """Raises OfframpError, before the work, for choices that do not go with the labels of the data."""
    from offramp.policy.candidates import Search
    from offramp.study.trained import of_labels

    of_labels(Search(choices.get("score", "confidence")), several, target_of(choices))
    if several:
        check_one_class(web=choices.get("web"), training_shares=choices.get("training_shares"))


def _check_macs(plan: Plan, choices: BuildChoices) -> None:
    """Raises OfframpError, before the work, for a limit on MACs that no exit can keep."""
    limit, of = target_of(choices, plan.net.plain_macs), plan.trials[0].resolved
    least = min(sum(plan.net.macs(part, of.carry) for part in path(exit)) for exit in of.final)
    if limit.kind == "max-mean-macs":
        refuse_below(limit.kind, limit.value, least)


def _store(choices: BuildChoices) -> Store:
    from offramp.store.store import Store

    return Store(place(choices.get("store", RUNS / "build")))


def _ready(backbone: str, data: str, choices: BuildChoices, anyway: bool, reporter: Reporter) -> _Ready:
    from offramp import device as devices
    from offramp.api.train.budget import shrunk
    from offramp.study.build import batch_size, choose

    usual, _ = _limited(choices)
    options = _options(backbone, data, usual)
    fits: tuple[str, ...] | None = None
    weak: tuple[str, ...] = ()
    with reporter.reading():
        chosen = choose(options)
    _check_labels(chosen.plan.data.several, usual)
    _check_macs(chosen.plan, usual)
    budget = choices.get("budget")
    if budget is not None:
        # Of fewer images a step takes fewer, unless `--set` says how many.
        is_usual = chosen.plan.study.recipe.batch_size == batch_size(len(chosen.plan.data.train))
        device, batches = devices.chosen(choices.get("device")), batch_size if is_usual else None
        trainings = 2 if chosen.members or chosen.plan.study.controls else 1
        fits, weak = shrunk(chosen.plan, budget, device, reporter, anyway, batches, trainings)
        with reporter.reading():
            chosen = choose(replace(options, settings=(*options.settings, *fits)))
    choices, unnamed = _limited(choices, len(chosen.plan.data.calibration))
    chosen = replace(chosen, reasons=(*chosen.reasons, *unnamed))
    return _Ready(chosen, choices, unnamed, weak, fits)


def _options(backbone: str, data: str, choices: BuildChoices) -> BuildOptions:
    from offramp.policy.useful import images_needed
    from offramp.study.build import BuildOptions

    limit = target_of(choices)
    goal = known_goal(choices.get("goal", "accuracy"))
    frozen = choices.get("keep_frozen", False) or choices.get("pretrained", False)
    as_named: Any = {name: value for name, value in choices.items() if name in AS_NAMED}
    source = choices.get("evidence")
    device = choices.get("device")
    exits = choices.get("exits", "auto")
    return BuildOptions(
        backbone=backbone,
        data=data,
        exits=str(exits) if isinstance(exits, int | str) else ",".join(exits),
        goal=goal,
        advice=strategy_advice(goal, frozen),
        evidence=None if source is None else _best_of(place(source), goal, backbone, frozen),
        settings=tuple(choices.get("settings", ())),
        device=None if device is None else str(device),
        calibration=images_needed(limit),
        **as_named,
    )


def _best_of(
    source: Place, goal: Goal, backbone: str, keep_frozen: bool
) -> tuple[str, Mapping[str, Any], str]:
    """The strategy that runs put first: its name, its options, and what the runs are."""
    from offramp.analysis.recommend import Preference
    from offramp.report import evidence
    from offramp.report.advice import choice

    preference = Preference(goal, frozen_backbone=keep_frozen)
    best = choice(evidence.open(source), preference, backbone)
    if best is None:
        raise OfframpError(
            f"the runs in {source} say nothing of {backbone} for the goal '{goal}'; leave `evidence` "
            "out, to go by the paper's guidelines"
        )
    trial, why = best
    program = trial.manifest.program
    if is_user_code(program):
        raise OfframpError(
            f"the best strategy of the runs in {source} is code, {program}; read it, and if you want "
            f"it, name it yourself: `strategy` {program}"
        )
    return program, trial.manifest.options, f"{why} ({source})"


def _train(plan: Plan, store: Store, choices: BuildChoices, reporter: Reporter) -> None:
    """Raises TrainingFailed where a phase fails, KeyboardInterrupt where it is cut short."""
    from offramp import device as devices
    from offramp.study.run.processes import run_pooled

    device = devices.chosen(choices.get("device"))
    state = reporter.train(plan, run_pooled(plan, store, run_config(device)))
    if state.interrupted is not None:
        raise state.interrupted
    if failures := state.failures():
        raise TrainingFailed(f"{failures[0]['strategy']}: {failures[0]['reason']}")


def _deployed(
    ready: _Ready, store: Store, out: Path, options: ExportOptions, reporter: Reporter
) -> Built:
    """Calibrate the plan's one trial, which has been trained, and export it; or, where a smaller plain
    network that was trained beside it is the better one, that."""
    from offramp import device as devices
    from offramp.bundle.export import export
    from offramp.policy.policy import Policy
    from offramp.study import trained as trials
    from offramp.study.beside import beside
    from offramp.study.run.trials import blank_network, recorded_code

    chosen, choices, plan = ready.chosen, ready.choices, ready.chosen.plan
    name, typed = plan.trials[0].id, {plan.study.backbone.name, plan.study.data.name}
    code = recorded_code(store, name, data=True)
    trust_code = code.keys() <= typed
    trained = trials.read(store, name, trust_code)
    code_runs = trust_code and bool(code)
    deployable = policy_for(
        trained,
        lambda: blank_network(store, name, trust_code).eval(),
        choices,
        options.anyway,
        "build",
        calibration_call(name.rpartition("-")[2], store, code_runs),
    )
    policy: Policy | None = _stated(deployable.policy, ready.unnamed)
    share = trials.usual_share(trained.costs, trained.plain_macs)
    assert policy is not None
    options = replace(options, trust_code=trust_code)
    if chosen.members or plan.study.controls:
        control = chosen.control(policy, devices.chosen(choices.get("device")))
        assert control.study.control is not None
        _train(control, store, choices, reporter)
        plain = trials.read(store, control.trials[0].id, trust_code)
        own = beside(trained, policy, plain, control.study.control.spec.label)
        options = replace(options, beside=own)
        if own.ship == "plain network":
            name, policy, share = own.plain, None, None
    steps = export(store, name, policy, out, options)
    bundle = finished(steps, lambda step: reporter.say(f"{step} …"))
    policy = policy or Policy.load(bundle.folder / "policy.json")
    return Built(
        bundle.folder, policy, bundle.card, name, chosen.reasons, _share=share, _trust=code_runs
    )


def _exits(plan: Plan) -> list[dict[str, Any]]:
    from offramp.nets.network import inside

    net = plan.net
    rows = []
    for k, name in enumerate(net.places, start=1):
        head = net.macs(Part("head", k))
        reached = sum(net.macs(Part("segment", i)) for i in range(1, k + 1))
        kind = "classifier" if k == net.exits else inside(net).head_specs[k - 1].kind
        share = reached / net.plain_macs
        rows.append({"exit": k, "after": name, "share": share, "head": kind, "head_macs": head})
    return rows


def _named_limit(choices: CalibrationOptions) -> dict[str, Any]:
    """A share as a number; of others what was named, as a percentage is of a network's MACs."""
    limit = target_of(choices)
    named: Any = choices.get(limit.kind.replace("-", "_"))
    return {limit.kind: limit.value if LIMITS[limit.kind].unit == "SHARE" else named}


def _plan_document(chosen: BuildPlan, limit: Mapping[str, Any], out: Path) -> list[str | TextTable]:
    from offramp.data.notes import notes

    plan = chosen.plan
    rows = []
    for row in _exits(plan):
        spent = percent(row["share"]), macs(row["head_macs"])
        rows.append((str(row["exit"]), row["after"], row["head"], *spent))
    target = ", ".join(f"{kind} {value}" for kind, value in limit.items())
    return [
        data_line(plan.data),
        *([] if plan.weights is None else [plan.weights]),
        *(f"- {line}" for line in (*chosen.reasons, *notes(plan.data.provenance))),
        TextTable(
            ["exit", "after", "head"],
            ["MACs before it", "of its head"],
            rows,
            f"{plan.study.backbone.name} with early exits",
        ),
        f"Target: {target}. Bundle: {out}.\n",
    ]
