"""Whole studies on image files that are read as they are needed."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from kit import check_equal
from PIL import Image

from forks import forked
from longer import long
from offramp.data.dataset import FileSplit
from offramp.engine import fit
from offramp.errors import DataChanged
from offramp.process import Terminated
from offramp.store.store import Store
from offramp.study.plan.plan import Plan, make_plan
from offramp.study.run.events import Event, GroupStarted
from offramp.study.run.processes import run_pooled
from offramp.study.run.run import RunConfig, run
from offramp.study.spec import file as spec
from support import CPU, run_all

CHILD = """
import json, sys
from pathlib import Path
import child
from offramp.study.spec import file as spec
from offramp.study.plan.plan import make_plan
from offramp.study.run.run import RunConfig, run
from offramp.store.store import Store
study, root, call = json.loads(sys.argv[1])
plan = make_plan(spec.parse(study), child.CPU)
child.arm("offramp.engine.fit:step", call)
for event in run(plan, Store(Path(root)), RunConfig(child.CPU, Path(root) / "caches", 0)):
    pass
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(4)
    for split, count in (("train", 24), ("test", 8)):
        for shade, name in ((0, "dark"), (90, "light")):
            place = root / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(shade, shade + 150, (12, 9 + number % 9, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return root


def study(photos: Path, loader: str, workers: int = 0, **augment: Any) -> dict[str, Any]:
    return {
        "seeds": [42],
        "strategies": ["two-stage"],
        "backbone": "digits-cnn",
        "data": {"name": "folder", "root": str(photos), "size": 8, "channels": 1},
        "recipe": {"epochs": 2, "batch_size": 16, "learning_rate": 0.01},
        "augment": augment or {"flip": True, "resized_crop": [0.3, 1.0]},
        "execution": {"loader": loader, "loader_workers": workers},
    }


def finished(described: dict[str, Any], root: Path) -> Store:
    store, _ = run_all(make_plan(spec.parse(described), CPU), root)
    return store


@pytest.fixture(scope="module")
def resident(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return finished(study(photos, "resident"), tmp_path_factory.mktemp("resident"))


@pytest.mark.journey
@pytest.mark.parametrize("workers", [2, *long(0)])
def test_a_study_ends_in_the_same_bits_with_both_loaders(
    workers: int, photos: Path, resident: Store, tmp_path: Path
) -> None:
    described = study(photos, "streaming", workers)
    plan = make_plan(spec.parse(described), CPU)
    assert all(isinstance(split, FileSplit) for split in plan.data.splits.values())
    check_equal(resident, finished(described, tmp_path / "store"))


@pytest.mark.long
def test_plain_execution_too(photos: Path, tmp_path: Path) -> None:
    stores = []
    for loader in ("resident", "streaming"):
        described = study(photos, loader, 2, views=2, crop=1)
        described["execution"]["mode"] = "plain"
        described["strategies"].append("branch-wise")
        stores.append(finished(described, tmp_path / loader))
    check_equal(*stores)


def test_killed_in_an_epoch_a_run_goes_on_to_the_same_bits(
    photos: Path, resident: Store, tmp_path: Path
) -> None:
    described = study(photos, "streaming", 2)
    with forked(CHILD, json.dumps([described, str(tmp_path / "store"), 8])) as process:
        assert process.wait() == -signal.SIGKILL
    check_equal(resident, finished(described, tmp_path / "store"))


def test_ended_while_files_are_read_a_run_saves_and_leaves_nobody(
    photos: Path, resident: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By SIGTERM to it and to all that it started, as Slurm sends it."""
    described, me = study(photos, "streaming", 2), psutil.Process()
    steps, step, before = iter(range(10**6)), fit.step, set(me.children())

    def ended(*args: Any) -> Any:
        if next(steps) == 7:
            readers = set(me.children()) - before
            assert len(readers) == 2
            for process in (*readers, me):
                process.send_signal(signal.SIGTERM)
        return step(*args)

    store = Store(tmp_path / "store")
    conduct = RunConfig(CPU, tmp_path / "caches", checkpoint_seconds=1e9)
    with monkeypatch.context() as patch, pytest.raises(Terminated):
        patch.setattr(fit, "step", ended)
        list(run(make_plan(spec.parse(described), CPU), store, conduct))
    saved = [store.read_checkpoint(key) for key in store.archive.checkpoints()]
    assert saved and None not in saved and set(me.children()) <= before
    check_equal(resident, finished(described, tmp_path / "store"))


def test_pooled_processes_read_files_with_processes_of_their_own(
    photos: Path, resident: Store, tmp_path: Path
) -> None:
    plan = make_plan(spec.parse(study(photos, "streaming", 1)), CPU)
    store = Store(tmp_path / "store")
    for _ in run_pooled(plan, store, RunConfig(CPU, tmp_path / "caches", workers=2)):
        pass
    check_equal(resident, store)


def of_split(plan: Plan, split: str) -> list[Path]:
    part = plan.data.splits[split]
    assert isinstance(part, FileSplit)
    return [Path(part.source.name(row)) for row in part.rows.tolist()]


def swap(first: Path, other: Path) -> None:
    """Two files change places, and their times stay."""
    between = first.with_name("between")
    first.rename(between)
    other.rename(first)
    between.rename(other)


def run_until(plan: Plan, root: Path, event: type[Event], change: Callable[[], None]) -> Store:
    """Run a plan whose files change at the first event of that kind; it must be refused."""
    store = Store(root)
    kinds: list[type[Event]] = []
    conduct = RunConfig(CPU, root / "caches", checkpoint_seconds=0)
    with pytest.raises(DataChanged) as caught:
        for happening in run(plan, store, conduct):
            if isinstance(happening, event) and event not in kinds:
                change()
            kinds.append(type(happening))
    assert event in kinds
    line = str(caught.value)
    assert str(plan.study.data.root) in line and "`offramp data check --fresh`" in line
    assert "\n" not in line
    return store


@pytest.fixture
def own(photos: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(photos, tmp_path / "own"))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_nothing_is_kept_of_training_whose_files_change(split: str, own: Path, tmp_path: Path) -> None:
    plan = make_plan(spec.parse(study(own, "streaming")), CPU)
    files = of_split(plan, split)
    store = run_until(plan, tmp_path / "store", GroupStarted, lambda: swap(files[0], files[-1]))
    assert store.nodes() == store.trials() == []
    again = make_plan(spec.parse(study(own, "streaming")), CPU)
    assert again.nodes.keys().isdisjoint(plan.nodes)
    swap(files[0], files[-1])
    restored = make_plan(spec.parse(study(own, "streaming")), CPU)
    assert list(restored.nodes) == list(plan.nodes)


def test_a_checkpoint_goes_with_training_whose_files_changed(own: Path, tmp_path: Path) -> None:
    described = study(own, "streaming")
    described["recipe"]["epochs"] = 4
    plan, store = make_plan(spec.parse(described), CPU), Store(tmp_path / "store")
    files, seen = of_split(plan, "train"), set[str]()
    with pytest.raises(DataChanged):
        for _ in run(plan, store, RunConfig(CPU, tmp_path / "caches", checkpoint_seconds=0)):
            saved = {key for key in plan.nodes if store.read_checkpoint(key) is not None}
            if saved and not seen:
                swap(files[0], files[-1])
            seen |= saved
    assert seen and not store.nodes()
    assert all(store.read_checkpoint(key) is None for key in plan.nodes)


def test_a_trial_whose_test_files_change_is_not_kept(own: Path, tmp_path: Path) -> None:
    plan = make_plan(spec.parse(study(own, "streaming")), CPU)
    files = of_split(plan, "test")
    store = run_until(plan, tmp_path / "store", GroupStarted, lambda: swap(files[0], files[-1]))
    assert store.nodes() and not store.trials()


@pytest.mark.parametrize("loader", ["streaming", *long("resident")])
def test_files_that_are_touched_or_of_memory_stop_nothing(
    loader: str, own: Path, resident: Store, tmp_path: Path
) -> None:
    """The same content at another time; and images that were read before they changed."""
    plan = make_plan(spec.parse(study(own, loader)), CPU)
    store = Store(tmp_path / loader)
    for event in run(plan, store, RunConfig(CPU, tmp_path / "caches", checkpoint_seconds=0)):
        if isinstance(event, GroupStarted):
            for path in own.rglob("*.png"):
                if loader == "resident":
                    path.write_bytes(b"nothing")
                else:
                    os.utime(path)
    check_equal(resident, store)


def test_the_loader_is_in_no_key(photos: Path) -> None:
    plans = [
        make_plan(spec.parse(study(photos, *how)), CPU) for how in (("resident", 0), ("streaming", 2))
    ]
    assert list(plans[0].nodes) == list(plans[1].nodes)
    assert [t.id for t in plans[0].trials] == [t.id for t in plans[1].trials]
