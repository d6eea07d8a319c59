"""Networks cut by lists of submodules, some of which write on their input."""

import numpy as np
import pytest
import torch
from network_kit import images
from torch import nn

from offramp.nets import attach
from offramp.nets.network import inside
from support import run_all, tiny_data, tiny_plan, tiny_study

CLASSES = 3


class InPlace(nn.Module):
    """Its activations overwrite what the convolutions before them gave."""

    def __init__(self):
        super().__init__()
        self.relu0 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.relu2 = nn.ReLU(inplace=True)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x):
        if x.sum() < -1e9:  # a choice that depends on the data
            return x
        x = self.relu1(self.conv1(self.relu0(x)))
        return self.fc(self.pool(self.relu2(self.conv2(x))))


TAPS = [["relu0", "conv1"], ["relu1", "conv2"], ["relu2", "pool", "fc"]]


@pytest.fixture
def net():
    torch.manual_seed(3)
    return attach(InPlace(), TAPS, (1, 8, 8), head="paper")


def test_what_a_head_reads_is_not_overwritten(net):
    x = images(net)
    images_before = x.clone()
    (tap,) = inside(net).segment(1)(x)
    first = tap.clone()
    assert (first < 0).any()  # or the activation would change nothing
    (second,) = inside(net).segment(2)(tap)
    second_before = second.clone()
    inside(net).head_body(2)(second)
    assert torch.equal(x, images_before)
    assert torch.equal(tap, first)
    assert torch.equal(second, second_before)
    module = net.backbone
    assert torch.equal(net(x)[1], module(x.clone()))
    sum(z.sum() for z in net(x)).backward()  # which fails where what it needs has been written on


def test_a_listed_submodule_may_set_a_buffer():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x):
            self.count = self.count + 1
            return x * self.count if x.sum() > -1e9 else x

    module = nn.Sequential(Counting(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 5)).eval()
    net = attach(module, [["0", "1"], ["2", "3"]], (3, 8, 8), head="linear").eval()
    assert net.state_dict()["0.count"] == 0
    x = torch.ones(2, 3, 8, 8)
    for count in (1, 2):
        assert torch.allclose(net(x)[-1], module(x))
        assert net.state_dict()["0.count"] == count


def test_plain_and_derived_runs_agree_on_it(net, tmp_path):
    logits = {}
    for mode in ("plain", "derived"):
        study = tiny_study(["two-stage", "joint"], execution={"mode": mode})
        plan = tiny_plan(study, tiny_data(), net)
        store, _ = run_all(plan, tmp_path / mode)
        logits[mode] = [store.trial_logits(t.id)["test"] for t in plan.trials]
    assert all(map(np.array_equal, logits["plain"], logits["derived"]))
