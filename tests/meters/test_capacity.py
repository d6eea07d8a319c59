"""Cores and memory by the limits that are set on a process."""

import math
import os
import resource
from pathlib import Path

import psutil
import pytest

from offramp.meters import capacity
from offramp.meters.capacity import free_addresses, free_memory, killed_for_memory, usable_cores

MACHINE_MEMORY = capacity.machine_memory  # the real one, before tests are given another


def written(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def group(tmp_path: Path, line: str) -> tuple[Path, Path]:
    """Where control groups are shown, and the file that says which is this process's."""
    mine = tmp_path / "cgroup"
    mine.write_text(line + "\n")
    return tmp_path / "groups", mine


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(capacity, "machine_memory", lambda: 8000)


@pytest.mark.usefixtures("eight")
def test_without_limits_all_that_the_process_is_bound_to(tmp_path: Path) -> None:
    nowhere = tmp_path / "groups", tmp_path / "no file"
    assert usable_cores(*nowhere) == 8 and free_memory(*nowhere) == 8000
    groups, mine = group(tmp_path, "0::/me")
    written(groups / "me", cpu__max="max 100000", memory__max="max", memory__current="500")
    assert usable_cores(groups, mine) == 8 and free_memory(groups, mine) == 8000


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("quota", "cores"), [("350000", 3), ("200000", 2), ("50000", 1), ("9900000", 8), ("junk", 8)]
)
def test_a_quota_of_core_time(tmp_path: Path, quota: str, cores: int) -> None:
    groups, mine = group(tmp_path, "0::/outer/me")
    written(groups / "outer" / "me", cpu__max=f"{quota} 100000")
    assert usable_cores(groups, mine) == cores
    groups, mine = group(tmp_path, "5:cpuacct,cpu:/me")  # the first version's layout
    written(groups / "cpu" / "me", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    assert usable_cores(groups, mine) == cores


@pytest.mark.usefixtures("eight")
def test_the_limit_of_an_outer_group_holds(tmp_path: Path) -> None:
    groups, mine = group(tmp_path, "0::/outer/me")
    written(groups / "outer", cpu__max="200000 100000", memory__max="900", memory__current="400")
    written(groups / "outer" / "me", cpu__max="max 100000", memory__max="max", memory__current="100")
    assert usable_cores(groups, mine) == 2 and free_memory(groups, mine) == 500


@pytest.mark.usefixtures("eight")
def test_a_limit_of_memory(tmp_path: Path) -> None:
    groups, mine = group(tmp_path, "0::/me")
    stat = "anon 60\ninactive_file 300\n"
    written(groups / "me", memory__max="1000", memory__current="700", memory__stat=stat)
    assert free_memory(groups, mine) == 600
    written(groups / "me", memory__current="2000")
    assert free_memory(groups, mine) == 0
    groups, mine = group(tmp_path, "4:memory:/me")
    stat = "inactive_file 1\ntotal_inactive_file 20\n"
    old = {"memory__limit_in_bytes": "1000", "memory__usage_in_bytes": "700"}
    written(groups / "memory" / "me", **old, memory__stat=stat)
    assert free_memory(groups, mine) == 320


@pytest.mark.usefixtures("eight")
def test_a_group_of_the_first_version_without_limit(tmp_path: Path) -> None:
    groups, mine = group(tmp_path, "1:cpu:/")
    written(groups / "cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert usable_cores(groups, mine) == 8


def test_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr(capacity, "machine_memory", MACHINE_MEMORY)
    assert 0 < free_memory(capacity.GROUPS, capacity.MINE) <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("line", "folder", "file"),
    [
        ("0::/outer/me", "outer/me", "memory__events"),
        ("4:memory:/me", "memory/me", "memory__oom_control"),
    ],
)
def test_kills_for_lack_of_memory_are_counted(tmp_path: Path, line: str, folder: str, file: str) -> None:
    groups, mine = group(tmp_path, line)
    written(groups / folder, **{file: "under_oom 0\noom_kill 3\n"})
    assert killed_for_memory(groups, mine) == 3


def test_where_no_group_tells_the_machine_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = tmp_path / "vmstat"
    monkeypatch.setattr(capacity, "MACHINE", machine)
    assert killed_for_memory(tmp_path, tmp_path / "no file") == 0
    machine.write_text("pgfault 5\noom_kill 7\n")
    assert killed_for_memory(tmp_path, tmp_path / "no file") == 7


def test_a_limit_of_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ulimit -v`, which is for each process."""
    limit = [resource.RLIM_INFINITY]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit[0], -1))
    assert free_addresses() == math.inf
    mapped = psutil.Process().memory_info().vms
    limit[0] = 2 * mapped
    assert 0.9 * mapped < free_addresses() < 1.1 * mapped
    limit[0] = mapped // 2
    assert free_addresses() == 0
