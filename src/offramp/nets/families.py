"""The family of a network: others that differ from it in size alone, as ResNet-18 from ResNet-34."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from offramp.errors import OfframpError
from offramp.inputs import Shape, blank
from offramp.nets.backbones import BACKBONES
from offramp.nets.backbones.lookup import NetSpec, origin_of
from offramp.nets.cut.observe import count_macs
from offramp.nets.pretrained import IMAGENET, at_hand, published
from offramp.usercode import is_user_code, load

WIDTHS = ("width", "width_mult")  # what functions call a width
SHARES = (0.75, 0.5, 0.25)  # of a width that is a number
SIZES = re.compile(  # in names of timm's and torchvision's: what tells members of one family apart
    r"(?<!v)\d+[a-z]*(?=_|$)|(?<![a-z0-9])(atto|femto|pico|nano|micro|mini|tiny|small|medium|base|large"
    r"|[xsmltb]|x?xs|xx?l|xlarge|huge|giant)(?=_|$)"
)


@dataclass(frozen=True)
class FamilyMember:
    """A smaller plain network of a family. control: as `controls` of a study name it; macs: of an
    image."""

    control: Mapping[str, Any]
    spec: NetSpec
    macs: int


def has_smaller(spec: NetSpec) -> bool:
    """Whether the family of a network may have a smaller member; nothing is built or fetched."""
    return next(_kin(spec), None) is not None


def smaller(spec: NetSpec, shape: Shape, classes: int) -> tuple[FamilyMember, ...]:
    """Members of the family that cost less, the dearest first. One that starts from public weights has
    members whose weights are on this machine and saw images normalized alike."""
    whole = _macs(spec, shape, classes)
    costs = []
    for control, other in _kin(spec):
        try:
            costs.append(FamilyMember(control, other, _macs(other, shape, classes)))
        except OfframpError:  # such as one that takes images of another size only
            continue
    less = {member.macs: member for member in reversed(costs) if 0 < member.macs < whole}
    return tuple(less[cost] for cost in sorted(less, reverse=True))


def nearest_to(members: Sequence[FamilyMember], macs: float) -> FamilyMember:
    """The one whose MACs are nearest, by their ratio."""
    return min(members, key=lambda member: abs(math.log(member.macs / macs)))


def _kin(spec: NetSpec) -> Iterator[tuple[Mapping[str, Any], NetSpec]]:
    """Other sizes, larger ones too, as a study's controls and as networks."""
    options = dict(spec.options)
    if spec.weights not in (None, IMAGENET):
        return  # nobody has such weights of another size
    if spec.weights is None:
        for name, value in _widths(spec.backbone, options):
            yield {name: value}, replace(spec, options=tuple({**options, name: value}.items()))
    registered = BACKBONES.get(spec.backbone)
    library, _, own = ((registered.upstream if registered else spec.backbone) or "").partition("/")
    if library not in ("timm", "torchvision"):
        return
    for name in [
        *(
            n
            for n, b in BACKBONES.items()
            if _family((b.upstream or "").partition("/")[2]) == _family(own)
        ),
        # What no registry makes has no choice of stems.
        *(_named(_family(own)) if options.get("stem", IMAGENET) == IMAGENET else ()),
    ]:
        stem = {k: v for k, v in options.items() if k == "stem" and name in BACKBONES}
        weights = {} if spec.weights is None else {"weights": spec.weights}
        if name != spec.backbone and (not weights or _starts_alike(name, spec.backbone)):
            control = {"backbone": {"name": name, **weights, **stem}}
            yield control, replace(spec, backbone=name, options=tuple(stem.items()), taps=None)


def _widths(backbone: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Other widths of a registered network, or of a function of the user's that takes one."""
    if backbone in BACKBONES:
        choices = BACKBONES[backbone].options.get("width", ())
        yield from (("width", w) for w in choices if w != str(options.get("width", choices[0])))
    elif is_user_code(backbone):
        parameters = inspect.signature(load(backbone, "backbone").function).parameters
        for name in WIDTHS:
            width = options.get(name, parameters[name].default if name in parameters else None)
            if isinstance(width, int | float):
                yield from (
                    (name, type(width)(width * share))
                    for share in SHARES
                    if width * share >= 1 or isinstance(width, float)
                )


def _family(name: str) -> str:
    """What is left of a name without its sizes: `resnet18` and `resnet10t` are both `resnet`."""
    return SIZES.sub("", name).replace("_", "")


def _named(family: str) -> Iterator[str]:
    """Names of torchvision's and timm's networks of that family."""
    import timm  # late: both take seconds to import
    from torchvision import models

    lists = {"torchvision": models.list_models(module=models), "timm": timm.list_models()}
    for library, names in lists.items():
        yield from (f"{library}/{name}" for name in names if _family(name) == family)


def _starts_alike(name: str, other: str) -> bool:
    """Whether its public weights are here, and saw images normalized as those of the other."""
    if at_hand(IMAGENET, name) is None:
        return False
    seen, reference = published(name), published(other)
    return (seen.mean, seen.std) == (reference.mean, reference.std)


def _macs(spec: NetSpec, shape: Shape, classes: int) -> int:
    """Of an image in the plain network, of which no weight is drawn."""
    make = origin_of(spec, shape, classes).make
    assert make is not None
    with torch.device("meta"):
        module = make().eval()
        reference = next(module.parameters())
        return count_macs(partial(module, blank(shape, 1, reference)))[1]
