"""`offramp status --trials`, `watch` and `track` on a store that a study made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Cli


def test_trials_are_listed(studied: Cli) -> None:
    rows = json.loads(studied("status", "--trials", "--json").out)["trials"]
    assert rows and all(row["phases"] == row["phases_finished"] > 0 for row in rows)
    accuracies = [row["accuracy"][-1] for row in rows]
    listed = json.loads(studied("status", "--trials", "--sort", "accuracy", "--json").out)["trials"]
    assert [row["accuracy"][-1] for row in listed] == sorted(accuracies, reverse=True)
    text = studied("status", "runs", "--trials").out
    assert max(map(len, text.splitlines())) <= 80
    assert all(row["trial"][:20] in text for row in rows)


def test_they_are_filtered(studied: Cli) -> None:
    rows = json.loads(studied("status", "--trials", "--json").out)["trials"]
    one = rows[0]["strategy"]
    mine = json.loads(studied("status", "--trials", "--strategy", one, "--json").out)["trials"]
    assert mine == [row for row in rows if row["strategy"] == one]
    assert json.loads(studied("status", "--trials", "--seed", "7", "--json").out)["trials"] == []
    assert studied("status", "--trials", "--unfinished").out == "no such trial\n"
    for words, said in (
        (("--trials", "--strategy", "jiont"), "no finished trial is of 'jiont'"),
        (("--seed", "7"), "add --trials"),
    ):
        answer = studied("status", *words)
        assert answer.code == 2 and said in answer.err


def test_watch_ends_when_nothing_is_left(studied: Cli) -> None:
    text = studied("watch", "runs").out
    assert "trials finished" in text and "under way" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_track_sends_once(studied: Cli, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    first = studied("track", "runs", "--to", "tensorboard:board")
    assert first.code == 0 and "sent" in first.err and list((tmp_path / "board").glob("*/events.*"))
    assert "0 numbers of" in studied("track", "--to", "tensorboard:board").err
    for words, said in (
        ((), "name a tracker with --to"),
        (("--to", "nowhere:x"), "names no tracker"),
        (("--to", "tensorboard:board", "--file", "x"), "keeps no files"),
    ):
        answer = studied("track", *words)
        assert answer.code == 2 and said in answer.err and len(answer.err.splitlines()) == 1
