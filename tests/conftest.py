"""Settings of every test process, made before torch is imported; and which tests are slow."""

import os
import re
import shutil
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

# Test processes share the cores: threads that wait must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Neither what the user has set for commands nor a GPU that happens to be here decides a test.
os.environ["OFFRAMP_DEVICE"] = "cpu"
os.environ.pop("OFFRAMP_DATA", None)
os.environ.pop("OFFRAMP_CACHE", None)
os.environ.pop("OFFRAMP_CACHE_SIZE", None)
os.environ.pop("FORCE_COLOR", None)
os.environ.pop("NO_COLOR", None)
os.environ.pop("TTY_COMPATIBLE", None)
os.environ.pop("TTY_INTERACTIVE", None)

import pytest
import torch
from hypothesis import HealthCheck, settings

import clocks
import object_store
import wording
from longer import slow_file, slow_test
from offramp.meters import capacity, meter
from offramp.process import look_less_for_garbage
from offramp.study.plan import caching
from offramp.study.plan import plan as planning
from remembered_graphs import remembered_graphs
from remembered_surveys import remembered_surveys

__all__ = ["remembered_graphs", "remembered_surveys"]

torch.set_num_threads(1)
look_less_for_garbage()  # as commands do

# A shell that starts this in the background has it ignore Ctrl-C, and so would the commands under test.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says what else the machine does.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Whatever offramp writes waits for the disk, some ten milliseconds a file: memory is quicker.
MEMORY_DISK = Path("/dev/shm")
if MEMORY_DISK.is_dir() and shutil.disk_usage(MEMORY_DISK).free > 8 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY_DISK))

MEMORY = 64 * 2**30  # bytes that a machine of the tests has free
CORES = 2  # that `numerics: fast` takes there
FIRST = (
    *("together", "concurrency", "streaming", "crash", "resuming", "contract", "store_command"),
    *("process", "trackers", "page_browser", "build_command", "execution", "augmented", "runtime"),
)
"""Files that take long, though their tests are few: begun last, they would keep one process waiting."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="only tests that are quick")
    parser.addoption("--cluster", action="store_true", help="only what needs a cluster of Ray")
    parser.addoption(
        "--long", action="store_true", help="also what takes minutes: see the marker `long`"
    )
    parser.addoption(
        "--clock", type=float, default=1.0, help="how fast the product's clocks run: tests/clocks.py"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Snapshots leave out the folder of temporary files, wherever that is."""
    if base := config.getoption("basetemp"):
        wording.TEMPORARY.append(re.escape(f"{Path(base).resolve()}/"))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --fast, slow files are not even imported."""
    if not config.getoption("fast") or not collection_path.name.startswith("test_"):
        return None  # pytest decides
    return slow_file(collection_path) or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Single tests are left out: with --fast the slow ones, without --long the long ones, without
    --cluster those of a cluster; with it no others."""
    for item in items:
        if slow_test(item):
            item.add_marker("slow")
    out = {"slow"} if config.getoption("fast") else set()
    out |= set() if config.getoption("long") else {"long"}
    cluster = config.getoption("cluster")
    items[:] = [item for item in items if (item.get_closest_marker("cluster") is not None) == cluster]
    items[:] = [item for item in items if not out & {mark.name for mark in item.iter_markers()}]
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in FIRST)


@pytest.fixture(scope="session", autouse=True)
def _made_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What other programs leave free decides no test: all that is forecast in this process goes by
    MEMORY, and by no control group. Nor do those of them that the kernel kills for lack of memory, nor
    whether temporary files lie in memory. Children, such as a browser, are not weighed at each phase.
    Nor do this machine's cores, of which one training takes CORES."""
    nowhere = tmp_path_factory.getbasetemp() / "no control groups"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capacity, "machine_memory", lambda: MEMORY)
        patch.setattr(capacity.free_memory, "__defaults__", (nowhere, nowhere))
        patch.setattr(capacity.killed_for_memory, "__defaults__", (nowhere, nowhere))
        patch.setattr(capacity, "MACHINE", nowhere)
        patch.setattr(caching, "IN_MEMORY", ())
        patch.setattr(meter, "_own", lambda _: 0)
        patch.setattr(planning, "computing_cores", lambda: CORES)
        yield


@pytest.fixture(autouse=True)
def _clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --clock, on every test."""
    factor = request.config.getoption("clock")
    if factor != 1:
        clocks.install(factor, monkeypatch)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server of the tests' own."""
    pytest.importorskip("s3fs")
    with object_store.serving() as endpoint:
        yield endpoint


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The address of a place for a store, in a bucket of its own; child processes reach it too."""
    import fsspec

    fsspec.get_filesystem_class("s3").clear_instance_cache()
    for name, value in object_store.CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    bucket = f"runs-{uuid.uuid4().hex[:12]}"
    object_store.make_bucket(s3_server, bucket)
    return f"s3://{bucket}/store"
