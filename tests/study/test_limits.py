"""How much caches may take: what the study says or a share of what is free; and where they go."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest
import torch

from offramp import device as devices
from offramp.store.store import Store
from offramp.study.plan import caching
from offramp.study.plan.caching import DISK_SHARE, CacheLimits, share
from offramp.study.plan.plan import Plan
from offramp.study.plan.workers import SHARE
from offramp.study.run import processes
from offramp.study.run.run import RunConfig
from offramp.study.spec.models import ExecutionSpec
from support import CPU

GIB = 2**30
FILE_SYSTEMS = caching.IN_MEMORY


@pytest.fixture(autouse=True)
def file_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that other tests are not to tell apart (conftest.py)."""
    monkeypatch.setattr(caching, "IN_MEMORY", FILE_SYSTEMS)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 GiB of it are free, and every folder is on it."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * GIB))
    monkeypatch.setattr(caching, "in_memory", lambda _: False)


def allowed(
    folder: Path,
    memory: int = 9 * GIB,
    workers: int = 1,
    device: torch.device = CPU,
    sharing: int = 1,
    **execution: object,
) -> CacheLimits:
    spec = ExecutionSpec.model_validate(execution)
    plan = cast(Plan, SimpleNamespace(study=SimpleNamespace(execution=spec)))
    return caching.limits(plan, device, folder, workers, memory, 2 * GIB, sharing)


@pytest.mark.usefixtures("disk")
def test_without_a_limit_caches_take_what_training_leaves_and_half_of_the_disk(tmp_path: Path) -> None:
    assert allowed(tmp_path) == CacheLimits(7 * GIB, int(DISK_SHARE * 100 * GIB))
    assert allowed(tmp_path, memory=GIB).memory == 0  # training alone takes more


@pytest.mark.usefixtures("disk")
def test_a_limit_is_for_all_workers_together(tmp_path: Path) -> None:
    limits = {"cache_memory": "4GiB", "cache_disk": "8GiB"}
    assert allowed(tmp_path, workers=1, **limits) == CacheLimits(4 * GIB, 8 * GIB)
    assert allowed(tmp_path, workers=4, **limits) == CacheLimits(GIB, 2 * GIB)
    assert allowed(tmp_path, workers=4).disk == int(DISK_SHARE * 100 * GIB) // 4


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("name", ["memory", "disk"])
def test_none_is_none(name: str, tmp_path: Path) -> None:
    assert getattr(allowed(tmp_path, **{f"cache_{name}": 0}), name) == 0


def test_workers_on_one_gpu_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda")
    monkeypatch.setattr(devices, "free_memory", lambda _: 40 * GIB)
    alone, four, apart = (
        allowed(tmp_path, device=gpu, workers=count, sharing=sharing)
        for count, sharing in ((1, 1), (4, 4), (4, 1))
    )
    assert alone == apart == CacheLimits(int(SHARE * 40 * GIB) - 2 * GIB, 0)
    assert 0 < 4 * (four.memory + 2 * GIB) <= SHARE * 40 * GIB and four.disk == 0
    assert allowed(tmp_path, device=gpu, workers=4, cache_memory="12GiB").memory == 3 * GIB


def test_each_worker_knows_how_many_share_its_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, configs = SimpleNamespace(numerics=SimpleNamespace(threads=1)), list[RunConfig]()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(processes, "order_of", lambda _, __, config, *___: configs.append(config))
    monkeypatch.setattr(processes, "listen", lambda *_: iter(()))
    config = RunConfig(torch.device("cuda"), tmp_path, workers=3)
    assert not list(processes._run_workers(cast(Plan, plan), Store(tmp_path / "runs"), config))
    assert [(str(each.device), each.sharing) for each in configs] == [
        ("cuda:0", 2),
        ("cuda:1", 1),
        ("cuda:0", 2),
    ]


def test_processes_share_what_is_free() -> None:
    assert share(10 * GIB, 1) == int(SHARE * 10 * GIB)
    parent = GIB
    for workers in (2, 3, 7):
        each = share(10 * GIB, workers, parent)
        assert workers * each + parent <= SHARE * 10 * GIB < workers * (each + 1) + parent + workers
    assert share(GIB, 2, parent=GIB) == 0


def test_what_this_process_holds_already_counts_as_free_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caching, "free_memory", lambda: 5 * GIB)
    mine = psutil.Process().memory_info().rss
    assert caching.free_at_start() == pytest.approx(5 * GIB + mine, rel=0.05)
    four = caching.share_of_workers(4)
    assert 4 * four == pytest.approx(SHARE * (5 * GIB + mine) - mine, rel=0.05)


def mounted(*where: tuple[str, str]) -> Callable[..., list[SimpleNamespace]]:
    return lambda **_: [SimpleNamespace(mountpoint=point, fstype=kind) for point, kind in where]


def test_files_in_memory_are_told_from_files_on_a_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inner = tmp_path / "disk"
    inner.mkdir()
    mounts = mounted(("/", "ext4"), (str(tmp_path), "tmpfs"), (str(inner), "xfs"))
    monkeypatch.setattr(psutil, "disk_partitions", mounts)
    assert caching.in_memory(tmp_path) and caching.in_memory(tmp_path / "not yet there")
    assert not caching.in_memory(inner) and not caching.in_memory(tmp_path.parent)
    monkeypatch.setattr(psutil, "disk_partitions", mounted())
    assert not caching.in_memory(tmp_path)


def test_no_caches_on_a_disk_that_is_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(psutil, "disk_partitions", mounted((str(tmp_path), "tmpfs")))
    here = allowed(tmp_path / "deep" / "down")
    assert here.disk == 0 and here.no_disk is not None and "TMPDIR" in here.no_disk
    assert allowed(tmp_path, cache_disk="8GiB").disk == 0
    assert allowed(tmp_path, cache_disk=0).no_disk is None  # as the study says


def test_a_folder_that_cannot_be_reached_is_no_crash(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(caching, "in_memory", lambda _: False)
    monkeypatch.setattr(shutil, "disk_usage", refused)
    here = allowed(tmp_path)
    assert here.disk == 0 and here.no_disk is not None and "permission denied" in here.no_disk


def test_files_go_to_the_first_folder_on_a_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("memory", "disk", "other")]
    for folder in folders:
        folder.mkdir()
    monkeypatch.setattr(psutil, "disk_partitions", mounted((str(folders[0]), "tmpfs"), ("/", "ext4")))
    assert caching.cache_folder(folders).parent == folders[1]
    assert caching.cache_folder([tmp_path / "nowhere", folders[2]]).parent == folders[2]
    assert caching.cache_folder(folders[:1]).parent == folders[0]  # there is no other


def test_this_machines_own_folders() -> None:
    assert caching.cache_folder().name.startswith("offramp-cache-")
    shared = Path("/dev/shm")
    if not shared.is_dir():
        pytest.skip("no /dev/shm here")
    assert caching.in_memory(shared)
