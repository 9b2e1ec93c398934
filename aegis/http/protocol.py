"""HTTP/1.1 on a connection: passes on the verified peer certificate, and adds bounds that uvicorn lacks."""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from aegis.http.connection_shares import Seat, Seats, Standing
from aegis.http.limits import party_address
from aegis.http.load import CrowdCounts, Turned

HEAD_S = 10.0
"""Seconds for a request's head, from its first byte or from the start of a connection."""
HEAD_BYTES = 1 << 15

SiteOf = Callable[[bytes | None], str]
"""Returns the site of a pinned certificate (DER), or the empty string for an unpinned certificate."""


@dataclass(frozen=True)
class ConnectionAdmission:
    """Admission of connections, shared by a listener's protocols."""

    site_of: SiteOf
    seats: Seats
    counts: CrowdCounts


class PeerCertificateProtocol(HttpToolsProtocol):
    """A connection, with bounds in addition to its :class:`~aegis.http.connection_shares.Seats`.

    - A request head arrives within :data:`HEAD_S`, and fits :data:`HEAD_BYTES`.
    - Requests come one at a time. A second request before the response ends the connection, since uvicorn would buffer
      any number of requests.
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
        """Start a connection after its handshake, and take a seat or abort."""
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
        """Free the connection's seat."""
        self._head_is_in()
        if self._admission is not None and self._seat is not None:
            self._admission.seats.leave(self._seat)
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Start the head timer at the first byte of a request."""
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        """Stop the head timer; abort a request that arrives before the previous response."""
        self._head_is_in()
        if self._is_answering():
            if self._admission is not None and not self.transport.is_closing():
                self._admission.counts.turned(Turned.PIPELINED, self._seat.site if self._seat else "")
            self.abort()
            return
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Resume reading after a response: a paused connection would never notice that its client left."""
        super().on_response_complete()
        self.flow.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Receive bytes; abort a connection that sends too many without ending a request head."""
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
