"""What bounds the time of a plan on many equal machines, and in which order phases are best begun.

All in MACs of the cost model; a machine trains one group of phases at a time. A chain of phases that
begin from one another cannot be shortened by more machines. Phases that may share a pass over the data
do, however many machines there are: dividing them where machines would idle gained 1 % of the time of
the paper's grid at the most.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from offramp.engine.cost import live_macs
from offramp.engine.resolve import Node
from offramp.study.plan.plan import Plan, can_fuse, grouped


@dataclass(frozen=True)
class Schedule:
    """What is left of a plan."""

    plan: Plan  # all of it
    done: frozenset[str] = frozenset()  # keys of the nodes that are finished

    @cached_property
    def left(self) -> Mapping[str, Node]:
        """The nodes that are not finished, by key."""
        return {key: node for key, node in self.plan.nodes.items() if key not in self.done}

    @cached_property
    def tails(self) -> Mapping[str, int]:
        """For each node, MACs of the longest chain that begins with it."""
        after: dict[str, list[str]] = {key: [] for key in self.left}
        for key, node in self.left.items():
            for need in node.needs:
                if need in after:
                    after[need].append(key)
        tails: dict[str, int] = {}
        for key in reversed(list(self.left)):  # each comes after what it needs
            tails[key] = self.plan.macs(key) + max((tails[k] for k in after[key]), default=0)
        return tails

    def by_urgency(self, nodes: Iterable[Node]) -> list[Node]:
        """In the order in which processes that each take the first should look: seed by seed, the
        longest chains first. In the plan's order the longest may begin last, and all but one wait."""
        order = {seed: at for at, seed in enumerate(self.plan.study.seeds)}
        return sorted(nodes, key=lambda node: (order[node.seed], -self.tails[node.key]))

    @property
    def critical(self) -> int:
        """MACs of the longest chain: no number of machines takes less."""
        return max(self.tails.values(), default=0)

    def chain(self) -> list[Node]:
        """The nodes of the longest chain, in order."""
        nodes: list[Node] = []
        ready = [k for k, node in self.left.items() if not any(need in self.left for need in node.needs)]
        while ready:
            key = max(ready, key=self.tails.__getitem__)
            nodes.append(self.left[key])
            ready = [k for k, node in self.left.items() if key in node.needs]
        return nodes

    @cached_property
    def _live(self) -> Mapping[str, int]:
        plan = self.plan
        images = plan.data.images_an_epoch
        return {k: live_macs(n, plan.net, images, n.recipe.epochs, 1) for k, n in self.left.items()}

    @cached_property
    def _together(self) -> Callable[[Node, Node], bool]:
        """`can_fuse`, of which a schedule needs the same answers again and again."""
        nodes = self.plan.nodes
        fusible = cache(lambda key, other: can_fuse(nodes[key], nodes[other]))
        return lambda node, other: fusible(node.key, other.key)

    def macs(self, group: Iterable[Node]) -> int:
        """Of phases in one pass: what each trains, and the deepest frozen layers once."""
        keys = [node.key for node in group]
        frozen = max(self.plan.macs(key) - self._live[key] for key in keys)
        return sum(self._live[key] for key in keys) + frozen

    def groups(self, ready: Sequence[Node]) -> list[tuple[Node, ...]]:
        """The nodes that are ready, in groups that share a pass, those with the longest chain first."""
        groups = map(tuple, grouped(ready, self.plan.study.execution.fuse, self._together))
        return sorted(groups, key=lambda group: -max(self.tails[node.key] for node in group))

    def makespan(self, machines: int) -> int:
        """MACs of the time from the first phase to the last, on so many machines."""
        done, waiting = set(self.done), dict(self.left)
        running: list[tuple[int, int, tuple[Node, ...]]] = []
        now = count = 0
        while waiting or running:
            ready = [node for node in waiting.values() if done.issuperset(node.needs)]
            room = machines - len(running)
            for group in self.groups(ready)[:room] if ready and room else ():
                count += 1
                heapq.heappush(running, (now + self.macs(group), count, group))
                for node in group:
                    del waiting[node.key]
            now, _, finished = heapq.heappop(running)
            done |= {node.key for node in finished}
        return now


@dataclass(frozen=True)
class Spans:
    """What a schedule comes to, in MACs."""

    critical: int  # of the longest chain
    chain: tuple[str, ...]  # the phases of it
    by_machines: Mapping[int, int]  # the time from the first phase to the last, on so many machines
    slots: int = 1  # groups of phases that a machine has room for at once


def spans(schedule: Schedule, most: int, slots: int = 1) -> Spans:
    """On 1 to `most` machines, each with room for so many groups at once."""
    by_machines = {count: schedule.makespan(count * slots) for count in sizes(most)}
    return Spans(schedule.critical, tuple(node.name for node in schedule.chain()), by_machines, slots)


def sizes(most: int) -> list[int]:
    """1, 2, 4, … and `most`."""
    return sorted({2**n for n in range(most.bit_length())} | {most})
