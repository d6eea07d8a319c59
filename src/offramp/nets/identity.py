"""What a module is, as text for keys: its weights, whatever else it keeps, the code it runs."""

from __future__ import annotations

import contextlib
import copyreg
import hashlib
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any

import torch
from torch import Tensor, nn

from offramp.errors import OfframpError, in_line
from offramp.hashing import digest

# The mode, the hooks, the tables of weights; and what recurrent layers keep of their weights.
_BOOKKEEPING = frozenset(vars(nn.Module())) | {"_flat_weights", "_flat_weight_refs"}
# Code from here is known by its name: a new version of a library changes no key.
_FOLDERS = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib", "purelib", "platlib")]


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


def settings(module: nn.Module, names: Iterable[str], run: Iterable[str] | None = None) -> str:
    """Class and attributes of submodules, as text.

    A module's repr leaves out what its author left out, such as how a pooling counts its padding. names:
    of each its numbers, words, tuples and lists of them; run: of those that run, None for all: of these
    whatever else they keep, too, as digests.

    Raises:
        OfframpError: For an attribute that cannot be told from another one.
    """
    names = sorted(names)
    rows, others = [], []
    digests = _Digests(module, names if run is None else run)
    for name in names:
        part = module.get_submodule(name)
        attributes = _attributes(part)
        plain = {k: v for k, v in attributes.items() if _is_plain(v)}
        rows.append(f"{name}: {type(part).__qualname__} {sorted(plain.items())!r}")
        if name in digests.names:  # plain values are in keys of old work, digests came later
            if plain.get("activation_relu_or_gelu"):  # by which torch's transformer layers go
                attributes.pop("activation", None)
            for k in sorted(attributes.keys() - plain.keys()):
                others.append(f"{name}.{k}: {digests.of(attributes[k], f'{name}.{k}')}")
    return "\n".join((*rows, *others))


def _attributes(module: nn.Module) -> dict[str, Any]:
    """What a user's code has put on a module, but for parts and weights."""
    return {k: v for k, v in vars(module).items() if k not in _BOOKKEEPING}


def attributes_digest(module: nn.Module) -> str:
    """SHA-256 of the numbers, words and tensors that its submodules keep as plain attributes."""
    parts = dict(module.named_modules())
    tensors = {
        f"{path}.{name}": value
        for path, part in parts.items()
        for name, value in vars(part).items()
        if isinstance(value, Tensor)
    }
    return digest([settings(module, parts, run=()), tensors_digest(tensors)])


def functions(called: Iterable[Any]) -> list[str]:
    """Names and digests of the functions that a graph calls, but for those of libraries."""
    own = {f.__qualname__: f for f in called if isinstance(f, FunctionType) and not _installed(f)}
    digests = _Digests(nn.Module(), ())
    return [f"{name}: {digests.of(own[name], name)}" for name in sorted(own)]


def sources(module: nn.Module) -> list[str]:
    """The code of a module that cannot be traced: the text of its own classes, and digests of the
    functions and values that their methods read."""
    classes = {type(m) for m in module.modules() if not type(m).__module__.startswith("torch.")}
    classes |= {base for cls in classes for base in cls.__mro__ if not _installed(base)}
    texts, read = [], list[str]()
    digests = _Digests(module, ())
    for cls in sorted(classes, key=lambda cls: f"{cls.__module__}.{cls.__qualname__}"):
        texts.append(_text(cls) or digests.of(cls, cls.__qualname__))
        if _installed(cls):
            continue
        for name, method in vars(cls).items():
            if not isinstance(method, FunctionType) or name == "__init__":  # which ran already
                continue
            for reached, value in _reached(method).items():
                if not _is_in_text(reached.rpartition(".")[2], value):
                    where = f"{reached} of {method.__qualname__}"
                    read.append(f"{where}: {digests.of(value, where)}")
    return [*texts, *sorted(read)]


def _text(cls: type) -> str:
    """Of a class; empty where it was typed at a prompt."""
    try:
        text = inspect.getsource(cls)
    except (OSError, TypeError):
        return ""
    # Python 3.13 takes the lines of these numbers in the file of its module, whatever they hold.
    return text if re.search(rf"^\s*class {cls.__name__}\b", text, re.MULTILINE) else ""


class _Digests:
    """Digests of values by what they are made of, as pickling takes them apart: equal ones have equal
    digests, in every process. Of functions and classes it is their bytecode, with what it reads; those
    of libraries go by their names, and so do the parts and weights of `module` at and below `names`."""

    def __init__(self, module: nn.Module, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._by_name: dict[int, str] = {}
        for name in sorted(self.names):
            part = module.get_submodule(name)
            self._by_name[id(part)] = f"module {name}"
            tensors = (*part.named_parameters(name), *part.named_buffers(name))
            self._by_name |= {id(tensor): f"weights {path}" for path, tensor in tensors}
        self._open: dict[int, str] = {}  # what is being taken apart, which may hold itself
        self._done: dict[int, tuple[Any, str]] = {}  # the values too, so that no id is given anew

    def of(self, value: Any, where: str) -> str:
        """where: names the value in errors. Raises OfframpError where it cannot be taken apart."""
        try:
            return self._of(value)
        except Exception as error:  # whatever code of the value's raises
            raise OfframpError(
                f"module: {where} holds what cannot be told from another ({in_line(error)}), and a "
                "store tells networks apart by it; keep numbers, words, tensors, functions or plain "
                "objects there, or take it off"
            ) from error

    def _of(self, value: Any) -> str:
        if type(value) in (type(None), bool, int, float, complex, str, type(...), type(NotImplemented)):
            return f"{type(value).__name__} {value!r}"
        text = self._by_name.get(id(value)) or self._open.get(id(value))
        if text is None and id(value) in self._done:
            text = self._done[id(value)][1]
        if text is None:
            self._open[id(value)] = f"the one {len(self._open)} above"  # these words are in keys
            text = digest([type(value).__qualname__, *self._parts(value)])
            del self._open[id(value)]
            self._done[id(value)] = value, text
        return text

    def _parts(self, value: Any) -> list[str]:
        if isinstance(value, Tensor):
            return [tensors_digest({"": value})]
        if isinstance(value, bytes):
            return [hashlib.sha256(value).hexdigest()]
        if isinstance(value, ModuleType):  # what is read of it counts with the function that reads it
            return [value.__name__]
        if isinstance(value, (FunctionType, type)) and _installed(value):
            return [f"{value.__module__}.{value.__qualname__}"]
        if isinstance(value, FunctionType):
            reads = [value.__code__, value.__defaults__, value.__kwdefaults__, _reached(value)]
            return list(map(self._of, reads))
        if isinstance(value, CodeType):
            names = (value.co_names, value.co_varnames, value.co_freevars, value.co_argcount)
            return [self._of(value.co_code), self._of(value.co_consts), *map(self._of, names)]
        if isinstance(value, type):
            own = {k: v for k, v in vars(value).items() if not _is_machinery(k, v)}
            return [value.__qualname__, *map(self._of, (*value.__bases__, own))]
        if isinstance(value, (staticmethod, classmethod)):
            return [self._of(value.__func__)]
        if isinstance(value, property):
            return list(map(self._of, (value.fget, value.fset)))
        if isinstance(value, MethodType):
            return list(map(self._of, (value.__func__, value.__self__)))
        if isinstance(value, nn.Module):
            tables = value._parameters, value._buffers, value._modules
            parts = (type(value), _attributes(value), *({**table} for table in tables))
            return list(map(self._of, parts))
        if type(value) in (list, tuple):
            return list(map(self._of, value))
        if type(value) is dict:
            return [self._of(item) for pair in value.items() for item in pair]
        if type(value) in (set, frozenset):
            return sorted(map(self._of, value))
        reduce = copyreg.dispatch_table.get(type(value))
        reduced = reduce(value) if reduce else value.__reduce_ex__(4)
        if isinstance(reduced, str):
            return [f"{getattr(value, '__module__', '')}.{reduced}"]
        pieces = [list(piece) if isinstance(piece, Iterator) else piece for piece in reduced]
        return [self._of(type(value)), *map(self._of, pieces)]


def _reached(function: FunctionType) -> dict[str, Any]:
    """What a function reads beside its arguments: of the functions around it, and of its module."""
    names, waiting = dict[str, None](), [function.__code__]
    while waiting:
        code = waiting.pop()
        names |= dict.fromkeys(code.co_names)
        waiting += [const for const in code.co_consts if isinstance(const, CodeType)]
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    values = {}
    for name, cell in cells:
        with contextlib.suppress(ValueError):  # a name that is set later
            values[name] = cell.cell_contents
    values.pop("__class__", None)
    spaces = [("", function.__globals__)]
    for prefix, space in spaces:
        for name in names:
            if name in space and not name.startswith("__"):
                values[prefix + name] = value = space[name]
                own = isinstance(value, ModuleType) and not _installed(value)
                if own and all(vars(value) is not other for _, other in spaces):
                    spaces.append((f"{prefix}{name}.", vars(value)))
    return values


def _is_machinery(name: str, value: Any) -> bool:
    """Whether Python puts it into every class."""
    named = name.startswith("__") and name.endswith("__") and not isinstance(value, FunctionType)
    return named or name == "_abc_impl" or isinstance(value, MemberDescriptorType)


def _installed(value: Any) -> bool:
    """Whether it is a module, or a function or class of one, that is Python's, torch's or installed: its
    name says what it is."""
    name = value.__name__ if isinstance(value, ModuleType) else value.__module__
    if not isinstance(name, str) or name.partition(".")[0] in ("torch", "offramp"):
        return name is not None
    if name == "__main__" or (name == "builtins" and isinstance(value, FunctionType)):
        return False  # also of `python -m` and of `exec`
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return name in sys.builtin_module_names
    return any(folder in Path(file).parents for folder in _FOLDERS)


def _is_in_text(name: str, value: Any) -> bool:
    """Whether the text of a class says what `name` stands for in it: it is of a library, or a module
    whose class is among the texts itself."""
    if isinstance(value, ModuleType):
        return _installed(value)
    if isinstance(value, type) and issubclass(value, nn.Module):
        return True
    of_library = isinstance(value, (type, FunctionType)) and _installed(value)
    return (of_library or isinstance(value, BuiltinFunctionType)) and value.__name__ == name


def _is_plain(value: Any, deepest: int = 20) -> bool:
    if isinstance(value, (tuple, list)):  # which may hold itself
        return deepest > 0 and all(_is_plain(item, deepest - 1) for item in value)
    return value is None or isinstance(value, (bool, int, float, str))
