"""Phases of a program in somebody's own training loop: what trains, and the loss as a module.

The network trains in place. A phase prepares it when it is entered (weights, gradients, modes, the
teacher), and puts it back in order when it is left. What a batch comes to is computed as `fit` does it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from offramp.device import seeded
from offramp.engine.auxiliary import (
    Adapters,
    Anchor,
    Anchors,
    anchored,
    drawn_adapters,
    penalties,
    phase_loss,
)
from offramp.engine.losses import LossContext, check_labels, gating, spent_at
from offramp.engine.passes import ExitAnswers, answered, answers
from offramp.engine.trainee import rated
from offramp.engine.values import IMAGES, Point, Tensors, compute, end, sending_back
from offramp.engine.weights import ADDS
from offramp.errors import OfframpError
from offramp.hashing import derive
from offramp.nets.foreign import MultiExit
from offramp.nets.network import ExitNetwork, inside, reshape
from offramp.parts import Carry, Part, heads, segments
from offramp.phase import BEFORE, EWC, Init, Phase, Program, describe, listed, notes
from offramp.process import uninterrupted
from offramp.units import counted

LossInputs = dict[str, dict[int, Tensor]]
State = dict[str, Tensor]
USUAL_EPOCHS = 20  # of a phase that says none, among phases that do


class Body(Protocol):
    """What trains: a network by its parts."""

    @property
    def module(self) -> nn.Module: ...
    @property
    def exits(self) -> int: ...
    @property
    def classes(self) -> int: ...
    def parameters_of(self, part: Part) -> list[nn.Parameter]: ...
    def state(self, part: Part) -> State: ...
    def train_parts(self, parts: frozenset[Part]) -> None:
        """Put these parts in train mode, all else in eval mode."""

    def modes(self, part: Part) -> Set[bool]:
        """Whether what it is made of is in train mode."""

    def answers(self, phase: Phase, images: Tensor) -> ExitAnswers:
        """Of the exits that the loss reads."""

    def teaches(self, phase: Phase, images: Tensor) -> ExitAnswers:
        """Of the exits that the loss reads of a teacher."""

    def frozen(self, state: State) -> Body:
        """A copy with the weights of `state`, in eval mode and without gradients."""


@dataclass(frozen=True, eq=False)
class AttachedBody:
    """A network of `attach`; `trunk` is what trains of several."""

    module: ExitNetwork
    trunk: int = 0

    @property
    def exits(self) -> int:
        return self.module.exits

    @property
    def classes(self) -> int:
        return self.module.classes

    def parameters_of(self, part: Part) -> list[nn.Parameter]:
        return inside(self.module).parameters_of(part, self.trunk)

    def state(self, part: Part) -> State:
        return inside(self.module).state(part, self.trunk)

    def train_parts(self, parts: frozenset[Part]) -> None:
        self.module.eval()
        for part in sorted(parts):
            inside(self.module).train_part(part, True, self.trunk)

    def modes(self, part: Part) -> Set[bool]:
        return {inside(self.module).trains(part, self.trunk)}

    def answers(self, phase: Phase, images: Tensor) -> ExitAnswers:
        return answered(phase, self.module, {IMAGES: (images,)}, self.trunk)

    def teaches(self, phase: Phase, images: Tensor) -> ExitAnswers:
        values: dict[Point, Tensors] = {IMAGES: (images,)}
        exits = sorted(phase.taught)
        return answers({k: compute(self.module, values, end(phase.terms, k)) for k in exits})

    def frozen(self, state: State) -> AttachedBody:
        body = AttachedBody(copy.deepcopy(self.module))
        _fill(body, _parts(body.exits), state)
        body.module.requires_grad_(False).eval()
        return body


@dataclass(frozen=True, eq=False)
class ForeignBody:
    """A network with exits of its own."""

    net: MultiExit

    @property
    def module(self) -> nn.Module:
        return self.net.module

    @property
    def exits(self) -> int:
        return self.net.exits

    @property
    def classes(self) -> int:
        return self.net.classes

    def parameters_of(self, part: Part) -> list[nn.Parameter]:
        return self.net.parameters_of(part)

    def state(self, part: Part) -> State:
        return self.net.state(part)

    def train_parts(self, parts: frozenset[Part]) -> None:
        self.net.train_parts(parts)

    def modes(self, part: Part) -> Set[bool]:
        owners = self.net.modules.get(part, ())
        return {self.module.get_submodule(name).training for name in owners}

    def answers(self, phase: Phase, images: Tensor) -> ExitAnswers:
        logits = self.net.logits(self.module(images))
        return ExitAnswers({k: logits[k - 1].float() for k in phase.exits}, {})

    def teaches(self, phase: Phase, images: Tensor) -> ExitAnswers:
        logits = self.net.logits(self.module(images))
        return ExitAnswers({k: logits[k - 1].float() for k in phase.taught}, {})

    def frozen(self, state: State) -> ForeignBody:
        body = ForeignBody(copy.deepcopy(self.net))
        _fill(body, _parts(body.exits), state)
        body.module.requires_grad_(False).eval()
        return body


def _parts(exits: int) -> list[Part]:
    return sorted(segments(1, exits) | heads(1, exits))


def _fill(body: Body, parts: Iterable[Part], state: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for part in parts:
            for name, tensor in body.state(part).items():
                if name in state:  # a head may have got a gate, or what it carries, since then
                    tensor.copy_(state[name])


@dataclass(eq=False)
class Course:
    """The state of a program that trains a network in place.

    Attributes:
        body: The network; of several trunks the shared one.
        program: Its phases.
        seed: Of what phases draw anew.
        class_weights: [C], of the cross-entropies.
        smoothing: Of the cross-entropies, 0 to 1.
        left: By the name of a phase: the weights that it left, where a later phase reads them.
        opened: The number in the network of the trunk that a phase calls so.
        current: The number of the phase that is entered.
    """

    body: Body
    program: Program
    seed: int
    class_weights: Tensor | None
    smoothing: float
    left: dict[str, State] = field(default_factory=dict)
    opened: dict[int, int] = field(default_factory=lambda: {0: 0})
    current: int | None = None

    def needs(self, number: int) -> set[str]:
        """The phases whose weights that phase and later ones read."""
        later = self.program[number:]
        taught = {p.teacher for p in later if p.taught and p.teacher is not None and not p.live}
        initial = any(Init.INITIAL in p.starts.values() for p in later)
        return taught | ({BEFORE} if initial else set())

    def carry(self, number: int) -> Carry:
        """What exits add of the answer before in that phase: what an earlier one began stays."""
        return next((p.carry for p in reversed(self.program[: number + 1]) if p.carry), 0.0)

    def remember(self, name: str, trunk: int = 0) -> None:
        body = self.on(trunk)
        self.left[name] = {
            n: tensor.detach().clone()
            for part in _parts(body.exits)
            for n, tensor in body.state(part).items()
        }

    def on(self, trunk: int) -> Body:
        """The network as a phase on that trunk sees it."""
        if isinstance(self.body, AttachedBody):
            return AttachedBody(self.body.module, self.opened[trunk])
        return self.body

    def shape(self, number: int) -> None:
        """Give an attached network the trunks, gates and layers that a phase needs."""
        if not isinstance(self.body, AttachedBody):
            return
        phase, net = self.program[number], self.body.module
        own, carry = inside(net), self.carry(number)
        sources = [*range(len(own.trunks))]
        if phase.trunk not in self.opened:  # it starts as a copy of the shared one
            self.opened[phase.trunk] = len(sources)
            sources.append(0)
        owners = [*own.trunk_of]
        for part in phase.trained:
            if part.kind == "head":
                owners[part.index - 1] = self.opened[phase.trunk]
        adds = carry != own.carry
        reshape(net, owners, sources, carry, phase.gated)
        if adds:
            for k in range(2, net.exits):
                drawn = inside(net).drawn_head(k, carry, self.seed, "initial")
                layers = {n: t for n, t in drawn.items() if ADDS in n}
                _fill(self.body, [Part("head", k)], layers)

    def close(self) -> None:
        """After the last phase: only the trunks that exits run stay."""
        if isinstance(self.body, AttachedBody):
            own = inside(self.body.module)
            used = sorted(set(own.trunk_of))
            owners = [used.index(trunk) for trunk in own.trunk_of]
            reshape(self.body.module, owners, used, own.carry, False)

    def draw(self, phase: Phase, body: Body) -> None:
        """The weights of parts that do not start from what the program left."""
        for part, init in sorted(phase.starts.items()):
            if init is Init.INITIAL:
                _fill(body, [part], self.left[BEFORE])
            elif init is Init.FRESH:
                _fill(body, [part], self._drawn(part, body))

    def _drawn(self, part: Part, body: Body) -> Mapping[str, Tensor]:
        if isinstance(body, ForeignBody):
            for name in body.net.modules[part]:
                module = body.module.get_submodule(name)
                if any(True for _ in module.parameters(recurse=False)):
                    with seeded(derive(self.seed, name, "fresh")):
                        module.reset_parameters()  # type: ignore[operator]
            return {}
        assert isinstance(body, AttachedBody)
        own = inside(body.module)
        if part.kind == "head" and part.index < body.exits:
            return own.drawn_head(part.index, own.carry, self.seed, "fresh")
        return own.drawn_trunk(self.seed, "fresh")


def scaled(net: MultiExit, phase: Phase) -> list[RemovableHandle]:
    """Hooks by which parts of a foreign network send their gradient back scaled, as the phase says."""
    handles = []
    for part, factor in phase.scales.items():

        def scale(_: nn.Module, inputs: Any, factor: float = factor) -> Any:
            return tree_map_only(Tensor, lambda tensor: sending_back(tensor, factor), inputs)

        handles.append(net.submodule(part).register_forward_pre_hook(scale))
    return handles


class PhaseModule(nn.Module):
    """Images and labels → the loss of a phase, a scalar. `LoopPhase.module` is such a module.

    `train()` puts what the phase trains in train mode, and nothing else. Without labels it returns what
    exits answer, for `loss`: a mapping of mappings from exit to logits [B, classes] (`logits`, and of
    the teacher `teacher`) and to features [B, D], where the loss reads some.
    """

    def __init__(
        self,
        phase: Phase,
        body: Body,
        teacher: Body | None,
        layers: Adapters,
        class_weights: Tensor | None,
        smoothing: float,
    ) -> None:
        super().__init__()
        self.class_weights: Tensor | None
        self.net = body.module
        self.adapters = nn.ModuleList(layers.values())
        self._pairs = tuple(layers)
        self.register_buffer("class_weights", class_weights, persistent=False)
        self._phase, self._body, self._teacher, self._smoothing = phase, body, teacher, smoothing
        gated = isinstance(body, AttachedBody) and phase.gated
        self._spent = spent_at(body.module, phase.exits) if gated else {}  # type: ignore[arg-type]
        self.anchors: Anchors = {}
        self.entered = True
        self.batches = 0
        self.seen: tuple[dict[int, Tensor], Tensor] | None = None

    def _apply(self, function: Any, recurse: bool = True) -> PhaseModule:
        """As any module; its teacher goes to the same device."""
        if self._teacher is not None:
            self._teacher.module._apply(function, recurse)  # type: ignore[no-untyped-call]
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        return self

    def train(self, mode: bool = True) -> PhaseModule:
        self.training = mode
        self._body.train_parts(self._phase.trained if mode else frozenset())
        self.adapters.train(mode)
        return self

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Any:
        """[B, C, H, W] or [B, T], and labels [B] or [B, C] → the loss; without labels, the answers."""
        if not torch.compiler.is_compiling():
            self._check(labels)
        if labels is not None:  # before statistics move
            labels = check_labels(labels, len(images), self._body.classes)
        phase = self._phase
        mine = self._body.answers(phase, images)
        outputs = {"logits": mine.logits, "features": mine.features}
        if self._teacher is not None:
            with torch.no_grad():
                theirs = self._teacher.teaches(phase, images)
            outputs |= {"teacher": theirs.logits, "teacher_features": theirs.features}
        outputs = {name: by_exit for name, by_exit in outputs.items() if by_exit}
        return outputs if labels is None else self.loss(outputs, labels)

    def loss(self, outputs: LossInputs, labels: Tensor) -> Tensor:
        """The loss of what the module returned for images without labels.

        Args:
            outputs: Of the module.
            labels: [B] class numbers, or [B, classes] shares of each class.

        Raises:
            OfframpError: The labels are of another form, or of no class.
        """
        phase, logits = self._phase, outputs["logits"]
        labels = check_labels(labels, *next(iter(logits.values())).shape)
        mine = ExitAnswers(logits, outputs.get("features", {}))
        live = self._teacher is None
        theirs = ExitAnswers(outputs.get("teacher", {}), outputs.get("teacher_features", {}))
        layers: Any = dict(zip(self._pairs, self.adapters, strict=True))
        own = self.net if isinstance(self.net, ExitNetwork) else None
        gates = gating(own, logits, self._spent) if own is not None and phase.gated else None
        context = LossContext(
            self.class_weights,
            self._smoothing,
            gating=gates,
            penalties=penalties(self.anchors, phase.terms, self.weights()) if self.anchors else {},
        )
        loss = phase_loss(phase, layers, mine, mine if live else theirs, labels, context)
        if not torch.compiler.is_compiling():
            self.batches += self.training
            self.seen = {k: own.detach() for k, own in logits.items()}, labels
        return loss

    def parameters_of(self, part: Part) -> list[nn.Parameter]:
        """Those of a part of the network."""
        return self._body.parameters_of(part)

    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters of the network that train, by name."""
        every = (self._body.state(part) for part in sorted(self._phase.trained))
        return {
            name: tensor
            for state in every
            for name, tensor in state.items()
            if isinstance(tensor, nn.Parameter)
        }

    def learned(self) -> dict[str, Tensor]:
        """What changes of the network as it trains, by its names: parameters and buffers."""
        every = (self._body.state(part) for part in sorted(self._phase.trained))
        ours = {id(tensor) for state in every for tensor in state.values()}
        named = self.net.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in named.items() if id(tensor) in ours}

    def _check(self, labels: Tensor | None) -> None:
        """Raises OfframpError for a call that would train something else than the phase says."""
        phase = self._phase
        if not self.entered:
            raise OfframpError(
                f"the loss of phase '{phase.name}' is computed outside of the phase; call phase.module "
                "inside of `with phase:`"
            )
        if labels is not None and not self.anchors and any(isinstance(t, EWC) for t in phase.terms):
            raise OfframpError(
                f"phase '{phase.name}' holds weights near where they begin; call phase.weigh(loader) "
                "before the first step, which measures how much each matters"
            )
        for part in _parts(self._body.exits):
            modes = self._body.modes(part)
            trains = self.training and part in phase.trained
            if modes and (True in modes) != trains:  # a trained part may have some in eval mode
                mode = "eval" if trains else "train"
                raise OfframpError(
                    f"{part} is in {mode} mode, which phase '{phase.name}' does not put it in; after "
                    "net.train() or net.eval(), call phase.module.train()"
                )


class LoopPhase:
    """A phase of a program, to train in a loop of one's own. `offramp.program` makes them.

    `with phase:` makes the network ready: what trains takes gradients and is in train mode, all else is
    frozen and in eval mode. Leaving it, for whatever reason, leaves the network in eval mode, with the
    weights of the last step and requires_grad as before.

    Attributes:
        name: Of the phase.
        number: Of it in its program, from 0.
        declaration: The `Phase`.
        state: `new`, `entered`, or `left`.

    Example:
        >>> phase = offramp.program(net, "joint")[0]
        >>> phase
        phase 'joint' (1 of 1): trains segments 1–3, heads 1–3 on 0.3·CE(1) + 0.65·CE(2) + CE(3)
        >>> with phase:
        ...     optimizer = torch.optim.SGD(phase.parameters(), lr=0.01)
        ...     phase.module(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1])).backward()
        ...     optimizer.step()
        >>> phase.state
        'left'
    """

    def __init__(self, course: Course, number: int) -> None:
        self._course, self.number = course, number
        self.declaration = course.program[number]
        self.name, self.state = self.declaration.name, "new"
        self._module: PhaseModule | None = None
        self._loaded: Mapping[str, Any] | None = None
        self._flags: dict[str, bool] = {}
        self._sums: dict[str, float] = {}
        self._handles: list[RemovableHandle] = []

    @property
    def trains(self) -> str:
        """What trains, in words."""
        return listed(self.declaration.trained)

    @property
    def loss(self) -> str:
        """Its loss, in words."""
        return describe(self.declaration.terms)

    @property
    def exits(self) -> tuple[int, ...]:
        """The exits that its loss reads."""
        return self.declaration.exits

    @property
    def share(self) -> float:
        """Its epochs as a share of those of all phases, 0 to 1: 30 epochs in all are
        round(30 * phase.share) here. `fit` gives each phase that says nothing as many as any other."""
        epochs = [dict(p.recipe).get("epochs", USUAL_EPOCHS) for p in self._course.program]
        return float(epochs[self.number] / sum(epochs))

    @property
    def learning_rate_scale(self) -> float:
        """What the strategy multiplies the learning rate by here, as phases that refine do."""
        return float(dict(self.declaration.recipe).get("learning_rate_scale", 1.0))

    def __repr__(self) -> str:
        where = f"{self.number + 1} of {len(self._course.program)}"
        what = f"phase '{self.name}' ({where}): trains {self.trains} on {self.loss}"
        return "; ".join([what, *notes(self.declaration)])

    @property
    def module(self) -> PhaseModule:
        """Images and labels → the loss: wrap it in DDP, compile it, move it as any module.

        Raises:
            OfframpError: The phase is not entered.
        """
        if self._module is None or self.state != "entered":
            raise OfframpError(f"phase '{self.name}' is not entered; write `with phase:`")
        return self._module

    def parameters(self) -> list[nn.Parameter]:
        """What the optimizer is for: what the phase trains, adapters of its loss included.

        Raises:
            OfframpError: The phase is not entered.
        """
        return [p for group in self.groups(1.0) for p in group["params"]]

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """The same for an optimizer, with the rate of each part where the strategy says some.

        Args:
            lr: What `fit` calls the learning rate.

        Example:
            >>> phase = offramp.program(net, "joint-branch")[1]
            >>> with phase:
            ...     [group["lr"] for group in phase.groups(1.0)]
            [0.1]
        """
        module = self.module
        factors = rated(self.declaration, module.parameters_of)
        factors |= dict.fromkeys(module.adapters.parameters(), 1.0)
        by_factor: dict[float, list[nn.Parameter]] = {}
        for parameter, factor in factors.items():
            if parameter.requires_grad:
                by_factor.setdefault(factor * self.learning_rate_scale, []).append(parameter)
        return [{"params": alike, "lr": lr * factor} for factor, alike in by_factor.items()]

    def exit_losses(self) -> dict[int, float]:
        """The cross-entropy of each exit on the last batch, for logs; empty before the first, and in a
        compiled module."""
        if self._module is None or self._module.seen is None:
            return {}
        logits, labels = self._module.seen
        return {k: F.cross_entropy(own, labels).item() for k, own in logits.items()}

    def weigh(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Measure how much each weight matters, for a loss that holds weights near where they begin
        (EWC).

        Args:
            batches: Images as they are, without augmentation, and labels [B]. As many images are looked
                at, one by one, as the loss says.
        """
        module, phase = self.module, self.declaration

        def looks(most: int) -> Iterator[tuple[ExitAnswers, Tensor]]:
            count = 0
            for images, labels in batches:
                for image, label in zip(torch.split(images, 1), torch.split(labels, 1), strict=True):
                    if count == most:
                        return
                    count += 1
                    yield module._body.answers(phase, image), label

        module.eval()
        module.anchors = anchored(phase.terms, module.weights(), looks)
        module.train()

    # Entering and leaving

    def __enter__(self) -> LoopPhase:
        course = self._course
        if course.current is not None:
            raise OfframpError(
                f"phase '{course.program[course.current].name}' is entered; leave it before entering "
                f"'{self.name}'"
            )
        if self.state == "left":
            raise OfframpError(
                f"phase '{self.name}' was trained already; to go on, "
                "phase.load_state_dict(phase.state_dict()), to train anew, make another program"
            )
        teacher = self.declaration.teacher
        for name in sorted(course.needs(self.number)):
            if name == teacher and name not in course.left:
                raise OfframpError(
                    f"phase '{self.name}' learns from phase '{name}', which was not trained here; train "
                    "it first, or load this phase's state_dict"
                )
        with uninterrupted():
            self._begin()
        return self

    def _begin(self) -> None:
        course, phase = self._course, self.declaration
        net = course.body.module
        self._flags = {name: p.requires_grad for name, p in net.named_parameters()}
        course.shape(self.number)
        body = course.on(phase.trunk)
        if self._loaded is None:
            course.draw(phase, body)
        body.module.requires_grad_(False)
        parameters = rated(phase, body.parameters_of)
        for parameter in parameters:
            parameter.grad = None
            parameter.requires_grad_(True)
        layers: Adapters = {}
        if isinstance(body, AttachedBody):
            layers = drawn_adapters(phase.terms, course.seed, body.module)
            for head in () if phase.gated else inside(body.module).heads:
                if head.gate is not None:  # it would get no gradient, which several processes wait for
                    head.gate.requires_grad_(False)
        else:
            self._handles = scaled(body.net, phase)  # type: ignore[attr-defined]
        teacher = None
        if phase.taught and phase.teacher is not None and not phase.live:
            teacher = body.frozen(course.left[phase.teacher])
        place = next(iter(parameters)).device
        weights = None if course.class_weights is None else course.class_weights.to(place)
        module = PhaseModule(phase, body, teacher, layers, weights, course.smoothing)
        if self._loaded is not None:
            _restore(module, self._loaded)
            self._loaded = None
        module.train()
        self._sums = _sums(body.module)
        self._module, self.state, course.current = module, "entered", self.number

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        course, module = self._course, self._module
        assert module is not None
        with uninterrupted():
            for handle in self._handles:
                handle.remove()
            for parameter in self.parameters():
                parameter.grad = None
            if error is None:  # where a process failed, the others would wait for each other
                _gather(module)
            sums = _sums(module.net)
            changed = {name for name, total in sums.items() if total != self._sums[name]}
            learned = module.learned()
            module.eval()
            module.entered, self.state, course.current = False, "left", None
            if self.name in course.needs(self.number + 1):
                course.remember(self.name, self.declaration.trunk)
            if self.number == len(course.program) - 1 and error is None:
                course.close()
            for name, parameter in course.body.module.named_parameters():
                parameter.requires_grad_(self._flags.get(name, True))
        after = f"phase '{self.name}' was left after {counted(module.batches, 'batch', 'batches')}"
        if error is not None:
            error.add_note(
                f"{after}: the network is in eval mode, with the weights of the last step; what the "
                "phase does not train is as it was"
            )
            return
        weights = {name for name, tensor in learned.items() if isinstance(tensor, nn.Parameter)}
        if module.batches and not changed & weights:
            raise OfframpError(
                f"{after}, and none of its weights changed; make its optimizer inside of the phase: "
                "AdamW(phase.parameters())"
            )
        if others := changed - learned.keys():
            raise OfframpError(
                f"{after}, and '{min(others)}', which it does not train, changed: something else writes "
                "on it; give the optimizer phase.parameters() alone"
            )
        if broken := [name for name, total in sums.items() if not math.isfinite(total)]:
            raise OfframpError(
                f"{after}, and '{broken[0]}' is not finite; lower the learning rate, and begin the "
                "phase again from a checkpoint"
            )

    # A checkpoint

    def state_dict(self) -> dict[str, Any]:
        """What the phase needs beside the network's and the optimizer's state to be entered again in
        another process: tensors, numbers and text."""
        course, module = self._course, self._module
        needed = course.needs(self.number)
        return {
            "phase": self.name,
            "left": {name: state for name, state in course.left.items() if name in needed},
            "adapters": {} if module is None else module.adapters.state_dict(),
            "anchors": {
                number: {"start": dict(anchor.start), "fisher": dict(anchor.fisher)}
                for number, anchor in ({} if module is None else module.anchors).items()
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: load this first, then the network's state, then enter the phase, then
        load the optimizer's.

        Args:
            state: Of `state_dict`, of the same phase.

        Raises:
            OfframpError: It is of another phase, or the phase is entered.
        """
        if state.get("phase") != self.name or self.state == "entered":
            raise OfframpError(
                f"the state is of phase '{state.get('phase')}', and phase '{self.name}' is "
                f"{self.state}; load it into the phase of that name, before entering it"
            )
        course = self._course
        course.left |= {name: dict(tensors) for name, tensors in state["left"].items()}
        for number in range(self.number + 1):  # what the network is made of by now
            course.shape(number)
        self._loaded, self.state = state, "new"


def _gather(module: nn.Module) -> None:
    """Put whole parameters in place of those that FSDP has divided among processes."""
    reshard: Any = getattr(module, "reshard", None)
    if reshard is not None:
        reshard()
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and hasattr(parameter, "full_tensor"):
                whole = parameter.full_tensor().detach()
                part._parameters[name] = nn.Parameter(whole, parameter.requires_grad)


def _sums(net: nn.Module) -> dict[str, float]:
    """The sum of each tensor of a network, which tells whether it changed."""
    state = net.state_dict()
    totals = [tensor.sum(dtype=torch.float64) for tensor in state.values()]
    totals = [total.full_tensor() if hasattr(total, "full_tensor") else total for total in totals]
    return dict(zip(state, torch.stack(totals).tolist(), strict=True))


def _restore(module: PhaseModule, state: Mapping[str, Any]) -> None:
    module.adapters.load_state_dict(state["adapters"])
    module.anchors = {
        number: Anchor(dict(anchor["start"]), dict(anchor["fisher"]))
        for number, anchor in state["anchors"].items()
    }
