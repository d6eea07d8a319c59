import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from longer import long
from offramp.policy import guarantees as risk
from offramp.policy import scoring, solve
from offramp.policy.candidates import Search, candidates, loss_of, where_left
from offramp.policy.costs import Costs
from simulated import COSTS, simulated

DRAWS = 250  # of calibration images; what docs/calibration.md says is tried with 1,000 (`--long`)
ALLOWED = 0.091  # 5 % and three standard errors of a share of so many draws


@pytest.fixture(
    autouse=True,
    scope="module",
    params=[None, pytest.param(1000, marks=pytest.mark.long)],
    ids=["", "1,000 draws"],
)
def _draws(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param is not None:
            patch.setitem(globals(), "DRAWS", request.param)
            patch.setitem(globals(), "ALLOWED", 0.071)
        yield


def hoeffding_bentkus(mean: float, rows: int, level: float) -> float:
    """The p-value of Learn then Test's paper, for comparison."""
    low = min(mean, level)
    relative = low * math.log(low / level) if low > 0 else 0.0
    relative += (1 - low) * math.log((1 - low) / (1 - level)) if low < 1 else 0.0
    return min(math.exp(-rows * relative), math.e * stats.binom.cdf(math.ceil(rows * mean), rows, level))


def binomial_tail(failures: int, rows: int, level: float) -> float:
    """The chance of at most so many failures if the true risk were `level`."""
    return float(stats.binom.cdf(failures, rows, level))


@given(st.integers(1, 2000), st.data(), st.floats(0.001, 0.5))
@settings(max_examples=200, deadline=None)
def test_the_exact_tail_is_never_above_hoeffding_and_bentkus(
    rows: int, data: st.DataObject, level: float
):
    failures = data.draw(st.integers(0, rows))
    loose = hoeffding_bentkus(failures / rows, rows, level)
    assert binomial_tail(failures, rows, level) <= loose + 1e-12


@given(st.integers(1, 3000), st.data(), st.floats(0.001, 0.5))
@settings(max_examples=200, deadline=None)
def test_the_bound_is_the_test_turned_around(rows: int, data: st.DataObject, level: float):
    failures = data.draw(st.integers(0, rows))
    p = binomial_tail(failures, rows, level)
    if abs(p - 0.05) > 1e-9:
        assert (p <= 0.05) == (risk.upper_bound(failures, rows, 0.95) <= level)


def violations(losses: np.ndarray, true: np.ndarray, rows: int, level: float, certify) -> float:
    """Share of draws of `rows` rows in which the last certified candidate's true risk is above."""
    draw = np.random.default_rng(0)
    above = 0
    for _ in range(DRAWS):
        count = certify(losses[draw.integers(0, len(losses), rows)])
        above += count > 0 and true[count - 1] > level
    return above / DRAWS


def hopeful(losses: np.ndarray) -> int:
    """Broken: takes the observed risk for the true one."""
    passed = losses.mean(axis=0) <= 0.05
    return len(passed) if passed.all() else int(np.argmin(passed))


def choosy(losses: np.ndarray) -> int:
    """Broken: tests everything at full level and takes the last that passes, wherever it is."""
    passed = stats.binom.cdf(losses.sum(axis=0), len(losses), 0.05) <= 0.05
    return int(np.flatnonzero(passed)[-1]) + 1 if passed.any() else 0


def nearly_bad(candidates: int = 40) -> np.ndarray:
    """The hardest case: independent losses, all of a true risk a hair above 5 %."""
    draw = np.random.default_rng(1)
    losses = np.zeros((20_000, candidates))
    for j in range(candidates):
        losses[draw.permutation(20_000)[:1002], j] = 1
    return losses


@pytest.fixture(scope="module")
def population() -> tuple[np.ndarray, np.ndarray]:
    """Losses of candidates made on a validation split, on inputs that stand for the world."""
    world, validation = simulated(8000, 11), simulated(1000, 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(solve, "NEAR", 6)
        policies = candidates(validation, COSTS, Search(), "harm")[1:]
    lost = loss_of("harm", scoring.answers(world.logits), world.labels)
    lose = np.column_stack([where_left(lost, p.leaves(world.logits)) for p in policies])
    return lose, lose.mean(axis=0)


@pytest.mark.parametrize("rows", [300, 1000])
def test_learn_then_test_keeps_its_word(population: tuple[np.ndarray, np.ndarray], rows: int) -> None:
    losses, true = population

    def certify(sample: np.ndarray) -> int:
        return risk.learn_then_test(sample, 0.05, 0.95)

    assert violations(losses, true, rows, 0.05, certify) <= ALLOWED
    assert violations(losses, true, rows, 0.05, hopeful) > ALLOWED


def test_learn_then_test_at_the_worst_case_and_a_broken_bound() -> None:
    losses = nearly_bad()
    true = losses.mean(axis=0)
    share = violations(losses, true, 500, 0.05, lambda s: risk.learn_then_test(s, 0.05, 0.95))
    assert 0.01 < share <= ALLOWED
    assert violations(losses, true, 500, 0.05, choosy) > 0.5
    assert violations(losses, true, 500, 0.05, hopeful) > ALLOWED


@pytest.mark.parametrize(("rows", "true"), [(300, 0.01), (300, 0.05), (2500, 0.01), (50, 0.4)])
def test_the_bound_is_rarely_below_the_true_risk(rows: int, true: float) -> None:
    failures = np.random.default_rng(2).binomial(rows, true, DRAWS)
    below = np.mean([risk.upper_bound(int(k), rows, 0.95) < true for k in failures])
    assert below <= ALLOWED
    assert np.mean(failures / rows < true) > ALLOWED  # the observed risk is no bound


@pytest.mark.parametrize("rows", [200, 1000])
@pytest.mark.parametrize("level", [0.02, 0.05])
def test_conformal_risk_control_keeps_the_mean(
    population: tuple[np.ndarray, np.ndarray], rows: int, level: float
) -> None:
    losses, true = population
    draw = np.random.default_rng(3)
    risks = []
    for _ in range(DRAWS):
        count = risk.conformal(losses[draw.integers(0, len(losses), rows)], level)
        risks.append(true[count - 1] if count else 0.0)
    error = np.std(risks, ddof=1) / math.sqrt(DRAWS)
    assert np.mean(risks) <= level + 3 * error
    assert np.mean(risks) > level / 2  # and it is not idle
    assert np.mean(np.array(risks) > level) > ALLOWED  # which is why it is called what it is


def test_conformal_risk_control_is_not_the_last_that_fits() -> None:
    """Candidates of equal true risk above the target, whose losses fall on different rows."""
    losses = nearly_bad(200)
    true = losses.mean(axis=0)

    def last_that_fits(sample: np.ndarray) -> int:
        passed = (sample.sum(axis=0) + 1) / (len(sample) + 1) <= 0.045
        return int(np.flatnonzero(passed)[-1]) + 1 if passed.any() else 0

    draw = np.random.default_rng(4)
    samples = [losses[draw.integers(0, len(losses), 300)] for _ in range(200)]
    for certify, holds in ((lambda s: risk.conformal(s, 0.045), True), (last_that_fits, False)):
        risks = [true[n - 1] if (n := certify(s)) else 0.0 for s in samples]
        assert (np.mean(risks) <= 0.045) == holds


def last_that_fits(losses: np.ndarray, target: float) -> int:
    """Without a margin: the cheapest candidate whose loss is at most the target where it was chosen."""
    fits = losses.mean(axis=0) <= target + 1e-12
    return int(np.flatnonzero(fits)[-1]) + 1 if fits.any() else 0


def true_losses(lose: np.ndarray, rows: int, target: float, choose) -> np.ndarray:
    """The true loss of what was chosen, in each of DRAWS / 2 draws of `rows` rows."""
    draw, true = np.random.default_rng(5), lose.mean(axis=0)
    counts = (choose(lose[draw.integers(0, len(lose), rows)], target) for _ in range(DRAWS // 2))
    return np.array([true[count - 1] if count else 0.0 for count in counts])


@pytest.fixture(
    scope="module",
    params=[3, pytest.param(5, marks=pytest.mark.long)],
    ids=["two early exits", "four early exits"],
)
def losses_of_accuracy(request: pytest.FixtureRequest) -> np.ndarray:
    """What policies made on a validation split lose against the full network, on 20,000 inputs."""
    exits = request.param
    world, validation = simulated(20_000, 11, exits), simulated(1000, 12, exits)
    costs = Costs((10,) * exits, (1,) * exits, (0,) * exits, tuple(range(1, exits + 1)))
    wrong = loss_of("wrong", scoring.answers(world.logits), world.labels)
    policies = candidates(validation, costs, Search(), "wrong")[1:]
    lose = [where_left(wrong, policy.leaves(world.logits)) - wrong[:, -1] for policy in policies]
    return np.column_stack(lose).astype(np.int8)


@pytest.mark.parametrize(("rows", "target"), [(1000, 0.01), *long((200, 0.02), (5000, 0.01))])
def test_a_target_is_met_on_average(losses_of_accuracy: np.ndarray, rows: int, target: float) -> None:
    losses = true_losses(losses_of_accuracy, rows, target, risk.met_on_average)
    assert losses.mean() <= target
    assert np.mean(losses > target) < 0.2  # docs/calibration.md
    assert len(np.unique(losses)) > 3  # and it is not idle
    hopeful = true_losses(losses_of_accuracy, rows, target, last_that_fits)
    assert np.mean(hopeful > target) > 0.25
    assert rows > 1000 or hopeful.mean() > target


@pytest.mark.parametrize("rows", [200, *long(1000, 5000)])
def test_the_best_of_many_equals_looks_better_than_it_is(rows: int) -> None:
    losses, target = nearly_bad(200).astype(np.int8), 0.048
    assert true_losses(losses, rows, target, risk.met_on_average).mean() < target / 2
    assert true_losses(losses, rows, target, last_that_fits).mean() > target


def test_a_standard_error_and_a_row_to_spare() -> None:
    """Of 999 rows and a target of 10: 6 lost leave room for a deviation of 2.4 and one; 8 do not."""
    losses = np.zeros((999, 3))
    for j, lost in enumerate((6, 8, 0)):
        losses[:lost, j] = 1
    assert risk.met_on_average(losses, 0.01) == 1
    assert risk.met_on_average(losses[:, 2:], 0.01) == 1
    assert risk.met_on_average(losses[:98, 2:], 0.01) == 0 < risk.met_on_average(losses[:99, 2:], 0.01)
    gained = np.zeros((999, 1))
    gained[:30], gained[30:34] = -1, 1
    assert risk.met_on_average(gained, 0.0) == 1


def test_nothing_and_everything_certified() -> None:
    assert risk.learn_then_test(np.zeros((298, 3)), 0.01, 0.95) == 0
    assert risk.learn_then_test(np.zeros((299, 3)), 0.01, 0.95) == 3
    assert risk.conformal(np.zeros((98, 3)), 0.01) == 0
    assert risk.conformal(np.zeros((99, 3)), 0.01) == 3
    assert risk.upper_bound(5, 5, 0.95) == 1.0


def test_conformal_losses_that_move_to_other_rows_add_up() -> None:
    moving = np.zeros((99, 4))
    moving[[0, 1, 1, 2], range(4)] = 1  # each candidate errs on one row: 0.02 allows a loss of 1
    assert risk.conformal(moving, 0.02) == 1
    assert risk.conformal(np.repeat(moving[:, :1], 4, axis=1), 0.02) == 4


def test_a_candidate_behind_one_that_failed_is_not_certified() -> None:
    sample = np.zeros((500, 3))
    sample[:100, 1] = 1
    assert risk.learn_then_test(sample, 0.01, 0.95) == 1


@pytest.mark.parametrize("rate", [0.0, 0.002, 0.006])
def test_rows_needed_are_the_fewest(rate: float) -> None:
    fewest = risk.rows_needed(0.01, 0.95, rate)
    assert fewest is not None

    def enough(rows: int) -> bool:
        return binomial_tail(math.ceil(rate * rows), rows, 0.01) <= 1 - 0.95

    assert enough(fewest) and not any(enough(n) for n in range(max(1, fewest - 300), fewest))
    on_average = risk.rows_needed_on_average(0.01, rate)
    assert on_average is not None
    assert (on_average * rate + 1) / (on_average + 1) <= 0.01 + 1e-12
    assert ((on_average - 1) * rate + 1) / on_average > 0.01


def test_no_number_is_enough_for_a_rate_at_the_target() -> None:
    assert risk.rows_needed(0.01, 0.95, 0.01) is None
    assert risk.rows_needed_on_average(0.01, 0.02) is None


@pytest.mark.usefixtures("narrow")
def test_the_risk_bounds_the_loss_of_accuracy() -> None:
    rows = simulated(1000, 13)
    answers = scoring.answers(rows.logits)
    harm, wrong = (loss_of(kind, answers, rows.labels) for kind in ("harm", "wrong"))
    for policy in candidates(rows, COSTS, Search(), "harm"):
        leaves = policy.leaves(rows.logits)
        lost = where_left(wrong, leaves).mean() - wrong[:, -1].mean()
        assert lost <= where_left(harm, leaves).mean() + 1e-12


SHARES = (0.9, 0.1)  # of the classes that are to come
STRATA = risk.Strata(np.arange(400) % 2, SHARES)  # of which calibration has as many of each


def by_class(harms: tuple[float, float], strata: risk.Strata, draw: np.random.Generator) -> np.ndarray:
    """[N, 20] losses of candidates, of which each class loses such a share, the last two of them; the
    others are a little safer."""
    rates = np.asarray(harms)[strata.labels]
    return (draw.random(len(rates))[:, None] < rates[:, None] * np.linspace(0.9, 1, 20)).astype(float)


def above(harms: tuple[float, float], level: float, certify, strata: risk.Strata = STRATA) -> float:
    """Share of draws in which the last certified candidate's risk, by the shares, is above."""
    draw = np.random.default_rng(5)
    true = np.asarray(strata.shares) @ np.asarray(harms) * np.linspace(0.9, 1, 20)
    counts = [certify(by_class(harms, strata, draw)) for _ in range(DRAWS)]
    return float(np.mean([count > 0 and true[count - 1] > level for count in counts]))


EVEN, UNEVEN = np.arange(400) % 2, np.arange(400) % 8 % 7 % 2


@pytest.mark.parametrize(
    ("harms", "labels"),
    [
        ((0.056, 0.001), UNEVEN),
        *long(((0.0, 0.51), EVEN)),
        *long(((0.051, 0.051), EVEN), ((0.056, 0.001), EVEN)),
        *long(((0.051, 0.051), UNEVEN), ((0.0, 0.51), UNEVEN)),
    ],
)
def test_a_weighted_guarantee_keeps_its_word(harms: tuple[float, float], labels: np.ndarray) -> None:
    """Calibration has other shares of classes than what is to come, of which true risks are near 5 %."""
    strata = risk.Strata(labels, SHARES)
    share = above(harms, 0.05, lambda s: risk.learn_then_test(s, 0.05, 0.95, strata), strata)
    assert share <= ALLOWED


def test_without_weights_or_with_as_many_rows_as_there_are_it_does_not() -> None:
    frequent = (0.056, 0.0)  # whom the calibration images show too seldom
    assert above(frequent, 0.05, lambda s: risk.learn_then_test(s, 0.05, 0.95)) > 0.5
    seldom = risk.Strata((np.arange(400) >= 10).astype(int), SHARES)  # ten rows count for nine tenths

    def weighted(losses: np.ndarray) -> int:
        return risk.learn_then_test(losses, 0.05, 0.95, seldom)

    def binomial(losses: np.ndarray) -> int:
        """Broken: weighs the rows and counts them as if they were alike."""
        failures = np.round(seldom.weights @ losses)
        passed = stats.binom.cdf(failures, len(losses), 0.05) <= 0.05
        return len(passed) if passed.all() else int(np.argmin(passed))

    assert above(frequent, 0.05, binomial, seldom) > ALLOWED
    assert above(frequent, 0.05, weighted, seldom) <= ALLOWED
    assert round(seldom.effective) == 12


@pytest.mark.parametrize("harms", [(0.08, 0.01), (0.0, 0.9), (0.06, 0.06)], ids=str)
def test_weighted_conformal_risk_control_keeps_the_mean(harms: tuple[float, float]) -> None:
    draw = np.random.default_rng(6)
    true = np.asarray(SHARES) @ np.asarray(harms) * np.linspace(0.9, 1, 20)
    risks: dict[str, list[float]] = {"weighted": [], "plain": []}
    for _ in range(DRAWS):
        losses = by_class(harms, STRATA, draw)
        for name, strata in (("weighted", STRATA), ("plain", None)):
            count = risk.conformal(losses, 0.05, strata)
            risks[name].append(true[count - 1] if count else 0.0)
    error = np.std(risks["weighted"], ddof=1) / math.sqrt(DRAWS)
    assert np.mean(risks["weighted"]) <= 0.05 + 3 * error
    if harms[0] == 0.08:
        assert np.mean(risks["plain"]) > 0.05 + 3 * error and np.mean(risks["weighted"]) > 0.005


@given(st.integers(1, 40), st.integers(41, 500), st.floats(0.01, 0.3))
@settings(max_examples=40, deadline=None)
def test_weights_that_are_all_one_cost_little(failures: int, rows: int, level: float) -> None:
    """No more than Hoeffding's and Bentkus's bound in place of the exact tail."""
    even = risk.Strata(np.zeros(rows, dtype=int), (1.0,))
    assert np.allclose(even.weights, 1) and math.isclose(even.effective, rows)
    mean = failures / rows
    p = even.p_value(mean, level)
    assert binomial_tail(failures, rows, level) <= p + 1e-12
    assert p <= (hoeffding_bentkus(mean, rows, level) if mean < level else 1) + 1e-12
    lost = (np.arange(rows) < failures).astype(float)[:, None]
    assert risk.conformal(lost, level, even) == risk.conformal(lost, level)
    assert risk.met_on_average(lost, level, even) == risk.met_on_average(lost, level)
    assert even.p_value(mean, even.upper_bound(mean, 0.95)) == pytest.approx(0.05, abs=1e-4)
