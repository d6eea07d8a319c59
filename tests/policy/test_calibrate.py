import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from syrupy.assertion import SnapshotAssertion

import simulated as logits_of
from longer import long_where
from offramp.policy import calibrate as module
from offramp.policy import scoring
from offramp.policy.calibrate import Calibrated, calibrate, statement, target
from offramp.policy.calibration import Target
from offramp.policy.candidates import Search, SplitLogits, where_left
from offramp.policy.costs import Costs
from offramp.policy.evaluate import evaluate
from offramp.policy.policy import Policy
from simulated import SEARCHES
from wording import refusal

pytestmark = pytest.mark.usefixtures("narrow")

EXITS = 3  # a search takes three times as long for a fourth, which shows no more
COSTS = Costs((10,) * EXITS, (1,) * EXITS, (0,) * EXITS, (1, 2, 3))


def simulated(rows: int, seed: int, exits: int = EXITS, classes: int = 10) -> SplitLogits:
    return logits_of.simulated(rows, seed, exits, classes)


VALIDATION, CALIBRATION = simulated(1000, 1), simulated(1000, 2)
CLASSES = tuple(f"class {i}" for i in range(10))
# Candidates of all are in test_candidates.
LIGHT = long_where(
    SEARCHES,
    lambda search: search in (Search("margin", temperature=True), Search("ensemble", survivors=True)),
)


@cache
def chosen(kind: Any, value: float, search: Search | None = None, **more: Any) -> Calibrated:
    target = Target(kind, value, **more)
    return calibrate(VALIDATION, CALIBRATION, COSTS, target, search or Search())


@pytest.mark.parametrize("search", LIGHT, ids=str)
def test_targets_are_met_on_calibration(search: Search) -> None:
    full = chosen("min-accuracy", 0.0).measures[0].accuracy
    assert full is not None
    loss = chosen("max-accuracy-loss", 0.02, search)
    fits = [m.accuracy is not None and m.accuracy >= full - 0.02 for m in loss.measures]
    assert all(fits[: loss.chosen + 1])  # none before it was passed over
    if scoring.SCORES[search.score].graded:
        assert 0 < loss.chosen < max(i for i, fit in enumerate(fits) if fit)  # and there is a margin
    accurate = chosen("min-accuracy", 0.85, search)
    assert (accurate.measures[accurate.chosen].accuracy or 0) >= 0.85
    cheap = chosen("max-mean-macs", 22, search)
    assert cheap.measures[cheap.chosen].macs <= 22
    same = chosen("max-disagreement", 0.05, replace(search, temperature=False))
    assert same.measures[same.chosen].risk <= 0.05 and same.measures[0].accuracy is None


def test_a_budget_buys_what_validation_finds_most_accurate() -> None:
    """Where early exits are better than the final one, more MACs are worse, and not to be spent."""
    worse = (replace(rows, logits=np.array(rows.logits)) for rows in (VALIDATION, CALIBRATION))
    rows = []
    for split in worse:
        split.logits[::3, -1] *= -1  # the final exit forgets a third of what it knew
        rows.append(split)
    for budget in (0.9 * COSTS.full, 10 * COSTS.full):
        outcome = calibrate(*rows, COSTS, Target("max-mean-macs", budget))
        errors = [
            where_left(_wrong(rows[0]), p.leaves(rows[0].logits)).mean() for p in outcome.candidates
        ]
        fits = [i for i, m in enumerate(outcome.measures) if m.macs <= budget]
        assert (
            errors[outcome.chosen] - min(errors[i] for i in fits)
            < 0.01
            < errors[0] - errors[outcome.chosen]
        )


def _picked(rows: int, wrong: Sequence[float], rule: Callable[[Any], int]) -> Any:
    """How often each policy is chosen in 300 draws. wrong: of each, from the dearest; images that are
    hard for one are hard for the others."""
    hard = np.random.default_rng(0).normal(0, 0.8, (300, rows, 1))
    own = np.random.default_rng(1).normal(0, 0.6, (300, rows, len(wrong)))
    draws = (hard + own < norm.ppf(wrong)).astype(float)
    return np.bincount([rule(draw) for draw in draws], minlength=len(wrong)) / 300


def test_no_cheap_exit_is_the_best_of_few_images_by_luck() -> None:
    truth = (0.22, 0.23, 0.26)
    lucky = _picked(100, truth, lambda lose: int(lose.mean(0).argmin()))
    assert lucky[2] > 0.05  # what the least loss would choose
    assert _picked(100, truth, module._least)[2] < 0.02
    overthinking = (0.25, 0.22, 0.19)  # which many images tell, and then it is not too dear
    assert _picked(2000, overthinking, module._least)[2] > 0.97


def _wrong(rows: SplitLogits) -> Any:
    return (scoring.answers(rows.logits) != rows.labels[:, None]).astype(float)


def test_thresholds_per_exit_save_more_than_a_shared_one() -> None:
    each, shared = (chosen("max-accuracy-loss", 0.02, Search(shared=s)) for s in (False, True))
    assert each.measures[each.chosen].macs < 0.9 * shared.measures[shared.chosen].macs


def test_a_guarantee_costs_something_and_says_what_it_is() -> None:
    plain = chosen("risk", 0.03, confidence=None)
    sure = chosen("risk", 0.03, confidence=0.95)
    surer = chosen("risk", 0.03, confidence=0.999)
    macs = [r.measures[r.chosen].macs for r in (plain, sure, surer)]
    assert macs == sorted(macs) and macs[0] < macs[2] < COSTS.full
    assert sure.bound is not None and sure.measures[sure.chosen].risk < sure.bound <= 0.03
    assert plain.bound is None
    assert "confidence 0.95 over draws" in statement(sure)
    assert "average over draws" in statement(plain) and "may exceed it" in statement(plain)
    assert "exchangeable with them" in statement(sure)
    assert statement(chosen("max-accuracy-loss", 0.1)).startswith("No guarantee")


def test_no_label_is_read_where_none_is_needed() -> None:
    lies = [SplitLogits(r.logits, np.full(1000, -1)) for r in (VALIDATION, CALIBRATION)]
    for wish in (
        Target("max-disagreement", 0.05),
        Target("risk", 0.05, 0.95, labels=False),
        Target("risk", 0.05, None, labels=False),
    ):
        honest = calibrate(VALIDATION, CALIBRATION, COSTS, wish)
        assert calibrate(*lies, COSTS, wish) == honest
        assert honest.chosen > 0


def test_calibration_only_chooses() -> None:
    """Other calibration rows: the same candidates, whatever is chosen of them."""
    target = Target("risk", 0.03, 0.95)
    other = calibrate(VALIDATION, simulated(400, 9), COSTS, target, Search(temperature=True))
    assert other.candidates == chosen("risk", 0.03, Search(temperature=True), confidence=0.95).candidates


@pytest.mark.parametrize(
    ("rows", "target", "message"),
    [
        (250, Target("risk", 0.01, 0.95), "250 .* at least 299"),
        (90, Target("risk", 0.01), "90 .* at least 99"),
        (250, Target("risk", 0.01, 0.95, labels=False), "at least 299"),
    ],
)
def test_too_few_rows_certify_the_full_network_and_say_how_many_would_do(
    rows: int, target: Target, message: str
) -> None:
    few = SplitLogits(CALIBRATION.logits[:rows], CALIBRATION.labels[:rows])
    outcome = calibrate(VALIDATION, few, COSTS, target)
    assert outcome.chosen == 0 and outcome.policy.active == (2,)
    assert re.search(message, outcome.remark or "")
    assert "saves nothing" in statement(outcome)


def test_a_rate_above_the_target_needs_more_than_rows() -> None:
    outcome = chosen("risk", 0.01, Search("fixed"), confidence=0.95)
    assert outcome.chosen == 0 and "too near the" in (outcome.remark or "")


def test_targets_out_of_reach_are_refused_in_one_line(snapshot: SnapshotAssertion) -> None:
    assert refusal(chosen, "min-accuracy", 0.999) == snapshot
    assert refusal(chosen, "max-mean-macs", 3) == snapshot


def test_the_best_that_a_refusal_names_can_be_had() -> None:
    """Rounded up, 54 of 56 would be refused again."""
    rows = SplitLogits(CALIBRATION.logits[:56], CALIBRATION.labels[:56])
    line = refusal(calibrate, VALIDATION, rows, COSTS, Target("min-accuracy", 1.0))
    best = float(line.partition("the best reaches ")[2].partition(",")[0])
    assert calibrate(VALIDATION, rows, COSTS, Target("min-accuracy", best)).chosen >= 0


def test_one_exit_is_the_full_network() -> None:
    rows = simulated(100, 3, exits=1)
    costs = Costs((10,), (1,), (0,), (1,))
    outcome = calibrate(rows, rows, costs, Target("risk", 0.05, 0.95))
    assert outcome.policy.thresholds == (None,) and "no exit" in (outcome.remark or "")


def test_heads_dearer_than_what_they_spare_are_named() -> None:
    two = simulated(200, 3, exits=2)
    costs = Costs((10, 10), (50, 1), (0, 0), (1, 2))
    outcome = calibrate(two, two, costs, Target("max-accuracy-loss", 0.1))
    assert len(outcome.candidates) == 1
    assert "attach lighter ones" in (outcome.remark or "")


def test_two_classes() -> None:
    rows = [simulated(500, seed, classes=2) for seed in (4, 5)]
    outcome = calibrate(rows[0], rows[1], COSTS, Target("max-accuracy-loss", 0.02), Search("entropy"))
    assert outcome.measures[outcome.chosen].macs < COSTS.full


@pytest.mark.parametrize(
    "score",
    long_where(
        (name for name, score in scoring.SCORES.items() if name != "fixed" and not score.several),
        lambda score: score not in ("confidence", "patience", "gate"),
    ),
)
def test_logits_that_are_no_numbers_run_to_the_end(score: Any) -> None:
    rows = [simulated(400, seed) for seed in (6, 7)]
    for split in rows:
        split.logits[::4, :2] = np.nan
    outcome = calibrate(rows[0], rows[1], COSTS, Target("max-accuracy-loss", 0.1), Search(score))
    leaves = outcome.policy.leaves(rows[1].logits)
    assert (leaves[::4] == 2).all()


def test_an_outcome_adds_up() -> None:
    outcome = chosen("max-accuracy-loss", 0.03, Search(temperature=True))
    test = simulated(3000, 8)
    result = evaluate(outcome.policy, test, COSTS, CLASSES)
    answers = scoring.answers(test.logits)
    leaves = outcome.policy.leaves(test.logits)
    right = answers[np.arange(3000), leaves] == test.labels
    assert result.policy.value == pytest.approx(right.mean())
    assert result.full.value - result.policy.value == pytest.approx(result.loss.value)
    assert result.loss.value <= result.harm.value <= result.disagreement.value
    assert sum(e.share for e in result.exits) == pytest.approx(1)
    assert sum(e.share * (e.accuracy or 0) for e in result.exits) == pytest.approx(result.policy.value)
    assert sum(c.images for c in result.classes) == 3000
    mean = sum(c.images * c.loss.value for c in result.classes) / 3000
    assert mean == pytest.approx(result.loss.value)
    assert result.oracle.accuracy >= result.policy.value > result.random.accuracy
    spent = where_left(np.tile(np.array(outcome.policy.macs(COSTS), float), (3000, 1)), leaves)
    assert result.macs.mean == pytest.approx(spent.mean())
    assert all(e.ece is not None and e.ece < 0.1 and (e.auroc or 0) > 0.6 for e in result.exits)


def test_an_exit_that_answers_alone_keeps_its_temperature() -> None:
    outcome = chosen("max-mean-macs", 11, Search(temperature=True))
    assert outcome.policy.score == "fixed" and outcome.policy.takes_all == 0
    assert outcome.policy.temperatures == outcome.candidates[0].temperatures is not None
    # As int8 solves it again, by what the policy says of itself.
    again = chosen("max-mean-macs", 11, Search("fixed", temperature=True))
    assert again.policy == outcome.policy


@pytest.mark.parametrize("seed", range(4))
def test_weighted_shares_of_exits_are_shares(seed: int) -> None:
    """One that is above 1 by rounding is refused by who reads the policy file."""
    rows = simulated(200 + seed, seed)
    shares = np.random.default_rng(seed).dirichlet(np.ones(10))
    target = Target("max-mean-macs", 12)
    outcome = calibrate(VALIDATION, rows, COSTS, target, Search("fixed"), shares=shares.tolist())
    assert outcome.measures[outcome.chosen].shares == (1.0, 0.0, 0.0)


def test_failure_prediction_is_of_the_score() -> None:
    outcome, test = chosen("max-accuracy-loss", 0.03, Search("margin")), simulated(3000, 8)
    wrong = scoring.answers(test.logits) != test.labels[:, None]

    def area(score: str, k: int) -> float:
        order = np.argsort(-scoring.scores(score, test.logits)[:, k])
        return float((np.cumsum(wrong[order, k]) / np.arange(1, 3001)).mean())

    areas = [exit.aurc for exit in evaluate(outcome.policy, test, COSTS, CLASSES).exits]
    assert areas == pytest.approx([area("margin", k) for k in range(len(areas))], abs=1e-6)
    assert areas != pytest.approx([area("confidence", k) for k in range(len(areas))], abs=1e-6)


@pytest.mark.parametrize("name", ["ensemble", "patience"])
def test_failure_prediction_of_a_score_with_a_history_is_of_what_the_exit_answers(name: str) -> None:
    """The score itself says nothing of how sure a single exit is: how confident its answer is does."""
    test = simulated(600, 8)
    logits = scoring.all_answer_logits(name, test.logits)
    right = scoring.answers(logits) == test.labels[:, None]
    threshold = scoring.SCORES[name].low + 0.5
    policy = Policy(name, COSTS.exits, (threshold, threshold, None))
    exits = evaluate(policy, test, COSTS, CLASSES).exits
    sure = scoring.scores("confidence", logits)
    areas = [roc_auc_score(right[:, k], sure[:, k]) for k in range(EXITS)]
    assert [exit.auroc for exit in exits] == pytest.approx(areas)
    alone = scoring.scores("confidence", test.logits)  # the control, of each exit by itself
    own = [roc_auc_score(right[:, k], alone[:, k]) for k in range(EXITS)]
    assert (own != pytest.approx(areas, abs=1e-3)) is (name == "ensemble")


@pytest.mark.parametrize("survivors", [False, True])
def test_a_policy_file_says_whether_thresholds_were_set_exit_by_exit(survivors: bool) -> None:
    """Else `export --int8` would solve them again in the other way."""
    search = Search("margin", survivors=survivors)
    outcome = calibrate(VALIDATION, CALIBRATION, COSTS, Target("max-accuracy-loss", 0.05), search)
    assert outcome.record(COSTS.full).survivors is survivors


def test_a_class_that_is_hurt_is_seen() -> None:
    """Exit 1 always takes class 0 for class 1, surely."""
    splits = [simulated(1500, seed) for seed in (21, 22, 23)]
    for split in splits:
        split.logits[split.labels == 0, 0] = 0
        split.logits[split.labels == 0, 0, 1] = 40
    target = Target("max-accuracy-loss", 0.12)
    outcome = calibrate(splits[0], splits[1], COSTS, target, Search(shared=True))
    classes = evaluate(outcome.policy, splits[2], COSTS, CLASSES).classes
    worst = max(classes, key=lambda c: c.loss.value)
    assert worst.name == "class 0" and worst.loss.low > 0.5


def test_targets_in_words() -> None:
    assert Target("max-mean-macs", 450_000).words == "max mean MACs 450,000"
    assert Target("max-mean-latency", 5e-3).words == "max mean latency 5 ms"
    assert Target("risk", 0.01, 0.95).words == "risk 0.01"


def test_limits_by_keyword() -> None:
    assert target(100, max_accuracy_loss=0.01, risk=None) == Target("max-accuracy-loss", 0.01)
    assert target(100, max_mean_latency=5e-3) == Target("max-mean-latency", 5e-3)
    assert target(100, risk=0.01) == Target("risk", 0.01, 0.95)
    assert target(100, risk=0.01, on_average=True, without_labels=True) == Target(
        "risk", 0.01, labels=False
    )
    assert target(200, max_mean_macs="40%").value == target(200, max_mean_macs=80).value == 80
    for share in (0.01, "0.01", "1%", "1 %"):
        assert target(100, max_accuracy_loss=share) == Target("max-accuracy-loss", 0.01)
        assert target(100, risk=share, confidence="90%") == Target("risk", 0.01, 0.9)
    assert target(100, risk=0.01, confidence="0.9") == Target("risk", 0.01, 0.9)


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max_accuracy_loss": "1 point"},
        {"max_accuracy_loss": "1"},
        {"min_accuracy": 94},
        {"risk": 0.1, "confidence": "sure"},
        {"risk": 0.1, "on_average": "yes"},
        {"max_mean_macs": 0.0},
        {"risk": 0.1, "confidence": 1.0},
    ],
    ids=str,
)
def test_limits_that_are_refused(limits: Any, snapshot: SnapshotAssertion) -> None:
    assert refusal(target, 100, **limits) == snapshot
