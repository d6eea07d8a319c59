"""Where the exits of a network can go, and where its classifier begins.

A **cut point** is a named operation: the network can be cut right after it. It is a **place** for an
exit where its tensor alone crosses the cut, no weights are used on both sides, and the classifier has
not yet begun. `offramp.nets.cut.spread` chooses among places.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property

from torch import fx, nn

from offramp.errors import OfframpError
from offramp.nets.cut.calling import Pick
from offramp.nets.cut.modes import ModuleGraphs, below, graphs_of


@dataclass(frozen=True)
class CutPoint:
    """A named operation that the network can be cut after."""

    # the canonical one, whatever name a user gives: the shortest path of a submodule that outputs the
    # tensor, else the path of the function that does (`blocks.2.add`; `#2` is the second of several
    # calls)
    name: str
    aliases: tuple[str, ...]  # other names of the same tensor
    train: fx.Node  # the operation in train mode
    eval: fx.Node  # the operation in eval mode
    # whether its tensor alone crosses the cut; of a text, with what is computed of the ids alone, such
    # as a mask, or of constants, such as a table of rotations
    alone: bool
    parts: bool  # whether no weights are used on both sides


@dataclass(frozen=True)
class ExitPlace:
    """A place for an exit, and what it costs to get there."""

    name: str  # the canonical name of its cut point
    aliases: tuple[str, ...]  # other names of it
    shape: tuple[int, ...]  # of one image's tensor, `[C, H, W]` or `[T, D]` or `[D]`
    macs: int  # multiply-accumulates from one image up to here
    share: float  # the same as a share of the whole network's, 0 to 1
    params: int  # how many parameters run up to here
    pooled: bool = False  # whether the network has pooled its map away before it


@dataclass(frozen=True, eq=False)
class Survey:
    """All cut points and places of one network."""

    graphs: ModuleGraphs

    @cached_property
    def points(self) -> tuple[CutPoint, ...]:
        """Every cut point, in the order of execution: the names that both modes have."""
        train, evaluation = self.graphs.train, self.graphs.eval
        names: dict[tuple[fx.Node, fx.Node], list[str]] = {}
        for name in train.tensors.keys() & evaluation.tensors.keys():
            names.setdefault((train.tensors[name], evaluation.tensors[name]), []).append(name)
        torn_in_train, torn_in_eval = self.graphs.tears
        points = []
        for (t, e), same in names.items():
            first, *rest = self._shortest_first(same)
            torn = torn_in_train[train.order[t]] or torn_in_eval[evaluation.order[e]]
            points.append(CutPoint(first, tuple(rest), t, e, self._crosses_alone(t, e), not torn))
        return tuple(sorted(points, key=lambda p: (evaluation.order[p.eval], train.order[p.train])))

    def _crosses_alone(self, train: fx.Node, evaluation: fx.Node) -> bool:
        shape = self.graphs.eval.facts[evaluation].shape
        for mode, node in ((self.graphs.train, train), (self.graphs.eval, evaluation)):
            others = set(mode.crossing[mode.order[node]]) - {node}
            if others or mode.facts[node].shape is None or mode.facts[node].shape != shape:
                return False
        return True

    def _shortest_first(self, names: list[str]) -> list[str]:
        traced, order = self.graphs.eval.traced, self.graphs.eval.order
        modules = traced.ends.keys() & self.graphs.train.traced.ends.keys()
        # Keys have the first, so this order never changes. Of names as short, the one that outputs the
        # tensor first: the others are identities.
        at = {name: order[node] for name, node in traced.named.items()}
        return sorted(names, key=lambda n: (n not in modules, n.count("."), at[n], len(n), n))

    def point(self, name: str) -> CutPoint:
        """The cut point of that name.

        Raises:
            OfframpError: When there is none, with the nearest names.
        """
        for point in self.points:
            if name == point.name or name in point.aliases:
                return point
        alone = [p for p in self.points if p.alone]
        names = [n for p in alone for n in (p.name, *p.aliases)]
        near = difflib.get_close_matches(name, names, n=3)
        if not near:  # whole stages rather than what is inside them
            near = sorted(dict.fromkeys(p.name for p in alone), key=lambda n: n.count("."))
        share = f"; of its MACs, {name} per cent is '{name}%'" if name.isdecimal() else ""
        raise OfframpError(
            f"{self.graphs.title} has no place '{name}'; use one of "
            f"{', '.join(near[:8])}{', …' if len(near) > 8 else ''}{share}"
        )

    def final(self, name: str | None = None) -> CutPoint:
        """The cut point that feeds the classifier: the one named, else the last one before it.

        The classifier is the last operation with parameters, together with what pools, flattens and
        drops before it.

        Raises:
            OfframpError: When no single tensor feeds it.
        """
        if name is not None:
            point = self.point(name)
            if not point.alone:
                raise OfframpError(
                    f"the classifier of {self.graphs.title} cannot begin after '{point.name}', because "
                    "other tensors pass it by; name another place"
                )
            return point
        order = self.graphs.eval.order
        latest = order[self._feeds_classifier()]
        points = [p for p in self.points if p.alone and p.parts and order[p.eval] <= latest]
        if not points:
            raise OfframpError(
                f"no single tensor feeds the classifier of {self.graphs.title} from a layer before it; "
                "name the last place of its trunk"
            )
        return next(p for p in points if p.eval is points[-1].eval)

    def places(self, final: str | None = None) -> tuple[ExitPlace, ...]:
        """Every place before the cut point that feeds the classifier, in the order of execution. final:
        the name of that cut point, where it is not the one that `final` finds."""
        mode, parameters = self.graphs.eval, self.graphs.parameters
        total = sum(f.macs for f in mode.facts.values())
        places, pooled = [], False
        for point in self.points[: self.points.index(self.final(final))]:
            shape = mode.facts[point.eval].shape
            if not (point.alone and point.parts) or shape is None:
                continue
            nodes = [n for n, i in mode.order.items() if i <= mode.order[point.eval]]
            macs = sum(mode.facts[n].macs for n in nodes)
            read = frozenset[str]().union(*(mode.weights.get(n, ()) for n in nodes))
            params = sum(parameters[name] for name in below(read, parameters))
            share = macs / total if total else 0.0
            pooled = pooled or len(shape) == 1 or (max(shape[1:]) == 1 and mode.pools(point.eval))
            places.append(ExitPlace(point.name, point.aliases, shape, macs, share, params, pooled))
        return tuple(places)

    # Where the classifier begins

    def _feeds_classifier(self) -> fx.Node:
        """The tensor that the parameter-free operations before the classifier begin with.

        Goes back from the last operation with parameters, over what has none. A normalization belongs to
        the layer before it, but behind the pooling to the classifier.
        """
        mode, parameters = self.graphs.eval, self.graphs.parameters
        learned = [n for n, paths in mode.weights.items() if below(paths, parameters)]
        if not learned:
            raise OfframpError(f"{self.graphs.title} has no parameters; there is nothing to train")
        back: list[fx.Node] = []
        node = mode.data_input(learned[-1])
        if node is None:
            return learned[-1].prev
        layer, pooled = 0, False  # how many steps lead back to the layer
        while node is not None:
            back.append(node)
            if below(mode.weights[node], parameters):
                layer = layer or len(back)
                if pooled or "norm" not in mode.traced.kinds[node]:
                    break
            elif mode.pools(node):
                layer, pooled = 0, True
            node = mode.data_input(node)
        return self._end_of_layer(back[: layer or len(back)][::-1])

    def _end_of_layer(self, steps: list[fx.Node]) -> fx.Node:
        """Of steps that begin with a layer: where the layer's activation or its module ends.

        Pooling ends it whatever the size of the map, and dropout is no part of it.
        """
        mode, layer = self.graphs.eval, steps[0]
        name = mode.traced.names.get(layer, "")
        around = {n for module, n in mode.traced.ends.items() if name.startswith(module + ".")}
        last = layer
        for node in steps[1:]:
            if mode.pools(node):
                break
            same_shape = mode.facts[node].shape == mode.facts[layer].shape
            if node in around or (same_shape and mode.facts[node].untouched is None):
                last = node
        return last


def survey(module: nn.Module, input_shape: tuple[int, ...], pick: Pick | None = None) -> Survey:
    """The cut points and places of `module`, for examples of `input_shape` (`[C, H, W]`). pick: as
    `graphs_of` takes it.

    Raises:
        OfframpError: As `graphs_of` does.
    """
    return Survey(graphs_of(module, input_shape, pick))
