"""The web application: what `openapi.yaml` beside this file describes."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from offramp.bundle.runtime import UNANSWERED, Bundle
from offramp.hashing import finite
from offramp.policy import scoring
from offramp.serve.alarm import Watch
from offramp.serve.batcher import Answer, Batcher
from offramp.serve.uploads import (
    Bodies,
    Refused,
    ServeLimits,
    decoded_uploads,
    read_top,
    read_uploads,
)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
FEW = 20  # lines of failures outside of requests
DESCRIPTION = Path(__file__).with_name("openapi.yaml")
BOUNDS = {"value": "", "low": "_low", "high": "_high"}  # of a share, and how its metric ends
DECODERS = 2  # threads that turn files into pixels; Pillow lets go of Python's lock while it does


def top_classes(bundle: Bundle, answer: Answer, count: int) -> list[dict[str, Any]]:
    """The likeliest classes of an answer, its own first."""
    warmth = next(stage.temperature for stage in bundle.stages if stage.exit == answer.exit)
    sure = scoring.probabilities(answer.logits, warmth)
    order = np.argsort(-answer.logits, kind="stable")
    return [{"class": bundle.labels[at], "confidence": float(sure[at])} for at in order[:count]]


class ServeMetrics:
    """What Prometheus reads, in a registry of its own."""

    def __init__(self, exits: tuple[int, ...]) -> None:
        self.registry = registry = CollectorRegistry()
        more: Any = {"registry": registry}
        self.requests = Counter("offramp_requests", "Requests, by status", ["status"], **more)
        self.answers = Counter("offramp_answers", "Images answered, by exit", ["exit"], **more)
        self.confidence = Summary("offramp_confidence", "Confidence of answers", **more)
        self.compute = Summary(
            "offramp_compute_share", "MACs of an image against the network without early exits", **more
        )
        self.seconds = Histogram(
            "offramp_request_seconds",
            "From a request with images to all its answers",
            buckets=SECONDS,
            **more,
        )
        self.batches = Histogram(
            "offramp_batch_images", "Images that an image was answered with", buckets=IMAGES, **more
        )
        self.taken = Gauge("offramp_taken", "Requests that are taken and not answered yet", **more)
        for exit in exits:
            self.answers.labels(exit)

    def answered(self, answer: Answer) -> None:
        self.answers.labels(answer.exit).inc()
        self.confidence.observe(answer.confidence)
        self.compute.observe(answer.compute)
        self.batches.observe(answer.batch)


class WatchGauges:
    """A collector of prometheus_client's: what calibration expects, and the alarm."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def collect(self) -> Iterator[Metric]:
        watch, expected = self._watch, self._watch.expected
        for bound, end in BOUNDS.items():
            name = f"offramp_expected_exit_share{end}"
            shares = GaugeMetricFamily(name, "Of calibration images", labels=("exit",))
            for exit in watch.exits:
                shares.add_metric([str(exit)], getattr(expected.of_exit(exit), bound))
            yield shares
        for name, text, value in (
            ("expected_confidence", "On calibration images", expected.confidence),
            ("expected_compute", "On calibration images", expected.compute),
            ("alarm", "1 while an alarm stands", float(watch.alarm is not None)),
        ):
            yield GaugeMetricFamily(f"offramp_{name}", text, value=value)
        yield CounterMetricFamily("offramp_alarms", "Since the start", value=watch.alarms)


def in_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A value as a response. Half a character, as a client's JSON or file name may have, is escaped: no
    UTF-8 can say it, and JSON's escape is Python's."""
    text = json.dumps(finite(value), ensure_ascii=False, separators=(",", ":"))
    return Response(text.encode(errors="backslashreplace"), status, headers, "application/json")


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
        Route("/openapi.json", service.openapi),
        Route("/predict", service.predict, methods=["POST"]),
    ]
    app = Starlette(
        routes=routes, lifespan=service.running, exception_handlers={HTTPException: elsewhere}
    )
    app.state.end = service.end
    return app


async def while_there(request: Request, coming: Sequence[Future[Answer]]) -> list[Answer]:
    """The answers to a request whose body was read. Raises ClientDisconnect, and cancels what has not
    begun, where its client goes away before them: under load others wait for it."""
    answers = asyncio.gather(*map(asyncio.wrap_future, coming))
    gone = asyncio.ensure_future(request.receive())  # after the body this alone can come
    await asyncio.wait((answers, gone), return_when=asyncio.FIRST_COMPLETED)
    if not gone.cancel() and answers.cancel():
        with suppress(asyncio.CancelledError):
            await answers
        raise ClientDisconnect
    return await answers


async def elsewhere(request: Request, error: Exception) -> Response:
    """What no route takes, as every other refusal: in JSON, with what to do."""
    assert isinstance(error, HTTPException)
    routes = "POST image files to /predict; GET /openapi.json says what else there is"
    reason = f"{request.method} {request.url.path}: {error.detail}; {routes}"
    return in_json({"error": reason}, error.status_code, error.headers)


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
    """What the routes share. All of it runs in the event loop."""

    def __init__(self, bundle: Bundle, limits: ServeLimits, name: str, watch: Watch) -> None:
        self._bundle, self._limits, self._name, self._watch = bundle, limits, name, watch
        self._metrics = ServeMetrics(tuple(stage.exit for stage in bundle.stages))
        self._bodies, self._taken = Bodies(limits), 0
        self._status = "warming"
        self._description = yaml.safe_load(DESCRIPTION.read_text(encoding="utf-8"))
        self._description["info"] |= {"title": name, "version": version("offramp")}

    @asynccontextmanager
    async def running(self, _: Starlette) -> AsyncIterator[None]:
        tell_once(asyncio.get_running_loop())
        self._batcher = Batcher(self._bundle, self._limits.max_batch, self._limits.max_wait)
        self._metrics.registry.register(WatchGauges(self._watch))
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
        return in_json(
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
        return in_json({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        return in_json({"status": self._status}, 200 if self._status == "ready" else 503)

    async def metrics(self, _: Request) -> Response:
        text = generate_latest(self._metrics.registry)
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, _: Request) -> Response:
        return in_json(self._description)

    async def predict(self, request: Request) -> Response:
        """What the images come to, as JSON, or why they have no answer."""
        try:
            value = await self._predict(request)
        except Refused as error:
            return self._refused(error.status, str(error))
        except ClientDisconnect:
            return self._refused(499, "the client went away")
        except Exception as error:  # of the network itself, or of the watch; the server goes on
            return self._refused(500, f"the network failed ({type(error).__name__})")
        return self._answer(value)

    async def _predict(self, request: Request) -> dict[str, Any]:
        """An answer, or those of all files of a form."""
        began, top, count = time.perf_counter(), read_top(request), 0
        self._check_room(1)
        self._metrics.taken.inc()
        try:
            body = await self._bodies.read(request)
            uploads = await read_uploads(request, body, self._limits.queue)
            self._check_room(len(uploads))
            count = len(uploads)
            self._taken += count
            loop, how = asyncio.get_running_loop(), (self._bundle.preprocessing, self._limits)
            images = await loop.run_in_executor(self._decoders, decoded_uploads, uploads, *how)
            answers = await while_there(request, [self._batcher.submit(pixels) for pixels in images])
        finally:
            self._taken -= count
            self._metrics.taken.dec()
        if any(math.isnan(answer.confidence) for answer in answers):
            raise Refused(500, UNANSWERED)
        spent = time.perf_counter() - began
        self._metrics.seconds.observe(spent)
        rows = []
        for upload, answer in zip(uploads, answers, strict=True):
            self._metrics.answered(answer)
            self._watch.answered(answer)
            file = {} if upload.name is None else {"file": upload.name}
            rows.append({**file, **self._fields(answer, top), "milliseconds": 1000 * spent})
        return rows[0] if len(rows) == 1 else {"answers": rows}

    def _check_room(self, count: int) -> None:
        if self._taken + count > self._limits.queue:
            raise Refused(503, f"{self._taken} images wait already; try again")

    def _fields(self, answer: Answer, top: int) -> dict[str, Any]:
        """All that is said of an image."""
        fields: dict[str, Any] = {
            **self._bundle.as_json(answer.label, answer.probabilities),
            "confidence": answer.confidence,
            "exit": answer.exit,
            "compute_share": answer.compute,
        }
        if top and answer.probabilities is None:  # of several labels each is there already
            fields["top"] = top_classes(self._bundle, answer, top)
        if self._bundle.unreliable:
            fields["unreliable"] = list(self._bundle.unreliable)
        return fields

    def _refused(self, status: int, reason: str) -> Response:
        return self._answer({"error": reason}, status)

    def _answer(self, value: Any, status: int = 200) -> Response:
        """To a POST, counted. At the end its connection closes: a next request would meet none."""
        self._metrics.requests.labels(status).inc()
        headers = {"Retry-After": "1"} if status == 503 else {}
        last = {"Connection": "close"} if self._status == "ending" else {}
        return in_json(value, status, headers | last)
