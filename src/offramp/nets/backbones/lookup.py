"""What the name of a backbone stands for: the registry, timm, torchvision, a function of the user's."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from offramp.errors import OfframpError, UnknownKey, in_line, kind_of, nearest
from offramp.inputs import Shape
from offramp.nets.backbones import BACKBONES
from offramp.nets.backbones.backbone import MAP
from offramp.nets.cut.spread import ASKED
from offramp.nets.heads import HeadSpec
from offramp.nets.inside import FromImages, Make
from offramp.nets.network import ExitNetwork, inside
from offramp.parts import Taps
from offramp.usercode import LoadedFunction, RecordedCode, is_user_code, load, running


@dataclass(frozen=True)
class NetSpec:
    """An early-exit network in words."""

    # a name in `BACKBONES`, `timm/NAME`, `torchvision/NAME`, or `path/file.py:function` (a function of
    # any of `classes`, `input_shape` and the options, that returns a module)
    backbone: str
    # of the backbone, such as ("stem", "small"); otherwise of the function that makes it, timm's,
    # torchvision's or the user's
    options: tuple[tuple[str, Any], ...] = ()
    # places of the early exits, by name or share of the MACs (`25%`); or how many, spread by MACs; None
    # is the backbone's own choice (at most three spread by MACs, for one that is not registered). For a
    # module that cannot be traced: the submodules of each segment, and of the classifier. The option
    # "reading" names another of a registered backbone's own choices
    taps: Taps = None
    # settings of `HeadSpec` that all early exits override, such as ("kind", "linear")
    head: tuple[tuple[str, Any], ...] = ()
    # what the trunk starts from: a file (.safetensors, or .pth without code), or `imagenet` for the
    # backbone's public checkpoint; None draws everything from the seed
    weights: str | None = None

    @property
    def as_study(self) -> dict[str, Any]:
        """The sections of a study file that give this network. A study has no place for a network
        without early exits: it is what `baseline` trains."""
        backbone = {"name": self.backbone, "weights": self.weights, **dict(self.options)}
        return {"backbone": backbone, "exits": {"taps": self.taps or None, "head": dict(self.head)}}


@dataclass(frozen=True)
class Origin:
    """Where a module comes from, and what that settles about its exits."""

    make: Make | None  # makes it anew; None for a module at hand
    identity: Mapping[str, Any]  # what it is, JSON-able
    taps: Taps = None  # where its exits go
    reason: str = ASKED  # why they go there
    final: str | None = None  # the place that feeds the classifier; None finds it
    heads: tuple[HeadSpec, ...] = ()  # of its exits by default
    # whether the code behind its name is not ours, so that the name does not say what it is
    foreign: bool = False
    from_images: FromImages | None = None  # see `Backbone`
    initial: str | None = None  # see `NetFacts`
    as_study: Mapping[str, Any] | None = None  # see `NetFacts`


def fitting_stem(backbone: str, side: int) -> str | None:
    """The stem for training from scratch on images of `side` px: the coarsest that leaves the last
    layers maps of 4×4 px, else the finest. None: the backbone has no choice of stems."""
    strides = BACKBONES[backbone].strides if backbone in BACKBONES else {}
    wide = [stem for stem in strides if side >= MAP * strides[stem]]
    if wide:
        return max(wide, key=strides.__getitem__)
    return min(strides, key=strides.__getitem__, default=None)


def small_map_warning(net: ExitNetwork, backbone: str) -> str | None:
    """A warning where images are so small that the last layers see hardly any map of them; else None."""
    shape, sides = inside(net).trunks[0].shapes[-1:], net.input_shape[1:]
    if not shape or len(shape[0]) != 3:
        return None
    last = min(shape[0][1:])
    if last >= MAP or min(sides) < 16 * last:  # of networks made for small images
        return None
    finer = fitting_stem(backbone, min(sides))
    stem = (inside(net).facts.as_study or {}).get("backbone", {}).get("stem")
    remedy = f" or backbone.stem: {finer}" if finer not in (None, stem) else ""
    return (
        f"the last layers of {backbone} see maps of {last}×{last} px of images of "
        f"{sides[0]}×{sides[1]} px and learn little; use larger images{remedy}"
    )


def origin_of(
    spec: NetSpec, input_shape: Shape, classes: int, recorded: RecordedCode | None = None
) -> Origin:
    """What the backbone's name stands for. recorded: see `build`.

    Raises OfframpError for an unknown name or option, and images that are too small.
    """
    options = dict(spec.options)
    identity: dict[str, Any] = {"backbone": spec.backbone, "classes": classes}
    if is_user_code(spec.backbone):
        loaded = load(spec.backbone, "backbone", recorded)
        make = _user_maker(spec.backbone, loaded, options, input_shape, classes)
        name = spec.backbone.rpartition(":")[2]
        identity |= {"backbone": name, "options": options, "file": loaded.sha256}
        return Origin(make, identity, foreign=True)
    library, _, model = spec.backbone.partition("/")
    if model and library in LIBRARIES:
        loading, maker = LIBRARIES[library]
        for option in options:
            if loading.fullmatch(option):
                raise OfframpError(
                    f"{spec.backbone} takes no option '{option}': files would be loaded by it, and some "
                    "versions unpickle them; give weights: FILE, or weights: imagenet"
                )
        raw = maker(model, options, input_shape, classes)
        make = partial(_call_library, spec.backbone, raw, options, input_shape)
        return Origin(make, identity | {"options": options}, foreign=True)
    return _registered(spec.backbone, options, identity, input_shape)


def _registered(
    name: str, options: dict[str, Any], identity: dict[str, Any], input_shape: Shape
) -> Origin:
    """An entry of the registry, with other options at their defaults."""
    if name not in BACKBONES:
        raise OfframpError(
            f"unknown backbone '{name}'{nearest(name, BACKBONES)} "
            "(others: timm/NAME, torchvision/NAME; your own: path/to/file.py:function)"
        )
    backbone = BACKBONES[name]
    choices = {**backbone.options, "reading": tuple(backbone.taps)}
    for option, value in options.items():
        if option not in choices:
            raise UnknownKey(f"backbone '{name}' has no option '{option}'{nearest(option, choices)}")
        if str(value) not in choices[option]:  # YAML has 93 for a number
            hint = nearest(str(value), choices[option])
            raise OfframpError(f"backbone '{name}' has no {option} '{value}'{hint}")
    chosen = {option: str(options.get(option, values[0])) for option, values in choices.items()}
    reading = chosen.pop("reading")
    backbone.check_size(input_shape, chosen.get("stem"))
    return Origin(
        partial(backbone.build, classes=identity["classes"], input_shape=input_shape, **chosen),
        identity | {"options": chosen},
        backbone.taps[reading],
        reason=f"the default of {name} ('{reading}')",
        final=backbone.final,
        heads=backbone.heads,
        from_images=backbone.from_images,
    )


def _timm_maker(model: str, options: Mapping[str, Any], input_shape: Shape, classes: int) -> Make:
    """Makes a timm model without downloading or loading anything."""
    import timm  # late: it takes seconds to import

    if not timm.is_model(model):
        raise _unknown("timm", model, timm.list_models(), "timm.list_models()")
    arguments = {"num_classes": classes, "in_chans": input_shape[0], **options}
    config = timm.get_pretrained_cfg(model)
    if config is not None and config.fixed_input_size:  # vision transformers refuse other sizes
        arguments.setdefault("img_size", input_shape[1:])
    return partial(timm.create_model, model, pretrained=False, **arguments)


def _torchvision_maker(model: str, options: Mapping[str, Any], input_shape: Shape, classes: int) -> Make:
    """Makes a classifier of torchvision's without downloading or loading anything."""
    from torchvision import models  # late: it takes seconds to import

    names = models.list_models(module=models)
    if model not in names:
        raise _unknown("torchvision", model, names, "torchvision.models.list_models()")
    if input_shape[0] != 3:
        raise OfframpError(
            f"torchvision/{model} takes images of 3 channels and these have {input_shape[0]}; set "
            "data.channels to 3, or take a network of timm"
        )
    arguments: dict[str, Any] = {"num_classes": classes, **options}
    if model.startswith("vit_") and input_shape[1] == input_shape[2]:
        arguments.setdefault("image_size", input_shape[1])
    if model in ("googlenet", "inception_v3"):  # torchvision warns where this is left out
        arguments.setdefault("init_weights", True)
    return partial(models.get_model, model, weights=None, **arguments)


LIBRARIES: Mapping[str, tuple[re.Pattern[str], Callable[..., Make]]] = {
    "timm": (re.compile(r"checkpoint_path|cache_dir|pretrained.*"), _timm_maker),
    "torchvision": (re.compile(r"weights.*|pretrained.*|progress"), _torchvision_maker),
}
"""Of each library: the options of its models that read files or fetch them, and what makes a model."""


def _unknown(library: str, model: str, names: Collection[str], lists: str) -> OfframpError:
    hint = nearest(model, names)
    hint = hint if "did you mean" in hint else f"; {lists} lists them"
    return OfframpError(f"{library} has no model '{model}'{hint}")


def _call_library(name: str, make: Make, options: Mapping[str, Any], input_shape: Shape) -> nn.Module:
    """What a library makes. Raises OfframpError where it raises."""
    try:
        return make()
    except Exception as error:
        reason = in_line(error)
        raise OfframpError(
            f"{name} cannot be made for images of {'×'.join(map(str, input_shape))} with "
            f"options {dict(options)}: {reason}; change the options or the images' size"
        ) from error


def _user_maker(
    name: str, loaded: LoadedFunction, options: Mapping[str, Any], input_shape: Shape, classes: int
) -> Make:
    """Calls the user's function with `classes` and `input_shape`, if it takes them, and the options."""
    accepted = inspect.signature(loaded.function).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    for option in options:
        if option not in accepted and not takes_all:
            raise UnknownKey(f"{name} takes no argument '{option}'{nearest(option, accepted)}")
    facts = {"classes": classes, "input_shape": input_shape}
    arguments = {k: v for k, v in facts.items() if k in accepted or takes_all} | dict(options)

    def make() -> nn.Module:
        with running(name):
            module = loaded.function(**arguments)
        if not isinstance(module, nn.Module):
            raise OfframpError(f"{name} returned {kind_of(module)}; return a torch.nn.Module")
        return module

    return make
