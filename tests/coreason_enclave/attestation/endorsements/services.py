"""Services of our own that answer as AMD's, Intel's and NVIDIA's do, on the loopback, and a plain client for them."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from coreason_enclave.attestation.endorsements import Addresses, HttpReply
from coreason_enclave.attestation.evidence import CpuKind
from coreason_enclave.crypto.encoding import sha256_hex
from tests.coreason_enclave.attestation.appraisal.hosts import PLATFORM, intel_of
from tests.coreason_enclave.attestation.dcap import hierarchy as intel
from tests.coreason_enclave.attestation.nvidia import hierarchy as nvidia
from tests.coreason_enclave.attestation.snp import hierarchy as amd

VCEK = f"/vcek/v1/Milan/{PLATFORM[CpuKind.SNP]}?blSPL=03&teeSPL=01&snpSPL=09&ucodeSPL=211"
DRIVER, VBIOS = "NV_GPU_DRIVER_GH100_550.144.03", "NV_GPU_VBIOS_G520_0200_885_9600A50001"
OCSP = "/ocsp"


@dataclass
class Service:
    """``pages``: what is answered to GET by path; ``answers``: to an OCSP question, by serial number."""

    pages: dict[str, HttpReply] = field(default_factory=dict)
    answers: dict[int, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    address: str = ""

    @property
    def addresses(self) -> Addresses:
        """This service in the place of every vendor's."""
        one = self.address
        return Addresses(amd=one, intel=one, intel_certificates=one, nvidia_manifests=one, nvidia_ocsp=one + OCSP)

    def reply(self, path: str, body: bytes, content_type: str | None) -> HttpReply:
        """What this service says."""
        self.asked.append(path)
        if path != OCSP:
            return self.pages.get(path, HttpReply(404, {}, b"not found"))
        if content_type != "application/ocsp-request":
            return HttpReply(415, {}, b"not a question")
        answer = self.answers.get(ocsp.load_der_ocsp_request(body).serial_number)
        return HttpReply(200, {}, answer) if answer else HttpReply(404, {}, b"unknown")


def page(body: bytes, **headers: str) -> HttpReply:
    return HttpReply(200, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def amd_pages() -> dict[str, HttpReply]:
    """As AMD 57230 describes KDS."""
    vendor = amd.Vendor()
    chain = b"".join(
        x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
        for der in (amd.authority_of(vendor), amd.root_of(vendor))
    )
    return {
        VCEK: page(amd.leaf_of(vendor)),
        "/vcek/v1/Milan/cert_chain": page(chain),
        "/vcek/v1/Milan/crl": page(vendor.revocation_list()),
    }


def intel_pages(kind: str) -> dict[str, HttpReply]:
    """As Intel's PCS API, version 4, describes itself."""
    world = intel_of(kind)
    document = world.document()

    def signed(name: str, body: str, signature: str) -> bytes:
        return f'{{"{name}":{body},"signature":"{signature}"}}'.encode()

    def chain(name: str) -> str:
        return quote(document[f"{name}_issuer_chain"])

    api = f"/{kind}/certification/v4"
    tcb = signed("tcbInfo", document["tcb_info"], document["tcb_info_signature"])
    identity = signed("enclaveIdentity", document["qe_identity"], document["qe_identity_signature"])
    return {
        f"{api}/tcb?fmspc={intel.FMSPC.hex().upper()}": page(tcb, TCB_Info_Issuer_Chain=chain("tcb_info")),
        f"{api}/qe/identity": page(identity, SGX_Enclave_Identity_Issuer_Chain=chain("qe_identity")),
        "/sgx/certification/v4/pckcrl?ca=platform&encoding=der": page(
            bytes.fromhex(document["pck_crl"]), SGX_PCK_CRL_Issuer_Chain=chain("pck_crl")
        ),
        "/IntelSGXRootCA.der": page(bytes.fromhex(document["root_ca_crl"])),
    }


def nvidia_pages() -> dict[str, HttpReply]:
    """As NVIDIA's RIM service answers its verifiers."""

    def wrapped(name: str, manifest: bytes) -> HttpReply:
        document = {"id": name, "rim": base64.b64encode(manifest).decode(), "sha256": sha256_hex(manifest)}
        return page(json.dumps({**document, "rim_format": "TCG"}).encode())

    return {
        f"/v1/rim/{DRIVER}": wrapped(DRIVER, nvidia.driver_manifest()),
        f"/v1/rim/{VBIOS}": wrapped(VBIOS, nvidia.vbios_manifest()),
    }


def nvidia_answers() -> dict[int, bytes]:
    every = (*nvidia.device_answers(), *nvidia.manifest_answers())
    return {answer.certificates[answer.index].serial_number: answer.der() for answer in every}


def everything(kind: CpuKind) -> Service:
    """All that there is to say about a host of this kind and its GPU."""
    pages = amd_pages() if kind is CpuKind.SNP else intel_pages(kind.value)
    return Service({**pages, **nvidia_pages()}, nvidia_answers())


@contextmanager
def serving(service: Service, tls: Any = None) -> Iterator[Service]:
    """Run ``service`` on an ephemeral port; ``tls``: a server's context."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])))

        def _answer(self, body: bytes) -> None:
            reply = service.reply(self.path, body, self.headers.get("Content-Type"))
            self.send_response(reply.status)
            for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a client that hangs up is no news
        service.address = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


def plain_http(url: str, *, body: bytes | None = None, content_type: str | None = None) -> HttpReply:
    """An :class:`HttpPort` without TLS."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc, timeout=10)
    headers = {"Content-Type": content_type} if content_type else {}
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("GET" if body is None else "POST", path, body, headers)
        reply = connection.getresponse()
        return HttpReply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
    finally:
        connection.close()
