from __future__ import annotations

import contextlib
import gzip
import ipaddress
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coreason_enclave.attestation.endorsements import HttpReply, HttpsClient
from coreason_enclave.attestation.verify.verdict import Refusal, VerificationRefused
from coreason_enclave.errors import Reason
from tests.coreason_enclave.attestation.endorsements.services import OCSP, Service, page, serving


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context, and that of a client which believes it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a vendor")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    path.write_bytes(pem + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=pem.decode())


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def service(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[Service]:
    with serving(Service({"/page": page(b"content", X_Header="value")}), contexts[0]) as running:
        yield running


@pytest.fixture
def client(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> HttpsClient:
    return HttpsClient(timeout_s=5, trust=contexts[1])


def refused(client: HttpsClient, url: str) -> str:
    with pytest.raises(VerificationRefused) as error:
        client(url)
    assert error.value.refusal is Refusal.ENDORSEMENTS_MISSING
    assert error.value.reason is Reason.ATTESTATION_UNAVAILABLE
    return str(error.value)


def test_status_headers_and_body_come_back(service: Service, client: HttpsClient) -> None:
    reply = client(f"{service.address}/page")
    assert (reply.status, reply.headers["x-header"], reply.body) == (200, "value", b"content")


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_status_that_is_no_success_comes_back_too(service: Service, client: HttpsClient, status: int) -> None:
    service.pages["/page"] = HttpReply(status, {}, b"sorry")
    assert client(f"{service.address}/page").status == status


def test_a_question_is_posted_with_its_type(service: Service, client: HttpsClient) -> None:
    assert client(service.address + OCSP, body=b"x", content_type="text/plain").status == 415


def test_a_server_that_is_not_believed_is_not_asked(service: Service) -> None:
    assert "certificate" in refused(HttpsClient(timeout_s=5), f"{service.address}/page").lower()
    assert service.asked == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x", "file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x", "x"])
def test_nothing_but_https_is_opened(client: HttpsClient, url: str) -> None:
    assert "not an https address" in refused(client, url)


def test_a_redirect_on_the_same_host_is_followed(service: Service, client: HttpsClient) -> None:
    service.pages["/old"] = HttpReply(302, {"Location": "/page"}, b"")
    assert client(f"{service.address}/old").body == b"content"


@pytest.mark.parametrize("to", ["https://example.org/page", "http://127.0.0.1/page", "https://127.0.0.1/page"])
def test_a_redirect_to_another_host_port_or_scheme_is_not(service: Service, client: HttpsClient, to: str) -> None:
    service.pages["/old"] = HttpReply(302, {"Location": to}, b"")
    assert "another host" in refused(client, f"{service.address}/old")


@pytest.mark.parametrize("to", ["file:///etc/hostname", "ftp://127.0.0.1/x"])
def test_a_redirect_to_a_file_is_not(service: Service, client: HttpsClient, to: str) -> None:
    service.pages["/old"] = HttpReply(302, {"Location": to}, b"")
    refused(client, f"{service.address}/old")


def test_a_redirect_in_a_circle_ends(service: Service, client: HttpsClient) -> None:
    service.pages["/old"] = HttpReply(302, {"Location": "/old"}, b"")
    refused(client, f"{service.address}/old")
    assert len(service.asked) == 4


def test_an_answer_that_is_too_large_is_cut_off(service: Service, client: HttpsClient) -> None:
    service.pages["/page"] = page(bytes((1 << 20) + 1))
    assert "larger than" in refused(client, f"{service.address}/page")
    service.pages["/page"] = page(bytes(1 << 20))
    assert len(client(f"{service.address}/page").body) == 1 << 20


def test_an_answer_that_breaks_off_is_none(service: Service, client: HttpsClient) -> None:
    service.pages["/page"] = HttpReply(200, {"Content-Length": "1000"}, b"content")
    assert "received 7 bytes, expected 1000" in refused(client, f"{service.address}/page")


@pytest.mark.parametrize("length", ["x", "-1"])
def test_a_length_that_is_none_is_refused(service: Service, client: HttpsClient, length: str) -> None:
    service.pages["/page"] = HttpReply(200, {"Content-Length": length}, b"content")
    refused(client, f"{service.address}/page")


def test_a_compressed_answer_is_not_unpacked(service: Service, client: HttpsClient) -> None:
    """The bound on what is received is the bound on what is kept: no small answer becomes a large one."""
    packed = gzip.compress(bytes(64 << 20))
    service.pages["/page"] = page(packed, Content_Encoding="gzip")
    assert client(f"{service.address}/page").body == packed


def test_an_answer_without_compression_is_asked_for(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    heard: list[bytes] = []

    def listen(secure: ssl.SSLSocket, _: threading.Event) -> None:
        secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with talking(contexts[0], listen, heard) as url:
        HttpsClient(timeout_s=5, trust=contexts[1])(url)
    assert b"accept-encoding: identity" in heard[0].lower()


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy for one connection: its address, and the first lines of what it was asked."""
    asked: list[str] = []

    def pour(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(TimeoutError):
            near, _ = listener.accept()
            connect(near)

    def connect(near: socket.socket) -> None:
        with near:
            asked.append(near.recv(4096).split(b"\r\n")[0].decode())
            host, _, port = asked[0].split()[1].partition(":")
            with socket.create_connection((host, int(port))) as far:
                near.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                back = threading.Thread(target=pour, args=(far, near))
                back.start()
                pour(near, far)
                back.join()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        finally:
            thread.join()


def test_a_proxy_of_the_environment_is_used_and_opens_no_tls(
    service: Service, client: HttpsClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy() as (address, asked):
        monkeypatch.setenv("HTTPS_PROXY", address)
        assert client(f"{service.address}/page").body == b"content"
    assert asked == [f"CONNECT {service.address.removeprefix('https://')} HTTP/1.1"]


@pytest.mark.parametrize("address", ["socks5://127.0.0.1:9", "gopher://127.0.0.1:9", "http://127.0.0.1:x"])
def test_a_proxy_that_cannot_be_used_is_unavailable(
    service: Service, client: HttpsClient, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    refused(client, f"{service.address}/page")
    assert service.asked == []


def test_without_httpx_the_refusal_names_the_extra(client: HttpsClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(VerificationRefused, match=r"needs httpx.*install the extra 'attestation'") as error:
        client("https://127.0.0.1:9/page")
    assert error.value.refusal is Refusal.LIBRARY_MISSING


def test_nobody_there_is_unavailable(client: HttpsClient) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused(client, f"https://127.0.0.1:{port}/page")


@contextmanager
def talking(
    context: ssl.SSLContext, talk: Callable[[ssl.SSLSocket, threading.Event], None], heard: list[bytes] | None = None
) -> Iterator[str]:
    """A server that says what ``talk`` says to the first who comes; the event is set at the end."""
    over = threading.Event()

    def serve() -> None:
        try:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as secure:
                request = secure.recv(4096)
                if heard is not None:
                    heard.append(request)
                talk(secure, over)
        except OSError:
            pass  # the client hung up, which is what is tested

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            over.set()
            thread.join()


def test_a_server_that_says_nothing_is_given_up(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    def silent(_: ssl.SSLSocket, over: threading.Event) -> None:
        over.wait(20)

    with talking(contexts[0], silent) as url:
        refused(HttpsClient(timeout_s=0.2, trust=contexts[1]), url)


def test_a_server_that_drips_is_given_up(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    def drip(secure: ssl.SSLSocket, over: threading.Event) -> None:
        secure.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not over.wait(0.02):
            secure.sendall(b".")

    with talking(contexts[0], drip) as url:
        assert "too long" in refused(HttpsClient(timeout_s=0.4, trust=contexts[1]), url)


@pytest.mark.parametrize("words", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x" * 99_999])
def test_a_server_that_does_not_speak_http_is_unavailable(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], words: bytes
) -> None:
    with talking(contexts[0], lambda secure, _: secure.sendall(words)) as url:
        refused(HttpsClient(timeout_s=2, trust=contexts[1]), url)


def test_a_chunked_answer_that_breaks_off_is_none(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    words = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhalf"
    with talking(contexts[0], lambda secure, _: secure.sendall(words)) as url:
        refused(HttpsClient(timeout_s=2, trust=contexts[1]), url)


def test_the_product_believes_the_systems_authorities_alone(tmp_path: Path) -> None:
    """No setting names another: what a vendor signs is verified again in any case."""
    from coreason_enclave.attestation.endorsements import EndorsementSettings

    assert EndorsementSettings.model_fields.keys() == {"bundle", "cache", "fetch", "max_age_s"}
