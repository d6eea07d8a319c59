"""Every example of the guide to one's own loop runs as it stands, on scikit-learn's digits."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import offramp
from offramp.device import seeded

GUIDE = (Path(__file__).parents[1] / "docs" / "own-loop.md").read_text(encoding="utf-8")
SECTIONS = {
    title: re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    for title, body in re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", GUIDE, re.MULTILINE | re.DOTALL)
}
NEEDED = {
    "timm": ["timm"],
    "torchvision": ["torchvision"],
    "Lightning": ["pytorch_lightning"],
    "Hugging Face's Trainer": ["transformers", "accelerate"],
    "Accelerate": ["accelerate"],
}


class Digits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.layer3 = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[no-any-return]


class OwnExits(Digits):
    def __init__(self) -> None:
        super().__init__()
        self.early = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Any:
        x = self.layer1(x)
        return {"early": self.early(x), "late": self.fc(self.layer3(self.layer2(x)))}


@pytest.mark.journey
@pytest.mark.filterwarnings("ignore")  # of the libraries, which change
@pytest.mark.parametrize("title", [title for title, blocks in SECTIONS.items() if blocks])
def test_an_example_runs(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in NEEDED.get(title, []):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:512, None] / 16
    train_data = TensorDataset((images - 0.3) / 0.4, torch.tensor(digits.target)[:512])
    with seeded(0):
        net = offramp.attach(Digits(), ["layer1", "layer2"], (1, 8, 8), head="linear")
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        names = {
            "torch": torch,
            "offramp": offramp,
            "net": net,
            "their_module": OwnExits(),
            "train_data": train_data,
            "loader": DataLoader(train_data, 64, shuffle=True, drop_last=True),
        }
        theirs = {name: tensor.clone() for name, tensor in names["their_module"].state_dict().items()}
        for block in SECTIONS[title]:
            exec(block, names)
    state = net.state_dict() if "their_module" not in "".join(SECTIONS[title]) else None
    if state is None:
        state, before = names["their_module"].state_dict(), theirs
    assert not torch.equal(state["fc.2.weight"], before["fc.2.weight"])
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values())


def test_every_section_with_code_is_looked_at() -> None:
    assert NEEDED.keys() <= SECTIONS.keys() and all(SECTIONS[title] for title in NEEDED)
    assert len(SECTIONS["By hand"]) == 3
