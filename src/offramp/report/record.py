"""What is known of a trial without its logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from offramp.report.colors import rank
from offramp.store.archive import Records
from offramp.store.summary import Seconds, data_label, trial_seconds


@dataclass(frozen=True, eq=False)
class Phase:
    """One training run of a trial.

    node: its key; trials with equal ones share the phase.  exits: numbers of the exits that it trained,
    those its loss reads.  parts: what it trained, such as `segment 2` and `head 2`.  epochs: how many;
    kept: the epoch (from 1) whose weights were handed on.  comparable: whether its time was measured
    alone, unshared and uncached.  cost: seconds by kind, MACs written and executed, and meters where
    there are some, as the store has them.  recipe: settings of the optimization.
    """

    name: str
    node: str
    exits: tuple[int, ...]
    parts: tuple[str, ...]
    epochs: int
    kept: int
    comparable: bool
    cost: Mapping[str, Any]
    recipe: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Trial:
    """A finished trial.

    strategy: its label; program: the strategy that it is, by name.  rank: sorts strategies.
    exits: their numbers, ascending; what follows has one entry for each: macs (of an image that leaves
    there, every exit before it asked), parameters (of the network cut off there).  places: of every
    exit of the network, in order of their numbers.  backbone_macs: of the plain network.
    accuracy, cross_entropy: by split, one entry an exit.  sources: by exit, a key of its weights:
    trials with equal keys are identical by construction there.  seconds: of training, three ways.
    manifest: all that the store says.
    """

    id: str
    strategy: str
    program: str
    rank: tuple[int, str]
    options: Mapping[str, Any]
    study: str
    model: str
    data: str
    seed: int
    exits: tuple[int, ...]
    places: tuple[str, ...]
    classes: tuple[str, ...]
    macs: tuple[int, ...]
    backbone_macs: int
    parameters: tuple[int, ...]
    accuracy: Mapping[str, tuple[float, ...]]
    cross_entropy: Mapping[str, tuple[float, ...]]
    phases: tuple[Phase, ...]
    seconds: Seconds
    recipe: Mapping[str, Any]
    numerics: Mapping[str, Any]
    execution: Mapping[str, Any]
    provenance: Mapping[str, Any]
    manifest: Mapping[str, Any]

    @property
    def comparable(self) -> bool:
        """Whether its time, memory and power may be tested against others'."""
        return all(phase.comparable for phase in self.phases)

    @property
    def final(self) -> int:
        """The number of the last exit."""
        return self.exits[-1]


def record(records: Records, trial: str, manifest: Mapping[str, Any]) -> Trial:
    """The record of a trial. Raises Damaged as `records` does."""
    numbers = {place: k for k, place in enumerate(manifest["places"], start=1)}
    metrics = manifest["metrics"]
    return Trial(
        id=trial,
        strategy=manifest["strategy"],
        program=manifest["program"],
        rank=rank(manifest["strategy"]),
        options=manifest["options"],
        study=manifest["study"],
        model=manifest["network"]["backbone"],
        data=data_label(manifest),
        seed=manifest["seed"],
        exits=tuple(manifest["exits"]),
        places=tuple(manifest["places"]),
        classes=tuple(manifest["classes"]),
        macs=tuple(manifest["macs"]),
        backbone_macs=manifest["backbone_macs"],
        parameters=tuple(manifest["parameters"]),
        accuracy={split: tuple(m["accuracy"]) for split, m in metrics.items()},
        cross_entropy={split: tuple(m["cross_entropy"]) for split, m in metrics.items()},
        phases=tuple(_phase(records, p["name"], p["node"], numbers) for p in manifest["phases"]),
        seconds=trial_seconds(records, manifest),
        recipe=manifest["recipe"],
        numerics=manifest["numerics"],
        execution=manifest["execution"],
        provenance=manifest["provenance"],
        manifest=manifest,
    )


def _phase(records: Records, name: str, key: str, numbers: Mapping[str, int]) -> Phase:
    node, cost = records.read_node(key), records.node_cost(key)
    read = {numbers[place]: exit for place, exit in node.reads["exits"].items()}
    parts: set[tuple[int, str]] = set()
    for number, exit in read.items():
        if exit["head"]["trains"]:
            parts.add((number, "head"))
        first = 1
        for span in exit["spans"]:  # a span ends at a place, and may hold several segments
            last = numbers[span["to"]]
            if span["trains"]:
                parts |= {(k, "segment") for k in range(first, last + 1)}
            first = last + 1
    return Phase(
        name=name,
        node=key,
        exits=tuple(sorted(read)),
        parts=tuple(f"{kind} {k}" for k, kind in sorted(parts, key=lambda p: (p[1] == "head", p[0]))),
        epochs=node.summary["epochs"],
        kept=node.summary["selected_epoch"],
        comparable=bool(cost["comparable"]),
        cost=cost,
        recipe=node.reads["recipe"],
    )
