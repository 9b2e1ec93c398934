"""The tunnel: fleet requests pass over the site's own mTLS session; nothing else does, and nothing listens outside."""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreason_enclave.agent.http_head import MalformedRequest, parse_head
from coreason_enclave.agent.tunnel import Tunnel, opened_tunnel
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.site.connection import Connection
from tests.support.gatekeeping import Coordinator, Request, SmallGateway, wait_until

NO_ANSWER = (http.client.HTTPException, OSError)
PULL = "/v1/fleet/pull-messages"
Connect = Callable[[Tunnel], http.client.HTTPSConnection]


@pytest.fixture
def tunnel(connection: Connection, tmp_path: Path) -> Iterator[Tunnel]:
    with opened_tunnel(connection, tmp_path / "flower") as tunnel:
        yield tunnel


@pytest.fixture
def client() -> Iterator[Connect]:
    """Connects as a SuperNode does: it trusts the tunnel's certificate alone, and shows none."""
    opened: list[http.client.HTTPConnection] = []

    def connect(tunnel: Tunnel) -> http.client.HTTPSConnection:
        trusted = ssl.create_default_context(cafile=str(tunnel.certificate.path))
        opened.append(session := http.client.HTTPSConnection("127.0.0.1", tunnel.port, context=trusted, timeout=10))
        return session

    yield connect
    for session in opened:
        session.close()


def ask(session: http.client.HTTPSConnection, path: str = PULL, body: bytes = b"") -> tuple[int, bytes]:
    session.request("POST", path, body)
    response = session.getresponse()
    return response.status, response.read()


def test_a_request_reaches_the_gateway_under_the_sites_own_certificate(
    tunnel: Tunnel, gateway: SmallGateway, client: Connect
) -> None:
    gateway.answer = lambda request: (200, b"answer to " + request.body)

    assert ask(client(tunnel), body=b"signed by the node") == (200, b"answer to signed by the node")
    assert gateway.requests == [Request("POST", PULL, b"signed by the node", ("urn:aegis:participant:clinic-1",))]


def test_one_connection_carries_many_requests(tunnel: Tunnel, gateway: SmallGateway, client: Connect) -> None:
    session = client(tunnel)

    for number in range(5):
        assert ask(session, "/v1/fleet/push-object", bytes([number]) * 300_000)[0] == 200

    assert [request.body for request in gateway.requests] == [bytes([number]) * 300_000 for number in range(5)]
    assert gateway.connections == 1


def test_a_large_answer_arrives_whole(tunnel: Tunnel, gateway: SmallGateway, client: Connect) -> None:
    answer = bytes(range(256)) * 40_000
    gateway.answer = lambda heard: (200, answer)

    assert ask(client(tunnel)) == (200, answer)


def test_a_request_for_messages_is_noted_and_others_are_not(tunnel: Tunnel, client: Connect) -> None:
    ask(client(tunnel), "/v1/fleet/send-node-heartbeat")
    assert tunnel.last_poll is None

    ask(client(tunnel))
    first = tunnel.last_poll
    assert first is not None

    ask(client(tunnel))
    assert tunnel.last_poll is not None
    assert tunnel.last_poll > first


def test_a_received_message_is_told(connection: Connection, tmp_path: Path, client: Connect) -> None:
    told: list[str] = []
    with opened_tunnel(connection, tmp_path / "flower", on_received=lambda: told.append("received")) as tunnel:
        ask(client(tunnel), "/v1/fleet/pull-object")
        assert told == []
        ask(client(tunnel), "/v1/fleet/confirm-message-received")
        assert told == ["received"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/runtime/acquire-task"),
        ("POST", "/v1/agent/health"),
        ("POST", "/v1/fleetx/pull-messages"),
        ("GET", "/v1/fleet/pull-messages"),
        ("GET", "/"),
    ],
)
def test_nothing_but_the_fleet_interface_passes(
    tunnel: Tunnel, gateway: SmallGateway, method: str, path: str, client: Connect
) -> None:
    session = client(tunnel)
    session.request(method, path)

    with pytest.raises(NO_ANSWER):
        session.getresponse()
    assert gateway.requests == []


def test_a_request_that_is_hidden_behind_another_does_not_pass(
    tunnel: Tunnel, gateway: SmallGateway, client: Connect
) -> None:
    session = client(tunnel)
    hidden = b"POST /v1/control/start-run HTTP/1.1\r\nHost: x\r\n\r\n"
    session.request("POST", PULL, hidden, {"Content-Length": str(len(hidden)), "Transfer-Encoding": "chunked"})

    with pytest.raises(NO_ANSWER):
        session.getresponse()
    assert gateway.requests == []


def test_a_gateway_that_restarts_costs_a_connection_and_no_more(
    connection: Connection, coordinator: Coordinator, tmp_path: Path, client: Connect
) -> None:
    gateway = SmallGateway(coordinator.authority)
    here = replace(connection, port=gateway.port)
    with opened_tunnel(here, tmp_path / "flower") as tunnel:
        session = client(tunnel)
        with gateway.serving():
            assert ask(session)[0] == 200
        with pytest.raises(NO_ANSWER):
            ask(session)
        with pytest.raises(NO_ANSWER):
            ask(client(tunnel))  # away: what connects sees its connection end
        assert tunnel.last_poll is not None
        with gateway.serving():
            assert ask(client(tunnel))[0] == 200


def test_a_gateway_under_another_authority_gets_no_request(
    connection: Connection, tmp_path: Path, client: Connect
) -> None:
    stranger = SmallGateway(Coordinator(tmp_path / "other-pki").authority)
    misled = replace(connection, port=stranger.port)
    with stranger.serving(), opened_tunnel(misled, tmp_path / "flower") as tunnel, pytest.raises(NO_ANSWER):
        ask(client(tunnel))

    assert stranger.requests == []


def test_a_gateway_with_another_name_gets_no_request(
    connection: Connection, gateway: SmallGateway, tmp_path: Path, client: Connect
) -> None:
    misled = replace(connection, server_name="gateway.example")
    with opened_tunnel(misled, tmp_path / "flower") as tunnel, pytest.raises(NO_ANSWER):
        ask(client(tunnel))

    assert gateway.requests == []


def test_a_site_without_a_certificate_of_the_authority_is_refused_by_the_gateway(
    federation: Any, gateway: SmallGateway, connection: Connection, tmp_path: Path, client: Connect
) -> None:
    stranger = federation.create("clinic-2")
    Coordinator(tmp_path / "other-pki").join(stranger.folder, gateway.port)
    foreign = replace(
        connection,
        certificate=stranger.folder / "connection" / "client.crt",
        key=stranger.folder / "keys" / "tls.key",
    )
    with opened_tunnel(foreign, tmp_path / "flower") as tunnel, pytest.raises(NO_ANSWER):
        ask(client(tunnel))

    assert gateway.requests == []


@pytest.mark.parametrize("missing", ["ca", "certificate", "key"])
def test_a_connection_that_lacks_a_file_is_refused_before_anything_listens(
    connection: Connection, tmp_path: Path, missing: str
) -> None:
    broken = replace(connection, **{missing: tmp_path / "nowhere"})

    with pytest.raises(ConfigurationError), opened_tunnel(broken, tmp_path / "flower"):
        pass


def test_a_key_that_others_can_read_is_refused(connection: Connection, tmp_path: Path) -> None:
    connection.key.chmod(0o644)

    with pytest.raises(ConfigurationError, match="chmod 600"), opened_tunnel(connection, tmp_path / "flower"):
        pass


def test_the_listener_is_on_loopback_with_a_key_that_is_on_no_disk(tunnel: Tunnel) -> None:
    folder = tunnel.certificate.path.parent

    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in folder.iterdir()] == ["loopback.crt"]
    assert _addresses_listening(tunnel.port) == {"0100007F"}


def test_plain_tcp_and_old_tls_get_nowhere(tunnel: Tunnel, gateway: SmallGateway) -> None:
    old = ssl.create_default_context(cafile=str(tunnel.certificate.path))
    old.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises(OSError, match=r"(?i)version|alert|reset|eof"):
        ask(http.client.HTTPSConnection("127.0.0.1", tunnel.port, context=old, timeout=10))
    plain = http.client.HTTPConnection("127.0.0.1", tunnel.port, timeout=10)
    plain.request("POST", PULL)
    with pytest.raises(NO_ANSWER):
        plain.getresponse()
    plain.close()
    assert gateway.requests == []


def test_closing_the_tunnel_ends_what_was_open(connection: Connection, tmp_path: Path, client: Connect) -> None:
    with opened_tunnel(connection, tmp_path / "flower") as tunnel:
        session = client(tunnel)
        assert ask(session)[0] == 200
        port = tunnel.port

    with pytest.raises(NO_ANSWER):
        ask(session)
    wait_until(lambda: not _addresses_listening(port), what="nothing listens any more")


def _addresses_listening(port: int) -> set[str]:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}


HEAD = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\n%b\r\n"


def test_a_head_is_read() -> None:
    head = parse_head(HEAD % b"content-LENGTH:  17 \r\n")

    assert (head.method, head.path, head.body_bytes) == ("POST", "/v1/fleet/push-object", 17)
    assert parse_head(HEAD % b"").body_bytes == 0


@pytest.mark.parametrize(
    "fields",
    [
        b"Transfer-Encoding: chunked\r\n",
        b"transfer-encoding : chunked\r\n",
        b"Content-Length: 1\r\nContent-Length: 1\r\n",
        b"Content-Length: +1\r\n",
        b"Content-Length: 0x10\r\n",
        b"Content-Length: 1, 2\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 1\r\n 2\r\n",
        b"no colon\r\n",
        b": nameless\r\n",
        b"Upgrade: websocket\r\n",
    ],
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(fields: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse_head(HEAD % fields)


@pytest.mark.parametrize(
    "line", [b"", b"POST /x HTTP/1.0", b"POST x HTTP/1.1", b"post /x HTTP/1.1", b"POST /a b HTTP/1.1", b"POST /x"]
)
def test_a_line_that_is_no_request_is_refused(line: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse_head(line + b"\r\nHost: x\r\n\r\n")


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        head = parse_head(raw)
    except MalformedRequest:
        return
    assert head.path.startswith("/")
    assert head.body_bytes >= 0
