"""Hashes of files are kept outside the data, and unchanged files are not read again."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from pictures import refused
from syrupy.assertion import SnapshotAssertion

from offramp.data.images import file_hashes
from offramp.files import read_cached, user_cache, write_cached

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
    assert file_hashes.digests(root, NAMES) == [sha(name) for name in NAMES]
    assert file_hashes.digests(root, NAMES[::-1]) == [sha(name) for name in NAMES[::-1]]
    assert file_hashes.digests(root, []) == []


def test_unchanged_files_are_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    digest = file_hashes.file_digest
    monkeypatch.setattr(file_hashes, "file_digest", lambda p: (read.append(p.name), digest(p))[1])
    file_hashes.digests(root, NAMES[:1])
    assert read == ["a.png"]
    file_hashes.digests(root, NAMES)
    assert read == ["a.png", "b.png"]
    assert file_hashes.digests(root, NAMES) == [sha(name) for name in NAMES]
    assert len(read) == 2
    file_hashes.digests(root, NAMES, fresh=True)
    assert len(read) == 4
    (root / "a.png").write_text("another")
    assert file_hashes.digests(root, NAMES) == [sha("another"), sha("sub/b.png")]
    assert read[4:] == ["a.png"]
    state = (root / "a.png").stat()
    (root / "a.png").write_text("ANOTHER")  # as long, and at another time
    os.utime(root / "a.png", ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert file_hashes.digests(root, NAMES)[0] == sha("ANOTHER")


def test_it_lies_in_the_cache_folder_and_never_among_the_data(root: Path, cache_folder: Path) -> None:
    before = sorted(root.rglob("*"))
    file_hashes.digests(root, NAMES)
    assert sorted(root.rglob("*")) == before
    manifest = json.loads(file_hashes.place(root).read_text())
    assert file_hashes.place(root).is_relative_to(cache_folder)
    assert manifest["files"]["a.png"][-1] == sha("a.png")
    assert manifest["files"]["a.png"][0] == 5


def rewrite(path: Path, content: str) -> None:
    """As careful a swap as a user can make: as long, in the same file, at the same time."""
    state = path.stat()
    path.write_text(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    while path.stat().st_ctime_ns == state.st_ctime_ns:  # the system's clock ticks every few ms
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (state.st_size, state.st_mtime_ns)


def test_content_that_changes_under_the_same_size_and_time_is_seen(root: Path) -> None:
    assert file_hashes.digests(root, NAMES)[0] == sha("a.png")
    rewrite(root / "a.png", "A.PNG")
    assert file_hashes.digests(root, NAMES) == [sha("A.PNG"), sha("sub/b.png")]


def test_two_files_that_change_places_are_seen(root: Path) -> None:
    names = ["a.png", "c.png"]
    (root / "c.png").write_text("c.png")
    for name in names:
        os.utime(root / name, ns=(10**18, 10**18))
    file_hashes.digests(root, names)
    (root / "a.png").rename(root / "other")
    (root / "c.png").rename(root / "a.png")
    (root / "other").rename(root / "c.png")
    assert file_hashes.digests(root, names) == [sha("c.png"), sha("a.png")]


def test_a_hash_that_was_altered_is_not_believed(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    file_hashes.digests(root, NAMES)
    place = file_hashes.place(root)
    place.write_text(place.read_text().replace(sha("a.png"), sha("b.png")))
    for _ in range(2):
        assert file_hashes.digests(root, NAMES) == [sha(name) for name in NAMES]
    assert caplog.messages == [f"{place} does not match its seal; what it held is found out anew"]


def test_a_name_that_is_no_utf_8_is_looked_at_as_any_other(root: Path) -> None:
    """It ended each streamed training at its first checkpoint. The folder may have such a name too."""
    odd = os.fsdecode(b"b\xe4r.png")
    root = root.rename(root.with_name(odd))
    (root / odd).write_text("odd")
    hashes = dict(zip([odd], file_hashes.digests(root, [odd]), strict=True))
    assert file_hashes.changed(root, hashes, "k") is None
    rewrite(root / odd, "ODD")
    assert file_hashes.changed(root, hashes, "k") == odd


def test_a_look_names_what_changed_and_reads_few_files(
    root: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    names = [f"{number}.png" for number in range(20)]
    for name in names:
        (root / name).write_text(name)
    shas = dict(zip(names, file_hashes.digests(root, names), strict=True))
    monkeypatch.setattr(file_hashes, "MOST_REHASHED", 3)
    read: list[str] = []
    digest = file_hashes.file_digest
    monkeypatch.setattr(file_hashes, "file_digest", lambda p: (read.append(p.name), digest(p))[1])

    def look(key: str) -> tuple[str | None, set[str]]:
        read.clear()
        return file_hashes.changed(root, shas, key), set(read)

    assert look("k") == look("k") and look("k")[0] is None and len(look("k")[1]) == 3
    assert len({frozenset(look(str(number))[1]) for number in range(9)}) > 1
    for name in names[::5]:  # whichever file it is: what looks changed is read first
        rewrite(root / name, name.upper())
        assert look("k")[0] == name and len(read) <= 3
        file_hashes.digests(root, names)  # by another process, which knows the new hash now
        assert look("k")[0] == name and len(read) <= 3
        rewrite(root / name, name)
        assert look("k")[0] is None
    (root / names[0]).unlink()
    assert refused(look, "k") == snapshot


def test_a_missing_file_is_named(root: Path, snapshot: SnapshotAssertion) -> None:
    assert refused(file_hashes.digests, root, ["gone.png"]) == snapshot


def test_a_fresh_look_compares_with_what_was_kept(root: Path) -> None:
    assert file_hashes.refresh(root, NAMES, {}) == []
    before = file_hashes.every_manifest()[root.resolve()]
    assert before == {name: sha(name) for name in NAMES}
    assert file_hashes.refresh(root, NAMES, before) == []
    rewrite(root / "a.png", "A.PNG")
    file_hashes.digests(root, NAMES)  # what opens the data may have hashed it already
    assert file_hashes.refresh(root, NAMES, before) == ["a.png"]
    assert file_hashes.digests(root, NAMES) == [sha("A.PNG"), sha("sub/b.png")]
    assert file_hashes.refresh(root, NAMES, file_hashes.every_manifest()[root.resolve()]) == []


def test_a_fresh_look_believes_no_stamp(root: Path) -> None:
    """As on a disk that fails: the content is another one, and nothing else."""
    file_hashes.digests(root, NAMES)
    manifest = json.loads(file_hashes.place(root).read_text())
    manifest["files"]["a.png"][-1] = sha("what it was")
    write_cached(file_hashes.place(root), {"root": manifest["root"], "files": manifest["files"]})
    assert file_hashes.digests(root, NAMES)[0] == sha("what it was")
    assert file_hashes.refresh(root, NAMES, file_hashes.every_manifest()[root.resolve()]) == ["a.png"]
    assert file_hashes.digests(root, NAMES)[0] == sha("a.png")


# The sealed documents that it is kept in


RECORD = {"counts": [3, 5], "name of": "files\udc80"}


def written(path: Path) -> Path:
    write_cached(path, RECORD)
    return path


def test_what_was_written_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    document = read_cached(written(tmp_path / "below" / "a.json"))
    assert document is not None and document["counts"] == [3, 5]
    assert document["name of"] == RECORD["name of"]
    assert read_cached(tmp_path / "none.json") is None
    assert not caplog.messages


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", None, "renamed"])
def test_what_was_altered_is_said_once_and_goes(
    content: bytes | str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path / "a.json")
    if content is None:
        path.write_text(path.read_text().replace("5", "6", 1))
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:  # sealed, but what another name was given to
        path = Path(shutil.copy(path, tmp_path / "b.json"))
    assert read_cached(path) is None and read_cached(path) is None
    assert caplog.messages == [f"{path} does not match its seal; what it held is found out anew"]
    assert read_cached(written(path)) is not None and len(caplog.messages) == 1


def test_another_layout_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path / "a.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 1}))
    assert read_cached(path) is None
    assert not caplog.messages


def test_a_place_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("in the way")
    assert read_cached(written(tmp_path / "taken" / "a.json")) is None


def test_the_folder_is_the_user_s(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_cache() == cache_folder / "offramp"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache() == Path.home() / ".cache" / "offramp"
