"""Wraps Flower's internal interface between a SuperNode and its task executor.

In process isolation a SuperNode waits for a client with the shared secret to

1. acquire a task,
2. fetch its message,
3. answer,
4. send heartbeats meanwhile: a task's token expires after a minute of silence.

Stock Flower spawns a process for each task, which installs and runs the app that SuperLink sent. Here the agent answers
the task itself, and never unpacks the app.

``tests/coreason_enclave/agent/test_flower_internals.py`` fails if an upgrade moves an interface in use here.
"""

from __future__ import annotations

from types import TracebackType

import httpx
from flwr.app import Context, Message
from flwr.common.constant import SubStatus
from flwr.common.serde import context_from_proto
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.runtime.run_clientapp import push_message, push_task_output

_ACQUIRE = "/flwr.proto.Runtime/AcquireTask"
_OBJECTS_S = 5.0
"""Seconds to fetch a message's objects. A completely received message lies whole at the SuperNode. A message abandoned
in transit never completes and keeps its task, so a time limit protects the next task."""


class TaskSource:
    """A SuperNode's tasks. Every method may raise ``httpx.HTTPError``.

    Args:
        address: ``host:port`` of the SuperNode's runtime interface, on loopback and without TLS: the content is sealed,
            and only a client with ``secret`` gets a token.
    """

    def __init__(self, address: str, secret: bytes) -> None:
        self._address = address
        auth = SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={_ACQUIRE})
        self._client = _client(address, "SuperExec", auth)

    def acquire(self) -> FlowerTask | None:
        """Claim the oldest pending task; return None if no task waits."""
        claimed = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
        if not claimed.HasField("task") or not claimed.token:
            return None
        return FlowerTask(self._address, claimed.token)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


class FlowerTask:
    """A claimed task: a context manager that keeps the task's token alive. Methods may raise ``httpx.HTTPError``.

    Attributes:
        lost: True if the SuperNode no longer knows the token, so an answer would be lost.
    """

    def __init__(self, address: str, token: str) -> None:
        self._client = _client(address, "flwr-clientapp", RuntimeTokenHttpInterceptor(token))
        self._heartbeat = HeartbeatSender(self._beat)
        self._finished = False
        self.lost = False

    def __enter__(self) -> FlowerTask:
        self._heartbeat.start()
        return self

    def fetch(self) -> tuple[Message, Context]:
        """Return the message to answer, and Flower's context.

        Works like Flower's ``pull_task_input``, which waits up to two hours for a message's objects. A malformed object
        raises the decoder's error.
        """
        task_input = self._client.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = task_input.task_id, task_input.run.run_id
        TaskIdentity.node_id = task_input.context.node_id
        context = context_from_proto(task_input.context)
        tree = self._client.PullMessages(PullAppMessagesRequest()).message_object_trees[0]
        node, client = Node(node_id=context.node_id), self._client
        message = pull_and_inflate_object_from_tree(
            tree,
            make_pull_object_fn_protobuf(client.PullObject, node, context.run_id),
            make_confirm_message_received_fn_protobuf(client.ConfirmMessageReceived, node, context.run_id),
            return_type=Message,
            max_time=_OBJECTS_S,
            max_tries_per_object=None,
            initial_backoff=0.03,
            backoff_cap=0.2,
        )
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message, context

    def answer(self, reply: Message, context: Context) -> None:
        """Hand the reply to the SuperNode, and end the task."""
        push_message(self._client, reply, context)
        push_task_output(self._client, context, SubStatus.COMPLETED, "")
        self._finished = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._finished and not self.lost:
            push_task_output(self._client, None, SubStatus.FAILED, "not answered")
        if self._heartbeat.is_running:
            self._heartbeat.stop()
        self._client.close()

    def _beat(self) -> bool:
        """Send a heartbeat. Flower's own function ends the process after a lost token; an agent outlives its tasks."""
        try:
            self.lost = not self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
        except httpx.HTTPStatusError as error:
            self.lost = error.response.is_client_error
            return self.lost
        except httpx.HTTPError:
            return False
        return True


def _client(address: str, component: str, auth: ProtobufClientInterceptor) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name=component), auth],
    )
