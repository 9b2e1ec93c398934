"""Messages become FLARE tasks, results become deliveries; nothing that a site sends can do more than be refused."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.controller_spec import Task
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.fuel.utils import fobs

from aegis.errors import RunAborted
from aegis.rounds.transport import DeliveryFailure, InboundMessage, OutboundMessage, SiteRefusal, TransportFailed
from aegis.runtimes.nvflare.protocol import REASON_HEADER, to_shareable
from aegis.runtimes.nvflare.transport import FlareTransport
from coreason_enclave.errors import EnvelopeError, Reason
from coreason_enclave.wire.handler import RequestKind
from coreason_enclave.wire.updates import SealedMessage

ORDER = SealedMessage(b"an envelope", b"\x00arrays\xff", b"a roll-call")
UPDATE = SealedMessage(b"an update", b"\x01")
NODES = {"clinic-1": 1, "clinic-2": 2}


@dataclass
class Controller:
    """FLARE's controller, as far as a carrier asks it; whoever tests it plays the clients."""

    sent: list[tuple[Task, list[str]]] = field(default_factory=list)
    cancelled: list[Task] = field(default_factory=list)
    broken: bool = False

    def send(self, task: Task, fl_ctx: FLContext, targets: list[str]) -> None:
        if self.broken:
            raise ValueError("no such task")
        self.sent.append((task, targets))

    def cancel_task(self, task: Task) -> None:
        self.cancelled.append(task)

    def answer(self, result: Any, *, client: str = "clinic-1", which: int = -1) -> None:
        """As FLARE calls back, from a thread of its own."""
        done = SimpleNamespace(client=SimpleNamespace(name=client), result=result)
        calling = threading.Thread(target=self.sent[which][0].result_received_cb, args=(done, FLContext()))
        calling.start()
        calling.join()


@dataclass
class Carried:
    controller: Controller
    transport: FlareTransport
    now: list[float]
    aborted: list[bool]

    def push(self, site: str = "clinic-1", request_kind: RequestKind = RequestKind.TRAIN, ttl_s: float = 30.5) -> str:
        (message_id,) = self.transport.push([OutboundMessage(site, NODES[site], request_kind, ORDER, "round-1", ttl_s)])
        assert message_id is not None
        return message_id

    def kind(self, result: Any, *, client: str = "clinic-1") -> InboundMessage:
        message_id = self.push()
        self.controller.answer(result, client=client)
        (inbound,) = self.transport.pull([message_id])
        assert inbound.message_id == message_id
        return inbound


@pytest.fixture
def carried() -> Carried:
    controller, now, aborted = Controller(), [0.0], [False]
    transport = FlareTransport(controller, FLContext(), NODES, aborted=lambda: aborted[0], clock=lambda: now[0])
    return Carried(controller, transport, now, aborted)


def test_a_parcel_is_one_task_for_its_one_client_named_by_its_errand(carried: Carried) -> None:
    carried.push("clinic-2", RequestKind.ATTEST)

    ((task, targets),) = carried.controller.sent
    assert (task.name, targets, task.timeout) == ("attest", ["clinic-2"], 31)
    assert from_shareable(task.data).data == dict(ORDER.to_fields())


def test_bytes_travel_through_flares_serialisation_as_they_are() -> None:
    arrived = fobs.loads(fobs.dumps(to_shareable(ORDER)))

    assert SealedMessage.from_fields(from_shareable(arrived).data) == ORDER


def test_an_answer_is_delivered_once_with_the_node_of_the_client_that_flare_names(carried: Carried) -> None:
    message_id = carried.push()
    assert carried.transport.pull([message_id]) == []

    carried.controller.answer(to_shareable(UPDATE))

    assert carried.transport.pull([message_id]) == [InboundMessage(message_id, 1, UPDATE)]
    assert carried.transport.pull([message_id]) == []


def test_an_answer_of_a_client_that_was_not_asked_bears_its_own_node(carried: Carried) -> None:
    assert carried.kind(to_shareable(UPDATE), client="clinic-2").node_id == 2


def test_a_client_that_is_no_participant_has_no_participants_node(carried: Carried) -> None:
    assert carried.kind(to_shareable(UPDATE), client="a stranger").node_id not in NODES.values()


NOBODY_ANSWERED = {Reason.TRANSPORT, Reason.NO_REPLY}


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason not in NOBODY_ANSWERED])
def test_every_reason_of_a_site_comes_through(carried: Carried, reason: Reason) -> None:
    reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    reply.set_header(REASON_HEADER, reason.value)

    assert carried.kind(reply).content == SiteRefusal(reason)


@pytest.mark.parametrize("reason", sorted(NOBODY_ANSWERED))
def test_a_site_behind_whose_client_nobody_answered_is_asked_again(carried: Carried, reason: Reason) -> None:
    """Its agent is being started again: on Flower, too, it would be silent and not refuse."""
    reply = make_reply(ReturnCode.COMMUNICATION_ERROR)
    reply.set_header(REASON_HEADER, reason.value)

    assert isinstance(carried.kind(reply).content, DeliveryFailure)


@pytest.mark.parametrize("code", ["EXECUTION_EXCEPTION", "UNSAFE_JOB", "TASK_UNKNOWN", "made up", 7, ["a"]])
@pytest.mark.parametrize("said", [None, "made up", 7, ["policy"]])
def test_a_refusal_without_a_reason_of_ours_is_the_sites_own_failure(carried: Carried, code: Any, said: Any) -> None:
    reply = Shareable()
    reply.set_return_code(code)
    reply.set_header(REASON_HEADER, said)

    assert carried.kind(reply).content == SiteRefusal(Reason.INTERNAL)


@pytest.mark.parametrize("code", [ReturnCode.TASK_ABORTED, ReturnCode.COMMUNICATION_ERROR, ReturnCode.TIMEOUT])
def test_what_did_not_get_through_is_asked_again(carried: Carried, code: str) -> None:
    assert isinstance(carried.kind(make_reply(code)).content, DeliveryFailure)


NO_MESSAGES: dict[str, Shareable] = {
    "nothing": Shareable(),
    "weights": DXO(DataKind.WEIGHTS, data={"w": [1.0]}).to_shareable(),
    "no fields": DXO(DataKind.APP_DEFINED, data={}).to_shareable(),
    "a field too many": DXO(DataKind.APP_DEFINED, data={**UPDATE.to_fields(), "more": b""}).to_shareable(),
    "text for bytes": DXO(DataKind.APP_DEFINED, data={**UPDATE.to_fields(), "arrays": "text"}).to_shareable(),
    "a list of numbers": DXO(DataKind.APP_DEFINED, data={**UPDATE.to_fields(), "arrays": [0.1]}).to_shareable(),
}


@pytest.mark.parametrize("result", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_what_is_no_sealed_message_is_malformed(carried: Carried, result: Shareable) -> None:
    content = carried.kind(result).content

    assert isinstance(content, EnvelopeError)
    assert content.reason is Reason.MALFORMED


def test_a_newer_question_takes_the_older_ones_place_at_its_site_alone(carried: Carried) -> None:
    carried.push("clinic-1")
    carried.push("clinic-2")
    carried.push("clinic-1")

    (first, _), _, _ = carried.controller.sent
    assert carried.controller.cancelled == [first]


def test_an_answer_to_what_was_asked_before_is_still_told_apart(carried: Carried) -> None:
    before = carried.push()
    after = carried.push()
    carried.controller.answer(to_shareable(UPDATE), which=0)

    assert [each.message_id for each in carried.transport.pull([after, before])] == [before]


def test_what_nobody_pulls_is_forgotten_when_its_time_is_over(carried: Carried) -> None:
    message_id = carried.push(ttl_s=10)
    carried.controller.answer(to_shareable(UPDATE))
    carried.now[0] = 10.1
    carried.push()

    assert carried.transport.pull([message_id]) == []


def test_a_task_that_flare_does_not_take_is_a_failure_of_the_carrier(carried: Carried) -> None:
    carried.controller.broken = True

    with pytest.raises(TransportFailed):
        carried.push()


def test_waiting_ends_as_soon_as_an_answer_comes_in(carried: Carried) -> None:
    carried.push()
    timer = threading.Timer(0.05, carried.controller.answer, [to_shareable(UPDATE)])
    timer.start()
    began = time.monotonic()

    carried.transport.wait(30)

    assert time.monotonic() - began < 10
    timer.join()


def test_waiting_does_not_end_twice_for_one_answer(carried: Carried) -> None:
    message_id = carried.push()
    carried.controller.answer(to_shareable(UPDATE))
    carried.transport.wait(30)
    carried.transport.pull([message_id])
    began = time.monotonic()

    carried.transport.wait(0.05)

    assert time.monotonic() - began >= 0.05


@pytest.mark.parametrize("act", ["push", "pull", "wait"])
def test_once_flare_ends_the_job_every_act_says_so(carried: Carried, act: str) -> None:
    carried.aborted[0] = True

    with pytest.raises(RunAborted, match="to continue the run"):
        {
            "push": carried.push,
            "pull": lambda: carried.transport.pull(["flare-1"]),
            "wait": lambda: carried.transport.wait(0.01),
        }[act]()


def test_what_the_gate_refused_of_a_site_is_that_sites_answer(carried: Carried) -> None:
    asked, other = carried.push(), carried.push("clinic-2")

    carried.transport.struck("clinic-1", "sends a main section that is malformed")

    (inbound,) = carried.transport.pull([asked, other])
    assert (inbound.message_id, inbound.node_id) == (asked, 1)
    assert isinstance(inbound.content, EnvelopeError)
    assert inbound.content.reason is Reason.MALFORMED


def test_an_offence_between_two_messages_answers_the_next(carried: Carried) -> None:
    asked = carried.push()
    carried.controller.answer(to_shareable(UPDATE))
    carried.transport.struck("clinic-1", "asks _net_manager:stop")
    carried.transport.struck("clinic-1", "asks _net_manager:stop")
    assert [each.content for each in carried.transport.pull([asked])] == [UPDATE]

    again, then = carried.push(), carried.push()

    (inbound,) = carried.transport.pull([again, then])
    assert (inbound.message_id, type(inbound.content)) == (again, EnvelopeError)


def test_an_answer_after_an_offence_does_not_take_its_place(carried: Carried) -> None:
    asked = carried.push()
    carried.transport.struck("clinic-1", "sends a main section that is malformed")
    carried.controller.answer(to_shareable(UPDATE))

    assert [type(each.content) for each in carried.transport.pull([asked])] == [EnvelopeError]


def test_an_offence_of_a_client_that_is_no_participant_answers_nobody(carried: Carried) -> None:
    asked = carried.push()
    carried.transport.struck("you@example.org", "asks admin:x")

    assert carried.transport.pull([asked]) == []
