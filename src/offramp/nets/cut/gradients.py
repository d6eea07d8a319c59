"""Whether a module learns in pieces as it does whole: tracers see what a `forward` computes, and nothing
of what it says of gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from offramp.device import reseed

_SEED = 0  # of what modules draw, and of the direction in which gradients are taken
_APART = 0.1  # of a gradient's norm: by what rounding does not part two of them
_LEAST = 1e-4  # of the largest norm: gradients below it are taken for rounding


def unlike(
    module: nn.Module, whole: Callable[[], Tensor], pieces: Callable[[], Tensor]
) -> frozenset[str]:
    """Names of the parameters of `module` whose gradient is another one in `pieces` than in `whole`, two
    ways to its logits `[B, classes]`.

    So are those before an `autograd.Function` with a backward of its own, or in a block of `no_grad`.
    None where the two draw other random numbers, and where either cannot be differentiated: that is said
    when it trains. Gradients are only taken where other steps lead to them.
    """
    with torch.enable_grad():
        try:
            own, found = _seeded(whole), _seeded(pieces)
            if own.dtype not in (torch.float32, torch.float64) or _steps(own) == _steps(found):
                return frozenset()
            if bool((own - found).abs().max() > 1e-3 * own.abs().max()):
                return frozenset()
            named = module.named_parameters(remove_duplicate=False)
            trained = {name: p for name, p in named if p.requires_grad}
            pairs = zip(*(_gradients(y, list(trained.values())) for y in (own, found)), strict=True)
        except Exception:  # whatever the user's code raises
            return frozenset()
    norms = [(float(a.norm()), float(b.norm()), float((a - b).norm())) for a, b in pairs]
    least = _LEAST * max((max(a, b) for a, b, _ in norms), default=0.0)
    return frozenset(
        name
        for name, (a, b, apart) in zip(trained, norms, strict=True)
        if max(a, b) > least and apart > _APART * max(a, b)
    )


def _seeded(run: Callable[[], Tensor]) -> Tensor:
    reseed(_SEED)
    return run()


def _steps(logits: Tensor) -> Counter[tuple[str, int]]:
    """How often each kind of step is taken back from the logits, and each parameter reached."""
    found, waiting = dict[Any, None](), [logits.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is not None and step not in found:
            found[step] = None
            waiting += [before for before, _ in step.next_functions]
    return Counter((type(step).__name__, id(getattr(step, "variable", None))) for step in found)


def _gradients(logits: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Of the logits in one direction; zeros where none arrives."""
    if not logits.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    reseed(_SEED)
    found = torch.autograd.grad(logits, parameters, torch.randn_like(logits), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
