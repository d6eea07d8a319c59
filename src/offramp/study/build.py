"""From a backbone and data to a study of one trial that deploys well: the choices of `offramp build`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from PIL import Image, UnidentifiedImageError

from offramp import device as devices
from offramp.data import Data, load
from offramp.data.images.files import Files, upright_size
from offramp.data.load import NORMALIZED, read_source
from offramp.data_spec import Normalization
from offramp.errors import OfframpError, nearest
from offramp.inputs import Shape
from offramp.nets import BACKBONES, ExitNetwork, build
from offramp.nets.cut.spread import EXITS
from offramp.nets.families import FamilyMember, has_smaller, nearest_to, smaller
from offramp.nets.network import inside
from offramp.nets.pretrained import IMAGENET, at_hand, has_public, published
from offramp.numerics import FAST
from offramp.policy.policy import Policy
from offramp.preprocessing import FORMATS
from offramp.strategies import STRATEGIES
from offramp.study.plan import programs
from offramp.study.plan.plan import Plan, make_plan, net_spec, numerics_for, plan_trials
from offramp.study.spec import file as spec
from offramp.study.spec.models import ControlSpec, Study
from offramp.units import counted, macs

LEAST, LARGEST, STEP = 32, 224, 16  # pixels
LOOKED_AT = 500  # images whose size is looked at
RANDOM = "random"
ENOUGH = 10_000  # training images with which random weights may do
STEPS = 1_500  # of the optimizer, in each phase: what epochs are chosen for
EPOCHS = (20, 100)  # the fewest and the most
FEW, SMALL_BATCH = 1_000, 16  # training images below which batches are small
RECIPE = {"optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "schedule": "cosine"}
BATCH = 64
AGAIN = "for as much work again"  # which the forecast of the trial leaves out
TUNING_RATE = 3e-4  # of a backbone that comes with weights: 1e-3 forgets them


@dataclass(frozen=True)
class StrategyAdvice:
    """Strategies that somebody advises."""

    strategies: tuple[str, ...]  # their names, the best first
    text: str  # what speaks for them, a clause
    source: str  # whose advice it is, and where it stands


@dataclass(frozen=True)
class BuildOptions:
    """What the user of a build decides; the rest follows from it and the images."""

    backbone: str  # as in a study file
    data: str  # as in a study file, `folder:PATH` for images of one's own
    exits: str = "auto"  # `auto`, or as `offramp.study.spec.file.exits` reads them
    # a file, `imagenet` or `random`; None takes public ones where they are on this machine
    weights: str | None = None
    keep_frozen: bool = False  # train heads only
    goal: str = "accuracy"  # what matters most, for the words of `reasons`
    advice: Sequence[StrategyAdvice] = ()  # on strategies for the goal
    strategy: str | None = None  # in place of what is advised
    # a strategy's name and options that runs of the same backbone put first for the goal, and what they
    # are; None leaves it to the advice
    evidence: tuple[str, Mapping[str, Any], str] | None = None
    size: int | None = None  # pixels of a side
    normalize: str | Normalization | None = None  # as of `DataSpec`
    seed: int = 42  # of the trial
    settings: tuple[str, ...] = ()  # `key=value` of a study file; they win
    device: str | None = None  # its name, as `offramp.device.chosen` takes it
    calibration: int = 0  # how many images of calibration the target needs
    pretrained: bool = False  # the public weights, frozen, and images as they were trained on
    control: bool = False  # also train a smaller plain network of the family


@dataclass(frozen=True)
class BuildPlan:
    """A plan of one trial, and what was chosen in it and why, a line each."""

    plan: Plan
    reasons: tuple[str, ...]
    # smaller plain networks of the family, one of which is to be trained as well
    members: tuple[FamilyMember, ...] = ()

    def control(self, policy: Policy, device: torch.device) -> Plan:
        """The plan of the plain network that is trained as well: the one that the study names, or the
        member nearest to what the policy takes, by the same recipe and for as much training."""
        study, origin = self.plan.study, policy.calibration
        if not study.controls:
            takes = (origin.chosen and origin.chosen.mean_macs) or self.plan.net.plain_macs
            limit = origin.target
            most = limit.value if limit is not None and limit.kind == "max-mean-macs" else math.inf
            within = [member for member in self.members if member.macs <= most]
            named = ControlSpec.model_validate(nearest_to(within or self.members, takes).control)
            study = study.model_copy(update={"controls": (named,)})
        control = study.parts[1]
        same = control.data == study.data  # of another size they are read anew
        return make_plan(control, device, data=self.plan.data if same else None)


def choose(wish: BuildOptions) -> BuildPlan:
    """Decide what was left open, read the data and plan the trial.

    Raises:
        OfframpError: For whatever cannot be had.
    """
    return _with_members(wish, _started(wish))


def _started(wish: BuildOptions) -> BuildPlan:
    """The plan for the weights that were named, or that are here."""
    if wish.pretrained:
        wish = _as_published(wish)
    if wish.weights == RANDOM:
        return _planned(replace(wish, weights=None), "random weights, as asked")
    if wish.weights is not None:
        return _planned(wish, f"the weights '{wish.weights}'")
    place = None if wish.keep_frozen else at_hand(IMAGENET, wish.backbone)
    if place is None:
        return _planned(wish, "")
    try:
        return _planned(replace(wish, weights=IMAGENET), f"ImageNet weights, {place}")
    except OfframpError as error:  # such as for gray images; a mistake comes again below
        plan = _planned(wish, "")
        why = f"ImageNet weights, {place}, are left out, as nobody asked for them: {error}"
        return replace(plan, reasons=(*plan.reasons, why))


def _as_published(wish: BuildOptions) -> BuildOptions:
    """The same in the words of other options."""
    if wish.weights not in (None, IMAGENET):
        raise OfframpError(
            f"pretrained takes the public weights, and weights says '{wish.weights}'; leave one of "
            "them out, or keep your own frozen (`keep_frozen`)"
        )
    size = published(wish.backbone).side if wish.size is None else wish.size
    return replace(wish, weights=IMAGENET, keep_frozen=True, size=size)


def _planned(wish: BuildOptions, source: str) -> BuildPlan:
    """The plan for decided weights. source: what they are; empty for random ones that nobody
    asked for."""
    reasons: list[str] = []
    mapping = _mapping(wish, reasons)
    mapping["data"] |= _size(_study(wish, mapping), reasons)
    study = _study(wish, mapping)
    if len(study.seeds) != 1 or len(study.strategies) != 1:
        raise OfframpError("build trains one trial; give one seed and one strategy")
    data = _data(study)
    count = _held_out(wish.calibration, data)
    if count and study.data.held_out_images is None:
        mapping["data"]["held_out_images"] = count
        before, data = len(data.calibration), _data(_study(wish, mapping))
        if len(data.calibration) != before:  # and not brought by the source
            why = "so that more of them train" if count < before else "as the target needs"
            reasons.append(f"about {count} images each for validation and calibration, {why}")
    mapping["recipe"] |= _length(len(data.train))
    study = _study(wish, mapping)
    reasons.append(_start(source, wish.backbone, len(data.train)))
    recipe = study.recipe
    reasons.append(
        f"{counted(recipe.epochs, 'epoch')} a phase of {len(data.train):,} training images, "
        f"{recipe.batch_size} a step"
    )
    shape, classes = data.shape, len(data.classes)
    study, net = _with_exits(wish, mapping, study, shape, classes, reasons)
    numerics = numerics_for(study, net, devices.chosen(wish.device), len(data.train))
    reasons.append(f"arithmetic: {numerics.words} ({study.numerics}; numerics=exact for studies' own)")
    return BuildPlan(plan_trials(study, data, net, numerics), tuple(reasons))


def _with_members(wish: BuildOptions, chosen: BuildPlan) -> BuildPlan:
    """The plan with the smaller plain networks of which one is to be trained as well, or with the offer
    to. Raises OfframpError where the family has none."""
    study, data = chosen.plan.study, chosen.plan.data
    spec, frozen = net_spec(study, data.shape), wish.keep_frozen or wish.pretrained
    if frozen and (wish.control or study.controls):
        raise OfframpError("frozen weights have no smaller network; leave `control` out")
    if study.controls:
        line = f"a plain network is trained as well, {AGAIN}: {study.controls[0].label}"
        return replace(chosen, reasons=(*chosen.reasons, line))
    if not wish.control:
        offer = "a smaller plain network may do as well: control (--control) trains one"
        offers = not frozen and has_smaller(spec)
        return replace(chosen, reasons=(*chosen.reasons, *([offer] if offers else [])))
    members = smaller(spec, data.shape, len(data.classes))
    if not members:
        where = " with weights on this machine" if spec.weights == IMAGENET else ""
        raise OfframpError(
            f"no smaller network of the family of {spec.backbone} is known{where}; name one as a "
            "setting: controls=[{backbone: NAME}]"
        )
    span = f"{counted(len(members), 'member')}, {macs(members[-1].macs)} to {macs(members[0].macs)} MACs"
    line = (
        f"a smaller plain network is trained as well, {AGAIN}: of its family ({span}) the one nearest "
        "to what the policy takes"
    )
    return replace(chosen, reasons=(*chosen.reasons, line), members=members)


def _start(source: str, backbone: str, images: int) -> str:
    """Where the training starts from."""
    if source:
        return f"starts from {source}"
    if images >= ENOUGH:
        return "starts from random weights"
    public = " or imagenet, which fetches public ones" if has_public(backbone) else ""
    return (
        f"starts from random weights; with {images:,} training images, given weights often do better: "
        f"weights (--weights) takes a file{public}"
    )


def _held_out(needed: int, data: Data) -> int | None:
    """How many images validation and calibration take each, where by default that would be less than
    the target needs, or a fifth of all: as many as it needs, from a tenth to 15 % of all."""
    calibration = len(data.calibration)
    images = len(data.train) + len(data.validation) + calibration
    if needed <= calibration <= images / 5:
        return None
    return min(max(needed, images // 10, 1), max(images * 3 // 20, 1))


def batch_size(images: int) -> int:
    """What a step takes of so many training images, where nobody says."""
    return BATCH if images >= FEW else SMALL_BATCH


def _length(images: int) -> dict[str, int]:
    """Batches and epochs for so many training images."""
    batch = batch_size(images)
    least, most = EPOCHS
    return {
        "batch_size": batch,
        "epochs": min(max(STEPS // math.ceil(images / batch), least), most),
    }


def _mapping(wish: BuildOptions, reasons: list[str]) -> dict[str, Any]:
    """The study, but for what depends on the images."""
    backbone: dict[str, Any] = {"name": wish.backbone}
    recipe: dict[str, Any] = dict(RECIPE)
    size = {} if wish.size is None else {"size": wish.size}
    if wish.weights is not None:
        backbone["weights"] = wish.weights
    if wish.keep_frozen and wish.weights is None:
        raise OfframpError("frozen weights are given ones; name them as weights")
    if wish.weights is not None and not wish.keep_frozen:
        recipe["learning_rate"] = TUNING_RATE
    return {
        "seeds": [wish.seed],
        "strategies": [_strategy(wish, reasons)],
        "backbone": backbone,
        "data": {"name": wish.data, **size, **_normalize(wish, reasons)},
        "recipe": recipe,
        "numerics": FAST,
    }


def _strategy(wish: BuildOptions, reasons: list[str]) -> dict[str, Any]:
    frozen = {"backbone": "kept"} if wish.keep_frozen else {}
    decided = wish.evidence if wish.strategy is None else (wish.strategy, {}, "")
    if decided is not None:
        name, options, runs = decided
        why = f"first for the goal '{wish.goal}' in runs of {runs}" if runs else "as asked"
        if wish.keep_frozen and not _keeps(name):
            choices = " or ".join(filter(_keeps, STRATEGIES))
            raise OfframpError(
                f"strategy {name}, {why}, trains the backbone; to keep it frozen choose the strategy "
                f"{choices}"
            )
        if name == "baseline":
            others = set(STRATEGIES) - {"baseline"}
            raise OfframpError(f"'baseline' has no early exits{nearest('', others)}")
        reasons.append(f"strategy {name}: {why}")
        return {"name": name, **options, **frozen}
    for advice in wish.advice:
        for name in advice.strategies:
            if not wish.keep_frozen or _keeps(name):
                source = f"{advice.source}; runs of your own, as evidence (--evidence), can say more"
                reasons.append(f"strategy {name}: {advice.text} ({source})")
                return {"name": name, **frozen}
    raise OfframpError(f"no strategy is advised for the goal '{wish.goal}'; name one as the strategy")


def _keeps(strategy: str) -> bool:
    """Whether a strategy can leave a given backbone as it is."""
    options = programs.options(programs.find(strategy))
    return any(o.name == "backbone" and "kept" in get_args(o.annotation) for o in options)


def _normalize(wish: BuildOptions, reasons: list[str]) -> dict[str, Any]:
    if wish.normalize is not None:
        named = isinstance(wish.normalize, str)
        return {"normalize": wish.normalize if named else [list(each) for each in wish.normalize]}
    if wish.weights == IMAGENET:
        seen = published(wish.backbone)
        name = next((n for n, of in NORMALIZED.items() if of == (seen.mean, seen.std)), None)
        whose = f"'{name}'" if name else f"{seen.mean} and {seen.std}"
        whose = "ImageNet's mean and deviation" if name == "imagenet" else whose
        reasons.append(f"pixels normalized by {whose}, as the weights expect")
        return {"normalize": name or [list(seen.mean), list(seen.std)]}
    if wish.keep_frozen and not any(s.startswith("data.normalize=") for s in wish.settings):
        raise OfframpError(
            "a frozen checkpoint keeps its answers only if pixels are normalized as it was trained; say "
            "normalize: imagenet, or train, or a mean and a deviation by channel (as the setting "
            "data.normalize=[[0.49, 0.48, 0.45], [0.25, 0.24, 0.26]])"
        )
    return {}


def _study(wish: BuildOptions, mapping: Mapping[str, Any]) -> Study:
    flags = {"strategies": "strategy", "backbone": "backbone", "data": "data", "exits": "exits"}
    flags = {key: flag for key, flag in flags.items() if key in mapping}
    return spec.parse(mapping, "build", wish.settings, flags)


def _data(study: Study) -> Data:
    return load(study.drawn_data, study.augment, study.execution.loader)


def _size(study: Study, reasons: list[str]) -> dict[str, Any]:
    """A size for images of one's own that differ in theirs."""
    if study.data.name not in ("folder", "table") or study.data.size is not None:
        return {}
    images = read_source(study.data).train.images
    assert isinstance(images, Files)
    step = max(1, len(images) // LOOKED_AT)
    sizes = list(filter(None, map(_size_of, images.paths[::step])))
    if len(set(sizes)) <= 1:
        return {}
    middle = sorted(min(size) for size in sizes)[len(sizes) // 2]
    size = max(LEAST, min(LARGEST, middle // STEP * STEP))
    reasons.append(f"size {size}: images differ, and half of them have {middle} pixels a side or more")
    return {"size": size}


def _size_of(path: Path) -> tuple[int, int] | None:
    """Width and height, upright; None where the file is damaged, which reading the data reports."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return upright_size(image)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None


def _with_exits(
    wish: BuildOptions,
    mapping: dict[str, Any],
    study: Study,
    shape: Shape,
    classes: int,
    reasons: list[str],
) -> tuple[Study, ExitNetwork]:
    """The study with taps and heads, and its network."""
    if study.exits.taps is not None or study.exits.head:
        return study, build(net_spec(study, shape), shape, classes, wish.seed)
    # What the paper put into its networks is not what one would deploy: theirs are spread here too.
    auto = EXITS if wish.backbone in BACKBONES else None
    taps = auto if wish.exits == "auto" else spec.exits(wish.exits)
    attempt = _study(wish, {**mapping, "exits": {"taps": taps}})
    net = build(net_spec(attempt, shape), shape, classes, wish.seed)
    if all(head.kind == "paper" for head in inside(net).head_specs):
        reasons.append("heads average their map: one that flattens it is larger and fits one size only")
        attempt = _study(wish, {**mapping, "exits": {"taps": taps, "head": {"flatten": False}}})
        net = build(net_spec(attempt, shape), shape, classes, wish.seed)
    where = "; ".join(
        f"{p}, {why}" for p, why in zip(net.places, inside(net).facts.reasons, strict=False)
    )
    reasons.append(f"{counted(net.exits - 1, 'early exit')}: {where}")
    return attempt, net
