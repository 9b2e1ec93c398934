"""A site with a certificate that takes more than its share: its own connections pay for it."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from aegis.http.limits import GatewayLimits
from aegis.http.load import Turned
from tests.aegis.gateway.fleet_requests import given, pull
from tests.aegis.gateway.gateways import FakeSuperLink, Federation, RunningGateway, running_gateway
from tests.aegis.gateway.test_fetching import LONG, fetching
from tests.aegis.gateway.test_strangers import ended, gets_in, load
from tests.aegis.gateway.waiting import in_background, until

FEW = GatewayLimits(connections=8, connections_per_site=5, heads_per_site=3)
HALF_HEAD = b"POST /v1/fleet/get-run HTTP/1.1\r\nhost: gateway\r\nx-filler: "
HEALTH = b"POST /v1/agent/health HTTP/1.1\r\nhost: gateway\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture
def few(federation: Federation, superlink: FakeSuperLink, superlink_port: int) -> Iterator[RunningGateway]:
    with running_gateway(federation, superlink, superlink_port, limits=FEW) as running:
        yield running


@contextlib.contextmanager
def connections(gateway: RunningGateway, site_id: str, count: int, sent: bytes) -> Iterator[list[ssl.SSLSocket]]:
    """Connections with a site's certificate, oldest first, that have sent some bytes."""
    context = gateway.federation.sites[site_id].tls(gateway.federation.authority.certificate)
    with contextlib.ExitStack() as opened:
        made = []
        for _ in range(count):
            plain = socket.create_connection(("127.0.0.1", gateway.port), timeout=10)
            made.append(opened.enter_context(context.wrap_socket(plain, server_hostname="localhost")))
            with contextlib.suppress(OSError):  # it may have been turned away by now
                made[-1].sendall(sent)
        yield made


def holds(gateway: RunningGateway, site_id: str) -> int:
    return load(gateway).by_site.get(site_id, 0)


@pytest.mark.parametrize("sent", [b"", HALF_HEAD], ids=["nothing", "half a head"])
def test_half_sent_heads_end_at_a_sites_share(few: RunningGateway, sent: bytes) -> None:
    with connections(few, "site-b", 10, sent):
        until(lambda: holds(few, "site-b") == 3)

        assert gets_in(few)
        assert load(few).turned_away == {Turned.HEADS.value: 7}
        assert load(few).max_turned_away == {"site-b": 7}


def test_idle_connections_end_at_a_sites_share_the_oldest_first(few: RunningGateway) -> None:
    context = few.federation.sites["site-b"].tls(few.federation.authority.certificate)
    with contextlib.ExitStack() as opened:
        made = []
        for _ in range(7):
            plain = socket.create_connection(("127.0.0.1", few.port), timeout=10)
            made.append(opened.enter_context(context.wrap_socket(plain, server_hostname="localhost")))
            made[-1].sendall(HEALTH)
            assert made[-1].recv(1 << 12).startswith(b"HTTP/1.1 401")  # no statement of health, but a whole request
        until(lambda: [ended(each) for each in made] == [True, True] + [False] * 5)

        assert holds(few, "site-b") == 5
        assert gets_in(few)


def test_fetches_that_a_site_holds_leave_a_share_to_the_others(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    limits = FEW.model_copy(update={"heads_per_site": 16})
    with running_gateway(federation, superlink, superlink_port, limits=limits) as gateway:
        site = federation.sites["site-b"]
        body = pull(site.node_id)
        head = "".join(f"{name}: {value}\r\n" for name, value in site.headers.items())
        line = f"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: g\r\ncontent-length: {len(body)}\r\n"
        gateway.control.hold(20.0)  # fetches wait, all of them
        with connections(gateway, "site-b", 9, f"{line}{head}\r\n".encode() + body):
            until(lambda: load(gateway).turned_away.get(Turned.SITE.value) == 4)

            assert holds(gateway, "site-b") <= 5
            assert gets_in(gateway)


def test_certificates_that_are_pinned_for_nobody_are_one_party(few: RunningGateway) -> None:
    few.federation.change(revoked=("site-b",))
    with connections(few, "site-b", 10, b""):
        until(lambda: load(few).turned_away.get(Turned.HEADS.value) == 7)

        assert gets_in(few)
        assert load(few).by_site == {"certificates that are pinned for no participant": 3}


def test_a_second_request_before_the_first_answer_ends_the_connection(few: RunningGateway) -> None:
    few.control.hold(20.0)
    site = few.federation.sites["site-a"]
    body = pull(site.node_id)
    head = "".join(f"{name}: {value}\r\n" for name, value in site.headers.items())
    request = f"POST /v1/fleet/pull-messages HTTP/1.1\r\nhost: g\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode()
    with connections(few, "site-a", 1, (request + body) * 50) as [connection]:
        until(lambda: ended(connection))

    assert load(few).turned_away == {Turned.PIPELINED.value: 1}
    assert few.superlink.seen == []


def test_a_limit_that_nobody_shares_is_not_called_a_full_gateway(few: RunningGateway) -> None:
    with connections(few, "site-b", 10, HALF_HEAD):
        until(lambda: holds(few, "site-b") == 3)

    assert load(few).crowded_at is None


def test_the_words_name_the_site_that_holds_most(few: RunningGateway) -> None:
    with connections(few, "site-b", 4, HALF_HEAD):
        until(lambda: holds(few, "site-b") == 3)
        words = load(few).in_words()

    assert words.startswith("3 of 8 connections (site-b holds 3)")
    assert "more half-sent requests than one site may have: 1" in words


def test_limits_are_read_from_gateway_toml(federation: Federation, tmp_path: Path) -> None:
    text = 'version = 1\nport = 9443\npublic_address = "localhost:9443"\nsuperlink_port = 9444\n'
    federation.files.config_file.write_text(text + "[limits]\nconnections_per_site = 7\n", encoding="utf-8")

    assert federation.files.config().limits == GatewayLimits(connections_per_site=7)


def test_a_site_with_its_share_of_requests_waits_for_one_to_end_and_the_others_do_not(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    limits = GatewayLimits(requests_per_site=1)
    with running_gateway(federation, superlink, superlink_port, limits=limits, polling=LONG) as gateway:
        gateway.control.hold(60.0)
        held = in_background(fetching(gateway, "site-a"))
        until(lambda: gateway.control.status()["site-a"].last_poll is not None)
        second = in_background(lambda: without_health(gateway, "site-a"))

        assert without_health(gateway, "site-b") == 401
        with pytest.raises(TimeoutError):
            second.result(timeout=0.5)

        superlink.answers("pull-messages", given("order", []))
        gateway.control.release()
        assert (held.result(timeout=10).status_code, second.result(timeout=10)) == (200, 401)


def without_health(gateway: RunningGateway, site_id: str) -> int:
    """Return the status of a request that the gateway refuses at once: its body states no health."""
    with gateway.client(site_id) as client:
        return client.post("/v1/agent/health", content=b"{}").status_code
