"""Proxy for fleet requests: checks each against the node's state, forwards it to SuperLink, records the reply."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import KW_ONLY, dataclass
from typing import TypeVar

import httpx
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from aegis.errors import RequestRefused
from aegis.gateway.fleet_protocol import FleetCodec, NodeRequest, UploadHead, UploadReader
from aegis.gateway.identity import PinnedPeer
from aegis.gateway.node_registry import NodeRegistry, NodeState
from aegis.gateway.pull_barrier import PullBarrier
from aegis.gateway.refusals import GatewayAudit
from aegis.gateway.upstream import Headers, NotReached, Upstream
from aegis.http import ExactRoute, RelayResponse, content_length, read_body, single_header
from coreason_enclave.errors import Reason

FLEET = "/v1/fleet/"
FLEET_NAMES = frozenset(
    {
        "activate-node",
        "confirm-message-received",
        "deactivate-node",
        "get-fab",
        "get-run",
        "pull-messages",
        "pull-object",
        "push-messages",
        "push-object",
        "send-node-heartbeat",
    }
)
"""Requests that pass to SuperLink. Only the coordinator registers and unregisters nodes."""

MAX_REQUEST_BYTES = 1 << 18
"""Size limit for all requests except uploads. The proxy buffers these requests, and SuperLink stores their content."""
RUN_NOT_RUNNING = 403

_T = TypeVar("_T")


@dataclass(frozen=True)
class Polling:
    """Timing of a fetch, in seconds.

    Attributes:
        longest_s: maximum time to hold a fetch open without a message; Flower's own client gives up at 30.
        first_wait_s, max_wait_s: first and maximum pause between two looks; the pause doubles. A release of the barrier
            ends a pause at once, so the maximum applies only to unannounced messages.
    """

    longest_s: float = 25.0
    first_wait_s: float = 0.02
    max_wait_s: float = 1.0


@dataclass(frozen=True)
class _Call:
    name: str
    incoming: Request
    participant: PinnedPeer
    node: NodeState
    headers: Headers

    @property
    def path(self) -> str:
        return FLEET + self.name


@dataclass(frozen=True)
class FleetProxy:
    """The proxy between the sites' nodes and SuperLink.

    Attributes:
        upstream: the client of SuperLink.
        fleet: decodes Flower's protocol.
        nodes: deliveries to each node.
        audit: the audit log.
        gate: holds fetches while a coordinator pushes a round.
        object_bytes: maximum size of an upload.
        polling: timing of fetches.
        clock: Unix seconds.
    """

    upstream: Upstream
    fleet: FleetCodec
    _: KW_ONLY
    nodes: NodeRegistry
    audit: GatewayAudit
    gate: PullBarrier
    object_bytes: int
    polling: Polling = Polling()
    clock: Callable[[], float] = time.time

    async def close(self) -> None:
        """Close the connections to SuperLink."""
        await self.upstream.close()

    def routes(self) -> list[ExactRoute]:
        """Return the routes of the requests that pass."""
        return [ExactRoute(FLEET + name, self._handle, methods=["POST"]) for name in sorted(FLEET_NAMES)]

    async def _handle(self, incoming: Request) -> Response:
        """Check a request, forward it and return the reply; raises :class:`RequestRefused`."""
        name, participant = incoming["path"].removeprefix(FLEET), incoming.state.participant
        node = self._node(incoming, participant)
        headers = [(key, value) for key, value in incoming.headers.raw if key in self.fleet.request_headers]
        call = _Call(name, incoming, participant, node, headers)
        if name == "push-object":
            return await self._upload(call)
        body = await read_body(incoming, MAX_REQUEST_BYTES)
        request = self.fleet.request(name, body)
        node.check(request, public_key=base64.b64decode(node.node_key))
        match name:
            case "activate-node":
                return await self._activate(call, body)
            case "pull-messages":
                return await self._fetch(call, request, body)
            case "push-messages":
                return await self._answer(call, request, body)
            case _:
                return await self._relay(call, request, body)

    def _node(self, incoming: Request, participant: PinnedPeer) -> NodeState:
        header = single_header(incoming, self.fleet.key_header.decode())
        if participant.node_key is None or header != participant.node_key:
            raise RequestRefused(Reason.UNKNOWN_SIGNER, "not the node key that is registered for this participant")
        node = self.nodes.node(participant.site_id, participant.node_key)
        node.last_request, node.connected = self.clock(), True
        return node

    async def _activate(self, call: _Call, body: bytes) -> Response:
        response, answer = await self.upstream.post(call.path, call.headers, body)
        if 400 <= response.status_code < 500 and response.status_code != 401:
            raise RequestRefused(Reason.TRANSPORT, f"SuperLink does not activate yet: {response.status_code}")
        if self._judge(response):
            call.node.activate(_read(self.fleet.activated, answer))
            self.nodes.save()
            self.audit.accepted(call.participant.site_id, "activate", node_id=str(call.node.node_id))
        return Response(answer, response.status_code, self._passed(response))

    async def _answer(self, call: _Call, request: NodeRequest, body: bytes) -> Response:
        response, answer = await self.upstream.post(call.path, call.headers, body)
        if self._judge(response):
            call.node.record_node_id(request.node_id)
            call.node.answer(request, _read(self.fleet.pushed, answer))
        return Response(answer, response.status_code, self._passed(response))

    async def _relay(self, call: _Call, request: NodeRequest, body: bytes) -> Response:
        response = await self._open(call, body, len(body))
        chunks = response.aiter_raw()
        if self._judge(response):
            call.node.record_node_id(request.node_id)
            if call.name == "deactivate-node":
                call.node.connected = False
            if call.name == "pull-object":
                chunks = self._fetched(call.node, request, chunks)
        return RelayResponse(chunks, response.status_code, self._passed(response))

    async def _open(self, call: _Call, body: bytes | AsyncIterator[bytes], length: int) -> httpx.Response:
        """Forward a request; the response stays open until the end of the answer to the client."""
        streaming = self.upstream.streaming(call.path, call.headers, body, length)
        response: httpx.Response = await call.incoming.state.opened.enter_async_context(streaming)
        return response

    async def _fetched(
        self, node: NodeState, request: NodeRequest, chunks: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """Yield the bytes of an object, then record their number."""
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            yield chunk
        if node.fetched(request, size):
            self.nodes.save()

    async def _fetch(self, call: _Call, request: NodeRequest, body: bytes) -> Response:
        call.node.last_poll = self.clock()
        if call.node.ask():
            self.nodes.save()
        response, answer = await self._while_it_waits(call, body)
        if response is None:
            return Response()
        if self._judge(response):
            call.node.record_node_id(request.node_id)
            if (pulled := _read(self.fleet.pulled, answer)) is not None:
                call.node.record_delivery(pulled)
        return Response(answer, response.status_code, self._passed(response))

    async def _while_it_waits(self, call: _Call, body: bytes) -> tuple[httpx.Response | None, bytes]:
        """Poll while the node stays connected: a message fetched for a disconnected node is lost."""
        poll = asyncio.ensure_future(self._poll(call, body))
        gone = asyncio.ensure_future(_gone(call.incoming))
        try:
            await asyncio.wait({poll, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not poll.done():
                call.node.connected = False
                raise ClientDisconnect
            return poll.result()
        finally:
            poll.cancel()
            gone.cancel()
            await asyncio.gather(poll, gone, return_exceptions=True)

    async def _poll(self, call: _Call, body: bytes) -> tuple[httpx.Response | None, bytes]:
        loop = asyncio.get_running_loop()
        end, wait_s = loop.time() + self.polling.longest_s, self.polling.first_wait_s
        while await self.gate.opened(end):
            response, answer = await self._look(call, body)
            if answer or response.status_code != 200:
                return response, answer
            woken = await self.gate.rest(min(wait_s, end - loop.time()))
            wait_s = self.polling.first_wait_s if woken else min(2 * wait_s, self.polling.max_wait_s)
        return None, b""

    async def _look(self, call: _Call, body: bytes) -> tuple[httpx.Response, bytes]:
        """Poll SuperLink once. If the reply gets lost, SuperLink may have delivered a message to no node."""
        async with self.gate.fetching():
            call.node.delivery_uncertain = True
            try:
                found = await self.upstream.post(call.path, call.headers, body)
            except NotReached:
                call.node.delivery_uncertain = False
                raise
            call.node.delivery_uncertain = False
            return found

    async def _upload(self, call: _Call) -> Response:
        length = content_length(call.incoming, self.object_bytes)
        reader, chunks = self.fleet.upload(length), call.incoming.stream()
        async for chunk in chunks:
            ready = reader.feed(chunk)
            if (head := reader.head) is not None:
                break
        else:
            raise RequestRefused(Reason.MALFORMED, "an upload that is cut off")
        call.node.check_upload(head, length)
        response = await self._open(call, _checked(reader, head, call.node, ready, chunks), length)
        if self._judge(response):
            call.node.record_node_id(head.node_id)
            call.node.record_upload(head, length)
        return RelayResponse(response.aiter_raw(), response.status_code, self._passed(response))

    def _judge(self, response: httpx.Response) -> bool:
        """Return True if SuperLink carried out the request, and False for an ended run, whose reply passes unchanged.

        Raises:
            RequestRefused: any other status.
        """
        status = response.status_code
        if status == 200 or status == RUN_NOT_RUNNING:
            return status == 200
        if status == 401:
            raise RequestRefused(Reason.UNKNOWN_SIGNER, "SuperLink does not take the node's signature for its own")
        if 400 <= status < 500 and status not in (408, 429):
            raise RequestRefused(Reason.UNSUPPORTED, f"SuperLink refused the request: {status}")
        raise RequestRefused(Reason.TRANSPORT, f"SuperLink answered {status}")

    def _passed(self, response: httpx.Response) -> dict[str, str]:
        passed = self.fleet.response_headers
        return {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in response.headers.raw
            if name.lower() in passed
        }


async def _gone(incoming: Request) -> None:
    """Return when the client has left. Call only after reading the whole body."""
    while (await incoming.receive())["type"] != "http.disconnect":
        pass


async def _checked(
    reader: UploadReader, head: UploadHead, node: NodeState, ready: bytes, chunks: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """Yield an upload's bytes as they arrive; withhold the last bytes until the session check passes."""
    yield ready
    async for chunk in chunks:
        if ready := reader.feed(chunk):
            yield ready
    session_id, kept = reader.finish()
    node.check_session(head, session_id)
    yield kept


def _read(reading: Callable[[bytes], _T], answer: bytes) -> _T:
    try:
        return reading(answer)
    except ValueError as error:
        raise RequestRefused(Reason.TRANSPORT, f"SuperLink's answer: {error}") from error
