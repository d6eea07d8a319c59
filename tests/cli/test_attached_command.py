"""Trials of networks attached in Python, from the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command import Cli, data, ok, refused
from PIL import Image
from torch import Tensor, nn

import offramp
from longer import long

RECIPE = {"epochs": 4, "batch_size": 16, "optimizer": "adam", "learning_rate": 0.01}
NET = """
from torch import nn

def make_net(classes):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, classes),
    )
"""
NAME = "my.py:make_net"
TARGET = ("--max-accuracy-loss", "0.2", "--anyway", "--out", "p.json")


def data_set() -> tuple[Tensor, Tensor]:
    """Images that get brighter with their class."""
    labels = torch.arange(240) % 3
    noise = torch.rand(240, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 100
    return (noise + 60 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels


def pictures(folder: Path) -> Path:
    folder.mkdir()
    for i, image in enumerate(data_set()[0][:3]):
        Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    return folder


def test_a_module_at_hand_is_calibrated_reported_and_predicted_with(cli: Cli, tmp_path: Path) -> None:
    space: dict[str, Callable[[int], nn.Module]] = {}
    exec(NET, space)
    net = offramp.attach(space["make_net"](3), "2", (1, 8, 8), head="linear")
    fitted = offramp.fit(net, "two-stage", train=data_set(), recipe=RECIPE, store="runs")
    assert cli("calibrate", fitted.trial, "runs", *TARGET).code == 0
    made = cli("report", "runs", "--out", "report", "--format", "none")
    assert made.code == 0 and Path("report/index.html").is_file()
    images = fitted.normalize(data_set()[0])
    found = offramp.predictor(offramp.load(fitted.trial, "runs", net=net), "p.json")(images)
    assert torch.equal(found.classes, fitted.predict(images, "p.json").classes)
    answer = cli("predict", fitted.trial, pictures(tmp_path / "photos"), "--policy", "p.json")
    refused(answer, f"offramp.attach('{NAME}', …)")


@pytest.mark.journey
@pytest.mark.parametrize(
    "exits", [[["0", "1", "2"], ["3", "4"], ["5", "6"]], *long(["2"])], ids=["lists", "place"]
)
def test_a_module_with_a_name_goes_all_the_way(cli: Cli, tmp_path: Path, exits: object) -> None:
    Path("my.py").write_text(NET)
    net = offramp.attach(NAME, exits, (1, 8, 8), classes=3, head="linear")
    fitted = offramp.fit(net, "two-stage", train=data_set(), recipe=RECIPE, store="runs")
    trial = fitted.trial
    assert cli("calibrate", trial, "runs", "--trust-code", *TARGET).code == 0
    words = ("--policy", "p.json", "--trust-code")
    ok(cli("export", trial, "runs", *words, "--out", "bundle", "--no-measure", "--anyway"))
    photos = pictures(tmp_path / "photos")
    by_bundle = data(cli("predict", "bundle", photos, "--json"))
    assert (by_bundle["images"], by_bundle["damaged"]) == (3, [])
    assert cli("predict", trial, photos, *words).code == 0
