"""A store in an object store: what a folder promises, and what only an object store can do to it."""

import gzip
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from store_kit import INDEX, TWICE, UNCONDITIONAL, kept_and_read, node, record, trial

import faulty_proxy
import object_store
from faulty_proxy import (
    BROKEN,
    BUSY,
    CUT,
    HALF,
    IGNORES_CONDITIONS,
    LOST,
    SAYS_LESS,
    SKEWED,
    SLOW,
    Proxy,
    every,
)
from forks import fork, in_fork, status
from longer import long
from offramp.store import cloud, remote
from offramp.store import store as stores
from offramp.store.archive import NODE
from offramp.store.cloud import Cloud, LocalCache
from offramp.store.locks import EXPIRES_S, LOOK_S
from offramp.store.place import Url, place
from offramp.store.sealed import Damaged
from offramp.store.store import Store
from refusal import refuses


@dataclass
class Pauses:
    """The clock of `remote`: only its pauses take time, and they take none of ours. at: calls of it as
    soon as so many seconds have passed."""

    now: float = 0.0
    at: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        due = [call for moment, call in self.at if moment <= self.now]
        self.at = [(moment, call) for moment, call in self.at if moment > self.now]
        for call in due:
            call()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    clock = Pauses()
    monkeypatch.setattr(remote, "time", clock)
    return clock


@pytest.fixture
def proxy(s3: str, s3_server: str, monkeypatch: pytest.MonkeyPatch, pauses: Pauses) -> Iterator[Proxy]:
    """Between everything and the server; `s3` is reached through it."""
    assert s3 and pauses
    with faulty_proxy.before(s3_server) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PATIENCE_S", 0.0)


def objects(store: Store) -> list[str]:
    names = store._files._remote.below()
    return ["/".join(name) for name in names if name[0] != "locks"]


def damage(store: Store, name: str) -> None:
    """Flip a bit of the one object whose name holds `name`."""
    away = store._files._remote
    (name_,) = [each for each in away.below() if name in "/".join(each)]
    data = bytearray(away.get(*name_))
    data[len(data) // 2] ^= 1
    away.put(bytes(data), *name_)


def empty(cache: Path) -> None:
    for path in (cache / "store").iterdir():
        path.unlink()


def test_addresses_and_folders() -> None:
    assert place("s3://b/x/") == place(Path("s3://b/x")) == Url("s3://b/x")
    assert place("S3://B/x") == Url("s3://B/x") and str(Url("gs://b") / "x") == "gs://b/x"
    for folder in ("runs", "/data/a:/b", "c:/runs", "s3:/b", "./s3://b"):
        assert place(folder) == Path(folder), folder
    for nothing in ("https://", "s3:///", "ftp://", "file:///"):
        refuses("cannot be called .*s3://BUCKET", place, nothing)


def test_what_is_kept_is_read_by_others(s3: str) -> None:
    store, key = kept_and_read(s3)
    assert [name.rpartition(".")[0] for name in objects(store)] == [
        f"blobs/nodes/{key}/cost.json",
        f"blobs/nodes/{key}/history.parquet",
        f"blobs/nodes/{key}/weights.safetensors",
        "blobs/trials/t/logits.npz",
        f"nodes/{key}/node",
        "store",
        "trials/t/trial",
    ]


def test_damage_is_named_and_made_anew(s3: str) -> None:
    store = Store(s3)
    key = node(store)
    for name in ("weights", "node.json"):
        damage(store, name)
        for cached in (Store(s3), store):
            cached._files._cache = LocalCache(Path("/nonexistent"), 0)  # which would hide it
        reader = Store(s3)
        reader._files._cache = store._files._cache
        line = refuses("does not match", reader.verify_node, key)
        assert line.startswith(s3) and f"nodes/{key}/{name}" in line
        assert reader.has_node(key) == (name == "weights")
        node(store)
        Store(s3).verify_node(key)
    assert len(objects(store)) == 5  # of the same names


def test_an_object_of_any_size_is_not_fetched(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing says how large it is. Here a record may have ten bytes."""
    key = node(Store(s3))
    other = Store(s3)
    assert list(other.nodes()) == [key] and other.read_node(key).key == key
    monkeypatch.setattr(cloud, "RECORDS", 10)
    with pytest.raises(Damaged, match="more than is read"):
        other._files.read("nodes", key, "node.json")


def test_a_writer_that_dies_before_its_manifest_has_written_nothing(
    s3: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PATIENCE_S", 0.0)
    store = Store(s3)
    proxy.fault = lambda method, path: CUT if method == "PUT" and "node.json" in path else None
    refuses("has not answered", node, store)
    proxy.fault = lambda *_: None
    assert len(objects(store)) == 4  # the blobs are there
    key = record().key
    for reader in (store, Store(s3)):
        assert reader.nodes() == [] and not reader.has_node(key, whole=False)
        with pytest.raises(Damaged, match="is missing"):
            reader.read_node(key)
    assert store.collect() == 0 and len(objects(store)) == 4  # it may be at work
    monkeypatch.setattr(stores, "STALE_S", -1.0)
    assert store.collect() > 0 and objects(store) == ["store.json"]
    assert node(store) == key and Store(s3).has_node(key)


def test_two_writers_at_once_agree_and_differing_bits_are_said(
    s3: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Processes, one after another's verdict that nothing is there: no lock between them."""

    def write(fill: float) -> Callable[[], None]:
        def work() -> None:
            warnings = logging.StreamHandler(os.fdopen(2, "w", closefd=False))
            logging.getLogger(stores.__name__).addHandler(warnings)
            store = Store(s3)
            store._write_lock = lambda key: threading.Lock()  # type: ignore[method-assign,return-value]  # noqa: ARG005
            node(store, fill=fill)

        return work

    Store(s3)._begin()
    children = [fork(write(fill)) for fill in (1.0, 2.0, 2.0)]
    assert [status(child) for child in children] == [0] * 3
    store = Store(s3)
    (key,) = store.nodes()
    store.verify_node(key)
    warnings = capfd.readouterr().err
    first = float(store.node_weights(key)["a.weight"][0, 0])
    assert warnings.count(TWICE) == (1 if first == 2.0 else 2)
    node(store, fill=first)
    assert "trained twice" not in capfd.readouterr().err


@pytest.mark.parametrize("kind", [CUT, LOST, *long(SLOW, BUSY, HALF, BROKEN)])
def test_faults_in_between_do_no_harm(s3: str, proxy: Proxy, kind: str) -> None:
    proxy.fault = every(9, kind)
    store = Store(s3)
    key = node(store)
    trial(store, "t", key)
    reader = Store(s3)
    reader._files._cache = LocalCache(Path("/nonexistent"), 0)
    assert reader.nodes() == [key] and reader.trials() == ["t"]
    reader.verify_node(key)
    reader.archive.verify_trial("t")
    with store.lock("k"):
        assert reader.try_lock("k") is None
    assert proxy.faults > 5
    proxy.fault = lambda *_: None
    assert reader._files._locks.survey() == (set(), [])


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", [CUT, LOST, *long(BROKEN)])
def test_these_faults_are_seen_where_nobody_asks_again(s3: str, proxy: Proxy, kind: str) -> None:
    """The negative control of the test above."""
    proxy.fault = every(9, kind)
    refuses("has not answered", lambda: node(Store(s3)))


def test_a_manifest_whose_answer_is_lost_is_ones_own(s3: str, proxy: Proxy) -> None:
    store = Store(s3)
    store._begin()
    lost = iter([LOST])
    proxy.fault = lambda method, path: (
        next(lost, None) if method == "PUT" and "node.json" in path else None
    )
    write = partial(store._files.write_folder, over=False)
    assert write({"w": b"1", "node.json": b"{}"}, NODE.folder, "k") and proxy.faults == 1
    assert not write({"w": b"2", "node.json": b"[]"}, NODE.folder, "k"), "that is another's"


@pytest.fixture
def unreachable(
    s3: str, s3_server: str, monkeypatch: pytest.MonkeyPatch, pauses: Pauses
) -> Iterator[Callable[[float], str]]:
    """Nobody listens at the store's address, which it gives, until so many seconds have passed."""
    with faulty_proxy.before(s3_server) as first:
        address = first.endpoint
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    with ExitStack() as servers:
        server = faulty_proxy.before(s3_server, int(address.rpartition(":")[2]))

        def until(seconds: float) -> str:
            pauses.at.append((seconds, lambda: servers.enter_context(server)))
            return s3

        yield until


def announcements(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == remote.__name__]


def test_a_store_that_is_away_is_waited_for_and_said(
    unreachable: Callable[[float], str], caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(unreachable(remote.ANNOUNCED_S + 5))
    assert store.has_node(node(store))
    away, back = announcements(caplog)
    assert away.startswith(f"{store.root} does not answer (")
    assert "for 2 min 5" in away and "after 11.3 s" in back


def test_a_store_that_is_away_for_moments_is_waited_for_in_silence(
    unreachable: Callable[[float], str], caplog: pytest.LogCaptureFixture
) -> None:
    """The negative control of the test above."""
    store = Store(unreachable(remote.ANNOUNCED_S - 3))
    assert store.has_node(node(store))
    assert announcements(caplog) == []


def test_a_store_that_stays_away_is_given_up(
    unreachable: Callable[[float], str], pauses: Pauses, caplog: pytest.LogCaptureFixture
) -> None:
    assert "3 min" in refuses("has not answered", Store, unreachable(1e9))
    assert len(announcements(caplog)) == 1
    assert remote.PATIENCE_S <= pauses.now <= remote.PATIENCE_S + remote.LONGEST_S


def test_a_multipart_upload_that_stops_half_way_is_not_there(s3: str, proxy: Proxy) -> None:
    """By an error, and by the death of its process."""
    data = os.urandom(11 * 2**20)
    part = "partNumber=2"

    Store(s3)._begin()

    def upload() -> None:
        store = Store(s3)
        fs = store._files._remote._fs
        store._files._remote._fs = SimpleNamespace(
            pipe_file=partial(fs.pipe_file, chunksize=5 * 2**20), cat_file=fs.cat_file
        )
        store._files._remote.make(data, "nodes", "k", "node.json")

    def kill(_: str, path: str) -> None:
        if part in path:
            os.kill(child, signal.SIGKILL)

    proxy.fault = lambda _, path: CUT if part in path else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "PATIENCE_S", 0.0)
        refuses("has not answered", upload)
    reader = Store(s3)
    assert reader.nodes() == [] and objects(reader) == ["store.json"]

    proxy.fault = kill
    child = fork(upload)
    assert status(child) == -signal.SIGKILL
    proxy.fault = lambda *_: None
    assert reader.nodes() == [] and objects(reader) == ["store.json"]
    upload()
    assert Store(s3).archive.files.read("nodes", "k", "node.json") == data


# Locks


def lock_objects(store: Store) -> list[str]:
    return [name for name in store._files._lock_files.names() if ".lock" in name]


def test_whoever_is_heard_of_keeps_its_lock_whatever_clocks_say(
    s3: str, clock: SimpleNamespace, on: Callable[[str], None]
) -> None:
    on("node1")
    store, other = Store(s3), Store(s3)
    lease = store.lock("k")
    for _ in range(2):
        on("node1")
        assert store.renew(lease)
        on("node2")
        for _ in range(int(EXPIRES_S / LOOK_S) - 1):
            assert other._files._locks._take("k") is None
            clock.s += LOOK_S


def test_a_holder_that_is_killed_is_gone_at_once(s3: str) -> None:
    assert in_fork(lambda: Store(s3).lock("k")) == 0
    store = Store(s3)
    with store.lock("k"):
        assert store.at_work() is not None
    assert lock_objects(store) == []


def test_a_holder_that_slept_brings_no_lock_back(
    s3: str, clock: SimpleNamespace, on: Callable[[str], None]
) -> None:
    """Its beat may come after the whole time that another one held it."""
    on("node1")
    store = Store(s3)
    gone = store.lock("k")
    on("node2")
    other = Store(s3)
    while (lease := other.try_lock("k")) is None:
        clock.s += LOOK_S
    lease.release()
    assert not store.renew(gone) and lock_objects(store) == []


@pytest.mark.parametrize("hour", [*long(-3600.0), 3600.0])
def test_a_server_whose_clock_is_wrong_by_an_hour(
    s3: str, monkeypatch: pytest.MonkeyPatch, hour: float
) -> None:
    """What a dead writer left counts as old by the server's clock alone."""
    store = Store(s3)
    store._begin()
    store._files._remote.put(b"left", "blobs", "nodes", "k", f"w.{'0' * 64}")
    below = store._files._remote.below
    older = {"of": 0.0}

    def shifted(*folder: str) -> dict[tuple[str, ...], remote.Info]:
        return {
            name: remote.Info(
                info.size, info.tag, info.modified + hour - older["of"] * (name[0] == "blobs")
            )
            for name, info in below(*folder).items()
            if info.modified is not None
        }

    monkeypatch.setattr(store._files._remote, "below", shifted)
    assert store.collect() == 0
    older["of"] = 3700.0
    assert store.collect() == 4


# What is fetched, and how often


def test_a_blob_is_fetched_once_a_machine(s3: str, proxy: Proxy, tmp_path: Path) -> None:
    key = node(Store(s3))
    empty(tmp_path / "cache")
    proxy.requests.clear()
    for _ in range(3):
        Store(s3).verify_node(key)
    assert proxy.count("GET", "weights.safetensors.") == 1
    assert proxy.count("GET", "node.json") == 1  # its ETag tells that it is the same
    for path in (tmp_path / "cache" / "store").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    Store(s3).verify_node(key)
    assert proxy.count("GET", "weights.safetensors.") == 2  # what is damaged here is fetched again


def test_manifests_are_listed_and_fetched_together(s3: str, proxy: Proxy, tmp_path: Path) -> None:
    keys = sorted(node(Store(s3), n) for n in range(6))
    empty(tmp_path / "cache")
    for fetched in (6, 0):
        proxy.requests.clear()
        store = Store(s3)
        assert [store.read_node(key).key for key in store.nodes()] == keys
        assert all(store.has_node(key) for key in keys)
        assert proxy.count("GET", "node.json") == fetched
        assert len(proxy.requests) <= fetched + 5  # store.json, twice, and a listing each of both kinds


@pytest.fixture
def indexed(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Keys of three nodes of a store with an index, on a machine that has fetched nothing."""
    monkeypatch.setattr(cloud, "MANY", 2)
    store = Store(s3)
    keys = sorted(node(store, n) for n in range(3))
    trial(store, "t", keys[0])
    assert Store(s3).index() == 4 and Store(s3).index() == 0 and Store(s3).index(least=2) == 0
    empty(tmp_path / "cache")
    return keys


def every_key(store: Store) -> list[str]:
    return [store.read_node(key).key for key in store.nodes()]


def test_an_index_is_read_in_place_of_many_manifests(
    s3: str, proxy: Proxy, indexed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in (1, 0):  # kept here, as all else
        proxy.requests.clear()
        assert every_key(Store(s3)) == indexed
        assert proxy.count("GET", "node.json") == 0
        assert proxy.count("GET", INDEX) == index
    few = Store(s3)
    monkeypatch.setattr(cloud, "MANY", 100)
    proxy.requests.clear()
    few.read_trial("t")
    assert proxy.count("GET", "trial.json") == 1 and proxy.count("HEAD", "index") == 0


def test_an_index_that_is_old_is_believed_where_it_still_holds(
    s3: str, proxy: Proxy, indexed: list[str]
) -> None:
    """One node is new, one is gone, and one lies otherwise under its key."""
    new, (gone, other, *_) = node(Store(s3), 100), indexed
    Store(s3).discard_node(gone)
    damage(Store(s3), f"nodes/{other}/node.json")
    proxy.requests.clear()
    store = Store(s3)
    assert store.nodes() == sorted([*indexed[1:], new])
    assert [store.read_node(key).key for key in store.nodes() if key != other]
    assert f"{other}/node.json" in refuses("does not match", store.read_node, other)
    assert proxy.count("GET", "node.json") == 2
    assert Store(s3).index() == 3
    assert INDEX in objects(Store(s3))
    assert not [place for place, _ in Store(s3).unneeded() if "index" in str(place)]


UNREADABLE = (b"no gzip", gzip.compress(b'{"a": ["tag", 3, 7]}'), gzip.compress(bytes(2**20)))
MORE = (
    b"",
    gzip.compress(b"[1, 2]"),
    gzip.compress(b"[" * 100_000),
    gzip.compress(b'{"a": [1]}'),
    gzip.compress(b'{"a": ["tag", 3, "\\ud800"]}'),
    gzip.compress(b"{}")[:-4],
)


@pytest.mark.parametrize("unreadable", [UNREADABLE, *long((MORE,))], ids=["some", "more"])
def test_an_index_that_cannot_be_read_is_passed_over_and_said(
    s3: str,
    proxy: Proxy,
    indexed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    unreadable: tuple[bytes, ...],
) -> None:
    monkeypatch.setattr(cloud, "INDEX_ROOM", 2**17)
    for content in unreadable:
        Store(s3)._files._remote.put(content, "index", "nodes.json.gz")
        empty(tmp_path / "cache")
        proxy.requests.clear()
        caplog.clear()
        assert every_key(Store(s3)) == indexed
        assert proxy.count("GET", "node.json") == len(indexed)
        (warning,) = (r.getMessage() for r in caplog.records if "index/nodes" in r.getMessage())
        assert "offramp store index" in warning
    assert Store(s3).index() == len(indexed), "which mends it"


def test_an_index_made_by_somebody_else_hides_nothing(s3: str, indexed: list[str]) -> None:
    """A manifest under the right version and with another's words: its seal tells."""
    store = Store(s3)
    files = store._files
    files.names("nodes")
    first, second = indexed[:2]
    info = files._info(("nodes", first, "node.json"))
    words = files.read("nodes", second, "node.json").decode()
    forged = json.dumps({first: [info.tag, info.size, words]}).encode()
    files._remote.put(gzip.compress(forged), "index", "nodes.json.gz")
    refuses(rf"{first}/node.json does not describe '{first}'", every_key, Store(s3))


def test_the_cache_is_bounded(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path, 1000)
    for n in range(20):
        cache.put(str(n), bytes(100))
        os.utime(cache._path(str(n)), (n, n))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1000
    assert cache.get("19") == bytes(100) and cache.get("0") is None
    cache.put("large", bytes(950))
    assert cache.get("large") is None and cache.get("19") is not None
    assert LocalCache(tmp_path / "none", 0).get("19") is None


def test_the_cache_of_several_processes_is_bounded(tmp_path: Path) -> None:
    """Each looks now and then what the others keep."""
    every, most = [LocalCache(tmp_path, 100_000) for _ in range(8)], 0
    for n in range(8 * 24):
        every[n % 8].put(str(n), bytes(4000))
        most = max(most, sum(path.stat().st_size for path in tmp_path.iterdir()))
    assert 90_000 < most <= 110_000


def test_settings_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFRAMP_CACHE", str(tmp_path))
    monkeypatch.setenv("OFFRAMP_CACHE_SIZE", "2MB")
    cache = cloud.user_cache()
    assert (cache._folder, cache._limit) == (tmp_path / "store", 2_000_000)
    monkeypatch.setenv("OFFRAMP_CACHE_SIZE", "much")
    refuses("OFFRAMP_CACHE_SIZE", cloud.user_cache)


# What a user can mend


def test_no_bucket(s3: str) -> None:
    elsewhere = s3.replace("runs-", "none-")
    assert not Store(elsewhere).archive.exists()
    refuses("no bucket 'none-", node, Store(elsewhere))


def test_no_credentials(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    refuses("no credentials.*aws configure", Store, s3)


def test_a_clock_that_the_store_refuses(s3: str, proxy: Proxy) -> None:
    proxy.fault = lambda method, _: SKEWED if method != "HEAD" else None  # which has no text
    refuses("is too large", Store, s3)


def test_addresses_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    refuses("ftps3://x .*s3://… or gs://…", Store, "ftps3://x")
    assert "secret" not in refuses("holds a password", Store, "sftp://me:secret@host/")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    refuses(r"pip install 'offramp\[cloud\]'", Store, "s3://runs/x")


@pytest.mark.skipif(object_store.GIVEN is not None, reason="it checks signatures, so headers stay")
def test_an_object_store_that_replaces_what_is_there_is_refused(s3: str, proxy: Proxy) -> None:
    proxy.fault = lambda *_: IGNORES_CONDITIONS
    store = Store(s3)
    refuses(UNCONDITIONAL, store.lock, "k")
    proxy.fault = lambda *_: None
    store.lock("k").release()


def test_an_object_that_is_there_is_told_by_the_status_alone(s3: str, proxy: Proxy) -> None:
    store = Store(s3)
    store._begin()
    write = partial(store._files.write_folder, over=False)
    for kind in (None, SAYS_LESS):
        proxy.fault = lambda *_, kind=kind: kind
        assert write({"node.json": b"{}"}, NODE.folder, f"k{kind}")
        assert not write({"node.json": b"[]"}, NODE.folder, f"k{kind}")
    with store.lock("k"):
        assert Store(s3).try_lock("k") is None


def test_memory_is_a_store_too() -> None:
    store = Store("memory://runs/x")
    key = node(store)
    assert Store("memory://runs/x").has_node(key) and isinstance(store._files, Cloud)
    store.discard_node(key)
    assert store.nodes() == []


def test_an_answer_that_is_cut_short_is_not_taken_for_whole(s3: str, proxy: Proxy) -> None:
    store = Store(s3)
    data = os.urandom(100_000)
    store._files._remote.put(data, "x")
    cut = iter([HALF])
    proxy.fault = lambda method, _: next(cut, None) if method == "GET" else None
    assert store._files._remote.get("x") == data and proxy.faults == 1


LARGE = 11 * 2**20


def test_an_upload_in_parts_whose_end_is_not_answered_is_begun_again(
    s3: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second request for its end meets an upload that is over, which looks like a lost bucket."""
    store = Store(s3)
    store._begin()
    away = store._files._remote
    put = away._fs.pipe_file
    monkeypatch.setattr(away._fs, "pipe_file", partial(put, chunksize=5 * 2**20))
    for make in (away.put, away.make):
        lost = iter([LOST])
        proxy.fault = lambda method, path, lost=lost: (
            next(lost, None) if method == "POST" and "uploadId=" in path else None
        )
        data = os.urandom(LARGE)
        name = ("blobs", make.__name__)
        make(data, *name)
        assert proxy.faults and away.get(*name) == data
        proxy.faults = 0
