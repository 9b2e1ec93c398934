"""The gateway's ASGI application: the only port that sites reach, in front of Flower's SuperLink.

Every request passes these checks, in this order, before the gateway forwards any byte:

1. The registry pins the connection's certificate for a participant, and has not revoked the participant
   (:mod:`.identity`).
2. A route names the method and path. SuperLink serves its control and runtime interfaces on the same port.
3. The node key in the header matches the participant's registered node key. SuperLink itself verifies the signature.
4. The body parses as a request that Flower's node sends. It names the participant's own node and only objects delivered
   to, or requested from, this node (:mod:`.fleet_proxy`, :mod:`.node_registry`).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import KW_ONLY, dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from aegis.errors import RequestRefused
from aegis.gateway.fleet_proxy import FleetProxy
from aegis.gateway.health import accept_health
from aegis.gateway.identity import Registry
from aegis.gateway.node_registry import NodeRegistry, NodeState
from aegis.gateway.refusals import GatewayAudit, refusal_body, refusal_status
from aegis.gateway.status import SiteStatus, StatusReport
from aegis.http import (
    BodyLimits,
    BodyLimitsMiddleware,
    CrowdCounts,
    ExactRoute,
    GatewayLimits,
    RequestShares,
    read_body,
)
from coreason_enclave.errors import EnvelopeError, Reason

HEALTH_PATH = "/v1/agent/health"

_MAX_HEALTH_BYTES = 1 << 16
CONNECTED_S = 60.0
"""Seconds of silence before a node counts as disconnected. Flower's node sends a heartbeat every 24 to 30 seconds."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Gateway:
    """The ASGI application.

    Attributes:
        registry: identifies participants.
        proxy: forwards a participant's fleet requests.
        nodes: the state of all nodes.
        audit: log of refusals.
        body: minimum speed of a request's body.
        limits: each site's share of the work.
        counts: the gateway's load.
        clock: Unix seconds.
    """

    registry: Registry
    proxy: FleetProxy
    _: KW_ONLY
    nodes: NodeRegistry
    audit: GatewayAudit
    body: BodyLimits
    limits: GatewayLimits
    counts: CrowdCounts
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._shares = RequestShares(self.limits)
        routes = [ExactRoute(HEALTH_PATH, self._health, methods=["POST"]), *self.proxy.routes()]
        self._router = Router(routes, redirect_slashes=False, default=_refuse_path, lifespan=self._lifespan)
        self._application = BodyLimitsMiddleware(self._handle, self.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._application(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _application: object) -> AsyncIterator[None]:
        yield
        await self.proxy.close()

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, a refused or failed one too: a 500 ends the node's loop but not its process."""
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._admit(scope, receive, answer)
        except ClientDisconnect:
            _log.debug("a client left before its answer")
        except Exception as error:
            if begun:
                raise  # the server ends the connection: the client sees a truncated answer
            if not isinstance(error, RequestRefused):
                _log.exception("a request could not be handled")
            reason = error.reason if isinstance(error, RequestRefused) else Reason.INTERNAL
            await _json(refusal_body(reason), refusal_status(reason))(scope, receive, answer)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Identify the participant, wait for the share of the site, and route the request; audit a refusal.

        Not an exception handler of Starlette: those see no refusal after the beginning of an answer.
        """
        actor = "unknown"
        try:
            participant = self.registry.identify(scope["state"].get("peer_certificate"))
            actor = participant.site_id
            async with self._shares.request(actor), contextlib.AsyncExitStack() as opened:
                scope["state"] |= {"participant": participant, "opened": opened}
                await self._router(scope, receive, send)
        except RequestRefused as refusal:
            self.audit.refused(actor, _named(scope), refusal)
            raise

    def site_of(self, certificate: bytes | None) -> str:
        """Return the site of a pinned certificate, or the empty string for an unpinned or revoked certificate."""
        try:
            return self.registry.identify(certificate).site_id
        except RequestRefused:
            return ""

    def report(self) -> StatusReport:
        """Return the status of every participant and the gateway's load."""
        try:
            sites = self.registry.site_ids()
        except RequestRefused:
            sites = ()
        return StatusReport(sites={site_id: self._status(site_id) for site_id in sites}, gateway=self.counts.load())

    def _status(self, site_id: str) -> SiteStatus:
        node = self.nodes.known(site_id) or NodeState("")
        last_health, health = self.nodes.health.get(site_id, (None, None))
        moments = [moment for moment in (node.last_request, last_health) if moment is not None]
        return SiteStatus(
            node_id=node.node_id,
            connected=node.connected and self.clock() - (node.last_request or 0.0) < CONNECTED_S,
            last_poll=node.last_poll,
            last_seen=max(moments, default=None),
            activations=node.activations,
            oversized=tuple(node.oversized),
            round_trip_s=health.round_trip_s if health else None,
            version=health.agent_version if health else None,
            busy=bool(health and health.busy),
            budgets=health.budgets if health else (),
        )

    async def _health(self, request: Request) -> Response:
        envelope, participant = await read_body(request, _MAX_HEALTH_BYTES), request.state.participant
        try:
            statement = accept_health(envelope, participant, self.clock())
        except EnvelopeError as error:
            raise RequestRefused(error.reason, f"health: {error}") from error
        self.nodes.health[participant.site_id] = (self.clock(), statement)
        return _json(b"{}")


async def _refuse_path(scope: Scope, _receive: Receive, _send: Send) -> None:
    raise RequestRefused(Reason.UNSUPPORTED, f"{_named(scope)} is not served")


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _named(scope: Scope) -> str:
    return f"{scope['method']} {scope['raw_path'].decode('ascii', errors='replace')}"[:200]
