"""A server before another one, which answers some requests as networks and servers in trouble do."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR
from urllib.parse import urlsplit

CUT = "cut"  # before the request arrives
LOST = "lost"  # what was asked is done, and the answer never comes
HALF = "half"  # the connection ends in the middle of the answer
BROKEN = "500"
BUSY = "503"
SLOW = "slow"
SKEWED = "403"
IGNORES_CONDITIONS = "unconditional"
SAYS_LESS = "412 alone"  # as Ceph and MinIO do, which do not name the condition that failed
SLOW_S = 0.3  # more than any answer here takes, less than any patience
HOP = ("connection", "keep-alive", "transfer-encoding", "content-length")
ERRORS = {BROKEN: "InternalError", BUSY: "SlowDown", SKEWED: "RequestTimeTooSkewed"}
SAID = {SKEWED: "The difference between the request time and the current time is too large."}

Fault = Callable[[str, str], str | None]
"""What goes wrong with a method and a path; None where nothing does."""


@dataclass
class Proxy:
    """endpoint: its address.  fault: may be set at any time.  requests: method and path of each."""

    endpoint: str
    fault: Fault = lambda method, path: None  # noqa: ARG005
    requests: list[tuple[str, str]] = field(default_factory=list)
    faults: int = 0

    def count(self, method: str, part: str) -> int:
        return sum(m == method and part in path for m, path in self.requests)


def every(count: int, kind: str) -> Fault:
    """The same fault twice in so many requests: of one alone, HTTP libraries try again by themselves."""
    number = iter(range(2, 10**9))
    return lambda method, path: kind if next(number) % count < 2 else None  # noqa: ARG005


@contextmanager
def before(upstream: str, port: int = 0) -> Iterator[Proxy]:
    """A proxy before the server at `upstream`."""
    server_url = urlsplit(upstream)
    assert server_url.hostname is not None and server_url.port is not None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # headers and body are two packets

        def handle_any(self) -> None:
            proxy.requests.append((self.command, self.path))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = proxy.fault(self.command, self.path)
            proxy.faults += kind is not None
            if kind == CUT:
                self._cut()
            elif kind in ERRORS:
                text = f"<Code>{ERRORS[kind]}</Code><Message>{SAID.get(kind, kind)}</Message>"
                xml = {"Content-Type": "application/xml"}
                self._answer(int(kind), xml, f"<Error>{text}</Error>".encode())
            else:
                if kind == SLOW:
                    time.sleep(SLOW_S)
                self._pass_on(body, kind)

        def _pass_on(self, body: bytes, kind: str | None) -> None:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP}
            if kind == IGNORES_CONDITIONS:
                headers.pop("If-None-Match", None)
            onward = HTTPConnection(server_url.hostname or "", server_url.port)
            try:
                onward.request(self.command, self.path, body, headers)
                answer = onward.getresponse()
                data = answer.read()
            finally:
                onward.close()
            if kind == LOST:
                self._cut()
                return
            if kind == SAYS_LESS:
                data = re.sub(rb"<Condition>.*</Condition>", b"", data)
            length = len(data) or int(answer.headers.get("Content-Length") or 0)
            passed = {k: v for k, v in answer.headers.items() if k.lower() not in HOP}
            self._answer(answer.status, passed, data, length, half=kind == HALF)

        def _answer(
            self,
            status: int,
            headers: dict[str, str],
            data: bytes,
            length: int | None = None,
            half: bool = False,
        ) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if half else data)
            if half:
                self._cut()

        def _cut(self) -> None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(SHUT_RDWR)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:  # whoever asked may be gone
            pass

    server = Server(("127.0.0.1", port), Handler)
    proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
