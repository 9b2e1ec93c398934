"""A node speaks for itself alone, reads what it was given, and sends what it was asked for."""

from __future__ import annotations

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeResponse, PushMessagesRequest
from flwr.proto.message_pb2 import PullObjectResponse, PushObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest

from tests.aegis.gateway.fleet_requests import (
    activate,
    answer,
    asked,
    confirm,
    deactivate,
    encoded,
    given,
    pull,
    pull_object,
    push_object,
)
from tests.aegis.gateway.gateways import FakeSuperLink, Federation, RunningGateway, running_gateway

A, B = 101, 102


def post(client: httpx.Client, name: str, body: bytes) -> int:
    return client.post(f"/v1/fleet/{name}", content=body).status_code


def join(gateway: RunningGateway, client: httpx.Client, site_id: str) -> None:
    site = gateway.federation.sites[site_id]
    gateway.superlink.answers("activate-node", ActivateNodeResponse(node_id=site.node_id))
    assert post(client, "activate-node", activate(site.node_public)) == 200


def join_and_be_ordered(gateway: RunningGateway, client: httpx.Client, site_id: str) -> None:
    join(gateway, client, site_id)
    node_id = gateway.federation.sites[site_id].node_id
    gateway.superlink.answers("pull-messages", given("order", ["arrays"], node_id))
    assert post(client, "pull-messages", pull(node_id)) == 200


def test_a_whole_round_of_one_node_passes(gateway: RunningGateway) -> None:
    superlink = gateway.superlink
    superlink.answers("pull-messages", given("order", ["arrays"]))
    superlink.answers("pull-object", PullObjectResponse(object_found=True, object_available=True, object_content=b"x"))
    superlink.answers("push-messages", asked(["update"]))
    superlink.answers("push-object", PushObjectResponse(stored=True))

    with gateway.client("site-a") as client:
        join(gateway, client, "site-a")
        statuses = [
            post(client, "pull-messages", pull(A)),
            post(client, "pull-object", pull_object(A, "order")),
            post(client, "pull-object", pull_object(A, "arrays")),
            post(client, "confirm-message-received", confirm(A, "order")),
            post(client, "push-messages", encoded(answer(A, "order"))),
            post(client, "push-object", push_object(A, "update")),
        ]

    assert statuses == [200] * 6
    assert superlink.seen[-1].body == push_object(A, "update")
    assert superlink.seen[-1].headers["flwr-public-key"] == gateway.federation.sites["site-a"].node_key


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("pull-messages", pull(B)),
        ("deactivate-node", deactivate(B)),
        ("pull-object", pull_object(B, "order")),
        ("confirm-message-received", confirm(B, "order")),
        ("push-messages", encoded(answer(B, "order"))),
        ("push-messages", encoded(answer(A, "order", source=B))),
        ("push-messages", encoded(answer(A, "order", destination=B))),
        ("push-messages", encoded(answer(A, ""))),
        ("push-messages", encoded(answer(A, "order", root="something-else"))),
        ("push-object", push_object(B, "update")),
    ],
)
def test_a_node_does_nothing_in_the_name_of_another(gateway: RunningGateway, name: str, body: bytes) -> None:
    with gateway.client("site-a") as client:
        join(gateway, client, "site-a")
        gateway.superlink.seen.clear()

        assert post(client, name, body) == 401

    assert gateway.superlink.seen == []
    assert '"actor":"site-a"' in gateway.audit_lines()


def test_a_node_cannot_activate_another_ones_key(gateway: RunningGateway) -> None:
    with gateway.client("site-a") as client:
        assert post(client, "activate-node", activate(gateway.federation.sites["site-b"].node_public)) == 401

    assert gateway.superlink.seen == []


def test_two_answers_in_one_request_are_refused(gateway: RunningGateway) -> None:
    two = answer(A, "order")
    two.MergeFrom(answer(A, "order", source=B))

    with gateway.client("site-a") as client:
        assert post(client, "push-messages", encoded(two)) == 401


def test_a_node_reads_no_object_of_a_message_that_another_was_given(gateway: RunningGateway) -> None:
    with gateway.client("site-a") as first, gateway.client("site-b") as second:
        join(gateway, first, "site-a")
        join(gateway, second, "site-b")
        gateway.superlink.answers("pull-messages", given("for-a", ["arrays-of-a"]))
        assert post(first, "pull-messages", pull(A)) == 200
        gateway.superlink.answers("pull-messages", given("for-b", ["arrays-of-b"], B))
        assert post(second, "pull-messages", pull(B)) == 200
        gateway.superlink.seen.clear()

        assert post(second, "pull-object", pull_object(B, "arrays-of-a")) == 401
        assert post(second, "pull-object", pull_object(B, "for-a")) == 401
        assert post(second, "confirm-message-received", confirm(B, "for-a")) == 401
        assert post(second, "pull-object", pull_object(B, "arrays-of-b", run_id=8)) == 401
        assert gateway.superlink.seen == []
        assert post(second, "pull-object", pull_object(B, "arrays-of-b")) == 200


def test_a_node_sends_no_object_that_it_was_not_asked_for(gateway: RunningGateway) -> None:
    with gateway.client("site-a") as first, gateway.client("site-b") as second:
        join_and_be_ordered(gateway, first, "site-a")
        join_and_be_ordered(gateway, second, "site-b")
        gateway.superlink.answers("push-messages", asked(["update-of-a"], "session-a"))
        assert post(first, "push-messages", encoded(answer(A, "order"))) == 200
        gateway.superlink.answers("push-messages", asked(["update-of-b"], "session-b"))
        assert post(second, "push-messages", encoded(answer(B, "order"))) == 200
        gateway.superlink.seen.clear()
        before = gateway.superlink.bytes_in

        assert post(second, "push-object", push_object(B, "update-of-a", session="session-a")) == 401
        assert post(second, "push-object", push_object(B, "update-of-b", session="session-b", run_id=8)) == 401
        assert post(second, "push-object", push_object(B, "never-heard-of", session="session-b")) == 401
        assert gateway.superlink.bytes_in == before
        assert post(second, "push-object", push_object(B, "update-of-b", session="session-a")) == 401
        assert post(second, "push-object", push_object(B, "update-of-b", session="")) == 401
        assert gateway.superlink.seen == []
        assert post(second, "push-object", push_object(B, "update-of-b", session="session-b")) == 200
        assert "cookie" not in gateway.superlink.seen[-1].headers


def test_what_a_node_was_given_is_forgotten_when_it_joins_anew(gateway: RunningGateway) -> None:
    gateway.superlink.answers("pull-messages", given("order", ["arrays"]))
    with gateway.client("site-a") as client:
        join(gateway, client, "site-a")
        assert post(client, "pull-messages", pull(A)) == 200
        join(gateway, client, "site-a")

        assert post(client, "pull-object", pull_object(A, "arrays")) == 401


def test_only_the_last_few_messages_of_a_node_are_kept(gateway: RunningGateway) -> None:
    with gateway.client("site-a") as client:
        join(gateway, client, "site-a")
        for number in range(5):
            gateway.superlink.answers("pull-messages", given(f"order-{number}", []))
            assert post(client, "pull-messages", pull(A)) == 200

        assert post(client, "pull-object", pull_object(A, "order-0")) == 401
        assert post(client, "pull-object", pull_object(A, "order-1")) == 200


def test_after_a_restart_the_gateway_still_knows_which_node_is_whose(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    with running_gateway(federation, superlink, superlink_port) as gateway, gateway.client("site-a") as client:
        join(gateway, client, "site-a")
    superlink.seen.clear()

    with running_gateway(federation, superlink, superlink_port) as gateway, gateway.client("site-a") as client:
        assert post(client, "pull-messages", pull(B)) == 401
        assert superlink.seen == []
        assert post(client, "pull-messages", pull(A)) == 200


def test_a_node_of_which_nothing_is_known_yet_is_learnt_from_superlinks_word(gateway: RunningGateway) -> None:
    def only_a(body: bytes) -> tuple[int, bytes]:
        return (200, encoded(given("order", []))) if body == pull(A) else (401, b"")

    gateway.superlink.answers("pull-messages", only_a)
    with gateway.client("site-a") as client:
        assert post(client, "pull-messages", pull(B)) == 401
        assert gateway.control.status()["site-a"].node_id is None
        assert post(client, "pull-messages", pull(A)) == 200
        assert gateway.control.status()["site-a"].node_id == A
        gateway.superlink.seen.clear()
        assert post(client, "pull-messages", pull(B)) == 401

    assert gateway.superlink.seen == []


@pytest.mark.parametrize(
    ("said", "told"), [(401, 401), (403, 403), (404, 401), (409, 401), (412, 401), (429, 503), (500, 503), (502, 503)]
)
def test_a_node_hears_no_status_that_would_leave_it_half_dead(gateway: RunningGateway, said: int, told: int) -> None:
    gateway.superlink.answers("get-run", said)
    gateway.superlink.answers("push-messages", said)
    with gateway.client("site-a") as client:
        join_and_be_ordered(gateway, client, "site-a")
        assert post(client, "get-run", encoded(GetRunRequest(node=Node(node_id=A), run_id=7))) == told
        assert post(client, "push-messages", encoded(answer(A, "order"))) == told


def test_a_node_that_is_not_registered_yet_is_told_to_try_again(gateway: RunningGateway) -> None:
    gateway.superlink.answers("activate-node", 412)

    with gateway.client("site-a") as client:
        assert post(client, "activate-node", activate(gateway.federation.sites["site-a"].node_public)) == 503


def test_without_superlink_a_node_is_told_to_try_again(federation: Federation, superlink: FakeSuperLink) -> None:
    with running_gateway(federation, superlink, 1) as gateway, gateway.client("site-a") as client:
        response = client.post("/v1/fleet/pull-messages", content=pull(A))

    assert (response.status_code, response.json()) == (503, {"reason": "transport"})


def test_a_gateway_that_cannot_write_answers_so_that_the_node_tries_again(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.nodes, "_path", gateway.federation.folder.path / "no-such-folder" / "nodes.json")
    gateway.superlink.answers("activate-node", ActivateNodeResponse(node_id=A))

    key = gateway.federation.sites["site-a"].node_public
    with gateway.client("site-a") as client:
        response = client.post("/v1/fleet/activate-node", content=activate(key))

    assert (response.status_code, response.json()) == (503, {"reason": "internal"})


def test_an_answer_that_superlink_garbles_is_not_passed_on(gateway: RunningGateway) -> None:
    gateway.superlink.answers("pull-messages", lambda _body: (200, b"\xff\xff"))

    with gateway.client("site-a") as client:
        assert post(client, "pull-messages", pull(A)) == 503


def test_a_message_type_is_not_confused_with_another(gateway: RunningGateway) -> None:
    assert isinstance(answer(A, "order"), PushMessagesRequest)
    with gateway.client("site-a") as client:
        assert post(client, "pull-messages", encoded(answer(A, "order"))) == 401
