"""From a description, or from a user's module, to an early-exit network."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from offramp.errors import OfframpError, OfframpWarning, in_line, shortened
from offramp.hashing import digest
from offramp.inputs import Shape, blank
from offramp.nets.backbones.lookup import NetSpec, Origin, origin_of
from offramp.nets.cut.partition import Trunk, chain_places, cut, cut_by_names
from offramp.nets.cut.places import Tap, buffers, places, put, survey
from offramp.nets.cut.spread import ASKED, chained, chosen, share
from offramp.nets.heads import SETTINGS, HeadKind, HeadSpec, must_be, paper_head, resolve, whole
from offramp.nets.identity import attributes_digest, sources, state_digest, tensors_digest
from offramp.nets.inside import Exit, NetFacts, NetworkParts, drawn_head, drawn_module
from offramp.nets.macs import count_macs
from offramp.nets.network import ExitNetwork, inside
from offramp.nets.pretrained import fitted, read, starting
from offramp.parts import Part, Taps
from offramp.usercode import RecordedCode


def build(
    spec: NetSpec,
    input_shape: Shape,
    classes: int,
    seed: int,
    recorded: RecordedCode | None = None,
    heads: Mapping[str, HeadSpec] | None = None,
) -> ExitNetwork:
    """The network that `spec` describes, for examples of `input_shape` (see `offramp.inputs`), with the
    initial weights of `seed`, in train mode. recorded: where a store's record names the backbone, and
    not the user; code of the user's runs only if it is what was recorded, and trusted. heads: of exits
    by place, where they are known.

    Raises OfframpError for an unknown name or option, images that are too small, fewer than two
    classes, a tap that is not there, a head that does not fit its tap, or weights that do not fit or
    cannot be had.
    """
    if classes < 2:
        raise OfframpError(
            f"there is {classes} class, and nothing to tell it from; use data of at least 2 classes"
        )
    origin = origin_of(spec, input_shape, classes, recorded)
    make = origin.make
    assert make is not None
    module = drawn_module(make, seed, "initial")
    if spec.taps is not None:
        origin = dataclasses.replace(origin, taps=spec.taps, why=ASKED)
    trunk, why = _cut(module, input_shape, origin)
    # With its defaults: a study that names no stem is given the one that fits its images.
    options = {**dict(spec.options), **origin.identity.get("options", {})}
    asked = dataclasses.replace(spec, options=tuple(options.items())).asked
    origin = dataclasses.replace(origin, asked=asked)
    if spec.weights is not None:
        initial = fitted(read(spec.weights, spec.backbone), trunk, spec.weights)
        module.load_state_dict(dict(initial.tensors), strict=False)
        make = partial(starting, make, initial.tensors)
        origin = dataclasses.replace(
            origin,
            make=make,
            identity={**origin.identity, "weights": initial.identity},
            from_images=None,
            initial=initial.describe(),
        )
    if origin.foreign:  # not called "state", which is for weights that no seed draws
        drawn = state_digest(drawn_module(make, 0, "initial"))
        text = [trunk.code, *sources(module)] if chained(origin.taps) else trunk.code
        content = {"code": digest(text), "draw": drawn}
        if trunk.constants and "file" in origin.identity:  # the file may have them from elsewhere
            content["constants"] = tensors_digest(trunk.constants)
        origin = dataclasses.replace(origin, identity={**origin.identity, **content})
    parts = _Heads(dict(spec.head), heads or {}, why)
    return _assembled(trunk, origin, parts, input_shape, classes, seed)


def list_places(
    spec: NetSpec, input_shape: Shape, classes: int
) -> tuple[tuple[Tap, ...], Mapping[str, str]]:
    """Every place where an exit can go, in the order they run, however few, and those that `build` would
    choose, each with the reason. With lists of submodules: the ends of these.

    Raises OfframpError as `build` does.
    """
    try:
        net = build(spec, input_shape, classes, seed=0)
    except OfframpError:
        if (
            spec.taps is None
            and not list_places(dataclasses.replace(spec, taps=0), input_shape, classes)[0]
        ):
            return (), {}
        raise
    trunk, why = inside(net).trunks[0], dict(zip(net.places, inside(net).facts.reasons, strict=False))
    if chained(spec.taps):
        return chain_places(trunk.module, spec.taps, input_shape), why
    return places(trunk.module, input_shape, net.places[-1]), why


def attach(
    module: nn.Module | str,
    exits: str | Sequence[str] | Sequence[Sequence[str]] | int,
    input_shape: Sequence[int],
    classes: int | None = None,
    head: str | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> ExitNetwork:
    """Returns a copy of `module` with early exits, in train mode.

    The copy has the module's weights; new heads are drawn from `seed`.

    module: images [B, C, H, W] → logits [B, classes], without a softmax. Or a name as in a study file:
        `my.py:make_net`, `timm/NAME`, `resnet18`. With a name, all weights are drawn, here from `seed`
        and by `fit` from its own; the command line can then export the trained network, and predict with
        it. Other arguments of its forward, such as `mask=None`, stay at their defaults.
    exits: the places of the early exits (names of submodules, say, or shares of the compute such as
        `25%`), in the order they run; one place; or how many, spread evenly over the compute. For a
        module that cannot be traced: the names of the submodules of each segment, in the order they
        run, and a last list for the classifier.
    input_shape: (C, H, W) of one image; or (T,) of one text, whose module takes ids [B, T] int64. A
        choice of the forward by the sizes of its input is made once, for this shape.
    classes: compared with the module's; None takes the module's. A name needs it.
    head: a kind of head, or a kind and its settings, such as `{"kind": "mlp", "hidden": 64}`:
        `linear`: the mean over a map or over tokens, then one linear layer. Costs next to nothing.
        `mlp`: the same mean, LayerNorm, `hidden` units, GELU, `dropout`, a linear layer. Cheap too.
        `paper`, for maps alone: a convolution of `width` channels and size `kernel` between 0 to 2
            max-`pools`, then flattened (`flatten`) into a dense layer of `hidden` units. On a small
            network its convolution can cost more than the network itself; `print(net)` says.
        `local`: neighboring tokens mixed by convolutions of `hidden` channels, one of them depthwise and
            of size `kernel`, then the mean, plus the class token, and a linear layer.
        `global`: every `stride`-th token, mixed by attention, then the same.
        `lgvit`: `local` in the first half of the exits, `global` in the second, as LGViT has it for
            transformers. These three read tokens of images, and maps.
        All have the `layout` of a map (`chw`, `hwc`). `linear` and `mlp` have `tokens` (`mean`, or
        `class` for the first token). The last three have `rows` and `columns`, the grid of tokens, if
        images do not tell. By default `paper` for maps, otherwise `mlp`.
    seed: a whole number, from which new weights are drawn.

    Raises OfframpError for an argument of another kind, a place that is not there, a head that does not
    fit it, and a module that cannot be copied or returns no logits. Warns of a module that seems to end
    in a softmax, and of parts whose name offramp needs, such as `exits`: use `net.backbone.exits`.

    >>> import torch, offramp
    >>> from torchvision.models import resnet18
    >>> net = offramp.attach(resnet18(), exits=["layer1", "layer2"], input_shape=(3, 32, 32))
    >>> [tuple(logits.shape) for logits in net.eval()(torch.randn(2, 3, 32, 32))]
    [(2, 1000), (2, 1000), (2, 1000)]
    """
    _check_arguments(module, exits, input_shape, classes, head, seed)
    input_shape = tuple(input_shape)
    exits = [exits] if isinstance(exits, str) else exits
    overrides = {"kind": head} if isinstance(head, str) else dict(head or {})
    if isinstance(exits, int) or all(isinstance(place, str) for place in exits):
        taps: Taps = exits if isinstance(exits, int) else tuple(str(place) for place in exits)
    else:
        taps = tuple(tuple(names) for names in exits)
    if isinstance(module, str):
        if classes is None:
            raise OfframpError(f"classes: say how many; '{module}' is made for any number")
        return build(NetSpec(module, (), taps, tuple(overrides.items())), input_shape, classes, seed)
    try:
        module = copy.deepcopy(module)
    except (RuntimeError, TypeError) as error:  # it keeps a tensor that has a gradient, a lock, a file
        raise OfframpError(
            f"module: {type(module).__name__} cannot be copied ({in_line(error)}); take off what it "
            "keeps beside its weights, such as tensors of its last forward pass, or attach a new one "
            "with its state_dict"
        ) from error
    trunk, why = _cut(module, input_shape, Origin(None, {}, taps=taps))
    texts = sources(module) if chained(taps) else []
    identity = {"code": digest([trunk.code, *texts]), "state": state_digest(module)}
    parts = _Heads(overrides, {}, why)
    return _assembled(trunk, Origin(None, identity), parts, input_shape, classes, seed)


def _check_arguments(
    module: Any, exits: Any, input_shape: Any, classes: Any, head: Any, seed: Any
) -> None:
    if not isinstance(module, (nn.Module, str)):
        what = f"the class {module.__name__}" if isinstance(module, type) else _brief(module)
        raise OfframpError(
            f"module: {what} is not a network; give an nn.Module, such as MyNet() or "
            "torchvision.models.resnet18(), or the name of one, such as 'my.py:make_net'"
        )
    if isinstance(module, nn.Module) and any(
        tensor.is_meta for tensor in (*module.parameters(), *module.buffers())
    ):
        raise OfframpError(
            f"module: {type(module).__name__} lies on the device 'meta', which holds no weights; make "
            "it on the CPU, or load its checkpoint with module.load_state_dict(checkpoint, assign=True)"
        )
    if hasattr(module, "_orig_mod"):  # its trace would be of what compiling made, its names too
        raise OfframpError(
            "module: comes from torch.compile; attach the module inside, module._orig_mod"
        )
    if isinstance(module, torch.jit.ScriptModule):
        raise OfframpError("module: comes from TorchScript; attach the module that it was made of")
    if isinstance(module, nn.Module) and any(isinstance(m, ExitNetwork) for m in module.modules()):
        raise OfframpError("module: has exits already; attach others to its `backbone`: net.backbone")
    named = isinstance(exits, str) or _listed(exits, str)
    if not (named or whole(exits) or (_listed(exits, Sequence) and all(_listed(e, str) for e in exits))):
        raise OfframpError(
            f"exits: cannot be {_brief(exits)}; name places, such as ['layer1'], or shares of the "
            "compute, such as ['25%'], or say how many"
        )
    if not (_listed(input_shape, int) and len(input_shape) in (1, 3) and min(input_shape) > 0):
        raise OfframpError(
            f"input_shape: cannot be {input_shape!r}; give channels, height and width of one image, "
            "such as (3, 32, 32), or the number of tokens of a text, such as (64,)"
        )
    if not (classes is None or whole(classes)):
        raise OfframpError(f"classes: cannot be {classes!r}; use a whole number, or None")
    if not (head is None or isinstance(head, (str, Mapping))):
        raise OfframpError(
            f"head: cannot be {head!r}; use {must_be('kind')}, or settings such as "
            "{'kind': 'mlp', 'hidden': 64}"
        )
    if not whole(seed):
        raise OfframpError(f"seed: cannot be {seed!r}; use a whole number")


def _brief(value: Any) -> str:
    """What was given, on one line: a module among it takes dozens."""
    return shortened(" ".join(repr(value).split()), 60)


def _listed(value: Any, kind: type) -> bool:
    """Whether it is a sequence of that kind, and no string."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)


def _cut(module: nn.Module, input_shape: Shape, origin: Origin) -> tuple[Trunk, tuple[str, ...]]:
    """The trunk, and why each early exit is where it is."""
    taps = origin.taps
    if chained(taps):
        return cut_by_names(module, taps, input_shape), (ASKED,) * (len(taps) - 2)
    seen = survey(module, input_shape)
    named = isinstance(taps, tuple) and not any(map(share, taps))
    reasons = chosen(() if named else seen.places(origin.final), taps)
    trunk = cut(module, input_shape, tuple(reasons), origin.final, surveyed=seen)
    return trunk, tuple(origin.why if why == ASKED else why for why in reasons.values())


@dataclasses.dataclass(frozen=True)
class _Heads:
    """overrides: of every exit's head.  known: whole heads by place.  why: each exit is where it is."""

    overrides: Mapping[str, Any]
    known: Mapping[str, HeadSpec]
    why: tuple[str, ...]


def _assembled(
    trunk: Trunk,
    origin: Origin,
    heads: _Heads,
    input_shape: Shape,
    classes: int | None,
    seed: int,
) -> ExitNetwork:
    """The trunk with its heads; runs it once on an empty image, for shapes and MACs."""
    early: list[Exit] = []
    costs: dict[Part, int] = {}
    why = list(heads.why)
    reference = next(trunk.module.parameters())
    given = buffers(trunk.module)
    values: tuple[Tensor, ...] = (blank(input_shape, 1, reference),)
    for i, segment in enumerate(trunk.segments, start=1):
        segment.train(False)
        values, costs[Part("segment", i)] = count_macs(partial(segment, *values))
        if i < len(trunk.segments):
            shape, place = tuple(values[0].shape[1:]), trunk.places[i - 1]
            default = origin.heads[min(i, len(origin.heads)) - 1] if origin.heads else paper_head(i)
            where, nth = f"exit {i} at '{place}'", (i, len(trunk.segments) - 1)
            spec = heads.known.get(place) or resolve(
                default, heads.overrides, shape, where, input_shape[1:], nth
            )
            early.append(Exit(place, spec, shape))
    trunk.classifier.train(False)
    (logits, *_), final_cost = count_macs(partial(trunk.classifier, *values))
    put(given)
    classes = _checked(logits, classes, type(trunk.module).__name__)
    made = []
    for k, exit in enumerate(early, start=1):
        spared, free = costs[Part("segment", k + 1)], why[k - 1] not in (ASKED, origin.why)
        tried = [exit]
        if free and exit.place not in heads.known and "kind" not in heads.overrides:
            tried += _lighter(exit, heads.overrides)
        for exit in tried:
            head = drawn_head(exit, classes, trunk.clock, seed, "initial")
            head.to(reference.device, reference.dtype).eval()
            tap = reference.new_zeros(1, *exit.shape)
            _, costs[Part("head", k)] = count_macs(partial(head, tap))
            if costs[Part("head", k)] <= spared:
                break
        if exit is not early[k - 1]:
            dear = early[k - 1].spec.kind
            why[k - 1] += f"; its head is {exit.spec.kind}, as the {dear} one costs more than it spares"
        early[k - 1] = exit
        made.append(head)
    costs[Part("head", len(early) + 1)] = final_cost
    facts = NetFacts(
        tuple(early),
        classes,
        input_shape,
        identity={**origin.identity, "input_shape": list(input_shape)},
        make=origin.make,
        costs=costs,
        initial=origin.initial,
        reasons=tuple(why),
        from_images=origin.from_images,
        asked=origin.asked,
        attributes="" if origin.make else attributes_digest(trunk.module),
    )
    net = ExitNetwork(NetworkParts((trunk,), (0,) * (len(early) + 1), tuple(made), facts))
    if origin.make is None:
        for remark in _remarks(net, logits):
            warnings.warn(remark, OfframpWarning, stacklevel=3)
    return net.train()


def _remarks(net: ExitNetwork, logits: Tensor) -> Iterator[str]:
    """What a user may not expect of a module that was attached. logits: of one image, [1, classes]."""
    title, root = type(net.backbone).__name__, net.backbone
    own = root._modules | root._parameters | root._buffers
    for name in [name for name, part in own.items() if getattr(net, name, None) is not part]:
        yield (
            f"net.{name} is offramp's, and not the `{name}` of {title}: use net.backbone.{name} for that"
        )
    if bool((logits >= 0).all()) and abs(float(logits.sum()) - 1) < 1e-3:
        yield (
            f"{title} seems to end in a softmax: what it returns is taken for logits, of which the loss "
            "and confidences take the softmax again; leave it out"
        )


def _lighter(exit: Exit, overrides: Mapping[str, Any]) -> list[Exit]:
    """The same exit with heads that read a pooled map, cheaper from one to the next."""
    lighter: tuple[HeadKind, ...] = ("mlp", "linear")
    kinds = [kind for kind in lighter if kind != exit.spec.kind]
    layout = {"layout": exit.spec.layout} if len(exit.shape) == 3 else {}
    return [
        dataclasses.replace(
            exit,
            spec=resolve(
                HeadSpec(kind),
                {**layout, **{k: v for k, v in overrides.items() if k in SETTINGS[kind]}},
                exit.shape,
                exit.name,
            ),
        )
        for kind in kinds
    ]


def _checked(logits: Tensor, classes: int | None, title: str) -> int:
    """How many classes the logits [1, classes] of `title` have."""
    if logits.ndim != 2 or logits.shape[1] < 2 or classes not in (None, logits.shape[1]):
        raise OfframpError(
            f"{title} returns [B{''.join(f', {n}' for n in logits.shape[1:])}] where logits "
            f"[B, {classes or 'classes'}] belong; give its last layer one output per class"
        )
    return int(logits.shape[1])
