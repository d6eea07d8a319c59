"""The early-exit network: one trunk that all exits share, or one trunk per exit."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, assert_never, final

import torch
from torch import Tensor, nn

from offramp.errors import OfframpError
from offramp.nets.clock import Clock
from offramp.nets.heads import Head, zeros
from offramp.nets.identity import attributes_digest, state_digest
from offramp.nets.inside import NetworkParts
from offramp.parts import Carry, Part, backbone, path
from offramp.units import percent

M = TypeVar("M", bound=nn.Module)
CARRY = "carry"  # the name among the heads' tensors of how much exits add
STATISTICS = 4  # that a gate reads of an exit's answer


class ExitNetwork(nn.Module):
    """Images [B, C, H, W] → logits [B, classes] of every exit, as a tuple.

    Made by `offramp.attach` or `offramp.nets.build`. Exits count from 1; exit `exits` is the
    backbone's own classifier. All exits share one trunk, the backbone; after strategies that train
    several there are more.

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
    the mode, such as `F.dropout(x, training=self.training)`, follows the last `train()` or `eval()` of
    the network, whatever the mode of the module that calls it.

    If a part of the backbone has a name of this class, such as `exits`, it is `backbone.exits`, and
    `attach` warns of it. FX and `torch.func`, which look parts up by attribute, do not find it.

    The network is cut when it is made: a submodule or parameter cannot be replaced afterwards, though
    its values can. Forward hooks fire on the modules of PyTorch inside (`layer1.0.conv1`), not on the
    modules that contain them (`layer1`), whose forward does not run.

    Args:
        parts: What it is made of; `inside` gives it back.

    Attributes:
        exits: How many, the final one included.
        places: The name of the place that each exit reads.
        classes: How many logits each exit has.
        input_shape: (C, H, W) of one image.
    """

    def __init__(self, parts: NetworkParts) -> None:
        super().__init__()
        self._inside = parts
        self.exits = parts.exits
        self.places = tuple(parts.trunks[0].places)
        self.classes = parts.facts.classes
        self.input_shape = parts.facts.input_shape
        self._loaded = False
        self._register()

    # What PyTorch sees

    def _register(self) -> None:
        """Show PyTorch the backbone's own tree, with the heads and the other trunks added to it.

        The backbone's direct parameters and buffers stay in its own tables, so that moving this
        network moves them.
        """
        root = self.backbone
        # The children in a copy of the table, as heads are added to it.
        self._modules = _Children(root._modules)
        self._version = root._version
        self._parameters, self._buffers = root._parameters, root._buffers
        self._non_persistent_buffers_set = root._non_persistent_buffers_set
        others, heads = nn.Module(), nn.Module()
        self._head_names = _head_names(
            [exit.place for exit in self._inside.facts.early], self._inside.heads
        )
        for n, trunk in enumerate(self._inside.trunks):
            if n != self._inside.trunk_of[-1]:
                others._modules[str(n)] = trunk.module
        for name, head in zip(self._head_names, self._inside.heads, strict=True):
            node = heads
            for step in name.split("."):
                node = node._modules.setdefault(step, nn.Module())  # type: ignore[assignment]
            node._modules.update(head._modules)
        carry = self._inside.carry
        if not isinstance(carry, str) and carry:  # no module has a tensor that says so
            like = next(iter(root.parameters()), torch.empty(0))
            heads._buffers[CARRY] = torch.tensor(carry, device=like.device)
        added = {_free("other_trunks", root): others, _free("exit_heads", root): heads}
        self._trunks_name, self._heads_name = added
        self._modules.update({name: module for name, module in added.items() if module._modules})

    @property
    def backbone(self) -> nn.Module:
        """The plain network [B, C, H, W] → logits [B, classes] of the final exit; shares the weights."""
        return self._inside.trunks[self._inside.trunk_of[-1]].module

    @property
    def head_keys(self) -> tuple[str, ...]:
        """The keys of `state_dict()` that are the early exits' heads', not the backbone's."""
        heads = self._modules.get(self._heads_name) or nn.Module()
        return tuple(heads.state_dict(prefix=f"{self._heads_name}."))

    def head_parameters(self) -> list[nn.Parameter]:
        """The parameters of the early exits' heads; the backbone's are not among them.

        >>> optimizer = torch.optim.SGD(net.head_parameters(), lr=0.1)
        """
        return [parameter for head in self._inside.heads for parameter in head.parameters()]

    def _head_state(self, k: int, prefix: str) -> dict[str, Tensor]:
        name = f"{prefix}{self._heads_name}.{self._head_names[k - 1]}."
        return self._inside.heads[k - 1].state_dict(prefix=name)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """What `load_state_dict` does here, wherever this network is a part: the backbone loads by its
        own rules, and a head that the checkpoint lacks keeps what it has."""
        self._check_carry(state_dict, prefix, rest[-1])  # the last is PyTorch's list of errors
        for k in range(1, self.exits):
            own = self._head_state(k, prefix)
            if own.keys().isdisjoint(state_dict):
                state_dict.update(own)
        # The backbone reports what is unexpected, so it must not see what is ours.
        ours = (self._trunks_name, self._heads_name)
        added = [prefix + name + "." for name in ours if name in self._modules]
        aside = {key: state_dict.pop(key) for key in [*state_dict] if key.startswith(tuple(added))}
        self._loaded = self._loaded or any(key.startswith(prefix) for key in state_dict)
        self.backbone._load_from_state_dict(state_dict, prefix, *rest)
        state_dict.update(aside)

    def _check_carry(self, state_dict: dict[str, Any], prefix: str, errors: list[str]) -> None:
        """Weights of heads answer alike only where exits add as much as those did that learned them."""
        heads = f"{prefix}{self._heads_name}."
        own = 0.0 if isinstance(self._inside.carry, str) else self._inside.carry
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
        module = self._modules.get(first)  # an attribute of the same name, such as `exits`, is not meant
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
            "a network with exits cannot be pickled; save net.state_dict(), and attach again to load "
            "it, as each of several spawned processes does"
        )

    def __repr__(self) -> str:
        """A row an exit: the place where it reads; the MACs of an image that leaves there after asking
        every earlier exit, as a share of the plain network's; its head."""
        whole = sum(self.macs(part) for part in path(self.exits))
        rows = [("exit", "place", "of plain", "head")]
        for k, place in enumerate(self.places, start=1):
            spent = exit_macs(self, range(1, k + 1))
            head = self._inside.head_specs[k - 1].kind if k < self.exits else "its own classifier"
            dear = k < self.exits and spent > whole
            lighter = " with this head, and less with mlp or linear" if head == "paper" else ""
            note = f" (leaving here costs more than the plain network{lighter})" if dear else ""
            rows.append((str(k), place, percent(spent / whole), head + note))
        wide, narrow = (max(len(row[n]) for row in rows) for n in (1, 2))
        lines = [f"  {row[0]:<4}  {row[1]:<{wide}}  {row[2]:>{narrow}}  {row[3]}" for row in rows]
        shape = "×".join(map(str, self.input_shape))
        trunks = f", {len(self._inside.trunks)} trunks" if len(self._inside.trunks) > 1 else ""
        title = f"{type(self.backbone).__name__} with exits: {shape} → {self.classes} classes{trunks}"
        return "\n".join((title, *lines))

    # What runs

    if TYPE_CHECKING:  # PyTorch's says that a call returns anything

        def __call__(self, x: Tensor) -> tuple[Tensor, ...]: ...

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """[B, C, H, W] → logits [B, classes] of every exit, each trunk run once."""
        own = self._inside
        logits: dict[int, Tensor] = {}
        for trunk in sorted(set(own.trunk_of)):
            exits = [k for k in range(1, self.exits + 1) if own.trunk_of[k - 1] == trunk]
            tensors: tuple[Tensor, ...] = (x,)
            for i in range(1, exits[-1] + 1):
                tensors = own.segment(i, trunk)(*tensors)
                if i in exits and i < self.exits:
                    # Not the head, which PyTorch is not shown: a tracer asks for its name.
                    logits[i] = own.head_body(i)(own.head_pool(i)(tensors[0]))
            if exits[-1] == self.exits:
                logits[self.exits] = own.head_body(self.exits, trunk)(*tensors)
        for k in range(2, self.exits + 1):
            logits[k] = own.answer(k, logits[k], logits[k - 1])
        return tuple(logits[k] for k in range(1, self.exits + 1))

    def train(self, mode: bool = True) -> ExitNetwork:
        """Put every part in train or eval mode."""
        super().train(mode)
        for trunk in self._inside.trunks:
            trunk.module.train(mode)
            for piece in (*trunk.segments, trunk.classifier):
                piece.train(mode)
        for head in self._inside.heads:
            head.train(mode)
        return self

    def macs(self, part: Part, carry: Carry | None = None) -> int:
        """Multiply-accumulates of a part for one image.

        Args:
            part: Such as `offramp.head(1)` has.
            carry: Counts as if exits added that much of the answer before; None as they do.

        >>> (part,) = offramp.head(1)
        >>> net.macs(part) < net.plain_macs
        True
        """
        carry = self._inside.carry if carry is None else carry
        adds = 0  # units that read the answer before, or are read for it
        if isinstance(carry, str) and part.kind == "head" and 1 < part.index < self.exits:
            match carry:
                case "learned":
                    adds = self.classes
                case "hidden":
                    adds = 2 * self._inside.width(part.index)
                case _:
                    assert_never(carry)
        return self._inside.facts.costs[part] + self.classes * adds

    @property
    def plain_macs(self) -> int:
        """Of the backbone without early exits."""
        return sum(self.macs(part) for part in backbone(self.exits))

    def carrying(self, carry: Carry) -> ExitNetwork:
        """This network, or a copy whose exits add so much of the answer before. What they have yet to
        learn adds nothing at first."""
        if carry == self._inside.carry:
            return self
        return _rebuilt(self, carry=carry)

    def __deepcopy__(self, memo: dict[int, Any]) -> ExitNetwork:
        twin = _rebuilt(self)
        memo[id(self)] = twin
        return twin


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


def inside(net: ExitNetwork) -> NetworkParts:
    """What the network is made of. No attribute of it, as nothing is that is not for users: attributes
    hide parts of the user's module that have their name."""
    return net._inside


def loaded(net: ExitNetwork) -> bool:
    """Whether `load_state_dict` has put weights into the backbone."""
    return net._loaded


def gated(net: ExitNetwork) -> ExitNetwork:
    """This network, or a copy whose early heads have a gate: five numbers, 0 at first, that say from
    statistics of the exit's answer whether an image leaves there. A gate is a part of its head, and no
    logits depend on it."""
    if all(head.gate is not None for head in inside(net).heads):
        return net
    return _rebuilt(net, gated=True)


def identified(net: ExitNetwork) -> ExitNetwork:
    """A copy for training that begins with the weights the trunk has now.

    A store tells attached networks apart by a hash of their trunk's weights, computed when the exits are
    attached. This computes it anew, so that a trunk that has changed since, or a setting in it
    (`net.drop.p = 0.3`), is another network to the store. A trunk that is drawn from a seed goes by its
    name and needs no hash.

    Raises:
        OfframpError: For a network of several trunks.
    """
    own = inside(net)
    if len(own.trunks) > 1:
        raise OfframpError(
            f"the network has {len(own.trunks)} trunks, and training begins from one; "
            "attach exits anew to its backbone"
        )
    twin = _rebuilt(net)
    if own.redrawable:
        return twin
    module = inside(twin).trunks[0].module
    digests = {"state": state_digest(module)}
    if (attributes := attributes_digest(module)) != own.facts.attributes:
        digests["attributes"] = attributes
    return _with_facts(twin, identity={**own.facts.identity, **digests})


def reshape(
    net: ExitNetwork, owners: Sequence[int], sources: Sequence[int], carry: Carry, gated: bool
) -> None:
    """Change what `net` is made of, in place; its tensors are copies then, in the same modes. owners:
    the trunk that each exit runs; sources: that which each new trunk is a copy of; gated: whether early
    heads without gates get them."""
    own = inside(net)
    same = tuple(owners) == own.trunk_of and list(sources) == [*range(len(own.trunks))]
    if not same or carry != own.carry or (gated and any(head.gate is None for head in own.heads)):
        net._inside = inside(_rebuilt(net, owners, carry, gated, sources))
        net._register()


def prepared(net: ExitNetwork, sample: Callable[[], tuple[Tensor, Tensor, Tensor]]) -> ExitNetwork:
    """A copy that can be drawn where weights follow from training images, else this network.

    No key changes by it: what trains is named by its training images already.

    Args:
        net: Stays as it is.
        sample: Called once, when weights are first drawn; images [N, C, H, W], mean and std [C].
    """
    make, weights = inside(net).facts.make, inside(net).facts.from_images
    if make is None or weights is None:
        return net
    computed = cache(lambda: weights(*sample()))

    def drawn() -> nn.Module:
        module = make()  # first: what reading images draws must not show
        module.load_state_dict(dict(computed()), strict=False)
        return module

    return _with_facts(_rebuilt(net), make=drawn, from_images=None)


def with_trunks(net: ExitNetwork, owners: Sequence[int]) -> ExitNetwork:
    """A copy in which exit k runs trunk `owners[k - 1]`.

    Trunk 0 is this network's trunk 0; every other number gets a trunk of its own that starts as trunk 0
    is now.

    Raises:
        OfframpError: Unless there is one number, 0 or more, for each exit.
    """
    if len(owners) != net.exits or min(owners) < 0:
        raise OfframpError(
            f"trunks {list(owners)} do not fit {net.exits} exits; give each a number from 0"
        )
    return _rebuilt(net, owners)


def redrawn(net: ExitNetwork, seed: int, draw: str = "initial") -> ExitNetwork:
    """A copy with weights and buffers drawn anew, a function of (seed, draw, name): other exits change
    nothing. Weights that came with the module are never redrawn (`redrawable`)."""
    twin = _rebuilt(net)
    own = inside(twin)
    for k in range(1, net.exits):
        fresh = own.drawn_head(k, own.carry, seed, draw)
        with torch.no_grad():
            for name, tensor in own.state(Part("head", k)).items():
                tensor.copy_(fresh[name])
    for trunk in own.trunks:
        trunk.module.load_state_dict(own.drawn_trunk(seed, draw))
    return twin


def _with_facts(net: ExitNetwork, **facts: Any) -> ExitNetwork:
    """The same network, with other facts."""
    net._inside = replace(net._inside, facts=replace(net._inside.facts, **facts))
    return net


def _rebuilt(
    net: ExitNetwork,
    owners: Sequence[int] | None = None,
    carry: Carry | None = None,
    gated: bool = False,
    sources: Sequence[int] | None = None,
) -> ExitNetwork:
    """A copy with storage and a clock of its own, its parts in the same modes.

    owners: see `with_trunks`; None keeps the trunks. carry: None keeps it. gated: give early heads gates
    that have none. sources: the trunk that each trunk is a copy of; None: as with_trunks does.
    """
    own, clock = inside(net), Clock()
    if sources is None:
        sources = range(len(own.trunks)) if owners is None else [0] * (max(owners) + 1)
    carry = own.carry if carry is None else carry
    heads = tuple(_copied(head, {id(own.clock): clock}) for head in own.heads)
    for k, head in enumerate(heads, start=1):
        like = next(head.parameters())
        if carry != own.carry:
            head.before = own.adds(k, carry, 0, "initial")
            if head.before is not None:
                head.before.to(like.device, like.dtype).train(head.training)
        if gated and head.gate is None:
            head.gate = zeros(STATISTICS, 1, bias=True).to(like.device).requires_grad_(False)
    twin = ExitNetwork(
        NetworkParts(
            tuple(own.trunks[s].on(_copied(own.trunks[s].module), clock) for s in sources),
            own.trunk_of if owners is None else tuple(owners),
            heads,
            replace(own.facts, carry=carry),
        )
    )
    twin.training, twin._loaded = net.training, net._loaded
    # The constructor has set no modes: those of pieces are not their modules'.
    for trunk, source in enumerate(sources):
        for part in path(net.exits):
            inside(twin).piece(part, trunk).training = own.piece(part, source).training
    return twin


def exit_macs(net: ExitNetwork, passed: Iterable[int]) -> int:
    """MACs of one image that passes the exits `passed` and leaves at the last of them: earlier heads are
    paid for, and earlier trunks where exits own theirs."""
    run = {(inside(net).trunk_of[k - 1], part) for k in passed for part in path(k)}
    return sum(net.macs(part) for _, part in run)


def _copied(module: M, memo: dict[int, Any] | None = None) -> M:
    """As copy.deepcopy, in less time: most of what a module has are empty dictionaries of hooks."""
    memo = {} if memo is None else memo
    for part in module.modules():
        for table in vars(part).values():
            if type(table) in (dict, OrderedDict) and not table:
                memo[id(table)] = type(table)()
    return copy.deepcopy(module, memo)


def _free(name: str, module: nn.Module) -> str:
    """`name`, or one like it that is no part of the backbone."""
    while name in module._modules:
        name += "_"
    return name


def _head_names(places: Sequence[str], heads: Sequence[Head]) -> tuple[str, ...]:
    """The names under which heads stand in the tree of modules: those of their places, but that
    `block.body` beside `block`, whose head has a `body` of its own, is `block.body_`."""
    names: dict[str, str] = {}
    inside_heads = set[str]()
    for place, head in sorted(zip(places, heads, strict=True), key=lambda pair: pair[0].count(".")):
        name = ""
        for step in place.split("."):
            name = f"{name}.{step}" if name else step
            while name in inside_heads:
                name += "_"
        while name in inside_heads or name in names.values():
            name += "_"
        names[place] = name
        inside_heads |= {f"{name}.{part}" for part in head._modules}
    return tuple(names[place] for place in places)
