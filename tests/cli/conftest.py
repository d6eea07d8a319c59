from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from offramp.cli import main

STUDY = """\
seeds: [1, 2]
strategies: [baseline, joint, two-stage]
backbone: digits-cnn
exits: {taps: [blocks.0, blocks.2], head: linear}
data: {name: digits, train_images: 200, test_images: 100}
recipe: {epochs: 2, learning_rate: 0.01}
"""


@dataclass(frozen=True)
class Answer:
    """What a command said: its exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Cli = Callable[..., Answer]


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> Answer:
    """The entry point in this process, as the shell starts it."""
    before = sys.argv
    sys.argv = ["offramp", *map(str, arguments)]
    capsys.readouterr()
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    finally:
        sys.argv = before
    said = capsys.readouterr()
    return Answer(code, said.out, said.err)


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Cli:
    """`cli("run", "s.yaml")` in an empty folder, on a screen of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    return lambda *arguments: call(capsys, *arguments)
