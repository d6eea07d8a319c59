"""ONNX graphs of stages whose layers were exported before in this run: most tests of bundles export the
same few, with other weights, and PyTorch's exporter takes a second for each."""

import functools
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from offramp.errors import OfframpError
from offramp.nets.identity import settings, sources

EXPORT = torch.onnx.export


@pytest.fixture(scope="session", autouse=True)
def remembered_graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The same layers, inputs and options are translated once, by whichever process. Weights are put
    in, and the graph is simplified for them, at each export."""
    base = tmp_path_factory.getbasetemp()
    remembered = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "remembered graphs"

    def once(module: nn.Module, inputs: tuple[Tensor, ...], **how: Any) -> torch.onnx.ONNXProgram:
        import onnx_ir

        state = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
        }
        try:
            file = remembered / f"{_identity(module, state, inputs, how)}.onnx"
        except (OfframpError, RuntimeError):  # it keeps what nobody can tell from another
            return EXPORT(module, inputs, **how)
        if not file.exists():
            _table_of_operators_is_made_once()
            program = EXPORT(module, inputs, optimize=False, **how)
            assert program is not None
            remembered.mkdir(exist_ok=True)
            new = file.with_suffix(f".{os.getpid()}")
            program.save(new)
            new.replace(file)
        model = onnx_ir.load(file)
        for name, value in model.graph.initializers.items():
            if name in state:
                value.const_value = onnx_ir.tensor(state[name].detach().contiguous().numpy(), name=name)
        program = torch.onnx.ONNXProgram(model, None)
        program.optimize()
        return program

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", once)
        yield


def _identity(
    module: nn.Module, state: dict[str, Tensor], inputs: tuple[Tensor, ...], how: dict[str, Any]
) -> str:
    """What a graph depends on, but for the weights' values: which of them are one tensor, too."""
    names = [name for name, _ in module.named_modules()]
    first: dict[int, str] = {}
    weights = [
        (name, t.shape, t.dtype, first.setdefault(t.data_ptr(), name)) for name, t in state.items()
    ]
    shapes = [(t.shape, t.dtype) for t in inputs]
    modes = [part.training for part in module.modules()]
    about = settings(module, names), sources(module), modes, weights, shapes, how
    return hashlib.sha256(repr(about).encode()).hexdigest()


@functools.cache
def _table_of_operators_is_made_once() -> None:
    """Of each export it is a third of the time, and the same each time; so is looking up all operators,
    dozens of times."""
    from torch._export import utils
    from torch.onnx._internal.exporter import _registration

    make = functools.cache(_registration.ONNXRegistry.from_torchlib)
    _registration.ONNXRegistry.from_torchlib = staticmethod(make)  # type: ignore[assignment]
    utils._materialize_cpp_cia_ops = functools.cache(utils._materialize_cpp_cia_ops)
