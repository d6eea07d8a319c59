"""`offramp strategies`."""

from pathlib import Path

import pytest
from command import Cli, data, narrow, ok

from offramp.strategies import GROUPS, STRATEGIES

OVERRIDES = """\
from offramp import CE, Phase, backbone
def mine(exits):
    recipe = {'optimizer': 'adam', 'epochs': 5, 'patience': None, 'step_at': (0.5, 0.9)}
    return (Phase('all', backbone(exits), (CE(exits),), recipe=recipe),)
"""
SUMMARY = "Only the last exit."
LAST = f'''\
"""Mine."""
from offramp.phase import CE, Phase
from offramp.parts import heads, segments
def last(exits, *, weight: float = 1.0):
    """{SUMMARY}"""
    all = segments(1, exits) | heads(exits, exits)
    return (Phase("all", all, (CE(exits, weight),)),)
'''


def test_strategies(cli: Cli) -> None:
    text = narrow(cli("strategies"))
    lines = [line.strip() for line in text.splitlines() if line[:1].isalpha()]
    told = [line.split()[0] for line in lines if line not in GROUPS]  # one is called as its strategy
    assert [word for word in told if word in STRATEGIES] == [*STRATEGIES]
    assert [group for group in GROUPS if f"\n{group}" in f"\n{text}"] == [*GROUPS]
    said = data(cli("strategies", "--json"))
    assert [row["name"] for row in said] == [*STRATEGIES] and all(row["summary"] for row in said)
    costs = {row["name"]: row["cost"] for row in said}
    assert costs["joint"] == costs["baseline"] == costs["two-stage"] == costs["imta"] == 1
    assert costs["separate"] == (1 + 2 + 3 + 4) / 4 and costs["branch-wise"] == 1
    assert costs["mixed"] == 2 and costs["sequential"] == 4


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_explained(cli: Cli, name: str) -> None:
    for exits in (1, 4, 6) if name == "joint" else (4,):
        text = narrow(cli("strategies", name, "--exits", exits))
        assert f"strategies/{name.replace('-', '_')}.py" in text.replace("\n", "")
        said = data(cli("strategies", name, "--exits", exits, "--json"))
        assert said["phases"] and f"head {exits}" in said["phases"][-1]["trains"] + [f"head {exits}"]
        assert not any(set(p["trains"]) & set(p["frozen"]) for p in said["phases"])


def test_whatever_a_phase_overrides_is_told(cli: Cli) -> None:
    Path("mine.py").write_text(OVERRIDES)
    told = (("optimizer", "adam"), ("epochs", "5"), ("patience", "none"), ("step_at", "0.5, 0.9"))
    text = cli("strategies", "mine.py:mine").out  # the path of the file may be a long one
    assert cli("strategies", "mine.py:mine", "--picture", "mine.svg").code == 0
    drawn = Path("mine.svg").read_text()
    for field, word in told:
        assert f"{field} {word}" in text and f"{field} {word}" in drawn


def test_a_strategy_of_ones_own_is_explained(cli: Cli) -> None:
    Path("mine.py").write_text(LAST)
    text = ok(cli("strategies", "mine.py:last")).out  # the path of the file may be a long one
    assert SUMMARY in text and "weight = 1.0" in text and "mine.py" in text
