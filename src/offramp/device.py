"""The device that networks run on: which one it is, and all that differs from one to the next.

Another class of device that torch knows, such as `xpu`, is one more name in `DeviceClass`: its default
numerics profile follows, and torch's module of that name has the functions that are called below. What
that of `mps`, the GPU of a Mac, lacks is in `_Mps`.
"""

from __future__ import annotations

import functools
import os
import platform
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from offramp.errors import OfframpError

DeviceClass = Literal["cpu", "cuda", "mps"]
CLASSES: tuple[DeviceClass, ...] = get_args(DeviceClass)
_ACCELERATORS = tuple(kind for kind in CLASSES if kind != "cpu" and hasattr(torch, kind))
_ON_REQUEST = ("mps",)  # nobody has tried it, and it has computed wrongly without a word
_COLLECTIVES: dict[DeviceClass, str] = {"cpu": "gloo", "cuda": "nccl"}


def chosen(name: str | torch.device | None = None) -> torch.device:
    """The device to run on.

    Args:
        name: Such as `cpu`, `cuda` or `cuda:1`; without one, what OFFRAMP_DEVICE says; without that, the
            first accelerator that is here, else the CPU. That of a Mac, `mps`, has to be named.

    Raises:
        OfframpError: For a device that is not here.

    >>> chosen("cpu")
    device(type='cpu')
    """
    text = str(name or os.environ.get("OFFRAMP_DEVICE") or "")
    kinds = [kind for kind in _ACCELERATORS if _module(kind).is_available()]
    numbered = [f"{kind}:{i}" for kind in kinds for i in range(_module(kind).device_count())]
    if not text:
        return torch.device(next((kind for kind in kinds if kind not in _ON_REQUEST), "cpu"))
    if text not in ("cpu", *kinds, *numbered):
        source = "" if name else " (OFFRAMP_DEVICE)"
        raise OfframpError(
            f"no device '{text}' here{source}; choose from {', '.join(['cpu', *numbered])}"
        )
    return torch.device(text)


def elsewhere(name: str | None, usual: str) -> torch.device:
    """A class of devices of other machines, which give each task one of theirs: that of this name;
    without one, what OFFRAMP_DEVICE says, else the usual one.

    Raises:
        OfframpError: For an unknown class of devices.
    """
    text = name or os.environ.get("OFFRAMP_DEVICE") or usual
    if text not in _COLLECTIVES:  # no machine of a cluster has others
        source = "" if name else " (OFFRAMP_DEVICE)"
        raise OfframpError(
            f"no device '{text}' on a cluster{source}, which numbers its own; choose from "
            f"{', '.join(_COLLECTIVES)}"
        )
    return torch.device(text)


@dataclass(frozen=True)
class Launched:
    """The place of a process among `count`: its rank among all, and `local` among the `here` of this
    machine."""

    rank: int
    count: int
    local: int
    here: int


def launched() -> Launched | None:
    """The place of this process among those that torchrun started; None without torchrun."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Launched(*(int(os.environ[name]) for name in names))


def count(device: torch.device) -> int:
    """How many devices that may mean: accelerators of its kind, where it names none of them."""
    return _module(device.type).device_count() if _unnumbered(device) else 1


def _unnumbered(device: torch.device) -> bool:
    return device.type != "cpu" and device.index is None


def several(device: torch.device, number: int) -> list[torch.device]:
    """A device for each of `number` processes that train a phase together; on the CPU all have the same.

    Devices are named by number even where there is one: NCCL takes no other.

    Raises:
        OfframpError: Where there are not so many.
    """
    if device.type == "cpu":
        return [device] * number
    if number > count(device):
        raise OfframpError(
            f"execution.devices asks for {number} devices, and {device} means {count(device)} here; "
            "ask for fewer, or name no device"
        )
    return [torch.device(device.type, i) for i in range(number)] if _unnumbered(device) else [device]


def spread(device: torch.device, number: int) -> list[torch.device]:
    """A device for each of `number` processes that have work of their own: accelerators in turn, where
    `device` names none of them."""
    if not _unnumbered(device) or number == 1:
        return [device] * number
    return [torch.device(device.type, i % count(device)) for i in range(number)]


class _Mps:
    """Torch's module of a Mac's GPU, with what it lacks. There is one such device, of no number, in the
    machine's own memory."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.mps, name)

    def is_initialized(self) -> bool:
        return bool(torch.mps.is_available())

    def synchronize(self, _: torch.device) -> None:
        torch.mps.synchronize()

    def manual_seed_all(self, number: int) -> None:
        torch.mps.manual_seed(number)

    def mem_get_info(self, _: torch.device) -> tuple[int, int]:
        most = torch.mps.recommended_max_memory()
        return max(0, most - torch.mps.driver_allocated_memory()), most

    def get_device_name(self, _: torch.device) -> str:
        return str(torch.backends.mps.get_name())

    def is_bf16_supported(self, including_emulation: bool) -> bool:  # noqa: ARG002
        return False  # which of them have it is not known here


def _module(kind: str) -> Any:
    """Torch's module of a class of devices. All but that of the CPU have the same functions."""
    return _Mps() if kind == "mps" else getattr(torch, kind)


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a clock read afterwards tells the truth."""
    if device.type != "cpu":
        _module(device.type).synchronize(device)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device. From the CPU's memory it gets there while the host goes on: out of a copy
    in pages that stay, so the tensor may change at once. A Mac has one memory for both."""
    if device.type in ("cpu", "mps") or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on an accelerator; None on the CPU, which has the machine's."""
    return None if device.type == "cpu" else int(_module(device.type).mem_get_info(device)[0])


def peak_memory(device: torch.device) -> int | None:
    """The most bytes that torch held on an accelerator since this was last asked; None on the CPU and
    on a Mac's GPU, which do not tell."""
    if device.type in ("cpu", "mps"):
        return None
    most = int(_module(device.type).max_memory_allocated(device))
    _module(device.type).reset_peak_memory_stats(device)
    return most


def widest(device: torch.device) -> torch.dtype:
    """The type in which a device adds up what is many: float64, which a Mac's GPU lacks."""
    return torch.float32 if device.type == "mps" else torch.float64


@functools.cache
def name(device: torch.device) -> str:
    """The name of the model, such as `AMD EPYC 7B13`."""
    if device.type != "cpu":
        return str(_module(device.type).get_device_name(device))
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def packs_weights() -> bool:
    """Whether layers on this processor may keep their weights packed, by kernels of oneDNN. It was
    measured on x86 alone."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    kernels = ("_convolution_pointwise", "_linear_pointwise", "_reorder_linear_weight")
    available = all(hasattr(torch.ops.mkldnn, kernel) for kernel in kernels)
    return x86 and available and bool(torch.backends.mkldnn.enabled)


def multiplies_quickly() -> bool:
    """Whether PyTorch's products of small matrices are quick here: they are MKL's, which is for
    processors of Intel."""
    return "Intel" in name(torch.device("cpu"))


def nvidia_uuid(device: torch.device) -> str | None:
    """The UUID of an NVIDIA GPU, whose tools may number devices in another order; None for any other
    device."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else None


def collectives(device: torch.device) -> str | None:
    """The backend of torch.distributed for one training on several of such devices; None for a class
    without one."""
    return _COLLECTIVES.get(device.type)  # type: ignore[call-overload,no-any-return]


def reseed(number: int) -> None:
    """Seed torch's global generators, of accelerators where they are in use."""
    # As torch.manual_seed, which where none is in use formats the call stack each time: that took a
    # tenth of a small network's step.
    torch.default_generator.manual_seed(number)
    for kind in _ACCELERATORS:
        if _module(kind).is_initialized():
            _module(kind).manual_seed_all(number)


@dataclass(frozen=True)
class Arithmetic:
    """Short formats of numbers in which a device is quick: TF32, and bfloat16 without emulation."""

    tf32: bool = False
    bfloat16: bool = False


def arithmetic(device: torch.device) -> Arithmetic:
    """What an accelerator of this machine has; nothing is known of others, nor used of a CPU's."""
    if device.type == "cpu" or not _module(device.type).is_available():
        return Arithmetic()
    module = _module(device.type)
    is_nvidia = device.type == "cuda" and torch.version.hip is None
    tf32 = is_nvidia and module.get_device_capability(device) >= (8, 0)  # from Ampere on
    return Arithmetic(tf32, bool(module.is_bf16_supported(including_emulation=False)))


@contextmanager
def chosen_kernels(tf32: bool, search: bool = False) -> Iterator[None]:
    """Convolutions take the same kernels each time in the block.

    Args:
        tf32: Whether these may round to it.
        search: Take the fastest of several, which may be another one each time.
    """
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.allow_tf32
    cudnn.benchmark, cudnn.allow_tf32 = search, tf32
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32 = before


@contextmanager
def random_state_restored(device: torch.device | None = None) -> Iterator[None]:
    """Torch's global random state is afterwards what it was before the block: the CPU's and that of
    `device`; without one, of every accelerator in use (reading another one's would start it)."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([]))
        for kind in _ACCELERATORS:
            module = _module(kind)
            if device is not None:
                own: list[Any] = [device] if device.type == kind else []
            else:
                own = list(range(module.device_count())) if module.is_initialized() else []
            if own:
                stack.enter_context(torch.random.fork_rng(own, device_type=kind))
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators, and put them back at the end."""
    with random_state_restored():
        if any(_module(kind).is_available() for kind in _ACCELERATORS):
            torch.manual_seed(seed)  # one that the block is the first to use, too
        else:
            reseed(seed)
        yield


@contextmanager
def seeded_on_cpu(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators, and put them back at the end. Those of
    accelerators stay: this is for whatever code of the user's there is, image by image."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def random_state(device: torch.device) -> tuple[Tensor, ...]:
    """The state of the global generators that draw for the device."""
    if device.type == "cpu":
        return (torch.get_rng_state(),)
    return torch.get_rng_state(), _module(device.type).get_rng_state(device)
