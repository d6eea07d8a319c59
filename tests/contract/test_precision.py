"""What plain and derived execution owe each other holds in bfloat16 as well."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from contract_runs import contract_plan, run_derived, run_plain

from offramp.engine.settings import applied, placed
from offramp.engine.values import IMAGES, Point, Tensors, compute, route
from offramp.numerics import PROFILES
from support import CPU, network

BF16 = replace(PROFILES["cpu-bf16"], threads=1)
FROZEN = ("baseline", "two-stage", "distillation", "branch-wise")


def test_plain_and_derived_give_the_same_bits_in_bfloat16_and_others_than_in_float32() -> None:
    plain, derived = (contract_plan("digits-cnn", mode, (), BF16) for mode in ("plain", "derived"))
    mine, theirs = run_plain(plain), run_derived(derived)
    assert mine.keys() == theirs.keys()
    for label, record in mine.items():
        assert record.weights == theirs[label].weights, label
        assert np.array_equal(record.logits, theirs[label].logits), label
        assert record.logits.dtype == np.float32
    usual = run_plain(contract_plan("digits-cnn", "plain", ("baseline",)))
    assert usual["baseline"].weights != mine["baseline"].weights
    assert not set(plain.nodes) & set(contract_plan("digits-cnn", "plain").nodes)


def test_so_they_do_on_a_network_of_depthwise_convolutions() -> None:
    plain, derived = (contract_plan("mobilenetv2", mode, FROZEN, BF16) for mode in ("plain", "derived"))
    mine, theirs = run_plain(plain), run_derived(derived)
    assert all(mine[label].weights == theirs[label].weights for label in FROZEN)


@pytest.mark.parametrize("name", ["cpu", "cpu-bf16"])
def test_what_is_computed_in_which_precision(name: str) -> None:
    """Values between layers are in the profile's precision; weights, statistics and logits never."""
    net = network("digits-cnn").copy()
    placed(net, CPU)
    known: dict[Point, Tensors] = {IMAGES: (torch.randn(4, *net.input_shape),)}
    with applied(PROFILES[name]):
        for point in (p for k in range(1, net.exits + 1) for p in route(k)):
            compute(net, known, point)
    taps = {known[p][0].dtype for p in known if p.kind == "tap" and p != IMAGES}
    assert taps == {torch.bfloat16 if name == "cpu-bf16" else torch.float32}
    assert {known[p][0].dtype for p in known if p.kind == "logits"} == {torch.float32}
    floating = {t.dtype for t in net.state_dict().values() if t.is_floating_point()}
    assert floating == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")  # it is undone
