"""A bundle behind HTTP."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from offramp import units
from offramp.api.answer import answer
from offramp.api.options import CommandOption, size
from offramp.errors import OfframpError, check_installed
from offramp.terminal import TextBlocks

if TYPE_CHECKING:
    from offramp.bundle.runtime import Bundle

NEEDED = ("onnxruntime", "starlette", "uvicorn", "prometheus_client")


@answer
class BundleServer:
    """A server that listens, and answers once it runs.

    Attributes:
        bundle: What it serves.
        address: Where it listens.
        unreliable: Why the bundle's answers are not to be trusted; empty for reliable ones.
    """

    bundle: str
    address: str
    unreliable: Sequence[str]
    _server: Any
    _socket: socket.socket

    def as_json(self) -> dict[str, Any]:
        return {"bundle": self.bundle, "address": self.address, "unreliable": self.unreliable}

    def warnings(self) -> Sequence[str]:
        return [f"Unreliable: {reason}." for reason in self.unreliable]

    def document(self) -> TextBlocks:
        return [
            f"POST images to {self.address}/predict",
            f"Bundle: {self.bundle}",
        ]  # lines that fold no address

    def run(self, as_json: bool = False, show: Callable[[], None] = lambda: None) -> int:
        """Answer requests until the process is interrupted."""
        from offramp.process import keep_freed_memory

        keep_freed_memory(False)  # one large image would stay in memory for good
        with self._socket:
            if as_json:  # the answer does not say it
                for line in self.warnings():
                    print(line, file=sys.stderr)
            show()
            sys.stdout.flush()
            self._server.run(sockets=[self._socket])
        return 0


def serve_bundle(
    bundle: Annotated[str, CommandOption("BUNDLE")],
    *,
    host: Annotated[str, CommandOption("ADDRESS")] = "127.0.0.1",
    port: Annotated[int, CommandOption("N", least=0, most=65535)] = 8000,
    max_wait: Annotated[float, CommandOption("TIME", parse=units.seconds, default="2ms")] = 0.002,
    max_batch: Annotated[int, CommandOption("N", least=1)] = 32,
    queue: Annotated[int, CommandOption("N", least=1)] = 256,
    max_body: Annotated[int, CommandOption("SIZE", parse=size, default="10MB")] = 10_000_000,
    max_pixels: Annotated[int, CommandOption("N", least=1)] = 50_000_000,
    threads: Annotated[int | None, CommandOption("N", least=1)] = None,
    alarm_every: Annotated[int, CommandOption("N", least=0)] = 315_360_000,
) -> BundleServer:
    """Serve a bundle over HTTP.

    POST an image file to /predict, or a form of several; the answer is JSON, and ?top=3 names the three
    likeliest classes. Images of several requests run together, also where they meet at a later exit, and
    each is answered as soon as it leaves. /health says that it runs, /ready that its network is warm,
    /openapi.json what it takes, and /metrics for Prometheus how many left at each exit, beside what
    calibration expects. Once images are no longer those of calibration, an alarm says so there and in
    a line. No picture is kept. After Ctrl-C or SIGTERM it answers the waiting requests and ends. It
    has no login: put a proxy before it if you need one.

    Args:
        bundle: A bundle's folder, or hf:USER/NAME.
        host: The address to listen at; 0.0.0.0 is all.
        port: The port; 0 takes a free one.
        max_wait: How long an image waits for others, while the server is busy and they would run quicker
            together, in seconds, or such as 2ms.
        max_batch: The most images that run together.
        queue: The most images at a time; others get 503.
        max_body: The largest request, in bytes, or such as 10MB; larger ones get 413.
        max_pixels: The most pixels of an image; larger ones get 413.
        threads: Threads of onnxruntime. By default as many as cores.
        alarm_every: Images between false alarms, on average, at least. By default those of a year at ten
            a second; 0 turns the alarm off.

    Returns:
        A server that listens. Its `run` answers until it is interrupted; a command calls it.

    Raises:
        OfframpError: This is no bundle, a package is missing, or the port is taken.

    On the command line:
        offramp serve bundle/
        curl -F image=@photo.jpg http://127.0.0.1:8000/predict
    """
    check_installed("serve", "serve", *NEEDED)
    from offramp.serve.alarm import Watch
    from offramp.serve.app import make_app
    from offramp.serve.server import make_server
    from offramp.serve.uploads import ServeLimits

    limits = ServeLimits(max_batch, max_wait, queue, max_body, max_pixels)
    network = opened(bundle, threads)
    watch = Watch(network, alarm_every)
    listening = listener(host, port)
    server = make_server(make_app(network, limits, name_of(bundle), watch), limits)
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listening.getsockname()[1]}"
    return BundleServer(bundle, address, network.unreliable, server, listening)


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OfframpError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server = None
    try:
        # Of TCP by name: only then does asyncio send small answers at once, and not 40 ms later.
        server = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((host, port))
        server.listen()  # whoever comes before the server is up waits for it
    except (OSError, UnicodeError) as error:  # the latter of what is no name of a machine
        if server is not None:  # a system without IPv6 makes none
            server.close()
        why = getattr(error, "strerror", None) or error
        raise OfframpError(
            f"cannot listen at {host}:{port} ({why}); choose another `port` or `host`"
        ) from error
    return server


def name_of(bundle: str) -> str:
    """Of a bundle's folder, or on the hub: what is fetched lies in a folder named by a hash."""
    from offramp.bundle import hub

    return bundle if bundle.startswith(hub.PREFIX) else Path(bundle).resolve().name


def opened(bundle: str, threads: int | None) -> Bundle:
    """A bundle of a folder, or of the hub."""
    from offramp.bundle import folder, hub

    return folder.opened(hub.local(bundle) or Path(bundle), threads)
