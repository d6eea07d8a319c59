"""A numerics profile applied to this process, and undone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from offramp.numerics import Numerics


@contextmanager
def applied(numerics: Numerics) -> Iterator[None]:
    """Threads, determinism and precision of `numerics` while the block runs. Torch's global random
    state is put back at the end as well, since training reseeds it."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    benchmark, tf32 = torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32
    cudnn_tf32 = torch.backends.cudnn.allow_tf32
    if numerics.device == "cuda":  # cuBLAS wants this before its first call to be deterministic
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(numerics.threads)
    torch.use_deterministic_algorithms(numerics.deterministic)
    torch.set_flush_denormal(numerics.flush_denormal)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = numerics.tf32
    torch.backends.cudnn.allow_tf32 = numerics.tf32
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark = benchmark
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = cudnn_tf32


def placed(net: nn.Module, device: torch.device) -> None:
    """Move a network to the device, convolution weights in the profile's memory format."""
    net.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a clock read afterwards tells the truth."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
