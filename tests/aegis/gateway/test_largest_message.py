"""An answer is as large as what it answers allows: the model that came with the order, and an envelope."""

from __future__ import annotations

import contextlib
import time

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse, PushObjectResponse

from aegis.gateway.node_registry import ANSWER_SLACK_BYTES
from aegis.runtimes.flower.fleet_codec import MAX_ANSWER_OBJECTS
from tests.aegis.gateway.fleet_requests import activate, answer, asked, encoded, given, pull, pull_object, push_object
from tests.aegis.gateway.gateways import FakeSuperLink, Federation, RunningGateway, running_gateway
from tests.aegis.gateway.test_bodies import connect, start

A = 101
MODEL = 300_000
UPLOAD = "/v1/fleet/push-object"


def post(client: httpx.Client, name: str, body: bytes) -> int:
    return client.post(f"/v1/fleet/{name}", content=body).status_code


def ordered(gateway: RunningGateway, client: httpx.Client, *, order: str = "order", model: int = MODEL) -> None:
    """Give site-a's node an order with a model of so many bytes, which the node fetches and answers."""
    superlink = gateway.superlink
    superlink.answers("activate-node", ActivateNodeResponse(node_id=A))
    superlink.answers("pull-messages", given(order, [f"model-of-{order}"]))
    content = PullObjectResponse(object_found=True, object_available=True, object_content=bytes(model))
    superlink.answers("pull-object", content)
    superlink.answers("push-messages", asked(["update", "record"], f"session-{order}"))
    superlink.answers("push-object", PushObjectResponse(stored=True))
    site = gateway.federation.sites["site-a"]
    assert post(client, "activate-node", activate(site.node_public)) == 200
    assert post(client, "pull-messages", pull(A)) == 200
    assert post(client, "pull-object", pull_object(A, f"model-of-{order}")) == 200
    answered(client, order)


def answered(client: httpx.Client, order: str = "order") -> None:
    assert post(client, "push-messages", encoded(answer(A, order))) == 200


def update(size: int, name: str = "update", order: str = "order") -> bytes:
    return push_object(A, name, bytes(size), f"session-{order}")


def test_an_update_as_large_as_its_model_passes_and_a_larger_one_does_not(gateway: RunningGateway) -> None:
    with gateway.client("site-a") as client:
        ordered(gateway, client)
        fits = post(client, "push-object", update(MODEL))
        gateway.superlink.seen.clear()
        too_large = client.post(UPLOAD, content=update(MODEL + ANSWER_SLACK_BYTES + 1))

    assert fits == 200
    assert (too_large.status_code, too_large.json()) == (401, {"reason": "oversized"})
    assert gateway.superlink.seen == []
    assert '"actor":"site-a"' in gateway.audit_lines()
    assert '"reason":"oversized"' in gateway.audit_lines()
    assert gateway.control.status()["site-a"].oversized == ("order",)


def test_it_is_cut_off_before_its_content_comes(gateway: RunningGateway) -> None:
    with gateway.client("site-a") as client:
        ordered(gateway, client)
    gateway.superlink.seen.clear()
    before, length = gateway.superlink.bytes_in, 100 << 20
    head = update(length)[:100]
    began = time.monotonic()
    with contextlib.closing(connect(gateway)) as connection:
        start(connection, UPLOAD, {"content-length": str(length + len(update(0)) + 3)}, gateway)
        connection.send(head)
        status = connection.getresponse().status

    assert status == 401
    assert time.monotonic() - began < 3
    assert gateway.superlink.bytes_in == before


def test_what_came_without_a_model_is_answered_without_one(gateway: RunningGateway) -> None:
    with gateway.client("site-a") as client:
        ordered(gateway, client, order="invitation", model=200)

        assert post(client, "push-object", update(ANSWER_SLACK_BYTES + 10_000, order="invitation")) == 401
        assert post(client, "push-object", update(10_000, order="invitation")) == 200


def test_the_objects_of_one_answer_count_together_however_often_it_is_sent(gateway: RunningGateway) -> None:
    with gateway.client("site-a") as client:
        ordered(gateway, client)
        most = MODEL + ANSWER_SLACK_BYTES
        assert post(client, "push-object", update(most - 100_000)) == 200
        assert post(client, "push-object", update(most - 100_000)) == 200  # the same one again
        assert post(client, "push-object", update(200_000, "record")) == 401
        answered(client)
        assert post(client, "push-object", update(200_000, "record")) == 401
        assert post(client, "push-object", update(90_000, "record")) == 200


def test_a_large_model_of_another_order_does_not_help(gateway: RunningGateway) -> None:
    with gateway.client("site-a") as client:
        ordered(gateway, client, order="large", model=5_000_000)
        assert post(client, "push-object", update(5_000_000, order="large")) == 200
        gateway.superlink.answers("pull-messages", given("small", ["model-of-small"]))
        assert post(client, "pull-messages", pull(A)) == 200
        gateway.superlink.answers("push-messages", asked(["update-2"], "session-small"))
        answered(client, "small")

        assert post(client, "push-object", update(5_000_000, "update-2", "small")) == 401


def test_an_answer_to_what_a_node_was_not_given_is_refused(gateway: RunningGateway) -> None:
    with gateway.client("site-a") as client:
        ordered(gateway, client)
        gateway.superlink.seen.clear()

        assert post(client, "push-messages", encoded(answer(A, "of-somebody-else"))) == 401
        assert gateway.superlink.seen == []


@pytest.mark.parametrize(("children", "status"), [(MAX_ANSWER_OBJECTS - 1, 200), (MAX_ANSWER_OBJECTS, 401)])
def test_an_answer_has_only_so_many_objects(gateway: RunningGateway, children: int, status: int) -> None:
    request = answer(A, "order")
    tree = [ObjectTree(object_id=f"object-{number}") for number in range(children)]
    request.message_object_trees[0].children.extend(tree)
    with gateway.client("site-a") as client:
        ordered(gateway, client)
        gateway.superlink.seen.clear()

        assert post(client, "push-messages", encoded(request)) == status
        assert len(gateway.superlink.seen) == (status == 200)


def test_after_a_restart_an_update_of_the_same_model_still_passes_and_a_larger_one_does_not(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    large = 10 * MODEL
    with running_gateway(federation, superlink, superlink_port) as gateway, gateway.client("site-a") as client:
        ordered(gateway, client, model=large)
    with running_gateway(federation, superlink, superlink_port) as gateway, gateway.client("site-a") as client:
        superlink.answers("push-messages", asked(["update"], "session-order"))
        answered(client)

        assert post(client, "push-object", update(large + ANSWER_SLACK_BYTES + 10_000)) == 401
        assert post(client, "push-object", update(large)) == 200
        superlink.answers("pull-messages", given("next", []))
        assert post(client, "pull-messages", pull(A)) == 200
        assert post(client, "push-messages", encoded(answer(A, "order-before"))) == 401
