"""Several processes on one store: nothing is trained twice, nothing is lost."""

import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from itertools import count
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from kit import (
    began,
    check_equal,
    check_sound,
    check_tidy,
    closed,
    conduct,
    end,
    failed,
    finish,
    hashes,
    helper,
    next_line,
    notes,
    reused,
    start,
    trained,
)
from running_kit import by_phase
from syrupy.assertion import SnapshotAssertion

from forks import Forked, forked
from offramp.errors import OfframpError
from offramp.process import ENDING, ended_by
from offramp.store import locks
from offramp.store.disk import LockFolder
from offramp.store.store import Store
from offramp.strategies.baseline import baseline
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run.events import Epoch, Event, GroupStarted, Waiting, WorkerFailed
from offramp.study.run.ledger import Failures
from offramp.study.run.processes import Processes, check_killed, run_pooled, server
from offramp.study.run.protocol import RETRIES, Needs, TaskFailure, TaskOrder
from offramp.study.run.run import run
from offramp.study.spec import file as spec
from support import CPU, tiny_plan, tiny_study
from wording import refusal

STUDY: dict[str, Any] = {
    "strategies": ["two-stage", "joint-branch", "separate"],
    "seeds": [42],
    "recipe": {"epochs": 2, "batch_size": 16},
}


@pytest.fixture(scope="module")
def two() -> Iterator[list[Forked]]:
    with helper() as first, helper() as other:
        yield [first, other]


def finished(lines: list[list[Any]]) -> list[str]:
    return [key for kind, keys in lines if kind == "Finished" for key in keys]


def test_two_processes_train_every_key_exactly_once(tmp_path: Path, two: list[Forked]) -> None:
    gate, root = tmp_path / "gate", tmp_path / "store"
    os.mkfifo(gate)
    for process in two:
        start(process, root, STUDY, gate=str(gate))
    assert [next_line(process) for process in two] == [["Ready", []]] * 2
    with gate.open("w"):  # whoever opens it to read waits for this, and nobody for a clock
        ends = [end(process) for process in two]
    assert [status for status, _ in ends] == [0, 0]
    plan = tiny_plan(tiny_study(**STUDY))
    for kind in ("GroupStarted", "Finished"):
        counts = Counter(k for _, lines in ends for event, keys in lines if event == kind for k in keys)
        assert counts == Counter(list(plan.nodes)), kind
    for _, lines in ends:  # both see every trial
        assert sum(kind == "TrialDone" for kind, _ in lines) == len(plan.trials)
    whole, _ = finish(plan, tmp_path / "whole")
    store = Store(root)
    check_equal(whole, store)
    check_sound(store)
    check_tidy(store)
    _, events = finish(plan, root)
    assert not began(events) and all(closed(events).values())


@pytest.fixture
def determinism() -> Iterator[None]:
    """Puts back what two runs that take turns in one thread put back in the wrong order."""
    yield
    torch.use_deterministic_algorithms(False)


def until_waiting(running: Generator[Event]) -> list[Event]:
    """What a run says until others hold all that is left."""
    events: list[Event] = []
    for event in running:
        events.append(event)
        if isinstance(event, Waiting):
            break
    return events


@pytest.mark.usefixtures("determinism")
def test_work_is_shared_while_another_process_trains(tmp_path: Path) -> None:
    """Two runs in turn in this process: the second takes what the first has not locked, and waits."""
    plan = tiny_plan(tiny_study(["two-stage", "joint"], recipe={"epochs": 2}))
    backbone = plan.trials[0].keys[0]
    first = run(plan, Store(tmp_path), conduct(tmp_path))
    assert next(e for e in first if isinstance(e, GroupStarted)).keys == (backbone,)
    second = run(plan, Store(tmp_path), conduct(tmp_path))
    events = until_waiting(second)
    assert trained(events) == [plan.trials[1].keys[0]]
    assert closed(events) == {plan.trials[1].id: False}
    assert isinstance(events[-1], Waiting) and backbone in events[-1].keys
    rest = list(first)
    assert set(trained(rest)) == set(plan.trials[0].keys)
    events += second
    assert reused(events) == set(plan.trials[0].keys) and len(trained(events)) == 1
    assert closed(events) == {plan.trials[1].id: False, plan.trials[0].id: True}


def test_the_work_of_a_killed_process_is_taken_over(tmp_path: Path, two: list[Forked]) -> None:
    root = tmp_path / "store"
    study: dict[str, Any] = {"strategies": ["two-stage"], "recipe": {"epochs": 3}}
    plan = tiny_plan(tiny_study(**study))
    start(two[0], root, study, pause="Epoch", conduct={"checkpoint_seconds": 0})
    while (line := next_line(two[0]))[0] != "Paused":
        pass
    (victim,) = line[1]
    events = []
    for event in run(plan, Store(root), conduct(root)):
        if isinstance(event, Waiting) and not any(isinstance(e, Waiting) for e in events):
            os.kill(victim, signal.SIGKILL)
            assert end(two[0])[0] == -signal.SIGKILL
        events.append(event)
    assert sorted(trained(events)) == sorted(plan.nodes)
    whole, _ = finish(plan, tmp_path / "whole")
    check_equal(whole, Store(root))


# What becomes of a run whose locks or store are taken away.


def until_epoch(running: Generator[Event], root: Path) -> str:
    """Have a run train one epoch; the key that it is at."""
    key = next(event.report.key for event in running if isinstance(event, Epoch))
    assert [path.name for path in (root / "locks").iterdir()] == [f"{key}.1.lock"]
    return key


def test_a_phase_that_went_to_another_process_is_not_trained_on(tmp_path: Path) -> None:
    """As when this one was stopped for a while."""
    plan, root = tiny_plan(tiny_study(["baseline", "joint"])), tmp_path / "store"
    running = run(plan, Store(root), conduct(tmp_path, checkpoint_seconds=0))
    key = until_epoch(running, root)
    mine = root / "locks" / f"{key}.1.lock"
    other = locks.new_lease(LockFolder(root / "locks"), f"{key}.2.lock")
    mine.unlink()
    events = until_waiting(running)
    (note,) = notes(events)
    assert f"'{plan.nodes[key].name}' went to process {os.getpid()}" in note
    assert Store(root).read_checkpoint(key) is None  # that is the other's to write by now
    assert set(trained(events)) == set(plan.nodes) - {key}
    assert isinstance(events[-1], Waiting) and events[-1].holder is not None
    assert f"process {os.getpid()} on " in events[-1].holder
    other.release()
    events += running
    assert sorted(trained(events)) == sorted(plan.nodes)
    whole, _ = finish(plan, tmp_path / "whole")
    check_equal(whole, Store(root))


@pytest.fixture(scope="module")
def two_stage(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Store]:
    """A plan, and its store of a run that nobody disturbed."""
    plan = tiny_plan(tiny_study(["two-stage"]))
    return plan, finish(plan, tmp_path_factory.mktemp("two-stage"))[0]


def test_a_phase_is_kept_although_one_beside_it_went_to_another_process(
    tmp_path: Path, two_stage: tuple[Plan, Store]
) -> None:
    """It was checkpointed as it had been concluded, and concluded once more."""
    (plan, whole), root = two_stage, tmp_path / "store"
    first, second = (by_phase(plan, f"exit {n}") for n in (1, 2))
    running = run(plan, Store(root), conduct(tmp_path, checkpoint_seconds=0))
    reports = (event.report for event in running if isinstance(event, Epoch))
    next(report for report in reports if (report.key, report.epoch) == (first, 2))  # it is kept next
    other = locks.new_lease(LockFolder(root / "locks"), f"{second}.2.lock")
    (root / "locks" / f"{second}.1.lock").unlink()
    events = until_waiting(running)
    (note,) = notes(events)
    assert note.startswith("phase 'exit 2' went")
    other.release()
    events += running
    assert trained(events)[0] == first
    assert set(trained(events)) == set(plan.nodes) - {by_phase(plan, "backbone")}
    check_equal(whole, Store(root))


def test_a_store_that_is_moved_under_a_run_ends_it_in_one_line(
    tmp_path: Path,
    two_stage: tuple[Plan, Store],
    monkeypatch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
) -> None:
    (plan, whole), root, place = two_stage, tmp_path / "store", tmp_path / "elsewhere"
    running = run(plan, Store(root), conduct(tmp_path, checkpoint_seconds=0))
    until_epoch(running, root)
    root.rename(place)
    assert refusal(list, running) == snapshot
    assert not root.exists()
    # This process, which had the lock, has not ended: whoever looks at it again and again sees nobody.
    # At each look at its clock as much time has gone by as counts between two looks at a lock.
    seconds = count(step=locks.LOOK_S)
    clock = SimpleNamespace(monotonic=lambda: next(seconds), sleep=lambda _: None)
    monkeypatch.setattr(locks, "time", clock)
    monkeypatch.setattr("offramp.study.run.run.POLL_SECONDS", 0.0)
    check_equal(whole, finish(plan, place)[0])


def test_copies_of_a_store_that_a_run_is_at_work_on_go_on_by_themselves(
    tmp_path: Path, two_stage: tuple[Plan, Store]
) -> None:
    (plan, _), root = two_stage, tmp_path / "store"
    copies = []
    for number, event in enumerate(run(plan, Store(root), conduct(tmp_path, checkpoint_seconds=0))):
        if isinstance(event, GroupStarted | Epoch) and len(copies) < 3:
            copies.append(tmp_path / f"copy {number}")
            shutil.copytree(root, copies[-1])
    for copy in copies:
        check_equal(finish(plan, copy)[0], Store(root))


# Workers of one run.

POOLED: dict[str, Any] = {
    "seeds": [42, 43],
    "strategies": ["two-stage", "joint"],
    "backbone": "digits-cnn",
    "data": {"name": "digits", "train_images": 240, "test_images": 60},
    "recipe": {"epochs": 2, "batch_size": 64},
}

DATA = """
import multiprocessing, os, signal
import torch

def make_data(dying: str = "no"):
    if multiprocessing.parent_process() is not None:
        if dying == "interrupted":
            raise KeyboardInterrupt
        if dying == "wrong":
            raise ValueError("no more images")
        if dying in ("once", "always"):
            from pathlib import Path
            from offramp.engine import fit
            died = Path(__file__).with_name("died")
            step, calls = fit.step, iter(range(1000))
            def fatal(*args):
                if next(calls) == 5 * (dying == "once") and not (dying == "once" and died.exists()):
                    died.touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return step(*args)
            fit.step = fatal
        if dying == "broken":
            from offramp.study.run import run
            run.enlist = {}.__getitem__
    labels = torch.arange(150) % 3
    images = torch.rand(150, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 99
    return {"train": (images.to(torch.uint8) + labels.view(-1, 1, 1, 1).to(torch.uint8) * 50, labels)}
"""


def pooled(study: dict[str, Any], root: Path, workers: int = 2) -> tuple[Plan, list[Any]]:
    plan = make_plan(spec.parse(study), CPU)
    events = run_pooled(plan, Store(root), conduct(root, workers=workers, checkpoint_seconds=0))
    return plan, list(events)


@pytest.mark.journey
def test_two_workers_train_every_key_once_to_the_bits_of_one(tmp_path: Path) -> None:
    wild = {"name": "two-stage", "as": "wild", "phases": {"exit 1": {"learning_rate": 1e30}}}
    recipe = {"epochs": 2, "batch_size": 32}
    strategies = [*POOLED["strategies"], wild]
    study = POOLED | {"seeds": [42], "strategies": strategies, "recipe": recipe}
    plan, alone = pooled(study, tmp_path / "alone", workers=1)
    _, pair = pooled(study, tmp_path / "two")
    assert Counter(trained(pair)) == Counter(trained(alone))
    assert Counter(began(pair)) == Counter(began(alone)) == Counter(list(plan.nodes))
    assert failed(pair) == failed(alone) and len(failed(alone)) == 1
    assert set(closed(pair)) == set(closed(alone)) == {t.id for t in plan.trials if t.label != "wild"}
    assert hashes(Store(tmp_path / "two")) == hashes(Store(tmp_path / "alone"))
    assert sum(isinstance(e, Epoch) for e in pair) == sum(isinstance(e, Epoch) for e in alone)
    check_sound(Store(tmp_path / "two"))


@pytest.fixture
def data(tmp_path: Path) -> str:
    file = tmp_path / "my_data.py"
    file.write_text(DATA)
    return f"{file}:make_data"


def with_data(name: str, dying: str) -> dict[str, Any]:
    return POOLED | {
        "seeds": [42],
        "strategies": ["baseline"],
        "data": {"name": name, "dying": dying},
        "recipe": {"epochs": 4, "batch_size": 16},
    }


@pytest.mark.parametrize("dying", ["interrupted", "broken", "wrong"])
def test_a_worker_that_cannot_begin_is_reported(
    tmp_path: Path, data: str, dying: str, snapshot: SnapshotAssertion
) -> None:
    assert refusal(pooled, with_data(data, dying), tmp_path / "store") == snapshot


@pytest.mark.parametrize("memory", [False, True])
def test_a_run_goes_on_without_a_worker_that_is_killed(
    tmp_path: Path,
    data: str,
    memory: bool,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
) -> None:
    """Another is started; none where memory was short."""
    if memory:
        counts = iter(range(9))
        monkeypatch.setattr("offramp.study.run.processes.killed_for_memory", lambda: next(counts))
    plan, events = pooled(with_data(data, "once"), tmp_path / "store")
    assert notes(events) == snapshot
    assert {*trained(events), *reused(events)} == set(plan.nodes)
    whole, _ = finish(make_plan(spec.parse(with_data(data, "no")), CPU), tmp_path / "whole")
    check_sound(Store(tmp_path / "store"))
    check_equal(whole, Store(tmp_path / "store"))


def test_workers_that_are_killed_again_and_again_end_the_run(
    tmp_path: Path, data: str, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.setattr("offramp.study.run.protocol.RETRIES", 1)
    assert refusal(pooled, with_data(data, "always"), tmp_path / "store") == snapshot
    check_sound(Store(tmp_path / "store"))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_memory_may_be_why_where_the_system_sends_the_signal_that_ends_a_worker(number: int) -> None:
    with pytest.raises(OfframpError, match=signal.Signals(number).name) as caught:
        check_killed(TaskFailure(ended_by(-number), -number), RETRIES + 1)
    assert ("memory" in str(caught.value)) == (number == signal.SIGKILL)


START_A_PROCESS = """
from offramp.study.run.processes import Processes
from offramp.study.run.protocol import Needs, TaskOrder
Processes().start(TaskOrder("", [], {}, {}, "", {}, Needs(1, 0), "", {}, {}))
"""
SCRIPTS = {
    START_A_PROCESS: (
        r"^each worker process imports your script, .* below if __name__ == \"__main__\":, or use one"
    ),
    "raise ValueError('no such thing')": "a worker process could not begin: ValueError: no such thing; ",
    "def other(): pass": "a worker process could not begin: AttributeError: .*'mine'",
    # A negative control: nothing is wrong with this one.
    "from offramp.strategies import baseline as mine": None,
}


@pytest.mark.parametrize(("script", "message"), SCRIPTS.items())
def test_a_worker_that_cannot_begin_with_the_script_says_why(
    tmp_path: Path, data: str, script: str, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script is what `__main__` is; in a notebook, where it is no file, the same is said."""
    main = ModuleType("__main__")
    main.__file__ = str(tmp_path / "script.py")
    Path(main.__file__).write_text(script)
    mine = FunctionType(baseline.__code__, baseline.__globals__, "mine")
    mine.__module__, mine.__qualname__ = "__main__", "mine"
    main.mine = mine  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    study = with_data(data, "no") | {"strategies": [mine], "recipe": {"epochs": 1}}
    if message is None:
        pooled(study, tmp_path / "store")
        return
    with pytest.raises(OfframpError, match=message) as caught:
        pooled(study, tmp_path / "store")
    assert "memory" not in str(caught.value)


def test_a_process_of_the_users_own_is_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may come from the same server, and its pipes are its own."""
    main = ModuleType("__main__")
    main.__file__ = str(tmp_path / "script.py")
    Path(main.__file__).write_text("raise ValueError")
    monkeypatch.setitem(sys.modules, "__main__", main)
    launcher = Processes()
    task = launcher.start(TaskOrder("", [], {}, {}, "", {}, Needs(1, 0), "", {}, {}))
    worker = launcher.workers[task]
    ((event,),) = [message.events for message in launcher.hear([task], None)]
    assert isinstance(event, WorkerFailed) and "begin: ValueError" in event.text
    events, theirs = server().Pipe(duplex=False)
    own = server().Process(target=print, args=(theirs,))
    own.start()
    theirs.close()
    with pytest.raises(EOFError):
        events.recv()
    own.join()
    worker.join()


PARENT = """
import json, sys
from pathlib import Path
from kit import conduct
from support import CPU
from offramp.process import exit_code
from offramp.store.store import Store
from offramp.strategies.baseline import baseline
from offramp.study.plan.plan import make_plan
from offramp.study.run.processes import run_pooled
from offramp.study.spec import file as spec

study, root, workers = json.loads(sys.argv[1])
asked = conduct(Path(root), workers=workers, checkpoint_seconds=1e9)
try:
    for event in run_pooled(make_plan(spec.parse(study), CPU), Store(Path(root)), asked):
        print(type(event).__name__, flush=True)
except KeyboardInterrupt as error:
    sys.exit(exit_code(error))
"""


@pytest.mark.parametrize(
    ("number", "workers"),
    [
        (signal.SIGKILL, 2),
        pytest.param(signal.SIGTERM, 2, marks=pytest.mark.long),
        pytest.param(signal.SIGTERM, 1, marks=pytest.mark.long),
        (signal.SIGHUP, 1),
    ],
)
def test_nothing_goes_on_without_its_parent(
    tmp_path: Path, number: signal.Signals, workers: int
) -> None:
    """Killed alone, or told to end together with all that it started, as Slurm does: nobody is left, and
    what was at work is saved."""
    root = tmp_path / "store"
    endless = POOLED | {"seeds": [42], "strategies": ["joint"]}
    endless["recipe"] = {"epochs": 10**6, "batch_size": 64}
    with forked(PARENT, json.dumps([endless, str(root), workers]), session=True) as parent:
        assert any(line == "Epoch\n" for line in parent.stdout)
        others = psutil.Process(parent.pid).children(recursive=True)
        assert len(others) >= (workers if workers > 1 else 0)
        if workers > 1:
            check_shielded([other for other in others if "forkserver" in " ".join(other.cmdline())])
        if number == signal.SIGKILL:
            parent.kill()
        else:
            os.killpg(parent.pid, number)
        _, left = psutil.wait_procs(others, timeout=300)
        assert not left
        parent.stdout.close()
    assert parent.returncode == (-number if number == signal.SIGKILL else 128 + number)
    store = Store(root)
    saved = [store.read_checkpoint(key) for key in store.archive.checkpoints()]
    assert [s is not None for s in saved] == [True]
    check_sound(store)


def check_shielded(processes: list[psutil.Process]) -> None:
    """What workers are forks of hears no signal to all: else its workers are taken for ended, and go on
    while their caches are removed."""
    [server] = [p for p in processes if p.parent() not in processes]
    if sys.platform.startswith("linux"):
        status = Path(f"/proc/{server.pid}/status").read_text().splitlines()
        blocked = int(next(line for line in status if line.startswith("SigBlk")).split()[1], 16)
        assert all(blocked & 1 << (number - 1) for number in ENDING)


@pytest.mark.long
def test_workers_of_a_run_that_nobody_reads_on_end_with_it(tmp_path: Path) -> None:
    plan = make_plan(spec.parse(POOLED), CPU)
    running = run_pooled(plan, Store(tmp_path), conduct(tmp_path, workers=2, checkpoint_seconds=0))
    next(e for e in running if isinstance(e, Epoch))
    running.close()
    store, events = finish(plan, tmp_path)  # their locks are free
    assert set(trained(events)) | reused(events) == set(plan.nodes)
    whole, _ = finish(plan, tmp_path / "whole")
    assert hashes(store) == hashes(whole)


def test_two_processes_note_the_same_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs a failed phase is given up by every process that shares the plan, at about one time."""
    replace, failures = Path.replace, Failures(tmp_path)

    def replaced(path: Path, target: Path) -> Path:
        with monkeypatch.context() as other:
            other.setattr(Path, "replace", replace)
            other.setattr(os, "getpid", lambda: 0)
            failures["node"] = "as another process says"
        return replace(path, target)

    with monkeypatch.context() as mine:
        mine.setattr(Path, "replace", replaced)
        failures["node"] = "as this one says"
    assert failures["node"] == "as this one says" and failures.keys() == {"node"}
