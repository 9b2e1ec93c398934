"""Fetches are held open, wait while a round is being pushed, and lose nothing without saying so."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeResponse
from flwr.proto.message_pb2 import PushObjectResponse

from aegis.errors import GatewayUnreachable
from aegis.gateway.fleet_proxy import Polling
from aegis.gateway.status import SiteStatus
from tests.aegis.gateway.fleet_requests import activate, answer, asked, deactivate, encoded, given, pull, push_object
from tests.aegis.gateway.gateways import FakeSuperLink, Federation, RunningGateway, running_gateway
from tests.aegis.gateway.waiting import in_background, until

A = 101
PULL = "/v1/fleet/pull-messages"
LONG = Polling(longest_s=8.0, max_wait_s=20.0)
"""Looks so rarely that only a release can end a wait in time."""

Fetch = Callable[[], httpx.Response]


def fetching(gateway: RunningGateway, site_id: str = "site-a") -> Fetch:
    def fetch() -> httpx.Response:
        with gateway.client(site_id) as client:
            return client.post(PULL, content=pull(gateway.federation.sites[site_id].node_id))

    return fetch


def site(gateway: RunningGateway) -> SiteStatus:
    return gateway.control.status()["site-a"]


def test_a_fetch_that_finds_nothing_is_held_and_then_answered_as_empty(gateway: RunningGateway) -> None:
    start = time.monotonic()

    response = fetching(gateway)()

    assert (response.status_code, response.content) == (200, b"")
    assert time.monotonic() - start >= 1.0
    assert len(gateway.superlink.seen) > 2


def test_the_pauses_between_looks_grow_so_that_idle_sites_cost_little(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    polling = Polling(longest_s=3.0)
    with running_gateway(federation, superlink, superlink_port, polling=polling) as gateway:
        fetching(gateway)()

    assert 4 <= len(superlink.seen) <= 9  # at 0, 20, 60, 140, 300, 620, 1260 and 2260 ms


def test_a_message_is_handed_over_as_soon_as_a_release_announces_it(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    with running_gateway(federation, superlink, superlink_port, polling=LONG) as gateway:
        fetched = in_background(fetching(gateway))
        until(lambda: len(superlink.seen) >= 7)  # it looks every 1.3 s by now, and ever more rarely
        superlink.answers("pull-messages", given("order", []))
        start = time.monotonic()
        gateway.control.hold(5.0)
        gateway.control.release()
        response = fetched.result(timeout=10)

    assert response.content
    assert time.monotonic() - start < 0.5


def test_a_message_that_comes_just_after_a_release_is_handed_over_soon_too(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    with running_gateway(federation, superlink, superlink_port, polling=LONG) as gateway:
        fetched = in_background(fetching(gateway))
        until(lambda: len(superlink.seen) >= 7)
        gateway.control.release()
        until(lambda: len(superlink.seen) >= 9)  # the pauses between looks have begun anew
        superlink.answers("pull-messages", given("order", []))
        start = time.monotonic()
        response = fetched.result(timeout=10)

    assert response.content
    assert time.monotonic() - start < 0.9


def test_a_release_wakes_a_waiting_fetch_once_and_not_for_ever(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    with running_gateway(federation, superlink, superlink_port, polling=Polling(longest_s=2.5)) as gateway:
        gateway.control.release()
        fetched = in_background(fetching(gateway))
        until(lambda: len(superlink.seen) >= 3)
        gateway.control.release()
        assert fetched.result(timeout=10).content == b""

    assert len(superlink.seen) <= 16


def test_a_fetch_that_waits_through_a_hold_is_woken_by_its_release_alone(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    with running_gateway(federation, superlink, superlink_port, polling=LONG) as gateway:
        superlink.answers("pull-messages", given("order", []))
        gateway.control.hold(60.0)
        fetched = [in_background(fetching(gateway, site_id)) for site_id in ("site-a", "site-b")]
        until(lambda: all(status.last_poll is not None for status in gateway.control.status().values()))
        assert superlink.seen == []
        start = time.monotonic()
        gateway.control.release()
        assert all(each.result(timeout=10).content for each in fetched)

    assert time.monotonic() - start < 2.0


def test_nothing_is_fetched_while_a_coordinator_holds(gateway: RunningGateway) -> None:
    gateway.superlink.answers("pull-messages", given("order", []))
    gateway.control.hold(10.0)
    fetched = in_background(fetching(gateway))
    until(lambda: site(gateway).last_poll is not None)

    assert gateway.superlink.seen == []
    gateway.control.release()
    assert fetched.result(timeout=10).content
    assert gateway.superlink.names() == ["pull-messages"]


def test_a_hold_waits_for_the_fetch_that_is_on_its_way(gateway: RunningGateway) -> None:
    gateway.superlink.reading.clear()
    fetched = in_background(fetching(gateway))
    until(lambda: gateway.gate._fetching == 1)
    held = in_background(lambda: gateway.control.hold(10.0))
    until(lambda: gateway.gate.held)

    assert not held.done()
    gateway.superlink.reading.set()
    ended = time.monotonic()
    held.result(timeout=10)
    assert time.monotonic() - ended < 2.0  # woken by the fetch's end, long before a hold stops waiting for it
    looks = len(gateway.superlink.seen)
    assert looks == 1
    fetched.result(timeout=10)
    assert len(gateway.superlink.seen) == looks


def test_a_hold_ends_by_itself_when_its_coordinator_died(gateway: RunningGateway) -> None:
    gateway.superlink.answers("pull-messages", given("order", []))
    gateway.control.hold(0.2)

    assert fetching(gateway)().content


@pytest.mark.parametrize("for_s", [0, -1, 1e9, "ten", None, True])
def test_a_hold_of_no_sensible_length_is_refused(gateway: RunningGateway, for_s: float) -> None:
    with pytest.raises(GatewayUnreachable, match="for_s"):
        gateway.control.hold(for_s)

    assert not gateway.gate.held


def test_a_node_that_hangs_up_is_given_no_message(gateway: RunningGateway) -> None:
    gateway.control.hold(10.0)
    with gateway.client("site-a") as client, contextlib.suppress(httpx.ReadTimeout):
        client.post(PULL, content=pull(A), timeout=0.3)
    until(lambda: not site(gateway).connected)
    gateway.superlink.answers("pull-messages", given("order", []))
    gateway.control.release()

    assert gateway.superlink.seen == []
    assert fetching(gateway)().content


def join(gateway: RunningGateway) -> None:
    gateway.superlink.answers("activate-node", ActivateNodeResponse(node_id=A))
    with gateway.client("site-a") as client:
        client.post("/v1/fleet/activate-node", content=activate(gateway.federation.sites["site-a"].node_public))


def post(gateway: RunningGateway, name: str, body: bytes) -> int:
    with gateway.client("site-a") as client:
        return client.post(f"/v1/fleet/{name}", content=body).status_code


def test_joining_counts_as_an_activation_and_leaving_disconnects(gateway: RunningGateway) -> None:
    join(gateway)
    joined = site(gateway)
    post(gateway, "deactivate-node", deactivate(A))

    assert (joined.node_id, joined.activations, joined.connected) == (A, 1, True)
    assert (site(gateway).activations, site(gateway).connected) == (1, False)
    assert gateway.control.status()["site-b"] == SiteStatus()


def test_a_node_that_answers_what_it_was_given_begins_nothing_anew(gateway: RunningGateway) -> None:
    join(gateway)
    for number in range(3):
        gateway.superlink.answers("pull-messages", given(f"order-{number}", []))
        fetching(gateway)()
        gateway.superlink.answers("push-messages", asked(["update"], f"session-{number}"))
        gateway.superlink.answers("push-object", PushObjectResponse(stored=True))
        assert post(gateway, "push-messages", encoded(answer(A, f"order-{number}"))) == 200
        assert post(gateway, "push-object", push_object(A, "update", session=f"session-{number}")) == 200

    assert site(gateway).activations == 1


def test_a_node_that_asks_again_without_having_answered_has_lost_its_message(gateway: RunningGateway) -> None:
    join(gateway)
    gateway.superlink.answers("pull-messages", given("order", []))
    fetching(gateway)()
    before = site(gateway).activations
    fetching(gateway)()

    assert (before, site(gateway).activations) == (1, 2)


def test_a_node_that_asks_again_without_having_sent_its_update_has_lost_it(gateway: RunningGateway) -> None:
    join(gateway)
    gateway.superlink.answers("pull-messages", given("order", []))
    fetching(gateway)()
    gateway.superlink.answers("push-messages", asked(["update"]))
    post(gateway, "push-messages", encoded(answer(A, "order")))
    fetching(gateway)()

    assert site(gateway).activations == 2


def test_a_message_that_superlink_gave_while_the_node_hung_up_counts_as_lost(gateway: RunningGateway) -> None:
    join(gateway)
    gateway.superlink.reading.clear()
    with gateway.client("site-a") as client, contextlib.suppress(httpx.ReadTimeout):
        client.post(PULL, content=pull(A), timeout=0.3)
    until(lambda: not site(gateway).connected)
    gateway.superlink.reading.set()
    fetching(gateway)()

    assert site(gateway).activations == 2


def test_after_a_restart_of_the_gateway_the_count_goes_on_and_the_first_fetch_is_in_doubt(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    with running_gateway(federation, superlink, superlink_port) as gateway:
        join(gateway)
        assert site(gateway).activations == 1
    with running_gateway(federation, superlink, superlink_port) as gateway:
        started = site(gateway)
        fetching(gateway)()
        fetching(gateway)()

        assert (started.activations, started.node_id) == (1, A)
        assert site(gateway).activations == 2


def test_the_end_of_the_gateway_answers_held_fetches_at_once(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    with running_gateway(federation, superlink, superlink_port, polling=Polling(longest_s=25.0)) as gateway:
        gateway.control.hold(30.0)
        fetched = in_background(fetching(gateway))
        until(lambda: site(gateway).last_poll is not None)
        start = time.monotonic()
    response = fetched.result(timeout=10)

    assert (response.status_code, response.content) == (200, b"")
    assert time.monotonic() - start < 3.0


def test_waiting_sites_do_not_wait_for_each_other(gateway: RunningGateway) -> None:
    ready = threading.Barrier(2, timeout=10)

    def fetch(site_id: str) -> int:
        ready.wait()
        return fetching(gateway, site_id)().status_code

    start = time.monotonic()
    both = [in_background(lambda site_id=site_id: fetch(site_id)) for site_id in ("site-a", "site-b")]

    assert [each.result(timeout=10) for each in both] == [200, 200]
    assert time.monotonic() - start < 1.9
