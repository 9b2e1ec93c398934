"""The worker on a SuperNode's real runtime interface and state, in this process and on loopback."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app.metadata import Metadata
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.supercore.constant import TaskType
from flwr.supercore.fab import Fab
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.run import Run
from flwr.supernode.main import create_app
from flwr.supernode.nodestate import NodeStateFactory

from coreason_enclave.errors import JobRejected, Reason
from coreason_enclave.federation.flower import REFUSED, client_app
from coreason_enclave.federation.flower import worker as worker_module
from coreason_enclave.federation.flower.worker import Worker
from coreason_enclave.wire.handler import AnswersByMethod
from coreason_enclave.wire.updates import WIRE_RECORD, SealedMessage
from tests.support.gatekeeping import wait_until

SECRET = bytes(range(32))
RUN, NODE = 17, 4711
ORDER = SealedMessage(b"an order", b"base" * 10_000, b"roll-call")
ANSWER = SealedMessage(b"an update", b"weights" * 10_000)


class Node:
    """A SuperNode without its connection: its state, and its runtime interface behind the shared secret."""

    def __init__(self) -> None:
        objects = ObjectStoreFactory()
        factory = NodeStateFactory(objectstore_factory=objects)
        self.state, self.store = factory.state(), objects.store()
        self.state.set_node_id(NODE)
        run = Run.create_empty(RUN)
        self._fab = self.state.store_fab(Fab("", b"never unpacked", {}))
        run.fab_hash = self._fab
        self.state.store_run(run)
        context = Context(run_id=RUN, node_id=NODE, node_config={}, state=RecordDict(), run_config={})
        self.state.set_run_series_context(run.series_id, context)
        self._app = create_app(state_factory=factory, superexec_auth_secret=SECRET)
        self.address: str | None = None

    def receive(self, kind: str, sealed: SealedMessage = ORDER) -> str:
        """A message that came from the SuperLink, whole; returns its id."""
        content = RecordDict({WIRE_RECORD: ConfigRecord({**sealed.to_fields()})})
        return self.receive_content(kind, content)

    def receive_content(self, kind: str, content: RecordDict) -> str:
        metadata = Metadata(RUN, "", 0, NODE, "", "1", time.time(), 600.0, kind)
        message = Message(metadata=metadata, content=content)
        message.metadata.__dict__["_message_id"] = message.object_id
        assert self.state.create_task(task_type=TaskType.CLIENT_APP, run_id=RUN, fab_hash=self._fab) is not None
        self.store.preregister(RUN, get_object_tree(message))
        for object_id, part in get_all_nested_objects(message).items():
            self.store.put(object_id, part.deflate())
        self.state.store_message(message)
        return str(message.metadata.message_id)

    def reply(self) -> Any:
        """The reply that the SuperNode would send on now, or None; its content is in the store."""
        replies = self.state.get_messages_legacy(is_reply=True)
        return replies[0] if replies else None

    def content(self, reply: Any) -> SealedMessage:
        from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
        from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

        root = reply.metadata.message_id
        tree = self.store.get_object_tree(root)
        parts = {node.object_id: self.store.get(node.object_id) for node in iterate_object_tree(tree)}
        whole: Any = inflate_object_from_contents(root, parts)
        return SealedMessage.from_fields(whole.content.config_records[WIRE_RECORD])

    @contextmanager
    def serving(self) -> Iterator[None]:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(self._app, log_level="error", lifespan="off", ws="none"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            wait_until(lambda: server.started, what="the runtime interface serves")
            self.address = f"127.0.0.1:{listener.getsockname()[1]}"
            try:
                yield
            finally:
                self.address = None
                server.should_exit = True
                thread.join()


@dataclass
class Handler(AnswersByMethod):
    """Answers with :data:`ANSWER`, or as it is told."""

    act: Callable[[SealedMessage], SealedMessage] = lambda message: ANSWER
    heard: list[tuple[str, SealedMessage]] = field(default_factory=list)

    def run(self, message: SealedMessage) -> SealedMessage:
        self.heard.append(("run", message))
        return self.act(message)

    def enrol(self, message: SealedMessage) -> SealedMessage:
        self.heard.append(("enrol", message))
        return self.act(message)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setitem(os.environ, "NO_PROXY", "*")
    node = Node()
    with node.serving():
        yield node


@pytest.fixture
def handler() -> Handler:
    return Handler()


@contextmanager
def working(node: Node, app: ClientApp, secret: bytes = SECRET, **changes: Any) -> Iterator[tuple[Worker, list[str]]]:
    outcomes: list[str] = []
    worker = Worker(
        app=app,
        address=lambda: node.address,
        secret=secret,
        stop=threading.Event(),
        report=outcomes.append,
        **changes,
    )
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker, outcomes
    finally:
        worker.stop.set()
        worker.arrived.set()
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize(("kind", "act"), [("train", "run"), ("query.enrol", "enrol")])
def test_a_message_is_answered_by_the_handler(node: Node, handler: Handler, kind: str, act: str) -> None:
    asked = node.receive(kind)
    with working(node, client_app(handler)) as (_, outcomes):
        reply = wait_until(node.reply, what="there is a reply")
        wait_until(lambda: outcomes, what="the task ended")

    assert handler.heard == [(act, ORDER)]
    assert reply.metadata.reply_to_message_id == asked
    assert node.content(reply) == ANSWER
    assert outcomes == ["answered"]


def test_a_refusal_is_answered_with_its_reason_code(node: Node, handler: Handler) -> None:
    def refuse(message: SealedMessage) -> SealedMessage:
        raise JobRejected("row 17 says so", reason=Reason.POLICY)

    handler.act = refuse
    node.receive("train")
    with working(node, client_app(handler)):
        reply = wait_until(node.reply, what="there is a reply")

    assert (reply.error.code, reply.error.reason) == (REFUSED, "policy")


def test_an_app_that_fails_says_no_word_of_why(node: Node, handler: Handler) -> None:
    def fail(message: SealedMessage) -> SealedMessage:
        raise ZeroDivisionError("patient p007")

    handler.act = fail
    node.receive("train")
    with working(node, client_app(handler)):
        reply = wait_until(node.reply, what="there is a reply")

    assert (reply.error.code, reply.error.reason) == (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "internal")


def test_a_message_without_a_sealed_order_is_refused_and_the_next_is_answered(node: Node, handler: Handler) -> None:
    node.receive_content("train", RecordDict({"other": ConfigRecord({"a": 1})}))
    with working(node, client_app(handler)) as (worker, outcomes):
        reply = wait_until(node.reply, what="there is a reply")
        assert (reply.error.code, reply.error.reason) == (REFUSED, "malformed")
        node.receive("train")
        worker.arrived.set()
        wait_until(lambda: len(outcomes) == 2, what="the second is answered")

    assert handler.heard == [("run", ORDER)]


def test_a_type_of_message_that_nobody_registered_is_an_error_and_the_worker_goes_on(
    node: Node, handler: Handler
) -> None:
    node.receive("evaluate")
    with working(node, client_app(handler)):
        reply = wait_until(node.reply, what="there is a reply")

    assert (reply.error.code, reply.error.reason) == (ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "internal")
    assert handler.heard == []


def test_whoever_does_not_know_the_secret_gets_no_task(node: Node, handler: Handler) -> None:
    node.receive("train")
    with working(node, client_app(handler), secret=bytes(32)) as (worker, _):
        wait_until(lambda: worker._source is None and worker._address is None, what="it was turned away")
    with working(node, client_app(handler)):
        wait_until(node.reply, what="the right secret gets the task")


def test_a_supernode_that_comes_back_elsewhere_is_found(handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "IDLE_POLL_S", 0.05)
    node = Node()
    with working(node, client_app(handler)) as (_, outcomes):
        for number in (1, 2):
            with node.serving():
                node.receive("train")
                wait_until(lambda number=number: len(outcomes) == number, what="it is answered")

    assert outcomes == ["answered", "answered"]


def test_a_sign_that_a_message_came_wakes_an_idle_worker_at_once(
    node: Node, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "IDLE_POLL_S", 3600.0)
    idle = _Idle()
    with working(node, client_app(handler), arrived=idle) as (_, outcomes):
        wait_until(idle.waited.is_set, what="it has looked once, and rests")
        node.receive("train")
        idle.set()
        wait_until(lambda: outcomes, what="it is answered")


def test_a_message_that_was_given_up_on_its_way_does_not_keep_the_next_one_waiting(
    node: Node, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its run ended while the SuperNode fetched it: the task stays, the rest of the message never comes."""
    monkeypatch.setattr("coreason_enclave.federation.flower.tasks._OBJECTS_S", 0.2)
    put, node.store.put = node.store.put, lambda object_id, content: None  # type: ignore[method-assign]
    node.receive("train")
    node.store.put = put  # type: ignore[method-assign]
    whole = node.receive("query.enrol")
    with working(node, client_app(handler)) as (_, outcomes):
        wait_until(lambda: len(outcomes) == 2, what="both tasks ended")
        reply = node.reply()

    assert outcomes == ["failed", "answered"]
    assert reply.metadata.reply_to_message_id == whole


class _Idle(threading.Event):
    """Tells when somebody begins to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.set()
        return super().wait(timeout)


def test_a_worker_that_is_stopped_while_it_answers_hands_nothing_back(node: Node, handler: Handler) -> None:
    """So that the coordinator asks again, and the next agent answers: nothing is lost by ending one."""
    with working(node, client_app(handler)) as (worker, outcomes):

        def end_meanwhile(message: SealedMessage) -> SealedMessage:
            worker.stop.set()
            return ANSWER

        handler.act = end_meanwhile
        node.receive("train")
        worker.arrived.set()
        wait_until(lambda: outcomes, what="it noticed")

    assert outcomes == ["abandoned"]
    assert node.reply() is None


def test_a_tasks_token_is_kept_alive_while_it_is_answered(node: Node, handler: Handler) -> None:
    beats: list[int] = []
    acknowledge = node.state.acknowledge_task_heartbeat

    def noted(task_id: int) -> bool:
        beats.append(task_id)
        return bool(acknowledge(task_id))

    node.state.acknowledge_task_heartbeat = noted  # type: ignore[method-assign]

    def slowly(message: SealedMessage) -> SealedMessage:
        wait_until(lambda: beats, what="a heartbeat came")
        return ANSWER

    handler.act = slowly
    node.receive("train")
    with working(node, client_app(handler)):
        wait_until(node.reply, what="there is a reply")
