"""One training on several ranks: whatever happens to them, the same bits, and nobody left behind."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from kit import check_equal, check_sound, check_tidy, closed, conduct, failed, hashes, notes, trained
from syrupy.assertion import SnapshotAssertion

from offramp import device as devices
from offramp.store.store import Store
from offramp.study.plan.plan import make_plan
from offramp.study.run import processes
from offramp.study.run.events import Event
from offramp.study.run.processes import run_pooled
from offramp.study.run.run import RunConfig, run
from offramp.study.spec import file as spec
from support import CPU, PAPER
from wording import refusal

pytestmark = pytest.mark.timeout(600)  # ranks that wait for each other hang

# With images that are weighed, exits that add up, and that learn to.
EVERY = (*PAPER, "survivors", "boosted", "cascade")

DATA = """
import importlib, multiprocessing, os, signal
from pathlib import Path

import torch


def make_data(*, at: str = "", call: int = 0, rank: int = 0, how: str = "killed"):
    \"\"\"Images that can be learned. In rank `rank`, the `call`-th call of `at` is its end; a signal as
    `how` goes to all processes.\"\"\"
    if at and multiprocessing.parent_process() is not None:
        name, function = at.split(":")
        module, once = importlib.import_module(name), Path(__file__).with_name("once")
        original, calls = getattr(module, function), iter(range(10**6))
        def fatal(*args, **kwargs):
            there = torch.distributed.is_initialized() and torch.distributed.get_rank() == rank
            if there and next(calls) == call and not once.exists():
                once.touch()
                if how == "fails":
                    raise RuntimeError("this rank alone has had enough")
                if how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                os.killpg(0, getattr(signal, how))
            return original(*args, **kwargs)
        setattr(module, function, fatal)
    labels = torch.arange(130) % 3
    images = torch.rand(130, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 99
    return {"train": (images.to(torch.uint8) + labels.view(-1, 1, 1, 1).to(torch.uint8) * 50, labels)}
"""

STUDY: dict[str, Any] = {
    "seeds": [42],
    "strategies": ["two-stage", "joint-branch"],
    "backbone": "digits-cnn",
    "recipe": {"epochs": 3, "batch_size": 32, "learning_rate": 0.01},
    "execution": {"devices": 2},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("data") / "my_data.py"
    file.write_text(DATA)
    return file


def study(module: Path, **more: Any) -> dict[str, Any]:
    return STUDY | {"data": f"{module}:make_data"} | more


def together(described: dict[str, Any], root: Path, **more: Any) -> tuple[Store, list[Event]]:
    """Run to the end; the store, and what happened. No process is left."""
    plan, before = make_plan(spec.parse(described), CPU), helpers()
    events = list(run_pooled(plan, Store(root), conduct(root, checkpoint_seconds=0, **more)))
    assert helpers() <= before
    return Store(root), events


def helpers() -> set[psutil.Process]:
    """Processes that ranks are: children of the server that forks them."""
    processes: set[psutil.Process] = set()
    for process in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if "forkserver" in " ".join(process.cmdline()):
                processes.update(process.children(recursive=True))
    return processes


@pytest.fixture(scope="module")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store, events = together(study(data), tmp_path_factory.mktemp("undisturbed"))
    assert not failed(events) and len(trained(events)) == 8 and len(closed(events)) == 2
    check_sound(store)
    check_tidy(store)
    return store


STEP, CHECK, SAVE = "offramp.engine.fit:step", "offramp.engine.fit:evaluate", "offramp.engine.fit:record"


@pytest.mark.journey
@pytest.mark.parametrize(
    ("rank", "at", "call"),
    [
        pytest.param(1, STEP, 2, id="first steps"),
        pytest.param(0, STEP, 11, id="leader in mid-epoch", marks=pytest.mark.long),
        pytest.param(1, CHECK, 5, id="validation", marks=pytest.mark.long),
        pytest.param(0, SAVE, 30, id="leader at an end", marks=pytest.mark.long),
    ],
)
def test_a_killed_rank_changes_no_bit(
    data: Path, undisturbed: Store, tmp_path: Path, rank: int, at: str, call: int
) -> None:
    file = tmp_path / data.name
    file.write_text(DATA)
    dying = {"name": f"{file}:make_data", "at": at, "call": call, "rank": rank}
    store, events = together(study(data, data=dying), tmp_path / "store")
    assert (tmp_path / "once").exists()
    (note,) = (note for note in notes(events) if "rank" in note)
    assert "SIGKILL" in note and "(1 of 6)" in note
    assert len(trained(events)) == 8  # each once
    check_equal(store, undisturbed)
    check_tidy(store)


@pytest.mark.long
def test_what_fails_in_one_rank_fails_its_phase_in_all(data: Path, tmp_path: Path) -> None:
    """Rank 1's own trouble: the phase is given up with its words, what needs it too, and all else goes
    on in new processes."""
    file = tmp_path / data.name
    file.write_text(DATA)
    failing = {"name": f"{file}:make_data", "at": STEP, "call": 9, "rank": 1, "how": "fails"}
    store, events = together(study(data, data=failing, recipe={"epochs": 4}), tmp_path / "store")
    reasons = failed(events)
    assert {reason for reason in reasons.values() if "needs" not in reason} == {
        "this rank alone has had enough"
    }
    assert reasons and trained(events) and len(trained(events)) + len(reasons) == 8
    check_sound(store)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ended_by_a_signal_it_saves_and_leaves_nobody(
    data: Path, undisturbed: Store, tmp_path: Path, number: signal.Signals
) -> None:
    """As a terminal or a scheduler sends it: to all processes, while the second phase trains."""
    file, module = tmp_path / "study.yaml", tmp_path / data.name
    module.write_text(DATA)
    ended = {"name": f"{module}:make_data", "at": STEP, "call": 20, "how": number.name}
    file.write_text(json.dumps(study(data, data=ended)))
    command = [sys.executable, "-m", "offramp", "run", str(file), "--store", str(tmp_path / "store")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        process.stderr.read()
    assert process.returncode == 128 + number
    psutil.wait_procs([psutil.Process(number) for number in _group(process.pid)])  # the fork server too
    saved = Store(tmp_path / "store")
    assert saved.archive.checkpoints()
    store, events = together(study(data), tmp_path / "store")
    assert len(trained(events)) <= 6
    check_equal(store, undisturbed)


def _group(number: int) -> list[int]:
    """Processes of a group."""
    numbers = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                numbers.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return numbers


def torchrun(study: Path, store: Path, *program: str) -> subprocess.CompletedProcess[str]:
    """Two ranks of it run a study. program: by default the command."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, *(program or ("-m", "offramp", "run")), str(study), "--store", str(store)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_torchrun_makes_the_same_ranks(data: Path, undisturbed: Store, tmp_path: Path) -> None:
    """The study says nothing of devices; torchrun has started two."""
    file, store = tmp_path / "study.yaml", tmp_path / "store"
    file.write_text(json.dumps(study(data, execution={})))
    done = torchrun(file, store)
    assert done.returncode == 0, done.stderr
    assert " ".join(done.stdout.split()).count("8 phases trained") == 1  # rank 0 alone speaks
    check_equal(Store(store), undisturbed)


@pytest.mark.long
def test_torchrun_trains_one_study_after_another(data: Path, undisturbed: Store, tmp_path: Path) -> None:
    """Its ranks meet anew for each."""
    names = ("two-stage", "joint-branch")
    for name in names:
        described = study(data, execution={}, strategies=[name])
        (tmp_path / f"{name}.yaml").write_text(json.dumps(described))
    (tmp_path / "all.yaml").write_text(json.dumps({"studies": [f"{name}.yaml" for name in names]}))
    done = torchrun(tmp_path / "all.yaml", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    check_equal(Store(tmp_path / "store"), undisturbed)


FAULTY = """
import os, sys
from offramp.cli import main
epochs = 1 - int(os.environ["RANK"])  # the second rank alone has a fault
sys.argv = ["offramp", "run", *sys.argv[1:], "--set", f"recipe.epochs={epochs}"]
main()
"""


@pytest.mark.long
def test_torchrun_says_what_ended_a_rank_that_is_silent(data: Path, tmp_path: Path) -> None:
    file, begun = tmp_path / "study.yaml", tmp_path / "begun.py"
    file.write_text(json.dumps(study(data, execution={})))
    begun.write_text(FAULTY)
    done = torchrun(file, tmp_path / "store", str(begun))
    assert done.returncode != 0 and "recipe.epochs" in done.stderr


@pytest.mark.long
@pytest.mark.timeout(1800)  # two runs of all nine
def test_strategies_are_the_same_plain_and_derived(data: Path, tmp_path: Path) -> None:
    """All nine, to the bit, with two ranks each."""
    described = study(data, strategies=list(EVERY), recipe={"epochs": 1, "batch_size": 32})
    plain = {"mode": "plain", "devices": 2}
    logits = {}
    for name, execution in (("derived", {"devices": 2}), ("plain", plain)):
        store, events = together({**described, "execution": execution}, tmp_path / name)
        assert not failed(events) and len(closed(events)) == len(EVERY)
        logits[name] = {
            store.read_trial(trial).strategy: hashes(store)[trial] for trial in store.trials()
        }
    assert logits["plain"] == logits["derived"]


def test_ranks_are_part_of_keys_from_two_on(data: Path) -> None:
    single, same, two, three = (
        make_plan(spec.parse(study(data, execution=execution)), CPU)
        for execution in ({}, {"devices": 1}, {"devices": 2}, {"devices": 3})
    )
    assert list(single.nodes) == list(same.nodes)
    assert not set(single.nodes) & set(two.nodes) and not set(two.nodes) & set(three.nodes)


def test_what_cannot_be_is_said(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    assert refusal(make_plan, spec.parse(study(data, execution={"devices": 32})), CPU) == snapshot
    plan = make_plan(spec.parse(study(data)), CPU)
    assert refusal(list, run(plan, Store(tmp_path), conduct(tmp_path))) == snapshot
    monkeypatch.setattr(devices, "launched", lambda: devices.Launched(0, 3, 0, 3))
    assert refusal(list, run_pooled(plan, Store(tmp_path), conduct(tmp_path))) == snapshot


def test_ranks_of_torchrun_share_their_machine(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What caches may take, and how many processes read images: of all of them together."""
    configs: list[RunConfig] = []
    monkeypatch.setattr(processes, "run", lambda _, __, how: configs.append(how) or iter(()))
    monkeypatch.setattr(devices, "launched", lambda: devices.Launched(3, 4, 1, 2))
    plan = make_plan(spec.parse(study(data, execution={"devices": 4})), CPU)
    list(run_pooled(plan, Store(tmp_path), conduct(tmp_path)))
    assert configs[0].workers == 2
    assert (configs[0].seat.rank, configs[0].seat.count) == (3, 4)
