"""What the gateway says of a site. Hearsay, not evidence: it decides whom to ask again, never what counts."""

from __future__ import annotations

from typing import Annotated

from aegis.http.load import GatewayLoad
from coreason_enclave.schemas import Flag, SafeId, StrictModel, in_range
from coreason_enclave.wire.documents import FreeBudget

__all__ = ["SiteStatus", "StatusReport"]

Count = Annotated[int, *in_range(0, (1 << 64) - 1)]
Moment = Annotated[float, *in_range(0, 1e12)]


class SiteStatus(StrictModel):
    """One participant as the gateway last saw it; times are Unix seconds.

    Attributes:
        node_id: its Flower node, once known.
        connected: its node spoke lately and has not left.
        last_poll: when its node last asked for messages. last_seen: when anything of it, its health included, came.
        activations: how often it began anew: its node joined, or asked for messages without having answered the one
            that it had been given, which is then lost. A rise means that an open order has to be sent again.
        oversized: the latest messages (ids) whose answers were cut off for being larger than the model allows.
        round_trip_s, version, busy, budgets: from the site's own last health statement.
    """

    node_id: Count | None = None
    connected: Flag = False
    last_poll: Moment | None = None
    last_seen: Moment | None = None
    activations: Count = 0
    oversized: tuple[str, ...] = ()
    round_trip_s: Annotated[float, *in_range(0, 3600)] | None = None
    version: str | None = None
    busy: Flag = False
    budgets: tuple[FreeBudget, ...] = ()


class StatusReport(StrictModel):
    """Every registered participant by site id, and how full the gateway is."""

    sites: dict[SafeId, SiteStatus]
    gateway: GatewayLoad = GatewayLoad()
