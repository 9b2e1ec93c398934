"""Serial handling of messages from every transport: one at a time, with log lines free of data."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from coreason_enclave.agent.logs import AgentLog
from coreason_enclave.errors import EnclaveError, Reason, TrainingAborted
from coreason_enclave.wire import Aborted, Handler, RequestKind, SealedMessage, never

_EVENTS = {
    RequestKind.TRAIN: "order",
    RequestKind.ENROL: "invitation",
    RequestKind.ATTEST: "challenge",
    RequestKind.WITNESS: "announcement",
    RequestKind.VALIDATE: "validation",
    RequestKind.SUBMIT: "submission",
}
_OVERRIDDEN = (RequestKind.TRAIN, RequestKind.ENROL, RequestKind.ATTEST)


class StoppableHandler:
    """A session that gives up between two steps once ``stop`` is set; repeating the order spends no further budget."""

    def __init__(self, session: Handler, stop: threading.Event) -> None:
        self._session, self._stop = session, stop

    def handle(self, kind: RequestKind, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage | None:
        """See :class:`Handler`."""
        return self._session.handle(kind, message, aborted=lambda: self._stop.is_set() or aborted())


class OverridingHandler:
    """Delegates orders, invitations and challenges to ``handler``, and all other messages to ``session``."""

    def __init__(self, session: Handler, handler: Handler) -> None:
        self._session, self._handler = session, handler

    def handle(self, kind: RequestKind, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage | None:
        """See :class:`Handler`."""
        chosen = self._handler if kind in _OVERRIDDEN else self._session
        return chosen.handle(kind, message, aborted=aborted)


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

    def handle(self, kind: RequestKind, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage | None:
        """See :class:`Handler`. A request does not start if its caller gave up before the request's turn."""
        with self._turn:
            self.busy, self.last_active, started = True, self._clock(), self._clock()
            try:
                if aborted():
                    raise TrainingAborted("the caller gave up while its request waited")
                answer = self._handler.handle(kind, message, aborted=aborted)
            except EnclaveError as refusal:
                self._refuse(kind, refusal.reason)
                raise
            except Exception as error:  # noqa: BLE001 - its text may hold a row, so neither log nor caller may get it
                self._refuse(kind, Reason.INTERNAL, failure=type(error).__name__)
                raise EnclaveError(f"{type(error).__name__} while answering", reason=Reason.INTERNAL) from None
            else:
                self.answered += 1
                self._log.say(_EVENTS[kind], outcome="answered", seconds=round(self._clock() - started, 3))
                return answer
            finally:
                self.busy, self.last_active = False, self._clock()

    def _refuse(self, kind: RequestKind, reason: Reason, **more: str) -> None:
        self.refused += 1
        self._log.say(_EVENTS[kind], outcome="refused", reason=reason.value, **more)
