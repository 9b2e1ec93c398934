"""Bodies: bounded in size and slowness, and never gathered in the gateway."""

from __future__ import annotations

import contextlib
import http.client
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.proto.message_pb2 import PullObjectResponse, PushObjectResponse

from aegis.http import body_limits, protocol
from aegis.http.body_limits import BodyLimits
from tests.aegis.gateway.fleet_requests import (
    activate,
    answer,
    asked,
    deactivate,
    encoded,
    given,
    pull,
    pull_object,
    push_object,
)
from tests.aegis.gateway.gateways import FakeSuperLink, Federation, RunningGateway, running_gateway
from tests.aegis.gateway.waiting import in_background, until

A = 101
MEGABYTE = 1 << 20
UPLOAD = "/v1/fleet/push-object"


def prepare(gateway: RunningGateway, order_bytes: int = 0) -> None:
    """Let the node of site-a be asked for an update and be given an order of that size."""
    superlink = gateway.superlink
    superlink.answers("activate-node", ActivateNodeResponse(node_id=A))
    superlink.answers("push-messages", asked(["update"]))
    superlink.answers("push-object", PushObjectResponse(stored=True))
    superlink.answers("pull-messages", given("order", ["arrays"]))
    model = PullObjectResponse(object_found=True, object_available=True, object_content=bytes(order_bytes))
    superlink.answers("pull-object", model)
    with gateway.client("site-a") as client:
        key = gateway.federation.sites["site-a"].node_public
        for name, body in (
            ("activate-node", activate(key)),
            ("pull-messages", pull(A)),
            ("pull-object", pull_object(A, "arrays")),
            ("push-messages", encoded(answer(A, "order"))),
        ):
            assert client.post(f"/v1/fleet/{name}", content=body).status_code == 200


class Upload:
    """A large upload that is made as it is read."""

    def __init__(self, size: int) -> None:
        self.sent = 0
        whole = push_object(A, "update", b"")
        head_size = whole.index(b"update") + len(b"update")
        self._head = whole[:head_size] + b"\x22" + varint(size)
        self._tail, self._size = whole[head_size:], size
        self.length = len(self._head) + size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        chunk = bytes(1 << 16)
        yield self._head
        for _ in range(self._size // len(chunk)):
            self.sent += len(chunk)
            yield chunk
        yield self._tail


def varint(number: int) -> bytes:
    encoding = bytearray()
    while number >= 0x80:
        encoding.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoding, number])


def send(gateway: RunningGateway, upload: Upload) -> httpx.Response:
    with gateway.client("site-a") as client:
        return client.post(UPLOAD, content=iter(upload), headers={"content-length": str(upload.length)}, timeout=60)


def test_a_large_upload_passes_without_being_gathered(gateway: RunningGateway) -> None:
    prepare(gateway, order_bytes=20 * MEGABYTE)
    upload = Upload(20 * MEGABYTE)
    tracemalloc.start()
    try:
        response = send(gateway, upload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert response.status_code == 200
    assert gateway.superlink.bytes_in >= upload.length
    assert peak < 8 * MEGABYTE  # client, gateway and SuperLink together: they share this process


def test_a_site_sends_no_faster_than_superlink_reads(gateway: RunningGateway) -> None:
    prepare(gateway, order_bytes=64 * MEGABYTE)
    upload = Upload(64 * MEGABYTE)
    gateway.superlink.reading.clear()
    sent = in_background(lambda: send(gateway, upload))
    try:
        seen: list[int] = []

        def stands_still() -> bool:
            seen.append(upload.sent)
            return upload.sent > 0 and len(seen) > 100 and seen[-100] == seen[-1]

        until(stands_still, within_s=30)
        stood_at = upload.sent
    finally:
        gateway.superlink.reading.set()
    assert sent.result(timeout=60).status_code == 200

    assert stood_at < 32 * MEGABYTE  # what fits into the sockets' buffers


def test_a_large_object_comes_back_whole(gateway: RunningGateway) -> None:
    prepare(gateway)
    content = PullObjectResponse(object_found=True, object_available=True, object_content=bytes(20 * MEGABYTE))
    gateway.superlink.answers("pull-object", content)

    with gateway.client("site-a") as client:
        response = client.post("/v1/fleet/pull-object", content=pull_object(A, "arrays"))

    assert response.content == content.SerializeToString()


def test_an_upload_above_the_limit_is_refused_before_it_comes(gateway: RunningGateway) -> None:
    prepare(gateway)
    gateway.superlink.seen.clear()

    status = raw(gateway, {"content-length": str(1 << 40)}, b"")

    assert status == 401
    assert '"reason":"oversized"' in gateway.audit_lines()
    assert gateway.superlink.seen == []


def test_a_small_request_above_its_limit_is_refused_in_a_way_that_its_sender_hears(gateway: RunningGateway) -> None:
    with gateway.client("site-a") as client:
        response = client.post("/v1/fleet/get-run", content=bytes(9 * MEGABYTE))
        after = client.post("/v1/fleet/deactivate-node", content=deactivate(A))

    assert (response.status_code, response.json()) == (401, {"reason": "oversized"})
    assert after.status_code == 200

    assert gateway.superlink.names() == ["deactivate-node"]


def test_no_connection_stays_behind_when_a_refused_client_hangs_up(gateway: RunningGateway) -> None:
    for _ in range(10):
        with gateway.client("site-a") as client:
            assert client.post("/v1/fleet/get-run", content=bytes(9 * MEGABYTE)).status_code == 401

    until(lambda: left_behind(gateway.port) == 0)


def left_behind(port: int) -> int:
    """Connections whose client has closed them and whose server has not (CLOSE_WAIT, from /proc)."""
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text(encoding="utf-8").splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "08" for row in rows)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"transfer-encoding": "chunked"},
        {"content-length": "0x10"},
        {"content-length": "-1"},
        {"content-length": "1", "transfer-encoding": "chunked"},
    ],
)
def test_a_request_declares_its_length_and_nothing_else(gateway: RunningGateway, headers: dict[str, str]) -> None:
    assert raw(gateway, headers, b"") in (400, 401)
    assert gateway.superlink.seen == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(BodyLimits(idle_s=0.3, min_bytes_per_s=1), id="no byte for too long"),
        pytest.param(BodyLimits(idle_s=9.0, min_bytes_per_s=1 << 20, grace_s=0.3), id="too few on average"),
    ],
)
def test_a_body_that_comes_too_slowly_is_given_up(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int, body: BodyLimits
) -> None:
    with running_gateway(federation, superlink, superlink_port, body=body) as gateway:
        began = time.monotonic()
        status = raw(gateway, {"content-length": "1000"}, b"only this", path="/v1/fleet/get-run")

        assert status == 503
        assert time.monotonic() - began < 5
        assert '"reason":"late"' in gateway.audit_lines()


def test_a_client_that_does_not_read_its_answer_is_given_up_and_named(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_limits, "_UNREAD_S", 0.3)
    prepare(gateway)
    content = PullObjectResponse(object_found=True, object_available=True, object_content=bytes(64 * MEGABYTE))
    gateway.superlink.answers("pull-object", content)
    body = pull_object(A, "arrays")
    with contextlib.closing(connect(gateway)) as connection:
        start(connection, "/v1/fleet/pull-object", {"content-length": str(len(body))}, gateway)
        connection.send(body)
        until(lambda: '"reason":"late"' in gateway.audit_lines())  # in an answer that has begun

        with pytest.raises((OSError, http.client.HTTPException)):
            connection.getresponse().read()


def test_a_refused_client_that_is_still_sending_gets_its_refusal(gateway: RunningGateway) -> None:
    body = bytes(8 * MEGABYTE)  # more than the sockets' buffers hold
    status = raw(gateway, {"content-length": str(len(body))}, body, path="/v1/fleet/get-run")

    assert status == 401


def test_an_upload_that_is_cut_off_never_reaches_superlink_whole(gateway: RunningGateway) -> None:
    prepare(gateway)
    gateway.superlink.seen.clear()
    body = push_object(A, "update", bytes(MEGABYTE))
    with contextlib.closing(connect(gateway)) as connection:
        start(connection, UPLOAD, {"content-length": str(len(body))}, gateway)
        connection.send(body[: len(body) // 2])
        until(lambda: gateway.superlink.bytes_in > MEGABYTE // 4)
    with gateway.client("site-a") as client:
        assert client.post(UPLOAD, content=push_object(A, "update")).status_code == 200

    assert [len(seen.body) for seen in gateway.superlink.seen] == [len(push_object(A, "update"))]


@pytest.mark.parametrize("lines", [200, 1], ids=["too long", "too slow"])
def test_a_head_without_end_is_cut_off(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, lines: int) -> None:
    if lines == 1:
        monkeypatch.setattr(protocol, "HEAD_S", 0.3)
    began = time.monotonic()
    with contextlib.closing(connect(gateway)) as connection:
        connection.sock.sendall(b"POST /v1/fleet/get-run HTTP/1.1\r\nhost: gateway\r\n")
        with contextlib.suppress(OSError):
            for _ in range(lines):
                connection.sock.sendall(b"x-filler: " + b"y" * 1000 + b"\r\n")
        answer = b""
        with contextlib.suppress(OSError):
            answer = connection.sock.recv(100)

    assert answer == b""
    assert time.monotonic() - began < protocol.HEAD_S / 2 + 3
    assert gateway.superlink.seen == []


def connect(gateway: RunningGateway) -> http.client.HTTPSConnection:
    context = gateway.federation.sites["site-a"].tls(gateway.federation.authority.certificate)
    connection = http.client.HTTPSConnection("127.0.0.1", gateway.port, context=context, timeout=10)
    connection.connect()
    return connection


def start(connection: http.client.HTTPSConnection, path: str, headers: dict[str, str], gateway: RunningGateway) -> None:
    connection.putrequest("POST", path, skip_accept_encoding=True)
    for name, value in (gateway.federation.sites["site-a"].headers | headers).items():
        connection.putheader(name, value)
    connection.endheaders()


def raw(gateway: RunningGateway, headers: dict[str, str], body: bytes, *, path: str = UPLOAD) -> int:
    with contextlib.closing(connect(gateway)) as connection:
        start(connection, path, headers, gateway)
        connection.send(body)
        return connection.getresponse().status
