"""An HTTP request and its response over ASGI: bounded reading, and a single place for responding."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from aegis.errors import RequestRefused
from coreason_enclave.errors import EnvelopeError, Reason

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_LINGER_S = 5.0
_LINGER_BYTES = 1 << 25
_UNREAD_S = 60.0
JSON: Headers = [(b"content-type", b"application/json")]


@dataclass(frozen=True)
class BodyLimits:
    """Minimum speed of a body: seconds without a byte, and average bytes per second after ``grace_s``."""

    idle_s: float
    min_bytes_per_s: int
    grace_s: float = 30.0


class Disconnected(Exception):
    """The client has left, and no response can reach it."""


class HttpRequest:
    """A request with a complete head, and the way to respond."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: BodyLimits) -> None:
        self._headers: Headers = list(scope["headers"])
        self._receive, self._send = receive, send
        self._limits = limits
        self.answered = False
        self.body_is_in = False

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a header that comes at most once; refuse repetitions as malformed."""
        values = [value for key, value in self._headers if key == name]
        if len(values) > 1:
            raise RequestRefused(Reason.MALFORMED, f"the header {name.decode()} comes more than once")
        return values[0] if values else None

    def headers(self, names: frozenset[bytes]) -> Headers:
        """Return the headers with these names."""
        return [(key, value) for key, value in self._headers if key in names]

    def content_length(self, most: int) -> int:
        """Return the declared length in bytes; refuse a missing length, or a length above ``most``."""
        text = self.header(b"content-length")
        if text is None or not text.isdigit() or len(text) > 15 or self.header(b"transfer-encoding") is not None:
            raise RequestRefused(Reason.MALFORMED, "a request has to declare its content-length")
        if int(text) > most:
            raise RequestRefused(Reason.OVERSIZED, f"a body of {int(text)} bytes: at most {most} are accepted")
        return int(text)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, never ahead of the reader; refuse a slow body as late."""
        start, size = _now(), 0
        while not self.body_is_in:
            end = start + self._limits.grace_s + size / self._limits.min_bytes_per_s
            event = await self._next(min(self._limits.idle_s, end - _now()))
            self.body_is_in = not event.get("more_body", False)
            chunk = event.get("body", b"")
            size += len(chunk)
            if chunk:
                yield chunk

    async def body(self, most: int) -> bytes:
        """Return the whole body of at most ``most`` bytes."""
        self.content_length(most)
        return b"".join([chunk async for chunk in self.chunks()])

    async def _next(self, timeout_s: float) -> MutableMapping[str, Any]:
        try:
            event = await asyncio.wait_for(self._receive(), max(timeout_s, 0.0))
        except TimeoutError:
            raise RequestRefused(Reason.LATE, "the request's body comes too slowly") from None
        if event["type"] == "http.disconnect":
            raise Disconnected
        return event

    async def gone(self) -> None:
        """Return when the client has left. Call only after reading the whole body."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def respond(self, status: int, body: bytes = b"", headers: Headers = JSON) -> None:
        """Send the whole response. Drains part of an unread body first: a client sends before listening."""
        self.answered = True
        if self.body_is_in:
            await respond(self._send, status, body, headers)  # complete before the client's next request
            return
        head, last = _answer(status, body, self._closing(headers))
        await self._send(head)
        await self._send(last | {"more_body": True})
        with contextlib.suppress(TimeoutError, Disconnected):
            await asyncio.wait_for(self._read_away(), _LINGER_S)
        await self._send({"type": "http.response.body", "body": b""})

    async def _read_away(self) -> None:
        size = 0
        while not self.body_is_in and size < _LINGER_BYTES:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise Disconnected
            self.body_is_in = not event.get("more_body", False)
            size += len(event.get("body", b""))

    async def relay(self, status: int, chunks: AsyncIterator[bytes], headers: Headers) -> None:
        """Send a response as its chunks arrive, never ahead of the client.

        Raises:
            RequestRefused: the client stopped reading (late).
        """
        self.answered = True
        await self._send({"type": "http.response.start", "status": status, "headers": self._closing(headers)})
        async for chunk in chunks:
            sending = self._send({"type": "http.response.body", "body": chunk, "more_body": True})
            try:
                await asyncio.wait_for(sending, _UNREAD_S)
            except TimeoutError:
                raise RequestRefused(Reason.LATE, "the client does not read its answer") from None
        await self._send({"type": "http.response.body", "body": b""})

    def _closing(self, headers: Headers) -> Headers:
        """Add ``connection: close`` after a partly read body."""
        return headers if self.body_is_in else [*headers, (b"connection", b"close")]


async def respond(send: Send, status: int, body: bytes, headers: Headers = JSON) -> None:
    """Send a complete response."""
    for event in _answer(status, body, headers):
        await send(event)


def _answer(status: int, body: bytes, headers: Headers) -> tuple[dict[str, Any], dict[str, Any]]:
    length = (b"content-length", str(len(body)).encode())
    head = {"type": "http.response.start", "status": status, "headers": [*headers, length]}
    return head, {"type": "http.response.body", "body": body}


async def read_all(receive: Receive, most: int) -> bytes:
    """Return the whole of a small body; raises :class:`EnvelopeError` (oversized)."""
    body, more = b"", True
    while more:
        event = await receive()
        body, more = body + event.get("body", b""), event.get("more_body", False)
        if len(body) > most:
            raise EnvelopeError(f"more than {most} bytes", reason=Reason.OVERSIZED)
    return body


async def follow_lifespan(receive: Receive, send: Send, stopped: Callable[[], Awaitable[None]] | None = None) -> None:
    """Acknowledge the server's start and end; await ``stopped`` at the end."""
    while True:
        event = await receive()
        if event["type"] == "lifespan.shutdown":
            if stopped is not None:
                await stopped()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "lifespan.startup.complete"})


def _now() -> float:
    return asyncio.get_running_loop().time()
