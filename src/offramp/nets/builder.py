"""From a description, or from a user's module, to an early-exit network."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from offramp.errors import OfframpError
from offramp.hashing import digest
from offramp.nets.backbones.lookup import NetSpec, Origin, origin_of
from offramp.nets.cut.partition import Trunk, cut, cut_by_names
from offramp.nets.cut.places import Place, places, survey
from offramp.nets.heads import paper_head, resolve, whole
from offramp.nets.identity import sources, state_digest
from offramp.nets.macs import count_macs
from offramp.nets.network import Exit, ExitNetwork, NetFacts, Shape, drawn_head, drawn_module
from offramp.nets.pretrained import Initial, fitted, read, starting
from offramp.parts import Part
from offramp.usercode import Recorded


def build(
    spec: NetSpec, input_shape: Shape, classes: int, seed: int, recorded: Recorded | None = None
) -> ExitNetwork:
    """The network that `spec` describes, for images of `input_shape` (C, H, W), with the initial
    weights of `seed`, in train mode. recorded: where a store's record names the backbone, and not the
    user; code of the user's runs only if it is what was recorded, and trusted.

    Raises OfframpError for an unknown name or option, images that are too small, fewer than two
    classes, a tap that is not there, a head that does not fit its tap, or weights that do not fit or
    cannot be had.
    """
    if classes < 2:
        raise OfframpError(f"{classes} class is nothing to tell apart; use data of at least 2 classes")
    origin = origin_of(spec, input_shape, classes, recorded)
    make = origin.make
    assert make is not None
    module = drawn_module(make, seed, "initial")
    if spec.taps is not None:
        origin = dataclasses.replace(origin, taps=spec.taps)
    trunk = _cut(module, input_shape, origin)
    initial = None
    if spec.weights is not None:
        initial = fitted(read(spec.weights, spec.backbone), trunk, spec.weights)
        module.load_state_dict(dict(initial.tensors), strict=False)
        origin = dataclasses.replace(origin, make=partial(starting, make, initial.tensors))
        origin = dataclasses.replace(origin, identity={**origin.identity, "weights": initial.identity})
    if origin.foreign:  # not called "state", which is for weights that no seed draws
        drawn = state_digest(drawn_module(make, 0, "initial"))
        content = {"code": digest(trunk.code), "draw": drawn}
        origin = dataclasses.replace(origin, identity={**origin.identity, **content})
    return _assembled(trunk, origin, dict(spec.head), input_shape, classes, seed, initial)


def list_places(
    spec: NetSpec, input_shape: Shape, classes: int
) -> tuple[tuple[Place, ...], tuple[str, ...]]:
    """Every place where an exit can go, in the order they run, and the taps that `build` would choose.

    Raises OfframpError as `build` does.
    """
    net = build(spec, input_shape, classes, seed=0)
    return places(net.trunks[0].module, input_shape, net.places[-1]), net.places[:-1]


def attach(
    module: nn.Module,
    exits: str | Sequence[str] | Sequence[Sequence[str]] | int,
    input_shape: Sequence[int],
    classes: int | None = None,
    head: str | Mapping[str, Any] | None = None,
    seed: int = 0,
) -> ExitNetwork:
    """Returns a copy of `module` with early exits, in train mode.

    The copy has the module's weights; new heads are drawn from `seed`.

    module: images [B, C, H, W] → logits [B, classes].
    exits: the places of the early exits (names of submodules, say), in the order they run; one place;
        or how many, spread evenly over the compute. For a module that cannot be traced: the names of
        the submodules of each segment, in the order they run, and a last list for the classifier.
    input_shape: (C, H, W) of one image.
    classes: to check against the module's; None takes what it has.
    head: a kind of head, or a kind and its settings, such as `{"kind": "mlp", "hidden": 64}`:
        `linear`: the mean over a map or over tokens, then one linear layer. Costs next to nothing.
        `mlp`: the same mean, LayerNorm, `hidden` units, GELU, `dropout`, a linear layer. Cheap too.
        `paper`, for maps alone: a convolution of `width` channels and size `kernel` between 0 to 2
            max-`pools`, then flattened (`flatten`) into a dense layer of `hidden` units. On a small
            network its convolution can cost more than the network itself; `print(net)` says.
        Settings of the other kinds: `tokens` (`mean`, or `class` for the first token) and `layout` of
        a map (`chw`, `hwc`). By default `paper` for maps, otherwise `mlp`.
    seed: a whole number.

    Raises OfframpError for an argument of another kind, a place that is not there, a head that does not
    fit it, and a module that returns no logits.

    >>> import torch, offramp
    >>> from torchvision.models import resnet18
    >>> net = offramp.attach(resnet18(), exits=["layer1", "layer2"], input_shape=(3, 32, 32))
    >>> [tuple(logits.shape) for logits in net.eval()(torch.randn(2, 3, 32, 32))]
    [(2, 1000), (2, 1000), (2, 1000)]
    """
    _check_arguments(module, exits, input_shape, classes, head, seed)
    module = copy.deepcopy(module)
    channels, height, width = input_shape
    input_shape = (channels, height, width)
    exits = [exits] if isinstance(exits, str) else exits
    if isinstance(exits, int) or all(isinstance(place, str) for place in exits):
        taps = exits if isinstance(exits, int) else tuple(str(place) for place in exits)
        trunk, texts = _cut(module, input_shape, Origin(None, {}, taps=taps)), []
    else:
        texts = sources(module)
        trunk = cut_by_names(module, [list(names) for names in exits], input_shape)
    identity = {"code": digest([trunk.code, *texts]), "state": state_digest(module)}
    overrides = {"kind": head} if isinstance(head, str) else dict(head or {})
    return _assembled(trunk, Origin(None, identity), overrides, input_shape, classes, seed)


def _check_arguments(
    module: Any, exits: Any, input_shape: Any, classes: Any, head: Any, seed: Any
) -> None:
    if not isinstance(module, nn.Module):
        what = f"the class {module.__name__}" if isinstance(module, type) else repr(module)[:60]
        raise OfframpError(
            f"module: {what} is no network; give an nn.Module, such as MyNet() or "
            "torchvision.models.resnet18()"
        )
    named = isinstance(exits, str) or _listed(exits, str)
    if not (named or whole(exits) or (_listed(exits, Sequence) and all(_listed(e, str) for e in exits))):
        raise OfframpError(
            f"exits: cannot be {exits!r}; name places, such as ['layer1'], or say how many"
        )
    if not (_listed(input_shape, int) and len(input_shape) == 3 and min(input_shape) > 0):
        raise OfframpError(
            f"input_shape: cannot be {input_shape!r}; give channels, height and width of one image, "
            "such as (3, 32, 32)"
        )
    if not (classes is None or whole(classes)):
        raise OfframpError(f"classes: cannot be {classes!r}; use a whole number, or None")
    if not (head is None or isinstance(head, (str, Mapping))):
        raise OfframpError(
            f"head: cannot be {head!r}; use paper, linear or mlp, or settings such as "
            "{'kind': 'mlp', 'hidden': 64}"
        )
    if not whole(seed):
        raise OfframpError(f"seed: cannot be {seed!r}; use a whole number")


def _listed(value: Any, kind: type) -> bool:
    """Whether it is a sequence of that kind, and no string."""
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    return listed and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)


def _cut(module: nn.Module, input_shape: Shape, origin: Origin) -> Trunk:
    seen = survey(module, input_shape)
    taps = origin.taps
    if isinstance(taps, int):
        taps = spread(seen.places(origin.final), taps)
    return cut(module, input_shape, taps, origin.final, surveyed=seen)


def spread(places: Sequence[Place], exits: int) -> tuple[str, ...]:
    """`exits` of the `places`, in order, near 1/(exits + 1), 2/(exits + 1), … of the MACs.

    Looks among modules near the root first (whole stages and blocks rather than what is inside
    them) and goes deeper until every share is met within 40 % of a step. Of places with equal MACs
    it takes the last: behind the normalization and activation of a convolution.

    Raises OfframpError when there are fewer places than exits.
    """
    if exits < 0:
        raise OfframpError(f"{exits} exits cannot be attached; use 0 or more")
    targets = [(k + 1) / (exits + 1) for k in range(exits)]
    best: tuple[float, tuple[str, ...]] | None = None
    for depth in sorted({place.name.count(".") for place in places}):
        level = [place for place in places if place.name.count(".") <= depth]
        last = list({place.macs: place for place in level}.values())
        if len(last) < exits:
            continue
        chosen = _nearest(last, targets)
        worst = max((abs(p.share - t) for p, t in zip(chosen, targets, strict=True)), default=0.0)
        if best is None or worst < best[0]:
            best = worst, tuple(p.name for p in chosen)
        if worst <= 0.4 / (exits + 1):
            break
    if best is None and exits:
        raise OfframpError(
            f"the network has fewer than {exits} places for exits; attach fewer, or name the taps"
        )
    return best[1] if best else ()


def _nearest(places: Sequence[Place], targets: Sequence[float]) -> list[Place]:
    """For each target the place of the nearest share, later than the one before it and early enough
    to leave one for each target after it."""
    chosen: list[Place] = []
    start = 0
    for n, target in enumerate(targets):
        stop = len(places) - (len(targets) - n - 1)
        at = min(range(start, stop), key=lambda i: abs(places[i].share - target))
        chosen.append(places[at])
        start = at + 1
    return chosen


def _assembled(
    trunk: Trunk,
    origin: Origin,
    overrides: Mapping[str, Any],
    input_shape: Shape,
    classes: int | None,
    seed: int,
    initial: Initial | None = None,
) -> ExitNetwork:
    """The trunk with its heads; runs it once on an empty image, for shapes and MACs."""
    early: list[Exit] = []
    costs: dict[Part, int] = {}
    reference = next(trunk.module.parameters())
    values: tuple[Tensor, ...] = (reference.new_zeros(1, *input_shape),)
    for i, segment in enumerate(trunk.segments, start=1):
        segment.train(False)
        values, costs[Part("segment", i)] = count_macs(partial(segment, *values))
        if i < len(trunk.segments):
            shape, place = tuple(values[0].shape[1:]), trunk.places[i - 1]
            default = origin.heads[min(i, len(origin.heads)) - 1] if origin.heads else paper_head(i)
            square = input_shape[1] == input_shape[2]
            spec = resolve(default, overrides, shape, f"exit {i} at '{place}'", square)
            early.append(Exit(place, spec, shape))
    trunk.classifier.train(False)
    (logits, *_), final_cost = count_macs(partial(trunk.classifier, *values))
    classes = _checked(logits, classes, type(trunk.module).__name__)
    heads = [drawn_head(exit, classes, trunk.clock, seed, "initial") for exit in early]
    for k, (exit, head) in enumerate(zip(early, heads, strict=True), start=1):
        head.to(reference.device, reference.dtype).eval()
        tap = reference.new_zeros(1, *exit.shape)
        _, costs[Part("head", k)] = count_macs(partial(head, tap))
    costs[Part("head", len(early) + 1)] = final_cost
    return ExitNetwork(
        [trunk],
        [0] * (len(early) + 1),
        heads,
        NetFacts(
            tuple(early),
            classes,
            input_shape,
            identity={**origin.identity, "input_shape": list(input_shape)},
            make=origin.make,
            costs=costs,
            initial=None if initial is None else initial.describe(),
        ),
    ).train()


def _checked(logits: Tensor, classes: int | None, title: str) -> int:
    """How many classes the logits [1, classes] of `title` have."""
    if logits.ndim != 2 or logits.shape[1] < 2 or classes not in (None, logits.shape[1]):
        raise OfframpError(
            f"{title} returns [B{''.join(f', {n}' for n in logits.shape[1:])}] where logits "
            f"[B, {classes or 'classes'}] belong; give its last layer one output per class"
        )
    return int(logits.shape[1])
