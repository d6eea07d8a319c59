"""Submodules that run one after another and make up a module: what it can be cut into untraced."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from offramp.nets.cut.calling import way_of

LEAST = 3  # submodules that make a chain worth cutting


def chain(module: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Submodules of which each takes what the one before it gave, from the images `[B, C, H, W]` to the
    logits, in eval mode; none where something else happens between them."""
    probe = copy.deepcopy(module).eval()
    calls: list[tuple[str, Any, Any]] = []  # in the order they end

    def note(name: str) -> Any:
        return lambda _, given, out: calls.append((name, given, out))

    for name, part in probe.named_modules():
        if name:
            part.register_forward_hook(note(name))
    with torch.no_grad():
        way, _ = way_of(probe, images)
        calls.clear()
        x = images.clone()
        logits = way(probe, x)
    found = _between(calls, x, logits, "")
    while 0 < len(found) < LEAST:  # such as one module that wraps all
        finer = [_inside(calls, call) or [call] for call in found]
        if all(len(part) == 1 for part in finer):
            break
        found = [call for part in finer for call in part]
    return tuple(name for name, _, _ in found)


Call = tuple[str, Any, Any]


def _inside(calls: list[Call], call: Call) -> list[Call]:
    name, given, out = call
    return _between(calls, given[0], out, f"{name}.")


def _between(calls: list[Call], start: Tensor, end: Any, prefix: str) -> list[Call]:
    """The outermost calls that lead from one tensor to another; empty where they do not."""
    mine = [c for c in calls if c[0].startswith(prefix) and "." not in c[0].removeprefix(prefix)]
    found, x = [], start
    for call in mine:
        _, given, out = call
        if len(given) != 1 or given[0] is not x:
            return []
        found.append(call)
        x = out
    return found if x is end else []
