"""In which order an epoch sees the samples, and where its batches begin and end."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from offramp.errors import OfframpError
from offramp.seeding import derive


def order(seed: int, epoch: int, n: int) -> Tensor:
    """A permutation of 0..n-1 as [n] int64 on the CPU: a function of the arguments alone."""
    generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
    return torch.randperm(n, generator=generator)


def bounds(n: int, batch_size: int) -> tuple[tuple[int, int], ...]:
    """Where the batches of `n` samples begin and end: `(start, stop)` of each, in order.

    The last batch is kept, however short; one of a single sample joins the batch before it, since
    BatchNorm on vectors cannot train on one. (With a batch size of 1 every batch is single.)

    Raises OfframpError when there are no samples or the batch size is below 1.
    """
    if n < 1:
        raise OfframpError("there are no samples to make batches of; give at least one")
    if batch_size < 1:
        raise OfframpError(f"batch size {batch_size} is too small; use 1 or more")
    edges = [*range(0, n, batch_size), n]
    if batch_size > 1 and n > batch_size and n % batch_size == 1:
        del edges[-2]
    return tuple(itertools.pairwise(edges))
