"""The accuracy on validation that a search goes by: of a proposal while it trains, and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from offramp.store.store import Store
from offramp.study.plan.plan import Plan, Trial
from offramp.study.run import events


def score(plan: Plan, store: Store) -> float:
    """Accuracy on validation of a plan whose phases are there: mean over exits, then over trials."""
    found = {key: selected(plan, store, key) for key in plan.nodes}
    means = []
    for trial in plan.trials:
        last = answering(trial)
        means.append(sum(found[key][k] for k, key in last.items()) / len(last))
    return sum(means) / len(means)


@dataclass
class Known:
    """What is known of a plan's accuracy on validation. step: epochs so far, of all phases; equal for
    proposals that stand at the same point."""

    plan: Plan
    step: int = 0
    _by_exit: dict[tuple[str, int], float] = field(default_factory=dict)
    _exits: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._exits = {t.id: tuple(answering(t)) for t in self.plan.trials}

    @property
    def mean(self) -> float:
        """Over exits, then trials; an exit that nothing is known of counts as wrong, so that more is
        never less."""
        means = [
            sum(self._by_exit.get((trial, k), 0.0) for k in exits) / len(exits)
            for trial, exits in self._exits.items()
        ]
        return sum(means) / len(means)

    def see(self, event: events.Event, store: Store) -> bool:
        """Take in an event; whether `step` has moved with it, and something is known there."""
        match event:
            case events.Epoch(report):
                self.step += 1
                self._take(report.key, report.validation_accuracy)
            case events.GroupStarted(keys, epoch):
                self.step += epoch * len(keys)
                return False
            case events.Finished(key):
                self._take(key, selected(self.plan, store, key))
                return False
            case events.Reused(key):
                self.step += store.read_node(key).summary.epochs
                self._take(key, selected(self.plan, store, key))
            case _:
                return False
        return True

    def _take(self, key: str, accuracy: Mapping[int, float]) -> None:
        for trial in self.plan.trials:
            if key in trial.keys:
                self._by_exit |= {(trial.id, k): value for k, value in accuracy.items()}


def answering(trial: Trial) -> Mapping[int, str]:
    """For each exit that a trial trains, the key of the last phase that does."""
    return {k: node.key for node in trial.resolved.nodes for k in node.exits}


def selected(plan: Plan, store: Store, key: str) -> dict[int, float]:
    """Accuracy on validation of a finished phase, by exit, with the weights that it hands on."""
    epoch, history = store.read_node(key).summary.selected_epoch, store.node_history(key)
    rows = history[
        (history["split"] == "validation")
        & (history["metric"] == "accuracy")
        & (history["epoch"] == epoch)
    ]
    number = {place: k for k, place in enumerate(plan.net.places, start=1)}
    return {number[e]: float(v) for e, v in zip(rows["exit"], rows["value"], strict=True)}
