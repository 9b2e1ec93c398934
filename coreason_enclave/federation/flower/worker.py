"""The worker that takes a SuperNode's tasks, has the ``ClientApp`` answer them, and returns the answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx
from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from coreason_enclave.federation.flower.tasks import FlowerTask, TaskSource

POLL_S = 0.05
IDLE_POLL_S = 20.0
ATTENTIVE_S = 3.0
"""Seconds of frequent polling after a sign that a whole message arrived. Otherwise the worker polls rarely: polling
costs the site's cores, and a task taken before its message is whole may never receive the rest."""


@dataclass
class Worker:
    """Answers one SuperNode's tasks, one at a time. Start :meth:`run` in a thread of its own.

    Attributes:
        address: returns ``host:port`` of the SuperNode's runtime interface, or None while the SuperNode is down.
        secret: content of the SuperNode's ``--superexec-auth-secret-file``.
        stop: set to end the worker. A task in progress is then abandoned without a reply, and the coordinator retries.
        arrived: set by the agent part that sees an incoming message.
        report: called with the outcome of each task, without data: ``answered``, ``abandoned``, ``unreachable``,
            ``failed``.
    """

    app: ClientApp
    address: Callable[[], str | None]
    secret: bytes
    stop: threading.Event
    arrived: threading.Event = field(default_factory=threading.Event)
    report: Callable[[str], None] = lambda outcome: None
    clock: Callable[[], float] = time.monotonic
    _source: TaskSource | None = field(default=None, init=False)
    _address: str | None = field(default=None, init=False)
    _attentive_until: float = field(default=0.0, init=False)

    def run(self) -> None:
        """Answer tasks until ``stop`` is set, whatever the SuperNode does."""
        while not self.stop.is_set():
            try:
                answered = self._answer_one()
            except Exception:  # noqa: BLE001 - no fault of a SuperNode may end the worker
                self._forget()
                answered = False
            if not answered:
                self._wait()
        self._forget()

    def _answer_one(self) -> bool:
        """Answer one task; return False if no task waits."""
        source = self._connect()
        task = None if source is None else source.acquire()
        if task is None:
            return False
        with task:
            self.report(self._answer(task))
        return True

    def _answer(self, task: FlowerTask) -> str:
        try:
            message, context = task.fetch()
            self._relax()
            reply = self._reply(message, context)
            if self.stop.is_set() or task.lost:
                return "abandoned"
            task.answer(reply, context)
        except httpx.HTTPError:
            return "unreachable"
        except Exception:  # noqa: BLE001 - an unreadable message costs one task, not the agent
            return "failed"
        return "answered"

    def _reply(self, message: Message, context: Context) -> Message:
        try:
            return self.app(message, context)
        except Exception:  # noqa: BLE001 - the text may hold a row; the coordinator learns only of a failure
            return Message(error=Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason="internal"), reply_to=message)

    def _connect(self) -> TaskSource | None:
        address = self.address()
        if address != self._address:
            self._forget()
        if self._source is None and address is not None:
            self._source, self._address = TaskSource(address, self.secret), address
        return self._source

    def _forget(self) -> None:
        if self._source is not None:
            self._source.close()
        self._source, self._address = None, None

    def _relax(self) -> None:
        """Stop the frequent polling.

        A SuperNode receives no further message before its answer, so the fetched message explains the arrival signal.
        """
        self.arrived.clear()
        self._attentive_until = 0.0

    def _wait(self) -> None:
        if self.clock() < self._attentive_until:
            self.stop.wait(POLL_S)
            return
        if self.arrived.wait(IDLE_POLL_S):
            self.arrived.clear()
            self._attentive_until = self.clock() + ATTENTIVE_S
