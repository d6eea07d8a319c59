"""From a program to nodes: what each phase reads, and the key that follows from it.

Keys are known before anything runs. A key hashes what the phase reads and nothing else: neither names
of phases, strategies or folders, nor exits that the phase does not read. Neighboring segments that come
from the same place are one span, so that a tap in the middle of a frozen or a trained stretch leaves
the key alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal, assert_never

from torch import Tensor

from offramp.errors import OfframpError, nearest
from offramp.hashing import digest, plain
from offramp.nets.identity import tensors_digest
from offramp.nets.network import ExitNetwork, inside
from offramp.numerics import Numerics
from offramp.parts import Carry, Part, Parts, heads, path, segments
from offramp.phase import BEFORE, CE, Init, Loss, Phase, Program, Term, carry_of, check
from offramp.recipe import ADOPTED, Recipe, clash

KEY_VERSION = 1
StateByName = Mapping[str, Tensor]  # by the names of `NetworkParts.state`


@dataclass(frozen=True)
class Source:
    """Where a part's weights come from: a node that trained them, or a draw."""

    node: str | None = None
    draw: Literal["initial", "fresh"] = "initial"


Lineage = tuple[Source, ...]  # of the parts along a path, in order


@dataclass(frozen=True)
class Setting:
    """What the phases of one trial have in common besides the network."""

    data: Mapping[str, Any]  # digests of what training reads (see `data_identity`)
    recipe: Recipe  # of the study
    numerics: Numerics  # of all that is computed
    seed: int  # of all that is random
    # recipe fields by pattern of phase names, from the study
    overrides: tuple[tuple[str, tuple[tuple[str, Any], ...]], ...] = ()
    # `total` splits the epochs over the phases; with `phase`, each has all of them
    budget: Literal["phase", "total"] = "phase"
    # set where the trial shares nothing (as the paper runs it); it then makes the keys this trial's own
    alone: str | None = None


@dataclass(frozen=True)
class Node:
    """One phase, ready to run."""

    key: str  # the hash of `reads`, all that the phase reads
    reads: dict[str, Any] = field(repr=False, compare=False)
    phase: Phase = field(compare=False)
    seed: int
    recipe: Recipe
    # the source of every part that the loss reads, trained parts included
    start: dict[Part, Source] = field(compare=False)
    # sources of the path of each exit of a frozen teacher
    teacher: dict[int, Lineage] = field(compare=False)
    needs: tuple[str, ...]  # keys of the nodes it starts from, and of its teacher's

    @property
    def name(self) -> str:
        return self.phase.name

    @property
    def terms(self) -> Loss:
        return self.phase.terms

    @property
    def exits(self) -> tuple[int, ...]:
        """The exits that the loss reads."""
        return self.phase.exits

    @property
    def trained(self) -> Parts:
        return self.phase.trained

    def lineage(self, exit: int) -> Lineage:
        return tuple(self.start[part] for part in path(exit))


@dataclass(frozen=True)
class Resolved:
    """The nodes of a program, a phase each, and where the finished network's weights come from."""

    nodes: tuple[Node, ...]  # in the order of phases
    # the sources of the path of every exit that was trained, and of the final exit of a network that
    # arrived trained
    final: dict[int, Lineage]
    owners: tuple[int, ...]  # the trunk of each exit 1 … K: 0 is the shared one, n exit n's own
    carry: Carry = 0.0  # of its phases


def resolve(program: Program, net: ExitNetwork, setting: Setting) -> Resolved:
    """The nodes of `program` on `net`.

    Raises:
        OfframpError: For a program that does not fit the network, for exits that learn what to carry
            without a final exit, or a recipe override that
            names no phase or no field.
    """
    check(program, net.exits)
    for pattern, _ in setting.overrides:
        if not any(fnmatchcase(phase.name, pattern) for phase in program):
            names = [phase.name for phase in program]
            raise OfframpError(f"no phase matches '{pattern}'{nearest(pattern, names)}")
    every = segments(1, net.exits) | heads(1, net.exits)
    weights = {(0, part): Source() for part in every}  # by trunk and part, as the program has left them
    left = {BEFORE: (0, weights)}
    nodes: list[Node] = []
    owners: dict[int, int] = {}
    for index, phase in enumerate(program):
        trunk = phase.trunk
        if all(opened != trunk for opened, _ in weights):  # it starts as a copy of the shared one
            weights = weights | {(trunk, part): weights[0, part] for part in every}
        weights = weights | {(trunk, part): source for part, source in drawn(phase, net).items()}
        start = {part: weights[trunk, part] for k in phase.exits for part in path(k)}
        teacher: dict[int, Lineage] = {}
        if phase.teacher is not None and not phase.live:
            home, then = left[phase.teacher]
            teacher = {k: tuple(then[home, part] for part in path(k)) for k in sorted(phase.taught)}
        recipe = phase_recipe(phase, setting, len(program))
        reads = _reads(phase, net, setting, recipe, start, teacher)
        if setting.alone is not None:
            reads["alone"] = [setting.alone, index]
        sources = [*start.values(), *(s for lineage in teacher.values() for s in lineage)]
        needs = tuple(dict.fromkeys(s.node for s in sources if s.node is not None))
        node = Node(digest(reads), reads, phase, setting.seed, recipe, start, teacher, needs)
        nodes.append(node)
        weights = weights | {(trunk, part): Source(node.key) for part in node.trained}
        left[phase.name] = (trunk, weights)
        owners |= {p.index: trunk for p in node.trained if p.kind == "head"}
    untouched = all(weights[0, part] == Source() for part in path(net.exits))
    if inside(net).arrives_trained and untouched and net.exits not in owners:
        owners[net.exits] = 0  # the final exit that the network came with, as it was
    final = {k: tuple(weights[owners[k], part] for part in path(k)) for k in sorted(owners)}
    trunks = tuple(owners.get(k, 0) for k in range(1, net.exits + 1))
    carry = carry_of(program)
    if isinstance(carry, str) and net.exits not in final:  # policies take the last exit for it
        raise OfframpError(
            "exits that learn what to add of the answer before end in the final one, which nothing "
            "trains here; train it in a phase, or bring a network with its weights"
        )
    return Resolved(tuple(nodes), final, trunks, carry)


def adopted(
    net: ExitNetwork, identity: Mapping[str, Any], seed: int, numerics: Numerics
) -> tuple[Resolved, dict[str, StateByName]]:
    """A network as it is: a node for each trunk, and the weights that they hold. seed: of the trial,
    which tells several trainings of one network apart."""
    own, exits = inside(net), range(1, net.exits + 1)
    parts = segments(1, net.exits) | heads(1, net.exits)
    nodes: dict[int, Node] = {}
    weights: dict[str, StateByName] = {}
    for trunk in sorted(set(own.trunk_of)):
        state = {name: t for part in parts for name, t in own.state(part, trunk).items()}
        origin = dict.fromkeys(parts, Source())
        reads = {
            "version": KEY_VERSION,
            ADOPTED: tensors_digest(state),
            "network": identity,
            "seed": seed,
            "numerics": plain(numerics),
            "exits": {
                net.places[k - 1]: _path(net, k, [origin[part] for part in path(k)], frozenset())
                for k in exits
                if own.trunk_of[k - 1] == trunk
            },
        }
        phase = Phase(ADOPTED, train=parts, loss=tuple(CE(k) for k in exits))
        nodes[trunk] = Node(digest(reads), reads, phase, seed, Recipe(), origin, {}, ())
        weights[nodes[trunk].key] = state
    final = {k: (Source(nodes[own.trunk_of[k - 1]].key),) * len(path(k)) for k in exits}
    return Resolved(tuple(nodes.values()), final, own.trunk_of, own.carry), weights


def _reads(
    phase: Phase,
    net: ExitNetwork,
    setting: Setting,
    recipe: Recipe,
    start: Mapping[Part, Source],
    teacher: Mapping[int, Lineage],
) -> dict[str, Any]:
    """All that a phase reads, in words that hold on any network of equal layers."""
    own = {k: [start[part] for part in path(k)] for k in phase.exits}
    return {
        "version": KEY_VERSION,
        "network": inside(net).facts.identity,
        "seed": setting.seed,
        "numerics": plain(setting.numerics),
        "data": dict(setting.data),
        "recipe": plain(recipe),
        "loss": [_term(term, net) for term in phase.terms],
        "exits": {net.places[k - 1]: _path(net, k, own[k], phase.trained) for k in own},
        "teacher": {net.places[k - 1]: _path(net, k, teacher[k], frozenset()) for k in teacher},
        **{name: _setting(value, phase, net) for name, value in phase.settings.items()},
    }


def drawn(phase: Phase, net: ExitNetwork) -> dict[Part, Source]:
    """The parts that the phase does not start from what the program left, frozen ones included."""
    draws: dict[Part, Source] = {}
    for part, init in sorted(phase.starts.items()):
        match init:
            case Init.KEEP:
                continue
            case Init.INITIAL:
                draws[part] = Source(draw="initial")
            case Init.FRESH:
                of_backbone = part.kind == "segment" or part.index == net.exits
                if of_backbone and not inside(net).redrawable:
                    raise OfframpError(
                        f"phase '{phase.name}' draws {part} anew, but the network came with its "
                        "weights; keep them, or give the network as a function in a file"
                    )
                draws[part] = Source(draw="fresh")
            case _:
                assert_never(init)
    return draws


def phase_recipe(phase: Phase, setting: Setting, phases: int) -> Recipe:
    """The study's recipe, then the phase's own overrides, then the study's for this phase."""
    recipe = setting.recipe
    match setting.budget:
        case "phase":
            pass
        case "total":
            recipe = replace(recipe, epochs=max(1, recipe.epochs // phases))
        case _:
            assert_never(setting.budget)
    of_study = [fields for pattern, fields in setting.overrides if fnmatchcase(phase.name, pattern)]
    for fields in (dict(phase.recipe), *map(dict, of_study)):
        for name in fields:
            if name not in recipe.__dataclass_fields__:
                raise OfframpError(
                    f"phase '{phase.name}' overrides '{name}', which no recipe has"
                    f"{nearest(name, recipe.__dataclass_fields__)}"
                )
        try:
            recipe = replace(recipe, **fields)
        except OfframpError as error:
            raise OfframpError(f"phase '{phase.name}': {error}") from None
    if conflict := clash(recipe):
        raise OfframpError(f"phase '{phase.name}': recipe.{conflict[0]} {conflict[1]}")
    return recipe


def _term(term: Term, net: ExitNetwork) -> dict[str, Any]:
    """A loss term with exits named by where they are, not by number."""
    written = dict(plain(term))
    for name in ("exit", "exits", "teacher_exit"):
        match written.get(name):
            case int(exit):
                written[name] = net.places[exit - 1]
            case list(exits):
                written[name] = [net.places[exit - 1] for exit in exits]
    return written


def _setting(value: Any, phase: Phase, net: ExitNetwork) -> Any:
    """A setting of a phase; factors of parts, with these named by where they are."""
    if not isinstance(value, dict):
        return plain(value)
    return [[part.kind, *_place(part, phase, net), factor] for part, factor in value.items()]


def _place(part: Part, phase: Phase, net: ExitNetwork) -> Iterator[str]:
    """Where a part ends; of a segment also where it begins, unless an exit that the loss reads is there.
    Other taps than the loss reads leave no trace in the key, and would cut other segments."""
    if part.kind == "segment" and part.index > 1 and part.index - 1 not in phase.exits:
        yield net.places[part.index - 2]
    yield net.places[part.index - 1]


def _path(
    net: ExitNetwork, exit: int, sources: Sequence[Source], trained: frozenset[Part]
) -> dict[str, Any]:
    """What exit `exit` runs: spans of the trunk with equal origin merged, then its head."""
    spans: list[dict[str, Any]] = []
    *below, head = path(exit)
    for part, source in zip(below, sources, strict=False):
        origin = {"trains": part in trained, "from": plain(source)}
        # Neighbors of one origin are one span: a cut between them computes the same.
        if spans and {k: spans[-1][k] for k in origin} == origin:
            spans.pop()
        spans.append({"to": net.places[part.index - 1], **origin})
    spec = "classifier" if exit == net.exits else plain(inside(net).head_specs[exit - 1])
    return {
        "spans": spans,
        "head": {"spec": spec, "trains": head in trained, "from": plain(sources[-1])},
    }
