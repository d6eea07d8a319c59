"""A strategy's phases, to train a network in a loop of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from offramp.api.fit import check_frozen
from offramp.engine.loop import Course, LoopPhase
from offramp.engine.losses import check_settings
from offramp.engine.resolve import drawn
from offramp.errors import OfframpError, kind_of
from offramp.nets.foreign import MultiExit
from offramp.nets.network import ExitNetwork
from offramp.parts import Part
from offramp.phase import BEFORE, Features, Init, Phase, Program, check, check_gates
from offramp.strategies import Strategy
from offramp.study.plan import programs


def program(
    net: ExitNetwork | MultiExit,
    strategy: str | Strategy,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    several_labels: bool = False,
) -> tuple[LoopPhase, ...]:
    """The phases of a strategy, to train `net` itself in a loop of your own.

    It trains from the weights that `net` has. A phase is entered by `with`, one after another: what it
    trains then takes gradients, and the rest is frozen and in eval mode. `phase.module(images, labels)`
    is its loss, with all that the strategy says: teachers, weights of exits and images, scaled
    gradients, what exits carry on. Labels are class numbers [B], or shares of classes [B, C], as mixup
    makes them.

    The loop has no caches of frozen layers and shares no phases between strategies. That is what `fit`
    is faster by; given the same batches, both end in the same weights.

    Some strategies change what an attached network is made of when a phase begins: it gets a trunk for
    each exit (`separate`), gates (`gated`), or layers between exits (`imta`). Make optimizers and
    wrappers inside of the phase.

    Args:
        net: Of `attach`; or of `multi_exit`, for a network with exits of its own.
        strategy: A name (`offramp strategies` lists them), a function of the number of exits that
            returns phases, or `my_file.py:my_strategy`.
        options: Of the strategy, such as {"backbone": "kept"}.
        seed: Of what a phase draws anew. The same as attach's: then weights are those that `fit` draws
            by that seed.
        class_weights: [C] floats that multiply the cross-entropies of images of each class.
        label_smoothing: The share of each target that is spread over all classes, in cross-entropies;
            0 to 1, 1 excluded. With several labels evenly over yes and no.
        several_labels: Whether an image has several labels. Labels are then [B, C], 0 or 1 for each (or
            between, as mixup makes them), cross-entropies binary ones, their mean over labels, and
            class_weights what each label counts for where an image has it.

    Returns:
        The phases, in their order.

    Raises:
        OfframpError: The strategy does not exist, or cannot train this network.

    Example:
        >>> for phase in offramp.program(net, "two-stage"):
        ...     print(phase.name, "·", phase.trains, "·", phase.loss)
        backbone · segments 1–3, head 3 · CE(3)
        exit 1 · head 1 · CE(1)
        exit 2 · head 2 · CE(2)
    """
    if not isinstance(net, ExitNetwork | MultiExit):
        own = "describe those that it has: offramp.multi_exit(net, input_shape=…)"
        raise OfframpError(f"the net is {kind_of(net)}; attach exits to it (offramp.attach), or {own}")
    check_settings(class_weights, label_smoothing, net.classes)
    phases = programs.program(strategy, net.exits, options or {}, {})
    check(phases, net.exits)
    check_gates(phases, several_labels)
    for mistake in _unfit(phases, net):
        raise OfframpError(mistake)
    if isinstance(net, ExitNetwork):
        for phase in phases:
            drawn(phase, net)
        check_frozen(net, frozenset(part for phase in phases for part in phase.trained))
    course = Course(net, phases, seed, class_weights, label_smoothing, several_labels)
    if BEFORE in course.needs(0):
        course.remember(BEFORE)
    return tuple(LoopPhase(course, number) for number in range(len(phases)))


def _unfit(phases: Program, net: ExitNetwork | MultiExit) -> Iterator[str]:
    """Why these phases cannot train this network in a loop."""
    trunks: dict[Part, int] = {}
    for phase in phases:
        where = f"phase '{phase.name}'"
        for part in sorted(phase.trained):
            trunk = trunks.setdefault(part, phase.trunk)
            if part.kind == "head" and part.index < net.exits and trunk != phase.trunk:
                yield f"{where} trains {part} on another trunk than an earlier phase; train it by fit"
        if isinstance(net, MultiExit):
            yield from (f"{where} {mistake}" for mistake in _foreign(phase, net))


def _foreign(phase: Phase, net: MultiExit) -> Iterator[str]:
    """What a phase does that a network with exits of its own cannot do."""
    title, remedy = type(net.module).__name__, "or attach exits to its backbone (offramp.attach)"
    for wish, mistake in (
        (phase.trunk, f"trains a copy of {title}, one an exit"),
        (phase.carry, f"adds answers of exits, which {title} does not"),
        (phase.gated, f"asks gates, which {title} has not"),
        (
            any(isinstance(term, Features) for term in phase.terms),
            f"reads features of exits, and nobody says which those of {title} are",
        ),
    ):
        if wish:
            yield f"{mistake}; choose another strategy, {remedy}"
    for part in phase.scales:
        net.submodule(part)
    every = dict(net.module.named_parameters())
    trained = [name for part in sorted(phase.trained) for name in net.parameters.get(part, ())]
    frozen = [name for name in trained if not every[name].requires_grad]
    if frozen and any(parameter.requires_grad for parameter in every.values()):
        yield f"trains '{frozen[0]}', which is frozen by requires_grad; let it train, {remedy}"
    for part in (part for part, init in phase.starts.items() if init is Init.FRESH):
        for name in net.modules.get(part, ()):
            module = net.module.get_submodule(name)
            if module._parameters and not hasattr(module, "reset_parameters"):
                yield f"draws '{name}' anew, which has no reset_parameters(); give it some"
