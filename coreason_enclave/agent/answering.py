"""One order at a time, whichever way it came in; and what may be told about it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.errors import EnclaveError, Reason
from coreason_enclave.updates import SealedMessage

__all__ = ["Answering", "Handler", "Stoppable"]

_Act = Callable[[SealedMessage], SealedMessage]


class Handler(Protocol):
    """Answers sealed orders, invitations and challenges. Raises :class:`EnclaveError` to refuse."""

    def run(self, message: SealedMessage) -> SealedMessage:
        """Answer an order with an update."""
        ...

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Answer an invitation with an enrolment."""
        ...

    def attest(self, message: SealedMessage) -> SealedMessage:
        """Answer a challenge with evidence."""
        ...


class _AbortableRun(Protocol):
    def run(self, message: SealedMessage, *, aborted: Callable[[], bool] = ...) -> SealedMessage: ...

    def enrol(self, message: SealedMessage) -> SealedMessage: ...

    def attest(self, message: SealedMessage) -> SealedMessage: ...


class Stoppable:
    """A session that gives up between two steps once ``stop`` is set; asked again later, it spends nothing anew."""

    def __init__(self, session: _AbortableRun, stop: threading.Event) -> None:
        self._session, self._stop = session, stop

    def run(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._session.run(message, aborted=self._stop.is_set)

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._session.enrol(message)

    def attest(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._session.attest(message)


class Answering:
    """Lets one message in at a time, counts, and logs outcomes without data.

    Attributes:
        busy: an order is being answered now.
        last_active: monotonic seconds when a message was last taken in or answered, or None.
    """

    def __init__(self, handler: Handler, log: AgentLog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._handler, self._log, self._clock = handler, log, clock
        self._turn = threading.Lock()
        self.busy = False
        self.last_active: float | None = None
        self.answered = 0
        self.refused = 0

    def run(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._in_turn("order", self._handler.run, message)

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._in_turn("invitation", self._handler.enrol, message)

    def attest(self, message: SealedMessage) -> SealedMessage:
        """See :class:`Handler`."""
        return self._in_turn("challenge", self._handler.attest, message)

    def _in_turn(self, kind: str, act: _Act, message: SealedMessage) -> SealedMessage:
        with self._turn:
            self.busy, self.last_active, started = True, self._clock(), self._clock()
            try:
                answer = act(message)
            except EnclaveError as refusal:
                self._refuse(kind, refusal.reason)
                raise
            except Exception as error:  # its text may hold a row: neither the log nor the caller gets it
                self._refuse(kind, Reason.INTERNAL, failure=type(error).__name__)
                raise EnclaveError(f"{type(error).__name__} while answering", reason=Reason.INTERNAL) from error
            else:
                self.answered += 1
                self._log.say(kind, outcome="answered", seconds=round(self._clock() - started, 3))
                return answer
            finally:
                self.busy, self.last_active = False, self._clock()

    def _refuse(self, kind: str, reason: Reason, **more: str) -> None:
        self.refused += 1
        self._log.say(kind, outcome="refused", reason=reason.value, **more)
