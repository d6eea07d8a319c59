"""How well a network's confidence decides where an image leaves: of each strategy, in a few numbers."""

from __future__ import annotations

from typing import Any

import pandas as pd

from offramp.analysis.tradeoff import NetAnswers
from offramp.policy.quality import Bound, oracle
from offramp.report.model import Column, Table
from offramp.report.runs import Runs
from offramp.report.tables.common import at
from offramp.store.record import TrialRecord
from offramp.store.results import Spread

CAPTION = (
    "On test images, mean ± sample standard deviation over seeds; not tested. Area: mean accuracy over "
    "all amounts of compute from the cheapest exit of any strategy to the plain network, one confidence "
    "threshold at all exits; where a strategy cannot spend so little, its cheapest setting counts. "
    "Best choice: leaving at the first exit that is right, and its share of the plain network's MACs; "
    "regret: how far thresholds that spend as much fall short of it. AURC, at each exit: the share of "
    "mistakes among the answers that are kept, averaged over how many are kept, the surest first, "
    "times 1,000. It says whether confidence finds the mistakes, which calibration error does not."
)


def leaving(runs: Runs) -> list[Table]:
    """Accuracy against compute in one number, regret to the best choice, failure prediction."""
    several = [s for s in runs.strategies if any(len(t.exits) > 1 for t in runs.of(s))]
    if not several:
        return []
    outcomes = runs.evidence.outcomes
    chosen = sorted((t for t in runs.trials if len(t.exits) > 1), key=lambda t: (t.seed, t.id))
    low = min(t.macs[0] for t in chosen)
    high = max(t.manifest.backbone_macs for t in chosen)
    rows: dict[str, dict[str, Any]] = {}
    for name in several:
        trials = [t for t in chosen if t.strategy == name]
        row = rows[name] = {"strategy": name}
        row |= _spread("area", [outcomes[t.id].answers.area(low, high) for t in trials])
        chances = [regret(outcomes[t.id].answers) for t in trials]
        row |= _spread("best", [best.accuracy for best, _ in chances])
        pairs = zip(trials, chances, strict=True)
        row |= _spread("compute", [best.macs / t.manifest.backbone_macs for t, (best, _) in pairs])
        row |= _spread("regret", [lost for _, lost in chances])
        for exit in runs.exits:
            row |= _spread(f"aurc_{exit}", [v for t in trials for v in _aurc(runs, t, exit)])
    columns = (
        Column("strategy", "strategy"),
        Column("area", "area, %", "percent", 1, "higher", "area_sd"),
        Column("best", "best choice, %", "percent", 1, "higher", "best_sd"),
        Column("compute", "its MACs, %", "percent", 1, "lower", "compute_sd"),
        Column("regret", "regret, points", "percent", 1, "lower", "regret_sd"),
        *(
            Column(f"aurc_{k}", f"AURC {at(k, runs.exits)}", "number", 1, "lower", f"aurc_{k}_sd")
            for k in runs.exits
        ),
    )
    title = f"Where images leave: {runs.place}"
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return [Table(runs.name("leaving"), "compute", title, CAPTION, frame, columns, about=runs.about)]


def regret(answers: NetAnswers) -> tuple[Bound, float]:
    """The best choice of exits, which no score knows; and how much less accurate thresholds are that
    spend as much."""
    best = oracle(answers.right, answers.macs)
    return best, best.accuracy - float(answers.accuracy(max(best.macs, answers.cheapest)))


def _spread(key: str, values: list[float]) -> dict[str, float]:
    mean, deviation = Spread.of(values)
    return {key: mean, f"{key}_sd": deviation}


def _aurc(runs: Runs, trial: TrialRecord, exit: int) -> list[float]:
    """Of one exit of a trial, times 1,000; none where the trial lacks it."""
    if exit not in trial.exits:
        return []
    return [1000 * runs.evidence.outcomes[trial.id].aurc[trial.exits.index(exit)]]
