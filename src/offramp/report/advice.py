"""Advice from evidence: what recommend needs, read from trials and their logits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from offramp.analysis.recommend import GOALS, POINTS, Advice, Facts, Preference, recommend, sure
from offramp.hashing import digest
from offramp.report.evidence import Evidence
from offramp.store.record import TrialRecord

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
WORDS = {
    "accuracy": "accuracy",
    "latency": "few MACs at inference",
    "training-time": "short training",
    "memory": "little memory",
    "energy": "little energy",
    "balanced": "a balance of all",
}


def facts(evidence: Evidence) -> Facts:
    """What advice rests on, logits included."""
    rows = [row for trial in evidence.trials for row in _points(evidence, trial)]
    others = {t.strategy for t in evidence.trials if not _heads_only(t)}
    heads = frozenset(evidence.strategies) - others
    return Facts(evidence.numbers, pd.DataFrame(rows, columns=list(POINTS)), heads)


def _heads_only(trial: TrialRecord) -> bool:
    """Whether, but for training the plain network first, it trains heads alone."""
    plain, *rest = trial.phases
    early = [part for phase in rest for part in phase.parts]
    return plain.exits == trial.exits[-1:] and all(part.startswith("head ") for part in early)


def _points(evidence: Evidence, trial: TrialRecord) -> list[tuple[object, ...]]:
    """Rows of POINTS: each exit alone, and confidence thresholds."""
    arrays = evidence.records.trial_logits(trial.id)  # all splits lie in one file
    held_out, tested = (_leave(arrays[s], arrays[f"{s}_labels"]) for s in ("calibration", "test"))
    keys = dict(enumerate(trial.manifest.sources.values()))
    about = (trial.model, trial.data, trial.strategy, trial.seed)
    rows: list[tuple[object, ...]] = []
    for point, (shares, accuracy) in tested.items():
        macs = float(shares @ np.asarray(trial.macs, dtype=float))
        name, source = f"confidence >= {point:g}", digest(list(keys.values()))[:16]
        if isinstance(point, int):
            name, source = f"exit {trial.exits[point]}", keys[point]
        rows.append((*about, name, macs, held_out[point][1], accuracy, source))
    return rows


def choice(evidence: Evidence, wish: Preference, model: str) -> tuple[TrialRecord, str] | None:
    """A trial of the strategy with exits that runs of `model` put first, and how sure that is: a clause.
    None where they say nothing."""
    trials = tuple(t for t in evidence.trials if t.model == model and t.manifest.program != "baseline")
    labels = {t.strategy: t for t in trials}
    rows = evidence.table[(evidence.table["model"] == model) & evidence.table["strategy"].isin(labels)]
    for advice in recommend(facts(replace(evidence, trials=trials, table=rows)), wish):
        if advice.ranking:
            first = advice.ranking[0].name.split(" = ")[0]
            return labels[first], f"{model} on {advice.data}: {sure(advice)}"
    return None


Left = tuple[NDArray[np.float64], float]


def _leave(logits: np.ndarray, labels: np.ndarray) -> dict[int | float, Left]:
    """Shares of images that leave at each exit [E] and accuracy: by the position of an exit (int), where
    all leave there, and by threshold (float). logits: [N, E, C]."""
    exits = logits.shape[1]
    logits = logits.astype(np.float32)
    answers = logits.argmax(axis=2)
    right = answers == labels[:, None]
    top = np.take_along_axis(logits, answers[:, :, None], axis=2)
    confidence = 1 / np.exp(logits - top).sum(axis=2)  # the largest softmax probability
    found: dict[int | float, Left] = {
        k: (np.eye(exits)[k], float(right[:, k].mean())) for k in range(exits)
    }
    for threshold in THRESHOLDS if exits > 1 else ():
        stays = confidence < threshold
        stays[:, -1] = False
        leaves = stays.argmin(axis=1)
        shares = np.bincount(leaves, minlength=exits) / len(labels)
        hits = np.take_along_axis(right, leaves[:, None], axis=1)
        found[threshold] = (shares, float(hits.mean()))
    return found


def answer(evidence: Evidence, known: Facts | None = None) -> tuple[str, ...]:
    """Which strategy for which goal, and how sure: a sentence for each goal and data set that these
    runs can answer, then one on the goals that they cannot. known: `facts`, if they are at hand."""
    found = known or facts(evidence)
    data = sorted({trial.data for trial in evidence.trials})
    sentences, silent = [], []
    for goal in GOALS:
        given = [a for a in recommend(found, Preference(goal)) if a.ranking]
        sentences += [_sentence(advice, len(data) > 1) for advice in given]
        silent += [] if given else [WORDS[goal]]
    if silent:
        sentences.append(f"These runs say nothing of {' and '.join(silent)}: nothing was measured.")
    return tuple(sentences)


def _sentence(advice: Advice, several: bool) -> str:
    best, measure = advice.ranking[0], advice.measure
    where = f" on {advice.data}" if several else ""
    use = f", left at {best.use.replace('>=', '≥')}" if best.use else ""
    if best.accuracy is not None and measure.name != "accuracy-test":
        use += f", at {100 * best.accuracy:.1f} % test accuracy"
    if advice.target is not None:
        use += f"; the target was {100 * advice.target:.1f} % on calibration data"
    value = f"{best.mean * measure.scale:.3g} {measure.unit}".strip()
    if measure.name == "macs":
        value = f"{best.mean / 1e6:.3g} M" if best.mean >= 1e6 else f"{best.mean / 1e3:.3g} k"
    title = measure.title if measure.title[1].isupper() else measure.title[0].lower() + measure.title[1:]
    return f"For {WORDS[advice.goal]}{where}: {best.name} ({title} {value}{use}); {sure(advice)}."
