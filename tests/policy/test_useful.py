"""What is refused as useless, and why."""

from dataclasses import replace

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.errors import OfframpError
from offramp.policy.calibrate import calibrate, statement, target
from offramp.policy.calibration import Calibration, Chosen, Target
from offramp.policy.candidates import SplitLogits
from offramp.policy.limits import COMPANIONS, LIMITS, LimitKind, Limits
from offramp.policy.policy import Policy, parse, to_json
from offramp.policy.useful import chance, check, doubts, least_loss, resolution, seen
from refusal import refuses
from simulated import COSTS, FINAL_SHARE, FOUR, simulated
from wording import refusal

GOOD = simulated(400, 1)
LEAVING = Policy("confidence", FOUR, (0.9, 0.8, 0.7, None))


def guessing(rows: int, exits: int = 4, often: float = 1 / 3) -> SplitLogits:
    """Logits that know nothing of three classes, of which the first is as frequent as `often`."""
    draw = np.random.default_rng(0)
    labels = draw.choice(3, rows, p=[often, (1 - often) / 2, (1 - often) / 2])
    logits = draw.normal(size=(rows, exits, 3)).astype(np.float32)
    return SplitLogits(logits, labels)


def test_nothing_speaks_against_a_good_policy_or_one_exit_for_all_that_is_asked_for() -> None:
    assert doubts(LEAVING, GOOD) == doubts(Policy("fixed", FOUR, (0.0, None, None, None)), GOOD) == ()
    check((), anyway=False)


def test_a_network_at_chance_is_found() -> None:
    (reason,) = doubts(LEAVING, guessing(300))
    assert "better than chance" in reason


def test_the_most_frequent_class_is_what_must_be_beaten() -> None:
    """80 % right means nothing where 80 % are of one class."""
    rows = guessing(200, often=0.8)
    rows.logits[:] = 0
    rows.logits[:, :, 0] = 9
    assert chance(rows, FOUR) and not chance(replace(GOOD, labels=GOOD.labels), FOUR)


def test_an_exit_that_is_used_must_know_something_too() -> None:
    rows = SplitLogits(GOOD.logits.copy(), GOOD.labels)
    rows.logits[:, 0] = 20 * np.random.default_rng(2).normal(size=rows.logits[:, 0].shape)
    (reason,) = doubts(LEAVING, rows)
    assert reason.startswith("exit 1 has ")
    assert doubts(replace(LEAVING, thresholds=(None, 0.8, 0.7, None)), rows) == ()


def test_several_exits_at_chance_have_one_remedy() -> None:
    rows = SplitLogits(GOOD.logits.copy(), GOOD.labels)
    rows.logits[:, :2] = 20 * np.random.default_rng(2).normal(size=rows.logits[:, :2].shape)
    (reason,) = doubts(LEAVING, rows)
    assert reason.count("not clearly better than chance") == 2 and reason.count("would help") == 1


def test_chance_is_rarely_taken_for_knowledge() -> None:
    draw = np.random.default_rng(3)
    passed = 0
    for _ in range(500):
        logits = draw.normal(size=(60, 1, 3)).astype(np.float32)
        passed += not chance(SplitLogits(logits, draw.integers(0, 3, 60)), (1,))
    assert passed / 500 <= 0.05


@pytest.mark.parametrize(
    ("rows", "limit", "token"),
    [
        (40, Target("max-accuracy-loss", 0.01), "2.5 points; it takes 99"),
        (98, Target("max-accuracy-loss", 0.01), "1.02 points; it takes 99"),
        (15, Target("max-accuracy-loss", 0.05), "takes 19"),
        (98, Target("risk", 0.01), "it takes 99"),
        (298, Target("risk", 0.01, 0.95), "it takes 299"),
        (60, Target("hamming-risk", 0.02, 0.9), "it takes 114"),
    ],
)
def test_images_that_cannot_tell_so_small_a_loss(rows: int, limit: Target, token: str) -> None:
    (reason,) = resolution(limit, rows)
    assert token in reason
    least = least_loss(rows, limit.confidence)
    assert reason.endswith(f"tell one of {least:g}")
    assert least > limit.value and not resolution(replace(limit, value=least), rows)


def test_images_that_can_tell_it() -> None:
    assert not resolution(Target("max-accuracy-loss", 0.01), 99)
    assert not resolution(Target("risk", 0.01, 0.95), 299)
    assert not resolution(Target("max-disagreement", 0), 5)
    assert not resolution(Target("max-mean-macs", 0.01), 5)


@pytest.mark.usefixtures("narrow")
def test_the_limit_is_that_of_the_policy() -> None:
    few = SplitLogits(GOOD.logits[:40], GOOD.labels[:40])
    outcome = calibrate(GOOD, few, COSTS, Target("max-accuracy-loss", 0.01))
    origin = Calibration(target=Target("max-accuracy-loss", 0.01))
    reasons = doubts(replace(outcome.policy, calibration=origin), few)
    assert "cannot tell a" in reasons[0]


@pytest.mark.parametrize(
    ("policy", "token"),
    [
        (Policy("confidence", FOUR, (None,) * 4), "no calibration image"),
        (Policy("confidence", FOUR, (0.0, 0.5, 0.5, None)), "leaves at exit 1,"),
        (Policy("entropy", FOUR, (None, 0.0, None, None)), "leaves at exit 2,"),
        (Policy("patience", FOUR, (1.0, 1.0, 1.0, None)), "leaves at exit 1,"),
    ],
)
def test_a_policy_that_decides_nothing(policy: Policy, token: str) -> None:
    (reason,) = doubts(policy, GOOD)
    assert token in reason


def test_each_limit_says_all_that_its_readers_need() -> None:
    assert [*Limits.__annotations__] == [n.replace("-", "_") for n in (*LIMITS, *COMPANIONS)]
    for rule in LIMITS.values():
        assert (rule.unit == "TIME") == (rule.stages is not None)
        assert (rule.by == "budget") == bool(rule.noted) and rule.phrase.count("{}") == 1


@pytest.mark.usefixtures("narrow")
def test_a_limit_is_one_entry(monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion) -> None:
    """Calibration, the policy file and its statement, which cards repeat, take a new one from there; a
    plain network beside: study/test_beside."""
    with pytest.raises(OfframpError, match="unknown limit"):
        target(1, max_final_share=0.3)  # type: ignore[call-arg]
    monkeypatch.setitem(LIMITS, "max-final-share", FINAL_SHARE)  # type: ignore[arg-type]
    limit = target(1, max_final_share="30%")  # type: ignore[call-arg]
    outcome = calibrate(GOOD, GOOD, COSTS, limit)
    share = outcome.measures[outcome.chosen].shares[-1]
    assert 0 < share <= 0.3 < outcome.measures[0].shares[-1]
    origin = Calibration("t", "0" * 64, 3, limit, outcome.record(1000), statement(outcome))
    policy = replace(outcome.policy, calibration=origin)
    again = parse(to_json(policy))
    assert again.calibration == origin and again.calibration.chosen_json["final_share"] == share
    assert "max final share 0.3" in origin.statement
    refuses("max final share", target, 1, max_final_share=2)
    assert refusal(calibrate, GOOD, GOOD, COSTS, Target("max-final-share", -1.0)) == snapshot
    loose = Calibration(target=Target("max-final-share", 1.0), chosen=Chosen(final_share=1.0))  # type: ignore[call-arg]
    (reason,) = doubts(Policy("confidence", FOUR, (None,) * 4, calibration=loose), GOOD)
    assert "share of 1 to" in reason and ", within 1:" in reason
    unread = replace(loose, chosen=Chosen(final_share="all"))  # type: ignore[call-arg]
    (reason,) = doubts(Policy("confidence", FOUR, (None,) * 4, calibration=unread), GOOD)
    assert "a larger share" in reason


@pytest.mark.parametrize("kind", [*LIMITS, None])
def test_the_remedy_is_of_what_was_asked_for(kind: LimitKind | None) -> None:
    """Not "a larger loss" for whatever it was. All at one exit is an answer to a limit, not by hand."""
    origin = Calibration(target=None if kind is None else Target(kind, 0.5))
    all_leave = doubts(Policy("confidence", FOUR, (0.0, None, None, None), calibration=origin), GOOD)
    (none_leaves,) = doubts(Policy("confidence", FOUR, (None,) * 4, calibration=origin), GOOD)
    looser = "lower thresholds" if kind is None else LIMITS[kind].looser
    assert len(all_leave) == (kind is None)
    assert f": {looser}, longer training" in none_leaves
    assert ("loss" in looser) == (kind == "max-accuracy-loss")
    of_nothing = Calibration(target=None if kind is None else Target(kind, 0.0))
    (reason,) = doubts(Policy("confidence", FOUR, (None,) * 4, calibration=of_nothing), GOOD)
    assert ("more calibration images" in reason) == (kind is None)


def test_a_reason_that_calibration_knows_is_told() -> None:
    (reason,) = doubts(Policy("confidence", FOUR, (None,) * 4), GOOD, "it takes 299 images")
    assert reason.endswith("it takes 299 images")


@pytest.mark.parametrize(
    ("kind", "value", "chosen", "amounts"),
    [
        ("max-mean-latency", 5e-3, {"mean_seconds": 1.98e-4}, "takes 0.198 ms on average, within 5 ms"),
        ("max-p95-latency", 8e-3, {"p95_seconds": 2e-3}, "95 of 100 in 2 ms each, within 8 ms"),
        ("max-mean-macs", 2e6, {"mean_macs": 1.2e6}, "1,200,000 MACs on average, within 2,000,000 MACs"),
    ],
)
def test_a_budget_that_the_full_network_keeps(
    kind: str, value: float, chosen: dict[str, float], amounts: str
) -> None:
    origin = Calibration(target=Target(kind, value), chosen=Chosen(**chosen))
    (reason,) = doubts(Policy("confidence", FOUR, (None,) * 4, calibration=origin), GOOD)
    assert reason.endswith(f" {amounts}: ask for less")


def test_calibration_images_that_were_trained_on() -> None:
    assert not seen(0, 50) and not seen(9, 1000)
    (reason,) = seen(10, 1000)
    assert reason.startswith("10 of 1,000 ")


def test_what_is_refused_is_a_line_and_may_be_forced(snapshot: SnapshotAssertion) -> None:
    assert refusal(check, ("one", "two"), False) == snapshot
    check(("one",), anyway=True)
