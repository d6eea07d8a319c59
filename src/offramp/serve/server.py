"""The server around the application: how many connections there are, and how long one may be silent."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from offramp.serve.uploads import ServeLimits

BACKLOG = 64  # connections that are accepted at once
SPARE = 3 * BACKLOG  # handles that connections leave for files, threads, and others that are refused
LOOKS = 10  # a tenth of a second apart: at the end, for requests that are on their way
AT_ONCE = 8192  # bytes of one connection, before others have their turn: in chunks of one they take long
LATE = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
BUSY = LATE.replace(b"408 Request Timeout", b"503 Service Unavailable")


class Connections:
    """All connections of a server.

    Args:
        most: That there may be. Where there are so many, the one that has been without the headers of a
            request for the longest goes; where all have some, the new one is refused.
        seconds: In which the headers of a request must be there, and an answer must be read.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self.seconds = most, seconds
        self.silent: dict[Connection, asyncio.TimerHandle] = {}
        self.count = 0

    def __call__(self, **more: Any) -> Connection:
        """A new one, as uvicorn asks for it."""
        return Connection(self, H11Protocol(**more))


class Connection:
    """A connection: uvicorn's own, and beside it the clocks for headers and for answers that wait to be
    read. asyncio calls its methods."""

    def __init__(self, every: Connections, inner: H11Protocol) -> None:
        self._every, self._inner = every, inner
        self._unread: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # such as eof_received

    def connection_made(self, transport: asyncio.Transport) -> None:
        every, self._transport = self._every, transport
        transport.set_write_buffer_limits(0)  # writing pauses while the client leaves anything unread
        transport.max_size = AT_ONCE  # type: ignore[attr-defined]  # of asyncio's own loop
        every.count += 1
        if every.count > every.most and every.silent:
            next(iter(every.silent)).end(LATE)
        elif every.count > every.most:
            self.end(BUSY)
        self._inner.connection_made(transport)
        self._listen()

    def data_received(self, data: bytes) -> None:
        self._inner.data_received(data)
        cycle = self._inner.cycle  # the request that is being answered
        if cycle is None or cycle.response_complete:
            self._listen()
        elif timer := self._every.silent.pop(self, None):
            timer.cancel()

    def pause_writing(self) -> None:
        loop = asyncio.get_running_loop()
        self._unread = loop.call_later(self._every.seconds, self._transport.abort)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self._every.count -= 1
        if self._unread is not None:
            self._unread.cancel()
        if timer := self._every.silent.pop(self, None):
            timer.cancel()
        self._inner.connection_lost(error)

    def end(self, why: bytes) -> None:
        """Close it, with a last word."""
        if timer := self._every.silent.pop(self, None):
            timer.cancel()
        self._transport.write(why)
        self._transport.close()

    def _listen(self) -> None:
        if self not in self._every.silent and not self._transport.is_closing():
            loop = asyncio.get_running_loop()
            self._every.silent[self] = loop.call_later(self._every.seconds, self.end, LATE)


def make_server(app: Starlette, limits: ServeLimits) -> uvicorn.Server:
    """The server of an application, not yet running. It tells of no failure by a traceback."""
    import resource  # not of every system

    handles, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = limits.connections if handles == resource.RLIM_INFINITY else max(handles - SPARE, 8)
    http: Any = Connections(min(limits.connections, most), limits.read)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # else a line for each broken form
    config = uvicorn.Config(
        app,
        http=http,
        loop="asyncio",
        ws="none",
        backlog=BACKLOG,
        log_level="critical",
        access_log=False,
    )  # which ends when all requests that it took are answered, however long that is
    server = uvicorn.Server(config)
    shutdown = server.shutdown

    async def ending(sockets: list[socket.socket] | None = None) -> None:
        app.state.end()
        for listening in server.servers:
            listening.close()
        for _ in range(LOOKS):  # what was sent before a client could know is read, and answered
            await asyncio.sleep(0.1)
            if not http.silent:
                break
        await shutdown(sockets)

    server.shutdown = ending  # type: ignore[method-assign]  # it has no hook of its own
    return server
