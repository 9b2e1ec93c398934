"""Signs of life: signed, over mTLS, with the round trip of the last; a gateway that is away is no failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from coreason_enclave.agent.health import HEALTH_PATH, Budgets, HealthSender
from coreason_enclave.crypto.envelope import KeyRing, open_envelope
from coreason_enclave.errors import LedgerCorrupted
from coreason_enclave.ledger import LedgerHead
from coreason_enclave.site.connection import Connection
from coreason_enclave.wire.documents import HEALTH_TYPE, HealthStatement
from tests.support.gatekeeping import Coordinator, SmallGateway, free_port, wait_until


@pytest.fixture
def opened(site: Any) -> Iterator[Any]:
    opened = site.open()
    yield opened
    opened.close()


@pytest.fixture
def sender(opened: Any, connection: Connection) -> Iterator[HealthSender]:
    sender = HealthSender(
        connection=connection,
        signer=opened.signer,
        site_id="clinic-1",
        budgets=Budgets(opened.config, opened.ledger).now,
        busy=lambda: False,
        stop=threading.Event(),
    )
    yield sender
    sender._hang_up()


def statements(gateway: SmallGateway, public_key: str) -> list[HealthStatement]:
    keys = KeyRing({"clinic-1": public_key})
    assert {request.path for request in gateway.requests} == {HEALTH_PATH}
    return [
        HealthStatement.from_payload(open_envelope(request.body, HEALTH_TYPE, keys).payload)
        for request in gateway.requests
    ]


def test_a_statement_is_signed_and_says_what_is_left(sender: HealthSender, gateway: SmallGateway, site: Any) -> None:
    assert sender.beat()
    assert sender.beat()

    first, second = statements(gateway, site.public_key)
    assert first.round_trip_s is None
    assert second.round_trip_s is not None
    assert 0 < second.round_trip_s < 10
    assert [(b.dataset_id, b.epsilon_cap, b.epsilon_spent) for b in second.budgets] == [("clinic/visits", 20.0, 0.0)]
    assert gateway.connections == 1


def test_a_gateway_that_is_away_is_tried_again(sender: HealthSender, coordinator: Coordinator) -> None:
    later = SmallGateway(coordinator.authority)
    sender.connection = replace(sender.connection, port=later.port)
    assert not sender.beat()
    with later.serving():
        assert sender.beat()
    assert not sender.beat()
    assert sender.round_trip_s is None
    with later.serving():
        assert sender.beat()


def test_a_refusal_is_no_round_trip(sender: HealthSender, gateway: SmallGateway) -> None:
    gateway.answer = lambda heard: (401, b'{"reason":"revoked"}')

    assert not sender.beat()
    assert sender.round_trip_s is None


def test_a_ledger_that_cannot_be_read_is_no_sign_of_life(sender: HealthSender, gateway: SmallGateway) -> None:
    def broken() -> Any:
        raise LedgerCorrupted("its chain does not verify")

    sender.budgets = broken

    assert not sender.beat()
    assert gateway.requests == []


def test_it_beats_until_it_is_stopped(sender: HealthSender, gateway: SmallGateway) -> None:
    thread = threading.Thread(target=sender.run)
    thread.start()
    wait_until(lambda: gateway.requests, what="the first sign of life")
    sender.stop.set()
    thread.join(10)

    assert not thread.is_alive()


def test_nobody_listening_is_no_exception(sender: HealthSender) -> None:
    sender.connection = replace(sender.connection, port=free_port())

    assert not sender.beat()


def test_budgets_follow_the_ledger(opened: Any, federation: Any) -> None:
    budgets = Budgets(opened.config, opened.ledger)
    before = budgets.now()
    assert budgets.now() is before  # computed once for one head

    opened.ledger.acknowledge(LedgerHead(seq=9, hash="ab" * 32), "A. Person", "the disk failed")

    assert budgets.now() is not before
    assert budgets.now() == before
