"""What a machine of a cluster does with an order, without a cluster."""

import errno
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cluster_kit import study_file
from kit import check_equal, trained
from syrupy.assertion import SnapshotAssertion

import website
from forks import forked
from offramp.data import fetch
from offramp.errors import OfframpError, Unwritable
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run import events, protocol, worker
from offramp.study.run.run import RunConfig, run
from offramp.study.spec import file as spec
from support import CPU
from wording import refusal

STUDIES = sorted(Path(__file__).parents[2].joinpath("studies").rglob("*.yaml"))
NET = """\
from neighbor import width
from torch import nn

def make_net(classes):
    return nn.Sequential(
        nn.Conv2d(1, width(), 3), nn.ReLU(), nn.Conv2d(width(), 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )
"""


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_travels_as_text(path: Path) -> None:
    for member in spec.members(path):
        study = member.study
        arrived = spec.from_text(spec.as_text(study))
        for name in type(study).model_fields:
            assert getattr(arrived, name) == getattr(study, name), name


def test_a_function_of_this_process_does_not_travel(snapshot: SnapshotAssertion) -> None:
    def own(_: int) -> tuple[()]:
        return ()

    study = spec.parse({"strategies": [{"name": own}], "backbone": "digits-cnn", "data": "digits"})
    assert refusal(spec.as_text, study) == snapshot


HAPPENED: list[events.Event] = [
    events.Reused("a"),
    events.GroupStarted(("a", "b"), 3, "host"),
    events.Failed("a", "it is\nso"),
    events.Waiting(("a",), None),
    events.TrialDone("t", True),
    events.Room(3, 2),
    events.GroupEnded(("a",)),
    events.WorkerFailed("gone", True),
]


def test_events_travel_as_json(plan: Plan, tmp_path: Path) -> None:
    store = tmp_path / "store"
    happened = list(run(plan, Store(store), RunConfig(CPU, store / "caches")))
    assert any(isinstance(event, events.Epoch) for event in happened)
    for event in (*happened, *HAPPENED):
        assert events.loads(events.dumps(event)) == event


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    few = ["data={name: digits, train_images: 200}", "strategies=[baseline, two-stage]"]
    return make_plan(spec.read(study_file(tmp_path_factory.mktemp("study"), epochs=1), few), CPU)


def order(plan: Plan, store: Path) -> protocol.TaskOrder:
    config = RunConfig(CPU, store / "caches")
    return protocol.order_of(plan, Store(store), config, protocol.Needs(1, 0))


def done(order: protocol.TaskOrder) -> list[events.Event]:
    assert protocol.loads(order.dumps()) == order
    return [events.loads(line) for line in worker.carry_out(order.dumps())]


def begun(plan: Plan, root: Path) -> Store:
    store = Store(root)
    for trial in plan.trials:
        store.plan_trial(trial.id, trial.keys)
    return store


@pytest.fixture
def task(plan: Plan, tmp_path: Path) -> protocol.TaskOrder:
    """The order to train the first phase into a store that is begun."""
    store = begun(plan, tmp_path / "store")
    return replace(order(plan, store.root), keys=(next(iter(plan.nodes)),))


def broken(order: protocol.TaskOrder, again: bool) -> str:
    """That an order cannot be carried out, now or ever; why."""
    (event,) = done(order)
    assert isinstance(event, events.WorkerFailed) and event.again == again
    return event.text


def fail_with(error: Exception, patch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    patch.setattr(worker, "run_part", fail)


def test_orders_one_by_one_are_a_run(plan: Plan, tmp_path: Path) -> None:
    store = begun(plan, tmp_path / "made")
    whole = Store(tmp_path / "whole")
    list(run(plan, whole, RunConfig(CPU, tmp_path / "caches")))
    for key in plan.nodes:
        happened = done(replace(order(plan, store.root), keys=(key,)))
        assert trained(happened) == [key]
        assert all(e.where == worker.host() for e in happened if isinstance(e, events.GroupStarted))
    again = done(replace(order(plan, store.root), keys=(key,)))
    assert trained(again) == [] and events.Reused(key) in again
    for trial in plan.trials:
        assert events.TrialDone(trial.id, False) in done(
            replace(order(plan, store.root), trials=(trial.id,))
        )
    check_equal(store, whole)


def test_what_another_process_is_at_is_left_to_it(task: protocol.TaskOrder) -> None:
    store, (key,) = Store(task.store), task.keys
    with store.lock(key):
        happened = done(task)
    (waiting,) = (event for event in happened if isinstance(event, events.Waiting))
    assert waiting.keys == (key,) and waiting.holder is not None
    assert not store.has_node(key)


def test_other_data_is_refused(task: protocol.TaskOrder) -> None:
    others = json.loads(task.study)
    others["data"]["train_images"] = 500
    assert "its data differ" in broken(replace(task, study=json.dumps(others)), again=False)
    assert Store(task.store).nodes() == []


def test_data_are_fetched_once_and_other_bytes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By two machines that have nothing: at the second one's, other images lie behind the address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)

    def on_machine(name: str) -> None:
        monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / name))
        worker._make_plan.cache_clear()

    def cells(draw: int) -> bytes:
        images = np.random.default_rng(draw).integers(0, 256, (200, 8, 8), dtype=np.uint8)
        out = io.BytesIO()
        np.savez(out, train_images=images, train_labels=np.arange(200) % 2)
        return out.getvalue()

    with website.serving() as site:
        site.pages["/cells.npz"] = cells(0)
        data = f"data={{name: npz, url: '{site.address}/cells.npz'}}"
        on_machine("driver")
        plan = make_plan(spec.read(study_file(tmp_path, epochs=1), [data]), CPU)
        store = begun(plan, tmp_path / "store")
        task = order(plan, store.root)
        first, *_, last = plan.nodes
        on_machine("worker")
        for _ in range(2):
            assert trained(done(replace(task, keys=(first,)))) in ([first], [])
        assert site.requests == ["/cells.npz"] * 2  # by the driver, and once by the worker
        on_machine("another")
        site.pages["/cells.npz"] = cells(1)
        assert "its data differ" in broken(replace(task, keys=(last,)), again=False)
        on_machine("last")
        site.pages.clear()
        site.down = 100
        monkeypatch.setattr(fetch, "PAUSE_S", 0.0)
        broken(replace(task, keys=(last,)), again=True)  # the server may come back
    assert store.nodes() == [first]


def test_no_store_is_begun_where_one_was(task: protocol.TaskOrder) -> None:
    shutil.rmtree(task.store)
    assert "no store" in broken(task, again=True)
    assert not Path(task.store).exists()


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOSPC, "no room"), True),
        (Unwritable("full disk"), True),
        (OfframpError("no folder"), False),
    ],
)
def test_what_a_machine_lacks_may_be_had_later(
    task: protocol.TaskOrder, monkeypatch: pytest.MonkeyPatch, error: Exception, again: bool
) -> None:
    """Memory or disk; not what is wrong anywhere."""
    fail_with(error, monkeypatch)
    text = broken(task, again)
    assert text.startswith(worker.host()) and (str(error) or "MemoryError") in text


@pytest.mark.parametrize("error", [ZeroDivisionError("by zero"), FileNotFoundError("no table")])
def test_what_users_code_raises_is_its_phase_s_end(
    task: protocol.TaskOrder, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fail_with(error, monkeypatch)
    reason = f"{type(error).__name__}: {error} (on {worker.host()})"
    assert done(task) == [events.Failed(task.keys[0], reason)]


def test_a_file_that_is_gone_with_its_store_is_no_fault_of_the_code(
    task: protocol.TaskOrder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        shutil.rmtree(task.store)
        raise FileNotFoundError("weights.safetensors")

    monkeypatch.setattr(worker, "run_part", fail)
    broken(task, again=True)


ELSEWHERE = """\
import os, sys, tempfile
os.chdir(sys.argv[1])
tempfile.tempdir = sys.argv[1]
from offramp.study.run.entry import work
for line in work(sys.stdin.read()):
    print(line)
"""


def elsewhere(order: protocol.TaskOrder, folder: Path) -> list[events.Event]:
    """The order carried out by a process in another folder."""
    folder.mkdir(exist_ok=True)
    with forked(ELSEWHERE, str(folder)) as process:
        process.stdin.write(order.dumps())
        process.stdin.close()
        output = process.stdout.read()
    assert process.returncode == 0
    return [events.loads(line) for line in output.splitlines()]


def test_code_travels_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has none of it; not where it is named by a path that is nowhere else."""
    home = tmp_path / "home"
    (home / "code").mkdir(parents=True)
    (home / "code" / "net.py").write_text(NET)
    (home / "code" / "neighbor.py").write_text("width = lambda: 4\n")
    monkeypatch.chdir(home)
    study = spec.read(study_file(home, epochs=1), ["backbone=code/net.py:make_net", "exits=1"])
    plan = make_plan(study, CPU)
    store = begun(plan, tmp_path / "store")
    key = next(iter(plan.nodes))
    task = replace(order(plan, store.root), keys=(key,), folder=str(tmp_path / "nowhere"))
    happened = elsewhere(task, tmp_path / "there")
    assert trained(happened) == [key], happened
    texts = [event.text for event in happened if isinstance(event, events.Note)]
    assert any("runs code/net.py:make_net" in text for text in texts)
    name = str(home / "code" / "net.py:make_net")
    moved = task.study.replace("code/net.py:make_net", name)
    (home / "code" / "neighbor.py").write_text("width = lambda: 5\n")
    code = {name: task.code["code/net.py:make_net"]}
    text = broken(replace(task, study=moved, code=code), again=False)  # before anything of it runs
    assert "as it was sent" in text
