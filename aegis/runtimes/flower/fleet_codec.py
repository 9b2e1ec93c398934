"""Decodes Flower's fleet protocol for the gateway. The protocol is internal to Flower 1.41; only this module reads it.

The gateway accepts a request only in the one encoding that Flower's own client produces:

- known fields only;
- each field once;
- fields in the order of their numbers.

Gateway and SuperLink therefore never read one request in two ways.
"""

from __future__ import annotations

from typing import TypeVar

from flwr.common.constant import TIMESTAMP_HEADER
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import (
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    FLEET_HTTP_SIGNATURE_HEADER,
    FLWR_COMPONENT_NAME_METADATA_KEY,
    FLWR_PACKAGE_NAME_METADATA_KEY,
    FLWR_PACKAGE_VERSION_METADATA_KEY,
    VERSION_INCOMPATIBILITY_MESSAGE_METADATA_KEY,
)
from google.protobuf.message import DecodeError, Message

from aegis.errors import RequestRefused
from aegis.gateway import NodeRequest, Pulled, Pushed, UploadHead
from coreason_enclave.errors import Reason

REQUESTS: dict[str, type[Message]] = {
    "activate-node": ActivateNodeRequest,
    "deactivate-node": DeactivateNodeRequest,
    "send-node-heartbeat": SendNodeHeartbeatRequest,
    "pull-messages": PullMessagesRequest,
    "push-messages": PushMessagesRequest,
    "get-run": GetRunRequest,
    "get-fab": GetFabRequest,
    "pull-object": PullObjectRequest,
    "confirm-message-received": ConfirmMessageReceivedRequest,
}
"""Protobuf type of each request except an upload, by the last part of its path."""

SUPERLINK = 1
"""SuperLink's own node id, the destination of every answer."""
_MAX_OBJECTS = 100_000
MAX_ANSWER_OBJECTS = 16
"""Maximum objects per answer. A message of this project has three: the message, its record and the sealed bytes."""
_MAX_HEAD_BYTES = 1 << 12
_MAX_TAIL_BYTES = 1 << 10

_MessageT = TypeVar("_MessageT", bound=Message)


class FlowerFleetCodec:
    """A :class:`aegis.gateway.fleet_protocol.FleetCodec` for Flower 1.41."""

    key_header = FLEET_HTTP_PUBLIC_KEY_HEADER.encode()
    request_headers = frozenset(
        name.encode()
        for name in (
            "accept",
            "content-type",
            TIMESTAMP_HEADER,
            FLEET_HTTP_PUBLIC_KEY_HEADER,
            FLEET_HTTP_SIGNATURE_HEADER,
            FLWR_COMPONENT_NAME_METADATA_KEY,
            FLWR_PACKAGE_NAME_METADATA_KEY,
            FLWR_PACKAGE_VERSION_METADATA_KEY,
        )
    )
    response_headers = frozenset({b"content-type", VERSION_INCOMPATIBILITY_MESSAGE_METADATA_KEY.encode()})

    def request(self, name: str, body: bytes) -> NodeRequest:
        """Decode a node's request."""
        message = _canonical(REQUESTS[name], body)
        match message:
            case ActivateNodeRequest():
                return NodeRequest(None, public_key=message.public_key)
            case DeactivateNodeRequest():
                return NodeRequest(message.node_id)
            case PushMessagesRequest():
                return _answer(message)
            case PullObjectRequest():
                return NodeRequest(message.node.node_id, run_id=message.run_id, object_id=message.object_id)
            case ConfirmMessageReceivedRequest():
                return NodeRequest(message.node.node_id, run_id=message.run_id, object_id=message.message_object_id)
            case PullMessagesRequest() | SendNodeHeartbeatRequest() | GetRunRequest() | GetFabRequest():
                return NodeRequest(message.node.node_id)
        raise RequestRefused(Reason.UNSUPPORTED, f"the gateway has no rule for {name}")

    def upload(self, length: int) -> FlowerUpload:
        """Return a reader for a PushObjectRequest of ``length`` bytes."""
        return FlowerUpload(length)

    def activated(self, body: bytes) -> int:
        """Return the node id from an activation response."""
        node_id = int(_decoded(ActivateNodeResponse, body).node_id)
        if node_id == 0:
            raise ValueError("an activation without a node id")
        return node_id

    def pulled(self, body: bytes) -> Pulled | None:
        """Return the message in a pull response, or None. SuperLink gives one message at a time."""
        response = _decoded(PullMessagesResponse, body)
        if not response.messages_list:
            return None
        if len(response.messages_list) != 1 or len(response.message_object_trees) != 1:
            raise ValueError("a fetch that returns more than one message")
        metadata = response.messages_list[0].metadata
        objects = frozenset({metadata.message_id, *_object_ids(response.message_object_trees[0])})
        return Pulled(metadata.run_id, metadata.message_id, objects)

    def pushed(self, body: bytes) -> Pushed:
        """Return the session and the objects that SuperLink requests after an answer."""
        response = _decoded(PushMessagesResponse, body)
        return Pushed(response.session_id, frozenset(response.objects_to_push))


class FlowerUpload:
    """A streaming reader of a PushObjectRequest: node, run and object, then the content, then the session.

    The reader never inspects the content. The fields before and after the content must use the encoding of Flower's own
    client, so no second ``node`` or ``object_id`` after the content can replace the checked value.

    Attributes:
        head: set once the bytes before the content have arrived.
    """

    def __init__(self, length: int) -> None:
        self.head: UploadHead | None = None
        self._length = length
        self._read = 0
        self._kept = b""
        self._content_end = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take bytes in; return the bytes that may be forwarded (the head and the content)."""
        self._read += len(chunk)
        if self._read > self._length:
            raise _malformed("more bytes than declared")
        data, self._kept = self._kept + chunk, b""
        content_left = 0 if self._opened(data) is None else max(0, self._content_end - (self._read - len(data)))
        self._kept = data[content_left:]
        return data[:content_left]

    def finish(self) -> tuple[str, bytes]:
        """Return the session's id, and the withheld bytes that name the session."""
        if self.head is None or self._read != self._length:
            raise _malformed("an upload that is cut off")
        tail = _canonical(PushObjectRequest, self._kept)
        if not tail.session_id or tail.HasField("node") or tail.run_id or tail.object_id or tail.object_content:
            raise _malformed("after its content, an upload may name only its session")
        return tail.session_id, self._kept

    def _opened(self, data: bytes) -> UploadHead | None:
        if self.head is None and (start := _content_start(data)) is not None:
            fields_end, content_start, content_size = start
            self._content_end = content_start + content_size
            self.head = self._head_of(data[:fields_end])
        if self.head is None and (len(data) > _MAX_HEAD_BYTES or self._read == self._length):
            raise _malformed("an upload without content")
        return self.head

    def _head_of(self, fields: bytes) -> UploadHead:
        message = _canonical(PushObjectRequest, fields)
        if not message.HasField("node") or not message.object_id or message.session_id:
            raise _malformed("an upload must name node, run and object before its content")
        if not 0 < self._length - self._content_end <= _MAX_TAIL_BYTES:  # the reader withholds the last bytes
            raise _malformed("an upload's content must have the length in its request, and its session must follow")
        return UploadHead(message.node.node_id, message.run_id, message.object_id)


def _answer(message: PushMessagesRequest) -> NodeRequest:
    if len(message.messages_list) != 1 or len(message.message_object_trees) != 1:
        raise _malformed("a node must push one reply at a time")
    metadata, tree = message.messages_list[0].metadata, message.message_object_trees[0]
    if metadata.src_node_id != message.node.node_id:
        raise RequestRefused(Reason.NOT_ADDRESSED_TO_ME, "a reply in the name of another node")
    if metadata.dst_node_id != SUPERLINK or not metadata.reply_to_message_id:
        raise RequestRefused(Reason.NOT_ADDRESSED_TO_ME, "a node may reply to SuperLink, but not start messages")
    if tree.object_id != metadata.message_id:
        raise _malformed("a reply whose objects belong to another message")
    if _count_objects(tree) > MAX_ANSWER_OBJECTS:
        raise RequestRefused(Reason.OVERSIZED, f"a reply of more than {MAX_ANSWER_OBJECTS} objects")
    return NodeRequest(message.node.node_id, run_id=metadata.run_id, reply_to=metadata.reply_to_message_id)


def _canonical(kind: type[_MessageT], body: bytes) -> _MessageT:
    try:
        message: _MessageT = kind.FromString(body)
    except DecodeError as error:
        raise _malformed(f"not a {kind.__name__}") from error
    message.DiscardUnknownFields()
    if message.SerializeToString(deterministic=True) != body:
        raise _malformed(f"a {kind.__name__} with unknown fields, or not in its canonical encoding")
    return message


def _decoded(kind: type[_MessageT], body: bytes) -> _MessageT:
    try:
        message: _MessageT = kind.FromString(body)
    except DecodeError as error:
        raise ValueError(f"not a {kind.__name__}") from error
    return message


def _object_ids(tree: ObjectTree) -> set[str]:
    ids: set[str] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        ids.add(node.object_id)
        waiting.extend(node.children)
        if len(ids) > _MAX_OBJECTS:
            raise ValueError(f"a message of more than {_MAX_OBJECTS} objects")
    return ids


def _count_objects(tree: ObjectTree) -> int:
    """Return the number of objects in a tree, counting at most one object past the limit."""
    count, waiting = 0, [tree]
    while waiting and count <= MAX_ANSWER_OBJECTS:
        node = waiting.pop()
        count += 1
        waiting.extend(node.children)
    return count


def _content_start(data: bytes) -> tuple[int, int, int] | None:
    """Return the end of the fields before ``object_content``, the start of its bytes and its size.

    Returns None while bytes are missing.
    """
    position = 0
    while True:
        tag = _varint(data, position)
        value = None if tag is None else _varint(data, tag[1])
        if tag is None or value is None:
            return None
        number, wire_type = tag[0] >> 3, tag[0] & 7
        if number == PushObjectRequest.OBJECT_CONTENT_FIELD_NUMBER and wire_type == 2:
            return position, value[1], value[0]
        if wire_type not in (0, 2):
            raise _malformed("an upload with an unknown field")
        position = value[1] + (value[0] if wire_type == 2 else 0)


def _varint(data: bytes, position: int) -> tuple[int, int] | None:
    """Return a base-128 varint (Protocol Buffers encoding) and its end position; None while bytes are missing."""
    value = shift = 0
    for index in range(position, min(position + 10, len(data))):
        value |= (data[index] & 0x7F) << shift
        if data[index] < 0x80:
            return value, index + 1
        shift += 7
    if len(data) - position >= 10:
        raise _malformed("an upload with a number that does not end")
    return None


def _malformed(message: str) -> RequestRefused:
    return RequestRefused(Reason.MALFORMED, message)
