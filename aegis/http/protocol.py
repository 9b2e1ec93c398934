"""HTTP/1.1 on one connection: the verified peer certificate in each request's state, and bounds that uvicorn lacks."""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from aegis.http.connection_shares import Seat, Seats, Standing
from aegis.http.limits import party_address
from aegis.http.load import CrowdCounts, Turned

__all__ = ["HEAD_BYTES", "HEAD_S", "ConnectionAdmission", "PeerCertificateProtocol"]

HEAD_S = 10.0
"""Seconds that a request's head may take, from its first byte or from the start of a connection."""
HEAD_BYTES = 1 << 15

SiteOf = Callable[[bytes | None], str]
"""The site that a verified certificate (DER) is pinned for; the empty string where it is pinned for none."""


@dataclass(frozen=True)
class ConnectionAdmission:
    """Who may have a connection: what a listener's protocols share."""

    site_of: SiteOf
    seats: Seats
    counts: CrowdCounts


class PeerCertificateProtocol(HttpToolsProtocol):
    """One connection.

    Its bounds, beside those of its :class:`~aegis.http.connection_shares.Seats`:

    - a head is in after :data:`HEAD_S`, and no longer than :data:`HEAD_BYTES`;
    - one request at a time: a client that sends a second one before its answer is cut off, since uvicorn would keep any
      number of them in memory.
    """

    _head_timer: TimerHandle | None = None
    _head_bytes = 0
    _seat: Seat | None = None

    def __init__(self, *arguments: Any, admission: ConnectionAdmission | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._admission = admission

    @property
    def standing(self) -> Standing:
        """The connection's present standing."""
        if self._head_timer is not None:
            return Standing.HEAD
        return Standing.BUSY if self._is_answering() else Standing.IDLE

    def abort(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A connection whose handshake is done, client certificate included."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        self.app_state = {**self.app_state, "peer_certificate": certificate}
        if self._admission is not None:
            peer = transport.get_extra_info("peername")
            site, address = self._admission.site_of(certificate), party_address(str(peer[0]) if peer else "")
            self._seat = self._admission.seats.take(self, site, address)
            if self._seat is None:
                self.abort()
                return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._head_is_in()
        if self._admission is not None and self._seat is not None:
            self._admission.seats.leave(self._seat)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        """A request's head is in."""
        self._head_is_in()
        if self._is_answering():
            if self._admission is not None and not self.transport.is_closing():
                self._admission.counts.turned(Turned.PIPELINED, self._seat.site if self._seat else "")
            self.abort()
            return
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """An answer is out. A connection that closes is read on: paused, it would not see its client go, ever."""
        super().on_response_complete()
        self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Bytes; too many without the end of a head end the connection."""
        if self._head_timer is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > HEAD_BYTES:
            self.abort()

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(HEAD_S, self.abort)
            if self._admission is not None and self._seat is not None:
                self._admission.seats.head_begins(self._seat)

    def _head_is_in(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
            if self._admission is not None and self._seat is not None:
                self._admission.seats.head_is_in(self._seat)
