"""Flower's fleet protocol is read strictly, and a release of Flower that changes it turns these tests red."""

from __future__ import annotations

from importlib.metadata import version
from itertools import pairwise

import pytest
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto import fab_pb2, fleet_pb2, heartbeat_pb2, message_pb2, node_pb2, run_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given as for_all
from hypothesis import strategies as st

from aegis.errors import RequestRefused
from aegis.gateway.fleet_protocol import UploadHead
from aegis.runtimes.flower.fleet_codec import REQUESTS, SUPERLINK, FlowerFleetCodec, FlowerUpload
from coreason_enclave.errors import Reason
from tests.aegis.gateway.fleet_requests import (
    RUN,
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

U64, TEXT, BYTES, REAL = "uint64", "string", "bytes", "double"
KINDS = {
    FieldDescriptor.TYPE_UINT64: U64,
    FieldDescriptor.TYPE_STRING: TEXT,
    FieldDescriptor.TYPE_BYTES: BYTES,
    FieldDescriptor.TYPE_DOUBLE: REAL,
}

# What the gateway's checks were written against: number, name, type, and * where repeated.
WRITTEN_AGAINST: dict[type[Message], str] = {
    node_pb2.Node: "1 node_id uint64",
    fleet_pb2.ActivateNodeRequest: "1 public_key bytes, 2 heartbeat_interval double",
    fleet_pb2.ActivateNodeResponse: "1 node_id uint64",
    fleet_pb2.DeactivateNodeRequest: "1 node_id uint64",
    heartbeat_pb2.SendNodeHeartbeatRequest: "1 node Node, 2 heartbeat_interval double",
    fleet_pb2.PullMessagesRequest: "1 node Node, 2 message_ids string*",
    fleet_pb2.PullMessagesResponse: (
        "1 reconnect Reconnect, 2 messages_list Message*, 3 message_object_trees ObjectTree*"
    ),
    fleet_pb2.PushMessagesRequest: (
        "1 node Node, 2 messages_list Message*, 3 message_object_trees ObjectTree*, 4 clientapp_runtime_list double*"
    ),
    fleet_pb2.PushMessagesResponse: (
        "1 reconnect Reconnect, 2 results ResultsEntry*, 3 objects_to_push string*, 4 session_id string"
    ),
    run_pb2.GetRunRequest: "1 node Node, 2 run_id uint64",
    fab_pb2.GetFabRequest: "1 node Node, 2 hash_str string, 3 run_id uint64",
    message_pb2.PushObjectRequest: (
        "1 node Node, 2 run_id uint64, 3 object_id string, 4 object_content bytes, 5 session_id string"
    ),
    message_pb2.PullObjectRequest: "1 node Node, 2 run_id uint64, 3 object_id string",
    message_pb2.ConfirmMessageReceivedRequest: "1 node Node, 2 run_id uint64, 3 message_object_id string",
    message_pb2.ObjectTree: "1 object_id string, 2 children ObjectTree*",
    message_pb2.Message: "1 metadata Metadata, 2 content RecordDict, 3 error Error",
    message_pb2.Metadata: (
        "1 run_id uint64, 2 message_id string, 3 src_node_id uint64, 4 dst_node_id uint64, "
        "5 reply_to_message_id string, 6 group_id string, 7 ttl double, 8 message_type string, 9 created_at double, "
        "10 src_task_id uint64, 11 dst_task_id uint64"
    ),
}


def fields(kind: type[Message]) -> str:
    described = []
    for field in sorted(kind.DESCRIPTOR.fields, key=lambda field: field.number):
        name = field.message_type.name if field.message_type else KINDS[field.type]
        described.append(f"{field.number} {field.name} {name}{'*' if field.is_repeated else ''}")
    return ", ".join(described)


@pytest.mark.parametrize("kind", WRITTEN_AGAINST, ids=lambda kind: kind.__name__)
def test_flower_has_the_fields_that_the_gateway_was_written_against(kind: type[Message]) -> None:
    assert fields(kind) == WRITTEN_AGAINST[kind]


def test_every_request_that_passes_is_among_them() -> None:
    assert set(REQUESTS.values()) <= set(WRITTEN_AGAINST)


def test_flower_is_the_release_that_was_read() -> None:
    assert version("flwr") == "1.41.0"
    assert SUPERLINK_NODE_ID == SUPERLINK


FLEET = FlowerFleetCodec()
SMALL = {
    "activate-node": activate(b"key"),
    "deactivate-node": deactivate(3),
    "send-node-heartbeat": encoded(
        heartbeat_pb2.SendNodeHeartbeatRequest(node=node_pb2.Node(node_id=3), heartbeat_interval=30.0)
    ),
    "pull-messages": pull(3),
    "push-messages": encoded(answer(3, "order")),
    "get-run": encoded(run_pb2.GetRunRequest(node=node_pb2.Node(node_id=3), run_id=RUN)),
    "get-fab": encoded(fab_pb2.GetFabRequest(node=node_pb2.Node(node_id=3), run_id=RUN, hash_str="hash")),
    "pull-object": pull_object(3, "object"),
    "confirm-message-received": confirm(3, "order"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_says_in_whose_name_it_comes(name: str) -> None:
    request = FLEET.request(name, SMALL[name])

    assert (request.node_id, request.public_key) == ((None, b"key") if name == "activate-node" else (3, None))


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(
    ("what", "added"),
    [
        ("an unknown field", b"\xfa\x3e\x01x"),
        ("a second node", b"\x0a\x02\x08\x04"),
        ("a cut-off field", b"\x0a\x7f"),
        ("an end of a group", b"\x0c"),
    ],
)
def test_a_request_with_more_than_its_fields_is_refused(name: str, what: str, added: bytes) -> None:
    with pytest.raises(RequestRefused) as refusal:
        FLEET.request(name, SMALL[name] + added)

    assert refusal.value.reason is Reason.MALFORMED, what


def test_an_unknown_field_deep_inside_a_request_is_refused() -> None:
    metadata = message_pb2.Metadata.FromString(
        answer(3, "order").messages_list[0].metadata.SerializeToString() + b"\xfa\x3e\x01x"
    )
    request = answer(3, "order")
    request.messages_list[0].metadata.CopyFrom(metadata)

    with pytest.raises(RequestRefused):
        FLEET.request("push-messages", request.SerializeToString(deterministic=True))


@for_all(name=st.sampled_from(sorted(REQUESTS)), body=st.binary(max_size=60))
def test_whatever_bytes_come_they_are_read_or_refused(name: str, body: bytes) -> None:
    try:
        FLEET.request(name, body)
    except RequestRefused:
        return
    assert REQUESTS[name].FromString(body).SerializeToString(deterministic=True) == body


def test_what_superlink_gives_is_read() -> None:
    given_to = FLEET.pulled(encoded(given("order", ["one", "two"])))

    assert given_to is not None
    assert (given_to.run_id, given_to.message_id) == (RUN, "order")
    assert given_to.object_ids == {"order", "one", "two"}
    assert FLEET.pulled(b"") is None
    assert FLEET.pushed(encoded(asked(["update"], "session"))).object_ids == {"update"}
    with pytest.raises(ValueError, match="without a node id"):
        FLEET.activated(b"")


def cut(body: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(body)) for place in at), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


contents = st.binary(min_size=1, max_size=300)
cuts = st.lists(st.integers(0, 400), max_size=8)


@for_all(content=contents, at=cuts)
def test_an_upload_passes_unchanged_however_it_is_cut_but_its_last_bytes_are_kept_back(
    content: bytes, at: list[int]
) -> None:
    body = push_object(3, "object", content)
    reader = FlowerUpload(len(body))

    passed = b"".join(reader.feed(chunk) for chunk in cut(body, at))
    session, kept = reader.finish()

    assert reader.head == UploadHead(3, RUN, "object")
    assert (passed + kept, session) == (body, "session-1")
    assert kept == encoded(message_pb2.PushObjectRequest(session_id="session-1"))


OTHER_OBJECT = encoded(message_pb2.PushObjectRequest(object_id="another"))
OTHER_NODE = encoded(message_pb2.PushObjectRequest(node=node_pb2.Node(node_id=4)))


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("a second object behind the content", push_object(3, "object") + OTHER_OBJECT),
        ("a second node behind the content", push_object(3, "object", session="") + OTHER_NODE),
        ("a second content", push_object(3, "object") + encoded(message_pb2.PushObjectRequest(object_content=b"x"))),
        ("a second session", push_object(3, "object") + encoded(message_pb2.PushObjectRequest(session_id="other"))),
        ("two objects before it", OTHER_OBJECT + push_object(3, "object")),
        ("an unknown field before it", b"\xfa\x3e\x01x" + push_object(3, "object")),
        ("an unknown field behind it", push_object(3, "object") + b"\xfa\x3e\x01x"),
        ("no node", encoded(message_pb2.PushObjectRequest(object_id="o", object_content=b"x", session_id="s"))),
        ("no session", push_object(3, "object", session="")),
        ("no content", push_object(3, "object", content=b"")),
        ("nothing", b""),
        ("a number without end", b"\xff" * 20),
        ("a content longer than the request", push_object(3, "object", b"x" * 100)[:60]),
        ("a head without end", encoded(message_pb2.PushObjectRequest(object_id="o" * 5000)) + b"\x22\x01x\x2a\x01s"),
    ],
)
def test_an_upload_that_could_be_read_in_two_ways_is_refused(what: str, body: bytes) -> None:
    def read() -> None:
        reader = FlowerUpload(len(body))
        for start in range(0, len(body), 16):
            reader.feed(body[start : start + 16])
        reader.finish()

    with pytest.raises(RequestRefused) as refusal:
        read()
    assert refusal.value.reason is Reason.MALFORMED, what


@for_all(place=st.integers(0, 60), value=st.integers(0, 255), at=cuts)
def test_no_changed_byte_makes_an_upload_mean_something_else(place: int, value: int, at: list[int]) -> None:
    body = bytearray(push_object(3, "object", b"some content"))
    body[place % len(body)] = value
    changed = bytes(body)
    reader = FlowerUpload(len(changed))
    try:
        for chunk in cut(changed, at):
            reader.feed(chunk)
        session, _ = reader.finish()
    except RequestRefused:
        return
    understood = message_pb2.PushObjectRequest.FromString(changed)  # as SuperLink reads it

    assert reader.head == UploadHead(understood.node.node_id, understood.run_id, understood.object_id)
    assert session == understood.session_id
