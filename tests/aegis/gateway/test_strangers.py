"""Strangers at the port, without a certificate: bounded in number, time and memory, none at another address's cost."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import ssl
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from aegis.http import acceptor as acceptor_module
from aegis.http.limits import GatewayLimits
from aegis.http.load import GatewayLoad, Turned
from tests.aegis.gateway.gateways import FakeSuperLink, Federation, RunningGateway, running_gateway
from tests.aegis.gateway.waiting import until
from tests.attacked.attackers import hello

HELLO = hello()
FEW = GatewayLimits(unfinished=12, unfinished_per_address=5, handshakes=6, handshakes_per_address=3, handshake_s=30.0)


@pytest.fixture
def few(federation: Federation, superlink: FakeSuperLink, superlink_port: int) -> Iterator[RunningGateway]:
    """A gateway at small limits, whose deadline no test reaches."""
    with running_gateway(federation, superlink, superlink_port, limits=FEW) as running:
        yield running


@contextlib.contextmanager
def strangers(gateway: RunningGateway, count: int, sent: bytes = b"", address: str = "127.0.0.1") -> Iterator[list]:
    """Connections from one loopback address, oldest first, that have sent some bytes."""
    with contextlib.ExitStack() as opened:
        connections = []
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", gateway.port), timeout=10, source_address=(address, 0))
            opened.enter_context(connection)
            connection.sendall(sent)
            connections.append(connection)
        yield connections


def ended(connection: socket.socket) -> bool:
    """Whether the gateway has ended it; what it said before is read away."""
    connection.setblocking(False)
    try:
        while connection.recv(1 << 14):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    return True


def load(gateway: RunningGateway) -> GatewayLoad:
    return gateway.control.report().gateway


def gets_in(gateway: RunningGateway) -> bool:
    with gateway.client("site-a") as client:
        return client.post("/v1/fleet/get-fab", content=b"").status_code in (200, 401)


@pytest.mark.parametrize("sent", [b"", HELLO[: len(HELLO) // 2]], ids=["nothing", "half a hello"])
def test_the_oldest_of_an_address_is_dropped_first_and_none_of_another_address(
    few: RunningGateway, sent: bytes
) -> None:
    with strangers(few, 2, sent, "127.0.0.9") as others, strangers(few, 8, sent, "127.0.0.2") as many:
        until(lambda: [ended(each) for each in many] == [True] * 3 + [False] * 5)

        assert not any(ended(each) for each in others)
        assert load(few).unfinished == 7
        assert load(few).turned_away == {Turned.SILENT.value: 3}
        assert load(few).max_turned_away == {"127.0.0.2": 3}
        assert gets_in(few)


def test_many_addresses_share_what_there_is_and_a_site_still_gets_in(few: RunningGateway) -> None:
    with contextlib.ExitStack() as opened:
        held = [opened.enter_context(strangers(few, 4, b"", f"127.0.1.{n}")) for n in range(1, 6)]
        until(lambda: load(few).unfinished == 12 and sum(ended(each) for some in held for each in some) >= 8)

        left = [sum(not ended(each) for each in some) for some in held]
        assert (sum(left), max(left) - min(left) <= 2) == (12, True)
        assert gets_in(few)
        assert load(few).crowded_since(time.time() - 10)


def test_a_whole_hello_that_goes_no_further_costs_its_own_address(few: RunningGateway) -> None:
    with strangers(few, 3, HELLO, "127.0.0.9") as others, strangers(few, 9, HELLO, "127.0.0.2") as many:
        until(lambda: sum(ended(each) for each in many) >= 6)

        assert sum(ended(each) for each in many) == 6
        assert not any(ended(each) for each in others)
        assert gets_in(few)


def test_what_is_not_tls_ends_at_once(few: RunningGateway) -> None:
    for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff", b"\x16\x09\x01\x00\x50", b"\x15\x03\x03\x00\x02"):
        with strangers(few, 1, sent) as connections:
            until(lambda connections=connections: ended(connections[0]))

    assert load(few).turned_away[Turned.NOT_TLS.value] == 4


@pytest.mark.parametrize("sent", [b"", HELLO[:5], HELLO[:-1], HELLO], ids=["nothing", "a head", "nearly all", "whole"])
def test_a_handshake_has_a_deadline(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int, sent: bytes
) -> None:
    with (
        running_gateway(federation, superlink, superlink_port, limits=GatewayLimits(handshake_s=0.4)) as gateway,
        strangers(gateway, 1, sent) as connections,
    ):
        until(lambda: ended(connections[0]), within_s=5)
        until(lambda: load(gateway).unfinished == 0)


def test_a_hello_that_comes_byte_by_byte_is_understood(few: RunningGateway) -> None:
    context = ssl.create_default_context(cadata=few.federation.authority.certificate.decode())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    first = outgoing.read()
    with strangers(few, 1) as [connection]:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for position in range(0, len(first), 7):
            connection.sendall(first[position : position + 7])
        incoming.write(connection.recv(1 << 14))
        tls.do_handshake()

        assert tls.version() == "TLSv1.3"


def test_a_half_hello_costs_a_socket_and_no_buffer(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    limits = GatewayLimits(unfinished=300, unfinished_per_address=300, handshake_s=30.0)
    with running_gateway(federation, superlink, superlink_port, limits=limits) as gateway:
        assert gets_in(gateway)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            with strangers(gateway, 200, HELLO[: len(HELLO) // 2]):
                until(lambda: load(gateway).unfinished == 200)
                after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert (after - before) / 200 < 8 << 10


class NoDescriptors:
    """A listening socket whose ``accept`` fails while ``failing``; everything else is the real one's."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening, self.failing, self.tries = listening, False, 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.failing:
            self.tries += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self._listening.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self._listening, name)


def test_without_descriptors_it_waits_and_drops_what_is_unfinished_and_says_so_once_a_try(
    federation: Federation,
    superlink: FakeSuperLink,
    superlink_port: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made: list[NoDescriptors] = []
    original = acceptor_module.Acceptor.__init__

    def init(self: object, listening: socket.socket, *arguments: object, **options: object) -> None:
        made.append(NoDescriptors(listening))
        original(self, made[0], *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(acceptor_module.Acceptor, "__init__", init)
    with running_gateway(federation, superlink, superlink_port, limits=FEW) as gateway, strangers(gateway, 3) as held:
        until(lambda: load(gateway).unfinished == 3)
        made[0].failing = True
        with strangers(gateway, 1), caplog.at_level(logging.ERROR):
            until(lambda: made[0].tries >= 3)
            assert made[0].tries < 10  # 0.05, 0.1, 0.2 … seconds apart, and not as often as the loop turns
            until(lambda: all(ended(each) for each in held))
            told = load(gateway).turned_away
            made[0].failing = False
            until(lambda: gets_in(gateway))

    assert Turned.DESCRIPTORS.value in told
    said = [record for record in caplog.records if record.name == acceptor_module.__name__]
    assert {record.message.partition(":")[0] for record in said} == {"cannot accept (Too many open files)"}
    assert all(record.exc_info is None for record in said)


def test_the_end_of_the_gateway_ends_what_is_unfinished(
    federation: Federation, superlink: FakeSuperLink, superlink_port: int
) -> None:
    with contextlib.ExitStack() as opened:
        with running_gateway(federation, superlink, superlink_port, limits=FEW) as gateway:
            silent = opened.enter_context(strangers(gateway, 2))
            shaking = opened.enter_context(strangers(gateway, 2, HELLO))
            until(lambda: load(gateway).unfinished == 4)

        until(lambda: all(ended(each) for each in [*silent, *shaking]))
