"""Offsets of classes, learned where the truth is known: one early exit, whose answer is right with a
chance that is a curve of its confidence and of the class that it says; the final exit is right."""

import json
from functools import cache

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit
from syrupy.assertion import SnapshotAssertion

from longer import long
from offramp.policy import guarantees as risk
from offramp.policy import learned, scoring
from offramp.policy.calibrate import calibrate
from offramp.policy.calibration import Calibration, Target
from offramp.policy.candidates import Search, SplitLogits, candidates, loss_of, where_left
from offramp.policy.costs import Costs
from offramp.policy.policy import Policy, parse, to_json
from offramp.study.trained import Trained
from simulated import COSTS as DEEP
from simulated import FOUR, simulated
from wording import refusal

COSTS = Costs((10, 30), (1, 1), (0, 0), (1, 2))
UNLIKE = (2.0, 1.0, -1.0, -2.0)
ALIKE = (0.0,) * 4
SEARCHES = (Search("confidence"), Search("classwise"))


def made(rows: int, seed: int, offsets: tuple[float, ...] = UNLIKE, slope: float = 1.0) -> SplitLogits:
    """The early exit says each class as often, with log-odds of N(2, 1.5), and is right with the chance
    of the sigmoid of slope · log-odds + offset."""
    draw = np.random.default_rng(seed)
    answers = draw.integers(0, 4, rows)
    odds = np.maximum(draw.normal(2, 1.5, rows), -1)
    right = draw.random(rows) < expit(slope * odds + np.asarray(offsets)[answers])
    labels = np.where(right, answers, (answers + draw.integers(1, 4, rows)) % 4)
    logits = np.zeros((rows, 2, 4))
    logits[np.arange(rows), 0, answers] = odds + np.log(3)
    logits[np.arange(rows), 1, labels] = 9
    return SplitLogits(logits.astype(np.float32), labels)


def offsets_of(rows: SplitLogits) -> np.ndarray:
    """[C], of the first exit."""
    return np.array(learned.offsets(rows.logits, rows.labels)[0])


def harm(policy: Policy, rows: SplitLogits) -> np.ndarray:
    lost = loss_of("harm", scoring.answers(rows.logits), rows.labels)
    return where_left(lost, policy.leaves(rows.logits))


@pytest.mark.parametrize("slope", [0.7, *long(1.0), 1.5])
def test_offsets_are_those_of_the_truth(slope: float) -> None:
    """Over the slope: they are of confidence. Where all classes lie is the threshold's to say."""
    fitted = offsets_of(made(20_000, 1, slope=slope))
    np.testing.assert_allclose(fitted - fitted.mean(), np.array(UNLIKE) / slope, atol=0.25)


def test_classes_that_are_alike_have_none_but_by_chance() -> None:
    fitted = np.array([offsets_of(made(1000, seed, ALIKE)) for seed in range(40)])
    assert (fitted == 0).all(axis=1).mean() > 0.8 and np.abs(fitted).max() < 0.5
    # The control: as many images tell classes apart that are.
    assert np.abs(offsets_of(made(1000, 0))).min() > 0.5


def test_without_offsets_it_is_confidence() -> None:
    rows = next(
        split for split in (made(600, s, ALIKE) for s in range(99)) if not offsets_of(split).any()
    )
    plain, by_class = (candidates(rows, COSTS, how, "harm") for how in SEARCHES)
    assert len(plain) == len(by_class)
    for classwise, other in zip(plain, by_class, strict=True):
        np.testing.assert_array_equal(classwise.leaves(rows.logits), other.leaves(rows.logits))


@pytest.mark.parametrize(
    "target", [Target("risk", 0.05, 0.95), *long(Target("max-accuracy-loss", 0.04))], ids=str
)
def test_unlike_classes_cost_less_at_the_same_loss(target: Target) -> None:
    fresh = made(20_000, 9)
    macs, harms = {}, {}
    for how in SEARCHES:
        rule = calibrate(made(2000, 2), made(4000, 3), COSTS, target, how).policy
        macs[how.score] = np.asarray(rule.macs(COSTS))[rule.leaves(fresh.logits)].mean()
        harms[how.score] = harm(rule, fresh).mean()
    assert max(harms.values()) <= target.value
    assert macs["classwise"] < 0.9 * macs["confidence"]
    assert abs(harms["classwise"] - harms["confidence"]) < 0.01


def test_classes_that_are_alike_cost_what_they_did() -> None:
    """Nothing is gained, and no more than chance is lost."""
    fresh = made(20_000, 9, ALIKE)
    splits = made(2000, 2, ALIKE), made(4000, 3, ALIKE)
    rules = [calibrate(*splits, COSTS, Target("risk", 0.05, 0.95), how).policy for how in SEARCHES]
    plain, by_class = (np.asarray(r.macs(COSTS))[r.leaves(fresh.logits)].mean() for r in rules)
    assert by_class == pytest.approx(plain, rel=0.02)
    assert all(harm(rule, fresh).mean() <= 0.05 for rule in rules)


def test_rare_classes_are_drawn_to_the_common_threshold() -> None:
    rows, more = made(4000, 4), made(40, 5, (0.0, 0.0, 0.0, -6.0))
    seldom = more.logits[:, 0].argmax(1) == 3
    few = seldom & (np.cumsum(seldom) <= 3)
    often = rows.logits[:, 0].argmax(1) != 3
    logits = np.concatenate([rows.logits[often], more.logits[few]])
    labels = np.concatenate([rows.labels[often], more.labels[few]])
    fitted = offsets_of(SplitLogits(logits, labels))
    assert (more.labels[few] != 3).all() and few.sum() == 3  # all three were wrong
    assert -4.0 < fitted[3] < -0.5  # the truth is -6
    never = offsets_of(SplitLogits(rows.logits[often], rows.labels[often]))
    assert never[3] == 0 and np.abs(never[:3]).min() > 0.1


def test_what_teaches_nothing() -> None:
    rows = made(200, 6)
    none = ((0.0,) * 4, None)
    assert learned.offsets(np.full((3, 2, 4), np.nan), np.zeros(3, int)) == none
    assert learned.offsets(rows.logits[:, :1], rows.labels) == (None,)
    assert learned.offsets(rows.logits[:, [1, 1]], rows.labels) == none  # nothing is ever lost
    gone = rows.logits.copy()
    gone[::3] = np.inf
    finite = np.arange(200) % 3 != 0
    whole = learned.offsets(rows.logits[finite], rows.labels[finite])
    assert learned.offsets(gone, rows.labels) == whole != none


def test_a_class_that_no_exit_knows_is_left_early() -> None:
    """Leaving loses nothing where the full network is wrong as well."""
    rows = made(4000, 7, ALIKE)
    lost = rows.logits[:, 0].argmax(1) == 2
    rows.logits[lost, 1] = rows.logits[lost, 0]
    outcome = offsets_of(rows)
    assert outcome.argmax() == 2 and outcome[2] > 2


# --- guarantees -------------------------------------------------------------------------------------


@cache
def losses_of(seed: int) -> np.ndarray:
    """[N, J]: harm of each candidate of that validation split but the full network, of many images."""
    pool = made(20_000, 11)
    rules = candidates(made(300, seed), COSTS, SEARCHES[1], "harm")[1:]
    return np.column_stack([harm(rule, pool) for rule in rules])


def test_learn_then_test_keeps_its_word() -> None:
    """Offsets and order are of validation: a fixed family, whatever calibration images are drawn."""
    lost = losses_of(12)
    true, draw = lost.mean(axis=0), np.random.default_rng(13)
    draws, above, certified = 400, 0, 0
    for _ in range(draws):
        count = risk.learn_then_test(lost[draw.integers(0, len(lost), 500)], 0.05, 0.95)
        above += count > 0 and true[:count].max() > 0.05
        certified += count > 0
    assert above / draws <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / draws)
    assert certified > draws / 2


def test_thresholds_of_the_calibration_images_would_break_it() -> None:
    """The control: each class is cut where its last calibration image is lost. None is lost then, by
    which 300 images certify a risk of 1 % wherever the cuts were known before."""
    pool, draws, above = made(20_000, 11), 100, 0

    def seen(rows: SplitLogits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        answers = scoring.answers(rows.logits)[:, 0]
        return scoring.scores("confidence", rows.logits)[:, 0], answers, answers != rows.labels

    sure, answers, lost = seen(pool)
    for seed in range(draws):
        ours, class_, gone = seen(made(300, 1000 + seed))
        cuts = np.array([ours[gone & (class_ == c)].max(initial=0) for c in range(4)])
        assert risk.learn_then_test((gone & (ours > cuts[class_]))[:, None], 0.01, 0.95) == 1
        above += (lost & (sure > cuts[answers])).mean() > 0.01
    assert stats.binomtest(above, draws, 0.05, alternative="greater").pvalue < 1e-6


@pytest.mark.parametrize("score", learned.LEARNERS)
def test_calibration_images_teach_nothing(score: str) -> None:
    rows, target = made(500, 1), Target("max-accuracy-loss", 0.05)
    first, other = (calibrate(rows, made(900, s), COSTS, target, Search(score)) for s in (5, 6))
    assert first.candidates == other.candidates and first.measures != other.measures


@pytest.mark.parametrize("score", learned.LEARNERS)
def test_without_labels_the_full_network_s_answers_stand_for_them(score: str) -> None:
    rows, learn = made(500, 1), learned.LEARNERS[score]
    shuffled = SplitLogits(rows.logits, np.roll(rows.labels, 1))
    policies = candidates(rows, COSTS, Search(score), "disagreement")
    assert policies == candidates(shuffled, COSTS, Search(score), "disagreement")
    assert {rule.gates for rule in policies} == {learn(rows.logits, rows.labels, COSTS)}
    assert {rule.gates for rule in policies} != {learn(rows.logits, shuffled.labels, COSTS)}


# --- the policy -------------------------------------------------------------------------------------


OFFSETS = (tuple(np.linspace(-1, 1, 10).tolist()),) * 3 + (None,)


@pytest.mark.parametrize("score", learned.LEARNERS)
def test_a_policy_file_keeps_what_exits_have_learned_to_the_bit(score: str) -> None:
    gates = OFFSETS if score == "classwise" else ((1 / 3, -1.0, 0.1, 2.0, -7.0),) * 3 + (None,)
    origin = Calibration("t", "ab" * 32, 10)
    policy = Policy(score, FOUR, (0.5, None, 0.25, None), None, origin, gates=gates)
    assert parse(to_json(policy)) == policy
    rows = json.loads(to_json(policy))["exits"]
    assert tuple(rows[0]["gate"]) == gates[0] and rows[3]["gate"] is None


def test_offsets_that_do_not_fit_are_refused(snapshot: SnapshotAssertion) -> None:
    made_for = Calibration("t", "ab" * 32, 9)
    about = (FOUR, (0.5, None, 0.25, None))
    assert refusal(Policy, "classwise", *about) == snapshot
    assert refusal(Policy, "classwise", *about, None, made_for, gates=OFFSETS) == snapshot
    uneven = (OFFSETS[0][:3], *OFFSETS[1:])
    assert refusal(Policy, "classwise", *about, gates=uneven) == snapshot
    policy = Policy("classwise", *about, gates=OFFSETS)
    assert refusal(policy.leaves, np.zeros((2, 4, 7))) == snapshot


def test_gates_that_a_trial_learned_are_no_offsets() -> None:
    rows = simulated(50, 1)
    gates = ((1.0, 2.0, 3.0, 4.0, -5.0),) * 3 + (None,)
    about = ("t", "ab" * 32, FOUR, ("x",) * 10, 40, DEEP)
    trained = Trained(*about, validation=rows, calibration=rows, test=rows, gates=gates)
    assert trained.search(Search("gate")).gates == gates
    assert trained.search(Search("classwise")).gates is None
