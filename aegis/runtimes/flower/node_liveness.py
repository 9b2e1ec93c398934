"""Signs of life, from the gateway that every site's node and agent pass through."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from aegis.coordination.liveness import SiteHealth
from aegis.errors import GatewayUnreachable
from aegis.gateway.control import GatewayControl, SiteStatus

__all__ = ["GatewayLiveness"]

_HOLD_S = 10.0
"""Longer than handing over a round's orders takes; the gateway lets go by itself when this process dies meanwhile."""


class GatewayLiveness:
    """What the gateway saw of each site; see :class:`aegis.coordination.liveness.Liveness`."""

    def __init__(self, gateway: GatewayControl) -> None:
        self._gateway = gateway
        self._last: Mapping[str, SiteHealth] = {}
        self._oversized: frozenset[str] = frozenset()

    def health(self) -> Mapping[str, SiteHealth]:
        """By site id; the last that was heard, while the gateway itself cannot be asked."""
        with contextlib.suppress(GatewayUnreachable):
            seen = self._gateway.status()
            self._last = {site: _health(status) for site, status in seen.items()}
            self._oversized = frozenset(message_id for status in seen.values() for message_id in status.oversized)
        return self._last

    def oversized(self) -> frozenset[str]:
        """The messages (ids) whose answers the gateway cut off, by the last that :meth:`health` heard."""
        return self._oversized

    @contextmanager
    def pushing(self) -> Iterator[None]:
        """Nodes are given nothing until all orders are there: one that fetches half an order waits for seconds."""
        self._try(lambda: self._gateway.hold(_HOLD_S))
        try:
            yield
        finally:
            self._try(self._gateway.release)

    @staticmethod
    def _try(call: Callable[[], None]) -> None:
        try:
            call()
        except GatewayUnreachable as error:  # orders travel all the same, a little slower
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
