"""What a module is, as text for keys: its weights, its settings, the source of its classes."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

_BOOKKEEPING = frozenset(vars(nn.Module()))  # the mode, the hooks, the tables of weights


def state_digest(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers, by name."""
    return tensors_digest({**dict(module.named_parameters()), **dict(module.named_buffers())})


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of tensors by name, whatever their order."""
    text = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        text.update(f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1f".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        text.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return text.hexdigest()


def settings(module: nn.Module, names: Iterable[str]) -> str:
    """Class and plain attributes (numbers, words, tuples and lists of them) of the submodules `names`.

    A module's repr leaves out what its author left out, such as how a pooling counts its padding.
    """
    rows = []
    for name in sorted(names):
        part = module.get_submodule(name)
        plain = {k: v for k, v in vars(part).items() if k not in _BOOKKEEPING and _is_plain(v)}
        rows.append(f"{name}: {type(part).__qualname__} {sorted(plain.items())!r}")
    return "\n".join(rows)


def sources(module: nn.Module) -> list[str]:
    """What is known of the code of a module that cannot be traced: the text of its own classes."""
    kinds = {type(m) for m in module.modules() if not type(m).__module__.startswith("torch.")}
    texts = []
    for kind in sorted(kinds, key=lambda kind: f"{kind.__module__}.{kind.__qualname__}"):
        with contextlib.suppress(OSError, TypeError):  # typed at a prompt: the text is not kept
            texts.append(inspect.getsource(kind))
    return texts


def _is_plain(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str))
