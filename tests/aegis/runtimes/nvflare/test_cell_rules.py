"""What a site's or an administrator's FLARE client may send to FLARE's server, message by message."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nvflare.apis.fl_constant import ReservedTopic, ServerCommandNames
from nvflare.fuel.f3.cellnet.defs import CellChannel, CellChannelTopic, MessageHeaderKey, MessagePropKey, MessageType
from nvflare.fuel.f3.endpoint import Endpoint
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.streaming.stream_const import (
    STREAM_ACK_TOPIC,
    STREAM_CHANNEL,
    STREAM_DATA_TOPIC,
    STREAM_ERROR_TOPIC,
    StreamHeaderKey,
)
from nvflare.private.stream_runner import TOPIC_STREAM_REQUEST

from aegis.runtimes.nvflare.cell_rules import disarm, refused

JOB = "3f0c"
SERVERS_JOB, SITES_JOB = f"server.{JOB}", f"clinic-1.{JOB}"
ADMIN = "_admin_4b2d9c58-31f8-4d6a-9b7e-2a35f0a1c6de"
ADMINS_ADDRESS = "you@example.org"


def message(
    channel: Any = CellChannel.SERVER_MAIN,
    topic: Any = CellChannelTopic.HEART_BEAT,
    *,
    to: Any = "server",
    origin: Any = "clinic-1",
    connected: str = "clinic-1",
    common_name: str | None = "clinic-1",
    kind: Any = MessageType.REQ,
    **headers: Any,
) -> Message:
    """As FLARE's cell has it when its filters are asked."""
    made = Message({MessageHeaderKey.CHANNEL: channel, MessageHeaderKey.TOPIC: topic, MessageHeaderKey.ORIGIN: origin})
    made.add_headers({MessageHeaderKey.DESTINATION: to, MessageHeaderKey.MSG_TYPE: kind, **headers})
    made.set_prop(MessagePropKey.ENDPOINT, Endpoint(connected))
    if common_name is not None:
        made.set_prop(MessagePropKey.COMMON_NAME, common_name)
    return made


def streamed(channel: Any, topic: Any, *, to: Any = SERVERS_JOB, **changes: Any) -> Message:
    inner = {StreamHeaderKey.CHANNEL: channel, StreamHeaderKey.TOPIC: topic}
    made = {"origin": SITES_JOB, "connected": SITES_JOB, **changes}
    return message(STREAM_CHANNEL, STREAM_DATA_TOPIC, to=to, **made, **inner)


def of_admin(channel: Any, topic: Any, *, is_streamed: bool = True, **changes: Any) -> Message:
    admin = {"origin": ADMIN, "connected": ADMIN, "common_name": ADMINS_ADDRESS, "to": "server", **changes}
    return streamed(channel, topic, **admin) if is_streamed else message(channel, topic, **admin)


HONEST = {
    "a challenge": message(topic=CellChannelTopic.Challenge),
    "a registration": message(topic=CellChannelTopic.Register),
    "a heartbeat": message(),
    "a client that quits": message(topic=CellChannelTopic.Quit),
    "an outcome": message(topic=CellChannelTopic.REPORT_JOB_FAILURE),
    "a goodbye": message(CellChannel.CELLNET, CellChannelTopic.Bye),
    "an answer to FLARE's administration": message(CellChannel.CLIENT_MAIN, "x", kind=MessageType.REPLY),
    "a request for a task": streamed(CellChannel.SERVER_COMMAND, ServerCommandNames.GET_TASK),
    "a result": streamed(CellChannel.SERVER_COMMAND, ServerCommandNames.SUBMIT_UPDATE),
    "a job process that is ready": streamed(CellChannel.AUX_COMMUNICATION, ReservedTopic.SYNC_RUNNER),
    "a job's heartbeat": streamed(CellChannel.AUX_COMMUNICATION, ReservedTopic.JOB_HEART_BEAT),
    "a question about a task": streamed(CellChannel.AUX_COMMUNICATION, ReservedTopic.TASK_CHECK),
    "an acknowledgement": message(STREAM_CHANNEL, STREAM_ACK_TOPIC, to=SERVERS_JOB),
    "what a site cannot pass on to its own job": message(
        to=SERVERS_JOB,
        kind=MessageType.RETURN,
        **{MessageHeaderKey.ORIGINAL_HEADERS: {MessageHeaderKey.DESTINATION: SITES_JOB}},
    ),
    "a message among a site's own cells": message("any", "thing", to=SITES_JOB),
    "a message passed on by the server": streamed(
        CellChannel.SERVER_COMMAND, "get_task", connected="server", common_name="localhost"
    ),
    "the server's own job": message(
        CellChannel.SERVER_PARENT_LISTENER,
        "update_run_status",
        origin=SERVERS_JOB,
        connected=SERVERS_JOB,
        common_name="localhost",
    ),
    "an administrator's command": of_admin(CellChannel.HCI, "command"),
    "an administrator's upload": of_admin(CellChannel.AUX_COMMUNICATION, TOPIC_STREAM_REQUEST),
    "an administrator's registration": of_admin(CellChannel.SERVER_MAIN, CellChannelTopic.Register, is_streamed=False),
}


@pytest.mark.parametrize("sent", HONEST.values(), ids=HONEST)
def test_flares_own_clients_are_let_in(sent: Message) -> None:
    assert refused(sent) is None


HOSTILE = {
    "an event": streamed(CellChannel.AUX_COMMUNICATION, "fed.event"),
    "an event to the parent process": streamed(CellChannel.AUX_COMMUNICATION, "fed.event", to="server"),
    "the end of the run": streamed(CellChannel.AUX_COMMUNICATION, ReservedTopic.END_RUN),
    "an abort": streamed(CellChannel.SERVER_COMMAND, "abort"),
    "a new state of the server": streamed(CellChannel.SERVER_COMMAND, ServerCommandNames.SERVER_STATE),
    "a dead job of another's": streamed(CellChannel.SERVER_COMMAND, ServerCommandNames.HANDLE_DEAD_JOB),
    "a result that is not streamed": message(CellChannel.SERVER_COMMAND, "submit_update", to=SERVERS_JOB),
    "an answer to the job": message(CellChannel.CLIENT_MAIN, "x", to=SERVERS_JOB, kind=MessageType.REPLY, origin="a"),
    "a streamed answer": streamed(CellChannel.RETURN_ONLY, "aux_communication:x"),
    "a status of the job": message(CellChannel.SERVER_PARENT_LISTENER, ServerCommandNames.UPDATE_RUN_STATUS),
    "a question for everybody's tokens": message(CellChannel.SERVER_PARENT_LISTENER, ServerCommandNames.GET_CLIENTS),
    "a stop of the cells": message("_net_manager", "stop"),
    "a stop of the job's cell": message("_net_manager", "stop_cell", to=SERVERS_JOB),
    "messages in a message": message(CellChannel.CELLNET, "bulk"),
    "messages in a message for the job": message(CellChannel.CELLNET, "bulk", to=SERVERS_JOB),
    "an order for another site": message(CellChannel.CLIENT_MAIN, "train.shutdown", to="clinic-2"),
    "an order for another site's job": message(CellChannel.CLIENT_COMMAND, "abort", to=f"clinic-2.{JOB}"),
    "a site whose name begins alike": message(CellChannel.CLIENT_MAIN, "train.shutdown", to="clinic-10"),
    "another site's name": message(origin="clinic-2"),
    "the server's name": message(origin="server"),
    "no origin": message(origin=None),
    "a number for an origin": message(origin=7),
    "a cell below the server's jobs": streamed(CellChannel.SERVER_COMMAND, "get_task", to=f"{SERVERS_JOB}.0"),
    "no destination": message(to=None),
    "no kind": message(kind=None),
    "another kind": message(kind="event"),
    "a return of what another was sent": message(
        kind=MessageType.RETURN, **{MessageHeaderKey.ORIGINAL_HEADERS: {MessageHeaderKey.DESTINATION: "clinic-2"}}
    ),
    "a return of nothing": message(kind=MessageType.RETURN),
    "an encrypted heartbeat": message(**{MessageHeaderKey.ENCRYPTED: True}),
    "an administrator's command by a site": streamed(CellChannel.HCI, "command", to="server"),
    "an upload by a site": streamed(CellChannel.AUX_COMMUNICATION, TOPIC_STREAM_REQUEST, to="server"),
    "an administrator's cell with a site's certificate": of_admin(CellChannel.HCI, "command", common_name="clinic-1"),
    "a site's cell with an administrator's certificate": message(common_name=ADMINS_ADDRESS),
    "an administrator's order for a site": of_admin(CellChannel.CLIENT_MAIN, "x", is_streamed=False, to="clinic-2"),
    "an administrator's order for a job": of_admin(CellChannel.SERVER_COMMAND, "abort", to=SERVERS_JOB),
    "an administrator's event": of_admin(CellChannel.AUX_COMMUNICATION, "fed.event"),
    "a connection without a name": message(connected=""),
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
def test_everything_else_is_refused_in_the_name_of_who_is_connected(sent: Message) -> None:
    found = refused(sent)

    assert found is not None
    expected = {"": None, ADMIN: sent.get_prop(MessagePropKey.COMMON_NAME)}
    connected = sent.get_prop(MessagePropKey.ENDPOINT).name
    assert found.sender == expected.get(connected, "clinic-1")


def _constants(*kinds: type) -> list[str]:
    return sorted({value for kind in kinds for name, value in vars(kind).items() if isinstance(value, str)} - {""})


def test_of_all_topics_that_flare_names_a_site_reaches_the_listed_ones_alone() -> None:
    """Counted over FLARE's own constants, so that a release with more of them opens nothing by itself."""
    channels = [*_constants(CellChannel), "_net_manager", "credential_manager", "download_service__"]
    topics = [*_constants(CellChannelTopic, ServerCommandNames, ReservedTopic), "bulk", "fed.event", "abort"]
    plain = [pair for pair in product(channels, topics) if refused(message(*pair)) is None]
    job = [pair for pair in product(channels, topics) if refused(streamed(*pair)) is None]
    not_streamed = [pair for pair in product(channels, topics) if refused(message(*pair, to=SERVERS_JOB)) is None]

    assert (len(plain), len(job), len(not_streamed)) == (6, 5, 0)


odd = st.one_of(
    st.none(), st.integers(), st.text("aé\x00.@", max_size=4), st.binary(max_size=4), st.lists(st.none(), max_size=2)
)


@given(st.dictionaries(st.sampled_from([*_constants(MessageHeaderKey), *_constants(StreamHeaderKey)]), odd))
def test_no_header_of_another_type_gets_past_or_raises(headers: dict[str, Any]) -> None:
    sent = Message(dict(headers), b"")
    sent.set_prop(MessagePropKey.ENDPOINT, Endpoint("clinic-1"))

    assert refused(sent) is not None
    disarm(sent)


def test_what_leads_the_server_elsewhere_is_taken_out() -> None:
    sent = message(STREAM_CHANNEL, STREAM_ERROR_TOPIC, to=SERVERS_JOB)
    armed = {MessageHeaderKey.CONN_URL, MessageHeaderKey.PASS_THROUGH, StreamHeaderKey.ERROR_TYPE}
    sent.add_headers({**dict.fromkeys(armed, "BlobSizeError"), StreamHeaderKey.ERROR_MSG: "too large"})

    disarm(sent)

    assert not armed & sent.headers.keys()
    assert sent.get_header(StreamHeaderKey.ERROR_MSG) == "too large"
