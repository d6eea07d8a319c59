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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import uvicorn
from PIL import Image
from syrupy.assertion import SnapshotAssertion

from offramp.api.deploy.serve import listener, name_of, opened
from offramp.bundle.folder import seal
from offramp.bundle.runtime import Bundle
from offramp.infer.image_files import open_bundle
from offramp.preprocessing import Preprocessing
from offramp.serve.app import Batcher, Refused, ServeLimits, _Service, make_app
from refusal import refuses
from wording import refusal

CLIENTS, EACH = 6, 15
HOUR = 3600.0  # that a batch waits for more, where the test ends the wait


def png(pixels: np.ndarray) -> bytes:
    """[8, 8] uint8 as a file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    from sklearn.datasets import load_digits

    return [np.asarray(image * 15, np.uint8) for image in load_digits().images[: CLIENTS * EACH]]


@contextmanager
def serving(folder: Path | Bundle, **limits: Any) -> Iterator[int]:
    """The port of a server of this bundle, which ends with the block."""
    bundle = folder if isinstance(folder, Bundle) else Bundle(folder, threads=1)
    app = make_app(bundle, ServeLimits(**limits), name_of(str(bundle.path)))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def held_up(bundle: Bundle, stage: int) -> threading.Event:
    """A stage of the bundle answers once this event is set."""
    released, inner = threading.Event(), bundle.stages[stage].session

    class Session:
        def run(self, *arguments: Any) -> Any:
            released.wait()
            return inner.run(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

    object.__setattr__(bundle.stages[stage], "session", Session())
    return released


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
            answers = [answer for each in pool.map(client, range(CLIENTS)) for answer in each]
        metrics = ask(port, None, "/metrics", "GET")[1]
        assert ask(port, None, "/health", "GET") == (200, {"status": "ok"})
    assert sorted(at for at, _, _ in answers) == list(range(len(pictures)))
    for at, status, answer in answers:
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
    released = held_up(bundle, 1)
    batcher = Batcher(bundle, 2, HOUR)
    slow, quick = batcher.submit(noise[late]), batcher.submit(noise[early])
    assert quick.result().exit == 1 and quick.result().batch == 2
    assert not slow.done()
    released.set()
    assert slow.result().exit == places[late]
    batcher.close()


def test_a_network_that_fails_is_told_and_the_next_batch_answered(leaving: Path) -> None:
    batcher = Batcher(Bundle(leaving, threads=1), 1, 0.0)
    bad = batcher.submit(np.zeros((2, 8, 8), np.float32))
    with pytest.raises(Exception, match="fails"):
        bad.result()
    assert batcher.submit(np.zeros((1, 8, 8), np.float32)).result().batch == 1
    batcher.close()


def test_what_answers_no_pictures_is_not_served(
    leaving: Path, tmp_path: Path, snapshot: SnapshotAssertion
) -> None:
    """Nor does `predict` answer files by it: both did, with pixels that the network does not know."""
    bundle = Path(shutil.copytree(leaving, tmp_path / "floats"))
    layout = json.loads((bundle / "stages.json").read_text())
    (bundle / "stages.json").write_text(json.dumps({**layout, "normalized": True}))
    seal(bundle)
    assert refusal(opened, str(bundle), 1) == snapshot
    assert refusal(open_bundle, bundle) == snapshot
    assert opened(str(leaving), 1).labels == open_bundle(leaving).classes


def test_limits(leaving: Path, pictures: list[np.ndarray]) -> None:
    with serving(leaving, body=2_000, pixels=100_000, queue=1, wait=0.0) as port:
        assert ask(port, png(pictures[0]))[0] == 200
        assert ask(port, b"x" * 2_001)[0] == 413
        chunks = iter([b"x" * 1_500, b"x" * 1_500])  # of no length that is told
        assert ask(port, chunks, **{"Transfer-Encoding": "chunked"})[0] == 413
        assert ask(port, b"no image")[0] == 415
        assert ask(port, png(pictures[0])[:60])[0] in (415, 422)
        status, answer = ask(port, png(np.zeros((9, 9), np.uint8)))
        assert status == 422 and "9×9 pixels and the network takes 8×8" in answer["error"]
        assert ask(port, png(np.zeros((400, 400), np.uint8)))[0] == 413  # small as a file
        for path, status in {"/predict": 405, "/nowhere": 404}.items():
            code, answer = ask(port, None, path, "GET")
            assert code == status and "POST an image file to /predict" in answer["error"]
        with slow(port):  # one request is taken and not answered: there is no room for another
            status, answer = ask(port, png(pictures[0]))
            assert status == 503 and "try again" in answer["error"]
        wait(lambda: ask(port, png(pictures[0]))[0] == 200)


@pytest.mark.parametrize(
    ("image", "status", "message"),
    [
        (Image.new("L", (1, 20_000)), 413, "more than 100,000 pixels, as it is or scaled"),
        (Image.new("1", (20_000, 10_000)), 413, "more than 100,000 pixels"),  # which Pillow refuses
        (Image.new("RGB", (9, 9)), 422, "cannot be answered: it is in color"),
        (b"P5 9 9 255\n" + b"x" * 80, 422, "cannot be read: image file is truncated"),
    ],
)
def test_what_an_image_would_take_is_known_before_it_is_read(
    image: Image.Image | bytes, status: int, message: str
) -> None:
    how = Preprocessing((8, 8), 1, (0.5,), (0.5,), resize=8, crop=True)
    bundle: Any = SimpleNamespace(preprocessing=how, stages=())
    buffer = io.BytesIO(image if isinstance(image, bytes) else b"")
    if isinstance(image, Image.Image):
        image.save(buffer, "PNG")
    with pytest.raises(Refused, match=message) as refused:
        _Service(bundle, ServeLimits(pixels=100_000), "a")._decoded(buffer.getvalue())
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
    """Until it is so. Each look is a request, so that a slow server has longer: no clock ends it."""
    assert any(true() for _ in range(20_000))


def test_small_answers_are_not_held_back() -> None:
    """Else each would wait for the client's acknowledgment of its header, 40 ms."""

    async def option(listening: socket.socket) -> int:
        answer_: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            taken_port = writer.get_extra_info("socket")
            answer_.set_result(taken_port.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(connected, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            answer = await answer_
            writer.close()
            return answer

    assert asyncio.run(option(listener("127.0.0.1", 0))) == 1
    with listener("127.0.0.1", 0) as taken_port:
        refuses("cannot listen at 127.0.0.1:", listener, *taken_port.getsockname())
    refuses("no..name:0 .* `host`", listener, "no..name", 0)


def test_a_system_without_ipv6_is_a_line(
    monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    def none(*_: Any) -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", none)
    assert refusal(listener, "::1", 0) == snapshot


def when_closed(port: int, then: Callable[[], None]) -> None:
    """As soon as the server takes no more connections."""
    with suppress(OSError):
        while True:
            socket.create_connection(("127.0.0.1", port)).close()
    then()


def test_what_is_in_work_is_answered_before_the_end(leaving: Path, pictures: list[np.ndarray]) -> None:
    """The end comes while the first of five images is held up, and the others wait for it."""
    bundle = Bundle(leaving, threads=1)
    expected = bundle.predict([Image.fromarray(each) for each in pictures[:5]])
    released = held_up(bundle, 0)
    with ThreadPoolExecutor(6) as pool:
        with serving(bundle) as port:
            answers = [pool.submit(ask, port, png(each)) for each in pictures[:5]]
            wait(lambda: "offramp_taken 5.0" in ask(port, None, "/metrics", "GET")[1])
            pool.submit(when_closed, port, released.set)
        outcomes = [answer.result() for answer in answers]
    assert [status for status, _ in outcomes] == [200] * 5
    assert [answer["class"] for _, answer in outcomes] == list(expected.labels)


def test_a_server_ends_by_the_signal(leaving: Path) -> None:
    command = [sys.executable, "-m", "offramp", "serve", str(leaving), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1].partition("/")[0])
            assert ask(port, None, "/health", "GET")[0] == 200
        finally:  # or a failure above would wait for a server that nothing ends
            process.send_signal(signal.SIGTERM)
    assert process.returncode in (143, -signal.SIGTERM)  # which shells call 143
