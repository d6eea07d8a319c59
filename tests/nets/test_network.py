"""The early-exit network: copies, draws, trunks and modes."""

import copy
import inspect
import json
from pathlib import Path

import pytest
import torch
import torchvision
from network_kit import (
    CLASSES,
    built,
    every_backbone,
    identity_of,
    images,
    network,
    parts,
    same,
    shift,
    state,
    storages,
)

from offramp.nets import BACKBONES, NetSpec, build
from offramp.nets.network import inside, prepared, redrawn, with_trunks
from offramp.parts import Part
from wording import refusal


def equal(logits, expected):
    return len(logits) == len(expected) and all(map(torch.equal, logits, expected))


# Copies and trunks


@every_backbone
def test_a_copy_is_the_same_and_independent(name):
    net = network(name)
    for part in parts(net):
        inside(net).train_part(part, mode=part.index % 2 == 0)
    net.requires_grad_(False)
    twin = copy.deepcopy(net)
    assert same(state(net), state(twin))
    assert not storages(net) & storages(twin)
    assert inside(twin).clock is not inside(net).clock
    assert (twin.places, identity_of(twin)) == (net.places, identity_of(net))
    assert inside(twin).head_specs == inside(net).head_specs
    assert not any(p.requires_grad for p in twin.parameters())
    modes = [[s.training for s in inside(n).trunks[0].segments] for n in (net, twin)]
    assert modes[0] == modes[1]
    assert [h.training for h in inside(net).heads] == [h.training for h in inside(twin).heads]
    before = {key: t.clone() for key, t in state(net).items()}
    shift(twin)
    assert same(state(net), before)
    assert not same(state(net), state(twin))


@every_backbone
def test_every_exit_can_have_a_trunk_of_its_own(name):
    net = network(name).eval()
    owners = (*[1] * (net.exits - 1), 2)
    apart = with_trunks(net, owners)
    assert inside(apart).trunk_of == owners
    assert len(inside(apart).trunks) == 3
    assert not storages(net) & storages(apart)
    first, second, third = (storages(trunk.module) for trunk in inside(apart).trunks)
    assert not first & second and not second & third
    x = images(net, 2)
    with torch.no_grad():
        assert equal(net(x), apart(x))
        for tensor in inside(apart).state(Part("head", apart.exits), 2).values():
            tensor.zero_()
        changed = apart(x)
        assert torch.equal(changed[0], net(x)[0])
        assert not changed[-1].any()
    ours, theirs = (inside(n).trunks[1].module.state_dict() for n in (apart, copy.deepcopy(apart)))
    assert same(ours, theirs)


@pytest.mark.parametrize("owners", [(0, 0, 0), (0, 0, 0, -1)])
def test_trunks_that_do_not_fit(owners, snapshot):
    assert refusal(with_trunks, network(), owners) == snapshot


def test_forward_runs_each_path():
    net = with_trunks(network(), (1, 0, 2, 2))
    with torch.no_grad():
        for tensor in inside(net).state(Part("segment", 1), 1).values():
            tensor.mul_(2)
    net.eval()
    x = images(net)
    for k, logits in enumerate(net(x), start=1):
        *segments, pool, body = inside(net).path(k)
        tensors = (x,)
        for segment in segments:
            tensors = segment(*tensors)
        assert torch.equal(body(pool(tensors[0])), logits)


# Draws


@every_backbone
def test_weights_are_drawn_by_seed_draw_and_name(name):
    net = prepared(network(name), lambda: (torch.rand(4, *net.input_shape), *torch.ones(2, 3)))
    shift(net)
    again = redrawn(net, 1)
    random = {n: t for n, t in state(again).items() if "whitening" not in n}  # that one is no draw
    assert same(random, {n: state(built(name))[n] for n in random})
    assert not storages(net) & storages(again)
    fewer = build(NetSpec(name, taps=(net.places[1],)), net.input_shape, CLASSES, seed=1)
    trunk = {n: t for n, t in again.backbone.state_dict().items() if n in random}
    assert same({n: fewer.backbone.state_dict()[n] for n in trunk}, trunk)
    for other in (redrawn(net, 2), redrawn(net, 1, "fresh")):
        assert not same(state(again), state(other))
    heads = [state(again)[f"exits.{p}.body.classifier.weight"] for p in net.places[:-1]]
    assert not torch.equal(heads[0], heads[1])


def test_heads_are_drawn_by_their_place():
    shape = (1, 8, 8)
    head = (("pools", 2), ("width", 8))
    alone, among = (
        build(NetSpec("digits-cnn", taps=taps, head=head), shape, CLASSES, seed=1)
        for taps in (("blocks.2",), ("blocks.0", "blocks.2", "blocks.3"))
    )
    first, second = inside(alone).state(Part("head", 1)), inside(among).state(Part("head", 2))
    assert same(first, second)
    fresh = [inside(redrawn(n, 1, "fresh")) for n in (alone, among)]
    assert same(fresh[0].state(Part("head", 1)), fresh[1].state(Part("head", 2)))
    assert not same(fresh[0].state(Part("head", 1)), first)


def test_redrawing_fills_every_trunk():
    net = with_trunks(network(), (1, 1, 1, 2))
    shift(net)
    for trunk in inside(redrawn(net, 1)).trunks:
        assert same(trunk.module.state_dict(), built("digits-cnn").backbone.state_dict())


# Modes, state and noise


def test_parts_have_modes_of_their_own():
    net = network().eval()
    frozen = {key: t.clone() for key, t in state(net).items()}
    inside(net).train_part(Part("segment", 2), True)
    inside(net).train_part(Part("head", 3), True)
    net(images(net))
    moved = {key for key, t in state(net).items() if not torch.equal(t, frozen[key])}
    allowed = {*inside(net).state(Part("segment", 2)), *inside(net).state(Part("head", 3))}
    assert moved and moved <= allowed
    assert all("running" in key or "num_batches" in key for key in moved)


def test_state_is_live_and_named_by_place():
    net = network()
    head = inside(net).state(Part("head", 2))
    assert set(head) >= {"exits.blocks.2.body.conv.weight", "exits.blocks.2.body.norm.running_mean"}
    head["exits.blocks.2.body.conv.weight"].data.fill_(3)
    assert (inside(net).heads[1].body.conv.weight == 3).all()
    assert len(state(net)) == len(net.state_dict())


def test_dropout_depends_on_the_step_and_nothing_else():
    """The same masks whichever exits run before, and others at another step or of another name."""
    net = network().train()
    tap = torch.randn(4, 32, 2, 2)

    def third(net, step, first=()):
        inside(net).clock.tick(1, 0, step)
        for k in first:
            inside(net).head_body(k)(
                inside(net).head_pool(k)(torch.randn(4, *inside(net).facts.early[k - 1].shape))
            )
        return inside(net).head_body(3)(inside(net).head_pool(3)(tap))

    expected = third(net, 5)
    assert torch.equal(third(net, 5, first=(1, 2)), expected)
    assert not torch.equal(third(net, 6), expected)
    twin = copy.deepcopy(net)
    inside(net).clock.tick(1, 0, 6)
    inside(twin).clock.tick(1, 0, 5)
    assert torch.equal(third(twin, 5), expected)
    inside(twin).heads[2].body.dropout.name = "exits.other.dropout"
    assert not torch.equal(third(twin, 5), expected)


def test_moving_the_network_moves_the_pieces():
    net = network().eval()
    x = images(net)
    expected = net(x)
    for moved in (copy.deepcopy(net).double(), copy.deepcopy(net).to(memory_format=torch.channels_last)):
        dtype = next(moved.parameters()).dtype
        for a, b in zip(moved(x.to(dtype)), expected, strict=True):
            assert torch.allclose(a.float(), b, atol=1e-4)


# What a network is


def text(net):
    return json.dumps(identity_of(net), sort_keys=True)


def test_identity_is_data_and_says_nothing_of_exits():
    nets = [
        build(NetSpec("digits-cnn", taps=taps), (1, 8, 8), CLASSES, seed=seed)
        for taps, seed in ((None, 1), (("blocks.1",), 2), (2, 3))
    ]
    assert len({*map(text, nets)}) == 1
    wider = build(NetSpec("digits-cnn"), (1, 12, 12), CLASSES, seed=1)
    more = build(NetSpec("digits-cnn"), (1, 8, 8), CLASSES + 1, seed=1)
    assert len({*map(text, [*nets, wider, more])}) == 3


def test_a_reading_is_no_part_of_the_identity():
    readings = BACKBONES["mobilenetv1"].taps
    nets = [
        build(NetSpec("mobilenetv1", (("reading", r),)), (3, 32, 32), CLASSES, seed=1) for r in readings
    ]
    assert len({*map(text, nets)}) == 1
    assert len({n.places for n in nets}) == len(readings) > 1


@pytest.mark.parametrize(
    ("spec", "token"),
    [
        (NetSpec("digits-cn"), "'digits-cnn'"),
        (NetSpec("torchvision/resnet18"), "3 channels"),
        (NetSpec("nowhere.py:make"), "nowhere.py"),
        (NetSpec("digits-cnn", taps=("blocks.9",)), "'blocks.9'"),
        (NetSpec("digits-cnn", taps=("layer1",)), "blocks.0"),  # `classifier` alone was named
        (NetSpec("digits-cnn", taps=("blocks.3", "blocks.1")), "order"),
        (NetSpec("digits-cnn", taps=99), "99"),
        (NetSpec("digits-cnn", taps=-1), "-1"),
        (NetSpec("digits-cnn", head=(("kind", "nlp"),)), "'nlp'"),
    ],
    ids=["name", "channels", "file", "place", "foreign place", "order", "many", "few", "head"],
)
def test_mistakes_in_a_spec(spec, token, snapshot):
    line = refusal(build, spec, (1, 8, 8), CLASSES, seed=1)
    assert token in line and line == snapshot


@pytest.mark.parametrize(  # as other versions of the libraries have other names near these
    ("spec", "token"),
    [
        (NetSpec("timm/resnet8"), "'resnet8'"),
        (NetSpec("torchvision/resnet19"), "'resnet18'"),
        (NetSpec("torchvision/fcn_resnet50"), "'fcn_resnet50'"),
        (NetSpec("timm/resnet18", (("dorp_rate", 0.1),)), "timm/resnet18"),
    ],
)
def test_mistakes_that_a_library_finds(spec, token):
    assert token in refusal(build, spec, (1, 8, 8), CLASSES, seed=1)


class _Trap:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(
    "option",
    [
        *("checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"),
        *("pretrained_strict", "pretrained_filter_fn", "pretrained_model_args"),
    ],
)
def test_timm_loads_nothing(option, tmp_path, monkeypatch, snapshot):
    """Whatever timm would do with the file: its oldest version here unpickles."""
    file, mark = tmp_path / "weights.pth", tmp_path / "ran"
    torch.save({"state_dict": _Trap(mark)}, file)

    def unpickling(_model, path, **_):
        torch.load(path, weights_only=False)

    monkeypatch.setattr("timm.models._factory.load_checkpoint", unpickling)
    spec = NetSpec("timm/resnet18", ((option, str(file)),))
    assert refusal(build, spec, (3, 32, 32), CLASSES, seed=1) == snapshot
    assert not mark.exists()


def test_timm_options_that_load_are_refused():
    """Whatever has to do with weights in the signatures of timm's factory is refused."""
    from timm.models import build_model_with_cfg, create_model

    options = {*inspect.signature(create_model).parameters}
    options |= {*inspect.signature(build_model_with_cfg).parameters}
    words = ("pretrained", "checkpoint", "cache", "path", "url", "file", "weights")
    loading = {name for name in options if any(word in name for word in words)}
    assert loading >= {"checkpoint_path", "pretrained", "cache_dir"}
    for name in loading:
        spec = NetSpec("timm/resnet18", ((name, "x"),))
        assert f"'{name}'" in refusal(build, spec, (3, 32, 32), CLASSES, seed=1)


@pytest.mark.parametrize("option", ["weights", "weights_backbone", "pretrained", "progress"])
def test_torchvision_loads_nothing(option, snapshot):
    spec = NetSpec("torchvision/resnet18", ((option, "DEFAULT"),))
    assert refusal(build, spec, (3, 32, 32), CLASSES, seed=1) == snapshot


def test_a_network_of_torchvision_takes_its_options():
    """And its public checkpoint has its names."""
    spec = NetSpec("torchvision/squeezenet1_1", (("dropout", 0.1),))
    net = build(spec, (3, 32, 32), CLASSES, seed=1)
    assert net.backbone.classifier[0].p == 0.1 and net.exits == 4
    assert identity_of(net)["options"] == {"dropout": 0.1} and identity_of(net)["code"]
    with torch.device("meta"):
        names = torchvision.models.squeezenet1_1().state_dict().keys()
    assert net.backbone.state_dict().keys() == names
    twin = build(spec, (3, 32, 32), CLASSES, seed=1)
    assert same(net.state_dict(), twin.state_dict())


def test_one_class_is_refused(snapshot):
    assert refusal(build, NetSpec("digits-cnn"), (1, 8, 8), 1, seed=1) == snapshot


def test_no_early_exit_is_the_plain_network():
    net = build(NetSpec("digits-cnn", taps=()), (1, 8, 8), CLASSES, seed=1).eval()
    x = images(net)
    assert net.exits == 1
    assert torch.equal(net(x)[0], net.backbone(x))


@pytest.mark.parametrize("kind", ["paper", "linear", "mlp"])
def test_head_settings_reach_every_exit(kind):
    net = build(NetSpec("digits-cnn", head=(("kind", kind),)), (1, 8, 8), CLASSES, seed=1)
    assert [spec.kind for spec in inside(net).head_specs] == [kind] * 3
    assert all(z.shape == (4, CLASSES) for z in net(images(net)))


def copies_answer_alike(net, plain, logits, x):
    """Copies, trunks and whatever loads its weights answer as the network does."""
    loaded = plain.carrying(inside(net).carry)
    loaded.load_state_dict(net.state_dict())
    apart, again = with_trunks(net, [0] * net.exits), net.carrying(inside(net).carry)
    for twin in (copy.deepcopy(net), apart, again, loaded):
        assert equal(twin(x), logits)
    assert net.carrying(0.0).state_dict().keys() == plain.state_dict().keys()


def test_heads_that_add_through_a_hidden_layer():
    plain = copy.deepcopy(network("digits-cnn")).eval()
    net = plain.carrying("hidden")
    x = images(net)
    assert equal(net(x), plain(x)), "begin at zero"
    with torch.no_grad():
        for head in inside(net).heads[1:]:
            for tensor in head.before.state_dict().values():
                tensor.copy_(1 + torch.rand(tensor.shape))
    logits, expected = net(x), [*plain(x)]
    for k, head in enumerate(inside(net).heads[1:], start=1):
        dense, norm, _, matrix = head.before
        read = (expected[k - 1] @ dense.weight.T - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
        expected[k] = expected[k] + (read * norm.weight + norm.bias).clamp(min=0) @ matrix.weight.T
    torch.testing.assert_close([*logits], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits[1], plain(x)[1], atol=1e-3), "the control"
    for k, width in ((1, 0), (2, inside(net).width(2)), (net.exits, 0)):
        part, more = Part("head", k), 2 * width * net.classes
        assert net.macs(part) == plain.macs(part, "hidden") == plain.macs(part) + more
    copies_answer_alike(net, plain, logits, x)
    seven, again, eight = (inside(redrawn(net, seed)).heads[1].before.dense.weight for seed in (7, 7, 8))
    assert torch.equal(seven, again) and not torch.equal(seven, eight)
    assert all(head.before.weight.shape == (5, 5) for head in inside(net.carrying("learned")).heads[1:])


def test_heads_that_have_learned_what_to_add_of_the_answer_before():
    plain = copy.deepcopy(network("digits-cnn")).eval()
    net = plain.carrying("learned")
    x = images(net)
    assert equal(net(x), plain(x)), "begin at zero"
    matrices = [head.before.weight for head in inside(net).heads[1:]]
    assert inside(net).heads[0].before is None and len(matrices) == net.exits - 2
    with torch.no_grad():
        for matrix in matrices:
            matrix.copy_(torch.randn(matrix.shape, generator=torch.Generator().manual_seed(1)))
    own, logits = plain(x), net(x)
    expected = [own[0]]
    for added_to, matrix in zip(own[1:-1], matrices, strict=True):
        expected.append(added_to + expected[-1] @ matrix.T)
    torch.testing.assert_close([*logits], [*expected, own[-1]], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(logits[1], own[1], atol=1e-3), "the control"
    for part in parts(net):
        adds = part.kind == "head" and 1 < part.index < net.exits
        more = net.classes**2 if adds else 0
        assert net.macs(part) == plain.macs(part, "learned") == plain.macs(part) + more
        assert net.macs(part, 0.0) == plain.macs(part)
        assert inside(net).parameter_count(part) == inside(plain).parameter_count(part) + more
    copies_answer_alike(net, plain, logits, x)
    assert set(net.head_keys) - set(plain.head_keys) == {
        key for key in net.state_dict() if key.endswith("before.weight")
    }
    assert equal(net.carrying(0.0)(x), own)
    drawn, usual = redrawn(net, 7), redrawn(plain, 7)
    assert not any(head.before.weight.any() for head in inside(drawn).heads[1:])
    assert all(torch.equal(drawn.state_dict()[k], v) for k, v in usual.state_dict().items())
