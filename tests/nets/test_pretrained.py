"""Weights that are given: what is loaded, what is drawn anew, and what is refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torchvision import models

from offramp.data import DataSpec, load, normalize
from offramp.errors import OfframpError
from offramp.nets import NetSpec, build
from offramp.nets.pretrained import read
from refusal import refuses

SHAPE = (1, 8, 8)
REAL = "mobilenet_v2-b0353104.pth"
IMAGENETTE = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)  # of the 1,000, by sorted WordNet id


def digits_net(classes=3, seed=1, weights=None, **more):
    return build(NetSpec("digits-cnn", weights=weights, **more), SHAPE, classes, seed)


@pytest.fixture
def state():
    return digits_net(seed=7).trunks[0].module.state_dict()


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
    ],
)
def test_every_form_of_file(name, wrapped, state, tmp_path):
    net = digits_net(weights=saved(tmp_path / name, wrapped(state)))
    got = net.trunks[0].module.state_dict()
    assert all(torch.equal(got[k], v) for k, v in state.items())
    assert net.arrives_trained and net.initial == f"{len(state)} tensors loaded"
    again = net.redrawn(5).trunks[0].module.state_dict()  # they stand for every draw
    assert all(torch.equal(again[k], v) for k, v in state.items())
    other = digits_net(weights=saved(tmp_path / "b.safetensors", state))
    assert net.identity == other.identity  # the content counts, not the file


def test_the_content_identifies(state, tmp_path):
    one = digits_net(weights=saved(tmp_path / "a.pth", state))
    state["blocks.0.0.weight" if "blocks.0.0.weight" in state else next(iter(state))][0] += 1e-6
    other = digits_net(weights=saved(tmp_path / "b.pth", state))
    assert one.identity != other.identity and "weights" not in digits_net().identity


def test_other_classes_get_a_classifier_of_their_own(state, tmp_path):
    net = digits_net(classes=5, weights=saved(tmp_path / "a.pth", {**state, "extra": torch.zeros(2)}))
    own = net.trunks[0].module.state_dict()
    drawn = [k for k, v in own.items() if v.shape != state[k].shape]
    assert drawn and not net.arrives_trained
    assert all(torch.equal(own[k], state[k]) for k in own if k not in drawn)
    plain = digits_net(classes=5).trunks[0].module.state_dict()
    assert all(torch.equal(own[k], plain[k]) for k in drawn)  # drawn from the seed as ever
    assert net.initial.endswith(f"drawn anew: {', '.join(drawn)}; in the file and not used: extra")


def test_a_missing_or_misshapen_tensor_is_named(state, tmp_path):
    names = list(state)
    deep = next(n for n in names[2:] if state[n].dim() == 4)
    lacking = {k: v for k, v in state.items() if k != deep}
    with pytest.raises(OfframpError, match=rf"of another network: they lack '{deep}'"):
        digits_net(weights=saved(tmp_path / "a.pth", lacking))
    wide = {**state, deep: torch.zeros(2, 2)}
    with pytest.raises(OfframpError, match=rf"do not fit: '{deep}' is \[2, 2\] there and"):
        digits_net(weights=saved(tmp_path / "b.pth", wide))
    counted = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert digits_net(weights=saved(tmp_path / "c.pth", counted)).arrives_trained
    stem = digits_net(weights=saved(tmp_path / "d.pth", {**state, names[0]: torch.zeros(1)}))
    assert not stem.arrives_trained and f"drawn anew: {names[0]}" in stem.initial


class _Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.pth", lambda p: torch.save({"w": _Bomb()}, p), "running code from a file is refused"),
        ("a.pth", lambda p: p.write_bytes(b"PK\x03\x04 no zip"), "cannot be read as weights"),
        ("a.pth", lambda p: p.write_bytes(b""), "cannot be read as weights"),
        ("a.pth", lambda p: torch.save([1, 2], p), "holds a list; give a state_dict"),
        ("a.pth", lambda p: torch.save({"w": 3}, p), "holds 'w', which is no tensor"),
        ("a.safetensors", lambda p: p.write_bytes(b"x" * 40), "is no safetensors file"),
        ("a.h5", lambda p: p.write_bytes(b"x"), "ends in none of .safetensors, .pth"),
        ("a.pth", Path.exists, "there are no weights"),
    ],
)
def test_a_file_that_is_no_weights_is_one_line(name, make, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    with pytest.raises(OfframpError) as raised:
        read(str(tmp_path / name), "resnet18")
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "exploded").exists()


def test_public_weights_that_cannot_be_had_are_an_error(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(models.ResNet18_Weights.DEFAULT.__class__, "get_state_dict", offline)
    with pytest.raises(OfframpError, match=r"torchvision/resnet18 cannot be had \(no route to host\)"):
        build(NetSpec("resnet18", weights="imagenet"), (3, 32, 32), 10, 0)
    refuses("there are no public weights of 'digits-cnn'", digits_net, weights="imagenet")
    refuses("did you mean 'imagenet'", digits_net, weights="imagnet")


def test_public_weights(monkeypatch):
    net = models.resnet18()
    monkeypatch.setattr(
        models.ResNet18_Weights.DEFAULT.__class__, "get_state_dict", lambda *_, **__: net.state_dict()
    )
    made = build(NetSpec("resnet18", weights="imagenet"), (3, 64, 64), 1000, 0).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(made(x)[-1], net.eval()(x))


def test_real_imagenet_weights():
    """MobileNetV2's own, 1,000-way, on the images of Imagenette: about 71 % are right."""
    shared = Path(os.environ.get("OFFRAMP_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
    given = os.environ.get("OFFRAMP_TEST_WEIGHTS")
    weights = Path(given) / REAL if given else shared / "weights" / REAL
    if not weights.is_file() or not (shared / "imagenette").is_dir():
        pytest.skip(f"needs {REAL} in $OFFRAMP_TEST_WEIGHTS and imagenette in $OFFRAMP_TEST_DATA")
    net = build(NetSpec("mobilenetv2", weights=str(weights)), (3, 224, 224), 1000, 0).eval()
    assert net.initial == "314 tensors loaded" and net.arrives_trained
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


def test_public_weights_at_hand_are_read_without_asking_the_hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = timm.create_model("mobilenetv1_100").state_dict()
    file = saved(tmp_path / "timm.pth", state)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: file)
    monkeypatch.setattr(socket.socket, "connect", None)
    found = read("imagenet", "mobilenetv1")
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())
