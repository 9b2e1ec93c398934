"""SuperLink serves its control, runtime and fleet interfaces on one port; a participant reaches ten paths of it."""

from __future__ import annotations

import http.client
import re

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from flwr.superlink.main import create_app

from aegis.gateway.fleet_proxy import FLEET, FLEET_NAMES
from aegis.runtimes.flower.fleet_codec import REQUESTS
from tests.aegis.gateway.gateways import RunningGateway

ALLOWED = {f"{FLEET}{name}" for name in FLEET_NAMES}


@pytest.fixture(scope="module")
def superlink_routes() -> set[tuple[str, str]]:
    """Method and path of everything that the installed SuperLink serves."""
    application: FastAPI = create_app()
    served = {
        (method, context.path)
        for context in iter_route_contexts(application.routes)
        for method in getattr(context.route, "methods", None) or {"GET"}
    }
    assert any(isinstance(context.route, APIRoute) for context in iter_route_contexts(application.routes))
    return served


def test_the_allowed_paths_exist_and_are_all_of_the_fleet_interface_but_registration(
    superlink_routes: set[tuple[str, str]],
) -> None:
    fleet = {path for method, path in superlink_routes if path.startswith(FLEET)}

    assert fleet - ALLOWED == {f"{FLEET}register-node", f"{FLEET}unregister-node"}
    assert fleet >= ALLOWED
    assert {method for method, path in superlink_routes if path in ALLOWED} == {"POST"}


def test_there_is_a_rule_for_reading_every_allowed_request() -> None:
    assert set(REQUESTS) | {"push-object"} == FLEET_NAMES


def test_no_other_path_of_superlink_is_reached_with_any_method(
    gateway: RunningGateway, superlink_routes: set[tuple[str, str]]
) -> None:
    forbidden = {(method, path) for method, path in superlink_routes if path not in ALLOWED}
    assert {"/v1/control/start-run", "/v1/runtime/acquire-task", "/health"} <= {path for _, path in forbidden}

    with gateway.client("site-a") as client:
        for method, path in sorted(forbidden | {("POST", path) for _, path in forbidden}):
            response = client.request(method, re.sub(r"[{}]", "", path), content=b"")
            said = b"" if method == "HEAD" else b'{"reason":"unsupported"}'
            assert (response.status_code, response.content) == (401, said), path

    assert gateway.superlink.seen == []


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1/fleet/",
        "/v1/fleet/pull-messages/",
        "/v1/fleet//pull-messages",
        "//v1/fleet/pull-messages",
        "/v1/fleet/pull%2Dmessages",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/pull-messages/../../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/V1/FLEET/PULL-MESSAGES",
        "/v1/fleet/pull-messages?x=1",
        "/v1/fleet/pull-messages;x",
        "/v1/agent/health/",
        "/v1/agent/health?x=1",
    ],
)
def test_a_path_that_only_looks_like_an_allowed_one_is_refused(gateway: RunningGateway, path: str) -> None:
    status = raw_request(gateway, "POST", path)

    assert status == 401
    assert gateway.superlink.seen == []
    assert '"reason":"unsupported"' in gateway.audit_lines()


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"])
def test_an_allowed_path_is_reached_by_posting_alone(gateway: RunningGateway, method: str) -> None:
    with gateway.client("site-a") as client:
        assert client.request(method, f"{FLEET}pull-messages").status_code == 401

    assert gateway.superlink.seen == []
    assert f'"action":"{method} {FLEET}pull-messages"' in gateway.audit_lines()


def raw_request(gateway: RunningGateway, method: str, target: str) -> int:
    """A request whose target no client library tidied up."""
    site = gateway.federation.sites["site-a"]
    connection = http.client.HTTPSConnection(
        "127.0.0.1", gateway.port, context=site.tls(gateway.federation.authority.certificate), timeout=10
    )
    try:
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in {**site.headers, "content-length": "0"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().status
    finally:
        connection.close()
