"""What PyTorch sees of a network with exits: the backbone's own names, and the heads' beside them."""

import copy
import functools

import pytest
import timm
import torch
from network_kit import same, shift
from safetensors.torch import load_file, save_file
from torch import nn
from torch.func import functional_call
from torch.nn.utils import parametrizations
from torchvision.models import ResNet, mnasnet0_5, resnet18
from torchvision.models.resnet import BasicBlock

import offramp
from longer import long
from offramp.errors import OfframpError
from offramp.nets import attach
from offramp.nets.network import inside, with_trunks
from offramp.parts import Part
from wording import refusal

pytestmark = pytest.mark.filterwarnings("ignore:net.* is offramp's")


class Own(nn.Module):
    """With a parameter and a buffer of its root, and parts that are named as attributes of ours are."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("offset", torch.zeros(1))
        self.heads = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.exits = nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.trunks = nn.Linear(4, 3)

    def forward(self, x):
        return self.trunks(self.exits(self.heads(x * self.scale + self.offset)).mean((2, 3)))


def residual():
    """A ResNet with five blocks."""
    return ResNet(BasicBlock, [1, 2, 1, 1], num_classes=3)


MODULES = {
    "residual": (residual, ["layer1", "layer2.0", "layer2"]),
    "timm": (
        lambda: timm.create_model(
            "vit_tiny_patch16_224", depth=2, embed_dim=48, img_size=32, num_classes=3
        ),
        1,
    ),
    "own": (Own, ["heads"]),
}


@functools.cache
def cached(name):
    make, exits = MODULES[name]
    return make(), attach(make(), exits, (3, 32, 32), head="linear").eval()


@pytest.fixture(params=[*long("residual"), "timm", "own"])
def pair(request):
    return copy.deepcopy(cached(request.param))


def outputs(net, x=None):
    with torch.no_grad():
        return net(torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32) if x is None else x)


def test_a_checkpoint_of_the_backbone_loads_and_leaves_the_heads_alone(pair):
    module, net = pair
    heads = {key: net.state_dict()[key].clone() for key in net.head_keys}
    assert heads and not same(module.state_dict(), net.backbone.state_dict())
    for _ in "before and after training":
        assert str(net.load_state_dict(module.state_dict())) == "<All keys matched successfully>"
        assert same(module.state_dict(), net.backbone.state_dict())
        assert same(heads, {key: net.state_dict()[key] for key in net.head_keys})
        assert torch.equal(outputs(net)[-1], outputs(module.eval()))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        sum(logits.square().sum() for logits in net(torch.ones(2, 3, 32, 32))).backward()
        assert all(p.grad is not None for p in net.parameters())
        optimizer.step()
        assert not same(module.state_dict(), net.backbone.state_dict())
        net.load_state_dict(net.state_dict() | heads)


def test_the_state_loads_into_the_backbone_and_names_the_heads(pair, tmp_path):
    module, net = pair
    shift(net)
    keys = module.load_state_dict(net.state_dict(), strict=False)
    assert not keys.missing_keys and tuple(keys.unexpected_keys) == net.head_keys
    assert same(module.state_dict(), net.backbone.state_dict())
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    for state in (
        load_file(tmp_path / "net.safetensors"),
        torch.load(tmp_path / "net.pth", weights_only=True),
    ):
        for assign in (False, True):
            twin = copy.deepcopy(net)
            with torch.no_grad():
                for tensor in twin.state_dict().values():
                    tensor.zero_()
            twin.load_state_dict(state, assign=assign)
            assert same(twin.state_dict(), net.state_dict())
            assert all(map(torch.equal, outputs(twin), outputs(net)))


def test_every_tensor_has_one_name(pair):
    _, net = pair
    named = dict(net.named_parameters(remove_duplicate=False)) | dict(net.named_buffers())
    assert named.keys() >= net.state_dict().keys()
    assert len({id(t) for t in named.values()}) == len(named)
    for name, tensor in net.named_parameters():
        assert net.get_parameter(name) is tensor
    state = {name: tensor * 2 for name, tensor in net.state_dict().items()}
    if not isinstance(net.backbone, Own):  # torch.func finds modules as attributes
        names = net.state_dict().keys() - set(net.head_keys)
        x = torch.ones(2, 3, 32, 32)
        logits = functional_call(net, {name: state[name] for name in names}, x)
        net.load_state_dict({name: state[name] for name in names})
        assert all(map(torch.equal, logits, net(x)))


def test_it_moves_as_a_whole_and_as_a_part_of_another_module(pair):
    module, net = pair
    half = copy.deepcopy(net).to(torch.bfloat16)
    assert {t.dtype for t in half.state_dict().values() if t.is_floating_point()} == {torch.bfloat16}
    logits = outputs(half, torch.ones(2, 3, 32, 32, dtype=torch.bfloat16))
    assert {t.dtype for t in logits} == {torch.bfloat16}
    outer = nn.Sequential(nn.Identity(), copy.deepcopy(net))
    outer.load_state_dict({f"1.{name}": tensor for name, tensor in module.state_dict().items()})
    assert same(outer[1].backbone.state_dict(), module.state_dict())
    assert outer.state_dict().keys() == {f"1.{name}" for name in net.state_dict()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, _: s.pop("conv1.weight"), 'Missing .*"conv1.weight"'),
        (lambda s, _: s.update(conv0=torch.ones(1)), 'Unexpected .*"conv0"'),
        (lambda s, _: s.update({"fc.weight": torch.ones(2)}), "mismatch for fc.weight"),
        (
            lambda s, net: s.pop(net.head_keys[0]),
            r"Missing.*exit_heads\.layer1\.body\.classifier\.weight",
        ),
        (
            lambda s, _: s.update({"exit_heads.layer3.body.x": torch.ones(1)}),
            r'Unexpected .*"exit_heads\.layer3\.body\.x"',
        ),
    ],
)
def test_what_does_not_fit_is_torchs_own_error(change, message):
    net = copy.deepcopy(cached("residual")[1])
    state = net.state_dict()
    change(state, net)
    with pytest.raises(RuntimeError, match=message):
        net.load_state_dict(state)


def test_a_backbone_loads_by_its_own_rules():
    module = mnasnet0_5(num_classes=3)
    net = attach(module, 1, (3, 32, 32))
    assert net.state_dict()._metadata[""] == module.state_dict()._metadata[""] == {"version": 2}
    net.load_state_dict(module.state_dict())


def test_of_several_trunks_the_final_exits_goes_by_plain_names():
    net = with_trunks(attach(residual(), ["layer1", "layer2"], (3, 32, 32)), (2, 1, 0))
    for n, trunk in enumerate(inside(net).trunks):
        trunk.module.fc.bias.data.fill_(n)
    for twin in (net, copy.deepcopy(net)):
        assert twin.backbone is inside(twin).trunks[0].module
        state = twin.state_dict()
        assert [state[f"{name}fc.bias"][0] for name in ("", "other_trunks.1.", "other_trunks.2.")] == [
            0,
            1,
            2,
        ]
        assert len(list(twin.parameters())) == 3 * 44 + len([*inside(twin).heads[0].parameters()]) * 2
        with pytest.raises(RuntimeError, match=r"Missing.*other_trunks\.1\.conv1\.weight"):
            twin.load_state_dict(residual().state_dict())
        twin.load_state_dict(state)
    apart = with_trunks(net, (0, 0, 1))
    assert (
        apart.backbone is inside(apart).trunks[1].module
        and "other_trunks.0.fc.bias" in apart.state_dict()
    )


def test_weights_without_a_part_to_load_into_are_unexpected():
    """They load in silence otherwise: heads of trunks of their own, on another trunk."""
    several = with_trunks(attach(Own(), ["heads"], (3, 32, 32), head="linear"), (1, 0))
    with pytest.raises(RuntimeError, match=r"Unexpected.*other_trunks\.1\.trunks\.weight"):
        copy.deepcopy(cached("own")[1]).load_state_dict(several.state_dict())
    with pytest.raises(RuntimeError, match=r"Unexpected.*exit_heads\.heads\.body\.classifier\.weight"):
        attach(Own(), [], (3, 32, 32)).load_state_dict(cached("own")[1].state_dict())


def test_weights_of_exits_that_add_the_answer_before_load_where_exits_add_as_much():
    """They would answer otherwise, without a word."""
    module, net = copy.deepcopy(cached("own"))
    adding = net.carrying(0.5)
    assert set(adding.head_keys) == {"exit_heads.carry", *net.head_keys}
    adding.load_state_dict(module.state_dict())
    for weights, into, message in (
        (adding, net, r"0\.5 times .* 0 times.*carrying\(0\.5\)"),
        (net, adding, r"0 times .* 0\.5 times.*carrying\(0\)"),
        (net.carrying(1.0), adding, r"1 times .* 0\.5 times"),
    ):
        with pytest.raises(RuntimeError, match=message):
            into.load_state_dict(weights.state_dict(), strict=False)
    adding.head_parameters()[0].data.add_(1)
    twin = net.carrying(0.5)
    twin.load_state_dict(adding.state_dict())
    assert all(map(torch.equal, outputs(twin), outputs(adding)))
    keys = module.load_state_dict(adding.state_dict(), strict=False)
    assert not keys.missing_keys and tuple(keys.unexpected_keys) == adding.head_keys


def frozen(net):
    return {n: m.training for n, m in net.named_modules() if n.startswith("layer1.")}


@pytest.mark.parametrize(
    "freeze",
    [
        lambda net: net.layer1.eval(),
        lambda net: net.layer1.apply(lambda m: m.eval()),
        lambda net: [m.eval() for n, m in net.named_modules() if n.startswith("layer1.")],
    ],
)
def test_a_module_stays_in_its_own_mode(freeze):
    net = copy.deepcopy(cached("residual")[1]).train()
    freeze(net)
    for twin in (net, copy.deepcopy(net)):
        before = {key: tensor.clone() for key, tensor in twin.state_dict().items()}
        outputs(twin)
        changed = {k for k, t in twin.state_dict().items() if not torch.equal(t, before[k])}
        assert not any(frozen(twin).values()) and not any(k.startswith("layer1.") for k in changed)
        assert "layer2.0.bn1.running_mean" in changed
    net.train()
    outputs(net)
    assert all(frozen(net).values())


def test_a_dropout_that_two_parts_share_runs_in_the_mode_of_each():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(192, 9), nn.Linear(9, 9), nn.Linear(9, 3)
            self.act, self.drop = nn.ReLU(), nn.Dropout()

        def forward(self, x):
            return self.c(self.drop(self.b(self.act(self.drop(self.a(x.flatten(1)))))))

    torch.manual_seed(0)  # a tap of few features that are not zero may be dropped alike twice
    net = attach(Shared(), ["act"], (3, 8, 8), head="linear").eval()
    x = torch.ones(2, 3, 8, 8)
    whole = inside(net).segment(1)(x)[0]
    inside(net).train_part(Part("head", 2), True)
    for _ in "twice":
        tap = inside(net).segment(1)(x)[0]
        assert torch.equal(tap, whole)
        assert not torch.equal(inside(net).head_body(2)(tap), inside(net).head_body(2)(tap))
    net.train()
    net.drop.eval()
    assert torch.equal(net(x)[1], net(x)[1]) and not net.drop.training


def test_a_cut_network_takes_no_other_module(snapshot):
    net, own = (copy.deepcopy(cached(name)[1]) for name in ("residual", "own"))
    message = "replace `fc`"
    with pytest.raises(OfframpError, match=message):
        net.fc = nn.Linear(64, 4)
    with pytest.raises(OfframpError, match=message):
        del net.fc
    with pytest.raises(OfframpError, match="replace `scale`"):
        own.scale = nn.Parameter(torch.ones(1))
    for change in (
        lambda: net.add_module("fc", nn.Linear(64, 4)),
        lambda: net.register_module("fc", nn.Linear(64, 4)),
        lambda: net._modules.update(fc=net.fc) or net._modules.__setitem__("fc", nn.Linear(64, 4)),
        lambda: net._modules.__delitem__("fc"),
    ):
        assert refusal(change) == snapshot
    net.fc = net.fc
    net.add_module("fc", net.fc)
    own.offset = torch.ones(1)
    own.scale.data.fill_(2)
    assert torch.equal(own.backbone.offset, torch.ones(1))
    parametrizations.weight_norm(net.fc)
    assert torch.isfinite(outputs(net.half().float())[-1]).all()


@pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")  # of torch's own, too
def test_a_quantizer_that_would_change_nothing_is_refused(snapshot):
    net = copy.deepcopy(cached("residual")[1])
    assert refusal(torch.ao.quantization.quantize_dynamic, net, {nn.Linear}) == snapshot


class Common(nn.Module):
    """Whose parts have names that are common, and attributes of ours."""

    def __init__(self):
        super().__init__()
        self.body, self.pool = nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4))
        self.backbone, self.fc = nn.Conv2d(4, 4, 3), nn.Linear(4, 3)
        self.width = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.fc(self.backbone(self.pool(self.body(x))).mean((2, 3)) * self.width)


@pytest.mark.filterwarnings("default")
def test_parts_that_are_named_as_attributes_of_ours_are_warned_of_and_reached():
    with pytest.warns(UserWarning, match=r"net\.backbone\.backbone") as warnings:
        net = offramp.attach(Common(), ["body"], (3, 32, 32), head="linear")
    assert len(warnings) == 1 and warnings[0].filename == __file__
    net.pool.eval()
    net.backbone.backbone.requires_grad_(False)
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    outputs(net.requires_grad_(True))
    assert torch.equal(net.state_dict()["pool.0.running_mean"], before["pool.0.running_mean"])
    net.backbone.backbone.requires_grad_(False)
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {"backbone.weight", "backbone.bias"}
    assert net.get_submodule("backbone") is net.backbone.backbone
    assert net.body is net.backbone.body and net.get_submodule("body") is net.body
    assert net.width is net.backbone.width  # what the engine alone needs hides nothing


def test_public_names_beside_pytorchs_are_those_for_users():
    net = cached("residual")[1]
    own = {name for name in dir(net) if name[0] != "_"} - {*dir(nn.Module()), *net._modules}
    assert own == {
        *("exits", "places", "classes", "input_shape", "backbone", "macs", "plain_macs"),
        *("head_keys", "head_parameters", "carrying"),
    }


def test_fx_traces_it():
    net = copy.deepcopy(cached("residual")[1])
    x = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)
    assert all(map(torch.allclose, torch.fx.symbolic_trace(net)(x), net(x)))


def test_heads_are_a_submodule_of_their_own():
    net = copy.deepcopy(cached("residual")[1])
    heads = {id(p) for p in net.head_parameters()}
    assert heads == {id(p) for p in net.exit_heads.parameters()}
    assert heads.isdisjoint(map(id, net.backbone.parameters()))
    assert len(heads) == len(net.head_keys) == 6
    x = torch.randn(2, 3, 32, 32)
    for exported in (net, with_trunks(net, (0, 1, 1, 1))):
        logits = torch.export.export(exported, (x,)).module()(x)
        assert all(map(torch.allclose, logits, exported(x)))


class Block(nn.Sequential):
    """Whose parts are named as those of a head."""

    def __init__(self):
        super().__init__()
        self.pool, self.body = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)


def test_heads_are_apart_at_places_that_are_named_as_parts_of_a_head():
    module = nn.Sequential()
    module.stem, module.block = nn.Conv2d(3, 4, 3), Block()
    module.last, module.mean = nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1)
    module.flatten, module.fc = nn.Flatten(), nn.Linear(4, 3)
    module.block.append(nn.ReLU())
    net = attach(module, ["block.pool", "block.body", "block"], (3, 32, 32), head="linear")
    assert set(net.head_keys) <= net.state_dict().keys()
    assert len(set(net.head_keys)) == len(net.head_keys) == 6
    assert {id(p) for p in net.head_parameters()} <= {id(p) for p in net.parameters()}
    net.double()
    assert {p.dtype for p in net.head_parameters()} == {torch.float64}
    assert all(len(head.body) == 1 for head in inside(net).heads)
    twin = copy.deepcopy(net)
    shift(twin)
    twin.load_state_dict(net.state_dict())
    assert same(net.state_dict(), twin.state_dict())


def test_a_network_is_not_pickled(tmp_path, snapshot):
    assert refusal(torch.save, cached("residual")[1], tmp_path / "net.pth") == snapshot


def test_what_it_prints_is_a_row_an_exit(snapshot):
    assert repr(attach(resnet18(num_classes=3), ["layer1", "layer2"], (3, 32, 32))) == snapshot
