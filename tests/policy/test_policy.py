import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from offramp.policy.calibration import Calibration, Chosen, Target
from offramp.policy.costs import Costs
from offramp.policy.policy import Policy, check_fits, parse, to_json
from refusal import refuses
from simulated import COSTS, FOUR, simulated
from wording import refusal

HASH = "ab" * 32


MADE = Calibration("t-1", HASH, 10, Target("risk", 0.01), Chosen(images=5), "It is so.")


def a_policy(
    score: str = "margin",
    exits: tuple[int, ...] = FOUR,
    thresholds: tuple[float | None, ...] = (0.25, None, 0.1, None),
    temperatures: tuple[float, ...] | None = (1.0, 2.0, 0.5, 1.25),
) -> Policy:
    return Policy(score, exits, thresholds, temperatures, MADE)


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    a_policy().save(tmp_path / "p.json")
    policy = Policy.load(tmp_path / "p.json")
    assert (policy, policy.calibration) == (a_policy(), MADE)
    assert to_json(Policy.load(tmp_path / "p.json")) == (tmp_path / "p.json").read_text()
    threshold = float(np.float32(0.7654321))  # to the bit
    policy = a_policy("entropy", (1, 2), (threshold, None), None)
    assert parse(to_json(policy)).thresholds == (threshold, None)


# For a device, by weighted images; a whole number stays one.
TIMED = json.loads("""{
    "images": 120, "accuracy": null, "full_accuracy": null, "mean_macs": 476789.2206972, "plain_macs": 9,
    "loss": 0.1, "leaving": [1, 0.0], "risk_below": null, "class_shares": [0.25, 0.75],
    "survivors": true, "mean_seconds": 0.001, "full_seconds": 2e-05, "median_seconds": 0.0009,
    "p95_seconds": 0.002, "stages": {"device": "Pi 5", "batch": 1, "doubts": [], "segments": [1e-05]}
}""")


@pytest.mark.parametrize(
    ("target", "chosen"),
    [
        ({}, {}),
        ({}, {"leaving": [0.5, 0.5]}),
        ({"kind": "risk", "value": 0.2, "confidence": 0.95, "labels": False}, TIMED),
        ({}, {"images": 5, "later": [1, {"a": None}]}),
    ],
)
def test_what_a_file_says_of_its_calibration_is_written_again_to_the_byte(
    target: dict[str, Any], chosen: dict[str, Any]
) -> None:
    file = json.loads(to_json(a_policy("confidence", (1, 2), (0.5, None), None)))
    text = json.dumps({**file, "target": target, "chosen": chosen}, indent=1) + "\n"
    policy = parse(text)
    assert to_json(policy) == text
    assert (policy.calibration.target is None) == (not target)
    assert (policy.calibration.chosen is None) == (not chosen)


def test_numbers_of_numpy_and_lists_are_as_good() -> None:
    """They were refused, or served until the policy was compared with a network or written as JSON."""
    gate = (0.5, 1.0, 2.0, 0.25, -1.0)
    plain = Policy(
        "gate", FOUR, (0.25, None, 0.1, None), gates=(gate, gate, gate, None), calibration=MADE
    )
    fields: Any = {
        "exits": list(np.array(FOUR)),
        "thresholds": [np.float32(0.25), None, np.float64(0.1), None],
        "gates": [np.array(gate, np.float32)] * 3 + [None],
    }
    policy = replace(plain, **fields)
    assert policy == plain and parse(to_json(policy)) == plain and isinstance(policy.exits, tuple)


@pytest.mark.parametrize("score", ["patience", "agreement"])
def test_a_threshold_that_is_never_reached_is_none(score: str, snapshot: SnapshotAssertion) -> None:
    """An infinite one is no number of JSON."""
    for threshold in (float("inf"), float("nan")):
        assert refusal(Policy, score, (1, 2), (threshold, None)) == snapshot
    assert Policy(score, (1, 2), (1e9, None)).thresholds[0] == 1e9


def test_thresholds_set_by_hand_promise_nothing_and_make_no_file(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    policy = Policy("confidence", (1, 2), (0.5, None))
    assert "No guarantee" in policy.calibration.statement
    assert refusal(policy.save, tmp_path / "p.json") == snapshot


def changed(**fields: Any) -> str:
    return json.dumps(json.loads(to_json(a_policy())) | fields)


EXIT = {"exit": 1, "threshold": 0.5, "temperature": 1.0}
LAST = {"exit": 2, "threshold": None, "temperature": 1.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        (changed(format=2), "format must be 1"),
        (changed(more=1), "more is no"),
        (changed(score="luck"), "'luck' is none"),
        (changed(trial_hash="x"), "trial_hash"),
        (changed(exits=[]), "at least 1 entry"),
        (changed(exits=[{**EXIT, "threshold": 1.5}, LAST]), "threshold of exit 1"),
        (changed(exits=[{**EXIT, "threshold": "0.5"}, LAST]), "exits.0.threshold"),
        (changed(exits=[{**EXIT, "temperature": 0.0}, LAST]), "exits.0.temperature"),
        (changed(exits=[EXIT, {**LAST, "threshold": 0.5}]), "exit 2 is the"),
        (changed(exits=[LAST, EXIT]), "must be ascending"),
        (changed(target={"kind": "luck", "value": 0.1}), "no limit 'luck'"),
        (changed(target={"kind": "risk", "value": "0.1"}), "target.value must be"),
        (changed(target={"kind": "risk", "value": 0.1, "more": 1}), "target.more"),
        (changed(chosen={"loss": "little"}), "chosen.loss"),
        (changed(chosen={"leaving": [0.5, None]}), "chosen.leaving.1"),
        (changed(score="patience", exits=[EXIT, LAST]), "1 and finite for"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.json").write_text(text)
    line = refuses("; calibrate again$", Policy.load, tmp_path / "p.json")
    assert message in line and str(tmp_path / "p.json") in line


def test_missing_and_unreadable_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    assert refusal(Policy.load, tmp_path / "none.json") == snapshot
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    refuses("not text", Policy.load, tmp_path / "binary.json")
    (tmp_path / "file").touch()
    assert refusal(a_policy().save, tmp_path / "file" / "p.json") == snapshot
    os.mkfifo(tmp_path / "pipe")
    assert refusal(a_policy().save, tmp_path / "pipe") == snapshot
    assert (tmp_path / "pipe").is_fifo()  # and no file in its place
    monkeypatch.setattr("offramp.files.DEVICES", tmp_path.resolve())
    (tmp_path / "stdout").symlink_to(tmp_path / "file")  # of a command whose output goes into a file
    assert refusal(a_policy().save, tmp_path / "stdout") == snapshot
    assert (tmp_path / "stdout").is_symlink()


def test_a_policy_fits_its_own_network_only(snapshot: SnapshotAssertion) -> None:
    check_fits(a_policy(), "t-1", HASH, FOUR)
    assert refusal(check_fits, a_policy(), "t-1", HASH, (1, 2, 3, 4, 5)) == snapshot
    for trial_hash, exits in (("cd" * 32, FOUR), (HASH, (1, 2))):
        refuses("for trial t-1", check_fits, a_policy(), "t-2", trial_hash, exits)


def test_logits_may_be_as_a_network_returns_them_and_of_no_other_exits() -> None:
    logits = torch.rand(5, 4, 10)
    assert torch.equal(a_policy().leaves(logits.unbind(1)), a_policy().leaves(logits))
    refuses("logits must be", a_policy().leaves, np.zeros((2, 3, 10)))


@pytest.mark.parametrize(
    ("policy", "active"),
    [
        (Policy("confidence", FOUR, (0.5, None, 0.5, None)), (0, 2, 3)),
        (Policy("confidence", FOUR, (None,) * 4), (3,)),
        (Policy("fixed", FOUR, (None, 0.0, None, None)), (1,)),
        (Policy("fixed", FOUR, (None,) * 4), (3,)),
        (Policy("patience", FOUR, (2.0, 2.0, 2.0, None)), (0, 1, 2, 3)),
        (Policy("patience", FOUR, (None, 2.0, None, None)), (0, 1, 3)),
        (Policy("patience", FOUR, (4.0, 4.0, 4.0, None)), (3,)),
        (Policy("confidence", (4,), (None,)), (0,)),
        (Policy("confidence", FOUR, (0.0, 0.5, 0.9, None)), (0,)),
        (Policy("margin", FOUR, (0.5, None, 0.0, None)), (0, 2)),
        (Policy("patience", FOUR, (None, 1.0, 3.0, None)), (0, 1)),
        (Policy("patience", FOUR, (2.0, 2.0, 4.0, None)), (0, 1, 3)),
    ],
)
def test_only_exits_that_matter_are_run(policy: Policy, active: tuple[int, ...]) -> None:
    assert policy.active == active
    if len(policy.exits) == 4:
        left = np.unique(policy.leaves(simulated(200, 1).logits))
        assert set(left.tolist()) <= set(active)
        assert all(policy.macs(COSTS)[i] > 0 for i in active)


def test_what_no_image_can_pass_takes_those_without_a_number_too() -> None:
    policy, logits = Policy("confidence", FOUR, (0.9, 0.0, 0.5, None)), simulated(50, 1).logits
    logits[::5] = np.nan
    assert set(policy.leaves(logits).tolist()) == {0, 1} and (policy.leaves(logits)[::5] == 1).all()
    assert torch.equal(policy.leaves(torch.tensor(logits)), torch.tensor(policy.leaves(logits)))


def test_heads_and_trunks_are_paid_for_when_they_are_run() -> None:
    assert COSTS.leaving([0, 1, 2, 3]) == (11, 22, 33, 44)
    assert COSTS.leaving([1, 3]) == (21, 42)
    assert COSTS.full == 41
    own = Costs((10, 10, 10, 10), (1, 1, 1, 1), (0, 1, 2, 3), FOUR)
    assert own.leaving([0, 1, 2, 3]) == (11, 32, 63, 104)
    assert own.leaving([0, 3]) == (11, 52)
    assert own.full == 41
    pairs = Costs((10, 10, 10, 10), (1, 1, 1, 1), (0, 0, 1, 1), FOUR)
    assert pairs.leaving([0, 1, 2, 3]) == (11, 22, 53, 64)


@pytest.mark.parametrize("carry", ["learned", "hidden"])
def test_exits_that_have_learned_what_to_carry_pay_for_the_heads_before(carry: Any) -> None:
    """The final exit does not: it answers alone."""
    plain = Costs((10, 10, 10, 10), (1, 2, 3, 4), (0,) * 4, FOUR)
    learned = replace(plain, carry=carry)
    assert learned.leaving([2]) == (30 + 1 + 2 + 3,) and plain.leaving([2]) == (30 + 3,)
    assert learned.full == plain.full == 44
    assert learned.leaving(range(4)) == plain.leaving(range(4))
    for thresholds in ((None, None, 0.5, None), (0.5, None, None, None), (None,) * 4):
        rule = Policy("confidence", FOUR, thresholds, carry=carry)
        again = Policy("ensemble", FOUR, thresholds)  # which asks all heads before an early exit, too
        assert rule.active == again.active
        assert [m for m in rule.macs(learned) if m] == list(learned.leaving(rule.active))
    assert parse(to_json(replace(rule, calibration=MADE))).carry == carry
    bad = to_json(replace(rule, calibration=MADE)).replace(f'"{carry}"', '"some"')
    refuses("carry", parse, bad)
