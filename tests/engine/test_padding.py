"""Rows of a frozen batch do not depend on where they stand in it, nor on what fills it up.

On this the equality of plain and derived execution rests: a cached value was computed in the split's
order, a live one in the epoch's, and the last batch is filled up with copies of its first row. What
holds on every CPU tried is that rows of one batch size agree, for 16, 64 and 128 alike. Rows of
batches of 1, 2 or 7 often differ in their last bits from those of larger ones, which is why frozen
parts run on full batches; whether two large sizes agree is nothing that the engine relies on.
"""

import copy

import pytest
import torch
from torch import Tensor

from longer import long
from offramp.engine.settings import applied, placed
from offramp.engine.values import IMAGES, Point, Tensors, compute, join, pad, route
from offramp.nets import ExitNetwork
from offramp.nets.backbones import BACKBONES
from offramp.numerics import Numerics, profile
from support import CPU, NUMERICS, backbones, network

ROWS = 70  # full batches and a ragged one


@torch.no_grad()
def values(net: ExitNetwork, images: Tensor, batch: int) -> dict[Point, Tensor]:
    """Everything the network computes of `images`, in padded batches."""
    points = [p for k in range(1, net.exits + 1) for p in (*route(k), Point("features", k))]
    pieces: list[dict[Point, Tensors]] = [{IMAGES: (piece,)} for piece in pad(images, batch)]
    for piece in pieces:
        for point in points:
            compute(net, piece, point)
    joined = {p: join(net, p, [piece[p] for piece in pieces], len(images)) for p in points}
    return {p: value[-1 if p.kind == "features" else 0] for p, value in joined.items()}


def check(backbone: str, batch: int, numerics: Numerics) -> None:
    net = copy.deepcopy(network(backbone)).eval()
    placed(net, CPU)
    generator = torch.Generator().manual_seed(batch)
    images = torch.randn(ROWS, *net.input_shape, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    shuffle = torch.randperm(ROWS, generator=generator)[:23]  # as a short last batch
    with applied(numerics):
        everything = values(net, images, batch)
        some = values(net, images[shuffle], batch)
    for point, value in everything.items():
        assert torch.equal(value[shuffle], some[point]), point


@pytest.mark.parametrize("batch", [16, 64])
@pytest.mark.parametrize("backbone", backbones(BACKBONES, more=["airbench"]))
def test_rows_of_full_batches_are_the_same_wherever_they_stand(backbone: str, batch: int) -> None:
    check(backbone, batch, NUMERICS)


@pytest.mark.parametrize(
    ("backbone", "batch"),
    [("resnet18", 64), *long(("resnet18", 128), ("mobilenetv2", 64), ("mobilenetv2", 128))],
)
def test_so_they_are_on_the_two_threads_of_the_shipped_profile(backbone: str, batch: int) -> None:
    shipped = profile("default", "cpu")
    assert shipped.threads == 2
    check(backbone, batch, shipped)


def test_padding_fills_the_last_piece_and_is_cut_off_again() -> None:
    rows = torch.arange(2 * 70).view(70, 2)
    pieces = pad(rows, 64)
    assert [len(p) for p in pieces] == [64, 64]
    assert torch.equal(pieces[1][:6], rows[64:]) and (pieces[1][6:] == rows[64]).all()
    (back,) = join(network("digits-cnn"), IMAGES, [(p,) for p in pieces], 70)
    assert torch.equal(back, rows)


def test_full_pieces_are_not_copied() -> None:
    rows = torch.arange(128)
    assert [p.data_ptr() for p in pad(rows, 64)] == [rows.data_ptr(), rows[64:].data_ptr()]


def test_padded_images_keep_their_memory_format() -> None:
    images = torch.randn(3, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    (piece,) = pad(images, 8)
    assert piece.shape[0] == 8 and piece.is_contiguous(memory_format=torch.channels_last)
