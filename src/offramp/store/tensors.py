"""Tensors as bytes, sealed where the format has no seal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, contiguous_format, uint8

from offramp.hashing import text
from offramp.store.place import Place
from offramp.store.sealed import Damaged


def pack(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors of any device as the bytes of a safetensors file."""
    return save(_copies(tensors))


def pack_checkpoint(key: str, tensors: Mapping[str, Tensor], state: dict[str, Any]) -> bytes:
    """Tensors as safetensors, with `state` in the metadata and a seal over all: the format has none."""
    copies, note = _copies(tensors), text(state).decode()
    return save(copies, {"state": note, "seal": _tensor_seal(key, note, copies)})


def unpack(data: bytes) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU."""
    tensors: dict[str, Tensor] = load(data)
    return tensors


def unpack_checkpoint(key: str, data: bytes, path: Place) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of a checkpoint. path: what messages call it. Raises Damaged."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        note, seal = header["__metadata__"]["state"], header["__metadata__"]["seal"]
        tensors = unpack(data)
    except (SafetensorError, ValueError, LookupError, TypeError, AssertionError) as error:
        raise Damaged(path, "is not a checkpoint") from error
    if seal != _tensor_seal(key, note, tensors):
        raise Damaged(path, "does not match its seal")
    return tensors, json.loads(note)


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # The format takes neither channels-last strides nor two names for one storage.
    return {
        name: tensor.detach().cpu().clone(memory_format=contiguous_format)
        for name, tensor in tensors.items()
    }


def _tensor_seal(key: str, note: str, tensors: Mapping[str, Tensor]) -> str:
    seal = hashlib.sha256(f"{key}\n{len(note)}\n{note}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        seal.update(f"\n{len(name)} {name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        seal.update(tensor.reshape(-1).view(uint8).numpy().data)
    return seal.hexdigest()
