"""To a device and back, as a user goes: measure there, solve for it, export what was solved."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command import Cli, ok
from syrupy.assertion import SnapshotAssertion

from offramp.api.deploy.card import time_here
from offramp.bundle import runtime
from offramp.policy import stage_times
from offramp.policy.policy import Policy

TRIAL = "joint-digits-cnn-digits-s1"
PI = "Pi 5"


def said(studied: Cli, *words: str) -> str:
    """What a command that succeeds says, in one line."""
    return " ".join(ok(studied(*words)).out.split())


def test_solved_for_the_device_that_measured(studied: Cli) -> None:
    quiet = ("--anyway", "--no-measure", "--quiet")
    done = said(studied, "export", TRIAL, "--to-measure", "--out", "probe", *quiet)
    assert "run.py --measure" in done
    layout = json.loads(Path("probe/stages.json").read_text())
    assert [stage["exit"] for stage in layout["stages"]] == [1, 2, 3]
    command = [sys.executable, "-I", "probe/run.py", "--measure", "--out", "pi.json", "--device", PI]
    told = subprocess.run([*command, "--threads", "1", "--batch", "4"], check=True, capture_output=True)
    before, after, *more = told.stderr.decode().splitlines()
    assert all("they are unsteady" in line for line in more)  # on a busy machine
    assert "3 stages, 100 rounds" in before and "1, 32, 4" in before
    assert f"{PI}: pi.json (100 rounds)" in after
    assert told.stdout == b""
    times = json.loads(Path("pi.json").read_text())
    assert times["device"] == PI and {row["batch"] for row in times["stages"]} == {1, 4, 32}
    for row in times["stages"]:  # a device on which time passes evenly
        row |= {name: float(row["exit"]) for name in ("mean", "p50", "p95")}
    Path("pi.json").write_text(json.dumps(times))
    asked = ("calibrate", TRIAL, "--stage-times", "pi.json", "--anyway")
    done = said(studied, *asked, "--max-p95-latency", "3ms", "--batch", "1")
    assert f"Solved for {PI}, by 95th percentiles" in done and "MACs leave out" in done
    known = Policy.load("policy.json").calibration.chosen
    assert known is not None and known.device == PI
    late = np.cumsum([1.0, 2.0, 3.0])[np.searchsorted(np.cumsum(known.leaving), 0.95)]
    assert 1e-3 * late <= 3e-3 and (known.p95_seconds or 1) <= 3e-3
    int8 = ("--policy", "policy.json", "--out", "bundle", "--int8", "--int8-loss", "50%")
    done = said(studied, "export", TRIAL, *int8, *quiet)
    assert f"Solved for {PI}, and promised there: " in done and "In int8:" in done
    assert "Time here: not" in done
    later = Policy.load(Path("bundle/policy.json")).calibration.chosen
    assert later is not None
    assert later.p95_seconds is not None and later.p95_seconds <= 3e-3  # solved again by the same times
    card, late = Path("bundle/card.md").read_text(), later.p95_seconds
    assert f"**Solved for {PI}**" in card and "bundle's are int8" in card
    assert f"95 of 100 images within {1000 * late:.3g} ms" in card
    assert json.loads(Path("bundle/card.json").read_text())["calibration"]["promised"]


@pytest.mark.parametrize(("late", "steady"), [(1.3, True), (2.1, False)])
def test_times_beside_other_work_are_said_to_be_unsteady(
    late: float, steady: bool, snapshot: SnapshotAssertion
) -> None:
    assert runtime.SPREAD == stage_times.SPREAD  # the runtime ships alone
    stages = [{"batch": 1, "exit": 1, "p50": 1.0, "p95": late}, {"batch": 32, "p50": 1.0, "p95": 9.0}]
    line = time_here({"mean_milliseconds_batch_1": 1.0, "stages": stages})
    assert line == snapshot and ("unsteady" in line) != steady
