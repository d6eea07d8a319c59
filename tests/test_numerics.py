"""Profiles: those that come along stay what they are, and each is a thing of its own."""

from __future__ import annotations

import pytest
from syrupy.assertion import SnapshotAssertion

from offramp.hashing import digest
from offramp.numerics import CUSTOM, DEFAULTS, PROFILES, custom, profile
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
