"""Hashes of files are kept outside the data, and unchanged files are not read again."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from offramp.data import manifest
from offramp.errors import OfframpError

NAMES = ["a.png", "sub/b.png"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data/sub").mkdir(parents=True)
    for name in NAMES:
        (tmp_path / "data" / name).write_text(name)
    return tmp_path / "data"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_hashes_are_of_the_content(root: Path) -> None:
    assert manifest.digests(root, NAMES) == [sha(name) for name in NAMES]
    assert manifest.digests(root, NAMES[::-1]) == [sha(name) for name in NAMES[::-1]]
    assert manifest.digests(root, []) == []


def test_unchanged_files_are_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    digest = manifest.file_digest
    monkeypatch.setattr(manifest, "file_digest", lambda p: (read.append(p.name), digest(p))[1])
    manifest.digests(root, NAMES[:1])
    assert read == ["a.png"]
    manifest.digests(root, NAMES)
    assert read == ["a.png", "b.png"]
    assert manifest.digests(root, NAMES) == [sha(name) for name in NAMES]
    assert len(read) == 2
    manifest.digests(root, NAMES, fresh=True)
    assert len(read) == 4
    (root / "a.png").write_text("another")
    assert manifest.digests(root, NAMES) == [sha("another"), sha("sub/b.png")]
    assert read[4:] == ["a.png"]
    state = (root / "a.png").stat()
    (root / "a.png").write_text("ANOTHER")  # as long, and at another time
    os.utime(root / "a.png", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert manifest.digests(root, NAMES)[0] == sha("ANOTHER")


def test_it_lies_in_the_cache_folder_and_never_among_the_data(root: Path, cache_folder: Path) -> None:
    before = sorted(root.rglob("*"))
    manifest.digests(root, NAMES)
    assert sorted(root.rglob("*")) == before
    kept = json.loads(manifest.place(root).read_text())
    assert manifest.place(root).is_relative_to(cache_folder)
    assert kept["files"]["a.png"][2] == sha("a.png")
    assert kept["files"]["a.png"][0] == 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 99, "files": {}}', b"\xff"])
def test_a_damaged_manifest_is_made_anew(root: Path, content: bytes) -> None:
    manifest.digests(root, NAMES)
    manifest.place(root).write_bytes(content)
    assert manifest.digests(root, NAMES) == [sha(name) for name in NAMES]
    assert json.loads(manifest.place(root).read_text())["files"].keys() == set(NAMES)


def test_a_cache_folder_that_cannot_be_written_costs_time_alone(root: Path, cache_folder: Path) -> None:
    (cache_folder / "offramp").write_text("in the way")
    assert manifest.digests(root, NAMES) == [sha(name) for name in NAMES]


def test_a_missing_file_is_named(root: Path) -> None:
    with pytest.raises(OfframpError, match=r"gone\.png cannot be read \(No such file.*\); restore"):
        manifest.digests(root, ["gone.png"])


def test_a_fresh_look_finds_what_changed_unseen_and_keeps_the_rest(root: Path) -> None:
    manifest.digests(root, NAMES)
    assert manifest.refresh(root, NAMES) == []
    state = (root / "a.png").stat()
    (root / "a.png").write_text("A.PNG")  # as long, and at the same time
    os.utime(root / "a.png", ns=(state.st_atime_ns, state.st_mtime_ns))
    assert manifest.digests(root, NAMES)[0] == sha("a.png")
    assert manifest.refresh(root, NAMES[:1]) == ["a.png"]
    assert manifest.digests(root, NAMES) == [sha("A.PNG"), sha("sub/b.png")]
    assert json.loads(manifest.place(root).read_text())["files"].keys() == set(NAMES)
    assert manifest.refresh(root, NAMES) == []
