"""Networks that come with exits of their own, and what of them belongs to which exit."""

import copy

import pytest
import torch
from published import BranchyNet, MSDNet, RANet, TokenViT
from torch import Tensor, nn

from offramp import program
from offramp.device import seeded
from offramp.nets import attach
from offramp.nets.foreign import multi_exit
from offramp.parts import Part
from wording import refusal

SHAPE = (3, 8, 8)


class Blocks(nn.Module):
    """Three blocks with a classifier behind each, as published early-exit networks are written."""

    def __init__(self, detached: bool = False) -> None:
        super().__init__()
        self.detached = detached
        self.place = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.blocks = nn.ModuleList(self._block(3 if i == 0 else 8) for i in range(3))
        self.classifier = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)) for _ in range(3)
        )

    @staticmethod
    def _block(channels: int) -> nn.Module:
        layers = nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True), nn.Dropout(0.1)
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        x, answers = x + self.place, []
        for block, classifier in zip(self.blocks, self.classifier, strict=True):
            x = block(x)
            answers.append(classifier(x.detach() if self.detached else x))
        return answers


class Named(nn.Module):
    """A mapping of logits, and heads that stand apart."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side = nn.Linear(192, 16), nn.Linear(16, 5)
        self.body, self.norm, self.fc = nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        early = self.stem(x.flatten(1)).relu()
        late = self.norm(self.body(early).relu())
        return {"out": self.fc(late), "aux": self.side(early), "features": late}


class Skipping(Blocks):
    """The second exit does not read the second block, which those before and after it do."""

    def forward(self, x: Tensor) -> list[Tensor]:
        a = self.blocks[0](x + self.place)
        b = self.blocks[1](a)
        return [head(v) for head, v in zip(self.classifier, (b, a, self.blocks[2](b)), strict=True)]


def test_gradients_tell_what_belongs_to_which_exit() -> None:
    net = multi_exit(Blocks(), SHAPE)
    assert (net.exits, net.classes) == (3, 5)
    assert set(net.parameters[Part("head", 2)]) == {"classifier.1.2.weight", "classifier.1.2.bias"}
    assert "place" in net.parameters[Part("segment", 1)]
    # The final head is the counterpart of the early ones.
    assert set(net.parameters[Part("head", 3)]) == {"classifier.2.2.weight", "classifier.2.2.bias"}
    every = [name for names in net.parameters.values() for name in names]
    assert sorted(every) == sorted(n for n, _ in net.module.named_parameters())
    # Modules without parameters too: dropout has a mode.
    assert "blocks.1.3" in net.modules[Part("segment", 2)]


def test_without_a_container_of_heads_the_last_layer_is_the_final_head() -> None:
    net = multi_exit(Named(), SHAPE, outputs=["aux", "out"])
    assert net.parameters[Part("head", 2)] == ("fc.weight", "fc.bias")
    assert set(net.modules[Part("segment", 2)]) == {"body", "norm"}


def test_what_some_later_exits_do_not_read_is_of_the_first_that_does() -> None:
    net = multi_exit(Skipping(), SHAPE)
    assert {"blocks.0.0.weight", "blocks.1.0.weight"} < set(net.parameters[Part("segment", 1)])


@pytest.mark.parametrize("kind", [MSDNet, RANet, BranchyNet, TokenViT])
def test_published_networks_train_by_their_phases(kind: type[nn.Module]) -> None:
    with seeded(0):
        their = multi_exit(kind(), (3, 16, 16))
        images = torch.randn(4, 3, 16, 16)
    for strategy in ("joint", "two-stage", "branch-wise", "sequential"):
        for phase in program(their, strategy):
            with phase:
                phase.module(images, torch.tensor([0, 1, 2, 1])).backward()
                assert all(parameter.grad is not None for parameter in phase.parameters())
                torch.optim.SGD(phase.parameters(), lr=0.01).step()


def test_gradients_of_named_segments_are_scaled() -> None:
    """MSDNet's own way of training: with three exits, block 1 gets a third of the sum of gradients,
    block 2 a half, block 3 all. Unless blocks are named, finer scales are of the segment after."""
    slopes = []
    for strategy, option in (("joint", "joint_weights"), ("gradient-equilibrium", "exit_weights")):
        with seeded(0):
            module, images = MSDNet(), torch.randn(4, 3, 16, 16)
        segments = [["first", "blocks.0"], "blocks.1", "blocks.2"]
        their = multi_exit(module, (3, 16, 16), segments=segments)
        (phase,) = program(their, strategy, options={option: "uniform"})
        with phase:
            phase.module(images, torch.tensor([0, 1, 2, 1])).backward()
            named = module.named_parameters()
            slopes.append({n: p.grad.clone() for n, p in named if p.grad is not None})
            torch.optim.SGD(phase.parameters(), lr=0.01).step()
    plain, scaled = slopes
    for name, share in (("first", 1 / 3), ("blocks.0", 1 / 3), ("blocks.1", 1 / 2), ("blocks.2", 1)):
        for key in (key for key in plain if key.startswith(name)):
            torch.testing.assert_close(scaled[key], share * plain[key], rtol=1e-3, atol=1e-6)


def test_names_win_over_gradients() -> None:
    net = multi_exit(Named(), SHAPE, outputs=["aux", "out"], heads=["side", ["norm", "fc"]])
    assert set(net.modules[Part("head", 2)]) == {"norm", "fc"}
    detached = multi_exit(Blocks(True), SHAPE, segments=[f"blocks.{i}" for i in range(3)])
    plain = multi_exit(Blocks(True), SHAPE)
    assert "blocks.0.0.weight" in detached.parameters[Part("segment", 1)]
    assert "blocks.0.0.weight" not in plain.parameters.get(Part("segment", 1), ())


class Bare(nn.Module):
    """Parameters of several parts, and no submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = (nn.Parameter(torch.randn(n, 16)) for n in (192, 16))
        self.early, self.late = (nn.Parameter(torch.randn(16, 5)) for _ in range(2))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = (x.flatten(1) @ self.stem).relu()
        return [x @ self.early, (x @ self.body).relu() @ self.late]


def test_parameters_of_several_parts_in_one_module_train_by_their_phases() -> None:
    net = multi_exit(Bare(), SHAPE, heads=["early", "late"])
    for phase in program(net, "two-stage"):
        before = copy.deepcopy(net.module.state_dict())
        with phase:
            optimizer = torch.optim.SGD(phase.parameters(), lr=0.1)
            phase.module(torch.randn(4, *SHAPE), torch.tensor([0, 1, 2, 3])).backward()
            optimizer.step()
        changed = {n for n, t in net.module.state_dict().items() if not torch.equal(t, before[n])}
        assert changed == ({"early"} if phase.number else {"stem", "body", "late"})


def test_the_module_stays_as_it_is() -> None:
    module = Blocks()
    module.blocks[1].eval()
    module.place.requires_grad_(False)
    before = copy.deepcopy(module.state_dict())
    modes = [m.training for m in module.modules()]
    multi_exit(module, SHAPE)
    assert [m.training for m in module.modules()] == modes and not module.place.requires_grad
    assert all(torch.equal(before[n], t) for n, t in module.state_dict().items())
    assert all(p.grad is None for p in module.parameters())
    assert not any(m._forward_hooks for m in module.modules())


def test_logits_of_another_form_are_refused(snapshot) -> None:
    net = multi_exit(Named(), SHAPE, outputs=["aux", "out"])
    assert [t.shape for t in net.logits(net.module(torch.zeros(4, *SHAPE)))] == [(4, 5), (4, 5)]
    assert refusal(net.logits, {"aux": torch.zeros(4, 3), "out": torch.zeros(4, 3)}) == snapshot


def attached() -> nn.Module:
    with seeded(0):
        plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 5))
    return attach(plain, ["1"], SHAPE, head="linear")


REFUSED = {
    "attached": lambda: multi_exit(attached(), SHAPE),
    "single": lambda: multi_exit(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)), SHAPE),
    "features-among-logits": lambda: multi_exit(Named(), SHAPE),
    "unknown-output": lambda: multi_exit(Named(), SHAPE, outputs=["aux", "end"]),
    "output-out-of-range": lambda: multi_exit(Blocks(), SHAPE, outputs=[0, 7]),
    "outputs-as-a-number": lambda: multi_exit(Blocks(), SHAPE, outputs=2),  # type: ignore[arg-type]
    "outputs-as-a-word": lambda: multi_exit(Named(), SHAPE, outputs="aux"),
    "another-shape": lambda: multi_exit(Named(), (3, 4, 4), outputs=["aux", "out"]),
    "unknown-name": lambda: multi_exit(Blocks(), SHAPE, heads=["classifer.0", "x", "y"]),
    "too-few-names": lambda: multi_exit(Blocks(), SHAPE, heads=["classifier.0"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, snapshot) -> None:
    with seeded(0):
        assert refusal(REFUSED[case]).replace("addmm: ", "") == snapshot  # torch 2.15 adds it
