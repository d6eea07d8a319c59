"""What functions show while they work, called from Python: on a terminal, in a notebook, elsewhere."""

from __future__ import annotations

import logging
import sys
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import offramp
from offramp import Recipe
from offramp.api.progress.log import FRAME_S, Frame
from refusal import refuses

STUDY = {
    "seeds": [1],
    "strategies": ["two-stage"],
    "backbone": "digits-cnn",
    "data": {"name": "digits", "train_images": 120},
    "recipe": {"epochs": 2},
}


def trained(store: Path, watch: Any = None) -> None:
    offramp.run(STUDY, store=store, watch=watch)


def fitted(recipe: Recipe, watch: Any = None) -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3))
    labels = torch.arange(300) % 3
    images = torch.randint(0, 255, (300, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    net = offramp.attach(module, exits=["0"], input_shape=(1, 8, 8))
    train = (images.to(torch.uint8), labels)
    offramp.fit(net, "two-stage", train=train, recipe=recipe, watch=watch)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


class FakeKernel:
    """IPython in the kernel of a notebook; what its cell shows, one after another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[str] = []
        display = SimpleNamespace(display=self.display)
        ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=self), display=display)
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", display)

    def display(self, bundle: dict[str, str], *, raw: bool, display_id: bool) -> FakeKernel:
        assert raw and display_id and not self.shown
        self.update(bundle, raw=raw)
        return self

    def update(self, bundle: dict[str, str], *, raw: bool) -> None:
        assert raw and unescape(bundle["text/html"]) == f"<pre>{bundle['text/plain']}</pre>"
        self.shown.append(bundle["text/plain"])


def test_a_terminal_shows_what_the_command_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    on_a_terminal(monkeypatch)
    trained(tmp_path)
    out, err = capsys.readouterr()
    assert out == ""
    assert "4/4 phases" in err and "━" in err and "left" in err
    assert "[1/4] seed 1 · two-stage · backbone · " in err and "\x1b[2K" in err
    fitted(Recipe(epochs=1))
    assert "2/2 phases" in capsys.readouterr().err


def test_a_notebook_shows_it_in_one_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = FakeKernel(monkeypatch)
    trained(tmp_path)
    first, last = kernel.shown[0].splitlines(), kernel.shown[-1].splitlines()
    assert " 0 % · time left: ? · 0/4 phases" in first[0]
    assert last[0].startswith("━") and "100 %" in last[0] and last[0].endswith("4/4 phases")
    assert last[-1].startswith("epoch 2/2 · loss ")
    assert capsys.readouterr() == ("", "")
    kernel.shown.clear()
    trained(tmp_path)
    assert " 100 % · 0.0 s left · 4/4 phases" in kernel.shown[-1]
    kernel.shown.clear()
    trained(tmp_path, watch=False)
    assert not kernel.shown


@pytest.mark.parametrize("ipython", ["none", "in a terminal"])
def test_elsewhere_the_logger_speaks_and_nothing_is_printed(
    ipython: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    if ipython == "none":
        monkeypatch.delitem(sys.modules, "IPython")
    caplog.set_level(logging.INFO, "offramp")
    trained(tmp_path)
    assert capsys.readouterr() == ("", "")
    lines = [record.getMessage() for record in caplog.records if record.name == "offramp"]
    assert any("[4/4] seed 1 · two-stage · " in line and "100 % done" in line for line in lines)


def test_false_is_silence_and_a_function_has_events_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    on_a_terminal(monkeypatch)
    caplog.set_level(logging.INFO, "offramp")
    seen: list[object] = []
    trained(tmp_path / "silent", watch=False)
    trained(tmp_path / "own", watch=seen.append)
    assert capsys.readouterr() == ("", "") and seen
    assert not [record for record in caplog.records if record.name == "offramp"]


def test_what_fails_in_fit_is_said_whoever_watches() -> None:
    for watch in (None, False, lambda _: None):
        refuses("is not finite", fitted, Recipe(epochs=1, learning_rate=3e38), watch)


def test_a_cell_changes_four_times_a_second_at_most() -> None:
    now, shown = [0.0], []
    handle = SimpleNamespace(update=lambda bundle, **_: shown.append(bundle["text/plain"]))

    def display(bundle: dict[str, str], **_: object) -> SimpleNamespace:
        handle.update(bundle)
        return handle

    frame = Frame(display, clock=lambda: now[0])
    texts = "0 %", "1 %", "2 %", "━ 100 % ·", "━ 100 % ·"
    for now[0], text in zip((0.0, 0.1, FRAME_S, 0.3, 9.0), texts, strict=True):
        frame([text])
    assert shown == ["0 %", "2 %", "━ 100 % ·"]
