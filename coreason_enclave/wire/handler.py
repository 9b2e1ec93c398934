"""The port behind every transport at a site: sealed bytes in, sealed bytes out, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from coreason_enclave.wire.updates import SealedMessage

Aborted = Callable[[], bool]
"""Called between two steps; returns True to give up the training."""


def never() -> bool:
    """Return False: training is never given up."""
    return False


class RequestKind(StrEnum):
    """The kind of request that a message makes to a site."""

    TRAIN = "train"
    """An order; the site answers with an update."""
    ENROL = "enrol"
    """An invitation; the site answers with an enrolment."""
    ATTEST = "attest"
    """A challenge; the site answers with evidence."""
    WITNESS = "witness"
    """The announcement that a run has ended; the site answers with its checkpoints of the run's log."""
    VALIDATE = "validate"
    """An order, to be evaluated on the site's own rows for the site only; no answer."""
    SUBMIT = "submit"
    """An order; the site answers with the update released earlier for the same order, and never computes one."""


class Handler(Protocol):
    """Answers sealed requests. The session implements this protocol, and so does every layer above the session."""

    def handle(self, kind: RequestKind, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage | None:
        """Return the answer to ``message``; None only for ``VALIDATE``.

        Args:
            aborted: ends a training between two steps; the coordinator asks again later, at no further charge.

        Raises:
            EnclaveError: a refusal; its ``reason`` may go to the coordinator, its message stays at the site.
        """
        ...


class AnswersByMethod:
    """Base of a handler that answers each kind of request by a method of its own.

    ``TRAIN`` calls ``run``; every other kind calls the method of the same name.
    """

    def handle(self, kind: RequestKind, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage | None:
        """See :class:`Handler`; the method that answers cannot be aborted."""
        del aborted
        answer: SealedMessage | None = getattr(self, "run" if kind is RequestKind.TRAIN else kind.value)(message)
        return answer
