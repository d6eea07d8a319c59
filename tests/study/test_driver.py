"""The driver of a cluster against one that says what the test has it say: what is given out again, how
often, and what ends the run."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from cluster_kit import study_file
from syrupy.assertion import SnapshotAssertion

from offramp.engine.fit import EpochReport
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run import cluster as clusters
from offramp.study.run import driver, events, protocol
from offramp.study.run.ledger import Failures, Ledger
from offramp.study.run.processes import listen
from offramp.study.run.protocol import Message, Needs, Restarts, TaskFailure, TaskOrder
from offramp.study.run.run import RunConfig
from offramp.study.spec.file import read
from refusal import refuses
from support import CPU
from wording import refusal

ENDED = "its process was told to end"
Said = tuple[list[events.Event], str | None]
"""What a task says, and why it was lost, if it was."""


@dataclass
class Scripted:
    """A cluster of one machine. answer: what the n-th task of the same order says."""

    answer: Callable[[TaskOrder, int], Said]
    own: bool = False
    tasks: int = 2
    now: float = 1.0
    orders: list[TaskOrder] = field(default_factory=list)
    canceled: set[int] = field(default_factory=set)

    def clock(self) -> float:
        """The only one: it goes on where nobody has anything to say."""
        return self.now

    def room(self, needs: Needs) -> events.Room:
        assert needs.cpus == 1
        return events.Room(self.tasks, 1)

    def start(self, order: TaskOrder) -> int:
        self.orders.append(protocol.loads(order.dumps()))
        return len(self.orders) - 1

    def hear(self, tasks: list[int], seconds: float | None) -> list[Message]:
        if not tasks:
            self.now += seconds or 0.0
            return []
        if tasks[0] in self.canceled:
            return [Message(tasks[0], ended=True, loss=TaskFailure(ENDED))]
        order = self.orders[tasks[0]]
        turn = sum(o.keys == order.keys and o.trials == order.trials for o in self.orders[: tasks[0]])
        happened, reason = self.answer(order, turn)
        loss = None if reason is None else TaskFailure(reason)
        return [Message(tasks[0], tuple(happened), ended=True, loss=loss)]

    def cancel(self, task: int, force: bool = False) -> None:
        assert not force
        self.canceled.add(task)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(read(study_file(tmp_path_factory.mktemp("study"), epochs=8)), CPU)


@pytest.fixture
def carried_out(plan: Plan, tmp_path: Path) -> Callable[[Scripted], Iterator[events.Event]]:
    (tmp_path / "failed").mkdir()
    store = Store(tmp_path / "store")

    def run(cluster: Any) -> Iterator[events.Event]:
        order = protocol.order_of(plan, store, RunConfig(CPU, tmp_path), Needs(1, 0))
        ledger = Ledger(plan, store, Failures(tmp_path / "failed"))
        return driver.Driver(ledger, cluster, order, Restarts(cluster.clock)).work()

    return run


def done(order: TaskOrder) -> list[events.Event]:
    return [
        *(events.Finished(key, 1.0) for key in order.keys),
        *(events.TrialDone(trial, False) for trial in order.trials),
    ]


def epoch(key: str, number: int) -> events.Epoch:
    return events.Epoch(EpochReport(key, number, 0.5, 0.5, {1: 0.5}, {1: 0.5}, 1.0))


def notes(happened: list[events.Event]) -> list[str]:
    return [event.text for event in happened if isinstance(event, events.Note)]


def test_a_task_that_comes_further_each_time_is_never_given_up(carried_out: Any, plan: Plan) -> None:
    def answer(order: TaskOrder, turn: int) -> Said:
        if order.keys and turn < 3 * protocol.RETRIES:
            return [epoch(key, turn + 1) for key in order.keys], "it is gone"
        return done(order), None

    happened = list(carried_out(Scripted(answer)))
    assert {e.key for e in happened if isinstance(e, events.Finished)} == set(plan.nodes)
    assert not [e for e in happened if isinstance(e, events.Failed)]


@pytest.mark.parametrize("again", [0, 1], ids=["no epoch", "the same epoch"])
def test_one_that_does_not_is_given_up_and_each_time_is_said(
    carried_out: Any, plan: Plan, again: int
) -> None:
    first = next(iter(plan.nodes))

    def answer(order: TaskOrder, _: int) -> Said:
        if first in order.keys:
            return [epoch(first, 3)] * (again and 1), ENDED
        return done(order), None

    cluster = Scripted(answer)
    happened = list(carried_out(cluster))
    tried = sum(first in order.keys for order in cluster.orders)
    assert tried == protocol.RETRIES + 1
    texts = notes(happened)
    assert len(set(texts)) == len(texts) == tried - 1
    assert all(f"of seed 1: {ENDED}" in text for text in texts)
    failed = {event.key for event in happened if isinstance(event, events.Failed)}
    assert first in failed and len(failed) < len(plan.nodes)
    assert failed == {n.key for n in plan.nodes.values() if n.key == first or failed & set(n.needs)}


def test_a_machine_that_lacks_something_ends_nothing_once_another_has_trained(carried_out: Any) -> None:
    refused = events.WorkerFailed("b: no data", again=False)

    def answer(order: TaskOrder, turn: int) -> Said:
        if turn == 0 and len(cluster.orders) > 3:
            return [refused], None
        return done(order), None

    cluster = Scripted(answer)
    happened = list(carried_out(cluster))
    assert any("b: no data; it goes" in text for text in notes(happened))
    assert not [e for e in happened if isinstance(e, events.Failed)]


def test_what_no_machine_can_do_ends_the_run(carried_out: Any) -> None:
    cluster = Scripted(lambda *_: ([events.WorkerFailed("no data", again=False)], None))
    refuses("no data", lambda: list(carried_out(cluster)))
    assert len(cluster.orders) <= 3


def test_a_machine_of_our_own_without_room_is_not_waited_for(
    carried_out: Any, snapshot: SnapshotAssertion
) -> None:
    cluster = Scripted(lambda *_: ([], None), own=True, tasks=0)
    assert refusal(lambda: list(carried_out(cluster))) == snapshot


# One rule for restarts: of workers on this machine too.


def test_pauses_double_and_an_epoch_that_is_new_sets_the_count_back() -> None:
    now = [0.0]
    restarts = Restarts(lambda: now[0])
    pauses = []
    for _ in range(protocol.RETRIES):
        pauses.append(protocol.pause_before(restarts.lost(["a", "b"])))
    assert pauses == [0, 2, 4, 8, 16, 32]
    restarts.see(epoch("key", 3), "a")
    assert restarts.lost(["a"]) == 1 and restarts.lost(["a", "b"]) == protocol.RETRIES + 1
    restarts.see(epoch("key", 3), "a")  # which was reached before
    assert restarts.lost(["a"]) == protocol.RETRIES + 2
    restarts.rest(["a"], 2.0)
    assert restarts.rested() == []
    now[0] = 2.0
    assert restarts.rested() == ["a"] and restarts.rests == {}


def worker_order(plan: Plan, root: Path) -> TaskOrder:
    return protocol.order_of(plan, Store(root), RunConfig(CPU, root), Needs(1, 0), root)


def test_a_worker_that_dies_rests_longer_each_time_and_then_ends_the_run(
    plan: Plan, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    machine = Scripted(lambda *_: ([], "SIGKILL"))
    starts: list[float] = []
    begin = machine.start
    machine.start = lambda order: starts.append(machine.now) or begin(order)  # type: ignore[method-assign, func-returns-value]
    happening = listen(machine, [worker_order(plan, tmp_path)], Restarts(machine.clock))
    assert refusal(list, happening) == snapshot
    between = [later - start for start, later in pairwise(starts)]
    assert len(between) == protocol.RETRIES
    assert all(
        pause <= took <= pause + 1 for pause, took in zip([0, 2, 4, 8, 16, 32], between, strict=True)
    )


def test_a_worker_that_comes_further_each_time_is_never_given_up(plan: Plan, tmp_path: Path) -> None:
    def answer(_: TaskOrder, turn: int) -> Said:
        last = turn == 3 * protocol.RETRIES
        return [epoch("key", turn + 1)], None if last else "SIGTERM"

    machine = Scripted(answer)
    happened = list(listen(machine, [worker_order(plan, tmp_path)], Restarts(machine.clock)))
    assert sum(isinstance(event, events.Epoch) for event in happened) == 3 * protocol.RETRIES + 1
    assert all("(1 of 6)" in text for text in notes(happened))


@dataclass
class FakeRay:
    """A cluster of which the first `fails` heads have no server for this driver.

    Attributes:
        addresses: Of the heads that were tried.
        kinds: Of the processes that tasks went to.
    """

    fails: int = 0
    addresses: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    exceptions: ClassVar[Any] = SimpleNamespace(RayError=LookupError)

    def init(self, address: str, **_: Any) -> None:
        self.addresses.append(address)
        if len(self.addresses) <= self.fails:
            raise ConnectionAbortedError("Initialization failure from server")

    def remote(self, *work: Any, max_calls: int = 0) -> Any:
        if not work:
            return partial(self.remote, max_calls=max_calls)
        kind = "its own" if max_calls == 1 else "any"
        task = SimpleNamespace(remote=lambda _: self.kinds.append(kind))
        return SimpleNamespace(options=lambda **_: task)

    def shutdown(self) -> None:
        self.addresses.append("left")


WHERE = "ray://127.0.0.1:10001"


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(clusters, "_imported", lambda: fake)
    monkeypatch.setattr(clusters, "check_version", lambda: None)
    return fake


@pytest.mark.parametrize(("fails", "joins"), [(0, True), (2, True), (3, False)])
def test_a_head_that_cannot_start_a_server_is_asked_again(
    ray: FakeRay, fails: int, joins: bool, snapshot: SnapshotAssertion
) -> None:
    """It forks among its threads, and now and then the child dies at once."""
    ray.fails = fails
    if joins:
        with clusters.joined(WHERE) as cluster:
            assert cluster.by_client and not cluster.own
        assert ray.addresses == [WHERE] * (fails + 1) + ["left"]
    else:
        assert refusal(clusters.joined(WHERE).__enter__) == snapshot
        assert ray.addresses == [WHERE] * 3


@pytest.mark.parametrize(("gpus", "kind"), [(0.0, "any"), (1.0, "its own"), (0.5, "its own")])
def test_a_phase_on_a_gpu_has_a_process_of_its_own(ray: FakeRay, gpus: float, kind: str) -> None:
    """One that had a GPU would stay on it, whichever it is given next."""
    with clusters.joined(WHERE) as cluster:
        cluster.start(TaskOrder("", [], {}, {}, "", {}, Needs(1, 0, gpus), "", {}, {}))
    assert ray.kinds == [kind]
