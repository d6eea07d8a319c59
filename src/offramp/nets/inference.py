"""Twins of modules that answer sooner, on the same tensors.

For a few images, much of a network's time is no arithmetic. A convolution of PyTorch brings its weights
into the layout of the processor's kernels at every call: half the time of a ResNet's last stage for four
images. And modules look up parts and parameters in Python: a sixth of MobileNetV2's time for one small
image. A twin packs its weights once, and finds the rest at once. PyTorch's products of matrices are
quick on Intel's processors; on others a twin has them from oneDNN, in less than half the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from offramp.device import multiplies_quickly, packs_weights

M = TypeVar("M", bound=nn.Module)
GEMM = 20480  # numbers of a single image up to which PyTorch multiplies matrices as they are
# Where matrices are not multiplied quickly: from so many multiplications, or weights, on oneDNN is
# quicker for such an image too; and from so many multiplications on for a linear layer.
WORK, WEIGHTS, LINEAR_WORK = 1_200_000, 131_072, 600_000


@final
class Packs:
    """Weights as oneDNN's kernels read them. They cannot be copied, so a copy of a twin packs anew."""

    def __init__(self) -> None:
        # by whether for a single image: the pack, the state of the weights that were packed, and these
        # weights, so that no others get their address
        self._packs: dict[bool, tuple[Tensor, tuple[int, int], Tensor]] = {}

    def __reduce__(self) -> tuple[type[Packs], tuple[()]]:
        return Packs, ()

    def read(self, alone: bool, weight: Tensor, pack: Callable[[Tensor], Tensor]) -> Tensor:
        """The pack of weights as they are now. alone: whether for a single image."""
        state = weight.data_ptr(), weight._version
        packed, packed_from, _ = self._packs.get(alone, (weight, None, weight))
        if packed_from != state:  # never seen, or the weights have changed
            values = weight.detach()
            packed = pack(values)
            self._packs[alone] = packed, state, values
        return packed


@final
class InferenceConv2d(nn.Conv2d):
    """The twin of a convolution: [B, C, H, W] → [B, C', H', W'], with its parameters and hooks."""

    packable: bool
    unpacked_numel: int  # numbers of a single image up to which the weights stay as they are
    # by whether they are for a single image: oneDNN may choose another layout for one, and changing it
    # at every call takes far longer
    packs: Packs

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert weight is not None
        alone = input.size(0) == 1
        small = alone and input.numel() <= self.unpacked_numel
        if small or not self.packable or not _fits(input, weight):
            return torch.conv2d(
                input, weight, bias, self.stride, self.padding, self.dilation, self.groups
            )
        where = self.padding, self.stride, self.dilation, self.groups
        shape = [1 if alone else 8, *input.shape[1:]]
        reorder = torch.ops.aten.mkldnn_reorder_conv2d_weight
        pack = self.packs.read(alone, weight, lambda values: reorder(values.to_mkldnn(), *where, shape))
        run = torch.ops.mkldnn._convolution_pointwise
        return run(input, pack, bias, *where, "none", [], "")  # type: ignore[no-any-return]


@final
class InferenceLinear(nn.Linear):
    """The twin of a linear layer where matrices are not multiplied quickly: [..., in] → [..., out]."""

    packed_numel: int  # numbers from which the weights are packed
    packs: Packs

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert weight is not None
        if input.numel() < self.packed_numel or not _onednn_takes(input, weight):
            return nn.functional.linear(input, weight, bias)
        reorder = torch.ops.mkldnn._reorder_linear_weight
        pack = self.packs.read(False, weight, lambda values: reorder(values, 8))
        return torch.ops.mkldnn._linear_pointwise(  # type: ignore[no-any-return]
            input, pack, bias, "none", [], ""
        )


def _fits(images: Tensor, weight: Tensor) -> bool:
    """Whether weights may be packed for images [B, C, H, W], and it pays: only in channels_last is that
    sure."""
    channels_last = images.dim() == 4 and images.stride(3) == images.size(1) > 1
    return channels_last and _onednn_takes(images, weight)


def _onednn_takes(input: Tensor, weight: Tensor) -> bool:
    """Whether its kernels are for such tensors."""
    return (
        input.dtype == weight.dtype == torch.float32
        and input.is_cpu
        and weight.is_cpu
        and not torch.is_autocast_enabled("cpu")
    )


@final
class InferenceBatchNorm2d(nn.BatchNorm2d):
    """The twin of a batch norm in eval mode: [B, C, H, W] → [B, C, H, W]."""

    def forward(self, input: Tensor) -> Tensor:
        own, running = self._parameters, self._buffers
        numbers = running["running_mean"], running["running_var"], own["weight"], own["bias"]
        return nn.functional.batch_norm(input, *numbers, eps=self.eps)


def for_inference(module: M) -> M:
    """A twin of a module that answers sooner, in eval mode and on the same tensors; the module itself
    where nothing has one. Weights may change, but not through `weight.data`; packed ones are in memory
    twice."""
    twin: M = _twin(module, {})
    return twin


def _twin(module: Any, twins: dict[nn.Module, Any]) -> Any:
    """The module itself where nothing in it has a twin. twins: of the parts so far, as one may be in
    several places."""
    if module not in twins:
        twins[module] = module
        if type(module) is nn.Conv2d and _plain(module):
            facts: dict[str, object] = {
                "packable": _packable(module),
                "unpacked_numel": _unpacked_numel(module),
                "packs": Packs(),
            }
            twins[module] = _with(module, InferenceConv2d, facts)
        elif (
            type(module) is nn.Linear
            and _plain(module)
            and _packable(module)
            and not multiplies_quickly()
        ):
            numel = LINEAR_WORK // module.out_features
            twins[module] = _with(module, InferenceLinear, {"packed_numel": numel, "packs": Packs()})
        elif type(module) is nn.BatchNorm2d and module.running_mean is not None:
            twins[module] = _with(module, InferenceBatchNorm2d, {})
        elif not isinstance(module, torch.jit.ScriptModule):
            parts = {n: None if m is None else _twin(m, twins) for n, m in module._modules.items()}
            if any(part is not module._modules[name] for name, part in parts.items()):
                # As attributes, parts are read without `nn.Module.__getattr__`, which takes longer.
                twins[module] = _with(module, type(module), {**parts, "_modules": parts})
    return twins[module]


def _with(module: nn.Module, kind: type[nn.Module], facts: dict[str, object]) -> nn.Module:
    """One of this kind that has what the module has, and `facts`."""
    twin: nn.Module = object.__new__(kind)
    twin.__dict__ = {**module.__dict__, **facts, "training": False}
    return twin


def _plain(layer: nn.Conv2d | nn.Linear) -> bool:
    """Whether it has weights that no hook computes, and pads with zeros."""
    weight = layer._parameters.get("weight")
    padding = getattr(layer, "padding_mode", "zeros")
    return weight is not None and weight.numel() > 0 and padding == "zeros"


def _packable(layer: nn.Conv2d | nn.Linear) -> bool:
    in_words = isinstance(layer, nn.Conv2d) and isinstance(layer.padding, str)
    # a tensor of inference mode does not tell when it changes
    return packs_weights() and not in_words and not layer.weight.is_inference()


def _unpacked_numel(conv: nn.Conv2d) -> int:
    """Numbers of a single image [1, C, H, W] up to which its weights stay as they are."""
    if conv.groups > 1:
        return 0
    if multiplies_quickly():
        return GEMM
    weights, (down, across) = conv.weight.numel(), conv.stride
    numbers = WORK * down * across * conv.in_channels // weights
    return min(GEMM, numbers) if weights <= WEIGHTS else 0
