"""What a user attaches exits to, and where they go."""

import copy
import json
import warnings
from threading import Lock

import pytest
import timm
import torch
from network_kit import CLASSES, identity_of, images, same, shift, state
from torch import nn

import offramp
from offramp.nets import NetSpec, attach, build
from offramp.nets.network import inside, redrawn
from offramp.parts import Part
from wording import refusal

# Other people's networks


def test_a_timm_transformer_gets_token_heads():
    spec = NetSpec("timm/vit_tiny_patch16_224", (("depth", 4), ("patch_size", 8)), taps=2)
    net = build(spec, (3, 32, 32), CLASSES, seed=1)
    assert [s.kind for s in inside(net).head_specs] == ["mlp", "mlp"]
    assert net.places[:-1] == ("blocks.0", "blocks.2")
    assert all(z.shape == (4, CLASSES) for z in net(images(net)))
    assert same(state(redrawn(net, 1)), state(net))


def test_a_timm_network_with_channels_last_maps():
    spec = NetSpec("timm/swin_tiny_patch4_window7_224", (("depths", (1, 1)), ("window_size", 4)), taps=1)
    net = build(spec, (3, 32, 32), CLASSES, seed=1)
    assert inside(net).head_specs[0].layout == "hwc"
    assert net.eval()(images(net))[0].shape == (4, CLASSES)


FILE = """
from torch import nn
def make(classes, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 8, 3),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes))
def wrong(input_shape): return input_shape
def small(**kwargs): return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 2))
def broken(): return 1 / 0
"""


def test_a_function_in_a_users_file(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FILE)

    def net_of(function, **options):
        spec = NetSpec(f"{file}:{function}", tuple(options.items()), taps=1)
        return build(spec, (3, 8, 8), CLASSES, seed=1)

    net = net_of("make", width=6)
    assert inside(net).state(Part("segment", 1))["0.weight"].shape == (6, 3, 3, 3)
    assert inside(net).redrawable and same(state(redrawn(net, 1)), state(net))
    assert str(tmp_path) not in json.dumps(identity_of(net))
    file.write_text(FILE + "# changed\n")
    assert identity_of(net_of("make", width=6)) != identity_of(net)
    for function, options, token in (
        ("make", {"wdith": 3}, "'width'"),
        ("wrong", {}, "tuple"),
        ("broken", {}, "ZeroDivisionError"),
        ("maek", {}, "'make'"),
        ("small", {}, "images"),
    ):
        assert token in refusal(net_of, function, **options)


class Residual(nn.Module):
    """A user's plain network: a skip connection, BatchNorm, dropout and a buffer read directly."""

    def __init__(self, classes=CLASSES):
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.5))
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 16, 3, stride=2)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(16, classes)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.middle(x) * self.scale)
        x = torch.relu(self.last(x)).mean((2, 3))
        return self.head(self.drop(x))


class Stubborn(Residual):
    """The same, in a way that cannot be traced."""

    def __init__(self):
        super().__init__()
        self.pool = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x):
        x = self.stem(x)
        if x.sum() > -1e9:
            x = self.pool(self.last(x))
        return self.head(self.drop(x))


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        (lambda module: module.stem(torch.ones(2, 3, 16, 16)), "Only Tensors"),
        (lambda _: Lock(), "'_thread.lock'"),
    ],
)
def test_a_module_that_cannot_be_copied_is_refused(attribute, reason):
    module = Residual()
    module.attribute = attribute(module)
    assert reason in refusal(attach, module, 1, (3, 16, 16))


@pytest.mark.parametrize("taps", [["stem"], ["stem", "relu#1"], 1, 2])
def test_attaching_to_a_plain_module(taps):
    module = Residual()
    weights = copy.deepcopy(module.state_dict())
    net = attach(module, taps, (3, 16, 16), seed=4)
    assert net.classes == CLASSES
    assert same(net.backbone.state_dict(), weights)
    x = images(net)
    assert torch.equal(net.eval()(x)[-1], module.eval()(x))
    shift(net)
    assert same(module.state_dict(), weights)
    assert not inside(net).redrawable
    assert same(redrawn(net, 9).backbone.state_dict(), net.backbone.state_dict())


def test_the_identity_of_an_attached_module_is_its_code_and_weights():
    module, longer = Residual(), Residual()
    other = copy.deepcopy(module)
    other.scale.add_(1)
    longer.stem.append(nn.ReLU())
    usual, of_other, of_longer = (
        identity_of(attach(m, 1, (3, 16, 16))) for m in (module, other, longer)
    )
    assert set(usual) == {"code", "state", "input_shape"} and json.dumps(usual)
    assert of_other["state"] != usual["state"] and of_longer["code"] != usual["code"]


def test_attaching_to_a_module_that_cannot_be_traced():
    module = Stubborn()
    assert "list per segment" in refusal(attach, module, ["stem"], (3, 16, 16))
    net = attach(module, [["stem"], ["last"], ["pool", "drop", "head"]], (3, 16, 16), head="linear")
    assert net.places == ("stem", "last")
    x = images(net)
    assert torch.equal(net.eval()(x)[-1], module.eval()(x))
    assert same(copy.deepcopy(net).backbone.state_dict(), module.state_dict())
    split = attach(module, [["stem", "last"], ["pool", "drop", "head"]], (3, 16, 16))
    assert identity_of(split) == identity_of(net)


def test_attaching_to_a_transformer_keeps_its_weights():
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=CLASSES, img_size=32, patch_size=8, depth=3
    )
    net = attach(model, ["blocks.0", "blocks.1"], (3, 32, 32), head={"tokens": "class"})
    x = images(net)
    assert torch.equal(net.eval()(x)[-1], model.eval()(x))
    assert [s.tokens for s in inside(net).head_specs] == ["class", "class"]


@pytest.mark.parametrize(
    ("arguments", "token"),
    [
        ({"exits": ["stme"]}, "'stme'"),
        ({"exits": ["head"]}, "final exit"),
        ({"exits": 1, "classes": 9}, "[B, 9]"),
        ({"exits": 1, "head": "pepar"}, "'paper'"),
        ({"exits": 1, "head": {"withd": 3}}, "'width'"),
        ({"module": Residual}, "class Residual"),
        ({"module": "resnet18"}, "classes"),
        ({"module": "resnet81", "classes": 3}, "'resnet18'"),
        ({"module": {}}, "module: {}"),
        ({"module": None}, "module: None"),
        ({"input_shape": 16}, "input_shape"),
        ({"input_shape": (3, 16)}, "(3, 16)"),
        ({"head": 3}, "head"),
        ({"exits": None}, "exits"),
        ({"exits": ["stem", ["head"]]}, "exits"),
        ({"exits": [0.25, 0.5]}, "['25%']"),
        ({"exits": [Residual()]}, "exits"),
        ({"module": Residual().to("meta")}, "'meta'"),
        ({"exits": "nowhere"}, "'nowhere'"),
        ({"exits": 1, "seed": "one"}, "'one'"),
        ({"exits": 1, "classes": "5"}, "'5'"),
    ],
    ids=lambda v: " ".join(str(v).split())[:40],
)
def test_mistakes_in_attaching(arguments, token, snapshot):
    usual = {"module": Residual(), "exits": "stem", "input_shape": (3, 16, 16)}
    line = refusal(attach, **usual | arguments)
    assert token in line and line == snapshot


def test_images_that_do_not_pass_are_refused():
    assert "1×16×16" in refusal(attach, Residual(), 1, (1, 16, 16))


def test_a_module_that_ends_in_a_softmax_is_warned_of():
    def net(*last):
        layers = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 5)
        return attach(nn.Sequential(*layers, *last), ["0"], (3, 8, 8), head="linear")

    net()
    net(nn.LogSoftmax(1))  # its softmax is that of the logits
    with pytest.warns(UserWarning, match="in a softmax"):
        net(nn.Softmax(1))


def test_exits_that_all_cost_more_than_the_network_are_warned_of():
    def warned(exits, head):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            offramp.attach(Residual(), exits, (3, 16, 16), head=head)
        assert all(warning.filename == __file__ for warning in caught)
        return [str(warning.message) for warning in caught]

    (line,) = warned(["stem", "middle"], None)
    assert "every early exit costs more than Residual alone" in line and "head='linear'" in line
    for exits, head in ((["stem", "middle"], "linear"), (["stem"], "mlp"), (1, None), ([], None)):
        assert warned(exits, head) == []


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # of torch, as it imports
def test_a_compiled_module_is_refused(snapshot):
    """Its trace would be of what compiling makes, after minutes."""
    compiled = torch.compile(Residual())
    assert refusal(attach, compiled, 1, (3, 16, 16)) == snapshot


def test_a_network_with_exits_is_refused_wherever_it_is(snapshot):
    """Cut again, its final exit was what had been an early one."""
    net = attach(Residual(), 1, (3, 16, 16))
    for module in (net, nn.Sequential(net)):
        assert refusal(attach, module, 1, (3, 16, 16)) == snapshot
    assert attach(net.backbone, 1, (3, 16, 16)).places == net.places


def test_one_place_and_a_size_will_do():
    net = attach(Residual(), "stem", torch.ones(3, 16, 16).shape)
    assert net.places[0] == "stem" and net.input_shape == (3, 16, 16)
    assert "costs more" in repr(net)


def test_a_place_with_control_characters_is_refused() -> None:
    """`fit` ended in an error of its records."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 10))
    module.add_module("a\x1bb", nn.Linear(10, 10))
    module.add_module("last", nn.Linear(10, 10))
    with pytest.raises(offramp.OfframpError, match=r"place 'a\\x1bb' has control characters"):
        attach(module, ["1"], (1, 8, 8))  # it is the final exit's
