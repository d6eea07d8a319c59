"""`offramp serve` on the loopback: no answer lost or mixed up, each as `predict` gives it; limits."""

import asyncio
import http.client
import io
import json
import resource
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from bundle_kit import edited, noise
from PIL import Image
from starlette.requests import Request
from starlette.routing import Route
from syrupy.assertion import SnapshotAssertion

from offramp.api.deploy.serve import listener, name_of, opened
from offramp.bundle.runtime import UNANSWERED, Bundle, Stage
from offramp.infer.image_files import open_bundle
from offramp.preprocessing import Preprocessing
from offramp.serve import app, uploads
from offramp.serve.alarm import Watch
from offramp.serve.app import make_app, tell_once
from offramp.serve.batcher import Answer, Batcher
from offramp.serve.server import AT_ONCE, BUSY, LATE, Connection, Connections, make_server
from offramp.serve.uploads import Bodies, Refused, ServeLimits, decoded
from refusal import refuses
from wording import refusal

CLIENTS, EACH = 6, 15
HOUR = 3600.0  # that a batch waits for more, where the test ends the wait
# A tenth of a second is slept between two looks at whether to end, and at the end.
OFTEN = SimpleNamespace(**{**vars(asyncio), "sleep": lambda seconds: asyncio.sleep(seconds / 20)})


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
def serving(folder: Path | Bundle, watch: Watch | None = None, **limits: Any) -> Iterator[int]:
    """The port of a server of this bundle, which ends with the block."""
    bundle = folder if isinstance(folder, Bundle) else Bundle(folder, threads=1)
    chosen, watch = ServeLimits(**limits), watch or Watch(bundle)
    server = make_server(make_app(bundle, chosen, name_of(str(bundle.path)), watch), chosen)
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listening:
        for sleeper in ("uvicorn.server.asyncio", "offramp.serve.server.asyncio"):
            patch.setattr(sleeper, OFTEN)
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
    """The status and the body, of JSON as what it holds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers, encode_chunked="Transfer-Encoding" in headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if "json" in answer.headers["content-type"] else text.decode()


def get(port: int, path: str) -> tuple[int, Any]:
    return ask(port, None, path, "GET")


def await_taken(port: int, count: int) -> None:
    """Until so many requests are taken and not answered."""
    wait(lambda: f"offramp_taken {count:.1f}" in get(port, "/metrics")[1])


@pytest.mark.parametrize("kind", ["bundle", "gated"])
def test_no_answer_is_lost_or_mixed_up(kind: str, leaving: Path, pictures: list[np.ndarray]) -> None:
    folder = leaving.with_name(kind)
    expected = Bundle(folder, threads=1).predict([Image.fromarray(each) for each in pictures])
    assert len(set(expected.exits.tolist())) > 1
    with serving(folder, max_batch=8, max_wait=0.005) as port:

        def client(number: int) -> list[tuple[int, int, Any]]:
            mine = range(number, len(pictures), CLIENTS)
            return [(at, *ask(port, png(pictures[at]))) for at in mine]

        with ThreadPoolExecutor(CLIENTS) as pool:
            answers = [answer for each in pool.map(client, range(CLIENTS)) for answer in each]
        metrics = get(port, "/metrics")[1]
        assert get(port, "/health") == (200, {"status": "ok"})
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
    assert float(lines["offramp_taken"]) == 0


def test_what_leaves_early_does_not_wait_for_the_others(leaving: Path) -> None:
    """While the second stage is held up, the images that left at the first have their answers."""
    bundle = Bundle(leaving, threads=1)
    images = noise(64)
    places = bundle.run(images).exits
    late, early = int(np.argmax(places > 1)), int(np.argmax(places == 1))
    assert places[late] > 1 and places[early] == 1
    released = held_up(bundle, 1)
    batcher = Batcher(bundle, 2, HOUR)
    batcher._running += 1  # as if another stage ran: the first waits for the second
    slow, quick = batcher.submit(images[late]), batcher.submit(images[early])
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
    edited(bundle, "stages.json", "normalized", True)
    assert refusal(opened, str(bundle), 1) == snapshot
    assert refusal(open_bundle, bundle) == snapshot
    assert opened(str(leaving), 1).labels == open_bundle(leaving).classes


def test_limits(leaving: Path, pictures: list[np.ndarray]) -> None:
    bundle = Bundle(leaving, threads=1)
    with serving(bundle, max_body=2_000, max_pixels=100_000, queue=1, max_wait=0.0) as port:
        assert ask(port, png(pictures[0]))[0] == 200
        assert ask(port, b"x" * 2_001)[0] == 413
        chunks = iter([b"x" * 1_500, b"x" * 1_500])  # of no length that is told
        assert ask(port, chunks, **{"Transfer-Encoding": "chunked"})[0] == 413
        assert ask(port, b"no image")[0] == 415
        assert ask(port, png(pictures[0])[:60])[0] in (415, 422)
        status, answer = ask(port, png(np.zeros((9, 9), np.uint8)))
        assert status == 422 and "9×9 pixels" in answer["error"]
        assert ask(port, png(np.zeros((400, 400), np.uint8)))[0] == 413  # small as a file
        for path, status in {"/predict": 405, "/nowhere": 404}.items():
            code, answer = get(port, path)
            assert code == status and "/predict" in answer["error"]
        with busy(bundle, port, pictures[0]):  # there is no room for another
            status, answer = ask(port, png(pictures[0]))
            assert status == 503 and "try again" in answer["error"]
        wait(lambda: ask(port, png(pictures[0]))[0] == 200)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to what comes next."""

    def __init__(self) -> None:
        class Selector(selectors.SelectSelector):
            def select(selector, timeout: float | None = None) -> Any:
                self.now += timeout or 0.0
                return super().select(0)

        self.now = 0.0
        super().__init__(Selector())

    def time(self) -> float:
        return self.now


def sent(rate: int, size: int = 1000) -> Request:
    """A request whose body of so many bytes comes at a rate, ten parts a second."""
    sizes = [len(part) for part in np.array_split(np.empty(size), max(10 * size // rate, 1))]

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.1)
        return {"type": "http.request", "body": b"x" * sizes.pop(), "more_body": bool(sizes)}

    return Request({"type": "http", "headers": []}, receive)


def test_bodies_that_come_slowly_lock_nobody_out() -> None:
    """Each was a waiting image for 30 seconds: so many of them, and nobody else was answered."""

    async def outcomes(*rates: int, after: float) -> list[Any]:
        """Of bodies of 1,000 bytes at these rates, then of one that comes at once."""
        bodies = Bodies(ServeLimits(queue=len(rates)))
        coming = [asyncio.create_task(bodies.read(sent(rate))) for rate in rates]
        await asyncio.sleep(after)
        last = asyncio.create_task(bodies.read(sent(10_000)))
        done = await asyncio.gather(*coming, last, return_exceptions=True)
        return [each.status if isinstance(each, Refused) else len(each) for each in done]

    def statuses(*rates: int, after: float) -> list[Any]:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(outcomes(*rates, after=after))

    slow = 10  # bytes a second: its thousand take longer than it has
    assert statuses(slow, slow, 100, after=5.0) == [408, 408, 1000, 1000]
    assert statuses(100, 50, 200, after=3.0) == [1000, 408, 1000, 1000]  # the slowest alone
    assert statuses(100, 50, 200, after=0.5) == [1000, 1000, 1000, 503]  # too early to say
    assert statuses(100, 50, 1000, after=3.0) == [1000, 1000, 1000, 1000]  # there is room


def test_a_body_that_comes_as_anothers_time_ends_is_read_or_told_to_come_again() -> None:
    """It was told that the network failed: whose time is over already cannot be sent away."""

    async def outcomes() -> list[Any]:
        bodies, loop = Bodies(ServeLimits(queue=1)), asyncio.get_running_loop()
        tasks: list[asyncio.Task[bytes]] = []

        def come(rate: int) -> None:
            tasks.append(asyncio.create_task(bodies.read(sent(rate))))

        loop.call_at(30.0 - 1e-10, come, 10_000)  # in the same turn of the loop, and before
        come(10)
        await asyncio.sleep(31)
        return await asyncio.gather(*tasks, return_exceptions=True)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        slow, other = runner.run(outcomes())
    assert isinstance(slow, Refused) and slow.status == 408
    assert isinstance(other, Refused) and other.status == 503


def test_no_more_pixels_are_allowed_than_can_be_read() -> None:
    most = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # beyond, Pillow takes an image for an attack
    assert ServeLimits(max_pixels=most).max_pixels == most
    refuses("pixels", ServeLimits, max_pixels=most + 1)


def test_headers_that_do_not_come_end_their_connection(
    leaving: Path, pictures: list[np.ndarray]
) -> None:
    """Half of a request was waited for without end."""
    with serving(leaving, read=0.05) as port:
        for half in (b"", b"POST /predict HTTP/1.1\r\nHost: x\r\n"):
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                client.sendall(half)
                assert client.makefile("rb").read() == LATE  # to the end
    with serving(leaving) as port:  # the control: others answer as ever, two requests on one
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(2):
            connection.request("POST", "/predict", png(pictures[0]))
            assert connection.getresponse().read().startswith(b'{"class"')
        connection.close()


def test_who_is_silent_locks_nobody_out(leaving: Path, pictures: list[np.ndarray]) -> None:
    with serving(leaving, connections=3) as port:
        silent = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(6)]
        assert ask(port, png(pictures[0]))[0] == 200
        assert silent[0].makefile("rb").read() == LATE  # the one that has been silent for longest
        for client in silent:
            client.close()


def test_who_does_not_read_is_not_waited_for(leaving: Path) -> None:
    with (
        serving(leaving, read=0.3) as port,
        socket.create_connection(("127.0.0.1", port), timeout=30) as client,
        pytest.raises(ConnectionError),
    ):
        while True:  # until the server takes no more, then until it closes
            client.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)


def test_nobody_sends_much_before_others_have_their_turn(
    leaving: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks of a byte, 256 kB took seconds, in which nobody was answered."""
    sizes, received = [], Connection.data_received

    def counted(connection: Connection, data: bytes) -> None:
        sizes.append(len(data))
        received(connection, data)

    monkeypatch.setattr(Connection, "data_received", counted)
    with serving(leaving) as port:
        assert ask(port, bytes(10**6))[0] == 415
        assert sum(sizes) > 10**6 and max(sizes) <= AT_ONCE


class FakeTransport:
    """What a connection writes to, and whether it was closed."""

    def __init__(self) -> None:
        self.written, self.closed = b"", False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int) -> None:
        """It has none."""


def test_where_all_have_sent_their_headers_a_new_connection_is_refused() -> None:
    every = Connections(2, HOUR)

    def connected(sends: bool) -> tuple[Connection, FakeTransport]:
        inner: Any = SimpleNamespace(cycle=None, connection_made=id, connection_lost=id)
        inner.data_received = lambda _: setattr(inner, "cycle", SimpleNamespace(response_complete=False))
        connection, transport = Connection(every, inner), FakeTransport()
        connection.connection_made(transport)  # type: ignore[arg-type]
        if sends:
            connection.data_received(b"all")
        return connection, transport

    async def coming_and_going() -> None:
        (first, to_first), (_, to_silent) = connected(True), connected(False)
        (third, to_third) = connected(True)
        assert (to_silent.written, to_silent.closed) == (LATE, True)
        assert not to_first.closed and not to_third.closed
        _, to_fourth = connected(False)
        assert (to_fourth.written, to_fourth.closed) == (BUSY, True) and not every.silent
        for gone in (first, third, third, third):  # with the silent one and the fourth
            gone.connection_lost(None)
        assert every.count == 0
        _, to_last = connected(False)
        assert not to_last.closed and len(every.silent) == 1

    asyncio.run(coming_and_going())


def test_connections_leave_handles_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = None

    for handles, most in ((256, 64), (20, 8), (10**6, 1000), (resource.RLIM_INFINITY, 1000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, handles=handles: (handles, handles))
        bundle, watch = SimpleNamespace(stages=()), SimpleNamespace()
        made = make_server(make_app(bundle, ServeLimits(), "a", watch), ServeLimits())  # type: ignore[arg-type]
        http_ = made.config.http
        assert isinstance(http_, Connections) and http_.most == most


def test_what_fails_beside_requests_is_a_line_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A server without handles wrote 25 MB of tracebacks in seconds."""

    async def failing() -> None:
        loop = asyncio.get_running_loop()
        tell_once(loop)
        for error in (OSError(24, "Too many"), OSError(24, "Too many"), OSError(5)):
            loop.call_exception_handler({"message": "accept failed\n", "exception": error})

    asyncio.run(failing())
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "failed (OSError(24, 'Too many')" in lines[0]


@pytest.mark.parametrize(
    "limits",
    [
        {"max_wait": 60.0},
        {"max_wait": float("nan")},
        {"max_batch": 10**9},
        {"queue": 0},
        {"max_body": 2**62},
    ],
    ids=str,
)
def test_limits_out_of_range_are_refused(limits: dict[str, Any], snapshot: SnapshotAssertion) -> None:
    """A wait longer than a server waits at its end lost the requests that waited."""
    assert refusal(ServeLimits, **limits) == snapshot


@pytest.mark.parametrize(
    ("image", "status", "message"),
    [
        (Image.new("L", (1, 20_000)), 413, "more than 100,000"),  # scaled
        (Image.new("1", (20_000, 10_000)), 413, "more than 100,000"),  # which Pillow refuses
        (Image.new("RGB", (9, 9)), 422, "answered: .* color"),
        (b"P5 9 9 255\n" + b"x" * 80, 422, "read: .* truncated"),
    ],
)
def test_what_an_image_would_take_is_known_before_it_is_read(
    image: Image.Image | bytes, status: int, message: str
) -> None:
    how = Preprocessing((8, 8), 1, (0.5,), (0.5,), resize=8, crop=True)
    buffer = io.BytesIO(image if isinstance(image, bytes) else b"")
    if isinstance(image, Image.Image):
        image.save(buffer, "PNG")
    with pytest.raises(Refused, match=message) as refused:
        decoded(buffer.getvalue(), how, 100_000)
    assert refused.value.status == status


def test_what_is_served_has_its_name(leaving: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(leaving)
    with serving(Path()) as port:
        assert get(port, "/")[1]["bundle"] == leaving.name
    assert name_of("of/mine/") == "mine" and name_of("hf:me/flowers@v2") == "hf:me/flowers@v2"


def form(*files: tuple[str, bytes], field: str = "image") -> tuple[bytes, str]:
    """The body of a form with these files, as curl writes it, and its content type."""
    parts = [
        f'--of\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
        + body
        + b"\r\n"
        for name, body in files
    ]
    return b"".join(parts) + b"--of--\r\n", "multipart/form-data; boundary=of"


def send(port: int, body: bytes, kind: str) -> tuple[int, Any]:
    return ask(port, body, **{"Content-Type": kind})


def test_forms_bring_one_file_or_several(leaving: Path, pictures: list[np.ndarray]) -> None:
    pytest.importorskip("python_multipart")
    expected = Bundle(leaving, threads=1).predict([Image.fromarray(each) for each in pictures[:7]])
    files = [(f"{at}.png", png(each)) for at, each in enumerate(pictures[:7])]
    bundle = Bundle(leaving, threads=1)
    with serving(bundle, max_batch=4, queue=7, max_body=4000) as port:
        status, answer = send(port, *form(files[0]))
        assert (status, answer["file"], answer["class"]) == (200, "0.png", expected.labels[0])
        status, answer = send(port, *form(*files))
        assert status == 200
        rows = answer["answers"]
        assert [row["file"] for row in rows] == [name for name, _ in files]
        assert [row["class"] for row in rows] == list(expected.labels)
        assert [row["exit"] for row in rows] == expected.exits.tolist()
        status, answer = send(port, *form(files[0], ("notes.txt", b"no image")))
        assert status == 415 and answer["error"].startswith("notes.txt: ")
        assert send(port, *form(*files, files[0]))[0] == 400  # more than it may have at a time
        assert send(port, *form(("large.png", b"x" * 4000)))[0] == 413
        body, kind = form(files[0])
        for damaged in (
            body[:40],
            body.replace(b"name=", b"nome="),
            b"",
            body.replace(b"; filename", b"; f"),
        ):
            status, answer = send(port, damaged, kind)
            assert status == 400 and "form" in answer["error"]
        assert send(port, body, "multipart/form-data")[0] == 400  # of no boundary
        with busy(bundle, port, pictures[0]):
            assert send(port, *form(*files))[0] == 503  # seven beside the one that is taken
        wait(lambda: send(port, *form(*files))[0] == 200)
        lines = get(port, "/metrics")[1].splitlines()
        assert "offramp_taken 0.0" in lines
        assert sum(float(each.split()[1]) for each in lines if "offramp_answers_total{" in each) == 16
        assert "offramp_request_seconds_count 4.0" in lines  # a form of seven is one request


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "punycode"])
def test_names_that_are_no_text_have_an_answer(
    charset: str, leaving: Path, pictures: list[np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    """Half a character has no bytes in UTF-8; a form may name any charset."""
    pytest.importorskip("python_multipart")
    name = {"utf-7": "+2AA-.png", "unicode_escape": r"\ud800.png", "punycode": "a-!.png"}[charset]
    with serving(leaving) as port:
        body, kind = form((name, png(pictures[0])))
        status, answer = send(port, body, f"{kind}; charset={charset}")
        if charset == "punycode":
            # Newer versions of Starlette read a name that its charset cannot as Latin-1.
            assert status == 200 or (status == 400 and "form" in answer["error"])
        else:
            assert status == 200 and answer["file"] == "\ud800.png"
            status, answer = send(port, form((name, b"no image"))[0], f"{kind}; charset={charset}")
            assert status == 415 and answer["error"].startswith("\ud800.png: ")
        assert send(port, body, kind[:-1])[0] == 400
    assert not caplog.records  # whoever sends broken forms writes nothing into the server's log


def test_who_goes_away_is_not_answered(
    leaving: Path, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    coming: list[Any] = []
    submit = Batcher.submit
    monkeypatch.setattr(Batcher, "submit", lambda *of: coming.append(submit(*of)) or coming[-1])
    bundle = Bundle(leaving, threads=1)
    released = held_up(bundle, 0)

    def counted(line: str) -> bool:
        return line in get(port, "/metrics")[1]

    with serving(bundle, max_batch=1, max_wait=0.0) as port, ThreadPoolExecutor(2) as pool:
        try:
            stays = [pool.submit(ask, port, png(pictures[0])) for _ in range(2)]  # one a worker
            wait(lambda: counted("offramp_taken 2.0") and len(coming) == 2)
            body = png(pictures[1])
            with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
                head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
                client.sendall(head % len(body) + body)
                wait(lambda: counted("offramp_taken 3.0") and len(coming) == 3)
            wait(lambda: counted('offramp_requests_total{status="499"} 1.0'))
            assert coming[2].cancelled() and counted("offramp_taken 2.0")
        finally:
            released.set()
        assert [each.result()[0] for each in stays] == [200, 200]


def test_forms_need_a_package(
    leaving: Path, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "find_spec", lambda _: None)
    with serving(leaving) as port:
        status, answer = send(port, *form(("a.png", png(pictures[0]))))
        assert status == 415 and "python-multipart" in answer["error"]


def test_the_likeliest_classes(leaving: Path, pictures: list[np.ndarray]) -> None:
    bundle = Bundle(leaving, threads=1)
    with serving(leaving) as port:
        for picture in pictures[:10]:
            _, answer = ask(port, png(picture), "/predict?top=3")
            (logits,) = bundle.predict([Image.fromarray(picture)]).logits
            sure = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
            order = np.argsort(-sure)[:3]
            assert [each["class"] for each in answer["top"]] == [bundle.labels[at] for at in order]
            assert [each["confidence"] for each in answer["top"]] == pytest.approx(sure[order], abs=1e-5)
            assert answer["top"][0]["class"] == answer["class"]
        assert len(ask(port, png(pictures[0]), "/predict?top=999")[1]["top"]) == len(bundle.labels)
        assert "top" not in ask(port, png(pictures[0]))[1]
        for wrong in ("top=0", "top=-1", "top=x", "top=", "top=1.5", "tpo=3"):
            status, answer = ask(port, png(pictures[0]), f"/predict?{wrong}")
            assert status == 400 and "top" in answer["error"]


def test_nan_is_no_answer(
    leaving: Path, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first class was one."""
    outputs, broken = Stage._outputs, False

    def answered(stage: Stage, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [each * np.float32("nan") if broken else each for each in outputs(stage, values)]

    monkeypatch.setattr(Stage, "_outputs", answered)
    with serving(leaving) as port:
        assert ask(port, png(pictures[0]))[0] == 200
        broken = True
        assert ask(port, png(pictures[0])) == (500, {"error": UNANSWERED})
        broken = False
        assert ask(port, png(pictures[0]))[0] == 200


def test_tied_and_endless_logits_have_an_order() -> None:
    bundle: Any = SimpleNamespace(labels="abcd", stages=[SimpleNamespace(exit=2, temperature=1.0)])
    for logits, order in (
        ([1.0, 3.0, 3.0, -np.inf], "bcad"),
        ([1.0, 2.0, -np.inf, -np.inf], "bacd"),
    ):
        answer = Answer("", 0.0, 2, 1.0, 1, (), np.array(logits, np.float32))
        assert "".join(each["class"] for each in app.top_classes(bundle, answer, 4)) == order


def test_the_description_has_every_route_and_answer(leaving: Path, pictures: list[np.ndarray]) -> None:
    bundle = Bundle(leaving, threads=1)
    server = make_app(bundle, ServeLimits(), "flowers", Watch(bundle))
    with serving(leaving) as port:
        status, description = get(port, "/openapi.json")
        plain = ask(port, png(pictures[0]))[1]
        top = ask(port, png(pictures[0]), "/predict?top=2")[1]
        about = get(port, "/")[1]
        refused = ask(port, b"no image")[1]
    assert status == 200 and description["info"]["title"] == leaving.name
    routes = {
        (route.path, method.lower())
        for route in server.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert routes == {(path, way) for path, ways in description["paths"].items() for way in ways}

    def fits(value: Any, schema: Any) -> None:
        jsonschema.Draft202012Validator({**schema, "components": description["components"]}).validate(
            value
        )

    answers = description["components"]["schemas"]["Answer"]
    fits({**plain, "file": "a.png", "unreliable": ["why"]}, answers)
    fits(top, answers)
    with pytest.raises(jsonschema.ValidationError):  # the control
        fits({**plain, "unknown": 1}, answers)
    ok = description["paths"]["/"]["get"]["responses"]["200"]
    fits(about, ok["content"]["application/json"]["schema"])
    refusal_ = description["components"]["responses"]["Refusal"]["content"]["application/json"]
    fits(refused, refusal_["schema"])


def test_the_description_is_of_openapi() -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    description = yaml.safe_load(app.DESCRIPTION.read_text())
    description["info"] |= {"title": "flowers", "version": "1.0"}
    validator.validate(description)
    with pytest.raises(Exception, match=r"is not of type"):  # the control
        validator.validate({**description, "paths": {"/": {"get": {"responses": 1}}}})


@contextmanager
def busy(bundle: Bundle, port: int, picture: np.ndarray) -> Iterator[None]:
    """An image is taken and not answered."""
    wait(lambda: get(port, "/ready")[0] == 200)  # else warming is held up too
    released = held_up(bundle, 0)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, port, png(picture))
        await_taken(port, 1)
        try:
            yield
        finally:
            released.set()
        assert answer.result()[0] == 200


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
            await_taken(port, 5)
            pool.submit(when_closed, port, released.set)
        outcomes = [answer.result() for answer in answers]
    assert [status for status, _ in outcomes] == [200] * 5
    assert [answer["class"] for _, answer in outcomes] == list(expected.labels)


def test_who_asks_again_at_the_end_is_answered_or_knows(
    leaving: Path, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a connection that is kept: what is sent while the server takes no new connections any more is
    answered, and every answer then says that its connection closes. Such requests were lost."""
    monkeypatch.setattr("offramp.serve.server.LOOKS", 100_000)
    bundle, body = Bundle(leaving, threads=1), png(pictures[0])
    released = held_up(bundle, 0)
    with ThreadPoolExecutor(1) as pool:
        with serving(bundle) as port:
            kept = [http.client.HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(2)]
            kept[0].request("POST", "/predict", body)
            await_taken(port, 1)
            kept[1].connect()
            wait(lambda: get(port, "/health")[0] == 200)  # by now the second is let in

            def ask_again() -> None:
                try:
                    kept[1].request("POST", "/predict", body)
                finally:
                    released.set()

            pool.submit(when_closed, port, ask_again)
        answers = [each.getresponse() for each in kept]
    assert [(answer.status, answer.headers["connection"]) for answer in answers] == [(200, "close")] * 2


def test_what_waits_for_others_is_answered_at_the_end(
    leaving: Path, pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever `--max-wait` is: others were lost that waited longer than whoever ends the server."""

    def patient(bundle: Bundle, most: int, _: float) -> Batcher:
        batcher = Batcher(bundle, most, HOUR)
        batcher._running += 1  # as if another stage ran
        monkeypatch.setattr(batcher, "warm", lambda: None)  # all batches are full with eight
        return batcher

    monkeypatch.setattr(app, "Batcher", patient)
    with ThreadPoolExecutor(1) as pool:
        with serving(leaving, max_batch=8) as port:
            answer = pool.submit(ask, port, png(pictures[0]))
            await_taken(port, 1)
            assert not answer.done()
        assert answer.result()[0] == 200


def test_a_server_is_ready_when_its_network_has_run(leaving: Path) -> None:
    bundle = Bundle(leaving, threads=1)
    released = held_up(bundle, 1)
    with serving(bundle) as port:
        assert get(port, "/ready") == (503, {"status": "warming"})
        assert get(port, "/health") == (200, {"status": "ok"})
        released.set()
        wait(lambda: get(port, "/ready") == (200, {"status": "ready"}))
    broken = Bundle(leaving, threads=1)
    object.__setattr__(broken.stages[1], "session", None)
    with serving(broken) as port:
        wait(lambda: "fails" in get(port, "/ready")[1]["status"])
        assert get(port, "/ready")[0] == 503


def test_a_server_ends_by_the_signal(leaving: Path) -> None:
    command = [sys.executable, "-m", "offramp", "serve", str(leaving), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().rsplit(":", 1)[1].partition("/")[0])
            assert get(port, "/health")[0] == 200
        finally:  # or a failure above would wait for a server that nothing ends
            process.send_signal(signal.SIGTERM)
    assert process.returncode in (143, -signal.SIGTERM)  # which shells call 143


def test_a_server_does_without_torch(leaving: Path) -> None:
    """It is seconds of its start, and most of the memory that a server would take."""
    code = (
        "import sys; from offramp.api.deploy.serve import serve_bundle; "
        f"serve_bundle({str(leaving)!r}, port=0); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
