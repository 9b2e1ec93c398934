"""Signs of life of the sites, and the control socket that shows them to the coordinator."""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import Any

import pytest

from aegis.errors import GatewayUnreachable
from aegis.gateway.app import HEALTH_PATH
from aegis.gateway.control import ControlApplication, GatewayControl
from aegis.gateway.pull_barrier import PullBarrier
from aegis.gateway.status import StatusReport
from aegis.http.tls_server import Listener, bind_unix, serving
from coreason_enclave.crypto.envelope import seal
from coreason_enclave.crypto.signing import Signer
from coreason_enclave.wire.documents import HEAD_TYPE, HEALTH_TYPE, FreeBudget, HealthStatement
from tests.aegis.gateway.gateways import RunningGateway


def statement(site_id: str = "site-a", *, age_s: int = 0, **changes: Any) -> HealthStatement:
    budget = FreeBudget(dataset_id="clinic/visits", epsilon_cap=8.0, epsilon_spent=1.5, delta=1e-5)
    fields = {
        "agent_version": "0.1.0",
        "sent_at": int(time.time()) - age_s,
        "round_trip_s": 0.012,
        "budgets": (budget,),
    }
    return HealthStatement.model_validate({"site_id": site_id, **fields, **changes})


def post(gateway: RunningGateway, envelope: bytes, site_id: str = "site-a") -> tuple[int, bytes]:
    with gateway.client(site_id) as client:
        response = client.post(HEALTH_PATH, content=envelope)
    return response.status_code, response.content


def signer(gateway: RunningGateway, site_id: str = "site-a") -> Signer:
    return gateway.federation.sites[site_id].signer


def test_a_fresh_sign_of_life_is_kept_and_shown(gateway: RunningGateway) -> None:
    sent = statement(busy=True)
    before = time.time()

    assert post(gateway, seal(HEALTH_TYPE, sent.canonical(), signer(gateway))) == (200, b"{}")
    shown = gateway.control.status()["site-a"]

    assert (shown.version, shown.round_trip_s, shown.busy, shown.budgets) == ("0.1.0", 0.012, True, sent.budgets)
    assert shown.last_seen is not None
    assert before <= shown.last_seen <= time.time()
    assert (shown.connected, shown.last_poll) == (False, None)
    assert gateway.superlink.seen == []


def test_a_sign_of_life_needs_no_node_key(gateway: RunningGateway) -> None:
    gateway.federation.change(node_keys={})

    assert post(gateway, seal(HEALTH_TYPE, statement().canonical(), signer(gateway)))[0] == 200


@pytest.mark.parametrize(
    ("changes", "signed_by", "kind", "reason"),
    [
        ({}, "site-b", HEALTH_TYPE, "unknown_signer"),
        ({"site_id": "site-b"}, "site-a", HEALTH_TYPE, "not_addressed_to_me"),
        ({"age_s": 90}, "site-a", HEALTH_TYPE, "expired"),
        ({"age_s": -90}, "site-a", HEALTH_TYPE, "expired"),
        ({}, "site-a", HEAD_TYPE, "wrong_payload_type"),
    ],
)
def test_a_sign_of_life_that_is_not_the_sites_own_and_fresh_is_refused(
    gateway: RunningGateway, changes: dict[str, Any], signed_by: str, kind: str, reason: str
) -> None:
    envelope = seal(kind, statement(**changes).canonical(), signer(gateway, signed_by))

    assert post(gateway, envelope) == (401, f'{{"reason":"{reason}"}}'.encode())
    assert gateway.control.status()["site-a"].version is None


@pytest.mark.parametrize("body", [b"", b"{}", b"[" * 1000, b"\xff\xfe", b"x" * ((1 << 16) + 1)])
def test_whatever_is_sent_instead_of_a_sign_of_life_is_refused(gateway: RunningGateway, body: bytes) -> None:
    assert post(gateway, body)[0] == 401


def test_a_refusal_that_repeats_is_written_once(gateway: RunningGateway) -> None:
    for _ in range(20):
        post(gateway, b"{}")

    assert gateway.audit_lines().count('"reason":"malformed"') == 1


def test_the_control_socket_is_for_its_owner_alone(gateway: RunningGateway) -> None:
    mode = gateway.federation.files.control_socket.stat().st_mode

    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_every_participant_is_in_the_status_heard_of_or_not(gateway: RunningGateway) -> None:
    assert sorted(gateway.control.status()) == ["site-a", "site-b"]


def test_without_a_gateway_the_control_says_so(tmp_path: Path) -> None:
    with pytest.raises(GatewayUnreachable, match="no gateway answers"):
        GatewayControl(tmp_path / "gateway.sock").status()


def test_a_control_below_a_very_long_path_answers(tmp_path: Path) -> None:
    folder = tmp_path / ("long-" * 20) / ("name-" * 20)
    folder.mkdir(parents=True)
    socket_path = folder / "gateway.sock"

    with serving([Listener(ControlApplication(lambda: StatusReport(sites={}), PullBarrier()), bind_unix(socket_path))]):
        assert GatewayControl(socket_path).status() == {}


def test_a_socket_is_found_below_a_very_long_path(tmp_path: Path) -> None:
    folder = tmp_path / ("long-" * 20) / ("name-" * 20)
    folder.mkdir(parents=True)

    listening = bind_unix(folder / "gateway.sock")
    listening.close()

    assert stat.S_IMODE((folder / "gateway.sock").stat().st_mode) == 0o600
