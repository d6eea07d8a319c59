"""Phases of a program in somebody's own training loop: what trains, and the loss as a module.

The network trains in place. A phase prepares it when it is entered (weights, gradients, modes, the
teacher), and puts it back in order when it is left. What a batch comes to is computed as `fit` does it.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from numbers import Real
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only
from torch.utils.hooks import RemovableHandle

from offramp.device import seeded, widest
from offramp.engine.auxiliary import (
    drawn_adapters,
    phase_loss,
)
from offramp.engine.losses import LossContext, check_labels, cross_entropies, gating, spent_at
from offramp.engine.passes import ExitAnswers, answered, answers
from offramp.engine.trainee import rated
from offramp.engine.values import IMAGES, Point, Tensors, compute, end, sending_back
from offramp.engine.weights import ADDS
from offramp.errors import OfframpError, OfframpWarning, kind_of
from offramp.hashing import derive
from offramp.inputs import check_numbers
from offramp.nets.foreign import MultiExit
from offramp.nets.inside import NetworkParts
from offramp.nets.network import ExitNetwork, inside, reshape
from offramp.parts import Carry, Part, Parts, heads, segments
from offramp.phase import BEFORE, Init, Phase, Program, describe, listed, notes
from offramp.process import uninterrupted
from offramp.units import counted

LossInputs = dict[str, dict[int, Tensor]]
State = dict[str, Tensor]
USUAL_EPOCHS = 20  # of a phase that says none, among phases that do


@dataclass(frozen=True, eq=False)
class Body:
    """What trains: a network by its parts; of several trunks, one."""

    net: ExitNetwork | MultiExit
    trunk: int = 0

    @property
    def module(self) -> nn.Module:
        return self.net if isinstance(self.net, ExitNetwork) else self.net.module

    @property
    def parts(self) -> list[Part]:
        return sorted(segments(1, self.net.exits) | heads(1, self.net.exits))

    @property
    def _own(self) -> NetworkParts | MultiExit:
        return inside(self.net) if isinstance(self.net, ExitNetwork) else self.net

    def parameters_of(self, part: Part) -> list[nn.Parameter]:
        return self._own.parameters_of(part, self.trunk)

    def state(self, part: Part) -> State:
        return self._own.state(part, self.trunk)

    def modes(self, part: Part) -> Set[bool]:
        """Whether what a part is made of is in train mode."""
        return self._own.modes(part, self.trunk)

    def train_parts(self, parts: Parts) -> None:
        """Put these parts in train mode, all else in eval mode."""
        self.module.eval()
        self._own.train_parts(parts, self.trunk)

    def answers(self, phase: Phase, images: Tensor) -> ExitAnswers:
        """Of the exits that the loss reads."""
        if isinstance(self.net, ExitNetwork):
            return answered(phase, self.net, {IMAGES: (images,)}, self.trunk)
        logits = self.net.logits(self.module(images))
        return ExitAnswers({k: logits[k - 1].float() for k in phase.exits}, {})

    def teaches(self, phase: Phase, images: Tensor) -> ExitAnswers:
        """Of the exits that the loss reads of a teacher."""
        exits = sorted(phase.taught)
        if isinstance(self.net, ExitNetwork):
            values: dict[Point, Tensors] = {IMAGES: (images,)}
            return answers({k: compute(self.net, values, end(phase.terms, k)) for k in exits})
        logits = self.net.logits(self.module(images))
        return ExitAnswers({k: logits[k - 1].float() for k in exits}, {})

    @torch.no_grad()
    def fill(self, parts: Iterable[Part], state: Mapping[str, Tensor]) -> None:
        for part in parts:
            for name, tensor in self.state(part).items():
                if name in state:  # a head may have got a gate, or what it carries, since then
                    tensor.copy_(state[name])

    def frozen(self, state: State) -> Body:
        """A copy with the weights of `state`, in eval mode and without gradients."""
        body = Body(copy.deepcopy(self.net))
        body.fill(body.parts, state)
        body.module.requires_grad_(False).eval()
        return body

    def redraw(self, part: Part, seed: int) -> None:
        """New weights for a part, a function of the seed."""
        if isinstance(self.net, ExitNetwork):
            own = inside(self.net)
            early = part.kind == "head" and part.index < self.net.exits
            head = own.drawn_head(part.index, own.carry, seed, "fresh") if early else None
            self.fill([part], own.drawn_trunk(seed, "fresh") if head is None else head)
            return
        for name in self.net.modules[part]:
            module: Any = self.module.get_submodule(name)
            if module._parameters:
                with seeded(derive(seed, name, "fresh")):
                    module.reset_parameters()

    def scaled(self, phase: Phase) -> list[RemovableHandle]:
        """Hooks by which parts of a foreign network send their gradient back scaled."""
        handles = []
        if isinstance(self.net, MultiExit):
            for part, factor in phase.scales.items():

                def scale(_: nn.Module, inputs: Any, factor: float = factor) -> Any:
                    return tree_map_only(Tensor, lambda tensor: sending_back(tensor, factor), inputs)

                handles.append(self.net.submodule(part).register_forward_pre_hook(scale))
        return handles


@dataclass(eq=False)
class Course:
    """The state of a program that trains a network in place."""

    net: ExitNetwork | MultiExit
    program: Program  # its phases
    seed: int  # of what phases draw anew
    class_weights: Tensor | None  # [C], of the cross-entropies
    smoothing: float  # of the cross-entropies, 0 to 1
    several: bool = False  # whether an image has several labels
    # by the name of a phase: the weights that it left, where a later phase reads them
    left: dict[str, State] = field(default_factory=dict)
    # the number in the network of the trunk that a phase calls so
    opened: dict[int, int] = field(default_factory=lambda: {0: 0})
    current: int | None = None  # the number of the phase that is entered
    # the numbers of the phases that were entered, or whose state was loaded
    begun: set[int] = field(default_factory=set)

    def needs(self, number: int) -> set[str]:
        """The phases whose weights that phase and later ones read."""
        later = self.program[number:]
        taught = {p.teacher for p in later if p.taught and p.teacher is not None and not p.live}
        initial = any(Init.INITIAL in p.starts.values() for p in later)
        return taught | ({BEFORE} if initial else set())

    def body(self, trunk: int = 0) -> Body:
        """The network as a phase on that trunk sees it."""
        return Body(self.net, self.opened[trunk])

    def remember(self, name: str, trunk: int = 0) -> None:
        """The weights that a phase leaves, or that there are before any."""
        body = self.body(trunk)
        state = {name: tensor for part in body.parts for name, tensor in body.state(part).items()}
        self.left[name] = {name: tensor.detach().clone() for name, tensor in state.items()}

    def shape(self, number: int) -> None:
        """Give an attached network the trunks, gates and layers that a phase needs."""
        self.begun.add(number)
        if not isinstance(self.net, ExitNetwork):
            return
        phase, own = self.program[number], inside(self.net)
        begun: list[Carry] = [p.carry for p in self.program[: number + 1] if p.carry]
        carry = begun[-1] if begun else 0.0  # what an earlier phase began stays
        sources = [*range(len(own.trunks))]
        if phase.trunk not in self.opened:  # it starts as a copy of the shared one
            self.opened[phase.trunk] = len(sources)
            sources.append(0)
        owners = dict(enumerate(own.trunk_of, start=1))
        owners |= {p.index: self.opened[phase.trunk] for p in phase.trained if p.kind == "head"}
        reshape(self.net, [*owners.values()], sources, carry, phase.gated)
        for k in range(2, self.net.exits) if carry != own.carry else ():
            drawn = inside(self.net).drawn_head(k, carry, self.seed, "initial")
            adds = {name: tensor for name, tensor in drawn.items() if ADDS in name}
            self.body().fill([Part("head", k)], adds)

    def close(self) -> None:
        """After the last phase: only the trunks that exits run stay."""
        if isinstance(self.net, ExitNetwork):
            own = inside(self.net)
            used = sorted(set(own.trunk_of))
            reshape(self.net, [used.index(t) for t in own.trunk_of], used, own.carry, False)


class PhaseModule(nn.Module):
    """Images and labels → the loss of a phase, a scalar. `LoopPhase.module` is such a module.

    `train()` puts what the phase trains in train mode, and nothing else. Without labels it returns what
    exits answer, for `loss`: a mapping of mappings from exit to logits [B, classes] (`logits`, and of
    the teacher `teacher`) and to features [B, D], where the loss reads some.
    """

    class_weights: Tensor | None

    def __init__(self, phase: Phase, body: Body, teacher: Body | None, course: Course) -> None:
        super().__init__()
        self.net = body.module
        attached = body.net if isinstance(body.net, ExitNetwork) else None
        layers = {} if attached is None else drawn_adapters(phase.terms, course.seed, attached)
        self.adapters, self._pairs = nn.ModuleList(layers.values()), tuple(layers)
        weights, place = course.class_weights, next(body.module.parameters()).device
        weights = None if weights is None else weights.to(place)
        self.register_buffer("class_weights", weights, persistent=False)
        self._phase, self._body, self._teacher = phase, body, teacher
        self._smoothing, self._several = course.smoothing, course.several
        gated = attached is not None and phase.gated
        self._spent = spent_at(attached, phase.exits) if attached is not None and gated else {}
        self.entered, self.batches = True, 0
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
        """[B, C, H, W], and labels [B] or [B, C] → the loss; without labels, the answers."""
        if not torch.compiler.is_compiling():
            self._check()
            self._check_images(images)
        if labels is not None:  # before statistics move
            labels = check_labels(labels, len(images), self._body.net.classes, self._several)
        mine = self._body.answers(self._phase, images)
        outputs = {"logits": mine.logits, "features": mine.features}
        if self._teacher is not None:
            with torch.no_grad():
                theirs = self._teacher.teaches(self._phase, images)
            outputs |= {"teacher": theirs.logits, "teacher_features": theirs.features}
        outputs = {name: by_exit for name, by_exit in outputs.items() if by_exit}
        return outputs if labels is None else self.loss(outputs, labels)

    def loss(self, outputs: LossInputs, labels: Tensor) -> Tensor:
        """The loss of what the module returned for images without labels.

        Args:
            outputs: Of the module.
            labels: [B] class numbers, or [B, classes] shares of each class, or several labels.

        Raises:
            OfframpError: The labels are of another form, or of no class.
        """
        if not isinstance(outputs, Mapping) or "logits" not in outputs:
            raise OfframpError("give `loss` what phase.module(images) returned, all of it")
        phase, logits = self._phase, outputs["logits"]
        rows, classes = next(iter(logits.values())).shape
        labels = check_labels(labels, rows, classes, self._several)
        mine = ExitAnswers(logits, outputs.get("features", {}))
        theirs = ExitAnswers(outputs.get("teacher", {}), outputs.get("teacher_features", {}))
        layers: Any = dict(zip(self._pairs, self.adapters, strict=True))
        net: Any = self.net
        context = LossContext(
            self.class_weights,
            self._smoothing,
            gating=gating(net, logits, self._spent) if phase.gated else None,
            several=self._several,
        )
        theirs = mine if self._teacher is None else theirs  # its own teacher, or nobody's
        loss = phase_loss(phase, layers, mine, theirs, labels, context)
        if not torch.compiler.is_compiling():
            self.batches += self.training and torch.is_grad_enabled()
            if loss.requires_grad and not self.training:
                warnings.warn(
                    f"phase '{phase.name}' is in eval mode, and steps on this loss leave statistics and "
                    "dropout standing still; call phase.module.train(), or validate in torch.no_grad()",
                    OfframpWarning,
                    stacklevel=2,
                )
            self.seen = {k: own.detach() for k, own in logits.items()}, labels
        return loss

    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters of the network that train, by the names of parts."""
        states = (self._body.state(part) for part in sorted(self._phase.trained))
        every = ((name, tensor) for state in states for name, tensor in state.items())
        return {name: tensor for name, tensor in every if isinstance(tensor, nn.Parameter)}

    def learned(self) -> dict[str, Tensor]:
        """What changes of the network as it trains, by its names: parameters and buffers."""
        states = (self._body.state(part) for part in sorted(self._phase.trained))
        ours = {id(tensor) for state in states for tensor in state.values()}
        named = self.net.state_dict(keep_vars=True)
        return {name: tensor for name, tensor in named.items() if id(tensor) in ours}

    def factors(self) -> dict[nn.Parameter, float]:
        """What trains, each with the factor of its part on the learning rate."""
        parameters = rated(self._phase, self._body.parameters_of)
        return parameters | dict.fromkeys(self.adapters.parameters(), 1.0)

    def _check_images(self, images: Any) -> None:
        """Raises OfframpError for a batch of another form; other sizes may do."""
        shape = self._body.net.input_shape
        if not isinstance(images, Tensor):
            raise OfframpError(f"the images are {kind_of(images)}; give a tensor")
        check_numbers(images, "the images")
        wants = f"[B, {', '.join(map(str, shape))}] of floats, normalized"
        if images.ndim != 4 or images.shape[1] != shape[0] or not images.is_floating_point():
            last = images.ndim == 4 and images.shape[1] != shape[0] == images.shape[3]
            remedy = ": images.permute(0, 3, 1, 2)" if last else ""
            kind = str(images.dtype).removeprefix("torch.")
            raise OfframpError(f"the images are {list(images.shape)} {kind}; give {wants}{remedy}")

    def _check(self) -> None:
        """Raises OfframpError for a call that would train something else than the phase says."""
        phase = self._phase
        if not self.entered:
            raise OfframpError(
                f"the loss of phase '{phase.name}' is computed outside of the phase; call phase.module "
                "inside of `with phase:`, and make DDP and other wrappers anew in each phase"
            )
        for part in self._body.parts:
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
        trains: What trains, in words.
        loss: Its loss, in words.
        exits: The exits that its loss reads.
        share: Its epochs as a share of those of all phases, 0 to 1: 30 epochs in all are
            max(1, round(30 * phase.share)) here.
        learning_rate_scale: What the strategy multiplies the learning rate by here, as phases that
            refine do.
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
        own = course.program[number]
        self._course, self.number, self.declaration = course, number, own
        self.name, self.state = own.name, "new"
        self.trains, self.loss, self.exits = listed(own.trained), describe(own.terms), own.exits
        epochs = [dict(p.recipe).get("epochs", USUAL_EPOCHS) for p in course.program]
        self.share = float(epochs[number] / sum(epochs))
        self.learning_rate_scale = float(dict(own.recipe).get("learning_rate_scale", 1.0))
        self._module: PhaseModule | None = None
        self._loaded: Mapping[str, Any] | None = None
        self._flags: dict[str, bool] = {}
        self._sums: dict[str, float] = {}
        self._handles: list[RemovableHandle] = []

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
        return [parameter for parameter in self.module.factors() if parameter.requires_grad]

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
        if not isinstance(lr, Real) or not 0 <= lr < math.inf:
            raise OfframpError(f"lr must be a number of at least 0, got {lr!r}")
        factors, by_factor = self.module.factors(), dict[float, list[nn.Parameter]]()
        for parameter in self.parameters():
            factor = factors[parameter] * self.learning_rate_scale
            by_factor.setdefault(factor, []).append(parameter)
        return [{"params": alike, "lr": lr * factor} for factor, alike in by_factor.items()]

    def exit_losses(self) -> dict[int, float]:
        """The cross-entropy of each exit on the last batch, for logs; empty before the first, and in a
        compiled module."""
        if self._module is None or self._module.seen is None:
            return {}
        logits, labels = self._module.seen
        several = self._course.several
        return {k: cross_entropies(own, labels, several).mean().item() for k, own in logits.items()}

    # Entering and leaving

    def __enter__(self) -> LoopPhase:
        course, teacher = self._course, self.declaration.teacher
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
        if teacher in course.needs(self.number) - course.left.keys():
            raise OfframpError(
                f"phase '{self.name}' learns from phase '{teacher}', which was not trained here; train "
                "it first, or load this phase's state_dict"
            )
        before = self.number - 1
        if self._loaded is None and before >= 0 and before not in course.begun:
            warnings.warn(
                f"phase '{self.name}' begins, and '{course.program[before].name}' was neither trained "
                "here nor loaded",
                OfframpWarning,
                stacklevel=2,
            )
        try:
            with uninterrupted():
                self._begin()
        except BaseException as error:  # Ctrl-C counts when all is ready
            if self.state == "entered":
                self.__exit__(type(error), error, None)
            else:
                self._let_go()
            raise
        return self

    def _begin(self) -> None:
        course, phase = self._course, self.declaration
        self._flags = {name: p.requires_grad for name, p in course.body().module.named_parameters()}
        course.shape(self.number)
        body = course.body(phase.trunk)
        for part, init in sorted(phase.starts.items()) if self._loaded is None else ():
            if init is Init.INITIAL:
                body.fill([part], course.left[BEFORE])
            elif init is Init.FRESH:
                body.redraw(part, course.seed)
        body.module.requires_grad_(False)
        for parameter in rated(phase, body.parameters_of):
            parameter.grad = None
            parameter.requires_grad_(True)
        idle = isinstance(body.net, ExitNetwork) and not phase.gated
        for head in inside(body.net).heads if isinstance(body.net, ExitNetwork) and idle else ():
            if head.gate is not None:  # it would get no gradient, which several processes wait for
                head.gate.requires_grad_(False)
        self._handles = body.scaled(phase)
        frozen = phase.taught and phase.teacher is not None and not phase.live
        teacher = body.frozen(course.left[str(phase.teacher)]) if frozen else None
        module = PhaseModule(phase, body, teacher, course)
        if self._loaded is not None:
            module.adapters.load_state_dict(self._loaded["adapters"])
        _agree(body.module)
        self._sums = _sums(body.module)
        self._module, self.state, course.current = module.train(), "entered", self.number

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        course, module = self._course, self.module
        with uninterrupted():
            for handle in self._handles:
                handle.remove()
            for parameter in self.parameters():
                parameter.grad = None
            if error is None:  # where a process failed, the others would wait for each other
                _gather(module)
            module.eval()
            sums, learned = _sums(module.net), module.learned()
            module.entered, self.state, course.current = False, "left", None
            if self.name in course.needs(self.number + 1):
                course.remember(self.name, self.declaration.trunk)
            if self.number == len(course.program) - 1 and error is None:
                course.close()
            self._let_go()
        after = f"phase '{self.name}' was left after {counted(module.batches, 'batch', 'batches')}"
        if error is not None:
            error.add_note(
                f"{after}: the network is in eval mode, with the weights of the last step; what the "
                "phase does not train is as it was"
            )
            return
        changed = {name for name, total in sums.items() if total != self._sums[name]}
        weights = {name for name, tensor in learned.items() if isinstance(tensor, nn.Parameter)}
        # A compiled module counts no batches: there the weights say whether it trained.
        if not module.batches and not changed & weights and self._loaded is None:
            warnings.warn(f"{after}: it trained nothing", OfframpWarning, stacklevel=2)
        if module.batches and not changed & weights:
            raise OfframpError(
                f"{after}, and none of its weights changed; make its optimizer inside of the phase: "
                "AdamW(phase.parameters())"
            )
        if broken := [name for name, total in sums.items() if not math.isfinite(total)]:
            raise OfframpError(
                f"{after}, and '{broken[0]}' is not finite; lower the learning rate, and begin the "
                "phase again from a checkpoint"
            )
        if others := changed - learned.keys():
            raise OfframpError(
                f"{after}, and '{min(others)}', which it does not train, changed: something else writes "
                "on it; give the optimizer phase.parameters() alone"
            )

    def _let_go(self) -> None:
        """Gradients for what took some before the phase."""
        for name, parameter in self._course.body().module.named_parameters():
            parameter.requires_grad_(self._flags.get(name, True))

    # A checkpoint

    def state_dict(self) -> dict[str, Any]:
        """What the phase needs beside the network's and the optimizer's state to be entered again in
        another process: tensors, numbers and text."""
        course, module = self._course, self._module
        return {
            "phase": self.name,
            "left": {name: course.left[name] for name in course.needs(self.number) & course.left.keys()},
            "adapters": {} if module is None else module.adapters.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: load this first, then the network's state, then enter the phase, then
        load the optimizer's.

        Args:
            state: Of `state_dict`, of the same phase.

        Raises:
            OfframpError: It is of another phase, or the phase is entered.
        """
        if not isinstance(state, Mapping) or not {"left", "adapters"} <= state.keys():
            raise OfframpError(f"the state is {kind_of(state)}; give what phase.state_dict() returned")
        if state.get("phase") != self.name or self.state == "entered":
            raise OfframpError(
                f"the state is of phase '{state.get('phase')}', and phase '{self.name}' is "
                f"{self.state}; load it into the phase of that name, before entering it"
            )
        self._course.left |= state["left"]
        for number in range(self.number + 1):  # what the network is made of by now
            self._course.shape(number)
        self._loaded, self.state = state, "new"


def _agree(module: nn.Module) -> None:
    """Rank 0's buffers in every process, as DDP hands them out while it trains. Each has statistics of
    its own images from the phase before, and frozen ones must not move."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    for buffer in module.buffers():
        if buffer.is_cuda or torch.distributed.get_backend() != "nccl":
            torch.distributed.broadcast(buffer, 0)


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
    totals = [tensor.sum(dtype=widest(tensor.device)) for tensor in state.values()]
    totals = [total.full_tensor() if hasattr(total, "full_tensor") else total for total in totals]
    return dict(zip(state, torch.stack(totals).tolist(), strict=True))
