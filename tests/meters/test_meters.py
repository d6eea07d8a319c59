"""Meters against trees and devices whose values the test dictates."""

import mmap
import multiprocessing
import sys
import threading
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from offramp.meters import meter as module
from offramp.meters.meter import (
    NO_GPU,
    PERIOD,
    Gpu,
    Meter,
    Missing,
    Packages,
    ProcessFamily,
    Usage,
    find_gpu,
    find_packages,
)

OWN = module._own
RANGE_FILE = "max_energy_range_uj"
RANGE = 262_143_328_850


@pytest.fixture(autouse=True)
def children(monkeypatch):
    """They are weighed here, as nowhere else in the tests (conftest.py)."""
    monkeypatch.setattr(module, "_own", OWN)


class Tree:
    """A sysfs tree of RAPL counters."""

    def __init__(self, root, packages=1):
        self.root = root
        self.microjoules = [RANGE - 5_000_000] * packages  # about to wrap
        for number in range(packages):
            self._zone(f"intel-rapl:{number}", f"package-{number}")
            self._zone(f"intel-rapl:{number}:0", "core")
        self._zone("intel-rapl-mmio:0", "package-0")
        self._zone(f"intel-rapl:{packages}", "psys")
        self.write()

    def _zone(self, folder, name):
        path = self.root / folder
        path.mkdir(parents=True)
        (path / "name").write_text(name + "\n")
        (path / RANGE_FILE).write_text(f"{RANGE}\n")
        (path / "energy_uj").write_text("7\n")

    def write(self):
        for number, value in enumerate(self.microjoules):
            (self.root / f"intel-rapl:{number}" / "energy_uj").write_text(f"{value}\n")

    def draw(self, joules):
        """Every package uses so much."""
        self.microjoules = [(v + round(joules * 1e6)) % (RANGE + 1) for v in self.microjoules]
        self.write()


class Nvml:
    """NVML with one GPU. counter: whether it counts energy."""

    class NVMLError(Exception):
        pass

    def __init__(self, counter=True, power=True):
        self.counter, self.power = counter, power
        self.watts, self.joules, self.bytes = 100.0, 5.0, 10**9

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if uuid != "GPU-1":
            raise self.NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetPowerUsage(self, _):
        if not self.power:
            raise self.NVMLError("Not Supported")
        return round(self.watts * 1e3)

    def nvmlDeviceGetTotalEnergyConsumption(self, _):
        if not self.counter:
            raise self.NVMLError("Not Supported")
        return round(self.joules * 1e3)

    def nvmlDeviceGetMemoryInfo(self, _):
        return SimpleNamespace(used=self.bytes)


@pytest.fixture
def clock():
    return SimpleNamespace(now=100.0)


def meter(packages, gpu, clock):
    return Meter(packages, gpu, clock=lambda: clock.now)


@pytest.mark.parametrize("packages", [1, 2])
def test_joules_of_all_packages_through_a_wrap(tmp_path, clock, packages):
    tree = Tree(tmp_path, packages)
    counters = find_packages(tmp_path)
    assert isinstance(counters, Packages)
    assert counters.names == [f"package-{n}" for n in range(packages)]
    subject = meter(counters, Missing("none"), clock)
    powers = [10.0, 30.0, 20.0, 20.0]
    for watts in powers:
        tree.draw(watts)
        clock.now += 1
        subject.sample()
    used = subject.lap()
    assert used.seconds == pytest.approx(4)
    assert used.energy_cpu_j == pytest.approx(packages * 80, rel=0.01)
    assert used.power_cpu_mean_w == pytest.approx(packages * 20, rel=0.01)
    assert used.power_cpu_peak_w == pytest.approx(packages * 30, rel=0.01)
    assert used.energy_gpu_j is None and used.power_gpu_peak_w is None


def test_a_lap_begins_where_the_last_ended(tmp_path, clock):
    tree = Tree(tmp_path)
    subject = meter(find_packages(tmp_path), Missing("none"), clock)
    tree.draw(40)
    clock.now += 0.25
    first = subject.lap()
    tree.draw(3)
    clock.now += 0.5
    second = subject.lap()
    assert (first.energy_cpu_j, second.energy_cpu_j) == pytest.approx((40, 3))
    assert first.power_cpu_peak_w is None  # too short to tell a peak from a step of the counter
    assert second.power_cpu_peak_w == pytest.approx(43 / 0.75)
    assert first.plus(second).energy_cpu_j == pytest.approx(43)


@pytest.mark.parametrize("counter", [True, False])
def test_a_gpu_with_and_without_a_counter_of_energy(clock, counter):
    nvml = Nvml(counter)
    gpu = find_gpu("GPU-1", nvml)
    assert isinstance(gpu, Gpu)
    subject = meter(Missing("none"), gpu, clock)
    for watts, peak in ((100.0, 10**9), (300.0, 3 * 10**9), (200.0, 2 * 10**9)):
        nvml.joules += (nvml.watts + watts) / 2
        nvml.watts, nvml.bytes = watts, peak
        clock.now += 1
        subject.sample()
    used = subject.lap()
    assert used.energy_gpu_j == pytest.approx(100 + 200 + 250, rel=0.01)
    assert used.power_gpu_peak_w == 300
    assert used.memory_gpu_peak_bytes == 3 * 10**9
    assert used.energy_cpu_j is None


def test_a_gpu_without_sensors_gives_nothing_rather_than_zero(clock):
    subject = meter(Missing("none"), find_gpu("GPU-1", Nvml(counter=False, power=False)), clock)
    clock.now += 1
    used = subject.lap()
    assert used.energy_gpu_j is None and used.power_gpu_mean_w is None
    assert used.memory_gpu_peak_bytes == 10**9


def test_what_is_missing_says_why(tmp_path, monkeypatch):
    assert "no RAPL" in find_packages(tmp_path / "nothing").reason
    assert find_gpu(None).reason == NO_GPU
    assert "Not Found" in find_gpu("GPU-2", Nvml()).reason
    Tree(tmp_path)
    monkeypatch.setattr(module, "_number", refuse)
    missing = find_packages(tmp_path)
    assert "chmod" in missing.remedy


def refuse(file):
    raise PermissionError(13, "Permission denied", str(file))


BREAKS = {
    "vanishes": lambda file: file.unlink(),
    "is a folder": lambda file: (file.unlink(), file.mkdir()),
    "is empty": lambda file: file.write_text(""),
    "holds text": lambda file: file.write_text("what?"),
    "holds no text": lambda file: file.write_bytes(b"\xff\xfe"),
    "is forbidden": str,
    "goes back": lambda file: file.write_text("1\n"),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_counter_that_goes_away_is_no_reading_and_said_once(tmp_path, clock, monkeypatch, how):
    tree = Tree(tmp_path)
    if how == "goes back":
        (tmp_path / "intel-rapl:0" / RANGE_FILE).write_text("1000\n")
    subject = meter(find_packages(tmp_path), Missing("none"), clock)
    tree.draw(3)
    clock.now += 1
    subject.sample()
    with monkeypatch.context() as patch:
        BREAKS[how](tmp_path / "intel-rapl:0" / "energy_uj")
        if how == "is forbidden":
            patch.setattr(module, "_number", refuse)
        clock.now += 1
        assert subject.lap().energy_cpu_j is None  # not half a sum
    missing = subject.missing["cpu power"]
    assert "no longer" in missing.reason
    if how == "vanishes":  # and comes again, from anywhere
        tree.draw(3)
    clock.now += 1
    assert subject.lap().energy_cpu_j is None and subject.missing["cpu power"] is missing


@pytest.mark.parametrize("how", sorted(set(BREAKS) - {"is forbidden", "goes back"}))
def test_a_counter_that_cannot_be_read_from_the_start_is_missing(tmp_path, how):
    Tree(tmp_path)
    BREAKS[how](tmp_path / "intel-rapl:0" / "energy_uj")
    assert "cannot be read" in find_packages(tmp_path).reason


def test_what_is_not_counted_need_not_be_read(tmp_path):
    Tree(tmp_path)
    (tmp_path / "intel-rapl:1" / RANGE_FILE).unlink()  # of psys
    assert find_packages(tmp_path).names == ["package-0"]


def test_memory_of_this_process_is_read(clock):
    subject = meter(Missing("none"), Missing("none"), clock)
    block = bytearray(64 * 2**20)
    subject.sample()
    used = subject.lap()
    assert used.memory_rss_peak_bytes >= len(block)
    assert used.memory_rss_peak_bytes < psutil.virtual_memory().total


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what processes share")
def test_memory_that_processes_share_counts_once():
    shared = np.frombuffer(mmap.mmap(-1, 200_000_000), np.uint8)

    def touch(pipe):
        pipe.recv()
        shared[:: mmap.PAGESIZE] = 1
        pipe.send("done")
        pipe.recv()

    forked = multiprocessing.get_context("fork")
    mine, its = forked.Pipe()
    child = forked.Process(target=touch, args=(its,))
    child.start()
    try:
        before = ProcessFamily(psutil.Process()).resident()
        mine.send("go")
        assert mine.recv() == "done" and shared[:: mmap.PAGESIZE].all()
        both = ProcessFamily(psutil.Process()).resident()
    finally:
        mine.send("end")
        child.join()
    assert 180_000_000 < both - before < 260_000_000


def test_children_are_looked_at_once_a_period():
    now, looked = [0.0], []

    class Process:
        def memory_info(self):
            return SimpleNamespace(rss=100)

        def children(self, recursive):
            assert recursive
            looked.append(now[0])
            return [SimpleNamespace(memory_full_info=lambda: SimpleNamespace(uss=10 * len(looked)))]

    family = ProcessFamily(Process(), lambda: now[0])
    resident = []
    for now[0] in (0.0, PERIOD / 2, PERIOD, 1.5 * PERIOD, 3 * PERIOD):
        resident.append(family.resident())
    assert resident == [110, 110, 120, 120, 130] and looked == [0.0, PERIOD, 3 * PERIOD]


def test_parts_of_a_fused_phase_add_up_to_the_whole():
    whole = Usage(
        9.0,
        30.0,
        energy_gpu_j=None,
        power_cpu_peak_w=7.0,
        power_gpu_peak_w=None,
        memory_rss_peak_bytes=100,
        memory_gpu_peak_bytes=None,
        memory_torch_peak_bytes=50,
    )
    part = whole.divided(3)
    assert (part.seconds, part.energy_cpu_j, part.memory_rss_peak_bytes) == (3.0, 10.0, 100)
    assert part.plus(part).plus(part) == whole
    assert Usage().plus(whole) == whole


def test_the_thread_samples_and_ends(monkeypatch):
    monkeypatch.setattr(module, "PERIOD", 0.001)
    subject = Meter(Missing("none"), Missing("none"))
    sampled = threading.Event()
    read = subject.sample
    monkeypatch.setattr(subject, "sample", lambda: (read(), sampled.set()))
    with subject:
        sampled.wait()
    assert not [t for t in threading.enumerate() if t.name == "offramp-meter"]


def test_the_machine_at_rest(tmp_path, clock):
    tree = Tree(tmp_path)
    subject = meter(find_packages(tmp_path), Missing("none"), clock)
    tree.draw(100)  # before: not of the rest
    clock.now += 1
    subject.sample()

    def sleep(seconds):
        tree.draw(5 * seconds)
        clock.now += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.time, "sleep", sleep)
        subject.rest()
        assert subject.idle.power_cpu_mean_w == pytest.approx(5)
        blind = meter(Missing("none"), Missing("none"), clock)
        blind.rest()
    assert blind.idle.power_cpu_mean_w is None and blind.idle.seconds == 0
