"""A web server of the tests' own, on the loopback, whose pages may change and whose answers may fail."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """address: without a slash at its end.  pages: bytes by path.  leads: where a path leads on to.
    length: what answers say of their own, where that is not so.
    cut: so many answers end half-way.  down: so many are 503.  requests: every path, in order."""

    address: str = ""
    pages: dict[str, bytes] = field(default_factory=dict)
    leads: dict[str, str] = field(default_factory=dict)
    length: str | None = None
    cut: int = 0
    down: int = 0
    requests: list[str] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Site]:
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append(self.path)
            page = site.pages.get(self.path)
            if self.path in site.leads:
                self.send_response(302)
                self.send_header("Location", site.leads[self.path])
                self.end_headers()
            elif site.down:
                site.down -= 1
                self.send_error(503)
            elif page is None:
                self.send_error(404)
            else:
                self.send_response(200)
                self.send_header("Content-Length", site.length or str(len(page)))
                self.end_headers()
                self.wfile.write(page[: len(page) // 2] if site.cut else page)
                site.cut -= site.cut > 0

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            site.address = f"http://127.0.0.1:{server.server_port}"
            yield site
        finally:
            server.shutdown()
            thread.join()
