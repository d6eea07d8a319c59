"""Networks that come with exits of their own: which output is which exit, and what belongs to which.

Which parameters reach which exit is read off the gradients of its logits. What only one exit's logits
depend on is its head; what those of exit k and of later ones depend on is segment k.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from offramp.errors import OfframpError, in_line, kind_of, nearest
from offramp.inputs import Shape, check_shape, noise
from offramp.nets.cut.modes import buffers, restore
from offramp.nets.network import ExitNetwork
from offramp.parts import Part, Parts

Outputs = Sequence[int | str] | Callable[[Any], Sequence[Tensor]]
"""Which of the things that a module returns are the exits' logits, first exit first: their indices or
keys, or a function of what it returns."""
ExitMembers = Sequence[str | Sequence[str]]
"""A submodule or parameter for each exit, or several of them."""


@dataclass(frozen=True, eq=False)
class MultiExit:
    """A network whose module returns the logits of several exits. `multi_exit` makes it.

    Attributes:
        module: Of the user, no copy. Images [B, C, H, W] → logits [B, classes] of each exit, in a
            list, a tuple or a mapping.
        input_shape: (C, H, W) of one image.
        classes: How many logits each exit has.
        exits: How many, the final one included.
        outputs: Which of what the module returns are the exits' logits; None: all of it, in order.
        parameters: The names of the parameters of each part: segment k is what exit k and later
            ones read, head k what exit k alone does.
        modules: The names of the submodules of each part that have parameters, buffers or no children.

    Example:
        >>> import torch, offramp
        >>> class Two(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.early, self.late = torch.nn.Linear(8, 3), torch.nn.Linear(8, 3)
        ...     def forward(self, x):
        ...         return self.early(x.flatten(1)), self.late(x.flatten(1).relu())
        >>> their = offramp.multi_exit(Two(), (1, 2, 4))
        >>> [tuple(logits.shape) for logits in their.logits(their.module(torch.zeros(5, 1, 2, 4)))]
        [(5, 3), (5, 3)]
    """

    module: nn.Module
    input_shape: Shape
    classes: int
    exits: int
    outputs: Outputs | None
    parameters: Mapping[Part, tuple[str, ...]]
    modules: Mapping[Part, tuple[str, ...]]

    def logits(self, returned: Any) -> tuple[Tensor, ...]:
        """The logits [B, classes] of each exit, first exit first, of what the module returned.

        Raises:
            OfframpError: It is not that many tensors of that shape.
        """
        logits = logits_of(returned, self.outputs)
        if len(logits) != self.exits or any(one_exit.shape[1] != self.classes for one_exit in logits):
            shapes = ", ".join(str(list(one_exit.shape)) for one_exit in logits)
            raise OfframpError(
                f"{type(self.module).__name__} returns {shapes} where logits of {self.exits} exits and "
                f"{self.classes} classes belong; describe it anew with multi_exit, in this mode"
            )
        return logits

    def parameters_of(self, part: Part, trunk: int = 0) -> list[nn.Parameter]:  # noqa: ARG002
        """The parameters of a part; as of `NetworkParts`, which may have several trunks."""
        return [self.module.get_parameter(name) for name in self.parameters.get(part, ())]

    def state(self, part: Part, trunk: int = 0) -> dict[str, Tensor]:  # noqa: ARG002
        """The live parameters and persistent buffers of a part, no copies, by the module's names."""
        names, owners = self.parameters.get(part, ()), self.modules.get(part, ())
        every = self.module.state_dict(keep_vars=True).items()
        fixed = {n: t for n, t in every if not isinstance(t, nn.Parameter)}
        of_part = {n: t for n, t in fixed.items() if n.rpartition(".")[0] in owners}
        return {name: self.module.get_parameter(name) for name in names} | of_part

    def train_parts(self, parts: Parts, trunk: int = 0) -> None:  # noqa: ARG002
        """Put these parts in train mode, all else in eval mode; a container of other submodules, or of
        parameters of several parts, is in train mode where all of these are."""
        owned = [(name, part) for part, names in self.modules.items() for name in names]
        for name, module in self.module.named_modules():
            inner = {part for n, part in owned if not name or f"{n}.".startswith(f"{name}.")}
            module.training = bool(inner) and inner <= parts

    def modes(self, part: Part, trunk: int = 0) -> set[bool]:  # noqa: ARG002
        """Whether submodules of a part, and of no other one, are in train mode."""
        others = {name for other, names in self.modules.items() if other != part for name in names}
        own = set(self.modules.get(part, ())) - others
        return {self.module.get_submodule(name).training for name in own}

    def submodule(self, part: Part) -> nn.Module:
        """The submodule that has all of a part and nothing else. Raises OfframpError for none: nobody
        can tell where the part begins."""
        owners = set(self.modules.get(part, ()))
        others = {name for names in self.modules.values() for name in names} - owners
        for name, _ in self.module.named_modules():
            inner = {n for n in owners | others if f"{n}.".startswith(f"{name}.") and name}
            if inner and inner == owners:
                return self.module.get_submodule(name)
        raise OfframpError(
            f"{part} of {type(self.module).__name__} is no submodule of its own, so its gradient cannot "
            "be scaled where it begins; name submodules, multi_exit(…, segments=[…]), or take another "
            "strategy"
        )

    def __repr__(self) -> str:
        """A row an exit: what belongs to it."""
        title = type(self.module).__name__
        shape = "×".join(map(str, self.input_shape))
        rows = [f"{title} with {self.exits} exits of its own: {shape} → {self.classes} classes"]
        for k in range(1, self.exits + 1):
            of_exit = [f"{kind}: {self._summary(Part(kind, k))}" for kind in ("segment", "head")]
            rows.append(f"  exit {k}  {'; '.join(of_exit)}")
        return "\n".join(rows)

    def _summary(self, part: Part) -> str:
        names = self.parameters.get(part, ())
        top = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
        few = [*top][:4]
        return ", ".join(few) + (f" and {len(top) - len(few)} more" if len(top) > len(few) else "")


def multi_exit(
    module: nn.Module,
    input_shape: Sequence[int],
    *,
    outputs: Outputs | None = None,
    heads: ExitMembers | None = None,
    segments: ExitMembers | None = None,
) -> MultiExit:
    """Describe a network that returns the logits of several exits, for `program` and `adopt`.

    What belongs to which exit follows from gradients, in eval mode: a parameter that the logits of one
    exit alone depend on is of its head; one that those of exit k and of later ones depend on is of
    segment k. The final exit's head are its counterparts of the early heads, where they lie in one
    container (`classifier.0`, `classifier.1`, …), else the last layer that runs. Print the answer to see
    it. Name what cannot be told apart so, such as heads that read `x.detach()`.

    Args:
        module: Images [B, C, H, W] → a list, tuple or mapping of logits
            [B, classes], in the order of depth. It stays as it is.
        input_shape: (C, H, W) of one image.
        outputs: Which of what it returns are the exits' logits, first exit first: indices or keys such
            as ["aux", "out"], or a function, such as `lambda returned: returned.logits`; None: all.
        heads: The submodules (or parameters) of each exit's head, an entry an exit: ["head1", "head2",
            ["norm", "fc"]]; None finds them.
        segments: The same of what lies between two exits.

    Returns:
        The description; it holds `module` itself.

    Raises:
        OfframpError: It does not return logits of two exits or more, a name means nothing in it, or an
            exit has no head of its own.

    Example:
        >>> import torch, offramp
        >>> class Two(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.stem, self.body = torch.nn.Linear(8, 16), torch.nn.Linear(16, 16)
        ...         self.early, self.late = torch.nn.Linear(16, 3), torch.nn.Linear(16, 3)
        ...     def forward(self, x):
        ...         x = self.stem(x.flatten(1)).relu()
        ...         return [self.early(x), self.late(self.body(x).relu())]
        >>> offramp.multi_exit(Two(), (1, 2, 4))
        Two with 2 exits of its own: 1×2×4 → 3 classes
          exit 1  segment: stem.weight, stem.bias; head: early.weight, early.bias
          exit 2  segment: body.weight, body.bias; head: late.weight, late.bias
    """
    if not isinstance(module, nn.Module) or isinstance(module, ExitNetwork):
        what = "has exits of attach" if isinstance(module, ExitNetwork) else "is no network"
        raise OfframpError(
            f"the module is {kind_of(module)}, which {what}; multi_exit takes an nn.Module that "
            "returns the logits of several exits"
        )
    shape = check_shape(input_shape)
    reached = _reached(module, shape, outputs)
    exits = len(reached.logits)
    parts = _classified(reached, exits)
    names = {*dict(module.named_parameters()), *dict(module.named_modules())} - {""}
    parts |= _named("segment", segments, exits, reached, names)
    parts |= _named("head", heads, exits, reached, names)
    parameters, modules = defaultdict[Part, list[str]](list), defaultdict[Part, list[str]](list)
    for name, part in parts.items():
        (parameters if name in reached.parameters else modules)[part].append(name)
        owner = name.rpartition(".")[0]
        if name in reached.parameters and owner not in modules[part]:
            modules[part].append(owner)
    for k in range(1, exits + 1):
        if not parameters[Part("head", k)]:
            raise OfframpError(
                f"no parameter of {type(module).__name__} is read by exit {k} alone, so it has no head; "
                "name the submodules of each: multi_exit(…, heads=[…])"
            )
    return MultiExit(
        module,
        shape,
        reached.logits[0].shape[1],
        exits,
        outputs,
        {part: tuple(names) for part, names in parameters.items()},
        {part: tuple(names) for part, names in modules.items()},
    )


def answering(
    module: nn.Module, input_shape: Sequence[int], outputs: Outputs | None = None
) -> MultiExit:
    """As `multi_exit`, of a network that is trained already: what belongs to which exit is left open.

    Raises:
        OfframpError: It does not return logits of two exits or more for examples of that shape.
    """
    shape, like = check_shape(input_shape), next(module.parameters(), torch.empty(0))
    with _in_eval_mode(module, ()), torch.no_grad():
        logits = logits_of(_returned(module, noise(shape, 2, like=like)), outputs)
    return MultiExit(module, shape, logits[0].shape[1], len(logits), outputs, {}, {})


def _returned(module: nn.Module, x: Tensor) -> Any:
    try:
        return module(x)
    except Exception as error:
        raise OfframpError(
            f"{type(module).__name__} cannot take [2, {', '.join(map(str, x.shape[1:]))}]: "
            f"{in_line(error)}; give the input_shape of one image"
        ) from error


def logits_of(returned: Any, outputs: Outputs | None) -> tuple[Tensor, ...]:
    """The logits of each exit, of what a module returned. Raises OfframpError where they are not
    there."""
    several = of_exits(returned, outputs)
    fit = isinstance(several, Sequence) and all(
        isinstance(t, Tensor) and t.ndim == 2 and t.shape == several[0].shape for t in several
    )
    if not fit or len(several) < 2:
        single = isinstance(several, Tensor) or (fit and len(several) == 1)
        raise OfframpError(
            "the module returns the logits of one exit in eval mode; attach exits to it: offramp.attach"
            if single
            else f"the module returns {_shapes(several)} where the logits [B, classes] of several exits "
            "belong; say which they are: outputs=[0, 1], outputs=['aux', 'out'], or a function"
        )
    return tuple(several)


def of_exits(returned: Any, outputs: Outputs | None) -> Any:
    """What a module returned of its exits, unchecked. Raises OfframpError for entries that it lacks."""
    if callable(outputs):
        try:
            return outputs(returned)
        except Exception as error:
            what = f"{type(error).__name__}: {in_line(error)}"
            raise OfframpError(f"outputs= fails on what the module returns ({what})") from error
    if outputs is None:
        return [*returned.values()] if isinstance(returned, Mapping) else returned
    if isinstance(outputs, str) or not isinstance(outputs, Sequence):
        raise OfframpError(f"outputs={outputs!r} is no list; name each exit, such as outputs=[0, 1]")
    try:
        return [returned[key] for key in outputs]
    except (KeyError, IndexError, TypeError):
        what = kind_of(returned)
        if isinstance(returned, Mapping):
            what = f"the keys {list(returned)}"
        elif isinstance(returned, Sequence):
            what += f" of {len(returned)}, counted from 0"
        raise OfframpError(f"outputs={list(outputs)} is not in what it returns: {what}") from None


def _shapes(returned: Any) -> str:
    if not isinstance(returned, Sequence):
        return kind_of(returned)
    words = [str(list(t.shape)) if isinstance(t, Tensor) else type(t).__name__ for t in returned]
    return f"[{', '.join(words)}]"


@dataclass(frozen=True, eq=False)
class _Reached:
    """By the name of a parameter, or of a submodule without any: the exits whose logits read it.
    `order`: when a submodule first ran."""

    logits: tuple[Tensor, ...]
    by_owner: dict[str, frozenset[int]]
    parameters: frozenset[str]
    order: dict[str, int]


def _reached(module: nn.Module, shape: Shape, outputs: Outputs | None) -> _Reached:
    """One pass of two examples in eval mode, and the gradient of each exit's logits."""
    parameters = {n: p for n, p in module.named_parameters() if p.is_floating_point()}
    like = next(iter(parameters.values()), None)
    if like is None:
        raise OfframpError(f"{type(module).__name__} has no parameters, so nothing of it can train")
    ran: dict[str, Tensor] = {}
    order: dict[str, int] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(owner: nn.Module, _: Any, output: Any) -> None:
            order.setdefault(name, len(order))
            bare = not any(True for _ in owner.children()) and not owner._parameters
            if bare and isinstance(output, Tensor) and output.requires_grad:
                ran[name] = output

        return hook

    handles = [m.register_forward_hook(note(n)) for n, m in module.named_modules() if n]
    try:
        with _in_eval_mode(module, parameters.values()):
            x = noise(shape, 2, like=like, generator=torch.Generator().manual_seed(0))
            x = x.requires_grad_() if x.is_floating_point() else x
            returned = _returned(module, x)
            logits = logits_of(returned, outputs)
            owners = {**parameters, **ran}
            read = defaultdict[str, set[int]](set)
            for k, answer in enumerate(logits, start=1):
                if not answer.requires_grad:
                    continue  # no parameter reaches it, which `multi_exit` then says
                slopes = torch.autograd.grad(
                    answer.sum(), [*owners.values()], retain_graph=True, allow_unused=True
                )
                for name, slope in zip(owners, slopes, strict=True):
                    if slope is not None:
                        read[name].add(k)
    finally:
        for handle in handles:
            handle.remove()
    by_owner = {name: frozenset(read[name]) for name in owners}
    return _Reached(tuple(t.detach() for t in logits), by_owner, frozenset(parameters), order)


@contextmanager
def _in_eval_mode(module: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """In eval mode, every parameter with a gradient to take; afterwards modes, flags and buffers are as
    they were."""
    modes = {m: m.training for m in module.modules()}
    flags = {p: p.requires_grad for p in parameters}
    initial = buffers(module)
    try:
        module.eval()
        for parameter in flags:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        restore(initial)
        for each, mode in modes.items():
            each.training = mode
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


def _classified(reached: _Reached, exits: int) -> dict[str, Part]:
    """The part of each owner that gradients tell."""
    read = {name: exits_of for name, exits_of in reached.by_owner.items() if exits_of}
    last = [name for name, exits_of in read.items() if exits_of == {exits}]
    parts = {
        name: Part("head" if len(exits_of) == 1 else "segment", min(exits_of))
        for name, exits_of in read.items()
        if name not in last
    }
    final = _final_head(last, parts, reached)
    return parts | {name: Part("head" if name in final else "segment", exits) for name in last}


def _final_head(last: Sequence[str], parts: Mapping[str, Part], reached: _Reached) -> set[str]:
    """Which of those that the final exit alone reads are its head: those in the smallest container that
    has the early heads and no segment; without such, the layer with parameters that runs last."""
    early = [name for name, part in parts.items() if part.kind == "head"]
    below = [name for name, part in parts.items() if part.kind == "segment"]
    steps = [name.split(".") for name in early]
    common: list[str] = []
    for level in zip(*steps, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    for depth in range(len(common), 0, -1):
        prefix = ".".join(common[:depth]) + "."
        beside = {name for name in last if name.startswith(prefix)}
        if any(name.startswith(prefix) for name in below):
            break
        if beside & reached.parameters:
            return beside
    layers = {name.rpartition(".")[0] for name in last if name in reached.parameters}
    final = max(layers, key=lambda layer: reached.order.get(layer, -1), default="")
    return {name for name in last if name.rpartition(".")[0] == final or name == final}


def _named(
    kind: Literal["segment", "head"],
    entries: ExitMembers | None,
    exits: int,
    reached: _Reached,
    names: Set[str],
) -> dict[str, Part]:
    """What the user says is of the heads, or of the segments; `names` are all that could be named."""
    if entries is None:
        return {}
    if len(entries) != exits:
        raise OfframpError(
            f"{kind}s= has {len(entries)} entries for {exits} exits (the final one included); give "
            f"{exits}, each a name or a list of names"
        )
    chosen: dict[str, Part] = {}
    for k, entry in enumerate(entries, start=1):
        for name in [entry] if isinstance(entry, str) else entry:
            if name not in names:
                raise OfframpError(f"{kind}s= names '{name}', which it has not{nearest(name, names)}")
            below = (n for n in reached.by_owner if n == name or n.startswith(f"{name}."))
            chosen |= dict.fromkeys(below, Part(kind, k))
    return chosen
