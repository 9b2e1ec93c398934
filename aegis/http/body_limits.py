"""Minimum speed of bodies, as an ASGI middleware: handlers behind the middleware use Starlette's objects alone.

Why: neither uvicorn nor Starlette limits how slowly a client sends a request or reads an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aegis.errors import RequestRefused
from coreason_enclave.errors import Reason

_LINGER_S = 5.0
_LINGER_BYTES = 1 << 25
_UNREAD_S = 60.0


@dataclass(frozen=True)
class BodyLimits:
    """Minimum speed of a body: seconds without a byte, and average bytes per second after ``grace_s``."""

    idle_s: float
    min_bytes_per_s: int
    grace_s: float = 30.0


class BodyLimitsMiddleware:
    """Limits the bodies of every request and answer of an application.

    - A slow body raises :class:`RequestRefused` (late) where the application receives.
    - A client that does not read raises :class:`RequestRefused` (late) where the application sends.
    - An answer to a partly read body carries ``connection: close``. Before the end of the answer, the middleware drains
      a part of the rest: a client sends before listening, and closing at once would reset the connection.
    """

    def __init__(self, application: ASGIApp, limits: BodyLimits) -> None:
        self._application, self._limits = application, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            exchange = _Exchange(receive, send, self._limits)
            receive, send = exchange.receive, exchange.send
        await self._application(scope, receive, send)


class _Exchange:
    def __init__(self, receive: Receive, send: Send, limits: BodyLimits) -> None:
        self._receive, self._send, self._limits = receive, send, limits
        self._start: float | None = None
        self._size = 0
        self._body_is_in = False

    async def receive(self) -> Message:
        if self._body_is_in:
            return await self._receive()  # reports when the client leaves, and may wait for long
        now = asyncio.get_running_loop().time()
        self._start = now if self._start is None else self._start
        end = self._start + self._limits.grace_s + self._size / self._limits.min_bytes_per_s
        try:
            return await asyncio.wait_for(self._next(), max(min(self._limits.idle_s, end - now), 0.0))
        except TimeoutError:
            raise RequestRefused(Reason.LATE, "the request's body comes too slowly") from None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if not self._body_is_in:
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        elif not self._body_is_in and not message.get("more_body", False):
            await self._write({**message, "more_body": True})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drain(), _LINGER_S)
            message = {"type": "http.response.body"}
        await self._write(message)

    async def _next(self) -> Message:
        message = await self._receive()
        self._body_is_in = not message.get("more_body", False)  # a client that left sends no more, either
        self._size += len(message.get("body", b""))
        return message

    async def _drain(self) -> None:
        end = self._size + _LINGER_BYTES
        while not self._body_is_in and self._size < end:
            await self._next()

    async def _write(self, message: Message) -> None:
        # No task of its own, as asyncio.wait_for makes: the last event has to follow the bytes before it at once. A
        # client that has all bytes may send its next request, which ends the connection while an answer is incomplete.
        try:
            async with asyncio.timeout(_UNREAD_S):
                await self._send(message)
        except TimeoutError:
            raise RequestRefused(Reason.LATE, "the client does not read its answer") from None
