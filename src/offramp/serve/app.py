"""The web application: POST /predict, GET /health, /ready, /metrics, and / for what is served."""

from __future__ import annotations

import asyncio
import io
import sys
import time
from collections.abc import AsyncIterator
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
from offramp.serve.batcher import Answer, Batcher

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FEW = 20  # lines of failures outside of requests
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


def make_app(bundle: Bundle, limits: ServeLimits, name: str) -> Starlette:
    """The application that answers with a bundle. It takes requests between startup and shutdown, which
    answers all that are in work; `state.end()` says that it comes. name: that it gives for what it
    serves."""
    service = _Service(bundle, limits, name)
    routes = [
        Route("/", service.about),
        Route("/health", service.health),
        Route("/ready", service.ready),
        Route("/metrics", service.metrics),
        Route("/predict", service.predict, methods=["POST"]),
    ]
    app = Starlette(
        routes=routes, lifespan=service.running, exception_handlers={HTTPException: elsewhere}
    )
    app.state.end = service.end
    return app


async def elsewhere(request: Request, error: Exception) -> Response:
    """What no route takes, as every other refusal: in JSON, with what to do."""
    assert isinstance(error, HTTPException)
    routes = "POST an image file to /predict, or GET /, /health, /ready or /metrics"
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

    def __init__(self, bundle: Bundle, limits: ServeLimits, name: str) -> None:
        self._bundle, self._limits, self._name = bundle, limits, name
        self._metrics = ServeMetrics(tuple(stage.exit for stage in bundle.stages))
        self._taken = 0
        self._status = "warming"

    @asynccontextmanager
    async def running(self, _: Starlette) -> AsyncIterator[None]:
        tell_once(asyncio.get_running_loop())
        self._batcher = Batcher(self._bundle, self._limits.batch, self._limits.wait)
        with ThreadPoolExecutor(DECODERS, "decoding") as self._decoders:
            warming = asyncio.create_task(self._warm())
            yield
            await warming
            await asyncio.to_thread(self._batcher.close)

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

    async def about(self, _: Request) -> Response:
        bundle = self._bundle
        height, width = bundle.preprocessing.size
        return JSONResponse(
            {
                "bundle": self._name,
                "exits": [stage.exit for stage in bundle.stages],
                "classes": list(bundle.labels),
                "input": [bundle.preprocessing.channels, height, width],
                "precision": bundle.precision,
                "unreliable": list(bundle.unreliable),
            }
        )

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
                answer = await self._answer(request)
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

    async def _answer(self, request: Request) -> Answer:
        body = await self._body(request)
        loop = asyncio.get_running_loop()
        pixels = await loop.run_in_executor(self._decoders, self._decoded, body)
        return await asyncio.wrap_future(self._batcher.submit(pixels))

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
