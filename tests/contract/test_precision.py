"""What plain and derived execution owe each other holds in bfloat16 and in contiguous memory as well."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from contract_runs import contract_plan, run_derived, run_plain

from offramp.engine.images import Images
from offramp.engine.settings import FORMATS, applied, placed
from offramp.engine.values import IMAGES, Point, Tensors, compute, pad, route
from offramp.engine.weights import Weights
from offramp.numerics import PROFILES, MemoryFormat, Numerics, custom
from support import CPU, network, tiny_data

BF16 = replace(PROFILES["cpu-bf16"], threads=1)
CONTIGUOUS = custom("cpu", threads=1, memory_format="contiguous")
OTHERS = pytest.mark.parametrize("numerics", [BF16, CONTIGUOUS], ids=["bfloat16", "contiguous"])
FROZEN = ("baseline", "distillation", "branch-wise")


@OTHERS
def test_plain_and_derived_give_the_same_bits_and_others_than_usual(numerics: Numerics) -> None:
    plain, derived = (
        contract_plan("digits-cnn", mode, FROZEN, numerics) for mode in ("plain", "derived")
    )
    mine, theirs = run_plain(plain), run_derived(derived)
    assert mine.keys() == theirs.keys()
    for label, record in mine.items():
        assert record.weights == theirs[label].weights, label
        assert np.array_equal(record.logits, theirs[label].logits), label
        assert record.logits.dtype == np.float32
    usual = run_plain(contract_plan("digits-cnn", "plain", ("baseline",)))
    assert usual["baseline"].weights != mine["baseline"].weights
    assert not set(plain.nodes) & set(contract_plan("digits-cnn", "plain").nodes)


@pytest.mark.long
@OTHERS
def test_so_they_do_on_a_network_of_depthwise_convolutions(numerics: Numerics) -> None:
    plain, derived = (
        contract_plan("mobilenetv2", mode, FROZEN, numerics) for mode in ("plain", "derived")
    )
    mine, theirs = run_plain(plain), run_derived(derived)
    assert all(mine[label].weights == theirs[label].weights for label in FROZEN)


@pytest.mark.parametrize("name", ["cpu", "cpu-bf16"])
def test_what_is_computed_in_which_precision(name: str) -> None:
    """Values between layers are in the profile's precision; weights, statistics and logits never."""
    net = copy.deepcopy(network("digits-cnn"))
    placed(net, CPU)
    values: dict[Point, Tensors] = {IMAGES: (torch.randn(4, *net.input_shape),)}
    with applied(PROFILES[name]):
        for point in (p for k in range(1, net.exits + 1) for p in route(k)):
            compute(net, values, point)
    taps = {values[p][0].dtype for p in values if p.kind == "tap" and p != IMAGES}
    assert taps == {torch.bfloat16 if name == "cpu-bf16" else torch.float32}
    assert {values[p][0].dtype for p in values if p.kind == "logits"} == {torch.float32}
    floating = {t.dtype for t in net.state_dict().values() if t.is_floating_point()}
    assert floating == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")  # it is undone


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
def test_images_weights_and_values_are_laid_out_as_asked(layout: MemoryFormat) -> None:
    expected = FORMATS[layout]
    images = Images(tiny_data((3, 8, 8)), CPU, memory_format=layout).read("train", torch.arange(4))
    assert images.is_contiguous(memory_format=expected)
    (padded,) = pad(images, 8)
    assert padded.is_contiguous(memory_format=expected)
    plan = contract_plan("digits-cnn", "plain", ("baseline",))
    (node,) = plan.trials[0].resolved.nodes
    net = Weights(plan.net, 42, {}.__getitem__, CPU, layout).network(node.start)
    kernels = [w for w in net.parameters() if w.dim() == 4 and w.shape[1] > 1]  # else it is in both
    assert kernels and all(w.is_contiguous(memory_format=expected) for w in kernels)
