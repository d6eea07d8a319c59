"""A store in Google's object store: gcsfs against an emulator of its JSON API on the loopback."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from store_kit import UNCONDITIONAL, kept_and_read, node

from forks import in_fork
from offramp.store import store as stores
from offramp.store.store import Store
from refusal import refuses

pytestmark = [
    pytest.mark.skipif(
        not all(map(find_spec, ("gcsfs", "gcp_storage_emulator"))),
        reason="the extra 'cloud' is not installed",
    ),
    # Google's library says a year ahead which Python it gives up.
    pytest.mark.filterwarnings("ignore:You are using a Python version:FutureWarning"),
]

# The emulator knows no conditions. Google makes an object of `ifGenerationMatch=0` only where none is,
# else it answers 412; a resumable upload, whose condition comes with its first request, is not needed.
SERVE = """
import sys, threading
from http import HTTPStatus
from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.exceptions import NotFound
lock, upload = threading.Lock(), objects._multipart_upload
def conditional(request, response, storage):
    with lock:
        if request.query.get("ifGenerationMatch") == ["0"]:
            name = request.data["meta"]["name"]
            try:
                storage.get_file_obj(request.params["bucket_name"], name)
            except NotFound:
                pass
            else:
                response.status = HTTPStatus.PRECONDITION_FAILED
                return
        upload(request, response, storage)
if sys.argv[1] == "conditions":
    objects._multipart_upload = conditional
from gcp_storage_emulator.server import create_server
server = create_server("127.0.0.1", 0, in_memory=True)
server.start()
print(server._api._httpd.server_address[1], flush=True)
sys.stdin.read()
"""


def serving(kind: str) -> Iterator[str]:
    command = [sys.executable, "-W", "ignore", "-c", SERVE, kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None and server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        server.stdin.close()
        server.kill()


@pytest.fixture(scope="module")
def google() -> Iterator[str]:
    yield from serving("conditions")


@pytest.fixture(scope="module")
def unconditional() -> Iterator[str]:
    yield from serving("as it is")


def bucket(server: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> str:
    import fsspec

    fsspec.get_filesystem_class("gs").clear_instance_cache()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server)
    monkeypatch.setenv("OFFRAMP_CACHE", str(cache))
    name = f"runs-{uuid.uuid4().hex[:12]}"
    request = Request(f"{server}/storage/v1/b", f'{{"name": "{name}"}}'.encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    with urlopen(request) as answer:
        assert answer.status == 200
    return f"gs://{name}/store"


@pytest.fixture
def gs(google: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    return bucket(google, monkeypatch, tmp_path / "cache")


def test_what_is_kept_is_read_by_others(gs: str) -> None:
    kept_and_read(gs)


def test_a_manifest_is_made_once_and_a_lock_is_held_by_one(gs: str) -> None:
    store = Store(gs)
    store._begin()
    files = store._files
    assert files.write_folder({"node.json": b"{}"}, "nodes", "k", over=False)
    assert not files.write_folder({"node.json": b"[]"}, "nodes", "k", over=False)
    assert files.read("nodes", "k", "node.json") == b"{}"
    with store.lock("k"):
        assert in_fork(lambda: None if Store(gs).try_lock("k") is None else 1 / 0) == 0
    assert in_fork(lambda: Store(gs).lock("k").release()) == 0


def test_what_a_dead_writer_left_is_collected(gs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(gs)
    key = node(store)
    store._files._remote.remove("nodes", key, "node.json")
    assert store.collect() == 0  # it may be at work
    monkeypatch.setattr(stores, "STALE_S", -1.0)
    assert store.collect() > 0
    assert [n for n in store._files._remote.below() if n[0] != "locks"] == [("store.json",)]


def test_a_store_without_conditions_is_refused(
    unconditional: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The negative control: the emulator as it is."""
    store = Store(bucket(unconditional, monkeypatch, tmp_path / "cache"))
    refuses(UNCONDITIONAL, store.lock, "k")


@pytest.mark.usefixtures("gs")
def test_there_is_no_such_bucket() -> None:
    refuses("no bucket 'none'", lambda: node(Store("gs://none/store")))
