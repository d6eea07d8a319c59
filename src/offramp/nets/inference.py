"""Twins of modules that answer sooner, on the same tensors.

For a few images, much of a network's time is no arithmetic. A convolution of PyTorch brings its weights
into the layout of the processor's kernels at every call: half the time of a ResNet's last stage for four
images. And modules look up parts and parameters in Python: a sixth of MobileNetV2's time for one small
image. A twin packs its weights once, and finds the rest at once.
"""

from __future__ import annotations

from typing import Any, TypeVar, final

import torch
from torch import Tensor, nn

from offramp.device import packs_weights

M = TypeVar("M", bound=nn.Module)
GEMM = 20480  # numbers of a single image up to which PyTorch multiplies matrices as they are


@final
class InferenceConv2d(nn.Conv2d):
    """The twin of a convolution: [B, C, H, W] → [B, C', H', W'], with its parameters and hooks."""

    packable: bool
    # by whether they are for a single image: the pack, the state of the weights that were packed, and
    # these weights, so that no others get their address. oneDNN may choose another layout for one image,
    # and changing it at every call takes far longer.
    packs: dict[bool, tuple[Tensor, tuple[int, int], Tensor]]

    def forward(self, input: Tensor) -> Tensor:
        weight, bias, groups = self._parameters["weight"], self._parameters["bias"], self.groups
        assert weight is not None
        alone = input.size(0) == 1
        small = alone and groups == 1 and input.numel() <= GEMM
        if small or not self.packable or not _fits(input, weight):
            return torch.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, groups)
        state = weight.data_ptr(), weight._version
        pack, packed_from, _ = self.packs.get(alone, (weight, None, weight))
        where = self.padding, self.stride, self.dilation, groups
        if packed_from != state:  # never seen, or the weights have changed
            reorder = torch.ops.aten.mkldnn_reorder_conv2d_weight
            values = weight.detach()
            pack = reorder(values.to_mkldnn(), *where, [1 if alone else 8, *input.shape[1:]])
            self.packs[alone] = pack, state, values
        run = torch.ops.mkldnn._convolution_pointwise
        return run(input, pack, bias, *where, "none", [], "")  # type: ignore[no-any-return]


def _fits(images: Tensor, weight: Tensor) -> bool:
    """Whether weights may be packed for images [B, C, H, W], and it pays: only in channels_last is that
    sure."""
    return (
        images.dim() == 4
        and images.stride(3) == images.size(1) > 1
        and images.dtype == weight.dtype == torch.float32
        and images.is_cpu
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
    """A twin of a module that answers sooner, in eval mode and on the same tensors.

    Args:
        module: Stays as it is. A part that computes in a way of its own is in the twin as it is.

    Returns:
        The twin; the module itself where nothing in it has one. It sees weights that change, unless they
        change through `weight.data`. Where weights are packed, they are in memory twice.
    """
    twin: M = _twin(module, {})
    return twin


def _twin(module: Any, twins: dict[nn.Module, Any]) -> Any:
    """The module itself where nothing in it has a twin. twins: of the parts so far, as one may be in
    several places."""
    if module not in twins:
        twins[module] = module
        if type(module) is nn.Conv2d and _plain(module):
            twins[module] = _with(module, InferenceConv2d, {"packable": _packable(module), "packs": {}})
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


def _plain(conv: nn.Conv2d) -> bool:
    """Whether no hook computes its weight, and it pads with zeros."""
    return conv._parameters.get("weight") is not None and conv.padding_mode == "zeros"


def _packable(conv: nn.Conv2d) -> bool:
    # a tensor of inference mode does not tell when it changes
    return packs_weights() and not isinstance(conv.padding, str) and not conv.weight.is_inference()
