"""Data behind an address: fetched once, held to its hash, and unpacked where it belongs."""

import bz2
import gzip
import io
import json
import lzma
import random
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pictures import digests, refused, tree
from syrupy.assertion import SnapshotAssertion

from fuzz_kit import little_memory
from offramp.data import DataSpec, load
from offramp.data import fetch as fetching
from offramp.data.fetch import already_fetched, fetched
from offramp.data.load import read_source
from offramp.data.notes import notes
from offramp.errors import OfframpError, Unwritable
from website import Site, serving


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server, and a machine that has fetched nothing yet."""
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    monkeypatch.setattr(fetching, "PAUSE_S", 0.0)
    with serving() as site:
        yield site


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tree(tmp_path_factory.mktemp("photos") / "photos")


def packed(folder: Path, ending: str, tmp_path: Path) -> bytes:
    kind = {".zip": "zip", ".tar": "tar", ".tar.gz": "gztar", ".tar.xz": "xztar", ".tar.bz2": "bztar"}
    archive = shutil.make_archive(str(tmp_path / "made"), kind[ending], folder.parent, folder.name)
    return Path(archive).read_bytes()


def tarred(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, what in members.items():
            info = what if isinstance(what, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(what, bytes):
                info.size = len(what)
            archive.addfile(info, io.BytesIO(what if isinstance(what, bytes) else b""))
    return out.getvalue()


def zipped(members: Mapping[str, bytes], mode: int = 0) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, data)
    return out.getvalue()


def refused_at(site: Site, function: Any, *args: Any) -> str:
    """`refused`, without the server's port."""
    return refused(function, *args).replace(site.address, "SITE")


def spec(site: Site, name: str = "photos.zip", **more: Any) -> DataSpec:
    return DataSpec("folder", url=f"{site.address}/{name}", **more)


@pytest.mark.parametrize("ending", [".zip", ".tar", ".tar.gz", ".tar.xz", ".tar.bz2"])
def test_an_archive_is_the_folder_that_it_holds(
    ending: str, site: Site, photos: Path, tmp_path: Path
) -> None:
    """The same images and keys as from the folder itself; asked for once, though the server ends."""
    data = packed(photos, ending, tmp_path)
    site.pages[f"/photos{ending}"] = data
    address = spec(site, f"photos{ending}?download=1", sha256=sha256(data).hexdigest().upper())
    site.pages[f"/photos{ending}?download=1"] = data
    here, copy = load(DataSpec("folder", root=str(photos))), load(address)
    assert digests(copy) == digests(here)
    site.pages.clear()
    assert digests(load(address)) == digests(here)
    assert len(site.requests) == 1
    assert copy.provenance["url"] == address.url
    assert not any("sha256" in line for line in notes(copy.provenance))


def test_what_is_there_is_not_fetched(
    site: Site, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """data.root first, then the machine's own folder of the data set."""
    site.pages["/photos.zip"] = packed(photos, ".zip", tmp_path)
    here = digests(load(DataSpec("folder", root=str(photos))))
    assert digests(load(spec(site, root=str(photos)))) == here
    monkeypatch.setenv("OFFRAMP_DATA", str(tmp_path / "shared"))
    shutil.copytree(photos, tmp_path / "shared" / "folder")
    assert digests(load(spec(site))) == here
    assert site.requests == []
    shutil.rmtree(tmp_path / "shared")
    assert digests(load(spec(site, root=str(tmp_path / "not here")))) == here
    assert site.requests == ["/photos.zip"]


def test_other_bytes_are_refused_and_leave_nothing(site: Site, photos: Path, tmp_path: Path) -> None:
    data = packed(photos, ".zip", tmp_path)
    site.pages["/photos.zip"] = data + b"\0"
    pinned = spec(site, sha256=sha256(data).hexdigest())
    line = refused_at(site, load, pinned)
    assert sha256(data).hexdigest() in line and sha256(data + b"\0").hexdigest() in line
    assert already_fetched(pinned) is None and not list((tmp_path / "cache").rglob("*.png"))
    site.pages["/photos.zip"] = data
    upper = replace(pinned, sha256=fetched(pinned).sha256)
    assert already_fetched(upper) == already_fetched(pinned) is not None


def test_without_a_hash_one_is_said(
    site: Site, photos: Path, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    data = packed(photos, ".zip", tmp_path)
    site.pages["/photos.zip"] = data
    (line,) = (line for line in notes(load(spec(site)).provenance) if "data.sha256" in line)
    assert sha256(data).hexdigest() in line
    assert refused_at(site, load, DataSpec("digits", sha256="0" * 64)) == snapshot


def test_a_file_that_is_no_archive_is_kept_as_it_is(site: Site, tmp_path: Path) -> None:
    import numpy as np

    labels = np.arange(200) % 2
    images = np.random.default_rng(0).integers(0, 256, (200, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "cells.npz", train_images=images, train_labels=labels)
    site.pages["/cells.npz"] = (tmp_path / "cells.npz").read_bytes()
    copy = load(DataSpec("npz", url=f"{site.address}/cells.npz"))
    assert digests(copy) == digests(load(DataSpec("npz", root=str(tmp_path / "cells.npz"))))


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


def claiming(size: int) -> bytes:
    """An archive whose first member says that its name has so many bytes."""
    info = link("././@LongLink", "", tarfile.GNUTYPE_LONGNAME)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 4096


HOSTILE = {
    "above.tar": tarred({"../evil": b"x"}),
    "deep.tar": tarred({"a/../../evil": b"x"}),
    "absolute.tar": tarred({"/tmp/offramp-evil": b"x"}),
    "link.tar": tarred({"in": link("in", "/tmp"), "in/evil": b"x"}),
    "hard.tar": tarred({"in": link("in", "/etc/passwd", tarfile.LNKTYPE)}),
    "pipe.tar": tarred({"in": link("in", "", tarfile.FIFOTYPE)}),
    "twice.tar": tarred({"a": b"1", "./a": b"2"}),
    "above.zip": zipped({"../evil": b"x"}),
    "absolute.zip": zipped({"/tmp/offramp-evil": b"x"}),
    "windows.zip": zipped({"..\\evil": b"x"}),
    "link.zip": zipped({"in": b"/etc/passwd"}, stat.S_IFLNK | 0o777),
    "control.zip": zipped({"a\x1b[2Jb": b"x"}),
    "broken.zip": zipped({"a": b"x" * 100})[:-30],
    "broken.tar.gz": b"\x1f\x8b" + b"\0" * 50,
    "claims.tar": claiming(2**33),
    "claims.tar.gz": gzip.compress(claiming(2**33)),
    "folders.tar": tarred({"a/" * 900 + "evil": b"x"}),
    "folders.zip": zipped({"a/" * 900 + "evil": b"x"}),
    "letters.zip": zipped({"ä": b"x"}).replace("ä".encode(), b"\xff\xff"),
    "places.zip": zipped({"a": b"x"})[:-6] + b"\xff\xff\xff\x7f\0\0",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_archive_that_leads_elsewhere_is_refused(
    name: str, site: Site, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    site.pages[f"/{name}"] = HOSTILE[name]
    assert refused_at(site, load, spec(site, name)) == snapshot
    assert already_fetched(spec(site, name)) is None
    assert not list(tmp_path.rglob("*evil*")) and not Path("/tmp/offramp-evil").exists()
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"]


@pytest.mark.parametrize("name", ["claims.tar", "claims.tar.gz"])
def test_a_header_that_claims_gigabytes_takes_no_memory(name: str, site: Site) -> None:
    site.pages[f"/{name}"] = HOSTILE[name]
    with little_memory(), pytest.raises(OfframpError, match="a header of it is larger"):
        fetched(spec(site, name))


@pytest.mark.parametrize("packer", [gzip, bz2, lzma])
def test_an_archive_with_another_byte_is_refused(
    packer: Any, site: Site, snapshot: SnapshotAssertion
) -> None:
    """In its second file, which is of random bytes as images are."""
    files = {name: random.Random(name).randbytes(600_000) for name in ("a", "b")}
    archive = bytearray(packer.compress(tarred(files)))
    archive[1_100_000] ^= 1
    name = {gzip: "a.tar.gz", bz2: "a.tar.bz2", lzma: "a.tar.xz"}[packer]
    site.pages[f"/{name}"] = bytes(archive)
    assert refused_at(site, fetched, spec(site, name)) == snapshot
    assert already_fetched(spec(site, name)) is None


def test_an_address_as_people_write_it(site: Site) -> None:
    """With letters of any language and spaces, and a name that offramp has for a folder."""
    site.pages["/f%C3%BCr%20alle/files?at=%C3%A4"] = b"x"
    got = fetched(DataSpec("npz", url=f"{site.address}/für alle/files?at=ä"))
    assert [path.name for path in got.folder.iterdir()] == ["files"]


def test_more_than_the_disk_holds_is_refused(
    site: Site, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    """Terabytes of zeros, by what the archive says of itself."""
    huge = tarfile.TarInfo("zeros")
    huge.size = 2**45
    site.pages["/zeros.tar"] = huge.tobuf() + b"\0" * 4096
    assert refused_at(site, load, spec(site, "zeros.tar")) == snapshot
    assert not list((tmp_path / "cache").rglob("zeros*"))


@pytest.mark.parametrize("fault", ["cut", "down"])
def test_a_server_in_trouble_is_asked_again(
    fault: str, site: Site, photos: Path, tmp_path: Path
) -> None:
    """Three times; half a file is never taken for a whole one."""
    site.pages["/photos.zip"] = packed(photos, ".zip", tmp_path)
    setattr(site, fault, 2)
    here = digests(load(DataSpec("folder", root=str(photos))))
    assert digests(load(spec(site))) == here
    assert len(site.requests) == 3
    shutil.rmtree(tmp_path / "cache")
    setattr(site, fault, 3)
    with pytest.raises(Unwritable, match="cannot be fetched"):
        load(spec(site))
    assert already_fetched(spec(site)) is None


@pytest.mark.parametrize("length", ["abc", "-5", "1.5"])
def test_a_length_that_is_no_number_is_none(
    length: str, site: Site, photos: Path, tmp_path: Path
) -> None:
    site.pages["/photos.zip"] = packed(photos, ".zip", tmp_path)
    site.length = length
    assert digests(load(spec(site))) == digests(load(DataSpec("folder", root=str(photos))))


def test_what_is_not_there_is_not_asked_for_again(site: Site, snapshot: SnapshotAssertion) -> None:
    assert refused_at(site, load, spec(site, "nothing.zip")) == snapshot
    assert site.requests == ["/nothing.zip"]


def test_several_at_once_fetch_once(site: Site, photos: Path, tmp_path: Path) -> None:
    site.pages["/photos.zip"] = packed(photos, ".zip", tmp_path)
    folders: list[Path] = []
    threads = [Thread(target=lambda: folders.append(fetched(spec(site)).folder)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(folders)) == 1 and len(folders) == 4
    assert site.requests == ["/photos.zip"]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://host/photos.zip",
        "photos.zip",
        "http://",
        "http://host..name/photos.zip",
        "http://host:port/photos.zip",
        "https://me:secret@host/photos.zip",
    ],
)
def test_an_address_that_is_none(url: str, site: Site, snapshot: SnapshotAssertion) -> None:
    line = refused_at(site, load, DataSpec("folder", url=url))
    assert line == snapshot and "secret" not in line
    assert site.requests == []


def test_an_address_that_leads_to_another_kind_is_refused(
    site: Site, snapshot: SnapshotAssertion
) -> None:
    site.leads["/photos.zip"] = "ftp://127.0.0.1:1/photos.zip"
    with pytest.raises(Unwritable, match="cannot be fetched"):
        read_source(spec(site))
    site.leads["/photos.zip"] = "file:///etc/passwd"
    assert refused_at(site, read_source, spec(site)) == snapshot


def test_what_was_damaged_in_the_cache_is_another_data_set(
    site: Site, photos: Path, tmp_path: Path
) -> None:
    """The key holds the pixels; what says where they came from is fetched anew when it is gone."""
    site.pages["/photos.zip"] = packed(photos, ".zip", tmp_path)
    before = load(spec(site))
    files = fetched(spec(site)).folder
    for cat in files.glob("train/cat/*.png"):
        shutil.copy(files / "train" / "dog" / cat.name, cat)
    assert load(spec(site)).train.digest != before.train.digest
    (next((tmp_path / "cache").rglob("fetched.json"))).write_text(json.dumps([]))
    assert load(spec(site)).train.digest == before.train.digest
