"""Numerics profiles: every setting that touches the last bits of a result, fixed and named.

Training amplifies last bits, so a profile is part of every node's key and never depends on the machine
(docs/decisions/numerics.md says what was measured and why each value is what it is). A change of any
value, or of how the engine arranges arithmetic, raises the version.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from offramp.device import CLASSES, DeviceClass
from offramp.errors import OfframpError, nearest
from offramp.hashing import YOUNGER

MemoryFormat = Literal["channels_last", "contiguous"]


@dataclass(frozen=True)
class Numerics:
    """A profile. Weights, optimizer, batch normalization's statistics, logits and losses are float32 in
    any case.

    Attributes:
        threads: Of one trial, whatever the number of cores; of each of its ranks.
        precision: Of convolutions and matrix products.
        memory_format: Of images and of the weights of convolutions.
        frozen_batch: The fewest rows that a frozen part runs on at once; smaller batches are padded,
            since kernels for few rows round differently.
        ranks: Devices that train a phase together, each with its part of every batch.
    """

    name: str
    version: int
    device: DeviceClass
    threads: Annotated[int, Ge(1), Le(1024)]
    precision: Literal["float32", "bfloat16"] = "float32"
    memory_format: MemoryFormat = "channels_last"
    deterministic: bool = True
    tf32: bool = False
    flush_denormal: bool = False
    fused_optimizer: bool = True
    frozen_batch: Annotated[int, Ge(64)] = 64
    ranks: int = field(default=1, metadata=YOUNGER)


DEFAULTS: dict[str, Numerics] = {
    name: Numerics(name=name, version=1, device=name, threads=2) for name in CLASSES
}
"""What a study gets that asks for nothing, by device class."""

PROFILES = {
    **DEFAULTS,
    # One thread: beside other work two wait for each other ten and more times as long as they compute.
    "cpu-bf16": replace(DEFAULTS["cpu"], name="cpu-bf16", threads=1, precision="bfloat16"),
    "cuda-bf16": replace(DEFAULTS["cuda"], name="cuda-bf16", precision="bfloat16"),
    "cuda-tf32": replace(DEFAULTS["cuda"], name="cuda-tf32", tf32=True),
}
"""Every profile that comes with offramp, by name."""

CUSTOM = "custom"
"""The name in keys of every profile that somebody wrote: what counts is its content."""


def custom(device: str, **changes: Any) -> Numerics:
    """A profile of one's own: the device's default with `changes`."""
    return registered(replace(DEFAULTS[device], name=CUSTOM, **changes))


def registered(numerics: Numerics) -> Numerics:
    """The profile of `PROFILES` with the settings of `numerics`, and so its keys; else `numerics`."""
    same = (other for other in PROFILES.values() if replace(other, name=CUSTOM) == numerics)
    return next(same, numerics)


def profile(name: str, device: str) -> Numerics:
    """The named profile; `default` is the one for this class of devices.

    Raises OfframpError for an unknown name, or a profile of another device.
    """
    numerics = PROFILES.get(device if name == "default" else name)
    if numerics is None:
        raise OfframpError(f"unknown numerics profile '{name}'{nearest(name, PROFILES)}")
    return fitting(numerics, device, name)


def fitting(numerics: Numerics, device: str, name: str) -> Numerics:
    """`numerics`. Raises OfframpError where it is of another class of devices."""
    if numerics.device != device:
        raise OfframpError(
            f"numerics profile '{name}' is for {numerics.device}, but this run is on {device}; "
            f"set numerics: default"
        )
    return numerics
