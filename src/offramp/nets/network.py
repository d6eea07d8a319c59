"""The early-exit network: one trunk that all exits share, or one trunk per exit."""

from __future__ import annotations

import copy
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar, final

import numpy as np
import torch
from torch import Tensor, nn

from offramp.device import seeded
from offramp.errors import OfframpError
from offramp.inputs import Shape, is_square
from offramp.nets.clock import Clock
from offramp.nets.cut.partition import Segment, Trunk
from offramp.nets.heads import Head, HeadSpec, is_channels_last, through, zeros
from offramp.nets.identity import attributes_digest, state_digest
from offramp.parts import HIDDEN, Carry, Part, backbone, path
from offramp.seeding import derive
from offramp.units import percent

Make = Callable[[], nn.Module]
M = TypeVar("M", bound=nn.Module)
CARRY = "carry"  # the name among the heads' tensors of how much exits add
STATISTICS = 4  # that a gate reads of an exit's answer
FromImages = Callable[[Tensor, Tensor, Tensor], Mapping[str, Tensor]]  # images, mean, std → weights


@dataclass(frozen=True)
class Exit:
    """One early exit: where it reads, what it is made of, and what it reads there.

    place: name in the trunk.  shape: of its tap, without the batch.
    """

    place: str
    spec: HeadSpec
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """What its weights are named under."""
        return f"exits.{self.place}"


@dataclass(frozen=True)
class NetFacts:
    """What stays the same in every copy of a network.

    early: its early exits, in order.  input_shape: (C, H, W) of one image, (T,) of one text.
    identity: what the trunk is, as JSON-able data for keys; says nothing of exits.
    make: makes the trunk's module anew, drawing its weights from the generators of torch, NumPy or
        Python; None for a module that came with its weights.
    costs: multiply-accumulates of each part for one image, without what it adds of the answer before.
    initial: what became of weights that were given for the trunk, in words.
    reasons: why each early exit is where it is, in words.
    from_images: weights of the trunk that follow from training images, which it has not seen yet.
    asked: for a network that was made by name, what a study says to get it.
    carry: what each exit adds of the answer of the exit before to its head's logits.
    attributes: of a module at hand, `attributes_digest` when exits were attached.
    """

    early: tuple[Exit, ...]
    classes: int
    input_shape: Shape
    identity: Mapping[str, Any]
    make: Make | None
    costs: Mapping[Part, int]
    initial: str | None = None
    reasons: tuple[str, ...] = ()
    from_images: FromImages | None = None
    asked: Mapping[str, Any] | None = None
    carry: Carry = 0.0
    attributes: str = ""


class ExitNetwork(nn.Module):
    """Images [B, C, H, W], or texts [B, T] int64, → logits [B, classes] of every exit, as a tuple.

    Made by `offramp.attach` or `offramp.nets.build`. Exits count from 1; exit `exits` is the
    backbone's own classifier. `path(k)` is what exit k runs. All exits share one trunk, the backbone;
    after strategies that train several there are more, and exit k runs trunk `trunk_of[k - 1]`.

    To PyTorch it is the backbone with heads added. Parameters, buffers and submodules have the
    backbone's own names, and those of an early exit `exit_heads.<place>.…` (`head_keys` lists them; an
    exit at `block.body` beside one at `block`, whose head has a `body`, is `block.body_`). So a
    checkpoint of the backbone loads as it is, and `backbone.load_state_dict(net.state_dict(),
    strict=False)` fills the plain backbone. If there are several trunks, the final exit's has the plain
    names, and trunk n has `other_trunks.<n>.…`.

    >>> from torchvision.models import resnet18
    >>> checkpoint = resnet18(num_classes=10).state_dict()  # as torch.load reads it
    >>> net = offramp.attach(resnet18(num_classes=10), exits=["layer1"], input_shape=(3, 32, 32))
    >>> net.load_state_dict(checkpoint)
    <All keys matched successfully>
    >>> plain = resnet18(num_classes=10).load_state_dict(net.state_dict(), strict=False)
    >>> set(plain.unexpected_keys) == set(net.head_keys)
    True

    `load_state_dict` leaves a head alone if the checkpoint has no tensor of it. Any other missing or
    unexpected tensor, or another shape, is an error, as usual. Weights of exits that add a share of the
    answer before, as `boosted` trains them, load into `net.carrying(0.5)`.

    `train()` and `eval()` set every module's mode. You can then set a single module:
    `net.layer1.eval()` freezes the statistics of its batch norms. A function whose effect depends on
    the mode, such as `F.dropout(x, training=self.training)`, follows the last `train()`, `eval()` or
    `train_part` of the network, whatever the mode of the module that calls it.

    If a part of the backbone has a name of this class, such as `heads`, it is `backbone.heads`, and
    `attach` warns of it. FX and `torch.func`, which look parts up by attribute, do not find it.

    The network is cut when it is made: a submodule or parameter cannot be replaced afterwards, though
    its values can. Forward hooks fire on the modules of PyTorch inside (`layer1.0.conv1`), not on the
    modules that contain them (`layer1`), whose forward does not run.

    trunks: cut alike, all of one clock, which decides what dropout and drop-path draw from.
    heads: of the early exits.
    """

    def __init__(
        self, trunks: Sequence[Trunk], trunk_of: Sequence[int], heads: Sequence[Head], facts: NetFacts
    ) -> None:
        super().__init__()
        self.exits = len(facts.early) + 1
        self.places = tuple(trunks[0].places)
        self.classes = facts.classes
        self.input_shape = facts.input_shape
        self.identity = dict(facts.identity)
        self.clock = trunks[0].clock
        self.head_specs = tuple(exit.spec for exit in facts.early)
        self.trunk_of = tuple(trunk_of)
        self.trunks = tuple(trunks)
        self.heads = tuple(heads)
        self.initial = facts.initial
        self.reasons, self.asked, self.carry = facts.reasons, facts.asked, facts.carry
        self._facts = facts
        self._loaded = False
        self._register()

    # What PyTorch sees

    def _register(self) -> None:
        """Show PyTorch the backbone's own tree, with the heads and the other trunks added to it.

        The backbone's direct parameters and buffers are held in its own tables, so that moving this
        network moves them.
        """
        root = self.backbone
        self._modules = _Children(root._modules)
        self._version = root._version
        self._parameters, self._buffers = root._parameters, root._buffers
        self._non_persistent_buffers_set = root._non_persistent_buffers_set
        others, heads = nn.Module(), nn.Module()
        self._shown = _shown_names([exit.place for exit in self._facts.early], self.heads)
        for n, trunk in enumerate(self.trunks):
            if n != self.trunk_of[-1]:
                others._modules[str(n)] = trunk.module
        for shown, head in zip(self._shown, self.heads, strict=True):
            node = heads
            for step in shown.split("."):
                node = node._modules.setdefault(step, nn.Module())  # type: ignore[assignment]
            node._modules.update(head._modules)
        if not isinstance(self.carry, str) and self.carry:  # no module has a tensor that says so
            like = next(iter(root.parameters()), torch.empty(0))
            heads._buffers[CARRY] = torch.tensor(self.carry, device=like.device)
        added = {_free("other_trunks", root): others, _free("exit_heads", root): heads}
        self._trunks_name, self._heads_name = added
        self._modules.update({name: module for name, module in added.items() if module._modules})

    @property
    def backbone(self) -> nn.Module:
        """The plain network [B, C, H, W] → logits [B, classes] of the final exit; shares the weights."""
        return self.trunks[self.trunk_of[-1]].module

    @property
    def head_keys(self) -> tuple[str, ...]:
        """The keys of `state_dict()` that are the early exits' heads', not the backbone's."""
        heads = self._modules.get(self._heads_name) or nn.Module()
        return tuple(heads.state_dict(prefix=f"{self._heads_name}."))

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of the early exits' heads; the backbone's are not among them.

        >>> optimizer = torch.optim.SGD(net.head_parameters(), lr=0.1)
        """
        return [parameter for head in self.heads for parameter in head.parameters()]

    def _head_state(self, k: int, prefix: str) -> dict[str, Tensor]:
        shown = self._shown[k - 1]
        return self.heads[k - 1].state_dict(prefix=f"{prefix}{self._heads_name}.{shown}.")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """What `load_state_dict` does here, wherever this network is a part: the backbone loads by its
        own rules, and a head that the checkpoint lacks keeps what it has."""
        self._check_carry(state_dict, prefix, rest[-1])
        for k in range(1, self.exits):
            own = self._head_state(k, prefix)
            if own.keys().isdisjoint(state_dict):
                state_dict.update(own)
        ours = (self._trunks_name, self._heads_name)
        # Of what is not here none but the backbone would say that it is unexpected.
        added = [prefix + name + "." for name in ours if name in self._modules]
        aside = {key: state_dict.pop(key) for key in [*state_dict] if key.startswith(tuple(added))}
        self._loaded = self._loaded or any(key.startswith(prefix) for key in state_dict)
        self.backbone._load_from_state_dict(state_dict, prefix, *rest)
        state_dict.update(aside)

    def _check_carry(self, state_dict: dict[str, Any], prefix: str, errors: list[str]) -> None:
        """Weights of heads answer alike only where exits add as much as those did that learned them."""
        heads = f"{prefix}{self._heads_name}."
        own = 0.0 if isinstance(self.carry, str) else self.carry
        theirs = own  # where it is a checkpoint of the backbone
        if any(key.startswith(heads) for key in state_dict):
            theirs = float(state_dict.pop(heads + CARRY, 0.0))
        if theirs != own:
            errors.append(
                f"in these weights an exit adds {theirs:g} times the answer of the exit before, here "
                f"{own:g} times; load them into net.carrying({theirs:g})"
            )
        if own:
            state_dict[heads + CARRY] = torch.tensor(own)

    def get_submodule(self, target: str) -> nn.Module:
        """The module of that name in `named_modules()`: `layer1.0.conv1` or `exit_heads.layer1`."""
        first, _, rest = target.partition(".")
        module = self._modules.get(first)  # an attribute of the same name, such as `heads`, is not meant
        return super().get_submodule(target) if module is None else module.get_submodule(rest)

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_surgery(name, value)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        self._refuse_surgery(name, None)
        super().__delattr__(name)

    def _refuse_surgery(self, name: str, value: Any) -> None:
        for table in ("_modules", "_parameters"):
            _refuse_another(self.__dict__.get(table, {}), name, value)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise OfframpError(
            "a network with exits cannot be pickled; save net.state_dict(), and attach again to load it"
        )

    def __repr__(self) -> str:
        """A row an exit: the place where it reads; the MACs of an image that leaves there after asking
        every earlier exit, as a share of the plain network's; its head."""
        whole = sum(self.macs(part) for part in path(self.exits))
        rows = [("exit", "place", "of plain", "head")]
        for k, place in enumerate(self.places, start=1):
            spent = exit_macs(self, range(1, k + 1))
            head = self.head_specs[k - 1].kind if k < self.exits else "its own classifier"
            dear = k < self.exits and spent > whole
            lighter = " with this head, and less with mlp or linear" if head == "paper" else ""
            note = f" (leaving here costs more than the plain network{lighter})" if dear else ""
            rows.append((str(k), place, percent(spent / whole), head + note))
        wide, narrow = (max(len(row[n]) for row in rows) for n in (1, 2))
        lines = [f"  {row[0]:<4}  {row[1]:<{wide}}  {row[2]:>{narrow}}  {row[3]}" for row in rows]
        shape = "×".join(map(str, self.input_shape))
        trunks = f", {len(self.trunks)} trunks" if len(self.trunks) > 1 else ""
        title = f"{type(self.backbone).__name__} with exits: {shape} → {self.classes} classes{trunks}"
        return "\n".join((title, *lines))

    # What runs

    def segment(self, i: int, trunk: int = 0) -> Segment:
        """Segment i (1 … exits): tensors → tensors, the tap first."""
        return self.trunks[trunk].segments[i - 1]

    def head_pool(self, k: int) -> nn.Module:
        """The parameter-free stem of head k; the identity for the final exit."""
        return nn.Identity() if k == self.exits else self.heads[k - 1].pool

    def head_body(self, k: int, trunk: int = 0) -> Callable[..., Tensor]:
        """The rest of head k: what `head_pool(k)` returns → logits [B, classes]."""
        if k < self.exits:
            return self.heads[k - 1].body
        classifier = self.trunks[trunk].classifier
        return lambda *tensors: classifier(*tensors)[0]

    def with_features(self, k: int, trunk: int = 0) -> Callable[..., tuple[Tensor, Tensor]]:
        """The rest of head k: what `head_pool(k)` returns → its logits [B, classes], bit for bit those
        of `head_body`, and its features [B, `width(k)`].

        Features are what the last linear layer reads. What that is in the final exit's classifier is
        not known: there they are what the classifier reads, averaged over the map or the tokens.
        """
        if k == self.exits:
            classifier = self.head_body(k, trunk)
            return lambda *tensors: (classifier(*tensors), self._averaged(tensors[0]))
        *below, last = self.heads[k - 1].body.children()

        def run(pooled: Tensor) -> tuple[Tensor, Tensor]:
            features = pooled
            for module in below:
                features = module(features)
            return last(features), features

        return run

    def width(self, k: int) -> int:
        """How many features exit k has."""
        if k < self.exits:
            *_, last = self.heads[k - 1].body.children()
            assert isinstance(last, nn.Linear)  # whatever the kind of head
            return last.in_features
        shape = self.trunks[0].shapes[-1]
        return next(n for dim, n in enumerate(shape, start=1) if dim not in self._positions)

    @property
    def _positions(self) -> tuple[int, ...]:
        """The dimensions over which what the final classifier reads, [B, …], is averaged."""
        shape = self.trunks[0].shapes[-1]
        if len(shape) == 2:
            return (1,)
        if len(shape) == 3 and is_channels_last(shape, is_square(self.input_shape[1:])):
            return (1, 2)
        return tuple(range(2, len(shape) + 1))

    def _averaged(self, values: Tensor) -> Tensor:
        return values.mean(self._positions) if self._positions else values

    def path(self, k: int) -> tuple[Callable[..., Any], ...]:
        """What exit k runs, in order: segments 1 … k, the head's pool and its body."""
        trunk = self.trunk_of[k - 1]
        segments = (self.segment(i, trunk) for i in range(1, k + 1))
        return (*segments, self.head_pool(k), self.head_body(k, trunk))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, C, H, W], or [B, T] of texts, → logits [B, classes] of every exit, each trunk run once."""
        logits: dict[int, Tensor] = {}
        for trunk in sorted(set(self.trunk_of)):
            exits = [k for k in range(1, self.exits + 1) if self.trunk_of[k - 1] == trunk]
            tensors: tuple[Tensor, ...] = (x,)
            for i in range(1, exits[-1] + 1):
                tensors = self.segment(i, trunk)(*tensors)
                if i in exits and i < self.exits:
                    # Not the head, which PyTorch is not shown: a tracer asks for its name.
                    logits[i] = self.head_body(i)(self.head_pool(i)(tensors[0]))
            if exits[-1] == self.exits:
                logits[self.exits] = self.head_body(self.exits, trunk)(*tensors)
        for k in range(2, self.exits + 1):
            logits[k] = self.answer(k, logits[k], logits[k - 1])
        return tuple(logits[k] for k in range(1, self.exits + 1))

    def answer(self, k: int, own: Tensor, before: Tensor | None) -> Tensor:
        """What exit k answers, [B, classes]: its head's logits `own`, and what it adds of `before`, the
        answer of the exit before it; None at the first."""
        if before is None or not self.carry:
            return own
        if not isinstance(self.carry, str):
            return own + self.carry * before
        adds = self.heads[k - 1].before if k < self.exits else None
        return own if adds is None else own + adds(before)

    # Parts

    def state(self, part: Part, trunk: int = 0) -> dict[str, Tensor]:
        """The live parameters and persistent buffers of a part, no copies.

        They go by the names in a store: segments and the final head by the original module's, head k by
        `exits.<place>.…`, where `state_dict` has `exit_heads.<place>.…`.
        """
        if self._is_early(part):
            prefix = f"{self._facts.early[part.index - 1].name}."
            return self.heads[part.index - 1].state_dict(prefix=prefix, keep_vars=True)
        return self._piece(part, trunk).state()

    def parameters_of(self, part: Part, trunk: int = 0) -> list[nn.Parameter]:
        """The parameters of a part."""
        if self._is_early(part):
            return list(self.heads[part.index - 1].parameters())
        return self._piece(part, trunk).parameters()

    def train_part(self, part: Part, mode: bool) -> None:
        """Put one part, of trunk 0, in train or eval mode and leave the others as they are."""
        if self._is_early(part):
            self.heads[part.index - 1].train(mode)
        else:
            self._piece(part, 0).train(mode)

    def train(self, mode: bool = True) -> ExitNetwork:
        """Put every part in train or eval mode."""
        super().train(mode)
        for trunk in self.trunks:
            trunk.module.train(mode)
            for piece in (*trunk.segments, trunk.classifier):
                piece.train(mode)
        for head in self.heads:
            head.train(mode)
        return self

    def macs(self, part: Part, carry: Carry | None = None) -> int:
        """Multiply-accumulates of a part for one image; with `carry`, as if its exits carried so."""
        carry = self.carry if carry is None else carry
        adds = isinstance(carry, str) and part.kind == "head" and 1 < part.index < self.exits
        each = (2 * self.width(part.index) if carry == HIDDEN else self.classes) if adds else 0
        return self._facts.costs[part] + self.classes * each

    @property
    def plain_macs(self) -> int:
        """Of the backbone without early exits."""
        return sum(self.macs(part) for part in backbone(self.exits))

    def parameter_count(self, part: Part) -> int:
        """Parameters (numbers, not tensors) of a part."""
        return sum(p.numel() for p in self.parameters_of(part))

    # Other networks of the same shape

    def copy(self) -> ExitNetwork:
        """The same network with storage and a clock of its own."""
        return self._rebuilt(range(len(self.trunks)), self.trunk_of)

    def carrying(self, carry: Carry) -> ExitNetwork:
        """This network, or a copy whose exits carry so. What they have yet to learn adds nothing at
        first."""
        if carry == self.carry:
            return self
        return self._rebuilt(range(len(self.trunks)), self.trunk_of, carry)

    def gated(self) -> ExitNetwork:
        """This network, or a copy whose early heads have a gate: five numbers, 0 at first, that say
        from statistics of the exit's answer whether an image leaves there. A gate is a part of its head,
        and no logits depend on it."""
        if all(head.gate is not None for head in self.heads):
            return self
        return self._rebuilt(range(len(self.trunks)), self.trunk_of, gated=True)

    @property
    def gates(self) -> tuple[tuple[float, ...] | None, ...]:
        """The numbers of each exit's gate, the constant last; None where there is none, as at the final
        exit."""
        found: list[tuple[float, ...] | None] = []
        for head in self.heads:
            numbers = None
            if head.gate is not None:
                numbers = (*head.gate.weight[0].tolist(), *head.gate.bias.tolist())
            found.append(numbers)
        return (*found, None)

    def identified(self) -> ExitNetwork:
        """A copy for training that begins with the weights the trunk has now.

        A store tells attached networks apart by a hash of their trunk's weights, taken when the exits
        are attached. This takes it anew, so that a trunk that has changed since, or a setting in it
        (`net.drop.p = 0.3`), is another network to the store. A trunk that is drawn from a seed is known
        by its name and needs no hash.

        Raises OfframpError for a network of several trunks.
        """
        if len(self.trunks) > 1:
            raise OfframpError(
                f"the network has {len(self.trunks)} trunks, and training begins from one; "
                "attach exits anew to its backbone"
            )
        twin = self.copy()
        if not self.redrawable:
            module = twin.trunks[0].module
            twin.identity["state"] = state_digest(module)
            if (now := attributes_digest(module)) != self._facts.attributes:
                twin.identity["attributes"] = now
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> ExitNetwork:
        twin = self.copy()
        memo[id(self)] = twin
        return twin

    def with_trunks(self, owners: Sequence[int]) -> ExitNetwork:
        """A copy in which exit k runs trunk `owners[k - 1]`.

        Trunk 0 is this network's trunk 0; every other number gets a trunk of its own that starts as
        trunk 0 is now. Raises OfframpError unless there is one number, 0 or more, for each exit.
        """
        if len(owners) != self.exits or min(owners) < 0:
            raise OfframpError(
                f"trunks {list(owners)} do not fit {self.exits} exits; give each a number from 0"
            )
        return self._rebuilt([0] * (max(owners) + 1), owners)

    def redrawn(self, seed: int, draw: str = "initial") -> ExitNetwork:
        """A copy with weights and buffers drawn anew, a function of (seed, draw, name).

        A head depends on its place and the trunk on nothing else: other exits change nothing. Weights
        that came with the module are never redrawn (`redrawable`).
        """
        twin = self.copy()
        for k, head in enumerate(twin.heads, start=1):
            head.load_state_dict(self._drawn_head(k, self.carry, seed, draw).state_dict())
        fresh = self.drawn_trunk(seed, draw)
        for trunk in twin.trunks:
            trunk.module.load_state_dict(fresh)
        return twin

    def drawn_head(self, k: int, carry: Carry, seed: int, draw: str) -> dict[str, Tensor]:
        """What `state` says of early head k of a network that carries so, drawn anew."""
        prefix = f"{self._facts.early[k - 1].name}."
        return self._drawn_head(k, carry, seed, draw).state_dict(prefix=prefix)

    def drawn_trunk(self, seed: int, draw: str) -> dict[str, Tensor]:
        """The trunk's `state_dict`, drawn anew; as it is where it came with its weights.

        Raises OfframpError for weights that follow from training images.
        """
        if self._facts.from_images is not None:
            raise OfframpError(
                "the network's first weights follow from its training images, which are not here; "
                "train it by a study"
            )
        if self._facts.make is None:
            return self.trunks[0].module.state_dict()
        return drawn_module(self._facts.make, seed, draw).state_dict()

    def _drawn_head(self, k: int, carry: Carry, seed: int, draw: str) -> Head:
        head = drawn_head(self._facts.early[k - 1], self.classes, self.clock, seed, draw)
        head.before = self._adds(k, carry, seed, draw)
        return head

    def prepared(self, sample: Callable[[], tuple[Tensor, Tensor, Tensor]]) -> ExitNetwork:
        """A copy that can be drawn where weights follow from training images, else this network.

        sample: called once, when weights are first drawn; images [N, C, H, W], mean and std [C]. No key
        changes by it: what trains is named by its training images already.
        """
        make, weights = self._facts.make, self._facts.from_images
        if make is None or weights is None:
            return self
        found = cache(lambda: weights(*sample()))

        def drawn() -> nn.Module:
            module = make()  # first: what reading images draws must not show
            module.load_state_dict(dict(found()), strict=False)
            return module

        twin = self.copy()
        twin._facts = replace(twin._facts, make=drawn, from_images=None)
        return twin

    @property
    def arrives_trained(self) -> bool:
        """Whether the trunk, classifier included, came with weights, so that its answers mean something
        before anything trains."""
        return not self.redrawable or bool(self.identity.get("weights", {}).get("whole"))

    @property
    def loaded(self) -> bool:
        """Whether `load_state_dict` has put weights into the backbone."""
        return self._loaded

    @property
    def redrawable(self) -> bool:
        """Whether the trunk has weights to draw; an attached module has only those it came with."""
        return self._facts.make is not None

    def _rebuilt(
        self,
        sources: Sequence[int],
        trunk_of: Sequence[int],
        carry: Carry | None = None,
        gated: bool = False,
    ) -> ExitNetwork:
        """A copy whose trunk n is a copy of trunk `sources[n]`, in the same modes. carry: None keeps
        what there is.  gated: give early heads gates that have none."""
        clock = Clock()
        carry = self.carry if carry is None else carry
        heads = [_copied(head, {id(self.clock): clock}) for head in self.heads]
        for k, head in enumerate(heads, start=1):
            like = next(head.parameters())
            if carry != self.carry:
                adds = self._adds(k, carry, 0, "initial")
                if adds is not None:
                    adds.to(like.device, like.dtype).train(head.training)
                head.before = adds
            if gated and head.gate is None:
                head.gate = zeros(STATISTICS, 1, bias=True).to(like.device).requires_grad_(False)
        twin = ExitNetwork(
            [self.trunks[s].on(_copied(self.trunks[s].module), clock) for s in sources],
            trunk_of,
            heads,
            replace(self._facts, identity=self.identity, carry=carry),
        )
        twin.training, twin._loaded = self.training, self._loaded
        for trunk, source in enumerate(sources):
            for part in path(self.exits):
                twin._piece(part, trunk).training = self._piece(part, source).training
        return twin

    def _adds(self, k: int, carry: Carry, seed: int, draw: str) -> nn.Module | None:
        """The layers that make of the answer before what early exit k adds of it: zeros at first. None
        where it has no such layers."""
        if k == 1 or not isinstance(carry, str):
            return None
        if carry != HIDDEN:
            return zeros(self.classes, self.classes, bias=False)
        with seeded(derive(seed, f"{self._facts.early[k - 1].name}.before", draw)):
            return through(self.classes, self.width(k))

    def _is_early(self, part: Part) -> bool:
        return part.kind == "head" and part.index < self.exits

    def _piece(self, part: Part, trunk: int) -> Segment:
        """The piece of a trunk that is `part`: a segment, or the classifier."""
        if part.kind == "segment":
            return self.segment(part.index, trunk)
        return self.trunks[trunk].classifier


@final
class _Children(dict[str, nn.Module | None]):
    """The table of a network's submodules: PyTorch writes on it, and what runs reads the backbone's.

    Whoever replaces a module there (`add_module`, a quantizer) would change nothing.
    """

    def __setitem__(self, name: str, value: nn.Module | None) -> None:
        _refuse_another(self, name, value)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        _refuse_another(self, name, None)
        super().__delitem__(name)


def _refuse_another(table: Mapping[str, Any], name: str, value: Any) -> None:
    """Raises OfframpError where the table has something else of that name."""
    if name in table and table[name] is not value:
        raise OfframpError(
            f"the network is already cut; replace `{name}` in the module, then attach (for int8, export "
            "what is trained with `int8=True`)"
        )


def exit_macs(net: ExitNetwork, passed: Iterable[int]) -> int:
    """MACs of one image that is asked at the exits `passed` and leaves at the last of them: earlier
    heads are paid for, and earlier trunks where exits own theirs."""
    done = {(net.trunk_of[k - 1], part) for k in passed for part in path(k)}
    return sum(net.macs(part) for _, part in done)


def _copied(module: M, memo: dict[int, Any] | None = None) -> M:
    """As copy.deepcopy, in less time: most of what a module has are empty dictionaries of hooks."""
    memo = {} if memo is None else memo
    for part in module.modules():
        for held in vars(part).values():
            if type(held) in (dict, OrderedDict) and not held:
                memo[id(held)] = type(held)()
    return copy.deepcopy(module, memo)


def _free(name: str, module: nn.Module) -> str:
    """`name`, or one like it that the backbone has not taken for a part of its own."""
    while name in module._modules:
        name += "_"
    return name


def _shown_names(places: Sequence[str], heads: Sequence[Head]) -> tuple[str, ...]:
    """The names under which heads stand in the tree of modules: those of their places, but that
    `block.body` beside `block`, whose head has a `body` of its own, is `block.body_`."""
    found: dict[str, str] = {}
    taken = set[str]()  # by what is in a head
    for place, head in sorted(zip(places, heads, strict=True), key=lambda pair: pair[0].count(".")):
        name = ""
        for step in place.split("."):
            name = f"{name}.{step}" if name else step
            while name in taken:
                name += "_"
        while name in taken or name in found.values():
            name += "_"
        found[place] = name
        taken |= {f"{name}.{part}" for part in head._modules}
    return tuple(found[place] for place in places)


def drawn_head(exit: Exit, classes: int, clock: Clock, seed: int, draw: str) -> Head:
    """A head whose weights are a function of (seed, draw, place). The global generator stays."""
    with seeded(derive(seed, exit.name, draw)):
        return Head(exit.spec, exit.shape, classes, exit.name, clock)


def drawn_module(make: Make, seed: int, draw: str) -> nn.Module:
    """`make()`'s module, its weights a function of (seed, draw), whichever of torch, NumPy and Python
    draws them. The global generators stay put."""
    number = derive(seed, "backbone", draw)
    before = random.getstate(), np.random.get_state()
    try:
        random.seed(number)
        np.random.seed(number % 2**32)
        with seeded(number):
            return make()
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
