"""The server's alarm: its bound on false alarms, by simulation, and what it names."""

from pathlib import Path

import numpy as np
import pytest

from longer import long
from offramp.bundle.expected import Expected, ExpectedShare, expect
from offramp.policy.calibration import Calibration, Chosen
from offramp.policy.candidates import SplitLogits
from offramp.policy.costs import Costs
from offramp.policy.policy import Policy
from offramp.policy.scoring import probabilities
from offramp.serve.alarm import Detector
from offramp.store import pack
from offramp.study.trained import Trained

BOUNDS = np.array([[0.68, 0.76], [0.16, 0.22], [0.2, 0.3]])
DAY = 864_000  # images, at ten a second


def run_lengths(bounds: np.ndarray, chances: np.ndarray, every: float, most: int) -> np.ndarray:
    """Images until the alarm of each of 400 replicates, at most `most`. chances: of each share."""
    chance, replicates = np.random.default_rng(0), 400
    detector = Detector(bounds, every, (replicates,))
    ended = np.full(replicates, most)
    for image in range(1, most):
        alarm = detector.observe((chance.random((replicates, len(bounds))) < chances).astype(float))
        ended = np.where(alarm & (ended == most), image, ended)
        if (ended < most).all():
            break
    return ended


@pytest.mark.parametrize("edge", [0, 1], ids=["lower", "upper"])
def test_false_alarms_are_as_rare_as_promised_at_the_very_bounds(edge: int) -> None:
    """The least favorable shares that count as calibration's: on a bound, all at once. Runs that are cut
    short make the mean smaller, so the promise is held against less than it says."""
    every = 50.0
    assert run_lengths(BOUNDS, BOUNDS[:, edge], every, 1500).mean() > every


def test_beyond_the_bounds_the_promise_ends() -> None:
    """The control: a test that raised nothing would hold any promise."""
    assert run_lengths(BOUNDS, BOUNDS[:, 0] - 0.12, 1e4, 1500).mean() < 600


def test_images_that_depend_on_each_other_change_nothing() -> None:
    """A share that swings between its bounds, hundreds of images at a time, stays within them."""
    chance, every = np.random.default_rng(1), 50.0
    detector = Detector(BOUNDS[:1], every, (400,))
    ended = np.full(400, 1200)
    for image in range(1, 1200):
        share = BOUNDS[0, image // 300 % 2]
        alarm = detector.observe((chance.random((400, 1)) < share).astype(float))
        ended = np.where(alarm & (ended == 1200), image, ended)
    assert ended.mean() > every


def test_what_changed_is_named_with_its_share_and_since_when() -> None:
    shares = [
        ExpectedShare("exit", 0.72, 0.68, 0.76, 1),
        ExpectedShare("exit", 0.19, 0.16, 0.22, 2),
        ExpectedShare("score", 0.25, 0.2, 0.3, 1, 0.8),
    ]
    chance, detector = np.random.default_rng(3), Detector(BOUNDS, 315_360_000)
    before = 5_000
    for hits in (chance.random((before, 3)) < [0.72, 0.19, 0.25]).astype(float):
        assert not detector.observe(hits)
    images = 0
    for hits in (chance.random((5_000, 3)) < [0.45, 0.19, 0.25]).astype(float):
        images += 1
        if detector.observe(hits):
            break
    assert images < 600  # a minute, at ten a second
    (change,) = detector.changes(shares)  # the others stayed, and are not named
    assert change.share is shares[0] and abs(change.value - 0.45) < 0.08
    assert images / 2 < change.took < images + 60 and change.images == change.took


@pytest.mark.parametrize("every", [2, 500])
def test_what_nothing_is_known_of_is_not_named_however_often_alarms_may_be_false(every: int) -> None:
    """Of the second share no image has said anything, and no bet is made on the third."""
    shares = [
        ExpectedShare("exit", 0.5, 0.4, 0.6, 1),
        ExpectedShare("score", 0.1, 0.05, 0.2, 1, 0.5),
        ExpectedShare("exit", 0.0, 0.0, 1.0, 2),
    ]
    detector = Detector(np.array([(each.low, each.high) for each in shares]), every)
    while not detector.observe(np.array([1.0, np.nan, 0.0])):
        pass
    (change,) = detector.changes(shares)
    assert change.share is shares[0] and change.value == 1


def test_what_says_nothing_of_a_share_leaves_it_as_it_was() -> None:
    detector = Detector(BOUNDS, 1e9)
    detector.observe(np.array([0.0, 1.0, 1.0]))
    before = detector.evidence.copy()
    assert not detector.observe(np.array([np.nan, np.nan, np.nan]))
    assert (detector.evidence == before).all()


def test_no_bet_is_made_beyond_0_and_1() -> None:
    detector = Detector(np.array([[0.0, 0.02], [0.97, 1.0]]), 1e9)
    for _ in range(3000):
        assert not detector.observe(np.array([0.0, 1.0]))
    assert (detector.evidence <= 0).all()


def trial(seed: int, images: int, shift: float = 0.0) -> Trained:
    """A network that is not there: logits of two exits, the second surer. shift: how much less sure."""

    def rows(chance: np.random.Generator) -> SplitLogits:
        labels = chance.integers(0, 4, images)
        logits = chance.normal(0, 1, (images, 2, 4)).astype(np.float32)
        logits[np.arange(images), :, labels] += np.array([1.5, 3.0]) - shift
        return SplitLogits(logits, labels)

    splits = [rows(np.random.default_rng(seed + i)) for i in range(3)]
    costs = Costs((100, 100), (0, 0), (0, 0), (1, 2))
    return Trained("t", "0" * 64, (1, 2), ("a", "b", "c", "d"), 200, costs, *splits)


RULE = Policy("confidence", (1, 2), (0.7, None))


def test_what_is_expected_is_counted_on_calibration() -> None:
    of, truth = trial(0, 2_000), trial(50, 200_000)
    expected, there = expect(RULE, of, (1, 2)), expect(RULE, truth, (1, 2))
    leaves = RULE.leaves(of.calibration.logits)
    first = expected.of_exit(1)
    assert first.value == (leaves == 0).mean()
    assert expected.images == 2_000 and expected.compute == pytest.approx(
        0.5 + 0.5 * (leaves == 1).mean()
    )
    kinds = [(share.of, share.exit) for share in expected.shares]
    assert kinds.count(("score", 1)) == 3 and kinds.count(("score", 2)) == 3
    for share in there.shares:
        if share.of != "score":  # of another cut
            (mine,) = (s for s in expected.shares if (s.of, s.exit) == (share.of, share.exit))
            assert mine.low <= share.value <= mine.high


def test_bounds_are_worth_their_level_and_narrow_with_images() -> None:
    """Control: what a single calibration had is no bound: half of the others are beyond it."""
    truth = expect(RULE, trial(1000, 100_000), (1, 2)).of_exit(1)
    missed = beyond = 0
    for seed in range(60):
        share = expect(RULE, trial(10 * seed, 300), (1, 2)).of_exit(1)
        missed += not share.low <= truth.value <= share.high
        beyond += share.value > truth.value
    assert missed == 0 and 10 < beyond < 50


def test_classes_that_weigh_otherwise_in_service_are_expected_so() -> None:
    """The first class leaves less often; where all images are of it, its share is expected."""
    of = trial(7, 4_000)
    of.calibration.logits[of.calibration.labels == 0] *= 0.5
    alone = of.calibration.labels == 0
    chosen = Chosen(class_shares=(1.0, 0.0, 0.0, 0.0))
    rule = Policy("confidence", (1, 2), (0.7, None), calibration=Calibration(chosen=chosen))
    expected = expect(rule, of, (1, 2))
    share = expected.of_exit(1)
    leaves = RULE.leaves(of.calibration.logits) == 0
    assert share.value == pytest.approx(leaves[alone].mean())
    assert share.low < share.value < share.high and not share.low < leaves.mean() < share.high


def test_weighted_shares_stay_shares_though_their_weights_are_rounded() -> None:
    """A server refuses what is above 1, of its own bundle."""
    chosen = Chosen(class_shares=(0.37, 0.29, 0.21, 0.13))
    rule = Policy("fixed", (1, 2), (0.0, None), calibration=Calibration(chosen=chosen))
    for seed in range(12):
        share = expect(rule, trial(seed, 90 + seed), (1, 2)).of_exit(1)
        assert share.low <= share.value <= share.high <= 1
        assert share.value == pytest.approx(1)


@pytest.mark.parametrize("score", ["confidence", "patience", "ensemble", "fixed"])
def test_every_score_has_something_to_expect(score: str) -> None:
    thresholds = {"patience": 1.0, "fixed": 0.0}.get(score, 0.6)
    expected = expect(Policy(score, (1, 2), (thresholds, None)), trial(3, 300), (1, 2))
    assert expected.of_exit(1).value + expected.of_exit(2).value == 1
    assert all(share.low <= share.value <= share.high for share in expected.shares)


RESULTS = Path(__file__).parents[2] / "docs" / "results"


def committed() -> tuple[Expected, np.ndarray, np.ndarray]:
    """Of the committed network to deploy: what to expect, and of which shares 7,500 test images are,
    [7500, S], as they are and where every exit is less sure, as of unsharp images."""
    packed, rule = (
        pack.read(RESULTS / "cifar10-deploy"),
        Policy.load(RESULTS / "cifar10-deploy-policy.json"),
    )
    (name,) = packed.trials()
    arrays = packed.trial_logits(name)
    every = {k: v.astype(np.float32) if v.dtype == np.float16 else v for k, v in arrays.items()}
    test, labels = every["test"], every["test_labels"]
    validation = SplitLogits(test[7_500:], labels[7_500:])  # what a pack has not; for the cuts
    calibration = SplitLogits(every["calibration"], every["calibration_labels"])
    service = SplitLogits(test[:7_500], labels[:7_500])
    costs = Costs((43, 36, 35, 33), (0,) * 4, (0,) * 4, (1, 2, 3, 4))
    classes = tuple("abcdefghij")
    of = Trained(name, "0" * 64, rule.exits, classes, 139, costs, validation, calibration, service)
    expected = expect(rule, of, rule.exits)
    return (
        expected,
        hits_of(expected, rule, service.logits),
        hits_of(expected, rule, 0.6 * service.logits),
    )


def hits_of(expected: Expected, rule: Policy, logits: np.ndarray) -> np.ndarray:
    left = rule.leaves(logits)
    scores = probabilities(logits).max(-1)
    columns = []
    for share in expected.shares:
        if share.below is None:
            columns.append(left == share.exit - 1)
        else:
            low = (scores[:, share.exit - 1] < share.below).astype(float)
            columns.append(np.where(left >= share.exit - 1, low, np.nan))
    return np.stack([np.asarray(column, float) for column in columns], axis=1)


@pytest.mark.parametrize(("images", "at_once"), [(144_000, 96), *long((DAY, 1))])
def test_on_the_committed_network_no_day_is_an_alarm_and_unsharp_images_are(
    images: int, at_once: int
) -> None:
    """Its bounds are of 2,500 calibration images; what comes is drawn of others."""
    expected, usual, unsharp = committed()
    chance = np.random.default_rng(0)
    bounds = np.array([(share.low, share.high) for share in expected.shares])
    detector = Detector(bounds, 315_360_000, (at_once,))

    def drawn(rows: np.ndarray) -> np.ndarray:
        return rows[chance.integers(0, len(rows), at_once)]

    for _ in range(images // at_once):
        assert not detector.observe(drawn(usual)).any()
    caught = np.zeros(at_once, bool)
    for _ in range(1_800):  # three minutes, at ten a second
        caught |= detector.observe(drawn(unsharp))
    assert caught.all()
