"""From a description, or from a user's module, to an early-exit network."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from textwrap import fill
from typing import Any

import torch
from torch import Tensor, nn

from offramp.errors import OfframpError, OfframpWarning, in_line, shortened
from offramp.escape import has_controls
from offramp.hashing import digest
from offramp.inputs import Shape, blank, check_shape
from offramp.nets.backbones.lookup import NetSpec, Origin, origin_of
from offramp.nets.cut.modes import buffers, restore
from offramp.nets.cut.observe import count_macs
from offramp.nets.cut.partition import Trunk, chain_places, cut, cut_by_names
from offramp.nets.cut.places import ExitPlace, survey
from offramp.nets.cut.spread import ASKED, choose, is_chain, share_named
from offramp.nets.head_kinds import KINDS, HeadInput
from offramp.nets.heads import HeadSpec, explained, must_be, paper_head, resolve, whole
from offramp.nets.identity import attributes_digest, sources, state_digest, tensors_digest
from offramp.nets.inside import Exit, NetFacts, NetworkParts, drawn_head, drawn_module
from offramp.nets.network import ExitNetwork, exit_macs, inside
from offramp.nets.pretrained import fit_to, read, starting
from offramp.parts import Part, Taps
from offramp.usercode import RecordedCode

MOST_CLASSES = 100_000
LIGHTER = ("mlp", "linear")  # kinds of heads that read a pooled map, each cheaper than the one before it


def build(
    spec: NetSpec,
    input_shape: Shape,
    classes: int,
    seed: int,
    recorded: RecordedCode | None = None,
    heads: Mapping[str, HeadSpec] | None = None,
) -> ExitNetwork:
    """The network that `spec` describes, in train mode.

    Args:
        spec: The backbone, its exits and their heads.
        input_shape: Of one example (see `offramp.inputs`).
        classes: 2 or more.
        seed: Of the initial weights.
        recorded: Where a store's record names the backbone, and not the user; the user's code then runs
            only if it is what was recorded, and trusted.
        heads: Of exits by place, for exits whose heads are settled already.

    Raises:
        OfframpError: For an unknown name or option, images that are too small, fewer than two classes, a
            missing tap, a head that does not fit its tap, or weights that do not fit or cannot be had.
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
        origin = dataclasses.replace(origin, taps=spec.taps, reason=ASKED)
    trunk, reasons = _cut(module, input_shape, origin)
    # With its defaults: a study that names no stem is given the one that fits its images.
    options = {**dict(spec.options), **origin.identity.get("options", {})}
    as_study = dataclasses.replace(spec, options=tuple(options.items())).as_study
    origin = dataclasses.replace(origin, as_study=as_study)
    if spec.weights is not None:
        initial = fit_to(trunk, read(spec.weights, spec.backbone), spec.weights)
        module.load_state_dict(dict(initial.tensors), strict=False)
        make = partial(starting, make, initial.tensors)
        origin = dataclasses.replace(
            origin,
            make=make,
            identity={**origin.identity, "weights": initial.identity},
            from_images=None,
            initial=initial.describe(),
        )
    # Code behind a name may change with its library, so its graph and its draws are in keys too.
    if origin.foreign:  # not called "state", which is for weights that no seed draws
        drawn = state_digest(drawn_module(make, 0, "initial"))
        text = [trunk.code, *sources(module)] if is_chain(origin.taps) else trunk.code
        content = {"code": digest(text), "draw": drawn}
        if trunk.constants and "file" in origin.identity:  # the file may have them from elsewhere
            content["constants"] = tensors_digest(trunk.constants)
        origin = dataclasses.replace(origin, identity={**origin.identity, **content})
    return _assembled(trunk, reasons, origin, dict(spec.head), input_shape, classes, seed, heads=heads)


def list_places(
    spec: NetSpec, input_shape: Shape, classes: int
) -> tuple[tuple[ExitPlace, ...], Mapping[str, str]]:
    """Every place where an exit can go, in the order they run, however few, and those that `build` would
    choose, each with the reason. With lists of submodules: the ends of these.

    Raises:
        OfframpError: As `build` does.
    """
    try:
        net = build(spec, input_shape, classes, seed=0)
    except OfframpError:
        without_exits = dataclasses.replace(spec, taps=0)
        if spec.taps is None and not list_places(without_exits, input_shape, classes)[0]:
            return (), {}
        raise
    trunk, facts = inside(net).trunks[0], inside(net).facts
    reasons = dict(zip(net.places, facts.reasons, strict=False))
    if is_chain(spec.taps):
        return chain_places(trunk.module, spec.taps, input_shape), reasons
    return survey(trunk.module, input_shape).places(net.places[-1]), reasons


def attach(
    module: nn.Module | str,
    exits: str | Sequence[str] | Sequence[Sequence[str]] | int,
    input_shape: Sequence[int],
    classes: int | None = None,
    head: str | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> ExitNetwork:
    """Returns a copy of `module` with early exits, in train mode.

    The copy has the module's weights; new heads are drawn from `seed`. Warns of a module that seems to
    end in a softmax, of early exits that all cost more than the module, and of parts whose name offramp
    needs, such as `exits`: use `net.backbone.exits`.

    Args:
        module: Images [B, C, H, W] → logits [B, classes], without a softmax. Or a name as in a study
            file: `my.py:make_net`, `timm/NAME`, `resnet18`. With a name, all weights are drawn, here
            from `seed` and by `fit` from its own; the command line can then export the trained network,
            and predict with it. Other arguments of its forward, such as `mask=None`, stay at their
            defaults.
        exits: The places of the early exits (names of submodules, say, or shares of the compute such as
            `25%`), in the order they run; one place; or how many, spread evenly over the compute. For a
            module that cannot be traced: the names of the submodules of each segment, in the order they
            run, and a last list for the classifier.
        input_shape: (C, H, W) of one image. A choice of the forward by the sizes of its input is made
            once, for this shape.
        classes: Compared with the module's; None takes the module's. A name needs it.
        head: A kind of head, or a kind and its settings, such as `{"kind": "mlp", "hidden": 64}`; by
            default `paper` for maps, otherwise `mlp`.
            HEADS
        seed: A whole number, from which new weights are drawn.

    Raises:
        OfframpError: For an argument of another kind, a place that does not exist, a head that does not
            fit it, and a module that cannot be copied or returns no logits.

    Example:
        >>> import torch, offramp
        >>> from torchvision.models import resnet18
        >>> net = offramp.attach(resnet18(), exits=["layer1", "layer2"], input_shape=(3, 32, 32))
        >>> [tuple(logits.shape) for logits in net.eval()(torch.randn(2, 3, 32, 32))]
        [(2, 1000), (2, 1000), (2, 1000)]
    """
    _check_module(module)
    _check_arguments(exits, input_shape, classes, head, seed)
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
    trunk, reasons = _cut(module, input_shape, Origin(None, {}, taps=taps))
    texts = sources(module) if is_chain(taps) else []
    identity = {"code": digest([trunk.code, *texts]), "state": state_digest(module)}
    return _assembled(trunk, reasons, Origin(None, identity), overrides, input_shape, classes, seed)


# The kinds of heads explain themselves; `help(offramp.attach)` has what the registry says. How far the
# docstring is indented depends on Python: 3.13 takes the common indentation away.
_TEXT, _, _REST = (attach.__doc__ or "").partition("HEADS\n")
_INDENT = _TEXT.rpartition("\n")[2]
_HEADS = (
    fill(line, 100, initial_indent=f"{_INDENT}- ", subsequent_indent=f"{_INDENT}  ")
    for line in explained()
)
attach.__doc__ = "\n".join([_TEXT.rstrip(" "), *_HEADS, _REST])


def _check_module(module: Any) -> None:
    """Raises OfframpError for what exits cannot be attached to."""
    if isinstance(module, str):
        if "\0" in module or len(module) > 4096:
            raise OfframpError(f"module: there is no network {_brief(module)}; give a name")
        return
    if not isinstance(module, nn.Module):
        what = f"the class {module.__name__}" if isinstance(module, type) else _brief(module)
        raise OfframpError(
            f"module: {what} is not a network; give an nn.Module, such as MyNet() or "
            "torchvision.models.resnet18(), or the name of one, such as 'my.py:make_net'"
        )
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
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
    if any(isinstance(m, ExitNetwork) for m in module.modules()):
        raise OfframpError("module: has exits already; attach others to its `backbone`: net.backbone")


def _check_arguments(exits: Any, input_shape: Any, classes: Any, head: Any, seed: Any) -> None:
    """Raises OfframpError naming the first argument that is of another kind."""
    by_names = isinstance(exits, str) or _is_list(exits, str)
    by_lists = _is_list(exits, Sequence) and all(_is_list(row, str) for row in exits)
    if not (by_names or by_lists or whole(exits)):
        raise OfframpError(
            f"exits: cannot be {_brief(exits)}; name places, such as ['layer1'], or shares of the "
            "compute, such as ['25%'], or say how many"
        )
    check_shape(input_shape)
    if not (classes is None or (whole(classes) and classes <= MOST_CLASSES)):
        raise OfframpError(f"classes: cannot be {classes!r}; use a whole number up to 100,000, or None")
    if not (
        head is None or isinstance(head, str) or (isinstance(head, Mapping) and _is_list([*head], str))
    ):
        raise OfframpError(
            f"head: cannot be {head!r}; use {must_be('kind')}, or settings such as "
            "{'kind': 'mlp', 'hidden': 64}"
        )
    if not whole(seed):
        raise OfframpError(f"seed: cannot be {seed!r}; use a whole number")


def _brief(value: Any) -> str:
    """The value on one line: a module among it takes dozens."""
    return shortened(" ".join(repr(value).split()), 60)


def _is_list(value: Any, kind: type) -> bool:
    """Whether it is a sequence of that kind, and no string."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and all(isinstance(v, kind) and not isinstance(v, bool) for v in value)


def _cut(module: nn.Module, input_shape: Shape, origin: Origin) -> tuple[Trunk, tuple[str, ...]]:
    """The trunk, and why each early exit is where it is."""
    taps = origin.taps
    if is_chain(taps):
        return cut_by_names(module, taps, input_shape), (ASKED,) * (len(taps) - 2)
    surveyed = survey(module, input_shape)
    named = isinstance(taps, tuple) and not any(map(share_named, taps))
    reasons = choose(() if named else surveyed.places(origin.final), taps)
    trunk = cut(module, input_shape, tuple(reasons), origin.final, surveyed=surveyed)
    return trunk, tuple(origin.reason if why == ASKED else why for why in reasons.values())


def _assembled(
    trunk: Trunk,
    whys: Sequence[str],
    origin: Origin,
    overrides: Mapping[str, Any],
    input_shape: Shape,
    classes: int | None,
    seed: int,
    *,
    heads: Mapping[str, HeadSpec] | None = None,
) -> ExitNetwork:
    """The trunk with its heads. whys: of each early exit's place; overrides: settings of every head;
    heads: whole ones by place."""
    costs, shapes, logits = measured(trunk, input_shape)
    reference = next(trunk.module.parameters())
    classes = _classes(logits, classes, type(trunk.module).__name__)
    early, built, reasons, settled = [], [], list(whys), heads or {}
    for place in trunk.places:  # no record may hold it
        if has_controls(place):
            raise OfframpError(
                f"the place '{place}' has control characters in its name; rename that part"
            )
    *places, _ = trunk.places
    for k, (place, shape) in enumerate(zip(places, shapes, strict=False), start=1):
        tap = HeadInput(shape, f"exit {k} at '{place}'", input_shape[1:], (k, len(places)))
        default = origin.heads[min(k, len(origin.heads)) - 1] if origin.heads else paper_head(k)
        specs = [settled.get(place) or resolve(default, overrides, tap)]
        chosen = reasons[k - 1] not in (ASKED, origin.reason)  # the place, by us
        if chosen and place not in settled and "kind" not in overrides:
            specs += _lighter(specs[0], overrides, tap)
        for spec in specs:  # until the head costs no more than leaving here spares
            exit = Exit(place, spec, shape)
            head = drawn_head(exit, classes, trunk.clock, seed, "initial")
            head.to(reference.device, reference.dtype).eval()
            _, cost = count_macs(partial(head, reference.new_zeros(1, *shape)))
            if cost <= costs[Part("segment", k + 1)]:
                break
        if spec is not specs[0]:
            reasons[k - 1] += (
                f"; its head is {spec.kind}, as the {specs[0].kind} one costs more than it spares"
            )
        costs[Part("head", k)] = cost
        early.append(exit)
        built.append(head)
    facts = NetFacts(
        tuple(early),
        classes,
        input_shape,
        identity={**origin.identity, "input_shape": list(input_shape)},
        make=origin.make,
        costs=costs,
        initial=origin.initial,
        reasons=tuple(reasons),
        from_images=origin.from_images,
        as_study=origin.as_study,
        attributes="" if origin.make else attributes_digest(trunk.module),
    )
    net = ExitNetwork(NetworkParts((trunk,), (0,) * (len(early) + 1), tuple(built), facts))
    if origin.make is None:
        for remark in _remarks(net, logits):
            warnings.warn(remark, OfframpWarning, stacklevel=4)  # the call of offramp.attach
    return net.train()


def measured(trunk: Trunk, input_shape: Shape) -> tuple[dict[Part, int], list[tuple[int, ...]], Tensor]:
    """MACs of its parts, the shape at each place and the logits [1, classes] of one empty image."""
    costs: dict[Part, int] = {}
    shapes: list[tuple[int, ...]] = []
    reference, initial = next(trunk.module.parameters()), buffers(trunk.module)
    values: tuple[Tensor, ...] = (blank(input_shape, 1, reference),)
    for i, segment in enumerate(trunk.segments, start=1):
        segment.train(False)
        values, costs[Part("segment", i)] = count_macs(partial(segment, *values))
        shapes.append(tuple(values[0].shape[1:]))
    trunk.classifier.train(False)
    last = Part("head", len(trunk.segments))
    (logits, *_), costs[last] = count_macs(partial(trunk.classifier, *values))
    restore(initial)
    return costs, shapes, logits


def _lighter(spec: HeadSpec, overrides: Mapping[str, Any], tap: HeadInput) -> list[HeadSpec]:
    """Cheaper heads in place of `spec`, for the same tap."""
    layout = {"layout": spec.layout} if len(tap.shape) == 3 else {}
    settings = {**layout, **overrides}
    return [
        resolve(HeadSpec(kind), {k: v for k, v in settings.items() if k in KINDS[kind].settings}, tap)
        for kind in LIGHTER
        if kind != spec.kind
    ]


def _remarks(net: ExitNetwork, logits: Tensor) -> Iterator[str]:
    """What a user may not expect of a module that was attached. logits: of one image, [1, classes]."""
    title, root = type(net.backbone).__name__, net.backbone
    own = root._modules | root._parameters | root._buffers
    for name in [name for name, part in own.items() if getattr(net, name, None) is not part]:
        yield (
            f"net.{name} is offramp's, and not the `{name}` of {title}: use net.backbone.{name} for that"
        )
    plain = exit_macs(net, [net.exits])
    if net.exits > 1 and all(exit_macs(net, [k]) >= plain for k in range(1, net.exits)):
        kinds = {spec.kind for spec in inside(net).head_specs}
        lighter = "attach them earlier" if "linear" in kinds else "attach lighter heads: head='linear'"
        yield (
            f"every early exit costs more than {title} alone, so leaving there saves nothing; {lighter}"
        )
    if bool((logits >= 0).all()) and abs(float(logits.sum()) - 1) < 1e-3:
        yield (
            f"{title} seems to end in a softmax: what it returns is taken for logits, of which the loss "
            "and confidences take the softmax again; leave it out"
        )


def _classes(logits: Tensor, classes: int | None, title: str) -> int:
    """How many classes the logits [1, classes] of `title` have, which must be `classes` where it
    says."""
    if logits.ndim != 2 or logits.shape[1] < 2 or classes not in (None, logits.shape[1]):
        raise OfframpError(
            f"{title} returns [B{''.join(f', {n}' for n in logits.shape[1:])}] where logits "
            f"[B, {classes or 'classes'}] belong; give its last layer one output per class"
        )
    return int(logits.shape[1])
