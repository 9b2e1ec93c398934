"""The agent's own hands on its SuperNode: take a task, let the ``ClientApp`` answer it, hand the answer back."""

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

__all__ = ["Worker"]

POLL_S = 0.05
IDLE_POLL_S = 20.0
ATTENTIVE_S = 3.0
"""After a sign that a whole message came, poll at short intervals for so long. Otherwise hardly at all: it costs the
site's cores, and a task that is taken before its message is whole may be one whose message never will be."""


@dataclass
class Worker:
    """Answers one SuperNode's tasks, one at a time, for ever: run :meth:`run` in a thread of its own.

    Attributes:
        address: ``host:port`` of the SuperNode's runtime interface now, or None while there is none.
        secret: what the SuperNode reads from its ``--superexec-auth-secret-file``.
        stop: set to end. An order that is being answered is then given up without a reply, so that it is asked again.
        arrived: set by whoever sees that a message came in.
        report: is told what happened, in words without data: ``answered``, ``abandoned``, ``unreachable``, ``failed``.
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
        """Until ``stop``. Nothing that a SuperNode does ends it."""
        while not self.stop.is_set():
            try:
                answered = self._answer_one()
            except Exception:  # noqa: BLE001 - whatever the SuperNode sent or did, the next one is asked
                self._forget()
                answered = False
            if not answered:
                self._wait()
        self._forget()

    def _answer_one(self) -> bool:
        """Whether there was a task."""
        source = self._reach()
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
        except Exception:  # noqa: BLE001 - a message that cannot be read is one task lost, not the agent
            return "failed"
        return "answered"

    def _reply(self, message: Message, context: Context) -> Message:
        try:
            return self.app(message, context)
        except Exception:  # noqa: BLE001 - its text may hold a row; the coordinator learns that it failed
            return Message(error=Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason="internal"), reply_to=message)

    def _reach(self) -> TaskSource | None:
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
        """A SuperNode receives no further message before it has sent this one's answer: this is what arrived."""
        self.arrived.clear()
        self._attentive_until = 0.0

    def _wait(self) -> None:
        if self.clock() < self._attentive_until:
            self.stop.wait(POLL_S)
            return
        if self.arrived.wait(IDLE_POLL_S):
            self.arrived.clear()
            self._attentive_until = self.clock() + ATTENTIVE_S
