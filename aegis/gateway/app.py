"""The gateway's ASGI application: the only port that sites reach, in front of Flower's SuperLink.

Every request passes these checks, in this order, before the gateway forwards any byte:

1. The registry pins the connection's certificate for a participant, and has not revoked the participant
   (:mod:`.identity`).
2. The list below names the method and path. SuperLink serves its control and runtime interfaces on the same port.
3. The node key in the header matches the participant's registered node key. SuperLink itself verifies the signature.
4. The body parses as a request that Flower's node sends. It names the participant's own node and only objects delivered
   to, or requested from, this node (:mod:`.fleet_proxy`, :mod:`.node_registry`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aegis.errors import RequestRefused
from aegis.gateway.fleet_proxy import FLEET, FLEET_NAMES, FleetProxy
from aegis.gateway.health import accept_health
from aegis.gateway.identity import PinnedPeer, Registry
from aegis.gateway.node_registry import NodeRegistry, NodeState
from aegis.gateway.refusals import GatewayAudit, refusal_body, refusal_status
from aegis.gateway.status import SiteStatus, StatusReport
from aegis.http import (
    BodyLimits,
    CrowdCounts,
    Disconnected,
    GatewayLimits,
    HttpRequest,
    Receive,
    Scope,
    Send,
    Turns,
    follow_lifespan,
)
from coreason_enclave.errors import EnvelopeError, Reason

HEALTH_PATH = "/v1/agent/health"

_MAX_HEALTH_BYTES = 1 << 16
CONNECTED_S = 60.0
"""Seconds of silence before a node counts as disconnected. Flower's node sends a heartbeat every 24 to 30 seconds."""

_log = logging.getLogger(__name__)


class Gateway:
    """The ASGI application.

    Args:
        registry: identifies participants.
        passage: forwards a participant's fleet requests.
        nodes: the state of all nodes.
        audit: log of refusals.
        body: minimum speed of a request's body.
        limits: each site's share of the work.
        counts: the gateway's load.
        clock: Unix seconds.
    """

    def __init__(
        self,
        registry: Registry,
        passage: FleetProxy,
        *,
        nodes: NodeRegistry,
        audit: GatewayAudit,
        body: BodyLimits,
        limits: GatewayLimits,
        counts: CrowdCounts,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._registry = registry
        self._passage = passage
        self._nodes = nodes
        self._audit = audit
        self._body = body
        self._turns = Turns(limits)
        self._counts = counts
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await follow_lifespan(receive, send, self._passage.close)
            return
        exchange = HttpRequest(scope, receive, send, self._body)
        try:
            await self._answer(scope, exchange)
        except Disconnected:
            _log.debug("a client left before its answer")
        except Exception:
            if exchange.answered:
                raise  # the server ends the connection: the client sees a truncated answer
            _log.exception("a request could not be handled")  # no 500: it ends the node's loop but not its process
            await exchange.respond(refusal_status(Reason.INTERNAL), refusal_body(Reason.INTERNAL))

    async def _answer(self, scope: Scope, exchange: HttpRequest) -> None:
        actor = "unknown"
        try:
            participant = self._registry.identify(scope["state"].get("peer_certificate"))
            actor = participant.site_id
            async with self._turns.request(actor):
                await self._route(scope, exchange, participant)
        except RequestRefused as refusal:
            self._audit.refused(actor, _named(scope), refusal)
            if exchange.answered:
                raise
            await exchange.respond(refusal_status(refusal.reason), refusal_body(refusal.reason))

    def site_of(self, certificate: bytes | None) -> str:
        """Return the site of a pinned certificate, or the empty string for an unpinned or revoked certificate."""
        try:
            return self._registry.identify(certificate).site_id
        except RequestRefused:
            return ""

    def report(self) -> StatusReport:
        """Return the status of every participant and the gateway's load."""
        try:
            sites = self._registry.site_ids()
        except RequestRefused:
            sites = ()
        return StatusReport(sites={site_id: self._status(site_id) for site_id in sites}, gateway=self._counts.load())

    def _status(self, site_id: str) -> SiteStatus:
        node = self._nodes.known(site_id) or NodeState("")
        heard, health = self._nodes.health.get(site_id, (None, None))
        moments = [moment for moment in (node.last_request, heard) if moment is not None]
        return SiteStatus(
            node_id=node.node_id,
            connected=node.connected and self._clock() - (node.last_request or 0.0) < CONNECTED_S,
            last_poll=node.last_poll,
            last_seen=max(moments, default=None),
            activations=node.activations,
            oversized=tuple(node.oversized),
            round_trip_s=health.round_trip_s if health else None,
            version=health.agent_version if health else None,
            busy=bool(health and health.busy),
            budgets=health.budgets if health else (),
        )

    async def _route(self, scope: Scope, exchange: HttpRequest, participant: PinnedPeer) -> None:
        path = scope["raw_path"].decode("ascii", errors="replace")
        name = path.removeprefix(FLEET)
        if scope["method"] != "POST" or scope["query_string"]:
            raise RequestRefused(Reason.UNSUPPORTED, f"{_named(scope)} is not served")
        if path == HEALTH_PATH:
            await self._health(exchange, participant)
        elif path == FLEET + name and name in FLEET_NAMES:
            await self._passage.handle(name, exchange, participant)
        else:
            raise RequestRefused(Reason.UNSUPPORTED, f"{_named(scope)} is not served")

    async def _health(self, exchange: HttpRequest, participant: PinnedPeer) -> None:
        envelope = await exchange.body(_MAX_HEALTH_BYTES)
        try:
            statement = accept_health(envelope, participant, self._clock())
        except EnvelopeError as error:
            raise RequestRefused(error.reason, f"health: {error}") from error
        self._nodes.health[participant.site_id] = (self._clock(), statement)
        await exchange.respond(200, b"{}")


def _named(scope: Scope) -> str:
    return f"{scope['method']} {scope['raw_path'].decode('ascii', errors='replace')}"[:200]
