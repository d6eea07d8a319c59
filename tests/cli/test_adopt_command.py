"""`offramp build --adopt`: a checkpoint and the code of a network with exits become a bundle."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Cli, ok, refusal
from PIL import Image
from torch import nn

from offramp.bundle.runtime import Bundle

CODE = """
from torch import nn


class Two(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(4, 8, 3, 2), nn.ReLU())
        self.early, self.late = nn.Linear(4, classes), nn.Linear(8, classes)

    def forward(self, x):
        x = self.stem(x)
        return [self.early(x.mean((2, 3))), self.late(self.body(x).mean((2, 3)))]


def make_net(classes):
    return Two(classes)


def make_plain(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(768, classes))
"""
COLORS = {"blue": (20, 20, 160), "green": (20, 160, 20), "red": (160, 20, 20)}
WORDS = ("build", "--backbone", "my.py:make_net", "--weights", "trained.pth", "--adopt", "--out", "b")
DATA = ("--data", "folder:unseen", "--normalize", "unit")
WHOLE = "the whole test split"


def write_images(folder: Path, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`count` noisy images of each color; as tensors, too."""
    rng, images = np.random.default_rng(seed), []
    for name, color in COLORS.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 90, (16, 16, 3), dtype=np.uint8) + np.array(color, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
            images.append(torch.from_numpy(pixels).permute(2, 0, 1))
    return torch.stack(images), torch.arange(3).repeat_interleave(count)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with code, a checkpoint as a loop under DDP would save it, and images."""
    monkeypatch.chdir(tmp_path)
    Path("my.py").write_text(CODE)
    space: dict[str, type[nn.Module]] = {}
    exec(CODE, space)
    images, labels = write_images(Path("seen"), 40, seed=0)
    write_images(Path("unseen"), 90, seed=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = space["Two"](3)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
        for _ in range(60):
            losses = [nn.functional.cross_entropy(a, labels) for a in module(images / 255)]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
    state = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    torch.save({"epoch": 60, "state_dict": {**state, "module.gone": torch.zeros(3)}}, "trained.pth")
    return tmp_path


@pytest.mark.journey
def test_a_checkpoint_becomes_a_bundle(cli: Cli, here: Path) -> None:
    answer = ok(cli(*WORDS, *DATA, "--max-accuracy-loss", "0.05", "--json"))
    card = json.loads(answer.out)["card"]
    assert card["training"]["program"] == "adopted" and card["network"]["backbone"] == "Two"
    for said in ("8 of 8 tensors", "from trained.pth; ", "passed over 1 other", " in it: gone"):
        assert said in answer.out
    counts = card["data"]["provenance"]["images"]
    assert counts["train"] == 0 and sum(counts.values()) == 270  # every image, none kept for training
    assert card["test"]["accuracy"]["value"] > 0.9
    picture = np.asarray(Image.open(here / "unseen" / "red" / "0.png"))[None]
    assert Bundle(here / "b").predict(picture).classes.tolist() == [2]
    assert card["notes"] == [] or all(answer.err.count(note) == 0 for note in card["notes"])
    trial, store = card["trial"], ("--store", "runs/build")
    assert cli("show", trial, *store).code == 0
    untold = cli("predict", trial, "unseen/red/0.png", *store)
    assert untold.code == 2 and "add --trust-code" in untold.err
    trusted = (*store, "--trust-code")
    again = cli("calibrate", trial, *trusted, "--max-mean-macs", "99%", "--anyway")
    assert again.code == 0 and "policy.json" in again.out
    policy = ("--policy", "policy.json")
    assert cli("predict", trial, "unseen/red/0.png", *trusted, *policy).code == 0
    assert ",red," in Path("answers.csv").read_text()
    ok(cli("export", trial, *trusted, *policy, "--out", "other", "--anyway", "--json"))
    check = json.loads((here / "other" / "card.json").read_text())["check"]
    assert check["what"] == WHOLE and check["images"] == counts["test"]


def test_official_splits_are_kept_apart(cli: Cli, here: Path) -> None:
    """Of a folder with train, val and test, what is called train calibrates nothing."""
    for name, seed in (("train", 2), ("val", 3), ("test", 4)):
        write_images(here / "split" / name, 40, seed)
    answer = ok(cli(*WORDS, "--data", "folder:split", "--normalize", "unit", "--anyway", "--json"))
    built = json.loads(answer.out)
    card, line = built["card"], built["reasons"][-1]
    counts = card["data"]["provenance"]["images"]
    assert line.startswith("no limit was") and "0.011, as 90 calibration" in line
    assert line[1:] in card["calibration"]["statement"] and card["unreliable"] == []
    assert counts["train"] == counts["test"] == 120
    assert counts["calibration"] + counts["validation"] == 120


REFUSED = {
    "no-normalization": ("--data", "folder:unseen"),
    "another-network": (*DATA, "--weights", "other.pth"),
    "no-exits": (*DATA, "--backbone", "my.py:make_plain", "--weights", "plain.pth"),
    "of-training": (*DATA, "--strategy", "joint"),
    "dry-run": (*DATA, "--dry-run"),
}


@pytest.mark.parametrize("more", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_built(cli: Cli, here: Path, more: tuple[str, ...], snapshot: object) -> None:
    torch.save({"stem.0.weight": torch.zeros(4, 3, 3, 3)}, here / "other.pth")
    torch.save({"1.weight": torch.zeros(3, 768), "1.bias": torch.zeros(3)}, here / "plain.pth")
    assert refusal(cli(*WORDS, *more)) == snapshot
