"""Serial handling of messages from every transport: one at a time, with log lines free of data."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.errors import EnclaveError, Reason, TrainingAborted
from coreason_enclave.wire.handler import Aborted, Handler, never
from coreason_enclave.wire.updates import SealedMessage

__all__ = ["Answers", "OverridingHandler", "SerialHandler", "StoppableHandler"]

_Answer = TypeVar("_Answer")


class Answers(Protocol):
    """The answers that a round needs; a simulated hostile site replaces them."""

    def run(self, message: SealedMessage) -> SealedMessage:
        """Answer an order."""
        ...

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Answer an invitation."""
        ...

    def attest(self, message: SealedMessage) -> SealedMessage:
        """Answer a challenge."""
        ...


class StoppableHandler:
    """A session that gives up between two steps once ``stop`` is set; repeating the order spends no further budget."""

    def __init__(self, session: Handler, stop: threading.Event) -> None:
        self._session, self._stop = session, stop

    def run(self, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage:
        """See :class:`Handler`."""
        return self._session.run(message, aborted=lambda: self._stop.is_set() or aborted())

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._session.enrol(message)

    def attest(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._session.attest(message)

    def witness(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._session.witness(message)

    def validate(self, message: SealedMessage) -> None:
        """See :class:`Handler`."""
        self._session.validate(message)

    def submit(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._session.submit(message)


class OverridingHandler:
    """Delegates orders, invitations and challenges to ``handler``, and all other messages to ``session``."""

    def __init__(self, session: Handler, handler: Answers) -> None:
        self._session, self._handler = session, handler

    def run(self, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage:
        """See :class:`Handler`; the overriding handler never gives up."""
        del aborted
        return self._handler.run(message)

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._handler.enrol(message)

    def attest(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._handler.attest(message)

    def witness(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._session.witness(message)

    def validate(self, message: SealedMessage) -> None:
        """See :class:`Handler`."""
        self._session.validate(message)

    def submit(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._session.submit(message)


class SerialHandler:
    """Lets one message in at a time, counts outcomes, and logs them without data.

    Attributes:
        busy: True while an answer is in progress.
        last_active: monotonic seconds of the latest start or end of an answer, or None.
    """

    def __init__(self, handler: Handler, log: AgentLog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._handler, self._log, self._clock = handler, log, clock
        self._turn = threading.Lock()
        self.busy = False
        self.last_active: float | None = None
        self.answered = 0
        self.refused = 0

    def run(self, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage:
        """See :class:`Handler`. An order does not start if its caller gave up before the order's turn."""

        def begun() -> SealedMessage:
            if aborted():
                raise TrainingAborted("whoever asked gave up before its turn came")
            return self._handler.run(message, aborted=aborted)

        return self._in_turn("order", begun)

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._in_turn("invitation", lambda: self._handler.enrol(message))

    def attest(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._in_turn("challenge", lambda: self._handler.attest(message))

    def witness(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._in_turn("announcement", lambda: self._handler.witness(message))

    def validate(self, message: SealedMessage) -> None:
        """See :class:`Handler`."""
        self._in_turn("validation", lambda: self._handler.validate(message))

    def submit(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._in_turn("submission", lambda: self._handler.submit(message))

    def _in_turn(self, kind: str, act: Callable[[], _Answer]) -> _Answer:
        with self._turn:
            self.busy, self.last_active, started = True, self._clock(), self._clock()
            try:
                answer = act()
            except EnclaveError as refusal:
                self._refuse(kind, refusal.reason)
                raise
            except Exception as error:  # noqa: BLE001 - its text may hold a row, so neither log nor caller may get it
                self._refuse(kind, Reason.INTERNAL, failure=type(error).__name__)
                raise EnclaveError(f"{type(error).__name__} while answering", reason=Reason.INTERNAL) from None
            else:
                self.answered += 1
                self._log.say(kind, outcome="answered", seconds=round(self._clock() - started, 3))
                return answer
            finally:
                self.busy, self.last_active = False, self._clock()

    def _refuse(self, kind: str, reason: Reason, **more: str) -> None:
        self.refused += 1
        self._log.say(kind, outcome="refused", reason=reason.value, **more)
