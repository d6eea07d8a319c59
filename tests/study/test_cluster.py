"""A cluster of Ray, in processes of this machine: what it trains, and what becomes of it when parts of
it die. All tests share one cluster."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from cluster_kit import Machines, _machines, machines, study_file
from kit import check_equal, check_sound, notes, trained

from disks import small_disk
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run.cluster import joined
from offramp.study.run.driver import run_on_cluster
from offramp.study.run.events import Epoch, Event, Failed, GroupStarted, Room
from offramp.study.run.run import RunConfig, run
from offramp.study.spec.file import read
from support import CPU

__all__ = ["_machines", "machines"]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(1800),  # beside other work all of it is slow; what hangs, hangs for longer
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
DEMO = Path(__file__).parents[2] / "studies" / "demo.yaml"
EPOCHS = 8
See = Callable[[Event], None]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return make_plan(read(study_file(tmp_path_factory.mktemp("study"), epochs=EPOCHS)), CPU)


@pytest.fixture(scope="module")
def undisturbed(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """What one process makes of the plan."""
    root = tmp_path_factory.mktemp("local") / "store"
    store = Store(root)
    list(run(plan, store, RunConfig(CPU, root / "caches")))
    return store


def carried_out(plan: Plan, root: Path | Store, see: See = lambda _: None) -> list[Event]:
    """Run a plan on the cluster of RAY_ADDRESS; what happened. see: is told at once."""
    happened = []
    with joined("ray") as cluster:
        store = root if isinstance(root, Store) else Store(root)
        for event in run_on_cluster(plan, store, cluster, checkpoint_seconds=0.0):
            happened.append(event)
            see(event)
    return happened


def command(folder: Path, where: str = "ray") -> list[str]:
    """The command that runs the study of `plan` on a cluster, into `folder / "store"`."""
    study = study_file(folder / "study", epochs=EPOCHS)
    run = ["run", str(study), "--on", where, "--store", str(folder / "store")]
    return [sys.executable, "-m", "offramp", *run]


def check_once(plan: Plan, happened: list[Event]) -> None:
    """Every node was trained to its end exactly once, and nothing failed."""
    assert sorted(trained(happened)) == sorted(plan.nodes)
    assert not [event for event in happened if isinstance(event, Failed)]


def at_work(store: Store, event: Event) -> psutil.Process | None:
    """The process that begins a phase, or has trained an epoch of it, where it still holds its lock."""
    keys = event.keys if isinstance(event, GroupStarted) else ()
    keys = (event.report.key,) if isinstance(event, Epoch) else keys
    for key in keys:
        match = re.search(r"process (\d+) on", store.holder(key) or "")
        with suppress(psutil.NoSuchProcess):
            if match is not None:
                return psutil.Process(int(match[1]))
    return None


def once(when: Callable[[Event], bool], do: See) -> See:
    """Does it with the first event for which `when` is true."""
    left = [do]

    def see(event: Event) -> None:
        if left and when(event):
            left.pop()(event)

    return see


def second_epoch(event: Event) -> bool:
    return isinstance(event, Epoch) and event.report.epoch == 2


@pytest.mark.journey
@pytest.mark.usefixtures("machines")
def test_the_same_bits_as_one_process(plan: Plan, undisturbed: Store, tmp_path: Path) -> None:
    happened = carried_out(plan, tmp_path / "store")
    check_equal(Store(tmp_path / "store"), undisturbed)
    check_once(plan, happened)
    assert Room(2, 2) in happened
    assert all(event.where for event in happened if isinstance(event, GroupStarted))
    again = carried_out(plan, tmp_path / "store")
    assert trained(again) == []


SHORT = """
import os
from pathlib import Path

import torch

def make_data(*, driver: int):
    \"\"\"Images that can be learned. On a machine of the cluster, a step of the first training asks for
    more memory than there is, so that torch's allocator is refused.\"\"\"
    once = Path(__file__).with_name("once")
    if os.getpid() != driver:
        from offramp.engine import fit
        original, calls = fit.step, iter(range(10**6))
        def short(*args, **kwargs):
            if not once.exists() and next(calls) == 5:
                once.touch()
                torch.empty(2**60, dtype=torch.uint8)
            return original(*args, **kwargs)
        fit.step = short
    labels = torch.arange(130) % 3
    images = torch.rand(130, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 99
    return {"train": (images.to(torch.uint8) + labels.view(-1, 1, 1, 1).to(torch.uint8) * 50, labels)}
"""


@pytest.mark.usefixtures("machines")
def test_a_process_without_memory_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "my_data.py").write_text(SHORT)
    data = f"data={{name: '{tmp_path / 'my_data.py'}:make_data', driver: {os.getpid()}}}"
    plan = make_plan(read(study_file(tmp_path), [data]), CPU)
    local, store = Store(tmp_path / "local"), Store(tmp_path / "store")
    list(run(plan, local, RunConfig(CPU, tmp_path / "caches")))
    happened = carried_out(plan, store)
    assert (tmp_path / "once").exists()
    (note,) = (text for text in notes(happened) if "again" in text)
    assert "allocate" in note and "goes to a machine again at once (1 of 6)" in note
    check_equal(store, local)
    check_once(plan, happened)


@pytest.mark.usefixtures("machines")
def test_a_disk_that_is_full_is_tried_again(plan: Plan, undisturbed: Store, tmp_path: Path) -> None:
    """A real one, that of the store: until somebody makes room."""
    with small_disk(tmp_path / "small", "size=30m") as disk:
        ballast = disk / "ballast"

        def fill(_: Event) -> None:
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))

        def see(event: Event) -> None:
            full(event)
            if "disk is full" in "".join(notes([event])):
                ballast.unlink(missing_ok=True)

        full = once(second_epoch, fill)
        happened = carried_out(plan, disk / "store", see)
        assert not ballast.exists()
        store = Store(disk / "store")
        check_equal(store, undisturbed)
        check_sound(store)
    check_once(plan, happened)
    full_notes = [text for text in notes(happened) if "disk is full" in text]
    assert full_notes and all("goes to a machine again" in text for text in full_notes)


HELD = """
import os, time
from pathlib import Path

import torch

def make_data(*, driver: int):
    \"\"\"Images that can be learned. On a machine of the cluster no phase gets beyond its second epoch
    while there is a file `hold`.\"\"\"
    hold = Path(__file__).with_name("hold")
    if os.getpid() != driver:
        from offramp.engine import fit
        original = fit.step
        def held(trainee, *args, **kwargs):
            while trainee.epoch >= 2 and hold.exists():
                time.sleep(0.05)
            return original(trainee, *args, **kwargs)
        fit.step = held
    labels = torch.arange(130) % 3
    images = torch.rand(130, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 99
    return {"train": (images.to(torch.uint8) + labels.view(-1, 1, 1, 1).to(torch.uint8) * 50, labels)}
"""


def holding(folder: Path) -> tuple[str, Path]:
    """Such data, as `--set` takes them, and the file that holds phases."""
    folder.mkdir()
    module, hold = folder / "my_data.py", folder / "hold"
    module.write_text(HELD)
    hold.touch()
    return f"data={{name: '{module}:make_data', driver: {os.getpid()}}}", hold


def mishaps(machines: Machines, store: Store, hold: Path) -> See:
    """A process is killed, then a machine; another machine comes. However late this hears of phases,
    none has ended before."""
    killed: list[psutil.Process] = []
    lost: list[str] = []

    def see(event: Event) -> None:
        lost.extend(text for text in notes([event]) if "it goes to a machine again" in text)
        process = at_work(store, event) if hold.exists() else None
        if process is None:
            return
        if not killed and second_epoch(event):
            process.kill()
            killed.append(process)
        elif lost and process not in killed:  # at the latest what was lost, when it begins again
            machines.kill(process)
            machines.add()
            hold.unlink()

    return see


def check_mended(happened: list[Event]) -> None:
    texts = [text for text in notes(happened) if "it goes to a machine again" in text]
    assert any("its process was killed" in text for text in texts), texts
    assert any("its machine is gone" in text for text in texts), texts
    assert all("goes to a machine again" in text for text in texts)
    assert any(isinstance(e, GroupStarted) and e.epoch > 0 for e in happened), (
        "it went on from a checkpoint"
    )


@pytest.mark.journey
def test_a_worker_a_machine_and_a_new_one(machines: Machines, tmp_path: Path) -> None:
    data, hold = holding(tmp_path / "data")
    plan = make_plan(read(study_file(tmp_path, epochs=4), [data]), CPU)
    local, store = Store(tmp_path / "local"), Store(tmp_path / "store")
    list(run(plan, local, RunConfig(CPU, tmp_path / "caches")))
    happened = carried_out(plan, store, mishaps(machines, store, hold))
    check_equal(store, local)
    check_sound(store)
    check_once(plan, happened)
    check_mended(happened)


def test_the_demo_on_an_object_store(machines: Machines, s3: str, tmp_path: Path) -> None:
    """The same of all nine strategies, with a store that is no folder."""
    one_thread = "numerics=cpu-one-thread"
    data, hold = holding(tmp_path / "data")
    plan = make_plan(read(DEMO, [one_thread, "recipe.epochs=4", "seeds=[42]", data]), CPU)
    local, store = Store(tmp_path / "local"), Store(s3)
    list(run(plan, local, RunConfig(CPU, tmp_path / "caches")))
    happened = carried_out(plan, store, mishaps(machines, store, hold))
    check_once(plan, happened)
    check_mended(happened)
    assert content(store) == content(local)
    assert len(plan.trials) == len(store.trials()) == 9


def content(store: Store) -> dict[str, str]:
    """SHA-256 of the weights of every node and of the logits of every trial, wherever they lie."""
    hashes = {
        key: sha256(store.archive.node_content(key, "weights.safetensors")) for key in store.nodes()
    }
    for trial in store.trials():
        hashes |= {f"{trial} {k}": sha256(v.tobytes()) for k, v in store.trial_logits(trial).items()}
    return hashes


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_from_outside_of_the_cluster(machines: Machines, undisturbed: Store, tmp_path: Path) -> None:
    """By Ray Client, which tells of a task when it has ended."""
    where = f"ray://127.0.0.1:{machines.client_port}"
    answer = subprocess.run(command(tmp_path, where), capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    words = " ".join(answer.stdout.split())  # wherever lines fold
    assert "3 of 3 trials" in words and "5 phases trained" in words
    check_equal(Store(tmp_path / "store"), undisturbed)


def test_a_machine_that_comes_late_is_used(
    machines: Machines, plan: Plan, undisturbed: Store, tmp_path: Path
) -> None:
    machines.kill()
    machines.wait()
    happened = carried_out(
        plan, tmp_path / "store", once(lambda e: isinstance(e, GroupStarted), lambda _: machines.add())
    )
    check_equal(Store(tmp_path / "store"), undisturbed)
    check_once(plan, happened)
    assert [e.groups for e in happened if isinstance(e, Room)] == [1, 2]


def test_a_phase_that_fits_nowhere_is_waited_for_and_said(machines: Machines, tmp_path: Path) -> None:
    study = read(study_file(tmp_path, epochs=1), ["numerics=default", "strategies=[baseline]"])
    plan = make_plan(study, CPU)
    larger = once(lambda event: bool(notes([event])), lambda _: machines.add(cores=2))
    happened = carried_out(plan, tmp_path / "store", larger)
    (note,) = notes(happened)
    assert "No machine of the cluster has room for a phase, which takes 2 cores" in note
    check_once(plan, happened)


@pytest.mark.usefixtures("machines")
def test_two_drivers_on_one_store_do_no_harm(plan: Plan, undisturbed: Store, tmp_path: Path) -> None:
    """Another run has begun: what it is at is waited for, and nothing is trained twice."""
    other = subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE, text=True)
    try:
        happened = carried_out(plan, tmp_path / "store")
        _, output = other.communicate(timeout=900)
    finally:
        other.kill()
    assert other.returncode == 0, output
    check_equal(Store(tmp_path / "store"), undisturbed)
    ended = [line for line in output.splitlines() if re.search(r"\[\d+/\d+\]", line)]
    assert len(trained(happened)) + len(ended) == len(plan.nodes), output


@pytest.mark.usefixtures("machines")
def test_a_driver_that_was_killed_goes_on(plan: Plan, undisturbed: Store, tmp_path: Path) -> None:
    with subprocess.Popen(command(tmp_path), stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        before = []
        for line in first.stderr:
            before.append(line)
            if "[2/" in line:
                first.kill()
    happened = carried_out(plan, tmp_path / "store")
    check_equal(Store(tmp_path / "store"), undisturbed)
    ended = sum(re.search(r"\[\d+/\d+\]", line) is not None for line in before)
    assert 0 < ended <= len(plan.nodes) - len(trained(happened)), before


@pytest.mark.usefixtures("machines")
def test_a_store_that_is_away_for_a_while(plan: Plan, undisturbed: Store, tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "store", tmp_path / "elsewhere"

    def back(event: Event) -> None:
        if elsewhere.exists() and "no store" in "".join(notes([event])):
            elsewhere.rename(root)

    def see(event: Event) -> None:
        back(event)
        away(event)

    away = once(second_epoch, lambda _: root.rename(elsewhere) and None)
    happened = carried_out(plan, root, see)
    check_equal(Store(root), undisturbed)
    check_once(plan, happened)
    assert any("goes to a machine again" in text for text in notes(happened))


@pytest.mark.usefixtures("machines")
def test_what_fails_for_a_reason_of_its_own_is_not_tried_again(tmp_path: Path) -> None:
    study = study_file(tmp_path)
    diverging = "{name: joint, phases: {joint: {optimizer: sgd, learning_rate: 1e30}}}"
    strategies = f"strategies=[baseline, {diverging}, joint-branch]"
    plan = make_plan(read(study, [strategies]), CPU)
    happened = carried_out(plan, tmp_path / "store")
    (failed,) = (event for event in happened if isinstance(event, Failed))
    assert "is not finite" in failed.reason
    assert not any("again" in text for text in notes(happened))
    began = [key for event in happened if isinstance(event, GroupStarted) for key in event.keys]
    assert began.count(failed.key) == 1
    assert sorted([*trained(happened), failed.key]) == sorted(plan.nodes)
    assert len(Store(tmp_path / "store").trials()) == 2


def test_a_cluster_of_this_machine_ends_with_its_run(tmp_path: Path) -> None:
    """Ctrl-C saves what is at work and leaves no process behind; the same command goes on."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    mark = f"OFFRAMP_TEST_MARK={tmp_path}"
    environment |= {"HOME": str(tmp_path), "OFFRAMP_TEST_MARK": str(tmp_path)}
    addresses: set[str] = set()
    with subprocess.Popen(
        command(tmp_path), stderr=subprocess.PIPE, text=True, env=environment
    ) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if "[1/" in line:
                first.send_signal(signal.SIGSTOP)  # or it might be done before the look is over
                addresses = addresses_of(mark)
                first.send_signal(signal.SIGINT)
                first.send_signal(signal.SIGCONT)
                break
        output = first.stderr.read()
    assert first.returncode == 130 and "Run the same command again" in output, output
    assert addresses == {"127.0.0.1"}, "nobody else reaches it"
    assert not left_behind(mark)
    again = subprocess.run(
        command(tmp_path), capture_output=True, text=True, check=True, env=environment
    )
    assert "3 of 3 trials" in again.stdout and not left_behind(mark)
    assert not list((tmp_path / "store" / "work").rglob("*"))
    assert not (tmp_path / ".ray").exists(), "the token was of that run alone"


def left_behind(mark: str) -> list[psutil.Process]:
    """Processes that have `mark` in their environment a minute later: those of Ray see by themselves
    that theirs is gone, and that takes a moment."""
    until = time.monotonic() + 60
    while (left := marked(mark)) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def addresses_of(mark: str) -> set[str]:
    """The addresses at which processes with `mark` in their environment listen."""
    addresses = set()
    for process in marked(mark):
        with suppress(psutil.Error):
            sockets = process.net_connections("inet")
            heard = (socket.laddr.ip for socket in sockets if socket.status == psutil.CONN_LISTEN)
            addresses |= {ip.removeprefix("::ffff:") for ip in heard}
    return addresses


def marked(mark: str) -> list[psutil.Process]:
    processes = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if mark in (f"{k}={v}" for k, v in process.environ().items()):
                processes.append(process)
    return processes
