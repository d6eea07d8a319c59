"""Which phases go to which of many equal machines, how long that takes, and what bounds it.

All in MACs of the cost model; a machine trains one group of phases at a time. A chain of phases that
begin from one another cannot be shortened by more machines. Sharing a phase among strategies makes no
chain longer, since each of them would train it anyway. Sharing a pass does: heads that train together on
one frozen trunk compute it once, and take as long as all of them. So phases that may share a pass do
where machines are short, and are divided where machines would idle.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal, get_args

from offramp.engine.cost import live_macs
from offramp.engine.resolve import Node
from offramp.study.plan.plan import Plan, can_fuse, grouped

WORTH = 0.9  # a pass is divided where the longer part takes less than so much of the whole
TRUST = 0.99  # a gain of less is none
Passes = Literal["shared", "where short", "divided"]
CHOICES: tuple[Passes, ...] = get_args(Passes)


@dataclass(frozen=True)
class Schedule:
    """What is left of a plan. done: keys of the nodes that are finished."""

    plan: Plan
    done: frozenset[str] = frozenset()

    @cached_property
    def left(self) -> Mapping[str, Node]:
        return {key: node for key, node in self.plan.nodes.items() if key not in self.done}

    @cached_property
    def tails(self) -> Mapping[str, int]:
        """For each node, MACs of the longest chain that begins with it."""
        found: dict[str, int] = {}
        after: dict[str, list[str]] = {key: [] for key in self.left}
        for key, node in self.left.items():
            for need in node.needs:
                if need in after:
                    after[need].append(key)
        for key in reversed(list(self.left)):  # each comes after what it needs
            found[key] = self.plan.macs(key) + max((found[k] for k in after[key]), default=0)
        return found

    def by_urgency(self, nodes: Iterable[Node]) -> list[Node]:
        """In the order in which processes that each take the first should find them: seed by seed, the
        longest chains first. In the plan's order the longest may begin last, and all but one wait."""
        order = {seed: at for at, seed in enumerate(self.plan.study.seeds)}
        return sorted(nodes, key=lambda node: (order[node.seed], -self.tails[node.key]))

    @property
    def critical(self) -> int:
        """MACs of the longest chain: no number of machines takes less."""
        return max(self.tails.values(), default=0)

    @property
    def total(self) -> int:
        """MACs of every phase on its own."""
        return sum(self.plan.macs(key) for key in self.left)

    def chain(self) -> list[Node]:
        """The longest chain, first phase first."""
        found: list[Node] = []
        ready = [key for key, node in self.left.items() if self.done.issuperset(node.needs)]
        while ready:
            key = max(ready, key=self.tails.__getitem__)
            found.append(self.left[key])
            ready = [k for k, node in self.left.items() if key in node.needs]
        return found

    @cached_property
    def _live(self) -> Mapping[str, int]:
        plan = self.plan
        images = {"train": len(plan.data.train), "validation": len(plan.data.validation)}
        return {k: live_macs(n, plan.net, images, n.recipe.epochs, 1) for k, n in self.left.items()}

    @cached_property
    def _together(self) -> Callable[[Node, Node], bool]:
        """`can_fuse`, which a schedule asks of the same nodes again and again."""
        nodes = self.plan.nodes
        known = cache(lambda one, other: can_fuse(nodes[one], nodes[other]))
        return lambda one, other: known(one.key, other.key)

    def macs(self, group: Iterable[Node]) -> int:
        """Of phases in one pass: what each trains, and the deepest frozen layers once."""
        keys = [node.key for node in group]
        frozen = max(self.plan.macs(key) - self._live[key] for key in keys)
        return sum(self._live[key] for key in keys) + frozen

    def groups(self, ready: Sequence[Node], room: int, passes: Passes) -> list[tuple[Node, ...]]:
        """The nodes that are ready, in groups that share a pass, those with the longest chain first.
        room: machines that are free. "where short" shares passes where they are fewer than groups."""
        fuse = self.plan.study.execution.fuse and passes != "divided"
        found = [tuple(group) for group in grouped(ready, fuse, self._together)]
        while passes == "where short" and len(found) < room:
            parts = {group: halves for group in found if (halves := self._halves(group))}
            if not parts:
                break
            longest = max(parts, key=self.macs)
            found = [each for each in found if each != longest] + list(parts[longest])
        return sorted(found, key=lambda group: -max(self.tails[node.key] for node in group))

    def _halves(self, group: tuple[Node, ...]) -> tuple[tuple[Node, ...], ...]:
        """A group in two parts of about the same work; empty where that is not worth it."""
        parts: tuple[list[Node], list[Node]] = ([], [])
        for node in sorted(group, key=lambda node: -self._live[node.key]):
            min(parts, key=lambda part: sum(self._live[n.key] for n in part)).append(node)
        if not all(parts) or max(map(self.macs, parts)) >= WORTH * self.macs(group):
            return ()
        return tuple(map(tuple, parts))

    def best(self, machines: int) -> Passes:
        """How to share passes on so many machines: as the others do only where that is shorter by more
        than the cost model can be trusted with."""
        spans = {passes: self.makespan(machines, passes) for passes in CHOICES}
        return min(CHOICES, key=lambda passes: spans[passes] * (1 if passes == "shared" else 1 / TRUST))

    def makespan(self, machines: int, passes: Passes) -> int:
        """MACs of the time from the first phase to the last, on so many machines."""
        done, waiting = set(self.done), dict(self.left)
        running: list[tuple[int, int, tuple[Node, ...]]] = []
        now = count = 0
        while waiting or running:
            ready = [node for node in waiting.values() if done.issuperset(node.needs)]
            room = machines - len(running)
            for group in self.groups(ready, room, passes)[:room] if ready and room else ():
                count += 1
                heapq.heappush(running, (now + self.macs(group), count, group))
                for node in group:
                    del waiting[node.key]
            now, _, finished = heapq.heappop(running)
            done |= {node.key for node in finished}
        return now


@dataclass(frozen=True)
class Spans:
    """What a schedule comes to, in MACs. critical: of the longest chain, which is of the phases `chain`.
    by_machines: how passes are best shared on so many, and the time from the first phase to the last.
    slots: groups of phases that a machine has room for at once."""

    critical: int
    chain: tuple[str, ...]
    by_machines: Mapping[int, tuple[Passes, int]]
    slots: int = 1


def spans(schedule: Schedule, most: int, slots: int = 1) -> Spans:
    """On 1 to `most` machines, each with room for so many groups at once."""
    found = {}
    for count in sizes(most):
        passes = schedule.best(count * slots)
        found[count] = passes, schedule.makespan(count * slots, passes)
    return Spans(schedule.critical, tuple(node.name for node in schedule.chain()), found, slots)


def sizes(most: int) -> list[int]:
    """1, 2, 4, … and `most`."""
    return sorted({2**n for n in range(most.bit_length())} | {most})
