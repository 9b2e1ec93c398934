"""Routes that match byte by byte, and headers that come once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Message, Scope

from aegis.errors import RequestRefused
from aegis.http.request import ExactRoute, RelayResponse, content_length, single_header
from coreason_enclave.errors import Reason

PATH = "/v1/fleet/pull-messages"


async def endpoint(_request: Request) -> Response:
    return Response()


def scope(raw_path: str = PATH, path: str = PATH, query: str = "", method: str = "POST") -> Scope:
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
    }


@pytest.mark.parametrize(
    ("sent", "match"),
    [
        pytest.param(scope(), Match.FULL, id="the path itself"),
        pytest.param(scope(raw_path="/v1/fleet/pull%2Dmessages"), Match.NONE, id="percent signs that decode to it"),
        pytest.param(scope(raw_path=PATH + "%0A", path=PATH + "\n"), Match.NONE, id="a line's end behind it"),
        pytest.param(scope(query="x=1"), Match.NONE, id="a query"),
        pytest.param(scope(method="GET"), Match.NONE, id="another method"),
        pytest.param(scope(raw_path=PATH + "/", path=PATH + "/"), Match.NONE, id="a slash behind it"),
    ],
)
def test_a_route_matches_its_path_to_the_byte(sent: Scope, match: Match) -> None:
    assert ExactRoute(PATH, endpoint, methods=["POST"]).matches(sent)[0] is match


def request(*headers: tuple[bytes, bytes]) -> Request:
    return Request({**scope(), "headers": list(headers)})


def test_a_header_that_comes_twice_is_malformed_even_with_one_value() -> None:
    twice = request((b"flwr-public-key", b"k"), (b"flwr-public-key", b"k"))

    with pytest.raises(RequestRefused) as refusal:
        single_header(twice, "flwr-public-key")
    assert refusal.value.reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        pytest.param([], Reason.MALFORMED, id="none"),
        pytest.param([(b"content-length", b"")], Reason.MALFORMED, id="empty"),
        pytest.param([(b"content-length", b"-1")], Reason.MALFORMED, id="negative"),
        pytest.param([(b"content-length", b"+1")], Reason.MALFORMED, id="a sign"),
        pytest.param([(b"content-length", b"1_0")], Reason.MALFORMED, id="as in Python"),
        pytest.param([(b"content-length", b"\xb2")], Reason.MALFORMED, id="a superscript two"),
        pytest.param([(b"content-length", b"1" * 16)], Reason.MALFORMED, id="too many digits"),
        pytest.param([(b"content-length", b"1"), (b"content-length", b"1")], Reason.MALFORMED, id="twice"),
        pytest.param([(b"content-length", b"1"), (b"transfer-encoding", b"chunked")], Reason.MALFORMED, id="chunked"),
        pytest.param([(b"content-length", b"11")], Reason.OVERSIZED, id="too large"),
    ],
)
def test_a_length_is_declared_once_as_a_number_within_the_bound(
    headers: list[tuple[bytes, bytes]], reason: Reason
) -> None:
    with pytest.raises(RequestRefused) as refusal:
        content_length(request(*headers), 10)

    assert refusal.value.reason is reason
    assert content_length(request((b"content-length", b"10")), 10) == 10


def test_a_relay_does_not_read_on_in_the_request_that_it_answers() -> None:
    sent: list[Message] = []

    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(0)
        yield b"b"

    async def receive() -> Message:
        raise AssertionError("the relay listened to the client")

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(RelayResponse(chunks())({**scope(), "asgi": {"spec_version": "2.3"}}, receive, send))

    assert [message.get("body") for message in sent] == [None, b"a", b"b", b""]
