"""Numerics profiles: every setting that touches the last bits of a result, fixed and named.

Training amplifies last bits, so a profile is part of every node's key. But for `fast`, which is there to
get a network soon, none depends on the machine
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
from offramp.units import arithmetic

MemoryFormat = Literal["channels_last", "contiguous"]


@dataclass(frozen=True)
class Numerics:
    """A profile. Weights, optimizer, batch normalization's statistics, logits and losses are float32 in
    any case.

    Attributes:
        threads: Of one trial, whatever the number of cores; of each of its ranks.
        precision: Of convolutions and matrix products.
        deterministic: Equal calls give equal bits. Else cuDNN also searches for its fastest kernels.
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

    @property
    def words(self) -> str:
        """For people.

        Example:
            >>> DEFAULTS["cpu"].words
            'float32, 2 threads'
        """
        return arithmetic(
            self.precision, self.threads, self.tf32, self.memory_format, self.deterministic
        )


DEFAULTS: dict[str, Numerics] = {
    name: Numerics(name=name, version=1, device=name, threads=2) for name in CLASSES
}
# On a Mac's GPU, weights that do not lie in order have stayed as they were, without a word.
DEFAULTS["mps"] = replace(DEFAULTS["mps"], memory_format="contiguous", fused_optimizer=False)
"""What a study gets that asks for nothing, by device class."""

CUSTOM = "custom"
"""The name in keys of every profile that has none of its own: what counts is its content."""

PROFILES = {
    **DEFAULTS,
    "cpu-one-thread": replace(DEFAULTS["cpu"], name=CUSTOM, threads=1),
    # One thread: beside other work two wait for each other ten and more times as long as they compute.
    "cpu-bf16": replace(DEFAULTS["cpu"], name="cpu-bf16", threads=1, precision="bfloat16"),
    "cuda-bf16": replace(DEFAULTS["cuda"], name="cuda-bf16", precision="bfloat16"),
    "cuda-tf32": replace(DEFAULTS["cuda"], name="cuda-tf32", tf32=True),
}
"""Every profile, by the name that a study gives it."""

EXACT, FAST = "exact", "fast"
"""Another name of `default`; and of the profile that makes the most of a machine, for one network."""
THREAD_MACS = 50e6
"""Of a training step, a thread: a millisecond of work, far above what it takes to wake it."""
USUAL_THREADS = DEFAULTS["cpu"].threads


def custom(device: str, **changes: Any) -> Numerics:
    """The device's default with `changes`."""
    return registered(replace(DEFAULTS[device], name=CUSTOM, **changes))


def registered(numerics: Numerics) -> Numerics:
    """The profile of `PROFILES` with the settings of `numerics`, and so its keys; else `numerics`."""
    same = (other for other in PROFILES.values() if replace(other, name=CUSTOM) == numerics)
    return next(same, numerics)


def fast(device: DeviceClass, cores: int, step_macs: float, tf32: bool, bfloat16: bool) -> Numerics:
    """The profile that makes the most of a machine: its cores on a CPU, the arithmetic of its GPU.

    A GPU that has TF32 uses it, as PyTorch's convolutions do by default; one that lacks it, and has
    bfloat16, that. A CPU keeps float32, as bfloat16 gains on some networks and halves the speed of
    others. step_macs: of a training step, which many threads only slow if it is small; tf32, bfloat16:
    whether the device has it, the latter without emulation.

    Example:
        >>> fast("cpu", 8, 1e9, False, False).threads, fast("cpu", 8, 1e6, False, False).threads
        (8, 2)
    """
    if device == "cpu":
        useful = max(USUAL_THREADS, int(min(step_macs / THREAD_MACS, cores)))
        return custom(device, threads=min(cores, useful))
    half = bfloat16 and not tf32
    return custom(device, tf32=tf32, precision="bfloat16" if half else "float32", deterministic=False)


def profile(name: str, device: str) -> Numerics:
    """The named profile; `default`, or `exact`, is the one for this class of devices.

    Raises OfframpError for an unknown name, or a profile of another device.
    """
    numerics = PROFILES.get(device if name in ("default", EXACT) else name)
    if numerics is None:
        raise OfframpError(f"unknown numerics profile '{name}'{nearest(name, [*PROFILES, EXACT, FAST])}")
    if numerics.device != device:
        raise OfframpError(
            f"numerics profile '{name}' is for {numerics.device}, but this run is on {device}; "
            f"set numerics: default"
        )
    return numerics
