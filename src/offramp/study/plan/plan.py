"""From a study to a plan: the trials, their nodes, and what sharing saves. Nothing runs here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, cast

import torch

from offramp import device as devices
from offramp import usercode
from offramp.data import Data, load
from offramp.data.dataset import FileSplit
from offramp.data.load import declared_data, missing
from offramp.data.notes import notes
from offramp.device import DeviceClass
from offramp.engine.cost import Work, step_macs, value_bytes, work
from offramp.engine.probe import faster_layout
from offramp.engine.resolve import Node, Resolved, Setting, resolve
from offramp.engine.values import frozen_inputs, teacher_logits
from offramp.errors import OfframpError
from offramp.hashing import digest, plain
from offramp.inputs import Shape
from offramp.meters.capacity import computing_cores
from offramp.nets import ExitNetwork, NetSpec, build
from offramp.nets.backbones.lookup import fitting_stem, small_map_warning
from offramp.nets.cut.spread import is_chain
from offramp.nets.network import inside, prepared
from offramp.nets.pretrained import at_hand
from offramp.numerics import CUSTOM, FAST, Numerics, fast, profile, registered
from offramp.phase import check_gates
from offramp.strategies.joint import loss_weights
from offramp.study.plan import programs
from offramp.study.spec.models import MATCHED, StrategySpec, Study
from offramp.units import noun

PRETRAINED_STEM = "imagenet"  # which public weights were trained with
SEEN = 2000  # training images that a network's first weights may follow from


@dataclass(frozen=True)
class Trial:
    """One strategy with one seed."""

    id: str
    label: str
    strategy: StrategySpec
    seed: int
    resolved: Resolved
    # keys of the nodes that no trial before it in the study needs: what it adds to the cost
    marginal: tuple[str, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(node.key for node in self.resolved.nodes))


@dataclass(frozen=True)
class Plan:
    """All that a run needs."""

    study: Study  # as it is carried out
    data: Data
    net: ExitNetwork
    numerics: Numerics
    trials: tuple[Trial, ...]
    nodes: Mapping[str, Node]  # by key, each after what it needs
    work: Mapping[str, Work]  # what each node costs, by key
    remarks: tuple[str, ...] = ()  # in what `study` differs from the one that was read, and what to mend
    # what is not here, where the plan is for looking only: its keys are not those of a run
    provisional: tuple[str, ...] = ()

    @property
    def weights(self) -> str | None:
        """A line on what became of weights that the backbone was given; None where it was given none."""
        initial = inside(self.net).facts.initial
        return None if initial is None else f"Weights '{self.study.backbone.weights}': {initial}."

    @property
    def notes(self) -> list[str]:
        """What to know before it runs, a line each."""
        about = notes(self.data.provenance, noun(self.data.shape))
        return [*(f"{line}." for line in self.remarks), *(f"{self.data.name}: {n}" for n in about)]

    @property
    def users(self) -> dict[str, list[str]]:
        """Labels of the strategies that read each node."""
        labels: dict[str, list[str]] = {key: [] for key in self.nodes}
        for trial in self.trials:
            for key in trial.keys:
                labels[key].append(trial.label)
        return labels

    @property
    def titles(self) -> dict[str, str]:
        """What each phase is called, by its key: `seed 42 · joint and 2 more · branch 1`."""
        titles = {}
        for key, labels in self.users.items():
            first, *others = dict.fromkeys(labels)
            more = f" and {len(others)} more" if others else ""
            titles[key] = f"seed {self.nodes[key].seed} · {first}{more} · {self.nodes[key].name}"
        return titles

    @property
    def written(self) -> int:
        """MACs if every strategy ran in full, as the paper runs them."""
        return sum(self.work[n.key].written for t in self.trials for n in t.resolved.nodes)

    @property
    def executed(self) -> int:
        """MACs of this plan."""
        return sum(self.macs(key) for key in self.nodes)

    def macs(self, key: str) -> int:
        """MACs of a node under this plan's execution."""
        work = self.work[key]
        return work.executed if self.study.execution.cache else work.written


def net_spec(study: Study, shape: Shape) -> NetSpec:
    """The network that a study asks for, for images of `shape` (C, H, W): with the stem that fits them,
    where it begins from scratch and the study names none."""
    options = dict(study.backbone.options)
    stem = fitting_stem(study.backbone.name, min(shape[1:], default=0))
    if stem is not None and study.backbone.weights is None:
        options.setdefault("stem", stem)
    return NetSpec(
        backbone=study.backbone.name,
        options=tuple(sorted(options.items())),
        taps=study.exits.taps,
        head=tuple(study.exits.head.items()),
        weights=study.backbone.weights,
    )


def data_identity(data: Data) -> dict[str, Any]:
    """What training reads of the data, for keys: neither calibration nor test."""
    identity: dict[str, Any] = {"train": data.train.digest, "validation": data.validation.digest}
    identity |= {"mean": list(data.mean), "std": list(data.std)}
    if data.augment is not None:  # else the keys of all that was ever trained without would change
        identity["augment"] = plain(data.augment.changes)
    if isinstance(data.train, FileSplit) and data.train.content is not None:
        identity["files"] = data.train.content
    return identity


def make_plan(
    study: Study,
    device: torch.device | None = None,
    provisional: bool = False,
    data: Data | None = None,
    numerics: Numerics | None = None,
) -> Plan:
    """Read the data, build the network, resolve every strategy for every seed.

    device: where it will train, the best of this machine by default; provisional: go by declared counts
    and random weights where data or weights are not here, for a plan to look at, and fetch nothing;
    data: of `read_data`, where it is at hand; numerics: what the study's profile says, where it lies on
    another machine.

    Raises:
        OfframpError: For whatever the study names that cannot be had, with the file's line.
    """
    place, named = device or devices.chosen(), numerics is None
    if numerics is None:
        with study.at("numerics"):
            numerics = numerics_named(study.numerics, place)
    for index, strategy in enumerate(study.strategies):  # a mistyped name need not wait for the data
        with study.at("strategies", index):
            programs.find(strategy.source)
    study, remarks = _at_scale(study)
    lacking: list[str] = []
    if study.control is not None and study.control.spec.epochs == MATCHED:
        data = read_data(study, provisional) if data is None else data
        own = study.control.host
        of_host = data if own.drawn_data == study.drawn_data else read_data(own, provisional)
        study = _matched(study, own, (data, of_host), device, provisional, numerics)
    absent = missing(study.data) if provisional else None
    if absent is not None:
        lacking.append(f"{study.data.name}: {absent}; counts are those known of it")
    data = read_data(study, provisional) if data is None else data
    drawn = study
    if provisional and _weights_absent(study) and not _keeps_backbone(study):
        lacking.append(f"{study.backbone.name}: its weights '{study.backbone.weights}' are not here")
        drawn = without_weights(study)
    net = _network(drawn, data)
    small = small_map_warning(net, study.backbone.name)
    remarks += () if small is None else (small,)
    if named:
        numerics = numerics_for(study, net, place, len(data.train))
    plan = plan_trials(study, data, net, numerics)
    return replace(plan, remarks=remarks, provisional=tuple(lacking))


def _matched(study: Study, host: Study, data: tuple[Data, Data], *site: Any) -> Study:
    """A control's study with as many epochs as cost what a strategy of the host's costs, the middle one
    of those with early exits, and no more."""

    def planned(each: Study, data: Data, **changes: Any) -> list[float]:
        once = each.model_copy(update={"seeds": each.seeds[:1], **changes})
        once._control = None
        device, provisional, numerics = site
        plan = make_plan(once, device, provisional, data, numerics)
        early = [t for t in plan.trials if len(t.resolved.final) > 1] or plan.trials
        return [float(sum(plan.macs(key) for key in trial.keys)) for trial in early]

    own, of_host = data
    usual = study.recipe.epochs  # which go with the rest of the recipe, such as a warm-up
    both = (usual, usual + 1)
    costs = (planned(study, own, recipe=replace(study.recipe, epochs=n))[0] for n in both)
    epochs = epochs_for(median(planned(host, of_host)), usual, *costs)
    return study.model_copy(update={"recipe": replace(study.recipe, epochs=epochs)})


def epochs_for(budget: float, usual: int, cost: float, longer: float) -> int:
    """The most epochs that cost no more than a budget, at least one. cost: of the `usual` number of
    them; longer: of one more."""
    return max(1, usual + int((budget - cost) // (longer - cost)))


def read_data(study: Study, provisional: bool = False) -> Data:
    """The data of a study; provisional: as declared where it is not here. Raises as `make_plan`."""
    augment = study.augment
    spec = study.drawn_data
    with study.at("data"):
        if provisional and missing(spec) is not None:
            return declared_data(spec, augment)
        return load(spec, augment, study.execution.loader)


def plans(
    studies: Sequence[Study], device: torch.device | None = None, provisional: bool = False
) -> Iterator[Plan]:
    """The plan of each study. Data that several have in common is read once.

    Raises:
        OfframpError: As `make_plan`, and before the first of them has trained for days where the folder
            of any study's data is not there.
    """
    for study in () if provisional else studies:
        if missing(study.data) is not None:
            read_data(study)
    return _each_plan(studies, device, provisional)


def _each_plan(
    studies: Sequence[Study], device: torch.device | None, provisional: bool
) -> Iterator[Plan]:
    sources = [(study.drawn_data, study.augment, study.execution.loader) for study in studies]
    at_hand: list[tuple[Any, Data]] = []  # that later studies read too: all would fill the memory
    for number, (study, source) in enumerate(zip(studies, sources, strict=True), start=1):
        data = next((data for other, data in at_hand if other == source), None)
        data = read_data(study, provisional) if data is None else data
        later = sources[number:]
        at_hand = [pair for pair in at_hand if pair[0] != source and pair[0] in later]
        at_hand += [(source, data)] if source in later else []
        yield make_plan(study, device, provisional, data)


def without_weights(study: Study) -> Study:
    """The study from scratch, on the very network."""
    backbone = study.backbone
    stem = {"stem": PRETRAINED_STEM} if fitting_stem(backbone.name, 0) and backbone.weights else {}
    changed = {"weights": None, "options": {**stem, **backbone.options}}
    return study.model_copy(update={"backbone": backbone.model_copy(update=changed)})


def _weights_absent(study: Study) -> bool:
    weights = study.backbone.weights
    return weights is not None and at_hand(weights, study.backbone.name) is None


def _keeps_backbone(study: Study) -> bool:
    return any(s.options.get("backbone") == "kept" for s in study.strategies)


def _at_scale(study: Study) -> tuple[Study, tuple[str, ...]]:
    """At scale small, from scratch where the weights are not here; and a line that says so."""
    if study.scale == "full" or not _weights_absent(study) or _keeps_backbone(study):
        return study, ()
    line = f"weights '{study.backbone.weights}' are not here; at scale small it starts from scratch"
    return without_weights(study), (line,)


def _network(study: Study, data: Data) -> ExitNetwork:
    """The network; what is wrong is said of the backbone, the taps or the heads, whichever it is."""
    shape, classes = data.shape, len(data.classes)
    spec, seed = net_spec(study, shape), study.seeds[0]
    try:
        return build(spec, shape, classes, seed)
    except OfframpError as error:
        plain = replace(spec, head=(), taps=spec.taps if is_chain(spec.taps) else 0)
        with study.at(*(("exits", "taps") if plain.taps else ("backbone",))):
            build(replace(plain, weights=None), shape, classes, seed)
        with study.at("backbone", "weights"):
            build(plain, shape, classes, seed)
        with study.at("exits", "taps"):
            build(replace(spec, head=()), shape, classes, seed)
        raise OfframpError(f"{study.where('exits', 'head')}: {error}") from None


def numerics_named(
    name: str, device: torch.device, step_macs: float = math.inf, ranks: int = 1
) -> Numerics:
    """The profile of a name, `fast` included. step_macs: of a training step, by which `fast` has
    threads; ranks: processes that share the cores."""
    if name != FAST:
        return profile(name, device.type)
    has, kind = devices.arithmetic(device), cast(DeviceClass, device.type)
    return fast(kind, max(1, computing_cores() // ranks), step_macs, has.tf32, has.bfloat16)


def numerics_for(study: Study, net: ExitNetwork, device: torch.device, images: int) -> Numerics:
    """The profile that a study names, as it is for this network on this device. images: that it trains
    on."""
    with study.at("numerics"):
        batch, launched = study.recipe.batch_size, devices.launched()
        here = study.execution.devices or (1 if launched is None else launched.here)
        numerics = numerics_named(study.numerics, device, step_macs(net, batch), here)
    if study.numerics != FAST or launched is not None or here > 1:  # ranks must agree
        return numerics
    steps = study.recipe.epochs * images // batch
    layout = faster_layout(net, numerics, batch, steps, device)
    return registered(replace(numerics, name=CUSTOM, memory_format=layout))


def plan_trials(study: Study, data: Data, net: ExitNetwork, numerics: Numerics) -> Plan:
    """The plan for data and a network at hand."""
    if study.augment is not None:
        with study.at("augment"):
            own = None if data.augment is None else data.augment.own
            data = replace(data, augment=replace(study.augment, own=own))
    numerics = _on_devices(study, data, numerics)
    net = prepared(net, lambda: data.sample(SEEN))
    identity = data_identity(data)
    trials: list[Trial] = []
    nodes: dict[str, Node] = {}
    with study.at("recipe", "joint_weights"):
        loss_weights(study.recipe.joint_weights, net.exits)
    for seed in study.seeds:
        for index, strategy in enumerate(study.strategies):
            with study.at("strategies", index):
                resolved = _resolve(study, strategy, net, numerics, identity, seed)
                check_gates((node.phase for node in resolved.nodes), data.several)
            new = {n.key: n for n in resolved.nodes if n.key not in nodes}
            nodes |= new
            name = trial_id(study, strategy.label, resolved, data, seed)
            trials.append(Trial(name, strategy.label, strategy, seed, resolved, tuple(new)))
    sizes = value_bytes(net)
    images = data.images_an_epoch
    costs = {key: work(node, net, images, sizes, data.augment) for key, node in nodes.items()}
    return Plan(study, data, net=net, numerics=numerics, trials=tuple(trials), nodes=nodes, work=costs)


def _on_devices(study: Study, data: Data, numerics: Numerics) -> Numerics:
    """The numerics of as many ranks as train together. Raises OfframpError where some would have nothing
    to do."""
    launched = devices.launched()
    ranks = study.execution.devices or (1 if launched is None else launched.count)
    least = min(study.recipe.batch_size, len(data.train), len(data.validation))
    if ranks > least:
        raise OfframpError(
            f"{study.where('execution', 'devices')}: {ranks} devices have {least} images to share "
            "(of a batch, or of a split); set fewer"
        )
    return replace(numerics, ranks=ranks)


def _resolve(
    study: Study,
    strategy: StrategySpec,
    net: ExitNetwork,
    numerics: Numerics,
    identity: Mapping[str, Any],
    seed: int,
) -> Resolved:
    recipe = study.recipe
    shared = {name: getattr(recipe, name) for name in ("joint_weights", "temperature", "alpha")}
    if strategy.options.get("backbone") == "kept" and not inside(net).arrives_trained:
        raise OfframpError(
            "'backbone: kept' keeps weights that are random"
            + (f" in part ({inside(net).facts.initial})" if inside(net).facts.initial else "")
            + "; give the backbone weights that were trained for these classes, or leave the option out"
        )
    program = programs.program(strategy.source, net.exits, strategy.options, shared)
    alone = None
    if not study.execution.share:
        alone = digest([study.execution.mode, strategy.label])
    setting = Setting(
        data=identity,
        recipe=recipe.recipe,
        numerics=numerics,
        seed=seed,
        overrides=strategy.overrides,
        budget=recipe.budget,
        alone=alone,
    )
    resolved = resolve(program, net, setting)
    _check_gradients(net, resolved)
    return resolved


def _check_gradients(net: ExitNetwork, resolved: Resolved) -> None:
    """Raises OfframpError where what trains would learn something else than in the whole backbone."""
    trunk = inside(net).trunks[0]
    wrong = trunk.wrong_gradients
    trained = {part for node in resolved.nodes for part in node.trained} if wrong else ()
    astray = sorted(wrong & {name for part in trained for name in inside(net).state(part)})
    if astray:
        raise OfframpError(
            f"cut in pieces, {type(trunk.module).__name__} loses gradients that its forward sets (by an "
            f"autograd.Function, or no_grad), and '{astray[0]}' would learn something else; write that "
            "step with detach(), or make it a submodule and give exits as lists of submodule names"
        )


def trial_id(
    study: Study, label: str, resolved: Resolved, data: Data, seed: int, more: Sequence[Any] = ()
) -> str:
    """A name to read and type, ending in a hash of all that the trial's answers depend on. more: what
    the keys of its phases lack of that."""
    keys, final = [node.key for node in resolved.nodes], plain(list(resolved.final.values()))
    reads = [label, keys, final, [data.calibration.digest, data.test.digest]]
    reads += [*(["test_time_flip"] if study.test_time_flip else []), *more]
    words = [_word(name) for name in (label, study.backbone.name, study.data.name)]
    return "-".join([*filter(None, words), f"s{seed}", digest(reads)[:8]])


def _word(name: str) -> str:
    """A name as a part of an id: of a user's own code its file and function, without folders."""
    if usercode.is_user_code(name):
        name = f"{usercode.file_of(name).stem}-{name.rpartition(':')[2]}"
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-")


def can_fuse(node: Node, other: Node) -> bool:
    """Whether two phases may share a pass over the data: heads on one frozen trunk."""
    if not (_heads_alone(node) and _heads_alone(other)):
        return False
    if node.seed != other.seed or node.recipe.batch_size != other.recipe.batch_size:
        return False
    if node.key in other.needs or other.key in node.needs:
        return False
    trunk: dict[Any, Any] = {}
    for each in (node, other):
        for value in (*frozen_inputs(each).values(), *teacher_logits(each).values()):
            for part, source in value.parts.items():
                if trunk.setdefault(part, source) != source:
                    return False
    return True


def _heads_alone(node: Node) -> bool:
    return not any(part.kind == "segment" for part in node.trained)


def grouped(
    ready: Sequence[Node], fuse: bool, together: Callable[[Node, Node], bool] = can_fuse
) -> list[list[Node]]:
    """As claims are made: each phase with all after it that can share its pass."""
    groups: list[list[Node]] = []
    fusible: dict[int, list[list[Node]]] = {}  # by seed
    for node in ready:
        with_heads = fusible.setdefault(node.seed, []) if fuse and _heads_alone(node) else []
        group = next((g for g in with_heads if all(together(member, node) for member in g)), None)
        if group is None:
            group = []
            groups.append(group)
            with_heads.append(group)
        group.append(node)
    return groups
