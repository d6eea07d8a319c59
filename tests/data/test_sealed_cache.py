"""What is kept about data proves itself, or is not taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from offramp.data.images import cache

RECORD = {"counts": [3, 5], "name of": "files\udc80"}


def kept(path: Path) -> Path:
    cache.write(path, RECORD)
    return path


def test_what_was_written_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = cache.read(kept(tmp_path / "below" / "a.json"))
    assert document is not None and document["counts"] == [3, 5]
    assert document["name of"] == RECORD["name of"]
    assert cache.read(tmp_path / "none.json") is None
    assert not caplog.messages


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", None, "renamed"])
def test_what_was_altered_is_said_once_and_goes(
    content: bytes | str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = kept(tmp_path / "a.json")
    if content is None:
        path.write_text(path.read_text().replace("5", "6", 1))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:  # sealed, but what another name was given to
        path = Path(shutil.copy(path, tmp_path / "b.json"))
    assert cache.read(path) is None and cache.read(path) is None
    assert caplog.messages == [f"{path} does not match its seal; what it held is found out anew"]
    assert cache.read(kept(path)) is not None and len(caplog.messages) == 1


def test_another_layout_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = kept(tmp_path / "a.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 1}))
    assert cache.read(path) is None
    assert not caplog.messages


def test_a_place_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("in the way")
    assert cache.read(kept(tmp_path / "taken" / "a.json")) is None


def test_the_folder_is_the_user_s(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.folder() == cache_folder / "offramp"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache.folder() == Path.home() / ".cache" / "offramp"
