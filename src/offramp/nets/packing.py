"""Convolutions whose weights stay in the layout that the processor's kernels read.

A convolution of PyTorch brings its weights into that layout at every call. For a few images this takes
longer than the convolution itself: half the time of a ResNet's last stage for four. What answers images
runs a twin of the network that has done it once.
"""

from __future__ import annotations

import platform
from typing import Any, final

import torch
from torch import Tensor, nn

GEMM = 20480  # numbers of a single image up to which PyTorch multiplies matrices as they are


@final
class PackedConv2d(nn.Conv2d):
    """The twin of a convolution: [B, C, H, W] → [B, C', H', W'], with its parameters and hooks."""

    # by whether they are for a single image: the state of the weights that were packed, and the pack.
    # oneDNN may choose another layout for one image, and changing it at every call takes far longer.
    packs: dict[bool, tuple[tuple[int, int], Tensor]]

    @classmethod
    def of(cls, conv: nn.Conv2d) -> PackedConv2d:
        twin = cls.__new__(cls)
        twin.__dict__ = {**conv.__dict__, "packs": {}}
        return twin

    def forward(self, input: Tensor) -> Tensor:
        # For a single small image these lines take as long as the kernel: little is looked up.
        weight, bias, groups = self._parameters["weight"], self._parameters["bias"], self.groups
        assert weight is not None
        one = input.size(0) == 1
        small = one and groups == 1 and input.numel() <= GEMM
        if small or not _fits(input, weight):
            return torch.conv2d(input, weight, bias, self.stride, self.padding, self.dilation, groups)
        state = weight.data_ptr(), weight._version
        packed_from, pack = self.packs.get(one, (None, weight))
        where = self.padding, self.stride, self.dilation, groups
        if packed_from != state:  # never seen, or the weights have changed
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            pack = reorder(weight.detach().to_mkldnn(), *where, [1 if one else 8, *input.shape[1:]])
            self.packs[one] = state, pack
        run: Any = torch.ops.mkldnn._convolution_pointwise
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


def packed(module: nn.Module) -> nn.Module:
    """A twin of a module, in eval mode and for answers alone, on the same tensors: its convolutions keep
    their weights packed. Weights that change are packed anew, unless they change through `weight.data`.
    The module itself where it has no convolutions, and on processors but x86, which were not tried."""
    usable = torch.backends.mkldnn.enabled and platform.machine().lower() in ("x86_64", "amd64")
    return _twin(module, {}) if usable else module


def _twin(module: nn.Module, twins: dict[nn.Module, nn.Module]) -> nn.Module:
    """twins: of the parts so far, as one may be in several places."""
    if module not in twins:
        twins[module] = module
        if type(module) is nn.Conv2d and _packable(module):
            twins[module] = PackedConv2d.of(module)
        elif not isinstance(module, torch.jit.ScriptModule):
            parts = {n: None if m is None else _twin(m, twins) for n, m in module._modules.items()}
            if any(part is not module._modules[name] for name, part in parts.items()):
                twin: Any = module.__new__(type(module))
                twin.__dict__ = {**module.__dict__, "_modules": parts, "training": False}
                twins[module] = twin
    return twins[module]


def _packable(conv: nn.Conv2d) -> bool:
    weight = conv._parameters.get("weight")  # None where a hook computes it
    if weight is None or weight.is_inference():  # which does not tell when it changes
        return False
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
