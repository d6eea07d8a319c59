"""The sets of named tensors in a file of weights, whatever the form of the file."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from offramp.errors import OfframpError, in_line
from offramp.files import inside

PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".tar")
INDEX = ".index.json"
_DEEPEST = 3  # mappings in mappings that are looked into

TensorsByName = Mapping[str, Tensor]


class _Skipped:
    """Stands for a value beside the weights that nobody reads, so that its own code need not run."""

    def __init__(self, *_: Any) -> None: ...

    def __new__(cls, *_: Any) -> _Skipped:
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None: ...


_BESIDE: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Skipped, name)
    for name in (
        *(
            f"numpy.{core}.multiarray.{f}"
            for core in ("core", "_core")
            for f in ("scalar", "_reconstruct")
        ),
        "numpy.dtype",
        "numpy.ndarray",
        *(f"numpy.dtypes.{kind}DType" for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")),
        "argparse.Namespace",
        "pathlib.PosixPath",
        "pathlib._local.PosixPath",
        "pathlib.WindowsPath",
    )
]
"""What training scripts save beside the weights, by name: read as nothing."""


def read_file(path: Path) -> dict[str, TensorsByName]:
    """Every set of named tensors in a file, by its key there; of a file that is one set, by ``.

    path: `.safetensors`; `.pth`, `.pt`, `.bin`, `.ckpt` or `.pth.tar` that need no code of their own;
        or the `….index.json` of a checkpoint in several files, which lie beside it.

    Raises OfframpError for a file that cannot be read so, or holds no tensors.
    """
    if path.name.endswith(INDEX):
        return {
            "": {
                name: t
                for s in _shards(path)
                for one in read_file(s).values()
                for name, t in one.items()
            }
        }
    if path.suffix == ".safetensors":
        try:
            return {"": safetensors.torch.load_file(path)}
        except (SafetensorError, OSError) as error:
            raise OfframpError(f"{path} is no safetensors file ({error}); give another") from error
    if path.suffix not in PICKLED:
        raise OfframpError(
            f"{path} must end in one of .safetensors, {', '.join(PICKLED)}, {INDEX}; rename it"
        )
    value = _unpickled(path)
    found = dict(_sets(value, (), set()))
    if not found:
        kind = type(value).__name__
        raise OfframpError(
            f"{path} holds a {kind} without tensors; give a state_dict: names and tensors"
        )
    return found


def index_beside(path: Path) -> Path | None:
    """The index of the checkpoint that `path` is one of several files of, if it is."""
    stem = re.fullmatch(r"(.+)-\d+-of-\d+", path.stem)
    index = path.with_name(f"{stem[1]}{path.suffix}{INDEX}") if stem else None
    return index if index is not None and index.is_file() else None


def _shards(index: Path) -> Iterator[Path]:
    """The files that an index names, each once."""
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        names = list(dict.fromkeys(str(name) for name in listed))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise OfframpError(f"{index} is no index of weights ({error!r}); give another file") from error
    for name in names:
        try:
            inside(index.parent, name)
        except ValueError:
            raise OfframpError(f"{index} names {name}, which lies outside its folder") from None
        if not (index.parent / name).is_file() or name.endswith(INDEX):
            raise OfframpError(f"{index} names {name}, which is not beside it; fetch it too")
        yield index.parent / name


def _sets(value: Any, at: tuple[str, ...], seen: set[int]) -> Iterator[tuple[str, TensorsByName]]:
    """The mappings of names to tensors in `value`, whatever else stands beside the tensors."""
    if not isinstance(value, Mapping) or len(at) > _DEEPEST or id(value) in seen:
        return
    seen.add(id(value))
    own = {k: t for k, t in value.items() if isinstance(k, str) and isinstance(t, Tensor)}
    if own:
        yield ".".join(at), own
    for key, inner in value.items():
        if isinstance(key, str):
            yield from _sets(inner, (*at, key), seen)


def _unpickled(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_BESIDE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL (\S+)", str(error))
        what = f" ({name[1]})" if name else ""
        raise OfframpError(
            f"{path} holds more than tensors{what}, and running code from a file is refused; "
            "save its state_dict, best as .safetensors"
        ) from error
    except Exception as error:  # the unpickler raises whatever it likes on damaged bytes
        reason = in_line(error)
        raise OfframpError(f"{path} cannot be read as weights ({reason}); give another file") from error
