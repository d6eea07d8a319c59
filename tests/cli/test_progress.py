"""What a run shows while it works: how far reading is, the moving lines and those that stay."""

import io
import json
import logging
import sys
from datetime import datetime
from pathlib import Path

import pytest
from command import untimed
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from offramp.api.progress import log as logs
from offramp.api.progress.display import Progress
from offramp.api.progress.log import CLEAR, SELDOM, Format, Log, LogOptions, opened, reading_shown
from offramp.cli.adapter import watching
from offramp.engine.fit import EpochReport
from offramp.errors import OfframpError
from offramp.study.plan.plan import Plan
from offramp.study.plan.schedule import Schedule
from offramp.study.run import events
from offramp.units import duration
from support import tiny_plan, tiny_study

LOG = logging.getLogger("offramp.data.progress")
DIVERGED = "the loss is not finite"
NEEDED = "needs phase 'backbone', which failed"
FULL = "the disk is full"
NOTE = "a note that is longer than the screen is wide " * 3


def busy(seconds: int) -> str:
    """Who has been at work on a phase for so long."""
    return f"process 7 on node1, at it for {seconds} s"


def read(times: tuple[float, ...], monkeypatch: pytest.MonkeyPatch, log: Log | None = None) -> None:
    """Work that says how far it is at these seconds."""
    with reading_shown(log):
        for number, at in enumerate(times):
            monkeypatch.setattr(logging.time, "time_ns", lambda at=at: round(at * 1e9), raising=False)
            monkeypatch.setattr(logging.time, "time", lambda at=at: at)
            LOG.info("step %s", number)


def test_on_a_terminal_one_line_moves_and_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    read((0, 1, 2), monkeypatch)
    out, err = capsys.readouterr()
    assert out == "" and err == f"{CLEAR}step 0{CLEAR}step 1{CLEAR}step 2{CLEAR}"


def test_elsewhere_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read((0, 5, 9, 11, 13, 22, 40), monkeypatch)
    assert capsys.readouterr() == ("", "step 3\nstep 5\nstep 6\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_warnings_stay(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with reading_shown():
        LOG.warning("look here")
    err = capsys.readouterr().err
    assert err == (f"{CLEAR}look here\n{CLEAR}" if terminal else "look here\n")


def test_nothing_where_nothing_is_wanted_and_all_is_put_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("offramp.data")
    before = (log.level, list(log.handlers))
    read((0, 50), monkeypatch, Log(progress=False))
    with pytest.raises(KeyboardInterrupt), reading_shown():
        raise KeyboardInterrupt
    assert (log.level, list(log.handlers)) == before
    LOG.info("nobody listens")
    assert capsys.readouterr() == ("", "") and SELDOM == 10


def test_a_line_that_moves_already_says_how_far_reading_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    log = Log()
    status = log.console.status("preparing")
    with reading_shown(log, status):
        LOG.info("reading images: %s of 2", 1)
        assert not log.reading  # no line of its own
    assert status.status == "reading images: 1 of 2" and capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def plan() -> Plan:
    return tiny_plan(tiny_study(["baseline", "joint", "two-stage"], recipe={"epochs": 10}))


def report(key: str, epoch: int, exits: int, seconds: float = 0.1) -> events.Epoch:
    accuracy = {k: 0.5 + k / 100 for k in range(1, exits + 1)}
    return events.Epoch(EpochReport(key, epoch, 1.2345, 1.0, accuracy, accuracy, seconds))


def moving(progress: Progress, width: int = 80) -> list[str]:
    """The moving lines, as the screen has them."""
    console = Console(width=width)
    with console.capture() as shown:
        console.print(progress._screen())
    return shown.get().splitlines()


def closing(progress: Progress) -> str:
    """The last line of a run, without how long it took."""
    told, _, _ = progress.state.closing("runs").rpartition(", in ")
    return told


def keys(plan: Plan, phase: str) -> list[str]:
    return [key for key, node in plan.nodes.items() if node.name == phase]


def test_the_moving_lines_say_what_where_and_how_long(plan: Plan, snapshot: SnapshotAssertion) -> None:
    (joint,) = keys(plan, "joint")
    progress = Progress(plan, Log())
    assert moving(progress)[0].endswith("0 % · time left: ? · 0/5 phases")
    progress.see(events.GroupStarted((joint,), 0))
    progress.see(report(joint, 3, 4))
    bar, *where_and_numbers = moving(progress)
    assert where_and_numbers == snapshot
    share = round(100 * 0.3 * plan.macs(joint) / plan.executed)
    assert f" {share} % · " in bar and bar.endswith(" s left · 0/5 phases")


def test_time_left_leaves_out_what_earlier_runs_did(plan: Plan, now: list[float]) -> None:
    (backbone,), (joint,) = keys(plan, "backbone"), keys(plan, "joint")
    progress = Progress(plan, Log())
    progress.see(events.Reused(backbone))
    progress.see(events.GroupStarted((joint,), 5))  # resumed half-way
    now[0] = 60.0
    progress.see(report(joint, 6, 4, 60.0))
    rest = plan.executed - plan.macs(backbone) - 0.6 * plan.macs(joint)
    assert duration(60 * rest / (0.1 * plan.macs(joint))) in moving(progress)[0]


def test_time_left_leaves_out_what_failed(plan: Plan, now: list[float]) -> None:
    """And what needs it: hours were left of a run whose backbone had diverged."""
    (joint,) = keys(plan, "joint")
    progress = Progress(plan, Log(progress=False))
    for key in plan.nodes.keys() - {joint}:
        progress.see(events.Failed(key, "it diverged"))
    progress.see(events.GroupStarted((joint,), 0))
    now[0] = 1.0
    progress.see(report(joint, 1, 4, 1.0))
    assert progress.state.seconds_left == pytest.approx(9.0)
    left = 0.9 * plan.macs(joint)
    assert progress.state.share == pytest.approx(1 - left / plan.executed)
    progress.see(events.Room(1, 1))
    assert progress.state.seconds_left == pytest.approx(10.0)  # the longest chain, of whole phases


def test_lines_that_stay(
    plan: Plan, capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion
) -> None:
    (backbone,), (joint,), heads = (
        keys(plan, "backbone"),
        keys(plan, "joint"),
        keys(plan, "exit 1") + keys(plan, "exit 2") + keys(plan, "exit 3"),
    )
    progress = Progress(plan, Log())
    progress.see(events.Reused(joint))
    progress.see(events.Failed(backbone, DIVERGED))
    progress.see(events.Failed(heads[0], NEEDED))
    progress.see(events.Note(NOTE))
    progress.see(events.Note(NOTE))
    progress.see(events.TrialDone(plan.trials[1].id, True))
    said = capsys.readouterr()
    assert said.out == ""
    assert untimed(said.err) == snapshot(name="lines")
    failures = [(each["strategy"], each["reason"]) for each in progress.state.failures()]
    assert failures == [("baseline", DIVERGED), ("two-stage", DIVERGED)]
    assert closing(progress) == snapshot(name="closing")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock's seconds."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    return clock


def test_for_whom_a_run_waits(
    plan: Plan, now: list[float], capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion
) -> None:
    """On the moving line at once; as one that stays after ten seconds, then seldom."""
    progress = Progress(plan, Log())
    for at in range(70):
        now[0] = float(at)
        progress.see(events.Waiting(("k",), busy(at)))
        assert moving(progress)[1] == f"waiting for {busy(at)}"
    seconds = [line.split()[-2] for line in capsys.readouterr().err.splitlines()]
    assert seconds == ["10", "20", "40"]
    progress.see(events.Note("something"))
    progress.see(events.Waiting(("k",)))
    assert moving(progress)[1] == snapshot
    assert untimed(capsys.readouterr().err) == ["something"]


def test_a_run_of_which_one_worker_waits_for_another_is_at_work(
    plan: Plan, now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(plan, Log())
    key = keys(plan, "joint")[0]
    progress.see(events.GroupStarted((key,), 0, ""))
    (began,) = untimed(capsys.readouterr().err)
    before = moving(progress)
    for at in range(70):
        now[0] = float(at)
        progress.see(events.Waiting((key,), busy(at)))
    assert moving(progress) == before and not capsys.readouterr().err
    progress.see(events.GroupEnded((key,)))
    progress.see(events.Waiting((key,), busy(70)))
    assert moving(progress)[1] == f"waiting for {busy(70)}" and "begins" in began


def test_quiet_says_only_what_must_be_said(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(plan, Log(progress=False))
    with progress:
        progress.see(events.Finished(keys(plan, "joint")[0], 1.0))
        progress.see(events.Note("a damaged file"))
    assert untimed(capsys.readouterr().err) == ["a damaged file"]


def test_a_node_that_was_damaged_and_trained_again_is_not_reused(
    plan: Plan, snapshot: SnapshotAssertion
) -> None:
    (joint,) = keys(plan, "joint")
    progress = Progress(plan, Log(progress=False))
    for event in (events.Finished(joint, 1.0), events.Reused(joint)):
        progress.see(event)
    for trial in plan.trials:
        progress.see(events.TrialDone(trial.id, trial is not plan.trials[1]))
    assert closing(progress) == snapshot


def test_on_a_cluster_each_group_at_work_has_its_line(plan: Plan, snapshot: SnapshotAssertion) -> None:
    """Where it is, and how far. The time left goes by the machines there are and the longest chain."""
    (backbone,), (joint,) = keys(plan, "backbone"), keys(plan, "joint")
    progress = Progress(plan, Log())
    progress.see(events.Room(1, 1))
    progress.see(events.GroupStarted((backbone,), 0, "here"))
    progress.see(events.GroupStarted((joint,), 3, "there"))
    assert "time left: ?" in moving(progress)[0]
    progress.see(report(backbone, 1, 4))
    pace = 0.1 * plan.macs(backbone) / 0.1  # MACs a second
    rest = plan.executed - 0.1 * plan.macs(backbone) - 0.3 * plan.macs(joint)
    bar, first, second = moving(progress, 200)
    assert f"{duration(rest / pace)} left" in bar
    assert [first, second] == snapshot
    progress.see(events.Room(100, 100))
    assert f"{duration(Schedule(plan).critical / pace)} left" in moving(progress, 200)[0]
    progress.see(events.GroupEnded((backbone,)))
    assert moving(progress, 200)[1:] == [second]


def test_in_a_log_what_begins_on_a_cluster_is_a_line(
    plan: Plan, capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion
) -> None:
    with Progress(plan, Log()) as shown:
        key = next(iter(plan.nodes))
        for event in (events.Room(4, 2), events.GroupStarted((key,), 3, "there")):
            shown.see(event)
    assert untimed(capsys.readouterr().err) == snapshot


def steps(
    plan: Plan, phase: str, epochs: int, seconds: float, now: list[float], progress: Progress
) -> None:
    """A phase from its beginning to its end, an epoch each so many seconds."""
    (key,) = keys(plan, phase)
    progress.see(events.GroupStarted((key,), 0))
    for epoch in range(1, epochs + 1):
        now[0] += seconds
        progress.see(report(key, epoch, 4))
    progress.see(events.Finished(key, epochs * seconds))


def test_a_log_has_a_steady_pace(
    plan: Plan, now: list[float], capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion
) -> None:
    """A fast phase is its first and its last line; a slow one has epochs between, ten seconds apart."""
    with Progress(plan, Log()) as progress:
        steps(plan, "joint", 10, 0.5, now, progress)
        fast = untimed(capsys.readouterr().err)
        steps(plan, "backbone", 10, 4.0, now, progress)
        slow = untimed(capsys.readouterr().err)
    assert fast == snapshot
    assert [line.split("epoch ")[1].split("/")[0] for line in slow[1:]] == ["3", "6", "9", "10"]


def test_what_comes_before_the_first_epoch_is_no_pace(plan: Plan, now: list[float]) -> None:
    """A run that goes on had hours left after its first epoch: it had taken a minute to start."""
    (joint,) = keys(plan, "joint")
    progress = Progress(plan, Log())
    now[0] += 60.0
    progress.see(events.GroupStarted((joint,), 8))
    now[0] += 20.1
    progress.see(report(joint, 9, 4))  # of 0.1 s
    rest = plan.executed - 0.9 * plan.macs(joint)
    seconds = progress.state.seconds_left
    assert seconds == pytest.approx(0.1 * rest / (0.1 * plan.macs(joint)))


def test_phases_at_work_together_share_the_pace(
    plan: Plan, now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    (backbone,), (joint,) = keys(plan, "backbone"), keys(plan, "joint")
    progress = Progress(plan, Log())
    progress.see(events.GroupStarted((backbone,), 0))
    progress.see(events.GroupStarted((joint,), 0))
    capsys.readouterr()
    told = []
    for epoch in range(1, 10):
        now[0] += 5
        progress.see(report(backbone, epoch, 4))
        progress.see(report(joint, epoch, 4))
        lines = untimed(capsys.readouterr().err)
        told.append([line.split(" · epoch")[0].split(" · ")[-1] for line in lines])
    # A line every ten seconds, of one as often as of the other.
    assert [len(lines) for lines in told] == [0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert [name for lines in told for name in lines] == ["backbone", "joint"] * 2


def test_verbose_tells_every_epoch(
    plan: Plan, now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    steps(plan, "joint", 10, 0.5, now, Progress(plan, Log(verbose=True)))
    assert len(untimed(capsys.readouterr().err)) == 12


def test_lines_of_json_hold_the_numbers(
    plan: Plan, now: list[float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.log"
    for _ in range(2):  # a run that goes on writes to the end
        with opened(LogOptions(file, Format.json, quiet=True)) as log:
            steps(plan, "joint", 10, 4.0, now, Progress(plan, log))
            logging.getLogger("offramp.store").warning("a \x1b[31m warning")
    screen = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["text"] for line in screen] == ["a \x1b[31m warning"] * 2
    said = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in said] == [*["began", *["epoch"] * 3, "finished", "note"]] * 2
    epoch = said[1]
    assert epoch["trial"] == plan.trials[1].id and epoch["trials"] == 1 and epoch["phase"] == "joint"
    assert epoch["strategy"] == "joint" and epoch["seed"] == 42 and epoch["epoch"] == 3
    assert epoch["validation_accuracy"] == {"1": 0.51, "2": 0.52, "3": 0.53, "4": 0.54}
    assert epoch["loss"] == 1.2345 and 0 < epoch["share_done"] < 1 and epoch["seconds_left"] > 0
    assert datetime.fromisoformat(epoch["time"]).tzinfo is not None


def test_what_ends_a_command_is_the_last_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "run.log"
    with pytest.raises(OfframpError), opened(LogOptions(file)) as log:
        log.say("it begins")
        raise OfframpError(FULL)
    assert untimed(file.read_text()) == ["it begins", FULL]
    with pytest.raises(OfframpError, match="cannot write"), opened(LogOptions(tmp_path)):
        pass


def test_a_file_that_cannot_be_written_any_more_ends_no_run(
    capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion
) -> None:
    file = io.StringIO()
    log = Log(file=file)
    file.close()
    for _ in range(2):
        log.say("on")
    assert [line.split(" (")[0] for line in untimed(capsys.readouterr().err)] == snapshot


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_disk_that_is_full_ends_no_command_at_its_end(
    capsys: pytest.CaptureFixture[str], snapshot: SnapshotAssertion
) -> None:
    """Closing the file writes once more what is left of it."""
    with opened(LogOptions(Path("/dev/full"))) as log:
        log.say("on")
    assert [line.split(" (")[0] for line in untimed(capsys.readouterr().err)] == snapshot


def test_a_terminal_goes_without_what_moves_on_it(
    plan: Plan, now: list[float], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    log = Log()
    assert log.moves and not log.logs
    steps(plan, "joint", 10, 4.0, now, Progress(plan, log))
    assert capsys.readouterr().err == "[1/5] seed 42 · joint · joint · 40.0 s\n"


def test_events_are_lines_for_whoever_prints_them(snapshot: SnapshotAssertion) -> None:
    told = [
        events.GroupStarted(("a" * 64, "b" * 64), 0),
        events.Epoch(EpochReport("a" * 64, 3, 0.5, 0.5, {}, {1: 0.849, 2: 0.927}, 1.0)),
        events.Finished("a" * 64, 4.2),
        events.Reused("a" * 64),
        events.Failed("a" * 64, "it diverged"),
        events.Waiting(("a" * 64,), busy(3)),
        events.Waiting(("a" * 64,)),
        events.Note("a damaged file"),
    ]
    assert list(map(str, told)) == snapshot


@pytest.mark.parametrize(("quiet", "as_json"), [(False, False), (True, False), (False, True)])
def test_a_job_of_many_steps_has_a_line_now_and_then_off_a_terminal(
    quiet: bool, as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "SELDOM", 0.0)
    with watching("fast steps", LogOptions(quiet=quiet), as_json) as watch:
        watch("blur 3 of 5")
    assert ("blur 3 of 5" in capsys.readouterr().err) is not (quiet or as_json)
    monkeypatch.setattr(logs, "SELDOM", 3600.0)
    with watching("fast steps", LogOptions(), False) as watch:
        watch("blur 3 of 5")
    assert capsys.readouterr().err == ""
