"""`offramp taps`."""

from pathlib import Path

import pytest
from command import Cli, data, narrow
from syrupy.assertion import SnapshotAssertion

from longer import long


def test_taps(cli: Cli) -> None:
    text = narrow(cli("taps", "digits-cnn", "--input", "1x8x8"))
    starred = [line.split()[1] for line in text.splitlines() if line.startswith("*  ")]
    assert starred == ["blocks.0", "blocks.2", "blocks.4"]
    said = data(cli("taps", "digits-cnn", "--input", "1x8x8", "--json"))
    assert [row["name"] for row in said if row["default"]] == starred
    assert all(0 < row["share"] <= 1 for row in said) and said[0]["shape"] == [4, 8, 8]
    assert [row["macs"] for row in said] == sorted(row["macs"] for row in said)


CHOICE = """
from torch import nn

class Choice(nn.Sequential):
    def forward(self, x):
        return super().forward(x if x.sum() > -1e9 else -x)

def make_net(classes):
    layers = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, classes)
    return nn.Sequential(Choice(layers[0]), *layers[1:])
"""


def test_taps_of_ones_own_choice_are_starred_and_told(
    cli: Cli, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    file = tmp_path / "net.py"
    file.write_text(CHOICE)
    text = narrow(cli("taps", "digits-cnn", "--input", "1x8x8", "--exits", "25%, blocks.3"))
    assert text == snapshot
    lists = "[['0'], ['1', '2'], ['3', '4']]"
    said = data(cli("taps", f"{file}:make_net", "--input", "1x8x8", "--exits", lists, "--json"))
    assert [(row["name"], row["why"]) for row in said] == [("0", "as asked"), ("1", None)]


@pytest.mark.parametrize(
    "words", ["resnet18 --input 3x112x112", *long("resnet18", "timm/convnext_atto")]
)
def test_taps_of_deep_networks_fit_the_screen(cli: Cli, words: str) -> None:
    narrow(cli("taps", *words.split()))
