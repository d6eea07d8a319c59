"""MACs of a computation are those that torch's own counter finds."""

from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from offramp.nets.cut.observe import count_macs

X = torch.randn(2, 3, 32, 32)


def attention(query: torch.Size, key: torch.Size, value: torch.Size, *_: object, **__: object) -> int:
    return int(sdpa_flop_count(query, key, value))


FUSED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}


class Products(nn.Module):
    """Products of every kind, and convolutions in groups, with holes, and transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 6, 3, groups=3, dilation=2)
        self.back = nn.ConvTranspose2d(6, 4, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.back(self.grouped(x)).flatten(2)
        return torch.einsum("bij,bkj->bik", maps, maps) @ maps.mean(2, keepdim=True)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        Products,
        lambda: timm.create_model("test_vit", img_size=32),
        lambda: timm.create_model("mobilenetv3_small_050"),
        lambda: timm.create_model("test_convnext"),
    ],
)
def test_counted_as_torch_counts(make: Callable[[], nn.Module], train: bool) -> None:
    net = make().train(train)
    answer, macs = count_macs(lambda: net(X))
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        net(X)
    assert macs == counter.get_total_flops() // 2 > 0
    assert not answer.requires_grad


def test_by_hand() -> None:
    assert count_macs(lambda: nn.functional.relu(X) + 1)[1] == 0
    assert count_macs(lambda: nn.Linear(5, 7)(torch.ones(3, 5)))[1] == 3 * 5 * 7
    assert count_macs(lambda: nn.Conv2d(3, 4, 3, padding=1)(X))[1] == 2 * 32 * 32 * 3 * 4 * 9


@pytest.mark.parametrize("layer", [nn.RNN(5, 7), nn.GRU(5, 7), nn.LSTM(5, 7, 2, bidirectional=True)])
def test_each_weight_of_a_recurrent_layer_counts_once_a_step(layer: nn.RNNBase) -> None:
    matrices = sum(weight.numel() for weight in layer.parameters() if weight.ndim == 2)
    assert count_macs(lambda: layer(torch.ones(4, 3, 5)))[1] == 4 * 3 * matrices


def test_so_does_each_of_what_runs_in_one_piece_on_a_gpu() -> None:
    weights = [torch.empty(shape, device="meta") for shape in ((28, 5), (28, 7), (28,), (28,))]
    x, state = torch.empty(4, 3, 5, device="meta"), torch.empty(1, 3, 7, device="meta")
    settings = (2, 7, 0, 1, False, 0.0, False, False, [], None)
    run = torch.ops.aten._cudnn_rnn
    assert count_macs(lambda: run(x, weights, 4, None, state, state, *settings))[1] == 4 * 3 * 28 * 12


def test_the_products_of_torchs_own_attention_are_counted() -> None:
    layer = nn.MultiheadAttention(64, 4, batch_first=True).eval()
    x = torch.randn(1, 32, 64)
    _, macs = count_macs(lambda: layer(x, x, x, need_weights=False))
    assert macs == 32 * 64 * 64 * 4 + 2 * 32 * 32 * 64  # four projections; scores, and what they weigh
    assert torch.backends.mha.get_fastpath_enabled()  # as it was
