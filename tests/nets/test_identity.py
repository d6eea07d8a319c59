"""What identifies a network: what changes its answers changes it, where its exits go does not."""

import copy
import functools
import inspect
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from network_kit import CLASSES, identity_of, images, shift
from torch import nn

import offramp
from offramp.hashing import digest
from offramp.nets import NetSpec, attach, build
from offramp.nets.identity import settings
from offramp.nets.network import identified, inside, with_trunks
from wording import refusal

SHAPE = (3, 8, 8)


class Plain(nn.Module):
    """Can be traced; `scale` is a number, or a tensor and no buffer, that no repr shows."""

    def __init__(self, pool=None, scale=2.0):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.pool = pool or nn.AvgPool2d(3, 2, padding=1)
        self.b = nn.Conv2d(4, 6, 3, padding=1)
        self.scale = scale
        self.flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.fc(self.flat(self.b(self.pool(self.a(x)) * self.scale)))


class Scaled(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return x * self.scale if x.sum() > -1e9 else x


class Attention(nn.Module):
    """Tokens of 4 pixels each, and attention over them."""

    def __init__(self, heads):
        super().__init__()
        self.embed = nn.Conv2d(3, 12, 2, stride=2)
        self.attend = nn.MultiheadAttention(12, heads, batch_first=True)
        self.fc = nn.Linear(12, CLASSES)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.fc((x + self.attend(x, x, x, need_weights=False)[0]).mean(1))


@pytest.mark.parametrize(
    ("module", "other", "taps"),
    [
        (Plain(), Plain(nn.AvgPool2d(3, 2, padding=1, count_include_pad=False)), ["a"]),
        (Plain(nn.AvgPool2d(3, 2)), Plain(nn.AvgPool2d(3, 2, ceil_mode=True)), ["a"]),
        (Plain(), Plain(scale=3.0), ["a"]),
        (Attention(2), Attention(3), ["embed"]),
        (
            nn.Sequential(Scaled(1.0), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, CLASSES)),
            nn.Sequential(Scaled(2.0), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, CLASSES)),
            [["0", "1"], ["2", "3"]],
        ),
    ],
    ids=["padding counts", "ceil mode", "a number in forward", "attention heads", "by names"],
)
def test_settings_that_no_repr_shows_identify_a_module(module, other, taps):
    other.load_state_dict(module.state_dict())
    nets = [attach(m, taps, SHAPE) for m in (module, other, copy.deepcopy(module).eval())]
    x = images(nets[0])
    with torch.no_grad():
        assert not torch.equal(nets[0](x)[-1], nets[1](x)[-1])
    identities = [identity_of(net) for net in nets]
    assert identities[0]["state"] == identities[1]["state"]
    assert identities[0]["code"] != identities[1]["code"]
    assert identities[0] == identities[2]  # its mode is no setting


def test_taps_and_hooks_are_no_part_of_what_a_module_is():
    module = Plain()
    hooked = copy.deepcopy(module)
    hooked.register_forward_hook(lambda *_: None)
    nets = [attach(module, t, SHAPE) for t in (["a"], ["a", "pool"], 1)]
    texts = [identity_of(net) for net in (*nets, attach(hooked, ["pool"], SHAPE))]
    assert all(text == texts[0] for text in texts)


def test_an_infinite_setting_is_one_too():
    def keeping(least):
        module = Scaled(1.0)
        module.least = least
        return code_with(module)

    assert len({keeping(x) for x in (float("inf"), float("-inf"), float("nan"), None)}) == 4


class Keeping(nn.Module):
    """Its answer is `act`'s of images and what else it has; by values, so it cannot be traced."""

    def __init__(self, act=torch.relu, extra=None):
        super().__init__()
        self.act, self.extra = act, extra

    def forward(self, x):
        return self.act(x) if x.sum() > -1e9 else x


class Times:
    def __init__(self, factor):
        self.factor = factor
        self.me = self  # an object that holds itself

    def __call__(self, x):
        return x * self.factor


class TimesMore(Times):
    def __call__(self, x):
        return x * self.factor + 1


def times(factor):
    return lambda x: x * factor


def read_by_name(x):
    return x * FACTOR


def reading(x):
    return read_by_name(x)


FACTOR = 2.0


def code(act=torch.relu, extra=None):
    return code_with(Keeping(act, extra))


def code_with(first):
    """Of a network that begins with this module."""
    torch.manual_seed(0)
    layers = first, nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, CLASSES)
    net = attach(nn.Sequential(*layers), [["0", "1"], ["2", "3"]], SHAPE, head="linear")
    return identity_of(net)["code"]


ATTRIBUTES = {
    "a function of torch": lambda n: {"act": (torch.relu, torch.tanh)[n]},
    "a function of Python": lambda n: {"act": (F.relu, F.silu)[n]},
    "a method": lambda n: {"act": (torch.Tensor.relu, torch.Tensor.tanh)[n]},
    "partial": lambda n: {"act": functools.partial(F.leaky_relu, negative_slope=n)},
    "two on one line": lambda n: {"act": (lambda x: x * 1, lambda x: x * 2)[n]},
    "closure": lambda n: {"act": times(n)},
    "an object": lambda n: {"act": Times(n)},
    "a class": lambda n: {"act": (Times, TimesMore)[n](1)},
    "bound method": lambda n: {"act": Times(n).__call__},
    "dictionary": lambda n: {"extra": {"slope": n}},
    "set": lambda n: {"extra": ({"a", "b", "c"}, {"a", "b", "d"})[n]},
    "array": lambda n: {"extra": np.array([1, n])},
    "its type": lambda n: {"extra": np.array([1, 2], dtype=("int32", "float32")[n])},
    "tensor": lambda n: {"extra": torch.tensor(1.0 - 2 * n)},
    "its shape": lambda n: {"extra": [torch.zeros(((2, 3), (3, 2))[n])]},
    "dtype": lambda n: {"extra": (torch.float16, torch.bfloat16)[n]},
    "hidden module": lambda n: {"extra": [nn.Dropout(n / 2)]},
}


@pytest.mark.parametrize("make", ATTRIBUTES.values(), ids=ATTRIBUTES)
def test_whatever_an_untraced_module_has_identifies_it(make):
    assert code(**make(0)) == code(**make(0)) != code(**make(1))


def test_what_a_function_reads_counts_too(monkeypatch):
    before = code(reading)
    assert before == code(reading)
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    changed = code(reading)
    assert changed != before
    monkeypatch.setitem(globals(), "read_by_name", lambda x: x + FACTOR)
    assert code(reading) not in (before, changed)


def test_what_a_forward_reads_counts_too(monkeypatch):
    class Reading(nn.Module):
        def forward(self, x):
            return read_by_name(x) if x.sum() > -1e9 else x

    before = code_with(Reading())
    assert before == code_with(Reading())
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert code_with(Reading()) != before


def test_a_class_without_a_text_goes_by_its_code():
    def typed(body):
        names = {"nn": nn, "__name__": "__main__"}
        exec(f"class Typed(nn.Module):\n def forward(self, x):\n  return {body}", names)
        return code_with(names["Typed"]())

    assert typed("x") == typed("x") != typed("-x")


def test_a_value_without_a_digest_is_refused(snapshot):
    class Closed:
        def __deepcopy__(self, _):
            return self

        def __reduce_ex__(self, _):
            raise TypeError("cannot pickle it")

    assert refusal(code, extra=[Closed()]) == snapshot


def test_the_code_of_numbers_words_and_weights_is_as_it_was():
    """What finished work is known by. `extra` of None, `scale` and torch's own parts say nothing new."""
    layers = Scaled(2.0), nn.Flatten(), nn.LSTM(192, 4), Parted(), nn.Linear(4, CLASSES)
    net = attach(nn.Sequential(*layers), [["0", "1"], ["2", "3", "4"]], SHAPE, head="linear")
    rows = settings(net.backbone, [name for name, _ in net.backbone.named_modules()], [])
    assert "2: LSTM" in rows and rows.count("\n") == 5
    texts = [inspect.getsource(Parted), inspect.getsource(Scaled)]
    assert identity_of(net)["code"] == digest([f"{net.backbone!r}\n{rows}", *texts])


class Parted(nn.Module):
    def forward(self, x):
        return x[0] if isinstance(x, tuple) else x


@torch.fx.wrap
def wrapped(x):
    return x * FACTOR


class Wrapped(Plain):
    def forward(self, x):
        return super().forward(wrapped(x))


def test_a_tensor_that_a_traced_forward_reads_identifies_it():
    module, other = (Plain(scale=torch.tensor(gain)) for gain in (1.0, -1.0))
    other.load_state_dict(module.state_dict())
    nets = [attach(m, ["a"], SHAPE, head="linear") for m in (module, copy.deepcopy(module), other)]
    identities = [identity_of(net) for net in nets]
    assert identities[0] == identities[1]
    assert identities[0]["state"] == identities[2]["state"]
    assert identities[0]["code"] != identities[2]["code"]


def test_a_function_that_a_trace_does_not_enter_identifies_it(monkeypatch):
    module = Wrapped()
    before = identity_of(attach(module, ["a"], SHAPE))
    assert before == identity_of(attach(module, ["a"], SHAPE))
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert before["code"] != identity_of(attach(module, ["a"], SHAPE))["code"]


def test_an_activation_of_a_torch_layer_identifies_it():
    def code_of(activation):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(12, 2, 8, activation=activation, batch_first=True)
        tokens = nn.Sequential(nn.Flatten(1, 2), nn.Linear(12, 12))
        module = nn.Sequential(tokens, layer, nn.Flatten(), nn.Linear(48, CLASSES))
        return identity_of(attach(module, ["0"], (1, 4, 12), head="linear"))["code"]

    codes = [code_of(f) for f in (F.relu, "relu", torch.tanh, torch.tanh, torch.sigmoid)]
    assert codes[0] == codes[1] and codes[2] == codes[3] and len(set(codes)) == 3


# Weights that changed after attaching


def pictures():
    generator = np.random.default_rng(0)
    labels = np.arange(150) % CLASSES
    noise = generator.integers(0, 60, (150, 3, 8, 8), dtype=np.uint8)
    return noise + (30 * labels).astype(np.uint8)[:, None, None, None], labels


def fit(net, store, strategy="baseline"):
    recipe = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-9}
    return offramp.fit(net, strategy, pictures(), recipe=recipe, store=store, device="cpu")


def close(a, b):
    return all(torch.allclose(a[name], b[name], atol=1e-5) for name in a if "weight" in name)


def test_fit_begins_from_the_weights_as_they_are(tmp_path):
    module = Plain()
    net = attach(module, ["a"], SHAPE, head="linear")
    before = dict(identity_of(net))
    first = fit(net, tmp_path)
    assert close(first.net.backbone.state_dict(), module.state_dict())
    other = Plain().state_dict()
    net.backbone.load_state_dict(other)
    second = fit(net, tmp_path)  # the same store: what was trained from other weights is not found
    assert close(second.net.backbone.state_dict(), other)
    assert not close(second.net.backbone.state_dict(), module.state_dict())
    assert identity_of(net) == before  # fit leaves the network alone


def test_a_fitted_network_can_be_fitted_further(tmp_path):
    first = fit(attach(Plain(), ["a"], SHAPE, head="linear"), tmp_path).net
    shift(first.backbone)
    second = fit(first, tmp_path).net
    assert close(second.backbone.state_dict(), first.backbone.state_dict())


@pytest.mark.parametrize("taps", [["0"], [["0", "1"], ["2", "3", "4"]]])
def test_settings_that_are_changed_since_are_another_network(taps):
    layers = [nn.Conv2d(3, 4, 3), nn.Dropout(0.1), nn.Conv2d(4, 4, 6), nn.Flatten()]
    net = attach(nn.Sequential(*layers, nn.Linear(4, CLASSES)), taps, SHAPE, head="linear")
    usual = identity_of(identified(net))
    dropout = net.get_submodule("1")
    dropout.p = 0.3
    changed = identity_of(identified(net))
    assert [name for name in changed if changed[name] != usual.get(name)] == ["attributes"]
    net.eval()(torch.zeros(1, *SHAPE))  # which of mode and use says nothing
    assert identity_of(identified(net)) == identity_of(identified(copy.deepcopy(net))) == changed
    dropout.p = 0.1
    assert identity_of(identified(net)) == usual == identity_of(net)


def test_a_plain_tensor_that_is_changed_since_is_another_network():
    net = attach(Plain(scale=torch.tensor(1.0)), ["a"], SHAPE, head="linear")
    assert identity_of(identified(net)) == identity_of(net)
    net.backbone.scale.neg_()
    assert identity_of(identified(net)) != identity_of(net)


def test_weights_as_they_were_are_the_same_network():
    net = attach(Plain(), ["a"], SHAPE)
    assert identity_of(identified(net)) == identity_of(net)
    shift(inside(net).heads[0])  # drawn from the seed whatever they are now
    assert identity_of(identified(net)) == identity_of(net)
    built = build(NetSpec("digits-cnn"), (1, 8, 8), CLASSES, seed=1)
    shift(built)  # as are all weights of a network that a seed draws
    assert identity_of(identified(built)) == identity_of(built)


def test_fit_refuses_several_trunks_in_one_line(tmp_path, snapshot):
    net = with_trunks(attach(Plain(), ["a"], SHAPE, head="linear"), [0, 1])
    assert refusal(fit, net, tmp_path) == snapshot


# Content behind names

IMPORTING = """
from torch import nn
import its_helper
def make(classes):
    return nn.Sequential(nn.Conv2d(3, 4, 3), its_helper.middle(), nn.Conv2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), its_helper.last(nn.Linear(4, classes)))
"""
IMPORTED = """
from torch import nn
def middle(): return {middle}
def last(layer):
    {last}
    return layer
"""
WITH_A_CONSTANT = """
import torch
from torch import nn
class Net(nn.Sequential):
    def forward(self, x):
        return super().forward(x * torch.tensor(torch.its_number))
def make(classes):
    return Net(nn.Conv2d(3, 4, 8), nn.Flatten(), nn.Linear(4, classes))
"""
DRAWN_BY_OTHERS = """
import random
import numpy as np
from torch import nn
def make(classes):
    first, last = nn.Conv2d(3, 4, 3), nn.Linear(4, classes)
    nn.init.constant_(first.weight, np.random.rand())
    nn.init.constant_(last.weight, random.random())
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
"""


def test_what_a_users_file_imports_is_part_of_the_identity(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"  # what lies beside a file is part of its hash
    elsewhere.mkdir()
    monkeypatch.syspath_prepend(elsewhere)
    helper = elsewhere / "its_helper.py"
    (tmp_path / "mine.py").write_text(IMPORTING)

    def identity(middle, last, seed=1):
        import importlib
        import sys

        helper.write_text(IMPORTED.format(middle=middle, last=last))
        sys.modules.pop("its_helper", None)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        spec = NetSpec(f"{tmp_path / 'mine.py'}:make", taps=1)
        return identity_of(build(spec, SHAPE, CLASSES, seed))

    usual = identity("nn.ReLU()", "pass")
    assert identity("nn.ReLU()", "pass", seed=2) == usual
    assert "state" not in usual
    others = identity("nn.GELU()", "pass"), identity("nn.ReLU()", "layer.bias.data.zero_()")
    changed = [{key for key in usual if usual[key] != other[key]} for other in others]
    assert changed == [{"code"}, {"draw"}]


def test_a_tensor_that_a_users_file_imports_is_part_of_the_identity(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "its_number", 2.0, raising=False)
    (tmp_path / "mine.py").write_text(WITH_A_CONSTANT)

    spec = NetSpec(f"{tmp_path / 'mine.py'}:make", taps=0)
    usual, again = (identity_of(build(spec, SHAPE, CLASSES, 1)) for _ in range(2))
    monkeypatch.setattr(torch, "its_number", 3.0)
    other = identity_of(build(spec, SHAPE, CLASSES, 1))
    assert usual == again
    assert [key for key in usual if usual[key] != other[key]] == ["constants"]


def test_weights_that_numpy_and_python_draw_are_of_the_seed_too(tmp_path):
    (tmp_path / "mine.py").write_text(DRAWN_BY_OTHERS)
    spec = NetSpec(f"{tmp_path / 'mine.py'}:make", taps=0)
    before = random.getstate(), np.random.get_state()[1].tolist()
    net, again, other = (build(spec, SHAPE, CLASSES, seed) for seed in (1, 1, 2))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    assert identity_of(net) == identity_of(again) == identity_of(other)
    for name in ("0.weight", "4.weight"):
        weights = [n.state_dict()[name] for n in (net, again, other)]
        assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_registered_backbone_is_identified_by_its_name():
    net = build(NetSpec("resnet18", taps=1), (3, 32, 32), 10, seed=1)
    assert identity_of(net) == {
        "backbone": "resnet18",
        "classes": 10,
        "options": {"stem": "imagenet"},
        "input_shape": [3, 32, 32],
    }
