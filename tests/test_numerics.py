"""Profiles: those that come along stay what they are, and each is a thing of its own."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from offramp import device as devices
from offramp import numerics as numbers
from offramp.engine import probe
from offramp.engine.settings import applied
from offramp.hashing import digest, plain
from offramp.meters import capacity
from offramp.numerics import CUSTOM, DEFAULTS, FAST, PROFILES, Numerics, custom, fast, profile
from offramp.store.manifest import NumericsRecord
from offramp.store.store import Store
from offramp.study.plan import plan as planning
from offramp.study.plan.forecast import forecast
from offramp.study.plan.plan import make_plan, numerics_named
from offramp.study.plan.workers import suited
from offramp.study.spec import file as spec
from offramp.units import counted
from support import CPU, network
from wording import refusal

# What is trained already has these in its keys: a digest that changes makes every store worthless.
RECORDED = {
    "cpu": "0b8c206c550b3aa19aa3e629e30623f916f45f4d0753610c181cb2b178ca681d",
    "cuda": "5cab703998bf152cfc88797b2412e683ebf4555d9fc9d9b3f7eaccdd2bcb2f69",
}


@pytest.mark.parametrize("name", RECORDED)
def test_the_defaults_are_in_keys_what_they_have_always_been(name: str) -> None:
    assert digest(PROFILES[name]) == RECORDED[name]
    assert profile("default", name) is PROFILES[name] is DEFAULTS[name]


def test_every_profile_has_an_identity_of_its_own() -> None:
    others = {name for name, numerics in PROFILES.items() if name != numerics.name}
    assert others == {"cpu-one-thread"}  # keyed by its content
    assert len({digest(numerics) for numerics in PROFILES.values()}) == len(PROFILES)
    assert {numerics.precision for name, numerics in PROFILES.items() if "bf16" in name} == {"bfloat16"}
    assert [name for name, numerics in PROFILES.items() if numerics.tf32] == ["cuda-tf32"]
    assert not any(numerics.flush_denormal for numerics in PROFILES.values())


def test_a_profile_of_ones_own_is_its_content() -> None:
    own = custom("cpu", threads=5)
    assert own.name == CUSTOM and own.threads == 5
    assert digest(own) not in {digest(numerics) for numerics in PROFILES.values()}
    assert digest(own) == digest(custom("cpu", threads=5)) != digest(custom("cpu", threads=3))
    for numerics in PROFILES.values():
        fields = {name: getattr(numerics, name) for name in ("threads", "precision", "tf32")}
        assert custom(numerics.device, **fields) is numerics


def test_a_profile_for_another_device_is_refused(snapshot: SnapshotAssertion) -> None:
    assert [refusal(profile, name, "cpu") for name in ("cuda-tf32", "cpu-bf61")] == snapshot


# What makes the most of a machine.


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """A machine of so many cores, of which this process may use some."""

    def make(cores: int, usable: int) -> None:
        monkeypatch.setattr("psutil.cpu_count", lambda **_: cores)
        monkeypatch.setattr(planning, "computing_cores", capacity.computing_cores)
        monkeypatch.setattr("offramp.meters.capacity.usable_cores", lambda *_: usable)

    return make


@pytest.mark.parametrize(
    ("cores", "usable", "step_macs", "threads"),
    [
        (8, 8, 1e10, 8),
        (64, 64, 1e10, 64),
        (64, 4, 1e10, 4),  # by affinity, or a container's quota
        (8, 16, 1e10, 8),  # hyperthreads
        (64, 64, 1e9, 20),  # a small step
        (64, 64, 1e6, 2),
        (1, 1, 1e10, 1),
    ],
)
def test_on_a_cpu_it_has_the_cores_that_are_of_use(
    machine: Callable[[int, int], None], cores: int, usable: int, step_macs: float, threads: int
) -> None:
    machine(cores, usable)
    numerics = numerics_named(FAST, CPU, step_macs)
    assert numerics == replace(custom("cpu", threads=threads), name=numerics.name)
    assert digest(numerics) == digest(custom("cpu", threads=threads))  # two threads are the default's
    assert numerics.deterministic and numerics.words == f"float32, {counted(threads, 'thread')}"
    half = max(1, min(threads, min(cores, usable) // 2))
    assert numerics_named(FAST, CPU, step_macs, ranks=2).threads == half


class FakeGpu:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], half: bool) -> None:
        for name, answer in {
            "is_available": True,
            "device_count": 1,
            "get_device_capability": capability,
            "is_bf16_supported": half,
        }.items():
            monkeypatch.setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)


@pytest.mark.parametrize(
    ("capability", "half", "hip", "tf32", "precision"),
    [
        ((9, 0), True, None, True, "float32"),  # an H100
        ((7, 5), False, None, False, "float32"),  # a T4
        ((9, 0), True, "6.2", False, "bfloat16"),  # an AMD Instinct MI200
    ],
    ids=["H100", "T4", "MI200"],
)
def test_on_a_gpu_it_has_what_the_device_has(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    half: bool,
    hip: str | None,
    tf32: bool,
    precision: str,
) -> None:
    FakeGpu(monkeypatch, capability, half)
    monkeypatch.setattr(torch.version, "hip", hip)
    numerics = numerics_named(FAST, torch.device("cuda"))
    assert (numerics.tf32, numerics.precision, numerics.deterministic) == (tf32, precision, False)
    assert numerics.memory_format == "channels_last" and numerics.fused_optimizer
    assert "may round differently" in numerics.words and ("TF32" in numerics.words) == tf32
    exact = numerics_named("exact", torch.device("cuda"))
    assert exact is DEFAULTS["cuda"] and digest(exact) != digest(numerics)
    seen = []
    for each in (exact, numerics):
        with applied(replace(each, device="cpu", precision="float32")):
            seen.append((torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32))
    assert seen == [(False, False), (True, tf32)]


@pytest.mark.parametrize(
    ("cores", "quota", "threads", "trials"),
    [(8, "max", 8, 4), (64, "max", 64, 32), (64, "600000", 6, 3), (64, "50000", 1, 1)],
    ids=["8 cores", "64", "6 of 64", "half of one"],
)
def test_the_plan_says_what_one_network_takes_of_a_machine_and_what_a_study(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, quota: str, threads: int, trials: int
) -> None:
    """All its cores; and of a study as many trials of two threads as there are cores for."""
    group, mine = tmp_path / "groups" / "me", tmp_path / "cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text(f"{quota} 100000")
    mine.write_text("0::/me\n")
    where = (group.parent, mine)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr("psutil.cpu_count", lambda **_: cores)
    monkeypatch.setattr(planning, "computing_cores", partial(capacity.computing_cores, *where))
    monkeypatch.setattr(numbers, "THREAD_MACS", 1.0)  # as if the network were a large one
    study = {"strategies": ["joint"], "backbone": "digits-cnn", "data": "digits", "seeds": [1, 2]}
    wide, exact = (make_plan(spec.parse({**study, "numerics": of}), CPU) for of in (FAST, "exact"))
    assert wide.numerics.threads == threads and exact.numerics == DEFAULTS["cpu"]
    assert not wide.nodes.keys() & exact.nodes.keys()
    again = make_plan(spec.parse({**study, "numerics": FAST}), CPU)
    assert again.nodes.keys() == wide.nodes.keys()  # on one machine
    store = Store(tmp_path / "store")
    foreseen = forecast(wide, store, CPU, speed=1e9)
    assert foreseen.arithmetic == f"float32, {counted(threads, 'thread')}"
    counts = [
        suited(
            plan, Store(tmp_path / "store"), CPU, partial(capacity.usable_cores, *where), lambda: 2**42
        )
        for plan in (wide, exact)
    ]
    assert [workers.cores for workers in counts] == [1, trials]


def test_processes_of_torchrun_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "computing_cores", lambda: 8)
    monkeypatch.setattr(numbers, "THREAD_MACS", 1.0)
    for name, value in {"RANK": 1, "WORLD_SIZE": 8, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 4}.items():
        monkeypatch.setenv(name, str(value))
    study = {"strategies": ["joint"], "backbone": "digits-cnn", "data": "digits", "numerics": FAST}
    assert make_plan(spec.parse({**study, "seeds": [1]}), CPU).numerics.threads == 8
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    plan = make_plan(spec.parse({**study, "seeds": [1]}), CPU)
    assert (plan.numerics.threads, plan.numerics.ranks) == (2, 8)


def test_nothing_is_known_of_a_gpu_that_is_not_here() -> None:
    assert devices.arithmetic(torch.device("cuda")) == devices.Arithmetic()
    assert fast("cuda", 8, 1e9, False, False).precision == "float32"


def test_a_step_is_of_the_way_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = probe.applied
    monkeypatch.setattr(probe, "applied", lambda numerics: seen.append(numerics) or real(numerics))
    step = probe.stepper(network("digits-cnn"), 8, PROFILES["cpu-bf16"], CPU)
    assert step() > 0
    assert [(n.threads, n.precision) for n in seen] == [(1, "bfloat16")]


def test_turns_are_equal() -> None:
    order: list[int] = []
    steps = [lambda n=n: float(order.append(n) or n) for n in (0, 1)]
    assert probe.in_turns(steps, 0.0) == [[0.0] * 3, [1.0] * 3] and order == [0, 1] * 3


@pytest.fixture
def measured_layouts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, float]:
    """Seconds of a step of each memory layout, of which every network is worth measuring."""
    seconds = {"channels_last": 1.0, "contiguous": 1.0}

    def stepper(_: object, __: int, numerics: Numerics, *_where: object) -> Callable[[], float]:
        return lambda: seconds[numerics.memory_format]

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in {"stepper": stepper, "LAYOUT_SECONDS": 0, "LAYOUT_MACS": 0}.items():
        monkeypatch.setattr(probe, name, value)
    return seconds


LONG = 10**6  # steps


@pytest.mark.parametrize(
    ("contiguous", "layout"), [(0.9, "contiguous"), (0.99, "channels_last"), (1.1, "channels_last")]
)
def test_a_layout_is_taken_where_it_is_clearly_faster_and_remembered(
    measured_layouts: dict[str, float], contiguous: float, layout: str
) -> None:
    ask = partial(probe.faster_layout, network("digits-cnn"), DEFAULTS["cpu"], 128, device=CPU)
    measured_layouts["contiguous"] = contiguous
    assert ask(steps=probe.LAYOUT_STEPS - 1) == "channels_last"  # sooner trained than measured
    assert ask(steps=LONG) == layout
    measured_layouts["contiguous"] = 1 / contiguous  # a machine that is busy the next time
    assert ask(steps=LONG) == layout
    other = probe.faster_layout(network("digits-cnn"), DEFAULTS["cpu"], 64, LONG, CPU)
    assert other == ("contiguous" if contiguous > 1.03 else "channels_last")


def test_of_what_cannot_be_remembered_or_has_no_other_layout_none_is_taken(
    measured_layouts: dict[str, float], tmp_path: Path
) -> None:
    measured_layouts["contiguous"] = 0.5
    (tmp_path / "cache").write_text("no folder")
    usual = DEFAULTS["cpu"]
    assert probe.faster_layout(network("digits-cnn"), usual, 128, LONG, CPU) == "channels_last"
    (tmp_path / "cache").unlink()
    asked_for = replace(usual, memory_format="contiguous")
    assert probe.faster_layout(network("digits-cnn"), asked_for, 128, LONG, CPU) == "contiguous"
    assert not (tmp_path / "cache").exists()  # nothing was measured
    assert probe.faster_layout(network("digits-cnn"), usual, 128, LONG, CPU) == "contiguous"


def test_one_network_is_trained_in_the_faster_layout_and_a_study_in_its_own(
    measured_layouts: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "LAYOUT_STEPS", 0)
    measured_layouts["contiguous"] = 0.5
    study = {"strategies": ["joint"], "backbone": "digits-cnn", "data": "digits", "seeds": [1]}
    soon, exact = (make_plan(spec.parse({**study, "numerics": of}), CPU) for of in (FAST, "exact"))
    assert soon.numerics == custom("cpu", threads=soon.numerics.threads, memory_format="contiguous")
    assert exact.numerics == DEFAULTS["cpu"]
    assert soon.numerics.words.endswith("contiguous memory")
    ranks = {**study, "numerics": FAST, "execution": {"devices": 2}}  # which have to agree
    assert make_plan(spec.parse(ranks), CPU).numerics.memory_format == "channels_last"


@pytest.mark.parametrize(
    "numerics", [*PROFILES.values(), custom("cpu", memory_format="contiguous")], ids=lambda n: n.words
)
def test_a_record_says_of_a_profile_what_the_plan_says(numerics: Numerics) -> None:
    assert NumericsRecord(**plain(numerics)).words == numerics.words
