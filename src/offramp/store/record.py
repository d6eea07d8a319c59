"""A trial as reports read it: its manifest, and what it made of its phases."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from offramp.store.archive import LIBRARIES, Damaged, Records
from offramp.store.manifest import Cost, Manifest, NodeRecord, Provenance
from offramp.units import counted

OURS = ("checkpoint", "evaluation")  # kinds of seconds that are no part of training as it is written
SPEEDS = (0.5, 2.0)  # time of a spared MAC, at least and at most, in that of the largest phase's
MADE_WITH = (*LIBRARIES, "device", "git")


@dataclass(frozen=True)
class Seconds:
    """Time of a trial, three ways."""

    # every phase in full, as the paper runs it, without checkpoints and the closing evaluation; measured
    # where the trial ran plain, alone and in one go, else estimated: the executed time, and the MACs
    # that did not run at the speed of the trial's largest phase
    written: float
    written_low: float  # where those MACs take half as long; equal to `written` where that was measured
    written_high: float  # where they take twice as long
    executed: float  # of all nodes it reads
    marginal: float  # of those that no trial before it reads
    measured: bool  # whether `written` was


def machine_kind(provenance: Provenance) -> str:
    """`AMD EPYC 7B13, 8 cores`."""
    more = f", {counted(provenance.cores, 'core')}" if provenance.cores else ""
    return f"{provenance.device or 'unknown'}{more}"


@dataclass(frozen=True, eq=False)
class PhaseRecord:
    """One training run of a trial."""

    name: str  # of the phase
    node: str  # its key; trials with equal ones share the phase
    exits: tuple[int, ...]  # numbers of the exits that it trained, those its loss reads
    parts: tuple[str, ...]  # what it trained, such as `segment 2` and `head 2`
    cost: Cost  # what it took
    provenance: Provenance = field(default_factory=Provenance)  # with what it was trained

    @property
    def kind(self) -> str:
        """The kind of machine that trained it. Times on two kinds are not comparable."""
        return machine_kind(self.provenance)


@dataclass(frozen=True, eq=False)
class TrialRecord:
    """A finished trial. manifest: all that the store says of it."""

    id: str
    manifest: Manifest
    phases: tuple[PhaseRecord, ...]

    @property
    def strategy(self) -> str:
        """The label of its strategy."""
        return self.manifest.strategy

    @property
    def model(self) -> str:
        """The name of its backbone."""
        return self.manifest.network.backbone

    @property
    def data(self) -> str:
        """What it trained on, as tables call it."""
        return self.manifest.data.label

    @property
    def seed(self) -> int:
        return self.manifest.seed

    @property
    def exits(self) -> tuple[int, ...]:
        """Their numbers, ascending."""
        return self.manifest.exits

    @property
    def macs(self) -> tuple[int, ...]:
        """Of an image that leaves at each of `exits`, every exit before it asked."""
        return self.manifest.macs

    @property
    def comparable(self) -> bool:
        """Whether its time, memory and power may be tested against others'."""
        return all(phase.cost.comparable for phase in self.phases)

    @property
    def heads_only(self) -> bool:
        """Whether, but for training the plain network first where none was given, it trains heads
        alone."""
        if not self.phases:
            return False
        first, *rest = self.phases
        early = rest if first.exits == self.exits[-1:] else self.phases
        return all(part.startswith("head ") for phase in early for part in phase.parts)

    @cached_property
    def seconds(self) -> Seconds:
        """Of training, three ways; marginal in the study that made it. NaN of a network that was trained
        elsewhere."""
        if self.manifest.adopted:
            unknown = math.nan
            return Seconds(unknown, unknown, unknown, unknown, unknown, measured=False)
        return seconds({phase.node: phase.cost for phase in self.phases}, self.manifest.marginal)


def cut_at(manifest: Manifest) -> str | None:
    """Where a network was cut off, that has no exit but an early one."""
    at = manifest.exits[-1] - 1
    cut = len(manifest.exits) == 1 and at < len(manifest.places) - 1
    return manifest.places[at] if cut else None


def apart(manifest: Manifest, host: Manifest) -> str:
    """In what a trial's network differs from another's: `width small`, `resnet20`, `cut at layer2`;
    empty where it does not."""
    own, usual = dict(manifest.network.options), dict(host.network.options)
    words = [f"{name} {value}" for name, value in own.items() if usual.get(name) != value]
    if manifest.network.backbone != host.network.backbone:
        words = [manifest.network.backbone]
    if manifest.input_shape != host.input_shape:
        words.append(f"size {manifest.input_shape[-1]}")
    if place := cut_at(manifest):
        words.append(f"cut at {place}")
    return ", ".join(words)


def read(records: Records, trial: str, manifest: Manifest) -> TrialRecord:
    """The record of a trial. Raises Damaged as `records` does, and where a node names other places."""
    numbers = {place: k for k, place in enumerate(manifest.places, start=1)}
    phases = []
    for phase in manifest.phases:
        node, cost = records.read_node(phase.node), records.node_cost(phase.node)
        if not {*node.phase.places, *cost.exit_shares} <= numbers.keys():
            lost = f"reads node {phase.node[:12]}, which names places that its network does not have"
            raise Damaged(Path(f"trial {trial}"), lost)
        phases.append(_phase(phase.name, node, cost, numbers))
    return TrialRecord(trial, manifest, tuple(phases))


def _phase(name: str, node: NodeRecord, cost: Cost, numbers: Mapping[str, int]) -> PhaseRecord:
    read = {numbers[place]: exit for place, exit in node.phase.exits.items()}
    parts: set[tuple[int, str]] = set()
    for number, exit in read.items():
        if exit.head.trains:
            parts.add((number, "head"))
        first = 1
        for span in exit.spans:  # a span ends at a place, and may hold several segments
            last = numbers[span.to]
            if span.trains:
                parts |= {(k, "segment") for k in range(first, last + 1)}
            first = last + 1
    ordered = sorted(parts, key=lambda part: (part[1] == "head", part[0]))
    named = tuple(f"{kind} {k}" for k, kind in ordered)
    return PhaseRecord(name, node.key, tuple(sorted(read)), named, cost, node.provenance)


def seconds(costs: Mapping[str, Cost], added: Collection[str]) -> Seconds:
    """What a trial took. costs: of its nodes, by key.  added: keys of those that are marginal."""
    spent = {key: sum(cost.seconds.values()) for key, cost in costs.items()}
    written, ran = sum(written_seconds(costs).values()), sum(map(as_written, costs.values()))
    low, high = sorted(ran + speed * (written - ran) for speed in SPEEDS)
    return Seconds(
        written=written,
        written_low=low,
        written_high=high,
        executed=sum(spent.values()),
        marginal=sum(spent[key] for key in added),
        measured=all(cost.comparable for cost in costs.values()),
    )


def written_seconds(costs: Mapping[str, Cost]) -> dict[str, float]:
    """Seconds of each phase of a trial as the paper would run it, by its key: see `Seconds.written`."""
    paper = {key: as_written(cost) for key, cost in costs.items()}
    if all(cost.comparable for cost in costs.values()):
        return paper
    largest = max(costs, key=lambda key: float(costs[key].macs_executed))
    second_per_mac = paper[largest] / max(costs[largest].macs_executed, 1)
    spared = {key: cost.macs_written - cost.macs_executed for key, cost in costs.items()}
    return {key: seconds + spared[key] * second_per_mac for key, seconds in paper.items()}


def as_written(cost: Cost) -> float:
    """Time of what the paper does too."""
    return sum(spent for kind, spent in cost.seconds.items() if kind not in OURS)


def made_with(store: Records, manifests: Iterable[Manifest]) -> dict[str, list[str]]:
    """Every version, device and git revision with which trials and the nodes that they read were made,
    by name. A node that is damaged says nothing; the next run finds it."""
    read = list(manifests)
    records: list[Provenance] = [manifest.provenance for manifest in read]
    for key in sorted({key for manifest in read for key in manifest.keys}):
        with suppress(Damaged):
            records.append(store.read_node(key).provenance)
    values = {name: {getattr(record, name) for record in records} - {None} for name in MADE_WITH}
    return {name: sorted(texts) for name, texts in values.items()}
