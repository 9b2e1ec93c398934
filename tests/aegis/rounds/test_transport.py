"""Any Flower grid as a carrier: what it brings is read, what it raises is a failure that may be tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from aegis.federated_coordinator import GridTransport
from aegis.rounds.transport import DeliveryFailure, OutboundMessage, SiteRefusal, TransportFailed
from aegis.runtimes.in_process import InProcessGrid
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.federation.flower import REFUSED
from coreason_enclave.wire.handler import RequestKind
from coreason_enclave.wire.updates import SealedMessage
from tests.support.studies import Relay

PARCEL = OutboundMessage("clinic-1", 1, RequestKind.TRAIN, SealedMessage(b"order", b"arrays", b"roll-call"), "3", 660.0)


class Answers(Relay):
    """Keeps what is sent, and brings what the test says."""

    def __init__(self, answer: Callable[[Message], Message]) -> None:
        super().__init__(InProcessGrid({}))
        self.answer, self.given = answer, list[Message]()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self.given += messages
        return [f"id-{number}" for number, _ in enumerate(self.given)]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self.answer(message) for message in self.given]


def refusal(code: int, reason: str) -> Callable[[Message], Message]:
    return lambda message: Message(error=Error(code=code, reason=reason), reply_to=message)


def content(fields: dict[str, Any] | None) -> Callable[[Message], Message]:
    records = {} if fields is None else {"aegis": ConfigRecord(fields)}
    return lambda message: Message(content=RecordDict(records), reply_to=message)


def brought(answer: Callable[[Message], Message]) -> Any:
    grid = Answers(answer)
    transport = GridTransport(grid, lambda _: None)
    transport.push([PARCEL])
    (inbound,) = transport.pull(["id-0"])
    assert inbound.node_id == 1
    return inbound.content


def test_an_order_travels_as_a_training_message_to_its_node_and_an_invitation_as_a_query() -> None:
    grid = Answers(content(None))
    enrol = OutboundMessage("clinic-1", 1, RequestKind.ENROL, SealedMessage(b"invitation"), "enrolment", 120.0)
    assert GridTransport(grid, lambda _: None).push([PARCEL, enrol]) == ["id-0", "id-1"]
    order, invitation = grid.given
    assert (order.metadata.message_type, order.metadata.dst_node_id, order.metadata.group_id) == ("train", 1, "3")
    assert order.metadata.ttl == 660.0
    assert invitation.metadata.message_type == "query.enrol"
    assert SealedMessage.from_fields(order.content.config_records["aegis"]) == PARCEL.message


def test_a_message_that_is_sent_again_is_a_new_one() -> None:
    grid = Answers(content(None))
    transport = GridTransport(grid, lambda _: None)
    transport.push([PARCEL])
    transport.push([PARCEL])
    assert grid.given[0] is not grid.given[1]


def test_what_is_sealed_is_read() -> None:
    sealed = SealedMessage(b"envelope", b"arrays", b"")
    assert brought(content(dict(sealed.to_fields()))) == sealed


NOTHING_SEALED = {
    "no record": None,
    "a field too few": {"envelope": b"x", "arrays": b""},
    "a field too many": {"envelope": b"x", "arrays": b"", "roll_call": b"", "more": b""},
    "text for bytes": {"envelope": "x", "arrays": b"", "roll_call": b""},
}


@pytest.mark.parametrize("fields", NOTHING_SEALED.values(), ids=NOTHING_SEALED)
def test_what_is_not_sealed_is_malformed(fields: dict[str, Any] | None) -> None:
    answer = brought(content(fields))
    assert isinstance(answer, EnvelopeError)
    assert answer.reason is Reason.MALFORMED


ERRORS = {
    "a refusal with its reason": (REFUSED, "budget_exceeded", SiteRefusal(Reason.BUDGET_EXCEEDED)),
    "a refusal with a reason that nobody knows": (REFUSED, "because", SiteRefusal(Reason.INTERNAL)),
    "a program that raised": (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "row 17", SiteRefusal(Reason.INTERNAL)),
    "a program that could not be loaded": (ErrorCode.LOAD_CLIENT_APP_EXCEPTION, "", SiteRefusal(Reason.INTERNAL)),
    "a node that is away": (ErrorCode.NODE_UNAVAILABLE, "", DeliveryFailure("error 5")),
    "a message that is gone": (ErrorCode.MESSAGE_UNAVAILABLE, "", DeliveryFailure("error 3")),
    "a reply that is gone": (ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "", DeliveryFailure("error 4")),
    "a worker that died": (ErrorCode.CLIENT_APP_CRASHED, "", DeliveryFailure("error 8")),
    "an error that nobody knows": (77, "", DeliveryFailure("error 77")),
}


@pytest.mark.parametrize(("code", "reason", "expected"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_the_sites_refusal_or_the_carriers_to_try_again(code: int, reason: str, expected: Any) -> None:
    assert brought(refusal(code, reason)) == expected


def test_whatever_a_grid_raises_is_a_failure_that_may_be_tried_again() -> None:
    class Broken(Relay):
        def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
            raise ConnectionError("https://127.0.0.1:9092 refused")

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            raise ValueError("not a message")

    transport = GridTransport(Broken(InProcessGrid({})), lambda _: None)
    with pytest.raises(TransportFailed, match=r"^ConnectionError$"):
        transport.push([PARCEL])
    with pytest.raises(TransportFailed, match=r"^ValueError$"):
        transport.pull(["id-0"])


def test_a_grid_that_signals_is_waited_for_and_another_is_looked_at_again_later() -> None:
    waited: list[tuple[str, float]] = []

    class Signals(Relay):
        def wait_for_reply(self, seconds: float) -> None:
            waited.append(("signal", seconds))

    class Mute:
        """A grid without a signal."""

    for grid in (Signals(InProcessGrid({})), Mute()):
        GridTransport(grid, lambda seconds: waited.append(("sleep", seconds))).wait(0.1)  # type: ignore[arg-type]
    assert waited == [("signal", 0.1), ("sleep", 0.1)]
