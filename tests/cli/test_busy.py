"""How far reading is, on standard error: a line that moves on a terminal, few lines elsewhere."""

from __future__ import annotations

import logging
import sys

import pytest

from offramp.cli import progress
from offramp.cli.progress import CLEAR, reading_shown

LOG = logging.getLogger("offramp.data.pace")


def read(times: tuple[float, ...], monkeypatch: pytest.MonkeyPatch, shown: bool = True) -> None:
    """Work that says how far it is at these seconds."""
    with reading_shown(shown):
        for number, at in enumerate(times):
            monkeypatch.setattr(logging.time, "time_ns", lambda at=at: round(at * 1e9), raising=False)
            monkeypatch.setattr(logging.time, "time", lambda at=at: at)
            LOG.info("step %s", number)


def test_on_a_terminal_one_line_moves_and_goes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    read((0, 1, 2), monkeypatch)
    out, err = capsys.readouterr()
    assert out == "" and err == f"{CLEAR}step 0{CLEAR}step 1{CLEAR}step 2{CLEAR}"


def test_elsewhere_a_line_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read((0, 5, 9, 11, 13, 22, 40), monkeypatch)
    assert capsys.readouterr() == ("", "step 3\nstep 5\nstep 6\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_warnings_stay(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    with reading_shown():
        LOG.warning("look here")
    err = capsys.readouterr().err
    assert err == (f"{CLEAR}look here\n{CLEAR}" if terminal else "look here\n")


def test_nothing_where_nothing_is_wanted_and_all_is_put_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("offramp.data")
    before = (log.level, list(log.handlers))
    read((0, 50), monkeypatch, shown=False)
    with pytest.raises(KeyboardInterrupt), reading_shown():
        raise KeyboardInterrupt
    assert (log.level, list(log.handlers)) == before
    LOG.info("nobody listens")
    assert capsys.readouterr() == ("", "") and progress.SELDOM == 10
