"""An ASGI server for mutual TLS: requires a client certificate and passes it to the application.

Why: uvicorn verifies client certificates but does not expose them.
:class:`~aegis.http.protocol.PeerCertificateProtocol` puts the verified certificate (DER) into
``scope["state"]["peer_certificate"]``.

- TLS 1.3 only.
- No session tickets: a resumed session would outlive the revocation of its certificate.
- A kept-alive connection would outlive the revocation, too: the application therefore checks each request.
- Over TLS, :class:`~aegis.http.acceptor.Acceptor` replaces asyncio's own server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, cast

import uvicorn

from aegis.http.acceptor import Acceptor
from aegis.http.connection_shares import Seats
from aegis.http.limits import GatewayLimits
from aegis.http.load import CrowdCounts
from aegis.http.protocol import ConnectionAdmission, PeerCertificateProtocol
from aegis.http.unix_socket import short_name
from coreason_enclave.errors import ConfigurationError

KEEP_ALIVE_S = 75
_BACKLOG = 1024
"""Connections that the kernel queues for the process to accept."""
_STOP_S = 3

Application = Callable[..., Any]


class ServerTls:
    """A server's TLS: its certificate, and the only authority for client certificates.

    Args:
        certificate: PEM file.
        key: PEM file.
        client_authority: PEM file.

    Raises:
        ConfigurationError: a file is missing or does not parse, or certificate and key do not belong together.
    """

    def __init__(self, certificate: Path, key: Path, client_authority: Path) -> None:
        self._files = (certificate, key, client_authority)
        self.context = self._current = self._load()
        self.context.sni_callback = self._use_current

    def reload(self) -> None:
        """Read the files again, for new connections; raise and change nothing if a file is unusable."""
        self._current = self._load()

    def _use_current(self, tls: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        tls.context = self._current

    def _load(self) -> ssl.SSLContext:
        certificate, key, authority = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        try:
            context.load_cert_chain(certificate, key)
            context.load_verify_locations(authority)
        except OSError as error:  # includes ssl.SSLError
            raise ConfigurationError(f"TLS cannot be set up with {certificate} and {authority}: {error}") from error
        return context


@dataclass(frozen=True)
class Listener:
    """A bound Unix socket and the application behind it.

    Attributes:
        on_stop: called in the loop when the shutdown begins, before the server waits for requests in progress.
    """

    application: Application
    socket: socket.socket
    on_stop: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class TlsListener(Listener):
    """A bound TCP socket, reachable for anyone.

    Attributes:
        tls: the server's side of TLS.
        site_of: returns the site of a verified certificate, or the empty string if not pinned.
        limits: limits for each party.
        counts: counts of the limits' effects.
    """

    _: KW_ONLY
    tls: ServerTls
    site_of: Callable[[bytes | None], str]
    limits: GatewayLimits
    counts: CrowdCounts


def bind_tcp(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 picks a free port. Raises :class:`ConfigurationError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listening


def bind_unix(path: Path) -> socket.socket:
    """Return a listening Unix socket of mode 0600, replacing any earlier socket at ``path``.

    Raises:
        ConfigurationError: the folder is not usable.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        path.unlink(missing_ok=True)
        with short_name(path) as name:
            listening.bind(name)
        listening.listen(16)
    except OSError as error:
        listening.close()
        raise ConfigurationError(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return listening


def serve(listeners: Sequence[Listener]) -> None:
    """Serve until SIGTERM or SIGINT, then stop gracefully: requests in progress get a few seconds. Main thread only."""
    servers = [_TlsServer(listener) for listener in listeners]
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _stop(servers))
    asyncio.run(_run(servers))


@contextlib.contextmanager
def serving(listeners: Sequence[Listener]) -> Iterator[None]:
    """Serve from a thread of this process while the context is open."""
    servers = [_TlsServer(listener) for listener in listeners]
    thread = threading.Thread(target=lambda: asyncio.run(_run(servers)), daemon=True)
    thread.start()
    try:
        yield
    finally:
        _stop(servers)
        thread.join()


class _TlsServer(uvicorn.Server):
    def __init__(self, listener: Listener) -> None:
        super().__init__(
            uvicorn.Config(
                listener.application,
                http=PeerCertificateProtocol,
                ws="none",
                loop="asyncio",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=_STOP_S,
            )
        )
        self._listener = listener

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start a Unix socket as uvicorn does, and a TLS socket with an acceptor instead of asyncio's server."""
        listener = self._listener
        if not isinstance(listener, TlsListener):
            await super().startup(sockets)
            return
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            return
        admission = ConnectionAdmission(listener.site_of, Seats(listener.limits, listener.counts), listener.counts)
        acceptor = Acceptor(
            listener.socket,
            listener.tls.context,
            lambda: PeerCertificateProtocol(self.config, self.server_state, self.lifespan.state, admission=admission),
            limits=listener.limits,
            counts=listener.counts,
        )
        acceptor.open()
        self.servers = [cast(asyncio.base_events.Server, acceptor)]
        self.started = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # uvicorn raises captured signals again at the end, which would cut our shutdown off

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._listener.on_stop()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # idle clients do not close
            cast(PeerCertificateProtocol, connection).transport.abort()
        await asyncio.sleep(0.01)  # the loop closes them


async def _run(servers: Sequence[_TlsServer]) -> None:
    await asyncio.gather(*(server.serve(sockets=[server._listener.socket]) for server in servers))


def _stop(servers: Sequence[_TlsServer]) -> None:
    for server in servers:
        server.should_exit = True
