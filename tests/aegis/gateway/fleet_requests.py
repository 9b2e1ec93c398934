"""Requests as Flower's node encodes them, and SuperLink's answers to them."""

from __future__ import annotations

from collections.abc import Sequence

from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
)
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    Metadata,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Message as FlowerMessage
from flwr.proto.node_pb2 import Node
from google.protobuf.message import Message

RUN = 7


def encoded(message: Message) -> bytes:
    return message.SerializeToString(deterministic=True)


def activate(public_key: bytes) -> bytes:
    return encoded(ActivateNodeRequest(public_key=public_key, heartbeat_interval=30.0))


def deactivate(node_id: int) -> bytes:
    return encoded(DeactivateNodeRequest(node_id=node_id))


def pull(node_id: int) -> bytes:
    return encoded(PullMessagesRequest(node=Node(node_id=node_id)))


def given(message_id: str, objects: Sequence[str], node_id: int = 101) -> PullMessagesResponse:
    """SuperLink's answer that gives one message."""
    metadata = Metadata(run_id=RUN, message_id=message_id, src_node_id=1, dst_node_id=node_id, message_type="train")
    tree = ObjectTree(object_id=message_id, children=[ObjectTree(object_id=name) for name in objects])
    return PullMessagesResponse(messages_list=[FlowerMessage(metadata=metadata)], message_object_trees=[tree])


def answer(
    node_id: int,
    reply_to: str,
    *,
    source: int | None = None,
    destination: int = 1,
    message_id: str = "reply",
    root: str = "reply",
) -> PushMessagesRequest:
    metadata = Metadata(
        run_id=RUN,
        message_id=message_id,
        src_node_id=node_id if source is None else source,
        dst_node_id=destination,
        reply_to_message_id=reply_to,
        message_type="train",
    )
    return PushMessagesRequest(
        node=Node(node_id=node_id),
        messages_list=[FlowerMessage(metadata=metadata)],
        message_object_trees=[ObjectTree(object_id=root)],
        clientapp_runtime_list=[0.5],
    )


def asked(objects: Sequence[str], session: str = "session-1") -> PushMessagesResponse:
    """SuperLink's answer that asks for the objects of an answer."""
    return PushMessagesResponse(objects_to_push=objects, session_id=session, results={"reply": 0})


def pull_object(node_id: int, object_id: str, run_id: int = RUN) -> bytes:
    return encoded(PullObjectRequest(node=Node(node_id=node_id), run_id=run_id, object_id=object_id))


def confirm(node_id: int, message_id: str) -> bytes:
    request = ConfirmMessageReceivedRequest(node=Node(node_id=node_id), run_id=RUN, message_object_id=message_id)
    return encoded(request)


def push_object(
    node_id: int, object_id: str, content: bytes = b"content", session: str = "session-1", run_id: int = RUN
) -> bytes:
    node = Node(node_id=node_id)
    request = PushObjectRequest(
        node=node, run_id=run_id, object_id=object_id, object_content=content, session_id=session
    )
    return encoded(request)
