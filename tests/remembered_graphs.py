"""ONNX graphs of stages that were exported before in this run: most tests of bundles export the same
few, and PyTorch's exporter takes seconds for each."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from offramp.bundle import graphs
from offramp.nets.identity import settings, sources


@pytest.fixture(scope="session", autouse=True)
def remembered_graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A graph is exported once for the same weights, layers, inputs and exit, by whichever process."""
    write, base = graphs._write, tmp_path_factory.getbasetemp()
    remembered = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "remembered graphs"

    def once(
        module: torch.nn.Module, given: tuple[torch.Tensor, ...], carried: int, path: Path, exit: int
    ) -> None:
        names = [name for name, _ in module.named_modules()]
        about = (settings(module, names), sources(module), [t.shape for t in given], carried, exit)
        told = hashlib.sha256(repr(about).encode())
        for name, tensor in module.state_dict().items():
            told.update(name.encode() + tensor.contiguous().numpy().tobytes())
        kept = remembered / told.hexdigest()
        path.parent.mkdir(parents=True, exist_ok=True)
        if kept.exists():
            shutil.copyfile(kept, path)
            return
        _table_of_operators_is_made_once()
        write(module, given, carried, path, exit)
        if len(list(path.parent.glob(f"{path.name}*"))) == 1:  # its weights are inside
            remembered.mkdir(exist_ok=True)
            new = kept.with_name(f"{kept.name}.{os.getpid()}")
            shutil.copyfile(path, new)
            new.replace(kept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "_write", once)
        yield


@functools.cache
def _table_of_operators_is_made_once() -> None:
    """Of each export it is a third of the time, and the same each time; so is looking up all operators,
    dozens of times."""
    from torch._export import utils
    from torch.onnx._internal.exporter import _registration

    make = functools.cache(_registration.ONNXRegistry.from_torchlib)
    _registration.ONNXRegistry.from_torchlib = staticmethod(make)  # type: ignore[assignment]
    utils._materialize_cpp_cia_ops = functools.cache(utils._materialize_cpp_cia_ops)
