"""The gateway's control socket: reports site status, and holds deliveries while a coordinator pushes a round.

A Unix socket of mode 0600, for processes of the same user. Requests and responses carry JSON:

- ``GET /status``
- ``POST /hold {"for_s": 10}``
- ``POST /release``
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router

from aegis.errors import GatewayUnreachable, RequestRefused
from aegis.gateway.pull_barrier import MAX_HOLD_S, PullBarrier
from aegis.gateway.status import SiteStatus, StatusReport
from aegis.http import read_body, short_name
from coreason_enclave.crypto import parse_json
from coreason_enclave.errors import EnvelopeError
from coreason_enclave.system import explain

_MAX_BODY_BYTES = 1 << 10
_TIMEOUT_S = 10.0


class GatewayControl:
    """Client of a gateway's control socket. Every method raises :class:`GatewayUnreachable`.

    Args:
        path: the socket's path.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def status(self) -> dict[str, SiteStatus]:
        """Return the status of every participant, by site id."""
        return dict(self.report().sites)

    def report(self) -> StatusReport:
        """Return the status of every participant and the gateway's load."""
        try:
            return StatusReport.model_validate_json(self._ask("GET", "/status"))
        except ValidationError as error:
            raise GatewayUnreachable(f"the gateway at {self._path} answers nonsense: {explain(error)}") from error

    def hold(self, for_s: float) -> None:
        """Let no site fetch a message until :meth:`release`, or for ``for_s`` seconds, whichever comes first.

        Returns once no fetch remains in flight, and after 5 seconds at the latest.
        """
        self._ask("POST", "/hold", {"for_s": for_s})

    def release(self) -> None:
        """End the hold and let every waiting site fetch at once."""
        self._ask("POST", "/release", {})

    def _ask(self, method: str, path: str, document: dict[str, Any] | None = None) -> bytes:
        content = None if document is None else json.dumps(document)
        try:
            with (
                short_name(self._path) as name,
                httpx.Client(transport=_connectable(name), trust_env=False, timeout=_TIMEOUT_S) as client,
            ):
                response = client.request(method, f"http://gateway{path}", content=content)
        except (OSError, httpx.HTTPError) as error:
            raise GatewayUnreachable(f"no gateway answers at {self._path}: {error}") from error
        if response.status_code != 200:
            raise GatewayUnreachable(f"the gateway at {self._path} refused {path}: {response.content[:200]!r}")
        return response.content


def _connectable(name: str) -> httpx.HTTPTransport:
    """Return a transport to a socket that accepts connections; raises :class:`OSError`."""
    with socket.socket(socket.AF_UNIX) as attempt:  # httpcore does not close a socket that fails to connect
        attempt.settimeout(_TIMEOUT_S)
        attempt.connect(name)
    return httpx.HTTPTransport(uds=name, verify=False)  # no TLS here: spares loading the authorities


class ControlApplication(Router):
    """The server side: an ASGI application in the gateway's own event loop.

    Args:
        report: returns the status report.
        gate: the barrier that the hold and release requests act on.
    """

    def __init__(self, report: Callable[[], StatusReport], gate: PullBarrier) -> None:
        self._report = report
        self._gate = gate
        routes = [
            Route("/status", self._status, methods=["GET"]),
            Route("/hold", self._hold, methods=["POST"]),
            Route("/release", self._release, methods=["POST"]),
        ]
        super().__init__(routes, redirect_slashes=False)

    # Coroutines, with or without an await: Starlette would run a plain function in a thread, and the gateway's state
    # belongs to its event loop.
    async def _status(self, _request: Request) -> Response:
        return Response(self._report().canonical(), media_type="application/json")

    async def _hold(self, request: Request) -> Response:
        try:
            for_s = parse_json(await read_body(request, _MAX_BODY_BYTES)).get("for_s")
        except (EnvelopeError, RequestRefused) as error:
            return JSONResponse({"error": str(error)}, 400)
        if isinstance(for_s, bool) or not isinstance(for_s, int | float) or not 0 < for_s <= MAX_HOLD_S:
            return JSONResponse({"error": f"for_s must be above 0 and at most {MAX_HOLD_S}"}, 400)
        await self._gate.hold(for_s)
        return JSONResponse({})

    async def _release(self, _request: Request) -> Response:
        self._gate.release()
        return JSONResponse({})
