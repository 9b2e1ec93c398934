"""Strict reading of a request, and the two places where Starlette's own route and response do not fit."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from aegis.errors import RequestRefused
from coreason_enclave.errors import Reason


def single_header(request: Request, name: str) -> str | None:
    """Return the value of a header that comes at most once; refuse repetitions as malformed."""
    values = request.headers.getlist(name)
    if len(values) > 1:
        raise RequestRefused(Reason.MALFORMED, f"the header {name} comes more than once")
    return values[0] if values else None


def content_length(request: Request, most: int) -> int:
    """Return the declared length in bytes; refuse a missing length, or a length above ``most``."""
    text = single_header(request, "content-length") or ""
    is_number = text.isascii() and text.isdigit() and len(text) <= 15
    if not is_number or single_header(request, "transfer-encoding") is not None:
        raise RequestRefused(Reason.MALFORMED, "a request has to declare its content-length")
    if int(text) > most:
        raise RequestRefused(Reason.OVERSIZED, f"a body of {int(text)} bytes: at most {most} are accepted")
    return int(text)


async def read_body(request: Request, most: int) -> bytes:
    """Return the whole body of at most ``most`` bytes; the server lets no more bytes in than declared."""
    content_length(request, most)
    return await request.body()


class ExactRoute(Route):
    """A route for one method and one path without parameters and without a query.

    Why: Starlette's route decodes percent signs in a path, ignores the query, and answers another method itself.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match the path as the client sent it, byte by byte."""
        exact = scope["raw_path"] == self.path.encode() and not scope["query_string"]
        match, child_scope = super().matches(scope)
        return (match, child_scope) if exact and match is Match.FULL else (Match.NONE, {})


class RelayResponse(StreamingResponse):
    """A response whose chunks come from another server, never ahead of the client."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response without listening to the client: Starlette's class would read away an unread body."""
        await self.stream_response(send)
