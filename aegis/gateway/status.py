"""Site status from the gateway: unauthenticated telemetry, not evidence.

The coordinator uses it to choose which site to ask again, never to decide which result counts.
"""

from __future__ import annotations

from typing import Annotated

from aegis.http import GatewayLoad
from coreason_enclave.schemas import Flag, SafeId, StrictModel, in_range
from coreason_enclave.wire import FreeBudget

Count = Annotated[int, *in_range(0, (1 << 64) - 1)]
Moment = Annotated[float, *in_range(0, 1e12)]


class SiteStatus(StrictModel):
    """The gateway's latest knowledge of a participant. Times are Unix seconds.

    Attributes:
        node_id: the Flower node's id, once known.
        connected: the node sent a request recently and has not left.
        last_poll: time of the node's last poll for messages.
        last_seen: time of the last sign of the site, health statements included.
        activations: number of restarts. A restart means that the node joined, or polled without answering its last
            message, which is then lost. After a rise, the coordinator sends an open order again.
        oversized: ids of the latest messages with a reply cut off for exceeding the model's size.
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
    """The status of every registered participant by site id, and the gateway's load."""

    sites: dict[SafeId, SiteStatus]
    gateway: GatewayLoad = GatewayLoad()
