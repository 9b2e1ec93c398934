"""Reports site liveness from the gateway, through which every site's node and agent connect."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from aegis.coordination import SiteHealth
from aegis.errors import GatewayUnreachable
from aegis.gateway import GatewayControl, SiteStatus

_HOLD_S = 10.0
"""Seconds; longer than the delivery of a round's orders takes. The gateway's hold expires if this process dies."""


class GatewayLiveness:
    """Site liveness as the gateway observed it; see :class:`aegis.coordination.liveness.Liveness`."""

    def __init__(self, gateway: GatewayControl) -> None:
        self._gateway = gateway
        self._last: Mapping[str, SiteHealth] = {}
        self._oversized: frozenset[str] = frozenset()

    def health(self) -> Mapping[str, SiteHealth]:
        """Return health by site id. While the gateway does not answer, return the last known health."""
        with contextlib.suppress(GatewayUnreachable):
            seen = self._gateway.status()
            self._last = {site: _health(status) for site, status in seen.items()}
            self._oversized = frozenset(message_id for status in seen.values() for message_id in status.oversized)
        return self._last

    def oversized(self) -> frozenset[str]:
        """Return the ids of messages whose answers the gateway cut off, as of the last successful :meth:`health`."""
        return self._oversized

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Hold deliveries to nodes until the body has handed over all orders.

        Without the hold, a node that fetches half an order waits for seconds.
        """
        self._try(lambda: self._gateway.hold(_HOLD_S))
        try:
            yield
        finally:
            self._try(self._gateway.release)

    @staticmethod
    def _try(call: Callable[[], None]) -> None:
        try:
            call()
        except GatewayUnreachable as error:  # orders still travel, a little slower
            logging.getLogger(__name__).warning("%s", error)


def _health(status: SiteStatus) -> SiteHealth:
    return SiteHealth(
        last_seen=status.last_seen,
        activations=status.activations,
        connected=status.connected,
        round_trip_s=status.round_trip_s,
        version=status.version,
        budgets=status.budgets,
    )
