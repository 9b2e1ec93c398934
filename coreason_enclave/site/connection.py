"""``connection.toml``: the gateway's address and the certificates of both ends.

The site writes the file when joining and only reads it afterwards. Connections use TLS 1.3 only. The site presents its
client certificate and trusts the federation's own CA and no other.
"""

from __future__ import annotations

import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tomli_w
from cryptography import x509
from pydantic import Field

from coreason_enclave.configuration import missing, read_toml_as
from coreason_enclave.crypto import load_pem_certificates, read_private
from coreason_enclave.errors import ConfigurationError
from coreason_enclave.schemas import FormatVersion, HexDigest, SafePath, StrictModel
from coreason_enclave.system import replace_file
from coreason_enclave.wire import Address, Host, parse_address

CONNECTION_FILE = "connection.toml"

_RelativePath = Annotated[str, Field(min_length=1, max_length=1024)]


class ConnectionConfig(StrictModel):
    """The file's content; paths are relative to the site's folder. ``coordinator_key`` signed the grant."""

    version: FormatVersion = 1
    gateway: Address
    server_name: Host
    coordinator_key: HexDigest
    ca: SafePath
    certificate: SafePath
    key: _RelativePath


@dataclass(frozen=True)
class Connection:
    """The gateway's address, the site's credentials, and the certificate authority and name to expect there."""

    host: str
    port: int
    server_name: str
    coordinator_key: str
    ca: Path
    certificate: Path
    key: Path

    def tls(self) -> ssl.SSLContext:
        """Return a client context for this gateway only; raise :class:`ConfigurationError` if a file is unusable."""
        read_private(self.key)  # only for its checks: OpenSSL accepts a key that everyone can read
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.load_verify_locations(cafile=self.ca)
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            what = f"{self.ca}, {self.certificate} and {self.key}"
            raise ConfigurationError(f"the connection's files are not usable ({what}): join again") from error
        return context

    def client_certificate(self) -> x509.Certificate:
        """Return this site's client certificate; raise :class:`ConfigurationError` if unreadable."""
        try:
            return load_pem_certificates(self.certificate.read_bytes())[0]
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{self.certificate} is not a certificate: join again") from error

    def http(self, *, timeout_s: float) -> GatewayHttp:
        """Return an HTTP/1.1 client with its own mTLS session, not yet connected."""
        return GatewayHttp(self, timeout_s)


class GatewayHttp(http.client.HTTPConnection):
    """One HTTP session to the gateway.

    Any address that leads to the gateway will do; the certificate must be the gateway's.
    """

    def __init__(self, connection: Connection, timeout_s: float) -> None:
        super().__init__(connection.host, connection.port, timeout=timeout_s)
        self._server_name = connection.server_name
        self._tls = connection.tls()

    def connect(self) -> None:
        """Connect over TCP, then TLS; raise ``OSError`` (including ``ssl.SSLError``) on failure."""
        super().connect()
        try:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)
        except BaseException:
            self.close()
            raise


def load_connection(folder: Path) -> Connection:
    """Read the connection of the site in ``folder``.

    Raises:
        ConfigurationError: the site has not joined, or the file is unusable.
    """
    path = folder / CONNECTION_FILE
    try:
        config = read_toml_as(path, ConnectionConfig)
    except ConfigurationError as error:
        if not missing(error):
            raise
        message = f"{folder} has not joined a federation: run coreason-enclave request, then join"
        raise ConfigurationError(message) from error
    host, port = parse_address(config.gateway)
    files = (folder / config.ca, folder / config.certificate, folder / config.key)
    return Connection(host, port, config.server_name, config.coordinator_key, *files)


def save_connection(folder: Path, config: ConnectionConfig) -> None:
    """Write ``connection.toml``, whole or not at all."""
    replace_file(folder / CONNECTION_FILE, tomli_w.dumps(config.model_dump(mode="json")).encode())
