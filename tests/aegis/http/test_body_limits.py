"""The middleware that limits bodies, without a server: what an application receives, and what a client is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aegis.errors import RequestRefused
from aegis.http import body_limits
from aegis.http.body_limits import BodyLimits, BodyLimitsMiddleware
from coreason_enclave.errors import Reason

QUICK = BodyLimits(idle_s=0.1, min_bytes_per_s=1)
CLOSE = (b"connection", b"close")
START = "http.response.start"


def part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


class Client:
    """Sends its events, then nothing more; keeps what it is sent together with the number of its events taken."""

    def __init__(self, events: Sequence[Message], *, reads: bool = True) -> None:
        self._events, self._reads = list(events), reads
        self.taken = 0
        self.got: list[tuple[int, Message]] = []

    async def receive(self) -> Message:
        if self.taken == len(self._events):
            await asyncio.Event().wait()
        self.taken += 1
        return self._events[self.taken - 1]

    async def send(self, message: Message) -> None:
        if not self._reads and message["type"] != START:
            await asyncio.Event().wait()
        self.got.append((self.taken, message))


def answered(client: Client, application: ASGIApp, limits: BodyLimits = QUICK) -> list[Message]:
    """What the client is sent by the application behind the middleware."""
    scope: Scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    asyncio.run(asyncio.wait_for(BodyLimitsMiddleware(application, limits)(scope, client.receive, client.send), 20))
    return [message for _, message in client.got]


async def reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(await Request(scope, receive, send).body())(scope, receive, send)


async def reads_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(b"no")(scope, receive, send)


def test_an_answer_to_a_whole_body_passes_unchanged_and_keeps_the_connection() -> None:
    start, body = answered(Client([part(b"a"), part(b"b", more=False)]), reads_all)

    assert start["headers"] == [(b"content-length", b"2")]
    assert body == {"type": "http.response.body", "body": b"ab"}  # in one piece: the next request may come at once


def test_an_unread_body_is_drained_between_the_answers_bytes_and_its_end() -> None:
    client = Client([part(b"a"), part(b"b"), part(b"c", more=False)])

    start, body, end = answered(client, reads_nothing)

    assert CLOSE in start["headers"]
    assert (body["body"], body["more_body"]) == (b"no", True)
    assert not end.get("more_body", False)
    assert [taken for taken, _ in client.got] == [0, 0, 3]


def test_draining_ends_with_the_time_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "_LINGER_S", 0.05)

    assert len(answered(Client([part(b"a")]), reads_nothing)) == 3


def test_draining_ends_with_the_bytes_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "_LINGER_BYTES", 10)
    client = Client([part(b"12345")] * 10)
    answered(client, reads_nothing)

    assert client.taken == 2


def test_draining_ends_when_the_client_leaves() -> None:
    client = Client([part(b"a"), {"type": "http.disconnect"}])
    answered(client, reads_nothing)

    assert client.taken == 2


@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(BodyLimits(idle_s=0.05, min_bytes_per_s=1), id="no byte for too long"),
        pytest.param(BodyLimits(idle_s=9.0, min_bytes_per_s=1 << 20, grace_s=0.05), id="too few on average"),
    ],
)
def test_a_slow_body_is_refused_where_it_is_read(limits: BodyLimits) -> None:
    with pytest.raises(RequestRefused) as refusal:
        answered(Client([part(b"a")]), reads_all, limits)

    assert refusal.value.reason is Reason.LATE


def test_bytes_that_came_earn_a_body_more_time() -> None:
    limits = BodyLimits(idle_s=9.0, min_bytes_per_s=1 << 20, grace_s=0.2)
    second = asyncio.Event()

    class Slow(Client):
        async def receive(self) -> Message:
            if self.taken == 1:
                asyncio.get_running_loop().call_later(0.6, second.set)
                await second.wait()
            return await super().receive()

    client = Slow([part(bytes(1 << 20)), part(b"b", more=False)])

    assert len(answered(client, reads_all, limits)) == 2


def test_an_application_may_wait_for_long_once_the_body_is_in() -> None:
    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        await request.body()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(request.receive(), 3 * QUICK.idle_s)
        await Response()(scope, receive, send)

    assert len(answered(Client([part(b"a", more=False)]), waits)) == 2


def test_a_client_that_leaves_in_its_body_is_noticed() -> None:
    with pytest.raises(ClientDisconnect):
        answered(Client([part(b"a"), {"type": "http.disconnect"}]), reads_all)


def test_a_client_that_does_not_read_its_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limits, "_UNREAD_S", 0.05)
    client = Client([part(b"a", more=False)], reads=False)

    with pytest.raises(RequestRefused) as refusal:
        answered(client, reads_all)

    assert refusal.value.reason is Reason.LATE
    assert [message["type"] for _, message in client.got] == [START]
