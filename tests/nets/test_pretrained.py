"""Weights from files and libraries: what is loaded, what is drawn anew, and what is refused."""

import json
import os
import socket
import zipfile
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from network_kit import identity_of, same
from torchvision import models

from offramp.data import DataSpec, load, normalize
from offramp.nets import NetSpec, build, pretrained
from offramp.nets.network import inside, redrawn
from offramp.nets.pretrained import read
from wording import refusal

SHAPE = (1, 8, 8)
REAL = "mobilenet_v2-b0353104.pth"
IMAGENETTE = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)  # of the 1,000, by sorted WordNet id


def digits_net(classes=3, seed=1, weights=None, **more):
    return build(NetSpec("digits-cnn", weights=weights, **more), SHAPE, classes, seed)


@pytest.fixture
def state():
    return inside(digits_net(seed=7)).trunks[0].module.state_dict()


def saved(path: Path, value) -> str:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(value, path)
    else:
        torch.save(value, path)
    return str(path)


@pytest.mark.parametrize(
    ("name", "wrapped"),
    [
        ("a.safetensors", lambda s: s),
        ("a.pth", lambda s: s),
        ("a.pt", lambda s: {"state_dict": s, "epoch": 3}),
        ("a.ckpt", lambda s: {"model": {f"module.{k}": v for k, v in s.items()}}),
        ("last.ckpt", lambda s: {"state_dict": {f"model.{k}": v for k, v in s.items()}}),
        ("a.pt", lambda s: {"ema": 0.9, "state_dict_ema": s, "optimizer": {"state": {0: {}}}}),
        ("a.pth", lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()}),
        ("a.pth", lambda s: {"net": {k.replace(".", "._orig_mod.", 1): v for k, v in s.items()}}),
        ("model_best.pth.tar", lambda s: {"epoch": 3, "best": np.float64(0.9), "state_dict": s}),
        ("a.pth", lambda s: {"args": Namespace(lr=1.0, at=Path("x")), "history": np.ones(3), **s}),
    ],
)
def test_every_form_of_file(name, wrapped, state, tmp_path):
    net = digits_net(weights=saved(tmp_path / name, wrapped(state)))
    assert same(net.backbone.state_dict(), state)
    assert inside(net).arrives_trained and inside(net).facts.initial == f"{len(state)} tensors loaded"
    assert same(redrawn(net, 5).backbone.state_dict(), state)  # they stand for every draw
    other = digits_net(weights=saved(tmp_path / "b.safetensors", state))
    assert identity_of(net) == identity_of(other)  # the content counts, not the file


def test_the_content_identifies(state, tmp_path):
    net = digits_net(weights=saved(tmp_path / "a.pth", state))
    next(iter(state.values()))[0] += 1e-6
    other = digits_net(weights=saved(tmp_path / "b.pth", state))
    assert identity_of(net) != identity_of(other)
    assert "weights" not in identity_of(digits_net())


def test_other_classes_get_a_classifier_of_their_own(state, tmp_path, snapshot):
    net = digits_net(classes=5, weights=saved(tmp_path / "a.pth", {**state, "extra": torch.zeros(2)}))
    own = net.backbone.state_dict()
    drawn = [k for k, v in own.items() if v.shape != state[k].shape]
    assert drawn and not inside(net).arrives_trained
    assert all(torch.equal(own[k], state[k]) for k in own if k not in drawn)
    plain = inside(digits_net(classes=5)).trunks[0].module.state_dict()
    assert all(torch.equal(own[k], plain[k]) for k in drawn)  # drawn from the seed as ever
    assert inside(net).facts.initial == snapshot and all(k in inside(net).facts.initial for k in drawn)


def test_a_missing_or_misshapen_tensor_is_named(state, tmp_path, snapshot):
    names = list(state)
    deep = next(n for n in names[2:] if state[n].dim() == 4)
    lacking = {k: v for k, v in state.items() if k != deep}
    assert refusal(digits_net, weights=saved(tmp_path / "a.pth", lacking)) == snapshot
    wide = {"model": {f"net.{k}": v for k, v in {**state, deep: torch.zeros(2, 2)}.items()}}
    assert refusal(digits_net, weights=saved(tmp_path / "b.pth", wide)) == snapshot
    strange = saved(tmp_path / "e.pth", {"conv1.weight": torch.zeros(1)})
    assert refusal(digits_net, weights=strange) == snapshot
    counted = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert inside(digits_net(weights=saved(tmp_path / "c.pth", counted))).arrives_trained
    stem = digits_net(weights=saved(tmp_path / "d.pth", {**state, names[0]: torch.zeros(1)}))
    assert not inside(stem).arrives_trained and f"drawn anew: {names[0]}" in inside(stem).facts.initial


def test_what_trained_is_taken_and_its_average_is_named(state, tmp_path):
    both = {"state_dict_ema": {k: v + 1 for k, v in state.items()}, "state_dict": state}
    net = digits_net(weights=saved(tmp_path / "a.pth", both))
    assert same(net.backbone.state_dict(), state)
    assert inside(net).facts.initial.endswith("state_dict_ema")


def test_an_adopted_network_is_filled_with_what_trained_too(state, tmp_path):
    average = {name: tensor + 1 for name, tensor in state.items()}
    file = saved(tmp_path / "a.pt", {"state_dict_ema": average, "state_dict": state})
    module = digits_net().backbone
    pretrained.fill(module, file)
    assert same(module.state_dict(), state)


@pytest.mark.filterwarnings("ignore")  # of torch, that it will store these otherwise
@pytest.mark.parametrize("kind", ["sparse", "meta", "quantized"])
def test_tensors_without_a_number_each_are_as_if_they_were_not_there(kind, state, tmp_path):
    """Only torch itself said so, in a traceback."""
    name = next(n for n in state if state[n].dim() == 4)
    odd = {
        "sparse": torch.Tensor.to_sparse,
        "meta": lambda tensor: tensor.to("meta"),
        "quantized": lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    }[kind](state[name])
    file = saved(tmp_path / "a.pth", {**state, name: odd})
    assert f"they lack {name}" in refusal(pretrained.fill, digits_net().backbone, file)
    assert "tensors of" in refusal(digits_net, weights=file)


def test_weights_that_unpack_to_more_than_their_file_are_not_unpacked(state, tmp_path, snapshot):
    """3 MB took 3 GB, and torch packs nothing."""
    file = saved(tmp_path / "a.pth", {**state, "more": torch.zeros(2**20)})
    with zipfile.ZipFile(file) as whole:
        parts = {part.filename: whole.read(part) for part in whole.infolist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in parts.items():
            packed.writestr(name, content)
    assert refusal(read, file, "") == snapshot


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_checkpoint_in_several_files(kind, state, tmp_path, snapshot):
    names = [f"model-{n}-of-00002.{kind}" for n in ("00001", "00002")]
    where = {key: names[n % 2] for n, key in enumerate(state)}
    for name in names:
        part = {k: v for k, v in state.items() if where[k] == name}
        file = saved(tmp_path / f"{name}.safetensors" if kind != "bin" else tmp_path / name, part)
        Path(file).rename(tmp_path / name)
    index = tmp_path / f"model.{kind}.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    whole = digits_net(weights=saved(tmp_path / "whole.pth", state))
    for source in (index, tmp_path / names[1]):  # one of the files stands for all
        assert identity_of(digits_net(weights=str(source))) == identity_of(whole)
    (tmp_path / names[1]).unlink()
    assert refusal(digits_net, weights=str(index)) == snapshot
    outside = b'{"weight_map": {"a": "../b.bin"}}'
    for text, message in ((outside, "lies outside"), (b"[]", "is no index")):
        index.write_bytes(text)
        assert message in refusal(digits_net, weights=str(index))


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.pth", lambda p: torch.save({"w": _Bomb()}, p), "(posix.mkdir)"),
        ("a.pth", lambda p: p.write_bytes(b"PK\x03\x04 no zip"), "cannot be read"),
        ("a.pth", lambda p: p.write_bytes(b""), "cannot be read"),
        ("a.pth", lambda p: torch.save([1, 2], p), "a list"),
        ("a.pth", lambda p: torch.save({"w": 3}, p), "a dict"),
        ("a.safetensors", lambda p: p.write_bytes(b"x" * 40), "no safetensors"),
        ("a.h5", lambda p: p.write_bytes(b"x"), "end in"),
        ("a.pth", Path.exists, "no weights"),
    ],
)
def test_a_file_that_is_no_weights_is_one_line(name, make, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    line = refusal(read, str(tmp_path / name), "resnet18")
    assert message in line and "\n" not in line
    assert not (tmp_path / "exploded").exists()


@pytest.mark.usefixtures("empty_cache")
def test_what_lies_in_the_cache_as_public_weights_runs_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    name = models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    torch.save({"conv1.weight": _Bomb()}, place / name)
    assert "cannot be had" in refusal(read, "imagenet", "resnet18")
    assert not (tmp_path / "exploded").exists()


def offline(*_, **__):
    raise OSError("no route to host")


@pytest.fixture
def online(monkeypatch):
    """A server that answers."""
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: nullcontext())


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("backbone", "server"),
    [("resnet18", "download.pytorch.org"), ("timm/resnet18", "huggingface.co")],
)
@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.usefixtures("empty_cache")
def test_a_server_is_contacted_once_and_not_for_long(backbone, server, silent, monkeypatch, snapshot):
    """What the libraries do instead: they try for a minute and a half."""
    monkeypatch.setattr(pretrained, "REACHED", 0.01 if silent else 60.0)
    end = Event()

    def silence(*_, **__):
        end.wait(60)
        offline()

    monkeypatch.setattr(socket, "create_connection", silence if silent else offline)
    monkeypatch.setattr(timm, "create_model", None)
    monkeypatch.setattr(models.ResNet18_Weights.DEFAULT.__class__, "get_state_dict", None)
    line = refusal(read, "imagenet", backbone)
    assert server in line and line == snapshot
    end.set()


@pytest.mark.usefixtures("empty_cache")
def test_a_proxy_is_contacted_in_place_of_the_server(monkeypatch, snapshot):
    places = []
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setattr(
        socket, "create_connection", lambda place, **_: places.append(place) or offline()
    )
    assert refusal(read, "imagenet", "resnet18") == snapshot
    assert places == [("proxy.example", 3128)]


@pytest.mark.usefixtures("empty_cache", "online")
def test_public_weights_that_cannot_be_had_are_an_error(monkeypatch, snapshot):
    monkeypatch.setattr(models.ResNet18_Weights.DEFAULT.__class__, "get_state_dict", offline)
    assert refusal(build, NetSpec("resnet18", weights="imagenet"), (3, 32, 32), 10, 0) == snapshot
    assert refusal(digits_net, weights="imagenet") == snapshot
    assert refusal(digits_net, weights="imagnet") == snapshot


@pytest.mark.parametrize("name", ["timm/botnet50ts_256", "timm/resnet19", "torchvision/resnet19"])
@pytest.mark.usefixtures("empty_cache")
def test_what_nobody_publishes_is_told_without_a_connection(name, monkeypatch, snapshot):
    """timm knows some 220 models of which it has no weights."""
    monkeypatch.setattr(socket, "create_connection", None)
    assert refusal(read, "imagenet", name) == refusal(pretrained.published, name) == snapshot
    assert pretrained.at_hand("imagenet", name) is None


@pytest.mark.usefixtures("empty_cache", "online")
def test_public_weights(monkeypatch):
    net, calls = models.resnet18(), []

    def state(_, **how):
        calls.append(how)
        return net.state_dict()

    monkeypatch.setattr(models.ResNet18_Weights.DEFAULT.__class__, "get_state_dict", state)
    built = build(NetSpec("resnet18", weights="imagenet"), (3, 64, 64), 1000, 0).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(built(x)[-1], net.eval()(x))
    assert calls == [{"progress": False, "check_hash": True, "weights_only": True}]  # no pickles


def test_real_imagenet_weights():
    """MobileNetV2's own, 1,000-way, on the images of Imagenette: about 71 % are right."""
    shared = Path(os.environ.get("OFFRAMP_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    folder = os.environ.get("OFFRAMP_TEST_WEIGHTS")
    weights = Path(folder) / REAL if folder else shared / "weights" / REAL
    if not weights.is_file() or not (shared / "imagenette").is_dir():
        pytest.skip(f"needs {REAL} in $OFFRAMP_TEST_WEIGHTS and imagenette in $OFFRAMP_TEST_DATA")
    net = build(NetSpec("mobilenetv2", weights=str(weights)), (3, 224, 224), 1000, 0).eval()
    assert inside(net).facts.initial == "314 tensors loaded" and inside(net).arrives_trained
    spec = DataSpec(
        "folder", str(shared / "imagenette"), size=224, resize=256, normalize="imagenet", train_images=40
    )
    data = load(spec)
    split = data.validation  # Imagenette calls it val
    assert len(split) == 400
    mean, std = torch.tensor(data.mean), torch.tensor(data.std)
    right = 0
    with torch.inference_mode():
        for images, labels in zip(split.images.split(50), split.labels.split(50), strict=True):
            answers = net(normalize(images, mean, std))[-1].argmax(1)
            right += int((answers == torch.tensor(IMAGENETTE)[labels]).sum())
    assert abs(right / 400 - 0.71) <= 0.01


def test_public_weights_at_hand_are_read_without_contacting_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = timm.create_model("mobilenetv1_100").state_dict()
    file = saved(tmp_path / "timm.pth", state)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: file)
    monkeypatch.setattr(socket.socket, "connect", None)
    sets = read("imagenet", "mobilenetv1")
    assert all(torch.equal(sets[""][name], tensor) for name, tensor in state.items())
