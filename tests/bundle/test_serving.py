"""`offramp serve` on the loopback: no answer lost or mixed up, each as `predict` gives it; limits."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image

from offramp.api.deploy.serve import listener, name_of, opened
from offramp.bundle.folder import seal
from offramp.bundle.preprocessing import Preprocessing
from offramp.bundle.runtime import Bundle
from offramp.infer.image_files import open_bundle
from offramp.serve.app import Batcher, Refused, ServeLimits, _Service, make_app
from refusal import refuses

CLIENTS, EACH = 6, 15


def png(pixels: np.ndarray) -> bytes:
    """[8, 8] uint8 as a file."""
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return held.getvalue()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    from sklearn.datasets import load_digits

    return [np.asarray(image * 15, np.uint8) for image in load_digits().images[: CLIENTS * EACH]]


@contextmanager
def serving(folder: Path, **limits: Any) -> Iterator[int]:
    """The port of a server of this bundle."""
    app = make_app(Bundle(folder, threads=1), ServeLimits(**limits), name_of(str(folder)))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def ask(
    port: int, body: Any, path: str = "/predict", method: str = "POST", **headers: str
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers, encode_chunked=bool(headers))
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if "json" in answer.headers["content-type"] else text.decode()


@pytest.mark.parametrize("kind", ["bundle", "classwise"])
def test_no_answer_is_lost_or_mixed_up(kind: str, leaving: Path, pictures: list[np.ndarray]) -> None:
    folder = leaving.with_name(kind)
    expected = Bundle(folder, threads=1).predict([Image.fromarray(each) for each in pictures])
    assert len(set(expected.exits.tolist())) > 1
    with serving(folder, batch=8, wait=0.005) as port:

        def client(number: int) -> list[tuple[int, int, Any]]:
            mine = range(number, len(pictures), CLIENTS)
            return [(at, *ask(port, png(pictures[at]))) for at in mine]

        with ThreadPoolExecutor(CLIENTS) as pool:
            told = [one for each in pool.map(client, range(CLIENTS)) for one in each]
        metrics = ask(port, None, "/metrics", "GET")[1]
        assert ask(port, None, "/health", "GET") == (200, {"status": "ok"})
    assert sorted(at for at, _, _ in told) == list(range(len(pictures)))
    for at, status, answer in told:
        assert status == 200
        assert answer["class"] == expected.labels[at] and answer["exit"] == expected.exits[at]
        assert answer["confidence"] == pytest.approx(float(expected.confidence[at]), abs=1e-5)
        assert answer["compute_share"] == pytest.approx(float(expected.compute[at]))
    lines = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    for exit in (1, 2, 3):
        count = int((expected.exits == exit).sum())
        assert float(lines[f'offramp_answers_total{{exit="{exit}"}}']) == count
        share = float(lines[f'offramp_exit_share{{exit="{exit}"}}'])
        assert share == pytest.approx(count / len(pictures))
    assert float(lines["offramp_taken"]) == 0


def test_what_leaves_early_does_not_wait_for_the_others(leaving: Path) -> None:
    """While the second stage is held up, the images that left at the first have their answers."""
    bundle = Bundle(leaving, threads=1)
    noise = np.random.default_rng(0).standard_normal((64, 1, 8, 8)).astype(np.float32)
    places = bundle.run(noise).exits
    late, early = int(np.argmax(places > 1)), int(np.argmax(places == 1))
    assert places[late] > 1 and places[early] == 1
    held = threading.Event()
    whole = bundle.stages[1].session.run

    class Held:
        def run(self, *given: Any) -> Any:
            assert held.wait(60)
            return whole(*given)

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

    inner = bundle.stages[1].session
    object.__setattr__(bundle.stages[1], "session", Held())
    batcher = Batcher(bundle, 2, 10.0)
    slow, quick = batcher.submit(noise[late]), batcher.submit(noise[early])
    assert quick.result(60).exit == 1 and quick.result().batch == 2
    assert not slow.done()
    held.set()
    assert slow.result(60).exit == places[late]
    batcher.close()


def test_a_network_that_fails_is_told_and_the_next_batch_answered(leaving: Path) -> None:
    batcher = Batcher(Bundle(leaving, threads=1), 1, 0.0)
    bad = batcher.submit(np.zeros((2, 8, 8), np.float32))
    with pytest.raises(Exception, match="fails"):
        bad.result(60)
    assert batcher.submit(np.zeros((1, 8, 8), np.float32)).result(60).batch == 1
    batcher.close()


def test_what_answers_no_pictures_is_not_served(leaving: Path, tmp_path: Path) -> None:
    """Nor does `predict` answer files by it: both did, with pixels that the network does not know."""
    bundle = Path(shutil.copytree(leaving, tmp_path / "floats"))
    layout = json.loads((bundle / "stages.json").read_text())
    (bundle / "stages.json").write_text(json.dumps({**layout, "normalized": True}))
    seal(bundle)
    refuses("normalized beforehand, and how is not known", opened, str(bundle), 1)
    refuses("normalized beforehand, and how is not known", open_bundle, bundle)
    assert opened(str(leaving), 1).labels == open_bundle(leaving).classes


def test_limits(leaving: Path, pictures: list[np.ndarray]) -> None:
    with serving(leaving, body=2_000, pixels=100_000, queue=1, wait=0.0) as port:
        assert ask(port, png(pictures[0]))[0] == 200
        assert ask(port, b"x" * 2_001)[0] == 413
        chunks = iter([b"x" * 1_500, b"x" * 1_500])  # of no length that is told
        assert ask(port, chunks, **{"Transfer-Encoding": "chunked"})[0] == 413
        assert ask(port, b"no image")[0] == 415
        assert ask(port, png(pictures[0])[:60])[0] in (415, 422)
        status, said = ask(port, png(np.zeros((9, 9), np.uint8)))
        assert status == 422 and "9×9 pixels and the network takes 8×8" in said["error"]
        assert ask(port, png(np.zeros((400, 400), np.uint8)))[0] == 413  # small as a file
        for path, status in {"/predict": 405, "/nowhere": 404}.items():
            code, said = ask(port, None, path, "GET")
            assert code == status and "POST an image file to /predict" in said["error"]
        with slow(port):  # one request is taken and not answered: there is no room for another
            status, said = ask(port, png(pictures[0]))
            assert status == 503 and "try again" in said["error"]
        wait(lambda: ask(port, png(pictures[0]))[0] == 200)


@pytest.mark.parametrize(
    ("image", "status", "said"),
    [
        (Image.new("L", (1, 20_000)), 413, "more than 100,000 pixels, as it is or scaled"),
        (Image.new("1", (20_000, 10_000)), 413, "more than 100,000 pixels"),  # which Pillow refuses
        (Image.new("RGB", (9, 9)), 422, "cannot be answered: it is in color"),
        (b"P5 9 9 255\n" + b"x" * 80, 422, "cannot be read: image file is truncated"),
    ],
)
def test_what_an_image_would_take_is_known_before_it_is_read(
    image: Image.Image | bytes, status: int, said: str
) -> None:
    how = Preprocessing((8, 8), 1, (0.5,), (0.5,), resize=8, crop=True)
    bundle: Any = SimpleNamespace(preprocessing=how, stages=())
    held = io.BytesIO(image if isinstance(image, bytes) else b"")
    if isinstance(image, Image.Image):
        image.save(held, "PNG")
    with pytest.raises(Refused, match=said) as refused:
        _Service(bundle, ServeLimits(pixels=100_000), "a")._decoded(held.getvalue())
    assert refused.value.status == status


def test_what_is_served_has_its_name(leaving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(leaving)
    with serving(Path()) as port:
        assert ask(port, None, "/", "GET")[1]["bundle"] == leaving.name
    assert name_of("of/mine/") == "mine" and name_of("hf:me/flowers@v2") == "hf:me/flowers@v2"


@contextmanager
def slow(port: int) -> Iterator[None]:
    """A request whose body does not come, taken by the server."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n")
        wait(lambda: "offramp_taken 1.0" in ask(port, None, "/metrics", "GET")[1])
        yield


def wait(true: Any) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_small_answers_are_not_held_back() -> None:
    """Else each would wait for the client's acknowledgment of its header, 40 ms."""

    async def option(listening: socket.socket) -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            where_left = writer.get_extra_info("socket")
            found.set_result(where_left.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(connected, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            answer = await found
            writer.close()
            return answer

    assert asyncio.run(option(listener("127.0.0.1", 0))) == 1
    with listener("127.0.0.1", 0) as where_left:
        refuses("cannot listen at 127.0.0.1:", listener, *where_left.getsockname())
    refuses("cannot listen at no..name:0 .* or --host", listener, "no..name", 0)


def test_a_system_without_ipv6_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", none)
    refuses("cannot listen at ::1:0 .*not supported.* or --host", listener, "::1", 0)


def test_what_was_taken_is_answered_before_the_end(leaving: Path, pictures: list[np.ndarray]) -> None:
    """SIGTERM comes while five images wait for others."""
    command = [sys.executable, "-m", "offramp", "serve", str(leaving), "--port", "0", "--max-wait", "2s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1].partition("/")[0])
            with ThreadPoolExecutor(5) as pool:
                answers = [pool.submit(ask, port, png(each)) for each in pictures[:5]]
                wait(lambda: "offramp_taken 5.0" in ask(port, None, "/metrics", "GET")[1])
                process.send_signal(signal.SIGTERM)
                told = [answer.result() for answer in answers]
            ended = process.wait(60)
        finally:
            process.kill()
    expected = Bundle(leaving, threads=1).predict([Image.fromarray(each) for each in pictures[:5]])
    assert [status for status, _ in told] == [200] * 5
    assert [answer["class"] for _, answer in told] == list(expected.labels)
    assert ended in (143, -signal.SIGTERM)  # which shells call 143
