"""`offramp taps`."""

from __future__ import annotations

import pytest
from command import Cli, data, narrow


def test_taps(cli: Cli) -> None:
    text = narrow(cli("taps", "digits-cnn", "--input", "1x8x8"))
    starred = [line.split()[1] for line in text.splitlines() if line.startswith("*  ")]
    assert starred == ["blocks.0", "blocks.2", "blocks.4"]
    said = data(cli("taps", "digits-cnn", "--input", "1x8x8", "--json"))
    assert [row["name"] for row in said if row["default"]] == starred
    assert all(0 < row["share"] <= 1 for row in said) and said[0]["shape"] == [4, 8, 8]
    assert [row["macs"] for row in said] == sorted(row["macs"] for row in said)


@pytest.mark.parametrize("model", ["resnet18", "timm/convnext_atto"])
def test_taps_of_deep_networks_fit_the_screen(cli: Cli, model: str) -> None:
    narrow(cli("taps", model))
