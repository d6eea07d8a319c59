"""`offramp serve`: a bundle behind HTTP."""

from __future__ import annotations

import importlib.util
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offramp import units
from offramp.cli import options
from offramp.cli.options import argument, option
from offramp.cli.render import emit
from offramp.errors import OfframpError

if TYPE_CHECKING:
    from offramp.bundle.runtime import Bundle

NEEDED = ("onnxruntime", "starlette", "uvicorn", "prometheus_client")
PATIENCE_S = 30  # for what was taken, when the server is asked to end


def serve(
    bundle: Annotated[str, argument("BUNDLE", "A bundle's folder, or hf:USER/NAME.")],
    host: Annotated[str, option("ADDRESS", "The address to listen at; 0.0.0.0 is all.")] = "127.0.0.1",
    port: Annotated[int, option("N", "The port; 0 takes a free one.", min=0, max=65535)] = 8000,
    max_wait: Annotated[
        str, option("TIME", "How long an image waits to be answered with others.")
    ] = "2ms",
    max_batch: Annotated[int, option("N", "The most images answered together.", min=1)] = 32,
    queue: Annotated[int, option("N", "The most requests at a time; others get 503.", min=1)] = 256,
    max_body: Annotated[str, option("SIZE", "The largest request; larger ones get 413.")] = "10MB",
    threads: Annotated[
        int | None, option("N", "Threads of onnxruntime. By default as many as cores.", min=1)
    ] = None,
    json: options.JsonOption = False,
) -> None:
    """Serve a bundle over HTTP.

    POST an image file to /predict; the answer is JSON. Images that arrive together run together, and
    each is answered as soon as it leaves. /health says that it runs. /metrics is for Prometheus, with
    the share of images by exit. After Ctrl-C or SIGTERM it answers the waiting requests and ends. It has
    no login: put a proxy before it if you need one.

    \b
    Examples:
      offramp serve bundle/
      curl --data-binary @photo.jpg http://127.0.0.1:8000/predict
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        said = ", ".join(missing)
        raise OfframpError(f"serve needs {said}; install with: pip install 'offramp[serve]'")
    import uvicorn

    from offramp.serve.app import ServeLimits, make_app

    limits = ServeLimits(
        batch=max_batch,
        wait=units.parse(max_wait, units.TIME, "--max-wait"),
        queue=queue,
        body=int(units.parse(max_body, units.SIZE, "--max-body")),
    )
    found = opened(bundle, threads)
    for reason in found.unreliable:
        typer.echo(f"Unreliable: {reason}.", err=True)
    app = make_app(found, limits, name_of(bundle))
    listening = listener(host, port)
    with listening:
        shown = f"[{host}]" if ":" in host else host
        at = listening.getsockname()[1]
        address = f"http://{shown}:{at}"
        if json:
            emit({"bundle": bundle, "address": address, "unreliable": found.unreliable})
        else:
            typer.echo(f"{bundle}: POST images to {address}/predict")
        sys.stdout.flush()
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=PATIENCE_S
        )
        uvicorn.Server(config).run(sockets=[listening])


def listener(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises OfframpError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = None
    try:
        # Of TCP by name: only then does asyncio send small answers at once, and not 40 ms later.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen()  # whoever comes before the server is up waits for it
    except (OSError, UnicodeError) as error:  # the latter of what is no name of a machine
        if made is not None:  # a system without IPv6 makes none
            made.close()
        why = getattr(error, "strerror", None) or error
        raise OfframpError(
            f"cannot listen at {host}:{port} ({why}); choose another --port or --host"
        ) from error
    return made


def name_of(bundle: str) -> str:
    """Of a bundle's folder, or on the hub: what is fetched lies in a folder named by a hash."""
    from offramp.bundle import hub

    return bundle if bundle.startswith(hub.PREFIX) else Path(bundle).resolve().name


def opened(bundle: str, threads: int | None) -> Bundle:
    from offramp.bundle import folder, hub

    return folder.opened(hub.local(bundle) or Path(bundle), threads)
