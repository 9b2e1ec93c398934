"""The port behind every transport at a site: sealed bytes in, sealed bytes out, or a refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from coreason_enclave.wire.updates import SealedMessage

__all__ = ["Aborted", "Handler", "never"]

Aborted = Callable[[], bool]
"""Called between two steps; returns True to give up the training."""


def never() -> bool:
    """Return False: training is never given up."""
    return False


class Handler(Protocol):
    """Answers sealed orders, invitations and challenges. Raises :class:`EnclaveError` to refuse.

    The session implements this protocol, and so does every layer between the session and a transport.
    """

    def run(self, message: SealedMessage, *, aborted: Aborted = never) -> SealedMessage:
        """Answer an order with an update.

        If ``aborted`` ends the training between two steps, the coordinator asks again later, at no further charge.
        """
        ...

    def enrol(self, message: SealedMessage) -> SealedMessage:
        """Answer an invitation with an enrolment."""
        ...

    def attest(self, message: SealedMessage) -> SealedMessage:
        """Answer a challenge with evidence."""
        ...

    def witness(self, message: SealedMessage) -> SealedMessage:
        """Answer the announcement that a run has ended with this site's checkpoints of the run's log."""
        ...

    def validate(self, message: SealedMessage) -> None:
        """Evaluate an order's model on the site's own rows, for the site only; return no answer."""
        ...

    def submit(self, message: SealedMessage) -> SealedMessage:
        """Answer an order with the update released earlier for the same order; never compute one."""
        ...
