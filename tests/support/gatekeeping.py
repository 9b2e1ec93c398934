"""A federation's certificate authority, sites that joined it, and a small real gateway that wants a client certificate.

The gateway records what reaches it and answers as it is told. It is an ordinary HTTP/1.1 server on loopback behind
mutual TLS; what the product's own gateway checks beyond that is tested where it lives.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aegis.security.pki import CertificateAuthority, create_authority
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.site.registration_grant import accept_grant
from coreason_enclave.site.registration_request import make_request
from coreason_enclave.wire.registration import RegistrationGrant, open_request, seal_grant

DEADLINE_S = 15.0


def wait_until(condition: Callable[[], Any], *, what: str, deadline_s: float = DEADLINE_S) -> Any:
    """What the condition gives once it gives something; fails the test where it does not in time."""
    end = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {deadline_s:g} s in vain until {what}"
        time.sleep(0.01)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Coordinator:
    """Signs grants and issues certificates."""

    folder: Path
    signer: Signer = field(default_factory=lambda: Signer.from_seed(bytes([7]) * 32))
    clock: Callable[[], float] = time.time

    @property
    def authority(self) -> CertificateAuthority:
        authority = create_authority(self.folder, clock=self.clock)
        if not (self.folder / "gateway.crt").exists():
            authority.issue_server("gateway", ["localhost", "127.0.0.1"])
        return authority

    def grant(self, request: bytes, **changes: Any) -> bytes:
        """A sealed grant for a request; ``changes`` are to its document, made without any check."""
        asked, signer = open_request(request), changes.pop("signer", self.signer)
        fields: dict[str, Any] = {
            "version": 1,
            "site_id": asked.site_id,
            "public_key": asked.public_key,
            "coordinator_key": self.signer.public_hex,
            "gateway": "127.0.0.1:9",
            "server_name": "localhost",
            "ca_certificate": self.authority.certificate.decode(),
            "client_certificate": self.authority.issue_client(asked.site_id, asked.tls_request.encode()).decode(),
            "participants": {asked.site_id: asked.public_key},
            "issued_at": int(self.clock()),
            **changes,
        }
        return seal_grant(RegistrationGrant.model_construct(**fields), signer)

    def join(self, folder: Path, port: int, **changes: Any) -> None:
        """Have the site in ``folder`` join, through a gateway on ``port`` of this host."""
        grant = self.grant(make_request(folder), gateway=f"127.0.0.1:{port}", **changes)
        accept_grant(folder, grant, self.signer.public_hex, now=self.clock())


@dataclass(frozen=True)
class Request:
    """One request as the gateway got it."""

    method: str
    path: str
    body: bytes
    names: tuple[str, ...]


@dataclass
class SmallGateway:
    """Wants a client certificate of the authority's, keeps what it hears.

    Attributes:
        answer: gives status and body for each request.
        date: what its clock says, or None for the host's own.
    """

    authority: CertificateAuthority
    port: int = field(default_factory=free_port)
    answer: Callable[[Request], tuple[int, bytes]] = lambda request: (200, b"")
    date: Callable[[], float] | None = None
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Until the block ends; every connection ends with it."""
        server = _Server(("127.0.0.1", self.port), self)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.cut()
            server.server_close()
            thread.join()

    def context(self) -> ssl.SSLContext:
        folder = self.authority.folder
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(folder / "gateway.crt", folder / "gateway.key")
        context.load_verify_locations(folder / "ca.crt")
        return context


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], gateway: SmallGateway) -> None:
        super().__init__(address, _Handler)
        self.gateway, self._context = gateway, gateway.context()
        self._open: list[ssl.SSLSocket] = []

    def get_request(self) -> tuple[ssl.SSLSocket, Any]:
        plain, address = super().get_request()
        self.gateway.connections += 1
        client = self._context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        self._open.append(client)
        return client, address

    def cut(self) -> None:
        for client in self._open:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is refused, or goes away, is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        certificate: Any = self.connection.getpeercert()
        names = tuple(name for _, name in (certificate or {}).get("subjectAltName", ()))
        request = Request(self.command, self.path, body, names)
        self.server.gateway.requests.append(request)
        status, answer = self.server.gateway.answer(request)
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def date_time_string(self, timestamp: float | None = None) -> str:
        clock = self.server.gateway.date
        return super().date_time_string(clock() if clock is not None else timestamp)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's own name
        pass
