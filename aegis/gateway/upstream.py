"""The gateway's client of SuperLink, over loopback TLS."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from aegis.errors import RequestRefused
from coreason_enclave.errors import Reason

_MAX_ANSWER_BYTES = 1 << 24
_TIMEOUT = httpx.Timeout(20.0, read=60.0)
Headers = list[tuple[bytes, bytes]]


class NotReached(RequestRefused):
    """A request that never reached SuperLink."""


class Upstream:
    """Client of SuperLink. Every method raises :class:`RequestRefused` (transport) if SuperLink does not respond.

    Args:
        base_url: ``https://127.0.0.1:port``.
        authority: PEM file of the authority behind SuperLink's certificate.
    """

    def __init__(self, base_url: str, authority: Path) -> None:
        # A bare transport, not an httpx.AsyncClient. A client would keep cookies and send a participant's cookies with
        # the next participant's request. A client would also use the environment's proxy, even on loopback.
        self._transport = httpx.AsyncHTTPTransport(
            verify=ssl.create_default_context(cafile=str(authority)),
            limits=httpx.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=60.0),
        )
        self._base_url = base_url

    async def close(self) -> None:
        """Close the connections to SuperLink."""
        await self._transport.aclose()

    async def post(self, path: str, headers: Headers, body: bytes) -> tuple[httpx.Response, bytes]:
        """Send a small request and return the response with its whole body."""
        async with self.streaming(path, headers, body, len(body)) as response:
            answer = bytearray()
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > _MAX_ANSWER_BYTES:
                    raise RequestRefused(Reason.TRANSPORT, "SuperLink's answer is too large")
            return response, bytes(answer)

    @contextlib.asynccontextmanager
    async def streaming(
        self, path: str, headers: Headers, body: bytes | AsyncIterator[bytes], length: int
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and yield the streaming response; reads ``body`` only as fast as SuperLink accepts bytes."""
        declared = [*headers, (b"content-length", str(length).encode()), (b"accept-encoding", b"identity")]
        timeout = {"timeout": _TIMEOUT.as_dict()}
        request = httpx.Request("POST", self._base_url + path, headers=declared, content=body, extensions=timeout)
        try:
            response = await self._transport.handle_async_request(request)
            try:
                yield response
            finally:
                await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotReached(Reason.TRANSPORT, f"SuperLink: {type(error).__name__}") from error
        except httpx.HTTPError as error:
            raise RequestRefused(Reason.TRANSPORT, f"SuperLink: {type(error).__name__}") from error
