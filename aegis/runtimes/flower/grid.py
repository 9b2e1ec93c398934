"""The grid that a coordinator drives: Flower's HTTP grid with short timeouts, no blocking pulls and less trust.

Differences from Flower's ``HttpGrid``:

- Flower's grid retries for ever. Here a call gives up after a few seconds with :class:`TransportUnavailable`.
- Flower's grid raises SIGINT in its own process after a refused token. Here a call raises :class:`RunEnded`.
- Flower's grid waits up to hours for the objects of one reply. Here an incomplete reply waits for the next call, so
  one site cannot block the others.
- Flower's grid takes a reply's sender from the sender's own text. Here SuperLink's authenticated metadata name the
  sender.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from flwr.app import Error, Message
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullTaskInputRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import SYSTEM_MESSAGE_TYPE
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, inflate_object_from_contents, pull_objects
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

from aegis.errors import RunEnded, TransportUnavailable
from aegis.federated_coordinator import CUT_OFF
from aegis.runtimes.flower.superlink import SuperLinkEndpoint
from coreason_enclave.errors import Reason

_Answer = TypeVar("_Answer")

_PATIENCE_S = 8.0
"""Seconds for which a call retries. A killed SuperLink serves again within about three seconds."""
_OBJECT_PATIENCE_S = 60.0
_MAX_OBJECTS = 16
"""Maximum objects per reply. A message of this project has three: the message, its record and the sealed bytes."""


@dataclass(frozen=True)
class FlowerRun:
    """A run whose server task this process holds. The token is a secret and stays in memory."""

    run_id: int
    task_id: int
    token: str

    def __repr__(self) -> str:
        return f"FlowerRun(run_id={self.run_id})"


@dataclass
class _Arriving:
    """A reply whose objects are still being fetched. SuperLink hands a reply over once and never repeats it."""

    message: ProtoMessage
    tree: ObjectTree
    since: float


class RunGrid(HttpGrid):
    """Pushes and pulls the messages of one run.

    Raises:
        TransportUnavailable: SuperLink did not answer; the requested action may or may not have happened.
        RunEnded: SuperLink no longer accepts the run's token.
    """

    def __init__(self, endpoint: SuperLinkEndpoint, run: FlowerRun) -> None:
        super().__init__(
            runtime_api_address=endpoint.address,
            root_certificates=endpoint.ca_certificate.read_bytes(),
            token=run.token,
        )
        self._retry_invoker = _FewTries()  # type: ignore[assignment]
        self._arriving: dict[str, _Arriving] = {}
        self.set_run(Run.create_empty(run.run_id))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages.

        Returns:
            one id per message; empty if SuperLink did not take the message, because the node never joined.
        """
        with _transport_errors():
            return list(super().push_messages(list(messages)))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the completely received replies, each once. Never waits for a reply."""
        with _transport_errors():
            handed_over = {each.message.metadata.reply_to_message_id for each in self._arriving.values()}
            request = PullAppMessagesRequest(message_ids=sorted(set(message_ids) - handed_over))
            if request.message_ids:
                answer = self._runtime_client.PullMessages(request)
                for message, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
                    self._arriving[tree.object_id] = _Arriving(message, tree, time.monotonic())
            return [reply for object_id in list(self._arriving) if (reply := self._fetch(object_id)) is not None]

    def forget(self, message_ids: Collection[str]) -> None:
        """Stop waiting for the replies to these messages."""
        for object_id, arriving in list(self._arriving.items()):
            if arriving.message.metadata.reply_to_message_id in message_ids:
                del self._arriving[object_id]

    def _fetch(self, object_id: str) -> Message | None:
        """Return one reply, or None while objects are missing.

        Returns an error in the reply's place if the reply cannot be read or stays incomplete for 60 s.
        """
        arriving = self._arriving[object_id]
        try:
            reply = self._inflate(object_id, arriving)
        except ObjectPullError:
            if time.monotonic() - arriving.since < _OBJECT_PATIENCE_S:
                return None
            reply = unavailable(self.run.run_id, arriving.message.metadata.reply_to_message_id)
        except httpx.HTTPError:
            raise
        except Exception:  # noqa: BLE001 - a site may send anything: an unreadable reply counts as missing
            reply = unavailable(self.run.run_id, arriving.message.metadata.reply_to_message_id)
        del self._arriving[object_id]
        return reply

    def _inflate(self, object_id: str, arriving: _Arriving) -> Message:
        run_id, object_ids = self.run.run_id, [tree.object_id for tree in iterate_object_tree(arriving.tree)]
        if len(object_ids) > _MAX_OBJECTS:
            raise ValueError("more objects than a message of this run has")
        pull = make_pull_object_fn_protobuf(self._runtime_client.PullObject, self.node, run_id)
        contents = pull_objects(object_ids, pull, max_tries_per_object=2, initial_backoff=0.03, backoff_cap=0.2)
        written = inflate_object_from_contents(object_id, contents)
        if not isinstance(written, Message):
            raise ValueError("the object is not a message")
        received = ConfirmMessageReceivedRequest(node=self.node, run_id=run_id, message_object_id=object_id)
        self._runtime_client.ConfirmMessageReceived(received)
        metadata = message_from_proto(arriving.message).metadata  # authenticated, unlike the inner metadata
        if written.has_error():
            return make_message(metadata, error=written.error)
        return make_message(metadata, written.content)

    def begin(self) -> None:
        """Report to SuperLink that the run is now driven, and set Flower's process-wide task identity."""
        with _transport_errors():
            task_input = self._runtime_client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = task_input.task_id, task_input.run.run_id
        TaskIdentity.node_id = task_input.context.node_id

    def heartbeat(self) -> None:
        """Keep the run's token alive. SuperLink ends a run after a minute without a heartbeat."""
        with _transport_errors():
            if not self._runtime_client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success:
                raise RunEnded("SuperLink has ended the run")


def cut_off(run_id: int, message_id: str, node_id: int) -> Message:
    """Return an error in place of a reply that the gateway blocked as larger than the model allows."""
    error = Error(code=CUT_OFF, reason=Reason.OVERSIZED.value)
    return make_message(_metadata(run_id, message_id, node_id), error=error)


def unavailable(run_id: int, message_id: str) -> Message:
    """Return an error in place of a reply that will never arrive. The caller sends the message again."""
    error = Error(code=ErrorCode.MESSAGE_UNAVAILABLE, reason="the reply did not arrive")
    return make_message(_metadata(run_id, message_id, SUPERLINK_NODE_ID), error=error)


def _metadata(run_id: int, reply_to: str, source: int) -> Metadata:
    return Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=source,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=reply_to,
        group_id="",
        message_type=SYSTEM_MESSAGE_TYPE,
        created_at=time.time(),
        ttl=0,
    )


class _FewTries:
    """Replaces Flower's retry invoker: retries transport failures for a few seconds, then raises."""

    max_tries: int | None = None

    def invoke(self, call: Callable[..., _Answer], *args: Any, **options: Any) -> _Answer:
        """Call, and retry while the connection fails."""
        give_up, delay = time.monotonic() + _PATIENCE_S, 0.05
        while True:
            try:
                return call(*args, **options)
            except httpx.TransportError:
                if time.monotonic() + delay > give_up:
                    raise
            time.sleep(delay)
            delay = min(2 * delay, 0.5)


@contextmanager
def _transport_errors() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise RunEnded(f"SuperLink refused the run's token: {status}") from error
        raise TransportUnavailable(f"SuperLink refused the request: HTTP {status}") from error
    except (httpx.HTTPError, ValueError) as error:
        raise TransportUnavailable(f"SuperLink cannot be reached: {type(error).__name__}") from error
