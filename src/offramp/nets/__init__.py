"""Early-exit networks: backbones, where to cut them, heads, and the network they make."""

from __future__ import annotations

# Of PyTorch's names with an underscore these are read, as no public one does the same. A test holds the
# list (tests/test_architecture.py), so that a new version of PyTorch is checked against it alone:
# - `nn.Module._modules`, `_parameters`, `_buffers`, `_non_persistent_buffers_set`, `_version`,
#   `_load_from_state_dict`: the network shows the backbone's own tables, and loads by its rules.
# - `Tensor._version`: whether an operation has written on a tensor.
# - `torch.utils._python_dispatch.TorchDispatchMode`, `_should_skip_dynamo`: to count the MACs.
# - `_scaled_dot_product_flash_attention_for_cpu`: the same of that operation, in versions that have it.
# - `mkldnn::_convolution_pointwise`, `_linear_pointwise`, `_reorder_linear_weight`: layers on packed
#   weights, where this version has them.
# - `_orig_mod`, `_flat_weights`, `_flat_weight_refs`: names of attributes to refuse or to leave out.
from offramp.nets.backbones import BACKBONES
from offramp.nets.backbones.lookup import NetSpec
from offramp.nets.builder import attach, build, list_places
from offramp.nets.heads import HeadSpec
from offramp.nets.network import ExitNetwork

__all__ = ["BACKBONES", "ExitNetwork", "HeadSpec", "NetSpec", "attach", "build", "list_places"]
