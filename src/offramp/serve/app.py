"""The web application: POST /predict and /feedback, GET /health, /ready, /metrics, and / for what is
served."""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    generate_latest,
)
from pydantic import Field
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from offramp.bundle.runtime import Bundle
from offramp.errors import check_fields, in_line
from offramp.hashing import finite
from offramp.preprocessing import FORMATS
from offramp.serve import page
from offramp.serve.batcher import Answer, Batcher
from offramp.serve.gauges import WatchGauges
from offramp.serve.watch import Watch, run_through

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FEW = 20  # lines of failures outside of requests
WAITING = 64  # images that wait to be run to the end, at most
DECODERS = 2  # threads that turn files into pixels; Pillow lets go of Python's lock while it does


@dataclass(frozen=True)
class ServeLimits:
    """What a server takes. Raises OfframpError for what is out of range."""

    batch: Annotated[int, Field(ge=1, le=4096)] = 32  # images answered together at most
    # Seconds that an image waits for others; fewer than a server that is to end waits for answers.
    wait: Annotated[float, Field(ge=0, le=10)] = 0.002
    queue: Annotated[int, Field(ge=1, le=100_000)] = 256  # requests that are worked on at a time
    body: Annotated[int, Field(ge=1, le=2**30)] = 10_000_000  # bytes of a request
    pixels: Annotated[int, Field(ge=1)] = 50_000_000  # of an image
    read: Annotated[float, Field(gt=0)] = 30.0  # seconds in which headers, then a body must be there
    connections: Annotated[int, Field(ge=1)] = 1000  # at a time

    def __post_init__(self) -> None:
        check_fields(self)


class Refused(Exception):
    """A request that has no answer, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def read_labels(body: bytes, labels: Sequence[str]) -> list[tuple[str, str]]:
    """Ids and labels of the body of /feedback. Raises Refused for anything else."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    rows = value if isinstance(value, list) else [value]
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("id"), str):
            raise Refused(422, 'the body must be JSON: {"id": "…", "label": "…"}, or a list of such')
        if row.get("label") not in labels:
            raise Refused(422, f"{ascii(row.get('label'))[:60]} is no class; GET / lists them")
    return [(row["id"], row["label"]) for row in rows]


class ServeMetrics:
    """What Prometheus reads, in a registry of its own."""

    def __init__(self, exits: tuple[int, ...]) -> None:
        self.registry = registry = CollectorRegistry()
        more: Any = {"registry": registry}
        self.requests = Counter("offramp_requests", "Requests, by status", ["status"], **more)
        self.answers = Counter("offramp_answers", "Images answered, by exit", ["exit"], **more)
        self.compute = Summary(
            "offramp_compute_share", "MACs of an image against the network without early exits", **more
        )
        self.seconds = Histogram(
            "offramp_request_seconds", "From the request to its answer", buckets=SECONDS, **more
        )
        self.batches = Histogram(
            "offramp_batch_images", "Images that an image was answered with", buckets=IMAGES, **more
        )
        self.taken = Gauge("offramp_taken", "Requests that are taken and not answered yet", **more)
        share = Gauge("offramp_exit_share", "Share of images by exit, since the start", ["exit"], **more)
        self._count = dict.fromkeys(exits, 0)
        for exit in exits:
            self.answers.labels(exit)
            share.labels(exit).set_function(partial(self._share, exit))

    def answered(self, answer: Answer, seconds: float) -> None:
        self._count[answer.exit] += 1
        self.answers.labels(answer.exit).inc()
        self.compute.observe(answer.compute)
        self.seconds.observe(seconds)
        self.batches.observe(answer.batch)

    def _share(self, exit: int) -> float:
        return self._count[exit] / max(sum(self._count.values()), 1)


def make_app(bundle: Bundle, limits: ServeLimits, name: str, watch: Watch) -> Starlette:
    """The application that answers with a bundle. It takes requests between startup and shutdown, which
    answers all that are in work; `state.end()` says that it comes. name: that it gives for what it
    serves; watch: sees every answer."""
    service = _Service(bundle, limits, name, watch)
    routes = [
        Route("/", service.about),
        Route("/health", service.health),
        Route("/ready", service.ready),
        Route("/metrics", service.metrics),
        Route("/predict", service.predict, methods=["POST"]),
        Route("/feedback", service.feedback, methods=["POST"]),
        *(Route(f"/{file}", service.page_file) for file in page.FILES),
    ]
    app = Starlette(
        routes=routes, lifespan=service.running, exception_handlers={HTTPException: elsewhere}
    )
    app.state.end = service.end
    return app


async def elsewhere(request: Request, error: Exception) -> Response:
    """What no route takes, as every other refusal: in JSON, with what to do."""
    assert isinstance(error, HTTPException)
    routes = "POST an image file to /predict, labels to /feedback, or GET /, /health, /ready or /metrics"
    reason = f"{request.method} {request.url.path}: {error.detail}; {routes}"
    return JSONResponse({"error": reason}, status_code=error.status_code, headers=error.headers)


def tell_once(loop: asyncio.AbstractEventLoop) -> None:
    """Have an event loop tell of what fails outside of requests, such as that handles are used up, in a
    line and once: by itself it writes a traceback for each connection."""
    seen: set[str] = set()

    def tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        line = f"offramp: {context['message']} ({context.get('exception')!r:.100})"
        if line not in seen and len(seen) < FEW:
            seen.add(line)
            print(" ".join(line.split()), file=sys.stderr, flush=True)

    loop.set_exception_handler(tell)


class _Service:
    """What the routes share. All but `_decoded` and the batcher's thread run in the event loop."""

    def __init__(self, bundle: Bundle, limits: ServeLimits, name: str, watch: Watch) -> None:
        self._bundle, self._limits, self._name, self._watch = bundle, limits, name, watch
        self._metrics = ServeMetrics(tuple(stage.exit for stage in bundle.stages))
        self._taken = 0
        self._status = "warming"
        self._running: set[asyncio.Task[None]] = set()  # to the end, after their answer

    @asynccontextmanager
    async def running(self, _: Starlette) -> AsyncIterator[None]:
        tell_once(asyncio.get_running_loop())
        self._batcher = Batcher(self._bundle, self._limits.batch, self._limits.wait)
        self._metrics.registry.register(WatchGauges(self._watch))
        self._runner = ThreadPoolExecutor(1, "running to the end")
        with ThreadPoolExecutor(DECODERS, "decoding") as self._decoders:
            warming = asyncio.create_task(self._warm())
            yield
            await warming
            await asyncio.to_thread(self._batcher.close)
        self._runner.shutdown(cancel_futures=True)
        self._watch.close()

    async def _warm(self) -> None:
        """Meanwhile whoever comes is answered, more slowly."""
        try:
            await asyncio.to_thread(self._batcher.warm)
        except Exception as error:  # of the network; each request is told too
            status = f"the network fails ({type(error).__name__})"
        else:
            status = "ready"
        self._status = status if self._status == "warming" else self._status

    def end(self) -> None:
        """The end comes: what waits for others is answered now."""
        self._status = "ending"
        self._batcher.hurry()

    async def about(self, request: Request) -> Response:
        """A page for browsers, JSON for others."""
        bundle = self._bundle
        if "text/html" in request.headers.get("accept", ""):
            text = page.html(self._watch.report(), self._name, bundle.unreliable)
            headers = {"Content-Security-Policy": page.POLICY, "Vary": "Accept"}
            return Response(text, headers=headers, media_type="text/html")
        height, width = bundle.preprocessing.size
        return JSONResponse(
            {
                "bundle": self._name,
                "exits": [stage.exit for stage in bundle.stages],
                "classes": list(bundle.labels),
                "input": [bundle.preprocessing.channels, height, width],
                "precision": bundle.precision,
                "unreliable": list(bundle.unreliable),
            },
            headers={"Vary": "Accept"},
        )

    async def page_file(self, request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        return Response(page.asset(name), media_type=page.FILES[name])

    async def health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        return JSONResponse({"status": self._status}, 200 if self._status == "ready" else 503)

    async def metrics(self, _: Request) -> Response:
        text = generate_latest(self._metrics.registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def predict(self, request: Request) -> Response:
        """The body is an image file."""
        began = time.perf_counter()
        try:
            if self._taken >= self._limits.queue:
                raise Refused(503, f"{self._taken} requests wait already; try again")
            self._taken += 1
            self._metrics.taken.inc()
            try:
                answer, pixels = await self._answer(request)
            finally:
                self._taken -= 1
                self._metrics.taken.dec()
        except Refused as error:
            return self._refused(error.status, str(error))
        except ClientDisconnect:
            return self._refused(499, "the client went away")
        except Exception as error:  # of the network itself; the server goes on
            return self._refused(500, f"the network failed ({type(error).__name__})")
        spent = time.perf_counter() - began
        self._metrics.answered(answer, spent)
        self._see(answer, pixels)
        self._metrics.requests.labels(200).inc()
        fields = {
            "class": answer.label,
            "confidence": answer.confidence,
            "exit": answer.exit,
            "compute_share": answer.compute,
            "milliseconds": 1000 * spent,
            "id": answer.id,
        }
        marked = {"unreliable": list(self._bundle.unreliable)} if self._bundle.unreliable else {}
        return JSONResponse(finite({**fields, **marked}))

    async def feedback(self, request: Request) -> Response:
        """The body is JSON: `{"id": …, "label": …}`, or a list of such."""
        try:
            rows = read_labels(await self._body(request), self._bundle.labels)
        except Refused as error:
            return self._refused(error.status, str(error))
        except ClientDisconnect:
            return self._refused(499, "the client went away")
        unknown = [id for id, label in rows if not self._watch.label(id, label)]
        self._metrics.requests.labels(200).inc()
        return JSONResponse({"labelled": len(rows) - len(unknown), "unknown": unknown})

    def _see(self, answer: Answer, pixels: NDArray[np.float32]) -> None:
        """Have the watch see an answer, and run its image to the end if it is drawn."""
        if self._watch.answered(answer):
            if len(self._running) < WAITING:
                task = asyncio.create_task(self._run_through(pixels))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            else:
                self._watch.skipped += 1
        self._batcher.bundle = self._watch.bundle

    async def _run_through(self, pixels: NDArray[np.float32]) -> None:
        loop = asyncio.get_running_loop()
        outcome = await loop.run_in_executor(self._runner, run_through, self._bundle, pixels[None])
        self._watch.ran(*outcome)
        self._batcher.bundle = self._watch.bundle

    async def _answer(self, request: Request) -> tuple[Answer, NDArray[np.float32]]:
        body = await self._body(request)
        loop = asyncio.get_running_loop()
        pixels = await loop.run_in_executor(self._decoders, self._decoded, body)
        return await asyncio.wrap_future(self._batcher.submit(pixels)), pixels

    async def _body(self, request: Request) -> bytes:
        most = self._limits.body
        length = request.headers.get("content-length", "")
        too_large = Refused(413, f"the body is larger than {most:,} bytes; send a smaller image")
        if length.isascii() and length.isdigit() and int(length) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.read):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Refused(408, f"the body was not there within {self._limits.read:g} seconds") from None
        return bytes(body)

    def _decoded(self, body: bytes) -> NDArray[np.float32]:
        """[C, H, W], normalized."""
        how, most = self._bundle.preprocessing, self._limits.pixels
        too_large = Refused(413, f"the image has more than {most:,} pixels, as it is or scaled")
        try:
            with Image.open(io.BytesIO(body), formats=FORMATS) as image:
                # A strip of one pixel by thousands is small, and scaled it is gigabytes.
                if any(high * wide > most for high, wide in (image.size, how.resized(*image.size))):
                    raise too_large
                pixels = how.pixels(image)
        except Refused:
            raise
        except Image.DecompressionBombError:
            raise too_large from None
        except UnidentifiedImageError:
            raise Refused(
                415, f"the body is none of {', '.join(FORMATS)}; send the bytes of an image file alone"
            ) from None
        except ValueError as error:  # of `Preprocessing.check`
            raise Refused(422, f"the image cannot be answered: it {in_line(error)}") from None
        except Exception as error:  # decoders raise whatever they like on damaged bytes
            raise Refused(422, f"the image cannot be read: {in_line(error)}") from None
        normalized: NDArray[np.float32] = how.normalized(pixels[None])[0]
        return normalized

    def _refused(self, status: int, reason: str) -> Response:
        self._metrics.requests.labels(status).inc()
        headers = {"Retry-After": "1"} if status == 503 else {}
        return JSONResponse({"error": reason}, status_code=status, headers=headers)
