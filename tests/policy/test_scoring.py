import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import reference_answer, reference_leave, reference_scores

from offramp.bundle import web
from offramp.policy import scoring
from offramp.policy.scoring import SCORES
from simulated import simulated

NAN, INF = float("nan"), float("inf")
THRESHOLDED = ("confidence", "entropy", "margin")
GATES = ((3.0, -1.0, 2.0, 0.5, -2.0), (-4.0, 1.0, 2.0, 3.0, 0.0), (9.0, 9.0, 9.0, 9.0, -20.0), None)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, ...]:
    """A score, logits with ties and values that are no numbers, thresholds and temperatures."""
    exits, classes, rows = draw(st.integers(1, 5)), draw(st.integers(2, 5)), draw(st.integers(1, 3))
    odd = st.sampled_from([NAN, INF, -INF, 0.0])
    number = st.one_of(st.integers(-3, 3).map(float), st.floats(-30, 30), odd)
    flat = draw(st.lists(number, min_size=rows * exits * classes, max_size=rows * exits * classes))
    name = draw(st.sampled_from(list(scoring.SCORES)))
    score = scoring.SCORES[name]
    level = st.floats(max(score.low, -9), min(score.high, 9))
    level = st.integers(1, 6).map(float) if score.counts else level
    thresholds = [*draw(st.lists(st.none() | level, min_size=exits - 1, max_size=exits - 1)), None]
    warmth = st.lists(st.floats(0.25, 4), min_size=exits, max_size=exits)
    logits = np.array(flat, dtype=np.float64).reshape(rows, exits, classes)
    gate = st.lists(st.floats(-9, 9), min_size=5, max_size=5)
    gates = draw(st.lists(st.none() | gate, min_size=exits, max_size=exits)) if score.learned else None
    return name, logits, thresholds, draw(st.none() | warmth), gates


@settings(max_examples=200, deadline=None)
@given(cases())
def test_every_policy_is_the_row_by_row_reference(case: tuple[Any, ...]) -> None:
    name, logits, thresholds, temperatures, gates = case
    for array, near in (
        (logits, 1e-9),
        (logits.astype(np.float32), 1e-5),
        (torch.from_numpy(logits), 1e-9),
        (torch.from_numpy(logits).float(), 1e-5),
    ):
        places = scoring.leaves(name, array, thresholds, temperatures, gates)
        assert type(places) is type(array)
        plain = np.asarray(array, dtype=np.float64)
        for row, leave in zip(plain, np.asarray(places), strict=True):
            expected = reference_leave(name, row, thresholds, temperatures, near, gates)
            assert expected is None or leave == expected


@settings(max_examples=100, deadline=None)
@given(cases())
def test_scores_and_answers(case: tuple[Any, ...]) -> None:
    name, logits, _, temperatures, gates = case
    expected = np.array([reference_scores(name, row, temperatures, gates) for row in logits])
    for array in (logits, torch.from_numpy(logits)):
        scores = scoring.scores(name, array, temperatures, gates)
        np.testing.assert_allclose(scores, expected, atol=1e-9)
        answers = [[reference_answer(exit) for exit in row] for row in logits]
        assert np.asarray(scoring.answers(array)).tolist() == answers


@pytest.mark.parametrize("name", scoring.SCORES)
def test_numpy_and_torch_agree_on_many_rows(name: str) -> None:
    logits = simulated(3000, 3).logits
    gates = GATES
    mine = scoring.scores(name, logits, None, gates)
    theirs = scoring.scores(name, torch.from_numpy(logits), None, gates).numpy()
    np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=2e-6)  # a score may be any number
    assert mine.dtype == theirs.dtype


@pytest.mark.parametrize("name", THRESHOLDED)
def test_a_score_that_ties_its_threshold_leaves(name: str) -> None:
    logits = np.zeros((1, 2, 2), dtype=np.float32)
    exact = {"confidence": 0.5, "entropy": 0.0, "margin": 0.0}[name]
    above = np.nextafter(np.float32(exact), np.float32(1))
    for array in (logits, torch.from_numpy(logits)):
        assert int(scoring.leaves(name, array, (exact, None))[0]) == 0
        assert int(scoring.leaves(name, array, (float(above), None))[0]) == 1


def test_two_largest_logits_that_tie_have_no_margin_and_answer_the_first() -> None:
    logits = np.array([[[1.0, 7.0, 7.0]]])
    assert scoring.scores("margin", logits)[0, 0] == 0
    assert scoring.answers(logits)[0, 0] == 1


@pytest.mark.parametrize("name", [name for name in scoring.SCORES if name != "fixed"])
def test_a_nan_logit_never_leaves_early(name: str) -> None:
    logits = np.array([[[NAN, 50.0], [50.0, 0.0], [0.0, 0.0]]], dtype=np.float32)
    sure = {"gate": ((0.0, 0.0, 0.0, 0.0, 5.0),) * 3}
    low = scoring.SCORES[name].low
    how = (name, logits, (low, low, None), None, sure.get(name))
    assert scoring.leaves(*how).tolist() == [1]
    logits[0, 1] = NAN
    assert scoring.leaves(*how).tolist() == [2]


@pytest.mark.parametrize("name", [name for name, score in scoring.SCORES.items() if score.of_row])
def test_the_score_of_a_row_without_a_kernel_is_the_same_up_to_rounding(name: str) -> None:
    of_row = scoring.SCORES[name].of_row
    assert of_row is not None
    rows = simulated(50, 1).logits[:, 1].astype(np.float64)
    for temperature in (1.0, 2.5):
        whole, _ = scoring.score(name, rows, temperature)
        assert [of_row(row, temperature) for row in rows.tolist()] == pytest.approx(whole.tolist())


@pytest.mark.parametrize("name", scoring.SCORES)
def test_whether_a_row_leaves_is_told_without_a_kernel_only_where_that_is_certain(name: str) -> None:
    rows = simulated(50, 1).logits[:, 1]
    whole, _ = scoring.score(name, rows, 2.5, None, GATES[0])
    for row, sure in zip(rows[:, None], whole.tolist(), strict=True):
        for threshold in (0.3, 0.9, sure, sure + scoring.NEAR / 2):
            quick = scoring.rows_leave(name, row, 2.5, threshold)
            assert quick in (None, [sure >= threshold])
            far = abs(sure - threshold) > 2 * scoring.NEAR
            assert (quick is not None) == (scoring.SCORES[name].of_row is not None and far)
    assert scoring.rows_leave(name, np.array([[9.0, 0.0], [NAN, 1.0]]), 1.0, 0.5) is None
    assert scoring.rows_leave(name, np.zeros((1, scoring.FEW + 1)), 1.0, 0.5) is None


def test_patience_counts_a_run_of_equal_answers_and_agreement_all_of_them() -> None:
    """A logit that is no number is no answer."""
    logits = np.array([[[0.0, 1.0], [NAN, 1.0], [0.0, 1.0], [0.0, 1.0]]])
    assert scoring.scores("patience", logits).tolist() == [[1, 0, 1, 2]]
    logits = np.array([[[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [NAN, 1.0], [0.0, 1.0], [1.0, 0.0]]])
    assert scoring.scores("agreement", logits).tolist() == [[1, 1, 2, 0, 3, 2]]
    assert scoring.scores("patience", logits).tolist() == [[1, 1, 1, 0, 1, 1]]


@pytest.mark.parametrize("name", scoring.SCORES)
def test_one_exit_takes_every_row(name: str) -> None:
    assert scoring.leaves(name, np.full((3, 1, 2), NAN), (None,)).tolist() == [0, 0, 0]


def test_one_class_is_always_sure() -> None:
    logits = np.zeros((2, 2, 1))
    assert [float(scoring.scores(name, logits)[0, 0]) for name in THRESHOLDED] == [1, 1, 1]


def test_half_precision_is_scored_in_single() -> None:
    logits = torch.from_numpy(simulated(50, 1).logits).half()
    assert scoring.scores("entropy", logits).dtype == torch.float32


def test_an_unknown_score_is_refused() -> None:
    with pytest.raises(ValueError, match="no score 'luck'"):
        scoring.scores("luck", np.zeros((1, 2, 2)))


@pytest.mark.parametrize("name", scoring.SCORES)
def test_one_exit_at_a_time_is_all_at_once(name: str) -> None:
    """As a predictor does it: rows that left are gone, the others' past goes on with them."""
    rows = simulated(400, 4).logits
    counted = dict.fromkeys(("patience", "agreement"), (2.0,) * 3)
    thresholds = {**counted, "fixed": (None, 0.0, None)}.get(name, (0.6,) * 3)
    gates = GATES
    expected = scoring.leaves(name, rows, (*thresholds, None), None, gates)
    inside, past, places = np.arange(400), None, np.full(400, 3)
    for exit, threshold in enumerate(thresholds):
        scores, past = scoring.score(name, rows[inside, exit], 1.0, past, gates[exit])
        stays = np.ones(len(inside), bool) if threshold is None else scores < threshold
        places[inside[~stays]] = exit
        inside = inside[stays]
        past = None if past is None else tuple(part[stays] for part in past)
    np.testing.assert_array_equal(places, expected)
    assert len(np.unique(places)) > 1 or name == "fixed"


def test_an_ensemble_answers_by_the_geometric_mean_of_the_exits_so_far() -> None:
    logits = simulated(200, 6).logits
    odds = np.exp(logits - logits.max(2, keepdims=True))
    odds = odds / odds.sum(2, keepdims=True)
    for array in (logits, torch.from_numpy(logits)):
        answering = np.asarray(scoring.all_answer_logits("ensemble", array))
        for exit in range(3):
            mean = np.prod(odds[:, : exit + 1], axis=1) ** (1 / (exit + 1))
            mean = mean / mean.sum(1, keepdims=True)
            shares = np.exp(answering[:, exit])
            np.testing.assert_allclose(shares / shares.sum(1, keepdims=True), mean, atol=1e-5)
        np.testing.assert_array_equal(answering[:, 3], logits[:, 3])  # the final exit answers alone
        np.testing.assert_array_equal(scoring.all_answer_logits("confidence", array), array)


def test_an_exit_that_is_sure_of_nothing_adds_nothing_to_an_ensemble() -> None:
    logits = np.array([[[2.0, 0.0], [NAN, 9.0], [0.0, 1.0], [0.0, 0.0]]])
    answering = scoring.all_answer_logits("ensemble", logits)
    same = scoring.all_answer_logits("ensemble", logits[:, [0, 2, 3]])
    np.testing.assert_allclose(answering[:, 1], answering[:, 0])
    np.testing.assert_allclose(answering[:, 2], same[:, 1])
    assert scoring.scores("ensemble", logits)[0, 1] == -INF


@pytest.mark.parametrize("name", [name for name, score in scoring.SCORES.items() if score.learned])
def test_what_was_never_learned_is_sure_of_nothing(name: str) -> None:
    logits = np.array([[[9.0, 0.0], [9.0, 0.0]]])
    assert scoring.scores(name, logits).tolist() == [[-INF, -INF]]
    assert scoring.leaves(name, logits, (0.0, None)).tolist() == [1]


def test_gates_of_any_size_overflow_nowhere() -> None:
    logits = np.array([[[900.0, 0.0]] * 2, [[0.0, 0.0]] * 2], np.float32)
    with np.errstate(over="raise", invalid="raise"):
        gated = scoring.scores("gate", logits, None, ((0, 0, 0, 0, -200.0), (0, 0, 0, 0, 200.0)))
        assert gated.tolist() == [[0.0, 1.0]] * 2


GRADED = [name for name, score in scoring.SCORES.items() if score.graded]


@pytest.mark.parametrize("name", GRADED)
def test_no_score_is_steeper_than_its_entry_says(name: str) -> None:
    """As rounding of a bundle's logits moves it; a learned score that stretches them says how much."""
    rows, step = simulated(2000, 12).logits.astype(np.float64), 1e-4
    moved = rows + np.random.default_rng(13).choice([-step, step], rows.shape)
    gates = GATES if scoring.SCORES[name].learned else (None,) * 4
    with np.errstate(invalid="ignore"):  # of an exit that has learned nothing
        by = np.abs(scoring.scores(name, moved, None, gates) - scoring.scores(name, rows, None, gates))
    for exit, gate in enumerate(gates):
        most = scoring.steepness(gate)
        assert np.isnan(by[:, exit]).all() or by[:, exit].max() <= most * step


# A score is one entry of SCORES; what else must know it says so at once, by the score's name


SITE = Path(web.__file__).parent / "site" / "network.js"
OF_A_CLASS = [name for name, score in SCORES.items() if not score.several]  # the page refuses others
DOCS = Path(__file__).parents[2] / "docs" / "calibration.md"


def on_page(script: str) -> list[str]:
    """The scores of the page of `export --web`, whether their names are quoted or not."""
    table = script.partition("const SCORES = {")[2].partition("\n};")[0]
    return [name for _, name in re.findall(r"^  (['\"]?)([\w-]+)\1(?=:|\()", table, re.MULTILINE)]


def differing(names: Iterable[str], scores: Iterable[str] = SCORES) -> list[str]:
    return sorted(set(names) ^ set(scores))


def test_the_page_has_every_score() -> None:
    """Else it throws at the first image under a score that it lacks."""
    script = SITE.read_text(encoding="utf-8")
    assert differing(on_page(script), OF_A_CLASS) == []
    assert differing(on_page(script.replace("  margin: ", '  "margin": ')), OF_A_CLASS) == []
    spoiled = script.replace("  margin: ", "  gap: ").replace("  patience: ", "  'run-length': ")
    assert differing(on_page(spoiled), OF_A_CLASS) == ["gap", "margin", "patience", "run-length"]


def test_every_score_is_explained() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert differing(rows) == []
