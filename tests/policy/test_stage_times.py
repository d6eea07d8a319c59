"""Times that a device wrote down: the file's door, and what a policy's stages cost by them."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from syrupy.assertion import SnapshotAssertion

from fuzz_kit import cases, changed, one_line
from offramp.errors import OfframpError
from offramp.policy.calibrate import calibrate, statement
from offramp.policy.calibration import Target
from offramp.policy.costs import Costs
from offramp.policy.stage_times import of_file, read, recorded, unlike
from refusal import refuses
from simulated import simulated
from wording import refusal

EXITS = (1, 2, 3)
SHARED = Costs((100, 200, 300), (10, 20, 30), (0, 0, 0), EXITS)
OWN = Costs((100, 200, 300), (10, 20, 30), (0, 1, 2), EXITS)


def times(costs: Costs = SHARED) -> dict[str, Any]:
    """A file in which the stage of exit k takes k ms an image on average."""
    spent = costs.leaving(range(len(costs.exits)))
    rows = [
        {"batch": b, "exit": k, "macs": macs}
        | {"mean": 1.0 * k * b, "p50": 0.9 * k * b, "p95": 1.5 * k * b}
        for b in (1, 32)
        for k, macs in zip(costs.exits, spent, strict=True)
    ]
    machine = {"processor": "P", "cores": 4, "system": "S", "python": "3.11", "onnxruntime": "1.20"}
    return {
        **{"format": "offramp-stage-times-1", "device": "Pi 5", "precision": "float32"},
        **{"threads": 4, "machine": machine, "repeats": 100, "stages": rows},
    }


def saved(folder: Path, value: Any) -> Path:
    path = folder / "times.json"
    path.write_text(json.dumps(value))
    return path


def test_a_stage_costs_what_the_device_said(tmp_path: Path) -> None:
    measured = of_file(saved(tmp_path, times()), SHARED, 1, "max-mean-latency")
    assert measured.costs.leaving([0, 1, 2]) == (1_000_000, 3_000_000, 6_000_000)  # ns
    assert measured.costs.leaving([0, 2]) == (1_000_000, 6_000_000)  # a head left out still counts
    assert measured.median.full == round(0.9 * 6_000_000)
    late = of_file(saved(tmp_path, times()), SHARED, 32, "max-p95-latency")
    assert late.costs.leaving([0, 1, 2]) == (1_500_000, 4_500_000, 9_000_000)
    again = recorded(json.loads(json.dumps(late.record)), SHARED)
    assert again.costs == late.costs and again.median == late.median


def test_the_runtime_that_timed_the_stages_may_be_another(tmp_path: Path) -> None:
    value = times()
    value["machine"]["openvino"] = value["machine"].pop("onnxruntime")
    measured = of_file(saved(tmp_path, value), SHARED, 1, "max-mean-latency")
    assert measured.record["machine"]["openvino"] == "1.20"
    for wrong in ({}, {"openvino": 3}, {"openvino": "1", "onnxruntime": "1"}):
        machine = {name: value["machine"][name] for name in ("processor", "cores", "system", "python")}
        refuses("machine", read, saved(tmp_path, {**value, "machine": {**machine, **wrong}}))


def test_stages_that_begin_at_the_pixels_are_not_counted_twice(tmp_path: Path) -> None:
    measured = of_file(saved(tmp_path, times(OWN)), OWN, 1, "max-mean-latency")
    assert measured.costs.leaving([0, 1, 2]) == (1_000_000, 3_000_000, 6_000_000)
    assert measured.costs.leaving([2]) == (3_000_000,)  # the others' networks do not run


@pytest.mark.usefixtures("narrow")
def test_a_policy_is_solved_for_the_device(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    rows = [simulated(400, seed, 3, 3) for seed in (1, 2)]
    path = saved(tmp_path, times())
    for kind, most in (("max-mean-latency", 0.003), ("max-p95-latency", 0.0046)):
        device_times = of_file(path, SHARED, 1, kind)
        outcome = calibrate(*rows, SHARED, Target(kind, most), measured=device_times)  # type: ignore[arg-type]
        macs = np.asarray(outcome.policy.macs(device_times.costs))
        spent = macs[outcome.policy.leaves(rows[1].logits)] * 1e-9
        named = outcome.record(600)
        if kind == "max-mean-latency":
            value, recorded = spent.mean(), named.mean_seconds
        else:
            value, recorded = np.quantile(spent, 0.95, method="inverted_cdf"), named.p95_seconds
        assert value <= most and recorded == pytest.approx(value)
        assert named.device == "Pi 5" and "Solved for Pi 5" in statement(outcome)
    none = Target("max-p95-latency", 1e-6)
    assert refusal(calibrate, *rows, SHARED, none, measured=device_times) == snapshot


def test_unsteady_times_are_doubted_also_where_nothing_keeps_a_limit(
    tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    value = times()
    for row in value["stages"]:
        row["p95"] = 3 * row["p50"]
    device_times = of_file(saved(tmp_path, value), SHARED, 1, "max-mean-latency")
    (doubt,) = device_times.record["doubts"]
    assert "unsteady" in doubt
    rows = [simulated(400, seed, 3, 3) for seed in (1, 2)]
    target = Target("max-mean-latency", 1e-6)
    assert refusal(calibrate, *rows, SHARED, target, measured=device_times) == snapshot


def test_times_of_the_other_precision_promise_nothing() -> None:
    assert unlike("int8", "Pi 5", True) == unlike("float32", "Pi 5", False) == ()
    (reason,) = unlike("float32", "Pi 5", True)
    assert "of float32 stages" in reason and "--to-measure --int8" in reason
    (reason,) = unlike("int8", "Pi 5", False)
    assert "--to-measure there" in reason


def edited(*path: Any, to: Any) -> dict[str, Any]:
    value = copy.deepcopy(times())
    holder = value
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = to
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (edited("format", to="x"), "format "),
        ({"format": 3, "trial": "a"}, "format "),  # a policy, say: nothing is wrong with its device
        (edited("stages", 0, "mean", to=-1), "stages.0.mean "),
        (edited("stages", 0, "p50", to="1"), "stages.0.p50 "),
        (edited("stages", 1, "p50", to=99.0), "p50 of exit 2"),
        (edited("stages", 1, "exit", to=1), "exits of batch 1"),
        (edited("stages", 1, "macs", to=7), "every batch must"),
        (edited("stages", to=[]), "stages "),
        (edited("device", to=""), "device: "),
        (edited("more", to=1), "more "),
        ([], "file "),
    ],
)
def test_malformed_files_are_refused(value: Any, message: str, tmp_path: Path) -> None:
    path = saved(tmp_path, value)
    line = refuses(message, read, path)
    assert line.startswith(f"{path}: ") and "--measure" in line


def test_files_that_are_none(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    assert refusal(read, tmp_path / "nowhere") == snapshot
    (tmp_path / "raw").write_bytes(b"\xff\xfe")
    assert refusal(read, tmp_path / "raw") == snapshot


def test_times_of_another_network(tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    path, kind = saved(tmp_path, times()), "max-mean-latency"
    assert refusal(of_file, path, SHARED, 7, kind) == snapshot
    more = Costs((*SHARED.segments, 1), (*SHARED.heads, 1), (0,) * 4, (1, 2, 3, 4))
    assert refusal(of_file, path, more, 1, kind) == snapshot
    assert refusal(of_file, path, OWN, 1, kind) == snapshot


def test_fuzzed_files(tmp_path: Path) -> None:
    for case in cases(300):
        try:
            path = saved(tmp_path, changed(case, times()))
        except (TypeError, UnicodeError):
            continue
        one_line(case, read, path, also=OfframpError)
