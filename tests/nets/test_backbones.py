"""Every registered backbone: its taps, its exact division, its names, its costs, its refusals."""

import functools
import itertools
import warnings

import pytest
import timm
import torch
import torchvision
from network_kit import CLASSES, SEED, built, every_backbone, identity_of, images, network, parts
from torch import nn

from longer import long, long_where
from offramp.nets import BACKBONES, NetSpec, build
from offramp.nets.inside import drawn_module
from offramp.nets.network import inside
from offramp.parts import Part, path
from support import LARGE, backbones
from wording import refusal

VARIANTS = [
    (name, (*options, ("reading", reading)))
    for name, backbone in BACKBONES.items()
    for reading in backbone.taps
    for options in itertools.product(
        *(tuple((option, value) for value in values) for option, values in backbone.options.items())
    )
]
FIRSTS = dict(reversed(VARIANTS))


def variants(large):
    """Each in its first shape, those of `large` and all other shapes with --long."""
    return pytest.mark.parametrize(
        ("name", "options"),
        long_where(VARIANTS, lambda variant: variant[0] in large or variant[1] != FIRSTS[variant[0]]),
        ids=lambda v: v if isinstance(v, str) else "-".join(x for _, x in v),
    )


every_variant = variants(LARGE)


def untraced(name, options=()):
    backbone = BACKBONES[name]
    own = {k: v for k, v in options if k != "reading"}
    make = functools.partial(backbone.build, classes=CLASSES, input_shape=backbone.input_shape, **own)
    return drawn_module(make, SEED, "initial")


def composed(net, x):
    """The final exit, through the pieces and without the heads."""
    *segments, _, body = inside(net).path(net.exits)
    tensors = (x,)
    for segment in segments:
        tensors = segment(*tensors)
    return body(*tensors)


@every_variant
def test_taps_are_there_in_order_and_each_exit_has_its_logits(name, options):
    net = network(name, options)
    taps = BACKBONES[name].taps[dict(options)["reading"]]
    assert net.exits == len(taps) + 1 >= 4
    assert len(set(net.places)) == net.exits
    macs = list(itertools.accumulate(net.macs(part) for part in path(net.exits)[:-1]))
    assert macs == sorted(macs)
    for mode in (True, False):
        logits = net.train(mode)(images(net, 6))
        assert [tuple(z.shape) for z in logits] == [(6, CLASSES)] * net.exits


@variants({"resnet50", "vgg16"})  # the layers of which test_the_papers_layers counts
def test_pieces_compute_what_the_untraced_module_does(name, options):
    """Bit for bit, in eval mode and through a training step, buffers and dropout included."""
    net, whole = network(name, options).train(), untraced(name, options).train()
    x = images(net, 6)
    labels = torch.arange(6) % CLASSES
    for model, run in ((whole, whole), (net, functools.partial(composed, net))):
        torch.manual_seed(9)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(2):
            optimizer.zero_grad()
            nn.functional.cross_entropy(run(x), labels).backward()
            optimizer.step()
    expected = whole.state_dict()
    trained = net.backbone.state_dict()
    assert expected.keys() == trained.keys()
    for key, tensor in expected.items():
        assert torch.equal(tensor, trained[key]), key
    with torch.no_grad():
        assert torch.equal(composed(net.eval(), x), whole.eval()(x))


@every_variant
def test_parts_divide_the_state_among_them(name, options):
    net = network(name, options)
    names = [key for part in path(net.exits) for key in inside(net).state(part)]
    assert len(names) == len(set(names))
    assert set(names) == untraced(name, options).state_dict().keys()
    live = net.backbone.state_dict(keep_vars=True)
    assert all(t is live[key] for part in path(net.exits) for key, t in inside(net).state(part).items())
    trained = [id(p) for part in parts(net) for p in inside(net).parameters_of(part)]
    assert sorted(trained) == sorted(id(p) for p in net.parameters())


@pytest.mark.parametrize("name", backbones(BACKBONES))
def test_upstream_checkpoints_fit(name):
    backbone = BACKBONES[name]
    if backbone.upstream is None:
        pytest.skip("defined here")
    library, _, model = backbone.upstream.partition("/")
    own_names = "fc." if name.startswith("resnet") else "classifier."
    with torch.device("meta"):
        if library == "timm":
            plain = timm.create_model(model, pretrained=False)
        else:
            plain = torchvision.models.get_model(model, weights=None)
    checkpoint = {
        key: torch.randn(t.shape) if t.is_floating_point() else torch.zeros(t.shape, dtype=t.dtype)
        for key, t in plain.state_dict().items()
        if not key.startswith(own_names)
    }
    net = network(name)
    trunk = net.backbone
    own = {k: v for k, v in trunk.state_dict().items() if k.startswith(own_names)}
    trunk.load_state_dict(checkpoint | own, strict=True)
    first = next(iter(inside(net).state(Part("segment", 1)).items()))
    assert torch.equal(first[1], checkpoint[first[0]])


class Alone(nn.Module):
    """A piece as a module, for counters that want one."""

    def __init__(self, run, owner):
        super().__init__()
        self.run = run
        self.owner = owner

    def forward(self, *tensors):
        out = self.run(*tensors)
        return out[0] if isinstance(out, tuple) else out


def fvcore_macs(model, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fvcore stands on torch.jit, which is deprecated
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, x)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counted = analysis.by_operator()
    return sum(n for operator, n in counted.items() if operator in ("conv", "linear", "matmul", "bmm"))


@every_variant
def test_costs_agree_with_another_counter(name, options):
    net = network(name, options).eval()
    tensors = (images(net, 1),)
    with torch.no_grad():
        for i in range(1, net.exits + 1):
            counted = fvcore_macs(Alone(inside(net).segment(i), net), tensors)
            assert net.macs(Part("segment", i)) == pytest.approx(counted, rel=0.01)
            tensors = inside(net).segment(i)(*tensors)
            head = nn.Sequential(inside(net).head_pool(i), Alone(inside(net).head_body(i), net))
            assert net.macs(Part("head", i)) == pytest.approx(fvcore_macs(head, tensors), rel=0.01)
        whole = untraced(name, options).eval()
        total = fvcore_macs(whole, (images(net, 1),))
    assert sum(net.macs(part) for part in path(net.exits)) == pytest.approx(total, rel=0.01)
    assert total > 0
    count = sum(inside(net).parameter_count(part) for part in path(net.exits))
    assert count == sum(p.numel() for p in whole.parameters())


@every_backbone
@pytest.mark.parametrize("channels", [1, *long(3, 4)])
def test_any_number_of_channels(name, channels):
    shape = (channels, *BACKBONES[name].input_shape[1:])
    net = build(NetSpec(name), shape, CLASSES, SEED)
    assert net(torch.randn(2, *shape))[0].shape == (2, CLASSES)


@every_backbone
def test_an_image_that_would_vanish_is_refused(name):
    shape = (BACKBONES[name].input_shape[0], 2, 2)
    line = refusal(build, NetSpec(name), shape, CLASSES, SEED)
    assert f"'{name}'" in line and "2×2" in line


def test_smaller_stems_are_named_where_images_are_too_small(snapshot):
    assert refusal(build, NetSpec("resnet18"), (3, 20, 20), CLASSES, SEED) == snapshot


@every_backbone
@pytest.mark.parametrize("option", [("stm", "small"), ("reading", "mine")], ids="-".join)
def test_unknown_options_are_named(name, option):
    line = refusal(build, NetSpec(name, (option,)), BACKBONES[name].input_shape, CLASSES, SEED)
    assert f"'{name}'" in line and {"stm": "'stm'", "reading": "'mine'"}[option[0]] in line


@pytest.mark.parametrize(
    "name", long_where([n for n, b in BACKBONES.items() if "stem" in b.options], LARGE.__contains__)
)
def test_smaller_stems_keep_more_pixels_and_the_names(name):
    """The two ResNets share the code of theirs; large ones take seconds."""
    nets = {stem: built(name, (("stem", stem),)) for stem in BACKBONES[name].options["stem"]}
    assert len({tuple(net.backbone.state_dict()) for net in nets.values()}) == 1
    macs = {stem: net.macs(Part("segment", 2)) for stem, net in nets.items()}
    assert 3 * macs["imagenet"] < macs["small"]
    if "medium" in macs:
        assert 9 * macs["imagenet"] < 3 * macs["medium"] < macs["small"]
    assert identity_of(nets["imagenet"]) != identity_of(nets["small"])


def test_the_papers_layers():
    """The numbers of the paper, found again by counting layers of the built networks."""

    def layers_up_to(net, exit, kind):
        """Layers of `kind` on the way to an exit, shortcuts left out."""
        modules = dict(net.backbone.named_modules())
        used = {
            key.rpartition(".")[0]
            for i in range(1, exit + 1)
            for key in inside(net).state(Part("segment", i))
        }
        return sum(isinstance(modules[m], kind) and "downsample" not in m for m in used)

    resnet = built("resnet50", ())
    assert [layers_up_to(resnet, k, nn.Conv2d) for k in (1, 2, 3)] == [10, 22, 40]
    vgg = built("vgg16", (("reading", "convolutions"),))
    assert [layers_up_to(vgg, k, nn.Conv2d) for k in (1, 2, 3)] == [5, 9, 13]
    keras = built("vgg16", ())
    # Keras counts the input, which its list of layers begins with, as 0, and the pools.
    pools = [0, 1, 2, 3]
    assert [layers_up_to(keras, k, nn.Conv2d) + pools[k] for k in (1, 2, 3)] == [5, 9, 13]
    mobile = built("mobilenetv1", ())
    assert [(layers_up_to(mobile, k, nn.Conv2d) - 1) // 2 for k in (1, 2, 3)] == [3, 6, 11]
    assert [spec.width for spec in inside(mobile).head_specs] == [64, 128, 128]
    assert not any(spec.flatten for spec in inside(mobile).head_specs)


def test_mobilenetv2_exits_at_quarters_of_the_macs():
    net = built("mobilenetv2", ())
    total = sum(net.macs(part) for part in path(net.exits))
    reached = itertools.accumulate(net.macs(Part("segment", i)) for i in (1, 2, 3))
    assert [r / total for r in reached] == pytest.approx([0.25, 0.5, 0.75], abs=0.02)
