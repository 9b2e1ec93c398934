"""A gateway on loopback with real TLS, participants with real certificates, and a SuperLink that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.message import Message

from aegis.federation.registry import FederationConfig, FederationFolder
from aegis.gateway.app import Gateway
from aegis.gateway.config import GatewayFiles
from aegis.gateway.control import ControlApplication, GatewayControl
from aegis.gateway.fleet_proxy import FleetProxy, Polling
from aegis.gateway.identity import Registry
from aegis.gateway.node_registry import NodeRegistry
from aegis.gateway.pull_barrier import PullBarrier
from aegis.gateway.refusals import GatewayAudit
from aegis.gateway.upstream import Upstream
from aegis.http.body_limits import BodyLimits
from aegis.http.limits import GatewayLimits
from aegis.http.load import CrowdCounts
from aegis.http.tls_server import Listener, ServerTls, TlsListener, bind_tcp, bind_unix, serving
from aegis.runtimes.flower.fleet_codec import FlowerFleetCodec
from aegis.security.audit import HashLog
from aegis.security.pki import CertificateAuthority, certificate_fingerprint, create_authority
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.policy import Profile

PROTOBUF = "application/x-protobuf"
MAX_KEPT = 1 << 20


def pem_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def request_for(key: ec.EllipticCurvePrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "whatever it calls itself")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


@dataclass
class Site:
    """A participant: its keys, and a client that shows its certificate and speaks for its node."""

    site_id: str
    folder: Path
    node_id: int
    signer: Signer = field(default_factory=Signer.generate)
    node_private: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))

    @property
    def node_public(self) -> bytes:
        form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self.node_private.public_key().public_bytes(*form)

    @property
    def node_key(self) -> str:
        return b64encode(self.node_public).decode()

    @property
    def headers(self) -> dict[str, str]:
        return {
            "flwr-public-key": self.node_key,
            "content-type": PROTOBUF,
            "flwr-timestamp": "t",
            "flwr-signature": "s",
        }

    def enrol(self, authority: CertificateAuthority) -> str:
        """Key and certificate in its folder; the pin of the certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = authority.issue_client(self.site_id, request_for(key))
        self.folder.mkdir(exist_ok=True)
        (self.folder / "tls.key").write_bytes(pem_key(key))
        (self.folder / "client.crt").write_bytes(certificate)
        return certificate_fingerprint(certificate)

    def tls(self, authority: bytes) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=authority.decode())
        context.load_cert_chain(self.folder / "client.crt", self.folder / "tls.key")
        return context


@dataclass
class Federation:
    """A created federation folder with its authority and its sites."""

    folder: FederationFolder
    authority: CertificateAuthority
    sites: dict[str, Site]

    @property
    def files(self) -> GatewayFiles:
        return GatewayFiles(self.folder.coordinator)

    def change(self, **changes: Any) -> None:
        self.folder.create(self.folder.config().model_copy(update=changes))


def founded(path: Path) -> Federation:
    """A federation folder with two participants."""
    authority = create_authority(path / "coordinator" / "pki")
    sites = {name: Site(name, path / name, node_id) for node_id, name in ((101, "site-a"), (102, "site-b"))}
    config = FederationConfig(
        profile=Profile.DEVELOPMENT,
        delta=1e-5,
        public_keys={name: site.signer.public_hex for name, site in sites.items()},
        node_keys={name: site.node_key for name, site in sites.items()},
        certificates={name: site.enrol(authority) for name, site in sites.items()},
    )
    folder = FederationFolder(path)
    folder.create(config)
    authority.issue_server("gateway", ["127.0.0.1", "localhost"])
    authority.issue_server("superlink", ["127.0.0.1", "localhost"])
    (path / "coordinator" / "flower").mkdir()
    return Federation(folder, authority, sites)


@dataclass
class Seen:
    """One request as SuperLink got it."""

    path: str
    headers: dict[str, str]
    body: bytes


Reply = tuple[int, bytes]


class FakeSuperLink:
    """Answers what the test says, by path, and remembers what came: of large bodies the beginning.

    While ``reading`` is cleared it reads nothing.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.replies: dict[str, Callable[[bytes], Reply]] = {}
        self.reading = threading.Event()
        self.reading.set()
        self.bytes_in = 0

    def answers(self, name: str, reply: Message | Callable[[bytes], Reply] | int) -> None:
        """To requests of this name: a message, a status, or what a function makes of the body."""
        if isinstance(reply, Message):
            content = reply.SerializeToString()
            self.replies[name] = lambda _body: (200, content)
        elif isinstance(reply, int):
            self.replies[name] = lambda _body: (reply, b'{"detail":"no"}')
        else:
            self.replies[name] = reply

    def reset(self) -> None:
        """Forget what came and what to answer."""
        self.seen.clear()
        self.replies.clear()
        self.reading.set()
        self.bytes_in = 0

    def names(self) -> list[str]:
        return [seen.path.rpartition("/")[2] for seen in self.seen]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            if not self.reading.is_set():
                await asyncio.to_thread(self.reading.wait)
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            self.bytes_in += len(event.get("body", b""))
            body, more = body + event.get("body", b"")[: MAX_KEPT - len(body)], event.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.seen.append(Seen(scope["path"], headers, body))
        status, content = self.replies.get(scope["path"].rpartition("/")[2], lambda _body: (200, b""))(body)
        start = {"type": "http.response.start", "status": status}
        await send(start | {"headers": [(b"content-type", PROTOBUF.encode()), (b"set-cookie", b"a=b")]})
        await send({"type": "http.response.body", "body": content})


@contextlib.contextmanager
def running_superlink(application: Any, pki: Path) -> Iterator[int]:
    def context(*_: object) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(pki / "superlink.crt", pki / "superlink.key")
        return made

    listening = bind_tcp("127.0.0.1", 0)
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        application,
        lifespan="off",
        ws="none",
        loop="asyncio",
        log_config=None,
        ssl_context_factory=context,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class RunningGateway:
    """A gateway that serves, and clients for it."""

    federation: Federation
    superlink: FakeSuperLink
    port: int
    nodes: NodeRegistry
    gate: PullBarrier
    audit: GatewayAudit
    _audit_start: int = 0

    def reset(self, registry: FederationConfig) -> None:
        """As if it had just been started, for the next test."""
        self.federation.folder.create(registry)
        self.superlink.reset()
        self.nodes._nodes.clear()
        self.nodes.health.clear()
        self.audit._repeats.clear()
        self.gate.release()
        self._audit_start = len(self.federation.files.audit.read_text(encoding="utf-8"))

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def control(self) -> GatewayControl:
        return GatewayControl(self.federation.files.control_socket)

    def client(self, site_id: str, **headers: str) -> httpx.Client:
        site = self.federation.sites[site_id]
        return httpx.Client(
            base_url=self.url,
            verify=site.tls(self.federation.authority.certificate),
            headers=site.headers | headers,
            trust_env=False,
            timeout=20.0,
        )

    def audit_lines(self) -> str:
        return self.federation.files.audit.read_text(encoding="utf-8")[self._audit_start :]


@contextlib.contextmanager
def running_gateway(
    federation: Federation,
    superlink: FakeSuperLink,
    superlink_port: int,
    *,
    polling: Polling = Polling(longest_s=1.0),  # noqa: B008 - immutable
    body: BodyLimits = BodyLimits(idle_s=5.0, min_bytes_per_s=1 << 14),  # noqa: B008 - immutable
    object_bytes: int = 1 << 27,
    limits: GatewayLimits = GatewayLimits(),  # noqa: B008 - immutable
) -> Iterator[RunningGateway]:
    files = federation.files
    nodes, gate, audit = NodeRegistry(files.nodes), PullBarrier(), GatewayAudit(HashLog(files.audit))
    upstream = Upstream(f"https://127.0.0.1:{superlink_port}", files.authority)
    proxy = FleetProxy(
        upstream, FlowerFleetCodec(), nodes=nodes, audit=audit, gate=gate, object_bytes=object_bytes, polling=polling
    )
    counts = CrowdCounts(limits.connections)
    gateway = Gateway(
        Registry(federation.folder), proxy, nodes=nodes, audit=audit, body=body, limits=limits, counts=counts
    )
    listening = bind_tcp("127.0.0.1", 0)
    port = listening.getsockname()[1]
    tls = ServerTls(files.certificate, files.key, files.authority)
    control = ControlApplication(gateway.report, gate)
    try:
        with serving(
            [
                TlsListener(
                    gateway, listening, gate.close, tls=tls, site_of=gateway.site_of, limits=limits, counts=counts
                ),
                Listener(control, bind_unix(files.control_socket)),
            ]
        ):
            yield RunningGateway(federation, superlink, port, nodes, gate, audit)
    finally:
        audit.close()
