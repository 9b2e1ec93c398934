"""TLS and the participants' registry: who is let in, and that it is asked again for every request."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import time
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node
from starlette.routing import Router

from aegis.errors import RequestRefused
from aegis.gateway.identity import Registry
from aegis.http.limits import GatewayLimits
from aegis.http.load import CrowdCounts
from aegis.http.tls_server import ServerTls, TlsListener, bind_tcp, serving
from aegis.security.pki import CertificateAuthority, certificate_fingerprint, create_authority
from coreason_enclave.errors import Reason
from tests.aegis.gateway.gateways import Federation, RunningGateway, Site, pem_key, request_for

HEARTBEAT = "/v1/fleet/send-node-heartbeat"


def heartbeat(gateway: RunningGateway, site_id: str, node_id: int | None = None) -> bytes:
    node = Node(node_id=node_id or gateway.federation.sites[site_id].node_id)
    return SendNodeHeartbeatRequest(node=node, heartbeat_interval=30.0).SerializeToString(deterministic=True)


def refused(response: httpx.Response, reason: str, status: int = 401) -> bool:
    return response.status_code == status and json.loads(response.content) == {"reason": reason}


def shows(gateway: RunningGateway, certificate: bytes, key: bytes, folder: Path) -> httpx.Client:
    (folder / "shown.crt").write_bytes(certificate)
    (folder / "shown.key").write_bytes(key)
    context = ssl.create_default_context(cadata=gateway.federation.authority.certificate.decode())
    context.load_cert_chain(folder / "shown.crt", folder / "shown.key")
    return httpx.Client(
        base_url=gateway.url, verify=context, headers=gateway.federation.sites["site-a"].headers, trust_env=False
    )


def test_a_participant_with_its_own_certificate_and_node_key_is_passed_on(gateway: RunningGateway) -> None:
    with gateway.client("site-a") as client:
        response = client.post(HEARTBEAT, content=heartbeat(gateway, "site-a"))

    assert response.status_code == 200
    assert gateway.superlink.names() == ["send-node-heartbeat"]
    assert "set-cookie" not in response.headers


def test_nobody_without_a_certificate_gets_in(gateway: RunningGateway) -> None:
    context = ssl.create_default_context(cadata=gateway.federation.authority.certificate.decode())

    with httpx.Client(verify=context, trust_env=False) as client, pytest.raises(httpx.TransportError):
        client.post(gateway.url + HEARTBEAT, content=heartbeat(gateway, "site-a"))

    assert gateway.superlink.seen == []


def test_a_certificate_of_another_authority_is_refused(gateway: RunningGateway, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    stranger = create_authority(tmp_path / "elsewhere").issue_client("site-a", request_for(key))

    with shows(gateway, stranger, pem_key(key), tmp_path) as client, pytest.raises(httpx.TransportError):
        client.post(HEARTBEAT, content=heartbeat(gateway, "site-a"))

    assert gateway.superlink.seen == []


def test_an_expired_certificate_is_refused(gateway: RunningGateway, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    long_ago = CertificateAuthority(gateway.federation.authority.folder, clock=lambda: time.time() - 400 * 86400)
    certificate = long_ago.issue_client("site-a", request_for(key))
    gateway.federation.change(certificates={"site-a": certificate_fingerprint(certificate)})

    with shows(gateway, certificate, pem_key(key), tmp_path) as client, pytest.raises(httpx.TransportError):
        client.post(HEARTBEAT, content=heartbeat(gateway, "site-a"))

    assert gateway.superlink.seen == []


def test_a_servers_certificate_is_no_participants(gateway: RunningGateway, tmp_path: Path) -> None:
    pki = gateway.federation.authority.folder
    certificate, key = (pki / "superlink.crt").read_bytes(), (pki / "superlink.key").read_bytes()
    gateway.federation.change(certificates={"site-a": certificate_fingerprint(certificate)})

    with shows(gateway, certificate, key, tmp_path) as client, pytest.raises(httpx.TransportError):
        client.post(HEARTBEAT, content=heartbeat(gateway, "site-a"))


def test_another_certificate_of_the_same_participant_is_not_the_pinned_one(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    second = gateway.federation.authority.issue_client("site-a", request_for(key))

    with shows(gateway, second, pem_key(key), tmp_path) as client:
        response = client.post(HEARTBEAT, content=heartbeat(gateway, "site-a"))

    assert refused(response, "unknown_site")
    assert gateway.superlink.seen == []


def test_a_certificate_pinned_for_one_and_issued_to_another_serves_neither(gateway: RunningGateway) -> None:
    pins = gateway.federation.folder.config().certificates
    gateway.federation.change(certificates={"site-a": pins["site-b"], "site-b": pins["site-a"]})

    with gateway.client("site-a") as client:
        response = client.post(HEARTBEAT, content=heartbeat(gateway, "site-a"))

    assert refused(response, "unknown_site")


def test_revoking_takes_effect_between_two_requests_of_one_connection(gateway: RunningGateway) -> None:
    site = gateway.federation.sites["site-a"]
    connection = http.client.HTTPSConnection(
        "127.0.0.1", gateway.port, context=site.tls(gateway.federation.authority.certificate), timeout=10
    )
    with contextlib.closing(connection):
        connection.connect()
        connection.auto_open = 0  # a second connection would raise
        statuses = []
        for registry in (gateway.federation.folder.config(), gateway.federation.folder.config().revoking("site-a")):
            gateway.federation.folder.create(registry)
            connection.request("POST", HEARTBEAT, heartbeat(gateway, "site-a"), site.headers)
            response = connection.getresponse()
            statuses.append((response.status, response.read()))

    assert statuses == [(200, b""), (401, b'{"reason":"revoked"}')]
    assert gateway.superlink.names() == ["send-node-heartbeat"]
    assert '"reason":"revoked"' in gateway.audit_lines()


def test_a_site_cannot_use_the_node_key_of_another(gateway: RunningGateway) -> None:
    with gateway.client("site-a", **{"flwr-public-key": gateway.federation.sites["site-b"].node_key}) as client:
        response = client.post(HEARTBEAT, content=heartbeat(gateway, "site-b"))

    assert refused(response, "unknown_signer")
    assert gateway.superlink.seen == []


@pytest.mark.parametrize("keys", [[], ["own", "other"], ["own", "own"]])
def test_a_request_names_exactly_one_node_key(gateway: RunningGateway, keys: list[str]) -> None:
    sites = gateway.federation.sites
    named = {"own": sites["site-a"].node_key, "other": sites["site-b"].node_key}
    headers = [("flwr-public-key", named[key]) for key in keys]
    with gateway.client("site-a") as client:
        client.headers.pop("flwr-public-key")
        response = client.post(HEARTBEAT, content=heartbeat(gateway, "site-a"), headers=headers)

    assert response.status_code == 401
    assert gateway.superlink.seen == []


def test_nobody_gets_in_while_the_registry_cannot_be_read(gateway: RunningGateway) -> None:
    registry = gateway.federation.folder.registry
    whole = registry.read_bytes()
    with gateway.client("site-a") as client:
        registry.write_text("nonsense", encoding="utf-8")
        during = client.post(HEARTBEAT, content=heartbeat(gateway, "site-a"))
        registry.write_bytes(whole)
        after = client.post(HEARTBEAT, content=heartbeat(gateway, "site-a"))

    assert refused(during, "configuration", status=503)
    assert after.status_code == 200


def handshake(gateway: RunningGateway, site: Site, **changes: object) -> ssl.SSLSocket:
    context = site.tls(gateway.federation.authority.certificate)
    for name, value in changes.items():
        setattr(context, name, value)
    plain = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_tls_1_2_is_refused(gateway: RunningGateway) -> None:
    with pytest.raises(ssl.SSLError):
        handshake(gateway, gateway.federation.sites["site-a"], maximum_version=ssl.TLSVersion.TLSv1_2)


def test_no_session_can_be_resumed(gateway: RunningGateway) -> None:
    with handshake(gateway, gateway.federation.sites["site-a"]) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: gateway\r\ncontent-length: 0\r\n\r\n")
        answer = connection.recv(4096)

        assert answer.startswith(b"HTTP/1.1 401")
        assert connection.version() == "TLSv1.3"
        assert connection.session is None or not connection.session.has_ticket


def test_a_renewed_server_certificate_is_used_by_the_next_connection(federation: Federation) -> None:
    files = federation.files
    tls, listening = ServerTls(files.certificate, files.key, files.authority), bind_tcp("127.0.0.1", 0)
    address = listening.getsockname()

    def shown() -> bytes | None:
        context = federation.sites["site-a"].tls(federation.authority.certificate)
        with (
            socket.create_connection(address, timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            return connection.getpeercert(binary_form=True)

    limits = GatewayLimits()
    counts = CrowdCounts(limits.connections)
    listener = TlsListener(Router(), listening, tls=tls, site_of=lambda _: "", limits=limits, counts=counts)
    with serving([listener]):
        first = shown()
        federation.authority.issue_server("gateway", ["localhost"])
        still = shown()
        tls.reload()
        renewed = shown()

    assert first == still
    assert renewed != first


def test_a_certificate_that_expires_on_an_open_connection_ends_with_it(federation: Federation) -> None:
    pem = (federation.sites["site-a"].folder / "client.crt").read_bytes()
    certificate = ssl.PEM_cert_to_DER_cert(pem.decode())
    now = [time.time()]
    registry = Registry(federation.folder, clock=lambda: now[0])

    assert registry.identify(certificate).site_id == "site-a"
    now[0] += 366 * 86400
    with pytest.raises(RequestRefused) as refusal:
        registry.identify(certificate)
    assert refusal.value.reason is Reason.EXPIRED
