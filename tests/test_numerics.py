"""Profiles: those that come along stay what they are, and each is a thing of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

from offramp import device as devices
from offramp.engine.settings import applied
from offramp.hashing import digest
from offramp.meters import capacity
from offramp.numerics import CUSTOM, DEFAULTS, FAST, PROFILES, custom, fast, profile
from offramp.study.plan import profiles
from offramp.units import counted
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
    assert all(name == numerics.name for name, numerics in PROFILES.items())
    assert len({digest(numerics) for numerics in PROFILES.values()}) == len(PROFILES)
    assert {numerics.precision for name, numerics in PROFILES.items() if "bf16" in name} == {"bfloat16"}
    assert [name for name, numerics in PROFILES.items() if numerics.tf32] == ["cuda-tf32"]
    assert not any(numerics.flush_denormal for numerics in PROFILES.values())


def test_a_profile_of_ones_own_is_its_content() -> None:
    own = custom("cpu", threads=1)
    assert own.name == CUSTOM and own.threads == 1
    assert digest(own) not in {digest(numerics) for numerics in PROFILES.values()}
    assert digest(own) == digest(custom("cpu", threads=1)) != digest(custom("cpu", threads=3))
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
        monkeypatch.setattr(profiles, "computing_cores", capacity.computing_cores)
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
    numerics = profiles.find(FAST, "cpu", step_macs)
    assert numerics == replace(custom("cpu", threads=threads), name=numerics.name)
    assert digest(numerics) == digest(custom("cpu", threads=threads))  # two threads are the default's
    assert numerics.deterministic and numerics.words == f"float32, {counted(threads, 'thread')}"
    half = max(1, min(threads, min(cores, usable) // 2))
    assert profiles.find(FAST, "cpu", step_macs, ranks=2).threads == half


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
    numerics = profiles.find(FAST, "cuda")
    assert (numerics.tf32, numerics.precision, numerics.deterministic) == (tf32, precision, False)
    assert numerics.memory_format == "channels_last" and numerics.fused_optimizer
    assert "may round differently" in numerics.words and ("TF32" in numerics.words) == tf32
    exact = profiles.find("exact", "cuda")
    assert exact is DEFAULTS["cuda"] and digest(exact) != digest(numerics)
    seen = []
    for each in (exact, numerics):
        with applied(replace(each, device="cpu", precision="float32")):
            seen.append((torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32))
    assert seen == [(False, False), (True, tf32)]


def test_nothing_is_known_of_a_gpu_that_is_not_here() -> None:
    assert devices.arithmetic(torch.device("cuda")) == devices.Arithmetic()
    assert fast("cuda", 8, 1e9, False, False).precision == "float32"
