"""A numerics profile applied to this process, and undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import assert_never

import torch
from torch import Tensor, nn

from offramp import device as devices
from offramp.numerics import MemoryFormat, Numerics

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@contextmanager
def applied(numerics: Numerics) -> Iterator[None]:
    """Threads, determinism and precision of `numerics` while the block runs. Torch's global random
    state is put back at the end as well, since training reseeds it."""
    threads = torch.get_num_threads()
    # Not use_deterministic_algorithms, which imports torch's compiler, a second in every process.
    strictness = torch.get_deterministic_debug_mode()
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    precision = torch.get_float32_matmul_precision()
    torch.set_num_threads(numerics.threads)
    torch.set_deterministic_debug_mode("error" if numerics.deterministic else "default")
    # Memory is filled by default so that reading it unwritten shows; no kernel here does.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("high" if numerics.tf32 else "highest")
    torch.set_flush_denormal(numerics.flush_denormal)
    try:
        with (
            devices.random_state_restored(torch.device(numerics.device)),
            devices.chosen_kernels(numerics.tf32, search=not numerics.deterministic),
            _precision(numerics),
        ):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(strictness)
        torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]
        torch.set_float32_matmul_precision(precision)


def _precision(numerics: Numerics) -> AbstractContextManager[object]:
    match numerics.precision:
        case "float32":
            return nullcontext()
        case "bfloat16":
            # Nothing but networks has operations that autocast changes. It may keep no copies of
            # weights, which training changes.
            return torch.autocast(numerics.device, torch.bfloat16, cache_enabled=False)
        case _:
            assert_never(numerics.precision)


def placed(net: nn.Module, device: torch.device, memory_format: MemoryFormat = "channels_last") -> None:
    """Move a network to the device, convolution weights in the profile's memory format."""
    net.to(device=device, memory_format=FORMATS[memory_format])  # type: ignore[call-overload]


def laid_out(images: Tensor, memory_format: MemoryFormat) -> Tensor:
    """Images [B, C, H, W] in the profile's memory format; as they are where they have it already."""
    return images.contiguous(memory_format=FORMATS[memory_format])
