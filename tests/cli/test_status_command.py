"""`offramp status`, its trials and its watch, and `store track`."""

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from command import STUDY, Cli, data, keys, narrow, refusal
from syrupy.assertion import SnapshotAssertion

from offramp import terminal
from offramp.api.results.status import LiveStatus, trial_rows, trial_table
from offramp.store.live import COLUMNS, LivePhase, TrialProgress
from offramp.store.manifest import TrialPlan
from offramp.store.store import Store
from records import remade

TWO = ("two-stage", "joint")
WILD = "{name: joint, as: wild, phases: {joint: {learning_rate: 1e30}}}"
THREE = "[baseline, joint, two-stage]"  # strategies of STUDY
JOINT, STAGED = "joint-digits-cnn-digits-s1", "two-stage-digits-cnn-digits-s1"
LONG = "joint-branch-mobilenetv2-cifar10-s42-2aaa974f"
HOLDER = "process 29097 on vm, at it for 20.7 s"
BOARD = ("--to", "tensorboard:board")


def test_status(studied: Cli, snapshot: SnapshotAssertion) -> None:
    said = data(studied("status", "--json"))
    assert said["trials"] == 6 and said["nodes"] == 8 and said["checkpoints"] == []
    assert said["unfinished"] == [] and said["bytes"] > 0
    of = {"backbone": "digits-cnn", "data": "digits", "trials": 2}
    assert {"strategy": "joint", **of} in said["strategies"] and len(said["strategies"]) == 3
    assert re.sub(r"[\d.]+ [kM]?B", "BYTES", narrow(studied("status"))) == snapshot


def test_status_warns_of_mixed_libraries_and_devices(studied: Cli) -> None:
    assert "Warning" not in studied("status").out
    (phase, *_) = data(studied("show", STAGED, "--json"))["phases"]
    remade(Store(Path("runs")), phase["node"], timm="0.1", device="an abacus", git="f00")
    _, warning = " ".join(studied("status").out.split()).split("Warning: ")
    assert "timm (0.1, " in warning and "an abacus" in warning
    assert "torch" not in warning and "f00" not in warning  # not mixed; changes no bit
    said = data(studied("status", "--json"))
    assert said["made_with"]["timm"][0] == "0.1" and said["mixed"] == ["timm", "device"]
    made = [data(studied("show", f"{s}-digits-cnn-digits-s1", "--json"))["made_with"] for s in TWO]
    assert "f00" in made[0]["git"] and "f00" not in made[1]["git"]


def test_a_damaged_trial_is_named(studied: Cli, snapshot: SnapshotAssertion) -> None:
    (manifest, *_) = sorted(Path("runs/trials").glob("joint-*/trial.json"))
    manifest.write_text(manifest.read_text().replace("joint", "jolly"))
    commands = (["status"], ["show", JOINT], ["compare", "joint", "joint"])
    (said,) = {refusal(studied(*command)) for command in commands}
    assert said.replace(str(manifest), "MANIFEST") == snapshot
    assert studied("run", "s.yaml", "--quiet").code == 0
    assert data(studied("status", "--json"))["trials"] == 6


def test_trials_with_a_phase_that_failed(cli: Cli, snapshot: SnapshotAssertion) -> None:
    """Until the phase is trained: then nothing is said of it."""
    Path("s.yaml").write_text(STUDY.replace(THREE, f"[baseline, {WILD}]"))
    assert cli("run", "s.yaml", "--quiet", "--set", "seeds=[1]").code == 1
    (failed,) = data(cli("status", "--trials", "--failed", "--json"))["trials"]
    assert failed["trial"].startswith("wild-") and "learning rate 1e+30" in failed["failed"]
    said = narrow(cli("status", "--trials", "--failed"))
    assert re.sub(r"\b[0-9a-f]{8}\b", "HASH1234", said) == snapshot
    (note,) = Path("runs/failures").glob("*.json")
    note.write_text(note.read_text().replace("finite", "infinite"))  # altered: not believed
    assert data(cli("status", "--trials", "--failed", "--json"))["trials"] == []


@pytest.mark.usefixtures("studied")
def test_a_phase_that_is_trained_after_all_has_not_failed() -> None:
    store, key = Store(Path("runs")), keys()[0]
    store.note_failure(key, "no memory")
    assert store.archive.failures() == {key: "no memory"}
    remade(store, key)
    assert store.archive.failures() == {}


def test_trials_are_listed(studied: Cli, snapshot: SnapshotAssertion) -> None:
    rows = json.loads(studied("status", "--trials", "--json").out)["trials"]
    assert rows and all(row["phases"] == row["phases_finished"] > 0 for row in rows)
    accuracies = [row["accuracy"][-1] for row in rows]
    listed = json.loads(studied("status", "--trials", "--sort", "accuracy", "--json").out)["trials"]
    assert [row["accuracy"][-1] for row in listed] == sorted(accuracies, reverse=True)
    text = studied("status", "runs", "--trials").out
    assert max(map(len, text.splitlines())) <= 80
    assert all(f"{row['trial']}  " in text for row in rows)  # whole, to be copied
    _, note = text.split("\n\n")
    assert note == snapshot


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets the machine's own time."""

    def moved(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    yield moved
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(("columns", "count"), [(140, 6), (95, 4), (72, 2), (60, 2)])
def test_a_narrow_screen_spares_columns(
    columns: int,
    count: int,
    zone: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    zone("UTC")
    monkeypatch.setenv("COLUMNS", str(columns))
    row = {"trial": LONG, "finished": "2026-11-28T04:52:05+00:00", "seed": 42, "phases": 3}
    terminal.show([trial_table([{**row, "phases_finished": 3, "accuracy": [0.912] * 5}])])
    text = capsys.readouterr().out
    head, _, first, *_ = text.splitlines()
    assert first.startswith(f"{LONG}  ") and max(map(len, text.splitlines())) <= columns
    assert len(head.replace("test, %", "test").split()) == count and text.count("91.2") == 5
    assert ("04:52  " in text) is (columns == 140)
    assert ("2026-11-28 " in text) is (columns > 90)


def test_when_a_trial_was_finished_is_said_in_the_time_of_logs(
    zone: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was that of UTC, on another day, and nothing said so."""
    zone("IST-5:30")
    monkeypatch.setenv("COLUMNS", "140")
    row = {"trial": "joint", "seed": 42, "phases": 3, "phases_finished": 3, "accuracy": [0.9]}
    times = ("2026-11-28T22:52:05+00:00", None, "altered")
    terminal.show([trial_table([{**row, "finished": when} for when in times])])
    first, *others = capsys.readouterr().out.splitlines()[2:5]
    assert "2026-11-29  04:22" in first and all(line.split()[1:3] == ["-", "-"] for line in others)


def test_what_has_the_most_left_to_do_is_first() -> None:
    plan, left, done = TrialPlan(nodes=()), LivePhase("k"), LivePhase("k", finished=True)
    phases = {"a": (done,) * 4, "b": (left, left), "c": (left, done, done)}
    trials = [TrialProgress(id, its, plan) for id, its in phases.items()]
    rows = trial_rows(trials, sort="phases")
    assert [row["trial"] for row in rows] == ["b", "c", "a"]


def test_watch_leaves_ids_whole(monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = [(3, "validation", exit, "accuracy", 0.8) for exit in range(4)]
    history = pd.DataFrame(rows, columns=COLUMNS)
    phase = LivePhase("k" * 64, "branch 1", 3, 20, history=history, holder=HOLDER)
    file = io.StringIO()
    terminal.show(LiveStatus("runs", [TrialProgress(LONG, (phase,), None)] * 2, []).document(), file)
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert max(map(len, lines)) <= 80
    assert lines == snapshot


def test_they_are_filtered(studied: Cli) -> None:
    rows = json.loads(studied("status", "--trials", "--json").out)["trials"]
    one = rows[0]["strategy"]
    mine = json.loads(studied("status", "--trials", "--strategy", one, "--json").out)["trials"]
    assert mine == [row for row in rows if row["strategy"] == one]
    assert json.loads(studied("status", "--trials", "--seed", "7", "--json").out)["trials"] == []
    assert studied("status", "--trials", "--unfinished").out == "No trial matches.\n"


def test_watch_ends_when_nothing_is_left(studied: Cli) -> None:
    text = studied("status", "--watch", "runs").out
    assert "trials finished" in text and "under way" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_track_sends_once(studied: Cli, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    pytest.importorskip("tensorboard")
    first = studied("store", "track", "runs", *BOARD)
    assert first.code == 0 and "sent" in first.err and list((tmp_path / "board").glob("*/events.*"))
    assert "0 trials sent" in studied("store", "track", *BOARD).err
    mistakes = ((), ("--to", "nowhere:x"))
    assert [refusal(studied("store", "track", *words)) for words in mistakes] == snapshot
