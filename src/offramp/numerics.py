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
    """threads: of one trial, whatever the number of cores; of each of its ranks.  precision: of
    convolutions and matrix products; weights, optimizer, batch normalization's statistics, logits and
    losses are float32 in any case.  memory_format: of images and of the weights of convolutions.
    frozen_batch: the fewest rows that a frozen part runs on at once; smaller batches are padded, since
    kernels for few rows round differently.  ranks: devices that train a phase together, each with its
    part of every batch.
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

ASKED = (
    # One thread: beside other work two wait for each other ten and more times as long as they compute.
    replace(DEFAULTS["cpu"], name="cpu-bf16", threads=1, precision="bfloat16"),
    replace(DEFAULTS["cuda"], name="cuda-bf16", precision="bfloat16"),
    replace(DEFAULTS["cuda"], name="cuda-tf32", tf32=True),
)
PROFILES = DEFAULTS | {numerics.name: numerics for numerics in ASKED}
"""Every profile that comes with offramp, by name."""


CUSTOM = "custom"
"""The name in keys of every profile that somebody wrote: what counts is its content."""


def custom(device: DeviceClass, **changes: Any) -> Numerics:
    """A profile of one's own: the device's default with `changes`."""
    return known(replace(DEFAULTS[device], name=CUSTOM, **changes))


def known(made: Numerics) -> Numerics:
    """The profile of `PROFILES` that says what `made` says, and has its keys; else `made`."""
    for one in PROFILES.values():
        if replace(one, name=CUSTOM) == made:
            return one
    return made


def profile(name: str, device: str) -> Numerics:
    """The named profile; `default` is the one for this class of devices.

    Raises OfframpError for an unknown name, or one made for another device.
    """
    chosen = PROFILES.get(device if name == "default" else name)
    if chosen is None:
        raise OfframpError(f"unknown numerics profile '{name}'{nearest(name, PROFILES)}")
    return made_for(device, chosen, name)


def made_for(device: str, chosen: Numerics, name: str) -> Numerics:
    """`chosen`. Raises OfframpError where it was made for another class of devices."""
    if chosen.device != device:
        raise OfframpError(
            f"numerics profile '{name}' is for {chosen.device}, but this run is on {device}; "
            f"set numerics: default"
        )
    return chosen
