"""Every place an exit can go, what it costs, and where the classifier begins."""

import copy
from collections import OrderedDict

import pytest
import timm
import torch
import torchvision
from network_kit import places
from partition_cases import vit
from syrupy.assertion import SnapshotAssertion
from torch import nn

from offramp.nets import attach
from offramp.nets.cut.observe import count_macs
from offramp.nets.cut.places import survey
from wording import refusal

IMAGE = (3, 32, 32)


def test_places_of_a_residual_network_are_those_that_nothing_bypasses() -> None:
    surveyed = survey(torchvision.models.resnet18(num_classes=5), IMAGE)
    listed = surveyed.places()
    names = [place.name for place in listed]
    assert names[:6] == ["conv1", "bn1", "relu", "maxpool", "layer1.0.add", "layer1.0"]
    assert {"layer1", "layer2", "layer3"} < set(names)
    assert "layer4" not in names and surveyed.final().name == "layer4"  # it feeds the classifier
    assert not any("conv2" in name for name in names)  # inside a block, two tensors cross
    assert [p.macs for p in listed] == sorted(p.macs for p in listed)
    assert 0 < listed[0].share < listed[-1].share < 1
    (row,) = [p for p in listed if "layer2.1" in (p.name, *p.aliases)]
    assert (row.name, row.shape) == ("layer2", (128, 4, 4))  # of all its names the shortest


def test_costs_of_a_place_are_those_of_the_network_up_to_it() -> None:
    net = torchvision.models.resnet18(num_classes=5).eval()
    (row,) = [p for p in places(net, IMAGE) if p.name == "layer3"]
    upto = nn.Sequential(OrderedDict(list(net.named_children())[:7]))
    assert row.params == sum(p.numel() for p in upto.parameters())
    assert row.macs == count_macs(lambda: upto(torch.zeros(1, *IMAGE)))[1]


def test_attention_counts_among_the_macs() -> None:
    by_name = {p.name: p for p in places(vit(), IMAGE)}
    tokens, width = by_name["blocks.0"].shape
    block = by_name["blocks.1"].macs - by_name["blocks.0"].macs
    projections = 12 * tokens * width**2
    assert block == projections + 2 * tokens**2 * width


@pytest.mark.parametrize(
    ("build", "size", "expected"),
    [
        pytest.param(lambda: torchvision.models.resnet18(), 64, "layer4", marks=pytest.mark.long),
        (lambda: torchvision.models.mobilenet_v2(), 32, "features"),
        (lambda: torchvision.models.squeezenet1_1(), 64, "features"),
        (lambda: timm.create_model("mobilenetv1_100"), 32, "blocks"),
        (lambda: timm.create_model("convnext_atto"), 32, "stages"),
        (vit, 32, "norm"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 2)), 4, "2"),
    ],
    ids=["larger", "mobilenet", "conv", "identities", "norm after pooling", "vit", "mlp"],
)
def test_the_classifier_begins_after_the_last_layer(build, size: int, expected: str) -> None:
    assert survey(build(), (3, size, size)).final().name == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()], "2"),
        ([nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(4)], "1"),
        ([nn.ReLU(), nn.Dropout(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten()], "1"),
    ],
)
def test_a_norm_is_the_trunks_before_the_pooling_and_the_classifiers_after_it(
    layers: list[nn.Module], expected: str
) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.Linear(4, 2))
    assert survey(net, (3, 8, 8)).final().name == expected


def test_a_survey_changes_nothing_and_repeats() -> None:
    net = vit().train()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    first, second = survey(net, IMAGE), survey(net, IMAGE)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())
    assert first.places() == second.places()
    assert first.graphs.code == second.graphs.code


def test_names_do_not_depend_on_how_often_a_function_runs_in_one_mode() -> None:
    class Uneven(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.sigmoid(self.a(x))
            if self.training:
                x = torch.sigmoid(x)
            return self.fc(torch.tanh(self.b(x))).flatten(1)

    # `sigmoid` means another tensor in each mode, so it is no place.
    assert [p.name for p in places(Uneven(), (1, 1, 4))] == ["a", "b"]


def test_images_that_vanish_are_refused() -> None:
    halving = (nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2))
    net = nn.Sequential(*(copy.deepcopy(layer) for layer in 5 * halving), nn.Flatten(), nn.Linear(3, 2))
    assert "3×16×16" in refusal(survey, net, (3, 16, 16))


def test_a_network_that_is_all_classifier_is_refused(snapshot: SnapshotAssertion) -> None:
    assert refusal(places, nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), (3, 4, 4)) == snapshot


def test_a_network_without_parameters_is_refused(snapshot: SnapshotAssertion) -> None:
    assert refusal(places, nn.Sequential(nn.ReLU(), nn.Flatten()), (3, 4, 4)) == snapshot


def test_an_activation_written_in_place_without_a_name_is_a_place() -> None:
    class Unassigned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.fc = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            nn.functional.relu_(x)
            return self.fc(self.b(x).tanh()).flatten(1)

    # Cutting after `relu` leaves nothing else to carry: `x` itself is what was written.
    assert [p.name for p in places(Unassigned(), (1, 1, 4))] == ["a", "relu", "b"]


class Recurrent(nn.Module):
    """Two recurrent layers, whose states nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.LSTM(4, 4, batch_first=True) for _ in range(2))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, _ = self.first(x.flatten(2).mT)
        x, (_, _) = self.second(x)
        return self.fc(x[:, -1])


def test_what_nobody_reads_bars_no_exit() -> None:
    net = attach(Recurrent(), 1, (4, 3, 3), head="linear").eval()
    x = torch.randn(2, 4, 3, 3)
    named = {p.name: p.macs for p in places(Recurrent(), (4, 3, 3))}
    assert named["first"] == 9 * 2 * 4 * 16 and not any("getitem" in name for name in named)
    assert attach(Recurrent(), ["first"], (4, 3, 3), head="linear").places == net.places
    with torch.inference_mode():
        assert torch.equal(net(x)[-1], net.backbone(x))


class Again(nn.Module):
    """Calls `embed` twice, around `b`, and reads `scale` twice, around `d`."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.embed, self.fc = nn.Conv2d(3, 3, 1), nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b(self.embed(self.a(x)))
        x = self.c(self.embed(x)) * self.scale
        return self.fc((self.d(x) * self.scale).mean((2, 3)))


def test_no_exit_is_between_two_uses_of_the_same_weights(snapshot: SnapshotAssertion) -> None:
    surveyed = survey(Again(), (3, 8, 8))
    assert [p.name for p in surveyed.places()] == ["a", "embed", "c"]
    assert {"embed#1", "b", "mul#1", "d"} < {point.name for point in surveyed.points if point.alone}
    assert attach(Again(), ["embed", "c"], (3, 8, 8)).places == ("embed", "c", "mul#2")
    assert refusal(attach, Again(), ["b"], (3, 8, 8)) == snapshot
