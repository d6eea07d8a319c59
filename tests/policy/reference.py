"""Policies row by row in plain Python, written apart from the package, to test it against."""

import math
from collections.abc import Sequence

import numpy as np

from offramp.policy import scoring


def reference_answer(row: Sequence[float]) -> int:
    """The first of the largest logits; a NaN is never the largest."""
    best, at = -math.inf, 0
    for i, logit in enumerate(row):
        if logit > best:
            best, at = logit, i
    return at


def reference_scores(
    name: str,
    row: np.ndarray,
    temperatures: Sequence[float] | None,
    gates: Sequence[Sequence[float] | None] | None = None,
) -> list[float]:
    """row: [E, C] → a score for each exit."""
    scores: list[float] = []
    sums, sure = [0.0] * len(row[0]), 0  # of log-probabilities, over exits that are sure of anything
    for exit in range(len(row)):
        logits = [float(v) for v in row[exit]]
        if name == "fixed":
            scores.append(0.0)
            continue
        if any(math.isnan(v) for v in logits) or not math.isfinite(max(logits)):
            scores.append(0.0 if name in ("patience", "agreement") else -math.inf)
            continue
        if name == "patience":
            same = (
                exit > 0
                and scores[-1] > 0
                and reference_answer(row[exit - 1]) == reference_answer(logits)
            )
            scores.append(scores[-1] + 1 if same else 1.0)
            continue
        if name == "agreement":
            sure_rows = [r for r in row[: exit + 1] if not np.isnan(r).any() and math.isfinite(max(r))]
            answers = [reference_answer(r) for r in sure_rows]
            scores.append(float(answers.count(reference_answer(logits))))
            continue
        warmth = 1.0 if temperatures is None else temperatures[exit]
        if name == "ensemble":
            total = math.log(math.fsum(math.exp(v - max(logits)) for v in logits))
            sums = [s + v - max(logits) - total for s, v in zip(sums, logits, strict=True)]
            sure += 1
            logits = [s / sure for s in sums]
            if not math.isfinite(max(logits)):  # each class is impossible to some exit
                scores.append(-math.inf)
                continue
        if name == "gate":
            gate = None if gates is None else gates[exit]
            scores.append(-math.inf if gate is None else reference_gate(logits, gate))
            continue
        largest = max(logits)
        weights = [math.exp((v - largest) / warmth) for v in logits]
        odds = sorted((w / math.fsum(weights) for w in weights), reverse=True)
        if name in ("confidence", "ensemble"):
            scores.append(odds[0])
        elif name == "margin":
            scores.append(odds[0] - odds[1])
        elif name == "entropy":
            entropy = -math.fsum(p * math.log(p) for p in odds if p > 0)
            scores.append(max(0.0, 1 - entropy / math.log(len(odds))))
        else:  # without a formula here: each row alone, in float64
            scores.append(float(scoring.score(name, np.asarray(logits), warmth)[0]))
    return scores


def reference_gate(logits: Sequence[float], gate: Sequence[float]) -> float:
    """The sigmoid of weighted largest probability, 1 - H / log C, margin, and 1 - H / log C of the
    squared probabilities, scaled to sum to 1, and a constant."""
    weights = [math.exp(v - max(logits)) for v in logits]
    odds = sorted((w / math.fsum(weights) for w in weights), reverse=True)
    squared = [p * p / math.fsum(q * q for q in odds) for p in odds]
    flat = [
        1 + math.fsum(p * math.log(p) for p in ps if p > 0) / math.log(len(ps)) for ps in (odds, squared)
    ]
    seen = (odds[0], max(0.0, flat[0]), odds[0] - odds[1], max(0.0, flat[1]), 1.0)
    return 1 / (1 + math.exp(-math.fsum(w * s for w, s in zip(gate, seen, strict=True))))


def reference_leave(
    name: str,
    row: np.ndarray,
    thresholds: Sequence[float | None],
    temperatures: Sequence[float] | None,
    near: float,
    gates: Sequence[Sequence[float] | None] | None = None,
) -> int | None:
    """Where a row leaves; None where a score is so near its threshold that rounding decides."""
    scores = reference_scores(name, row, temperatures, gates)
    exact = not scoring.SCORES[name].graded
    for exit, score in enumerate(scores[:-1]):
        threshold = thresholds[exit]
        if threshold is None:
            continue
        if not exact and abs(score - threshold) < near:
            return None
        if score >= threshold:
            return exit
    return len(scores) - 1
